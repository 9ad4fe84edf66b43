"""Damaged files of every format: a picture or one line that names the file, never anything else."""

import random

import numpy as np
import pytest
import rasterio
from PIL import Image

from made_data import picture, write_png, write_tiff
from torchfpn.errors import DataError
from torchfpn.files.images import read_image
from torchfpn.files.labels import read_labels, read_legend
from torchfpn.files.rasters import write_label_raster


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of one small file of each kind."""
    folder, array = tmp_path_factory.mktemp("whole"), picture(0, (40, 50))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    write_png(folder / "0.png", array, exif=exif)
    Image.fromarray(array).quantize(16).save(folder / "1.png")
    Image.fromarray(array[..., 0].astype("uint16") * 9).save(folder / "2.png")
    Image.fromarray(array).save(folder / "3.jpg", exif=exif)
    Image.fromarray(array).convert("CMYK").save(folder / "4.jpg")
    bands, grid = array.transpose(2, 0, 1), rasterio.Affine(10, 0, 5, 0, -10, 3)
    write_tiff(folder / "5.tif", bands, crs="EPSG:32633", transform=grid)
    write_tiff(folder / "6.tif", bands.astype("float32"), compress="deflate", tiled=True, blockxsize=16, blockysize=16)
    write_label_raster(folder / "7.tif", array[..., 0] % 5, colors=[(1, 2, 3)] * 5, names=list("abcde"))
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def damaged(rng, data):
    """Bytes set, cut out, put in, or cut off, mostly near the beginning."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = min(int(rng.expovariate(1 / 200)), len(data) - 1) if rng.random() < 0.6 else rng.randrange(len(data))
        kind = rng.random()
        if kind < 0.6:
            data[place] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        elif kind < 0.8:
            del data[place : place + rng.randrange(1, 40)]
        elif kind < 0.9:
            data[place:place] = rng.randbytes(rng.randrange(1, 8))
        else:
            del data[place:]
        data = data or bytearray(b"x")
    return bytes(data)


# rasterio cannot decode some messages of GDAL about damaged text, and says so behind the back of everyone
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(5))
def test_damaged_files_are_read_or_named(whole, tmp_path, seed):
    rng = random.Random(seed)
    path = tmp_path / "damaged.bin"
    read, errors = 0, []
    for _ in range(60):
        path.write_bytes(damaged(rng, rng.choice(whole)))
        for function in (read_image, read_labels, read_legend):
            try:
                function(path)
                read += 1
            except DataError as error:
                errors.append(str(error))
    assert read > 5
    assert len(errors) > 50
    assert all("damaged.bin" in error and "\n" not in error for error in errors)


def test_the_whole_files_are_read(whole, tmp_path):
    for data in whole:
        (tmp_path / "whole.bin").write_bytes(data)
        assert np.prod(read_image(tmp_path / "whole.bin").size) == 2000
