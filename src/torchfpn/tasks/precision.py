"""On which device and in which precision a trained model computes its answers."""

import contextlib
from collections.abc import Sequence
from typing import Literal

import torch

from torchfpn.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "bf16")


def find_device(name: str = "auto", there: Sequence[str] | None = None) -> torch.device:
    """The device called `name`: "cpu", "cuda", "cuda:1", "mps"; "auto" is the first GPU, on a Mac its own, or the CPU.

    there: the devices to choose from, the best one first; None: those of this machine.

    Raises:
        ConfigError: this machine has none of that name; what there is is named.
    """
    there = available() if there is None else there
    if name == "auto":
        return torch.device("cuda" if there[0].startswith("cuda") else there[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in there:
        raise ConfigError(f'"{name}"', field="device", allowed=f"{', '.join(there)}")
    return torch.device(wanted)


def available() -> list[str]:
    """Every device of this machine, the best one first."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def computing(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """The block computes in float32, or in bfloat16 where that is safe ("auto": if the hardware has it)."""
    wanted = precision == "bf16" or (precision == "auto" and has_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware computes bfloat16 itself; emulated it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        return any(bool(features.get(name, False)) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False
