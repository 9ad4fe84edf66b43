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
from torchfpn.io.atomic import write_text
from torchfpn.report.console import Console
from torchfpn.report.tables import percents
from torchfpn.train.loop import Training

EVERY = 30.0  # seconds between two plain lines within an epoch
MANY = 500  # files that take long enough to say so
SHOWN = {"val/loss": "val loss", "val/miou": "mIoU", "val/ap": "AP", "val/mask_ap": "mask AP"}
TIMING = "epoch,train_s,validate_s,images_per_s\n"


class Progress(pl.Callback):
    """Follows a `Training`; writes timing.csv into `folder` after every epoch."""

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
        """Begins the epoch's clock."""
        self.epoch_begun, self.images, self.validated = time.monotonic(), 0, 0.0
        name = f"epoch {module.position.epoch + 1}/{module.config.max_epochs}"
        self.bar.update(self.line, description=name, completed=module.position.batch, total=module.train_loader.steps)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Loss, learning rate, images per second, time left."""
        if module.last is None:
            return
        self.done, self.images = self.done + 1, self.images + len(batch) * trainer.world_size
        if not self.console.is_terminal and time.monotonic() - self.shown < EVERY:
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
        """Says that it validates."""
        self.validation_begun = time.monotonic()
        self.bar.update(self.line, completed=0, total=len(module.validation_loader), numbers="validating")

    def on_validation_batch_end(self, *_: Any) -> None:
        """One image more."""
        self.bar.advance(self.line)

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Stops the validation's clock."""
        self.validated = time.monotonic() - self.validation_begun

    def show_epoch(self, module: Training) -> None:
        """One line for the epoch, and one in timing.csv."""
        row, keeper = module.row, module.keeper
        trained = time.monotonic() - self.epoch_begun - self.validated
        rate = self.images / trained
        loss = f"{row['train/loss']:.4f}" if "train/loss" in row else "-"  # every step was bad: nothing to average
        parts = [f"epoch {int(row['epoch'])}/{module.config.max_epochs}", f"loss {loss}"]
        star = "*" if keeper.best_epoch == row["epoch"] else " "
        for column, name in SHOWN.items():
            if column in row:
                shown = f"{row[column]:.4f}" if column == "val/loss" else f"{percents(row[column])} %"
                parts.append(f"{name} {shown}{star if column == keeper.by else ''}")
        parts += [f"{rate:.1f} img/s", f"{_clock(trained + self.validated)}", f"{self._left(module)} left"]
        self._say("  ".join(parts))
        if keeper.failure is None:
            self._time(int(row["epoch"]), trained, rate)

    def on_train_end(self, *_: Any) -> None:
        """Takes the bar away."""
        self.bar.stop()

    def on_exception(self, *_: Any) -> None:
        """Takes the bar away."""
        self.bar.stop()

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def _left(self, module: Training) -> str:
        """Time left, judged by all the time spent so far, validation included."""
        spent = time.monotonic() - self.begun
        remaining = module.total_steps - module.steps_done
        return _clock(spent / self.done * remaining) if self.done else "?"

    def _time(self, epoch: int, trained: float, rate: float) -> None:
        path = self.folder / "timing.csv"
        before = path.read_text() if path.is_file() else TIMING
        write_text(path, f"{before}{epoch},{trained:.3f},{self.validated:.3f},{rate:.2f}\n")


def watcher(console: Console, title: str) -> Watch:
    """Shows how far the reading before a training is: a bar on a terminal, a line elsewhere if it takes long."""

    def watch(items: Iterable[Any], total: int) -> Iterable[Any]:
        if not console.is_terminal and total >= MANY:
            console.print(f"{title}: {amount(total, 'file')}")
        return track(items, title, total, console=console, transient=True, disable=not console.is_terminal)

    return watch


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
