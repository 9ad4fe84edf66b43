"""Objects drawn on pictures of their image, alone or beside the true ones; sample pictures of an evaluated detector.

Colours are those of the classes. Objects with masks of a model that has one class get a colour of their own each, so
that neighbours are told apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from torchfpn.data.sample import ObjectSample
from torchfpn.evaluation.model import Fit, ObjectEvaluation, relabelled
from torchfpn.io.atomic import make_directory, write_bytes
from torchfpn.ops.masks import Crops, Instances, numbered
from torchfpn.recipe import default_colors
from torchfpn.report.images import Rgb, class_colors, font, hatching, png, shortened, to_rgb
from torchfpn.report.run import BEST, WORST, picture_stem
from torchfpn.report.sheets import LARGEST, Legend, panels_png, resized
from torchfpn.tasks.task import Precision, Task, computing
from torchfpn.types import Color, Objects, Size

TINT = 0.35  # opacity of masks

SHADE = 0.45  # brightness of the picture beside a line: bright lines are seen on bright ground

SMALLEST_TEXT, LARGEST_TEXT = 10, 40  # pixels, of the letters

RISE = 1 / 70  # letters, relative to the longer side of the picture

CROWDED = 2  # a text that covers more than so many times the area of its object is left out

HUES = 36  # colours of objects, used again and again

DARK = 150  # of 255; darker colours are lost on the black ground of microscopes

NAME = 120  # pixels, of the name of a class beside a score

EXTREMES, OTHERS = 4, 4  # sample pictures of the best, and of the worst; of other images

Frame = tuple[int, int, int, int]  # first column and row, last column and row


@dataclass(frozen=True)
class Marks:
    """What is drawn of N objects of an image, best first: where they overlap, the first one is on top.

    Attributes:
        boxes: [N, 4] (x1, y1, x2, y2) in pixels of the image.
        colors: of each object.
        size: (height, width) of the image.
        crops: the masks; None draws the boxes.
        texts: of each object, or none at all.
        crowds: [M, 4] boxes of areas that are hatched.
    """

    boxes: NDArray[np.float64]
    colors: Sequence[Color]
    size: Size
    crops: Crops | None = None
    texts: Sequence[str] = ()
    crowds: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))

    @classmethod
    def of_truth(cls, objects: Objects, colors: Sequence[Color], size: Size) -> "Marks":
        """Of labelled objects, with their crowds and without texts. colors: of the classes."""
        crowds = np.zeros((0, 4)) if objects.crowds is None else objects.crowds.double().cpu().numpy()
        own = _object_colors(objects.labels.tolist(), objects.masks, colors)
        return cls(_boxes(objects), own, size, objects.masks, crowds=crowds)

    @classmethod
    def of_detections(cls, found: Instances, colors: Sequence[Color], size: Size, names: Sequence[str]) -> "Marks":
        """Of detections, with their scores, and with their classes if there are several. colors: of the classes."""
        labels, scores = found.labels.tolist(), found.scores.tolist()
        short = [shortened(name, NAME) + " " for name in names] if len(names) > 1 else []
        texts = [f"{short[k] if k < len(short) else ''}{score:.2f}" for k, score in zip(labels, scores, strict=True)]
        return cls(_boxes(found), _object_colors(labels, found.crops, colors), size, found.crops, texts)


def objects_side_by_side(
    image: ArrayLike,
    truth: Objects | None,
    found: Instances | None,
    *,
    colors: Sequence[Sequence[int]],
    names: Sequence[str] = (),
    bands: Sequence[str] = (),
    largest: int = LARGEST,
    palette: bool = False,
) -> bytes:
    """Draws image | truth | prediction, with a legend of the classes that occur, on a transparent background.

    Crowds (areas of objects that are not labelled one by one) are hatched.

    Args:
        image: [C, H, W] raw values, NaN where there is no data.
        truth: the labelled objects, in pixels of the image; None leaves the panel out.
        found: detections, all of which are drawn: give `found.above(0.5)` to leave out uncertain ones. None leaves the
            panel out.
        colors: of the classes; missing ones are made up.
        names: of the classes.
        bands: names of the image's bands, to find red, green and blue.
        largest: height or width of the panels in pixels, to which larger images are reduced.
        palette: reduces the picture to 256 colours, a quarter of the bytes.

    Returns:
        A PNG file.
    """
    values = np.asarray(image)
    size, pixels = (values.shape[-2], values.shape[-1]), to_rgb(values, bands)
    shown = np.asarray(resized(pixels, largest, smooth=True))
    labels = [*(() if truth is None else truth.labels.tolist()), *(() if found is None else found.labels.tolist())]
    known = _class_colors(colors, names, labels)
    panels, marks = [("image", pixels)], []
    if truth is not None:
        marks.append(("truth", Marks.of_truth(truth, known, size)))
    if found is not None:
        marks.append(("prediction", Marks.of_detections(found, known, size, names)))
    panels += [(title, draw_objects(shown, each)) for title, each in marks]
    legend: Legend = [(known[k], name) for k, name in enumerate(names) if k in set(labels)]
    if any(_of_one_class(each.crops, known) for _, each in marks):
        legend = []
    return panels_png(panels, legend, largest=largest, palette=palette)


def overlay_objects(
    image: ArrayLike,
    found: Instances,
    *,
    colors: Sequence[Sequence[int]],
    names: Sequence[str] = (),
    bands: Sequence[str] = (),
) -> bytes:
    """Draws detections over their image: masks or boxes, with scores, and with classes if there are several.

    Args:
        image: [C, H, W] raw values, NaN where there is no data.
        found: detections, all of which are drawn; a text that would cover that of a better one is left out.
        colors: of the classes; missing ones are made up.
        names: of the classes.
        bands: names of the image's bands, to find red, green and blue.

    Returns:
        A PNG file of the size of the image.
    """
    values = np.asarray(image)
    size = (values.shape[-2], values.shape[-1])
    marks = Marks.of_detections(found, _class_colors(colors, names, found.labels.tolist()), size, names)
    return png(Image.fromarray(draw_objects(to_rgb(values, bands), marks)))


def draw_objects(pixels: Rgb, marks: Marks) -> Rgb:
    """A copy of a picture with objects on it: masks tinted and outlined, or boxes; texts where there is room.

    pixels: [h, w, 3], the image in any size; lines and letters have a readable size on it.
    """
    canvas = pixels.copy()
    height, width = canvas.shape[:2]
    factor = np.array([width / marks.size[1], height / marks.size[0]] * 2)
    frames = [_frame(box, canvas.shape) for box in np.nan_to_num(marks.boxes * factor).tolist()]
    for x1, y1, x2, y2 in (_frame(box, canvas.shape) for box in (marks.crowds * factor).tolist()):
        part = canvas[y1 : y2 + 1, x1 : x2 + 1]
        part[:] = (0.4 * part + 0.6 * hatching(part.shape[:2])).astype(np.uint8)
    line = line_width(canvas.shape)
    if marks.crops is None:
        for frame, color in reversed(list(zip(frames, marks.colors, strict=True))):
            _draw_box(canvas, frame, color, max(line, 2 if min(height, width) >= 200 else 1))
    else:
        _draw_masks(canvas, marks.crops, marks.colors, line)
    return draw_texts(canvas, frames, marks.colors, marks.texts) if marks.texts else canvas


def _frame(box: Sequence[float], shape: tuple[int, ...]) -> Frame:
    """A box in pixels of the picture, within it and at least one pixel large."""
    height, width = shape[:2]
    x1, y1 = (min(max(round(v), 0), side - 1) for v, side in zip(box[:2], (width, height), strict=True))
    x2, y2 = (min(max(round(v) - 1, low), s - 1) for v, low, s in zip(box[2:], (x1, y1), (width, height), strict=True))
    return x1, y1, x2, y2


def _draw_box(canvas: Rgb, frame: Frame, color: Color, line: int) -> None:
    """A rectangle with a darker line inside."""
    x1, y1, x2, y2 = frame
    dark = SHADE if min(x2 - x1, y2 - y1) >= 4 * line else 1.0
    for inset, paint in ((line, None), (0, color)):
        left, top, right, bottom = x1 + inset, y1 + inset, x2 + 1 - inset, y2 + 1 - inset
        if right <= left or bottom <= top:
            continue
        thick = line if paint else 1
        for part in (
            canvas[top : top + thick, left:right],
            canvas[max(bottom - thick, top) : bottom, left:right],
            canvas[top:bottom, left : left + thick],
            canvas[top:bottom, max(right - thick, left) : right],
        ):
            part[:] = (dark * part).astype(np.uint8) if paint is None else paint


def _draw_masks(canvas: Rgb, crops: Crops, colors: Sequence[Color], line: int) -> None:
    """Draws one image of numbers for all objects."""
    draw_numbers(canvas, at_size(numbered(crops).numpy(), canvas.shape), colors, line)  # of the object on top


def at_size(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """[H, W] at the size of a picture [h, w, 3]: at the centre of each of its pixels."""
    height, width = values.shape
    rows = ((np.arange(shape[0]) + 0.5) * (height / shape[0])).astype(np.int64)
    columns = ((np.arange(shape[1]) + 0.5) * (width / shape[1])).astype(np.int64)
    return np.asarray(values[rows[:, None], columns])


def line_width(shape: tuple[int, ...]) -> int:
    """Of outlines on a picture [h, w, 3], in pixels."""
    return max(1, round(max(shape[:2]) / 600))


def draw_numbers(canvas: Rgb, owners: NDArray[Any], colors: Sequence[Color], line: int) -> None:
    """Tints areas, with a line along the inside of their borders.

    Args:
        canvas: [h, w, 3], drawn on.
        owners: [h, w] k where the k-th area is, counted from 1; 0 where none is.
        colors: of the areas.
        line: its width in pixels.
    """
    table = np.array([(0, 0, 0), *colors], np.uint8)
    on = owners > 0
    canvas[on] = ((1 - TINT) * canvas[on] + TINT * table[owners[on]]).astype(np.uint8)
    edge = np.zeros(owners.shape, bool)
    for step in range(1, line + 1):
        across, along = owners[step:] != owners[:-step], owners[:, step:] != owners[:, :-step]
        edge[step:] |= across
        edge[:-step] |= across
        edge[:, step:] |= along
        edge[:, :-step] |= along
    edge &= on
    canvas[edge] = table[owners[edge]]


def text_size(text: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """(width, height) of a text on a picture [h, w, 3], in pixels."""
    size = _letters(shape)
    return round(font(size).getlength(text)) + 3, size + 2


def _letters(shape: tuple[int, ...]) -> int:
    return min(max(round(max(shape[:2]) * RISE), SMALLEST_TEXT), LARGEST_TEXT)


def draw_texts(canvas: Rgb, frames: Sequence[Frame], colors: Sequence[Color], texts: Sequence[str]) -> Rgb:
    """Texts above their objects, or inside at the upper edge of the picture; left out on top of a better one's."""
    height, width = canvas.shape[:2]
    size = _letters(canvas.shape)
    picture = Image.fromarray(canvas)
    pen, taken = ImageDraw.Draw(picture), np.zeros((height, width), bool)
    for (x1, y1, x2, y2), color, text in zip(frames, colors, texts, strict=True):
        wide, tall = text_size(text, canvas.shape)
        if wide * tall > CROWDED * (x2 + 1 - x1) * (y2 + 1 - y1):
            continue
        left = max(min(x1, width - wide), 0)
        top = y1 - tall if y1 >= tall else y1
        place = taken[top : top + tall, left : left + wide]
        if place.shape != (tall, wide) or place.any():
            continue
        place[:] = True
        pen.rectangle((left, top, left + wide - 1, top + tall - 1), fill=color)
        bright = color[0] * 0.299 + color[1] * 0.587 + color[2] * 0.114 > 140
        ink = (0, 0, 0) if bright else (255, 255, 255)
        pen.text((left + 2, top + tall - round(size * 0.22) - 1), text, ink, font(size), anchor="ls")
    return np.asarray(picture)


