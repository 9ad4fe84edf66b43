"""metrics.csv: one row for every epoch, a pure function of the training, so that a resumed one writes the same bytes.

Times are no such function; they go to timing.csv.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torchfpn.files.atomic import write_text

Row = dict[str, float]


class Journal:
    """The rows so far; the file is written whole from them, so that it never disagrees with the checkpoint."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        self.rows: list[Row] = []

    def add(self, row: Mapping[str, float]) -> None:
        """One more epoch; columns it does not have stay empty."""
        self.rows.append({name: row[name] for name in self.columns if name in row})

    def write(self, path: Path) -> None:
        """The file as it should be now."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_show(row.get(name)) for name in self.columns] for row in self.rows)
        write_text(path, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The rows of a state."""
        self.rows = [dict(row) for row in state["rows"]]


class Mean:
    """Running means of named numbers, in the order they came: exact to the bit when saved and loaded in between."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, values: Mapping[str, float]) -> None:
        """One more of each."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def means(self) -> dict[str, float]:
        """What they are on average; empty when there were none."""
        return {name: total / self.count for name, total in self.sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"sums": dict(self.sums), "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The sums of a state."""
        self.sums, self.count = dict(state["sums"]), int(state["count"])


def _show(value: float | None) -> str:
    """The shortest text that reads back as the same number; nothing for what is not there."""
    return "" if value is None or math.isnan(value) else repr(value)
