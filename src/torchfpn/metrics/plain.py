"""Scores as JSON knows them, which has no NaN."""

import math


def plain(value: float) -> float | None:
    """The number; None where there is nothing to score."""
    return None if math.isnan(value) else value
