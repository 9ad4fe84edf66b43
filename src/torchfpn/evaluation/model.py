"""Scores of a model on labelled images, of pixels or of objects, for evaluation and for validation during training."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.data.config import DatasetConfig
from torchfpn.data.datasets import ObjectDataset, SemanticDataset, SplitDataset
from torchfpn.data.reading import nth_window, pad_window
from torchfpn.data.sample import ObjectSample, Sample
from torchfpn.data.splits import Pair
from torchfpn.errors import DataError, NotFiniteError
from torchfpn.io.bands import is_name
from torchfpn.io.formats import is_vector
from torchfpn.io.select_bands import band_order, divisor_of, in_range
from torchfpn.metrics.boundary import BoundaryIoU, BoundaryStrips
from torchfpn.metrics.confusion import ConfusionMatrix
from torchfpn.metrics.detection import AveragePrecision, Counts, ImageMatches, best_threshold
from torchfpn.metrics.precisions import LIMITS, Precisions
from torchfpn.ops.masks import Instances, no_instances
from torchfpn.ops.masks import areas as mask_areas
from torchfpn.recipe import IGNORE, Recipe
from torchfpn.tasks.task import Precision, RegionTask, Task, check_logits, computing, naming, overflow_words
from torchfpn.types import Batch, Objects, Semantic, Size

log = logging.getLogger(__name__)
Fit = Callable[[Tensor], Tensor]  # an image as its file has it -> with the values that the model learnt on
Watch = Callable[[Sample, Tensor], None]  # a sample and the labels [H, W] predicted for it
S = TypeVar("S", bound=SplitDataset)
ObjectWatch = Callable[[ObjectSample, Instances], None]  # a sample, labels as the model's, and what was found in it


@dataclass(frozen=True)
class PixelEvaluation:
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


def evaluate_pixels(
    task: Task,
    samples: Iterable[Sample],
    *,
    source: SemanticDataset | None = None,
    boundary: bool = True,
    precision: Precision = "fp32",
    order: Sequence[int] | None = None,
    progress: Callable[[], None] | None = None,
    watch: Watch | None = None,
    fit: Fit | None = None,
) -> PixelEvaluation:
    """Predicts every sample whole, on the device the task is on, and counts.

    Args:
        task: the model.
        samples: labelled images.
        source: what the samples are of, all of them in their order: it knows which are windows of one scene, whose
            outlines are compared in the whole scene.
        boundary: also the boundary IoU, which costs more than the rest.
        precision: of the computation.
        order: the task's label of each class of the samples (see `class_order`).
        progress: called after every image.
        watch: is shown every sample with its prediction.
        fit: brings images to the values that a converted model learnt on (`fitting`). Pixels that overflow when they
            are scaled are no data, and a warning counts them.

    Raises:
        DataError: a sample that cannot be read. NotFiniteError: the model gives NaN or infinity.
    """
    confusion = ConfusionMatrix(len(task.classes))
    source = samples if isinstance(samples, SemanticDataset) else source
    edges = Edges(len(task.classes), source) if boundary else None
    images = 0
    for sample, found in predictions(task, samples, precision, fit, progress):
        labels = found.labels.cpu()
        truth = reordered(sample.target, order)
        truth = torch.where(labels == IGNORE, IGNORE, truth)  # pixels without data have no prediction
        confusion.update(labels, truth)
        if edges is not None:
            edges.update(images, labels, truth)
        images += 1
        if watch is not None:
            watch(Sample(sample.image, truth, sample.name), labels)
    return PixelEvaluation(task.classes, task.recipe.colors, confusion, None if edges is None else edges.counts, images)


def open_samples(
    kind: Callable[..., S], dataset: DatasetConfig, split: str, recipe: Recipe, *, accept_dtype: bool = False
) -> S:
    """The images of a split with the bands that the model was trained on, found by name where the names are known.

    Args:
        kind: SemanticDataset or ObjectDataset.
        dataset: labelled images.
        split: one of its splits.
        recipe: of the model.
        accept_dtype: accept another pixel type than in training.

    Raises:
        ConfigError: a dataset of the other kind. DataError: an image that cannot be used, other bands or another pixel
            type than the model's.
    """
    if recipe.inputs is not None:  # values of several pixel types would need a divisor each
        dataset = replace(dataset, scaling=None)
    samples = kind(dataset, split, cache=False)
    file = samples.pairs[0].image
    divisor_of(samples.dtype, recipe, file=file, accept=accept_dtype)
    named = [is_name(name) for name in samples.bands]
    cure = "name them in `bands` of dataset.yaml as the model does, or choose the model's with `use_bands`"
    whole = () if dataset.bands else recipe.file_bands  # names of the dataset's own come first
    order = band_order(samples.bands, recipe.bands, file=file, told=named, cure=cure, whole=whole)
    if order == list(range(len(samples.bands))):
        return samples
    return kind(replace(dataset, use_bands=tuple(samples.bands[i] for i in order)), split, cache=False)


def fitting(samples: SplitDataset, recipe: Recipe, *, accept_dtype: bool = False) -> Fit:
    """A function that brings images of `samples` to the range of values that the model was trained on."""
    return partial(in_range, dtype=samples.dtype, recipe=recipe, file=samples.dataset.file, accept=accept_dtype)


def predictions(
    task: Task, samples: Any, precision: Precision, fit: Fit | None, progress: Callable[[], None] | None
) -> Iterator[tuple[Any, Any]]:
    """Each sample with its prediction, on the device of the task; a warning counts pixels that overflow in scaling.

    Args:
        task: the model.
        samples: a dataset, or its samples.
        precision: of the computation.
        fit: brings images to the values that a converted model learnt on.
        progress: called after every image.
    """
    device, lost = next(task.model.parameters()).device, 0
    every = (
        (samples[i] for i in range(len(samples))) if isinstance(samples, SemanticDataset | ObjectDataset) else samples
    )
    for sample in every:
        image = sample.image if fit is None else fit(sample.image)
        lost += int(task.normalize.overflowing(image[None].to(device)).sum())
        with computing(device, precision), naming(sample.name):
            (found,) = task.predict([image.to(device)])
        yield sample, found
        if progress is not None:
            progress()
    if lost:
        log.warning(overflow_words(lost))


class Edges:
    """The boundary IoU of samples in their order. source: what they are of; None: each is an image."""

    def __init__(self, classes: int, source: SemanticDataset | None) -> None:
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
        core = nth_window(size, part)
        top, left, _, _ = pad_window(core, size)
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


@dataclass(frozen=True)
class ObjectEvaluation:
    """The scores over all images, and which images are good and which are bad.

    Attributes:
        names: of the images.
        matches: of each at IoU .5, of masks where there are any.
    """

    precisions: Precisions
    colors: tuple[tuple[int, int, int], ...]
    names: tuple[str, ...]
    matches: tuple[ImageMatches, ...]

    @property
    def threshold(self) -> float:
        """The score from which on detections are believed so that F1 over all objects is largest."""
        return best_threshold(self.matches)

    def counts(self) -> list[Counts]:
        """Objects matched, missed and false of each image, of the detections above `threshold`."""
        threshold = self.threshold
        return [each.counts(threshold) for each in self.matches]

    def ranked(self) -> list[int]:
        """The numbers of the images, the worst first: by F1, and of equal ones those with more objects first.

        Images without an F1, which hold no object and in which none was found, come last.
        """
        counts = self.counts()
        f1 = [each.f1 for each in counts]
        return sorted(range(len(counts)), key=lambda i: (math.inf if f1[i] is None else f1[i], -sum(counts[i])))

    def scored(self) -> list[int]:
        """The numbers of the images with an F1, the worst first."""
        counts = self.counts()
        return [number for number in self.ranked() if counts[number].f1 is not None]

    def to_dict(self, split: str = "val") -> dict[str, Any]:
        """Plain values for JSON, as in a run's validation.json; None where there is nothing to score.

        "objects_found": at `threshold`, all images together. "each_image": the same of each, in the order of the split.
        """
        counts = self.counts()
        total = Counts(*(sum(each[i] for each in counts) for i in range(3)))
        names = (Path(name).name for name in self.names)
        each = [{"name": name, **c._asdict(), "f1": c.f1} for name, c in zip(names, counts, strict=True)]
        objects = {"threshold": self.threshold, **total._asdict(), "f1": total.f1}
        return self.precisions.to_dict(split, self.colors) | {"objects_found": objects, "each_image": each}


def evaluate_objects(
    task: Task,
    samples: ObjectDataset | Iterable[ObjectSample],
    *,
    source: ObjectDataset | None = None,
    precision: Precision = "fp32",
    order: Sequence[int] | None = None,
    most: int = LIMITS[-1],
    progress: Callable[[], None] | None = None,
    watch: ObjectWatch | None = None,
    fit: Fit | None = None,
) -> ObjectEvaluation:
    """Predicts every sample whole, on the device the task is on, and counts.

    Masks are scored where the task and the samples have them, else boxes.

    Args:
        task: of detection or instance segmentation.
        samples: labelled images.
        source: what the samples are of, all of them in their order, if they come from elsewhere (a loader): it knows
            areas and the classes of crowds.
        precision: of the computation.
        order: the task's label of each class of the samples (see `class_order`).
        most: detections of each image and class that AP counts.
        progress: called after every image.
        watch: is shown every sample with what was found.
        fit: brings images to the values that a converted model learnt on.

    Raises:
        DataError: a sample that cannot be read. NotFiniteError: the model gives NaN or infinity. ShapeError: a task
            with masks, samples without.
    """
    source = samples if isinstance(samples, ObjectDataset) else source
    masks = task.recipe.task == "instance" and (source is None or source.dataset.task == "instance")
    scorer = ObjectScorer(task, source, masks=masks, most=most, order=order)
    names = []
    for index, (sample, found) in enumerate(predictions(task, samples, precision, fit, progress)):
        found = found.to("cpu")
        truth = scorer.update(index, found, sample.objects)
        names.append(sample.name)
        if watch is not None:
            watch(replace(sample, objects=truth), found)
    matches = as_given(scorer.scores.matches(), scorer.numbers)
    return ObjectEvaluation(scorer.scores.compute(), task.recipe.colors, tuple(names), matches)


class ObjectScorer:
    """Average precision over images of a split.

    Args:
        task: of detection or instance segmentation.
        source: what the images are of: it knows areas, the classes of crowds and the ids of images.
        masks: score masks, too.
        most: detections of each image and class that count.
        order: the task's label of each class of the dataset.
        classes: names of the objects' classes; None: all classes of the task.
    """

    def __init__(
        self,
        task: Task,
        source: ObjectDataset | None,
        *,
        masks: bool,
        most: int = LIMITS[-1],
        order: Sequence[int] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.scores = AveragePrecision(task.classes if classes is None else classes, masks=masks, most=most)
        self.source, self.ranks, self.order = source, image_ranks(source), order
        self.numbers: list[int] = []

    def update(self, index: int, found: Instances, objects: Objects) -> Objects:
        """Counts the image with this index in the split, both sides on the CPU; its objects with the task's labels."""
        facts = TruthFacts() if self.source is None else truth_facts(self.source, index, objects)
        truth = relabelled(objects, self.order)
        crowd_labels = None if facts.crowd_labels is None else _table(self.order, facts.crowd_labels)
        self.numbers.append(index if self.ranks is None else self.ranks[index])
        self.scores.update(found, truth, areas=facts.areas, crowd_labels=crowd_labels, number=self.numbers[-1])
        return truth


