"""VRT files: XML that makes GDAL read other files, so they are refused unless asked for, and then only plain ones.

A VRT can name any file of the machine and any address of the network (GDAL security notes, "VRT"; rasterio reads
/etc/passwd through one). Allowed here: what `gdalbuildvrt` writes, over images that lie under the data root.
"""

from pathlib import Path
from xml.etree import ElementTree

from torchfpn.errors import RasterError
from torchfpn.files.formats import format_of

_LIMIT = 2**24  # bytes
_WORDS = """
VRTDataset SRS GeoTransform Metadata MDI BlockXSize BlockYSize OverviewList
VRTRasterBand ColorInterp NoDataValue HideNoDataValue Description Offset Scale UnitType MaskBand
ColorTable Entry CategoryNames Category
SimpleSource ComplexSource SourceFilename SourceBand SourceProperties SrcRect DstRect
NODATA ScaleOffset ScaleRatio UseMaskBand
"""
_PLAIN = frozenset(_WORDS.split())


def check_vrt(path: Path, root: Path) -> list[Path]:
    """Passes a VRT whose every source is a PNG, JPEG or TIFF under `root`; gives the sources, each once.

    Raises:
        RasterError: anything else in it: another kind of source, a warp, a pixel function, a path that leads out.
    """
    sources = dict[Path, None]()
    for element in _tree(path).iter():
        if element.tag not in _PLAIN or element.get("subClass") or element.get("subclass"):
            raise RasterError(
                f"a VRT with <{element.tag}>", file=path, allowed="plain mosaics, as gdalbuildvrt writes them"
            )
        if element.tag == "SourceFilename":
            sources[_source(path, root, element)] = None
    return list(sources)


def _tree(path: Path) -> ElementTree.Element:
    if path.stat().st_size > _LIMIT:
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
    said = [value for key, value in element.items() if key.lower() == "relativetovrt"]  # GDAL takes any case
    if len(said) > 1 or ":" in name.split("/")[0]:  # "NETCDF:a.tif": GDAL takes the begin for a driver
        raise RasterError(f"a VRT over {name}", file=path, allowed="plain relative file names")
    source = path.absolute().parent / name if said == ["1"] else Path(name)
    if not source.is_absolute() or not source.is_file() or not source.resolve().is_relative_to(root.resolve()):
        raise RasterError(f"a VRT over {name}", file=path, allowed=f"files that lie under {root}")
    if format_of(source) == "vrt":
        raise RasterError(f"a VRT over another VRT ({name})", file=path, allowed="PNG, JPEG and TIFF sources")
    return source
