"""fpn evaluate of maps and polygons.

fpn evaluate without a model: a predicted map against the truth, each of them label files or polygons.

Label files against label files are compared pixel by pixel, polygons against polygons object by object, label files
against polygons in both ways.

fpn evaluate of two vector files: which of the true polygons were found.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torchfpn.cli.options import accept_old_spelling, add_without_class, of_one_layer, once, refuse_unused
from torchfpn.errors import amount

if TYPE_CHECKING:
    from torchfpn.errors import DataError
    from torchfpn.evaluation.maps import PixelScores
    from torchfpn.evaluation.objects import Layer, ObjectComparison
    from torchfpn.vector.objects import Objects


LOSSY = {".jpg", ".jpeg"}

PICTURES = {*LOSSY, ".webp", ".bmp", ".gif", ".jp2"}  # whose pixels are no label values, or are not read as such

UNMET = "{}: no polygon of the evaluated classes overlaps {}; check their coordinate systems"

NO_POLYGON = "no polygon is of the class {}; its pixels count as background"

Kind = Literal["labels", "polygons"]

Scored = tuple[dict[str, Any], list[str]]  # plain values for JSON, lines for people


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of maps."""
    group = parser.add_argument_group("predicted maps")
    group.add_argument(
        "--classes",
        metavar="A,B",
        help="label files: names of the values 0, 1 ..., or 0=A,255=B; polygons: classes to evaluate; both: either",
    )
    group.add_argument("--ignore", metavar="0,255", help="label values of pixels without a label; default 255")
    group.add_argument("--iou", type=float, default=0.5, metavar="SHARE", help="lowest IoU of a match")
    area = group.add_argument(
        "--min-area", type=float, default=0.0, metavar="M2", help="smallest object, in square metres on the ground"
    )
    accept_old_spelling(group, "--least", area)
    group.add_argument("--field", metavar="NAME", help='attribute with the class; default "class", if it is there')
    add_without_class(group)
    group.add_argument("--truth-field", metavar="NAME", help="the same for the truth, if its name differs")
    score = group.add_argument(
        "--score-field", metavar="NAME", help='attribute with the score of a prediction; default "score"'
    )
    accept_old_spelling(group, "--score", score)
    group.add_argument("--within", metavar="FILE", help="polygons or rasters: area of the evaluation")
    group.add_argument("--layer", metavar="NAME", help="layer of a GeoPackage with several")
    group.add_argument("--truth-layer", metavar="NAME", help="the same for the truth, if its name differs")
    group.add_argument("--assume-crs", metavar="EPSG:N", help="coordinate system of files without one")
    group.add_argument(
        "--max-side", type=int, default=2**20, metavar="N", help="largest height or width of a label file"
    )
    group.add_argument(
        "--tiles", metavar="PATTERN", help='pattern of tile paths, for rasters without a georeference: "{z}/{x}/{y}"'
    )


def kind_of(path: Path) -> Kind | None:
    """What kind of map a file or the files of a folder are, told by their names; None for none."""
    from torchfpn.io.formats import is_vector
    from torchfpn.sources.labels import KINDS

    names = sorted(child.name for child in path.iterdir()) if path.is_dir() else [path.name]
    if any(is_vector(name) for name in names):
        return "polygons"
    return "labels" if any(name.lower().endswith((*KINDS, ".vrt")) for name in names) else None


def is_map(args: argparse.Namespace) -> bool:
    """Whether the first word is a map and not a model.

    Raises:
        DataError: it is a picture or a folder, which no model is, without labels or polygons.
    """
    if args.model.suffix.lower() == ".safetensors":
        return False
    found = kind_of(args.model)
    if found is None and (args.model.is_dir() or args.model.suffix.lower() in PICTURES):
        raise no_map(args.model)
    if (args.dataset / "dataset.yaml").is_file():
        return False
    return found is not None or (not args.dataset.is_dir() and kind_of(args.dataset) is not None)


def no_map(path: Path) -> "DataError":
    """The error about a file or a folder that holds neither label files nor polygons."""
    from torchfpn.errors import DataError

    names = [child.name for child in path.iterdir() if child.is_file()] if path.is_dir() else [path.name]
    endings = sorted({Path(name).suffix.lower() for name in names if not name.startswith(".")} - {""})
    found = "neither label files nor polygons"
    if path.is_dir():
        count = amount(len(names), "file")
        found += f" ({count}: {', '.join(endings[:6])})" if endings else " (no file)" if not names else f" ({count})"
    lossy = bool(LOSSY & set(endings))
    hint = "JPEG changes the values it stores: write the labels as PNG or TIFF" if lossy else None
    return DataError(
        found, file=path, allowed="PNG or TIFF label files, polygons, or a folder of one of them", hint=hint
    )


