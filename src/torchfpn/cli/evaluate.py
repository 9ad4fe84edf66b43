"""Scores a model on a dataset, or a predicted map against the truth.

  fpn evaluate model.safetensors dataset/           # IoU, boundary IoU, precision, recall; of objects AP and AR
  fpn evaluate predicted.tif truth.tif              # label files, or folders of them: the same, pixel by pixel
  fpn evaluate predicted.geojson truth.gpkg         # polygons: precision, recall and F1 of objects at IoU 0.5
  fpn evaluate predicted.tif truth.geojson          # label files against polygons: pixels and objects
  fpn evaluate results.json truth.json              # COCO: AP and AR of boxes, and of masks where there are any

Every image of a dataset is predicted whole; classes of model and dataset are matched by name. Label files must lie on
one grid; polygons may be in any coordinate system.
"""

import argparse
import contextlib
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfpn.cli.options import (
    accept_old_spelling,
    add_without_class,
    ignored_values,
    listed,
    named_values,
    once,
)

if TYPE_CHECKING:
    from torchfpn.evaluation.evaluate import ObjectRun
    from torchfpn.evaluation.model import Watch
    from torchfpn.evaluation.options import Options
    from torchfpn.recipe import Recipe
    from torchfpn.tasks.task import Task


PICTURE = re.compile(r"((worst|best)-)?\d\d-.+\.png")  # names that --out gives to pictures in samples/

PICTURES = 8  # samples that --out keeps

WRITTEN = ("validation.json", "about.json", "report.html")  # by --out, beside samples/

RENAMED = {"boundary": "--no-boundary", "skip_unclassed": "--without-class"}  # options whose flags have other names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument(
        "model", type=Path, help="a model.safetensors, or a predicted map: label file, vector file, folder"
    )
    parser.add_argument(
        "dataset", type=Path, help="a folder with a dataset.yaml, or that file; the truth of a predicted map"
    )
    parser.add_argument("--split", default="val", help="split of the dataset")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores as JSON; - prints them")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write report.html, pictures and validation.json there")
    parser.add_argument("--no-boundary", action="store_true", help="skip boundary IoU, the slowest score")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="fp32", help="numerical precision")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps; auto: the first GPU if there is one")
    parser.add_argument("--accept-dtype", action="store_true", help="accept another pixel type than in training")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files of --json and --out")
    _add_object_flags(parser)
    _add_map_flags(parser)


def _add_object_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("detection models and COCO results")
    flag = group.add_argument(
        "--max-detections", type=int, default=100, metavar="N", help="most detections per image and class"
    )
    accept_old_spelling(group, "--most", flag)


def _add_map_flags(parser: argparse.ArgumentParser) -> None:
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


def run(args: argparse.Namespace) -> int:
    """Scores the model, or the map, and prints the table."""
    from torchfpn.evaluation.evaluate import Hooks, is_results, score_model, score_results
    from torchfpn.evaluation.map_files import is_map

    begun = time.monotonic()
    _check_outputs(args)
    earlier = _pictures_of(args.out) if args.out else {}
    parameters: int | None = None
    with _flags_named():
        if is_results(args.model, args.dataset):
            scores = score_results(args.model, args.dataset, _options(args))
        elif is_map(args.model, args.dataset):
            scores = _score_map(args)
        else:

            def loaded(task: "Task") -> None:
                nonlocal parameters
                parameters = sum(each.numel() for each in task.model.parameters())

            from torchfpn.cli.console import progress

            drawn = Hooks(progress, loaded, partial(_pictures, args), partial(_object_pictures, args))
            hooks = drawn if args.out else Hooks(progress, loaded)
            scores = score_model(args.model, args.dataset, _options(args), hooks)
    _print(args, scores)
    if args.out:
        _remove_earlier(earlier)
        _write_report(args.out, scores, time.monotonic() - begun, parameters)
    return 0


def _options(args: argparse.Namespace, *, polygons: bool = False) -> "Options":
    """The options that the flags give. polygons: both maps are polygons, whose classes are names alone."""
    from torchfpn.evaluation.options import Options

    if polygons:
        classes: Any = once(listed(args.classes), "--classes")
    else:
        classes = named_values(args.classes) if "=" in (args.classes or "") else once(listed(args.classes), "--classes")
    return Options(
        split=args.split,
        boundary=not args.no_boundary,
        precision=args.precision,
        device=None if args.device == "auto" else args.device,
        accept_dtype=args.accept_dtype,
        max_detections=args.max_detections,
        classes=classes or (),
        ignore=ignored_values(args.ignore),
        iou=args.iou,
        min_area=args.min_area,
        field=args.field,
        truth_field=args.truth_field,
        score_field=args.score_field,
        skip_unclassed=args.without_class == "skip",
        within=() if not args.within else _within(args.within) if polygons else [args.within],
        layer=args.layer,
        truth_layer=args.truth_layer,
        assume_crs=args.assume_crs,
        tiles=args.tiles,
        max_side=args.max_side,
    )


def _within(words: str) -> "list[str | Path]":
    from torchfpn.inference.jobs import find_sources
    from torchfpn.io.formats import is_vector

    return [words] if is_vector(words) else list(find_sources([words]))


