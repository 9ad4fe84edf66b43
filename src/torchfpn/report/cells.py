"""What stands in the cells of tables on a terminal."""

import math

from torchfpn.report.numbers import Number


def literal(name: str) -> str:
    """A name in which rich finds no markup."""
    return name.replace("[", r"\[")


def percents(value: Number) -> str:
    """A fraction in percent with two digits; "-" for None and NaN, where there is nothing to score."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.2f}"