def score(args: argparse.Namespace) -> Scored:
    """The scores of a map against the truth.

    Raises:
        ConfigError: flags or files that do not go together. DataError: files that cannot be used.
    """
    from torchfpn.errors import ConfigError

    if not 0 < args.iou <= 1:
        raise ConfigError(f"{args.iou}", field="--iou", allowed="more than 0, up to 1")
    if not args.min_area >= 0:
        raise ConfigError(f"{args.min_area}", field="--min-area", allowed="square metres from 0")
    found, truth = kind_of(args.model), kind_of(args.dataset)
    if found is None or truth is None:
        raise no_map(args.dataset if found else args.model)
    if (found, truth) != ("polygons", "labels"):
        kind = (
            f"{'label files' if found == 'labels' else found} against {'label files' if truth == 'labels' else truth}"
        )
        refuse_unused(args, "evaluate", "polygons within an area" if args.within and found == "polygons" else kind)
    if found == "labels":
        return _labels_against_labels(args) if truth == "labels" else _labels_against_polygons(args)
    if truth == "labels":
        raise ConfigError("polygons against label files", file=args.model, hint="give the label files first")

    return polygons_against_polygons(args)


def read_layer(args: argparse.Namespace, file: Path, *, truth: bool) -> "Objects":
    """The objects of one of the two files."""
    from torchfpn.geo.crs import crs_wkt
    from torchfpn.vector.objects import read_objects

    field = args.truth_field if truth and args.truth_field is not None else args.field
    layer = args.truth_layer if truth and args.truth_layer is not None else args.layer
    crs = crs_wkt(args.assume_crs) if args.assume_crs else None
    score = "" if truth else args.score_field
    options = {"field": field, "score": score, "layer": layer, "assume_crs": crs}
    return read_objects(file, **options, skip_unclassed=args.without_class == "skip")


def listed(text: str | None) -> list[str]:
    """Words between commas."""
    return [word.strip() for word in text.split(",")] if text else []


def wanted(text: str | None) -> list[str]:
    """Names of classes between commas, each once.

    Raises:
        ConfigError: one is empty or there twice.
    """
    return once(listed(text), "--classes")


def named_values(text: str | None) -> dict[int, str]:
    """Value -> name of "land,water" (the values 0, 1, ...) or "0=land,255=water".

    Raises:
        ConfigError: a value that is no number, or twice.
    """
    from torchfpn.errors import ConfigError

    words = listed(text)
    if not any("=" in word for word in words):
        return dict(enumerate(once(words, "--classes")))
    pairs = [word.partition("=")[::2] for word in words]
    if not all(value.strip().isdecimal() and name.strip() for value, name in pairs):
        raise ConfigError(f'"{text}"', field="--classes", allowed="names of 0, 1, ..., or 0=land,255=water")
    named = {int(value): name.strip() for value, name in pairs}
    if len(named) < len(pairs):
        raise ConfigError(f'a value twice in "{text}"', field="--classes")
    once(list(named.values()), "--classes")
    return named


def ignored_values(text: str | None) -> list[int] | None:
    """The numbers of "0,255"; None for None.

    Raises:
        ConfigError: something else.
    """
    from torchfpn.errors import ConfigError

    words = listed(text)
    if not all(word.isdecimal() for word in words):
        raise ConfigError(f'"{text}"', field="--ignore", allowed="whole numbers with commas between them")
    return [int(word) for word in words] if text is not None else None


def described(layer: "Objects") -> str:
    """A line about a vector file: how many features, and what was not as it should be."""
    from torchfpn.io.formats import printable

    words = [amount(layer.features, "feature")]
    if layer.mended:
        words.append(f"{layer.mended:,} with invalid rings, repaired")
    if layer.lost:
        words.append(f"{layer.lost:,} without an area, left out")
    if layer.unclassed:
        words.append(f"{layer.unclassed:,} without a class, left out")
    return f"{printable(layer.file)}  {', '.join(words)}"


