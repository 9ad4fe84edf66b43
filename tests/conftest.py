"""What every test runs under: no weights from caches, one thread (two processes that each spin on two cores stall)."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Weights that somebody has downloaded would be found by `model.pretrained: auto`.
os.environ["HF_HOME"] = os.environ["TORCH_HOME"] = str(Path(tempfile.gettempdir(), "no-pretrained-weights"))

import torch

torch.set_num_threads(1)