@contextlib.contextmanager
def _flags_named() -> Iterator[None]:
    """Inside, errors about an option name its flag."""
    from torchfpn.errors import ConfigError
    from torchfpn.evaluation.options import Options

    try:
        yield
    except ConfigError as error:
        if error.field not in Options.__dataclass_fields__ or error.file is not None:
            raise
        flag = RENAMED.get(error.field, f"--{error.field.replace('_', '-')}")
        raise ConfigError(error.found, field=flag, allowed=error.allowed, hint=error.hint) from error


def _score_map(args: argparse.Namespace) -> dict[str, Any]:
    """Scores label files or polygons, and prints what was counted."""
    from torchfpn.cli.console import progress
    from torchfpn.errors import ConfigError
    from torchfpn.evaluation.map_files import map_kind, score_map

    polygons = map_kind(args.model) == map_kind(args.dataset) == "polygons"
    if polygons and args.out:
        found = "polygons against polygons make no report"
        raise ConfigError(found, field="--out", hint="write the numbers with --json")
    scores = score_map(args.model, args.dataset, _options(args, polygons=polygons), progress)
    if not args.quiet and str(args.json) != "-":
        print("\n".join(scores.notes))
    return scores.values


def _object_pictures(args: argparse.Namespace, run: "ObjectRun") -> None:
    """Writes pictures of the worst and best images of a detector."""
    from torchfpn.evaluation.panoptic_model import PanopticEvaluation
    from torchfpn.report.objects import picture_names, write_pictures

    folder, sample = args.out / "samples", run.samples.__getitem__
    if isinstance(run.found, PanopticEvaluation):
        from torchfpn.report.panoptic import write_panoptic_pictures

        write_panoptic_pictures(
            folder, run.found, run.task, sample, order=run.order, precision=run.precision, fit=run.fit
        )
        return
    names = picture_names(run.found)
    write_pictures(folder, names, run.found, run.task, sample, order=run.order, precision=run.precision, fit=run.fit)


def _pictures(args: argparse.Namespace, task: "Task") -> "Watch":
    return pictures(args.out / "samples", task.recipe)


def pictures(folder: Path, recipe: "Recipe", most: int = PICTURES) -> "Watch":
    """A watcher that keeps the first samples as pictures in `folder`, which is made."""
    from torchfpn.io.atomic import make_directory, write_bytes
    from torchfpn.report.sheets import side_by_side

    make_directory(folder)
    shown = 0

    def watch(sample: Any, labels: Any) -> None:
        nonlocal shown
        if shown >= most:
            return
        picture = side_by_side(
            sample.image.numpy(),
            sample.target.numpy(),
            labels.numpy(),
            recipe.colors,
            names=recipe.classes,
            bands=recipe.bands,
        )
        write_bytes(folder / f"{shown:02d}-{Path(sample.name).stem[:80]}.png", picture)
        shown += 1

    return watch


def _check_outputs(args: argparse.Namespace) -> None:
    """Says before the first image that something would be overwritten or cannot be written."""
    from torchfpn.cli.console import make_output_folder
    from torchfpn.errors import ConfigError
    from torchfpn.io.formats import printable

    there = [args.json] if args.json and str(args.json) != "-" else []
    there += [args.out / name for name in WRITTEN] if args.out else []
    for path in there:
        if path.exists() and not args.overwrite:
            raise ConfigError("already exists", file=printable(path), hint="replace it with --overwrite")
    if args.out:
        make_output_folder(args.out)
    if args.json and str(args.json) != "-":
        make_output_folder(args.json.parent)


def _pictures_of(out: Path) -> dict[Path, tuple[int, int]]:
    """The pictures that an earlier evaluation left in a folder, with inode and time of the last change of each."""
    if not (out / "validation.json").is_file():
        return {}
    pictures = [path for path in (out / "samples").glob("*.png") if PICTURE.fullmatch(path.name)]
    return {path: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in pictures}


def _remove_earlier(earlier: dict[Path, tuple[int, int]]) -> None:
    """Removes those that this evaluation has not replaced: report.html would show them as its own."""
    for path, before in earlier.items():
        if path.exists() and (path.lstat().st_ino, path.lstat().st_mtime_ns) == before:
            path.unlink()


def _print(args: argparse.Namespace, scores: dict[str, Any]) -> None:
    """Prints the tables, or the JSON of `--json -`, and writes `--json FILE`."""
    import json

    from torchfpn.io.atomic import write_text
    from torchfpn.report.console import Console
    from torchfpn.report.run import is_detection_scores, is_panoptic_scores, parse_scores
    from torchfpn.report.tables import class_table, object_table, panoptic_table, precision_table

    text = json.dumps(scores, indent=2, ensure_ascii=False) + "\n"
    if str(args.json) == "-":
        print(text, end="")
        return
    console = Console()
    if is_detection_scores(scores):
        console.print(precision_table(scores))
    if is_panoptic_scores(scores):
        console.print(panoptic_table(scores))
    elif "confusion" in scores:
        console.print(class_table(parse_scores(scores)))
    if "objects" in scores:
        console.print(object_table(scores["objects"]))
    if args.json:
        write_text(args.json, text)


def _write_report(out: Path, scores: dict[str, Any], seconds: float, parameters: int | None) -> None:
    """Writes validation.json, about.json and report.html."""
    import json

    from torchfpn.io.atomic import write_text
    from torchfpn.report.html import write_report
    from torchfpn.report.run import write_about

    write_text(out / "validation.json", json.dumps(scores, indent=2, ensure_ascii=False) + "\n")
    write_about(out, seconds=seconds, parameters=parameters, images={scores["split"]: scores["images"]})
    print(write_report(out))
