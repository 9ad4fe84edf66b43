"""Checkpoints of a training: written atomically, read back, and compared with the training that resumes from them.

checkpoints/last.ckpt      the newest state; a resumed training continues from it
checkpoints/previous.ckpt  the state before it, used when last.ckpt is damaged
checkpoints/best.ckpt      a hard link to the state with the highest validation score
"""

import hashlib
import inspect
import json
import logging
import math
import os
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

from torchfpn.backbones.fusion import StageFusion
from torchfpn.config.parsing import recorded_setting
from torchfpn.config.settings import TrainConfig
from torchfpn.data.config import DatasetConfig
from torchfpn.errors import WeightsError
from torchfpn.io.atomic import atomic_path, library_writes, sweep
from torchfpn.io.weights import unpickle
from torchfpn.recipe import Recipe, Scaling
from torchfpn.tasks.model import create_model
from torchfpn.tasks.storage import fill
from torchfpn.tasks.task import Task
from torchfpn.train.logs import Journal

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
STATE = "torchfpn"  # the key of our own state inside a checkpoint
SCHEMA = 1  # of that state
SEAL, END = b"sha256:", 22  # what the digest in a file begins with; bytes of the record that ends a zip file
log = logging.getLogger(__name__)
AS_BEFORE = "resume with what it was trained with, or begin another training with --name"
PREFIX = "task.model."  # of the model's tensors in a checkpoint
LEARNT = "task.criterion."  # of what the criterion learns: the classifiers of deep supervision


