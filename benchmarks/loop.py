"""What does the training loop cost over the bare step? Both in turns, in one process, on the same batches.

    python benchmarks/loop.py [--steps 24] [--size 256 320] [--batch 8] [--workers 0]

bare: forward, loss, backward, optimiser step, nothing else. loop: everything between two batches of `fpn train`, which
is the step with gradient check, averaged weights and Lightning around it; loading is counted apart. Medians.
"""

import argparse
import copy
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from torchfpn.config.settings import DataConfig, LossConfig, ModelConfig, TrainConfig
from torchfpn.train import loader
from torchfpn.train.fit import fit
from torchfpn.train.loop import TrainingStep

WARM = 3  # steps at the beginning that do not count


def main():
    """Reads the arguments, trains, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--size", type=int, nargs=2, default=[256, 320])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--backbone", default="torchvision/mobilenet_v2")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_dataset(Path("data"), args.size)
        times = train(args)
    bare, loop, load = (statistics.median(times[name][WARM:]) for name in ("bare", "loop", "load"))
    print(f"bare step       {1000 * bare:8.1f} ms")
    print(f"loop, all in it {1000 * loop:8.1f} ms   {loop / bare:.3f} of the bare step")
    print(f"waiting for data{1000 * load:8.1f} ms   {load / bare:.3f} with {args.workers} loader processes")


def train(args):
    """Seconds of every bare step, of every loop around a step, and of every wait for data."""
    times = {"bare": [], "loop": [], "load": []}
    bare = Bare(times["bare"])
    clock = {"free": None}  # when the loop last went on after something that is not its own
    step, checked = TrainingStep.step, loader._checked

    def stepped(self, batch, key):
        result = step(self, batch, key)
        begun = time.perf_counter()
        bare(self.task, batch)
        clock["free"] += time.perf_counter() - begun
        return result

    def fetched(source):
        batches = iter(checked(source))
        while True:
            begun = time.perf_counter()
            if clock["free"] is not None:
                times["loop"].append(begun - clock["free"])
            batch = next(batches, None)
            clock["free"] = time.perf_counter()
            times["load"].append(clock["free"] - begun)
            if batch is None:
                return
            yield batch

    TrainingStep.step, loader._checked = stepped, fetched
    fit(
        TrainConfig(
            dataset="data",
            name="loop",
            accelerator="cpu",
            max_epochs=1,
            steps_per_epoch=args.steps + WARM,
            batch_size=args.batch,
            num_workers=args.workers,
            limit_val_batches=0,
            keep="last",
            model=ModelConfig(backbone=args.backbone, channels=128),
            data=DataConfig(crop=tuple(args.size), scale=(0.5, 2.0), brightness=0.2, contrast=0.2, cache=True),
            loss=LossConfig(class_weights="sqrt-median-frequency"),
        )
    )
    return times


class Bare:
    """The step that anybody would write, on a copy of the task."""

    def __init__(self, times):
        self.times, self.task = times, None

    def __call__(self, task, batch):
        """One step, timed."""
        if self.task is None:
            self.task = copy.deepcopy(task)
            self.optimizer = torch.optim.AdamW(self.task.parameters(), lr=1e-4, fused=True)
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.is_autocast_enabled("cpu"), cache_enabled=False):
            loss = sum(self.task.losses(batch).values())
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.times.append(time.perf_counter() - begun)


def make_dataset(folder, size):
    """Sixteen images of noise over blocks of eleven classes, a little larger than the crop."""
    numbers = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / "train" / kind).mkdir(parents=True)
    for i in range(16):
        labels = np.kron(numbers.integers(0, 11, (9, 11)), np.ones((size[0] // 6, size[1] // 7))).astype(np.uint8)
        image = (20 * labels[..., None] + numbers.integers(0, 50, (*labels.shape, 3))).astype(np.uint8)
        Image.fromarray(image).save(folder / "train" / "images" / f"{i}.png")
        Image.fromarray(labels).save(folder / "train" / "labels" / f"{i}.png")
    classes = ", ".join(f"class{i}" for i in range(11))
    text = f"task: semantic\nclasses: [{classes}]\nsplits:\n  train: {{images: train/images, labels: train/labels}}\n"
    (folder / "dataset.yaml").write_text(text)


if __name__ == "__main__":
    main()
