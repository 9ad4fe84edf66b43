"""The one place that opens rasters: allowed drivers, VRT rules, warnings of GDAL, and what a header says."""

import contextlib
import functools
import logging
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from torchfpn.errors import DataError, RasterError, amount
from torchfpn.geo.georef import Geo, Ties, projection_file
from torchfpn.io.formats import MAX_BANDS, format_of
from torchfpn.io.side_files import OFFLINE, check_overviews, side_files
from torchfpn.printing import quiet
from torchfpn.types import Color

_VRT_BYTES = 2**24  # largest VRT that is read

_VRT_ELEMENTS = {  # those of plain mosaics, as `gdalbuildvrt` writes them
    "VRTDataset", "SRS", "GeoTransform", "Metadata", "MDI", "BlockXSize", "BlockYSize", "OverviewList",
    "VRTRasterBand", "ColorInterp", "NoDataValue", "HideNoDataValue", "Description", "Offset", "Scale",
    "UnitType", "MaskBand", "ColorTable", "Entry", "CategoryNames", "Category", "SimpleSource",
    "ComplexSource", "SourceFilename", "SourceBand", "SourceProperties", "SrcRect", "DstRect", "NODATA",
    "ScaleOffset", "ScaleRatio", "UseMaskBand",
}  # fmt: skip


_DRIVERS = {  # a COG is a GTiff when it is read
    "png": "PNG",
    "jpeg": "JPEG",
    "webp": "WEBP",
    "bmp": "BMP",
    "gif": "GIF",
    "tiff": "GTiff",
    "jp2": "JP2OpenJPEG",
    "vrt": "VRT",
}

# Not every neighbour listed at each open: slow in folders of 10^5 files, and side files are still found by name.
_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE", **OFFLINE}

NO_TRANSFORM = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # what GDAL says of rasters without one
_PROJECTION_BYTES = 2**16  # of a .prj file

_WELL_KNOWN = re.compile(
    r"(PROJCS|GEOGCS|GEOCCS|LOCAL_CS|COMPD_CS|(PROJ|GEOD|GEOG|BOUND|COMPOUND|ENG|DERIVEDPROJ)CRS)\s*[\[(]", re.I
)

_MAX_REMEMBERED = 4096  # files whose warnings are remembered
_CALLBACKS = re.compile(r"(rasterio|pyogrio)\.")  # functions that GDAL calls with its messages
log = logging.getLogger(__name__)
BLOCK_BYTES = 2**30  # that may be needed to decode one block


