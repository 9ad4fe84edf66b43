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
TIMING_COLUMNS = "epoch,train_s,validate_s,images_per_s\n"  # times in seconds
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


class MetricsTable:
    """The rows of metrics.csv, one an epoch, a function of config and data alone: a resumed training writes the same.

    The file is always written whole from the rows, so that it agrees with the checkpoint.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        self.rows: list[Row] = []

    def add(self, row: Mapping[str, float]) -> None:
        """Adds an epoch; columns that `row` lacks stay empty."""
        self.rows.append({name: row[name] for name in self.columns if name in row})

    def write(self, path: Path) -> None:
        """Writes all rows to a CSV file."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_text(row.get(name)) for name in self.columns] for row in self.rows)
        write_text(path, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.rows = [dict(row) for row in state["rows"]]


class RunningMean:
    """Running means of named numbers, equal to the bit when saved and loaded in between."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, values: Mapping[str, float]) -> None:
        """Adds a value to each mean."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def means(self) -> dict[str, float]:
        """The mean of each name; empty without values."""
        return {name: total / self.count for name, total in self.sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"sums": dict(self.sums), "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.sums, self.count = dict(state["sums"]), int(state["count"])


def append_timing(folder: Path, epoch: int, *, train_s: float, validate_s: float, images_per_s: float) -> None:
    """Appends an epoch to timing.csv of a run folder; unlike metrics.csv it differs from run to run."""
    path = folder / "timing.csv"
    before = path.read_text() if path.is_file() else TIMING_COLUMNS
    write_text(path, f"{before}{epoch},{train_s:.3f},{validate_s:.3f},{images_per_s:.2f}\n")


def total_seconds(folder: Path) -> float:
    """Seconds of training and validation in timing.csv of a run folder, over all processes that took part."""
    path = folder / "timing.csv"
    if not path.is_file():
        return 0.0
    with path.open(newline="", encoding="utf-8") as file:
        return sum(float(row["train_s"]) + float(row["validate_s"]) for row in csv.DictReader(file))


def _text(value: float | None) -> str:
    """The shortest text that reads back as the same number; empty for None and NaN."""
    return "" if value is None or math.isnan(value) else repr(value)


class TensorBoardLog:
    """Appends scalars to a TensorBoard event file, if tensorboard is installed; the first number imports it (seconds).

    The records are appended here and not by tensorboard's writer: that writes in a thread, where a full disk ends in a
    traceback that cannot be caught.

    Args:
        folder: tb/ of a run folder.
        first_step: the step that a training resumes from; TensorBoard hides what was written beyond it before.
    """

    def __init__(self, folder: Path, first_step: int = 0) -> None:
        self.folder, self.first_step = folder, first_step
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{id(self)}"
        self._file, self._queue = folder / name, io.BytesIO()
        self._records: Any = None
        self._events: Any = None
        self._summary: Any = None
        self._unavailable = False

    def add(self, row: Mapping[str, float], step: int) -> None:
        """Writes the numbers of an epoch.

        Raises:
            WriteError: they cannot be written; the next call writes them too.
        """
        if not self._open():
            return
        for name, value in row.items():
            self._put(step=step, summary=self._summary.scalar(name, value))
        make_directory(self.folder)
        append(self._file, self._queue.getvalue())
        self._queue.seek(0)
        self._queue.truncate()

    def _open(self) -> bool:
        """Whether tensorboard is installed; the first call queues the records that begin a file."""
        if self._records is None and not self._unavailable:
            try:
                self._events = import_module("tensorboard.compat.proto.event_pb2")
                self._summary = import_module("torch.utils.tensorboard.summary")
                writer = import_module("tensorboard.summary.writer.record_writer")
            except ImportError:
                self._unavailable = True
                return False
            self._records = writer.RecordWriter(self._queue)
            self._put(file_version="brain.Event:2")
            started = self._events.SessionLog(status=self._events.SessionLog.START)
            self._put(step=self.first_step + 1, session_log=started)
        return self._records is not None

    def _put(self, **fields: Any) -> None:
        self._records.write(self._events.Event(wall_time=time.time(), **fields).SerializeToString())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside the block, Lightning's tips, warnings and device lines are not shown."""
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
