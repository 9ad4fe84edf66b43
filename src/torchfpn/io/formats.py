"""What a file is, by its suffix and its first bytes; limits on sizes; file names. Imports nothing heavy."""

import os
import stat
import unicodedata
from pathlib import Path, PurePath

from torchfpn.errors import DataError, amount

HEAD = 512  # bytes by which a format is recognized
MAX_PIXELS = 2**28  # rows times columns; a decompression bomb says far more than it weighs on disk
BYTES_PER_PIXEL = 16  # the other half of the budget: 8 bands of 16 bits; more bands may then have fewer pixels
MAX_SIDE = 2**20  # pixels of a raster that is worked on in parts
MAX_BANDS = 4096  # of a raster: hyperspectral sensors have hundreds

SUFFIXES = (  # what a listing of a folder takes for an image
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".vrt", ".jp2", ".j2k", ".j2c", ".jpx", ".jpf"),
)

UNREAD_SUFFIXES = (  # images and rasters too, but of formats that this program does not read
    *(".heic", ".heif", ".avif", ".jxl", ".psd", ".svg", ".exr", ".tga", ".ico", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"),
    *(".img", ".ecw", ".sid", ".nc", ".hdf", ".h5", ".hdf5", ".he5", ".ntf", ".nitf", ".grib", ".grb", ".grb2", ".asc"),
    *(".bil", ".bip", ".bsq", ".dt1", ".dt2", ".hgt", ".mrf", ".dcm", ".npy", ".npz", ".mat"),
)

COMPANIONS = (  # beside images: what belongs to them, and what systems leave in folders
    *(".xml", ".ovr", ".msk", ".prj", ".tab", ".hdr", ".rpb", ".rpc", ".imd", ".wld", ".db", ".ini"),
    *(".jgw", ".pgw", ".tfw", ".bpw", ".gfw", ".wpw", ".j2w", ".jpgw", ".jpegw", ".pngw", ".tifw", ".tiffw"),
)

WINDOWED = ("tiff", "vrt", "jp2")  # the formats that GDAL reads, whole or by windows
LOSSY = ("jpeg", "webp", "jp2")  # the formats that may change the values they store, so that no label stands in them
READABLE = "PNG, JPEG, WebP, BMP, GIF, TIFF, GeoTIFF and JPEG 2000"

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",  # BigTIFF
    b"MM\0+": "tiff",
    b"\0\0\0\x0cjP  \r\n\x87\n": "jp2",
    b"\xff\x4f\xff\x51": "jp2",  # a code stream without its box
    b"GIF87a": "gif",
    b"GIF89a": "gif",
}

_UNREAD_MAGIC = {
    b"EHFA_HEADER_TAG": "ERDAS Imagine",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"CDF": "NetCDF",
    b"NITF": "NITF",
    b"GRIB": "GRIB",
    b"msid": "MrSID",
    b"8BPS": "Photoshop",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"\x93NUMPY": "NumPy",
    b"P5\n": "PNM",
    b"P6\n": "PNM",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
}

_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes
_CAMERA = (".dng", ".cr2", ".nef", ".arw", ".orf", ".rw2")  # TIFFs, whose first picture is a thumbnail

DRIVERS = {  # suffix of a vector file -> driver of GDAL
    ".geojson": "GeoJSON",
    ".json": "GeoJSON",
    ".geojsonl": "GeoJSON",  # a feature on each line
    ".geojsons": "GeoJSON",
    ".ndjson": "GeoJSON",
    ".gpkg": "GPKG",
    ".fgb": "FlatGeobuf",
    ".shp": "ESRI Shapefile",
}

VECTOR_SUFFIXES = tuple(DRIVERS)
_HEAD_BYTES = 4096  # of a JSON file, in which the type of GeoJSON stands


def format_of(path: str | Path) -> str:
    """One of png, jpeg, webp, bmp, gif, tiff, jp2 and vrt: by content, since suffixes lie and GDAL guesses.

    Raises:
        DataError: missing, a folder, empty, unreadable, or of another format, with the way to convert it.
    """
    path = Path(path)
    check_regular(path)
    try:
        with path.open("rb") as handle:
            head = handle.read(HEAD)
    except IsADirectoryError as error:
        raise DataError("a folder, not an image", file=path, hint="move it elsewhere") from error
    except OSError as error:  # missing, a loop of symbolic links, a name too long, no permission
        raise DataError(f"cannot be opened ({error.strerror or error})", file=path) from error
    if not head:
        raise DataError("empty file (0 bytes)", file=path, hint="copy it again")
    found = _format_of_bytes(head)
    if found is None or (found == "tiff" and path.suffix.lower() in _CAMERA):
        raise _unread(path, head)
    return found


def _format_of_bytes(head: bytes) -> str | None:
    """The format that the first bytes of a file tell."""
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    return "vrt" if b"<VRTDataset" in head else None


