"""Progress on stderr: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from torchfpn.report.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress

EVERY = 15.0  # seconds between two plain lines
Step = Callable[[], None]


@contextlib.contextmanager
def counted(what: str, total: int, *, unit: str = "img", console: Console | None = None) -> Iterator[Step]:
    """A function to be called after each of `total` things."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(what, total, unit, console)
        return
    with _bar(unit, console) as bar:
        line = bar.add_task(what, total=total)
        yield lambda: bar.advance(line)


def _bar(unit: str, console: Console) -> "Progress":
    """Made of parts of rich that take time to import, so only where a bar is seen."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            """Things a second."""
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f} {unit}/s" if speed else "")

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True)


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
