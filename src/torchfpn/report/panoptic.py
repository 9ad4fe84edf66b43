"""Panoptic segments drawn on pictures of their image, alone or beside the true ones.

Stuff has the color of its class. Things have shades of it, so that neighbours are told apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from torchfpn.data.sample import ObjectSample
from torchfpn.evaluation.model import Fit
from torchfpn.evaluation.panoptic_model import PanopticEvaluation, segments_of
from torchfpn.io.atomic import make_directory, write_bytes
from torchfpn.metrics.panoptic import Segmented
from torchfpn.ops.extents import extents
from torchfpn.report.images import Rgb, class_colors, legend_below, png, shortened, to_rgb
from torchfpn.report.objects import (
    NAME,
    Frame,
    at_size,
    draw_numbers,
    draw_texts,
    line_width,
    picture_names,
    text_size,
)
from torchfpn.report.sheets import LARGEST, Legend, panels_png, resized
from torchfpn.tasks.task import Precision, Task, computing
from torchfpn.types import Color, Panoptic

SHADES = (0.0, 0.4, -0.35, 0.2, -0.2, 0.55, -0.5)  # towards white, or towards black; used again and again


@dataclass(frozen=True)
class SegmentMarks:
    """What is drawn of S segments of an image.

    Attributes:
        ids: [H, W] the id of each pixel; others than `numbers` stay as they are.
        numbers: [S] the id of each segment, those first whose texts matter most.
        labels: [S] classes.
        things: [S] which are things.
        texts: of each segment.
    """

    ids: NDArray[Any]
    numbers: Sequence[int]
    labels: Sequence[int]
    things: Sequence[bool]
    texts: Sequence[str]

    @classmethod
    def of_result(cls, found: Panoptic, names: Sequence[str]) -> "SegmentMarks":
        """Of a result: names of the classes, and scores of things."""
        infos = sorted(found.segments_info, key=lambda one: (not one.isthing, -one.score if one.isthing else -one.area))
        texts = [
            f"{_name(one.label, names)} {one.score:.2f}".strip() if one.isthing else _name(one.label, names)
            for one in infos
        ]
        return cls(
            found.segments.cpu().numpy(),
            [one.id for one in infos],
            [one.label for one in infos],
            [one.isthing for one in infos],
            texts,
        )

    @classmethod
    def of_truth(cls, truth: Segmented, things: int, names: Sequence[str]) -> "SegmentMarks":
        """Of labels, with the names of the classes. things: how many of the first classes are things."""
        labels, crowds = truth.labels.tolist(), truth.crowds.tolist()
        texts = [f"{_name(k, names)}{' (crowd)' * crowd}" for k, crowd in zip(labels, crowds, strict=True)]
        return cls(np.asarray(truth.ids), truth.numbers.tolist(), labels, [k < things for k in labels], texts)


def overlay_panoptic(
    image: ArrayLike,
    found: Panoptic,
    *,
    colors: Sequence[Sequence[int]],
    names: Sequence[str] = (),
    bands: Sequence[str] = (),
) -> bytes:
    """Draws a panoptic result over its image: every segment tinted and outlined, with its name where there is room.

    Args:
        image: [C, H, W] raw values, NaN where there is no data.
        found: the result; void stays as it is. Things show their scores.
        colors: of the classes; missing ones are made up.
        names: of the classes, for texts and a legend below the image; without them there is no legend, and the picture
            has the size of the image.
        bands: names of the image's bands, to find red, green and blue.

    Returns:
        A PNG file.
    """
    marks = SegmentMarks.of_result(found, names)
    known = _class_colors(colors, names, marks)
    picture = Image.fromarray(draw_segments(to_rgb(image, bands), marks, known))
    return png(legend_below(picture, _legend([marks], known, names)))


def panoptic_side_by_side(
    image: ArrayLike,
    truth: SegmentMarks | None,
    found: SegmentMarks | None,
    *,
    colors: Sequence[Sequence[int]],
    names: Sequence[str] = (),
    bands: Sequence[str] = (),
    largest: int = LARGEST,
    palette: bool = False,
) -> bytes:
    """Draws image | truth | prediction, with a legend of the classes that occur, on a transparent background.

    Args:
        image: [C, H, W] raw values, NaN where there is no data.
        truth: the labels; None leaves the panel out.
        found: the result; None leaves the panel out.
        colors: of the classes; missing ones are made up.
        names: of the classes.
        bands: names of the image's bands, to find red, green and blue.
        largest: height or width of the panels in pixels, to which larger images are reduced.
        palette: reduces the picture to 256 colours, a quarter of the bytes.

    Returns:
        A PNG file.
    """
    pixels = to_rgb(image, bands)
    shown = np.asarray(resized(pixels, largest, smooth=True))
    marks = [(title, each) for title, each in (("truth", truth), ("prediction", found)) if each is not None]
    known = _class_colors(colors, names, *(each for _, each in marks))
    panels = [("image", pixels), *((title, draw_segments(shown, each, known)) for title, each in marks)]
    legend = _legend([each for _, each in marks], known, names)
    return panels_png(panels, legend, largest=largest, palette=palette)


def draw_segments(pixels: Rgb, marks: SegmentMarks, colors: Sequence[Color]) -> Rgb:
    """A copy of a picture with segments on it: tinted and outlined; texts where there is room.

    pixels: [h, w, 3], the image in any size; lines and letters have a readable size on it. colors: of the classes.
    """
    canvas = pixels.copy()
    if not marks.numbers or not marks.ids.size:
        return canvas
    owners = at_size(_owners(marks), canvas.shape)
    own = _segment_colors(marks, colors)
    draw_numbers(canvas, owners, own, line_width(canvas.shape))
    frames = _text_frames(owners, marks)
    places = [k for k in range(len(own)) if k in frames and marks.texts[k]]
    return draw_texts(canvas, [frames[k] for k in places], [own[k] for k in places], [marks.texts[k] for k in places])


def _name(label: int, names: Sequence[str]) -> str:
    return shortened(names[label], NAME) if label < len(names) else ""


def _owners(marks: SegmentMarks) -> NDArray[np.int32]:
    """[H, W] k where the k-th segment is, counted from 1; 0 elsewhere."""
    numbers = np.asarray(marks.numbers, np.int64)
    order = np.argsort(numbers)
    at = np.searchsorted(numbers[order], marks.ids).clip(max=len(order) - 1)
    return np.where(numbers[order][at] == marks.ids, order[at] + 1, 0).astype(np.int32)


def _segment_colors(marks: SegmentMarks, colors: Sequence[Color]) -> list[Color]:
    seen: dict[int, int] = {}
    found = []
    for label, thing in zip(marks.labels, marks.things, strict=True):
        count = seen[label] = seen.get(label, -1) + 1
        found.append(_shade(colors[label], SHADES[count % len(SHADES)] if thing else 0.0))
    return found


def _shade(color: Color, share: float) -> Color:
    """A color mixed with white, or with black of a share below 0."""
    end = 255 if share > 0 else 0
    red, green, blue = (round(value + abs(share) * (end - value)) for value in color)
    return red, green, blue


def _text_frames(owners: NDArray[np.int32], marks: SegmentMarks) -> dict[int, Frame]:
    """Where texts belong, for `draw_texts`: above things; in the widest place of stuff, if it is wide enough."""
    where = extents(owners)
    frames: dict[int, Frame] = {}
    widest = _widest(owners, [k + 1 for k, thing in enumerate(marks.things) if not thing])
    for number, (x1, y1, x2, y2) in zip(where.ids.tolist(), where.windows.tolist(), strict=True):
        k = number - 1
        if marks.things[k]:
            frames[k] = (x1, y1, x2 - 1, y2 - 1)
            continue
        row, column, length = widest[number]
        wide, tall = text_size(marks.texts[k], (*owners.shape, 3))
        if wide <= length:
            left, top = column + (length - wide) // 2, row + tall // 2
            frames[k] = (left, top, left + wide - 1, top + tall - 1)
    return frames


def _widest(owners: NDArray[np.int32], areas: Sequence[int]) -> dict[int, tuple[int, int, int]]:
    """Row, first column and length of the longest run of pixels of `areas`; of equal ones that in the middle."""
    turns = np.ones(owners.shape, bool)
    np.not_equal(owners[:, 1:], owners[:, :-1], out=turns[:, 1:])
    begin = np.flatnonzero(turns)
    length = np.diff(begin, append=owners.size)
    of = owners.reshape(-1)[begin]
    row, column = np.divmod(begin, owners.shape[1])
    found = {}
    for number in areas:
        own = np.flatnonzero(of == number)
        if not len(own):
            continue
        best = own[length[own] == length[own].max()]
        best = best[len(best) // 2]
        found[number] = int(row[best]), int(column[best]), int(length[best])
    return found


def _class_colors(colors: Sequence[Sequence[int]], names: Sequence[str], *marks: SegmentMarks) -> list[Color]:
    """Of all classes, also of those that only segments have."""
    largest = max((label for each in marks for label in each.labels), default=0)
    return class_colors(colors, max(len(colors), len(names), 1 + largest))


def _legend(marks: Sequence[SegmentMarks], colors: Sequence[Color], names: Sequence[str]) -> Legend:
    present = {label for each in marks for label in each.labels}
    return [(colors[k], name) for k, name in enumerate(names) if k in present]


def write_panoptic_pictures(
    folder: Path,
    evaluation: PanopticEvaluation,
    task: Task,
    sample: Callable[[int], ObjectSample],
    *,
    order: Sequence[int] | None = None,
    precision: Precision = "fp32",
    fit: Fit | None = None,
) -> None:
    """Predicts the worst images, the best and others anew and draws truth and prediction as PNG files.

    Args:
        folder: where to write; made if it is missing.
        evaluation: of the images.
        task: the model.
        sample: gives the sample with an index.
        order: as for `evaluate_panoptic`.
        precision: of the prediction.
        fit: as for `evaluate_panoptic`.

    Raises:
        FPNError: an image that cannot be read, or a folder that cannot be written.
    """
    make_directory(folder)
    recipe, device = task.recipe, next(task.model.parameters()).device
    for name, number in picture_names(evaluation).items():
        one = sample(number)
        image, truth = one.image if fit is None else fit(one.image), segments_of(one.segments)
        with computing(device, precision):
            found: Panoptic = task.predict([image.to(device)])[0].to("cpu")
        if order is not None:
            truth = replace(truth, labels=np.asarray(list(order), np.int64)[truth.labels])
        picture = panoptic_side_by_side(
            one.image.numpy(),
            SegmentMarks.of_truth(truth, len(recipe.things), recipe.classes),
            SegmentMarks.of_result(found, recipe.classes),
            colors=recipe.colors,
            names=recipe.classes,
            bands=recipe.bands,
        )
        write_bytes(folder / f"{name}.png", picture)
