"""The contact sheet of `fpn check --sheet`: images of a dataset beside their coloured labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from torchfpn.data.check import CheckReport
from torchfpn.data.config import DatasetConfig, split_annotations
from torchfpn.data.labels.load import read_ground_truth
from torchfpn.data.parallel import spread_evenly
from torchfpn.data.reading import SIDE, ImagePart, read_pair, read_picture, scene_of, whole_size
from torchfpn.data.splits import Pair
from torchfpn.errors import DataError, amount
from torchfpn.geo.window import Window, tiles
from torchfpn.io.atomic import atomic_path
from torchfpn.io.formats import printable
from torchfpn.report.images import BLACK, GREY, HATCH, Rgb, colorize, draw_legend, font, legend_rows, shortened, to_rgb
from torchfpn.types import Size

CELL = 300  # pixels: the width of one picture

GAP, EDGE, LINE = 8, 36, 26

COLUMNS = 2  # pairs beside each other

OUTLINE = (255, 255, 255)  # of things

EMPTY = (236, 236, 240)  # in the place of a picture that cannot be shown


def write_sheet(report: CheckReport, path: str | Path, *, most: int = 12) -> None:
    """Draws what the check found in words, the classes with their colours and shares, and pairs of each split.

    Args:
        report: of a dataset.
        path: of the PNG file that is written, whole or not at all.
        most: the number of pairs, of which each split gets an equal part, evenly spaced over its files.

    Raises:
        DataError: the file cannot be written.
    """
    rows = _rows(report.dataset, most)
    width = 2 * EDGE + COLUMNS * (2 * CELL + GAP) + (COLUMNS - 1) * 3 * GAP
    legend = legend_rows(_legend(report), width - 2 * EDGE)
    top = EDGE + 2 * LINE + len(legend) * LINE + 3 * GAP
    heights = [max(card.height for card in row) + 2 * GAP for _, row in rows]
    titles = LINE * len({title for title, _ in rows})
    page = Image.new("RGB", (width, top + sum(heights) + titles + EDGE), (255, 255, 255))
    pen = ImageDraw.Draw(page)
    name = shortened(printable(report.dataset.root.resolve().name), width - 2 * EDGE, 26, middle=True)
    pen.text((EDGE, EDGE + 16), name, BLACK, font(26), anchor="ls")
    pen.text((EDGE, EDGE + 40), _facts(report), GREY, font(15), anchor="ls")
    draw_legend(pen, legend, (EDGE, EDGE + 2 * LINE + 6), BLACK)
    last = ""
    for (title, row), height in zip(rows, heights, strict=True):
        if title != last:
            pen.text((EDGE, top), title, BLACK, font(17))
            top, last = top + LINE, title
        for i, card in enumerate(row):
            page.paste(card, (EDGE + i * (2 * CELL + 4 * GAP), top))
        top += height
    with atomic_path(path) as part:
        page.save(part, format="PNG")


def _rows(dataset: DatasetConfig, most: int) -> list[tuple[str, list[Image.Image]]]:
    """(split, the cards of one row) from top to bottom."""
    rows = []
    each = max(COLUMNS, most // len(dataset.splits))
    for name in dataset.splits:
        try:
            pairs, _ = dataset.list_pairs(name)
        except DataError:  # a split without its folder; the check has said so
            continue
        cards = [_card(dataset, name, piece) for piece in spread_evenly(_pieces(dataset, pairs), each)]
        rows += [(name, cards[i : i + COLUMNS]) for i in range(0, len(cards), COLUMNS)]
    return rows


def _pieces(dataset: DatasetConfig, pairs: list[Pair]) -> list[ImagePart]:
    """Whole images, and windows of scenes."""
    found = []
    for pair in pairs:
        try:
            header = scene_of(dataset, pair)
        except DataError:  # the check has said so
            continue
        windows = [None] if header is None else tiles(header.size, (SIDE, SIDE))
        found += [ImagePart(pair, window) for window in windows]
    return found


def _card(dataset: DatasetConfig, split: str, piece: ImagePart) -> Image.Image:
    """Image and labels side by side, the name of the file and the size below."""
    pictures = [Image.new("RGB", (CELL, CELL * 3 // 4), EMPTY)] * 2
    try:
        if dataset.is_panoptic:
            size, pictures = _panoptic_views(dataset, split, piece)
        elif dataset.has_objects:
            size, pictures = _object_views(dataset, split, piece)
        else:
            size, pictures = _label_views(dataset, piece)
        note = f"{size[1]} x {size[0]}"
        if piece.window is not None:
            note += f" from ({piece.window[0]}, {piece.window[1]})"
    except DataError:
        note = "cannot be used"
    height = max(picture.height for picture in pictures)
    card = Image.new("RGB", (2 * CELL + GAP, height + LINE), (255, 255, 255))
    for i, picture in enumerate(pictures):
        card.paste(picture, (i * (CELL + GAP) + (CELL - picture.width) // 2, 0))
    pen = ImageDraw.Draw(card)
    name = shortened(printable(piece.pair.image.name), 2 * CELL - 120, 13, middle=True)
    pen.text((0, height + 5), name, BLACK, font(13))
    pen.text((2 * CELL + GAP, height + 5), note, GREY, font(13), anchor="ra")
    return card


def _label_views(dataset: DatasetConfig, piece: ImagePart) -> tuple[tuple[int, int], list[Image.Image]]:
    """Height and width of an image, and pictures of it and of its labels."""
    frame = read_pair(dataset, piece.pair, piece.window)
    image = to_rgb(frame.image, frame.band_names, frame.valid)
    if not piece.pair.label:
        return image.shape[:2], [_fitted(image), Image.new("RGB", (CELL, CELL * 3 // 4), EMPTY)]
    labels = colorize(frame.target, [c.color for c in dataset.classes])
    return image.shape[:2], [_fitted(image), _fitted(labels, Image.Resampling.NEAREST)]


def _panoptic_views(dataset: DatasetConfig, split: str, piece: ImagePart) -> tuple[Size, list[Image.Image]]:
    """Height and width of an image, and pictures of it and of its classes, with a line around each thing."""
    picture = read_picture(dataset, piece.pair.image, piece.window)
    image = _fitted(to_rgb(picture.array, picture.band_names, picture.valid))
    size = whole_size(dataset, piece.pair.image, picture, piece.window)
    truth = read_ground_truth(dataset, piece.pair, size, split_annotations(dataset, split), piece.window)
    if truth.segments is None:
        return picture.size, [image, Image.new("RGB", (CELL, CELL * 3 // 4), EMPTY)]
    rows, columns = (
        (np.arange(shown) * 2 + 1) * whole // (2 * shown)
        for shown, whole in zip(image.size[::-1], picture.size, strict=True)
    )
    segments = truth.segments.where(picture.valid)
    ids, classes = segments.ids[rows][:, columns], segments.semantic[rows][:, columns]
    labels = colorize(classes, [c.color for c in dataset.classes])
    labels[_outlines(ids) & (classes < len(dataset.things))] = OUTLINE
    return picture.size, [image, Image.fromarray(labels)]


def _outlines(ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """[H, W] pixels beside a pixel of another id."""
    edges = np.zeros(ids.shape, bool)
    across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges


def _object_views(dataset: DatasetConfig, split: str, piece: ImagePart) -> tuple[tuple[int, int], list[Image.Image]]:
    """Height and width of an image, and pictures of it without and with its objects."""
    from torchfpn.data.transforms import (
        Geometry,  # these need torch; sheets of label images do without
        visible_objects,
    )
    from torchfpn.report.objects import Marks, draw_objects

    picture = read_picture(dataset, piece.pair.image, piece.window)
    image = _fitted(to_rgb(picture.array, picture.band_names, picture.valid))
    size = whole_size(dataset, piece.pair.image, picture, piece.window)
    truth = read_ground_truth(dataset, piece.pair, size, split_annotations(dataset, split), piece.window)
    objects = visible_objects(truth, Geometry(Window(0, 0, *picture.size), picture.size))
    marks = Marks.of_truth(objects, [c.color for c in dataset.classes], picture.size)
    return picture.size, [image, Image.fromarray(draw_objects(np.asarray(image), marks))]


def _fitted(pixels: Rgb, how: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    image = Image.fromarray(pixels)
    factor = min(CELL / image.width, CELL / image.height)
    return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))), how)


def _facts(report: CheckReport) -> str:
    splits = "  ·  ".join(f"{split.name} {split.images}" for split in report.splits)
    bands = f"{amount(len(report.bands), 'band')} of {' and '.join(report.dtypes)}" if report.bands else ""
    return "     ".join(part for part in (splits, bands, amount(len(report.problems), "problem")) if part)


def _legend(report: CheckReport) -> Sequence[tuple[tuple[int, int, int], str]]:
    """Colour and name of each class with its share of the pixels or objects, and of what is not labelled."""
    pixels = not report.dataset.has_objects or report.dataset.is_panoptic
    parts = [split.counts.pixels if pixels or not split.objects else split.objects.objects for split in report.splits]
    total = np.sum(parts, axis=0)
    shares = total / max(total.sum(), 1)
    entries = [(c.color, f"{c.name} {share:.1%}") for c, share in zip(report.dataset.classes, shares, strict=True)]
    return [*entries, (HATCH[1], "not labelled" if pixels else "crowd")]
