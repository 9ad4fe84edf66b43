"""Reads vector files: GeoJSON, GeoPackage, FlatGeobuf and Shapefile, from the disk and nowhere else.

GDAL would open a hundred formats, some of which run what they say or fetch it from the net. A file is therefore passed
on only if suffix and first bytes agree on one of the four, and a coordinate system only if it is a name or a number.
"""

import contextlib
import json
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray

from torchfpn.errors import ConfigError, DataError, RasterError, nearest
from torchfpn.geo.crs import LON_LAT, SLACK, crs_wkt
from torchfpn.io.formats import DRIVERS, check_regular, name_key
from torchfpn.io.side_files import refuse_cut_off
from torchfpn.printing import quiet

MAX_BYTES = 2**30

_BESIDE = (".shx", ".dbf", ".prj", ".cpg", ".qix")  # files that GDAL opens with a shapefile

_JSON = ("GeoJSON", "GeoJSONSeq")

_RECORD = b"\x1e"  # begins each feature of a GeoJSON text sequence

_COCO_BEGINS = re.compile(rb'\s*\{\s*"(images|annotations|categories|info|licenses)"')  # the first key of annotations

FARTHEST = 1e12  # of coordinates, in any unit; beyond, areas lose their digits and then overflow

# The key "crs" as GDAL takes it: small or capital, letters or escapes. Its object may hold one more; else "{" alone.
_MEMBER = re.compile(
    rb'"(?:c|\\u00[46]3)(?:r|\\u00[57]2)(?:s|\\u00[57]3)"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)?\}|\{)', re.I
)


@dataclass(frozen=True)
class Vectors:
    """The features of one file, in its order.

    shapes: [N] of shapely, None where a feature has no geometry. unclosed: [N] bool, rings that had to be closed.
    column: [N] values of the attribute asked for, None without one. crs: well-known text.
    """

    file: Path
    shapes: NDArray[Any]
    unclosed: NDArray[np.bool_]
    column: NDArray[Any] | None
    crs: str

    @property
    def unclassed(self) -> NDArray[np.bool_]:
        """[N]: whether the attribute asked for is empty: nothing, or blanks."""
        if self.column is None:
            return np.zeros(len(self.shapes), bool)
        return np.array([value is None or not str(value).strip() for value in self.column], bool)

    def without(self, features: NDArray[np.bool_]) -> "Vectors":
        """The same file, those features without a geometry."""
        shapes = self.shapes.copy()
        shapes[features] = None
        return replace(self, shapes=shapes)


def read_vectors(
    path: str | Path, *, field: str | None = None, layer: str | None = None, assume_crs: str | None = None
) -> Vectors:
    """All features of a layer. field: the attribute wanted. assume_crs: for files that do not say, well-known text.

    Raises:
        DataError: not one of the four formats, too large, damaged, no such field or layer, coordinates that are no
            numbers. RasterError: no coordinate system, or an unknown one.
    """
    path = Path(path)
    driver = _driver(path)
    crs = _geojson_crs(path, assume_crs) if driver in _JSON else None  # before GDAL, which follows links in it
    source = _source(path, driver)
    with _read_errors(path), quiet(RuntimeWarning):  # what GDAL warns of is counted here
        layer = _layer(source, layer, path) if driver == "GPKG" else None
        info = _pyogrio().read_info(source, layer=layer)
        _check(info, driver, field, path)
        columns = [field] if field and info["features"] else []
        _, _, wkb, values = _pyogrio().raw.read(source, layer=layer, columns=columns, force_2d=True)
    if driver == "GeoJSONSeq":
        _check_lines(path, 0 if wkb is None else len(wkb))
    crs = crs or _known_crs(info["crs"], assume_crs, path)
    shapes, unclosed = _decoded(wkb)
    _check_numbers(shapes, path)
    if driver in _JSON and crs == crs_wkt(LON_LAT):
        _check_degrees(shapes, path)
    column = np.array([_plain(value) for value in values[0]], dtype=object) if values else None
    return Vectors(path, shapes, unclosed, column, crs)