def as_given(matches: Sequence[ImageMatches], numbers: Sequence[int]) -> tuple[ImageMatches, ...]:
    """Matches in the order of the numbers of their images -> in the order in which the images came.

    Args:
        matches: of each image.
        numbers: of each image, as it came; each once.
    """
    places = {number: place for place, number in enumerate(sorted(numbers))}
    return tuple(matches[places[number]] for number in numbers)


def image_ranks(source: ObjectDataset | None) -> list[int] | None:
    """Where each sample stands among all, by the id of its image; None without ids: as they come.

    COCO's evaluation goes through images in the order of their ids, which decides between equal scores.
    """
    if source is None or source.annotations is None:
        return None
    ids = source.annotations.ids
    images = np.array([ids[source.locate(index)[0]] for index in range(len(source))], np.int64)
    order = np.argsort(images, kind="stable")  # windows of a scene follow each other
    ranks: list[int] = np.argsort(order, kind="stable").tolist()
    return ranks


def relabelled(objects: Objects, order: Sequence[int] | None) -> Objects:
    """Labels of the dataset's classes -> labels of the model's."""
    if order is None or list(order) == list(range(len(order))):
        return objects
    return replace(objects, labels=torch.tensor(list(order), dtype=torch.int64)[objects.labels])


class TruthFacts(NamedTuple):
    """What a COCO file says of an image that its `Objects` do not: areas [N] of the objects, classes [M] of the crowds.

    None: nobody says.
    """

    areas: NDArray[np.float32] | None = None
    crowd_labels: NDArray[np.int64] | None = None


