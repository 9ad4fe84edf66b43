"""metrics.csv and the running means behind it: the same bytes whether saved and loaded in between or not."""

import csv
import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.train.logs import MetricsTable, RunningMean

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.fixed_dictionaries({"a": NUMBERS}, optional={"b": NUMBERS, "c": NUMBERS}), max_size=5))
@settings(max_examples=30)
def test_numbers_read_back_exactly(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("j") / "metrics.csv"
    journal = MetricsTable(["a", "b"])
    for row in rows:
        journal.add(row)
    journal.write(path)
    with path.open() as file:
        found = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    assert found == [{k: v for k, v in row.items() if k != "c" and not math.isnan(v)} for row in rows]


def test_a_restored_journal_writes_the_same_bytes(tmp_path):
    one, other = MetricsTable(["a", "b"]), MetricsTable(["a", "b"])
    one.add({"a": 1, "b": math.nan})
    other.load_state_dict(one.state_dict())
    for journal, name in ((one, "one"), (other, "other")):
        journal.add({"a": 0.1})
        journal.write(tmp_path / name)
    assert (tmp_path / "one").read_text() == "a,b\n1,\n0.1,\n"
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.integers(0, 20))
@settings(max_examples=30)
def test_means_are_exact_across_a_save(values, cut):
    whole, first, second = RunningMean(), RunningMean(), RunningMean()
    for value in values:
        whole.add({"x": value})
    for value in values[:cut]:
        first.add({"x": value})
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for value in values[cut:]:
        second.add({"x": value})
    assert second.means() == whole.means()
