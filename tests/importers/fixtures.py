"""State_dicts of other projects' models, made from the rule in ../shared/parity/README.md, and what those gave."""

import json
import zlib

import numpy as np
import torch

from shared import SHARED

PARITY = SHARED / "parity"


def weight(name, shape):
    """The tensor of that name and shape, by the rule of the fixtures."""
    draw = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    if name.endswith("running_var"):
        values = 0.5 + draw.random_sample(shape)
    elif name.endswith(("running_mean", "bias")):
        values = 0.1 * draw.standard_normal(shape)
    elif len(shape) <= 1:
        values = 0.5 + draw.random_sample(shape)
    else:
        values = draw.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def state_dict(shapes):
    """All tensors of {name: shape}."""
    return {name: weight(name, shape) for name, shape in dict(shapes).items()}


class Fixture:
    """One case: its state_dict, its input, and the outputs of the original by name."""

    def __init__(self, case):
        path = PARITY / case
        told = json.loads(path.with_suffix(".json").read_text())
        self.args, self.parameters, self.outputs = told["args"], dict(told["parameters"]), told["outputs"]
        self.images = torch.from_numpy(
            np.random.RandomState(told["input_seed"]).standard_normal(told["input_shape"]).astype(np.float32)
        )
        with np.load(path.with_suffix(".npz")) as stored:
            self.stored = {name: stored[name] for name in self.outputs}

    @property
    def tensors(self):
        """The state_dict."""
        return state_dict(self.parameters)

    def difference(self, name, ours):
        """Largest difference to the original's output, relative to its largest value."""
        assert list(ours.shape) == self.outputs[name]["shape"]
        theirs = self.stored[name]
        mine = ours.detach().flatten().numpy()[:: self.outputs[name]["stride"]]
        return float(np.abs(mine - theirs).max() / np.abs(theirs).max())


def cases(family):
    """Names of the cases of a family; none where ../shared is absent."""
    return sorted(f"{family}/{path.stem}" for path in (PARITY / family).glob("*.json"))
