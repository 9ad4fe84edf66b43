"""Scores of a panoptic model on labelled images: panoptic quality, and what its two branches reach by themselves."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfpn.data.config import DatasetConfig
from torchfpn.data.datasets import ObjectDataset
from torchfpn.data.labels.segments import SegmentMap
from torchfpn.data.sample import ObjectSample
from torchfpn.errors import DataError, ShapeError
from torchfpn.evaluation.model import Fit, ObjectScorer, ObjectValidation, predictions, reordered
from torchfpn.metrics.confusion import ConfusionMatrix
from torchfpn.metrics.panoptic import PanopticQuality, PanopticScores
from torchfpn.metrics.pixel_counts import plain
from torchfpn.metrics.precisions import Precisions
from torchfpn.ops.masks import no_instances
from torchfpn.recipe import IGNORE
from torchfpn.tasks.panoptic import PanopticTask
from torchfpn.tasks.task import Precision
from torchfpn.types import Batch, Objects, Panoptic, Semantic, Size

log = logging.getLogger(__name__)
PanopticWatch = Callable[[ObjectSample, Panoptic], None]  # a sample, labels as the model's, and its prediction


@dataclass(frozen=True)
class PanopticEvaluation:
    """The scores over all images.

    Attributes:
        quality: panoptic quality of the merged segments.
        each: the same of each image.
        precisions: average precision of the things that the region branch found, before merging.
        semantic: pixels by true and predicted class of the semantic branch.
        colors: of the classes.
        names: of the images.
    """

    quality: PanopticScores
    each: tuple[PanopticScores, ...]
    precisions: Precisions
    semantic: ConfusionMatrix
    colors: tuple[tuple[int, int, int], ...]
    names: tuple[str, ...]

    def scored(self) -> list[int]:
        """The numbers of the images with a panoptic quality, the worst first."""
        scored = [number for number, one in enumerate(self.each) if not math.isnan(one.pq)]
        return sorted(scored, key=lambda number: self.each[number].pq)

    def to_dict(self, split: str = "val") -> dict[str, Any]:
        """Plain values for JSON, as in a run's validation.json; None where there is nothing to score.

        "branches": average precision of masks and boxes before merging, and mean IoU of the semantic branch.
        "each_image": panoptic quality of each image, in the order of the split.
        """
        branches = {name.removeprefix("val/"): plain(value) for name, value in branch_scores(self).items()}
        each = [
            {"name": Path(name).name, "pq": plain(one.pq), "tp": sum(one.tp), "fp": sum(one.fp), "fn": sum(one.fn)}
            for name, one in zip(self.names, self.each, strict=True)
        ]
        return self.quality.to_dict(split, self.colors) | {"branches": branches, "each_image": each}


def branch_scores(found: "PanopticEvaluation | PanopticScorer") -> dict[str, float]:
    """What the two branches reach by themselves, by the names of the columns of metrics.csv."""
    precisions, semantic = found.precisions, found.semantic
    masks = precisions.masks or precisions.boxes
    return {
        "val/mask_ap": masks.ap,
        "val/mask_ap50": masks.ap50,
        "val/ap": precisions.boxes.ap,
        "val/ap50": precisions.boxes.ap50,
        "val/miou": semantic.miou(),
    }


class PanopticScorer:
    """Panoptic quality, average precision and mean IoU over images of a split.

    Args:
        task: a panoptic model.
        source: what the images are of: it knows areas, the classes of crowds and the ids of images.
        order: the task's label of each class of the dataset, see `torchfpn.evaluation.model.class_order`.
        boundary: also boundary PQ; see `torchfpn.metrics.panoptic.PanopticQuality`.
    """

    def __init__(
        self,
        task: PanopticTask,
        source: ObjectDataset | None = None,
        *,
        order: Sequence[int] | None = None,
        boundary: float | None = None,
    ) -> None:
        self.task, self.order = task, order
        self.quality = PanopticQuality(task.things, task.stuff, boundary=boundary)
        self.objects = ObjectScorer(task, source, masks=True, order=order, classes=task.things)
        branch = len(task.classes) if self._all_classes else 1 + len(task.stuff)
        self.semantic = ConfusionMatrix(branch)

    @property
    def precisions(self) -> Precisions:
        """Average precision of the things of all images."""
        return self.objects.scores.compute()

    def update(self, number: int, found: Panoptic, objects: Objects, truth: SegmentMap) -> tuple[Objects, SegmentMap]:
        """Counts an image.

        Args:
            number: of the image in the split.
            found: the result, on the CPU.
            objects: its true things.
            truth: its true segments.

        Returns:
            The things and the segments with the labels of the task.
        """
        assert found.instances is not None
        assert found.semantic is not None
        if self.order is not None:
            truth = replace(truth, labels=np.asarray(list(self.order), np.int64)[truth.labels])
        self.quality.update(found, truth, number=number)
        things = self.objects.update(number, found.instances, objects)
        target = torch.from_numpy(truth.semantic.astype(np.int64))
        known = torch.where(found.semantic.scores > 0, target, IGNORE)  # pixels without data have no prediction
        self.semantic.update(self._branch_labels(found.semantic), self.task.criterion.semantic_targets(known))  # type: ignore[operator]
        return things, truth

    def state(self) -> dict[str, Any]:
        """What was counted, to be sent to another process."""
        objects = self.objects.scores.state()
        return {"quality": self.quality.state(), "objects": objects, "semantic": self.semantic.matrix.cpu()}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Adds what another process has counted."""
        self.quality.merge(state["quality"])
        self.objects.scores.merge(state["objects"])
        self.semantic.matrix = self.semantic.matrix + state["semantic"].to(self.semantic.matrix)

    @property
    def _all_classes(self) -> bool:
        return bool(self.task.criterion.semantic_classes == "all")

    def _branch_labels(self, semantic: Semantic) -> Tensor:
        """Labels of all classes -> labels of the semantic branch, in which one class may stand for all things."""
        labels, scores = semantic.labels, semantic.scores
        if self._all_classes:
            return labels
        own = torch.where(labels == IGNORE, 0, labels - (len(self.task.things) - 1))
        return torch.where(scores > 0, own, IGNORE)


