"""`fit`: trains from a config into a run folder, then scores the weights that are kept.

runs/<name>/config.yaml  env.json  metrics.csv  timing.csv  tb/  checkpoints/{last,previous,best}.ckpt
model.safetensors  validation.json  samples/*.png  report.html
"""

import contextlib
import csv
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count as count_up
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from rich.console import RenderableType
from rich.progress import track
from torch import Tensor

from torchfpn.config.checks import check
from torchfpn.config.parsing import changed_settings, named, to_yaml
from torchfpn.config.settings import AUTO, TrainConfig
from torchfpn.criteria.semantic import parse
from torchfpn.data.check import TRAIN, VALIDATE
from torchfpn.data.datasets import ObjectDataset, SemanticDataset
from torchfpn.data.sample import ObjectSample, Sample
from torchfpn.errors import ConfigError, FPNError, NotFiniteError, WeightsError, WriteError, amount
from torchfpn.evaluation.model import RegionEvaluation, evaluate, evaluate_regions
from torchfpn.io.atomic import NAME as LOCK
from torchfpn.io.atomic import locked, make_directory, sweep, write_bytes, write_text
from torchfpn.metrics.pixel_counts import plain
from torchfpn.report.console import Console
from torchfpn.report.objects import picture_names, write_pictures
from torchfpn.report.run import parse_scores, write_about
from torchfpn.report.sheets import side_by_side
from torchfpn.report.tables import class_table, precision_table
from torchfpn.tasks.storage import fill
from torchfpn.tasks.task import Precision, RegionTask, Task
from torchfpn.train.checkpoints import (
    STATE,
    AtomicCheckpointIO,
    Keeper,
    Past,
    changed_data,
    check_fit,
    explain_restore,
    kept_weights,
    newest,
    read,
)
from torchfpn.train.datamodule import (
    Parts,
    build,
    open_dataset,
    settle_weights,
    ways_to_weights,
    weights_in_words,
    whole_samples,
)
from torchfpn.train.loader import TrainLoader, ValidationLoader, explain
from torchfpn.train.logs import Board, Journal, quiet
from torchfpn.train.loop import Training
from torchfpn.train.progress import Progress, watcher
from torchfpn.train.run_folder import (
    CHECKPOINTS,
    Interrupted,
    Machine,
    StopRequest,
    empty,
    find_folder,
    machine,
    make_folder,
    probe,
    watch_loaders,
    write_environment,
)
from torchfpn.types import Batch

FIRST, SECOND, MASKS = ["objectness", "anchors"], ["classes", "boxes"], ["masks"]  # the losses of detectors
PICTURES = 8
MODEL = "model.safetensors"
log = logging.getLogger(__name__)
FOLDER_FOR_RANKS, CHECKPOINT_FOR_RANKS = "FPN_RUN_FOLDER", "FPN_RUN_CHECKPOINT"  # told by the first process of several
WEIGHTING_FOR_RANKS = "FPN_RUN_WEIGHTING"  # how classes were weighed before, which config.yaml says no more by then
COPIES = 3 * 4  # last, previous and one being written, each with weights, averages and two moments


def columns(config: TrainConfig, task: str, validated: Sequence[str]) -> list[str]:
    """The columns of metrics.csv. validated: the classes whose scores there will be; none without a validation."""
    if task != "semantic":
        return _of_objects(task == "instance", validated)
    deep = ["deep"] if config.loss.deep_supervision else []
    terms = [f"train/loss_{name}" for name in [*parse(config.loss.terms), *deep]]
    scores = [f"val/iou_{name}" for name in validated]
    validation = ["val/loss", "val/miou", "val/pixel_accuracy", *scores] if validated else []
    return ["epoch", "step", "lr", "train/loss", *terms, *validation]


def best_by(task: str) -> str:
    """The column that says which epoch was the best."""
    return {"semantic": "val/miou", "detection": "val/ap", "instance": "val/mask_ap"}[task]


def _of_objects(masks: bool, validated: Sequence[str]) -> list[str]:
    terms = [f"train/loss_{name}" for name in FIRST + SECOND + (MASKS if masks else [])]
    scores = ["val/ap", "val/ap50", "val/ap75"] + (["val/mask_ap", "val/mask_ap50"] if masks else [])
    validation = [*scores, *(f"val/ap_{name}" for name in validated)] if validated else []
    return ["epoch", "step", "lr", "train/loss", *terms, *validation]


def steps(config: TrainConfig, images: int, per_step: int) -> int:
    """Steps of an epoch: what is asked for, or the whole number nearest to one pass over the images; at least one.

    11 images at 8 a step make one step: each epoch draws other 8 of them.
    """
    wanted = config.steps_per_epoch or max(1, round(images / per_step))
    return count(config.limit_train_batches, wanted)


