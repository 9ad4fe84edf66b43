"""fpn predict: files in, label files out, as a user runs it."""

import json

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.crs import CRS

from made_data import write_png, write_tiff
from tiny_model import BANDS, COLORS, IDS, tiny_task
from torchfpn.cli.main import main

TRANSFORM = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_800_000)
CRS_33 = CRS.from_epsg(32633)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    tiny_task().save(path)
    return path


@pytest.fixture(scope="module")
def photo_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "photo.safetensors"
    tiny_task(bands=BANDS[:3], dtype="uint8").save(path)
    return path


def raster(path, size=(40, 50), seed=0, dtype="uint16", bands=4, **profile):
    rng = np.random.default_rng(seed)
    array = rng.integers(1, 250 if dtype == "uint8" else 1000, (bands, *size)).astype(dtype)
    profile = {"crs": CRS_33, "transform": TRANSFORM, "photometric": "MINISBLACK"} | profile
    write_tiff(path, array, **profile)
    return array


def run(*words):
    return main(["predict", *map(str, words)])


def expected(array, task):
    labels = task.predict(torch.from_numpy(array.astype(np.float32))[None])[0].labels.numpy()
    return np.array(IDS)[labels]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mosaic", "town"], "a map of several files is; expected an image that is read whole; leave out --overlay"),
        (
            ["--tile-size", "32"],
            "with --tile-size or --blend all are; expected an image that is read whole; leave out",
        ),
        (["--max-pixels", "100"], "more than --max-pixels are; expected an image that is read whole; allow more"),
    ],
)
def test_why_there_is_no_overlay_of_what_is_read_by_windows(model, tmp_path, capsys, words, said):
    (tmp_path / "a").mkdir()
    for i in range(2):
        raster(tmp_path / "a" / f"{i}.tif", transform=TRANSFORM @ rasterio.Affine.translation(50 * i, 0))
    mosaic = words[0] == "--mosaic"
    source = tmp_path / "a" if mosaic else tmp_path / "a" / "0.tif"
    assert run(model, source, "--out", tmp_path / "out", "--overlay", *words) == 2
    line = capsys.readouterr().err
    assert f"overlay: {100 if mosaic else 50} x 40 pixels, read by windows: " in line, line
    assert said in line


def test_a_geotiff_becomes_one_with_the_values_of_the_training_data(model, tmp_path, capsys):
    array = raster(tmp_path / "a.tif")
    assert run(model, tmp_path / "a.tif", "--out", tmp_path / "out") == 0
    with rasterio.open(tmp_path / "out" / "a.tif") as source:
        labels = source.read(1)
        assert source.crs == CRS_33
        assert source.transform == TRANSFORM
        assert source.nodata == 0
        assert source.colormap(1)[7][:3] == COLORS[2]
    assert np.array_equal(labels, expected(array, tiny_task()))
    assert len(np.unique(labels)) == 3
    out = capsys.readouterr().out
    assert "a.tif  50 x 40" in out
    assert out.splitlines()[-1].startswith("1 predicted, 0 failed, 0.00 million pixels")


def test_pictures_folders_and_patterns(photo_model, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    arrays = {}
    for i, name in enumerate(("a.png", "b.png")):
        arrays[name] = np.random.default_rng(i).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        write_png(folder / name, arrays[name])
    write_png(tmp_path / "c.png", arrays["a.png"])
    assert run(photo_model, folder, tmp_path / "c*.png", "--out", tmp_path / "out", "--device", "cpu") == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("[!.]*")) == ["a.png", "b.png", "c.png"]
    task = tiny_task(bands=BANDS[:3], dtype="uint8")
    for name, array in arrays.items():
        picture = Image.open(tmp_path / "out" / name)
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), expected(np.moveaxis(array, -1, 0), task))
    assert "3 predicted, 0 failed" in capsys.readouterr().out


def test_overlay_probabilities_and_polygons(model, tmp_path):
    array = raster(tmp_path / "a.tif")
    words = (
        "--overlay",
        "--probabilities",
        "float32",
        "--polygons",
        "geojson",
        "--vectorize",
        "roof, road",
        "--min-pixels",
        2,
    )
    assert run(model, tmp_path / "a.tif", "--out", tmp_path / "out", *words) == 0
    out = tmp_path / "out"
    assert sorted(p.name for p in out.glob("[!.]*")) == ["a.geojson", "a.overlay.png", "a.probs.tif", "a.tif"]
    with Image.open(out / "a.overlay.png") as picture:
        assert picture.width == 160  # that of the legend below
        assert picture.height > 40
    with rasterio.open(out / "a.probs.tif") as source, rasterio.open(out / "a.tif") as labels:
        shares, values = source.read(), labels.read(1)
        assert source.descriptions == ("grass", "road", "roof")
    assert np.allclose(shares.sum(0), 1, atol=1e-5)
    assert np.array_equal(np.array(IDS)[shares.argmax(0)], values)
    logits = tiny_task().logits(torch.from_numpy(array.astype(np.float32))[None])
    assert np.allclose(shares, logits.detach().softmax(1)[0].numpy(), atol=1e-6)
    features = json.loads((out / "a.geojson").read_text())["features"]
    assert {f["properties"]["class"] for f in features} == {"roof", "road"}
    assert {f["properties"]["class_id"] for f in features} == {2, 7}
    assert all(14 < x < 16 and 52 < y < 53 for x, y in features[0]["geometry"]["coordinates"][0])


