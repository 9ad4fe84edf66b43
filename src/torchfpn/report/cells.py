"""What stands in the cells of tables on a terminal."""

import math
from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from torchfpn.printing import visible
from torchfpn.report.numbers import Number


def literal(name: str) -> Text:
    """A name as text in which rich finds no markup."""
    return Text(visible(name))


def with_notes(table: Table, notes: Sequence[str]) -> Group:
    """A table with lines below it that are as wide as the terminal: a caption would wrap at the width of the table."""
    return Group(table, *(Text(visible(note)) for note in notes))


def percents(value: Number) -> str:
    """A fraction in percent with two digits; "-" for None and NaN, where there is nothing to score."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.2f}"