def _class_colors(colors: Sequence[Sequence[int]], names: Sequence[str], labels: Sequence[int]) -> list[Color]:
    """Of all classes, also of those that are in `labels` alone."""
    return class_colors(colors, max(len(colors), len(names), 1 + max(labels, default=0)))


def _boxes(objects: Objects | Instances) -> NDArray[np.float64]:
    return np.asarray(objects.boxes.detach().double().cpu().numpy().reshape(-1, 4))


def _object_colors(labels: Sequence[int], crops: Crops | None, colors: Sequence[Color]) -> list[Color]:
    if _of_one_class(crops, colors):
        own = [color for color in default_colors(HUES) if max(color) > DARK]
        return [own[k % len(own)] for k in range(len(labels))]
    return [colors[label] for label in labels]


def _of_one_class(crops: Crops | None, colors: Sequence[Color]) -> bool:
    """Whether each object gets a colour of its own."""
    return crops is not None and len(colors) == 1


class Ranked(Protocol):
    """An evaluation whose images can be ranked."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the images."""

    def scored(self) -> list[int]:
        """The numbers of the images that have a score, the worst first."""


def picture_names(evaluation: Ranked, extreme: int = EXTREMES, ordinary: int = OTHERS) -> dict[str, int]:
    """Chooses the images of an evaluation that are drawn, each once.

    Args:
        evaluation: of all images.
        extreme: the number of worst images, and of best images; at most half of the images that have a score.
        ordinary: the number of other images, evenly spaced: neighbours in a split are often frames of one film.

    Returns:
        Name of the picture without suffix -> index of the image. The names are ``worst-00-<stem>``,
        ``best-00-<stem>`` and ``00-<stem>``.
    """
    ranked = evaluation.scored()
    most = min(extreme, len(ranked) // 2)
    names = _named(WORST, ranked[:most], evaluation.names) | _named(BEST, ranked[::-1][:most], evaluation.names)
    rest = sorted(set(range(len(evaluation.names))) - set(names.values()))
    apart = max(1, len(rest) // max(1, ordinary))
    return _named("", rest[::apart][:ordinary], evaluation.names) | names


def _named(start: str, numbers: Sequence[int], names: Sequence[str]) -> dict[str, int]:
    return {f"{start}{i:02d}-{picture_stem(names[number])}": number for i, number in enumerate(numbers)}


def write_pictures(
    folder: Path,
    names: dict[str, int],
    evaluation: ObjectEvaluation,
    task: Task,
    sample: Callable[[int], ObjectSample],
    *,
    order: Sequence[int] | None = None,
    precision: Precision = "fp32",
    fit: Fit | None = None,
) -> None:
    """Predicts images anew and draws truth and detections, from `evaluation.threshold` on, as PNG files.

    Args:
        folder: where to write; made if it is missing.
        names: name of the picture -> index of the image, from `picture_names`.
        evaluation: of these images.
        task: the model.
        sample: gives the sample with an index.
        order: as for `evaluate_objects`.
        precision: of the prediction.
        fit: as for `evaluate_objects`.

    Raises:
        FPNError: an image that cannot be read, or a folder that cannot be written.
    """
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
