"""How good a task is on labelled images: predicted one by one at full size, compared pixel by pixel."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchfpn.data.sample import Sample
from torchfpn.data.samples import SemanticSamples
from torchfpn.data.windows import nth_tile, with_margin
from torchfpn.errors import DataError
from torchfpn.metrics.boundary import BoundaryIoU, BoundaryStrips
from torchfpn.metrics.confusion import ConfusionMatrix
from torchfpn.tasks.finite import naming, overflow_words
from torchfpn.tasks.precision import Precision, computing
from torchfpn.tasks.task import Task
from torchfpn.types import IGNORE

log = logging.getLogger(__name__)
Fit = Callable[[Tensor], Tensor]  # an image as its file has it -> with the values that the model learnt on
Watch = Callable[[Sample, Tensor], None]  # a sample and the labels [H, W] predicted for it


@dataclass(frozen=True)
class Evaluation:
    """The counts over all images, from which every score follows. boundary: None where it was not asked for."""

    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    confusion: ConfusionMatrix
    boundary: BoundaryIoU | None
    images: int

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur in the truth or the prediction."""
        return self.confusion.miou()

    @property
    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels that are right."""
        return self.confusion.pixel_accuracy()

    def to_dict(self, split: str = "val") -> dict[str, Any]:
        """Plain values for JSON, as in a run's validation.json; None where there is nothing to score."""
        edges = None if self.boundary is None else self.boundary.iou().tolist()
        counts = self.confusion.counts()
        return counts.to_dict(self.classes, self.colors, images=self.images, split=split, boundary_iou=edges)


def evaluate(
    task: Task,
    samples: Iterable[Sample],
    *,
    source: SemanticSamples | None = None,
    boundary: bool = True,
    precision: Precision = "fp32",
    order: Sequence[int] | None = None,
    progress: Callable[[], None] | None = None,
    watch: Watch | None = None,
    fit: Fit | None = None,
) -> Evaluation:
    """Predicts every sample whole, on the device the task is on, and counts.

    source: what the samples are of, all of them in their order: it knows which are windows of one scene, whose outlines
    are compared in the whole scene. boundary: also the boundary IoU, which costs more than the rest. order: the task's
    label of each class of the samples (see `class_order`). progress: called after every image. watch: is shown every
    sample with its prediction. fit: brings images to the values that a converted model learnt on
    (`files.fitting.in_range`). Pixels that overflow when they are scaled are no data, and a warning counts them.

    Raises:
        DataError: a sample that cannot be read. NotFiniteError: the model gives NaN or infinity.
    """
    confusion = ConfusionMatrix(len(task.classes))
    source = samples if isinstance(samples, SemanticSamples) else source
    edges = Edges(len(task.classes), source) if boundary else None
    device = next(task.model.parameters()).device
    images = lost = 0
    for sample in samples:
        truth = reordered(sample.target, order)
        image = sample.image if fit is None else fit(sample.image)
        lost += int(task.normalize.overflowing(image[None].to(device)).sum())
        with computing(device, precision), naming(sample.name):
            labels = task.predict([image.to(device)])[0].labels.cpu()
        truth = torch.where(labels == IGNORE, IGNORE, truth)  # no data: no answer was asked for
        confusion.update(labels, truth)
        if edges is not None:
            edges.update(images, labels, truth)
        images += 1
        if watch is not None:
            watch(Sample(sample.image, truth, sample.name), labels)
        if progress is not None:
            progress()
    if lost:
        log.warning(overflow_words(lost))
    return Evaluation(task.classes, task.recipe.colors, confusion, None if edges is None else edges.counts, images)


class Edges:
    """The boundary IoU of samples in their order. source: what they are of; None: each is an image."""

    def __init__(self, classes: int, source: SemanticSamples | None) -> None:
        self.counts, self.source = BoundaryIoU(classes), source
        self.strips: BoundaryStrips | None = None
        self.row: list[tuple[Tensor, Tensor]] = []  # windows beside each other

    def update(self, index: int, labels: Tensor, truth: Tensor) -> None:
        """What was predicted of the sample `index`, and its truth, both [H, W]."""
        number, part = (0, 0) if self.source is None else self.source.locate(index)
        if self.source is None or number not in self.source.scenes:
            self.counts.update(labels, truth)
            return
        size = self.source.scenes[number].size
        core = nth_tile(size, part)
        top, left, _, _ = with_margin(core, size)
        own = slice(core[0] - top, core[0] - top + core[2]), slice(core[1] - left, core[1] - left + core[3])
        if part == 0 or self.strips is None:
            self.strips, self.row = BoundaryStrips(self.counts, size), []
        self.row.append((labels[own], truth[own]))
        if core[1] + core[3] == size[1]:
            self.strips.add(*(torch.cat(side, 1) for side in zip(*self.row, strict=True)))
            self.row = []


def class_order(model: Sequence[str], dataset: Sequence[str]) -> list[int]:
    """The label that a model gives to each class of a dataset, found by name.

    Raises:
        DataError: the two do not have the same classes; the differences are named.
    """
    if set(model) != set(dataset):
        only_model = [name for name in model if name not in dataset]
        only_data = [name for name in dataset if name not in model]
        parts = [f"only the dataset has {', '.join(only_data[:8])}"] if only_data else []
        parts += [f"only the model has {', '.join(only_model[:8])}"] if only_model else []
        raise DataError("; ".join(parts), field="classes", allowed="the same names in model and dataset, in any order")
    return [list(model).index(name) for name in dataset]


def reordered(target: Tensor, order: Sequence[int] | None) -> Tensor:
    """Labels of the dataset's classes -> labels of the model's; `IGNORE` stays."""
    if order is None or list(order) == list(range(len(order))):
        return target
    table = torch.full((IGNORE + 1,), IGNORE, dtype=torch.int64)
    table[: len(order)] = torch.tensor(list(order))
    return table[target]
