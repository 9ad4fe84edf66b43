"""The peer beside ours: segmentation_models_pytorch's FPN trained on a config's data, and the cost of a training step.

    python benchmarks/peer.py --config configs/camvid.yaml               the peer's whole training; IoU on val and test
    python benchmarks/peer.py --config configs/camvid.yaml --ratio 30    30 steps of each, in turn, in one process

TORCHFPN_DATA names the folder of the datasets, --weights a file of MobileNetV2's weights that both begin with.
Both see the same samples, crops, batch size and number of steps, in bf16 and channels_last. The peer's recipe is
cross-entropy with the square root of median-frequency weights, AdamW (1e-3, weight decay 0.01), poly 0.9, no averages.
Ours is exactly what `fpn train` runs in a step, averages and checks for NaN included.
"""

import argparse
import statistics
import time

import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file
from torch import nn

from torchfpn.config.parsing import read_config
from torchfpn.criteria.semantic import criterion
from torchfpn.data.datasets import SemanticDataset
from torchfpn.data.statistics import class_counts, class_weights
from torchfpn.metrics.confusion import ConfusionMatrix
from torchfpn.nn.layers import Normalize
from torchfpn.ops.resize import crop, pad_to_multiple
from torchfpn.train.datamodule import build, open_dataset
from torchfpn.train.loader import TrainLoader
from torchfpn.train.loop import TrainingStep
from torchfpn.train.optim import Ema, optimizer


class Peer:
    """smp's FPN with its optimiser and schedule, one step at a time."""

    def __init__(self, parts, config, steps):
        bands, classes = len(parts.task.recipe.bands), len(parts.task.classes)
        self.net = smp.FPN("mobilenet_v2", encoder_weights=None, in_channels=3, classes=classes)
        if config.model.pretrained:
            self.net.encoder.load_state_dict(load_file(config.model.pretrained))  # strict; it drops the classifier
        if bands != 3:
            self.net.encoder.set_in_channels(bands, pretrained=True)  # smp's own way of keeping the filters
        self.net.to(memory_format=torch.channels_last)
        self.normalize = Normalize(parts.task.recipe.scaling)
        weights = class_weights(class_counts(parts.dataset, "train"), method="sqrt-median-frequency")
        self.criterion = criterion("ce", weights)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), 1e-3, weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda t: max(0.0, 1 - t / steps) ** 0.9)

    def step(self, batch):
        self.net.train()
        images, valid = self.normalize(batch.images)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.net(images.contiguous(memory_format=torch.channels_last))
        loss = self.criterion(logits, torch.where(valid, batch.targets, 255))["ce"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()

    @torch.inference_mode()
    def evaluate(self, samples, classes):
        self.net.eval()
        confusion = ConfusionMatrix(classes)
        for i in range(len(samples)):
            sample = samples[i]
            images, _ = self.normalize(sample.image[None])
            with torch.autocast("cpu", torch.bfloat16):
                logits = self.net(pad_to_multiple(images, 32).contiguous(memory_format=torch.channels_last))
            confusion.update(crop(logits, sample.target.shape)[0].argmax(0), sample.target)
        return confusion


class Ours:
    """One step of `fpn train`, without the loop around it."""

    def __init__(self, parts, config):
        self.task = parts.task.train()
        self.ema = Ema(self.task.model, config.ema) if config.ema else None
        made = optimizer(self.task, config.optimizer, config.lr)
        self.stepper = TrainingStep(self.task, made, pass_size=config.batch_size, clip=config.clip_grad)

    def step(self, batch):
        batch = type(batch)(
            batch.images.contiguous(memory_format=torch.channels_last), batch.sizes, batch.targets, batch.names
        )
        with torch.autocast("cpu", torch.bfloat16):
            self.stepper.step(batch, 0)
        if self.ema is not None:
            self.ema.update()


def batches(loader, epochs):
    for epoch in range(epochs):
        loader.begin(epoch)
        yield from loader


def ratio(parts, config, loader, rounds):
    ours, peer = Ours(parts, config), Peer(parts, config, rounds + 3)
    stream = batches(loader, 10**6)
    for _ in range(3):
        batch = next(stream)
        ours.step(batch), peer.step(batch)
    times = {"ours": [], "peer": []}
    for i in range(rounds):
        batch = next(stream)
        for name, model in (("ours", ours), ("peer", peer))[:: 1 if i % 2 else -1]:
            start = time.perf_counter()
            model.step(batch)
            times[name].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(times["ours"], times["peer"], strict=True)]
    for name, model in (("ours", ours.task.model), ("peer", peer.net)):
        weights = sum(p.numel() for p in model.parameters()) / 1e6
        middle, best = statistics.median(times[name]), min(times[name])
        print(f"{name}  median {middle:.3f} s a step, best {best:.3f} s, {weights:.2f} M weights")
    middle = statistics.median(ratios)
    print(f"ratio ours / peer  median {middle:.3f}, {min(ratios):.3f} to {max(ratios):.3f}, {rounds} rounds")


def train(parts, config, loader):
    peer = Peer(parts, config, config.max_epochs * loader.steps)
    start, spent = time.perf_counter(), 0.0
    for done, batch in enumerate(batches(loader, config.max_epochs), 1):
        peer.step(batch)
        if done % loader.steps == 0:
            spent = time.perf_counter() - start
            print(f"epoch {done // loader.steps}  {spent:.0f} s", flush=True)
    print(f"trained in {spent:.0f} s")
    for split in [name for name in parts.dataset.splits if name != "train"]:
        confusion = peer.evaluate(SemanticDataset(parts.dataset, split), len(parts.task.classes))
        row = ", ".join(f"{n} {v:.3f}" for n, v in zip(parts.task.classes, confusion.iou().tolist(), strict=True))
        print(f"{split}  mIoU {confusion.miou():.4f}  ({row})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--ratio", type=int, default=0, help="compare so many steps instead of training the peer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", help="a .safetensors file of the backbone; without it both begin from scratch")
    args = parser.parse_args()
    weights = args.weights or "false"
    config = read_config(["--config", args.config, "--seed", str(args.seed), "--model.pretrained", weights]).config
    parts = build(config, open_dataset(config))
    steps = config.steps_per_epoch or round(len(parts.train) / config.batch_size)
    loader = TrainLoader(parts.train, step_size=config.batch_size, steps=steps, seed=config.seed, workers=1)
    print(
        f"torch {torch.__version__}, smp {smp.__version__}, {torch.get_num_threads()} threads, {steps} steps an epoch"
    )
    nn.Module.train(parts.task)
    ratio(parts, config, loader, args.ratio) if args.ratio else train(parts, config, loader)


if __name__ == "__main__":
    main()
