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
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchfpn.evaluation.model import Watch
    from torchfpn.evaluation.objects import DatasetObjects
    from torchfpn.recipe import Recipe
    from torchfpn.tasks.task import Task


PICTURE = re.compile(r"((worst|best)-)?\d\d-.+\.png")  # names that --out gives to pictures in samples/

PICTURES = 8  # samples that --out keeps

WRITTEN = ("validation.json", "about.json", "report.html")  # by --out, beside samples/


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    from torchfpn.cli import evaluate_maps
    from torchfpn.cli import evaluate_objects as evaluate_regions

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
    evaluate_regions.add_arguments(parser)
    evaluate_maps.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Scores the model, or the map, and prints the table."""
    from torchfpn.cli import evaluate_maps
    from torchfpn.cli import evaluate_objects as evaluate_regions

    args.begun = time.monotonic()
    _check_outputs(args)
    args.earlier = _pictures_of(args.out) if args.out else {}
    if evaluate_regions.is_results(args):
        _write(args, evaluate_regions.score_results(args))
        return 0
    if evaluate_maps.is_map(args):
        scores, lines = evaluate_maps.score(args)
        if not args.quiet and str(args.json) != "-":
            print("\n".join(lines))
        _write(args, scores)
        return 0
    from torchfpn.data.config import read_dataset
    from torchfpn.io.model_files import read_recipe

    dataset = read_dataset(args.dataset)
    _check_labels(dataset, args.split)
    read_recipe(args.model)  # what is no model is refused before torch is imported

    from torchfpn.tasks.build import load
    from torchfpn.tasks.task import find_device

    device = find_device(args.device)
    task = load(args.model).to(device)
    args.parameters = sum(each.numel() for each in task.model.parameters())
    of_objects = task.recipe.task != "semantic"
    _write(args, evaluate_regions.score(args, task, dataset) if of_objects else _score_pixels(args, task, dataset))
    return 0


def _score_pixels(args: argparse.Namespace, task: "Task", dataset: Any) -> dict[str, Any]:
    """Of a model that gives a class for every pixel."""
    from torchfpn.data.datasets import SemanticDataset
    from torchfpn.evaluation.model import class_order, evaluate_pixels, fitting, open_samples

    order = class_order(task.classes, dataset.names)
    samples = open_samples(SemanticDataset, dataset, args.split, task.recipe, accept_dtype=args.accept_dtype)
    from torchfpn.cli.console import progress

    objects = _objects(args, dataset, samples, order)
    with progress("evaluating", len(samples)) as step:
        found = evaluate_pixels(
            task,
            (samples[i] for i in range(len(samples))),
            source=samples,
            boundary=not args.no_boundary,
            precision=args.precision,
            order=order,
            progress=step,
            watch=_watch(args, task.recipe, objects),
            fit=fitting(samples, task.recipe, accept_dtype=args.accept_dtype),
        )
    return found.to_dict(args.split) | ({} if objects is None else {"objects": objects.to_dict()})


def _objects(args: argparse.Namespace, dataset: Any, samples: Any, order: list[int]) -> "DatasetObjects | None":
    """Counts objects where the labels are polygons and the images are read whole."""
    from torchfpn.cli.options import refuse_unused
    from torchfpn.evaluation.model import has_objects

    of_objects = has_objects(samples.pairs) and len(samples) == len(samples.pairs)
    refuse_unused(args, "evaluate", f"a semantic model on {'polygons' if of_objects else 'label files'}")
    if not of_objects:
        return None
    from torchfpn.evaluation.objects import DatasetObjects

    return DatasetObjects(dataset, samples.pairs, order, iou=args.iou)


def _watch(args: argparse.Namespace, recipe: "Recipe", objects: "DatasetObjects | None") -> "Watch | None":
    """What looks at every sample with its prediction."""
    shown = pictures(args.out / "samples", recipe) if args.out else None
    if objects is None:
        return shown

    def watch(sample: Any, labels: Any) -> None:
        objects(labels)
        if shown is not None:
            shown(sample, labels)

    return watch


def _check_labels(dataset: Any, split: str) -> None:
    """Says at once what is wrong with the files of a split."""
    from torchfpn.errors import DataError

    if all(pair.label is None and pair.annotations is None for pair in dataset.pairs(split)):
        raise DataError(f'nothing is labelled in the split "{split}"', file=dataset.file, field="splits")


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


def _write(args: argparse.Namespace, scores: dict[str, Any]) -> None:
    import json

    from torchfpn.io.atomic import write_text
    from torchfpn.report.console import Console
    from torchfpn.report.html import write_report
    from torchfpn.report.run import is_detection_scores, parse_scores, write_about
    from torchfpn.report.tables import class_table, object_table, precision_table

    text = json.dumps(scores, indent=2, ensure_ascii=False) + "\n"
    if str(args.json) == "-":
        print(text, end="")
    else:
        console = Console()
        if is_detection_scores(scores):
            console.print(precision_table(scores))
        if "confusion" in scores:
            console.print(class_table(parse_scores(scores)))
        if "objects" in scores:
            console.print(object_table(scores["objects"]))
    if args.json and str(args.json) != "-":
        write_text(args.json, text)
    if args.out:
        _remove_earlier(args.earlier)
        write_text(args.out / "validation.json", text)
        parameters, images = getattr(args, "parameters", None), {scores["split"]: scores["images"]}
        write_about(args.out, seconds=time.monotonic() - args.begun, parameters=parameters, images=images)
        print(write_report(args.out))
