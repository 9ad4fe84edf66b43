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
from torchfpn.train.logs import MetricsTable
from torchfpn.train.run_folder import CHECKPOINTS

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"  # in the folder checkpoints/ of a run
STATE, SCHEMA = "torchfpn", 1  # key and version of our own state inside a checkpoint
SEAL = b"sha256:"  # prefix of the digest in the comment of the zip file
END = 22  # bytes of the end record of a zip file without comment
log = logging.getLogger(__name__)
RESUME_HINT = "resume with what it was trained with, or begin another training with --name"
MODEL_PREFIX = "task.model."  # of the model's tensors in a checkpoint
CRITERION_PREFIX = "task.criterion."  # of the criterion's tensors: the classifiers of deep supervision


class AtomicCheckpointIO(CheckpointIO):
    """Reads and writes checkpoints for Lightning: atomically, and without unpickling more than tensors.

    Lightning's own class builds the file in memory and writes it by way of $TMPDIR without fsync.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, Any] | None = None  # a checkpoint read before the fit, handed over once

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Streams to a temporary file beside `path`, fsyncs, renames; an older last.ckpt becomes previous.ckpt.

        Raises:
            WriteError: the file cannot be written; the older one is unchanged.
        """
        path = Path(path)
        with atomic_path(path) as part:
            with library_writes(path, part, RuntimeError):
                torch.save(checkpoint, part)
            _seal(part)
            if path.name == LAST and path.exists():
                link(path, path.with_name(PREVIOUS))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = True) -> Any:
        """The checkpoint in `loaded`, once, or else the content of the file."""
        loaded, self.loaded = self.loaded, None
        return loaded if loaded is not None else read(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Deletes the file."""
        Path(path).unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """Makes `target` a hard link to `source` in one step, or a copy where the file system has no hard links."""
    with atomic_path(target) as part:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)


def read_newest(folder: Path) -> tuple[Path, dict[str, Any], list[str]] | None:
    """Reads the newest intact checkpoint of a folder.

    Args:
        folder: checkpoints/ of a run.

    Returns:
        The file, its content, and a line for each newer one that is damaged; None where none was written.

    Raises:
        WeightsError: all checkpoints are damaged.
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
    """Reads a checkpoint of `fpn train`, tensors on the CPU.

    Raises:
        WeightsError: the file is empty, any of its bytes is damaged, its pickle would run code, or `fpn train` did not
            write it.
    """
    if path.stat().st_size == 0:
        raise WeightsError("the file is empty", file=path)
    _check_seal(path)
    content = unpickle(path)
    if not isinstance(content, dict) or STATE not in content or "state_dict" not in content:
        raise WeightsError("no checkpoint of fpn train", file=path, hint="--resume takes what fpn train wrote")
    return content


def _seal(path: Path) -> None:
    """Appends the SHA-256 of a checkpoint as the comment of its zip file, which torch skips.

    torch.load accepts changed weights: it does not verify the checksums of the zip file.
    """
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(-2, os.SEEK_END)  # the length of the comment, 0 so far
        comment = SEAL + digest.encode()
        file.write(len(comment).to_bytes(2, "little") + comment)


def _check_seal(path: Path) -> None:
    """Compares a checkpoint with its digest; one of an earlier version has none, and its zip checksums are verified.

    Raises:
        WeightsError: the file is damaged.
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


class CheckpointManager:
    """Writes checkpoints and metrics.csv into the run folder, and tracks the best epoch.

    A full disk does not end the training: it continues, warns, and writes again after the next epoch.

    Args:
        folder: the run folder.
        metrics: the rows of metrics.csv.
        patience: validations without a better score after which `exhausted` is true; 0: never.
        score_column: the column of metrics.csv that is compared; higher is better.
    """

    def __init__(
        self, folder: Path, metrics: MetricsTable, *, patience: int = 0, score_column: str = "val/miou"
    ) -> None:
        self.folder, self.metrics, self.patience, self.score_column = folder, metrics, patience, score_column
        self.best_score, self.best_epoch, self.waited = -math.inf, 0, 0
        self._previous = self.state_dict()  # before the newest row
        self.failure: OSError | None = None  # why the newest save failed; None when it did not

    @property
    def last(self) -> Path:
        """The path of last.ckpt."""
        return self.folder / CHECKPOINTS / LAST

    @property
    def best(self) -> Path:
        """The path of best.ckpt."""
        return self.folder / CHECKPOINTS / BEST

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` validations brought no better score."""
        return 0 < self.patience <= self.waited

    def judge(self, row: Mapping[str, float]) -> bool:
        """Adds the row of an epoch; whether its score is the best so far."""
        self.metrics.add(row)
        self._previous = self.state_dict()
        score = row.get(self.score_column)
        if score is None:
            return False
        if score > self.best_score:
            self.best_score, self.best_epoch, self.waited = score, int(row["epoch"]), 0
            return True
        self.waited += 1
        return False

    def save(self, trainer: Any, *, is_best: bool = False) -> bool:
        """Writes last.ckpt and metrics.csv, and best.ckpt if `is_best`; whether all could be written."""
        try:
            trainer.save_checkpoint(self.last)
            if trainer.is_global_zero:
                self._write_beside(is_best)
        except OSError as error:
            self.failure = error
            if is_best:  # best.ckpt is as before, so it stays the one that later epochs have to beat
                self.load_state_dict(self._previous)
            log.warning("the state could not be saved: %s; training continues, %s is unchanged", error, self.last.name)
            return False
        self.failure = None
        return True

    def _write_beside(self, is_best: bool) -> None:
        if is_best:
            link(self.last, self.best)
        self.metrics.write(self.folder / "metrics.csv")

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"score": self.best_score, "epoch": self.best_epoch, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.best_score, self.best_epoch, self.waited = state["score"], state["epoch"], state["waited"]


class ResumedRun(NamedTuple):
    """A training that is resumed: what its checkpoint and its config.yaml say.

    weighting: `loss.class_weights` of config.yaml.
    """

    file: Path
    recipe: Recipe
    weighting: Any = None

    @classmethod
    def of(cls, file: Path, checkpoint: dict[str, Any]) -> "ResumedRun":
        """From a checkpoint in a run folder, read from `file`.

        Raises:
            WeightsError: its recipe cannot be read, or a newer version wrote it.
        """
        state = checkpoint[STATE]
        if state["schema"] > SCHEMA:
            allowed = f"up to {SCHEMA}"
            raise WeightsError(f"schema {state['schema']}", file=file, allowed=allowed, hint="upgrade torchfpn")
        config = file.absolute().parent.parent / "config.yaml"
        recipe = Recipe.from_json(state["recipe"], file=str(file))
        return cls(file, recipe, recorded_setting(config, "loss.class_weights"))

    def check(self, classes: tuple[str, ...], bands: tuple[str, ...], rules: dict[str, Any]) -> None:
        """Compares classes, bands and the resizing rule with those of the checkpoint.

        Raises:
            WeightsError: one of them differs.
        """
        for name, was, now in (("classes", self.recipe.classes, classes), ("bands", self.recipe.bands, bands)):
            if was != now:
                raise WeightsError(", ".join(was), file=self.file, field=name, allowed=_those(", ".join(now)))
        before, after = self.recipe.rules.get("resize"), rules.get("resize")
        if before != after:
            found, allowed = (_resizing(rule) for rule in (before, after))
            raise WeightsError(found, file=self.file, field="resize", allowed=_that(allowed), hint=RESUME_HINT)

    def scaling(self, config: TrainConfig, dataset: DatasetConfig, dtype: str) -> Scaling:
        """The scaling of the checkpoint; a new one from the images would change with every image that is added.

        Args:
            config: of the resumed training.
            dataset: its dataset.
            dtype: pixel type of the images.

        Raises:
            WeightsError: config or dataset require another scaling, or the pixel type differs.
        """
        own = self.recipe.scaling
        method = dataset.scaling_method if config.data.scaling == "auto" else config.data.scaling
        given = dataset.scaling if config.data.scaling == "auto" else None
        if given is not None and (given.offset, given.scale) != (own.offset, own.scale):
            found, allowed = (f"offset {_numbers(s.offset)} and scale {_numbers(s.scale)}" for s in (own, given))
            raise WeightsError(found, file=self.file, field="scaling", allowed=_that(allowed), hint=RESUME_HINT)
        if given is None and method not in ("auto", own.method):
            raise WeightsError(own.method, file=self.file, field="scaling", allowed=_that(method), hint=RESUME_HINT)
        if dtype != self.recipe.dtype and dataset.scaling is None:
            allowed = f"that of the images: {dtype}"
            raise WeightsError(self.recipe.dtype, file=self.file, field="dtype", allowed=allowed, hint=RESUME_HINT)
        return own

    def class_weights(self, method: str) -> list[float] | None:
        """The class weights of the checkpoint if the same `method` computed them, else None."""
        weights = self.recipe.class_weights
        return None if weights is None or self.weighting != method else list(weights)


def model_tensors(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of the model in a checkpoint, not averaged."""
    return {n.removeprefix(MODEL_PREFIX): t for n, t in checkpoint["state_dict"].items() if n.startswith(MODEL_PREFIX)}


def averaged_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The weights for a model file: the moving averages, or the weights where there are none."""
    ema = checkpoint[STATE]["ema"]
    return model_tensors(checkpoint) | (ema["averages"] if ema is not None else {})


def check_fit(checkpoint: dict[str, Any], task: Task, file: Path) -> None:
    """Compares a checkpoint, read from `file`, with the task that is to be trained further.

    Raises:
        WeightsError: version, classes, bands, architecture or tensors differ; the first five tensors are named.
    """
    resumed = ResumedRun.of(file, checkpoint)
    recipe = resumed.recipe
    fill(task.model, model_tensors(checkpoint), file=file)
    resumed.check(task.recipe.classes, task.recipe.bands, task.recipe.rules)
    before, after = _architecture(recipe, task), _architecture(task.recipe, task)
    for name in sorted(before.keys() | after.keys()):  # strides, bands, dilation: no tensor shows them
        was, now = before.get(name), after.get(name)
        if was != now:
            raise WeightsError(f"{was}", file=file, field=name, allowed=_that(f"{now}"))
    had = {n.removeprefix(CRITERION_PREFIX) for n in checkpoint["state_dict"] if n.startswith(CRITERION_PREFIX)}
    if had != set(task.criterion.state_dict()):
        found = f"a training {'with' if had else 'without'} deep supervision"
        raise WeightsError(found, file=file, field="loss.deep_supervision", allowed="the same on resuming, 0 or not")


def changed_data(checkpoint: dict[str, Any], task: Task) -> list[str]:
    """A line for each permitted change of dataset.yaml since the checkpoint: nodata, placement of tiles."""
    recipe = Recipe.from_json(checkpoint[STATE]["recipe"])
    found = []
    for name in ("nodata", "rules"):
        before, after = (json.dumps(getattr(one, name), sort_keys=True) for one in (recipe, task.recipe))
        if before != after:  # as text: NaN is NaN, and the order of keys is none
            found.append(f"{name}: {after}, was {before}")
    return found


def _resizing(rule: dict[str, Any] | None) -> str:
    """A resizing rule in words: "antialias True, shorter 80"."""
    return ", ".join(f"{name} {value}" for name, value in sorted((rule or {}).items()) if value is not None) or "none"


def _that(value: str) -> str:
    return f"that of the config: {value}"


def _those(values: str) -> str:
    return f"those of the config: {values}"


def _numbers(values: Any) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"


def _architecture(recipe: Recipe, task: Task) -> dict[str, Any]:
    """The architecture that a recipe describes, with all defaults filled in. task: has the tensors of the recipe."""
    parameters = inspect.signature(create_model).parameters.values()
    known = {p.name: p.default for p in parameters if p.default is not p.empty}
    given = {name: value or None if name.endswith("_options") else value for name, value in recipe.model.items()}
    model = {**known, **given}
    if model["strides"] == [4, 8, 16, 32]:
        model["strides"] = None  # the checkpoint has as many maps
    if isinstance(task.model.backbone, StageFusion):
        stages = [int(name.removeprefix("c")) for name, _ in task.model.backbone.main.named_children()]
        model["points"] = sorted(set(model["points"] or stages))
    del model["dropout"]  # of the training
    return {name: list(value) if isinstance(value, tuple) else value for name, value in model.items()}


def explain_optimizer_error(error: ValueError, file: Path | None) -> WeightsError | None:
    """The message for an optimizer state of other parameter groups; None for any other error."""
    if file is None or "parameter group" not in str(error):
        return None
    return WeightsError(
        "the optimizer's state is of other parameter groups",
        file=file,
        hint="leave --freeze and --optimizer as they were",
    )
