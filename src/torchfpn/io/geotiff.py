"""The GeoTIFF writer: label maps, numbered objects and probabilities, whole or by windows, also cloud-optimized."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import FPNError, RasterError
from torchfpn.geo.georef import Geo, Ties
from torchfpn.io.atomic import atomic_path, check_room, write_error
from torchfpn.io.rasters import import_rasterio
from torchfpn.printing import quiet
from torchfpn.types import Color

BLOCK = 512  # pixels: side of a tile; writing whole rows of tiles at a time compresses no tile twice
CACHE = 64  # MiB that GDAL may keep of what it reads and writes
IN_MEMORY = 2**25  # bytes before compression up to which a raster is made in memory and then written in one go
TOP = 65535  # largest label value, of 16 bits
_TILED = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}

Write = Callable[[int, int, NDArray[Any]], None]  # first row, first column, array [C, h, w], or [h, w] of one band


@dataclass(frozen=True)
class Layout:
    """What a GeoTIFF is made of.

    Attributes:
        height: rows.
        width: columns.
        dtype: NumPy type of the pixels.
        names: descriptions of the bands; none: one band without a description.
        geo: the grid of the image, which the file repeats exactly.
        nodata: value of pixels without data.
        colors: red, green, blue of label values, for the color table; those that the pixel type cannot hold are left
            out.
        classes: names of label values. They become the tags `CLASSES` (JSON) of the file and `CLASS_<value>` of the
            band, because GDAL keeps category names of a GeoTIFF in a side file only.
    """

    height: int
    width: int
    dtype: str
    names: tuple[str, ...] = ()
    geo: Geo | Ties | None = None
    nodata: float | None = None
    colors: Mapping[int, Color] = field(default_factory=dict)
    classes: Mapping[int, str] = field(default_factory=dict)

    @property
    def bands(self) -> int:
        """Number of bands."""
        return max(1, len(self.names))

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels, before compression."""
        return self.height * self.width * self.bands * np.dtype(self.dtype).itemsize


@contextlib.contextmanager
def geotiff_writer(path: str | Path, layout: Layout, **options: Any) -> Iterator[Write]:
    """Yields a function that writes a window of a GeoTIFF; the file appears when the block ends without error.

    Args:
        path: of the file; replaced if it is there.
        layout: what is written. Files of at least `BLOCK` pixels a side are tiled, smaller ones stored in stripes.
        options: further creation options of GDAL's driver GTiff.

    Raises:
        WriteError: it cannot be written. RasterError: rasterio is not installed.
    """
    with (
        import_rasterio().Env(GDAL_CACHEMAX=CACHE),
        atomic_path(path) as part,
        _gdal_target(path, part, layout.nbytes) as target,
        _created(target, layout, options) as write,
    ):
        yield write


def write_cog(path: str | Path, layout: Layout, blocks: Iterable[tuple[int, int, NDArray[Any]]]) -> None:
    """Writes a cloud-optimized GeoTIFF: tiles of `BLOCK` pixels and nearest-neighbor overviews.

    A plain tiled file is written first and then copied, because the overviews of a COG stand before its data. Memory is
    one block and GDAL's cache, whatever the size of the raster.

    Args:
        path: of the file; replaced if it is there.
        layout: what is written.
        blocks: (first row, first column, array [C, h, w]), each pixel once.

    Raises:
        WriteError: it cannot be written. RasterError: rasterio is not installed.
    """
    options: dict[str, Any] = {
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "interleave": "band",
        "zlevel": 1,
    }
    with (
        import_rasterio().Env(GDAL_CACHEMAX=CACHE),
        atomic_path(path) as part,
        _gdal_target(path, part, layout.nbytes) as target,
        _plain_beside(target) as plain,
    ):
        with _created(plain, layout, options) as write:
            for row, column, array in blocks:
                write(row, column, array)
        from rasterio.shutil import copy

        copy(
            plain,
            target,
            driver="COG",
            BLOCKSIZE=BLOCK,
            COMPRESS="DEFLATE",
            PREDICTOR="FLOATING_POINT" if np.dtype(layout.dtype).kind == "f" else "STANDARD",
            OVERVIEW_RESAMPLING="NEAREST",
            BIGTIFF="IF_SAFER",
        )


