"""Polygons written to GeoPackage and FlatGeobuf feature by feature; class numbers of such files."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pyogrio.raw
import shapely

from torchfpn.errors import DataError
from torchfpn.io.atomic import atomic_path, check_room, library_writes
from torchfpn.io.formats import DRIVERS
from torchfpn.io.vectors import failures

WRITTEN = {suffix: DRIVERS[suffix] for suffix in (".gpkg", ".fgb")}
DATE = "1970-01-01T00:00:00.000Z"  # of the last change, as every GeoPackage says one
ROWS, POINTS = 10_000, 2**20  # how many are written at a time, whichever is reached first
GEOMETRY, VERSION = "geom", "1.2"  # of GeoPackage: nothing newer is needed, and GDAL before 3.7 would warn of it
Row = tuple[Any, Sequence[Any]]  # a polygon and its attributes, in the order of the fields
_TYPES: dict[type, Any] = {str: object, int: np.int64, float: np.float64}
NAME, NUMBER = "class", "class_id"


def write_layer(
    path: str | Path, rows: Iterable[Row], fields: Mapping[str, type], *, crs: str, multi: bool = False
) -> int:
    """Writes a file of one layer, called like the file; returns the number of features.

    Features are written as they come, so that there may be more than memory holds. Equal features make equal bytes:
    GDAL is told a fixed date. FlatGeobuf stores its features in the order of a curve through the plane and its index
    before them, so its driver wants all of them at once: they are written to a GeoPackage beside the file first and
    read from there, which takes twice the time and, meanwhile, twice the space on the disk.

    Args:
        path: of the file, .gpkg or .fgb.
        rows: polygons in the coordinate system `crs`, each with the values of its attributes; None: not known.
        fields: name of each attribute -> str, int or float.
        crs: well-known text.
        multi: whether the layer is one of MultiPolygon; Polygons become such.

    Raises:
        DataError: neither .gpkg nor .fgb. WriteError: GDAL, or the disk, cannot write it.
    """
    path = Path(path)
    driver = WRITTEN.get(path.suffix.lower())
    if driver is None:
        raise DataError("not a vector file this program writes", file=path, allowed=", ".join(WRITTEN))
    layer = {"layer": _layer_name(path), "geometry_type": "MultiPolygon" if multi else "Polygon", "crs": crs}
    with _write_errors(path), atomic_path(path) as part, library_writes(path, part, *failures()), _at(DATE):
        if driver == "GPKG":
            count = _append(part, rows, fields, layer)
        else:
            plain = part.with_name(part.name + ".gpkg")
            try:
                count = _append(plain, rows, fields, layer)
                with pyogrio.raw.open_arrow(plain, use_pyarrow=False) as (_, stream):
                    pyogrio.raw.write_arrow(stream, part, driver=driver, geometry_name=GEOMETRY, **layer)
            finally:
                plain.unlink(missing_ok=True)
        check_room(path, part)  # drivers say nothing of a write that fails while they close a file
    return count


def _append(part: Path, rows: Iterable[Row], fields: Mapping[str, type], layer: Mapping[str, Any]) -> int:
    """Batch after batch into a GeoPackage; without any features it gets its layer all the same."""
    count = 0
    for batch in _batches(rows):
        shapes = np.array([shape for shape, _ in batch], dtype=object)
        if layer["geometry_type"] == "MultiPolygon":
            single = shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON
            shapes[single] = [shapely.multipolygons([shape]) for shape in shapes[single]]
        columns = [_column([values[i] for _, values in batch], kind) for i, kind in enumerate(fields.values())]
        pyogrio.raw.write(
            part,
            np.asarray(shapely.to_wkb(shapes), dtype=object),
            columns,
            list(fields),
            driver="GPKG",
            geometry_name=GEOMETRY,
            append=part.exists(),
            dataset_options={} if part.exists() else {"VERSION": VERSION},
            **layer,
        )
        count += len(batch)
    return count


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """At least one, which may be empty."""
    batch: list[Row] = []
    points, yielded = 0, False
    for row in rows:
        batch.append(row)
        points += int(shapely.get_num_coordinates(row[0]))
        if len(batch) >= ROWS or points >= POINTS:
            yield batch
            batch, points, yielded = [], 0, True
    if batch or not yielded:
        yield batch


def _column(values: Sequence[Any], kind: type) -> Any:
    if kind is str:
        values = [None if value is None else _utf8(str(value)) for value in values]
    elif kind is float:
        values = [np.nan if value is None else value for value in values]
    return np.array(values, dtype=_TYPES[kind])


def _utf8(text: str) -> str:
    """Text that is UTF-8: names of files may hold other bytes."""
    return text.encode("utf-8", "replace").decode()


def _layer_name(path: Path) -> str:
    name = _utf8(path.stem)
    return f"_{name}" if name.casefold().startswith("gpkg") else name  # that beginning is the format's own


@contextlib.contextmanager
def _at(date: str) -> Iterator[None]:
    """Inside, GDAL takes `date` for now."""
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": date})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as error:
        raise DataError("a folder name that is not UTF-8", file=ascii(str(path)), hint="rename it") from error


def class_ids(path: str | Path, *, field: str = NAME, layer: str | None = None) -> dict[str, int]:
    """Name of a class -> its number beside it, as `fpn predict --polygons` writes it, of names with one number.

    Args:
        path: of a file that `read_vectors` has read, and so found harmless.
        field: the attribute that holds the names.
        layer: of a GeoPackage; None: the one with geometries.
    """
    path = Path(path)
    source = f"GeoJSON:{path.absolute()}" if DRIVERS[path.suffix.lower()] == "GeoJSON" else path.absolute()
    if layer is None:  # the one with geometries, as `read_vectors` takes it
        layer = next(str(name) for name, kind in pyogrio.list_layers(source) if kind is not None)
    info = pyogrio.read_info(source, layer=layer)
    if not {field, NUMBER} <= set(info["fields"]) or not info["features"]:
        return {}
    found, columns = pyogrio.raw.read(source, layer=layer, columns=[field, NUMBER], read_geometry=False)[::3]
    columns = dict(zip(found["fields"], columns, strict=True))
    pairs = {(str(name), number) for name, number in zip(columns[field], columns[NUMBER], strict=True)}
    names = [name for name, _ in pairs]
    return {name: int(number) for name, number in pairs if names.count(name) == 1 and _is_whole(number)}


def _is_whole(number: object) -> bool:
    return isinstance(number, (int, float, np.number)) and float(number).is_integer()
