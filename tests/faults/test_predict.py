"""What must happen when `fpn predict` is given bad or unusual images; the numbers are those of faults.md."""

import os
import zlib

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from made_data import write_png, write_tiff
from tiny_model import BANDS, IDS, tiny_task
from torchfpn.cli.main import main

PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 5e6), "photometric": "MINISBLACK"}


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "photo.safetensors"
    tiny_task(bands=BANDS[:3], dtype="uint8").save(path)
    return path


@pytest.fixture(scope="module")
def four_bands(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "four.safetensors"
    tiny_task().save(path)
    return path


def run(*words):
    return main(["predict", *map(str, words), "--device", "cpu"])


def rgb(size=(24, 30), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def answer(array, task=None):
    """Label values of an RGB array [H, W, 3] by the model itself."""
    task = task or tiny_task(bands=BANDS[:3], dtype="uint8")
    image = torch.from_numpy(np.moveaxis(array.astype(np.float32), -1, 0).copy())
    return np.array([*IDS, *[0] * 253])[task.predict([image])[0].labels.numpy()]


def lines(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line]


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "s2.safetensors"
    tiny_task(bands=("B02", "B03", "B04", "B08")).save(path)
    return path


class TestBands:
    """Files whose bands are not called as the model's."""

    def scene(self, path, order=(0, 1, 2, 3), dtype="uint16", **options):
        array = np.random.default_rng(3).integers(0, 1000, (4, 40, 48)).astype(dtype)
        return write_tiff(path, array[list(order)], **options, **PLACE)

    @pytest.mark.parametrize("more", [(), ("--tile-size", 32)], ids=["whole", "windows"])
    def test_other_spellings_are_read_by_name(self, sentinel, tmp_path, more):
        self.scene(tmp_path / "plain.tif")
        self.scene(tmp_path / "numbers.tif", (3, 2, 1, 0), descriptions=("B8", "B4", "B3", "B2"))
        self.scene(tmp_path / "words.tif", (3, 2, 1, 0), descriptions=("NIR", "red", "green", "blue"))
        assert run(sentinel, *sorted(tmp_path.glob("*.tif")), "--out", tmp_path / "out", *more) == 0
        answers = []
        for name in ("plain", "numbers", "words"):
            with rasterio.open(tmp_path / f"out/{name}.tif") as source:
                answers.append(source.read(1))
        assert len(np.unique(answers[0])) > 1
        np.testing.assert_array_equal(answers[0], answers[1])
        np.testing.assert_array_equal(answers[0], answers[2])

    @pytest.mark.parametrize("more", [(), ("--tile-size", 32)], ids=["whole", "windows"])
    def test_other_names_are_refused_unless_chosen(self, sentinel, tmp_path, capsys, more):
        path = self.scene(tmp_path / "a.tif", descriptions=("vv", "vh", "red", "nir"))
        assert run(sentinel, path, "--out", tmp_path / "out", *more) == 2
        (line,) = lines(capsys)
        assert "a.tif: names its bands vv, vh, red, nir; expected 4, as the model has (B02, B03, B04, B08); " in line
        assert "--bands" in line
        assert run(sentinel, path, "--out", tmp_path / "out", "--bands", "1,2,3,4", *more) == 0

    def test_a_fourth_band_taken_for_alpha_is_told_with_the_cure(self, sentinel, tmp_path, capsys):
        array = np.random.default_rng(3).integers(0, 255, (4, 40, 48)).astype("uint8")
        path = write_tiff(tmp_path / "a.tif", array)  # GDAL marks the fourth band, since nobody says what it is
        assert run(sentinel, path, "--out", tmp_path / "out", "--accept-dtype") == 2
        (line,) = lines(capsys)
        assert "has 3 bands (red, green, blue)" in line
        assert line.endswith("band 4 is marked as alpha and taken for a mask; if it is data: --bands 1,2,3,4")
        assert run(sentinel, path, "--out", tmp_path / "out", "--accept-dtype", "--bands", "1,2,3,4") == 0

    @pytest.mark.parametrize("more", [(), ("--tile-size", 32)], ids=["whole", "windows"])
    def test_the_number_of_bands_is_told_before_a_pixel_is_decoded(self, sentinel, tmp_path, capsys, more):
        """The blocks of the file are rubbish: who decodes one fails differently."""
        path = tmp_path / "a.tif"
        write_tiff(
            path, np.zeros((2, 64, 64), "uint16"), compress="deflate", tiled=True, blockxsize=16, blockysize=16, **PLACE
        )
        with rasterio.open(path) as source:
            offset, size = (int(source.get_tag_item(f"BLOCK_{what}_0_0", "TIFF", 1)) for what in ("OFFSET", "SIZE"))
        data = bytearray(path.read_bytes())
        data[offset : offset + size] = bytes(size)
        path.write_bytes(data)
        assert run(sentinel, path, "--out", tmp_path / "out", *more) == 2
        (line,) = lines(capsys)
        assert "a.tif: has 2 bands (band1, band2); expected 4, as the model has" in line


@pytest.mark.parametrize("more", [(), ("--tile-size", 32)], ids=["whole", "windows"])
def test_the_first_of_several_pages_is_taken_and_told(photo, tmp_path, capsys, more):
    pages = [Image.fromarray(rgb((40, 48), seed)) for seed in range(3)]
    pages[0].save(tmp_path / "one.tif")
    pages[0].save(tmp_path / "three.tif", save_all=True, append_images=pages[1:])
    assert run(photo, tmp_path / "one.tif", tmp_path / "three.tif", "--out", tmp_path / "out", *more) == 0
    assert [line for line in lines(capsys) if "page" in line] == [
        f"fpn: {tmp_path / 'three.tif'}: has 3 pages, of which page 1 is taken; write the others to files of their own"
        " (tiffsplit)"
    ]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_the_first_of_several_pictures_in_a_photograph_is_taken_and_told(photo, tmp_path, capsys, suffix):
    """Animated PNG, and the JPEG of a camera that takes several views (MPO)."""
    frames = [Image.fromarray(rgb((40, 48), seed)) for seed in range(3)]
    path = tmp_path / f"many.{suffix}"
    options = {"format": "MPO", "save_all": True} if suffix != "png" else {"save_all": True}
    frames[0].save(path, append_images=frames[1:], **options)
    frames[0].save(tmp_path / f"one.{suffix}")
    assert run(photo, path, path.with_stem("one"), "--out", tmp_path / "out") == 0
    assert [line for line in lines(capsys) if "picture" in line] == [
        f"fpn: {path}: has 3 pictures, of which picture 1 is taken; write the others to files of their own"
    ]
    taken = [np.array(Image.open(tmp_path / "out" / f"{name}.png")) for name in ("one", "many")]
    np.testing.assert_array_equal(*taken)


@pytest.mark.parametrize("more", [(), ("--tile-size", 32)], ids=["whole", "windows"])
def test_values_too_fine_for_float32_are_told(four_bands, tmp_path, capsys, more):
    array = 1e9 + np.random.default_rng(0).normal(size=(4, 40, 48))
    write_tiff(tmp_path / "fine.tif", array, **PLACE)
    write_tiff(tmp_path / "plain.tif", array - 1e9, **PLACE)
    sources = [tmp_path / "fine.tif", tmp_path / "plain.tif"]
    assert run(four_bands, *sources, "--out", tmp_path / "out", "--accept-dtype", *more) == 0
    (line,) = lines(capsys)
    assert "fine.tif: float32, which models compute in, is too coarse for the bands band1 (999999" in line


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg", "cut.tif"])
def test_fault_01_a_truncated_image_fails_and_the_others_go_on(photo, tmp_path, capsys, name):
    whole = tmp_path / f"whole{name[3:]}"
    if name.endswith("tif"):
        write_tiff(whole, np.moveaxis(rgb((200, 200)), -1, 0).copy(), photometric="RGB")
    else:
        Image.fromarray(rgb((200, 200))).save(whole)
    data = whole.read_bytes()
    whole.unlink()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    for good in ("a.png", "z.png"):
        write_png(tmp_path / good, rgb())
    assert run(photo, tmp_path / "a.png", tmp_path / name, tmp_path / "z.png", "--out", tmp_path / "out") == 1
    captured = capsys.readouterr()
    (error,) = [line for line in captured.err.splitlines() if line]
    assert error.startswith(f"fpn: {tmp_path / name}: ")
    assert "2 predicted, 1 failed" in captured.out
    assert sorted(p.name for p in (tmp_path / "out").glob("[!.]*")) == ["a.png", "z.png"]


@pytest.mark.parametrize("kind", ["zero", "text", "folder"])
def test_fault_02_empty_text_and_folders_called_tif(photo, tmp_path, capsys, kind):
    path = tmp_path / "x.tif"
    if kind == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("nothing to see")
    else:
        path.write_text("" if kind == "zero" else "this is no image\n" * 40)
    assert run(photo, path, "--out", tmp_path / "out") == 2
    (error,) = lines(capsys)
    assert str(path) in error
    said = {"zero": "empty file (0 bytes)", "text": "not an image this program reads", "folder": "no image found"}
    assert said[kind] in error


def test_fault_05_an_image_that_is_a_bomb_is_refused_before_it_is_decoded(photo, tmp_path, capsys):
    write_png(tmp_path / "bomb.png", np.zeros((400, 500), np.uint8))
    assert run(photo, tmp_path / "bomb.png", "--out", tmp_path / "out", "--max-pixels", 199_999) == 2
    (error,) = lines(capsys)
    assert "500 x 400 = 200000 pixels; expected at most 199999" in error
    assert "--max-pixels" in error
    huge = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\x0f\xff\xff\0\x0f\xff\xff\x08\x02\0\0\0"  # a million squared, in 33 bytes
    (tmp_path / "huge.png").write_bytes(huge + zlib.crc32(huge[12:]).to_bytes(4, "big") + b"\0\0\0\0IDAT5\xaf\x06\x1e")
    assert run(photo, tmp_path / "huge.png", "--out", tmp_path / "out") == 2
    (error,) = lines(capsys)
    assert "huge.png" in error
    assert "pixels" in error


def test_fault_07_another_number_of_bands_is_refused_with_their_names(four_bands, tmp_path, capsys):
    write_png(tmp_path / "a.png", rgb())
    assert run(four_bands, tmp_path / "a.png", "--out", tmp_path / "out") == 2
    (error,) = lines(capsys)
    assert (
        f"{tmp_path / 'a.png'}: has 3 bands (red, green, blue); expected 4, as the model has (red, green, blue, nir)"
        in error
    )
    assert not list((tmp_path / "out").iterdir())


def test_fault_08_another_pixel_type_is_never_rescaled_in_silence(four_bands, tmp_path, capsys):
    array = np.random.default_rng(0).integers(1, 250, (4, 20, 22), dtype=np.uint8)
    write_tiff(tmp_path / "a.tif", array, descriptions=BANDS, **PLACE)
    assert run(four_bands, tmp_path / "a.tif", "--out", tmp_path / "out") == 2
    (error,) = lines(capsys)
    assert "a.tif: holds uint8; expected uint16, as the model was trained on; " in error
    assert "--accept-dtype" in error
    assert run(four_bands, tmp_path / "a.tif", "--out", tmp_path / "out", "--accept-dtype") == 0
    same = tiny_task().predict(torch.from_numpy(array.astype(np.float32))[None])[0].labels.numpy()
    with rasterio.open(tmp_path / "out" / "a.tif") as source:
        assert np.array_equal(source.read(1), np.array(IDS)[same])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -9999.0])
