"""The command as people meet it: help at once, one line for every error, an exit code that means something."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import torchfpn
from torchfpn.cli.main import VERBS, main
from torchfpn.errors import DataError

FPN = Path(sys.executable).with_name("fpn")


def test_help_answers_in_under_half_a_second():
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([FPN, "--help"], capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5
    assert all(f"  {verb} " in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help_without_torch(verb):
    words = f"c = main(['{verb}', '--help']); print('torch' in sys.modules); sys.exit(c)"
    code = f"import sys; from torchfpn.cli.main import main; {words}"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert time.perf_counter() - start < 3  # a loaded machine; alone it is below 0.5
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("False")
    assert f"fpn {verb}" in done.stdout


def test_no_words_and_help_words_show_the_verbs(capsys):
    for words in ([], ["-h"], ["--help"]):
        assert main(words) == 0
        assert "predict" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"torchfpn {torchfpn.__version__}\n"


def test_a_misspelt_verb_names_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == 'fpn: there is no "fpn trian"; did you mean "train"?\n'


def test_usage_errors_exit_with_2(capsys):
    assert main(["info"]) == 2
    assert "usage: fpn info" in capsys.readouterr().err


def test_errors_are_one_line_and_debug_shows_the_trace(capsys, tmp_path, caplog):
    assert main(["info", str(tmp_path / "none.safetensors")]) == 2
    err = capsys.readouterr().err
    assert err == f"fpn: {tmp_path}/none.safetensors: no such file\n"
    assert main(["info", str(tmp_path / "none.safetensors"), "--debug"]) == 2
    assert "Traceback" in caplog.text


def test_a_missing_extra_says_what_to_install(capsys, monkeypatch):
    def lacking(_args):
        raise ModuleNotFoundError("No module named 'rasterio'", name="rasterio.features")

    monkeypatch.setattr("torchfpn.cli.info.run", lacking)
    assert main(["info", "x"]) == 2
    assert capsys.readouterr().err == 'fpn: rasterio is not installed; pip install "torchfpn[raster]"\n'


def test_interrupt_and_closed_pipe_have_their_codes(monkeypatch):
    def interrupted(_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("torchfpn.cli.info.run", interrupted)
    assert main(["info", "x"]) == 130


def test_bugs_are_not_hidden(monkeypatch):
    def broken(_args):
        raise ZeroDivisionError

    monkeypatch.setattr("torchfpn.cli.info.run", broken)
    with pytest.raises(ZeroDivisionError):
        main(["info", "x"])


def test_a_data_error_keeps_its_parts(monkeypatch, capsys):
    def bad(_args):
        raise DataError("value 12", file="07.png", field="row 3, column 9", allowed="classes are 0..10")

    monkeypatch.setattr("torchfpn.cli.info.run", bad)
    assert main(["info", "x"]) == 2
    assert capsys.readouterr().err == "fpn: 07.png: row 3, column 9: value 12; classes are 0..10\n"
