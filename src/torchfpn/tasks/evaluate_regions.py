"""How good a task of objects is on labelled images: predicted one by one at full size, compared object by object."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from torchfpn.data.region_sample import RegionSample
from torchfpn.data.region_samples import RegionSamples
from torchfpn.metrics.average_precision import AveragePrecision
from torchfpn.metrics.object_matches import Counts, ImageMatches, best_threshold
from torchfpn.metrics.precisions import LIMITS, Precisions
from torchfpn.ops.instances import Instances
from torchfpn.ops.masks import areas as mask_areas
from torchfpn.tasks.evaluate import Fit
from torchfpn.tasks.finite import naming, overflow_words
from torchfpn.tasks.precision import Precision, computing
from torchfpn.tasks.task import Task
from torchfpn.types import Objects

log = logging.getLogger(__name__)
RegionWatch = Callable[[RegionSample, Instances], None]  # a sample, labels as the model's, and what was found in it


@dataclass(frozen=True)
class RegionEvaluation:
    """The scores over all images, and which images are good and which are bad.

    names: of the images. matches: of each at IoU .5, of masks where there are any.
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


def evaluate_regions(
    task: Task,
    samples: RegionSamples | Iterable[RegionSample],
    *,
    source: RegionSamples | None = None,
    precision: Precision = "fp32",
    order: Sequence[int] | None = None,
    most: int = LIMITS[-1],
    progress: Callable[[], None] | None = None,
    watch: RegionWatch | None = None,
    fit: Fit | None = None,
) -> RegionEvaluation:
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
    source = samples if isinstance(samples, RegionSamples) else source
    masks = task.recipe.task == "instance" and (source is None or source.dataset.task == "instance")
    scores = AveragePrecision(task.classes, masks=masks, most=most)
    device = next(task.model.parameters()).device
    names, numbers, ranks, lost = [], [], image_ranks(source), 0
    for index, (sample, facts) in enumerate(_each(samples, source)):
        truth = relabelled(sample.objects, order)
        image = sample.image if fit is None else fit(sample.image)
        lost += int(task.normalize.overflowing(image[None].to(device)).sum())
        with computing(device, precision), naming(sample.name):
            found = task.predict([image.to(device)])[0].to("cpu")
        crowd_labels = None if facts.crowd_labels is None else _table(order, facts.crowd_labels)
        numbers.append(index if ranks is None else ranks[index])
        scores.update(found, truth, areas=facts.areas, crowd_labels=crowd_labels, number=numbers[-1])
        names.append(sample.name)
        if watch is not None:
            watch(replace(sample, objects=truth), found)
        if progress is not None:
            progress()
    if lost:
        log.warning(overflow_words(lost))
    return RegionEvaluation(scores.compute(), task.recipe.colors, tuple(names), as_given(scores.matches(), numbers))


def as_given(matches: Sequence[ImageMatches], numbers: Sequence[int]) -> tuple[ImageMatches, ...]:
    """Matches in the order of the numbers of their images -> in the order in which the images came.

    numbers: of each image, as it came; each once.
    """
    places = {number: place for place, number in enumerate(sorted(numbers))}
    return tuple(matches[places[number]] for number in numbers)


def image_ranks(source: RegionSamples | None) -> list[int] | None:
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


def truth_facts(samples: RegionSamples, index: int, objects: Objects) -> TruthFacts:
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


def _each(
    samples: RegionSamples | Iterable[RegionSample], source: RegionSamples | None
) -> Iterator[tuple[RegionSample, TruthFacts]]:
    every = (samples[i] for i in range(len(samples))) if isinstance(samples, RegionSamples) else samples
    for index, sample in enumerate(every):
        yield sample, TruthFacts() if source is None else truth_facts(source, index, sample.objects)


def _table(order: Sequence[int] | None, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    return labels if order is None else np.asarray(list(order), np.int64)[labels]
