"""Does a training that is killed and resumed end like one that nobody touched? SIGKILLs at random moments, bit by bit.

    python benchmarks/kills.py --kills 10 [--workers 1] [--seed 0]

A small training runs once undisturbed. Then the same is killed at random moments, resumed with the same command each
time, and where it comes to its end, compared: weights, averaged weights, optimiser state, metrics.csv and the model
file must be equal to the last bit. Prints a line per kill; exit code 1 if anything differed.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

PRELOAD = [
    "torchfpn.train.fit",
    "torch.utils.tensorboard",
    "timm",
]  # imported once, every training is forked from there
SETTINGS = """
dataset: data
max_epochs: 6
steps_per_epoch: 5
batch_size: 4
accelerator: cpu
model: {backbone: test_resnet, channels: 16, head_channels: 16, dropout: 0.2}
data: {crop: 32, scale: [0.5, 2.0], brightness: 0.2, noise: 0.1}
optimizer: {weight_decay: 0.05}
schedule: {warmup: 4}
"""


def main():
    """Reads the arguments; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="how many SIGKILLs")
    parser.add_argument("--workers", type=int, default=0, help="loader processes of the training")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["OMP_NUM_THREADS"] = "1"  # so small a model is not faster on two, least of all on a busy machine
        make_dataset(Path("data"))
        Path("small.yaml").write_text(f"num_workers: {args.workers}\n{SETTINGS}")
        return kill(args.kills, random.Random(args.seed))


def kill(kills, moments):
    """Runs the undisturbed training and the disturbed ones; the exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    start(context, "warm", ["--fast_dev_run"]).join()  # the preloading itself
    begun = time.monotonic()
    undisturbed = start(context, "undisturbed")
    undisturbed.join()
    duration = time.monotonic() - begun
    assert undisturbed.exitcode == 0, "the undisturbed training failed"
    print(f"undisturbed: {duration:.1f} s", flush=True)
    done = run = failures = 0
    while True:
        run += 1
        stopped, ended = disturbed(context, f"run{run}", kills - done, duration, moments, done)
        done += stopped
        if ended:
            differences = compare(Path("runs/undisturbed"), Path(f"runs/run{run}"))
            failures += bool(differences)
            print(f"run{run}: {stopped} kills, " + ("; ".join(differences) or "equal to the last bit"), flush=True)
        if done >= kills:
            return 1 if failures else 0


def disturbed(context, name, kills, duration, moments, before):
    """(kills, whether it came to its end) of one training; its last start is left in peace."""
    for number in range(kills + 1):
        process = start(context, name, ["--resume"])
        wait = None if number == kills else moments.uniform(0.05, 0.6) * duration
        process.join(wait)
        if not process.is_alive():
            assert process.exitcode == 0, f"{name} failed with {process.exitcode}"
            return number, True
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        files = sorted(
            p.name for p in Path("runs", name).rglob("*") if p.suffix in (".ckpt", ".part") or ".part" in p.name
        )
        print(
            f"kill {before + number + 1}: {name} after {wait:.2f} s; {', '.join(files) or 'no checkpoint yet'}",
            flush=True,
        )
    return kills, True


def start(context, name, flags=()):
    """A training of that name in a process of its own."""
    process = context.Process(target=train, args=(name, list(flags)))
    process.start()
    return process


def train(name, flags):
    """In the process that is killed: the command, with its output in a file."""
    from torchfpn.cli.main import main

    multiprocessing.set_start_method("fork", force=True)  # for the loader processes, as in a training of its own
    with Path(f"{name}.log").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        sys.exit(main(["train", "--config", "small.yaml", "--name", name, *flags]))


def compare(one, other):
    """What differs between two run folders."""
    import torch
    from safetensors.torch import load_file

    files = ("metrics.csv", "validation.json")
    differing = [name for name in files if (one / name).read_bytes() != (other / name).read_bytes()]
    models = [load_file(run / "model.safetensors") for run in (one, other)]
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, other)]
    return differing + list(unequal(*models, "model.safetensors")) + list(unequal(*states, "last.ckpt"))


def unequal(one, other, name):
    """Names of the tensors and numbers that are not the same in two nested states."""
    import torch

    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from unequal(one[key], other[key], f"{name}/{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from unequal(a, b, f"{name}/{i}")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if not torch.equal(one, other):
            yield name
    elif repr(one) != repr(other):
        yield name


def make_dataset(folder):
    """Eight training and two validation images of three classes."""
    import numpy as np
    from PIL import Image

    numbers = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True)
        for i in range(count):
            height, width = 32 + 8 * (i % 3), 48 - 8 * (i % 2)
            labels = np.zeros((height, width), np.uint8)
            labels[height // 3 :, 3 * i :] = 1
            labels[-8:, : 10 + i] = 2
            image = (80 * labels[..., None] + numbers.integers(0, 60, (height, width, 3))).astype(np.uint8)
            Image.fromarray(image).save(folder / split / "images" / f"{i}.png")
            Image.fromarray(labels).save(folder / split / "labels" / f"{i}.png")
    splits = "\n".join(f"  {s}: {{images: {s}/images, labels: {s}/labels}}" for s in ("train", "val"))
    (folder / "dataset.yaml").write_text(f"task: semantic\nclasses: [ground, roof, road]\nsplits:\n{splits}\n")


if __name__ == "__main__":
    sys.exit(main())