def test_fault_09_pixels_without_data_are_never_seen_and_stay_empty(tmp_path, capsys, bad):
    tiny_task(dtype="float32").save(tmp_path / "m.safetensors")
    array = np.random.default_rng(0).uniform(1, 1000, (4, 40, 44)).astype(np.float32)
    filled = array.copy()
    array[1, 5:9, 6:13] = bad
    write_tiff(tmp_path / "a.tif", array, nodata=-9999.0, **PLACE)
    assert (
        run(tmp_path / "m.safetensors", tmp_path / "a.tif", "--out", tmp_path / "out", "--probabilities", "float32")
        == 0
    )
    with rasterio.open(tmp_path / "out" / "a.tif") as source:
        labels = source.read(1)
    empty = np.zeros((40, 44), bool)
    empty[5:9, 6:13] = True
    assert np.array_equal(labels == 0, empty)
    with rasterio.open(tmp_path / "out" / "a.probs.tif") as source:
        assert np.array_equal(np.isnan(source.read()), np.broadcast_to(empty, (3, 40, 44)))
    assert "28 pixels without data" in capsys.readouterr().out
    filled[:, empty] = 500.0  # the network sees the mean there: the same answer as for an image that holds it
    same = tiny_task().predict(torch.from_numpy(filled)[None])[0].labels.numpy()
    assert np.array_equal(labels[~empty], np.array(IDS)[same][~empty])


