"""Damaged files of every kind through every verb: an answer or one line that says what is wrong, never anything else.

`make fuzz` runs 20,000 cases of other seeds, `python tests/fuzz/run.py --first SEED --cases 1 --verbose` one alone.
"""

import pytest

from fuzz.cases import make_case
from fuzz.originals import copy_tree, make_originals
from fuzz.run import run_case

PARTS, CASES = 3, 102
DEAR = ("settings",)  # trains
ONCE = (  # seeds of `make fuzz` whose cases failed once
    501396,  # rasterio printed that it could not decode a message of GDAL
    502741,  # a map without a place on the earth was refused after its prediction, and its blocks stayed
    615805,  # a model file with infinity as nodata ended in a traceback on images of whole numbers
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    return make_originals(tmp_path_factory.mktemp("fuzz") / "files")


@pytest.fixture(scope="module")
def work(originals):
    copy_tree(originals, originals.parent / "box" / "work")
    return originals.parent / "box" / "work"


@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_files_end_in_an_answer_or_in_one_line(originals, work, part):
    cases = [make_case(seed, originals) for seed in (*range(part * CASES, (part + 1) * CASES), *ONCE[part : part + 1])]
    verdicts = [run_case(case, originals, work) for case in cases if case.family not in DEAR]
    faults = [
        f"{v.case.name}: {v.fault}: {' '.join(map(ascii, v.case.words))}\n{v.printed}" for v in verdicts if v.fault
    ]
    assert not faults, "\n".join(faults)
    assert sum(v.code == 2 for v in verdicts) > len(verdicts) / 4  # the damages do damage
    assert sum(v.code == 0 for v in verdicts) > len(verdicts) / 20  # and not all of them
