"""The public door `torchfpn.evaluate`: what `fpn evaluate --json` writes, as a dict."""

import logging
import mmap
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torchfpn.errors import DataError
from torchfpn.evaluation.map_files import is_map, score_map
from torchfpn.evaluation.options import Counting, Options, no_progress
from torchfpn.io.formats import MAX_SIDE
from torchfpn.io.model_files import read_recipe

if TYPE_CHECKING:
    from torchfpn.data.config import DatasetConfig
    from torchfpn.data.datasets import ObjectDataset
    from torchfpn.evaluation.model import Fit, ObjectEvaluation, Watch
    from torchfpn.evaluation.panoptic_model import PanopticEvaluation
    from torchfpn.tasks.task import Precision, Task

log = logging.getLogger(__name__)

BOUNDARY = 0.02  # width of the bands of boundary PQ relative to the diagonal (Cheng et al. 2021)
GEOJSON_START = 2**20  # bytes of a JSON file that are searched for its GeoJSON type


def evaluate(
    prediction: "Task | str | Path",
    truth: str | Path,
    *,
    split: str = "val",
    boundary: bool = True,
    precision: "Precision" = "fp32",
    device: str | None = None,
    accept_dtype: bool = False,
    max_detections: int = 100,
    classes: Mapping[int, str] | Sequence[str] = (),
    ignore: Collection[int] | None = None,
    iou: float = 0.5,
    min_area: float = 0.0,
    field: str | None = None,
    truth_field: str | None = None,
    score_field: str | None = None,
    skip_unclassed: bool = False,
    within: str | Path | Sequence[str | Path] = (),
    layer: str | None = None,
    truth_layer: str | None = None,
    assume_crs: str | None = None,
    tiles: str | None = None,
    max_side: int = MAX_SIDE,
) -> dict[str, Any]:
    """Scores a model on a dataset, or a prediction against the truth; docs/evaluate.md defines the scores.

    Args:
        prediction: a task or the path of a model.safetensors; or label files, polygons, or COCO results: a file, or a
            folder of label files.
        truth: for a model, a dataset.yaml or its folder; else label files, polygons, or COCO annotations.
        split: of the dataset.
        boundary: also compute the boundary IoU of a semantic model, boundary PQ of a panoptic one, the slowest score.
        precision: "fp32", "bf16" or "auto", of the model's computation.
        device: "cpu", "cuda", ... or "auto"; None: where the task is, of a path as "auto".
        accept_dtype: accept another pixel type than in training.
        max_detections: detections per image and class that AP counts, from 100.
        classes: of label files, value -> name, or the names of the values 0, 1, ...; of polygons, the classes to
            evaluate; of label files against polygons, either a mapping or the classes to evaluate.
        ignore: label values of pixels without a label; None: 255, see docs/evaluate.md.
        iou: lowest IoU of matching objects, above 0, up to 1.
        min_area: smallest object in square metres on the ground.
        field: attribute with the class; None: "class" if it is there; "": none.
        truth_field: the same for the truth, if its name differs.
        score_field: attribute with the score of a prediction; None: "score" if it is there; "": none.
        skip_unclassed: leave out features without a class instead of refusing them.
        within: for polygons against polygons, the area of the evaluation: a vector file, or rasters and folders of
            them.
        layer: layer of a GeoPackage with several.
        truth_layer: the same for the truth, if its name differs.
        assume_crs: coordinate system of files without one, "EPSG:32633".
        tiles: pattern of tile paths, "{z}/{x}/{y}", for rasters without a georeference.
        max_side: largest height or width of a label file in pixels.

    Returns:
        The object that `fpn evaluate --json` writes: plain values, None for an undefined score. Scores are fractions
        from 0 to 1. Doubts, such as layers that do not overlap, are logged as warnings.

    Raises:
        FPNError: a file that cannot be read or does not fit the other one, an option that has no effect.
    """
    areas = [within] if isinstance(within, str | os.PathLike) else list(within)
    options = Options(
        *(split, boundary, precision, device, accept_dtype, max_detections, classes, ignore, iou, min_area),
        *(field, truth_field, score_field, skip_unclassed, areas or (), layer, truth_layer, assume_crs, tiles),
        max_side,
    )
    truth = Path(truth)
    if not isinstance(prediction, str | os.PathLike):
        return score_model(prediction, truth, options)
    path = Path(prediction)
    if is_results(path, truth):
        return score_results(path, truth, options)
    if not is_map(path, truth):
        return score_model(path, truth, options)
    scores = score_map(path, truth, options)
    for line in scores.warnings:
        log.warning("%s", line)
    return scores.values


class ObjectRun(NamedTuple):
    """A detector or a panoptic model that has been scored on a split, for pictures of its predictions."""

    found: "ObjectEvaluation | PanopticEvaluation"
    task: "Task"
    samples: "ObjectDataset"
    order: list[int]
    precision: "Precision"
    fit: "Fit | None"


@dataclass(frozen=True)
class Hooks:
    """What a command adds to the evaluation of a model.

    Attributes:
        counting: shows progress.
        loaded: is given the model before the first image.
        watch: of a semantic model, makes what is shown every sample with its prediction.
        scored: of a detector or a panoptic model, is given the finished evaluation.
    """

    counting: Counting = no_progress
    loaded: "Callable[[Task], None]" = lambda task: None
    watch: "Callable[[Task], Watch | None]" = lambda task: None
    scored: Callable[[ObjectRun], None] = lambda run: None


