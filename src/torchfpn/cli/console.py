"""Console output of verbs: progress, lines per source, outputs that can be written.

Progress on stderr: a bar with rate and time left on a terminal, a plain line now and then elsewhere.

How the verbs that read many files speak: tables on stdout, progress on stderr.

What verbs say of their sources: one line for each, and warnings: no data at all, files that are no images.

Whether a folder can be written to, asked before the work and not after it.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torchfpn.errors import ConfigError, WriteError, amount
from torchfpn.io.atomic import make_directory
from torchfpn.io.formats import printable
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


_EVERY = 5.0  # seconds between the lines that stand in for a progress bar

_WIDTH = 140  # columns where the output is no terminal


class FileProgress:
    """How far a long work is: a bar with rate and time left on a terminal, a line now and then elsewhere. On stderr.

    It is a `torchfpn.data.parallel.Watch`.
    """

    def __init__(self, doing: str, *, quiet: bool = False) -> None:
        self.doing, self.quiet = doing, quiet

    def __call__(self, items: Iterable[Any], total: int) -> Iterable[Any]:
        """The same items, shown as they pass."""
        if self.quiet:
            return items
        return self._bar(items, total) if sys.stderr.isatty() else self._lines(items, total)

    def _bar(self, items: Iterable[Any], total: int) -> Iterable[Any]:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        from torchfpn.report.console import Console

        rate = TextColumn("{task.fields[rate]} files/s")
        columns = (TextColumn(self.doing), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task, begun = bar.add_task("", total=total, rate="-"), time.monotonic()
            for done, item in enumerate(items, start=1):
                yield item
                bar.update(task, advance=1, rate=f"{done / max(time.monotonic() - begun, 1e-9):.0f}")

    def _lines(self, items: Iterable[Any], total: int) -> Iterable[Any]:
        begun = said = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if now - said >= _EVERY:
                said, rate = now, done / (now - begun)
                print(
                    f"{self.doing} {done}/{total}, {rate:.0f} files/s, {(total - done) / rate:.0f} s left",
                    file=sys.stderr,
                )


def console() -> Any:
    """Where results are printed: as wide as the terminal, wide enough for tables elsewhere."""
    from torchfpn.report.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDTH)


class Predicted(Protocol):
    """What came of one source, of pixels or of objects."""

    @property
    def pixels(self) -> int:
        """Of the image."""

    @property
    def empty(self) -> int:
        """Of them, those without data."""

    @property
    def polygons(self) -> int:
        """How many were written."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What else is to be said of the source."""


def tell(words: list[str], outcome: Predicted, source: Path, *, polygons: bool) -> None:
    """The line that begins with `words`. polygons: whether they were asked for."""
    if polygons:
        words.append(amount(outcome.polygons, "polygon"))
    if outcome.empty:
        words.append(f"{amount(outcome.empty, 'pixel')} without data")
    print(", ".join(words))
    for line in outcome.remarks:
        print(f"fpn: {printable(source)}: {line}", file=sys.stderr)
    if outcome.empty == outcome.pixels:
        print(f"fpn: {printable(source)}: contains no valid pixel", file=sys.stderr)


SHOWN = 3  # names in a line


def tell_passed_over(sources: Sequence[str]) -> None:
    """One line about the files in folders of images that are no images."""
    from torchfpn.inference.jobs import passed_over

    files = passed_over(sources)
    if files:
        names = ", ".join(printable(file) for file in files[:SHOWN]) + (" ..." if len(files) > SHOWN else "")
        what = amount(len(files), "file that is not an image", "files that are not images")
        print(f"fpn: skipped {what}: {names}", file=sys.stderr)


def check_folder(folder: Path) -> None:
    """Makes `folder` where it is missing and passes it if files can be made in it.

    Raises:
        ConfigError: it cannot be, and why.
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
