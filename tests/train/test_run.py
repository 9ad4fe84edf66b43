"""A training from the command to its folder: what is there afterwards, and what each setting changes."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import torchfpn
from passes import before_pass
from torchfpn.config.parsing import load_config, read_config
from torchfpn.config.settings import DataConfig, ModelConfig, ScheduleConfig
from torchfpn.train.checkpoints import averaged_weights
from torchfpn.train.run_folder import clear_folder
from train.tiny import checkpoint, rows, same_training, train

COLUMNS = (
    *("epoch", "step", "lr", "train/loss", "train/loss_ce", "val/loss", "val/miou", "val/pixel_accuracy"),
    *("val/iou_ground", "val/iou_roof", "val/iou_road"),
)


def test_a_run_leaves_everything_and_the_next_one_a_folder_of_its_own(small, capsys):
    assert train() == 0
    run = small / "runs" / "small"
    names = {p.name for p in run.iterdir()}
    assert names == {
        *("config.yaml", "env.json", "metrics.csv", "timing.csv", "tb", "checkpoints", "model.safetensors"),
        *("validation.json", "samples", "about.json", "report.html"),
    }
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    assert len(list((run / "samples").glob("*.png"))) == 2
    assert list(rows(run)[0]) == list(COLUMNS)
    assert [(r["epoch"], r["step"]) for r in rows(run)] == [("1", "3"), ("2", "6")]
    shown = capsys.readouterr()
    assert "boundary IoU" in shown.out  # the result
    assert "epoch 2/2" in shown.err  # the progress, a line an epoch where nobody watches
    assert "lightning" not in (shown.err + shown.out).lower()
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert train("--max_epochs", "1", "--limit_val_batches", "1") == 0
    assert (small / "runs" / "small-2" / "model.safetensors").exists()
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    (run / "samples" / "notes.md").write_text("mine")
    clear_folder(run)  # as --overwrite does: all that a run wrote, and nothing else
    assert [p.name for p in run.rglob("*") if p.is_file()] == ["notes.md"]


def test_bands_in_another_order_are_found_in_the_training_files_again(small, capsys):
    """The files tell no names: the dataset has named their bands, and given the numbers of each."""
    with (small / "data" / "dataset.yaml").open("a") as file:
        file.write("bands: [x, y, z]\nscaling: {offset: [10, 20, 30], scale: [40, 50, 60]}\n")
    assert train("--data.use_bands", "[z, x]", "--max_epochs", "1", "--steps_per_epoch", "1") == 0
    task = torchfpn.load(small / "runs" / "small" / "model.safetensors")
    recipe = task.recipe
    assert (recipe.bands, recipe.file_bands) == (("z", "x"), ("x", "y", "z"))
    assert recipe.scaling == torchfpn.Scaling((30.0, 10.0), (60.0, 40.0), "given")
    file = small / "data" / "val" / "images" / "0.png"
    pixels = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
    wanted = task.predict([pixels[[2, 0]].float()])[0].scores
    assert torch.equal(task.predict([file])[0].scores, wanted)
    assert torch.equal(task.predict([pixels.numpy()])[0].scores, wanted)
    with (small / "data" / "dataset.yaml").open("a") as file:
        file.write("use_bands: [x, y]\n")
    text = (small / "data" / "dataset.yaml").read_text().replace("20, 30]", "20]").replace("50, 60]", "50]")
    (small / "data" / "dataset.yaml").write_text(text)
    assert train("--data.use_bands", "[z, x]") == 2
    told = capsys.readouterr().err
    assert "gives no scaling" in told
    cure = told.rpartition("; ")[2].split()[:2]
    assert train("--data.use_bands", "[z, x]", *cure, "--max_epochs", "1", "--steps_per_epoch", "1") == 0
    assert torchfpn.load(small / "runs" / "small-2" / "model.safetensors").recipe.scaling.method == cure[1]


def test_the_model_file_scores_what_validation_json_says(small):
    assert train("--precision", "32-true", "--keep", "last") == 0
    run = small / "runs" / "small"
    scores = json.loads((run / "validation.json").read_text())
    task = torchfpn.load(run / "model.safetensors")
    assert task.classes == ("ground", "roof", "road")
    assert float(rows(run)[-1]["val/miou"]) == scores["miou"]
    from torchfpn.data.config import read_dataset
    from torchfpn.data.datasets import SemanticDataset
    from torchfpn.metrics.confusion import ConfusionMatrix

    confusion = ConfusionMatrix(3)
    for sample in SemanticDataset(read_dataset("data"), "val"):
        confusion.update(task.predict([sample.image])[0].labels, sample.target)
    assert confusion.to_dict()["confusion"] == scores["confusion"]


def test_the_saved_config_trains_the_same_again(small):
    assert train("--lr", "3e-3", "--model.head_channels", "16") == 0
    saved = small / "runs" / "small" / "config.yaml"
    again = load_config(saved)
    assert (again.lr, again.model.head_channels, again.name) == (3e-3, 16, "small")
    assert train("--config", str(saved), "--name", "again") == 0
    one, other = (small / "runs" / name / "metrics.csv" for name in ("small", "again"))
    assert one.read_bytes() == other.read_bytes()


def test_best_keeps_the_epoch_with_the_highest_score(small):
    assert train("--max_epochs", "4", "--lr", "0.02") == 0
    run = small / "runs" / "small"
    scores = [float(r["val/miou"]) for r in rows(run)]
    best = checkpoint(run, "best.ckpt")
    assert best["torchfpn"]["position"]["epoch"] == scores.index(max(scores)) + 1
    kept = torchfpn.load(run / "model.safetensors").model.state_dict()
    expected = averaged_weights(best)
    assert all(torch.equal(v, expected[k]) for k, v in kept.items())
    assert not torch.equal(kept["head.classify.weight"], best["state_dict"]["task.model.head.classify.weight"])


def test_fit_in_python_equals_the_verb(small):
    """A dataclass of settings, without YAML and flags, gives the bytes of the command line."""
    assert train("--max_epochs", "1") == 0
    model = ModelConfig(backbone="test_resnet", channels=8, head_channels=8, dropout=0.2)
    config = torchfpn.TrainConfig(
        dataset="data",
        name="python",
        max_epochs=1,
        steps_per_epoch=3,
        batch_size=4,
        num_workers=0,
        accelerator="cpu",
        model=model,
        schedule=ScheduleConfig(warmup=2),
        data=DataConfig(crop=32, scale=(0.5, 2.0), brightness=0.2, noise=0.1),
    )
    result = torchfpn.fit(config)
    assert same_training(small / "runs" / "small", result.folder) == []
    assert result.metrics["train/loss"] == float(rows(result.folder)[0]["train/loss"])
    assert torchfpn.load(result.model).classes == ("ground", "roof", "road")
    with pytest.raises(torchfpn.ConfigError, match="batch_size"):
        torchfpn.fit(replace(config, batch_size=0))


def test_frozen_backbone_stays_as_it_was_made(small):
    config = read_config(["--config", "small.yaml", "--freeze", "backbone", "--ema", "0"]).config
    from torchfpn.train.datamodule import build, open_dataset

    before = build(config, open_dataset(config)).task.model.backbone.state_dict()
    result = torchfpn.fit(config)
    after = torchfpn.load(result.model).model.backbone.state_dict()
    assert all(torch.equal(v, before[k]) for k, v in after.items())


def test_accumulation_makes_one_step_of_several_passes(small):
    assert train("--batch_size", "2", "--accumulate", "2") == 0
    run = small / "runs" / "small"
    assert [r["step"] for r in rows(run)] == ["3", "6"]
    assert checkpoint(run)["torchfpn"]["stepper"]["pass_size"] == 2


def test_validates_every_so_many_epochs_and_the_last_one(small):
    assert train("--max_epochs", "3", "--val_every", "2", "--steps_per_epoch", "1") == 0
    assert [bool(r["val/miou"]) for r in rows(small / "runs" / "small")] == [False, True, True]


def test_stops_when_it_gets_no_better(small):
    assert train("--max_epochs", "9", "--early_stop", "2", "--lr", "0", "--steps_per_epoch", "1", "--ema", "0") == 0
    found = rows(small / "runs" / "small")
    assert len(found) < 9
    scores = [float(r["val/miou"]) for r in found]
    assert max(scores[:-2]) >= max(scores[-2:])


def test_fast_dev_run_goes_through_everything_and_leaves_nothing(small):
    assert train("--fast_dev_run") == 0
    assert {p.name for p in small.iterdir()} == {"data", "small.yaml"}


def test_overfitting_a_batch_drives_its_loss_down(small):
    flags = ["--overfit_batches", "1", "--batch_size", "2", "--max_epochs", "2", "--steps_per_epoch", "25"]
    assert train(*flags, "--lr", "0.02", "--ema", "0", "--model.dropout", "0", "--freeze", "none") == 0
    first, last = (float(r["train/loss"]) for r in rows(small / "runs" / "small"))
    assert last < 0.5 * first


def test_trains_without_a_validation_split(small):
    yaml = small / "data" / "dataset.yaml"
    yaml.write_text("\n".join(line for line in yaml.read_text().splitlines() if "val:" not in line))
    assert train() == 0
    run = small / "runs" / "small"
    assert list(rows(run)[0]) == list(COLUMNS[:5])
    assert not (run / "validation.json").exists()
    assert (run / "model.safetensors").exists()


def test_bands_weights_and_smoothing_reach_the_model(small):
    flags = ["--data.use_bands", "[3, 1]", "--loss.class_weights", "sqrt-median-frequency"]
    assert train(*flags, "--loss.terms", "ce + 0.5*lovasz", "--loss.label_smoothing", "0.1", "--max_epochs", "1") == 0
    run = small / "runs" / "small"
    recipe = torchfpn.load(run / "model.safetensors").recipe
    assert recipe.bands == ("blue", "red")
    assert len(recipe.class_weights) == 3
    row = rows(run)[0]
    total = float(row["train/loss_ce"]) + float(row["train/loss_lovasz"])
    assert math.isclose(float(row["train/loss"]), total, rel_tol=1e-6)


def test_every_step_has_a_key_of_its_own_that_the_seed_changes(small):
    """The key seeds torch's generator, from which the forward pass of the step draws its dropout."""
    keys = []
    with before_pass(lambda *_: keys.append(torch.initial_seed()), torchfpn.Task, training=True):
        for seed in ("0", "1"):
            assert train("--seed", seed) == 0
    assert len(set(keys)) == len(keys) == 12