def check_kinds(task: PanopticTask, dataset: DatasetConfig) -> None:
    """Passes a dataset in which the same classes are things as in the model.

    Raises:
        DataError: it is of another task, or a thing of one is stuff of the other.
    """
    if not dataset.is_panoptic:
        raise DataError(f"a dataset for {dataset.task}", file=dataset.file, field="task", allowed="panoptic")
    for name in dataset.names:
        if name in task.classes and (name in dataset.things) != (name in task.things):
            kinds = ("a thing", "stuff") if name in dataset.things else ("stuff", "a thing")
            found = f'"{name}" is {kinds[0]} in the dataset and {kinds[1]} in the model'
            raise DataError(found, file=dataset.file, field="things", allowed="the same things in both")


def evaluate_panoptic(
    task: PanopticTask,
    samples: ObjectDataset | Iterable[ObjectSample],
    *,
    source: ObjectDataset | None = None,
    boundary: float | None = None,
    precision: Precision = "fp32",
    order: Sequence[int] | None = None,
    progress: Callable[[], None] | None = None,
    watch: PanopticWatch | None = None,
    fit: Fit | None = None,
) -> PanopticEvaluation:
    """Predicts every sample whole, on the device the task is on, and counts.

    Args:
        task: a panoptic model.
        samples: labelled images, neither augmented nor resized.
        source: what the samples are of, all of them in their order, if they come from elsewhere (a loader).
        boundary: width of the bands of boundary PQ relative to the diagonal (0.02); None: no boundary PQ.
        precision: of the computation.
        order: the task's label of each class of the samples (`torchfpn.evaluation.model.class_order`).
        progress: called after every image.
        watch: is shown every sample with its prediction.
        fit: brings images to the values that a converted model learnt on.

    Raises:
        DataError: a sample that cannot be read. NotFiniteError: the model gives NaN or infinity. ShapeError: samples
            without segments.
    """
    source = samples if isinstance(samples, ObjectDataset) else source
    scorer, names = PanopticScorer(task, source, order=order, boundary=boundary), []
    for number, (sample, result) in enumerate(predictions(task, samples, precision, fit, progress)):
        found = result.to("cpu")
        objects, truth = scorer.update(number, found, sample.objects, segments_of(sample.segments))
        names.append(sample.name)
        if watch is not None:
            semantic = None if sample.semantic is None else reordered(sample.semantic, order)
            watch(replace(sample, objects=objects, segments=truth, semantic=semantic), found)
    each = tuple(scorer.quality.images())
    colors = task.recipe.colors
    return PanopticEvaluation(scorer.quality.compute(), each, scorer.precisions, scorer.semantic, colors, tuple(names))


def segments_of(segments: SegmentMap | None) -> SegmentMap:
    """The true segments of a sample.

    Raises:
        ShapeError: it has none.
    """
    if segments is None:
        raise ShapeError("a sample without segments", allowed="whole samples of a panoptic dataset, not resized")
    return segments


class PanopticValidation(ObjectValidation):
    """One round over the validation images, batch by batch, in their own pixels.

    gather: a value of each of the processes that train together. source: what the images are of, so that these scores
    are those of `evaluate_panoptic`.
    """

    def __init__(
        self,
        task: PanopticTask,
        gather: Callable[[Any], list[Any]] = lambda value: [value],
        source: ObjectDataset | None = None,
    ) -> None:
        super().__init__(task, gather, source)
        self.panoptic = PanopticScorer(task, source)

    def nothing(self, size: Size) -> Panoptic:
        """The result of an image for which the model gives NaN or infinity."""
        semantic = Semantic(torch.full(size, IGNORE), torch.zeros(size))
        segments = torch.zeros(size, dtype=torch.int32)
        return Panoptic(segments, [], no_instances(size, masks=True), semantic)

    def count(self, number: int, result: Panoptic, batch: Batch, place: int) -> None:
        """Counts an image; `place` is its place in the batch, `number` that in the split."""
        segments = None if batch.targets.segments is None else batch.targets.segments[place]
        objects = batch.targets.objects[place].to("cpu")
        self.panoptic.update(number, result.to("cpu"), objects, segments_of(segments))

    def row(self) -> dict[str, float]:
        """The columns of metrics.csv; NaN where nothing is labelled or predicted."""
        every = PanopticScorer(self.panoptic.task)
        for state in self.gather(self.panoptic.state()):
            every.merge(state)
        found = every.quality.compute()
        return {
            "val/pq": found.pq,
            "val/sq": found.sq,
            "val/rq": found.rq,
            "val/things_pq": found.things.pq,
            "val/stuff_pq": found.stuff.pq,
            **branch_scores(every),
            **{f"val/pq_{name}": pq for name, pq in zip(found.classes, found.class_pq, strict=True)},
        }


PANOPTIC_COLUMNS = (
    *("val/pq", "val/sq", "val/rq", "val/things_pq", "val/stuff_pq"),
    *("val/mask_ap", "val/mask_ap50", "val/ap", "val/ap50", "val/miou"),
)  # of `PanopticValidation.row`, before those of the classes
