"""Label files and polygons scored against label files or polygons."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torchfpn.errors import ConfigError, DataError, amount
from torchfpn.evaluation.options import Counting, Options, Scores, no_progress
from torchfpn.io.formats import SUFFIXES, is_vector, name_key, printable

if TYPE_CHECKING:
    from torchfpn.evaluation.maps import PixelScores
    from torchfpn.evaluation.objects import Layer
    from torchfpn.vector.objects import Objects

LOSSY = {".jpg", ".jpeg"}
PICTURES = {*LOSSY, ".webp", ".bmp", ".gif", ".jp2"}  # formats whose pixels are no label values
UNMET = "{}: no polygon of the evaluated classes overlaps {}; check their coordinate systems"
NO_POLYGON = "no polygon is of the class {}; its pixels count as background"


def score_map(predicted: Path, truth: Path, options: Options, counting: Counting = no_progress) -> Scores:
    """The scores of label files or polygons against label files or polygons.

    Raises:
        ConfigError: options or files that do not go together. DataError: files that cannot be used.
    """
    if not 0 < options.iou <= 1:
        raise ConfigError(f"{options.iou}", field="iou", allowed="more than 0, up to 1")
    if not options.min_area >= 0:
        raise ConfigError(f"{options.min_area}", field="min_area", allowed="square metres from 0")
    kinds = map_kind(predicted), map_kind(truth)
    if None in kinds:
        raise no_map(truth if kinds[0] else predicted)
    if kinds == ("polygons", "label files"):
        raise ConfigError("polygons against label files", file=predicted, hint="give the label files first")
    against = f"{kinds[0]} against {kinds[1]}"
    options.check("polygons within an area" if options.within and kinds[0] == "polygons" else against)
    if kinds == ("label files", "label files"):
        return _labels_against_labels(predicted, truth, options, counting)
    if kinds[0] == "label files":
        return _labels_against_polygons(predicted, truth, options, counting)
    return _polygons_against_polygons(predicted, truth, options)


def is_map(predicted: Path, truth: Path) -> bool:
    """Whether the first file is a map and not a model.

    Raises:
        DataError: it is a picture or a folder, which no model is, without labels or polygons.
    """
    if predicted.suffix.lower() == ".safetensors":
        return False
    found = map_kind(predicted)
    if found is None and (predicted.is_dir() or predicted.suffix.lower() in PICTURES):
        raise no_map(predicted)
    if (truth / "dataset.yaml").is_file():
        return False
    return found is not None or (not truth.is_dir() and map_kind(truth) is not None)


def map_kind(path: Path) -> Literal["label files", "polygons"] | None:
    """What kind of map a file or the files of a folder are, by their names; None for none."""
    from torchfpn.sources.labels import KINDS

    names = sorted(child.name for child in path.iterdir()) if path.is_dir() else [path.name]
    if any(is_vector(name) for name in names):
        return "polygons"
    return "label files" if any(name.lower().endswith((*KINDS, ".vrt")) for name in names) else None


def no_map(path: Path) -> DataError:
    """The error about a file or a folder that holds neither label files nor polygons."""
    names = [child.name for child in path.iterdir() if child.is_file()] if path.is_dir() else [path.name]
    endings = sorted({Path(name).suffix.lower() for name in names if not name.startswith(".")} - {""})
    found = "neither label files nor polygons"
    if path.is_dir():
        count = amount(len(names), "file")
        found += f" ({count}: {', '.join(endings[:6])})" if endings else " (no file)" if not names else f" ({count})"
    lossy = bool(LOSSY & set(endings))
    return DataError(
        found,
        file=path,
        allowed="PNG or TIFF label files, polygons, or a folder of one of them",
        hint="JPEG changes the values it stores: write the labels as PNG or TIFF" if lossy else None,
    )


def _labels_against_labels(predicted: Path, truth: Path, options: Options, counting: Counting) -> Scores:
    from torchfpn.evaluation.maps import LabelPairs, pixel_scores

    files, left = _paired(predicted, truth)
    pairs = LabelPairs()
    with counting("comparing", len(files)) as step:
        for one, other in files:
            pairs.add(one, other, max_side=options.max_side)
            step()
    found = pixel_scores(pairs, classes=_named_values(options.classes), ignore=options.ignore)
    notes = [amount(len(files), "label file")]
    if left:
        notes.append(f"{amount(left, 'prediction')} without a truth, left out")
    values = pixel_values(found, len(files)) | {"left_out": {"files_without_truth": left}}
    return Scores(values, notes + _uncounted(found), [])


def _labels_against_polygons(predicted: Path, truth: Path, options: Options, counting: Counting) -> Scores:
    from torchfpn.evaluation.objects import MapPlace, MapScores
    from torchfpn.geo.tiles import check_pattern
    from torchfpn.sources.label_classes import evaluated_classes
    from torchfpn.sources.labels import label_folder, label_values_of

    tiles = check_pattern(options.tiles) if options.tiles is not None else None
    place = MapPlace(_wkt(options.assume_crs), tiles, options.max_side)
    maps = label_folder(predicted) if predicted.is_dir() else {name_key(predicted.stem): predicted}
    layers = _truths(truth, maps, options)
    given = isinstance(options.classes, Mapping) and bool(options.classes)
    known = _named_values(options.classes) if given else _first_names(list(maps.values()))
    names = evaluated_classes(
        known,
        list(layers.values()),
        [] if given else _each_once(options.classes),
        predicted,
        names_choose=given,
        ignore=options.ignore,
        read_values=lambda: label_values_of(maps.values(), options.max_side),
    )
    scores = MapScores(names, iou=options.iou, min_area=options.min_area, ignore=options.ignore, others=known)
    with counting("comparing", len(maps)) as step:
        for stem, file in maps.items():
            scores.add(file, layers[stem if truth.is_dir() else ""], place)
            step()
    found, left = scores.pixels(), scores.left_out()
    notes = [f"{amount(len(maps), 'label file')}{left_out((left.small[0], 'too small'))}"]
    notes += [described(layer) for layer in layers.values()]
    why = ((left.others, "of other classes"), (left.outside, "on no label file"), (left.small[1], "too small"))
    notes[-1] += left_out(*why).replace("; ", "; " if len(layers) == 1 else "\nof all polygons ", 1)
    ignored = {0, *(options.ignore or ())}
    doubts = [NO_POLYGON.format(name) for value, name in known.items() if given and value not in {*ignored, *names}]
    unmet = [layer for layer in layers.values() if len(layer.shapes) and not scores.meets(layer)]
    doubts += [UNMET.format(printable(layer.file), "a label file") for layer in unmet]
    numbers = {"objects": scores.objects.to_dict(), "left_out": left.to_dict()}
    return Scores(pixel_values(found, len(maps)) | numbers, notes + doubts + _uncounted(found), doubts)


def _polygons_against_polygons(predicted: Path, truth: Path, options: Options) -> Scores:
    from torchfpn.evaluation.objects import compare_objects

    for path in (predicted, truth):
        if path.is_dir():
            raise ConfigError("a folder", file=path, allowed="one vector file against another")
    layers = _read_layer(predicted, options, truth=False), _read_layer(truth, options, truth=True)
    if isinstance(options.classes, Mapping):
        raise ConfigError("a mapping", field="classes", allowed="a list of the classes to evaluate")
    only = _each_once(options.classes)
    found = compare_objects(*layers, iou=options.iou, only=only, within=_areas(options), min_area=options.min_area)
    left = [left_out((found.others[k], "of other classes"), (found.outside[k], "outside or too small")) for k in (0, 1)]
    notes = [described(layer) + words for layer, words in zip(layers, left, strict=True)]
    doubts = ["the two layers do not overlap; check their coordinate systems"] if found.apart else []
    return Scores(found.to_dict(), notes + doubts, doubts)


def described(layer: "Objects") -> str:
    """A line about a vector file: how many features, and how many were repaired or left out."""
    words = [amount(layer.features, "feature")]
    if layer.mended:
        words.append(f"{layer.mended:,} with invalid rings, repaired")
    if layer.lost:
        words.append(f"{layer.lost:,} without an area, left out")
    if layer.unclassed:
        words.append(f"{layer.unclassed:,} without a class, left out")
    return f"{printable(layer.file)}  {', '.join(words)}"


def left_out(*counts: tuple[int, str]) -> str:
    """The end of a line: how many objects do not count, and why."""
    words = [f"{count:,} {why}" for count, why in counts if count]
    return f"; left out: {', '.join(words)}" if words else ""


def pixel_values(found: "PixelScores", files: int) -> dict[str, Any]:
    """As in a run's validation.json, and what was not counted."""
    scores = found.confusion.to_dict(found.names, found.colors, images=files, split="all")
    return scores | {"label_values": found.values, "unlabelled": found.unlabelled, "unanswered": found.unanswered}


