"""Labels that are polygons, as classes of pixels or as objects.

Features are read once in a process and rasterized on request; datasets hold none, so that they pickle small.
"""

import functools
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.data.config import DatasetConfig
from torchfpn.data.headers import read_header
from torchfpn.data.labels.ground_truth import GroundTruth, ObjectLabels, overlaps
from torchfpn.data.splits import Pair, Polygons
from torchfpn.errors import ConfigError, DataError, FPNError, amount, nearest
from torchfpn.geo.crs import crs_wkt
from torchfpn.geo.georef import Geo
from torchfpn.geo.tiles import tile_geo
from torchfpn.geo.window import Window
from torchfpn.io.vectors import Vectors, read_vectors
from torchfpn.recipe import IGNORE
from torchfpn.vector.geometry import edges, repair
from torchfpn.vector.instance_masks import Outlines, select_objects
from torchfpn.vector.instance_masks import draw_masks as draw_outlines
from torchfpn.vector.rasterize import LabelledPolygons, PixelPolygons, draw, place_polygons
from torchfpn.vector.to_pixels import check_grid, why_apart

if TYPE_CHECKING:  # torch is loaded where masks are made
    from torchfpn.ops.masks import Crops


NOT_LABELLED = IGNORE + 1  # in drawn values, where 0 is no polygon and class i is i + 1

_BORDER = IGNORE + 2

_CACHED = 32  # files whose features are cached

_SHOWN = 3  # values that a message names

_COMPARED = 100  # images that are compared with polygons that overlap none

_KEYS = {  # flags of `fpn rasterize` in the hints of its errors -> keys of dataset.yaml
    "--layer": "polygons: {layer: NAME}",
    "--max-crossings N": "polygons: {max_crossings: N}",
    "--buffer METRES": "polygons: {buffer: METRES}",
    "--assume-crs EPSG:...": 'polygons: {assume_crs: "EPSG:..."}',
    "--tiles": 'tiles: "{z}/{x}/{y}"',
}

_lock = threading.Lock()  # threads wait for a file that another thread reads


class RasterizedLabels(NamedTuple):
    """target: uint8 [H, W] class indices, `IGNORE` where not labelled. met: numbers of the features drawn."""

    target: NDArray[np.uint8]
    met: NDArray[np.int64]


@dataclass(frozen=True)
class Features:
    """The features of a file, ready to be drawn.

    Attributes:
        labels: polygons with their classes.
        count: features in the file.
        mended: features with repaired rings.
        lost: features without an area.
        widened: buffered lines and points.
        unclassed: features without a class that are ignored or skipped.
    """

    labels: LabelledPolygons
    count: int
    mended: int
    lost: int
    widened: int
    unclassed: int = 0

    @functools.cached_property
    def sizes(self) -> NDArray[np.float64]:
        """[count] area of each feature in square units of the file."""
        areas = self.labels.areas
        sizes = np.zeros(len(self.labels.labels), np.float64)
        np.add.at(sizes, areas.features, shapely.area(areas.shapes))
        return sizes


class _ClassRules(NamedTuple):
    """What decides the class of a feature. classes: (name, value) of each. ignored: values that mean not labelled."""

    polygons: Polygons
    classes: tuple[tuple[str, int], ...]
    ignored: tuple[int, ...]


def read_features(dataset: DatasetConfig, path: Path) -> Features:
    """Reads the features of a file of polygons with their classes.

    Raises:
        DataError: damaged, without the field or layer, lines or points without a buffer, values that are no class.
        RasterError: no coordinate system.
        ConfigError: the class of the polygons is not given.
    """
    rules = _ClassRules(dataset.polygons, tuple((c.name, c.id) for c in dataset.classes), dataset.ignored)
    try:
        stamp = path.stat().st_mtime_ns, path.stat().st_size
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror or error})", file=path) from error
    with _lock:
        found = _read_cached(path, stamp, rules)
    if isinstance(found, FPNError):
        raise with_yaml_keys(found, dataset)
    return found


