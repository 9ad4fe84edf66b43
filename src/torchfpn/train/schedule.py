"""The learning rate of every step, as a pure function of the step's number: nothing to save, nothing to resume."""

import math
from collections.abc import Callable

from torchfpn.config import ScheduleConfig

SHAPES: dict[str, Callable[[float, float], float]] = {
    "poly": lambda done, power: (1 - done) ** power,
    "cosine": lambda done, _: (1 + math.cos(math.pi * done)) / 2,
    "constant": lambda done, _: 1.0,
}


def factor(config: ScheduleConfig, step: int, total: int) -> float:
    """What the learning rate is multiplied with at `step` of `total`, 0..1.

    Linear from 1 / (warmup + 1) during the warm-up, then the shape from 1 down to min_factor at the end.
    """
    warmup = min(config.warmup, total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    shape = SHAPES[config.name](done, config.power)
    return config.min_factor + (1 - config.min_factor) * shape