class _Warnings(logging.Filter):
    """Collects the warnings of GDAL about the file that this thread has open; each is logged once, with its file."""

    def __init__(self) -> None:
        super().__init__()
        self.local = threading.local()
        self.logged: dict[tuple[str, str], None] = {}  # file and warning without its numbers, oldest first

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is let through: not while a file is open."""
        pending = getattr(self.local, "pending", None)
        if pending is None:
            return True
        if record.levelno >= logging.WARNING:
            pending.append(_plain(record.getMessage()))
        return False

    @contextlib.contextmanager
    def about(self, path: Path) -> Iterator[None]:
        """Collects warnings inside the block and logs the new ones at its end."""
        outer, pending = getattr(self.local, "pending", None), list[str]()
        self.local.pending = pending
        try:
            yield
        finally:
            self.local.pending = outer
        self._log(path, pending)

    def _log(self, path: Path, warnings: list[str]) -> None:
        kinds = {(str(path), re.sub(r"\d+", "#", words)): words for words in reversed(warnings)}
        new = {kind: words for kind, words in kinds.items() if kind not in self.logged}
        if not new:
            return
        self.logged |= dict.fromkeys(new)
        while len(self.logged) > _MAX_REMEMBERED:
            self.logged.pop(next(iter(self.logged)))
        found = f"{amount(len(warnings), 'warning')} while it was read ({list(new.values())[-1][:200]})"
        log.warning(str(RasterError(found, file=path, hint="it may be damaged: compare it with the original")))


_warnings = _Warnings()


@contextlib.contextmanager
def open_raster(path: str | Path, *, allow_vrt: bool = False, root: str | Path | None = None) -> Iterator[Any]:
    """The rasterio dataset of a file, opened with the one driver its first bytes ask for. Safe in threads and workers.

    Every failure of GDAL inside the block, not only at the opening, comes out as a RasterError that names the file.

    Args:
        path: of any format that `format_of` knows; a VRT only with `allow_vrt`.
        allow_vrt: pass VRTs whose sources lie under `root`.
        root: by default the folder of `path`.

    Raises:
        DataError: not a file of these formats. RasterError: refused, damaged, or rasterio is not installed.
    """
    path = Path(path)
    kind = format_of(path)
    sources = list[Path]()
    if kind == "vrt":
        if not allow_vrt:
            raise RasterError("a VRT, which may point anywhere", file=path, hint="if you trust it: --allow-vrt")
        sources = check_vrt(path, Path(root) if root else path.parent)
    rasterio = import_rasterio()
    for name in ("rasterio._env", "rasterio._err"):
        logging.getLogger(name).addFilter(_warnings)  # the same filter is not added again
    for file in sources:
        _check_source(file)
    with (
        translated(path),
        _warnings.about(path),
        rasterio.Env(**_OPTIONS),
        _opened(path, _DRIVERS[kind]) as source,
    ):
        yield source


@contextlib.contextmanager
def _opened(path: Path, driver: str) -> Iterator[Any]:
    for side in side_files(path):
        _check_source(side)
    with quiet(import_rasterio().errors.NotGeoreferencedWarning):  # images without a place are welcome
        source = import_rasterio().open(path.absolute(), driver=driver)
    with source:
        if source.count > MAX_BANDS:
            hint = f"write those you need to a new file: gdal_translate -b 1 -b 2 {path.name} few.tif"
            raise RasterError(f"has {source.count:,} bands", file=path, allowed=f"at most {MAX_BANDS:,}", hint=hint)
        check_overviews(source, path)
        yield source


def _check_source(file: Path) -> None:
    """Passes a file that GDAL will open by itself: a source of a VRT, or a side file."""
    for side in side_files(file):
        _check_source(side)
    status = file.stat()
    _check_named(file.absolute(), (status.st_size, status.st_mtime_ns, status.st_ino))


@functools.lru_cache(2**14)
def _check_named(file: Path, stamp: tuple[int, ...]) -> None:  # stamp: a file that changed is looked at again
    opened = _opened(file, _DRIVERS[format_of(file)])
    with translated(file), _warnings.about(file), import_rasterio().Env(**_OPTIONS), opened:
        pass


def import_rasterio() -> Any:
    """The rasterio module, which is an optional part of torchfpn.

    Raises:
        RasterError: not installed, with the command that installs it.
    """
    try:
        import rasterio
    except ImportError as error:
        raise RasterError(
            "TIFF and 16-bit images need rasterio", hint="install it: pip install torchfpn[raster]"
        ) from error
    if not hasattr(sys.unraisablehook, "torchfpn"):
        _ignore_undecodable()
    return rasterio


def _ignore_undecodable() -> None:
    """Keeps Python from printing that messages of GDAL are no UTF-8, because they quote bytes of damaged files.

    rasterio decodes them in a callback of C, where an exception has no caller: Cython hands it to `sys.excepthook`,
    without a traceback, and to `sys.unraisablehook`. What GDAL reports is raised all the same. Everything else goes to
    the hooks that were there before.
    """
    printing, unraisable = sys.excepthook, sys.unraisablehook

    def without_caller(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if trace is not None or not isinstance(error, UnicodeDecodeError):
            printing(kind, error, trace)

    def in_callback(found: Any) -> None:
        if not (isinstance(found.exc_value, UnicodeDecodeError) and _CALLBACKS.match(str(found.object))):
            unraisable(found)

    in_callback.torchfpn = True  # type: ignore[attr-defined]
    sys.excepthook, sys.unraisablehook = without_caller, in_callback


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Inside, what GDAL and rasterio complain of becomes a RasterError that names the file."""
    rasterio = import_rasterio()
    try:
        yield
    except (rasterio.errors.RasterioError, rasterio._err.CPLE_BaseError) as error:  # not all GDAL errors get wrapped
        raise RasterError(f"damaged or not readable ({_reason(error)})", file=path, hint="copy it again") from error
    except UnicodeEncodeError as error:
        raise RasterError("a file name that is not UTF-8", file=ascii(str(path)), hint="rename the file") from error


