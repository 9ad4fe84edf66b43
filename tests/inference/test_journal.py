"""Blocks kept and given back, damaged ones, and journals of another prediction."""

import numpy as np
import pytest

from torchfpn.errors import ConfigError, DataError
from torchfpn.inference.journal import Journal


def test_blocks_come_back_as_they_were(tmp_path):
    journal = Journal.beside(tmp_path / "scene.tif")
    journal.begin({"a": 1}, resume=False)
    arrays = {"labels": np.arange(12, dtype=np.uint8).reshape(3, 4), "probabilities": np.full((2, 3, 4), np.nan, "f4")}
    journal.put(7, arrays)
    assert journal.has(7)
    assert not journal.has(6)
    found = journal.get(7)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array, equal_nan=array.dtype.kind == "f")
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_block_is_told(tmp_path):
    journal = Journal.beside(tmp_path / "scene.tif")
    journal.begin({}, resume=False)
    journal.put(0, {"labels": np.zeros((2, 2), np.uint8)})
    (file,) = journal.folder.glob("*.block")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match="a damaged block; continue with --resume"):
        journal.get(0)


def test_only_the_same_prediction_is_taken_up(tmp_path):
    journal = Journal.beside(tmp_path / "scene.tif")
    journal.begin({"model": "x", "window": [64, 0]}, resume=True)
    journal.put(0, {"labels": np.zeros((2, 2), np.uint8)})
    journal.begin({"model": "x", "window": [64, 0]}, resume=True)
    assert journal.has(0)
    with pytest.raises(ConfigError, match="a different model; "):
        journal.begin({"model": "y", "window": [64, 0]}, resume=True)
    with pytest.raises(ConfigError, match="holds 1 block of an interrupted prediction"):
        journal.begin({"model": "x", "window": [64, 0]}, resume=False)
    journal.begin({"model": "x", "window": [64, 0]}, resume=False, overwrite=True)
    assert not journal.has(0)


def damaged(data, how):
    if how == "cut":
        return data[:-3]
    if how == "zeros":
        return bytes(len(data))
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("how", ["bit", "cut", "zeros", "missing"])
@pytest.mark.parametrize("resume", [True, False])
def test_a_damaged_plan_starts_again_and_says_so(tmp_path, how, resume):
    journal = Journal.beside(tmp_path / "scene.tif")
    facts = {"model": "x" * 40, "window": [64, 0]}
    assert journal.begin(facts, resume=True) == ()
    journal.put(0, {"labels": np.zeros((2, 2), np.uint8)})
    plan = journal.folder / "plan.json"
    plan.unlink() if how == "missing" else plan.write_bytes(damaged(plan.read_bytes(), how))
    (told,) = journal.begin(facts, resume=resume)
    assert told == f"{plan}: damaged; the prediction starts again from the first block"
    assert not journal.has(0)
    journal.put(0, {"labels": np.zeros((2, 2), np.uint8)})
    assert journal.begin(facts, resume=True) == ()
    assert journal.has(0)


def test_a_damaged_block_is_computed_again_by_resume(tmp_path):
    journal = Journal.beside(tmp_path / "scene.tif")
    journal.begin({}, resume=False)
    for index, how in enumerate(["bit", "cut", "zeros", "whole"]):
        journal.put(index, {"labels": np.arange(64, dtype=np.uint8).reshape(8, 8)})
        file = sorted(journal.folder.glob("*.block"))[-1]
        file.write_bytes(file.read_bytes() if how == "whole" else damaged(file.read_bytes(), how))
    (told,) = journal.begin({}, resume=True)
    assert told == "3 damaged blocks of the interrupted prediction are computed again"
    assert [journal.has(index) for index in range(4)] == [False, False, False, True]
