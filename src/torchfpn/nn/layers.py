"""Convolution with norm and activation, input normalization, eval mode shared by threads, and a torchvision check."""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torchfpn.errors import ConfigError, FPNError, ShapeError
from torchfpn.nn.containers import Chain, chain
from torchfpn.recipe import LARGEST_VALUE, Scaling

Norm = Literal["batch", "group", "none"]
_changed = threading.Condition()  # guards `_held`; notified when a block of `evaluating` ends
TORCH = re.compile(r"torch\s*\(?\s*([=<>~!][^;)\s]*)")  # "torch==2.15.0", "torch (>=2.14.0)"


@contextmanager
def shapes_only() -> Iterator[None]:
    """A context in which modules get names and shapes but neither memory nor initial values: device "meta".

    Drawing initial values is most of the time that a module on that device takes to build.
    """
    with torch.device("meta"), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Leaves out what fills tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        filled = args[0] if args else options.get("tensor")
        if getattr(func, "__name__", "") in _FILLS and isinstance(filled, Tensor) and filled.is_meta:
            return filled
        return func(*args, **options)


_FILLS = frozenset({"normal_", "uniform_", "erfinv_", "clamp_", "kaiming_uniform_", "kaiming_normal_", "trunc_normal_"})


def norm_layer(kind: Norm, channels: int) -> nn.Module:
    """Batch norm, group norm of 32 groups (Wu & He 2018), or nothing, for maps of `channels`.

    Raises:
        ConfigError: unknown kind, or a width that 32 groups do not divide.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        if channels % 32:
            raise ConfigError(
                f"{channels} channels", field="norm", allowed="group norm takes a multiple of 32", hint="or norm=batch"
            )
        return nn.GroupNorm(32, channels)
    if kind == "none":
        return nn.Identity()
    raise ConfigError(f'"{kind}"', field="norm", allowed='"batch", "group" or "none"')


def conv_norm_act(in_channels: int, out_channels: int, kernel: int = 3, *, norm: Norm = "batch") -> Chain:
    """Convolution that keeps the size, norm, ReLU; the convolution has a bias only where no norm follows."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=norm == "none")
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if norm == "none":
        return chain(conv=conv, act=nn.ReLU(inplace=True))
    return chain(conv=conv, norm=norm_layer(norm, out_channels), act=nn.ReLU(inplace=True))


def linear_conv(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """A convolution that nothing non-linear follows, drawn as the FPN codebases draw it (uniform, fan-in, gain 1).

    Padded so that a map of n cells gives n / stride, rounded up.
    """
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=bias)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    nn.init.zeros_(conv.bias) if conv.bias is not None else None
    return conv


