"""What FPN-R50 costs beside segmentation_models_pytorch's: parameters, GFLOP, a training step, an inference.

    python benchmarks/cost.py                  our default model and smp's, each as it comes
    python benchmarks/cost.py --same-graph     the same weights in the same graph, with the goals of the project

All candidates run in one process, in turns that change direction every round, after a warm-up; a ratio is the median of
the ratios of each round. Trust ratios: absolute times carry what else the machine was doing.
"""

import argparse
import datetime
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from smp_weights import same_graph
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import torchfpn
from torchfpn.criteria.losses import CrossEntropy

Work = Callable[[], object]
Times = dict[str, list[float]]
CLASSES = 21


def take_turns(work: dict[str, Work], rounds: int) -> Times:
    """Seconds of each piece of work in each round."""
    times: Times = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name in list(work)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            work[name]()
            if turn:  # the first turn warms up
                times[name].append(time.perf_counter() - start)
    return times


def ratio(times: Times, name: str, peer: str) -> float:
    """Median over the rounds of time over time of the peer."""
    return median(a / b for a, b in zip(times[name], times[peer], strict=True))


def training_step(model: nn.Module, images: Tensor, loss: nn.Module | Callable, *, fast: bool = False) -> Work:
    """Forward, loss, backward and an SGD step with momentum; fast: bf16 autocast and channels_last."""
    model.train()
    if fast:
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    targets = torch.randint(0, CLASSES, (len(images), *images.shape[-2:]))

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            value = loss(model(images), targets)
        value.backward()
        optimizer.step()

    return step


def inference(model: nn.Module, image: Tensor, *, last: bool = False, bf16: bool = False) -> Work:
    """A forward pass in eval mode; last: channels_last; bf16: autocast."""
    if last:
        image = image.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run() -> Tensor:
        model.train(False)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(image)

    return run


def gflop(model: nn.Module, image: Tensor) -> float:
    """GFLOP of a forward pass, 2 for a multiply-add."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.eval()(image)
    return counter.get_total_flops() / 1e9


def smp_fpn() -> nn.Module:
    """The peer."""
    return smp.FPN("resnet50", encoder_weights=None, classes=CLASSES)


def as_they_come(rounds: int, size: int) -> list[list[str]]:
    """Both models with their own defaults, fp32, NCHW; and ours without the smoothing convolutions, as smp's."""
    models = {
        "smp FPN": smp_fpn(),
        "torchfpn": torchfpn.create_model(backbone="resnet50", num_classes=CLASSES),
        "torchfpn smooth=False": torchfpn.create_model(backbone="resnet50", num_classes=CLASSES, smooth=False),
    }
    one, two = torch.randn(1, 3, size, size), torch.randn(2, 3, size, size)
    losses = {name: F.cross_entropy if name.startswith("smp") else CrossEntropy() for name in models}
    infer = take_turns({name: inference(model, one) for name, model in models.items()}, rounds)
    train = take_turns({name: training_step(model, two, losses[name]) for name, model in models.items()}, rounds)
    rows = [["model", "params M", "GFLOP", "train s", "ratio", "infer s", "ratio"]]
    for name, model in models.items():
        row = [sum(p.numel() for p in model.parameters()) / 1e6, gflop(model, one)]
        for times in (train, infer):
            row += [median(times[name]), ratio(times, name, "smp FPN")]
        rows.append([name, *(f"{value:.3f}" for value in row)])
    return rows


def on_one_graph(rounds: int, size: int) -> list[list[str]]:
    """Our ways of running smp's graph with smp's weights, over smp's eager fp32."""
    theirs = smp_fpn()
    one, two = torch.randn(1, 3, size, size), torch.randn(2, 3, size, size)
    ours = same_graph(theirs, backbone="resnet50", num_classes=CLASSES, dropout=0.2)
    last = same_graph(theirs, backbone="resnet50", num_classes=CLASSES).to(memory_format=torch.channels_last)
    check_equal(last, theirs, one)
    infer = take_turns(
        {
            "smp": inference(theirs, one),
            "fp32": inference(last, one, last=True),
            "bf16": inference(last, one, last=True, bf16=True),
        },
        rounds,
    )
    train = take_turns(
        {
            "smp": training_step(theirs, two, F.cross_entropy),
            "fast": training_step(ours, two, CrossEntropy(), fast=True),
        },
        rounds,
    )
    rows = [["ours over smp eager fp32", "smp s", "ours s", "ratio", "goal"]]
    for title, times, name, goal in (
        ("training step, bf16 + channels_last", train, "fast", 0.55),
        ("inference, fp32 + channels_last", infer, "fp32", 0.95),
        ("inference, bf16 + channels_last", infer, "bf16", 0.60),
    ):
        found = ratio(times, name, "smp")
        verdict = f"<= {goal:.2f} {'met' if found <= goal else 'MISSED'}"
        rows.append([title, f"{median(times['smp']):.3f}", f"{median(times[name]):.3f}", f"{found:.3f}", verdict])
    return rows


def check_equal(ours: nn.Module, theirs: nn.Module, image: Tensor) -> None:
    """Stops unless both give the same answer to 1e-5 of its largest value."""
    with torch.inference_mode():
        expected = theirs.eval()(image)
        error = (ours.eval()(image) - expected).abs().max() / expected.abs().max()
    if not error <= 1e-5:
        sys.exit(f"not the same graph: outputs differ by {error:.1e} of the largest")
    print(f"same graph: outputs differ by at most {error:.1e} of the largest\n")


def processor() -> str:
    """The CPU by name, where the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def show(rows: list[list[str]]) -> None:
    """A Markdown table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for i, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if i == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def main() -> None:
    """Prints the machine, the versions and one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=512, help="height and width of the images, a multiple of 32")
    parser.add_argument("--same-graph", action="store_true", help="the same weights in both models")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    versions = f"torch {torch.__version__}, timm {timm.__version__}, smp {smp.__version__}"
    print(f"{datetime.date.today()}, {processor()}, {options.threads} threads, Python {platform.python_version()}")
    print(f"torchfpn {torchfpn.__version__}, {versions}")
    print(
        f"ResNet-50, {options.size}x{options.size}, {CLASSES} classes, {options.rounds} rounds; training: batch 2, SGD"
    )
    show((on_one_graph if options.same_graph else as_they_come)(options.rounds, options.size))


if __name__ == "__main__":
    main()
