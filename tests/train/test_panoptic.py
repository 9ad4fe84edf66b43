"""Training on things and stuff, from the command to its folder, and the scores of the model file."""

import json
import re
import shutil

import pytest
import torch

import torchfpn
from made_panoptic import make_panoptic
from passes import at_step, own_signal
from torchfpn.cli.main import main
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import ObjectDataset
from torchfpn.evaluation.panoptic_model import PanopticScorer, evaluate_panoptic
from train.test_objects import SETTINGS as OF_OBJECTS
from train.test_objects import make_data
from train.tiny import rows, same_training, train

SETTINGS = OF_OBJECTS.replace("head_options:\n      {", "head_options: {regions: {").replace("[128]]}", "[128]]}}")
YAML = """task: panoptic
classes: [cell, dot, ground]
things: [cell, dot]
background: ground
splits:
  train: {images: train, objects: train.json}
  val: {images: val, objects: val.json}
"""
REGIONS = ("objectness", "anchors", "classes", "boxes", "masks")
SCORES = ("pq", "sq", "rq", "things_pq", "stuff_pq", "mask_ap", "mask_ap50", "ap", "ap50", "miou")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the dataset `data`, the config `small.yaml`, and a training of it in runs/small.

    Its model gives things from a score of 0.05 on, or it would give none so early.
    """
    folder = tmp_path_factory.mktemp("panoptic")
    make_data(folder / "data")
    (folder / "data" / "dataset.yaml").write_text(YAML)
    (folder / "small.yaml").write_text(SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train("--keep", "last", "--model.merging", "{score: 0.05, stuff_area: 9}") == 0
    return folder


@pytest.fixture
def small(trained, tmp_path, monkeypatch):
    """A current folder with the same dataset and config, without a training."""
    shutil.copytree(trained / "data", tmp_path / "data")
    (tmp_path / "small.yaml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_leaves_everything(trained):
    run = trained / "runs" / "small"
    found = rows(run)
    terms = [f"train/loss_{term}" for term in (*REGIONS, "semantic")]
    classes = [f"val/pq_{name}" for name in ("cell", "dot", "ground")]
    assert list(found[0]) == ["epoch", "step", "lr", "train/loss", *terms, *(f"val/{s}" for s in SCORES), *classes]
    for row in found:
        assert float(row["train/loss"]) == pytest.approx(sum(float(row[term]) for term in terms), rel=1e-5)
        assert all(0 <= float(row[f"val/{name}"]) <= 1 for name in SCORES)
    values = json.loads((run / "validation.json").read_text())
    assert (values["kind"], values["images"], values["num_things"]) == ("panoptic", 3, 2)
    assert values["classes"] == ["cell", "dot", "ground"]
    assert sum(values["tp"][:2] + values["fp"][:2]) > 0, "no thing was predicted"
    for name, value in (("pq", values["all"]["pq"]), ("stuff_pq", values["stuff"]["pq"]), *values["branches"].items()):
        assert float(found[-1][f"val/{name}"]) == pytest.approx(value, abs=1e-6), name
    assert {p.name.split("-")[0] for p in (run / "samples").glob("*.png")} == {"00", "best", "worst"}
    page = (run / "report.html").read_text()
    for words in ("panoptic segmentation", "PQ of things, val", "mean of stuff", "Confusion", "Best and worst"):
        assert words in page
    task = torchfpn.load(run / "model.safetensors")
    assert (task.things, task.stuff) == (("cell", "dot"), ("ground",))


def test_the_command_scores_the_model_file_as_its_training_did(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    flags = ("--json", str(tmp_path / "scores.json"), "--out", str(tmp_path / "out"), "--no-boundary")
    assert main(["evaluate", "runs/small/model.safetensors", "data", *flags]) == 0
    assert "branches before merging, %" in capsys.readouterr().out
    files = tmp_path / "scores.json", trained / "runs/small/validation.json"
    told, kept = (json.loads(path.read_text()) for path in files)
    assert told == kept
    assert "PQ, val" in (tmp_path / "out" / "report.html").read_text()
    assert list((tmp_path / "out" / "samples").glob("worst-00-*.png"))
    assert main(["evaluate", "runs/small/model.safetensors", "data", "--iou", "0.7"]) == 2
    assert "--iou: has no effect on a panoptic model" in capsys.readouterr().err


def test_boundary_quality_is_at_most_that_of_segments(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    assert main(["evaluate", "runs/small/model.safetensors", "data", "--out", str(tmp_path / "out")]) == 0
    scores = json.loads((tmp_path / "out" / "validation.json").read_text())
    own, parent = scores["boundary"]["all"]["pq"], scores["all"]["pq"]
    assert 0 < own < parent
    table, page = capsys.readouterr().out, (tmp_path / "out" / "report.html").read_text()
    (line,) = (line for line in table.splitlines() if line.startswith("all "))
    assert f"{100 * own:.2f}" in line.split()
    for words in ("boundary PQ, val", "boundary PQ, %", f"{100 * own:.1f}"):
        assert words in page


def test_classes_in_another_order_give_the_same_scores(trained, tmp_path):
    shutil.copytree(trained / "data", tmp_path / "data")
    yaml = YAML.replace("[cell, dot, ground]", "[ground, dot, cell]")
    (tmp_path / "data" / "dataset.yaml").write_text(yaml)
    model = trained / "runs/small/model.safetensors"
    one, other = (torchfpn.evaluate(model, top / "data", boundary=False) for top in (trained, tmp_path))
    assert one == other


OF_INSTANCES = "task: instance\nsplits:\n  val: {images: val, annotations: val.json}\n"


@pytest.mark.parametrize(
    ("yaml", "told"),
    [
        (OF_INSTANCES, "task: a dataset for instance; expected panoptic"),
        (YAML.replace("[cell, dot]", "[cell]"), 'things: "dot" is stuff in the dataset and a thing in the model'),
        (
            YAML.replace(" ground", " soil"),
            "classes: only the dataset has soil; only the model has ground",
        ),
    ],
    ids=["task", "thing that is stuff", "class"],
)
def test_a_dataset_of_other_kinds_is_refused(trained, tmp_path, yaml, told):
    shutil.copytree(trained / "data", tmp_path / "data")
    (tmp_path / "data" / "dataset.yaml").write_text(yaml)
    with pytest.raises(torchfpn.FPNError, match=re.escape(told)):
        torchfpn.evaluate(trained / "runs/small/model.safetensors", tmp_path / "data")


def test_a_stopped_training_goes_on_to_the_same_bits(small):
    assert train("--name", "whole") == 0
    with at_step(4, own_signal()):
        assert train() == 143
    assert train("--resume") == 0
    assert same_training(small / "runs" / "whole", small / "runs" / "small") == []


def test_a_batch_in_passes_gives_the_same_losses(small):
    """Each pass counts by its labelled pixels and its objects."""
    flags = ("--max_epochs", "1", "--steps_per_epoch", "1", "--model.norm", "group", "--freeze", "backbone")
    assert train(*flags, "--name", "whole") == 0
    assert train(*flags, "--name", "passes", "--batch_size", "1", "--accumulate", "2") == 0
    one, other = (rows(small / "runs" / name)[0] for name in ("whole", "passes"))
    for term in (*REGIONS, "semantic"):
        assert float(one[f"train/loss_{term}"]) == pytest.approx(float(other[f"train/loss_{term}"]), rel=0.2), term
    assert float(one["train/loss_semantic"]) == pytest.approx(float(other["train/loss_semantic"]), rel=1e-4)


@pytest.mark.parametrize(
    ("task", "flag", "value", "found"),
    [
        ("panoptic", "--loss.terms", "focal", "loss.terms: focal with a dataset for panoptic"),
        ("panoptic", "--loss.semantic_weight", "0", "loss.semantic_weight: 0.0"),
        ("panoptic", "--model.merging", "{area: 3}", "model.merging.area: "),
        ("instance", "--model.merging", "{score: 0.3}", "model.merging: {'score': 0.3} with a dataset for instance"),
        ("instance", "--loss.semantic_weight", "1", "loss.semantic_weight: 1.0 with a dataset for instance"),
        ("instance", "--model.options.semantic_classes", "all", "model.options.semantic_classes: all with a dataset"),
    ],
)
def test_settings_without_an_effect_are_refused(small, capsys, task, flag, value, found):
    if task == "instance":
        make_data(small / "other")
        (small / "small.yaml").write_text(SETTINGS.replace("dataset: data", "dataset: other"))
    assert train(flag, value) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"fpn: {found}")


def test_a_branch_of_all_classes_is_learnt(small):
    flags = ("--model.options.semantic_classes", "all", "--loss.instance_weight", "0.5")
    assert train("--max_epochs", "1", *flags, "--model.merging", "{stuff_area: 9}") == 0
    task = torchfpn.load(small / "runs" / "small" / "model.safetensors")
    assert task.criterion.instance_weight == 0.5
    assert task.recipe.rules["panoptic"] == {"score": 0.5, "overlap": 0.5, "stuff_area": 9}
    (found,) = task.predict([torch.zeros(3, 40, 50)])
    assert found.segments.shape == (40, 50)


def test_scores_of_parts_are_merged_into_those_of_the_whole(trained):
    """As several processes count them, each its share of the images."""
    task = torchfpn.load(trained / "runs/small/model.safetensors")
    samples = ObjectDataset(read_dataset(trained / "data"), "val")
    whole = evaluate_panoptic(task, samples)
    parts = [PanopticScorer(task, samples) for _ in range(2)]
    for number in range(len(samples)):
        one = samples[number]
        (found,) = task.predict([one.image])
        parts[number % 2].update(number, found, one.objects, one.segments)
    merged = PanopticScorer(task)
    for part in reversed(parts):
        merged.merge(part.state())
    assert merged.quality.compute() == whole.quality
    assert merged.precisions.ap == whole.precisions.ap
    assert torch.equal(merged.semantic.matrix, whole.semantic.matrix)


def test_annotations_scored_against_themselves_are_perfect(tmp_path, capsys):
    folder = make_panoptic(tmp_path) / "train"
    shutil.copy(folder / "panoptic.json", folder / "found.json")
    shutil.copytree(folder / "panoptic", folder / "found")
    words = ["evaluate", str(folder / "found.json"), str(folder / "panoptic.json")]
    assert main([*words, "--json", "-"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["kind"], scores["all"]["pq"], scores["boundary"]["all"]["pq"]) == ("panoptic", 1.0, 1.0)
    assert main(words) == 0
    assert "100.00" in capsys.readouterr().out


def test_a_training_begins_from_a_model_for_instances(small, capsys):
    torch.manual_seed(0)
    options = {"hidden": 16, "mask_hidden": 16, "proposals": 50, "detections": 10}
    options |= {"anchor_sizes": [[16], [24], [32], [64], [128]]}
    before = torchfpn.create_task(
        "instance", backbone="test_resnet", classes=["dot", "rod"], channels=8, head_options=options, dtype="uint8",
        scaling=torchfpn.Scaling((50.0,) * 3, (40.0,) * 3),
    )  # fmt: skip
    before.save("instance.safetensors")
    flags = ("--model.weights", "instance.safetensors", "--max-epochs", "1", "--lr", "1e-12", "--ema", "0")
    assert train(*flags) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "weights: from instance.safetensors" in told
    assert "taken over: backbone; pyramid; region head; classes dot; new: semantic branch; classes cell" in told
    task = torchfpn.load("runs/small/model.safetensors")
    assert task.recipe.source["started_from"] == "instance.safetensors, instance"
    assert task.recipe.scaling == before.recipe.scaling
    was, now = before.model.state_dict(), task.model.state_dict()
    name = "box.predict.scores.weight"
    torch.testing.assert_close(now[f"head.regions.{name}"][[1, 2]], was[f"head.{name}"][[0, 2]], atol=1e-6, rtol=0)
    torch.testing.assert_close(now["pyramid.pyramid.lateral.0.weight"], was["pyramid.pyramid.lateral.0.weight"],
                               atol=1e-6, rtol=0)  # fmt: skip
    assert train(*flags[:-2], "--model.channels", "16", "--overwrite") == 2
    assert "channels: 16; expected 8, as instance.safetensors has it" in " ".join(capsys.readouterr().err.split())
    assert train("--model.weights", "none.safetensors") == 2
    assert "model.weights: no such file: none.safetensors" in " ".join(capsys.readouterr().err.split())
