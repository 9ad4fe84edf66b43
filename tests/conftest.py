"""What every test runs under: one thread (two processes that each spin on two cores stand still), no weights from caches."""

import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
for variable in ("HF_HOME", "TORCH_HOME"):  # weights that somebody has downloaded would be found by model.pretrained: auto
    os.environ[variable] = os.path.join(tempfile.gettempdir(), "no-pretrained-weights")

import torch

torch.set_num_threads(1)