def test_options_that_create_model_does_not_know_are_refused_before_anything_is_made(small, capsys):
    assert train("--model.options.align_corner", "true") == 2
    assert 'model.options.align_corner: unknown option; did you mean "align_corners"' in capsys.readouterr().err
    assert train("--model.options.channels", "3") == 2
    assert not (small / "runs").exists()


def test_quiet_leaves_the_result_alone(small, capsys):
    assert train("--max_epochs", "1", "-q") == 0
    shown = capsys.readouterr()
    assert "boundary IoU" in shown.out
    assert shown.err == ""


def test_crops_around_classes_in_images_no_larger_than_the_crops_are_told(small, capsys):
    flags = ("--max_epochs", "1", "--steps_per_epoch", "1", "--data.class_aware", "0.5", "--data.scale", "[0.5, 1]")
    for crop, told in (("64", True), ("16", False)):
        assert train(*flags, "--data.crop", crop) == 0
        assert ("note: data.class_aware does nothing" in capsys.readouterr().err) is told


def test_a_share_of_few_validation_images_is_one(small):
    assert train("--limit_val_batches", "0.1", "--limit_train_batches", "0.1", "--max_epochs", "1") == 0
    (row,) = rows(small / "runs" / "small")
    assert (row["step"], row["val/miou"] != "") == ("1", True)
    assert (small / "runs" / "small" / "checkpoints" / "best.ckpt").is_file()


