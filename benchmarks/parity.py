"""Sweeps over the networks of smp, timm and torchvision: what equals the original, what is refused.

  python benchmarks/parity.py smp        every encoder of segmentation_models_pytorch, converted and compared
  python benchmarks/parity.py timm       of each family of timm a small network: sizes of maps, added bands
  python benchmarks/parity.py detectors  torchvision's Faster R-CNN on ResNets of every depth, frozen and live norms

Weights are random, statistics of batch norm too. Each line is a row of the tables of docs/parity.md: the name, what was
found, the largest difference over the largest value of the original. `--largest` leaves out networks of more millions
of parameters, `--only` takes names that contain a word.
"""

import argparse
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from io import StringIO

import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.encoders import get_encoder_names
from timm.models import model_entrypoint
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

import torchfpn
from torchfpn.errors import FPNError

EQUAL = 1e-4  # of the largest value: sums in another order
ALIASES = (
    *(f"timm-mobilenetv3_{kind}" for kind in ("large_075", "large_100", "large_minimal_100", "small_075", "small_100",
                                              "small_minimal_100")),
    "timm-regnetx_002", "timm-regnety_002", "timm-res2net50_26w_4s", "timm-resnest14d", "timm-gernet_s",
)  # fmt: skip
DEPTHS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "wide_resnet50_2")
NORMS = {"frozen, eps 1e-5": (1e-5, "backbone"), "frozen, eps 0": (0.0, "coco_v1"), "live": (None, None)}
SMALL = (
    *("zepto", "atto", "femto", "pico", "nano", "xxtiny", "xtiny", "xxs", "xs", "tiny", "t0", "s0", "b0", "a0", "mini"),
    *("small", "n", "t", "s", "m0", "l0", "050", "002", "18", "26", "34", "28", "33", "50", "base"),
)  # of names, the smallest first
SIZES = ((96, 160), (64, 224))  # odd and even sides of C5


def drawn(model: nn.Module) -> nn.Module:
    """The model in eval mode, its normalisations with statistics that are not those of nothing."""
    for module in model.modules():
        if hasattr(module, "running_var") and module.running_var is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-30))


def said(name: str, look: Callable[[], str]) -> str:
    """What `look` finds, or why it is refused."""
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings(action="ignore"), torch.inference_mode(), redirect_stderr(StringIO()):
            return look()
    except FPNError as error:
        return f"refused: {error}"
    except Exception as error:  # the sweep goes on
        return f"FAILS: {type(error).__name__}: {error}"[:200]


def verdict(difference: float) -> str:
    return f"{'equal' if difference <= EQUAL else 'DIFFERS'}, {difference:.1e}"


