"""Text on the terminal: control characters made visible, streams that may fail, quiet warnings."""

import contextlib
import errno
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import IO, Any

LONGEST = 3500  # characters of a message; of longer ones the beginning and the end are kept

_HIDDEN = re.compile(  # control characters but tab and line feed, marks of direction, invisible ones, lone surrogates
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)

_filters = threading.RLock()  # warnings.catch_warnings changes a global list; one thread may nest blocks


def visible(text: str) -> str:
    r"""The text with control characters, marks of writing direction and invisible characters as escapes: ``\x1b``.

    Line feeds and tabs stay. Bytes of a file name that are no UTF-8 become ``\xff``.
    """
    return _HIDDEN.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as os.fsdecode has it
        return f"\\x{code - 0xDC00:02x}"
    return match.group().encode("unicode_escape").decode()


def shortened(text: str, max_length: int = LONGEST) -> str:
    """The text, or where it is longer than `max_length` characters its beginning and end and how many were left out."""
    if len(text) <= max_length:
        return text
    head, tail = max_length * 3 // 4, max_length // 4
    return f"{text[:head]} [{len(text) - head - tail:,} characters left out] {text[-tail:]}"


class Stream:
    """A text stream that remembers an error of writing instead of raising it; only a closed pipe is raised.

    Args:
        raw: where the text goes; None where the process was started with the stream closed.
    """

    def __init__(self, raw: IO[str] | None) -> None:
        self.raw = raw
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Writes as it is."""
        if self.raw is None:
            self.failure = OSError(errno.EBADF, os.strerror(errno.EBADF))
            return len(text)
        with self._remembered():
            try:
                self.raw.write(text)
            except UnicodeEncodeError:  # a terminal that knows no UTF-8
                encoding = self.encoding
                self.raw.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered."""
        if self.raw is not None:
            with self._remembered():
                self.raw.flush()

    def isatty(self) -> bool:
        """Whether this is a terminal."""
        return self.raw is not None and self.raw.isatty()

    @property
    def encoding(self) -> str:
        """Of the bytes that are written."""
        return getattr(self.raw, "encoding", None) or "utf-8"

    @contextlib.contextmanager
    def _remembered(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            self.failure = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["raw"], name)


class Door(Stream):
    """A stream whose text is made visible. most: characters of a line at most; None for any number."""

    def __init__(self, raw: IO[str] | None, most: int | None = None) -> None:
        super().__init__(raw)
        self.most = most

    def write(self, text: str) -> int:
        """Writes what can be seen of it."""
        if self.most is not None and len(text) > self.most:
            text = "\n".join(shortened(line, self.most) for line in text.split("\n"))
        super().write(visible(text))
        return len(text)

    @property
    def rich_proxied_file(self) -> Stream:
        """Where consoles of rich write, whose colours are escape sequences; rich asks for this name."""
        return _Through(self)


class _Through(Stream):
    """A door held open: errors are remembered, the text stays as it is."""

    def __init__(self, door: Door) -> None:
        super().__init__(door.raw)
        self.door = door

    def write(self, text: str) -> int:
        """Writes as it is."""
        return Stream.write(self.door, text)

    def flush(self) -> None:
        """Writes what is buffered."""
        self.door.flush()


@contextlib.contextmanager
def doors() -> Iterator[Door]:
    """Makes stdout and stderr doors within the block, and yields that of stdout. Blocks may be nested.

    Names of classes, attributes, tags and files come from other people. Escape sequences in them could rewrite the
    screen, marks of writing direction could turn a line around. Everything that is printed within the block passes
    `visible`: print, logging, argparse. Tables and bars of rich pass `torchfpn.report.console.Console`, which spells
    out the same characters and adds the colors itself.
    """
    if isinstance(sys.stdout, Door):
        yield sys.stdout
        return
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Door(kept[0]), Door(kept[1], 4 * LONGEST)
    try:
        yield sys.stdout
    finally:
        sys.stdout, sys.stderr = kept


def occupy_closed() -> None:
    """Opens the null device for standard streams that are closed, so that no file opened later gets their number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


class _Words(logging.Formatter):
    """Our own records as "fpn: message", those of others with their level and name."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        whose = "fpn" if record.name.partition(".")[0] == "torchfpn" else f"{record.levelname} {record.name}"
        return f"{whose}: {super().format(record)}"


def log_to_stderr(level: int) -> None:
    """Has log records from `level` on printed to stderr, unless the program around us has set up logging itself."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Words("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


@contextlib.contextmanager
def quiet(category: type[Warning]) -> Iterator[None]:
    """Ignores warnings of `category` inside the block. One thread at a time: keep it to short calls."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


def _renew() -> None:
    """A child must not inherit the lock held."""
    global _filters
    _filters = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
