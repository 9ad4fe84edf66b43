"""Pictures of an evaluated detector: some images all along the split, the worst and the best ones."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torchfpn.data.region_sample import RegionSample
from torchfpn.files.atomic import make_directory, write_bytes
from torchfpn.report.region_page import BEST, WORST
from torchfpn.report.region_scores import picture_stem
from torchfpn.tasks.evaluate import Fit
from torchfpn.tasks.evaluate_regions import RegionEvaluation, relabelled
from torchfpn.tasks.precision import Precision, computing
from torchfpn.tasks.task import Task

EXTREME, ORDINARY = 4, 4  # pictures of the best, and of the worst; of others


def picture_names(evaluation: RegionEvaluation, extreme: int = EXTREME, ordinary: int = ORDINARY) -> dict[str, int]:
    """Name of a picture (without suffix) -> number of the image; each image once.

    ``worst-00-<stem>`` and ``best-00-<stem>``, as many as `extreme` each, of half of the images with an F1 at most;
    ``00-<stem>`` of others all along the split: neighbours in a split are often frames of one film.
    """
    counts = evaluation.counts()
    ranked = [number for number in evaluation.ranked() if counts[number].f1 is not None]
    most = min(extreme, len(ranked) // 2)
    names = _named(WORST, ranked[:most], evaluation.names) | _named(BEST, ranked[::-1][:most], evaluation.names)
    rest = sorted(set(range(len(counts))) - set(names.values()))
    apart = max(1, len(rest) // max(1, ordinary))
    return _named("", rest[::apart][:ordinary], evaluation.names) | names


def write_pictures(
    folder: Path,
    names: dict[str, int],
    evaluation: RegionEvaluation,
    task: Task,
    sample: Callable[[int], RegionSample],
    *,
    order: Sequence[int] | None = None,
    precision: Precision = "fp32",
    fit: Fit | None = None,
) -> None:
    """Draws the images of `names` as PNG files in `folder`, which is made; each is predicted anew.

    Objects are drawn from the score on that `evaluation.threshold` has. sample: gives the sample with a number. order,
    fit: as for `evaluate_regions`.
    """
    from torchfpn.report.object_pictures import objects_side_by_side

    make_directory(folder)
    threshold, recipe = evaluation.threshold, task.recipe
    device = next(task.model.parameters()).device
    for name, number in names.items():
        one = sample(number)
        image = one.image if fit is None else fit(one.image)
        with computing(device, precision):
            found: Any = task.predict([image.to(device)])[0].to("cpu")
        picture = objects_side_by_side(
            one.image.numpy(),
            relabelled(one.objects, order),
            found.above(threshold),
            colors=recipe.colors,
            names=recipe.classes,
            bands=recipe.bands,
        )
        write_bytes(folder / f"{name}.png", picture)


def _named(start: str, numbers: Sequence[int], names: Sequence[str]) -> dict[str, int]:
    return {f"{start}{i:02d}-{picture_stem(names[number])}": number for i, number in enumerate(numbers)}