def rasterize_labels(
    dataset: DatasetConfig, pair: Pair, geo: Geo | None, size: tuple[int, int], window: Window | None = None
) -> RasterizedLabels:
    """Rasterizes the polygons of an image, or of a window of it; pixels do not depend on the window.

    Args:
        dataset: with the classes.
        pair: the files.
        geo: georeference of the whole image.
        size: (height, width) of the whole image.
        window: the part to rasterize.

    Raises:
        DataError: see `read_features`.
        RasterError: the image has no georeference.
    """
    assert pair.label is not None  # checked by the caller
    labels, settings = read_features(dataset, pair.label).labels, dataset.polygons
    try:
        where = grid(dataset, pair, geo, size)
        scene = place_polygons(
            labels, where, size, ignored=_BORDER, border=settings.border, file=pair.image, window=window
        )
    except FPNError as error:
        raise with_yaml_keys(error, dataset) from error
    drawn = draw(scene, window or Window(0, 0, *size), all_touched=settings.all_touched)
    table = np.arange(-1, _BORDER).astype(np.uint8)
    table[0] = IGNORE if settings.background is None else settings.background
    table[_BORDER] = IGNORE if settings.border_class is None else settings.border_class
    return RasterizedLabels(table[drawn], np.unique(scene.owners))


def grid(dataset: DatasetConfig, pair: Pair, geo: Geo | None, size: tuple[int, int]) -> Geo:
    """The georeference of an image from its file, or else from its path.

    Raises:
        RasterError: neither has one.
    """
    if geo is None and pair.tiles is not None:
        return tile_geo(pair.image, pair.tiles, size)
    assumed = dataset.polygons.assume_crs
    return check_grid(geo, pair.image, _crs(assumed) if assumed else None)


def explain_no_overlap(dataset: DatasetConfig, file: Path, pairs: Sequence[Pair]) -> str:
    """The likely reason why no polygon of `file` overlaps an image of `pairs`, and what to do."""
    features, images = read_features(dataset, file), []
    for pair in pairs[:_COMPARED]:
        header = read_header(dataset, pair.image)
        if header is not None or pair.tiles is not None:
            size = (256, 256) if header is None else header.size
            images.append((grid(dataset, pair, None if header is None else header.geo, size), size))
    areas = features.labels.areas
    return why_apart(areas.shapes, features.labels.crs, images) if len(areas.shapes) else "none of them has an area"


@functools.lru_cache(_CACHED)
def _read_cached(path: Path, stamp: tuple[int, int], rules: _ClassRules) -> Features | FPNError:
    """Caches errors like features: a bad file is not read again for every image."""
    settings = rules.polygons
    try:
        assumed = _crs(settings.assume_crs) if settings.assume_crs else None
        vectors = read_vectors(path, field=settings.field, layer=settings.layer, assume_crs=assumed)
        empty = vectors.unclassed if settings.without_class != "error" else np.zeros(len(vectors.shapes), bool)
        values = _values(vectors, empty, rules)
        skipped = settings.without_class == "skip" and bool(empty.any())
        wanted = vectors.without(empty) if skipped else vectors
        found = repair(wanted, buffer=settings.buffer, crossings=settings.max_crossings)
    except FPNError as error:
        return error
    labels = LabelledPolygons(path, found, values, vectors.crs)
    lost = found.lost - (int(empty.sum()) if skipped else 0)
    return Features(labels, len(vectors.shapes), found.invalid, lost, found.widened, int(empty.sum()))


@functools.lru_cache(8)
def _crs(text: str) -> str:
    try:
        return crs_wkt(text)
    except ConfigError as error:
        raise ConfigError(error.found, field="polygons.assume_crs", allowed=error.allowed) from error


def _values(vectors: Vectors, unclassed: NDArray[np.bool_], rules: _ClassRules) -> NDArray[np.int64]:
    """The drawn value of each feature, [N]. unclassed: features whose missing class is no error, [N] bool."""
    settings, classes = rules.polygons, rules.classes
    if settings.field is None:
        if settings.burn is None:
            hint = "write polygons: {field: ...} or polygons: {class: ...}"
            raise ConfigError("polygons, and nothing says of which class", file=vectors.file, hint=hint)
        return np.full(len(vectors.shapes), settings.burn + 1, np.int64)
    if vectors.column is None:
        return np.zeros(0, np.int64)
    known: dict[Any, int] = dict.fromkeys(rules.ignored, NOT_LABELLED)
    known |= {i: k + 1 for k, (_, i) in enumerate(classes)}
    known |= {str(value): drawn for value, drawn in known.items()}  # numbers may be stored as text
    known |= {name: k + 1 for k, (name, _) in enumerate(classes)}
    pairs = list(zip(vectors.column, unclassed, strict=True))
    if unknown := Counter(value for value, empty in pairs if value not in known and not empty):
        raise _unknown(unknown, classes, settings.field, vectors.file)
    return np.array([known.get(value, NOT_LABELLED) for value, _ in pairs], np.int64)


