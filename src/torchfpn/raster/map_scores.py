"""Label maps against polygons, in one pass over each map: pixels against the polygons drawn on its grid, and objects.

Polygons say nothing of the background: where none lies, and where the map has a class that is not asked for, is
background.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.data.colors import class_colors
from torchfpn.errors import ConfigError, DataError, nearest
from torchfpn.files.formats import printable
from torchfpn.files.geo import Geo
from torchfpn.files.rasters import Color
from torchfpn.metrics.confusion import ConfusionMatrix
from torchfpn.raster.label_maps import SIDE, LabelMap, open_label_map
from torchfpn.raster.label_pairs import PixelScores, pair_counts
from torchfpn.raster.legend import BACKGROUND, OBJECT
from torchfpn.raster.objects import ObjectCounter
from torchfpn.recipe import IGNORE
from torchfpn.vectors.drawing import Scene, draw
from torchfpn.vectors.ground import ground_plane, on_ground
from torchfpn.vectors.objects import Objects
from torchfpn.vectors.placing import check_grid, placed
from torchfpn.vectors.tiles import tile_geo

WIDE = 16 * SIDE  # pixels: windows beside each other whose truth is drawn at once


@dataclass(frozen=True)
class Place:
    """Where maps lie that do not say. crs: well-known text. tiles: how their paths end (`vectors.tiles`)."""

    crs: str | None = None
    tiles: str | None = None


class MapScores:
    """Counts over maps; `pixels()` and `objects` tell what came of it. met: polygons of each file that lie on a map."""

    def __init__(
        self, names: Mapping[int, str], *, iou: float = 0.5, least: float = 0.0, ignore: Collection[int] | None = None
    ) -> None:
        """names: the label values that are classes, and what they are called, see `classes_of`.

        least: square metres of the smallest object that counts. ignore: values of the maps that are no prediction;
        None: 255, unless it is a class. What a map declares as nodata is none either, unless it is a class.
        """
        self.names, self.iou, self.least = dict(names), iou, least
        self.ignore = {IGNORE} - self.names.keys() if ignore is None else set(ignore) - self.names.keys()
        self.colors: dict[int, Color] = {}
        self.counts: Counter[tuple[int, int, bool]] = Counter()
        self.objects = ObjectCounter(names, iou=iou).scores
        self.met: Counter[Path] = Counter()
        self._last: tuple[Objects, shapely.STRtree, NDArray[np.int64]] | None = None

    def add(self, file: Path, truth: Objects, place: Place | None = None) -> None:
        """Counts one map. truth: its classes are names or values of classes; others are left out.

        Raises:
            DataError, RasterError: the map cannot be read or has no place on the earth, or the polygons cannot be
                brought there.
        """
        with open_label_map(file) as held:
            geo = _place(held, place or Place())
            for value, color in held.colors.items():
                self.colors.setdefault(value, color)
            tree, known = self._wanted(truth)
            shapes, numbers = placed(np.asarray(tree.geometries), truth.crs, geo, held.size, file, tree=tree)
            self.met[truth.file] += len(numbers)
            broken = ~shapely.is_valid(shapes)  # by the rounding of coordinates
            shapes[broken] = shapely.make_valid(shapes[broken], method="structure", keep_collapsed=False)
            values = known[numbers]
            counter = ObjectCounter(self.names, iou=self.iou, least=self.least / _pixel_area(geo, held.size, file))
            reader = _Reader(held, shapes, values, self.names)
            counter.update_by_blocks(held.plan(), reader.read, shapes, values)
            for (t, p), count in reader.counts.items():
                self.counts[t, p, p == held.nodata] += count
            self.objects += counter.scores

    def pixels(self) -> PixelScores:
        """Pixels of background and classes, in this order.

        Raises:
            DataError: no map holds a prediction.
        """
        index = {value: i for i, value in enumerate(self.names, start=1)}
        confusion, unanswered = ConfusionMatrix(len(index) + 1), 0
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

    def _wanted(self, truth: Objects) -> tuple[shapely.STRtree, NDArray[np.int64]]:
        """The objects whose class is asked for, and the label value [N] of each; kept for the next map."""
        if self._last is None or self._last[0] is not truth:
            values = self._values(truth)
            asked = np.flatnonzero(values >= 0)
            self._last = truth, shapely.STRtree(truth.shapes[asked]), values[asked]
        return self._last[1:]

    def _values(self, truth: Objects) -> NDArray[np.int64]:
        """[N]: the label value of each object, -1 where its class is not asked for."""
        if truth.classes is None:
            (value,) = self.names
            return np.full(len(truth.shapes), value, np.int64)
        known = {str(value): value for value in self.names} | {name: value for value, name in self.names.items()}
        return np.array([known.get(str(value), -1) for value in truth.classes], np.int64)


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
        self.scene = Scene(shapes, np.arange(len(shapes)), labels, shapes[:0], IGNORE, held.size)
        self.drawn, self.corner = np.zeros((0, 0), np.uint8), (-1, -1)

    def read(self, number: int) -> NDArray[Any]:
        """Of the window with this number in the plan; asked for in order."""
        row, column, height, width = place = self.plan[number]
        left = column - column % WIDE
        if (row, left) != self.corner:
            window = (row, left, height, min(WIDE, self.held.size[1] - left))
            self.drawn, self.corner = draw(self.scene, window).astype(np.uint8), (row, left)
        labels = self.held.read(place)
        self.counts.update(pair_counts(labels, self.drawn[:, column - left : column - left + width]))
        return labels


def classes_of(
    maps: Mapping[int, str], layers: Sequence[Objects], only: Sequence[str] = (), file: str | Path | None = None
) -> dict[int, str]:
    """Label value -> name of the classes that polygons and maps have in common.

    maps: names of the values in the maps, empty where they do not say. layers: the true polygons; their classes are
    names or values of the maps. Without classes they are all of one: the only one of the maps, or the value 1. only:
    names or values of the classes that count, if not all that the polygons have.

    Raises:
        ConfigError: a class that the maps do not have. DataError: it cannot be told which class the polygons are of.
    """
    held = {value for layer in layers if layer.classes is not None for value in layer.classes}
    if not held and len(only) != 1:
        return _only_class(maps, only, file)
    wanted = list(only) or [str(value) for value in sorted(held, key=lambda v: (isinstance(v, str), v))]
    values = {name: value for value, name in maps.items()}
    found = {}
    for word in wanted:
        if word not in values and not word.isdecimal():
            if not maps and len(wanted) == 1 and not held:
                return {1: word}
            raise _no_class(word, maps, file, asked=bool(only))
        value = values[word] if word in values else int(word)
        found[value] = maps.get(value, word)
    return found


def _only_class(maps: Mapping[int, str], only: Sequence[str], file: str | Path | None) -> dict[int, str]:
    if only:
        found = f"{len(only)} classes ({', '.join(only)}) for polygons that have none"
        raise ConfigError(found, field="classes", hint="say which attribute has them with --field")
    foreground = {value: name for value, name in maps.items() if value != 0 and name != BACKGROUND}
    if not maps:
        return {1: OBJECT}
    if len(foreground) != 1:
        shown = ", ".join(maps.values())
        found = f"has the classes {shown}, and the polygons have none"
        raise DataError(found, file=file, hint="say which one they are with --classes NAME")
    return foreground


def _no_class(word: str, maps: Mapping[int, str], file: str | Path | None, *, asked: bool) -> ConfigError:
    hint = nearest(word, maps.values()) if maps else "its values have no names: give numbers"
    if not asked:
        hint += '; choose classes with --classes, an attribute with --field, or none with --field ""'
    return ConfigError(f'no class "{word}"', file=None if file is None else printable(file), hint=hint)


def _place(held: LabelMap, place: Place) -> Geo:
    if held.geo is None and place.tiles is not None:
        return tile_geo(held.file, place.tiles, held.size)
    return check_grid(held.geo, held.file, place.crs)


def _pixel_area(geo: Geo, size: tuple[int, int], file: Path) -> float:
    """Square metres of the pixel in the middle of a map."""
    row, column = (side / 2 for side in size)
    corners = [geo.world(column + x, row + y) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))]
    pixel = np.array([shapely.Polygon(corners)], dtype=object)
    crs = str(geo.crs)
    return float(shapely.area(on_ground(pixel, crs, ground_plane([(pixel, crs)]), file))[0])
