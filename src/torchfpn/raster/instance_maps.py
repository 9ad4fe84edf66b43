"""Objects as an image of numbers: 0 where none is, k where the k-th is, best first."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from torchfpn.errors import DataError, amount
from torchfpn.files.atomic import write_bytes
from torchfpn.files.geo import Geo, Ties
from torchfpn.ops.masks import Crops
from torchfpn.ops.overlaps import numbered
from torchfpn.raster.sink import write_bands

TOP = 65535  # of 16 bits


def write_instances(path: Path, crops: Crops, geo: Geo | Ties | None, *, file: Path | None = None) -> None:
    """A 16-bit PNG, or a GeoTIFF on the grid of the image (32 bits if there are so many), as the suffix says.

    Where objects overlap the better one is seen; one that is hidden as a whole has no pixel. file: for messages.

    Raises:
        DataError: more objects than a PNG can number.
    """
    if path.suffix == ".tif":
        values = numbered(crops).numpy().astype(np.uint16 if len(crops) <= TOP else np.uint32)
        write_bands(path, values[None], names=["instance"], geo=geo)
        return
    if len(crops) > TOP:
        hint = "raise --min-score, or give the image as a TIFF"
        raise DataError(amount(len(crops), "object"), file=file, allowed=f"at most {TOP:,} in a PNG", hint=hint)
    target = io.BytesIO()
    Image.fromarray(numbered(crops).numpy().astype(np.uint16)).save(target, "PNG")
    write_bytes(path, target.getvalue())
