"""Label maps scored by windows: pixels and objects against polygons, and two label sources against each other."""

import contextlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.classes import class_colors
from torchfpn.errors import DataError, amount
from torchfpn.evaluation.label_pairs import PixelScores, pair_counts
from torchfpn.evaluation.objects import ObjectCounter
from torchfpn.geo.georef import Geo, Window, tiles
from torchfpn.geo.tiles import tile_geo
from torchfpn.io.formats import MAX_SIDE
from torchfpn.io.rasters import Color, geo_of, open_raster
from torchfpn.metrics.pixel_counts import PixelCounts
from torchfpn.metrics.polygons import ObjectScores
from torchfpn.recipe import IGNORE
from torchfpn.sources.label_classes import BACKGROUND, LabelClasses
from torchfpn.sources.labels import WINDOW, LabelMap, LabelSource, open_label_map
from torchfpn.sources.raster import Grid, Sampling
from torchfpn.vector.lon_lat import GridBends, to_lon_lat
from torchfpn.vector.objects import Objects
from torchfpn.vector.rasterize import PixelPolygons, draw
from torchfpn.vector.to_pixels import check_grid, to_pixels

WIDE = 16 * WINDOW  # pixels: windows beside each other whose truth is drawn at once


@dataclass(frozen=True)
class MapPlace:
    """Where maps lie that do not say. crs: well-known text. tiles: how their paths end (`geo.tiles`).

    max_side: height and width of a map, in pixels.
    """

    crs: str | None = None
    tiles: str | None = None
    max_side: int = MAX_SIDE


