"""The run folder, env.json, the devices and loader processes of a training, and the signals that stop it."""

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch.utils.data._utils.signal_handling import _set_SIGCHLD_handler

from torchfpn.config.parsing import recorded_setting
from torchfpn.config.settings import TrainConfig
from torchfpn.errors import ConfigError, WriteError
from torchfpn.io.atomic import NAME as LOCK
from torchfpn.io.atomic import check_local, holder_file, make_directory, write_bytes, write_text
from torchfpn.tasks.task import available, has_bf16

CHECKPOINTS = "checkpoints"
PROBE = ".probe"
MARKS = ("config.yaml", "env.json")  # every run has both

WRITTEN = (  # by a training, and by nobody else
    *MARKS,
    "metrics.csv",
    "timing.csv",
    "model.safetensors",
    "validation.json",
    "about.json",
    "report.html",
    "checkpoints/*.ckpt",
    "samples/*.png",
    "tb/events.out.tfevents.*",
)

HANDLES = 64, 8  # free file handles for a training with loader processes, and for each of them
GPU_WORKERS, CPU_WORKERS = 8, 1  # at most, when the number is "auto"
PACKAGES = ("torchfpn", "torch", "torchvision", "timm", "lightning", "numpy", "pillow", "rasterio", "safetensors")
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # SIGHUP: POSIX alone; SIGBREAK: Windows alone
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
HANGUP = getattr(signal, "SIGHUP", None)


def make_folder(config: TrainConfig) -> Path:
    """A new run folder ``out/name``, or name-2, name-3, ... where there is one; with `overwrite` that very one."""
    wanted = Path(config.out) / config.name
    check_local(wanted)
    number = 1
    while True:
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(parents=True, exist_ok=config.overwrite)
        except FileExistsError:
            number += 1
            continue
        return folder


def clear_folder(folder: Path) -> None:
    """Removes what an earlier run wrote into `folder`; whatever else lies there stays.

    Raises:
        ConfigError: it is a link, or what lies there does not look like a run.
    """
    if folder.is_symlink():
        raise ConfigError("is a link, so it is not overwritten", file=folder, hint="give another --name")
    own = (LOCK, holder_file(folder / LOCK).name)
    children = [child for child in folder.iterdir() if child.name not in own]
    if children and not all((folder / name).is_file() for name in MARKS):
        raise ConfigError("is not a run folder, so it is not overwritten", file=folder, hint="give another --name")
    for pattern in WRITTEN:
        for path in folder.glob(pattern):
            if path.is_file() and not path.parent.is_symlink():
                path.unlink()
    for child in children:
        if child.is_dir() and not child.is_symlink() and not any(child.iterdir()):
            child.rmdir()


def find_folder(config: TrainConfig) -> tuple[Path, Path | None] | None:
    """(run folder, checkpoint if one was named) that `resume` means; None where there is nothing yet.

    true: the newest of name, name-2, ... whose config.yaml has this name: "roofs-2018" may be a name of its own. So a
    command with --resume can be given again and again, from the first time.

    Raises:
        ConfigError: a path was given, and it is no run folder and no checkpoint.
    """
    if isinstance(config.resume, str):
        path = Path(config.resume)
        if path.is_file():
            return path.absolute().parent.parent, path
        if (path / CHECKPOINTS).is_dir():
            return path, None
        raise ConfigError(f"{path}", field="resume", allowed="a run folder, or a checkpoint in one")
    pattern = re.compile(re.escape(config.name) + r"(?:-(\d+))?")
    out = Path(config.out)
    found: dict[int, Path] = {}
    for folder in out.iterdir() if out.is_dir() else ():
        match = pattern.fullmatch(folder.name)
        if match and (folder / CHECKPOINTS).is_dir() and _is_of(folder, config.name):
            found[int(match[1] or 1)] = folder
    return (found[max(found)], None) if found else None


def _is_of(folder: Path, name: str) -> bool:
    """Whether the run in `folder` has this name; without a config.yaml that can be read, by the folder's own."""
    return (recorded_setting(folder / "config.yaml", "name") or folder.name) == name


def check_writable(folder: Path, needed: int) -> None:
    """Says now, not after the first epoch, that `folder` cannot be written to or has less than `needed` bytes.

    Raises:
        ConfigError: which of the two.
    """
    try:
        make_directory(folder)
        write_bytes(folder / PROBE, b"0" * 4096)
        (folder / PROBE).unlink(missing_ok=True)  # another training that starts here may have removed it
    except OSError as error:
        reason = error.reason if isinstance(error, WriteError) else error.strerror or str(error)
        raise ConfigError(f"cannot be written to: {reason}", file=folder, field="out") from error
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"{free / 2**20:.0f} MiB are free",
            file=folder,
            field="out",
            allowed=f"about {needed / 2**20:.0f} MiB for checkpoints",
            hint="free disk space, or give another --out",
        )


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


class Interrupted(Exception):  # noqa: N818 - not an error: somebody asked for it
    """A signal stopped the training; `saved` says whether the state of this very step is in last.ckpt."""

    def __init__(self, signum: int, *, saved: bool = False) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum, self.saved = signum, saved

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process stopped by that signal."""
        return 128 + self.signum


class StopRequest:
    """Within the block a first signal is remembered in `.signum`; a second one ends the process.

    Outside of `graceful` there is nothing to save, and the first signal raises `Interrupted` where it comes.
    Only the main thread can have handlers; in others the block does nothing.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.is_graceful = False
        self._before: dict[Any, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in SIGNALS}
            if self._before.get(HANGUP) is signal.SIG_IGN:  # nohup: the training outlives its terminal
                del self._before[HANGUP]
            self.install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def install(self) -> None:
        """Takes the signals (again: Lightning puts its own handler before ours when a fit begins)."""
        for number in self._before:
            signal.signal(number, self._handle)

    @contextlib.contextmanager
    def graceful(self) -> Iterator[None]:
        """Within the block the first signal only sets `signum`; whoever runs the block looks at it after each step."""
        self.is_graceful = True
        try:
            yield
        finally:
            self.is_graceful = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            os._exit(128 + signum)  # at once: no cleaning up, whatever hangs
        self.signum = signum
        if not self.is_graceful:
            raise Interrupted(signum)
        name = signal.Signals(signum).name
        with contextlib.suppress(RuntimeError, OSError):  # in the middle of another print; a terminal that is gone
            print(
                f"\n{name}: finishing the step, then saving; press again to stop at once", file=sys.stderr, flush=True
            )


def ignore_in_worker() -> None:
    """For loader processes: signals to the whole group (Ctrl-C) pass them by; the step needs them to be finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(AttributeError, OSError):  # Windows has no groups
        os.setpgid(0, 0)


def watch_loaders() -> None:
    """Has torch learn at once of a loader process that dies: to be called before a Lightning fit.

    torch installs its SIGCHLD handler with the first loader process, and only once. Lightning, on leaving a fit, puts
    back what it found on entering; a handler installed in between is gone for good, and every later training of this
    process would wait for a dead loader until the time limit.
    """
    _set_SIGCHLD_handler()
