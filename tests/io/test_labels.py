"""Label files in and out: values kept exactly, in every form they come in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from made_data import picture, write_png, write_tiff
from torchfpn.errors import DataError
from torchfpn.io.labels import read_labels, read_legend, write_label_png

VALUES = np.array([[0, 1, 2], [3, 200, 255]], "uint8")


def test_grey_palette_and_tiff_give_the_same_values(tmp_path):
    write_png(tmp_path / "l.png", VALUES)
    image = Image.fromarray(VALUES)
    image.putpalette([c for i in range(256) for c in (255 - i, i, 7)])
    image.save(tmp_path / "p.png")
    write_tiff(tmp_path / "t.tif", VALUES[None])
    write_tiff(tmp_path / "f.tif", VALUES[None].astype("float32"))
    write_tiff(tmp_path / "u.tif", VALUES[None].astype("uint16"))
    for name in ("l.png", "p.png", "t.tif", "f.tif", "u.tif"):
        np.testing.assert_array_equal(read_labels(tmp_path / name).values, VALUES, err_msg=name)


def test_16_bit_and_1_bit_png(tmp_path):
    deep = np.array([[0, 300], [65535, 7]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "deep.png").values, deep)
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bit.png")
    assert read_labels(tmp_path / "bit.png").values.tolist() == [[1, 0]]


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@settings(max_examples=25, deadline=None)
def test_palette_png_round_trip(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("labels") / "a.png"
    write_label_png(path, values, {0: (9, 8, 7), 3: (255, 0, 1)})
    np.testing.assert_array_equal(read_labels(path).values, values)
    image = Image.open(path)
    assert image.mode == "P"
    assert np.array(image.convert("RGB"))[values == 3].tolist() == [[255, 0, 1]] * int((values == 3).sum())
    assert path.read_bytes()[24] == 8  # bits


def test_png_refuses_what_it_cannot_hold(tmp_path):
    with pytest.raises(DataError, match="write a GeoTIFF"):
        write_label_png(tmp_path / "a.png", np.array([[256]]))
    assert not list(tmp_path.iterdir())


def test_colours_as_codes(tmp_path):
    array = picture(0, (3, 4))
    codes = read_labels(write_png(tmp_path / "a.png", array), colors=True).values
    assert codes[1, 2] == int(array[1, 2, 0]) * 65536 + int(array[1, 2, 1]) * 256 + int(array[1, 2, 2])
    image = Image.fromarray(VALUES)
    image.putpalette([c for i in range(256) for c in (i, 0, 0)])
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "p.png", colors=True).values, VALUES.astype(int) << 16)


@pytest.mark.parametrize("array", [np.array([[[0.5]]]), np.array([[[np.nan]]])], ids=["half", "nan"])
def test_fractions_are_no_labels(tmp_path, array):
    with pytest.raises(DataError, match="no whole numbers"):
        read_labels(write_tiff(tmp_path / "a.tif", array.astype("float32")))


def test_jpeg_is_no_label_file(tmp_path):
    Image.fromarray(VALUES).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="JPEG, which may change the values"):
        read_labels(tmp_path / "a.jpg")


def test_legend_of_a_palette(tmp_path):
    write_label_png(tmp_path / "a.png", VALUES, [(1, 2, 3), (4, 5, 6)])
    names, colors = read_legend(tmp_path / "a.png")
    assert names == {}
    assert (colors[0], colors[1]) == ((1, 2, 3), (4, 5, 6))