class MapScores:
    """Counts over maps; `pixels()`, `objects` and `left_out()` tell what came of it."""

    def __init__(
        self,
        names: Mapping[int, str],
        *,
        iou: float = 0.5,
        least: float = 0.0,
        ignore: Collection[int] | None = None,
        told: Collection[int] = (),
    ) -> None:
        """names: the label values that are classes, and what they are called, see `label_classes.classes_of`.

        least: square metres on the ground of the smallest object that counts. ignore: values of the maps that are no
        prediction; None: 255, unless it is a class. What a map declares as nodata is none either, unless it is a class.
        told: further values that have a meaning, which is another class than one of these.
        """
        self.names, self.told = dict(names), {*told, *names}
        self.explicit = ignore is not None
        self.ignore = {IGNORE} - self.names.keys() if ignore is None else set(ignore) - self.names.keys()
        self.colors: dict[int, Color] = {}
        self.counts: Counter[tuple[int, int, bool]] = Counter()
        self._counter = ObjectCounter(names, iou=iou, least=least)
        self._layers: dict[int, _Layer] = {}  # by the identity of the objects

    @property
    def objects(self) -> ObjectScores:
        """How many objects were found."""
        return self._counter.scores

    def left_out(self) -> "LeftOut":
        """What does not count."""
        layers = self._layers.values()
        outside = sum(int((~layer.met).sum()) for layer in layers)
        return LeftOut(sum(layer.others for layer in layers), outside, self._counter.small)

    def meets(self, truth: Objects) -> bool:
        """Whether a polygon of a class that counts lies on a map."""
        return bool(self._layer(truth).met.any())

    def add(self, file: Path, truth: Objects, place: MapPlace | None = None) -> None:
        """Counts one map. truth: its classes are names or values of classes; others are left out.

        Raises:
            DataError, RasterError: the map cannot be read or has no place on the earth, or the polygons cannot be
                brought there.
        """
        place = place or MapPlace()
        with open_label_map(file, max_side=place.max_side) as held:
            geo = _place(held, place)
            self.told |= held.names.keys()
            for value, color in held.colors.items():
                self.colors.setdefault(value, color)
            layer = self._layer(truth)
            tree = layer.tree
            shapes, numbers = to_pixels(np.asarray(tree.geometries), truth.crs, geo, held.size, file, tree=tree)
            broken = ~shapely.is_valid(shapes)  # by the rounding of coordinates
            shapes[broken] = shapely.make_valid(shapes[broken], method="structure", keep_collapsed=False)
            values = layer.values[numbers]
            reader = _Reader(held, shapes, values, self.names)
            bends = GridBends(geo, held.size)

            def measure(polygons: NDArray[Any]) -> NDArray[np.float64]:
                return to_lon_lat(polygons, geo, file, bends=bends).areas

            inside = self._counter.update_by_blocks(held.plan(), reader.read, shapes, values, measure=measure)
            layer.met[numbers[inside]] = True
            for (t, p), count in reader.counts.items():
                self.counts[t, p, p == held.nodata] += count

    def pixels(self) -> PixelScores:
        """Pixels of background and classes, in this order.

        Raises:
            DataError: no map holds a prediction, or 255 occurs and nothing says whether it is one.
        """
        self._check_unlabelled()
        index = {value: i for i, value in enumerate(self.names, start=1)}
        confusion, unanswered = PixelCounts(len(index) + 1), 0
        for (t, p, no_answer), count in self.counts.items():
            if p in self.ignore or (no_answer and p not in index):
                unanswered += count
            else:
                confusion.matrix[t, index.get(p, 0)] += count
        if not confusion.matrix.any():
            raise DataError("no pixel has a prediction", hint="what is none is set by --ignore")
        names = [BACKGROUND if BACKGROUND not in self.names.values() else "no polygon", *self.names.values()]
        colors = class_colors(names, [None, *(self.colors.get(value) for value in self.names)])
        return PixelScores([None, *self.names], names, colors, confusion, 0, unanswered)

    def _check_unlabelled(self) -> None:
        """Passes values that are no classes, which are background; 255, mostly "no prediction", if somebody says so."""
        here = sum(count for (_, p, no_answer), count in self.counts.items() if p == IGNORE and not no_answer)
        if here and self.explicit and IGNORE not in self.told | self.ignore:
            hint = "add it to --ignore, or name it with --classes 255=NAME"
            raise DataError(f"the value 255 in {amount(here, 'pixel')}, and --ignore has other values", hint=hint)

    def _layer(self, truth: Objects) -> "_Layer":
        """The objects of a file whose class is asked for; kept for the next map."""
        if id(truth) not in self._layers:
            values = self._values(truth)
            asked = np.flatnonzero(values >= 0)
            met, others = np.zeros(len(asked), bool), len(values) - len(asked)
            self._layers[id(truth)] = _Layer(truth, shapely.STRtree(truth.shapes[asked]), values[asked], met, others)
        return self._layers[id(truth)]

    def _values(self, truth: Objects) -> NDArray[np.int64]:
        """[N]: the label value of each object, -1 where its class is not asked for."""
        if truth.classes is None and len(truth.shapes) and len(self.names) > 1:
            listed = ", ".join(self.names.values())
            hint = 'give each file the attribute, or count all as one class: --field "" --classes NAME'
            raise DataError(f"no classes, beside polygons of {listed}", file=truth.file, hint=hint)
        if truth.classes is None:
            return np.full(len(truth.shapes), next(iter(self.names)), np.int64)
        known = {str(value): value for value in self.names} | {name: value for value, name in self.names.items()}
        return np.array([known.get(str(value), -1) for value in truth.classes], np.int64)