def _unread(path: Path, head: bytes) -> DataError:
    """What a file is that is not read, as far as its first bytes and its suffix tell, and how to convert it."""
    name = next((name for magic, name in _UNREAD_MAGIC.items() if head.startswith(magic)), None)
    if head[4:8] == b"ftyp":
        name = "HEIF or AVIF"
    hint = None
    if name is not None or path.suffix.lower() in UNREAD_SUFFIXES:
        hint = f"convert it: save it as PNG or TIFF, or gdal_translate {path.name} {path.stem}.tif"
    kind = f" ({name})" if name is not None else f" ({path.suffix.lower()})" if hint else ""
    return DataError(f"not an image this program reads{kind}", file=path, allowed=READABLE, hint=hint)


def kind_of(path: Path) -> str:
    """What the first bytes look like, for the message."""
    head = first_bytes(path)
    if head.lstrip()[:1] == b"<":
        return "it is an HTML page"
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        return f"a pickle, truncated or damaged after {path.stat().st_size} bytes"
    return f"damaged or another format, {path.stat().st_size} bytes beginning {head[:8]!r}"


def first_bytes(path: Path) -> bytes:
    """The first `HEAD` bytes of a file."""
    with path.open("rb") as file:
        return file.read(HEAD)


def check_regular(path: str | Path) -> None:
    """Passes a file, a folder, a link to one, and what is not there: who opens a pipe may wait for ever.

    Raises:
        DataError: a named pipe, a socket or a device.
    """
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return
    kinds = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"))
    for is_kind, kind in (*kinds, (stat.S_ISBLK, "a device")):
        if is_kind(mode):
            raise DataError(kind, file=path, allowed="a regular file", hint="copy its content into a file")


def is_companion(name: str) -> bool:
    """Whether a file is no image by itself and nothing to speak of: side files, hidden files."""
    lower = name.lower()
    return lower.startswith(".") or lower.endswith(COMPANIONS) or lower.endswith("_rpc.txt")


def is_vector(path: str | PurePath) -> bool:
    """Whether the name is that of a vector file."""
    return str(path).lower().endswith(VECTOR_SUFFIXES)


def is_coco(path: str | Path) -> bool:
    """Whether a .json file is no GeoJSON, which names its type at its beginning; false where nothing can be read."""
    if not str(path).lower().endswith(".json"):
        return False
    try:
        with Path(path).open("rb") as handle:
            head = handle.read(_HEAD_BYTES)
    except OSError:
        return False
    return not any(b'"%s"' % kind in head for kind in (b"FeatureCollection", b"Feature"))


def check_size(path: str | Path, shape: tuple[int, int, int], itemsize: int, max_pixels: int) -> None:
    """Refuses an image before it is decoded. shape: (bands, height, width) to be read; itemsize: bytes per value.

    Raises:
        DataError: more than `max_pixels` pixels, or more than `BYTES_PER_PIXEL` times as many bytes.
    """
    bands, height, width = shape
    cure = "if this is right, allow more with --max-pixels (max_pixels in dataset.yaml)"
    if height * width > max_pixels:
        raise DataError(
            f"{width} x {height} = {height * width} pixels", file=path, allowed=f"at most {max_pixels}", hint=cure
        )
    size = bands * height * width * itemsize
    if size > max_pixels * BYTES_PER_PIXEL:
        raise DataError(
            f"{amount(bands, 'band')} of {width} x {height} pixels, {size / 2**30:.1f} GiB",
            file=path,
            allowed=f"at most {max_pixels * BYTES_PER_PIXEL / 2**30:.3g} GiB",
            hint="read fewer bands (use_bands in dataset.yaml), or " + cure,
        )


def check_sides(path: str | Path, size: tuple[int, int], max_side: int) -> None:
    """Refuses a raster before it is worked on in parts. size: height and width in pixels; max_side: of either.

    A damaged or hostile header, or two files at two ends of the world, declare any size: the work would never end.

    Raises:
        DataError: a side is longer.
    """
    height, width = size
    if max(size) > max_side:
        raise DataError(
            f"{width:,} x {height:,} pixels",
            file=path,
            allowed=f"at most {max_side:,} pixels a side",
            hint="if this is right, allow more with --max-side N",
        )


def name_key(name: str) -> str:
    """A file name for comparing: systems and programs write an accent as one character (NFC) or as two (NFD)."""
    return unicodedata.normalize("NFC", name)


def on_disk(folder: Path, path: str) -> Path:
    """`folder / path` as the disk spells it, where its accents are composed otherwise (NFC, NFD) than in `path`."""
    whole = folder / path
    if path.isascii() or whole.exists():
        return whole
    for part in Path(path).parts:
        if not (folder / part).exists() and folder.is_dir():
            part = next((own.name for own in folder.iterdir() if name_key(own.name) == name_key(part)), part)
        folder = folder / part
    return folder


def printable(path: str | Path) -> str:
    """A file name on one line of valid text: names on disk may hold newlines and bytes that are no UTF-8."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
