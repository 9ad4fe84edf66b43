"""fpn evaluate of objects: a detector on a dataset, or a file of COCO results against annotations."""

import argparse
import re
from typing import TYPE_CHECKING, Any

from torchfpn.cli.options import accept_old_spelling, refuse_unused

if TYPE_CHECKING:
    from torchfpn.data.config import DatasetConfig
    from torchfpn.tasks.task import Task


PEEK = 2**20  # bytes of a file in which GeoJSON says what it is


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of objects."""
    group = parser.add_argument_group("detection models and COCO results")
    flag = group.add_argument(
        "--max-detections", type=int, metavar="N", help="most detections per image and class (100)"
    )
    accept_old_spelling(group, "--most", flag)


def score(args: argparse.Namespace, task: "Task", dataset: "DatasetConfig") -> dict[str, Any]:
    """The scores of a detector on a split; with --out, pictures.

    Raises:
        ConfigError: flags or a dataset that do not go with it. DataError: files that cannot be used.
    """
    from torchfpn.cli.console import progress
    from torchfpn.data.datasets import ObjectDataset
    from torchfpn.evaluation.model import class_order, evaluate_objects, fitting, open_samples

    refuse_unused(args, "evaluate", "a detection model")
    order = class_order(task.classes, dataset.names)
    samples = open_samples(ObjectDataset, dataset, args.split, task.recipe, accept_dtype=args.accept_dtype)
    fit = fitting(samples, task.recipe, accept_dtype=args.accept_dtype)
    with progress("evaluating", len(samples)) as step:
        found = evaluate_objects(
            task, samples, precision=args.precision, order=order, most=_most(args), progress=step, fit=fit
        )
    if args.out:
        from torchfpn.report.objects import picture_names, write_pictures

        names = picture_names(found)
        folder = args.out / "samples"
        write_pictures(folder, names, found, task, samples.__getitem__, order=order, precision=args.precision, fit=fit)
    return found.to_dict(args.split)


def is_results(args: argparse.Namespace) -> bool:
    """Whether both words are JSON files, and no GeoJSON."""
    files = (args.model, args.dataset)
    return all(path.suffix.lower() == ".json" and path.is_file() and not _is_geojson(path) for path in files)


def score_results(args: argparse.Namespace) -> dict[str, Any]:
    """The scores of a file of COCO results against annotations.

    Raises:
        ConfigError: flags that do not go with it. DataError: files that cannot be used.
    """
    from torchfpn.evaluation.coco import evaluate_results

    refuse_unused(args, "evaluate", "COCO results")
    return evaluate_results(args.model, args.dataset, most=_most(args)).to_dict("all")


def _most(args: argparse.Namespace) -> int:
    from torchfpn.errors import ConfigError
    from torchfpn.metrics.precisions import LIMITS

    if args.max_detections is None:
        return LIMITS[-1]
    if args.max_detections < LIMITS[-1]:
        raise ConfigError(f"{args.max_detections}", field="--max-detections", allowed=f"a number from {LIMITS[-1]}")
    return int(args.max_detections)


def _is_geojson(path: Any) -> bool:
    with path.open("rb") as file:
        start = file.read(PEEK)
    return re.search(rb'"type"\s*:\s*"(Feature|FeatureCollection)"', start) is not None
