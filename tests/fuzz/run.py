"""Runs damaged files through the commands of `fpn`, each in a process of its own, and says what went wrong.

    python tests/fuzz/run.py --cases 20000 [--processes 2] [--first 0] [--only recipe]

A case passes if the command ends within the time allowed with exit code 0, 1 or 2, prints no traceback and no warning
of a library, says in one line what is wrong where it fails, and leaves no partial file behind. Exit code 1 if one does
not.
"""

import argparse
import contextlib
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.cases import FAMILIES, Case, make_case

SECONDS = 20.0  # a case that takes longer hangs
MEMORY = 8 * 2**30  # bytes of private memory a command may ask for; what torch maps at its start counts too
LONGEST = 4000  # characters of a line that is printed
FOREIGN = re.compile(  # lines of libraries: Python's warnings, GDAL's and libtiff's, libpng's, logging's default
    r"^\S*\.py:\d+: \w*Warning|Warning \d+:|ERROR \d+:|TIFF\w+:|libpng|Exception ignored|^(WARNING|ERROR):|CPLE_"
)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
PARTIAL = re.compile(r"\.part\b|\.part\.|^\.fpn-|\.tmp$")


@dataclass(frozen=True)
class Verdict:
    """How a case ended: the exit code (negative: the signal), seconds, and what is wrong with it ("" if nothing)."""

    case: Case
    code: int
    seconds: float
    fault: str
    printed: str


def preload() -> None:
    """Imports everything once; every case is forked from there."""
    import timm  # noqa: F401
    import torch

    torch.set_num_threads(1)
    for name in (
        "check",
        "compare",
        "convert",
        "evaluate",
        "info",
        "polygons",
        "predict",
        "rasterize",
        "train",
        "weights",
    ):
        __import__(f"torchfpn.cli.{name}")
    for name in ("lightning", "pyogrio", "rasterio", "shapely", "torchvision", "faster_coco_eval", "matplotlib"):
        __import__(name)
    with contextlib.suppress(ImportError):
        import torchfpn.train.run  # noqa: F401


def run_case(case: Case, originals: Path, seconds: float = SECONDS) -> Verdict:
    """Runs one case in a forked process, in a copy of the originals."""
    from fuzz.originals import copy_tree

    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name) / "work"
        copy_tree(originals, folder)
        for file, data in case.damaged.items():
            (folder / file).unlink()
            (folder / file).write_bytes(data)
        before = set(folder.rglob("*"))
        log = Path(name) / "log"
        begun = time.monotonic()
        code = wait_for(fork_command(case, folder, log), seconds)
        spent = time.monotonic() - begun
        printed = log.read_text(errors="replace") if log.exists() else ""
        fault = _fault(code, spent, seconds, printed, set(folder.rglob("*")) - before)
        return Verdict(case, code, spent, fault, printed)


def fork_command(case: Case, folder: Path, log: Path) -> int:
    """Starts the command of a case in `folder`; the process id. What it prints goes into `log`."""
    process = os.fork()
    if process:
        return process
    code = 70  # what a traceback ends with
    try:
        os.setsid()
        os.chdir(folder)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(handle, stream)
        sys.stdout, sys.stderr = (open(n, "w", errors="backslashreplace", closefd=False) for n in (1, 2))  # noqa: SIM115
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        from torchfpn.cli.main import main

        code = main(case.words)
    except BaseException:  # a traceback is what is looked for
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait_for(process: int, seconds: float) -> int:
    """The exit code; negative the signal it died of; a process that runs on is killed with all it has started."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return -signal.SIGALRM


def _fault(code: int, spent: float, seconds: float, printed: str, left: set[Path]) -> str:
    """What is wrong with how a case ended; "" if nothing."""
    if spent >= seconds:
        return f"hangs: over {seconds:.0f} s"
    if "Traceback (most recent call last)" in printed:
        return "traceback"
    if code < 0:
        return f"died of {signal.Signals(-code).name}"
    if code not in (0, 1, 2):
        return f"exit code {code}"
    return _fault_of_text(code, printed) or next(
        (f"left behind: {path.name}" for path in left if PARTIAL.search(path.name)), ""
    )


def _fault_of_text(code: int, printed: str) -> str:
    """What is wrong with what a command printed; "" if nothing."""
    lines = printed.splitlines()
    if foreign := next((line for line in lines if FOREIGN.search(line) and not line.startswith("fpn")), ""):
        return f"a library's words: {foreign[:160]}"
    if CONTROL.search(printed.replace("\r", "")):
        return "control characters printed"
    if longest := next((line for line in lines if len(line) > LONGEST), ""):
        return f"a line of {len(longest)} characters"
    if code and not any(line.startswith("fpn") or ": " in line for line in lines):
        return "failed without a line that says why"
    return ""


def run_cases(seeds: Iterator[int] | range, originals: Path, only: str = "") -> Iterator[Verdict]:
    """Runs the cases of the seeds one by one."""
    for seed in seeds:
        case = make_case(seed, originals)
        if not only or case.name.startswith(f"{only}:"):
            yield run_case(case, originals)


def main() -> int:
    """Reads the arguments, runs the cases, prints faults as they come and a table in the end; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=2, help="cases at a time")
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


def _work(folder: Path, first: int, last: int, step: int, args: argparse.Namespace) -> int:
    """One process's share; its verdicts go into a file."""
    with (folder / f"verdicts-{first}").open("w") as sink:
        for verdict in run_cases(range(first, last, step), folder / "files", args.only):
            family = verdict.case.name.split(":")[0]
            fault = " ".join(verdict.fault.split())
            sink.write(f"{family}\t{verdict.code}\t{verdict.seconds:.2f}\t{fault}\n")
            if verdict.fault or args.verbose:
                print(
                    f"{verdict.case.name}: {fault or verdict.code}: fpn {' '.join(map(repr, verdict.case.words))}"[:600]
                )
                tail = verdict.printed[-1500:] if fault == "traceback" or args.verbose else ""
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