def test_fault_10_a_raster_without_any_data_is_all_nodata(four_bands, tmp_path, capsys):
    array = np.full((4, 10, 12), 7, np.uint16)
    write_tiff(tmp_path / "b.tif", array, nodata=7, **PLACE)
    array[:, 1:] = 500
    write_tiff(tmp_path / "a.tif", array, nodata=7, **PLACE)
    sources = (tmp_path / "a.tif", tmp_path / "b.tif")
    assert run(four_bands, *sources, "--out", tmp_path / "out", "--polygons", "geojson") == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [f"fpn: {tmp_path / 'b.tif'}: contains no valid pixel"]
    assert "b.tif  12 x 10, 0 polygons, 120 pixels without data" in captured.out
    with rasterio.open(tmp_path / "out" / "b.tif") as source:
        assert not source.read(1).any()
        assert source.nodata == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (40, 1), (31, 33), (7, 9)])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_fault_14_any_size_comes_back_as_it_was(photo, tmp_path, size, ending):
    array, path = rgb(size), tmp_path / f"a.{ending}"
    if ending == "png":
        write_png(path, array)
    else:
        write_tiff(path, np.moveaxis(array, -1, 0).copy(), photometric="RGB")
    assert run(photo, path, "--out", tmp_path / "out") == 0
    with Image.open(tmp_path / "out" / f"a.{ending}") as picture:
        labels = np.asarray(picture)
    assert labels.shape == size
    assert np.array_equal(labels, answer(array))


