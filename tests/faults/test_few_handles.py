"""No file handle is left: one line that says so, exit code 2, and nothing half-written."""

import os
import re
import resource
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from importers.test_convert import small
from made_data import make_dataset, write_tiff
from tiny_model import tiny_task
from torchfpn.cli.main import main
from train.tiny import SETTINGS, make_data

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts the handles in /proc")
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 5e6)}
BOX = (
    '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry": {"type":'
    ' "Polygon", "coordinates": [[[15, 45.1], [15.001, 45.1], [15.001, 45.101], [15, 45.1]]]}}]}'
)
VERBS = {
    "info": ["info", "m.safetensors"],
    "predict": ["predict", "m.safetensors", "a.tif", "--out", "out"],
    "windows": ["predict", "m.safetensors", "a.tif", "--out", "out", "--tile-size", "32", "--polygons", "gpkg"],
    "evaluate": ["evaluate", "m.safetensors", "data", "--out", "out"],
    "maps": ["evaluate", "labels.tif", "labels.tif", "--json", "out/a.json"],
    "check": ["check", "data"],
    "rasterize": ["rasterize", "box.geojson", "a.tif", "--out", "out", "--burn", "1"],
    "compare": ["compare", "a.tif", "--truth", "labels.tif", "--out", "out"],
    "polygons": ["polygons", "labels.tif", "out/a.geojson"],
    "panoptic": ["panoptic-from", "data", "--instances", "data/{split}/labels", "--things", "road", "--out", "out"],
}
MORE = {"convert": ["convert", "theirs.pth", "out/m.safetensors"], "weights": ["weights", "data"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("handles")
    make_dataset(folder / "data", train=1, val=1)
    tiny_task(bands=("red", "green", "blue"), dtype="uint8", classes=("grass", "road", "water")).save(
        folder / "m.safetensors"
    )
    write_tiff(folder / "a.tif", np.zeros((3, 40, 48), np.uint8), photometric="RGB", **PLACE)
    write_tiff(folder / "labels.tif", np.ones((1, 40, 48), np.uint8), **PLACE)
    (folder / "box.geojson").write_text(BOX)
    torch.save(small("fpn", name="efficientnet_b0").state_dict(), folder / "theirs.pth")
    return folder


def with_handles(count, words):
    """Exit code of a command that may open `count` files more than are open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest)]  # no gap below
    held += [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    for number in held[len(held) - count :]:
        os.close(number)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held, default=highest) + 1, before[1]))
        return main(words)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for number in held[: len(held) - count]:
            os.close(number)


def test_a_training_with_few_handles_works_or_says_so(tmp_path, monkeypatch, capsys):
    make_data(tmp_path / "data")
    (tmp_path / "small.yaml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    words = ["train", "--config", "small.yaml", "--max-epochs", "1", "--overwrite"]
    assert main(words) == 0
    codes = []
    for count in (0, 3, 50):
        capsys.readouterr()
        codes.append(with_handles(count, words))
        said = [line for line in capsys.readouterr().err.splitlines() if line]
        assert not [path.name for path in (tmp_path / "runs").rglob("*.part*")], (count, said)
        assert codes[-1] == 0 or "Too many open files" in said[-1], (count, said)
        assert codes[-1] == 0 or not any(line.startswith(("Traceback", " ")) for line in said), (count, said)
    assert set(codes) == {0, 2}
    assert (codes[0], codes[-1]) == (2, 0)
    assert with_handles(50, [*words, "--num-workers", "1"]) == 2  # would wait for ever for a batch of the process
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fpn: num_workers: 1, and this process may not open 72 more files; expected 0 loader")


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x", "/vsicurl/http://127.0.0.1:9/x", "s3://x"])
def test_outputs_go_to_this_machine_alone(made, tmp_path, monkeypatch, capsys, address):
    """GDAL would take such a path to the network; the system, for folders of that name."""
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    verbs = [words for verb, words in (VERBS | MORE).items() if verb not in ("info", "check", "weights")]
    verbs += [
        ["check", "data", "--sheet", "out/a.png"],
        ["evaluate", "m.safetensors", "data", "--json", "out/a.json"],
        ["demo", "--out", "out"],
        ["demo", "--data", "out"],
        ["train", "--dataset", "data", "--out", "out", "--model.backbone", "test_resnet", "--accelerator", "cpu"],
    ]
    for words in verbs:
        capsys.readouterr()
        assert main([re.sub("^out", address, word) for word in words]) == 2, words
        said = capsys.readouterr().err.splitlines()
        assert "it is an address, not a path on this machine" in said[-1], said
        assert set(tmp_path.iterdir()) == before, words


@pytest.mark.parametrize("verb", VERBS)
def test_no_handle_left(made, tmp_path, monkeypatch, capsys, verb):
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    assert main(VERBS[verb]) == 0  # everything that is loaded late is loaded
    whole = sorted(path.name for path in (tmp_path / "out").rglob("*"))
    codes = []
    for count in range(12):
        shutil.rmtree(tmp_path / "out")  # blocks of a prediction, too, which --resume would take up
        (tmp_path / "out").mkdir()
        capsys.readouterr()
        codes.append(with_handles(count, VERBS[verb]))
        out, err = capsys.readouterr()
        said = [line for line in err.splitlines() if line]
        left = [path for path in (tmp_path / "out").rglob("*") if ".part" in path.name]
        assert left == [], (count, said)
        assert codes[-1] in (0, 2), (count, said)
        if codes[-1] == 2:
            assert "Too many open files" in (out + err if verb == "check" else said[-1]), (count, said)
            assert not any(line.startswith(("Traceback", " ")) for line in said), (count, said)
        else:
            assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == whole
            break
    assert codes[0] == 2
