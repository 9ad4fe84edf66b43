"""The contact sheet: a page of images beside their coloured labels, for a look before training."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from torchfpn.data.annotated import split_annotations
from torchfpn.data.check import CheckReport
from torchfpn.data.dataset import Dataset
from torchfpn.data.each import spread
from torchfpn.data.reading import read_pair, read_picture, whole_size
from torchfpn.data.splits import Pair
from torchfpn.data.truths import truth_of
from torchfpn.data.views import NOTHING, UNLABELLED, Rgb, image_view, label_view
from torchfpn.data.windows import Piece, scene_of, tiling
from torchfpn.errors import DataError, amount
from torchfpn.files.atomic import atomic_path
from torchfpn.files.formats import printable

_CELL = 300  # pixels: the width of one picture
_GAP, _EDGE, _LINE = 8, 36, 26
_COLUMNS = 2  # pairs beside each other
_INK, _FAINT = (34, 38, 46), (122, 128, 140)


def write_sheet(report: CheckReport, path: str | Path, *, most: int = 12) -> None:
    """A PNG at `path`: what the check found in words, the classes with their colours, and up to `most` pairs.

    Every split gets its part of the pairs, evenly spaced over its files.
    """
    rows = _rows(report.dataset, most)
    width = 2 * _EDGE + _COLUMNS * (2 * _CELL + _GAP) + (_COLUMNS - 1) * 3 * _GAP
    legend = _legend_lines(report, width - 2 * _EDGE)
    top = _EDGE + 2 * _LINE + len(legend) * _LINE + 3 * _GAP
    heights = [max(card.height for card in row) + 2 * _GAP for _, row in rows]
    titles = _LINE * len({title for title, _ in rows})
    page = Image.new("RGB", (width, top + sum(heights) + titles + _EDGE), (255, 255, 255))
    _head(ImageDraw.Draw(page), report, legend)
    last = ""
    for (title, row), height in zip(rows, heights, strict=True):
        if title != last:
            ImageDraw.Draw(page).text((_EDGE, top), title, _INK, _font(17))
            top, last = top + _LINE, title
        for i, card in enumerate(row):
            page.paste(card, (_EDGE + i * (2 * _CELL + 4 * _GAP), top))
        top += height
    with atomic_path(path) as part:
        page.save(part, format="PNG")


def _rows(dataset: Dataset, most: int) -> list[tuple[str, list[Image.Image]]]:
    """(split, the cards of one row) from top to bottom."""
    rows = []
    for name in dataset.splits:
        try:
            pairs, _ = dataset.list_pairs(name)
        except DataError:  # a split without its folder; the check has said so
            continue
        cards = [_card(dataset, name, piece) for piece in spread(_pieces(dataset, pairs), _share(dataset, most))]
        rows += [(name, cards[i : i + _COLUMNS]) for i in range(0, len(cards), _COLUMNS)]
    return rows


def _share(dataset: Dataset, most: int) -> int:
    """How many of the pairs a split gets."""
    return max(_COLUMNS, most // len(dataset.splits))


def _pieces(dataset: Dataset, pairs: list[Pair]) -> list[Piece]:
    """Images whole, scenes by windows."""
    found = []
    for pair in pairs:
        try:
            header = scene_of(dataset, pair)
        except DataError:  # the check has said so
            continue
        found += [Piece(pair)] if header is None else [Piece(pair, window) for window in tiling(header.size)]
    return found


def _card(dataset: Dataset, split: str, piece: Piece) -> Image.Image:
    """Image and labels side by side, the name of the file below."""
    pair = piece.pair
    left: Rgb | None = None
    right: Rgb | None = None
    try:
        left, right = _object_views(dataset, split, piece) if dataset.has_objects else _label_views(dataset, piece)
        note = f"{left.shape[1]} x {left.shape[0]}"
        if piece.window is not None:
            note += f" from ({piece.window[0]}, {piece.window[1]})"
    except DataError:
        note = "cannot be used"
    how = Image.Resampling.LANCZOS if dataset.has_objects else Image.Resampling.NEAREST
    pictures = [_fitted(left, Image.Resampling.LANCZOS), _fitted(right, how)]
    height = max(picture.height for picture in pictures)
    card = Image.new("RGB", (2 * _CELL + _GAP, height + _LINE), (255, 255, 255))
    for i, picture in enumerate(pictures):
        card.paste(picture, (i * (_CELL + _GAP) + (_CELL - picture.width) // 2, 0))
    draw = ImageDraw.Draw(card)
    draw.text((0, height + 5), _cut(printable(pair.image.name), 13, 2 * _CELL - 120), _INK, _font(13))
    draw.text((2 * _CELL + _GAP, height + 5), note, _FAINT, _font(13), anchor="ra")
    return card


def _label_views(dataset: Dataset, piece: Piece) -> tuple[Rgb, Rgb | None]:
    frame = read_pair(dataset, piece.pair, piece.window)
    left = image_view(frame.image, frame.valid, frame.band_names)
    return left, label_view(frame.target, [c.color for c in dataset.classes]) if piece.pair.label else None


def _object_views(dataset: Dataset, split: str, piece: Piece) -> tuple[Rgb, Rgb]:
    from torchfpn.data.geometry import Geometry, Window  # masks are drawn by torch; label images do without
    from torchfpn.data.moving import every_object
    from torchfpn.data.object_view import object_view

    picture = read_picture(dataset, piece.pair.image, piece.window)
    left = image_view(picture.array, picture.valid, picture.band_names)
    size = whole_size(dataset, piece.pair.image, picture, piece.window)
    truth = truth_of(dataset, piece.pair, size, split_annotations(dataset, split), piece.window)
    objects = every_object(truth, Geometry(Window(0, 0, *picture.size), picture.size))
    return left, object_view(left, objects, [c.color for c in dataset.classes])


def _fitted(picture: Rgb | None, how: Image.Resampling) -> Image.Image:
    if picture is None:
        return Image.new("RGB", (_CELL, _CELL * 3 // 4), NOTHING)
    image = Image.fromarray(picture)
    factor = min(_CELL / image.width, _CELL / image.height)
    return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))), how)


def _head(draw: Any, report: CheckReport, legend: list[list[tuple[str, Any, int]]]) -> None:
    dataset = report.dataset
    name = printable(dataset.root.resolve().name)
    draw.text((_EDGE, _EDGE - 8), name, _INK, _font(26))
    splits = "  ·  ".join(f"{split.name} {split.images}" for split in report.splits)
    bands = f"{amount(len(report.bands), 'band')} of {' and '.join(report.dtypes)}" if report.bands else ""
    facts = "     ".join(part for part in (splits, bands, f"{len(report.problems)} problems") if part)
    draw.text((_EDGE, _EDGE + 26), facts, _FAINT, _font(15))
    for line, entries in enumerate(legend):
        left, top = _EDGE, _EDGE + 2 * _LINE + 6 + line * _LINE
        for text, color, width in entries:
            draw.rounded_rectangle((left, top + 2, left + 15, top + 17), 3, color, (180, 184, 192))
            draw.text((left + 22, top), text, _INK, _font(15))
            left += width


def _legend_lines(report: CheckReport, width: int) -> list[list[tuple[str, Any, int]]]:
    """(text, colour, width) of each class and its share, broken into lines."""
    parts = [split.counts.pixels if split.objects is None else split.objects.objects for split in report.splits]
    total = np.sum(parts, axis=0)
    shares = total / max(total.sum(), 1)
    entries = [(f"{c.name} {share:.1%}", c.color) for c, share in zip(report.dataset.classes, shares, strict=True)]
    rest = "crowd" if report.dataset.has_objects else "not labelled"
    lines: list[list[tuple[str, Any, int]]] = [[]]
    used = 0
    for text, color in [*entries, (rest, UNLABELLED)]:
        need = 22 + int(_font(15).getlength(text)) + 22
        if used + need > width and lines[-1]:
            lines, used = [*lines, []], 0
        lines[-1].append((text, color, need))
        used += need
    return lines


def _cut(text: str, size: int, width: int) -> str:
    """The text, its middle left out where it is too long for `width` pixels."""
    if _font(size).getlength(text) <= width:
        return text
    keep = next(n for n in range(len(text) // 2, -1, -1) if _font(size).getlength(f"{text[:n]}...{text[-n:]}") <= width)
    return f"{text[:keep]}...{text[len(text) - keep :]}"


def _font(size: int) -> Any:
    return ImageFont.load_default(size)
