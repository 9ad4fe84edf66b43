"""Small files and datasets that tests make for themselves."""

import struct
import warnings

import numpy as np
import rasterio
from PIL import Image

YAML = """task: semantic
classes: [grass, road, water]
splits:
  train: {images: train/images, labels: train/labels}
  val: {images: val/images, labels: val/labels}
"""


def write_tiff(path, array, **profile):
    """A GeoTIFF (or `driver`) of [C, H, W]; `descriptions`, `colorinterp` and `mask` are set after the writing."""
    after = {key: profile.pop(key) for key in ("descriptions", "colorinterp", "mask") if key in profile}
    c, h, w = array.shape
    profile = {"driver": "GTiff", "count": c, "height": h, "width": w, "dtype": array.dtype} | profile
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as sink:
            sink.write(array)
            for name in ("descriptions", "colorinterp"):
                if name in after:
                    setattr(sink, name, after[name])
            if "mask" in after:
                sink.write_mask(after["mask"])
    return path


def write_png(path, array, **options):
    """A PNG of [H, W] or [H, W, C] bytes."""
    Image.fromarray(array).save(path, **options)
    return path


def picture(seed, size=(24, 32), bands=3):
    """Bytes [H, W, C] with a little structure."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, bands), dtype=np.uint8)


def labels(seed, size=(24, 32), classes=3):
    """Class values [H, W]: stripes, so that every class is there."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (((rows // 3 + columns // 5) + seed) % classes).astype(np.uint8)


def make_dataset(folder, *, train=3, val=2, size=(24, 32), yaml=YAML):
    """Folders of RGB and index PNGs, with the yaml given; the folder."""
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            seed = i + 100 * (split == "val")
            write_png(folder / split / "images" / f"a{i}.png", picture(seed, size))
            write_png(folder / split / "labels" / f"a{i}.png", labels(seed, size))
    if yaml:
        (folder / "dataset.yaml").write_text(yaml)
    return folder


def declare_size(path, width, height):
    """Another width and height in the header of a TIFF, as damage or a hostile hand leaves it."""
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from("<H", data, place)
        if tag in (256, 257):  # ImageWidth, ImageLength
            struct.pack_into("<HHII", data, place, tag, 4, 1, width if tag == 256 else height)
    path.write_bytes(data)
    return path
