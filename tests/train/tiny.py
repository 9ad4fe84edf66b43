"""A training that takes a second: eight small images, a network of a few thousand weights, the command in process."""

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from torchfpn.cli.main import main

SETTINGS = """
dataset: data
max_epochs: 2
steps_per_epoch: 3
batch_size: 4
num_workers: 0
accelerator: cpu
model: {backbone: test_resnet, channels: 8, head_channels: 8, dropout: 0.2}
data: {crop: 32, scale: [0.5, 2.0], brightness: 0.2, noise: 0.1}
schedule: {warmup: 2}
"""


def make_data(folder: Path) -> Path:
    """Eight training and two validation images of three classes, 32 x 32 to 48 x 40, and their dataset.yaml."""
    numbers = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True)
        for i in range(count):
            height, width = 32 + 8 * (i % 2), 48 - 8 * (i % 3)
            labels = np.zeros((height, width), np.uint8)
            labels[height // 3 :, 3 * i :] = 1
            labels[-8:, : 10 + i] = 2
            image = (80 * labels[..., None] + numbers.integers(0, 60, (height, width, 3))).astype(np.uint8)
            Image.fromarray(image).save(folder / split / "images" / f"{i}.png")
            Image.fromarray(labels).save(folder / split / "labels" / f"{i}.png")
    splits = "\n".join(f"  {s}: {{images: {s}/images, labels: {s}/labels}}" for s in ("train", "val"))
    (folder / "dataset.yaml").write_text(f"task: semantic\nclasses: [ground, roof, road]\nsplits:\n{splits}\n")
    return folder


def train(*flags: str) -> int:
    """`fpn train --config small.yaml` with more flags, in the current folder; the exit code."""
    return main(["train", "--config", "small.yaml", *flags])


def rows(run: Path) -> list[dict[str, str]]:
    """metrics.csv of a run folder."""
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def checkpoint(run: Path, name: str = "last.ckpt") -> dict:
    """A checkpoint of a run folder."""
    return torch.load(run / "checkpoints" / name, weights_only=True)


def differences(one: object, other: object, name: str = "") -> list[str]:
    """Names of what is not the same to the last bit in two nested states."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [d for key in one for d in differences(one[key], other[key], f"{name}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [d for i, (a, b) in enumerate(zip(one, other, strict=True)) for d in differences(a, b, f"{name}/{i}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [name]
    return [] if repr(one) == repr(other) else [f"{name}: {one} {other}"]


def same_training(one: Path, other: Path) -> list[str]:
    """What differs between two run folders; nothing if they are equal to the last bit."""
    files = ("metrics.csv", "validation.json")
    differing = [name for name in files if (one / name).read_bytes() != (other / name).read_bytes()]
    models = [load_file(run / "model.safetensors") for run in (one, other)]
    return differing + differences(*models) + differences(checkpoint(one), checkpoint(other))
