"""Scores as JSON knows them, which has no NaN."""

import math

UNIT = "fraction"  # of every score in JSON and CSV files, 0..1; people are shown percent


def plain(value: float) -> float | None:
    """The number; None where there is nothing to score."""
    return None if math.isnan(value) else value
