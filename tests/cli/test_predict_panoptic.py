"""fpn predict with panoptic models: annotations of all images, segments, overlay and polygons of each."""

import json

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
from PIL import Image

import torchfpn
from cli.test_predict_objects import CRS_33, TRANSFORM, raster
from made_data import picture, write_png
from tiny_detector import tiny_detector
from torchfpn.cli.main import main
from torchfpn.io.segment_png import read_segment_png
from torchfpn.metrics import panoptic_quality

THINGS, STUFF, IDS = ["car", "tree"], ["road", "sky", "sea"], (11, 12, 21, 22, 23)


def tiny_panoptic(**options):
    """A task that finds several things and several kinds of stuff in noise."""
    torch.manual_seed(0)
    rules = options.pop("rules", {"panoptic": {"score": 0.0, "stuff_area": 0}})
    task = torchfpn.create_task(
        "panoptic", backbone="test_resnet", things=THINGS, stuff=STUFF, channels=16, head_channels=16, dtype="uint8",
        bands=("red", "green", "blue"), label_ids=IDS, rules=rules,
        head_options={"regions": {"hidden": 16, "proposals": 20, "mask_hidden": 16, "threshold": 0.0}}, **options,
    )  # fmt: skip
    return task.eval()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "panoptic.safetensors"
    tiny_panoptic().save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for k in range(2):
        write_png(tmp_path / "photos" / f"{k}.png", picture(k, (40, 56)))
    return tmp_path / "photos"


def run(*words):
    return main(["predict", *map(str, words), "--device", "cpu"])


