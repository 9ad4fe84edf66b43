"""Runs damaged files through the commands of `fpn` and says what went wrong.

    python tests/fuzz/run.py --cases 20000 [--processes 2] [--first 1000] [--only recipe]

A case passes if the command ends within the time allowed with exit code 0, 1 (only where it reads several sources) or
2, prints no traceback and no warning of a library, says what is wrong where it fails, changes none of its inputs, and
leaves nothing but whole outputs. Ten cases share a process, which is replaced if a case ends it; `--first SEED
--cases 1 --verbose` runs one case alone. Exit code 1 if a case does not pass.
"""

import argparse
import contextlib
import logging
import multiprocessing
import os
import re
import resource
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.cases import FAMILIES, Case, make_case
from fuzz.originals import copy_tree

SECONDS = 20.0  # a case that takes longer hangs
MEMORY = 8 * 2**30  # bytes of private memory a command may ask for; what torch maps at its start counts too
EACH = 10  # cases of one process
LONGEST = 4000  # characters of a line that is printed
FOREIGN = re.compile(  # lines of libraries: Python's warnings, GDAL's and libtiff's, libpng's, logging's default
    r"^\S*\.py:\d+: \w*Warning|Warning \d+:|ERROR \d+:|TIFF\w+:|libpng|Exception ignored|^(WARNING|ERROR):|CPLE_"
)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
PARTIAL = re.compile(r"\.part\b|\.part\.|^\.fpn-(?!finished\.jsonl$)|\.tmp$")  # the list for --resume stays
State = dict[str, tuple[int, int] | None]


class TooLong(BaseException):
    """A case ran for longer than it may; no `except Exception` of the product catches it."""


@dataclass(frozen=True)
class Verdict:
    """How a case ended: the exit code (negative: the signal), seconds, and what is wrong with it ("" if nothing)."""

    case: Case
    code: int
    seconds: float
    fault: str
    printed: str = ""


def preload() -> None:
    """Imports everything once; every process of cases is forked from there."""
    import timm  # noqa: F401
    import torch

    torch.set_num_threads(1)
    for name in (
        *("check", "compare", "convert", "evaluate", "info", "panoptic_from"),
        *("polygons", "predict", "rasterize", "train"),
    ):
        __import__(f"torchfpn.cli.{name}")
    for name in ("lightning", "pyogrio", "rasterio", "shapely", "torchvision", "faster_coco_eval"):
        __import__(name)
    with contextlib.suppress(ImportError):
        import torchfpn.train.fit  # noqa: F401


def run_case(case: Case, originals: Path, work: Path, seconds: float = SECONDS) -> Verdict:
    """Runs one case in this process, in `work`, a copy of the originals, which is as it was afterwards."""
    for file, data in case.damaged.items():
        (work / file).unlink()
        (work / file).write_bytes(data)
    before = state(work.parent)
    log = work.parent.with_name(f"{work.parent.name}.log")
    begun = time.monotonic()
    code = answer(case.words, work, log, seconds)
    spent = time.monotonic() - begun
    after = state(work.parent)
    printed = log.read_bytes().decode(errors="replace")
    restore(work, originals, before, after, list(case.damaged))
    return Verdict(case, code, spent, _fault(case, code, printed, before, after), printed)


def answer(words: Sequence[str], folder: Path, log: Path, seconds: float = SECONDS) -> int:
    """Runs `fpn` with these words in a folder; the exit code, 70 after a traceback. What it prints goes into `log`."""
    from torchfpn.cli.main import main

    with printed_to(log), contextlib.chdir(folder), _at_most(seconds):
        try:
            return main(words)
        except TooLong:
            return -signal.SIGALRM
        except BaseException:  # a traceback is what is looked for
            traceback.print_exc()
            return 70


