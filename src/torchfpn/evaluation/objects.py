"""Objects scored: polygons against polygons, label maps against polygons, and models on datasets of polygons.

Against label maps, objects are matched in the pixels of the map, where polygons are cut to its border: the scale is the
same all over an object, so shares of areas are those on the ground.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.classes import UNKNOWN, ClassMap, class_colors
from torchfpn.data.config import DatasetConfig
from torchfpn.data.labels.polygons import grid, read_features
from torchfpn.data.splits import Pair
from torchfpn.errors import ConfigError, DataError, amount, nearest
from torchfpn.evaluation.maps import PixelScores, paired_windows
from torchfpn.geo.georef import Geo
from torchfpn.geo.tiles import tile_geo
from torchfpn.geo.window import Window, plan_blocks
from torchfpn.io.formats import MAX_SIDE
from torchfpn.io.rasters import geo_of, open_raster
from torchfpn.metrics.pixel_counts import PixelCounts
from torchfpn.metrics.polygons import ObjectScores, score_objects
from torchfpn.recipe import IGNORE
from torchfpn.sources.label_classes import BACKGROUND
from torchfpn.sources.labels import LabelMap, drawn_reader, open_label_map
from torchfpn.types import Color
from torchfpn.vector.features import SIDE, reader_of, trace_map
from torchfpn.vector.geometry import clip, ground_plane, to_plane
from torchfpn.vector.lon_lat import GridBends, to_lon_lat
from torchfpn.vector.objects import Objects
from torchfpn.vector.rasterize import place_polygons
from torchfpn.vector.to_pixels import check_grid, to_pixels

if TYPE_CHECKING:
    from torch import Tensor

Measure = Callable[[NDArray[Any]], NDArray[np.float64]]
OBJECT = "object"  # the name of the only class
Layer = tuple[NDArray[Any], str, Path]  # polygons, their coordinate system, their file


class ObjectCounter:
    """Precision, recall and F1 of the objects of label maps, counted over images; `scores` has them.

    A predicted object is an area of one label whose pixels touch along their sides, holes kept. Of the true ones counts
    what lies in the image.
    """

    def __init__(self, names: Mapping[int, str], *, iou: float = 0.5, min_area: float = 0.0) -> None:
        """Counts start at 0; `small` counts predicted and true objects that were too small.

        Args:
            names: label values that are objects -> their names.
            iou: lowest IoU of matching objects.
            min_area: pixels of the smallest object that counts.
        """
        self.names, self.min_area, self.small = dict(names), min_area, (0, 0)
        zero = (0,) * len(self.names)
        self.scores = ObjectScores(iou, tuple(self.names.values()), zero, zero, zero)

    def update(self, labels: NDArray[Any], shapes: NDArray[Any], values: NDArray[Any]) -> None:
        """Counts an image.

        Args:
            labels: [H, W] integers.
            shapes: [N] valid polygons in the pixels (column, row) of the image, whose corner (0, 0) is at the upper
                left.
            values: [N] the label value of each.

        Raises:
            DataError: a value that is not among the names.
        """
        plan = [block.block for block in plan_blocks(*labels.shape, side=SIDE, margin=0)]
        self.update_by_blocks(plan, reader_of(labels, plan), shapes, values)

    def update_by_blocks(
        self,
        plan: Sequence[Window],
        read: Callable[[int], NDArray[Any]],
        shapes: NDArray[Any],
        values: NDArray[Any],
        *,
        measure: Measure = shapely.area,
    ) -> NDArray[np.int64]:
        """The same of a map that is read block by block, see `trace_map`; numbers of the shapes inside.

        Args:
            plan: see `trace_map`.
            read: see `trace_map`.
            shapes: [N] valid polygons in pixels of the map.
            values: [N] the label value of each.
            measure: polygons [N] in pixels -> [N] areas in the unit of `min_area`, if that is another one than pixels.
        """
        order = {value: k for k, value in enumerate(self.names)}
        if unknown := [value for value in np.unique(values).tolist() if value not in order]:
            raise DataError(f"a polygon of the value {unknown[0]}", allowed=", ".join(map(str, self.names)))
        found = list(trace_map(plan, read, None, self.names, coordinates="pixels"))
        traced = np.array([feature.polygon for feature in found], dtype=object)
        classes = np.array([order[feature.value] for feature in found], np.int64)
        height, width = plan[-1][0] + plan[-1][2], plan[-1][1] + plan[-1][3]
        inside, numbers = clip(shapes, shapely.box(0, 0, width, height))
        there = np.array([order[value] for value in values[numbers].tolist()], np.int64)
        large = [self._large(each, measure) for each in (traced, inside)]
        small = [int((~kept).sum()) for kept in large]
        self.small = self.small[0] + small[0], self.small[1] + small[1]
        self.scores += score_objects(
            traced[large[0]],
            inside[large[1]],
            tuple(self.names.values()),
            iou=self.scores.iou,
            classes=(classes[large[0]], there[large[1]]),
        )
        return numbers

    def _large(self, shapes: NDArray[Any], measure: Measure) -> NDArray[np.bool_]:
        """[N]: which are not too small; nothing is measured where nothing can be."""
        if not self.min_area > 0 or not len(shapes):
            return np.ones(len(shapes), bool)
        return np.asarray(measure(shapes) >= self.min_area)


@dataclass(frozen=True)
class ObjectComparison:
    """scores, and how many predicted and true objects were left out.

    Attributes:
        outside: beyond the area, or too small.
        others: of classes that were not asked for.
        apart: both layers hold objects, and none meets one of the other.
    """

    scores: ObjectScores
    outside: tuple[int, int]
    others: tuple[int, int]
    apart: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the scores as "objects", and the numbers of objects "left_out"."""
        names = ("outside_or_small", "of_other_classes")
        sides = {
            name: {"predicted": p, "truth": t} for name, (p, t) in zip(names, (self.outside, self.others), strict=True)
        }
        return {"objects": self.scores.to_dict(), "left_out": sides}


