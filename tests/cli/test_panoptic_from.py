"""`fpn panoptic-from`: what it makes of objects and labels of pixels; what it refuses, and that nothing is left."""

import json

import numpy as np
import pytest
import rasterio
import shapely
import yaml

from made_data import picture, write_png
from made_maps import PLACE, box, noise, write_geojson, write_map
from made_objects import record, write_numbers
from made_panoptic import JSON, SIZE, WHOLE, coco_of, make_composed, make_panoptic, make_polygon_map, rectangles
from shared import DATA, needs_shared
from torchfpn.cli.main import main
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import ObjectDataset
from torchfpn.recipe import IGNORE


def build(*words):
    return main(["panoptic-from", *map(str, words)])


def truth_of(folder, split="train", number=0):
    return ObjectDataset(read_dataset(folder), split, cache=False).truth(number)


def make_folder(folder, *, splits=("train", "val"), target=None, numbers=None):
    """Images, masks and numbers of objects, each in its folder of the split."""
    target = np.where(np.arange(SIZE[1]) < 16, 3, 7)[None].repeat(SIZE[0], 0) if target is None else target
    numbers = rectangles((2, 2, 8, 8), (10, 14, 21, 20)) if numbers is None else numbers
    for i, split in enumerate(splits):
        for kind in ("images", "masks", "numbers"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        write_png(folder / split / "images" / "a.png", picture(i, SIZE))
        write_png(folder / split / "masks" / "a.png", target.astype(np.uint8))
        write_numbers(folder / split / "numbers" / "a.png", numbers)
    return folder


def same(one, other):
    """Whether two truths show the same segments, whatever their ids are."""
    np.testing.assert_array_equal(one.semantic, other.semantic)
    pairs = np.unique(np.stack([one.segments.ids.ravel(), other.segments.ids.ravel()]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    assert sorted(one.segments.areas) == sorted(other.segments.areas)
    assert one.segments.crowds.sum() == other.segments.crowds.sum()


def test_numbers_and_masks_of_a_folder(tmp_path, capsys):
    folder, out = make_folder(tmp_path / "data"), tmp_path / "out"
    flags = ["--instances", folder / "{split}" / "numbers", "--semantic", folder / "{split}" / "masks"]
    assert build(folder, *flags, "--things", "cell", "--stuff", "3:plate,7:medium", "--out", out) == 0
    told = capsys.readouterr().out
    assert "train: 1 image" in told
    assert f"wrote {out}; next: fpn check {out} --sheet sheet.png" in told
    dataset = read_dataset(out)
    assert (dataset.things, dataset.stuff, list(dataset.splits)) == (("cell",), ("plate", "medium"), ["train", "val"])
    for split in ("train", "val"):
        truth = truth_of(out, split)
        wanted = np.where(np.arange(SIZE[1]) < 16, 1, 2)[None].repeat(SIZE[0], 0)
        wanted[2:8, 2:8] = wanted[14:20, 10:21] = 0
        np.testing.assert_array_equal(truth.semantic, wanted)
        assert truth.boxes.tolist() == [[2, 2, 8, 8], [10, 14, 21, 20]]
    assert main(["check", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "dataset.yaml",
        "panoptic_train",
        "panoptic_train.json",
        "panoptic_val",
        "panoptic_val.json",
    ]
    assert not list(tmp_path.rglob(".fpn*"))


def test_a_dataset_of_labels_and_objects_is_written_as_it_is_read(tmp_path):
    value = coco_of(
        record(1, (2, 2, 12, 12)),
        record(2, (4, 4, 8, 8), category=7),
        record(3, (20, 0, 24, 24), iscrowd=1),
        record(4, (20, 20, 30, 24), category=9),
    )
    target = np.where(np.arange(SIZE[1]) < 16, 0, 1)[None].repeat(SIZE[0], 0)
    target[0] = 255
    folder = make_composed(tmp_path / "data", target, value, yaml=JSON)
    assert build(folder, "--out", tmp_path / "out") == 0
    same(truth_of(folder), truth_of(tmp_path / "out"))
    assert build(folder, "--out", tmp_path / "last", "--overlaps", "last") == 0
    assert truth_of(tmp_path / "last").segments.areas.tolist()[:2] == [84, 16]  # the last one is the smaller, too
    assert build(tmp_path / "out", "--out", tmp_path / "again") == 0
    for name in ("panoptic_train.json", "panoptic_train/a0.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_polygons_on_images_with_a_place(tmp_path):
    folder = make_polygon_map(tmp_path / "data")
    assert build(folder / "dataset.yaml", "--out", tmp_path / "out") == 0
    same(truth_of(folder), truth_of(tmp_path / "out"))
    with rasterio.open(tmp_path / "out" / "panoptic_train" / "a.png") as png:
        assert (png.crs, png.transform) == (rasterio.CRS.from_string(PLACE["crs"]), PLACE["transform"])
    (folder / "dataset.yaml").rename(tmp_path / "data.yaml")
    (tmp_path / "data.yaml").write_text((tmp_path / "data.yaml").read_text() + "root: data\n")
    flags = ["--instances", folder / "things.geojson", "--instance-field", "kind", "--semantic-field", "kind"]
    words = [folder, *flags, "--semantic", folder / "stuff.geojson", "--background", "rock"]
    assert build(*words, "--things", "cell,dot", "--out", tmp_path / "flags") == 0
    dataset, truth = read_dataset(tmp_path / "flags"), truth_of(tmp_path / "flags")
    assert (dataset.things, dataset.stuff) == (("cell", "dot"), ("grass", "water", "rock"))
    wanted = truth_of(tmp_path / "data.yaml").semantic
    np.testing.assert_array_equal(truth.semantic, np.where(wanted == IGNORE, 4, wanted))
    assert build(*words, "--out", tmp_path / "every") == 0  # all values of the attribute are things
    assert read_dataset(tmp_path / "every").things == ("cell", "dot", "grass")


def test_a_scene_is_written_as_the_whole_image(tmp_path):
    folder = make_polygon_map(tmp_path / "data", scene_pixels=100)
    array = noise(0, (40, 50)).astype(np.int16)
    array[:, :6] = -7
    write_map(folder / "images" / "a.tif", array, nodata=-7, tiled=True, blockxsize=16, blockysize=16)
    assert build(folder, "--out", tmp_path / "scene") == 0
    text = (folder / "dataset.yaml").read_text()
    (folder / "dataset.yaml").write_text(text.replace("scene_pixels: 100", "scene_pixels: 100000"))
    assert build(folder, "--out", tmp_path / "whole") == 0
    one, other = ((tmp_path / name / "panoptic_train" / "a.png").read_bytes() for name in ("scene", "whole"))
    assert one == other
    assert (truth_of(tmp_path / "whole").semantic[:6] == IGNORE).all()


def test_web_map_tiles_keep_their_places(tmp_path):
    for x in (2, 3):
        (tmp_path / "map" / "4" / str(x)).mkdir(parents=True)
        write_png(tmp_path / "map" / "4" / str(x) / "5.png", picture(x, SIZE))
    west = -20037508.342789244
    step = -2 * west / 16
    roof = shapely.box(west + 2.5 * step, -west - 5.5 * step, west + 3.5 * step, -west - 5 * step)
    write_geojson(tmp_path / "roofs.geojson", [roof], crs="EPSG:3857")
    (tmp_path / "dataset.yaml").write_text(
        "task: instance\nclasses: [roof]\nsplits: {train: {images: 'map/{z}/{x}/{y}', labels: roofs.geojson}}\n"
    )
    assert build(tmp_path, "--background", "ground", "--out", tmp_path / "out") == 0
    dataset = read_dataset(tmp_path / "out")
    assert dataset.tiles == "{z}/{x}/{y}"
    left, right = (truth_of(tmp_path / "out", number=i) for i in (0, 1))
    assert (left.boxes.tolist(), right.boxes.tolist()) == ([[16, 0, 32, 12]], [[0, 0, 16, 12]])
    with rasterio.open(tmp_path / "out" / "panoptic_train" / "2" / "5.png") as png:
        assert png.transform.c == pytest.approx(west + 2 * step)


def test_one_thing_on_a_background(tmp_path):
    write_map(tmp_path / "images" / "a.tif", noise(0, (40, 50)))
    write_map(tmp_path / "images" / "b.tif", noise(1, (40, 50)))
    write_geojson(tmp_path / "roofs.geojson", [box(5, 5, 12), box(45, 5, 12)], field="height")
    flags = ["--instances", tmp_path / "roofs.geojson", "--things", "roof", "--background", "ground"]
    assert build(tmp_path, *flags, "--out", tmp_path / "out") == 0
    dataset = read_dataset(tmp_path / "out")
    assert {name: len(dataset.pairs(name)) for name in dataset.splits} == {"train": 1, "val": 1}  # held out by the name
    truth = truth_of(tmp_path / "out")
    assert truth.segments.labels.tolist() == [0, 0, 1]
    assert truth.segments.areas.tolist() == [144, 60, 1796]


def test_a_coco_file_names_things_and_images(tmp_path):
    folder = make_folder(tmp_path / "data")
    for split in ("train", "val"):
        write_png(folder / split / "images" / "extra.png", picture(9, SIZE))
        value = coco_of(record(1, (2, 2, 12, 12)), record(2, (20, 0, 24, 24), iscrowd=1))
        value["images"][0]["file_name"] = f"somewhere/{split}/images/a.png"
        value["categories"] = value["categories"][:2]
        (folder / split / "objects.json").write_text(json.dumps(value))
    pattern = folder / "{split}" / "objects.json"
    assert build(folder, "--instances", pattern, "--background", "rest", "--out", tmp_path / "out") == 0
    dataset, truth = read_dataset(tmp_path / "out"), truth_of(tmp_path / "out")
    assert (dataset.things, dataset.stuff, len(dataset.pairs("train"))) == (("cell", "dot"), ("rest",), 1)
    assert (truth.boxes.tolist(), truth.crowds.tolist()) == ([[2, 2, 12, 12]], [[20, 0, 24, 24]])


def test_a_dataset_of_instances_or_of_classes_is_the_source(tmp_path):
    folder = make_folder(tmp_path / "data")
    text = "task: {}\nclasses: {}\nimages: '{{split}}/images'\nlabels: '{{split}}/{}'\nbands: [r, g, b]\n"
    (folder / "numbers.yaml").write_text(text.format("instance", "[cell]", "numbers") + "labels_are: components\n")
    assert build(folder / "numbers.yaml", "--background", "rest", "--out", tmp_path / "one") == 0
    one = read_dataset(tmp_path / "one")
    assert (one.names, one.bands) == (("cell", "rest"), ("r", "g", "b"))
    (folder / "masks.yaml").write_text(text.format("semantic", "{3: plate, 7: medium, 9: cell}", "masks"))
    words = [folder / "masks.yaml", "--instances", folder / "{split}" / "numbers", "--things", "cell"]
    assert build(*words, "--out", tmp_path / "two") == 0
    two = read_dataset(tmp_path / "two")
    assert (two.things, two.stuff) == (("cell",), ("plate", "medium"))
    assert [c.color for c in two.classes[1:]] == [c.color for c in read_dataset(folder / "masks.yaml").classes[:2]]
    np.testing.assert_array_equal(truth_of(tmp_path / "one").semantic == 0, truth_of(tmp_path / "two").semantic == 0)


def test_polygons_of_a_semantic_dataset_are_its_objects(tmp_path):
    folder = make_polygon_map(tmp_path / "data")
    text = "classes: [rest, grass, water]\npolygons: {field: kind, background: rest}\n"
    (folder / "dataset.yaml").write_text(text + "splits: {train: {images: images, labels: stuff.geojson}}\n")
    assert build(folder, "--things", "grass", "--out", tmp_path / "out") == 0
    dataset, truth = read_dataset(tmp_path / "out"), truth_of(tmp_path / "out")
    assert (dataset.things, dataset.stuff) == (("grass",), ("rest", "water"))
    assert truth.segments.labels.tolist() == [0, 1, 2]
    assert truth.segments.areas.tolist() == [900, 2000 - 900 - 500, 500]  # objects lie on top


def test_images_stay_where_they_are(tmp_path):
    folder = make_folder(tmp_path / "data" / "deep")
    flags = ["--instances", folder / "{split}" / "numbers", "--things", "cell", "--background", "rest"]
    assert build(folder, *flags, "--out", tmp_path / "elsewhere" / "out") == 0
    text = yaml.safe_load((tmp_path / "elsewhere" / "out" / "dataset.yaml").read_text())
    assert text["root"] == "../.."
    assert text["splits"]["train"] == {
        "images": "data/deep/train/images",
        "annotations": "elsewhere/out/panoptic_train.json",
    }
    assert not list((tmp_path / "elsewhere").rglob("images"))


def test_splits_without_objects_keep_their_images(tmp_path):
    folder = make_folder(tmp_path / "data", splits=("train", "val", "test"))
    (folder / "test" / "numbers" / "a.png").unlink()
    (folder / "test" / "numbers").rmdir()
    flags = ["--instances", folder / "{split}" / "numbers", "--things", "cell", "--background", "rest"]
    assert build(folder, *flags, "--out", tmp_path / "out") == 0
    dataset = read_dataset(tmp_path / "out")
    assert {name: split.annotations is not None for name, split in dataset.splits.items()} == {
        "train": True,
        "val": True,
        "test": False,
    }
    assert main(["check", str(tmp_path / "out")]) == 0


def test_images_of_nothing(tmp_path):
    folder = make_folder(tmp_path / "data", target=np.full(SIZE, 255), numbers=np.zeros(SIZE))
    write_numbers(folder / "train" / "numbers" / "a.png", rectangles((0, 0, 1, 1)))
    flags = ["--instances", folder / "{split}" / "numbers", "--semantic", folder / "{split}" / "masks"]
    assert build(folder, *flags, "--things", "cell", "--stuff", "3:plate", "--out", tmp_path / "out") == 0
    assert truth_of(tmp_path / "out").segments.areas.tolist() == [1]
    assert (truth_of(tmp_path / "out", "val").semantic == IGNORE).all()


def test_pixels_without_data_are_void(tmp_path):
    folder = make_folder(tmp_path / "data", splits=("train",))
    image = np.concatenate([picture(0, SIZE), np.full((*SIZE, 1), 255, np.uint8)], -1)
    image[:5, :, 3] = 0
    write_png(folder / "train" / "images" / "a.png", image)
    flags = ["--instances", folder / "{split}" / "numbers", "--things", "cell", "--background", "rest"]
    assert build(folder, *flags, "--out", tmp_path / "out") == 0
    ids = truth_of(tmp_path / "out").segments.ids
    assert ((ids == 0) == (np.arange(SIZE[0]) < 5)[:, None]).all()


NUMBERS = ["--instances", "{d}/{{split}}/numbers", "--things", "cell"]
MASKS = ["--semantic", "{d}/{{split}}/masks"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--instances", "{d}/train/numbers"], "--things: no things; name the classes of the objects: --th"),
        (["--instances", "{d}/train/numbers", "--things", "cell"], "--stuff: no stuff; name the classes of --sem"),
        ([], "--instances: no objects; name the COCO file, the numbered masks or the polygons of the objects"),
        (["--instances", "{d}/nowhere"], "nowhere: --instances: no such file or folder"),
        (
            [*NUMBERS, "--stuff", "grass"],
            "--background: nothing; name the class of pixels that no object covers",
        ),
        (["--things", "a,a"], '--things: "a" twice; expected each class once'),
        (["--stuff", "x:grass"], '--stuff: "x:grass"; expected names as A,B, or values and names as 1:A,4:B'),
        (["--ignore", "a"], '--ignore: "a"; expected whole numbers'),
        (
            [*NUMBERS, *MASKS, "--stuff", "3:a,3:b"],
            "--stuff: a and b with the value 3; expected each value once",
        ),
        (
            [*NUMBERS, *MASKS, "--stuff", "3:plate"],
            "the value 7 in 384 pixels",
        ),
        (["--overlaps", "first"], '--overlaps: "first"; expected smaller | last'),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_left(tmp_path, capsys, flags, said):
    folder, out = make_folder(tmp_path / "data"), tmp_path / "new" / "out"
    assert build(folder, *(flag.format(d=folder) for flag in flags), "--out", out) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not out.exists()
    assert not list(tmp_path.rglob(".fpn*"))


def test_a_bad_file_at_the_end_leaves_nothing(tmp_path, capsys):
    folder, out = make_folder(tmp_path / "data"), tmp_path / "out"
    write_numbers(folder / "val" / "numbers" / "a.png", np.zeros((3, 3)))
    flags = ["--instances", folder / "{split}" / "numbers", "--things", "cell", "--background", "rest", "--out", out]
    assert build(folder, *flags) == 2
    assert "labels of 3 x 3 pixels for an image of 32 x 24" in capsys.readouterr().err
    assert not out.exists()
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert build(folder, *flags) == 2
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_existing_files_are_replaced_when_asked(tmp_path, capsys):
    folder, out = make_folder(tmp_path / "data"), tmp_path / "out"
    flags = ["--instances", folder / "{split}" / "numbers", "--things", "cell", "--background", "rest", "--out", out]
    assert build(folder, *flags) == 0
    before = (out / "dataset.yaml").read_text()
    assert build(folder, *flags) == 2
    assert "dataset.yaml: already exists; replace it with --overwrite" in capsys.readouterr().err
    assert build(folder, *flags, "--overwrite") == 0
    assert (out / "dataset.yaml").read_text() == before


def test_a_panoptic_dataset_takes_no_other_labels(tmp_path, capsys):
    folder = make_panoptic(tmp_path / "data", yaml=WHOLE)
    assert build(folder, "--background", "rest", "--out", tmp_path / "out") == 2
    assert "--background: has no effect on a panoptic dataset; leave it out" in capsys.readouterr().err
    assert build(folder, "--out", tmp_path / "out") == 0
    same(truth_of(folder), truth_of(tmp_path / "out"))
    (folder / "dataset.yaml").write_text("task: detection\n" + WHOLE.split("\n", 1)[1])
    assert build(folder, "--background", "rest", "--out", tmp_path / "boxes") == 2
    assert "a dataset of boxes" in capsys.readouterr().err


@needs_shared
def test_roofs_and_ground_of_real_tiles(tmp_path, capsys):
    folder = DATA / "buildings-banepa"
    (tmp_path / "dataset.yaml").write_text(
        f"classes: [ground, building]\nroot: {folder}\ntiles: 'OAM-{{x}}-{{y}}-{{z}}'\n"
        "splits: {train: {images: val/images, labels: val/buildings.geojson}}\n"
    )
    assert build(tmp_path, "--things", "building", "--out", tmp_path / "out") == 0
    assert "train: 8 images, objects overlap on 32 pixels: the smaller one is on top" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "out")]) == 0
    with rasterio.open(tmp_path / "out" / "panoptic_train" / "OAM-386694-220241-19.png") as png:
        assert png.crs == rasterio.CRS.from_epsg(3857)
        assert png.res[0] == pytest.approx(0.149, abs=1e-3)


@needs_shared
def test_nuclei_on_their_background(tmp_path):
    folder = DATA / "nuclei-dsb2018"
    names = sorted(path.name for path in (folder / "val" / "images").iterdir())[:6]
    images, labels = ([f"val/{kind}/{name}" for name in names] for kind in ("images", "instances"))
    splits = {"train": {"images": images, "labels": labels}}
    value = {"task": "instance", "root": str(folder), "classes": ["nucleus"], "grey_as_color": True, "splits": splits}
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(value))
    assert build(tmp_path, "--background", "background", "--out", tmp_path / "out") == 0
    text = WHOLE.replace("train/images", "val/images").replace("train/panoptic.json", "val/panoptic.json")
    (tmp_path / "known.yaml").write_text(f"root: {folder}\ngrey_as_color: true\n{text}")
    known = ObjectDataset(read_dataset(tmp_path / "known.yaml"), "train", cache=False)
    places = {pair.image.name: i for i, pair in enumerate(known.pairs)}
    made = ObjectDataset(read_dataset(tmp_path / "out"), "train", cache=False)
    assert len(made) == 6
    for i, pair in enumerate(made.pairs):
        same(made.truth(i), known.truth(places[pair.image.name]))
