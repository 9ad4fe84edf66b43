"""Faults of label files and of dataset.yaml: file, what was found, what is allowed, the cure."""

import time

import numpy as np
import pytest

from made_data import YAML, labels, make_dataset, picture, write_png, write_tiff
from torchfpn.cli.main import main
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import SemanticDataset
from torchfpn.errors import ConfigError, DataError


def checked(folder, capsys, *flags):
    """(exit code, lines on stderr) of `fpn check`."""
    code = main(["check", str(folder), *flags])
    return code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_fault_18_value_that_is_no_class(tmp_path, capsys, suffix):
    make_dataset(tmp_path)
    bad = tmp_path / "train" / "labels" / f"a1{suffix}"
    (tmp_path / "train" / "labels" / "a1.png").unlink()
    values = labels(1)
    values[20, 5:8] = 9
    values[21, 0] = 7
    if suffix == ".png":
        write_png(bad, values)
    else:
        write_tiff(bad, values[None].astype("int32"))
    code, lines = checked(tmp_path, capsys)
    assert code == 2
    assert lines[0] == (
        f"bad: {bad}: the value 7 in 1 pixel, 9 in 3 pixels, first at (row, column) (20, 5);"
        " expected 0 grass, 1 road, 2 water; 255 not labelled; add a class, or ignore it with ignore_index"
    )
    with pytest.raises(DataError, match=r"the value 7 in 1 pixel, 9 in 3 pixels, first at .* \(20, 5\)") as caught:
        SemanticDataset(read_dataset(tmp_path), "train")[1]
    assert caught.value.file == bad
    yaml = tmp_path / "dataset.yaml"
    yaml.write_text(yaml.read_text() + "ignore_index: [7, 9]\n")
    assert checked(tmp_path, capsys) == (0, [])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_fault_19_rgb_mask_suggests_palette(tmp_path, capsys, suffix):
    make_dataset(tmp_path)
    (tmp_path / "train" / "labels" / "a1.png").unlink()
    bad = tmp_path / "train" / "labels" / f"a1{suffix}"
    if suffix == ".png":
        write_png(bad, picture(0))
    else:
        write_tiff(bad, picture(0).transpose(2, 0, 1))
    code, lines = checked(tmp_path, capsys)
    assert code == 2
    assert lines[0].startswith(f"bad: {bad}: an RGB mask; expected one band of class values; ")
    assert "--palette" in lines[0]
    assert "labels_are: colors" in lines[0]
    with pytest.raises(DataError, match="an RGB mask"):
        SemanticDataset(read_dataset(tmp_path), "train")[1]


def test_fault_19_palette_masks_are_read_as_indices(tmp_path, capsys):
    make_dataset(tmp_path)
    from PIL import Image

    path = tmp_path / "train" / "labels" / "a1.png"
    image = Image.fromarray(labels(1))
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200] + [0] * 759)
    image.save(path)
    assert checked(tmp_path, capsys) == (0, [])
    np.testing.assert_array_equal(SemanticDataset(read_dataset(tmp_path), "train")[1].target, labels(1))


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            YAML + "nodata: !!python/object/apply:os.system ['touch pwned']\n",
            "line 6: could not determine a constructor",
        ),
        (YAML + BOMB, "line 7: the alias *a; expected no aliases"),
        (YAML + "# " + "x" * 2**20, "over 1 MB of YAML"),
        ("[" * 100_000, "nested too deeply"),
        ("{" * 5000 + "}" * 5000, "nested too deeply"),
    ],
    ids=["tag", "aliases", "huge", "deep list", "deep mapping"],
)
def test_fault_30_hostile_yaml(tmp_path, capsys, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path, yaml=text)
    begun = time.perf_counter()
    code, lines = checked(tmp_path, capsys)
    assert time.perf_counter() - begun < 2
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"fpn: {tmp_path / 'dataset.yaml'}: ")
    assert said in lines[0]
    assert not (tmp_path / "pwned").exists()


def test_fault_30_a_gigabyte_of_yaml_is_not_read(tmp_path):
    with (tmp_path / "dataset.yaml").open("wb") as handle:
        handle.truncate(2**30)
    begun = time.perf_counter()
    with pytest.raises(ConfigError, match="over 1 MB"):
        read_dataset(tmp_path)
    assert time.perf_counter() - begun < 1
