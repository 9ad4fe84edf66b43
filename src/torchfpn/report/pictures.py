"""Image, truth and prediction beside one another, with a legend, as one PNG for the report, the README, TensorBoard."""

import contextlib
import functools
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from torchfpn.recipe import default_colors
from torchfpn.report.display import Pixels, displayed, marked_errors, painted

Color = Sequence[int]
INK, GAP, TITLE, LEGEND = (125, 133, 144, 255), 12, 26, 24  # grey that reads on white and on black
DARK = (30, 34, 42, 255)  # letters on white
NARROWEST = 160  # pixels, of a picture with a legend
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf")  # where Pillow looks for fonts
TEXT = 14  # pixels, of the letters of a legend
SMALLEST, LARGEST = 192, 640  # pixels; panels are enlarged and reduced to between these heights


def side_by_side(
    image: ArrayLike,
    truth: ArrayLike | None,
    prediction: ArrayLike | None,
    colors: Sequence[Color],
    *,
    names: Sequence[str] = (),
    bands: Sequence[str] = (),
    errors: bool = True,
    largest: int = LARGEST,
    palette: bool = False,
) -> bytes:
    """One PNG: image | truth | prediction | errors, with the classes that occur below. Its background is transparent.

    image: [C, H, W] raw values, NaN where there are none. truth, prediction: [H, W] 0-based labels, other values are
    unknown; None leaves the panel out. colors: of each class (missing ones are made up). names: of each class.
    bands: names of the image's bands, to find the true colours. errors: the fourth panel. largest: height of the
    panels in pixels, to which larger images are reduced. palette: 256 colours only, a quarter of the bytes.
    """
    classes = max([len(colors), len(names), 1])
    colors = [*colors, *default_colors(classes)[len(colors) :]]
    pixels = displayed(image, bands)
    panels = [("image", pixels)]
    for title, labels in (("truth", truth), ("prediction", prediction)):
        if labels is not None:
            panels.append((title, painted(labels, colors)))
    if errors and truth is not None and prediction is not None:
        panels.append(("errors", marked_errors(pixels, truth, prediction, classes)))
    sheet = laid_out(panels, _legend([truth, prediction], colors, names), largest)
    return encoded(sheet.quantize(256, Image.Quantize.FASTOCTREE) if palette else sheet)


def overlay(
    image: ArrayLike,
    labels: ArrayLike,
    colors: Sequence[Color],
    *,
    bands: Sequence[str] = (),
    names: Sequence[str] = (),
) -> bytes:
    """One PNG: the labels [H, W] laid over the image, pixel by pixel, with a line around every area.

    names: of the classes, for a legend of those that occur below the image; without, the PNG has the size of the image.
    """
    values, pixels = np.asarray(labels), displayed(image, bands)
    known = (values >= 0) & (values < len(colors))
    tinted = (0.55 * pixels + 0.45 * painted(values, colors)).astype(np.uint8)
    edge = np.zeros(values.shape, bool)
    edge[:, 1:] |= values[:, 1:] != values[:, :-1]
    edge[1:] |= values[1:] != values[:-1]
    result = np.where(known[..., None], tinted, pixels)
    result[edge & known] = painted(values, colors)[edge & known]
    return encoded(_above(Image.fromarray(result), _legend([labels], colors, names)))