@contextlib.contextmanager
def printed_to(log: Path) -> Iterator[None]:
    """Within the block everything printed goes into a file, also what libraries of C print."""
    kept = [os.dup(number) for number in (1, 2)]
    streams, handlers = (sys.stdout, sys.stderr), logging.root.handlers[:]
    for stream in streams:
        stream.flush()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    for number in (1, 2):
        os.dup2(handle, number)
    os.close(handle)
    sys.stdout, sys.stderr = (open(n, "w", errors="backslashreplace", closefd=False) for n in (1, 2))  # noqa: SIM115
    logging.root.handlers[:] = []  # a command sets up its own, for the streams it finds
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        (sys.stdout, sys.stderr), logging.root.handlers[:] = streams, handlers
        for number, handle in zip((1, 2), kept, strict=True):
            os.dup2(handle, number)
            os.close(handle)


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raises TooLong in the block after so many seconds."""

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        raise TooLong

    kept = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept)


def state(folder: Path) -> State:
    """Size and time of change of every file below a folder, None for folders."""
    found: State = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[str(path)] = None if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns)
    return found


def restore(work: Path, originals: Path, before: State, after: State, damaged: list[str]) -> None:
    """Removes what a case has added and links its damaged files, and what it changed, to the originals again."""
    for path in sorted(after.keys() - before.keys(), reverse=True):
        Path(path).rmdir() if after[path] is None else Path(path).unlink()
    changed = [os.path.relpath(path, work) for path in before if after.get(path) != before[path]]
    for file in {*damaged, *changed}:
        if (originals / file).is_file():
            (work / file).unlink(missing_ok=True)
            os.link(originals / file, work / file)


def _fault(case: Case, code: int, printed: str, before: State, after: State) -> str:
    """What is wrong with how a case ended; "" if nothing."""
    if code == -signal.SIGALRM:  # millions of steps take their time
        return "" if re.search(r"\d,\d{3},\d{3} steps an epoch", printed) else f"hangs: over {SECONDS:.0f} s"
    if "Traceback (most recent call last)" in printed:
        return "traceback"
    if code not in (0, 1, 2) or (code == 1 and not case.several):
        return f"exit code {code}"
    return _fault_of_text(code, printed) or _fault_of_files(case, code, before, after)


def _fault_of_text(code: int, printed: str) -> str:
    """What is wrong with what a command printed; "" if nothing."""
    lines = printed.splitlines()
    if foreign := next((line for line in lines if FOREIGN.search(line) and not line.startswith("fpn")), ""):
        return f"a library's words: {foreign[:160]}"
    if CONTROL.search(printed.replace("\r", "")):
        return "control characters printed"
    if longest := next((line for line in lines if len(line) > LONGEST), ""):
        return f"a line of {len(longest)} characters"
    if code and not any(line.startswith("fpn") for line in lines):
        return "failed without a line that says why"
    return ""


def _fault_of_files(case: Case, code: int, before: State, after: State) -> str:
    """What is wrong with the files that a command left; "" if nothing."""
    if changed := [path for path in before if before[path] is not None and after.get(path) != before[path]]:
        return f"changed its input {Path(changed[0]).name}"
    new = [Path(path) for path in after.keys() - before.keys() if after[path] is not None]
    if partial := next((path for path in new if any(PARTIAL.search(part) for part in path.parts)), None):
        return f"left behind: {partial.name}"
    if code == 2 and new and case.words[0] != "train":
        return f"failed and wrote {new[0].name}"
    return ""


def run_cases(cases: Iterable[Case], originals: Path) -> Iterator[Verdict]:
    """Runs the cases one after the other, a few of them in each process."""
    cases = iter(cases)
    while batch := list(islice(cases, EACH)):
        while batch:
            for verdict in _in_process(batch, originals):
                batch = batch[1:]
                yield verdict


def _in_process(cases: list[Case], originals: Path) -> Iterator[Verdict]:
    """The verdicts of the cases in one forked process, up to the first that ends it."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = os.fork()
    if not process:
        _answer_all(cases, originals, theirs)
    theirs.close()
    for case in cases:
        try:
            if not ours.poll(SECONDS + 10):  # a library of C that never comes back
                os.killpg(process, signal.SIGKILL)
                yield Verdict(case, -signal.SIGKILL, SECONDS, f"hangs: over {SECONDS:.0f} s")
                break
            yield ours.recv()
        except EOFError:
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            yield Verdict(case, code, 0.0, f"ended its process: {code}")
            return
    os.waitpid(process, 0)


