"""Image, truth, prediction and where they differ, on one sheet with a caption and legends: `fpn compare`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from torchfpn.recipe import IGNORE
from torchfpn.report.display import HATCH, Pixels, displayed, hatching, painted
from torchfpn.report.pictures import TEXT, Color, draw_legend_row, font, legend_rows, shortened

PAPER, INK, SOFT = (255, 255, 255, 255), (30, 34, 42, 255), (104, 112, 124, 255)
EDGE, GAP = 18, 12
WIDE = 2000  # pixels; on wider sheets the letters grow
NARROWEST = 90  # pixels, for the title of a panel
USUAL = 360  # pixels; smaller panels are enlarged to about this, by a whole number
# Colours that are told apart with every kind of colour blindness (Okabe and Ito 2008).
RIGHT, MISSED, FALSE, OTHER = (0, 158, 115), (230, 159, 0), (0, 114, 178), (204, 121, 167)
MEANINGS = {"right": RIGHT, "missed": MISSED, "false": FALSE, "wrong class": OTHER}


@dataclass(frozen=True)
class Sheet:
    """What is shown. image: [h, w, 3]. truth, prediction: [h, w] places in the list of classes, `IGNORE` unknown.

    names, colors: of the classes. background: its place among them, if one is. iou: of each class, None where there is
    none; empty without a score. lines: the caption.
    """

    image: Pixels
    truth: NDArray[np.uint8] | None
    prediction: NDArray[np.uint8] | None
    names: Sequence[str]
    colors: Sequence[Color]
    background: int | None
    iou: Sequence[float | None]
    lines: Sequence[str]


def shown(array: ArrayLike, valid: NDArray[np.bool_], names: Sequence[str]) -> Pixels:
    """Bands [C, h, w] as colours [h, w, 3], hatched where `valid` [h, w] is not. names: of the bands."""
    values = np.asarray(array)
    if values.dtype != np.uint8 and not valid.all():  # the stretch is that of the valid ones
        values = np.where(valid, values.astype(np.float32), np.nan)
    pixels = displayed(values, names)
    pixels[~valid] = hatching(valid.shape)[~valid]
    return pixels


def differences(
    image: Pixels, truth: NDArray[np.uint8], prediction: NDArray[np.uint8], background: int | None
) -> tuple[Pixels, list[str]]:
    """The image in pale grey with the differences marked, hatched where one is unknown; which of `MEANINGS` occur.

    With a background, what is not background is right, missed, false, or of the wrong class; without, only what is
    wrong is marked.
    """
    grey = 168 + 0.33 * (image @ np.array([0.299, 0.587, 0.114]))
    marked = np.repeat(grey[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)
    known = (truth != IGNORE) & (prediction != IGNORE)
    same = truth == prediction
    kinds = {"wrong class": known & ~same}
    if background is not None:
        there, found = known & (truth != background), known & (prediction != background)
        kinds = {
            "right": there & same,
            "missed": there & ~found,
            "false": found & ~there,
            "wrong class": there & found & ~same,
        }
    for name, where in kinds.items():
        marked[where] = MEANINGS[name]
    marked[~known] = hatching(truth.shape)[~known]
    return marked, [name for name, where in kinds.items() if where.any()]


def drawn(sheet: Sheet) -> Image.Image:
    """The picture, on white."""
    panels = [("image", sheet.image)]
    for title, labels in (("truth", sheet.truth), ("prediction", sheet.prediction)):
        if labels is not None:
            panels.append((title, painted(labels, sheet.colors)))
    kinds: list[str] = []
    if sheet.truth is not None and sheet.prediction is not None:
        marked, kinds = differences(sheet.image, sheet.truth, sheet.prediction, sheet.background)
        panels.append(("difference", marked))
    pictures = [(title, _enlarged(pixels)) for title, pixels in panels]
    width, height = pictures[0][1].size
    step = max(width, NARROWEST) + GAP
    total = step * len(pictures) - GAP
    size = max(TEXT, min(3 * TEXT, round(TEXT * total / WIDE)))  # a wide sheet is looked at from farther off
    line, gap, down = round(24 * size / TEXT), round(8 * size / TEXT), round(16 * size / TEXT)
    marks: list[tuple[Color, str]] = [(MEANINGS[kind], kind) for kind in kinds]
    legends = [legend_rows(entries, total, size) for entries in (_classes(sheet), marks) if entries]
    top = EDGE + line * len(sheet.lines) + (gap if sheet.lines else 0)
    below = sum(gap + line * len(rows) for rows in legends)
    page = Image.new("RGBA", (total + 2 * EDGE, top + line + height + below + EDGE), PAPER)
    pen = ImageDraw.Draw(page)
    for k, text in enumerate(sheet.lines):
        place = (EDGE, EDGE + line * k + down)
        pen.text(place, shortened(text, total, size), INK if k == 0 else SOFT, font(size), anchor="ls")
    for k, (title, picture) in enumerate(pictures):
        pen.text((EDGE + k * step, top + down), shortened(title, step, size), SOFT, font(size), anchor="ls")
        page.paste(picture, (EDGE + k * step, top + line))
    y = top + line + height
    for rows in legends:
        y += gap
        for row in rows:
            draw_legend_row(pen, [(x + EDGE, color, name) for x, color, name in row], y, INK, size)
            y += line
    return page.convert("RGB")


def _classes(sheet: Sheet) -> list[tuple[Color, str]]:
    """Colour and name of the classes that occur, with their IoU."""
    present = {int(v) for labels in (sheet.truth, sheet.prediction) if labels is not None for v in np.unique(labels)}
    entries: list[tuple[Color, str]] = []
    for k, name in enumerate(sheet.names):
        score = sheet.iou[k] if sheet.iou else None
        if k in present or score is not None:
            entries.append((sheet.colors[k], name if score is None else f"{name} {100 * score:.1f} %"))
    if IGNORE in present:
        entries.append((HATCH[1], "not labelled"))
    return entries


def _enlarged(pixels: Pixels) -> Image.Image:
    picture = Image.fromarray(pixels)
    factor = max(1, round(USUAL / max(picture.size)))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
