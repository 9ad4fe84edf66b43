"""Panels beside one another on one picture: image, truth, prediction and errors; the sheets of `fpn compare`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from torchfpn.recipe import IGNORE
from torchfpn.report.images import (
    BLACK,
    GREY,
    HATCH,
    LINE,
    TEXT,
    Rgb,
    class_colors,
    colorize,
    draw_legend,
    faded,
    font,
    hatching,
    legend_of,
    legend_rows,
    mark_errors,
    png,
    shortened,
    to_rgb,
)
from torchfpn.types import Color

GAP, EDGE, TITLE = 12, 18, LINE  # pixels: between panels, around those on white, above them

SMALLEST, LARGEST = 192, 640  # pixels; the longer side of a panel is enlarged and reduced to between these

USUAL = 380  # the first of them for `fpn compare`

NARROWEST = 90  # pixels, for the title of a panel

WIDE = 2000  # pixels; on wider sheets the letters grow

SOFT = (104, 112, 124, 255)  # text on white

# Colours that are told apart with every kind of colour blindness (Okabe and Ito 2008).
RIGHT, MISSED, FALSE, OTHER = (0, 158, 115), (230, 159, 0), (0, 114, 178), (204, 121, 167)

MEANINGS = {"right": RIGHT, "missed": MISSED, "false": FALSE, "wrong class": OTHER}

Legend = Sequence[tuple[Color, str]]  # colour and name of each entry


def side_by_side(
    image: ArrayLike,
    truth: ArrayLike | None,
    prediction: ArrayLike | None,
    colors: Sequence[Sequence[int]],
    *,
    names: Sequence[str] = (),
    bands: Sequence[str] = (),
    errors: bool = True,
    largest: int = LARGEST,
    palette: bool = False,
) -> bytes:
    """Draws image | truth | prediction | errors, with a legend of the classes that occur, on a transparent background.

    Args:
        image: [C, H, W] raw values, NaN where there is no data.
        truth: [H, W] class indices, other values are unknown; None leaves the panel out.
        prediction: the same of a model.
        colors: of the classes; missing ones are made up.
        names: of the classes.
        bands: names of the image's bands, to find red, green and blue.
        errors: whether to draw the fourth panel.
        largest: height or width of the panels in pixels, to which larger images are reduced.
        palette: reduces the picture to 256 colours, a quarter of the bytes.

    Returns:
        A PNG file.
    """
    classes = max([len(colors), len(names), 1])
    known, pixels = class_colors(colors, classes), to_rgb(image, bands)
    panels = [("image", pixels)]
    for title, labels in (("truth", truth), ("prediction", prediction)):
        if labels is not None:
            panels.append((title, colorize(labels, known)))
    if errors and truth is not None and prediction is not None:
        panels.append(("errors", mark_errors(pixels, truth, prediction, classes)))
    return panels_png(panels, legend_of([truth, prediction], known, names), largest=largest, palette=palette)


def panels_png(panels: Sequence[tuple[str, Rgb]], legend: Legend, *, largest: int, palette: bool) -> bytes:
    """A PNG of titled panels on a transparent background; all but the one called "image" keep their pure colours."""
    sized = [(title, resized(pixels, largest, smooth=title == "image")) for title, pixels in panels]
    sheet = lay_out(sized, [legend])
    return png(sheet.quantize(256, Image.Quantize.FASTOCTREE) if palette else sheet)


def lay_out(
    panels: Sequence[tuple[str, Image.Image]],
    legends: Sequence[Legend],
    *,
    caption: Sequence[str] = (),
    white: bool = False,
) -> Image.Image:
    """Puts panels of one size beside one another, under their titles.

    Args:
        panels: titles and pictures.
        legends: drawn below the panels, each from a new line on.
        caption: lines above the panels.
        white: on white with an edge around; otherwise transparent, without an edge.

    Returns:
        The sheet, RGBA.
    """
    width, height = panels[0][1].size
    step, edge = max(width, NARROWEST) + GAP, EDGE if white else 0
    total = step * len(panels) - GAP
    size = max(TEXT, min(3 * TEXT, round(TEXT * total / WIDE)))  # a wide sheet is looked at from farther off
    line, gap, base = (round(length * size / TEXT) for length in (LINE, 8, 16))
    ink, soft = (BLACK, SOFT) if white else (GREY, GREY)
    blocks = [legend_rows(legend, total, size) for legend in legends if legend]
    y = edge + line * len(caption) + (gap if caption else 0) + line
    below = sum(gap + line * len(rows) for rows in blocks)
    page = Image.new("RGBA", (total + 2 * edge, y + height + below + edge), (255, 255, 255, 255) if white else 0)
    pen = ImageDraw.Draw(page)
    for k, text in enumerate(caption):
        pen.text(
            (edge, edge + line * k + base), shortened(text, total, size), soft if k else ink, font(size), anchor="ls"
        )
    for k, (title, picture) in enumerate(panels):
        pen.text((edge + k * step, y - line + base), shortened(title, step, size), soft, font(size), anchor="ls")
        page.paste(picture, (edge + k * step, y))
    y += height
    for rows in blocks:
        draw_legend(pen, rows, (edge, y + gap), ink, size)
        y += gap + line * len(rows)
    return page


def resized(pixels: Rgb, largest: int | None, *, smooth: bool, smallest: int = SMALLEST) -> Image.Image:
    """Enlarges small pictures by a whole number and reduces large ones (`largest` None: none); labels stay pure."""
    picture = Image.fromarray(pixels)
    longest = max(picture.size)
    factor = smallest // longest if longest < smallest else min(1.0, (largest or longest) / longest)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    if size == picture.size:
        return picture
    return picture.resize(size, Image.Resampling.LANCZOS if smooth and factor < 1 else Image.Resampling.NEAREST)


@dataclass(frozen=True)
class Comparison:
    """What a sheet of `fpn compare` shows.

    Attributes:
        image: [H, W, 3].
        truth: [H, W] class indices, `IGNORE` where unknown; None without a truth.
        prediction: the same.
        names: of the classes.
        colors: of the classes.
        background: index of the class that is no object, None without one.
        iou: of each class, None where there is none; empty without a score.
        caption: lines above the panels.
    """

    image: Rgb
    truth: NDArray[np.uint8] | None
    prediction: NDArray[np.uint8] | None
    names: Sequence[str]
    colors: Sequence[Color]
    background: int | None
    iou: Sequence[float | None]
    caption: Sequence[str]


def draw_comparison(comparison: Comparison) -> Image.Image:
    """Draws image, truth, prediction and difference on white, with the caption and legends."""
    panels = [("image", comparison.image)]
    for title, labels in (("truth", comparison.truth), ("prediction", comparison.prediction)):
        if labels is not None:
            panels.append((title, colorize(labels, comparison.colors)))
    kinds: list[str] = []
    if comparison.truth is not None and comparison.prediction is not None:
        marked, kinds = mark_differences(
            comparison.image, comparison.truth, comparison.prediction, comparison.background
        )
        panels.append(("difference", marked))
    sized = [(title, resized(pixels, None, smooth=False, smallest=USUAL)) for title, pixels in panels]
    legends = [_class_legend(comparison), [(MEANINGS[kind], kind) for kind in kinds]]
    return lay_out(sized, legends, caption=comparison.caption, white=True).convert("RGB")


def mark_differences(
    image: Rgb, truth: NDArray[np.uint8], prediction: NDArray[np.uint8], background: int | None
) -> tuple[Rgb, list[str]]:
    """Marks where two label maps differ, on the image in pale grey; hatched where one of them is unknown.

    With a background, pixels of other classes are right, missed, false, or of the wrong class; without, only the wrong
    ones are marked.

    Args:
        image: [H, W, 3].
        truth: [H, W] class indices, `IGNORE` where unknown.
        prediction: the same.
        background: index of the class that is no object.

    Returns:
        The picture [H, W, 3], and which of `MEANINGS` occur in it.
    """
    known, same = (truth != IGNORE) & (prediction != IGNORE), truth == prediction
    kinds = {"wrong class": known & ~same}
    if background is not None:
        there, found = known & (truth != background), known & (prediction != background)
        kinds = {
            "right": there & same,
            "missed": there & ~found,
            "false": found & ~there,
            "wrong class": there & found & ~same,
        }
    marked = faded(image)
    for name, where in kinds.items():
        marked[where] = MEANINGS[name]
    marked[~known] = hatching(truth.shape)[~known]
    return marked, [name for name, where in kinds.items() if where.any()]


def _class_legend(comparison: Comparison) -> list[tuple[Color, str]]:
    """Colour and name of the classes that occur or have an IoU, with the IoU."""
    maps = (comparison.truth, comparison.prediction)
    present = {int(v) for labels in maps if labels is not None for v in np.unique(labels)}
    entries: list[tuple[Color, str]] = []
    for k, name in enumerate(comparison.names):
        score = comparison.iou[k] if comparison.iou else None
        if k in present or score is not None:
            entries.append((comparison.colors[k], name if score is None else f"{name} {100 * score:.1f} %"))
    return [*entries, (HATCH[1], "not labelled")] if IGNORE in present else entries