def failures(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """All exceptions that pyogrio raises for files, and `more`."""
    errors = _pyogrio().errors
    return (
        errors.DataSourceError,
        errors.DataLayerError,
        errors.GeometryError,
        errors.CRSError,
        errors.FeatureError,
        errors.FieldError,
        *more,
    )


def _pyogrio() -> Any:
    """The package, imported when the first vector file is opened: commands that open none need not wait for it."""
    import pyogrio.raw

    return pyogrio


def field_names(path: str | Path) -> list[str]:
    """The attributes that the features of a file have, in its order; empty if it holds no feature.

    Raises:
        DataError, RasterError: see `read_vectors`.
    """
    path = Path(path)
    driver = _driver(path)
    if driver in _JSON:
        _geojson_crs(path, None)  # before GDAL, which follows links in it
    source = _source(path, driver)
    with _read_errors(path), quiet(RuntimeWarning):
        info = _pyogrio().read_info(source, layer=_layer(source, None, path) if driver == "GPKG" else None)
        _check(info, driver, None, path)
    return [str(name) for name in info["fields"]] if info["features"] else []


def label_files(folder: Path) -> dict[str, Path]:
    """The vector files of a folder by stem.

    Raises:
        ConfigError: none, or two with one stem.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in DRIVERS or path.name.startswith("."):
            continue
        stem = name_key(path.stem)
        if stem in found:
            raise ConfigError(f"two label files of one name, {found[stem].name} and {path.name}", file=folder)
        found[stem] = path
    if not found:
        raise ConfigError("no label file found", file=folder, allowed=f"files of {', '.join(DRIVERS)}")
    return found


def _driver(path: Path) -> str:
    """The GDAL driver of a file, if its suffix and its first bytes agree."""
    driver = DRIVERS.get(path.suffix.lower())
    if driver is None:
        raise DataError("not a vector file this program reads", file=path, allowed=", ".join(DRIVERS))
    for part in (path, *(path.with_suffix(suffix) for suffix in _BESIDE)):
        check_regular(part)
    try:
        with path.open("rb") as handle:
            head = handle.read(512)
        size = sum(part.stat().st_size for part in (path, path.with_suffix(".dbf")) if part.exists())
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror or error})", file=path) from error
    if not head:
        raise DataError("empty file (0 bytes)", file=path, hint="copy it again")
    if driver == "GeoJSON":
        driver = _json_driver(path, head)
    if not _looks_like(driver, head):
        raise DataError(f"not a {driver} file, despite its extension", file=path, hint="copy it again")
    if size > MAX_BYTES:
        raise DataError(
            f"{size / 2**30:.1f} GiB",
            file=path,
            allowed=f"at most {MAX_BYTES / 2**30:.0f} GiB",
            hint="cut it to the area of the images",
        )
    refuse_cut_off(path, driver)
    return driver


def _source(path: Path, driver: str) -> str | Path:
    """What GDAL opens: of JSON with its driver, since others look at such files, too."""
    return f"{driver}:{path.absolute()}" if driver in _JSON else path.absolute()


def _json_driver(path: Path, head: bytes) -> str:
    """Whether a file is one value of GeoJSON or a line, or a record (RFC 8142), for each feature.

    Raises:
        DataError: other tools' JSON.
    """
    first, _, rest = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if b'"shapes"' in head and b'"Feature' not in head:
        cure = "fpn check --init FOLDER makes COCO of its folder"
        raise DataError("a file of LabelMe, which tells pixels, not places", file=path, allowed="GeoJSON", hint=cure)
    if head.startswith(_RECORD):
        return "GeoJSONSeq"
    lines = rest.lstrip().startswith(b"{") or (len(head) == 512 and not rest and _next_line(path).startswith(b"{"))
    whole = first.rstrip().endswith(b"}") or (len(head) == 512 and not rest)
    return "GeoJSONSeq" if lines and whole and first.startswith(b"{") else "GeoJSON"


def _begins_as_coco(path: Path) -> bool:
    """Whether the first key of a JSON file is one that COCO's files begin with."""
    with path.open("rb") as handle:
        head = handle.read(512).removeprefix(b"\xef\xbb\xbf")
    return path.suffix.lower() == ".json" and _COCO_BEGINS.match(head) is not None


def _next_line(path: Path) -> bytes:
    """The begin of the second line."""
    with path.open("rb") as handle:
        handle.readline(MAX_BYTES)
        return handle.read(64).lstrip()


def _check_lines(path: Path, features: int) -> None:
    """Passes files of which every line, or record, became a feature: GDAL leaves out those that it cannot read."""
    with path.open("rb") as handle:
        records = handle.read(512).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(_RECORD)
        handle.seek(0)
        count = sum(line.count(_RECORD) if records else bool(line.strip()) for line in handle)
    if count != features:
        found = f"{features} of {count} lines are features"
        raise DataError(found, file=path, allowed="one of GeoJSON on each line", hint="copy it again")


def _looks_like(driver: str, head: bytes) -> bool:
    if driver == "GeoJSON":
        return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    if driver == "GeoJSONSeq":
        return True
    if driver == "GPKG":  # a plain SQLite file may hold tables that read other files
        return head.startswith(b"SQLite format 3\0") and head[68:72] in (b"GPKG", b"GP10", b"GP11")
    return head.startswith(b"fgb\x03fgb" if driver == "FlatGeobuf" else b"\0\0\x27\x0a")


def _geojson_crs(path: Path, assumed: str | None) -> str:
    """Well-known text of the member "crs" (GeoJSON of 2008); longitude and latitude without one, or what is assumed."""
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        members = {found.group(1) for found in _MEMBER.finditer(data)}
    if not members:
        return assumed or crs_wkt(LON_LAT)
    try:
        (text,) = members
        member = json.loads(text)
        if member["type"] != "name":
            raise ValueError
        return crs_wkt(member["properties"]["name"])
    except (ConfigError, ValueError, LookupError, TypeError, AttributeError) as error:
        shown = b" and ".join(sorted(members)).decode("utf-8", "replace")
        raise RasterError(
            f"its coordinate system is {shown[:100]}",
            file=path,
            allowed='one name such as "urn:ogc:def:crs:EPSG::32616"',
            hint="rewrite it in longitude and latitude",
        ) from error


def _known_crs(found: str | None, assumed: str | None, path: Path) -> str:
    if found:
        return str(rasterio.crs.CRS.from_user_input(found).to_wkt())
    if assumed:
        return assumed
    raise RasterError("says no coordinate system", file=path, hint="give it with --assume-crs EPSG:...")


def _layer(source: str | Path, wanted: str | None, path: Path) -> str:
    layers = [str(name) for name, kind in _pyogrio().list_layers(source) if kind is not None]  # None: a table without
    if wanted is not None and wanted not in layers:
        raise DataError(f'no layer "{wanted}"', file=path, hint=nearest(wanted, layers))
    if not layers:
        raise DataError("holds no layer with geometries", file=path)
    if wanted is None and len(layers) > 1:
        raise DataError(f"{len(layers)} layers ({', '.join(layers[:6])})", file=path, hint="choose one with --layer")
    return wanted or layers[0]


def _check(info: dict[str, Any], driver: str, field: str | None, path: Path) -> None:
    if info["driver"] != driver:
        raise DataError(f"opens as {info['driver']}", file=path, allowed=driver)
    if field and info["features"] and field not in info["fields"]:
        raise DataError(f'no field "{field}"', file=path, hint=nearest(field, map(str, info["fields"])))


def _decoded(wkb: NDArray[Any] | None) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Shapes, and which of them have rings that were not closed."""
    if wkb is None:
        return np.array([], dtype=object), np.array([], dtype=bool)
    with np.errstate(invalid="ignore"):  # NaN is found below
        shapes = np.asarray(shapely.from_wkb(wkb, on_invalid="fix"), dtype=object)
        unclosed = shapely.is_missing(shapely.from_wkb(wkb, on_invalid="ignore")) & ~shapely.is_missing(shapes)
    return shapes, np.asarray(unclosed)


def _check_numbers(shapes: NDArray[Any], path: Path) -> None:
    points, feature = shapely.get_coordinates(shapes, return_index=True)
    bad = np.unique(feature[~(np.abs(points) < FARTHEST).all(axis=1)])
    if len(bad):
        found = f"features with coordinates that are no places: {len(bad)}, the first is number {bad[0] + 1}"
        raise DataError(found, file=path, allowed=f"numbers below {FARTHEST:.0e}", hint="correct or remove them")


def _check_degrees(shapes: NDArray[Any], path: Path) -> None:
    """Metres in a file that says nothing, which would mean degrees."""
    points = np.abs(shapely.get_coordinates(shapes))
    if len(points) and (points[:, 0].max() > 540 or points[:, 1].max() > 90 + SLACK):
        raise RasterError(
            f"a coordinate of {points.max():.10g}",
            file=path,
            allowed="longitude and latitude in GeoJSON that names no coordinate system",
            hint="give it with --assume-crs EPSG:...",
        )


def _plain(value: Any) -> Any:
    """A value of an attribute as int, str or None; whole numbers lose their point (GDAL makes 1 NULL 1.0 NaN)."""
    if value is None or value != value:
        return None
    if isinstance(value, (bool, np.bool_, int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    return str(value)


@contextlib.contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except failures(IndexError) as error:  # IndexError: of pyogrio itself, for a file without layers
        if _begins_as_coco(path):
            allowed = "polygons (GeoJSON, GeoPackage, ...)"
            raise DataError("annotations of COCO, which tell pixels, not places", file=path, allowed=allowed) from error
        raise DataError(f"damaged or not readable ({str(error)[:200]})", file=path, hint="copy it again") from error
    except UnicodeError as error:
        raise DataError(
            "a name or text that is no UTF-8", file=ascii(str(path)), hint="rename or convert it"
        ) from error