def write_bands(
    path: str | Path,
    array: NDArray[Any],
    *,
    names: Sequence[str],
    geo: Geo | Ties | None = None,
    nodata: float | None = None,
) -> None:
    """Writes an array as a GeoTIFF of its own pixel type.

    Args:
        path: of the file; replaced if it is there.
        array: [C, H, W].
        names: descriptions of the C bands. Files whose first bands are called red, green, blue are marked as RGB.
        geo: the grid of the image.
        nodata: value of pixels without data.

    Raises:
        WriteError: it cannot be written. RasterError: rasterio is not installed.
    """
    _, height, width = array.shape
    layout = Layout(height, width, str(array.dtype), tuple(names), geo, nodata)
    with geotiff_writer(path, layout, predictor=3 if array.dtype.kind == "f" else 2) as write:
        write(0, 0, array)


def write_label_raster(
    path: str | Path,
    labels: NDArray[Any],
    *,
    geo: Geo | Ties | None = None,
    colors: Mapping[int, Color] | Sequence[Color] = (),
    names: Mapping[int, str] | Sequence[str] = (),
    nodata: int | None = None,
) -> None:
    """Writes label values as a GeoTIFF of 8 bits, or of 16 where a value or `nodata` exceeds 255.

    Args:
        path: of the file; replaced if it is there.
        labels: [H, W] integers, 0..65535.
        geo: the grid of the image that the labels belong to.
        colors: red, green, blue of each value; a sequence counts from 0.
        names: of each value; a sequence counts from 0.
        nodata: the value of pixels without data.

    Raises:
        RasterError: labels that do not fit, or rasterio is not installed. WriteError: `path` cannot be written.
    """
    top = max(int(labels.max(initial=0)), nodata or 0)
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or int(labels.min(initial=0)) < 0 or top > TOP:
        raise RasterError(f"labels {labels.dtype} {labels.shape}", file=path, allowed=f"[H, W] integers in 0..{TOP}")
    dtype = "uint8" if top <= 255 else "uint16"
    palette = colors if isinstance(colors, Mapping) else dict(enumerate(colors))
    classes = names if isinstance(names, Mapping) else dict(enumerate(names))
    height, width = labels.shape
    layout = Layout(height, width, dtype, geo=geo, nodata=nodata, colors=palette, classes=classes)
    with geotiff_writer(path, layout) as write:
        write(0, 0, labels.astype(dtype))


@contextlib.contextmanager
def _created(target: str | Path, layout: Layout, options: dict[str, Any]) -> Iterator[Write]:
    """Yields a function that writes windows of a new GTiff file; colors, descriptions and tags follow at the end."""
    rasterio = import_rasterio()
    with quiet(rasterio.errors.NotGeoreferencedWarning):  # arrays without a place on the earth are welcome
        file = rasterio.open(target, "w", **_profile(layout) | options)
    with file:

        def write(row: int, column: int, array: NDArray[Any]) -> None:
            rows, columns = array.shape[-2:]
            window = ((row, row + rows), (column, column + columns))
            file.write(array.reshape(layout.bands, rows, columns), window=window)

        yield write
        top = np.iinfo(layout.dtype).max if layout.colors else 0
        if palette := {value: color for value, color in layout.colors.items() if value <= top}:
            file.write_colormap(1, palette)
        if layout.names:
            file.descriptions = layout.names
        if layout.classes:
            classes = {str(value): name for value, name in layout.classes.items()}
            file.update_tags(CLASSES=json.dumps(classes, ensure_ascii=False))
            file.update_tags(1, **{f"CLASS_{value}": name for value, name in classes.items()})


