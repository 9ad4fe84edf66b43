"""`fpn train` before it trains: flags over YAML over defaults, files found, the config printed and read again."""

import subprocess
import sys

import pytest
import yaml

from torchfpn.cli.main import main
from torchfpn.config import TrainConfig, load_config, read_config, to_yaml
from torchfpn.config.check import settings
from torchfpn.errors import ConfigError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with a dataset `data`, and a config in a folder of its own."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.yaml").write_text("")
    (tmp_path / "configs").mkdir()
    model = "model: {backbone: resnet18, options: {strides: [4, 8]}}"
    text = f"dataset: ../data\nlr: 1e-2\n{model}\ndata:\n  crop: [32, 48]\n"
    (tmp_path / "configs" / "roofs.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(*flags):
    return read_config(flags).config


def test_flags_win_over_the_file_and_the_file_over_defaults(here):
    found = config("--config", "configs/roofs.yaml", "--lr", "0.5", "--model.channels", "64", "--model.options.a", "1")
    assert (found.lr, found.model.channels, found.model.backbone) == (0.5, 64, "resnet18")
    assert found.data.crop == (32, 48)
    assert found.model.options == {"strides": [4, 8], "a": 1}
    assert found.max_epochs == TrainConfig().max_epochs


def test_a_later_config_file_wins(here):
    (here / "more.yaml").write_text("lr: 0.25\nmodel: {options: {b: 2}}\n")
    found = config("--config", "configs/roofs.yaml", "--config", "more.yaml")
    assert (found.lr, found.model.backbone) == (0.25, "resnet18")
    assert found.model.options == {"strides": [4, 8], "b": 2}


def test_paths_are_found_beside_the_file_or_else_here(here):
    assert config("--config", "configs/roofs.yaml").dataset == "data"
    (here / "configs" / "other.yaml").write_text("dataset: data\n")
    assert config("--config", "configs/other.yaml").dataset == "data"


def test_the_run_is_named_after_the_config_or_the_dataset(here):
    assert config("--config", "configs/roofs.yaml").name == "roofs"
    assert config("--dataset", "data").name == "data"
    assert config("--dataset", "data/dataset.yaml").name == "data"
    assert config("--config", "configs/roofs.yaml", "--name", "mine").name == "mine"


def test_switches_need_no_value_and_hyphens_are_underscores(here):
    found = config("--dataset", "data", "--overwrite", "--auto-batch", "--max-epochs=3", "--resume")
    assert (found.overwrite, found.auto_batch, found.max_epochs, found.resume) == (True, True, 3, True)
    assert config("--dataset", "data", "--overwrite=false").overwrite is False
    assert config("--dataset", "data", "--ckpt_path", "last").resume is True
    assert config("--dataset", "data", "--ckpt_path", "runs/x").resume == "runs/x"


def test_every_setting_comes_back_from_yaml(here):
    flags = "--data.scale [0.5,2] --data.use_bands [1,nir] --loss.class_weights [1,2.5] --optimizer.betas [0.8,0.9]"
    found = config("--dataset", "data", "--name", "x", *flags.split(), "--steps_per_epoch", "7", "--num_workers", "2")
    (here / "runs").mkdir()
    (here / "runs" / "config.yaml").write_text(to_yaml(found, folder="runs"))
    assert load_config("runs/config.yaml") == found
    assert yaml.safe_load((here / "runs" / "config.yaml").read_text())["dataset"] == "../data"


def test_print_config_prints_it_and_stops(here, capsys):
    assert main(["train", "--config", "configs/roofs.yaml", "--lr", "2e-3", "--print_config"]) == 0
    shown = capsys.readouterr().out
    assert yaml.safe_load(shown)["lr"] == 2e-3
    (here / "printed.yaml").write_text(shown)
    assert config("--config", "printed.yaml") == config("--config", "configs/roofs.yaml", "--lr", "2e-3")
    assert not (here / "runs").exists()


def test_resuming_a_folder_takes_its_config(here):
    run = here / "runs" / "old"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").write_bytes(b"")
    (run / "config.yaml").write_text("dataset: ../../data\nname: old\nlr: 0.125\n")
    for flags in (["--resume", "runs/old"], ["--resume=runs/old"], ["--resume", "runs/old/checkpoints/last.ckpt"]):
        found = config(*flags)
        assert (found.lr, found.name, found.dataset) == (0.125, "old", "data")


def test_help_shows_every_setting(capsys):
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name, *_ in settings(TrainConfig()) if f"--{name}" not in shown] == []
    assert "fpn train --resume" in shown


def test_every_default_is_allowed(here):
    assert config("--dataset", "data", "--name", "data") == TrainConfig(dataset="data", name="data")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--lr", "-1"], "lr: -1.0; 0.0 or more"),
        (["--lr", "nan"], 'lr: "nan"; a number'),
        (["--data.scale", "[2, 1]"], "data.scale: 2.0 to 1.0; the smaller number first"),
        (["--data.hflip", "1.5"], "data.hflip: 1.5; 0.0 to 1.0"),
        (["--data.crop", "0"], "data.crop: 0; 1 pixel or more"),
        (["--devices", "0"], "devices: 0; 1 or more"),
        (["--name", "a/b"], 'name: "a/b"; the name of one folder; --out says where'),
        (["--loss.terms", "ce+lovas"], 'did you mean "lovasz"'),
        (["--loss.class_weights", "median-freqency"], 'did you mean "median-frequency"'),
        (["--model.pyramid", "fpm"], 'did you mean "fpn"'),
        (["--model.pretrained", "nowhere.safetensors"], "model.pretrained: no such file: nowhere.safetensors"),
        (["--dataset", "nowhere"], "dataset: no such file or folder: nowhere"),
        (["--lr"], "lr"),
        (["roofs"], "every setting is a --flag"),
    ],
)
def test_what_cannot_be_is_told(here, flags, told):
    with pytest.raises(ConfigError) as caught:
        config("--dataset", "data", *flags)
    assert told in str(caught.value)


def test_settings_are_read_without_torch(here):
    script = (
        "import sys; from torchfpn.cli.main import main\n"
        "main(['train', '--config', 'configs/roofs.yaml', '--print_config'])\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
