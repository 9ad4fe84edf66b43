"""Progress bar and log lines during training, on stderr; results go to stdout."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from rich.progress import BarColumn, TextColumn, track
from rich.progress import Progress as Bar

from torchfpn.data.parallel import Watch
from torchfpn.errors import amount
from torchfpn.report.console import Console
from torchfpn.report.tables import percents
from torchfpn.train.logs import append_timing
from torchfpn.train.loop import Training

LINE_INTERVAL = 30.0  # seconds between two plain lines within an epoch
MANY_FILES = 500  # from here on a line announces the reading
SHOWN_COLUMNS = {
    "val/loss": "val loss",
    "val/pq": "PQ",
    "val/miou": "mIoU",
    "val/ap": "AP",
    "val/mask_ap": "mask AP",
}


class Progress(pl.Callback):
    """Progress bar on a terminal, plain lines elsewhere; writes timing.csv into `folder` after every epoch."""

    def __init__(self, console: Console, folder: Path) -> None:
        self.console, self.folder = console, folder
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.images, self.trained, self.validated = 0, 0.0, 0.0  # of this epoch: count, seconds
        self.done = 0  # steps of this process

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Shows the bar."""
        assert isinstance(module, Training)
        self.begun = self.shown = time.monotonic()
        self.line = self.bar.add_task("", total=module.train_loader.steps, numbers="")
        self.bar.start()
        module.after_epoch.append(self.show_epoch)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Starts the clock of the epoch."""
        self.epoch_begun, self.images, self.validated = time.monotonic(), 0, 0.0
        name = f"epoch {module.position.epoch + 1}/{module.config.max_epochs}"
        self.bar.update(self.line, description=name, completed=module.position.batch, total=module.train_loader.steps)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Loss, learning rate, images per second, time left."""
        if module.last is None:
            return
        self.done, self.images = self.done + 1, self.images + len(batch) * trainer.world_size
        if not self.console.is_terminal and time.monotonic() - self.shown < LINE_INTERVAL:
            return
        self.shown = time.monotonic()
        rate = self.images / (self.shown - self.epoch_begun)
        lr = trainer.optimizers[0].param_groups[-1]["lr"]
        numbers = f"loss {module.last.losses['loss']:.4f}  lr {lr:.1e}  {rate:.1f} img/s  {self._left(module)} left"
        self.bar.update(self.line, completed=module.position.batch, numbers=numbers)
        if not self.console.is_terminal:
            step = f"step {module.position.batch}/{module.train_loader.steps}"
            self._say(f"epoch {module.position.epoch + 1}/{module.config.max_epochs}  {step}  {numbers}")

    def on_validation_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Starts the bar and the clock of the validation."""
        self.validation_begun = time.monotonic()
        self.bar.update(self.line, completed=0, total=len(module.validation_loader), numbers="validating")

    def on_validation_batch_end(self, *_: Any) -> None:
        """Advances the bar by an image."""
        self.bar.advance(self.line)

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Stops the clock of the validation."""
        self.validated = time.monotonic() - self.validation_begun

    def show_epoch(self, module: Training) -> None:
        """Prints a line for the epoch and adds one to timing.csv."""
        row, checkpoints = module.row, module.checkpoints
        trained = time.monotonic() - self.epoch_begun - self.validated
        rate = self.images / trained
        loss = f"{row['train/loss']:.4f}" if "train/loss" in row else "-"  # every step was bad: nothing to average
        parts = [f"epoch {int(row['epoch'])}/{module.config.max_epochs}", f"loss {loss}"]
        star = "*" if checkpoints.best_epoch == row["epoch"] else " "
        for column, name in SHOWN_COLUMNS.items():
            if column in row:
                shown = f"{row[column]:.4f}" if column == "val/loss" else f"{percents(row[column])} %"
                parts.append(f"{name} {shown}{star if column == checkpoints.score_column else ''}")
        parts += [f"{rate:.1f} img/s", f"{_clock(trained + self.validated)}", f"{self._left(module)} left"]
        self._say("  ".join(parts))
        if checkpoints.failure is None:
            epoch = int(row["epoch"])
            append_timing(self.folder, epoch, train_s=trained, validate_s=self.validated, images_per_s=rate)

    def on_train_end(self, *_: Any) -> None:
        """Removes the bar."""
        self.bar.stop()

    def on_exception(self, *_: Any) -> None:
        """Removes the bar."""
        self.bar.stop()

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def _left(self, module: Training) -> str:
        """Time left, estimated from all the time spent so far, validation included."""
        spent = time.monotonic() - self.begun
        remaining = module.total_steps - module.steps_done
        return _clock(spent / self.done * remaining) if self.done else "?"


def watcher(console: Console, title: str) -> Watch:
    """Progress of reading a dataset: a bar on a terminal, elsewhere a line if there are many files."""

    def watch(items: Iterable[Any], total: int) -> Iterable[Any]:
        if not console.is_terminal and total >= MANY_FILES:
            console.print(f"{title}: {amount(total, 'file')}")
        return track(items, title, total, console=console, transient=True, disable=not console.is_terminal)

    return watch


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
