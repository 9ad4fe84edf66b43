"""Where the real data lies beside the project, and the mark of the tests that need it."""

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
DATA, WEIGHTS, PARITY = SHARED / "data", SHARED / "weights", SHARED / "parity"

needs_shared = pytest.mark.skipif(not DATA.is_dir(), reason="the real data set is not beside the project (../shared)")

if DATA.is_dir():
    os.environ.setdefault("TORCHFPN_DATA", str(DATA))  # where configs/datasets look
