"""What a box of the drawing says, read off the module it stands for: its steps and, behind an arrow, the channels."""

import textwrap
from collections.abc import Iterable, Iterator
from itertools import groupby

from torch import nn

from torchfpn.types import Level

TIMES = "\N{MULTIPLICATION SIGN}"
CONVS = (nn.Conv2d, nn.ConvTranspose2d)
POOLS = (nn.MaxPool2d, nn.AvgPool2d)
NORMS = {nn.BatchNorm2d: "batch norm", nn.GroupNorm: "group norm", nn.LayerNorm: "layer norm"}
LINE, SHORT, LINES = 18, 14, 5  # letters in a line, in one that the channels may close; lines in a box


def describe(module: nn.Module, *before: str) -> tuple[str, ...]:
    """The steps in their order, in lines, and the channels at the end. before: steps that are no modules."""
    widths = {conv.out_channels for conv in module.modules() if isinstance(conv, CONVS)}
    lines = wrapped([*before, *_steps(module, inline=len(widths) > 1)] or ["identity"])
    if len(widths) == 1:
        end = f"→ {widths.pop()}"
        fits = len(lines[-1]) + 1 + len(end) <= SHORT
        lines = [*lines[:-1], f"{lines[-1]} {end}"] if fits else [*lines, end]
    if len(lines) > LINES:
        lines = [type(module).__name__, f"{sum(1 for _ in _leaves(module))} layers"]
    return tuple(lines)


def wrapped(words: Iterable[str]) -> list[str]:
    """Words with commas between them, broken at the commas into lines of about one length."""
    text = ", ".join(word if word.startswith("[") else word.replace(" ", "\u00a0") for word in words)
    widest = textwrap.wrap(text, LINE, break_long_words=False)
    narrower = (textwrap.wrap(text, width, break_long_words=False) for width in range(8, LINE))
    best = next((lines for lines in narrower if len(lines) == len(widest)), widest)
    return [line.replace("\u00a0", " ") for line in best]


def level_after(module: nn.Module, level: Level | None) -> Level | None:
    """What becomes of a map of `level`; None where a layer is of no known kind."""
    for leaf in _leaves(module):
        if level is None:
            return None
        level = _level_after(leaf, *level)
    return level


def map_lines(name: str, level: Level | None) -> tuple[str, ...]:
    """A map: its name, its stride as a share of the image's size, its channels."""
    return (name,) if level is None else (name, f"1/{level.stride} · {level.channels}")


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    """Layers in the order they run; what is no Sequential counts as one."""
    if isinstance(module, nn.Sequential):
        for child in module:
            yield from _leaves(child)
    else:
        yield module


def _steps(module: nn.Module, *, inline: bool) -> list[str]:
    if not isinstance(module, nn.Sequential):
        return _step(module, inline=inline)
    parts = [steps for child in module if (steps := _steps(child, inline=inline))]
    steps = []
    for same, group in groupby(parts):
        times = len(list(group))
        body = ", ".join(step if step.startswith("[") else step.replace(" ", "\u00a0") for step in same)
        steps += same if times == 1 else [f"[{body}]\u00a0{TIMES}{times}"]
    return steps


def _step(layer: nn.Module, *, inline: bool) -> list[str]:
    if isinstance(layer, nn.Identity):
        return []
    if isinstance(layer, CONVS):
        return [_conv(layer) + (f" {layer.out_channels}" if inline else "")]
    if isinstance(layer, nn.Upsample):
        return [f"up {TIMES}{_one(layer.scale_factor):g}" if layer.scale_factor else "up"]
    if isinstance(layer, POOLS):
        return [f"{'max' if isinstance(layer, nn.MaxPool2d) else 'mean'} pool /{_one(layer.stride):g}"]
    if isinstance(layer, nn.Dropout2d | nn.Dropout):
        return [f"dropout {layer.p:g}"]
    return [next((name for kind, name in NORMS.items() if isinstance(layer, kind)), type(layer).__name__)]


def _conv(conv: nn.Conv2d | nn.ConvTranspose2d) -> str:
    stride, dilation = _one(conv.stride), _one(conv.dilation)
    if isinstance(conv, nn.ConvTranspose2d):
        return f"deconv {TIMES}{stride:g}"
    spaced = f" dilated {dilation:g}" if dilation != 1 else ""
    return TIMES.join(map(str, conv.kernel_size)) + (f" /{stride:g}" if stride != 1 else "") + spaced


def _level_after(layer: nn.Module, channels: int, stride: float) -> Level | None:
    if isinstance(layer, CONVS):
        down, channels = _one(layer.stride), layer.out_channels
        down = 1 / down if isinstance(layer, nn.ConvTranspose2d) else down
    elif isinstance(layer, nn.Upsample) and layer.scale_factor:
        down = 1 / _one(layer.scale_factor)
    elif isinstance(layer, POOLS):
        down = _one(layer.stride)
    elif isinstance(layer, (*NORMS, nn.Dropout2d, nn.Dropout, nn.Identity)) or _activation(layer):
        down = 1
    else:
        return None
    return Level(channels, round(stride * down))


def _activation(layer: nn.Module) -> bool:
    return type(layer).__module__ == nn.ReLU.__module__


def _one(value: float | tuple[float, ...]) -> float:
    """The number, of a pair the first: sides are treated alike here."""
    return value[0] if isinstance(value, tuple) else value