def test_probabilities_of_pictures_in_bytes(photo_model, tmp_path):
    write_png(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    assert run(photo_model, tmp_path / "a.png", "--out", tmp_path / "out", "--probabilities", "uint8") == 0
    with np.load(tmp_path / "out" / "a.probs.npz") as held:
        shares = held["probabilities"]
    assert shares.dtype == np.uint8
    assert np.abs(shares.astype(int).sum(0) - 255).max() <= 2


def test_bands_are_taken_by_name_or_as_told(model, tmp_path):
    array = raster(tmp_path / "a.tif")
    mixed = np.stack([array[3], np.zeros_like(array[0]), array[2], array[0], array[1]])
    named = ("nir", "swir", "blue", "red", "green")
    place = {"crs": CRS_33, "transform": TRANSFORM, "photometric": "MINISBLACK"}
    write_tiff(tmp_path / "named.tif", mixed, descriptions=named, **place)
    write_tiff(tmp_path / "plain.tif", mixed, **place)
    assert run(model, tmp_path / "named.tif", "--out", tmp_path / "out") == 0
    assert run(model, tmp_path / "plain.tif", "--out", tmp_path / "out", "--bands", "4,5,3,1") == 0
    for name in ("named.tif", "plain.tif"):
        with rasterio.open(tmp_path / "out" / name) as source:
            assert np.array_equal(source.read(1), expected(array, tiny_task()))


def test_polygons_need_a_place_unless_pixels_are_asked_for(model, tmp_path, capsys):
    raster(tmp_path / "a.tif", crs=None)
    assert run(model, tmp_path / "a.tif", "--out", tmp_path / "out", "--polygons", "geojson") == 2
    assert "no coordinate system, so no longitude and latitude; give --assume-crs" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())
    words = ("--polygons", "geojson", "--assume-crs", "EPSG:32633")
    assert run(model, tmp_path / "a.tif", "--out", tmp_path / "out", *words) == 0
    raster(tmp_path / "b.tif", crs=None, transform=None)
    assert run(model, tmp_path / "b.tif", "--out", tmp_path / "out", "--polygons", "pixels") == 0
    held = json.loads((tmp_path / "out" / "b.pixels.json").read_text())
    assert held["coordinates"] == "pixels: column, row"
    assert {f["properties"]["class"] for f in held["features"]} == {"grass", "road", "roof"}


def test_nothing_is_overwritten_unasked(model, tmp_path, capsys):
    raster(tmp_path / "a.tif")
    raster(tmp_path / "b.tif", seed=1)
    out = tmp_path / "out"
    assert run(model, tmp_path / "a.tif", "--out", out) == 0
    before = (out / "a.tif").read_bytes()
    assert run(model, tmp_path / "a.tif", tmp_path / "b.tif", "--out", out) == 2
    assert "1 file already exists" in capsys.readouterr().err
    assert sorted(p.name for p in out.glob("[!.]*")) == ["a.tif"]
    assert run(model, tmp_path / "a.tif", tmp_path / "b.tif", "--out", out, "--overwrite") == 0
    assert (out / "a.tif").read_bytes() == before
    assert run(model, tmp_path / "a.tif", "--out", tmp_path, "--overwrite") == 2
    assert "its own output" in capsys.readouterr().err


def test_bf16_is_nearly_the_same(model, tmp_path):
    raster(tmp_path / "a.tif")
    for precision in ("fp32", "bf16"):
        assert run(model, tmp_path / "a.tif", "--out", tmp_path / precision, "--precision", precision) == 0
    maps = [rasterio.open(tmp_path / p / "a.tif").read(1) for p in ("fp32", "bf16")]
    assert (maps[0] == maps[1]).mean() > 0.9


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "cuda:7"], 'device: "cuda:7"; expected cpu'),
        (["--assume-crs", "nonsense"], 'assume-crs: "nonsense"'),
        (["--vectorize", "rof", "--polygons", "pixels"], 'did you mean "roof"'),
        (["--min-pixels", "-1"], "--min-pixels: -1.0"),
        (["--tile-size", "60"], "tile size: 60; expected a multiple of 8 pixels"),
        (["--bands", "1,2,3,9"], "band 9 is wanted"),
        (["--bands", "1,2"], "has 2 bands (band1, band2); expected 4, as the model has (red, green, blue, nir)"),
    ],
)
def test_bad_usage_is_one_line(model, tmp_path, capsys, words, said):
    raster(tmp_path / "a.tif")
    assert run(model, tmp_path / "a.tif", "--out", tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_no_sources_no_model_no_folder(model, tmp_path, capsys):
    raster(tmp_path / "a.tif")
    (tmp_path / "file").write_text("")
    assert run(model, tmp_path / "none.tif", "--out", tmp_path / "out") == 2
    assert run(tmp_path / "none.safetensors", tmp_path / "a.tif", "--out", tmp_path / "out") == 2
    assert run(model, tmp_path / "a.tif", "--out", tmp_path / "file" / "x") == 2
    assert run(model, tmp_path / "a.tif") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fpn:")]
    assert "no image found" in errors[0]
    assert "none.safetensors" in errors[1]
    assert "cannot be written to (Not a directory)" in errors[2]


@pytest.mark.parametrize("windows", [[], ["--tile-size", "32"]], ids=["whole", "windows"])
def test_answers_that_are_not_finite_are_no_labels(windows, tmp_path, capsys):
    task = tiny_task()
    with torch.no_grad():
        task.model.head.classify.weight.fill_(3e38)  # finite: a file with NaN is refused when it is saved
    task.save(tmp_path / "model.safetensors")
    raster(tmp_path / "a.tif")
    assert run(tmp_path / "model.safetensors", tmp_path / "a.tif", "--out", tmp_path / "out", *windows) != 0
    assert "the model gives NaN or infinity for" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out" / "a.tif").exists()
