"""Training straight from maps: real ones as they lie on the disk, and scenes, stopped and resumed to the bit."""

import json
from pathlib import Path

import pytest

from made_maps import box, make_scene, write_geojson
from passes import at_step, own_signal
from shared import needs_shared
from torchfpn.cli.main import main
from torchfpn.config.checks import check
from torchfpn.config.parsing import load_config
from torchfpn.config.settings import DataConfig, ModelConfig, TrainConfig
from torchfpn.train.fit import fit
from train.tiny import rows, same_training

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = ModelConfig(backbone="test_resnet", channels=8, head_channels=8)
SETTINGS = """
dataset: data
max_epochs: 2
steps_per_epoch: 3
batch_size: 4
num_workers: {workers}
accelerator: cpu
model: {{backbone: test_resnet, channels: 8, head_channels: 8}}
data: {{crop: 32, scale: [0.5, 2.0], rotate: true, noise: 0.1, class_aware: 0.5}}
loss: {{class_weights: enet}}
"""


@needs_shared
@pytest.mark.parametrize(
    ("name", "crop", "more"),
    [("buildings", 64, {}), ("atlanta", 64, {}), ("landcover", 64, {"class_aware": 0.9})],
)
def test_real_maps_train_from_the_files_as_they_are(tmp_path, name, crop, more):
    config = TrainConfig(
        dataset=str(CONFIGS / "datasets" / f"{name}.yaml"),
        out=str(tmp_path),
        name=name,
        max_epochs=1,
        steps_per_epoch=3,
        batch_size=2,
        num_workers=0,
        accelerator="cpu",
        limit_val_batches=2,
        model=TINY,
        data=DataConfig(crop=crop, rotate=True, **more),
    )
    result = fit(config)
    (row,) = rows(result.folder)
    assert 0 < float(row["train/loss"]) < 20
    assert result.model.is_file()
    assert ("miou" in result.metrics) == (name == "buildings")


@needs_shared
def test_the_config_of_the_buildings_is_one():
    config = load_config(CONFIGS / "buildings.yaml")
    check(config)
    assert config.data.crop == 256
    assert config.model.pretrained is True


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """A scene as training and as validation set, and the config small.yaml."""
    make_scene(tmp_path / "data", size=(150, 130))
    text = (tmp_path / "data" / "dataset.yaml").read_text()
    text = text.replace("mask.tif}}", "mask.tif}, val: {images: scene.tif, labels: mask.tif}}")
    (tmp_path / "data" / "dataset.yaml").write_text(text)
    (tmp_path / "small.yaml").write_text(SETTINGS.format(workers=0))
    (tmp_path / "workers.yaml").write_text(SETTINGS.format(workers=2))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_scene_is_trained_on_resumed_and_evaluated(scene, capsys):
    assert main(["train", "--config", "small.yaml", "--name", "whole"]) == 0
    assert "16 crops, 3 steps an epoch" in capsys.readouterr().err
    with at_step(3, own_signal()):  # the first step of the second epoch
        assert main(["train", "--config", "workers.yaml", "--name", "parts"]) == 143
    assert main(["train", "--config", "small.yaml", "--name", "parts", "--resume"]) == 0
    assert same_training(Path("runs/whole"), Path("runs/parts")) == []
    scores = json.loads(Path("runs/whole/validation.json").read_text())
    assert sum(map(sum, scores["confusion"])) == 150 * 130  # every pixel once
    capsys.readouterr()
    assert main(["evaluate", "runs/whole/model.safetensors", "data", "--no-boundary", "--json", "-"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert sum(map(sum, again["confusion"])) == 150 * 130


def test_polygons_as_labels_of_a_scene(scene):
    write_geojson(scene / "data" / "l.geojson", [box(20 * i, 15 * i, 18) for i in range(6)])
    text = (scene / "data" / "dataset.yaml").read_text().replace("mask.tif", "l.geojson")
    (scene / "data" / "dataset.yaml").write_text(text + "polygons: {class: b, border: 1}\n")
    assert main(["train", "--config", "workers.yaml", "--max_epochs", "1", "--name", "polygons"]) == 0
    assert Path("runs/polygons/model.safetensors").is_file()


def test_overfitting_and_a_dry_run_take_windows_as_well(scene):
    assert main(["train", "--config", "small.yaml", "--overfit_batches", "1", "--max_epochs", "1"]) == 0
    assert main(["train", "--config", "small.yaml", "--fast_dev_run"]) == 0
