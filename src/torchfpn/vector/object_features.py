"""Detected objects as features: the outline of each mask, or its box.

Objects may overlap, so they cannot be traced in their image. Masks are laid side by side on a sheet that is traced
once, and the outlines are moved back.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.geo.georef import Geo
from torchfpn.geo.window import plan_blocks
from torchfpn.ops.masks import Crops, Instances, window_pixels
from torchfpn.vector.features import SIDE, Coordinates, Feature, make_features, reader_of
from torchfpn.vector.lon_lat import check_place
from torchfpn.vector.polygonize import TracedAreas, trace_blocks

DECIMALS = 3  # of a pixel
MIN_SIDE = 10.0**-DECIMALS  # pixels, of the side of a box: readers refuse boxes without an area
Ints = NDArray[np.int64]
SHEET = 2**24  # pixels of masks that are traced at once


def round_boxes(boxes: Tensor) -> NDArray[np.float64]:
    """Boxes [N, 4] (x1, y1, x2, y2), rounded, and none without an area."""
    corners = boxes.detach().double().cpu().numpy().reshape(-1, 4).round(DECIMALS)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + MIN_SIDE)
    return corners


def object_features(
    found: Instances,
    geo: Geo | None,
    ids: Sequence[int],
    names: Mapping[int, str],
    *,
    min_pixels: float = 0.0,
    simplify: float = 0.0,
    coordinates: Coordinates = "degrees",
    file: str | Path | None = None,
) -> Iterator[Feature]:
    """One feature for each object, best first: the outline of its mask along the pixel edges, or its box.

    A mask in several parts is a MultiPolygon. Masks that overlap stay whole.

    Args:
        found: on the CPU.
        geo: where its image lies.
        ids: the value of each class, which the features have as theirs.
        names: value -> name, of those that get polygons.
        min_pixels: parts of masks of fewer pixels are left out and holes of fewer filled; boxes of fewer are left out.
        simplify: how far, in pixels, the outline of a mask may leave the pixel edges.
        coordinates: "degrees", "map" or "pixels", see `trace_map`.
        file: for messages.

    Raises:
        RasterError: no coordinate system; while reading, a place that has no longitude and latitude.
    """
    if coordinates != "pixels":
        check_place(geo, file)
    values = np.asarray(ids, np.int64)[found.labels.numpy()]
    wanted = np.flatnonzero(np.isin(values, list(names)))
    scores = found.scores.double().numpy()
    shapes = (
        _boxes(found, wanted, min_pixels)
        if found.crops is None
        else mask_outlines(found.crops, wanted, min_pixels, simplify)
    )
    areas = (TracedAreas(values[numbers], polygons, scores[numbers]) for numbers, polygons in shapes)
    exact = found.crops is not None and simplify <= 0
    return make_features(areas, geo, found.size, names, coordinates, exact=exact, file=file)


def mask_outlines(
    crops: Crops, wanted: Ints, min_pixels: float = 0.0, simplify: float = 0.0, *, at_once: int = SHEET
) -> Iterator[tuple[Ints, NDArray[Any]]]:
    """The outlines of masks, of some objects at a time.

    Args:
        crops: the masks of all objects.
        wanted: [N], numbers of the objects that are outlined.
        min_pixels: parts of fewer pixels are left out, and holes of fewer are filled.
        simplify: how far, in pixels, an outline may leave the pixel edges.
        at_once: pixels of masks that are traced together, which bounds the memory and changes no outline.

    Yields:
        Numbers of objects [K], and for each a Polygon or MultiPolygon in (column, row); none for an empty mask.
    """
    pixels, windows = window_pixels(crops), crops.windows.numpy()
    sides = windows[:, 2:] - windows[:, :2]
    wanted = wanted[sides[wanted].prod(1) > 0]
    sheets = (sides[wanted].prod(1).cumsum() // at_once) if len(wanted) else wanted
    for sheet in np.unique(sheets).tolist():
        numbers = wanted[sheets == sheet]
        places, size = _laid_out(sides[numbers])
        labels = np.zeros(size, np.min_scalar_type(len(numbers)))
        for i, (number, (x, y)) in enumerate(zip(numbers.tolist(), places.tolist(), strict=True), 1):
            on = pixels[number].numpy()
            labels[y : y + on.shape[0], x : x + on.shape[1]][on] = i
        which, shapes = _traced(labels, windows[numbers, :2] - places, min_pixels)
        if simplify > 0:
            shapes = np.array([shapely.coverage_simplify([shape], simplify)[0] for shape in shapes], dtype=object)
        yield numbers[which], shapes


def _laid_out(sides: Ints) -> tuple[Ints, tuple[int, int]]:
    """Rectangles [N, 2] (width, height) in rows, none touching another: their places (x, y), the sheet's (H, W)."""
    broad = max(int(sides[:, 0].max()), math.ceil(math.sqrt((sides + 1).prod(1).sum())))
    places = np.zeros_like(sides)
    x = y = tall = 0
    for i in np.argsort(-sides[:, 1], kind="stable").tolist():  # as high ones go into one row
        width, height = sides[i].tolist()
        if x and x + width > broad:
            x, y, tall = 0, y + tall + 1, 0
        places[i] = x, y
        x, tall = x + width + 1, max(tall, height)
    return places, (y + tall, broad)


def _traced(labels: NDArray[Any], offsets: Ints, min_pixels: float) -> tuple[Ints, NDArray[Any]]:
    """The objects 1, 2, ... of a sheet: places in `offsets` [N, 2], what each is moved by, and polygons of those."""
    plan = [block.block for block in plan_blocks(*labels.shape, side=SIDE, margin=0)]
    found = list(trace_blocks(plan, reader_of(labels, plan), range(1, len(offsets) + 1), min_pixels=min_pixels))
    if not found:
        return np.zeros(0, np.int64), np.empty(0, dtype=object)
    owners = np.concatenate([areas.values for areas in found]) - 1
    parts = np.concatenate([areas.polygons for areas in found])
    left, top, _, _ = shapely.bounds(parts).T
    order = np.lexsort((left, top, owners))
    parts, owners = parts[order], owners[order]
    shifts = np.repeat(offsets[owners], shapely.get_num_coordinates(parts), axis=0)
    parts = shapely.set_coordinates(parts, shapely.get_coordinates(parts) + shifts)
    which, first, count = np.unique(owners, return_index=True, return_counts=True)
    shapes = parts[first]
    for i in np.flatnonzero(count > 1).tolist():
        shapes[i] = shapely.multipolygons(parts[first[i] : first[i] + count[i]])
    return which, shapes


def _boxes(found: Instances, wanted: Ints, min_pixels: float) -> Iterator[tuple[Ints, NDArray[Any]]]:
    corners = round_boxes(found.boxes)[wanted]
    large = (corners[:, 2:] - corners[:, :2]).prod(1) >= min_pixels
    if large.any():
        yield wanted[large], np.asarray(shapely.box(*corners[large].T), dtype=object)