def count(limit: int | float | None, of: int) -> int:
    """How many of `of` things a limit leaves: a number of them, a share (at least one), or all."""
    if limit is None:
        return of
    return min(limit, of) if isinstance(limit, int) else max(min(1, of), int(limit * of))


def hurried(config: TrainConfig, out: str) -> TrainConfig:
    """The same training in one step and one image, below `out`."""
    return replace(config, out=out, resume=False, max_epochs=1, steps_per_epoch=1, limit_val_batches=1, num_workers=0)


@dataclass(frozen=True)
class Scored:
    """values: of validation.json. metrics: the few that sum them up. table: for a terminal."""

    values: dict[str, Any]
    metrics: dict[str, float | None]
    table: RenderableType


def score_pixels(task: Task, loader: ValidationLoader, machine: Machine, folder: Path, console: Console) -> Scored:
    """Of a class for every pixel; pictures of images all along the split go to samples/."""
    shown = _Shown(folder, len(loader))
    recipe = task.recipe

    def watch(sample: Sample, labels: Tensor) -> None:
        image, truth = sample.image.numpy(), sample.target.numpy()
        shown(
            sample.name,
            lambda: side_by_side(image, truth, labels.numpy(), recipe.colors, names=recipe.classes, bands=recipe.bands),
        )

    each = (Sample(batch.images[0], batch.targets[0], batch.names[0]) for batch in _batches(loader, console))
    source = whole_samples(loader.samples, SemanticDataset)
    values = evaluate(task, each, source=source, precision=_precision(machine), watch=watch).to_dict(VALIDATE)
    metrics = {"miou": values["miou"], "pixel_accuracy": values["pixel_accuracy"]}
    return Scored(values, metrics, class_table(parse_scores(values)))


def score_objects(task: Task, loader: ValidationLoader, machine: Machine, folder: Path, console: Console) -> Scored:
    """Of objects; pictures of images all along the split, of the worst and the best ones go to samples/."""
    each = (ObjectSample(batch.images[0], batch.targets[0], batch.names[0]) for batch in _batches(loader, console))
    source = whole_samples(loader.samples, ObjectDataset)
    found = evaluate_regions(task, each, source=source, precision=_precision(machine))
    sample, precision = loader.samples.__getitem__, _precision(machine)
    write_pictures(folder / "samples", picture_names(found), found, task, sample, precision=precision)
    values = found.to_dict(VALIDATE)
    return Scored(values, _summary(found), precision_table(values))


def _summary(found: RegionEvaluation) -> dict[str, float | None]:
    """AP of masks, or of boxes; None without an object in the truth."""
    return {"ap": plain(found.precisions.ap), "ap50": plain(found.precisions.ap50)}


