"""How the verbs that read many files speak: tables on stdout, progress on stderr."""

import sys
import time
from collections.abc import Iterable
from typing import Any

_EVERY = 5.0  # seconds between the lines that stand in for a progress bar
_WIDTH = 140  # columns where the output is no terminal


class Progress:
    """How far a long work is: a bar with rate and time left on a terminal, a line now and then elsewhere. On stderr.

    It is a `torchfpn.data.each.Watch`.
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