# -- smp ---------------------------------------------------------------------------------------------------------------
def of_smp(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    for name in (*get_encoder_names(), *ALIASES, *(f"tu-{name}" for name in smallest(letters=False))):
        if args.only in name:
            yield name, said(name, lambda name=name: _encoder(name, args.largest))


def _encoder(name: str, largest: float) -> str:
    try:
        with torch.device("meta"):
            size = sum(p.numel() for p in smp.FPN(name, encoder_weights=None, classes=4).parameters()) / 1e6
    except Exception:
        size = 0.0
    if size > largest:
        return f"not compared: {size:.0f} million parameters"
    try:
        theirs = drawn(smp.FPN(name, encoder_weights=None, classes=4))
        images = torch.randn(1, 3, 64, 128)
        wanted = theirs(images)
    except Exception as error:
        return f"smp cannot: {type(error).__name__}: {' '.join(str(error).split())[:80]}"
    task = torchfpn.convert(theirs.state_dict(), backbone=name if name.startswith(("tu-", "timm-")) else None)
    return verdict(apart(task.model(images), wanted))


# -- timm --------------------------------------------------------------------------------------------------------------
def smallest(only: str = "", *, letters: bool = True) -> list[str]:
    """Of each family of timm a small network, by its name: of each module, or of each kind of names in it."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in timm.list_models():
        kind = re.match(r"[a-z]+(?:v\d)?", name) if letters else None
        groups.setdefault((model_entrypoint(name).__module__, kind[0] if kind else ""), []).append(name)
    found = sorted(min(names, key=_size_by_name) for names in groups.values())
    return [name for name in found if only in name]


def _size_by_name(name: str) -> tuple[int, int, str]:
    place = next((i for i, word in enumerate(SMALL) if re.search(rf"(?<![a-z]){word}(?![a-z0-9])", name)), len(SMALL))
    return place, len(name), name


def of_timm(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    for name in smallest(args.only):
        yield name, said(name, lambda name=name: _network(name, args.largest))


def _network(name: str, largest: float) -> str:
    plain = torchfpn.backbone(name).eval()
    size = sum(p.numel() for p in plain.parameters()) / 1e6
    if size > largest:
        return f"not looked at: {size:.0f} million parameters"
    wrong = []
    coarsest = max(level.stride for level in plain.levels)  # models pad images to multiples of it
    for size in SIZES:
        height, width = (-(-side // coarsest) * coarsest for side in size)
        maps = plain(torch.randn(1, 3, height, width))
        for x, level in zip(maps, plain.levels, strict=True):
            grid = -(-height // level.stride), -(-width // level.stride)
            if tuple(x.shape) != (1, level.channels, *grid):
                wrong.append(f"{height} x {width} at stride {level.stride}: {list(x.shape[1:])}")
    sizes = f"WRONG SIZES {'; '.join(wrong[:2])}" if wrong else "maps of H / stride"
    return f"{sizes}; {said(name, lambda: _widened(name))}"


def _widened(name: str) -> str:
    """Five bands of which two start at zero, against three, with the same weights."""
    bodies = []
    for options in ({}, {"in_channels": 5, "band_init": "zero"}):
        torch.manual_seed(0)
        bodies.append(torchfpn.backbone(name, **options).eval().double())  # float32 rounds sums of five bands otherwise
    side = max(level.stride for level in bodies[0].levels)
    images = torch.randn(1, 5, -(-64 // side) * side, -(-96 // side) * side, dtype=torch.float64)
    maps = zip(bodies[1](images), bodies[0](images[:, :3]), strict=True)
    return "added bands: " + verdict(max(apart(one, other) for one, other in maps))


# -- torchvision's detectors -------------------------------------------------------------------------------------------
def of_detectors(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    for depth in DEPTHS:
        for kind in NORMS:
            if args.only in depth:
                name = f"{depth}, {kind}"
                yield name, said(name, lambda depth=depth, kind=kind: _detector(depth, *NORMS[kind]))


def _detector(depth: str, eps: float | None, variant: str | None) -> str:
    norm = nn.BatchNorm2d if eps is None else FrozenBatchNorm2d
    body = resnet_fpn_backbone(backbone_name=depth, weights=None, norm_layer=norm, trainable_layers=5)
    theirs = drawn(FasterRCNN(body, num_classes=3))
    for module in theirs.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = eps
    theirs.backbone.body.bn1.running_var.mul_(1e-4)  # so small that the epsilon matters
    images = torch.randn(1, 3, 64, 96)
    wanted = theirs.backbone(images).values()
    words = []
    for given in dict.fromkeys((None, variant)):
        made = torchfpn.convert(theirs.state_dict(), variant=given)
        difference = max(apart(a, b) for a, b in zip(made.model.maps(images), wanted, strict=True))
        words.append(f"variant {given or 'not said'}: {verdict(difference)}")
    return "; ".join(words)


SWEEPS = {"smp": of_smp, "timm": of_timm, "detectors": of_detectors}


def main() -> int:
    """Prints one sweep as it goes on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", choices=SWEEPS)
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument("--largest", type=float, default=120.0, help="millions of parameters (default: 120)")
    args = parser.parse_args()
    for name, row in SWEEPS[args.sweep](args):
        print(f"| {name} | {row} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