def truth_facts(samples: ObjectDataset, index: int, objects: Objects) -> TruthFacts:
    """Of the sample `index`; nothing of windows of a scene, where objects are cut, and of samples that are resized."""
    annotations = samples.annotations
    number, _ = samples.locate(index)
    if annotations is None or number in samples.scenes or samples.resize is not None or samples.augment is not None:
        return TruthFacts()
    rows = annotations.rows(number)
    every = np.arange(annotations.first[number], annotations.first[number + 1])
    crowds = every[annotations.crowd[every]]
    counts = len(objects), 0 if objects.crowds is None else len(objects.crowds)
    areas = annotations.areas[rows]
    unsaid = np.isnan(areas)
    if unsaid.any() and objects.masks is not None and len(rows) == counts[0]:
        areas = np.where(unsaid, mask_areas(objects.masks).numpy(), areas)
    return TruthFacts(
        areas if len(rows) == counts[0] and not np.isnan(areas).any() else None,
        annotations.labels[crowds].astype(np.int64) if len(crowds) == counts[1] else None,
    )


def _table(order: Sequence[int] | None, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    return labels if order is None else np.asarray(list(order), np.int64)[labels]


def has_objects(pairs: Sequence[Pair]) -> bool:
    """Whether the labels of a split are polygons."""
    return any(pair.label is not None and is_vector(pair.label) for pair in pairs)


class PixelValidation:
    """One round over the validation images, batch by batch.

    reduce: sums a tensor over the processes that train together.
    """

    def __init__(self, task: Task, reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
        self.task, self.reduce = task, reduce
        self.confusion = ConfusionMatrix(len(task.classes))
        self.loss, self.images, self.warned = 0.0, 0, False

    def step(self, batch: Batch) -> list[Semantic]:
        """Takes in one batch and gives its results; the task is in eval mode and on the device of the batch."""
        task = self.task
        images, valid = task.normalize(batch.images)
        raw = task.model(images)
        try:
            check_logits(raw, valid, [(name, None) for name in batch.names])
        except NotFiniteError as error:  # the weights of an epoch may be bad and those of a later one good
            self._warn(error)
        targets = torch.where(valid, batch.targets, IGNORE)
        losses = task.criterion(raw, targets)
        labelled = int((targets != IGNORE).flatten(1).any(1).sum())  # an image without a label has no loss, and not 0
        self.loss += float(torch.stack(list(losses.values())).sum()) * labelled
        self.images += labelled
        results: list[Semantic] = task.postprocess(raw, batch.sizes, valid)
        for result, target, (height, width) in zip(results, targets, batch.sizes, strict=True):
            self.confusion.update(result.labels, target[:height, :width])
        return results

    def _warn(self, error: NotFiniteError) -> None:
        """A warning about the first image; there may be as many as there are images."""
        if not self.warned:
            log.warning("%s", error)
        self.warned = True

    def row(self) -> dict[str, float]:
        """The columns of metrics.csv; NaN for a class that occurs neither in truth nor in prediction."""
        sums = self.reduce(torch.tensor([self.loss, self.images], dtype=torch.float64))
        self.confusion.matrix = self.reduce(self.confusion.matrix)
        ious = zip(self.task.classes, self.confusion.iou().tolist(), strict=True)
        return {
            "val/loss": float(sums[0] / sums[1]) if sums[1] else math.nan,
            "val/miou": self.confusion.miou(),
            "val/pixel_accuracy": self.confusion.pixel_accuracy(),
            **{f"val/iou_{name}": iou for name, iou in ious},
        }


class ObjectValidation:
    """One round over the validation images, batch by batch, in their own pixels.

    gather: a value of each of the processes that train together. source: what the images are of: it knows areas and the
    classes of crowds, so that this score is that of `evaluate_objects`.
    """

    def __init__(
        self,
        task: RegionTask,
        gather: Callable[[Any], list[Any]] = lambda value: [value],
        source: ObjectDataset | None = None,
    ) -> None:
        self.task, self.gather = task, gather
        self.masks = task.recipe.task == "instance"
        self.scorer = ObjectScorer(task, source, masks=self.masks)
        self.warned = False

    def step(self, batch: Batch, first: int = 0) -> list[Any]:
        """Takes in one batch and gives its results.

        Args:
            batch: images and objects.
            first: the number of its first image in the split.
        """
        try:
            results: list[Any] = self.task.predict(batch)
        except NotFiniteError as error:  # the weights of an epoch may be bad and those of a later one good
            if not self.warned:
                log.warning("%s", error)
            self.warned = True
            results = [self.nothing(size) for size in batch.sizes]
        for place, result in enumerate(results):
            self.count(first + place, result, batch, place)
        return results

    def nothing(self, size: Size) -> Any:
        """The result of an image for which the model gives NaN or infinity."""
        return no_instances(size, masks=self.masks)

    def count(self, number: int, result: Any, batch: Batch, place: int) -> None:
        """Counts an image; `place` is its place in the batch, `number` that in the split."""
        self.scorer.update(number, result.to("cpu"), batch.targets[place].to("cpu"))

    def row(self) -> dict[str, float]:
        """The columns of metrics.csv; NaN for a class that does not occur in the truth."""
        every = AveragePrecision(self.task.classes, masks=self.masks)
        for state in self.gather(self.scorer.scores.state()):
            every.merge(state)
        found = every.compute()
        table = found.boxes if found.masks is None else found.masks
        masks = {} if found.masks is None else {"val/mask_ap": found.masks.ap, "val/mask_ap50": found.masks.ap50}
        return {
            "val/ap": found.boxes.ap,
            "val/ap50": found.boxes.ap50,
            "val/ap75": found.boxes.ap75,
            **masks,
            **{f"val/ap_{name}": ap for name, ap in zip(self.task.classes, table.class_ap, strict=True)},
        }