def _unknown(found: Counter[Any], classes: tuple[tuple[str, int], ...], field: str, file: Path) -> DataError:
    shown = [f"{_shown(value)} in {amount(n, 'feature')}" for value, n in found.most_common(_SHOWN)]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    hint = nearest(str(found.most_common(1)[0][0]), [name for name, _ in classes])
    if all(value is None or not str(value).strip() for value in found):
        hint = "give them one, or write polygons: {without_class: ignore} (not labelled) or skip (left out)"
    return DataError("no class " + ", ".join(shown) + more, file=file, field=field, hint=hint)


def _shown(value: Any) -> str:
    return "(empty)" if value is None or not str(value).strip() else f'"{value}"'


def with_yaml_keys(error: FPNError, dataset: DatasetConfig) -> FPNError:
    """A copy of the error whose hint names keys of dataset.yaml instead of flags."""
    hint = error.hint
    for flag, key in _KEYS.items():
        hint = hint.replace(flag, f"{key} in {dataset.file.name}") if hint else hint
    where = error.file or dataset.file
    return type(error)(error.found, file=where, field=error.field, allowed=error.allowed, hint=hint)


def read_polygons(
    dataset: DatasetConfig, pair: Pair, geo: Geo | None, size: tuple[int, int], window: Window | None = None
) -> GroundTruth:
    """Reads the features that overlap an image, or a window of it, as objects; those not labelled are crowds.

    Args:
        dataset: with the classes.
        pair: the files.
        geo: georeference of the whole image.
        size: (height, width) of the whole image.
        window: the part; boxes are in its pixels and may reach beyond it.

    Raises:
        DataError: see `read_features`.
        RasterError: the image has no georeference.
    """
    found = read_features_as_objects(dataset, pair, geo, size, window, beyond=True)
    own = np.flatnonzero(~found.crowds)

    def masks(keep: NDArray[np.int64]) -> "Crops":
        return found.masks(own[keep])

    return GroundTruth(
        found.boxes[own],
        found.labels[own],
        found.boxes[found.crowds],
        found.size,
        masks if dataset.task == "instance" else None,
    )


def read_features_as_objects(
    dataset: DatasetConfig,
    pair: Pair,
    geo: Geo | None,
    size: tuple[int, int],
    window: Window | None = None,
    *,
    beyond: bool = False,
) -> ObjectLabels:
    """The same with crowds among the objects, and the sizes of the features in square units of the file.

    beyond: features that hold no pixel's centre get a pixel even if their middle lies outside of the image or window.
    """
    scene = _scene(dataset, pair, geo, size, window)
    row, column, height, width = window or (0, 0, *size)
    start, end, owner = edges(scene.shapes)
    corner = np.array([column, row], np.float64)
    owners, first, objects = np.unique(scene.owners, return_index=True, return_inverse=True)
    outlines = Outlines(start - corner, end - corner, owner, objects.astype(np.int64), len(first))
    boxes, values = _boxes(outlines), scene.labels[first].astype(np.int64)
    own = np.flatnonzero(overlaps(boxes, (height, width)))
    crowds = values[own] == NOT_LABELLED

    def masks(keep: NDArray[np.int64]) -> "Crops":
        return draw_outlines(select_objects(outlines, own[keep]), boxes[own[keep]], (height, width), beyond=beyond)

    labels = np.where(crowds, -1, values[own] - 1)
    sizes = read_features(dataset, pair.label or pair.image).sizes
    return ObjectLabels(boxes[own], labels, crowds, sizes[owners[own]], masks, (height, width))


def features_in_image(dataset: DatasetConfig, pair: Pair, geo: Geo | None, size: tuple[int, int]) -> NDArray[np.int64]:
    """Numbers of the features that overlap an image; errors as of `read_polygons`."""
    return np.unique(_scene(dataset, pair, geo, size, None).owners)


def _scene(
    dataset: DatasetConfig, pair: Pair, geo: Geo | None, size: tuple[int, int], window: Window | None
) -> PixelPolygons:
    labels = read_features(dataset, pair.label or pair.image).labels
    try:
        where = grid(dataset, pair, geo, size)
        return place_polygons(labels, where, size, ignored=NOT_LABELLED, file=pair.image, window=window)
    except FPNError as error:
        raise with_yaml_keys(error, dataset) from error


def _boxes(outlines: Outlines) -> NDArray[np.float32]:
    boxes = np.zeros((outlines.count, 4), np.float64)
    boxes[:, :2], boxes[:, 2:] = np.inf, -np.inf
    owner = outlines.objects[outlines.owner]
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    if len(first):
        boxes[owner[first], :2] = np.minimum.reduceat(outlines.start, first)
        boxes[owner[first], 2:] = np.maximum.reduceat(outlines.start, first)
    return boxes.astype(np.float32)
