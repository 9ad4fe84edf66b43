"""Flags that would change nothing are refused by name: for every verb and kind of input, which of its flags hold."""

import json
import re

import numpy as np
import pyogrio
import pytest
import shapely
import torch

from cli.test_predict_panoptic import tiny_panoptic
from made_data import write_png
from made_maps import box, noise, write_geojson, write_map
from made_objects import YAML, coco, make_objects
from made_panoptic import panoptic
from tiny_detector import tiny_detector
from tiny_model import tiny_task
from torchfpn.cli import options
from torchfpn.cli.evaluate import RENAMED
from torchfpn.cli.main import main
from torchfpn.errors import ConfigError
from torchfpn.evaluation.options import USED
from torchfpn.importers.convert import FAMILIES, convert

EVALUATE = {
    kind: [RENAMED.get(name, name).lstrip("-").replace("-", "_") for name in names] for kind, names in USED.items()
}
USED_BY = {**options.USED_BY, "evaluate": EVALUATE}

# What each flag is given as. Some name files that are not there: the flag is refused before.
VALUES = {
    "split": "test", "device": "cuda:9", "precision": "bf16", "accept_dtype": None, "no_boundary": None,
    "iou": "0.7", "max_detections": "200", "classes": "a,b", "ignore": "7", "min_area": "3", "min_pixels": "3",
    "field": "kind", "truth_field": "kind", "score_field": "score", "min_score": "0.3", "within": "area.geojson",
    "layer": "a", "truth_layer": "a", "assume_crs": "EPSG:32633", "tiles": "{z}/{x}/{y}", "background": "0",
    "worst": "1", "burn": "1", "allow_vrt": None, "init": None, "sheet": "sheet.png", "max_pixels": "100000",
    "json": None, "fix": None, "without_class": "skip", "palette": None, "probabilities": "uint8",
    "tile_size": "64", "margin": "16", "blend": None, "batch_size": "2", "mosaic": "town", "resume": None,
    "max_side": "100000",
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The words of each kind of input."""
    top = tmp_path_factory.mktemp("kinds")
    labels = top / "labels"
    labels.mkdir()
    write_png(labels / "a.png", np.array([[0, 1], [1, 0]], np.uint8))
    (top / "images").mkdir()
    write_png(top / "images" / "a.png", noise(0, (2, 2)).transpose(1, 2, 0))
    polygons = write_geojson(top / "p.geojson", [box(3, 3)])
    write_map(top / "map.tif", np.ones((1, 40, 50), np.uint8))
    objects = make_objects(top / "objects", coco([]), yaml=YAML.replace("instance", "detection", 1))
    (top / "dataset.yaml").write_text("classes: [a, b]\nsplits: {train: {images: images, labels: labels}}\n")
    (top / "r.json").write_text("[]")
    (top / "panoptic").mkdir()
    for side in ("found", "truth"):
        (top / "panoptic" / f"{side}.json").write_text(json.dumps(panoptic()))
    (top / "t.json").write_text(json.dumps(coco([])))
    tiny_task().save(top / "pixels.safetensors")
    tiny_detector().save(top / "objects.safetensors")
    tiny_panoptic().save(top / "segments.safetensors")
    predict = [top / "images", "--out", top / "predicted"]
    scene = write_map(top / "scene.tif", noise(0, (40, 50), bands=4, dtype=np.uint16) * 9)
    two = write_map(
        top / "two.tif", np.pad(np.full((1, 9, 9), 2, np.uint8), ((0, 0), (3, 28), (5, 36)), constant_values=1)
    )
    (top / "photos").mkdir()
    write_png(top / "photos" / "a.png", noise(0, (32, 40)).transpose(1, 2, 0))
    found = {
        "COCO results": [top / "r.json", top / "t.json"],
        "COCO panoptic annotations": [top / "panoptic" / "found.json", top / "panoptic" / "truth.json"],
        "label files against label files": [labels, labels],
        "label files against polygons": [top / "map.tif", polygons],
        "polygons against polygons": [polygons, polygons],
        "polygons within an area": [polygons, polygons, "--within", polygons],
        "polygons on one of two sides": [
            *(top / "map.tif", "--truth", polygons, "--prediction", polygons, "--out", top / "s"),
        ],
        "a label raster": [top / "map.tif", top / "out.gpkg"],
        "a file of polygons": [polygons, top / "out.gpkg"],
        "--init": [top, "--init"],
        "a dataset of label files": [top],
        "a dataset of objects": [objects],
        "label files alone": [top / "images", "--truth", labels, "--out", top / "sheets"],
        "label files on both sides": [top / "images", "--truth", labels, "--prediction", labels, "--out", top / "s"],
        "a scene": [top / "pixels.safetensors", scene, "--out", "out"],
        "photos": [top / "objects.safetensors", top / "photos", "--out", "out"],
        "labels": [two, "out.geojson"],
        "a sheet": [two, "--truth", two, "--out", "sheets"],
        "a semantic model": [top / "pixels.safetensors", *predict],
        "a detection model": [top / "objects.safetensors", *predict],
        "a panoptic model": [top / "segments.safetensors", *predict],
        "polygons of one class": [polygons, top / "map.tif", "--out", top / "masks"],
        "polygons with classes of their own": [polygons, top / "map.tif", "--field", "kind", "--out", top / "masks"],
        "polygons on one side alone": [top / "map.tif", "--truth", polygons, "--out", top / "sheets"],
    }
    return {kind: list(map(str, words)) for kind, words in found.items()}


def idle(verb):
    """(verb, kind, flag) of every flag that does not hold for a kind of input, without those that make another kind."""
    flags = {name for names in USED_BY[verb].values() for name in names} - {"init", "within"}
    kinds = {
        kind: names
        for kind, names in USED_BY[verb].items()
        if verb != "evaluate" or not kind.startswith(("a semantic", "a detection", "a panoptic"))
    }
    return [(verb, kind, flag) for kind, names in kinds.items() for flag in sorted(flags - set(names))]


@pytest.mark.parametrize(("verb", "kind", "flag"), [row for verb in USED_BY for row in idle(verb)])
def test_flags_that_change_nothing_are_refused(inputs, capsys, verb, kind, flag):
    name = f"--{flag.replace('_', '-')}"
    words = [*inputs[kind], name, *([] if VALUES[flag] is None else [VALUES[flag]])]
    assert main([verb, *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert name.removeprefix("--") in error


def test_every_flag_of_the_table_is_one_of_the_verb(capsys):
    for verb, kinds in USED_BY.items():
        assert main([verb, "--help"]) == 0
        shown = capsys.readouterr().out
        for flag in {name for names in kinds.values() for name in names}:
            assert f"--{flag.replace('_', '-')}" in shown, (verb, flag)


@pytest.mark.parametrize(
    ("verb", "kind", "old", "new", "value", "others"),
    [
        ("predict", "a scene", "--probs", "--probabilities", "uint8", ""),
        ("predict", "a scene", "--window", "--tile-size", "32", "--margin 0"),
        ("predict", "a scene", "--batch", "--batch-size", "2", "--tile-size 32 --margin 0"),
        ("predict", "a scene", "--outlined", "--vectorize", "grass", "--polygons pixels"),
        ("predict", "a scene", "--least", "--min-pixels", "4", "--polygons pixels"),
        ("predict", "photos", "--score", "--min-score", "0.3", "--polygons pixels"),
        ("evaluate", "polygons against polygons", "--least", "--min-area", "101", "--json scores.json"),
        ("evaluate", "polygons against polygons", "--score", "--score-field", "kind", "--json scores.json"),
        ("evaluate", "COCO results", "--most", "--max-detections", "200", "--json scores.json"),
        ("compare", "a sheet", "--largest", "--panel-size", "16", ""),
        ("polygons", "labels", "--outlined", "--vectorize", "1", ""),
        ("polygons", "labels", "--least", "--min-pixels", "90", ""),
        ("polygons", "labels", "--least-area", "--min-area", "90", ""),
        ("polygons", "labels", "--known", "--exclude", "POLYGONS", ""),
        ("polygons", "labels", "--known-overlap", "--exclude-overlap", "0.01", "--exclude POLYGONS"),
    ],
)
def test_a_deprecated_spelling_does_what_the_new_one_does(
    inputs, tmp_path, capsys, monkeypatch, verb, kind, old, new, value, others
):
    made = {}
    for flags in ([old, value], [f"{new}={value}"], []):
        folder = tmp_path / str(len(made))
        folder.mkdir()
        monkeypatch.chdir(folder)
        words = [*inputs[kind], *flags, *others.split()]
        code = main([verb, *(word.replace("POLYGONS", inputs["a file of polygons"][0]) for word in words)])
        told = capsys.readouterr()
        files = {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        made[len(made)] = (code, files, re.sub(r"in [\d.]+ s", "", told.out), told.err)
    first, second, without = made.values()
    assert first[:3] == second[:3]
    assert first[3] == f"fpn: `{old}` is deprecated; use `{new}`\n{second[3]}"
    assert "deprecated" not in second[3]
    assert old in ("--batch", "--most") or second != without  # these change the work, not the result
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert re.search(rf"{new}\b", shown)
    assert not re.search(rf"{old}(?![\w-])", shown)


def test_flags_are_not_abbreviated(inputs, capsys):
    assert main(["polygons", *inputs["a label raster"], "--min", "3"]) == 2
    assert "--min: unknown flag; did you mean" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "LABELS", "LABELS", "--classes", "a,a"],
        ["evaluate", "LABELS", "LABELS", "--classes", "0=a,1=a"],
        ["evaluate", "MAP", "POLYGONS", "--classes", "a,a"],
        ["evaluate", "POLYGONS", "POLYGONS", "--classes", "a,b,a"],
        ["compare", "IMAGES", "--truth", "LABELS", "--out", "OUT", "--classes", "a,a"],
        ["polygons", "MAP", "OUT.gpkg", "--vectorize", "a,a"],
        ["predict", "MODEL", "IMAGES", "--out", "OUT", "--polygons", "gpkg", "--vectorize", "a,a"],
        ["rasterize", "POLYGONS", "MAP", "--out", "OUT", "--classes", "a,a"],
    ],
)
def test_classes_twice_are_refused(inputs, tmp_path, capsys, words):
    labels, polygons = inputs["label files against label files"][0], inputs["a file of polygons"][0]
    known = {"LABELS": labels, "POLYGONS": polygons, "MAP": inputs["a label raster"][0], "OUT": str(tmp_path / "out")}
    known |= {"IMAGES": inputs["label files alone"][0], "OUT.gpkg": str(tmp_path / "out.gpkg")}
    known["MODEL"] = labels.replace("labels", "pixels.safetensors")
    assert main([known.get(word, word) for word in words]) == 2
    error = capsys.readouterr().err
    assert '"a" twice' in error
    assert error.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_flags_of_maps_are_refused_with_a_model_of_pixels(inputs, tmp_path, capsys):
    model = inputs["label files against label files"][0].replace("labels", "pixels.safetensors")
    dataset = tmp_path / "data"
    (dataset / "images").mkdir(parents=True)
    (dataset / "labels").mkdir()
    write_map(dataset / "images" / "a.tif", noise(0, (32, 32), bands=4, dtype=np.uint16), size=(32, 32))
    write_png(dataset / "labels" / "a.png", np.ones((32, 32), np.uint8))
    (dataset / "dataset.yaml").write_text(
        "classes: {1: grass, 2: road, 7: roof}\nsplits: {val: {images: images, labels: labels}}\n"
    )
    for flag in (
        "classes",
        "ignore",
        "within",
        "field",
        "truth_field",
        "score_field",
        "layer",
        "assume_crs",
        "tiles",
        "iou",
    ):
        assert main(["evaluate", model, str(dataset), f"--{flag.replace('_', '-')}", VALUES[flag]]) == 2
        error = capsys.readouterr().err
        assert f"--{flag.replace('_', '-')}: has no effect on a semantic model on label files" in error


def test_layer_names_the_one_of_the_prediction_and_truth_layer_that_of_the_truth(tmp_path, inputs, capsys):
    found, truth = tmp_path / "found.gpkg", tmp_path / "truth.gpkg"
    for path, layers in ((found, (("seen", 0), ("old", 30))), (truth, (("roofs", 0), ("trees", 30)))):
        for name, at in layers:
            shapes = np.array([shapely.to_wkb(shapely.box(4e5 + at, 5.8e6, 4e5 + at + 10, 5.8e6 + 10))], object)
            pyogrio.raw.write(
                path, shapes, [], [], layer=name, crs="EPSG:32633", geometry_type="Polygon", append=path.exists()
            )
    for layer, hits in (("roofs", 1), ("trees", 0)):
        words = [str(found), str(truth), "--layer", "seen", "--truth-layer", layer, "--json", "-"]
        assert main(["evaluate", *words]) == 0
        assert json.loads(capsys.readouterr().out)["objects"]["all"]["matched"] == hits, layer
    image = inputs["a label raster"][0]
    words = [
        "--truth",
        truth,
        "--prediction",
        found,
        "--layer",
        "old",
        "--truth-layer",
        "none",
        "--out",
        tmp_path / "s",
    ]
    assert main(["compare", image, *map(str, words)]) == 2
    assert f'{truth}: no layer "none"' in capsys.readouterr().err


def test_flags_of_other_families_are_refused_by_convert():
    """Which flags each family of checkpoints reads; `converted` refuses the others by name."""
    holds = {family.name: (*family.asks, *(["variant"] if family.variants else [])) for family in FAMILIES}
    assert holds == {
        "robosat": (),
        "pytorch-fpn": (),
        "kuangliu": ("align_corners",),
        "segmentation-models-pytorch": ("backbone",),
        "torchvision": ("anchors", "variant"),
        "detectron2": ("anchors", "variant"),
    }
    tensors = {"decoder.p5.weight": torch.zeros(1), "decoder.seg_blocks.0.block.0.weight": torch.zeros(1)}
    for flag, value in (("align_corners", True), ("anchors", [32, 64]), ("variant", "caffe")):
        with pytest.raises(ConfigError, match=f"{flag}: .*segmentation-models-pytorch"):
            convert(tensors, source="segmentation-models-pytorch", **{flag: value})