def _above(picture: Image.Image, legend: list[tuple[Color, str]]) -> Image.Image:
    """The picture with a legend on white below it; letters grow with it."""
    if not legend:
        return picture
    size = max(TEXT, min(4 * TEXT, round(TEXT * picture.width / 1000)))
    line, width = round(LEGEND * size / TEXT), max(picture.width, NARROWEST)
    rows = legend_rows(legend, width - 8, size)
    sheet = Image.new("RGB", (width, picture.height + line * len(rows) + 8), (255, 255, 255))
    sheet.paste(picture, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for k, row in enumerate(rows):
        draw_legend_row(
            pen, [(x + 4, color, name) for x, color, name in row], picture.height + 4 + line * k, DARK, size
        )
    return sheet


def encoded(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    target = io.BytesIO()
    picture.save(target, "PNG", compress_level=6)
    return target.getvalue()


def _legend(maps: Sequence[ArrayLike | None], colors: Sequence[Color], names: Sequence[str]) -> list[tuple[Color, str]]:
    """Colour and name of every class that occurs in one of the label maps."""
    present = {int(v) for labels in maps if labels is not None for v in np.unique(np.asarray(labels))}
    return [(colors[i], name) for i, name in enumerate(names) if i in present]


def laid_out(panels: list[tuple[str, Pixels]], legend: list[tuple[Color, str]], largest: int) -> Image.Image:
    """Panels beside one another under their titles, a legend below; all but the one called "image" in pure colours."""
    sized = [(title, resized(pixels, largest, smooth=title == "image")) for title, pixels in panels]
    width, height = sized[0][1].size
    step = max(width, 90) + GAP
    total = step * len(sized) - GAP
    rows = legend_rows(legend, total)
    sheet = Image.new("RGBA", (total, TITLE + height + (8 + LEGEND * len(rows) if rows else 0)), (0, 0, 0, 0))
    pen = ImageDraw.Draw(sheet)
    for k, (title, picture) in enumerate(sized):
        pen.text((k * step, TITLE - 8), title, INK, font(15), anchor="ls")
        sheet.paste(picture, (k * step, TITLE))
    for k, row in enumerate(rows):
        draw_legend_row(pen, row, TITLE + height + 8 + LEGEND * k)
    return sheet


def resized(pixels: Pixels, largest: int, *, smooth: bool) -> Image.Image:
    """Small pictures enlarged by a whole number, large ones reduced; labels keep their pure colours."""
    picture = Image.fromarray(pixels)
    longest = max(picture.size)
    factor = SMALLEST // longest if longest < SMALLEST else min(1.0, largest / longest)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    if size == picture.size:
        return picture
    return picture.resize(size, Image.Resampling.LANCZOS if smooth and factor < 1 else Image.Resampling.NEAREST)


def legend_rows(legend: list[tuple[Color, str]], width: int, size: int = TEXT) -> list[list[tuple[int, Color, str]]]:
    """The legend broken into lines of at most `width` pixels: (x, colour, name) of each entry. size: of the letters."""
    rows: list[list[tuple[int, Color, str]]] = []
    left, right = round(20 * size / TEXT), round(18 * size / TEXT)
    x = width + 1
    for color, name in legend:
        text = shortened(name, max(60, width - left - 4), size)
        needed = left + round(font(size).getlength(text)) + right
        if x + needed - right > width:
            rows.append([])
            x = 0
        rows[-1].append((x, color, text))
        x += needed
    return rows


def draw_legend_row(
    pen: ImageDraw.ImageDraw,
    row: list[tuple[int, Color, str]],
    top: int,
    ink: tuple[int, int, int, int] = INK,
    size: int = TEXT,
) -> None:
    """Entries of one line of a legend, from `top` on."""
    unit = size / TEXT
    for x, color, name in row:
        red, green, blue = color
        box = (x, top + round(4 * unit), x + round(13 * unit), top + round(17 * unit))
        pen.rounded_rectangle(box, round(3 * unit), fill=(red, green, blue, 255), outline=INK)
        pen.text((x + round(20 * unit), top + round(16 * unit)), name, ink, font(size), anchor="ls")


def shortened(text: str, width: float, size: int = TEXT) -> str:
    """One printable line of at most `width` pixels. size: of the letters."""
    line = " ".join(text.split())
    if font(size).getlength(line) <= width:
        return line
    while line and font(size).getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """One that knows most alphabets, of matplotlib or of the system; else Pillow's own."""
    spec = find_spec("matplotlib")
    if spec is not None and spec.origin:
        file = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    for name in FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)
