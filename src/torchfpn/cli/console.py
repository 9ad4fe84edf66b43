"""How verbs speak: results on stdout; progress, warnings and failures on stderr; exit codes.

Progress is a bar with rate and remaining time on a terminal, and a plain line from time to time elsewhere.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torchfpn.errors import ConfigError, FPNError, WriteError, amount, of_system
from torchfpn.io.atomic import make_directory
from torchfpn.io.formats import printable
from torchfpn.report.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_INTERVAL = 15.0  # seconds between two progress lines where there is no terminal
FILE_LINE_INTERVAL = 5.0  # the same while the files of a dataset are read
WIDTH = 140  # columns of tables where there is no terminal
MAX_NAMES = 3  # file names in a warning

T = TypeVar("T")
R = TypeVar("R")
Step = Callable[[], None]


def for_each(
    doing: str,
    items: Sequence[T],
    work: Callable[[T, Step], R],
    report: Callable[[R], None] = lambda _: None,
    *,
    source: Callable[[T], Path],
    steps: Sequence[int] | None = None,
    unit: str = "img",
) -> int:
    """Does the work of a verb on each of its sources; an error of one is printed, and the next one follows.

    Args:
        doing: what the progress bar is called.
        items: the sources, or whatever stands for them.
        work: called with an item and a function that reports one step of progress. Steps that it does not report count
            when it returns or fails.
        report: called with what `work` returned; its errors are not of one source, and end the loop.
        source: the file of an item, for errors that name none.
        steps: how many steps each item takes; None: one each.
        unit: what one step is.

    Returns:
        How many items failed.
    """
    counts = [1] * len(items) if steps is None else list(steps)
    taken = expected = failed = 0
    with progress(doing, sum(counts), unit=unit) as step:

        def advance() -> None:
            nonlocal taken
            taken += 1
            step()

        for item, count in zip(items, counts, strict=True):
            expected += count
            try:
                result = work(item, advance)
            except (FPNError, OSError) as error:
                failed += 1
                warn(str(error if isinstance(error, FPNError) else of_system(error, source(item))))
            else:
                report(result)
            while taken < expected:
                advance()
    return failed


def exit_code(done: int, failed: int) -> int:
    """The exit code of a verb: 0 if no source failed, 1 if some did, 2 if all did."""
    return 0 if not failed else 1 if done else 2


def warn(line: str) -> None:
    """Prints one line on stderr."""
    print(f"fpn: {line}", file=sys.stderr)


@contextlib.contextmanager
def progress(doing: str, total: int, *, unit: str = "img", interval: float = LINE_INTERVAL) -> Iterator[Step]:
    """Shows progress on stderr.

    Args:
        doing: what the bar is called.
        total: the number of steps.
        unit: what one step is.
        interval: seconds between two lines where there is no terminal.

    Yields:
        A function to be called after each step.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(doing, total, unit, console, interval)
        return
    with _bar(unit, console) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda: bar.advance(task)


class FileProgress:
    """Progress of a work on the files of a dataset, as a `torchfpn.data.parallel.Watch`.

    Args:
        doing: what the bar is called.
        quiet: show nothing.
        interval: seconds between two lines where there is no terminal.
    """

    def __init__(self, doing: str, *, quiet: bool = False, interval: float = FILE_LINE_INTERVAL) -> None:
        self.doing, self.quiet, self.interval = doing, quiet, interval

    def __call__(self, items: Iterable[Any], total: int) -> Iterable[Any]:
        """Passes the items on and shows how many have passed."""
        return items if self.quiet else self._shown(items, total)

    def _shown(self, items: Iterable[Any], total: int) -> Iterator[Any]:
        with progress(self.doing, total, unit="files", interval=self.interval) as step:
            for item in items:
                yield item
                step()


def _bar(unit: str, console: Console) -> "Progress":
    """Imports here the parts of rich that take long to import: most runs show no bar."""
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
            """Steps per second."""
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f} {unit}/s" if speed else "")

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True)


def _plain_lines(doing: str, total: int, unit: str, console: Console, interval: float) -> Step:
    begun = shown = time.monotonic()
    done = 0

    def step() -> None:
        nonlocal done, shown
        done, now = done + 1, time.monotonic()
        if now - shown < interval or done == total:
            return
        shown, rate = now, done / (now - begun)
        remaining = (total - done) / rate
        console.print(f"{doing} {done}/{total}  {rate:.1f} {unit}/s  {remaining:.0f} s left", soft_wrap=True)

    return step


def results_console() -> Console:
    """The console of results: as wide as the terminal, or wide enough for the tables."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def warn_of_skipped_files(sources: Sequence[str]) -> None:
    """Prints one line about the files in the folders among `sources` that are no images."""
    from torchfpn.inference.jobs import skipped_files

    files = skipped_files(sources)
    if files:
        names = ", ".join(printable(file) for file in files[:MAX_NAMES]) + (" ..." if len(files) > MAX_NAMES else "")
        what = amount(len(files), "file that is not an image", "files that are not images")
        warn(f"skipped {what}: {names}")


def make_output_folder(folder: Path) -> None:
    """Makes the folder where it is missing and checks that files can be written to it.

    Raises:
        ConfigError: they cannot, and why.
    """
    try:
        make_directory(folder)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".fpn-", suffix=".part") as probe:
            probe.write(b"0" * 4096)
            probe.flush()
    except OSError as error:
        reason = error.reason if isinstance(error, WriteError) else error.strerror or str(error)
        hint = error.hint if isinstance(error, WriteError) else None
        found = f"cannot be written to ({reason})"
        raise ConfigError(found, file=printable(folder), field="--out", hint=hint) from error
