"""Polygons of a layer, traced from a label raster of any size or read from a vector file."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from torchfpn.errors import ConfigError, RasterError, nearest
from torchfpn.geo.crs import metre
from torchfpn.geo.georef import Geo
from torchfpn.geo.reprojection import SHARE
from torchfpn.geo.window import plan_blocks
from torchfpn.io.formats import MAX_SIDE, is_vector
from torchfpn.io.rasters import no_place
from torchfpn.io.vector_writing import NAME, class_ids
from torchfpn.sources.labels import LabelMap, open_label_map
from torchfpn.vector.features import SIDE as POLYGON_SIDE
from torchfpn.vector.features import Coordinates, Feature, trace_map
from torchfpn.vector.lon_lat import check_place, decimals_for
from torchfpn.vector.objects import Objects, read_objects

EXACT = 8  # decimals of degrees for polygons that are none of pixels: a millimetre
ONE = "object"  # what all are, where nothing says the class


@dataclass(frozen=True)
class PolygonLayer:
    """Polygons ready to be read, once.

    Attributes:
        crs: their coordinate system, well-known text.
        features: coordinates -> the polygons; those of a vector file come as they are, whatever is asked for; the
            second argument gives outlines a vertex wherever another one ends on them.
        pixel: its area in units of `crs`, 0: not of pixels.
        decimals: of degrees.
        tolerance: units of `crs` that edges may be off in another one: a fiftieth of a pixel, or of a metre.
        scored: they have scores.
        multi: some are MultiPolygons.
        mended: features whose rings were.
        lost: those without an area.
        unclassed: those without a class, left out.
    """

    crs: str
    features: Callable[[Coordinates, bool], Iterator[Feature]]
    pixel: float
    decimals: int
    tolerance: float
    scored: bool = False
    multi: bool = False
    mended: int = 0
    lost: int = 0
    unclassed: int = 0


@contextlib.contextmanager
def open_layer(
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    min_pixels: float = 0.0,
    simplify: float = 0.0,
    field: str | None = None,
    layer: str | None = None,
    assume_crs: str | None = None,
    allow_vrt: bool = False,
    max_side: int = MAX_SIDE,
    skip_unclassed: bool = False,
) -> Iterator[PolygonLayer]:
    """The polygons of a file.

    Args:
        path: the file.
        classes: names of the classes wanted.
        min_pixels: of rasters, see `trace_map`.
        simplify: of rasters, see `trace_map`.
        field: of vector files.
        layer: of vector files.
        assume_crs: well-known text for files that do not say.
        allow_vrt: accept VRT files.
        max_side: height and width of a raster, in pixels.
        skip_unclassed: of vector files.

    Raises:
        DataError, RasterError: damaged, of another kind, or without a place. ConfigError: no such class.
    """
    path = Path(path)
    if is_vector(path):
        found = read_objects(path, field=field, layer=layer, assume_crs=assume_crs, skip_unclassed=skip_unclassed)
        yield _of_objects(found, classes, class_ids(path, field=field or NAME, layer=layer))
        return
    with open_label_map(path, allow_vrt=allow_vrt, max_side=max_side) as labels:
        geo = labels.geo
        if geo is not None and geo.crs is None and assume_crs is not None:
            geo = replace(geo, crs=assume_crs)
        if geo is None:
            raise no_place(path, "no coordinate system", "only rasters with a transform have polygons on the earth")
        if geo.crs is None:
            raise RasterError("no coordinate system", file=path, hint="give --assume-crs EPSG:...")
        yield _of_labels(labels, geo, classes, min_pixels, simplify)


def _of_labels(
    labels: LabelMap, geo: Geo, classes: Sequence[str] | None, min_pixels: float, simplify: float
) -> PolygonLayer:
    check_place(geo, labels.file)
    names = _chosen(labels.names or _found(labels), classes, labels.file)
    names.pop(-1 if labels.nodata is None else labels.nodata, None)
    plan = [block.block for block in plan_blocks(*labels.size, side=POLYGON_SIDE, margin=0)]

    def features(coordinates: Coordinates, nodes: bool) -> Iterator[Feature]:
        options = {"min_pixels": min_pixels, "simplify": simplify, "nodes": nodes, "file": labels.file}
        return trace_map(plan, lambda i: labels.read(plan[i]), geo, names, coordinates=coordinates, **options)  # type: ignore[arg-type]  # plain numbers

    assert geo.crs is not None
    decimals = decimals_for(geo, labels.size, labels.file)
    a, b, _, d, e, _ = geo.transform
    tolerance = SHARE * float(np.linalg.norm([[a, b], [d, e]], ord=-2))
    return PolygonLayer(geo.crs, features, abs(a * e - b * d), decimals, tolerance)


def _found(labels: LabelMap) -> dict[int, str]:
    """All values but 0, for a raster that does not name its classes."""
    return {value: str(value) for value in sorted(labels.values() - {0})}


def _chosen(names: dict[int, str], wanted: Sequence[str] | None, file: Path) -> dict[int, str]:
    for name in wanted or ():
        if name not in names.values():
            raise ConfigError(f'no class "{name}"', file=file, field="--vectorize", hint=nearest(name, names.values()))
    return {value: name for value, name in names.items() if wanted is None or name in wanted}


def _of_objects(found: Objects, classes: Sequence[str] | None, ids: dict[str, int]) -> PolygonLayer:
    classes = [ONE] * len(found.shapes) if found.classes is None else [str(name) for name in found.classes]
    for name in sorted(set(classes) - set(ids)):
        ids[name] = max([0, *ids.values()]) + 1
    names = _chosen({ids[name]: name for name in set(classes)}, classes, found.file)
    scores = [None] * len(classes) if found.scores is None else found.scores.tolist()
    features = [
        Feature(shape, ids[name], name, float("nan"), score)
        for shape, name, score in zip(found.shapes, classes, scores, strict=True)
        if ids[name] in names
    ]
    multi = any(feature.polygon.geom_type != "Polygon" for feature in features)
    return PolygonLayer(
        found.crs,
        lambda *_: iter(features),
        0.0,
        EXACT,
        SHARE * metre(found.crs),
        found.scores is not None,
        multi,
        found.mended,
        found.lost,
        found.unclassed,
    )
