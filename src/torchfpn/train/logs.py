"""Logs of a training: metrics.csv, TensorBoard event files, and Lightning's own messages, which are silenced."""

import contextlib
import csv
import io
import logging
import math
import os
import socket
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from torchfpn.io.atomic import append, make_directory, write_text

Row = dict[str, float]
LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning", "pytorch_lightning", "lightning_fabric")

CHATTER = (
    r".*does not have many workers.*",
    r".*number of training batches.*smaller than the logging interval.*",
    r".*module\(s\) in eval mode.*",
    r".*not resumable.*",
    r".*`enable_progress_bar`.*",
    r".*Checkpoint directory.*",
    r".*you defined a `validation_step` but have no `val_dataloader`.*",
    r".*barrier\(\): using the device under current context.*",
    r".*isinstance\(treespec, LeafSpec\).*",
)


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


class Board:
    """Appends scalars to an event file in `folder`; tensorboard is imported with the first number: it takes seconds.

    first_step: the step that a training is resumed from; what an earlier process wrote beyond it is hidden.
    """

    def __init__(self, folder: Path, first_step: int = 0) -> None:
        self.folder, self.first_step = folder, first_step
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{id(self)}"
        self._file, self._waiting = folder / name, io.BytesIO()
        self._records: Any = None
        self._events: Any = None
        self._summary: Any = None
        self._missing = False

    def add(self, row: Mapping[str, float], step: int) -> None:
        """One epoch's numbers.

        Raises:
            WriteError: they cannot be written; they are written with those of the next epoch.
        """
        if not self._open():
            return
        for name, value in row.items():
            self._put(step=step, summary=self._summary.scalar(name, value))
        make_directory(self.folder)
        append(self._file, self._waiting.getvalue())
        self._waiting.seek(0)
        self._waiting.truncate()

    def _open(self) -> bool:
        """Whether tensorboard is there; the first time, the records that begin a file are made."""
        if self._records is None and not self._missing:
            try:
                self._events = import_module("tensorboard.compat.proto.event_pb2")
                self._summary = import_module("torch.utils.tensorboard.summary")
                writer = import_module("tensorboard.summary.writer.record_writer")
            except ImportError:
                self._missing = True
                return False
            self._records = writer.RecordWriter(self._waiting)
            self._put(file_version="brain.Event:2")
            started = self._events.SessionLog(status=self._events.SessionLog.START)
            self._put(step=self.first_step + 1, session_log=started)
        return self._records is not None

    def _put(self, **fields: Any) -> None:
        self._records.write(self._events.Event(wall_time=time.time(), **fields).SerializeToString())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within the block Lightning's tips, warnings and device lines are not shown."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in CHATTER:
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
