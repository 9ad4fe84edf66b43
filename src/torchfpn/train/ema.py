"""Averaged weights: an exponential moving average of every weight and statistic; they are validated and kept."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Follows `module`: average <- decay * average + (1 - decay) * value, after each step, in float32.

    The decay is warmed up, min(decay, (1 + n) / (10 + n)) at update n, so that the first, random weights are soon
    forgotten. Running statistics of batch norm are averaged like weights; whole numbers are those of the module.
    Make it once the module is on its device. Source: Polyak and Juditsky 1992; the warm-up is TensorFlow's.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        named = {name: value for name, value in _tensors(module).items() if value.is_floating_point()}
        self.names = list(named)
        self.values = list(named.values())  # the module's own tensors
        self.averages = [value.detach().clone().float() for value in self.values]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights as they are now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(self.averages, [value.detach() for value in self.values], 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the module holds the averages."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchanges averages and weights, without copying; a second call puts them back."""
        for i, value in enumerate(self.values):
            average = self.averages[i]
            self.averages[i] = value.data
            value.data = average

    def named(self) -> dict[str, Tensor]:
        """The averages under the names of the module's state_dict."""
        return dict(zip(self.names, self.averages, strict=True))

    def state_dict(self) -> dict[str, object]:
        """Plain values and tensors, for a checkpoint."""
        return {"updates": self.updates, "averages": self.named()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continues from a state; raises KeyError when it is of another module."""
        self.updates = int(state["updates"])  # type: ignore[call-overload]
        stored: Mapping[str, Tensor] = state["averages"]  # type: ignore[assignment]
        for name, average in zip(self.names, self.averages, strict=True):
            average.copy_(stored[name])


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """What a state_dict of `module` holds, as the very tensors the module uses."""
    return module.state_dict(keep_vars=True)