class AtomicCheckpointIO(CheckpointIO):
    """How Lightning reads and writes checkpoints here: never half, never unpickling more than tensors.

    Lightning's own writes by way of $TMPDIR without fsync and builds the file in memory first.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, Any] | None = None  # a checkpoint read before the fit, handed over once

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Streams to a temporary file beside `path`, fsyncs, renames; what was at `path` becomes previous.ckpt.

        Raises:
            WriteError: it could not be written; what was there before is untouched.
        """
        path = Path(path)
        with atomic_path(path) as part:
            with library_writes(path, part, RuntimeError):
                torch.save(checkpoint, part)
            _seal(part)
            if path.name == LAST and path.exists():
                link(path, path.with_name(PREVIOUS))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = True) -> Any:
        """The checkpoint handed over, or else the file."""
        loaded, self.loaded = self.loaded, None
        return loaded if loaded is not None else read(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Deletes the file."""
        Path(path).unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """`target` becomes another name of the file `source`, in one step; a copy where there are no hard links."""
    with atomic_path(target) as part:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)


def newest(folder: Path) -> tuple[Path, dict[str, Any], list[str]] | None:
    """(file, content, complaints) of the newest checkpoint in `folder` that can be read; None where none was written.

    Raises:
        WeightsError: there are some, and none can be read.
    """
    sweep(folder)
    complaints: list[str] = []
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        try:
            return path, read(path), complaints
        except WeightsError as error:
            complaints.append(str(error))
    if complaints:
        raise WeightsError("; ".join(complaints), hint="no other checkpoint to resume from")
    return None


def read(path: Path) -> dict[str, Any]:
    """A checkpoint of `fpn train`, tensors on the CPU.

    Raises:
        WeightsError: empty, damaged in any of its bytes, a pickle that would run code, or not one of ours.
    """
    if path.stat().st_size == 0:
        raise WeightsError("the file is empty", file=path)
    _check_seal(path)
    content = unpickle(path)
    if not isinstance(content, dict) or STATE not in content or "state_dict" not in content:
        raise WeightsError("no checkpoint of fpn train", file=path, hint="--resume takes what fpn train wrote")
    return content


def _seal(path: Path) -> None:
    """Writes the digest of a checkpoint into its own end: the comment that a zip file may have, which torch skips.

    torch.load takes changed weights as they are: it does not look at the checksums of the file.
    """
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(-2, os.SEEK_END)  # the length of the comment, 0 so far
        comment = SEAL + digest.encode()
        file.write(len(comment).to_bytes(2, "little") + comment)


def _check_seal(path: Path) -> None:
    """Passes a checkpoint that is as it was written; one of an earlier version by the checksums of its parts.

    Raises:
        WeightsError: it is damaged.
    """
    size, length = path.stat().st_size, len(SEAL) + 64
    with path.open("rb") as file:
        file.seek(max(0, size - length))
        end = file.read()
        file.seek(max(0, size - END))
        plain = file.read().startswith(b"PK\5\6") and end.endswith(b"\0\0")
        if not end.startswith(SEAL):
            intact = plain and _is_intact(path)
        else:
            file.seek(0)
            digest, left = hashlib.sha256(), size - length - 2
            while left > 0 and (part := file.read(min(left, 2**20))):
                digest.update(part)
                left -= len(part)
            digest.update(b"\0\0")  # the length of the comment when there was none
            same = file.read(2) == length.to_bytes(2, "little")
            intact = same and end == SEAL + digest.hexdigest().encode()
    if not intact:
        raise WeightsError("damaged: it is not as it was written", file=path)


def _is_intact(path: Path) -> bool:
    """Whether the checksums of all parts of a zip file hold."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, RuntimeError, zlib.error):
        return False  # zipfile raises NotImplementedError for a damaged compression method or version


class Keeper:
    """Writes into the run folder, and knows which epoch was the best so far.

    patience: validations without a better score after which `exhausted` is true; 0: never. by: the column of the score.
    """

    def __init__(self, folder: Path, journal: Journal, *, patience: int = 0, by: str = "val/miou") -> None:
        self.folder, self.journal, self.patience, self.by = folder, journal, patience, by
        self.best_score, self.best_epoch, self.waited = -math.inf, 0, 0
        self._before = self.state_dict()  # the judgement before the newest one
        self.failure: OSError | None = None  # why the newest save failed; None when it did not

    @property
    def last(self) -> Path:
        """Where the newest state lies."""
        return self.folder / "checkpoints" / LAST

    @property
    def best(self) -> Path:
        """Where the state with the highest score lies."""
        return self.folder / "checkpoints" / BEST

    @property
    def exhausted(self) -> bool:
        """Whether it has not got better for too long."""
        return 0 < self.patience <= self.waited

    def judge(self, row: Mapping[str, float]) -> bool:
        """Takes in the row of an epoch; whether its weights are the best so far."""
        self.journal.add(row)
        self._before = self.state_dict()
        score = row.get(self.by)
        if score is None:
            return False
        if score > self.best_score:
            self.best_score, self.best_epoch, self.waited = score, int(row["epoch"]), 0
            return True
        self.waited += 1
        return False

    def save(self, trainer: Any, *, is_best: bool = False) -> bool:
        """Writes last.ckpt and metrics.csv, and best.ckpt if it is; whether that worked."""
        try:
            trainer.save_checkpoint(self.last)
            if trainer.is_global_zero:
                self._write_beside(is_best)
        except OSError as error:
            self.failure = error
            if is_best:  # best.ckpt is as before, so it stays the one that later epochs have to beat
                self.load_state_dict(self._before)
            log.warning("the state could not be saved: %s; training continues, %s is unchanged", error, self.last.name)
            return False
        self.failure = None
        return True

    def _write_beside(self, is_best: bool) -> None:
        if is_best:
            link(self.last, self.best)
        self.journal.write(self.folder / "metrics.csv")

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"score": self.best_score, "epoch": self.best_epoch, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The judgement of a state."""
        self.best_score, self.best_epoch, self.waited = state["score"], state["epoch"], state["waited"]


class Past(NamedTuple):
    """A training that goes on: its checkpoint, the recipe in that, and how its config.yaml weighs the classes."""

    file: Path
    recipe: Recipe
    weighting: Any = None

    @classmethod
    def of(cls, file: Path, checkpoint: dict[str, Any]) -> "Past":
        """Of a checkpoint in a run folder.

        Raises:
            WeightsError: its recipe cannot be read, or is of a newer version.
        """
        state = checkpoint[STATE]
        if state["schema"] > SCHEMA:
            allowed = f"up to {SCHEMA}"
            raise WeightsError(f"schema {state['schema']}", file=file, allowed=allowed, hint="upgrade torchfpn")
        config = file.absolute().parent.parent / "config.yaml"
        recipe = Recipe.from_json(state["recipe"], file=str(file))
        return cls(file, recipe, recorded_setting(config, "loss.class_weights"))

    def check(self, classes: tuple[str, ...], bands: tuple[str, ...], rules: dict[str, Any]) -> None:
        """Passes a dataset of the same classes and bands, and images that are shown in the same size.

        Raises:
            WeightsError: another one.
        """
        for name, was, now in (("classes", self.recipe.classes, classes), ("bands", self.recipe.bands, bands)):
            if was != now:
                raise WeightsError(", ".join(was), file=self.file, field=name, allowed=_those(", ".join(now)))
        before, after = self.recipe.rules.get("resize"), rules.get("resize")
        if before != after:
            found, allowed = (_resizing(rule) for rule in (before, after))
            raise WeightsError(found, file=self.file, field="resize", allowed=_that(allowed), hint=AS_BEFORE)

    def scaling(self, config: TrainConfig, dataset: DatasetConfig, dtype: str) -> Scaling:
        """That of the checkpoint: found anew, it would move with every image that is added.

        dtype: pixel type of the images.

        Raises:
            WeightsError: config or dataset ask for another one, or the pixels are of another type.
        """
        own = self.recipe.scaling
        method = dataset.scaling_method if config.data.scaling == "auto" else config.data.scaling
        given = dataset.scaling if config.data.scaling == "auto" else None
        if given is not None and (given.offset, given.scale) != (own.offset, own.scale):
            found, allowed = (f"offset {_numbers(s.offset)} and scale {_numbers(s.scale)}" for s in (own, given))
            raise WeightsError(found, file=self.file, field="scaling", allowed=_that(allowed), hint=AS_BEFORE)
        if given is None and method not in ("auto", own.method):
            raise WeightsError(own.method, file=self.file, field="scaling", allowed=_that(method), hint=AS_BEFORE)
        if dtype != self.recipe.dtype and dataset.scaling is None:
            allowed = f"that of the images: {dtype}"
            raise WeightsError(self.recipe.dtype, file=self.file, field="dtype", allowed=allowed, hint=AS_BEFORE)
        return own

    def class_weights(self, method: str) -> list[float] | None:
        """Those of the checkpoint, if it found them by the same method; else None."""
        weights = self.recipe.class_weights
        return None if weights is None or self.weighting != method else list(weights)


def model_tensors(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of the model as they were in the training, not averaged."""
    return {n.removeprefix(PREFIX): t for n, t in checkpoint["state_dict"].items() if n.startswith(PREFIX)}


def kept_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The weights a model file gets: the averages where there are any."""
    ema = checkpoint[STATE]["ema"]
    return model_tensors(checkpoint) | (ema["averages"] if ema is not None else {})


def check_fit(checkpoint: dict[str, Any], task: Task, file: Path) -> None:
    """Passes a checkpoint of a training of this very `task`.

    Raises:
        WeightsError: another version, other classes or bands, another architecture, or other tensors, of which the
            first five are named.
    """
    past = Past.of(file, checkpoint)
    recipe = past.recipe
    fill(task.model, model_tensors(checkpoint), file=file)
    past.check(task.recipe.classes, task.recipe.bands, task.recipe.rules)
    before, after = _architecture(recipe, task), _architecture(task.recipe, task)
    for name in sorted(before.keys() | after.keys()):  # strides, bands, dilation: what no tensor tells
        was, now = before.get(name), after.get(name)
        if was != now:
            raise WeightsError(f"{was}", file=file, field=name, allowed=_that(f"{now}"))
    had = {n.removeprefix(LEARNT) for n in checkpoint["state_dict"] if n.startswith(LEARNT)}
    if had != set(task.criterion.state_dict()):
        found = f"a training {'with' if had else 'without'} deep supervision"
        raise WeightsError(found, file=file, field="loss.deep_supervision", allowed="the same on resuming, 0 or not")


def changed_data(checkpoint: dict[str, Any], task: Task) -> list[str]:
    """What dataset.yaml says otherwise than when the checkpoint was written, and may: nodata, how tiles are placed."""
    recipe = Recipe.from_json(checkpoint[STATE]["recipe"])
    found = []
    for name in ("nodata", "rules"):
        before, after = (json.dumps(getattr(one, name), sort_keys=True) for one in (recipe, task.recipe))
        if before != after:  # as text: NaN is NaN, and the order of keys is none
            found.append(f"{name}: {after}, was {before}")
    return found


def _resizing(rule: dict[str, Any] | None) -> str:
    """A rule of resizing in words: "antialias True, shorter 80"."""
    return ", ".join(f"{name} {value}" for name, value in sorted((rule or {}).items()) if value is not None) or "none"


def _that(value: str) -> str:
    return f"that of the config: {value}"


def _those(values: str) -> str:
    return f"those of the config: {values}"


def _numbers(values: Any) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"


def _architecture(recipe: Recipe, task: Task) -> dict[str, Any]:
    """What a recipe says of the architecture, one way of saying it for all. task: has the tensors it speaks of."""
    parameters = inspect.signature(create_model).parameters.values()
    known = {p.name: p.default for p in parameters if p.default is not p.empty}
    said = {name: value or None if name.endswith("_options") else value for name, value in recipe.model.items()}
    model = {**known, **said}
    if model["strides"] == [4, 8, 16, 32]:
        model["strides"] = None  # as many maps have been found in the checkpoint
    if isinstance(task.model.backbone, StageFusion):
        stages = [int(name.removeprefix("c")) for name, _ in task.model.backbone.main.named_children()]
        model["points"] = sorted(set(model["points"] or stages))
    del model["dropout"]  # of the training
    return {name: list(value) if isinstance(value, tuple) else value for name, value in model.items()}


def explain_restore(error: ValueError, file: Path | None) -> WeightsError | None:
    """What to tell when the optimiser's state could not be restored; None for any other error."""
    if file is None or "parameter group" not in str(error):
        return None
    return WeightsError(
        "the optimiser's state is of other parameter groups",
        file=file,
        hint="leave --freeze and --optimizer as they were",
    )