def _profile(layout: Layout) -> dict[str, Any]:
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": layout.bands,
        "height": layout.height,
        "width": layout.width,
        "dtype": layout.dtype,
        "nodata": layout.nodata,
        "compress": "deflate",
        "bigtiff": "IF_SAFER",
    }
    if min(layout.height, layout.width) >= BLOCK:
        profile |= _TILED
    if layout.names:  # left alone, GDAL takes the fourth band of an 8-bit file for transparency
        colored = [name.lower() for name in layout.names[:3]] == ["red", "green", "blue"]
        profile |= {"photometric": "RGB" if colored else "MINISBLACK", "alpha": "NO"}
    return profile | _place(layout.geo)


def _place(geo: Geo | Ties | None) -> dict[str, Any]:
    """What rasterio needs to write where a raster lies."""
    if geo is None:
        return {}
    rasterio = import_rasterio()
    crs = rasterio.crs.CRS.from_wkt(geo.crs) if geo.crs else None
    if isinstance(geo, Geo):
        return {"transform": rasterio.Affine(*geo.transform), "crs": crs} | _camera(geo.rpcs)
    profile: dict[str, Any] = {}
    if geo.points:
        from rasterio.control import GroundControlPoint

        profile["gcps"] = [GroundControlPoint(*point) for point in geo.points]
        profile["crs"] = crs or rasterio.crs.CRS()  # points without a coordinate system: rasterio refuses None
    return profile | _camera(geo.rpcs)


def _camera(rpcs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """What rasterio needs to write a camera model; nothing for one whose texts are damaged."""
    if not rpcs:
        return {}
    from rasterio.rpc import RPC

    try:
        return {"rpcs": RPC.from_gdal(dict(rpcs))}
    except (LookupError, TypeError, ValueError):
        return {}


@contextlib.contextmanager
def _plain_beside(target: str | Path) -> Iterator[str | Path]:
    """Yields where the plain file goes from which a COG is copied, in memory or beside `target`; removes it after."""
    if isinstance(target, Path):
        plain = target.with_name(f"{target.name}.plain.tif")
        try:
            yield plain
        finally:
            plain.unlink(missing_ok=True)
    else:
        with import_rasterio().MemoryFile(ext=".tif") as memory:
            yield memory.name


@contextlib.contextmanager
def _gdal_target(path: str | Path, part: Path, size: int) -> Iterator[str | Path]:
    """Yields what GDAL writes to: `part`, which becomes `path`, or the name of memory that is then put into it.

    GDAL does not report a write that fails while it closes a file, and libtiff prints its own words then. Small rasters
    are therefore made in memory. Of those on the disk every block must lie inside the file, and there must be room for
    a few bytes more: after a failed write there is none. size: bytes before compression.

    Raises:
        WriteError: GDAL, or the disk, could not write.
    """
    rasterio = import_rasterio()
    try:
        if size <= IN_MEMORY:
            with rasterio.MemoryFile(ext=".tif") as memory:
                yield memory.name
                part.write_bytes(memory.getbuffer())
        else:
            yield part
            if not _has_all_blocks(part):
                raise write_error(path, part, "blocks are missing at the end")
            check_room(path, part)
    except FPNError:
        raise
    except (rasterio.errors.RasterioError, rasterio._err.CPLE_BaseError) as error:
        raise write_error(path, part, error) from error


def _has_all_blocks(path: Path) -> bool:
    """Whether all blocks of a TIFF lie inside the file. Overviews stand before them."""
    size = path.stat().st_size
    with quiet(import_rasterio().errors.NotGeoreferencedWarning):
        source = import_rasterio().open(path, driver="GTiff")
    with source:
        (height, width), tag = source.block_shapes[0], source.get_tag_item
        for band in source.indexes:
            for row, column in np.ndindex(-(-source.height // height), -(-source.width // width)):
                offset = tag(f"BLOCK_OFFSET_{column}_{row}", "TIFF", band)
                length = tag(f"BLOCK_SIZE_{column}_{row}", "TIFF", band)
                if offset is not None and int(offset) + int(length or 0) > size:
                    return False
    return True