def _reason(error: Exception) -> str:
    """GDAL's own words: rasterio keeps them in the cause."""
    return _plain(str(error.__cause__ or error))[:200]


def _plain(words: str) -> str:
    """GDAL's words without the names of its functions: "CPLE_AppDefined in a.tif: TIFFFetchNormalTag:IO error"."""
    words = re.sub(r"^CPLE_\w+(:| in )", "", words)
    return re.sub(r"^([^:]*: ?)?(_?(TIFF|JPEG|PixarLog|LZW|Zip|ZIP|Fax|Sgi|Predictor)\w*:\s*)+", "", words)


def check_vrt(path: Path, root: Path) -> list[Path]:
    """The sources of a VRT, each once, if it is a plain mosaic, as `gdalbuildvrt` writes it, of images under `root`.

    A VRT can name any file of the machine and any address of the network (GDAL security notes, "VRT"; rasterio reads
    /etc/passwd through one).

    Args:
        path: of the VRT.
        root: the folder below which all sources must lie.

    Raises:
        RasterError: anything else in it: another kind of source, a warp, a pixel function, a path that leads out.
    """
    sources = dict[Path, None]()
    for element in _tree(path).iter():
        if element.tag not in _VRT_ELEMENTS or element.get("subClass") or element.get("subclass"):
            raise RasterError(
                f"a VRT with <{element.tag}>", file=path, allowed="plain mosaics, as gdalbuildvrt writes them"
            )
        if element.tag == "SourceFilename":
            sources[_source(path, root, element)] = None
    return list(sources)


def _tree(path: Path) -> ElementTree.Element:
    if path.stat().st_size > _VRT_BYTES:
        raise RasterError("a VRT larger than 16 MiB", file=path)
    text = path.read_bytes()
    # Entities are the XML form of a decompression bomb; GDAL ends a text at a comment, where ElementTree goes on.
    if b"<!" in text:
        raise RasterError("a VRT with a document type, comment or CDATA", file=path, allowed="plain elements")
    try:
        return ElementTree.fromstring(text.decode())  # as GDAL, which takes no notice of a declared encoding
    except (ElementTree.ParseError, ValueError) as error:
        raise RasterError(f"a damaged VRT ({error})", file=path) from error


def _source(path: Path, root: Path, element: ElementTree.Element) -> Path:
    name = (element.text or "").strip()
    relative = [value for key, value in element.items() if key.lower() == "relativetovrt"]  # GDAL takes any case
    if len(relative) > 1 or ":" in name.split("/")[0]:  # "NETCDF:a.tif": GDAL takes the first part for a driver
        raise RasterError(f"a VRT over {name}", file=path, allowed="plain relative file names")
    source = path.absolute().parent / name if relative == ["1"] else Path(name)
    if not source.is_absolute() or not source.is_file() or not source.resolve().is_relative_to(root.resolve()):
        raise RasterError(f"a VRT over {name}", file=path, allowed=f"files that lie under {root}")
    if format_of(source) == "vrt":
        raise RasterError(f"a VRT over another VRT ({name})", file=path, allowed="PNG, JPEG and TIFF sources")
    return source


def pixel_types(source: Any) -> list[np.dtype[Any]]:
    """The NumPy type that each band of an open raster is read as; NumPy has no complex whole numbers (CInt16)."""
    return [np.dtype(np.complex64 if name == "complex_int16" else name) for name in source.dtypes]


def geo_of(source: Any) -> Geo | None:
    """Where an open raster lies; None when it does not say.

    Raises:
        DataError: a damaged .prj beside the world file of the raster.
    """
    transform = tuple(float(v) for v in tuple(source.transform)[:6])
    crs = source.crs.to_wkt() if source.crs else None
    if crs is None and transform == NO_TRANSFORM:
        return None
    crs = crs or read_projection(source.name)
    rpcs = tuple(sorted(source.tags(ns="RPC").items()))
    return Geo(crs, transform, rpcs)  # type: ignore[arg-type]  # six of them


