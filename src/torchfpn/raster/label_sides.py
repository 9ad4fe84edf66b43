"""Labels of an image, wherever they come from: a label file of its name, a raster it lies in, or polygons.

All are read by windows of the image, as places in the list of classes (`label_classes`).
"""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import DataError
from torchfpn.files.formats import MAX_SIDE, name_key, printable
from torchfpn.files.geo import SAME_GRID, Window
from torchfpn.files.labels import read_legend
from torchfpn.files.rasters import Color, same_crs
from torchfpn.raster.label_classes import LabelClasses
from torchfpn.raster.label_maps import LabelMap, check_same_grid, open_label_map
from torchfpn.raster.overview import Grid
from torchfpn.recipe import IGNORE

if TYPE_CHECKING:
    from torchfpn.vectors.objects import Objects

Read = Callable[[Window], NDArray[np.uint8]]


@dataclass
class Side:
    """The truth or the prediction of all images. maps, layers: by the stem of the image, or one for all under "".

    assume_crs, tiles: where images lie that do not say, for polygons. max_side: of a label file, in pixels. met:
    polygons of each file that lie on an image.
    """

    maps: dict[str, Path] = field(default_factory=dict)
    layers: "dict[str, Objects]" = field(default_factory=dict)
    assume_crs: str | None = None
    tiles: str | None = None
    max_side: int = MAX_SIDE
    met: Counter[Path] = field(default_factory=Counter)
    _trees: dict[str, Any] = field(default_factory=dict)

    def legend(self) -> tuple[dict[int, str], dict[int, Color]]:
        """Names and colours of the values, as far as the first label file tells."""
        return next((read_legend(path) for path in self.maps.values()), ({}, {}))

    def ignored(self) -> set[int]:
        """Values that mean "not labelled" in all files, as far as the first label file tells."""
        for path in self.maps.values():
            with open_label_map(path, max_side=self.max_side) as held:
                return held.ignored
        return set()

    def values(self) -> set[int]:
        """Label values that occur in the label files; they are read for that."""
        found: set[int] = set()
        for path in self.maps.values():
            with open_label_map(path, max_side=self.max_side) as held:
                found |= held.values()
        return found

    @contextlib.contextmanager
    def open(self, image: Grid, classes: LabelClasses) -> Iterator[Read]:
        """A function from windows of the image to its labels.

        Raises:
            DataError: there are none for this image, or they do not fit it; RasterError: it has no place on the earth.
        """
        held = self.maps or self.layers
        stem = "" if "" in held else name_key(image.file.stem)
        if stem not in held:
            raise DataError("no labels for it", file=printable(image.file), hint="they need its name, up to the suffix")
        if self.layers:
            yield self._drawn(stem, image, classes)
            return
        with open_label_map(self.maps[stem], max_side=self.max_side) as labels:
            yield _part(labels, image, classes) if _elsewhere(labels, image) else _whole(labels, image, classes)

    def _drawn(self, stem: str, image: Grid, classes: LabelClasses) -> Read:
        import shapely  # here, with all that draws polygons: two label files need none of it

        from torchfpn.vectors.drawing import Scene, draw
        from torchfpn.vectors.placing import check_grid, placed
        from torchfpn.vectors.tiles import tile_geo

        layer = self.layers[stem]
        if stem not in self._trees:
            self._trees[stem] = shapely.STRtree(layer.shapes)
        geo = image.geo
        if geo is None and self.tiles is not None:
            geo = tile_geo(image.file, self.tiles, image.size)
        geo = check_grid(geo, image.file, self.assume_crs)
        shapes, numbers = placed(layer.shapes, layer.crs, geo, image.size, image.file, tree=self._trees[stem])
        self.met[layer.file] += len(numbers)
        labels = classes.of_objects(layer)[numbers] + 1  # 0 is where none lies
        scene = Scene(shapes, np.arange(len(shapes)), labels, shapes[:0], IGNORE, image.size)
        empty = classes.values.index(0) if 0 in classes.values else IGNORE
        table = np.array([empty, *range(len(classes.values))], np.uint8)
        return lambda window: np.asarray(table[draw(scene, window)])


def _elsewhere(labels: LabelMap, image: Grid) -> bool:
    """Whether the image is a part of the raster of labels."""
    if labels.geo is None or image.geo is None:
        return False
    return labels.size != image.size or labels.geo.distance(image.geo, *image.size) > SAME_GRID


def _whole(labels: LabelMap, image: Grid, classes: LabelClasses) -> Read:
    check_same_grid(labels, image)
    return lambda window: classes.indices(labels.read(window), labels.nodata, labels.file)


def _part(labels: LabelMap, image: Grid, classes: LabelClasses) -> Read:
    """Of a raster with the pixels of the image; beyond its border nothing is labelled."""
    there, here = labels.geo, image.geo
    assert there is not None
    assert here is not None
    if there.crs and here.crs and not same_crs(there.crs, here.crs):
        raise DataError("labels in another coordinate system than the image", file=labels.file, hint="reproject them")
    corner = there.pixel(*here.world(0, 0))
    left, top = (round(place) if math.isfinite(place) else 0 for place in corner)  # infinite: it has no pixel size
    if not there.part(top, left).distance(here, *image.size) <= SAME_GRID:
        found = f"labels on another grid than {printable(image.file)}"
        raise DataError(found, file=labels.file, allowed="pixels that lie on each other, to 0.01 pixels")
    height, width = labels.size

    def read(window: Window) -> NDArray[np.uint8]:
        place = window._replace(row=window.row + top, column=window.column + left)
        result, held = np.full(window.size, IGNORE, np.uint8), place.clipped(height, width)
        if min(held.size) > 0:
            known = classes.indices(labels.read(held), labels.nodata, labels.file)
            result[held.within(place).slices] = known
        return result

    return read