class _Shown:
    """Keeps pictures of some images all along the split: neighbours in a split are often frames of one film."""

    def __init__(self, folder: Path, images: int) -> None:
        self.folder, self.numbers, self.apart = folder / "samples", count_up(), max(1, images // PICTURES)
        make_directory(self.folder)

    def __call__(self, name: str, picture: Callable[[], bytes]) -> None:
        number, between = divmod(next(self.numbers), self.apart)
        if number < PICTURES and between == 0:
            write_bytes(self.folder / f"{number:02d}-{Path(name).stem[:80]}.png", picture())


def _batches(loader: ValidationLoader, console: Console) -> Iterator[Batch]:
    yield from track(loader, "scoring", console=console, transient=True, disable=not console.is_terminal)


def _precision(machine: Machine) -> Precision:
    return "bf16" if machine.precision == "bf16-mixed" else "fp32"


@dataclass(frozen=True)
class RunResult:
    """What came of a training.

    metrics: the last row of metrics.csv, and of the kept weights "miou", "pixel_accuracy", or of objects "ap", "ap50"
    (of masks where there are any), fractions; None where there is nothing to score. model: the
    file of weights.
    unsaved: why the last checkpoint could not be written; None when it was.
    """

    folder: Path
    metrics: dict[str, float | None]
    model: Path
    unsaved: str | None = None


def finish(training: Training, parts: Parts, folder: Path, machine: Machine, console: Console) -> RunResult:
    """Puts the kept weights into the task and leaves model.safetensors, validation.json, samples/ and report.html.

    Raises:
        FPNError: something could not be written; nothing of the training is lost.
    """
    try:
        return _finish(training, parts, folder, machine, console)
    except OSError as error:
        reason = f"{error.file}: {error.reason}" if isinstance(error, WriteError) else str(error)
        raise FPNError(
            f"the results could not be written ({reason})",
            file=folder,
            hint="free disk space, then --resume writes them again",
        ) from error


def _finish(training: Training, parts: Parts, folder: Path, machine: Machine, console: Console) -> RunResult:
    keeper, task = training.keeper, parts.task
    origin = _take(training, console)
    model = folder / MODEL
    task.eval().save(model)
    row = keeper.journal.rows[-1] if keeper.journal.rows else {}
    metrics = {name: plain(value) for name, value in row.items()}
    try:
        metrics |= _score(training, folder, machine, console, origin)
    except NotFiniteError as error:  # the weights are good for other images
        log.warning("no scores of the %s weights: %s", origin, error)
    from torchfpn.report.html import write_report

    images = {name: len(samples) for name, samples in ((TRAIN, parts.train), (VALIDATE, parts.validate)) if samples}
    parameters = sum(each.numel() for each in task.model.parameters())
    seconds = _seconds(folder / "timing.csv")
    write_about(folder, seconds=seconds, parameters=parameters, images=images, weights=parts.weights)
    write_report(folder)
    console.print(f"{model}  {folder / 'report.html'}", soft_wrap=True)
    unsaved = None if keeper.failure is None else str(keeper.failure)
    return RunResult(folder, metrics, model, unsaved)


def _score(training: Training, folder: Path, machine: Machine, console: Console, origin: str) -> dict[str, Any]:
    """Writes validation.json and prints its table; the few numbers that sum it up, none without a validation split.

    Raises:
        NotFiniteError: the weights give NaN or infinity for an image.
    """
    if training.validation_loader is None:
        return {}
    task = training.task.to(machine.accelerator)
    score = score_objects if isinstance(task, RegionTask) else score_pixels
    with contextlib.closing(training.validation_loader.whole()) as loader:
        scored = score(task, loader, machine, folder, console)
    write_text(folder / "validation.json", json.dumps(scored.values) + "\n")
    console.print(f"validation of the {origin} weights")
    Console().print(scored.table)
    return scored.metrics


def _seconds(timing: Path) -> float:
    """All that training and validation took, over all the processes that took part."""
    if not timing.is_file():
        return 0.0
    with timing.open(newline="", encoding="utf-8") as file:
        return sum(float(row["train_s"]) + float(row["validate_s"]) for row in csv.DictReader(file))


def _take(training: Training, console: Console) -> str:
    """Puts the weights to keep into the task; "best" or "last"."""
    keeper, task = training.keeper, training.task
    if training.config.keep == "best" and keeper.best.is_file():
        try:
            fill(task.model, kept_weights(read(keeper.best)), file=keeper.best)
            return f"best (epoch {keeper.best_epoch})"
        except WeightsError as error:
            console.print(f"{error}; the last weights are kept instead", soft_wrap=True)
    if training.averages is not None:
        task.model.load_state_dict(task.model.state_dict() | training.averages.named())
    elif training.position.step == 0:  # nothing was trained in this process
        fill(task.model, kept_weights(read(keeper.last)), file=keeper.last)
    return "last"


def fit(config: TrainConfig, *, console: Console | None = None) -> RunResult:
    """Trains as `config` says, or goes on where a training was stopped; what people see goes to `console` (stderr).

    Raises:
        FPNError: something in config, data, machine or checkpoint that the user can mend.
        Interrupted: a signal stopped it; the state is saved.
    """
    rank = _rank()
    config = named(config)
    check(config)
    console = console or Console(stderr=True)
    with StopRequest() as stop, quiet(), contextlib.ExitStack() as stack:
        if config.fast_dev_run:
            config = hurried(config, stack.enter_context(tempfile.TemporaryDirectory()))
        result = _Run(config, stop, console, rank).go(stack)
        if config.fast_dev_run:
            console.print("dry run complete; nothing was kept")
        return result


def _rank() -> int:
    """The number of this process: 0 for the first one, which decides and then starts the others itself.

    Raises:
        ConfigError: torchrun or another program started it as one of several; none of them knows what to do.
    """
    text = os.environ.get("LOCAL_RANK", "0")
    if not text.isdecimal():
        raise ConfigError(f'"{text}"', field="LOCAL_RANK", allowed="a number from 0", hint="unset LOCAL_RANK")
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"
    if by_torchrun or (text != "0" and FOLDER_FOR_RANKS not in os.environ):
        found = f"process {text} of several that another program started (LOCAL_RANK={text})"
        raise ConfigError(found, hint="start fpn train once, without torchrun: --devices N starts N processes")
    return int(text)


class _Run:
    """The steps of `fit`, in order."""

    def __init__(self, config: TrainConfig, stop: StopRequest, console: Console, rank: int) -> None:
        self.config, self.stop, self.console = config, stop, console
        self.dataset = open_dataset(config)
        self.machine: Machine = machine(config)
        self.rank = rank
        self.checkpoint: dict[str, Any] | None = None
        self.resumed: Path | None = None
        self.past: Past | None = None

    def go(self, stack: contextlib.ExitStack) -> RunResult:
        """The whole way."""
        found = self._found(stack) if self.rank == 0 else None
        self._settle_weights(found)
        watch = partial(watcher, self.console)
        self.past = self._past()
        parts = build(self.config, self.dataset, watch, checked=self.rank == 0, past=self.past)
        for note in parts.notes:
            self._say(f"note: {note}")
        folder = self._folder(found, parts)
        if self.rank == 0:
            try:
                if found is None:
                    stack.enter_context(locked(folder / LOCK))
                self._prepare(folder, found, parts)
            except FPNError:
                if found is None and not self.config.overwrite:  # made by this run: in its way when it is started again
                    shutil.rmtree(folder, ignore_errors=True)
                raise
        training = self._training(folder, parts)
        stack.callback(training.close)
        if not self._is_done(training):
            self._train(training, folder)
        if self.rank:
            return RunResult(folder, {}, folder / MODEL)
        return finish(training, parts, folder, self.machine, self.console)

    def _found(self, stack: contextlib.ExitStack) -> Path | None:
        """The run folder to go on in, locked, and its checkpoint read; None where a training begins."""
        found = find_folder(self.config) if self.config.resume else None
        probe(Path(self.config.out) if found is None else found[0], 0)  # before the dataset is read: that may take long
        if found is None:
            if self.config.resume:
                self._say(f'{self.config.out}: no run of the name "{self.config.name}" yet; starts from the beginning')
            return None
        stack.enter_context(locked(found[0] / LOCK))
        self._open_checkpoint(*found)
        return found[0]

    def _settle_weights(self, before: Path | None) -> None:
        """Decides which weights the model begins from, and says it where a training begins."""
        if self.rank:  # the first process has decided, and written it down
            before = Path(os.environ[FOLDER_FOR_RANKS])
        asked, self.config = self.config.model.pretrained, settle_weights(self.config, before)
        if before is None:
            ways = f"; {ways_to_weights(self.config)}" if asked == AUTO and not self.config.model.pretrained else ""
            self._say(f"weights: {weights_in_words(self.config)}{ways}")

    def _prepare(self, folder: Path, found: Path | None, parts: Parts) -> None:
        """The folder as a training needs it, in the first of the processes that train."""
        sweep(folder)
        if self.checkpoint is not None:
            self._take_up(folder, self.checkpoint, parts)
        elif found is None and self.config.overwrite:
            empty(folder)
        make_directory(folder / CHECKPOINTS)
        kept = replace(self.config, resume=False, overwrite=False)
        write_text(folder / "config.yaml", to_yaml(kept, folder=folder))
        write_environment(folder / "env.json", self.machine)
        os.environ[FOLDER_FOR_RANKS] = str(folder.absolute())
        os.environ[CHECKPOINT_FOR_RANKS] = str(self.resumed or "")
        os.environ[WEIGHTING_FOR_RANKS] = json.dumps(None if self.past is None else self.past.weighting)

    def _folder(self, found: Path | None, parts: Parts) -> Path:
        if self.rank:
            return Path(os.environ[FOLDER_FOR_RANKS])
        weights = sum(p.numel() * p.element_size() for p in parts.task.model.parameters())
        if found is not None:
            probe(found, COPIES // 3 * weights)
        else:
            probe(Path(self.config.out), COPIES * weights)
        return found or make_folder(self.config)

    def _open_checkpoint(self, folder: Path, file: Path | None) -> None:
        """Reads the checkpoint to go on from: the newest one, or `file`."""
        found = newest(folder / CHECKPOINTS) if file is None else (file, read(file), [])
        if found is None:
            self._say(f"{folder}: no checkpoint yet; starts from the beginning")
            return
        self.resumed, self.checkpoint, complaints = found
        for complaint in complaints:
            self._say(f"{complaint}; resuming from {self.resumed.name}, the checkpoint before it")

    def _past(self) -> Past | None:
        """What the checkpoint to go on from says of the training; the first of several processes has found the file."""
        if self.rank and os.environ.get(CHECKPOINT_FOR_RANKS):
            self.resumed = Path(os.environ[CHECKPOINT_FOR_RANKS])
            weighting = json.loads(os.environ.get(WEIGHTING_FOR_RANKS, "null"))
            return Past.of(self.resumed, read(self.resumed))._replace(weighting=weighting)
        if self.resumed is None or self.checkpoint is None:
            return None
        return Past.of(self.resumed, self.checkpoint)

    def _take_up(self, folder: Path, checkpoint: dict[str, Any], parts: Parts) -> None:
        """Makes sure that the checkpoint is of this training, and says what is not as it was."""
        assert self.resumed is not None  # it was read from there
        check_fit(checkpoint, parts.task, self.resumed)
        changed = changed_settings(folder / "config.yaml", self.config) + changed_data(checkpoint, parts.task)
        if changed:
            self._say(f"{folder}: not as before: {'; '.join(changed)}")
        position = checkpoint[STATE]["position"]
        self._say(f"{folder}: resuming after step {position['step']}, in epoch {position['epoch'] + 1}")

    def _training(self, folder: Path, parts: Parts) -> Training:
        config, world = self.config, self.machine.devices
        step_size = config.batch_size * config.accumulate
        loader = TrainLoader(
            parts.train,
            step_size=step_size,
            steps=steps(config, len(parts.train), step_size * world),
            seed=config.seed,
            workers=self.machine.workers,
            rank=self.rank,
            world=world,
        )
        validate = None
        if parts.validate is not None and (images := count(config.limit_val_batches, len(parts.validate))):
            workers = self.machine.workers
            validate = ValidationLoader(parts.validate, count=images, workers=workers, rank=self.rank, world=world)
        names = columns(config, parts.dataset.task, parts.task.classes if validate is not None else ())
        keeper = Keeper(folder, Journal(names), patience=config.early_stop, by=best_by(parts.dataset.task))
        training = Training(parts.task, config, train=loader, validate=validate, keeper=keeper, stop=self.stop)
        return training.train()

    def _is_done(self, training: Training) -> bool:
        """Whether the checkpoint is of a training that had ended, and only what comes after it is left to do."""
        if self.checkpoint is None:
            return False
        state = self.checkpoint[STATE]
        training.keeper.load_state_dict(state["keeper"])
        training.keeper.journal.load_state_dict(state["journal"])
        training.keeper.journal.write(training.keeper.folder / "metrics.csv")
        return state["position"]["epoch"] >= self.config.max_epochs or training.keeper.exhausted

    def _train(self, training: Training, folder: Path) -> None:
        config, checkpoints = self.config, AtomicCheckpointIO()
        checkpoints.loaded, self.checkpoint = self.checkpoint, None
        progress = Progress(self.console, folder)
        trainer = pl.Trainer(
            accelerator=self.machine.accelerator,
            devices=self.machine.devices,
            strategy=config.strategy,
            precision=self.machine.precision,  # type: ignore[arg-type]
            max_epochs=config.max_epochs,
            check_val_every_n_epoch=config.val_every,
            limit_val_batches=None if training.validation_loader is not None else 0,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[checkpoints],
            callbacks=[progress] if self.rank == 0 else [],
        )
        if self.rank == 0:
            self._introduce(training, folder)
        watch_loaders()
        board = Board(folder / "tb", training.position.step)
        training.after_epoch.append(lambda done: board.add(done.row, done.position.step))
        with self.stop.graceful():
            try:
                trainer.fit(training, ckpt_path=self.resumed)
            except RuntimeError as error:
                told = explain(error, self.machine.workers)
                if self.stop.signum is not None and told is not None:  # the signal went to the loaders too
                    raise Interrupted(self.stop.signum) from error
                if told is not None:
                    raise told from error
                raise
            except ValueError as error:
                if (other := explain_restore(error, self.resumed)) is not None:
                    raise other from error
                raise
        if self.stop.signum is not None:  # it came after the last step
            raise Interrupted(self.stop.signum, saved=training.keeper.failure is None)

    def _introduce(self, training: Training, folder: Path) -> None:
        weights = sum(p.numel() for p in training.task.model.parameters()) / 1e6
        model = f"{self.config.model.pyramid} on {self.config.model.backbone}, {weights:.1f} M weights"
        loader = training.train_loader
        samples = loader.loader.dataset.samples  # type: ignore[attr-defined]
        what = "crops" if getattr(samples, "scenes", None) else "images"
        images = f"{len(samples)} {what}, {amount(loader.steps, 'step')} an epoch"
        self._say(f"{folder}: {model}; {images}; {self.machine.device}, {self.machine.precision}")

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)
