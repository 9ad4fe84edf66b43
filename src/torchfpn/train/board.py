"""tensorboard: the numbers of metrics.csv as curves in tb/, where tensorboard is installed.

The records are made here and appended to the file: tensorboard's own writer does so in a thread, where a full disk ends
in a traceback that nobody can catch.
"""

import io
import os
import socket
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from torchfpn.files.atomic import append, make_directory


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