def read_projection(path: str | Path) -> str | None:
    """Well-known text of the .prj beside the world file of an image, which GDAL does not read; None without one.

    Raises:
        DataError: it holds no coordinate system that PROJ knows.
    """
    file = projection_file(path)
    if file is None:
        return None
    crs = import_rasterio().crs.CRS
    try:
        with file.open("rb") as handle:
            text = handle.read(_PROJECTION_BYTES).decode("utf-8-sig").strip()
        if not _WELL_KNOWN.match(text):  # GDAL would take other texts for names of files and addresses
            raise ValueError
        with import_rasterio().Env():  # keeps GDAL from printing what it thinks of the text
            return str(crs.from_wkt(text).to_wkt())
    except (OSError, ValueError, import_rasterio().errors.CRSError) as error:
        hint = "repair or remove it, and give the coordinate system with --assume-crs EPSG:..."
        raise DataError("a damaged .prj file", file=file, allowed="well-known text", hint=hint) from error


def ties_of(source: Any) -> Ties | None:
    """Ground control points and camera model of an open raster that says nothing else; None without them."""
    points, crs = source.gcps
    rpcs = source.tags(ns="RPC")
    if geo_of(source) is not None or not (points or rpcs):
        return None
    rows = tuple((p.row, p.col, p.x, p.y, p.z or 0.0) for p in points)
    return Ties(rows, crs.to_wkt() if crs else None, tuple(sorted(rpcs.items())))


def no_place(file: str | Path, lacks: str, hint: str | None) -> RasterError:
    """The error of a raster without a transform, where one is needed: says what it has instead, and the cure.

    lacks: what cannot be done, in words, for rasters that have nothing instead; hint: the cure for those.
    """
    try:
        with open_raster(file) as source:
            ties = ties_of(source)
    except (DataError, OSError):
        ties = None
    if ties is None:
        return RasterError(lacks, file=file, hint=hint)
    count, path = len(ties.points), Path(file)
    found = f"{amount(count, 'ground control point')} and no transform" if count else "an RPC and no transform"
    cure = f"warp it first: gdalwarp {'' if count else '-rpc '}{path.name} {path.stem}_warped.tif"
    return RasterError(found, file=file, allowed="a raster with a geotransform", hint=cure)


def color_table(source: Any) -> dict[int, Color]:
    """Red, green, blue of each value of an open raster; empty if its values are no indices of colours."""
    if source.count != 1 or source.colorinterp[0].name != "palette":
        return {}
    try:
        return {value: color[:3] for value, color in source.colormap(1).items()}
    except ValueError:  # announced and not there
        return {}


def never_written(source: Any) -> bool:
    """Whether a TIFF holds no block at all: what a writer killed half-way leaves opens, and reads as zeros."""
    if source.driver != "GTiff":
        return False
    tag = source.get_tag_item
    block_height, block_width = source.block_shapes[0]
    columns, rows = -(-source.width // block_width), -(-source.height // block_height)
    places = ((0, 0), (columns // 2, rows // 2), (columns - 1, rows - 1))
    return all(tag(f"BLOCK_OFFSET_{x}_{y}", "TIFF", 1) is None for x, y in places)


def block_bytes(source: Any) -> int:
    """Of an open raster: how much one block needs when it is decoded."""
    height, width = source.block_shapes[0]
    together = source.count if source.interleaving and source.interleaving.name == "pixel" else 1
    return int(height * width * together * pixel_types(source)[0].itemsize)


def check_blocks(shape: tuple[int, int], size: int, path: Path) -> None:
    """Passes files that can be read by windows in bounded memory. shape: height and width of a block; size: its bytes.

    Raises:
        RasterError: one block is too large, as in a TIFF of a single tile.
    """
    if size > BLOCK_BYTES:
        raise RasterError(
            f"stored in blocks of {shape[1]} x {shape[0]} pixels, {size / 2**30:.1f} GiB each",
            file=path,
            allowed=f"at most {BLOCK_BYTES / 2**30:.0f} GiB, to be read by windows",
            hint="store it in tiles: gdal_translate -of COG",
        )
