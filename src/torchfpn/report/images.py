"""Arrays as pictures: bands as red, green and blue, class indices as colours, errors, overlays; text and legends.

Nothing here imports torch: `fpn compare` and `fpn check --sheet` start without it.
"""

import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont, features

from torchfpn.recipe import default_colors
from torchfpn.types import Color

Rgb = NDArray[np.uint8]  # [H, W, 3]


Ink = tuple[int, int, int, int]


LOW, HIGH = 2.0, 98.0  # percentiles that become black and white

SAMPLE = 500_000  # values a band from which the percentiles are estimated, at most

HATCH: tuple[Color, Color] = ((208, 210, 214), (176, 179, 185))

ERROR: Color = (214, 40, 57)

TINT = 0.45  # opacity of class colours over an image

_BAND_WORDS = {
    "red": ("red", "r", "b4", "b04"),
    "green": ("green", "g", "b3", "b03"),
    "blue": ("blue", "b", "b2", "b02"),
}


GREY: Ink = (125, 133, 144, 255)  # readable on white and on black

BLACK: Ink = (30, 34, 42, 255)

TEXT, LINE = 14, 24  # pixels: letters of a legend, and its line

NARROWEST_LEGEND = 160  # pixels


def to_rgb(image: ArrayLike, bands: Sequence[str] = (), valid: NDArray[np.bool_] | None = None) -> Rgb:
    """An image as a picture that people can look at.

    8-bit images of one or three bands are shown as they are. Others are stretched from their 2nd to their 98th
    percentile: all bands together if they are red, green and blue, so that grass stays green; each by itself otherwise.

    Args:
        image: [C, H, W] raw values of any type; NaN where there is no data.
        bands: names of the bands, from which `display_bands` chooses.
        valid: [H, W], False where there is no data; None: everywhere but at NaN.

    Returns:
        [H, W, 3] uint8, hatched where there is no data.
    """
    raw = np.asarray(image)
    places, true_color = display_bands(bands, raw.shape[0])
    chosen = np.asarray(raw[places], dtype=np.float32)
    known = np.asarray(np.isfinite(chosen).all(axis=0))
    if valid is not None:
        known &= valid
    if not _eight_bit(raw, chosen[:, known]):
        chosen = _stretched(chosen, known, together=true_color)
    shown = np.nan_to_num(chosen, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255).round().astype(np.uint8)
    pixels = np.ascontiguousarray(np.moveaxis(shown, 0, -1))
    pixels[~known] = hatching(known.shape)[~known]
    return pixels


def display_bands(names: Sequence[str], count: int) -> tuple[list[int], bool]:
    """Chooses the three of `count` bands that are shown as red, green and blue.

    Returns:
        Their indices, and whether they are red, green and blue by their names ("Red", "TCI_R", "B04"). Otherwise these
        are the first three bands, or of one or two bands the first one three times.
    """
    words = [name.lower().replace("-", "_").split("_")[-1] for name in names]
    if len(names) == count:
        found = [next((i for i, word in enumerate(words) if word in known), -1) for known in _BAND_WORDS.values()]
        if min(found) >= 0:
            return found, True
    return ([0, 1, 2] if count >= 3 else [0, 0, 0]), False


def colorize(labels: ArrayLike, colors: Sequence[Sequence[int]]) -> Rgb:
    """Class indices [H, W] in the colours of their classes; every other value, such as `IGNORE`, is hatched."""
    values = np.asarray(labels).astype(np.int64)
    palette = np.array([tuple(color) for color in colors], dtype=np.uint8).reshape(-1, 3)
    known = (values >= 0) & (values < len(palette))
    pixels = hatching(values.shape)
    pixels[known] = palette[values[known]]
    return pixels


def mark_errors(pixels: Rgb, truth: ArrayLike, prediction: ArrayLike, classes: int) -> Rgb:
    """The picture in pale grey, red where the prediction is wrong, hatched where the truth has no class."""
    target, predicted = np.asarray(truth), np.asarray(prediction)
    marked = faded(pixels)
    known = (target >= 0) & (target < classes)
    marked[known & (target != predicted)] = ERROR
    marked[~known] = hatching(target.shape)[~known]
    return marked