class LeftOut(NamedTuple):
    """Objects that do not count.

    others: true ones of other classes. outside: true ones on no map. small: predicted and true ones, or parts of them
    on a map, of fewer square metres than asked for.
    """

    others: int
    outside: int
    small: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, as of polygons against polygons; areas of other label values are not counted."""
        predicted, truth = self.small
        return {
            "outside_or_small": {"predicted": predicted, "truth": self.outside + truth},
            "of_other_classes": {"predicted": None, "truth": self.others},
        }


@dataclass
class _Layer:
    """Objects of one file whose class counts. values: [N] of their labels. met: [N], which lie on a map.

    others: how many there are of other classes.
    """

    truth: Objects
    tree: shapely.STRtree
    values: NDArray[np.int64]
    met: NDArray[np.bool_]
    others: int


class _Reader:
    """Hands out the windows of a map, and counts their pixels against the truth on the way.

    counts: (place of the true class among the names from 1, 0 for none; label value) -> pixels.
    """

    def __init__(
        self, held: LabelMap, shapes: NDArray[Any], values: NDArray[np.int64], names: Mapping[int, str]
    ) -> None:
        self.held, self.plan, self.counts = held, held.plan(), Counter[tuple[int, int]]()
        index = {value: i for i, value in enumerate(names, start=1)}
        labels = np.array([index[value] for value in values.tolist()], np.int64)
        self.scene = PixelPolygons(shapes, np.arange(len(shapes)), labels, shapes[:0], IGNORE, held.size)
        self.drawn, self.corner = np.zeros((0, 0), np.uint8), (-1, -1)

    def read(self, number: int) -> NDArray[Any]:
        """Of the window with this number in the plan; asked for in order."""
        row, column, height, width = place = self.plan[number]
        left = column - column % WIDE
        if (row, left) != self.corner:
            window = Window(row, left, height, min(WIDE, self.held.size[1] - left))
            self.drawn, self.corner = draw(self.scene, window).astype(np.uint8), (row, left)
        labels = self.held.read(place)
        self.counts.update(pair_counts(labels, self.drawn[:, column - left : column - left + width]))
        return labels


def _place(held: LabelMap, place: MapPlace) -> Geo:
    if held.geo is None and place.tiles is not None:
        return tile_geo(held.file, place.tiles, held.size)
    return check_grid(held.geo, held.file, place.crs)


@dataclass(frozen=True)
class MapComparison:
    """maps: the labels [h, w] of each side, `IGNORE` where nothing is labelled. confusion: None for one side alone."""

    maps: list[NDArray[np.uint8]]
    confusion: PixelCounts | None


def compare_maps(image: Grid, look: Sampling, sides: Sequence[LabelSource], classes: LabelClasses) -> MapComparison:
    """sides: the truth and the prediction, or one of them. Only the part of the image that is looked at counts.

    Raises:
        DataError: labels that are missing, damaged, or do not fit the image.
    """
    maps = [np.full(look.size, IGNORE, np.uint8) for _ in sides]
    confusion = PixelCounts(len(classes.values)) if len(sides) == 2 else None
    row, column, height, width = look.part
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(side.open(image, classes)) for side in sides]
        for block in tiles((height, width), (WINDOW, WINDOW)):
            window = block._replace(row=block.row + row, column=block.column + column)
            found = [read(window) for read in readers]
            if confusion is not None:
                _count(confusion, found[1], found[0])
            rows, columns, top, left = look.inside(window)
            for shown, labels in zip(maps, found, strict=True):
                shown[top : top + len(rows), left : left + len(columns)] = labels[np.ix_(rows, columns)]
    return MapComparison(maps, confusion)


def _count(confusion: PixelCounts, prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
    """Adds the pixels that have a truth and a prediction."""
    for (t, p), count in pair_counts(prediction, truth).items():
        if t != IGNORE and p != IGNORE:
            confusion.matrix[t, p] += count


def footprint(
    file: Path, *, assume_crs: str | None = None, tiles: str | None = None, allow_vrt: bool = False
) -> tuple[NDArray[Any], str, Path]:
    """One polygon [1], its coordinate system, and the file; no pixel is read.

    tiles: how the paths of rasters end that do not say where they lie (`geo.tiles`).

    Raises:
        DataError: no raster. RasterError: it has no place on the earth.
    """
    with open_raster(file, allow_vrt=allow_vrt) as source:
        size, geo = (source.height, source.width), geo_of(source)
    if geo is None and tiles is not None:
        geo = tile_geo(file, tiles, size)
    geo = check_grid(geo, file, assume_crs)
    corners = [geo.world(x, y) for x, y in ((0, 0), (size[1], 0), (size[1], size[0]), (0, size[0]))]
    return np.array([shapely.Polygon(corners)], dtype=object), str(geo.crs), file