def score_model(model: "Task | Path", truth: Path, options: Options, hooks: Hooks = Hooks()) -> dict[str, Any]:
    """The scores of a model on a split of a dataset."""
    from torchfpn.data.config import read_dataset

    dataset = read_dataset(truth)
    if not any(pair.is_labelled for pair in dataset.pairs(options.split)):
        raise DataError(f'nothing is labelled in the split "{options.split}"', file=dataset.file, field="splits")
    if isinstance(model, Path):
        read_recipe(model)  # before torch is imported

    from torchfpn.nn.layers import evaluating
    from torchfpn.tasks.build import load
    from torchfpn.tasks.task import find_device

    task = load(model) if isinstance(model, Path) else model
    if options.device is not None or isinstance(model, Path):
        task = task.to(find_device(options.device or "auto"))
    hooks.loaded(task)
    with evaluating(task):
        score = {"semantic": _score_pixels, "panoptic": _score_panoptic}.get(task.recipe.task, _score_objects)
        return score(task, dataset, options, hooks)


def _score_objects(task: "Task", dataset: "DatasetConfig", options: Options, hooks: Hooks) -> dict[str, Any]:
    from torchfpn.data.datasets import ObjectDataset
    from torchfpn.evaluation.model import class_order, evaluate_objects, fitting, open_samples

    options.check("a detection model")
    order, most = class_order(task.classes, dataset.names), options.checked_max_detections()
    samples = open_samples(ObjectDataset, dataset, options.split, task.recipe, accept_dtype=options.accept_dtype)
    fit = fitting(samples, task.recipe, accept_dtype=options.accept_dtype)
    with hooks.counting("evaluating", len(samples)) as step:
        found = evaluate_objects(
            task, samples, precision=options.precision, order=order, most=most, progress=step, fit=fit
        )
    hooks.scored(ObjectRun(found, task, samples, order, options.precision, fit))
    return found.to_dict(options.split)


def _score_panoptic(task: "Task", dataset: "DatasetConfig", options: Options, hooks: Hooks) -> dict[str, Any]:
    from torchfpn.data.datasets import ObjectDataset
    from torchfpn.evaluation.model import class_order, fitting, open_samples
    from torchfpn.evaluation.panoptic_model import check_kinds, evaluate_panoptic
    from torchfpn.tasks.panoptic import PanopticTask

    assert isinstance(task, PanopticTask)
    options.check("a panoptic model")
    check_kinds(task, dataset)
    order = class_order(task.classes, dataset.names)
    samples = open_samples(ObjectDataset, dataset, options.split, task.recipe, accept_dtype=options.accept_dtype)
    fit = fitting(samples, task.recipe, accept_dtype=options.accept_dtype)
    with hooks.counting("evaluating", len(samples)) as step:
        found = evaluate_panoptic(
            task,
            samples,
            boundary=BOUNDARY if options.boundary else None,
            precision=options.precision,
            order=order,
            progress=step,
            fit=fit,
        )
    hooks.scored(ObjectRun(found, task, samples, order, options.precision, fit))
    return found.to_dict(options.split)


def _score_pixels(task: "Task", dataset: "DatasetConfig", options: Options, hooks: Hooks) -> dict[str, Any]:
    from torchfpn.data.datasets import SemanticDataset
    from torchfpn.evaluation.model import class_order, evaluate_pixels, fitting, has_objects, open_samples

    order = class_order(task.classes, dataset.names)
    samples = open_samples(SemanticDataset, dataset, options.split, task.recipe, accept_dtype=options.accept_dtype)
    on_polygons = has_objects(samples.pairs) and len(samples) == len(samples.pairs)
    options.check(f"a semantic model on {'polygons' if on_polygons else 'label files'}")
    objects = None
    if on_polygons:
        from torchfpn.evaluation.objects import DatasetObjects

        objects = DatasetObjects(dataset, samples.pairs, order, iou=options.iou)
    shown = hooks.watch(task)

    def watch(sample: Any, labels: Any) -> None:
        if objects is not None:
            objects(labels)
        if shown is not None:
            shown(sample, labels)

    with hooks.counting("evaluating", len(samples)) as step:
        found = evaluate_pixels(
            task,
            (samples[i] for i in range(len(samples))),
            source=samples,
            boundary=options.boundary,
            precision=options.precision,
            order=order,
            progress=step,
            watch=watch,
            fit=fitting(samples, task.recipe, accept_dtype=options.accept_dtype),
        )
    return found.to_dict(options.split) | ({} if objects is None else {"objects": objects.to_dict()})


def score_results(results: Path, truth: Path, options: Options) -> dict[str, Any]:
    """The scores of a file of COCO results against annotations, or of COCO panoptic annotations against true ones.

    The PNGs of panoptic annotations are in the folder beside the file that has its name without ".json".
    """
    if _is_panoptic(truth) and _is_panoptic(results):
        from torchfpn.evaluation.panoptic import panoptic_quality

        options.check("COCO panoptic annotations")
        boundary = BOUNDARY if options.boundary else None
        folders = truth.with_suffix(""), results.with_suffix("")
        return panoptic_quality(truth, folders[0], results, folders[1], boundary=boundary).to_dict("all")
    options.check("COCO results")
    most = options.checked_max_detections()
    from torchfpn.evaluation.coco import evaluate_results

    return evaluate_results(results, truth, most=most).to_dict("all")


def is_results(predicted: Path, truth: Path) -> bool:
    """Whether both are JSON files, and no GeoJSON."""
    return all(
        path.suffix.lower() == ".json" and path.is_file() and not _is_geojson(path) for path in (predicted, truth)
    )


def _is_panoptic(path: Path) -> bool:
    """Whether a JSON file names the segments of images."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b'"segments_info"') >= 0


def _is_geojson(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(GEOJSON_START)
    return re.search(rb'"type"\s*:\s*"(Feature|FeatureCollection)"', start) is not None
