"""fpn evaluate: the table, the exact numbers, the report, and what is refused."""

import json

import numpy as np
import pytest
import rasterio
import torch
import yaml

import torchfpn
from made_data import write_png, write_tiff
from tiny_model import BANDS, CLASSES, IDS, tiny_task
from torchfpn.cli.main import main
from torchfpn.inference.outputs import write_labels
from torchfpn.io.labels import read_labels

YAML = {
    "task": "semantic",
    "classes": dict(zip(IDS, CLASSES, strict=True)),
    "ignore_index": 0,
    "splits": {"val": {"images": "images", "labels": "labels"}, "test": {"images": "images", "labels": "labels"}},
}


@pytest.fixture
def model(tmp_path):
    tiny_task().save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def make(folder, *, dtype="uint16", order=(0, 1, 2, 3), **changes):
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    arrays = []
    for name in ("a", "b"):
        image = rng.integers(1, 250 if dtype == "uint8" else 1000, (4, 30, 36)).astype(dtype)
        labels = rng.choice([0, *IDS], (30, 36)).astype(np.uint8)
        place = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 5e6), "photometric": "MINISBLACK"}
        names = [BANDS[i] for i in order]
        write_tiff(folder / "images" / f"{name}.tif", image[list(order)], descriptions=names, **place)
        write_png(folder / "labels" / f"{name}.png", labels)
        arrays.append((image, labels))
    (folder / "dataset.yaml").write_text(yaml.safe_dump(YAML | changes, sort_keys=False))
    return arrays


def counted(arrays):
    """The confusion matrix by a numpy count, of the model's own predictions."""
    table = np.full(256, 255)
    table[list(IDS)] = range(3)
    confusion = np.zeros((3, 3), int)
    for image, labels in arrays:
        found = tiny_task().predict(torch.from_numpy(image.astype(np.float32))[None])[0].labels.numpy()
        truth = table[labels]
        np.add.at(confusion, (truth[truth < 255], found[truth < 255]), 1)
    return confusion


def run(*words):
    return main(["evaluate", *map(str, words), "--device", "cpu"])


@pytest.mark.parametrize("bands", [["nir", "red", "green", "vv"], ["nir", "blue", "green", "red"]], ids=str)
def test_other_bands_than_the_model_s_are_refused_or_read_by_name(model, tmp_path, capsys, bands):
    """Bands that dataset.yaml names are names, too."""
    arrays = make(tmp_path / "data", bands=bands)
    for path in (tmp_path / "data/images").iterdir():
        with rasterio.open(path, "r+") as sink:
            sink.descriptions = ("",) * 4
    code = run(model, tmp_path / "data", "--json", tmp_path / "scores.json")
    if "vv" in bands:
        assert code == 2
        assert "names its bands nir, red, green, vv; expected 4, as the model has" in capsys.readouterr().err
        return
    assert code == 0
    held = json.loads((tmp_path / "scores.json").read_text())
    assert held["confusion"] == counted([(image[[3, 2, 1, 0]], labels) for image, labels in arrays]).tolist()


def test_table_and_numbers(model, tmp_path, capsys):
    confusion = counted(make(tmp_path / "data"))
    assert run(model, tmp_path / "data", "--json", tmp_path / "scores.json") == 0
    held = json.loads((tmp_path / "scores.json").read_text())
    assert held["confusion"] == confusion.tolist()
    assert torchfpn.evaluate(model, tmp_path / "data", device="cpu") == held
    iou = confusion.diagonal() / (confusion.sum(0) + confusion.sum(1) - confusion.diagonal())
    assert held["iou"] == pytest.approx(iou.tolist(), abs=1e-15)
    assert held["miou"] == pytest.approx(iou.mean(), abs=1e-15)
    out = capsys.readouterr().out
    for k, name in enumerate(CLASSES):
        assert f"{100 * iou[k]:.2f}" in next(line for line in out.splitlines() if line.startswith(name))
    assert "boundary IoU" in out
    assert f"{100 * iou.mean():.2f}" in out


def test_json_on_stdout_is_json_alone(model, tmp_path, capsys):
    make(tmp_path / "data")
    assert run(model, tmp_path / "data", "--split", "test", "--json", "-", "--no-boundary") == 0
    held = json.loads(capsys.readouterr().out)
    assert held["split"] == "test"
    assert held["boundary_iou"] is None
    task = tiny_task().train()
    assert torchfpn.evaluate(task, tmp_path / "data/dataset.yaml", split="test", boundary=False) == held
    assert task.training
    with pytest.raises(torchfpn.ConfigError, match="max_detections: has no effect on a semantic model on label files"):
        torchfpn.evaluate(task, tmp_path / "data", max_detections=300)


def test_a_report_with_pictures(model, tmp_path):
    make(tmp_path / "data")
    out = tmp_path / "scored"
    assert run(model, tmp_path / "data", "--out", out) == 0
    assert sorted(p.name for p in (out / "samples").iterdir()) == ["00-a.png", "01-b.png"]
    assert "<svg" in (out / "report.html").read_text()
    assert json.loads((out / "validation.json").read_text())["images"] == 2


