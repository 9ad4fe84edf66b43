"""fpn predict with models of objects: files in, one COCO file out, masks and polygons of each, as a user runs it."""

import json

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import rasterio.warp
import shapely
import torch
from faster_coco_eval import COCO
from faster_coco_eval import mask as rle
from PIL import Image
from rasterio.crs import CRS

from made_data import picture, write_png, write_tiff
from tiny_detector import COLORS, IDS, NAMES, tiny_detector
from tiny_model import tiny_task
from torchfpn.cli.main import main

CRS_33 = CRS.from_epsg(32633)
TRANSFORM = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_800_000)
SOUTH_UP = rasterio.Affine(0.5, 0, 500_000, 0, 0.5, 5_800_000)
COS, SIN = 3**0.5, 1.0  # 30 degrees, pixels of 2 m
TURNED = rasterio.Affine(COS, SIN, 500_000, SIN, -COS, 5_800_000)
SCORE = 0.5


@pytest.fixture(scope="module")
def instance(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "instance.safetensors"
    tiny_detector("instance").save(path)
    return path


@pytest.fixture(scope="module")
def detection(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "detection.safetensors"
    tiny_detector("detection").save(path)
    return path


def run(*words):
    return main(["predict", *map(str, words), "--device", "cpu"])


def raster(path, transform=TRANSFORM, size=(48, 64), crs=CRS_33, seed=0, **profile):
    array = np.moveaxis(picture(seed, size), -1, 0).copy()
    write_tiff(path, array, transform=transform, crs=crs, photometric="RGB", **profile)
    return array


def answer(task, array):
    """What the model says itself of an array [C, H, W], objects without a pixel left out."""
    found = task.predict([torch.from_numpy(array.astype(np.float32))])[0]
    keep = torch.ones(len(found), dtype=torch.bool) if found.masks is None else found.masks.flatten(1).any(1)
    masks = None if found.masks is None else found.masks[keep].numpy()
    return found.boxes[keep].numpy(), found.scores[keep].numpy(), found.labels[keep].numpy(), masks


def held(path):
    """Annotations of each image, as another reader sees them."""
    coco = COCO(str(path))
    return {n: [coco.anns[i] for i in coco.getAnnIds(imgIds=[n])] for n in coco.imgs}, coco


def decoded(records):
    return np.stack([rle.decode(r["segmentation"]) for r in records]).astype(bool)


def test_pictures_become_one_file_of_objects_and_numbered_masks(instance, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for i, name in enumerate(("in/b.png", "in/a.png", "c.png")):
        write_png(tmp_path / name, picture(i, (48, 64)))
    out = tmp_path / "out"
    assert run(instance, tmp_path / "in", tmp_path / "c.png", "--out", out) == 0
    assert sorted(p.name for p in out.iterdir()) == ["a.png", "b.png", "c.png", "objects.json"]
    records, coco = held(out / "objects.json")
    assert [coco.imgs[n]["file_name"] for n in (1, 2, 3)] == ["in/a.png", "in/b.png", "c.png"]
    assert {c["id"]: c["name"] for c in coco.cats.values()} == dict(zip(IDS, NAMES, strict=True))
    task = tiny_detector("instance")
    for number, (name, seed) in enumerate((("a", 1), ("b", 0), ("c", 2)), start=1):
        boxes, scores, labels, masks = answer(task, np.moveaxis(picture(seed, (48, 64)), -1, 0))
        found = records[number]
        assert np.allclose([r["score"] for r in found], scores, atol=1e-6)
        assert [r["category_id"] for r in found] == [IDS[i] for i in labels]
        assert np.allclose([r["bbox"][:2] for r in found], boxes[:, :2], atol=2e-3)
        assert np.array_equal(decoded(found), masks)
        with Image.open(out / f"{name}.png") as image:
            assert image.mode == "I;16"
            numbers = np.asarray(image)
        shown = masks[scores >= SCORE]
        assert 1 < len(shown) < len(masks)
        expected = np.where(shown.any(0), shown.argmax(0) + 1, 0)  # the k-th annotation is the number k
        assert np.array_equal(numbers, expected)
    said = capsys.readouterr().out
    assert "c.png  64 x 48, " in said
    assert "below a score of 0.5)" in said
    assert said.splitlines()[-1].startswith("3 predicted, 0 failed, ")


def test_boxes_of_a_detector_need_no_picture(detection, tmp_path):
    write_png(tmp_path / "a.png", picture(0, (48, 64)))
    assert run(detection, tmp_path / "a.png", "--out", tmp_path / "out") == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["objects.json"]
    records, _ = held(tmp_path / "out" / "objects.json")
    boxes, scores, _, _ = answer(tiny_detector("detection"), np.moveaxis(picture(0, (48, 64)), -1, 0))
    assert len(records[1]) == len(boxes)
    assert np.allclose([r["score"] for r in records[1]], scores, atol=1e-6)
    assert all("segmentation" not in r for r in records[1])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert np.allclose([r["bbox"] for r in records[1]], np.concatenate([boxes[:, :2], sides], 1), atol=2e-3)


@pytest.mark.parametrize("transform", [TRANSFORM, SOUTH_UP, TURNED], ids=["north-up", "south-up", "turned"])
def test_geotiffs_keep_their_grid_and_polygons_lie_where_the_masks_do(instance, tmp_path, transform):
    raster(tmp_path / "a.tif", transform)
    for kind in ("gpkg", "fgb", "geojson"):
        words = ("--polygons", kind, "--overwrite")
        assert run(instance, tmp_path / "a.tif", "--out", tmp_path / "out", *words) == 0
    records, _ = held(tmp_path / "out" / "objects.json")
    shown = [r for r in records[1] if r["score"] >= SCORE]
    masks = decoded(shown)
    with rasterio.open(tmp_path / "out" / "a.tif") as source:
        assert source.crs == CRS_33
        assert source.transform.almost_equals(transform)
        assert source.dtypes == ("uint16",)
        assert np.array_equal(source.read(1), np.where(masks.any(0), masks.argmax(0) + 1, 0))
    metres = abs(transform.determinant)
    for kind in ("gpkg", "fgb", "geojson"):
        meta, _, shapes, (names, ids, scores, areas) = pyogrio.raw.read(tmp_path / "out" / f"a.{kind}")
        assert list(meta["fields"]) == ["class", "class_id", "score", "area"]
        assert len(shapes) == len(shown)
        by_rank = range(len(shown))
        if kind == "fgb":  # sorts features by place
            by_rank = [int(np.abs(areas / metres - r["area"] + 100 * (scores - r["score"])).argmin()) for r in shown]
        for record, mask, i in zip(shown, masks, by_rank, strict=True):
            shape = shapely.from_wkb(shapes[i])
            assert shape.is_valid
            if kind == "geojson":
                shape = shapely.transform(
                    shape, lambda p: np.stack(rasterio.warp.transform("OGC:CRS84", CRS_33, *p.T), 1)
                )
            burnt = rasterio.features.rasterize([shape], out_shape=mask.shape, transform=transform)
            assert np.array_equal(burnt.astype(bool), mask)
            assert abs(scores[i] - record["score"]) < 6e-4
            assert (names[i], ids[i]) == (
                dict(zip(IDS, NAMES, strict=True))[record["category_id"]],
                record["category_id"],
            )
            assert np.isclose(areas[i], record["area"] * metres, rtol=2e-3, atol=0.01)


def test_polygons_of_a_detector_are_its_boxes(detection, tmp_path):
    raster(tmp_path / "a.tif", TURNED)
    for kind in ("gpkg", "pixels"):
        words = ("--polygons", kind, "--min-score", 0.6, "--overwrite")
        assert run(detection, tmp_path / "a.tif", "--out", tmp_path / "out", *words) == 0
    records, _ = held(tmp_path / "out" / "objects.json")
    shown = [r for r in records[1] if r["score"] >= 0.6]
    assert 0 < len(shown) < len(records[1])
    in_pixels = json.loads((tmp_path / "out" / "a.pixels.json").read_text())
    assert in_pixels["coordinates"] == "pixels: column, row"
    meta, _, shapes, fields = pyogrio.raw.read(tmp_path / "out" / "a.gpkg")
    assert meta["geometry_type"] == "Polygon"
    back = ~TURNED
    for record, feature, shape, area in zip(shown, in_pixels["features"], shapes, fields[3], strict=True):
        x, y, width, height = record["bbox"]
        box = shapely.box(x, y, x + width, y + height)
        assert shapely.geometry.shape(feature["geometry"]).symmetric_difference(box).area < 0.02
        assert feature["properties"]["score"] == round(record["score"], 3)
        moved = shapely.transform(shapely.from_wkb(shape), lambda p: np.stack(back @ p.T, 1))
        assert moved.symmetric_difference(box).area < 0.02
        assert np.isclose(area, 4 * record["area"], rtol=2e-3, atol=0.01)


def test_classes_and_small_parts_can_be_left_out(instance, tmp_path):
    raster(tmp_path / "a.tif")
    words = ("--polygons", "pixels", "--vectorize", "cell", "--min-pixels", 30, "--simplify", 1)
    assert run(instance, tmp_path / "a.tif", "--out", tmp_path / "out", *words) == 0
    features = json.loads((tmp_path / "out" / "a.pixels.json").read_text())["features"]
    assert features
    assert {f["properties"]["class"] for f in features} == {"cell"}
    parts = [part for f in features for part in shapely.get_parts(shapely.geometry.shape(f["geometry"]))]
    assert min(part.area for part in parts) > 15


@pytest.mark.parametrize("kind", ["instance", "detection"])
def test_an_overlay_has_the_size_of_the_image(kind, request, tmp_path):
    write_png(tmp_path / "a.png", picture(0, (48, 64)))
    assert run(request.getfixturevalue(kind), tmp_path / "a.png", "--out", tmp_path / "out", "--overlay") == 0
    with Image.open(tmp_path / "out" / "a.overlay.png") as image:
        assert image.size == (64, 48)
        colors = {color for _, color in image.getcolors(10_000)}
    assert set(COLORS) & colors


def test_what_is_written_is_a_dataset_that_check_reads(instance, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for i in range(2):
        write_png(tmp_path / "images" / f"a{i}.png", picture(i, (48, 64)))
    assert run(instance, tmp_path / "images", "--out", tmp_path / "out") == 0
    yaml = "task: instance\nsplits:\n  train: {images: images, annotations: out/objects.json}\n"
    (tmp_path / "dataset.yaml").write_text(yaml)
    capsys.readouterr()
    assert main(["check", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "dropped" not in captured.out + captured.err


def test_the_same_prediction_gives_the_same_bytes(instance, tmp_path):
    raster(tmp_path / "a.tif")
    for name in ("one", "other"):
        words = ("--overlay", "--polygons", "gpkg")
        assert run(instance, tmp_path / "a.tif", "--out", tmp_path / name, *words) == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name


def test_nothing_is_overwritten_unasked(instance, tmp_path, capsys):
    write_png(tmp_path / "a.png", picture(0))
    write_png(tmp_path / "b.png", picture(1))
    out = tmp_path / "out"
    assert run(instance, tmp_path / "a.png", "--out", out) == 0
    before = (out / "objects.json").read_bytes()
    assert run(instance, tmp_path / "b.png", tmp_path / "a.png", "--out", out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "2 files already exist" in line
    assert "objects.json" in line
    assert sorted(p.name for p in out.iterdir()) == ["a.png", "objects.json"]
    assert run(instance, tmp_path / "a.png", "--out", out, "--overwrite") == 0
    assert (out / "objects.json").read_bytes() == before
    assert run(instance, tmp_path / "a.png", "--out", tmp_path, "--overwrite") == 2
    assert "its own output" in capsys.readouterr().err


@pytest.mark.slow
def test_bf16_is_nearly_the_same(instance, tmp_path):
    write_png(tmp_path / "a.png", picture(0, (48, 64)))
    for precision in ("fp32", "bf16"):
        assert run(instance, tmp_path / "a.png", "--out", tmp_path / precision, "--precision", precision) == 0
    records = [held(tmp_path / p / "objects.json")[0][1] for p in ("fp32", "bf16")]
    assert abs(records[0][0]["score"] - records[1][0]["score"]) < 0.05


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--min-score", "1.5"], "--min-score: 1.5; expected 0 to 1"),
        (["--min-score", "nan"], "--min-score: nan; expected 0 to 1"),
        (["--vectorize", "cel", "--polygons", "pixels"], 'did you mean "cell"'),
        (["--min-pixels", "3"], "--min-pixels: 3.0; expected to come with --polygons"),
        (["--polygons", "geojson"], "no georeference, so no longitude and latitude"),
        (["--max-pixels", "100"], "32 x 24 = 768 pixels; expected at most 100"),
    ],
)
def test_bad_usage_is_one_line(instance, tmp_path, capsys, words, said):
    write_png(tmp_path / "a.png", picture(0))
    assert run(instance, tmp_path / "a.png", "--out", tmp_path / "out", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not list((tmp_path / "out").glob("*"))


def test_flags_of_the_other_models(detection, tmp_path, capsys):
    write_png(tmp_path / "a.png", picture(0))
    words = ("--polygons", "pixels", "--simplify", 1)
    assert run(detection, tmp_path / "a.png", "--out", tmp_path / "out", *words) == 2
    assert "simplify: 1.0; expected to come with models that give masks" in capsys.readouterr().err
    tiny_task(bands=("red", "green", "blue"), dtype="uint8").save(tmp_path / "pixels.safetensors")
    assert run(tmp_path / "pixels.safetensors", tmp_path / "a.png", "--out", tmp_path / "out", "--min-score", 0.3) == 2
    assert "--min-score: has no effect on a semantic model" in capsys.readouterr().err


def test_nothing_found_is_valid_everywhere(instance, tmp_path):
    raster(tmp_path / "a.tif", size=(1, 1))
    for kind in ("gpkg", "geojson", "fgb"):
        words = ("--min-score", 1, "--polygons", kind, "--overlay", "--overwrite")
        assert run(instance, tmp_path / "a.tif", "--out", tmp_path / "out", *words) == 0
        assert len(pyogrio.raw.read(tmp_path / "out" / f"a.{kind}")[2]) == 0
    with rasterio.open(tmp_path / "out" / "a.tif") as source:
        assert source.read(1).tolist() == [[0]]
    assert held(tmp_path / "out" / "objects.json")[1].imgs[1]["width"] == 1


def test_grey_pictures_of_models_that_learnt_from_such(tmp_path, capsys):
    write_png(tmp_path / "a.png", picture(0, (48, 64))[..., 0])
    for name, rules in (("plain", {}), ("grey", {"grey_as_color": True})):
        tiny_detector(rules=rules).save(tmp_path / f"{name}.safetensors")
    assert run(tmp_path / "plain.safetensors", tmp_path / "a.png", "--out", tmp_path / "out") == 2
    assert "has 1 band (grey); expected 3, as the model has" in capsys.readouterr().err
    assert run(tmp_path / "grey.safetensors", tmp_path / "a.png", "--out", tmp_path / "out") == 0
    three = np.repeat(picture(0, (48, 64))[..., :1], 3, axis=-1)
    _, scores, _, _ = answer(tiny_detector(), np.moveaxis(three, -1, 0))
    assert np.allclose([r["score"] for r in held(tmp_path / "out" / "objects.json")[0][1]], scores, atol=1e-6)