def _uncounted(found: "PixelScores") -> list[str]:
    lines = []
    if found.unlabelled:
        lines.append(f"{amount(found.unlabelled, 'pixel is', 'pixels are')} not labelled")
    if found.unanswered:
        lines.append(f"{amount(found.unanswered, 'pixel has', 'pixels have')} a truth and no prediction, left out")
    return lines


def _named_values(classes: Mapping[int, str] | Sequence[str]) -> dict[int, str]:
    return dict(classes) if isinstance(classes, Mapping) else dict(enumerate(_each_once(classes)))


def _each_once(classes: Mapping[int, str] | Sequence[str]) -> list[str]:
    """The names, none of them empty or there twice."""
    names = list(classes.values()) if isinstance(classes, Mapping) else list(classes)
    for name in names:
        if not name:
            raise ConfigError("an empty name", field="classes", allowed="names of classes")
        if names.count(name) > 1:
            raise ConfigError(f'"{name}" twice', field="classes", allowed="each class once")
    return names


def _paired(predicted: Path, truth: Path) -> tuple[list[tuple[Path, Path]], int]:
    """Files of two folders by stem, all of the truth's, and how many predictions are left over."""
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


def _first_names(files: Sequence[Path]) -> dict[int, str]:
    """What the maps call their values: the first that says anything."""
    from torchfpn.io.labels import read_legend

    return next((names for names, _ in map(read_legend, files) if names), {})


