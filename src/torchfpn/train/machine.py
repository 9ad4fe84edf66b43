"""What there is to train on, and what was asked for: device, number of devices, precision, loader processes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from torchfpn.config import TrainConfig
from torchfpn.errors import ConfigError
from torchfpn.tasks.precision import available, has_bf16

HANDLES = 64, 8  # free file handles for a training with loader processes, and for each of them
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


def machine(config: TrainConfig, there: Sequence[str] | None = None) -> Machine:
    """What the config asks for, settled.

    "auto" devices is one device: more have to be asked for. there: the devices to choose from, the best one first;
    None: those of this machine.

    Raises:
        ConfigError: it is not there; what is there is named.
    """
    there = available() if there is None else there
    accelerator = _accelerator(config.accelerator, there)
    devices = 1 if config.devices == "auto" else config.devices
    count = sum(name.startswith(accelerator) for name in there)
    if devices > count:
        raise ConfigError(
            f"{devices}", field="devices", allowed=f"{count}: {_what(accelerator)}", hint="leave out --devices"
        )
    if config.auto_batch and devices > 1:
        raise ConfigError("with several devices", field="auto_batch", allowed="one device", hint="give --batch-size")
    precision = config.precision
    if precision == "auto":
        precision = "bf16-mixed" if has_bf16(torch.device(accelerator)) else "32-true"
    return Machine(accelerator, devices, precision, _workers(config, accelerator))


def _accelerator(asked: str, there: Sequence[str]) -> str:
    kinds = list(dict.fromkeys(name.partition(":")[0] for name in there))
    if asked == "auto" or (asked == "gpu" and kinds[0] != "cpu"):
        return kinds[0]
    wanted = "cuda" if asked == "gpu" else asked
    if wanted not in kinds:
        raise ConfigError(
            f'"{wanted}", which this machine does not have', field="accelerator", allowed=" | ".join(kinds)
        )
    return wanted


def _what(accelerator: str) -> str:
    if accelerator == "cuda":
        return f"{torch.cuda.get_device_name(0)}"
    return f"the {accelerator} counts as one device"


def _handles_short(workers: int) -> int | None:
    """File handles that loader processes need, where there are fewer; None where there are enough.

    Every batch goes through sockets and shared memory. Where a loader process finds no handle for them, it says
    nothing, and the training would wait for its batch for ever.
    """
    needed, held = HANDLES[0] + HANDLES[1] * workers, list[int]()
    try:
        while workers and len(held) < needed:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return needed
    finally:
        for handle in held:
            os.close(handle)
    return None


def _workers(config: TrainConfig, accelerator: str) -> int:
    if config.num_workers != "auto":
        if (needed := _handles_short(config.num_workers)) is not None:
            raise ConfigError(
                f"{config.num_workers}, and this process may not open {needed} more files",
                field="num_workers",
                allowed="0 loader processes",
                hint="give --num-workers 0, or raise the limit with ulimit -n",
            )
        return config.num_workers
    if _handles_short(1) is not None:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if accelerator == "cpu":  # loading costs a hundredth of a step here, and a second process takes the step's cores
        return min(CPU_WORKERS, cores // 4)
    return min(GPU_WORKERS, cores - 1)
