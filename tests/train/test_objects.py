"""Training on boxes and masks, from the command to its folder; stopped and resumed to the bit."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import torchfpn
from made_objects import record
from passes import at_step, at_validation, own_signal
from train.tiny import rows, same_training, train

SETTINGS = """
dataset: data
max_epochs: 2
steps_per_epoch: 3
batch_size: 2
num_workers: 0
accelerator: cpu
precision: 32-true
model:
  backbone: test_resnet
  channels: 8
  options:
    head_options:
      {hidden: 16, mask_hidden: 16, proposals: 50, detections: 10, anchor_sizes: [[16], [24], [32], [64], [128]]}
data: {shorter: [64, 80], scale: [0.8, 1.25], vflip: 0.5, brightness: 0.2}
loss: {anchors: 32, boxes: 16}
"""
TERMS = ("objectness", "anchors", "classes", "boxes", "masks")


def make_data(folder, task="instance", classes=("cell", "dot")):
    """Six training and three validation images with bright squares; the last of each has none."""
    numbers = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        (folder / split).mkdir(parents=True)
        annotations, images = [], []
        for i in range(count):
            height, width = 72 + 8 * (i % 2), 96
            image = numbers.integers(0, 60, (height, width, 3), dtype=np.uint8)
            for k in range(0 if i == count - 1 else 1 + i % 3):
                x, y, side = 3 + 30 * k, 4 + 12 * k, 20 + 6 * (k % 2)
                image[y : y + side, x : x + side, k % 2] += 120
                box = (x, y, x + side, y + side)
                annotations.append(record(len(annotations) + 1, box, image=i + 1, category=(3, 7)[k % 2]))
            Image.fromarray(image).save(folder / split / f"{i}.png")
            images.append({"id": i + 1, "file_name": f"{i}.png", "height": height, "width": width})
        categories = [{"id": 3, "name": classes[0]}, {"id": 7, "name": classes[1]}]
        value = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(value))
    splits = "\n".join(f"  {s}: {{images: {s}, annotations: {s}.json}}" for s in ("train", "val"))
    (folder / "dataset.yaml").write_text(f"task: {task}\nsplits:\n{splits}\n")
    return folder


@pytest.fixture
def objects(tmp_path, monkeypatch):
    """A current folder with the dataset `data` and the config `small.yaml`."""
    make_data(tmp_path / "data")
    (tmp_path / "small.yaml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_of_instances_leaves_everything(objects, capsys):
    assert train() == 0
    run = objects / "runs" / "small"
    names = {p.name for p in run.iterdir()}
    assert names >= {"config.yaml", "metrics.csv", "checkpoints", "model.safetensors", "validation.json", "report.html"}
    columns = ["epoch", "step", "lr", "train/loss", *(f"train/loss_{term}" for term in TERMS)]
    scores = ["val/ap", "val/ap50", "val/ap75", "val/mask_ap", "val/mask_ap50", "val/ap_cell", "val/ap_dot"]
    found = rows(run)
    assert list(found[0]) == columns + scores
    for row in found:
        terms = sum(float(row[f"train/loss_{term}"]) for term in TERMS)
        assert float(row["train/loss"]) == pytest.approx(terms, rel=1e-5)
        assert all(0 <= float(row[name]) <= 1 for name in scores)
    values = json.loads((run / "validation.json").read_text())
    assert (values["kind"], values["images"], values["classes"]) == ("instance", 3, ["cell", "dot"])
    assert (run / "samples").is_dir()
    pictures = [p.name for p in (run / "samples").glob("*.png")]
    assert len(pictures) == 3
    assert {name.split("-")[0] for name in pictures} == {"00", "best", "worst"}
    task = torchfpn.load(run / "model.safetensors")
    assert task.recipe.rules == {
        "masks": "detectron2",
        "resize": {"shorter": 80, "longer": None, "antialias": True},
    }
    assert task.recipe.label_ids == (3, 7)
    assert "AP" in capsys.readouterr().out


def test_the_model_file_scores_what_the_last_epoch_did(objects):
    assert train("--keep", "last") == 0
    run = objects / "runs" / "small"
    values = json.loads((run / "validation.json").read_text())
    last = rows(run)[-1]
    assert float(last["val/mask_ap"]) == pytest.approx(values["masks"]["ap"], abs=1e-6)
    assert float(last["val/ap"]) == pytest.approx(values["boxes"]["ap"], abs=1e-6)


def test_boxes_alone_are_learnt_from_the_same_files(objects):
    (objects / "data" / "dataset.yaml").write_text(
        (objects / "data" / "dataset.yaml").read_text().replace("task: instance", "task: detection")
    )
    assert train("--max_epochs", "1") == 0
    run = objects / "runs" / "small"
    assert "train/loss_masks" not in rows(run)[0]
    assert torchfpn.load(run / "model.safetensors").recipe.task == "detection"


@pytest.mark.slow  # a hundred steps
def test_overfitting_a_batch_finds_its_objects(objects):
    flags = ["--overfit_batches", "1", "--max_epochs", "1", "--steps_per_epoch", "100", "--lr", "3e-3", "--ema", "0"]
    assert train(*flags, "--model.channels", "32", "--schedule.warmup", "10") == 0
    values = json.loads((objects / "runs" / "small" / "validation.json").read_text())
    assert values["boxes"]["ap50"] > 0.6
    assert values["masks"]["ap50"] > 0.6


@pytest.mark.parametrize(("kind", "call"), [(at_step, 1), (at_validation, 1)])
def test_stopped_and_resumed_is_the_same_training(objects, capsys, kind, call):
    assert train("--name", "whole") == 0
    with kind(call, own_signal()):
        assert train() == 143
    assert train("--resume", "--data.shorter", "64") == 2
    told = "last.ckpt: resize: antialias True, shorter 80; expected that of the config: antialias True, shorter 64;"
    assert told in capsys.readouterr().err
    assert train("--resume") == 0
    assert same_training(objects / "runs" / "whole", objects / "runs" / "small") == []


def test_loader_processes_change_nothing(objects):
    assert train("--name", "none", "--max_epochs", "1") == 0
    assert train("--name", "one", "--max_epochs", "1", "--num_workers", "1") == 0
    assert same_training(objects / "runs" / "none", objects / "runs" / "one") == []


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--loss.terms", "dice", "loss.terms: dice with a dataset for instance"),
        ("--model.dropout", "0.5", "model.dropout"),
        ("--model.head", "sum", "head"),
        ("--data.shorter", "[64, 32]", "data.shorter: 64 to 32"),
        ("--model.options.align_corners", "true", "align_corners: true with a dataset for instance"),
        ("--data.class_aware", "0.5", "data.class_aware: 0.5 without a crop"),
    ],
)
def test_settings_of_pixels_are_refused(objects, capsys, flag, value, words):
    assert train(flag, value) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]  # above it: from which weights it would begin
    assert error.startswith("fpn: ")
    assert words in error


def test_settings_of_objects_are_refused_for_pixels(small, capsys):
    assert train("--data.shorter", "64") == 2
    assert "data.shorter: 64 with a dataset for semantic" in capsys.readouterr().err


@pytest.mark.slow  # on processors without such numbers
def test_half_precision_learns_too(objects):
    assert train("--precision", "bf16-mixed", "--max_epochs", "1", "--steps_per_epoch", "1") == 0
    assert math.isfinite(float(rows(objects / "runs" / "small")[0]["train/loss"]))


def test_a_batch_without_any_object_is_learnt_from(objects):
    for split in ("train", "val"):
        path = objects / "data" / f"{split}.json"
        value = json.loads(path.read_text())
        value["annotations"] = value["annotations"][:1]  # on the first image, which this seed does not draw
        path.write_text(json.dumps(value))
    assert train("--max_epochs", "1", "--steps_per_epoch", "1", "--seed", "1") == 0
    row = rows(objects / "runs" / "small")[0]
    assert float(row["train/loss_masks"]) == 0
    assert torch.isfinite(torch.tensor(float(row["train/loss"])))
