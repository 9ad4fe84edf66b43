"""env.json: versions and machine, for whoever wonders later why numbers differ. No paths, no names of people."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from torchfpn.files.atomic import write_text
from torchfpn.train.machine import Machine

PACKAGES = ("torchfpn", "torch", "torchvision", "timm", "lightning", "numpy", "pillow", "rasterio", "safetensors")


def write_environment(path: Path, machine: Machine) -> None:
    """Writes what is known about this process and its machine."""
    facts = {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": machine.device,
        "devices": machine.devices,
        "precision": machine.precision,
        "workers": machine.workers,
    }
    write_text(path, json.dumps(facts, indent=2) + "\n")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
