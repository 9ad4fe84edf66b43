"""`fpn train` before it trains: flags over YAML over defaults, files found, the config printed and read again."""

import math
import subprocess
import sys
from typing import Literal, get_args, get_origin

import pytest
import yaml

from torchfpn.cli.main import main
from torchfpn.config.checks import check, known_settings, settings
from torchfpn.config.parsing import from_plain, load_config, read_config, to_yaml
from torchfpn.config.settings import TrainConfig
from torchfpn.errors import ConfigError
from torchfpn.train import fit as plan


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
    found = config(
        "--config", "configs/roofs.yaml", "--lr", "0.5", "--model.channels", "64", "--model.options.extra", "conv"
    )
    assert (found.lr, found.model.channels, found.model.backbone) == (0.5, 64, "resnet18")
    assert found.data.crop == (32, 48)
    assert found.model.options == {"strides": [4, 8], "extra": "conv"}
    assert found.max_epochs == TrainConfig().max_epochs


def test_a_later_config_file_wins(here):
    (here / "more.yaml").write_text("lr: 0.25\nmodel: {options: {extra: conv}}\n")
    found = config("--config", "configs/roofs.yaml", "--config", "more.yaml")
    assert (found.lr, found.model.backbone) == (0.25, "resnet18")
    assert found.model.options == {"strides": [4, 8], "extra": "conv"}


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


@pytest.mark.parametrize("spelt", ["--data.class-aware", "--data.class_aware"])
def test_dotted_flags_are_spelt_either_way(here, spelt):
    assert config("--dataset", "data", spelt, "0.5").data.class_aware == 0.5
    found = config("--dataset", "data", "--model.options.pyramid_options.act", "false", "--device", "cpu")
    assert found.model.options == {"pyramid_options": {"act": False}}
    assert found.accelerator == "cpu"


@pytest.mark.parametrize("last", ["flag", "file"])
def test_weights_of_the_config_s_backbone_are_left_out_with_another_backbone(here, last):
    (here / "resnet18.pth").write_bytes(b"")
    (here / "base.yaml").write_text("dataset: data\nmodel: {backbone: resnet18, pretrained: resnet18.pth}\n")
    (here / "more.yaml").write_text("model: {backbone: resnet34}\n")
    more = ["--model.backbone", "resnet34"] if last == "flag" else ["--config", "more.yaml"]
    request = read_config(["--config", "base.yaml", *more])
    assert request.config.model.pretrained == "auto"
    told = "resnet18.pth is left out: weights of resnet18; --model.pretrained gives resnet34 others"
    assert request.notes == (told,)
    kept = read_config(["--config", "base.yaml", "--model.backbone", "resnet18"])
    assert (kept.config.model.pretrained, kept.notes) == ("resnet18.pth", ())
    given = read_config(["--config", "base.yaml", *more, "--model.pretrained", "resnet18.pth"])
    assert (given.config.model.pretrained, given.notes) == ("resnet18.pth", ())


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
    assert [name for name, *_ in settings(TrainConfig()) if f"--{name.replace('_', '-')}" not in shown] == []
    assert "fpn train --resume" in shown