def test_fault_16_unusual_pictures_are_converted_as_documented(photo, tmp_path):
    array = rgb((20, 28))
    picture = Image.fromarray(array)
    cases = {}
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    picture.save(tmp_path / "turned.jpg", quality=100, subsampling=0, exif=exif)
    cases["turned"] = np.asarray(Image.open(tmp_path / "turned.jpg").transpose(Image.Transpose.ROTATE_270))
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    cases["cmyk"] = np.asarray(Image.open(tmp_path / "cmyk.jpg").convert("RGB"))
    picture.quantize(16).save(tmp_path / "palette.png")
    cases["palette"] = np.asarray(Image.open(tmp_path / "palette.png").convert("RGB"))
    assert run(photo, tmp_path, "--out", tmp_path / "out") == 0
    for stem, seen in cases.items():
        labels = np.asarray(Image.open(tmp_path / "out" / f"{stem}.png"))
        assert labels.shape == seen.shape[:2], stem
        assert np.array_equal(labels, answer(seen)), stem


def test_fault_16_grey_with_alpha_and_sixteen_bits(tmp_path, capsys):
    tiny_task(bands=("grey",), dtype="uint8").save(tmp_path / "grey.safetensors")
    grey = np.random.default_rng(0).integers(0, 256, (16, 18, 2), dtype=np.uint8)
    grey[..., 1] = 255
    grey[3:5, 4:9, 1] = 0
    Image.fromarray(grey).save(tmp_path / "alpha.png")  # two channels: LA
    assert run(tmp_path / "grey.safetensors", tmp_path / "alpha.png", "--out", tmp_path / "out") == 0
    labels = np.asarray(Image.open(tmp_path / "out" / "alpha.png"))
    assert np.array_equal(labels == 0, grey[..., 1] == 0)
    capsys.readouterr()
    Image.fromarray(grey[..., 0].astype(np.uint16) * 200).save(tmp_path / "deep.png")
    assert run(tmp_path / "grey.safetensors", tmp_path / "deep.png", "--out", tmp_path / "out") == 2
    assert "deep.png: holds uint16; expected uint8, as the model was trained on" in lines(capsys)[0]
    assert run(tmp_path / "grey.safetensors", tmp_path / "deep.png", "--out", tmp_path / "out", "--accept-dtype") == 0


@pytest.mark.parametrize(
    "name",
    ["two words.png", "line\nbreak.png", "Straße ☃.png", "n" * 246 + ".png", b"\xff\xfe.png", "-q.png", "[1]*.png"],
)
def test_fault_17_unusual_names_work(photo, tmp_path, capsys, name):
    name = os.fsdecode(name)
    folder = tmp_path / "in"
    folder.mkdir()
    write_png(tmp_path / "plain.png", rgb())
    (tmp_path / "plain.png").rename(folder / name)
    assert run(photo, folder, "--out", tmp_path / "out") == 0
    assert [p.name for p in (tmp_path / "out").glob("[!.]*")] == [name]
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2
    out.encode()


def test_fault_17_a_loop_of_links_and_a_name_that_is_too_long(photo, tmp_path, capsys):
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    write_png(tmp_path / "good.png", rgb())
    sources = (tmp_path / "loop.png", tmp_path / "good.png", "--out", tmp_path / "out")
    assert run(photo, *sources) == 1
    (error,) = lines(capsys)
    assert "loop.png: cannot be opened" in error
    (tmp_path / f"{'n' * 246}.png").write_bytes((tmp_path / "good.png").read_bytes())
    assert run(photo, tmp_path / f"{'n' * 246}.png", "--out", tmp_path / "out", "--overlay") == 2
    assert "the name is too long" in lines(capsys)[0]