def _truths(truth: Path, maps: Mapping[str, Path], options: Options) -> "dict[str, Objects]":
    """The polygons of each map by its stem; one file for all under ""."""
    from torchfpn.io.vectors import label_files

    if not truth.is_dir():
        return {"": _read_layer(truth, options, truth=True)}
    files = label_files(truth)
    missing = [path for stem, path in maps.items() if stem not in files]
    if missing:
        words = f"has no file for {len(missing)} of {len(maps)} maps, the first is {missing[0].name}"
        raise DataError(words, file=printable(truth))
    return {stem: _read_layer(files[stem], options, truth=True) for stem in maps}


def _read_layer(file: Path, options: Options, *, truth: bool) -> "Objects":
    from torchfpn.vector.objects import read_objects

    return read_objects(
        file,
        field=options.truth_field if truth and options.truth_field is not None else options.field,
        score="" if truth else options.score_field,
        layer=options.truth_layer if truth and options.truth_layer is not None else options.layer,
        assume_crs=_wkt(options.assume_crs),
        skip_unclassed=options.skip_unclassed,
    )


def _areas(options: Options) -> "list[Layer]":
    """The area of the evaluation: polygons of vector files, or the outlines of rasters."""
    from torchfpn.evaluation.objects import footprint
    from torchfpn.geo.tiles import check_pattern

    crs, found = _wkt(options.assume_crs), []
    tiles = check_pattern(options.tiles) if options.tiles is not None else None
    for path in map(Path, options.within):
        if not is_vector(path):
            found += [footprint(file, assume_crs=crs, tiles=tiles) for file in _rasters(path)]
            continue
        area = _read_area(path, crs)
        if not len(area.shapes):
            raise DataError("holds no area", file=path)
        found.append((area.shapes, area.crs, area.file))
    return found


def _read_area(path: Path, crs: str | None) -> "Objects":
    from torchfpn.vector.objects import of_one_layer, read_objects

    with of_one_layer():  # `layer` is about the compared files
        return read_objects(path, field="", score="", assume_crs=crs)


def _rasters(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(child for child in path.iterdir() if child.suffix.lower() in SUFFIXES and child.name[0] != ".")
    if not files:
        raise ConfigError("no image found", file=printable(path), allowed=f"files of {', '.join(SUFFIXES)}")
    return files


def _wkt(crs: str | None) -> str | None:
    from torchfpn.geo.crs import crs_wkt

    return crs_wkt(crs) if crs else None
