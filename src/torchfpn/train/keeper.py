"""What is kept of a training: last.ckpt after every epoch, best.ckpt when the score is higher, metrics.csv.

A disk that is full does not end the training: it goes on, warns, and tries again after the next epoch.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchfpn.train.checkpoints import BEST, LAST, link
from torchfpn.train.journal import Journal

log = logging.getLogger(__name__)


class Keeper:
    """Writes into the run folder, and knows which epoch was the best so far.

    patience: validations without a better score after which `exhausted` is true; 0: never. by: the column of the score.
    """

    def __init__(self, folder: Path, journal: Journal, *, patience: int = 0, by: str = "val/miou") -> None:
        self.folder, self.journal, self.patience, self.by = folder, journal, patience, by
        self.best_score, self.best_epoch, self.waited = -math.inf, 0, 0
        self._before = self.state_dict()  # the judgement before the newest one
        self.failure: OSError | None = None  # why the newest save failed; None when it did not

    @property
    def last(self) -> Path:
        """Where the newest state lies."""
        return self.folder / "checkpoints" / LAST

    @property
    def best(self) -> Path:
        """Where the state with the highest score lies."""
        return self.folder / "checkpoints" / BEST

    @property
    def exhausted(self) -> bool:
        """Whether it has not got better for too long."""
        return 0 < self.patience <= self.waited

    def judge(self, row: Mapping[str, float]) -> bool:
        """Takes in the row of an epoch; whether its weights are the best so far."""
        self.journal.add(row)
        self._before = self.state_dict()
        score = row.get(self.by)
        if score is None:
            return False
        if score > self.best_score:
            self.best_score, self.best_epoch, self.waited = score, int(row["epoch"]), 0
            return True
        self.waited += 1
        return False

    def save(self, trainer: Any, *, is_best: bool = False) -> bool:
        """Writes last.ckpt and metrics.csv, and best.ckpt if it is; whether that worked."""
        try:
            trainer.save_checkpoint(self.last)
            if trainer.is_global_zero:
                self._write_beside(is_best)
        except OSError as error:
            self.failure = error
            if is_best:  # best.ckpt is as before, so it stays the one that later epochs have to beat
                self.load_state_dict(self._before)
            log.warning("the state could not be saved: %s; training continues, %s is unchanged", error, self.last.name)
            return False
        self.failure = None
        return True

    def _write_beside(self, is_best: bool) -> None:
        if is_best:
            link(self.last, self.best)
        self.journal.write(self.folder / "metrics.csv")

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"score": self.best_score, "epoch": self.best_epoch, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The judgement of a state."""
        self.best_score, self.best_epoch, self.waited = state["score"], state["epoch"], state["waited"]
