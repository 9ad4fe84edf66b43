"""Progress on stderr: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from torchfpn.report.console import Console

EVERY = 15.0  # seconds between two plain lines
Step = Callable[[], None]


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """Things a second."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {self.unit}/s" if speed else "")


@contextlib.contextmanager
def counted(what: str, total: int, *, unit: str = "img", console: Console | None = None) -> Iterator[Step]:
    """A function to be called after each of `total` things."""
    console = console or Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(unit),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            line = bar.add_task(what, total=total)
            yield lambda: bar.advance(line)
        return
    yield _plain_lines(what, total, unit, console)


def _plain_lines(what: str, total: int, unit: str, console: Console) -> Step:
    begun = shown = time.monotonic()
    done = 0

    def step() -> None:
        nonlocal done, shown
        done, now = done + 1, time.monotonic()
        if now - shown < EVERY or done == total:
            return
        shown, rate = now, done / (now - begun)
        left = (total - done) / rate
        console.print(f"{what} {done}/{total}  {rate:.1f} {unit}/s  {left:.0f} s left", soft_wrap=True)

    return step
