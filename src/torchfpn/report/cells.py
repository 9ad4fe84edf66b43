"""What stands in the cells of tables on a terminal."""

import math
from collections.abc import Sequence

from rich.console import Group
from rich.table import Table

from torchfpn.report.numbers import Number


def literal(name: str) -> str:
    """A name in which rich finds no markup."""
    return name.replace("[", r"\[")


def with_notes(table: Table, notes: Sequence[str]) -> Group:
    """A table with lines below it that are as wide as the terminal: a caption would wrap at the width of the table."""
    return Group(table, *notes)


def percents(value: Number) -> str:
    """A fraction in percent with two digits; "-" for None and NaN, where there is nothing to score."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.2f}"
