"""Pickles of arrays: read as NumPy reads them, whatever wrote them, and nothing of what they ask for is called."""

import collections
import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.errors import WeightsError
from torchfpn.io.pickles import read_archive
from torchfpn.io.weights import read_tensors

ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "by columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big endian": np.arange(4, dtype=">f4"),
    "half": np.ones((1, 2, 3), np.float16),
    "number": np.array(7),
    "bytes": np.arange(256, dtype=np.uint8),
    "yes and no": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
    "a view": np.arange(20.0)[::3],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol_and_kind(protocol, tmp_path):
    content = {"model": collections.OrderedDict(ARRAYS), "__author__": "made here", "steps": [1, (2.5, None, True)]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_archive(tmp_path / "a.pkl")
    assert found["__author__"] == "made here"
    assert found["steps"] == [1, (2.5, None, True)]
    for name, array in ARRAYS.items():
        assert np.array_equal(found["model"][name].numpy(), array), name
        assert found["model"][name].numpy().dtype == array.dtype.newbyteorder("="), name
    found["model"]["matrix"] += 1  # they are copies, to be written to


def test_the_names_of_older_and_newer_numpy_are_the_same(tmp_path):
    plain = pickle.dumps(ARRAYS["matrix"], protocol=0)
    assert b"numpy._core" in plain
    (tmp_path / "old.pkl").write_bytes(plain.replace(b"numpy._core", b"numpy.core"))
    assert torch.equal(read_archive(tmp_path / "old.pkl"), torch.arange(6.0).reshape(2, 3))


class Call:
    """A pickle that calls something."""

    def __init__(self, what, *given):
        self.what, self.given = what, given

    def __reduce__(self):
        return self.what, self.given


@pytest.mark.parametrize(
    ("what", "given", "told"),
    [
        (eval, ("1 + 1",), "builtins.eval"),
        (getattr, (1, "real"), "builtins.getattr"),
        (np.load, ("a.npy",), "numpy.load"),
        (np.frombuffer, (b"1234", "f4"), "numpy.frombuffer"),
        (io.open, ("harmed", "w"), "io.open"),
    ],
)
def test_every_other_name_is_refused_and_told(what, given, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for protocol in (0, 2, 4):
        (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"model": Call(what, *given)}, protocol=protocol))
        with pytest.raises(WeightsError, match="refused: it would import") as caught:
            read_archive(tmp_path / "bad.pkl")
        assert told.rpartition(".")[2] in str(caught.value)
        assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    "array", [np.array([{}, None]), np.array(["a"]), np.array([1j]), np.zeros(2, dtype=[("a", "f4")])]
)
def test_arrays_of_anything_but_numbers_are_no_tensors(array, tmp_path):
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"a": array}))
    with pytest.raises(WeightsError, match=r"no tensors: a \(numpy.ndarray\)"):
        read_tensors(tmp_path / "bad.pkl")


def test_a_value_that_is_there_a_billion_times_is_read_once(tmp_path):
    nested = [0]
    for _ in range(60):
        nested = [nested, nested]
    (tmp_path / "wide.pkl").write_bytes(pickle.dumps(nested))
    assert read_archive(tmp_path / "wide.pkl")[0] is not None
    nested = []
    nested.append(nested)
    (tmp_path / "round.pkl").write_bytes(pickle.dumps(nested))
    with pytest.raises(WeightsError, match="damaged"):
        read_archive(tmp_path / "round.pkl")


WHOLE = pickle.dumps({"model": {"a": ARRAYS["matrix"], "b": ARRAYS["half"]}, "__author__": "x"}, protocol=4)


@settings(max_examples=300)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.booleans())
def test_a_damaged_byte_or_a_missing_end_is_an_answer_or_one_line(tmp_path_factory, place, value, cut):
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    path.write_bytes(WHOLE[:place] if cut else WHOLE[:place] + bytes([value]) + WHOLE[place + 1 :])
    try:
        read_archive(path)
    except WeightsError as error:
        told = str(error)
    else:
        told = "another value, of plain content"
        assert not cut
    assert "\n" not in told
