"""fpn weights as people run it."""

import json

import numpy as np
import pytest

from made_data import YAML, make_dataset, write_png
from torchfpn.cli.main import main
from torchfpn.cli.weights import METHODS
from torchfpn.data import statistics


@pytest.fixture
def folder(tmp_path):
    """12 pixels of class 0, 4 of class 1, none of class 2, in every training image."""
    make_dataset(tmp_path, size=(4, 5))
    for path in tmp_path.glob("train/labels/*.png"):
        write_png(path, np.array([0] * 12 + [1] * 4 + [255] * 4, "uint8").reshape(4, 5))
    return tmp_path


def test_table(folder, capsys):
    assert main(["weights", str(folder)]) == 0
    out, err = capsys.readouterr()
    rows = {line.split()[1]: line.split() for line in out.splitlines() if line.startswith("│")}
    assert rows["grass"][3:10:2] == ["36", "75.00%", "3", "0.6667"]
    assert rows["road"][3:10:2] == ["12", "25.00%", "3", "2.0000"]
    assert rows["water"][3:10:2] == ["0", "0.00%", "0", "0"]
    assert out.splitlines()[-1] == "class_weights: [0.6667, 2.0000, 0.0000]"
    assert err == ""


@pytest.mark.parametrize(
    ("method", "weights"),
    [
        ("median-frequency", [2 / 3, 2, 0]),
        ("sqrt-median-frequency", [(2 / 3) ** 0.5, 2**0.5, 0]),
        ("inverse", [2 / 3, 2, 0]),
        ("enet", [1 / np.log(1.77), 1 / np.log(1.27), 0]),
    ],
)
def test_json_of_every_method(folder, capsys, method, weights):
    assert main(["weights", str(folder), "--method", method, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["weights"] == pytest.approx(weights)
    assert [c["class"] for c in told["classes"]] == ["grass", "road", "water"]
    assert [c["pixels"] for c in told["classes"]] == [36, 12, 0]


def test_methods_are_those_of_the_library():
    assert METHODS == statistics.METHODS


def test_another_split_and_mistakes(folder, capsys):
    assert main(["weights", str(folder), "--split", "val"]) == 0
    assert "val" in capsys.readouterr().out
    assert main(["weights", str(folder), "--split", "vall"]) == 2
    assert 'no split "vall"; did you mean "val"?' in capsys.readouterr().err
    assert main(["weights", str(folder), "--method", "median"]) == 2
    assert '--method: "median"' in capsys.readouterr().err


def test_a_bad_file_is_named(folder, capsys):
    (folder / "train" / "labels" / "a1.png").write_bytes(b"")
    assert main(["weights", str(folder)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"fpn: {folder / 'train' / 'labels' / 'a1.png'}: empty file (0 bytes); copy it again"]


def test_nothing_labelled(tmp_path, capsys):
    make_dataset(tmp_path, yaml=YAML.replace(", labels: train/labels", ""))
    assert main(["weights", str(tmp_path)]) == 2
    assert "no labelled pixel" in capsys.readouterr().err
