"""Is a model file whole or absent when its writer is killed? SIGKILLs of `task.save` and of `fpn convert`.

    python benchmarks/kills_save.py --kills 25 [--seed 0]

Every second kill falls at a random moment, the others as soon as a part-file is seen. After each the target must be
absent, or equal to the bytes of an undisturbed writer; what the killed one left must be gone after the next. Prints a
line per kill; exit code 1 if anything else was found.
"""

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

SOURCE, TARGET = "theirs.pth", "model.safetensors"


def main():
    """Reads the arguments; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25, help="how many SIGKILLs")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    import torch
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    import torchfpn

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        detector = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
        torch.save(detector.state_dict(), SOURCE)
        task = torchfpn.create_task("semantic", backbone="resnet50", classes=["land", "water"])
        writers = {"save": lambda: task.save(TARGET), "convert": convert}
        return kill(writers, args.kills, random.Random(args.seed))


def convert():
    """The command; what it prints is of no interest here."""
    from torchfpn.cli.main import main

    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        assert main(["convert", SOURCE, TARGET, "--overwrite"]) == 0


def kill(writers, kills, moments):
    """Kills the writers in turn; the exit code."""
    whole, seconds = {}, {}
    for name, write in writers.items():
        Path(name).mkdir()
        begun = time.monotonic()
        assert os.waitpid(start(write, Path(name)), 0)[1] == 0, f"{name} failed undisturbed"
        seconds[name] = time.monotonic() - begun
        whole[name] = Path(name, TARGET).read_bytes()
    faults = 0
    for number in range(kills):
        name = list(writers)[number % 2]
        folder = Path(name)
        (folder / TARGET).unlink(missing_ok=True)
        process, wait = start(writers[name], folder), moments.uniform(0, seconds[name])
        moment = f"after {wait:.2f} s" if number % 4 < 2 else "while it wrote"
        wait_until(process, (lambda: False) if number % 4 < 2 else (lambda f=folder: parts(f)), wait)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        there, left = (folder / TARGET).exists(), len(parts(folder))
        fault = "a damaged file" if there and (folder / TARGET).read_bytes() != whole[name] else ""
        assert os.waitpid(start(writers[name], folder), 0)[1] == 0, f"{name} failed after a kill"
        if extra := sorted({path.name for path in folder.iterdir()} - {TARGET, SOURCE}):
            fault = fault or f"left behind: {', '.join(extra)}"
        if (folder / TARGET).read_bytes() != whole[name]:
            fault = fault or "the next writer made another file"
        faults += bool(fault)
        state = "whole" if there else "absent"
        print(f"kill {number + 1}: {name} {moment}; {state}, {left} part-files; {fault or 'swept'}", flush=True)
    print(f"{kills} kills, {faults} faults")
    return 1 if faults else 0


def parts(folder):
    """Part-files in a folder."""
    return [path for path in folder.iterdir() if ".part" in path.name]


def wait_until(process, seen, seconds):
    """Until `seen` holds or the process has ended; at a moment, for so many seconds, where nothing can be seen."""
    until = time.monotonic() + seconds
    while not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if seen() or (seen() is False and time.monotonic() > until):
            return
        time.sleep(0.0005)


def start(write, folder):
    """A process of its own that writes into `folder`; its id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        source = Path(SOURCE).absolute()
        os.chdir(folder)
        if not Path(SOURCE).exists():
            os.link(source, SOURCE)
        write()
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