class Normalize(nn.Module):
    """raw [B, C, H, W] of any dtype -> float32 ``(raw - offset) / scale``; no data becomes 0, the mean of its band.

    No data is NaN, infinity, a value that is beyond `LARGEST_VALUE` when it is scaled, or the value `nodata`; with
    `together`, that value only where every band holds it (in unsigned data it is mostly 0, which a dark pixel can have
    in one band as well). Offset and scale are buffers that are not saved: they belong to the recipe.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, scaling: Scaling, *, nodata: float | None = None, together: bool = False) -> None:
        super().__init__()
        self.register_buffer("offset", torch.tensor(scaling.offset).view(-1, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(scaling.scale).view(-1, 1, 1), persistent=False)
        self.scaling, self.nodata, self.together = scaling, nodata, together

    def _apply(self, fn: Any, recurse: bool = True) -> "Normalize":
        """Moves to devices, and stays float32 where the task is cast to less: raw values are of up to 16 bits."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.offset.dtype != torch.float32:
            for name, numbers in (("offset", self.scaling.offset), ("scale", self.scaling.scale)):
                self._buffers[name] = torch.tensor(numbers, device=self.offset.device).view(-1, 1, 1)
        return self

    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Raw -> (images [B, C, H, W] float32, valid [B, H, W] bool: every band holds data).

        Raises:
            ShapeError: when there are not as many bands as scales.
        """
        if raw.ndim != 4 or raw.shape[1] != len(self.offset):
            raise ShapeError(f"images {list(raw.shape)}", allowed=f"[B, {len(self.offset)}, H, W], one scale per band")
        raw = raw.float()
        known = raw.isfinite()
        if self.nodata is not None:
            missing = raw == self.nodata
            known = known & ~(missing.all(1, keepdim=True) if self.together else missing)
        scaled = (raw - self.offset) / self.scale
        known = known & (scaled.abs() <= LARGEST_VALUE)
        return torch.where(known, scaled, 0.0), known.all(1)

    def overflowing(self, raw: Tensor) -> Tensor:
        """Raw [B, C, H, W] -> [B, H, W] bool: where a value that is not NaN is beyond `LARGEST_VALUE` when scaled."""
        scaled = (raw.float() - self.offset) / self.scale
        return (~(scaled.abs() <= LARGEST_VALUE) & ~raw.isnan()).any(1)

    def extra_repr(self) -> str:
        """The numbers."""
        return f"offset={self.offset.flatten().tolist()}, scale={self.scale.flatten().tolist()}"


@dataclass
class _Held:
    """A part that blocks of `evaluating` hold in eval mode. training: its mode outside them. threads: one a block."""

    module: nn.Module
    training: bool
    threads: list[int] = field(default_factory=list)


_held: dict[int, _Held] = {}  # by id, which stays a module's own while it is kept here


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, `module` and all its parts are in eval mode; afterwards each part has its former mode again.

    Threads may hold one module, or modules that share parts, at the same time: a part leaves eval mode when the last
    block that holds it ends. A part that its own thread puts into train mode meanwhile stays in it.
    """
    parts, thread = list(module.modules()), threading.get_ident()
    with _changed:
        for part in parts:
            _held.setdefault(id(part), _Held(part, part.training)).threads.append(thread)
            part.training = False
    try:
        yield
    finally:
        with _changed:
            for part in parts:
                held = _held[id(part)]
                held.threads.remove(thread)
                if not held.threads:
                    del _held[id(part)]
                    part.training |= held.training  # not train(), which would also change the parts of a part
            _changed.notify_all()


@contextmanager
def changing(module: nn.Module, training: bool) -> Iterator[None]:
    """Inside, the caller may put `module` into another mode: no other thread evaluates it, or its mode stays eval.

    To train it, waits for the blocks of `evaluating` in other threads to end. To evaluate it, waits for nobody: it is
    in eval mode already, and stays in it afterwards.
    """
    parts, thread = list(module.modules()), threading.get_ident()
    with _changed:
        if training:
            _changed.wait_for(lambda: not any(set(_threads(part)) - {thread} for part in parts))
        for part in parts:
            if (held := _held.get(id(part))) is not None and not training:
                held.training = False
        yield


def modes(module: nn.Module) -> list[bool]:
    """Whether each of `module.modules()`, in this order, is in train mode outside `evaluating`."""
    with _changed:
        return [_held[id(p)].training if id(p) in _held else p.training for p in module.modules()]


def restore(module: nn.Module, training: Sequence[bool]) -> None:
    """Sets what `modes` found. Parts that a copy shares with a module in use keep eval mode until its blocks end."""
    with _changed:
        for part, mode in zip(module.modules(), training, strict=True):
            if id(part) not in _held:
                part.training = mode


def _threads(part: nn.Module) -> list[int]:
    held = _held.get(id(part))
    return [] if held is None else held.threads


def check_torchvision() -> None:
    """Imports torchvision.

    Raises:
        FPNError: it does not go with the torch that is installed; both versions and the cure are named.
    """
    try:
        import_module("torchvision")
    except (RuntimeError, ImportError, AttributeError) as error:
        raise FPNError(
            f"torchvision {_version('torchvision')} does not go with torch {_version('torch')} ({_line(error)})",
            allowed=_wanted(),
            hint="install both from one place: pip install --upgrade --force-reinstall torch torchvision",
        ) from error


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _wanted() -> str | None:
    """The torch that torchvision's own metadata ask for."""
    try:
        needs = [TORCH.match(line) for line in requires("torchvision") or ()]
    except PackageNotFoundError:
        return None
    return next((f"it was built for torch {need[1]}" for need in needs if need), None)


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
