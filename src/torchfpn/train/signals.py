"""Ctrl-C, SIGTERM and a closed terminal: the first asks to stop after the step, the second stops at once."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from torch.utils.data._utils.signal_handling import _set_SIGCHLD_handler

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # SIGHUP: POSIX alone; SIGBREAK: Windows alone
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
HANGUP = getattr(signal, "SIGHUP", None)


class Interrupted(Exception):  # noqa: N818 - not an error: somebody asked for it
    """A signal stopped the training; `saved` says whether the state of this very step is in last.ckpt."""

    def __init__(self, signum: int, *, saved: bool = False) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum, self.saved = signum, saved

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process stopped by that signal."""
        return 128 + self.signum


class StopRequest:
    """Within the block a first signal is remembered in `.signum`; a second one ends the process.

    Outside of `graceful` there is nothing to save, and the first signal raises `Interrupted` where it comes.
    Only the main thread can have handlers; in others the block does nothing.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.is_graceful = False
        self._before: dict[Any, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in SIGNALS}
            if self._before.get(HANGUP) is signal.SIG_IGN:  # nohup: the training outlives its terminal
                del self._before[HANGUP]
            self.install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def install(self) -> None:
        """Takes the signals (again: Lightning puts its own handler before ours when a fit begins)."""
        for number in self._before:
            signal.signal(number, self._handle)

    @contextlib.contextmanager
    def graceful(self) -> Iterator[None]:
        """Within the block the first signal only sets `signum`; whoever runs the block looks at it after each step."""
        self.is_graceful = True
        try:
            yield
        finally:
            self.is_graceful = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            os._exit(128 + signum)  # at once: no cleaning up, whatever hangs
        self.signum = signum
        if not self.is_graceful:
            raise Interrupted(signum)
        name = signal.Signals(signum).name
        with contextlib.suppress(RuntimeError, OSError):  # in the middle of another print; a terminal that is gone
            print(
                f"\n{name}: finishing the step, then saving; press again to stop at once", file=sys.stderr, flush=True
            )


def ignore_in_worker() -> None:
    """For loader processes: signals to the whole group (Ctrl-C) pass them by; the step needs them to be finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(AttributeError, OSError):  # Windows has no groups
        os.setpgid(0, 0)


def watch_loaders() -> None:
    """Has torch learn at once of a loader process that dies: to be called before a Lightning fit.

    torch installs its SIGCHLD handler with the first loader process, and only once. Lightning, on leaving a fit, puts
    back what it found on entering; a handler installed in between is gone for good, and every later training of this
    process would wait for a dead loader until the time limit.
    """
    _set_SIGCHLD_handler()
