"""Objects laid over a picture of their image: masks tinted and outlined, or boxes; class and score where there is room.

The picture may be larger or smaller than the image: lines and letters keep a size that can be read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from torchfpn.ops.masks import Crops
from torchfpn.ops.overlaps import numbered
from torchfpn.report.display import Pixels, hatching
from torchfpn.report.pictures import font
from torchfpn.types import Size

TINT = 0.35  # share of the colour in the pixels of a mask
SHADE = 0.45  # of the picture, beside a line: light lines are seen on light ground
SMALLEST_TEXT, LARGEST_TEXT = 10, 40  # pixels, of the letters
RISE = 1 / 70  # of the letters, to the longer side of the picture
CROWDED = 2  # a text so many times larger than its object would hide more than it says
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Marks:
    """What is drawn of N objects, best first: of those that overlap the first lies on top.

    boxes: [N, 4] (x1, y1, x2, y2) in pixels of the image. colors: of each. size: (height, width) of the image. crops:
    the masks, None of boxes alone. texts: of each, or none at all. crowds: [M, 4] boxes that are hatched.
    """

    boxes: NDArray[np.float64]
    colors: Sequence[Color]
    size: Size
    crops: Crops | None = None
    texts: Sequence[str] = ()
    crowds: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))


def marked(pixels: Pixels, marks: Marks) -> Pixels:
    """A picture [h, w, 3] of an image with its objects on it."""
    canvas = pixels.copy()
    height, width = canvas.shape[:2]
    factor = np.array([width / marks.size[1], height / marks.size[0]] * 2)
    frames = [_frame(box, canvas.shape) for box in np.nan_to_num(marks.boxes * factor).tolist()]
    for box in (marks.crowds * factor).tolist():
        _hatch(canvas, _frame(box, canvas.shape))
    line = max(1, round(max(height, width) / 600))
    if marks.crops is None:
        for frame, color in reversed(list(zip(frames, marks.colors, strict=True))):
            _outline(canvas, frame, color, max(line, 2 if min(height, width) >= 200 else 1))
    else:
        _masks(canvas, _owners(marks.crops, (height, width)), marks.colors, line)
    return _lettered(canvas, frames, marks) if marks.texts else canvas


def _frame(box: Sequence[float], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A box as first and last columns and rows of the picture, one pixel at least."""
    height, width = shape[:2]
    x1, y1 = (min(max(round(v), 0), side - 1) for v, side in zip(box[:2], (width, height), strict=True))
    x2, y2 = (min(max(round(v) - 1, low), s - 1) for v, low, s in zip(box[2:], (x1, y1), (width, height), strict=True))
    return x1, y1, x2, y2


def _hatch(canvas: Pixels, frame: tuple[int, int, int, int]) -> None:
    x1, y1, x2, y2 = frame
    part = canvas[y1 : y2 + 1, x1 : x2 + 1]
    part[:] = (0.4 * part + 0.6 * hatching(part.shape[:2])).astype(np.uint8)


def _outline(canvas: Pixels, frame: tuple[int, int, int, int], color: Color, line: int) -> None:
    """A rectangle with a shade inside."""
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


def _owners(crops: Crops, shape: Size) -> NDArray[np.int32]:
    """[h, w]: the number of the object that is seen at each pixel of the picture, from 1; 0 where none is."""
    height, width = crops.size
    rows = ((np.arange(shape[0]) + 0.5) * (height / shape[0])).astype(np.int64)
    columns = ((np.arange(shape[1]) + 0.5) * (width / shape[1])).astype(np.int64)
    return np.asarray(numbered(crops).numpy()[rows[:, None], columns])


def _masks(canvas: Pixels, owners: NDArray[np.int32], colors: Sequence[Color], line: int) -> None:
    """Every object tinted, with a line along the inside of its border."""
    table = np.array([(0, 0, 0), *colors], np.uint8)
    on = owners > 0
    canvas[on] = ((1 - TINT) * canvas[on] + TINT * table[owners[on]]).astype(np.uint8)
    edge = np.zeros(owners.shape, bool)
    for step in range(1, line + 1):
        edge[step:] |= owners[step:] != owners[:-step]
        edge[:-step] |= owners[step:] != owners[:-step]
        edge[:, step:] |= owners[:, step:] != owners[:, :-step]
        edge[:, :-step] |= owners[:, step:] != owners[:, :-step]
    edge &= on
    canvas[edge] = table[owners[edge]]


def _lettered(canvas: Pixels, frames: Sequence[tuple[int, int, int, int]], marks: Marks) -> Pixels:
    """Texts above their objects, or inside where there is no room; left out where a better one's stands already."""
    height, width = canvas.shape[:2]
    size = min(max(round(max(height, width) * RISE), SMALLEST_TEXT), LARGEST_TEXT)
    letters, tall = font(size), size + 2
    picture = Image.fromarray(canvas)
    pen, taken = ImageDraw.Draw(picture), np.zeros((height, width), bool)
    for (x1, y1, x2, y2), color, text in zip(frames, marks.colors, marks.texts, strict=True):
        wide = round(letters.getlength(text)) + 3
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
        pen.text((left + 2, top + tall - round(size * 0.22) - 1), text, ink, letters, anchor="ls")
    return np.asarray(picture)