def test_photos_become_annotations_that_score_perfectly_against_themselves(model, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(model, photos, "--out", out, "--overlay", "--polygons", "pixels") == 0
    shown = capsys.readouterr().out
    assert "segments of stuff" in shown or "segment of stuff" in shown
    value = json.loads((out / "panoptic.json").read_text())
    assert [c["id"] for c in value["categories"]] == list(IDS)
    assert [c["isthing"] for c in value["categories"]] == [1, 1, 0, 0, 0]
    assert [image["file_name"] for image in value["images"]] == ["0.png", "1.png"]
    task = torchfpn.load(model)
    for k, one in enumerate(value["annotations"]):
        (found,) = task.predict([photos / f"{k}.png"])
        ids = read_segment_png(out / "panoptic" / one["file_name"])
        np.testing.assert_array_equal(ids, found.segments.numpy())
        infos = {info.id: info for info in found.segments_info}
        for record in one["segments_info"]:
            info = infos[record["id"]]
            assert record["category_id"] == IDS[info.label]
            assert (record["area"], record["score"]) == (info.area, round(info.score, 6))
        features = json.loads((out / f"{k}.pixels.json").read_text())["features"]
        assert sorted(f["properties"]["id"] for f in features) == sorted(infos)
        for feature in features:
            info, shape = infos[feature["properties"]["id"]], shapely.geometry.shape(feature["geometry"])
            assert shape.area == feature["properties"]["area"] == info.area
            assert feature["properties"]["isthing"] == int(info.isthing)
            assert feature["properties"]["class_id"] == IDS[info.label]
        with Image.open(out / f"{k}.overlay.png") as overlay:
            assert overlay.width >= 56
    scores = panoptic_quality(*[out / "panoptic.json", out / "panoptic"] * 2)
    assert scores.pq == 1


@pytest.mark.parametrize("kind", ["gpkg", "geojson", "fgb"])
def test_rasters_become_segments_on_the_map(model, tmp_path, kind):
    raster(tmp_path / "scene.tif")
    assert run(model, tmp_path / "scene.tif", "--out", tmp_path / "out", "--polygons", kind) == 0
    with rasterio.open(tmp_path / "out" / "scene.tif") as source:
        ids = source.read(1)
        assert (source.dtypes, source.nodata, source.descriptions) == (("uint32",), 0, ("segment",))
        assert (source.crs, source.transform) == (CRS_33, TRANSFORM)
    np.testing.assert_array_equal(ids, read_segment_png(tmp_path / "out" / "panoptic" / "scene.png"))
    layer = pyogrio.raw.read(tmp_path / "out" / f"scene.{kind}")
    names = list(layer[0]["fields"])
    assert names == ["id", "isthing", "class", "class_id", "score", "area"]
    columns = dict(zip(names, layer[3], strict=True))
    numbers, counts = np.unique(ids[ids > 0], return_counts=True)
    order = np.argsort(columns["id"])
    np.testing.assert_array_equal(np.asarray(columns["id"])[order], numbers)
    pixel = 0.25
    np.testing.assert_allclose(np.asarray(columns["area"])[order], counts * pixel, rtol=2e-3)
    if kind == "gpkg":  # in the system of the image, along its pixels
        shapes = shapely.from_wkb(layer[2])[order]
        np.testing.assert_allclose(shapely.area(shapes), counts * pixel, rtol=1e-9)


def test_pixels_without_data_are_of_no_segment(model, tmp_path):
    array = raster(tmp_path / "scene.tif")
    array[:, :, :20] = 0
    with rasterio.open(tmp_path / "scene.tif", "r+") as source:
        source.nodata = 0
        source.write(array)
    raster(tmp_path / "nothing.tif")
    with rasterio.open(tmp_path / "nothing.tif", "r+") as source:
        source.nodata = 0
        source.write(np.zeros_like(array))
    sources = tmp_path / "scene.tif", tmp_path / "nothing.tif"
    assert run(model, *sources, "--out", tmp_path / "out", "--polygons", "gpkg") == 0
    with rasterio.open(tmp_path / "out" / "scene.tif") as source:
        ids = source.read(1)
    assert (ids[:, :20] == 0).all()
    assert ids[:, 20:].any()
    with rasterio.open(tmp_path / "out" / "nothing.tif") as source:
        assert not source.read(1).any()
    assert pyogrio.read_info(tmp_path / "out" / "nothing.gpkg")["features"] == 0


def test_vectorize_picks_classes(model, photos, tmp_path):
    assert run(model, photos, "--out", tmp_path / "out", "--polygons", "pixels", "--vectorize", "sky,sea") == 0
    for k in range(2):
        features = json.loads((tmp_path / "out" / f"{k}.pixels.json").read_text())["features"]
        assert {f["properties"]["class"] for f in features} <= {"sky", "sea"}


def test_python_gives_results_and_the_files_of_the_command(model, photos, tmp_path):
    first, second = torchfpn.predict(model, str(photos))
    assert first.segments.shape == second.segments.shape == (40, 56)
    written = torchfpn.predict(model, str(photos), out=tmp_path / "python")
    assert [path.relative_to(tmp_path / "python").as_posix() for path in written] == [
        "panoptic.json", "panoptic/0.png", "panoptic/1.png",
    ]  # fmt: skip
    assert run(model, photos, "--out", tmp_path / "command") == 0
    for path in written:
        assert path.read_bytes() == (tmp_path / "command" / path.relative_to(tmp_path / "python")).read_bytes()


def test_what_is_there_is_not_replaced_unasked(model, photos, tmp_path, capsys):
    (tmp_path / "out" / "panoptic").mkdir(parents=True)
    (tmp_path / "out" / "panoptic" / "1.png").write_bytes(b"mine")
    assert run(model, photos, "--out", tmp_path / "out") == 2
    assert "already exists" in capsys.readouterr().err
    assert run(model, photos, "--out", tmp_path / "out", "--overwrite") == 0


def test_an_image_that_fails_leaves_the_others(model, photos, tmp_path, capsys):
    (photos / "1.png").write_bytes(b"\x89PNG")
    assert run(model, photos, "--out", tmp_path / "out") == 1
    assert "1 predicted, 1 failed" in capsys.readouterr().out
    value = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    assert [image["file_name"] for image in value["images"]] == ["0.png"]


def test_nothing_found_is_void(model, photos, tmp_path, capsys):
    strict = tiny_panoptic(rules={"panoptic": {"score": 1.0, "stuff_area": 9999}})
    strict.save(tmp_path / "strict.safetensors")
    out = tmp_path / "out"
    assert run(tmp_path / "strict.safetensors", photos / "0.png", "--out", out, "--overlay", "--polygons=pixels") == 0
    assert "1 predicted, 0 failed, 0 things, 0 segments of stuff," in capsys.readouterr().out
    assert not read_segment_png(out / "panoptic" / "0.png").any()
    (one,) = json.loads((out / "panoptic.json").read_text())["annotations"]
    assert one["segments_info"] == []


@pytest.mark.parametrize("name", ["scene.tif", "0.png"])
def test_larger_images_are_refused_as_for_objects(model, photos, tmp_path, capsys, name):
    tiny_detector().save(tmp_path / "objects.safetensors")
    raster(photos / "scene.tif")
    said = []
    for each in (model, tmp_path / "objects.safetensors"):
        assert run(each, photos / name, "--out", tmp_path / "out", "--max-pixels", "999") == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert "expected at most 999" in said[0]
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_small_polygons_are_left_out_of_the_layer_alone(model, tmp_path):
    raster(tmp_path / "scene.tif")
    flags = ("--polygons", "gpkg", "--min-pixels", "20")
    assert run(model, tmp_path / "scene.tif", "--out", tmp_path / "out", *flags) == 0
    (one,) = json.loads((tmp_path / "out" / "panoptic.json").read_text())["annotations"]
    assert one["segments_info"]
    layer = pyogrio.raw.read(tmp_path / "out" / "scene.gpkg", columns=["id", "area"])
    kept = dict(zip(*layer[3], strict=True))
    assert kept.keys() <= {info["id"] for info in one["segments_info"] if info["area"] >= 20}
    assert min(kept.values()) >= 20 * 0.25


@pytest.mark.parametrize("flag", ["--min-score=0.3", "--tile-size=64", "--probabilities=uint8", "--resume"])
def test_flags_without_an_effect_are_refused(model, photos, tmp_path, capsys, flag):
    assert run(model, photos, "--out", tmp_path / "out", flag) == 2
    assert f"{flag.partition('=')[0]}: has no effect on a panoptic model" in capsys.readouterr().err
