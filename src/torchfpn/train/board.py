"""tensorboard: the numbers of metrics.csv as curves in tb/, where tensorboard is installed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Board:
    """Writes scalars below `folder`; the writer is made when there is a first number, for its import takes seconds."""

    def __init__(self, folder: Path, first_step: int = 0) -> None:
        self.folder, self.first_step = folder, first_step
        self._writer: Any = None
        self._missing = False

    def add(self, row: Mapping[str, float], step: int) -> None:
        """One epoch's numbers."""
        writer = self._open()
        if writer is None:
            return
        for name, value in row.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def close(self) -> None:
        """Ends the writer's thread."""
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> Any:
        if self._writer is None and not self._missing:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._missing = True
                return None
            # what an earlier process wrote beyond the point it is resumed from is hidden
            self._writer = SummaryWriter(str(self.folder), purge_step=self.first_step + 1)
        return self._writer
