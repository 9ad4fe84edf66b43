"""What there is to train on, and what was asked for: device, number of devices, precision, loader processes."""

import os
from dataclasses import dataclass

import torch

from torchfpn.config import TrainConfig
from torchfpn.errors import ConfigError
from torchfpn.tasks.precision import has_bf16

GPU_WORKERS, CPU_WORKERS = 8, 1  # at most, when the number is "auto"


@dataclass(frozen=True)
class Machine:
    """What a training runs on, in Lightning's words."""

    accelerator: str
    devices: int
    precision: str
    workers: int

    @property
    def device(self) -> str:
        """For people: "cpu", "2 x NVIDIA A100"."""
        if self.accelerator != "cuda":
            return self.accelerator
        return f"{self.devices} x {torch.cuda.get_device_name(0)}"


def machine(config: TrainConfig) -> Machine:
    """What the config asks for, settled.

    "auto" devices is one device: more have to be asked for.

    Raises:
        ConfigError: it is not there; what is there is named.
    """
    accelerator = _accelerator(config.accelerator)
    devices = 1 if config.devices == "auto" else config.devices
    available = torch.cuda.device_count() if accelerator == "cuda" else 1
    if devices > available:
        raise ConfigError(
            f"{devices}", field="devices", allowed=f"{available}: {_what(accelerator)}", hint="leave out --devices"
        )
    if config.auto_batch and devices > 1:
        raise ConfigError("with several devices", field="auto_batch", allowed="one device", hint="give --batch-size")
    precision = config.precision
    if precision == "auto":
        precision = "bf16-mixed" if has_bf16(torch.device(accelerator)) else "32-true"
    return Machine(accelerator, devices, precision, _workers(config, accelerator))


def _accelerator(asked: str) -> str:
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    asked = "cuda" if asked == "gpu" and not mps else "mps" if asked == "gpu" else asked
    if asked == "auto":
        return "cuda" if cuda else "cpu"
    if (asked == "cuda" and not cuda) or (asked == "mps" and not mps):
        there = [name for name, has in (("cuda", cuda), ("mps", mps), ("cpu", True)) if has]
        raise ConfigError(f'"{asked}", which this machine has not', field="accelerator", allowed=" | ".join(there))
    return asked


def _what(accelerator: str) -> str:
    if accelerator == "cuda":
        return f"{torch.cuda.get_device_name(0)}"
    return f"the {accelerator} counts as one device, whatever its cores"


def _workers(config: TrainConfig, accelerator: str) -> int:
    if config.num_workers != "auto":
        return config.num_workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if accelerator == "cpu":  # loading costs a hundredth of a step here, and a second process takes the step's cores
        return min(CPU_WORKERS, cores // 4)
    return min(GPU_WORKERS, cores - 1)