def test_fit_without_a_name_takes_that_of_the_dataset_and_finds_it_again(small):
    """In Python: `fit(TrainConfig(dataset=, out=))`; the folder was beside `out`, and resume=True never found it."""
    config = replace(load_config("small.yaml"), name="", out="elsewhere", max_epochs=1)
    assert torchfpn.fit(config).folder == Path("elsewhere/data")
    assert torchfpn.fit(replace(config, resume=True, max_epochs=2)).folder == Path("elsewhere/data")
    assert [row["epoch"] for row in rows(small / "elsewhere" / "data")] == ["1", "2"]
    assert sorted(path.name for path in small.iterdir() if path.is_dir()) == ["data", "elsewhere"]


def test_no_validation_when_no_image_is_wanted(small):
    assert train("--limit_val_batches", "0", "--max_epochs", "1") == 0
    assert list(rows(small / "runs" / "small")[0]) == list(COLUMNS[:5])


def test_tensorboard_gets_the_numbers_of_metrics_csv(small):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train() == 0
    board = EventAccumulator(str(small / "runs" / "small" / "tb"))
    board.Reload()
    found = {event.step: event.value for event in board.Scalars("train/loss")}
    expected = {int(r["step"]): float(r["train/loss"]) for r in rows(small / "runs" / "small")}
    assert found == pytest.approx(expected)
