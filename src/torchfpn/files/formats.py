"""What kind of image a file is, told by its first bytes, and whether it is small enough to be read whole."""

import os
import unicodedata
from pathlib import Path

from torchfpn.errors import DataError

MAX_PIXELS = 2**28  # rows times columns; a decompression bomb says far more than it weighs on disk
BYTES_PER_PIXEL = 16  # the other half of the budget: 8 bands of 16 bits; more bands may then have fewer pixels
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".vrt")  # what a listing of a folder takes for an image

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",  # BigTIFF
    b"MM\0+": "tiff",
}


def format_of(path: str | Path) -> str:
    """One of png, jpeg, tiff and vrt: by content, since suffixes lie and GDAL would guess among a hundred formats.

    Raises:
        DataError: missing, a folder, empty, unreadable, or none of the four.
    """
    path = Path(path)
    try:
        with path.open("rb") as handle:
            head = handle.read(512)
    except IsADirectoryError as error:
        raise DataError("a folder, not an image", file=path, hint="move it elsewhere") from error
    except OSError as error:  # missing, a loop of symbolic links, a name too long, no permission
        raise DataError(f"cannot be opened ({error.strerror or error})", file=path) from error
    if not head:
        raise DataError("empty file (0 bytes)", file=path, hint="copy it again")
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    if b"<VRTDataset" in head:
        return "vrt"
    raise DataError("not an image this program reads", file=path, allowed="PNG, JPEG, TIFF and GeoTIFF")


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
            f"{bands} bands of {width} x {height} pixels, {size / 2**30:.1f} GiB",
            file=path,
            allowed=f"at most {max_pixels * BYTES_PER_PIXEL / 2**30:.3g} GiB",
            hint="read fewer bands (use_bands in dataset.yaml), or " + cure,
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