def compare_objects(
    predicted: Objects,
    truth: Objects,
    *,
    iou: float = 0.5,
    only: Sequence[str] = (),
    within: Sequence[Layer] = (),
    min_area: float = 0.0,
) -> ObjectComparison:
    """Matches the objects of two layers, class by class where both have classes.

    Args:
        predicted: the predicted layer.
        truth: the true layer.
        iou: lowest IoU of a match.
        only: names of the classes that count; where one layer alone has classes, these of it are all that is compared
            with the other.
        within: areas that both are cut to.
        min_area: square metres; smaller objects, and smaller parts of those that were cut, are left out on both sides.

    Raises:
        ConfigError: a class that neither layer has. RasterError: places that cannot be brought together.
    """
    (predicted, truth), others = _chosen((predicted, truth), only)
    plane = ground_plane([(truth.shapes, truth.crs), (predicted.shapes, predicted.crs)])
    area = None
    if within:
        parts = [to_plane(shapes, crs, plane, file) for shapes, crs, file in within]
        area = shapely.union_all(np.concatenate(parts))
    names = _names((predicted, truth), only)
    given = [_on_plane(layer, plane) for layer in (predicted, truth)]
    found, there = (_cut(layer, area, min_area) for layer in given)
    scores = score_objects(
        found.shapes,
        there.shapes,
        names,
        iou=iou,
        classes=(_numbers(found, names), _numbers(there, names)),
        scores=found.scores,
    )
    outside = len(predicted.shapes) - len(found.shapes), len(truth.shapes) - len(there.shapes)
    return ObjectComparison(
        scores, outside, others, not any(scores.matched) and _apart(given[0].shapes, given[1].shapes)
    )


def _chosen(layers: tuple[Objects, Objects], only: Sequence[str]) -> tuple[tuple[Objects, Objects], tuple[int, int]]:
    """The objects of the classes that count, and how many there are of others."""
    known = {str(value) for layer in layers if layer.classes is not None for value in layer.classes}
    for name in only:
        if known and name not in known:
            raise ConfigError(f'no object is of the class "{name}"', field="--classes", hint=nearest(name, known))
    one, other = (_of_classes(layer, only) for layer in layers)
    if one.classes is None or other.classes is None:
        one, other = replace(one, classes=None), replace(other, classes=None)
    return (one, other), (len(layers[0].shapes) - len(one.shapes), len(layers[1].shapes) - len(other.shapes))


def _of_classes(layer: Objects, only: Sequence[str]) -> Objects:
    if layer.classes is None or not only:
        return layer
    return layer.kept(np.flatnonzero([str(value) in only for value in layer.classes]))


