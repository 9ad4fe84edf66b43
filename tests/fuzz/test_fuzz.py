"""A few hundred damaged files through every verb: no traceback, no hang, no partial file, no library's warning.

`make fuzz` runs 20,000; a case of a seed is run again by `python tests/fuzz/run.py --first SEED --cases 1 --verbose`.
"""

import pytest

from fuzz.originals import make_originals
from fuzz.run import preload, run_cases

PARTS, CASES = 6, 60


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    preload()
    return make_originals(tmp_path_factory.mktemp("fuzz") / "files")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_files_end_in_an_answer_or_in_one_line(originals, part):
    verdicts = list(run_cases(range(part * CASES, (part + 1) * CASES), originals))
    faults = [f"{v.case.name}: {v.fault}: {' '.join(map(ascii, v.case.words))}" for v in verdicts if v.fault]
    assert not faults, "\n".join(faults)
    assert sum(v.code == 2 for v in verdicts) > CASES / 4  # the damages do damage