def test_every_default_is_allowed(here):
    assert config("--dataset", "data", "--name", "data") == TrainConfig(dataset="data", name="data")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--lr", "-1"], "lr: -1.0; expected 0.0 to 1000.0"),
        (["--lr", "nan"], 'lr: "nan"; expected a number'),
        (["--data.scale", "[2, 1]"], "data.scale: 2.0 to 1.0; expected the smaller number first"),
        (["--data.hflip", "1.5"], "data.hflip: 1.5; expected 0.0 to 1.0"),
        (["--data.crop", "0"], "data.crop: 0; expected 1 pixel or more"),
        (["--devices", "0"], "devices: 0; expected 1 or more"),
        (["--name", "a/b"], 'name: "a/b"; expected the name of one folder; --out says where'),
        (["--loss.terms", "ce+lovas"], 'did you mean "lovasz"'),
        (["--loss.class_weights", "median-freqency"], 'did you mean "median-frequency"'),
        (["--model.pyramid", "fpm"], 'did you mean "fpn"'),
        (["--model.pretrained", "nowhere.safetensors"], "model.pretrained: no such file: nowhere.safetensors"),
        (["--dataset", "nowhere"], "dataset: no such file or folder: nowhere"),
        (["--lr"], "lr"),
        (["roofs"], "every setting is a --flag"),
        (["--strategy", "ddpp"], 'strategy: "ddpp"; expected auto | ddp | '),
        (["--strategy", "fsdp"], 'strategy: "fsdp"; expected auto | ddp | '),
        (["--lr", "1" + 400 * "0"], "lr: a number with hundreds of digits; expected a number below 2^63"),
        (["--lr=1" + 400 * "0"], "lr: a number with hundreds of digits"),
        (["--data.scale", "[1, 1" + 400 * "0" + "]"], "data.scale: a number with hundreds of digits"),
        (["--lr", "inf"], 'lr: "inf"; expected a number'),
        (["--model.head-channels", "1" + 20 * "0"], "model.head_channels: a number of 21 digits; expected 1 to 65536"),
        (["--model.channels", "1000000000"], "model.channels: 1000000000; expected 1 to 65536"),
        (["--accumulate", "1000000000"], "accumulate: 1000000000; expected 1 to 65536"),
        (["--seed", "1" + 30 * "0"], "seed: a number of 31 digits; expected a number below 2^63"),
        (
            ["--max-epochs", "1" + 5000 * "0"],
            'max_epochs: "a number with thousands of digits"; expected a whole number',
        ),
    ],
)
def test_what_cannot_be_is_told(here, flags, told):
    with pytest.raises(ConfigError) as caught:
        config("--dataset", "data", *flags)
    assert told in str(caught.value)


def numeric(kind):
    """Whether a setting may be a number, or hold some."""
    inner = get_args(kind)
    return kind in (int, float) or (get_origin(kind) not in (Literal, dict) and any(map(numeric, inner)))


@pytest.mark.parametrize(
    "number",
    [10**400, 10**20, -(10**20), math.inf, -math.inf, math.nan],
    ids=["401 digits", "21 digits", "-21 digits", "inf", "-inf", "nan"],
)
@pytest.mark.parametrize("name", [name for name, kind in known_settings().items() if numeric(kind)])
def test_no_setting_takes_a_number_beyond_all_bounds(here, name, number):
    """As plain values, as YAML gives them; NaN is no number, infinity none to compute with."""
    kind = known_settings()[name]
    tupled = get_origin(kind) in (list, tuple)
    value = number if kind in (int, float) or (not tupled and set(get_args(kind)) & {int, float}) else None
    if value is None:
        inner = next(part for part in (kind, *get_args(kind)) if get_origin(part) in (list, tuple))
        value = tuple([number] * len(get_args(inner))) if get_origin(inner) is tuple else [number]
    group, _, last = name.rpartition(".")
    plain = {"dataset": "data", "name": "data"} | ({group: {last: value}} if group else {last: value})
    with pytest.raises(ConfigError) as caught:
        check(from_plain(plain))
    assert str(caught.value).startswith(f"{name}: ")
    assert len(str(caught.value)) < 200


def test_settings_are_read_without_torch(here):
    script = (
        "import sys; from torchfpn.cli.main import main\n"
        "main(['train', '--config', 'configs/roofs.yaml', '--print_config'])\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_later_config_adds_to_model_options_and_the_flag_replaces_them(here):
    (here / "more.yaml").write_text("model: {options: {extra: pool}}\n")
    files = ("--config", "configs/roofs.yaml", "--config", "more.yaml")
    assert config(*files).model.options == {"strides": [4, 8], "extra": "pool"}
    assert config(*files, "--model.options.extra", "conv").model.options == {"strides": [4, 8], "extra": "conv"}
    assert config(*files, "--model.options", "{extra: conv}").model.options == {"extra": "conv"}


@pytest.mark.parametrize(("images", "steps"), [(11, 1), (13, 2), (16, 2), (3, 1)])
def test_steps_per_epoch_null_is_one_pass_to_the_nearest_whole_step(images, steps):
    assert plan.steps(TrainConfig(), images, 8) == steps