def _answer_all(cases: list[Case], originals: Path, pipe: Connection) -> NoReturn:
    """In the forked process: runs the cases and sends their verdicts."""
    code = 1
    try:
        os.setsid()
        import torch

        torch.set_num_threads(1)  # torch makes its pool anew after a fork, and must not do so in several threads
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
            work = Path(name, "box", "work")
            copy_tree(originals, work)
            for case in cases:
                pipe.send(run_case(case, originals, work))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> int:
    """Reads the arguments, runs the cases, prints faults as they come and a table in the end; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000, help="how many")
    parser.add_argument("--first", type=int, default=1000, help="the first seed; the tests run those below 1000")
    parser.add_argument("--processes", type=int, default=2, help="cases at a time")
    parser.add_argument("--minutes", type=float, help="start no case after so many minutes")
    parser.add_argument("--only", default="", choices=["", *FAMILIES, "flags"], help="one family")
    parser.add_argument("--verbose", action="store_true", help="print what every case printed")
    args = parser.parse_args()
    from fuzz.originals import make_originals

    folder = Path(tempfile.mkdtemp(prefix="fuzz-originals-"))
    try:
        make_originals(folder / "files")
        preload()
        workers = [
            os.fork() or _work(folder, args.first + i, args.first + args.cases, args.processes, args)
            for i in range(args.processes)
        ]
        for worker in workers:
            os.waitpid(worker, 0)
        return _tell(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _work(folder: Path, first: int, last: int, step: int, args: argparse.Namespace) -> NoReturn:
    """One process's share; its verdicts go into a file."""
    until = time.monotonic() + 60 * (args.minutes or 1e6)
    cases = (make_case(seed, folder / "files") for seed in range(first, last, step) if time.monotonic() < until)
    cases = (case for case in cases if not args.only or case.family == args.only)
    with (folder / f"verdicts-{first}").open("w") as sink:
        for verdict in run_cases(cases, folder / "files"):
            fault = " ".join(verdict.fault.split())
            sink.write(f"{verdict.case.family}\t{verdict.code}\t{verdict.seconds:.2f}\t{fault}\n")
            if verdict.fault or args.verbose:
                words = " ".join(map(ascii, verdict.case.words))
                print(f"{verdict.case.name}: {fault or verdict.code}: fpn {words}"[:600])
                tail = verdict.printed[-1500:] if fault or args.verbose else ""
                print("\n".join(f"    {ascii(line)[1:-1]}" for line in tail.splitlines()), flush=True)
    os._exit(0)


def _tell(folder: Path) -> int:
    rows = [line.split("\t") for path in folder.glob("verdicts-*") for line in path.read_text().splitlines()]
    print(f"{'family':<16}{'cases':>7}{'exit 0':>8}{'1':>6}{'2':>7}{'faults':>8}{'longest':>9}")
    for family in dict.fromkeys([row[0] for row in sorted(rows)]):
        mine = [row for row in rows if row[0] == family]
        codes, faults = Counter(row[1] for row in mine), sum(bool(row[3]) for row in mine)
        longest = max(float(row[2]) for row in mine)
        counts = "".join(f"{codes[c]:>{w}}" for c, w in (("0", 8), ("1", 6), ("2", 7)))
        print(f"{family:<16}{len(mine):>7}{counts}{faults:>8}{longest:>7.1f} s")
    total = sum(bool(row[3]) for row in rows)
    print(f"{len(rows)} cases, {total} faults")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