def _labels_against_labels(args: argparse.Namespace) -> Scored:
    from torchfpn.cli.console import progress
    from torchfpn.errors import amount
    from torchfpn.evaluation.maps import LabelPairs, pixel_scores

    files, left = _paired(args.model, args.dataset)
    pairs = LabelPairs()
    with progress("comparing", len(files)) as step:
        for predicted, truth in files:
            pairs.add(predicted, truth, max_side=args.max_side)
            step()
    found = pixel_scores(pairs, classes=named_values(args.classes), ignore=ignored_values(args.ignore))
    lines = [amount(len(files), "label file")]
    if left:
        lines.append(f"{amount(left, 'prediction')} without a truth, left out")
    numbers = {"left_out": {"files_without_truth": left}}
    return plain_scores(found, len(files)) | numbers, lines + _lines(found)


def _labels_against_polygons(args: argparse.Namespace) -> Scored:
    from torchfpn.cli.console import progress
    from torchfpn.evaluation.objects import MapPlace, MapScores
    from torchfpn.geo.crs import crs_wkt
    from torchfpn.geo.tiles import check_pattern
    from torchfpn.io.formats import name_key, printable
    from torchfpn.sources.label_classes import classes_of
    from torchfpn.sources.labels import label_folder

    place = MapPlace(
        crs_wkt(args.assume_crs) if args.assume_crs else None,
        check_pattern(args.tiles) if args.tiles is not None else None,
        args.max_side,
    )
    maps = label_folder(args.model) if args.model.is_dir() else {name_key(args.model.stem): args.model}
    layers = _layers(args, maps)
    ignore, given = ignored_values(args.ignore), "=" in (args.classes or "")
    told = named_values(args.classes) if given else _names(list(maps.values()))
    names = classes_of(
        told,
        list(layers.values()),
        [] if given else wanted(args.classes),
        args.model,
        given=given,
        ignore=ignore,
        present=lambda: _values(list(maps.values()), args.max_side),
    )
    scores = MapScores(names, iou=args.iou, min_area=args.min_area, ignore=ignore, told=told)
    with progress("comparing", len(maps)) as step:
        for stem, file in maps.items():
            scores.add(file, layers[stem if args.dataset.is_dir() else ""], place)
            step()
    found, left = scores.pixels(), scores.left_out()
    lines = [f"{amount(len(maps), 'label file')}{left_out((left.small[0], 'too small'))}"]
    lines += [described(layer) for layer in layers.values()]
    why = ((left.others, "of other classes"), (left.outside, "on no label file"), (left.small[1], "too small"))
    lines[-1] += left_out(*why).replace("; ", "; " if len(layers) == 1 else "\nof all polygons ", 1)
    scored = {value: name for value, name in told.items() if given and value and value not in (ignore or ())}
    lines += [NO_POLYGON.format(name) for value, name in scored.items() if value not in names]
    for layer in layers.values():
        if len(layer.shapes) and not scores.meets(layer):
            lines.append(UNMET.format(printable(layer.file), "a label file"))
    numbers = {"objects": scores.objects.to_dict(), "left_out": left.to_dict()}
    return plain_scores(found, len(maps)) | numbers, lines + _lines(found)


def left_out(*counts: tuple[int, str]) -> str:
    """The end of a line: how many objects do not count, and why."""
    words = [f"{count:,} {why}" for count, why in counts if count]
    return f"; left out: {', '.join(words)}" if words else ""


def _values(files: Sequence[Path], max_side: int) -> set[int]:
    """Label values that occur in the maps."""
    from torchfpn.sources.labels import open_label_map

    found: set[int] = set()
    for file in files:
        with open_label_map(file, max_side=max_side) as held:
            found |= held.values()
    return found


def _paired(predicted: Path, truth: Path) -> tuple[list[tuple[Path, Path]], int]:
    """Files of two folders by stem, all of the truth's, and how many predictions are left over."""
    from torchfpn.errors import ConfigError, DataError
    from torchfpn.io.formats import printable
    from torchfpn.sources.labels import label_folder

    if predicted.is_dir() != truth.is_dir():
        raise ConfigError("a folder against a file", file=printable(truth), hint="give two folders, or two files")
    if not predicted.is_dir():
        return [(predicted, truth)], 0
    found, there = label_folder(predicted), label_folder(truth)
    missing = [stem for stem in there if stem not in found]
    if missing:
        words = f"has no file for {len(missing)} of {len(there)}, the first is {there[missing[0]].name}"
        raise DataError(words, file=printable(predicted))
    return [(found[stem], there[stem]) for stem in there], len(found) - len(there)