def faded(pixels: Rgb) -> Rgb:
    """A picture in pale grey, on which colours stand out."""
    grey = 168 + 0.33 * (pixels @ np.array([0.299, 0.587, 0.114]))
    return np.asarray(np.repeat(grey[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8))


def hatching(shape: tuple[int, ...]) -> Rgb:
    """[H, W, 3] of grey diagonal stripes, which stand for "no data" and "not labelled"."""
    rows, columns = np.ogrid[0 : shape[0], 0 : shape[1]]
    return np.asarray(np.array(HATCH, dtype=np.uint8)[((rows + columns) // 4) % 2])


def overlay(
    image: ArrayLike,
    labels: ArrayLike,
    colors: Sequence[Sequence[int]],
    *,
    bands: Sequence[str] = (),
    names: Sequence[str] = (),
) -> bytes:
    """Draws a label map over its image, with a line around every area.

    Args:
        image: [C, H, W] raw values, NaN where there is no data.
        labels: [H, W] class indices; pixels with other values stay as they are.
        colors: of the classes.
        bands: names of the image's bands.
        names: of the classes, for a legend below the image; without them the picture has the size of the image.

    Returns:
        A PNG file.
    """
    values, pixels = np.asarray(labels), to_rgb(image, bands)
    known, classes = (values >= 0) & (values < len(colors)), colorize(values, colors)
    edge = np.zeros(values.shape, bool)
    edge[:, 1:] |= values[:, 1:] != values[:, :-1]
    edge[1:] |= values[1:] != values[:-1]
    tinted = ((1 - TINT) * pixels + TINT * classes).astype(np.uint8)
    result = np.where((edge & known)[..., None], classes, np.where(known[..., None], tinted, pixels))
    return png(legend_below(Image.fromarray(result), legend_of([labels], colors, names)))


def legend_below(picture: Image.Image, legend: Sequence[tuple[Color, str]]) -> Image.Image:
    """The picture with a legend on white below it, whose letters grow with the picture."""
    if not legend:
        return picture
    size = max(TEXT, min(4 * TEXT, round(TEXT * picture.width / 1000)))
    line, width = round(LINE * size / TEXT), max(picture.width, NARROWEST_LEGEND)
    rows = legend_rows(legend, width - 8, size)
    sheet = Image.new("RGB", (width, picture.height + line * len(rows) + 8), (255, 255, 255))
    sheet.paste(picture, (0, 0))
    draw_legend(ImageDraw.Draw(sheet), rows, (4, picture.height + 4), BLACK, size)
    return sheet


def png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    target = io.BytesIO()
    picture.save(target, "PNG", compress_level=6)
    return target.getvalue()


def class_colors(colors: Sequence[Sequence[int]], count: int) -> list[Color]:
    """Colours of `count` classes: those given, and for missing ones those of `default_colors`."""
    given = [(int(red), int(green), int(blue)) for red, green, blue in colors]
    return [*given, *default_colors(count)[len(given) :]]


def legend_of(
    maps: Sequence[ArrayLike | None], colors: Sequence[Sequence[int]], names: Sequence[str]
) -> list[tuple[Color, str]]:
    """Colour and name of each class that occurs in one of the label maps."""
    present = {int(v) for labels in maps if labels is not None for v in np.unique(np.asarray(labels))}
    known = class_colors(colors, len(names))
    return [(known[i], name) for i, name in enumerate(names) if i in present]


def legend_rows(
    legend: Sequence[tuple[Color, str]], width: int, size: int = TEXT
) -> list[list[tuple[int, Color, str]]]:
    """Breaks a legend into lines of at most `width` pixels: (x, colour, name) of each entry. size: of the letters."""
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


def draw_legend(
    pen: ImageDraw.ImageDraw,
    rows: Sequence[Sequence[tuple[int, Color, str]]],
    corner: tuple[int, int],
    ink: Ink,
    size: int = TEXT,
) -> None:
    """Draws the lines of `legend_rows`. corner: x and y of the upper left corner. size: of the letters."""
    unit = size / TEXT
    for k, row in enumerate(rows):
        top = corner[1] + round(LINE * unit) * k
        for start, color, name in row:
            x = corner[0] + start
            box = (x, top + round(4 * unit), x + round(13 * unit), top + round(17 * unit))
            pen.rounded_rectangle(box, round(3 * unit), fill=(*color, 255), outline=GREY)
            pen.text((x + round(20 * unit), top + round(16 * unit)), name, ink, font(size), anchor="ls")


def shortened(text: str, width: float, size: int = TEXT, *, middle: bool = False) -> str:
    """A text as one line of at most `width` pixels.

    size: of the letters. middle: leaves out the middle of a long text rather than its end, as file names need.
    """
    line = " ".join(text.split())
    fits = font(size).getlength
    kept, shown = len(line), line
    while kept and fits(shown) > width:
        kept -= 1
        tail = kept // 2 if middle else 0
        shown = line[: kept - tail] + "…" + line[len(line) - tail :]
    return shown


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, which has Latin, Greek, Cyrillic, Arabic and Hebrew letters; without FreeType, Pillow's own font."""
    if features.check("freetype2"):
        return ImageFont.truetype(str(Path(__file__).with_name("fonts") / "DejaVuSans.ttf"), size)
    return ImageFont.load_default(size)


def _eight_bit(raw: NDArray[Any], values: NDArray[np.float32]) -> bool:
    """Whether this is a photograph: one or three bands of whole numbers up to 255, some of them bright."""
    if raw.shape[0] not in (1, 3):
        return False
    if raw.dtype == np.uint8:
        return True
    whole = bool(values.size) and bool((values == np.floor(values)).all())
    return whole and float(values.min()) >= 0 and 96 <= float(values.max()) <= 255


def _stretched(chosen: NDArray[np.float32], valid: NDArray[np.bool_], *, together: bool) -> NDArray[np.float32]:
    sample = _sampled(chosen[:, valid])
    if not sample.size:
        return chosen
    limits = np.percentile(sample, (LOW, HIGH), axis=None if together else 1).reshape(2, -1, 1, 1)
    span = np.maximum(limits[1] - limits[0], 1e-12)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(255 * ((chosen - limits[0]) / span), dtype=np.float32)


def _sampled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most `SAMPLE` of the values [C, N] of each band, the same ones each time.

    One at a random place of each of as many equal stretches: evenly spaced ones would all lie in the same few columns
    of an image whose width they divide.
    """
    count = values.shape[-1]
    if count <= SAMPLE:
        return values
    places = (np.arange(SAMPLE) + np.random.default_rng(count).random(SAMPLE)) * (count / SAMPLE)
    return values[..., places.astype(np.int64).clip(max=count - 1)]
