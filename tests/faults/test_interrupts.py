"""Ctrl-C at any moment of any verb: exit code 130 in one line, and nothing half-written."""

import inspect
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import torchfpn
from faults.test_few_handles import MORE, VERBS, made  # noqa: F401 - a fixture
from made_scenes import make_scene, make_task
from torchfpn.cli.main import main
from train.tiny import SETTINGS, make_data

SOURCE = str(Path(torchfpn.__file__).parent)
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of a process group")


@pytest.fixture(autouse=True)
def gradients():
    """Ctrl-C between two lines of `torch.no_grad` leaves gradients off: nothing to a process that ends."""
    yield
    torch.set_grad_enabled(True)


def run(words, stop_at=None):
    """(exit code, calls of our functions) of a command that Ctrl-C meets at that call."""
    calls = 0

    def look(frame, event, _):
        nonlocal calls
        code = frame.f_code  # Python drops what is raised in a generator that it closes
        if event == "call" and code.co_filename.startswith(SOURCE) and not code.co_flags & inspect.CO_GENERATOR:
            calls += 1
            if calls == stop_at:
                signal.raise_signal(signal.SIGINT)

    sys.setprofile(look)
    try:
        return main(words), calls
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("verb", [*VERBS, *MORE])
def test_at_any_call(made, tmp_path, monkeypatch, capsys, verb):  # noqa: F811
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    words = [*(VERBS | MORE)[verb], *(["--overwrite"] if verb not in ("info", "check", "weights") else [])]
    assert main(words) == 0
    code, calls = run(words)
    assert code == 0
    for share in (0.03, 0.4, 0.8, 0.95) if verb in VERBS else (0.4, 0.95):
        capsys.readouterr()
        code, _ = run(words, stop_at=max(1, int(share * calls)))
        assert code == 130, share
        assert capsys.readouterr().err.splitlines() == ["stopped"], share
        assert not [path.name for path in (tmp_path / "out").rglob("*.part*")], share
        assert main(words) == 0, share  # nothing is in the way


def interrupted(words, folder, until, *, seconds=120):
    """(exit code, stderr) of a command in a process group of its own that gets Ctrl-C when `until()` says so."""
    script = "import sys; from torchfpn.cli.main import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        text=True, start_new_session=True,
    )  # fmt: skip
    begun = time.monotonic()
    while not until() and process.poll() is None and time.monotonic() < begun + seconds:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=seconds)
    return process.returncode, said


@posix
@pytest.mark.slow
def test_the_demo_while_it_paints(tmp_path):
    """Three processes get the signal: the demo, and two that paint."""
    out = tmp_path / "demo"
    code, said = interrupted(["demo", "--out", str(out)], tmp_path, lambda: len(list(out.rglob("*.tif"))) > 1)
    assert code == 130
    assert said.splitlines()[-1] == f"fpn: stopped; continue with --resume --out {out}"
    assert len(said.splitlines()) == 2, said  # what it does, and that it was stopped
    painted = {path: path.stat().st_mtime_ns for path in out.rglob("*.tif") if not path.name.startswith(".")}
    assert painted
    assert not list(out.rglob("*.part*"))


@posix
def test_a_prediction_by_windows(tmp_path):
    make_task().save(tmp_path / "model.safetensors")
    make_scene(tmp_path / "scene.tif", height=230, width=310)
    words = ["predict", "model.safetensors", "scene.tif", "--out", "out", "--tile-size", "32", "--margin", "32"]
    code, said = interrupted(words, tmp_path, lambda: len(list(tmp_path.glob("out/.fpn-*.blocks/*.block"))) > 2)
    assert code == 130
    assert said == "stopped\n"
    assert not list(tmp_path.glob("out/*.tif"))
    assert main([word if word[0] == "-" or word == "predict" or word.isdigit() else str(tmp_path / word)
                 for word in [*words, "--resume"]]) == 0  # fmt: skip
    assert (tmp_path / "out" / "scene.tif").is_file()


@posix
@pytest.mark.slow
@pytest.mark.parametrize("moment", ["checkpoints", "metrics.csv"])
def test_a_training(tmp_path, moment):
    make_data(tmp_path / "data")
    (tmp_path / "small.yaml").write_text(SETTINGS)
    run_folder = tmp_path / "runs" / "small"
    words = ["train", "--config", "small.yaml", "--max-epochs", "500", "--num-workers", "1"]
    code, said = interrupted(words, tmp_path, lambda: (run_folder / moment).exists())
    assert code == 130
    assert re.fullmatch(r"fpn: stopped by SIGINT; .*, continue with --resume", said.splitlines()[-1])
    assert "Traceback" not in said