def _layers(args: argparse.Namespace, maps: dict[str, Path]) -> "dict[str, Objects]":
    """The truth of each map by its stem; one file for all under ""."""
    from torchfpn.errors import DataError
    from torchfpn.io.formats import printable
    from torchfpn.io.vectors import label_files

    if not args.dataset.is_dir():
        return {"": read_layer(args, args.dataset, truth=True)}
    files = label_files(args.dataset)
    missing = [path for stem, path in maps.items() if stem not in files]
    if missing:
        words = f"has no file for {len(missing)} of {len(maps)} maps, the first is {missing[0].name}"
        raise DataError(words, file=printable(args.dataset))
    return {stem: read_layer(args, files[stem], truth=True) for stem in maps}


def _names(files: Sequence[Path]) -> dict[int, str]:
    """What the maps call their values: the first that says anything."""
    from torchfpn.io.labels import read_legend

    return next((names for names, _ in map(read_legend, files) if names), {})


def plain_scores(found: "PixelScores", files: int) -> dict[str, Any]:
    """As in a run's validation.json, and what was not counted."""
    scores = found.confusion.to_dict(found.names, found.colors, images=files, split="all")
    return scores | {"label_values": found.values, "unlabelled": found.unlabelled, "unanswered": found.unanswered}


def _lines(found: "PixelScores") -> list[str]:
    lines = []
    if found.unlabelled:
        lines.append(f"{amount(found.unlabelled, 'pixel is', 'pixels are')} not labelled")
    if found.unanswered:
        lines.append(f"{amount(found.unanswered, 'pixel has', 'pixels have')} a truth and no prediction, left out")
    return lines


def polygons_against_polygons(args: argparse.Namespace) -> Scored:
    """Matches the objects of two files and counts them."""
    from torchfpn.errors import ConfigError
    from torchfpn.evaluation.objects import compare_objects

    if args.out:
        raise ConfigError(
            "polygons against polygons make no report", field="--out", hint="write the numbers with --json"
        )
    for path in (args.model, args.dataset):
        if path.is_dir():
            raise ConfigError("a folder", file=path, allowed="one vector file against another")
    predicted, truth = read_layer(args, args.model, truth=False), read_layer(args, args.dataset, truth=True)
    area = _area(args) if args.within else []
    found = compare_objects(
        predicted, truth, iou=args.iou, only=wanted(args.classes), within=area, min_area=args.min_area
    )
    left = [left_out((found.others[k], "of other classes"), (found.outside[k], "outside or too small")) for k in (0, 1)]
    lines = [described(layer) + words for layer, words in zip((predicted, truth), left, strict=True)]
    if found.apart:
        lines.append("the two layers do not overlap; check their coordinate systems")
    return {"objects": found.scores.to_dict(), "left_out": _left_out(found)}, lines


def _area(args: argparse.Namespace) -> "list[Layer]":
    """Polygons of a vector file, or the outlines of rasters."""
    from torchfpn.errors import DataError
    from torchfpn.evaluation.objects import footprint
    from torchfpn.geo.crs import crs_wkt
    from torchfpn.geo.tiles import check_pattern
    from torchfpn.inference.jobs import find_sources
    from torchfpn.io.formats import is_vector
    from torchfpn.vector.objects import read_objects

    crs = crs_wkt(args.assume_crs) if args.assume_crs else None
    if not is_vector(args.within):
        tiles = check_pattern(args.tiles) if args.tiles is not None else None
        return [footprint(file, assume_crs=crs, tiles=tiles) for file in find_sources([args.within])]
    with of_one_layer():
        area = read_objects(Path(args.within), field="", score="", assume_crs=crs)
    if not len(area.shapes):
        raise DataError("holds no area", file=args.within)
    return [(area.shapes, area.crs, area.file)]


def _left_out(found: "ObjectComparison") -> dict[str, Any]:
    sides = ("predicted", "truth")
    return {
        "outside_or_small": dict(zip(sides, found.outside, strict=True)),
        "of_other_classes": dict(zip(sides, found.others, strict=True)),
    }
