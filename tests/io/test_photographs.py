"""PNG and JPEG through Pillow: every colour model becomes plain bands."""

import numpy as np
import pytest
from PIL import Image

from made_data import picture, write_png
from torchfpn.io.images import read_image

RGB = picture(3, (6, 8))


def saved(path, mode, **options):
    image = Image.fromarray(RGB)
    image.convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("mode", "suffix", "names"),
    [
        ("L", "png", ("grey",)),
        ("1", "png", ("grey",)),
        ("RGB", "png", ("red", "green", "blue")),
        ("P", "png", ("red", "green", "blue")),
        ("L", "jpg", ("grey",)),
        ("CMYK", "jpg", ("red", "green", "blue")),
    ],
)
def test_colour_models(tmp_path, mode, suffix, names):
    path = saved(tmp_path / f"a.{suffix}", mode)
    read = read_image(path)
    assert read.band_names == names
    assert read.array.dtype == np.uint8
    assert read.valid is None
    want = np.array(Image.open(path).convert("L" if len(names) == 1 else "RGB"))
    np.testing.assert_array_equal(read.array, want.reshape(*want.shape[:2], -1).transpose(2, 0, 1))


def test_cmyk_has_the_colours_it_was_made_of(tmp_path):
    Image.new("RGB", (32, 32), (200, 30, 60)).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    mean = read_image(tmp_path / "a.jpg").array.reshape(3, -1).mean(1)
    np.testing.assert_allclose(mean, (200, 30, 60), atol=6)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_masks(tmp_path, mode):
    image = Image.fromarray(RGB).convert(mode)
    alpha = np.full(RGB.shape[:2], 255, "uint8")
    alpha[1, 2], alpha[0, 0] = 0, 1  # half transparent is still data
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert len(read.array) == len(mode) - 1
    assert np.argwhere(~read.valid).tolist() == [[1, 2]]


def test_transparent_colour_masks(tmp_path):
    array = RGB.copy()
    array[2, 3] = (1, 2, 3)
    Image.fromarray(array).save(tmp_path / "a.png", transparency=(1, 2, 3))
    assert np.argwhere(~read_image(tmp_path / "a.png").valid).tolist() == [[2, 3]]


def test_16_bit_grey_and_16_bit_colour_keep_their_bits(tmp_path):
    import rasterio

    grey = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1300
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png").array[0], grey)
    color = np.stack([grey, grey + 1, grey + 2])
    profile = {"driver": "PNG", "count": 3, "height": 6, "width": 8, "dtype": "uint16"}
    with rasterio.open(tmp_path / "color.png", "w", transform=rasterio.Affine(2, 0, 0, 0, 2, 0), **profile) as sink:
        sink.write(color)
    read = read_image(tmp_path / "color.png")
    assert read.dtype == "uint16"
    np.testing.assert_array_equal(read.array, color)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_makes_the_picture_upright(tmp_path, orientation, suffix):
    """The oracle is the definition: row 0 and column 0 of the stored picture are these sides of the upright one."""
    upright = np.zeros((16, 24), "uint8")
    upright[:8, :8] = 255  # bright at the upper left
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a.{suffix}", exif=exif)
    read = read_image(tmp_path / f"a.{suffix}").array[0]
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).max() < 30


def test_content_counts_not_the_suffix(tmp_path):
    write_png(tmp_path / "a.jpg", RGB, format="PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg").array, RGB.transpose(2, 0, 1))


def test_band_choice_of_a_photograph(tmp_path):
    path = write_png(tmp_path / "a.png", RGB)
    np.testing.assert_array_equal(read_image(path, bands=["blue", 1]).array, RGB.transpose(2, 0, 1)[[2, 0]])