def _names(layers: tuple[Objects, Objects], only: Sequence[str]) -> list[str]:
    """Of the classes: as asked for, else all that occur, in order of the alphabet and of numbers."""
    if layers[0].classes is None:
        return [", ".join(only) or OBJECT]
    held = {value for layer in layers if layer.classes is not None for value in layer.classes}
    inorder = sorted(held, key=lambda value: (isinstance(value, str), value))
    return list(only) or list(dict.fromkeys(str(value) for value in inorder))


def _numbers(layer: Objects, names: Sequence[str]) -> NDArray[np.int64]:
    """[N]: the place of the class of each object among the names."""
    if layer.classes is None:
        return np.zeros(len(layer.shapes), np.int64)
    known = {name: i for i, name in enumerate(names)}
    return np.array([known[str(value)] for value in layer.classes], np.int64)


def _on_plane(layer: Objects, plane: str) -> Objects:
    """The objects in metres."""
    return replace(layer, shapes=to_plane(layer.shapes, layer.crs, plane, layer.file))


def _apart(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if not len(one) or not len(other):
        return False
    return not shapely.STRtree(other).query(one, predicate="intersects").size


def _cut(layer: Objects, area: Any, min_area: float) -> Objects:
    """The objects cut to the area; small ones are gone."""
    shapes = layer.shapes
    if area is not None:
        shapes, numbers = clip(shapes, area, min_area)
    else:
        numbers = np.flatnonzero(shapely.area(shapes) >= min_area)
        shapes = shapes[numbers]
    return layer.kept(numbers, shapes)


@dataclass(frozen=True)
class MapPlace:
    """Where maps lie that do not say.

    Attributes:
        crs: well-known text.
        tiles: how their paths end (`geo.tiles`).
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
        min_area: float = 0.0,
        ignore: Collection[int] | None = None,
        others: Collection[int] = (),
    ) -> None:
        """Starts with no map.

        Args:
            names: label value -> name of the evaluated classes, see `label_classes.evaluated_classes`.
            iou: lowest IoU of matching objects.
            min_area: smallest object, in square metres on the ground.
            ignore: label values that mean "no prediction"; None: 255, unless it is a class. What a map declares as
                nodata means the same, unless it is a class.
            others: label values of classes that are not evaluated.
        """
        self.names, self.known_values = dict(names), {*others, *names}
        self.explicit = ignore is not None
        self.ignore = {IGNORE} - self.names.keys() if ignore is None else set(ignore) - self.names.keys()
        self.colors: dict[int, Color] = {}
        self.counts: Counter[tuple[int, int, bool]] = Counter()
        self._counter = ObjectCounter(names, iou=iou, min_area=min_area)
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
        """Counts one map.

        Args:
            file: the label map.
            truth: its classes are names or values of classes; others are left out.
            place: where the map lies if it does not say.

        Raises:
            DataError, RasterError: the map cannot be read or has no place on the earth, or the polygons cannot be
                brought there.
        """
        place = place or MapPlace()
        with open_label_map(file, max_side=place.max_side) as held:
            geo = _place(held, place)
            self.known_values |= held.names.keys()
            for value, color in held.colors.items():
                self.colors.setdefault(value, color)
            layer = self._layer(truth)
            tree = layer.tree
            shapes, numbers = to_pixels(np.asarray(tree.geometries), truth.crs, geo, held.size, file, tree=tree)
            broken = ~shapely.is_valid(shapes)  # by the rounding of coordinates
            shapes[broken] = shapely.make_valid(shapes[broken], method="structure", keep_collapsed=False)
            values = layer.values[numbers]
            index = {value: i for i, value in enumerate(self.names, start=1)}
            drawn = drawn_reader(shapes, np.array([index[value] for value in values.tolist()], np.int64), held.size)
            counts = Counter[tuple[int, int]]()  # (place of the true class from 1, 0 for none; label value) -> pixels
            windows = paired_windows(held.plan(), held.read, drawn, counts)
            bends = GridBends(geo, held.size)

            def measure(polygons: NDArray[Any]) -> NDArray[np.float64]:
                return to_lon_lat(polygons, geo, file, bends=bends).areas

            inside = self._counter.update_by_blocks(
                held.plan(), lambda _: next(windows)[1], shapes, values, measure=measure
            )
            layer.met[numbers[inside]] = True
            for (t, p), count in counts.items():
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
        """Refuses 255, which mostly means "no prediction", if `ignore` lacks it and nothing names it as a class."""
        here = sum(count for (_, p, no_answer), count in self.counts.items() if p == IGNORE and not no_answer)
        if here and self.explicit and IGNORE not in self.known_values | self.ignore:
            hint = "add it to --ignore, or name it with --classes 255=NAME"
            raise DataError(f"the value 255 in {amount(here, 'pixel')}, and --ignore has other values", hint=hint)

    def _layer(self, truth: Objects) -> "_Layer":
        """The objects of a file whose class is asked for; kept for the next map."""
        if id(truth) not in self._layers:
            values = self._values(truth)
            asked = np.flatnonzero(values != UNKNOWN)
            met, others = np.zeros(len(asked), bool), len(values) - len(asked)
            self._layers[id(truth)] = _Layer(truth, shapely.STRtree(truth.shapes[asked]), values[asked], met, others)
        return self._layers[id(truth)]

    def _values(self, truth: Objects) -> NDArray[np.int64]:
        """[N]: the label value of each object, `UNKNOWN` where its class is not evaluated."""
        if truth.classes is None and len(truth.shapes) and len(self.names) > 1:
            listed = ", ".join(self.names.values())
            hint = 'give each file the attribute, or count all as one class: --field "" --classes NAME'
            raise DataError(f"no classes, beside polygons of {listed}", file=truth.file, hint=hint)
        if truth.classes is None:
            return np.full(len(truth.shapes), next(iter(self.names)), np.int64)
        classes = ClassMap.of(self.names)
        return np.array([*classes.values, UNKNOWN], np.int64)[classes.indices_of_words(truth.classes)]


class LeftOut(NamedTuple):
    """Objects that do not count.

    Attributes:
        others: true ones of other classes.
        outside: true ones on no map.
        small: predicted and true ones, or parts of them on a map, of fewer square metres than asked for.
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


def _place(held: LabelMap, place: MapPlace) -> Geo:
    if held.geo is None and place.tiles is not None:
        return tile_geo(held.file, place.tiles, held.size)
    return check_grid(held.geo, held.file, place.crs)


def footprint(
    file: Path, *, assume_crs: str | None = None, tiles: str | None = None, allow_vrt: bool = False
) -> tuple[NDArray[Any], str, Path]:
    """One polygon [1], its coordinate system, and the file; no pixel is read.

    Args:
        file: the raster.
        assume_crs: coordinate system of files without one, well-known text.
        tiles: how the paths of rasters end that do not say where they lie (`geo.tiles`).
        allow_vrt: accept VRT files.

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


class DatasetObjects:
    """Counts the objects of images, called with the labels that a model predicts for each, in the order of the pairs.

    The class where no polygon lies has no objects.

    Args:
        dataset: its labels are polygons.
        pairs: images and labels of a split.
        order: the model's label of each class of the dataset.
        iou: lowest IoU of matching objects.
        min_area: pixels of the smallest object that counts.
    """

    def __init__(
        self,
        dataset: DatasetConfig,
        pairs: Sequence[Pair],
        order: Sequence[int],
        *,
        iou: float = 0.5,
        min_area: float = 0.0,
    ) -> None:
        self.dataset, self.pairs, self.order, self.next = dataset, list(pairs), np.array(order), 0
        background = dataset.polygons.background
        names = {int(order[i]): c.name for i, c in enumerate(dataset.classes) if i != background}
        self.counter = ObjectCounter(dict(sorted(names.items())), iou=iou, min_area=min_area)

    def __call__(self, labels: "Tensor") -> None:
        """Labels [H, W] of the next image."""
        pair = self.pairs[self.next]
        self.next += 1
        if pair.label is None:
            return
        with open_raster(pair.image, allow_vrt=self.dataset.allow_vrt, root=self.dataset.root) as source:
            size, geo = (source.height, source.width), geo_of(source)
        features = read_features(self.dataset, pair.label).labels
        scene = place_polygons(features, grid(self.dataset, pair, geo, size), size, ignored=IGNORE + 1, file=pair.image)
        known = scene.labels <= len(self.order)  # the others are polygons of areas that are not labelled
        values = self.order[scene.labels[known] - 1]
        seen = np.isin(values, list(self.counter.names))
        self.counter.update(labels.numpy(), scene.shapes[known][seen], values[seen])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return self.counter.scores.to_dict()
