"""The run folder: made new, never overwritten unasked, or found again to go on."""

import re
import shutil
from pathlib import Path

from torchfpn.config import TrainConfig
from torchfpn.config.read import recorded_setting
from torchfpn.errors import ConfigError, WriteError
from torchfpn.files.atomic import check_local, make_directory, write_bytes
from torchfpn.files.lock import NAME as LOCK
from torchfpn.files.lock import holder_file

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


def empty(folder: Path) -> None:
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


def probe(folder: Path, needed: int) -> None:
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
