"""Vector files drawn as label rasters, a few rows at a time: memory follows the width of the image, not its height."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torchfpn.geo.georef import Geo
from torchfpn.geo.tiles import tile_geo
from torchfpn.io.formats import MAX_SIDE, check_sides
from torchfpn.io.geotiff import BLOCK, Layout, geotiff_writer
from torchfpn.io.images import check_upright
from torchfpn.io.rasters import geo_of, open_raster
from torchfpn.sources.polygon_classes import PolygonClasses
from torchfpn.vector.rasterize import LabelledPolygons, PixelPolygons, fill, last_polygon, place_polygons, reaching_into
from torchfpn.vector.to_pixels import check_grid

AT_ONCE = 2**23  # pixels that are drawn at a time
NOT_LABELLED = "not labelled"


@dataclass(frozen=True)
class RasterizeOptions:
    """How labels are drawn.

    Attributes:
        border: pixels to each side of an outline that are not labelled.
        assume_crs: well-known text for images that have a transform but no coordinate system.
        tiles: how paths of images without a georeference end (`geo.tiles`).
        max_side: height and width of an image, in pixels.
    """

    all_touched: bool = False
    border: float = 0.0
    assume_crs: str | None = None
    allow_vrt: bool = False
    tiles: str | None = None
    max_side: int = MAX_SIDE


@dataclass(frozen=True)
class RasterizeOutcome:
    """What came of one image.

    Attributes:
        pixels: of each label value.
        features: [N] bool, those of the label file that meet the image.
        doubled: pixels that features of different classes cover.
    """

    size: tuple[int, int]
    pixels: dict[int, int]
    features: NDArray[np.bool_]
    doubled: int


def rasterize_file(
    source: Path, target: Path, labels: LabelledPolygons, classes: PolygonClasses, options: RasterizeOptions
) -> RasterizeOutcome:
    """Draws the labels on the grid of the image `source` into the GeoTIFF `target`.

    Raises:
        DataError: no image. RasterError: it has no place on the earth, or the labels cannot be brought there.
    """
    size, geo = _grid(source, options)
    ignored, dtype, known = classes.ignore_value, classes.dtype, classes.classes
    scene = place_polygons(labels, geo, size, ignored=ignored, border=options.border, file=source)
    pixels, doubled = np.zeros(np.iinfo(dtype).max + 1, np.int64), 0
    nodata = ignored if options.border else None
    layout = Layout(*size, dtype, geo=geo, nodata=nodata, colors=known.color_of, classes=known.name_of)
    with geotiff_writer(target, layout) as write:
        for row, drawn, covered in strips(scene, all_touched=options.all_touched):
            write(row, 0, drawn.astype(dtype))
            pixels += sum(
                np.bincount(line, minlength=len(pixels)) for line in drawn
            )  # all at once needs 8 bytes a pixel
            doubled += covered
    met = np.zeros(len(labels.labels), bool)
    met[scene.owners] = True
    return RasterizeOutcome(size, {int(value): int(pixels[value]) for value in np.flatnonzero(pixels)}, met, doubled)


def strips(
    scene: PixelPolygons, *, all_touched: bool = False, rows: int = BLOCK, at_once: int = AT_ONCE
) -> Iterator[tuple[int, NDArray[np.uint16], int]]:
    """(first row, label values [rows, W], pixels covered by several classes) from top to bottom.

    What a pixel gets does not depend on `rows`, nor on `at_once`, the pixels that are drawn at a time.
    """
    height, width = scene.size
    step = max(1, at_once // width)
    for top in range(0, height, rows):
        block, doubled = np.zeros((min(rows, height - top), width), np.uint16), 0
        for row in range(0, len(block), step):
            part = block[row : row + step]
            doubled += _draw(scene, part, top + row, all_touched)
        yield top, block, doubled


def _draw(scene: PixelPolygons, block: NDArray[np.uint16], row: int, all_touched: bool) -> int:
    """Fills rows of the map from `row` on; the number of pixels covered by several classes."""
    corner = (row, 0)
    fill(block, corner, scene, all_touched=all_touched)
    here = reaching_into(scene.shapes, corner, block.shape)
    shapes, labels = scene.shapes[here], scene.labels[here]
    if len(values := np.unique(labels)) < 2:
        return 0
    classes = np.zeros(block.shape, np.uint16)
    for value in values:
        classes += last_polygon(shapes[labels == value], corner, block.shape, all_touched) > 0
    return int((classes > 1).sum())


def _grid(source: Path, options: RasterizeOptions) -> tuple[tuple[int, int], Geo]:
    """Height, width and place of an image; no pixel is read."""
    check_upright(source)
    with open_raster(source, allow_vrt=options.allow_vrt) as raster:
        size, geo = (raster.height, raster.width), geo_of(raster)
    check_sides(source, size, options.max_side)
    if geo is None and options.tiles is not None:
        return size, tile_geo(source, options.tiles, size)
    return size, check_grid(geo, source, options.assume_crs)


class RasterizeTally:
    """Counts over all images; a feature on several images counts once. labels: label file by stem."""

    def __init__(self, classes: PolygonClasses, labels: dict[str, LabelledPolygons]) -> None:
        self.classes, self.labels = classes, labels
        self.pixels: dict[int, int] = {}
        self.doubled = 0
        self.met: dict[str, NDArray[np.bool_]] = {stem: np.zeros(len(f.labels), bool) for stem, f in labels.items()}

    def add(self, stem: str, outcome: RasterizeOutcome) -> None:
        """Counts an image drawn from the label file of that stem."""
        self.met[stem] |= outcome.features
        self.doubled += outcome.doubled
        for value, count in outcome.pixels.items():
            self.pixels[value] = self.pixels.get(value, 0) + count

    def unmet(self) -> list[Path]:
        """Label files that hold features, none of which meets an image."""
        return [self.labels[stem].file for stem, met in self.met.items() if len(met) and not met.any()]

    def rows(self) -> list[tuple[str, str, int, int, int]]:
        """(value of the attribute, class, label value, features that meet an image, pixels) of each class."""
        drawn = np.concatenate([np.zeros(0, np.int64), *(f.labels[self.met[stem]] for stem, f in self.labels.items())])
        attributes = {label: str(value) for value, label in self.classes.attribute_values.items()}
        names = self.classes.classes.name_of
        if self.classes.ignore_value in self.pixels:
            names[self.classes.ignore_value] = NOT_LABELLED
        return [
            (attributes.get(label, ""), name, label, int((drawn == label).sum()), self.pixels.get(label, 0))
            for label, name in names.items()
        ]
