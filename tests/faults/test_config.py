"""Faults 29 to 33: settings, folders, devices and packages that cannot be, told before anything is trained."""

# ruff: noqa: F811 - the fixture `small` is imported

import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
import torchvision

from torchfpn.cli.main import main
from torchfpn.config.parsing import load_config
from torchfpn.errors import ConfigError, FPNError
from torchfpn.nn.layers import check_torchvision
from train.fixtures import small  # noqa: F401
from train.tiny import train


def one_line(capsys):
    """What went to stderr, which is one line and no traceback."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--lrr", "1"], '--lrr: unknown flag; did you mean "--lr"'),
        (["--model.bakbone", "resnet18"], 'did you mean "--model.backbone"'),
        (["--lr", "fast"], 'lr: "fast"; expected a number'),
        (["--model.norm", "bach"], 'model.norm: "bach"; expected batch | group'),
        (["--model.backbone", "resnet5O"], 'unknown backbone "resnet5O"; expected a model of timm'),
        (["--model.backbone", "torchvision/resnet19"], 'did you mean "torchvision/resnet18"'),
        (["--model.backbone", "mobilenet_v2"], 'did you mean "torchvision/mobilenet_v2"'),
        (["--limit_train_batches", "2.0"], "limit_train_batches: 2.0; expected a whole number, or a share above 0"),
        (["--limit_val_batches", "1.5"], "limit_val_batches: 1.5; expected a whole number, or a share above 0"),
        (["--limit_train_batches", "0"], "limit_train_batches: 0; expected 1 step or more"),
        (["--model.rgb", "[1, 2, 3]"], "model.rgb: [1, 2, 3] with band_init: repeat; expected null, or"),
        (
            ["--schedule.name", "constant", "--schedule.min_factor", "0.1"],
            "schedule.min_factor: 0.1 with schedule.name",
        ),
        (["--schedule.name", "cosine", "--schedule.power", "2"], "schedule.power: 2.0 with schedule.name: cosine"),
        (["--optimizer.momentum", "0.8"], "optimizer.momentum: 0.8 with optimizer.name: adamw; expected 0.9, or"),
    ],
)
def test_fault_29_a_flag_that_cannot_be(small, capsys, flags, told):
    assert train(*flags) == 2
    assert told in one_line(capsys)
    assert not (small / "runs").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lrr: 1", 'lrr: unknown setting; did you mean "lr"'),
        ("model: {bakbone: x}", 'model.bakbone: unknown setting; did you mean "backbone"'),
        ("lr: fast", "lr: 'fast'; expected a number"),
        ("lr: null", "lr: None; expected a number"),
        ("model: resnet18", "model: 'resnet18'; expected lines of `key: value`"),
        ("data: {crop: [1, 2, 3]}", "data.crop: (1, 2, 3); expected a list of 2, each a whole number"),
        ("overwrite: 3", "overwrite: 3; expected true or false"),
        ("- lr", "a list; expected lines of `key: value`"),
        ("8: 1", "8: unknown setting; known: "),
        ("model: {channels: 8, 8}", "model.8: unknown setting; known: "),
        ("model: {null: 8}", "model.None: unknown setting"),
    ],
)
def test_fault_29_a_line_of_yaml_that_cannot_be(small, capsys, text, told):
    (small / "bad.yaml").write_text(text)
    assert main(["train", "--config", "bad.yaml"]) == 2
    line = one_line(capsys)
    assert told in line
    assert "bad.yaml" in line


def test_fault_29_is_told_in_a_second_before_torch_is_imported(small):
    others = [
        ["--model.options.strides_", "[4]"],
        ["--freeze", "stem, bakbone"],
        ["--loss.class_weights", "[1, 2]"],
        ["--loss.boxes", "64"],
    ]
    script = (
        "import sys, time; start = time.process_time(); from torchfpn.cli.main import main\n"
        "code = main(['train', '--config', 'small.yaml', '--model.backbone', 'resnet5O'])\n"
        "seconds = time.process_time() - start\n"
        f"codes = {{main(['train', '--config', 'small.yaml', *flags]) for flags in {others}}}\n"
        "print(seconds, code if codes == {2} else codes, 'torch' in sys.modules)"
    )
    taken = []
    for _ in range(3):  # the machine may be busy with other things
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        seconds, code, torch_there = done.stdout.split()
        assert (code, torch_there) == ("2", "False")
        first, *more = done.stderr.splitlines()
        assert 'did you mean "resnet50"' in first
        told = ("model.options.strides_", 'freeze: "bakbone"', "class_weights: 2 numbers; expected one a class: 3",
                "loss.boxes: 64 with a dataset for semantic")  # fmt: skip
        assert all(words in line for words, line in zip(told, more, strict=True))
        taken.append(float(seconds))
    assert min(taken) < 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: !!python/object/apply:os.system ['touch hacked']", "not plain YAML"),
        ("lr: &a 1\nseed: *a", "alias"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nlr: *c", "alias"),
        ("lr: 1\nlr: 2", "twice"),
        ("[" * 2000, "nested too deeply"),
        ("lr: [", "YAML"),
        ("\x00", "YAML"),
    ],
)
def test_fault_30_yaml_that_would_do_harm(small, capsys, text, told):
    (small / "bad.yaml").write_text(text)
    assert main(["train", "--config", "bad.yaml"]) == 2
    line = one_line(capsys)
    assert "bad.yaml" in line
    assert told in line
    assert not (small / "hacked").exists()


def test_fault_30_a_gigabyte_of_yaml_is_not_read(small, capsys):
    with (small / "big.yaml").open("wb") as file:
        file.truncate(2**30)
    start = time.perf_counter()
    assert main(["train", "--config", "big.yaml"]) == 2
    assert time.perf_counter() - start < 5
    assert "1 MB" in one_line(capsys)


def test_fault_31_a_file_where_the_runs_should_be(small, capsys):
    (small / "runs").write_text("")
    assert train() == 2
    assert "runs: out: cannot be written to" in one_line(capsys)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that nobody can write to")  # noqa: PTH112
def test_fault_31_a_folder_that_cannot_be_written_to(small, capsys):
    assert train("--out", "/proc/self") == 2
    assert "/proc/self: out: cannot be written to" in one_line(capsys)


def test_fault_31_a_disk_that_is_nearly_full(small, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=2**30, free=2**20, used=0))
    assert train() == 2
    weights, line = capsys.readouterr().err.splitlines()
    assert weights.startswith("weights: random")
    assert "1 MiB are free; expected about" in line
    assert list((small / "runs").iterdir()) == []


def test_fault_31_an_old_run_is_never_overwritten_unasked(small):
    kept = small / "runs" / "small" / "precious.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("x")
    assert train("--max_epochs", "1") == 0
    assert (small / "runs" / "small-2" / "model.safetensors").exists()
    assert kept.read_text() == "x"
    assert train("--max_epochs", "1", "--overwrite") == 2  # it does not look like a run
    assert kept.read_text() == "x"


def test_fault_32_four_devices_on_a_cpu(small, capsys):
    assert train("--devices", "4") == 2
    assert "devices: 4; expected 1: the cpu counts as one device" in one_line(capsys)
    assert not (small / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize("accelerator", ["cuda", "gpu"])
def test_fault_32_a_gpu_that_is_not_there(small, capsys, accelerator):
    assert train("--accelerator", accelerator) == 2
    assert 'accelerator: "cuda", which this machine does not have; expected cpu' in one_line(capsys)


def test_fault_33_torch_and_torchvision_that_do_not_go_together(tmp_path, monkeypatch):
    (tmp_path / "torchvision.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision")
    with pytest.raises(FPNError) as caught:
        check_torchvision()
    line = str(caught.value)
    assert f"torchvision {torchvision.__version__.split('+')[0]}" in line
    assert f"torch {torch.__version__.split('+')[0]}" in line
    assert "pip install" in line
    assert "built for torch" in line


def test_config_errors_carry_their_parts(small):
    (small / "bad.yaml").write_text("lrr: 1")
    with pytest.raises(ConfigError) as caught:
        load_config(small / "bad.yaml")
    assert (caught.value.file, caught.value.field) == (small / "bad.yaml", "lrr")