def test_pictures_of_an_earlier_evaluation_do_not_stay(model, tmp_path):
    make(tmp_path / "data")
    out = tmp_path / "scored"
    assert run(model, tmp_path / "data", "--out", out) == 0
    (out / "samples" / "notes.png").write_bytes(b"mine")
    (out / "samples" / "worst-07-old.png").write_bytes(b"of a detector")
    for kind in ("images", "labels"):
        for path in (tmp_path / "data" / kind).glob("b.*"):
            path.unlink()
    (out / "samples" / "01-b.png").rename(out / "samples" / "01-gone.png")
    bad = tmp_path / "data" / "labels" / "a.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:40])
    assert run(model, tmp_path / "data", "--out", out, "--overwrite") == 2  # what fails removes nothing
    assert len(list((out / "samples").iterdir())) == 4
    bad.write_bytes(whole)
    assert run(model, tmp_path / "data", "--out", out, "--overwrite") == 0
    assert sorted(p.name for p in (out / "samples").iterdir()) == ["00-a.png", "notes.png"]
    assert "gone" not in (out / "report.html").read_text()


def test_order_of_classes_and_bands_does_not_matter(model, tmp_path, capsys):
    make(tmp_path / "one")
    classes = [{"name": CLASSES[k], "id": IDS[k]} for k in (2, 0, 1)]
    make(tmp_path / "two", order=(3, 1, 0, 2), classes=classes)
    assert run(model, tmp_path / "one", "--json", "-") == 0
    first = json.loads(capsys.readouterr().out)
    assert run(model, tmp_path / "two", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == first


@pytest.mark.parametrize(
    ("changes", "words", "said"),
    [
        ({"classes": {1: "grass", 2: "road", 7: "tree"}}, [], "only the dataset has tree; only the model has roof"),
        ({}, ["--split", "vall"], 'did you mean "val"'),
        ({"splits": {"val": {"images": "images"}}}, [], 'nothing is labelled in the split "val"'),
        ({"use_bands": [1, 2]}, [], "has 2 bands (red, green); expected 4, as the model has (red, green, blue, nir)"),
    ],
)
def test_what_does_not_fit_is_one_line(model, tmp_path, capsys, changes, words, said):
    make(tmp_path / "data", **changes)
    assert run(model, tmp_path / "data", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_another_pixel_type_is_refused_unless_accepted(model, tmp_path, capsys):
    make(tmp_path / "data", dtype="uint8")
    assert run(model, tmp_path / "data") == 2
    assert "holds uint8; expected uint16, as the model was trained on" in capsys.readouterr().err
    assert run(model, tmp_path / "data", "--accept-dtype") == 0


def test_nothing_is_overwritten_unasked(model, tmp_path, capsys):
    make(tmp_path / "data")
    (tmp_path / "scores.json").write_text("mine")
    assert run(model, tmp_path / "data", "--json", tmp_path / "scores.json") == 2
    assert "already exists; replace it with --overwrite" in capsys.readouterr().err
    assert (tmp_path / "scores.json").read_text() == "mine"
    assert run(model, tmp_path / "data", "--json", tmp_path / "scores.json", "--overwrite") == 0
    assert json.loads((tmp_path / "scores.json").read_text())["images"] == 2


def test_nothing_that_out_writes_is_overwritten_unasked(model, tmp_path, capsys):
    make(tmp_path / "data")
    assert run(model, tmp_path / "data", "--out", tmp_path / "fresh") == 0
    for name in (path.name for path in (tmp_path / "fresh").iterdir() if path.is_file()):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("mine")
        capsys.readouterr()
        assert run(model, tmp_path / "data", "--out", tmp_path / name) == 2
        assert f"{name}: already exists; replace it with --overwrite" in capsys.readouterr().err
        assert (tmp_path / name / name).read_text() == "mine"


@pytest.mark.parametrize("kind", ["tif", "png"])
def test_pictures_of_the_answers_score_as_the_model_on_the_dataset(model, tmp_path, capsys, kind):
    """Label files carry their classes and the value of no data, so that 0 is not labelled in the truth either."""
    make(tmp_path / "data")
    assert run(model, tmp_path / "data", "--json", "-", "--no-boundary") == 0
    right = json.loads(capsys.readouterr().out)
    images, labels, found = tmp_path / "data" / "images", tmp_path / "data" / "labels", tmp_path / "found"
    assert main(["predict", str(model), str(images), "--out", str(found), "--device", "cpu"]) == 0
    if kind == "png":
        for path in list(found.glob("*.tif")):
            write_labels(path.with_suffix(".png"), read_labels(path).values.astype(np.uint16), tiny_task().recipe, None)
            path.unlink()
    capsys.readouterr()
    assert main(["evaluate", str(found), str(labels), "--json", "-"]) == 0
    held = json.loads(capsys.readouterr().out)
    assert (held["classes"], held["confusion"], held["miou"]) == (list(CLASSES), right["confusion"], right["miou"])
    words = ["compare", str(images), "--truth", str(labels), "--prediction", str(found), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    data = json.loads((tmp_path / "out" / "compare.json").read_text())["over_all"]
    assert (data["classes"], data["miou"]) == (list(CLASSES), right["miou"])
