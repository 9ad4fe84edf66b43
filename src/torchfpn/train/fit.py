"""`fit`: trains from a config into a run folder, then scores the weights that are kept.

runs/<name>/config.yaml  env.json  metrics.csv  timing.csv  tb/  checkpoints/{last,previous,best}.ckpt
model.safetensors  validation.json  samples/*.png  report.html
"""

import contextlib
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
from torchfpn.criteria.panoptic import SEMANTIC
from torchfpn.criteria.semantic import parse
from torchfpn.data.check import TRAIN, VALIDATE
from torchfpn.data.datasets import ObjectDataset, SemanticDataset
from torchfpn.data.sample import ObjectSample, Sample
from torchfpn.errors import ConfigError, FPNError, NotFiniteError, WeightsError, WriteError, amount
from torchfpn.evaluation.model import ObjectEvaluation, evaluate_objects, evaluate_pixels
from torchfpn.evaluation.panoptic_model import PANOPTIC_COLUMNS, evaluate_panoptic
from torchfpn.io.atomic import NAME as LOCK
from torchfpn.io.atomic import locked, make_directory, sweep, write_bytes, write_text
from torchfpn.metrics.pixel_counts import plain
from torchfpn.report.console import Console
from torchfpn.report.objects import picture_names, write_pictures
from torchfpn.report.panoptic import write_panoptic_pictures
from torchfpn.report.run import parse_scores, write_about
from torchfpn.report.sheets import side_by_side
from torchfpn.report.tables import class_table, panoptic_table, precision_table
from torchfpn.tasks.panoptic import PanopticTask
from torchfpn.tasks.storage import fill
from torchfpn.tasks.task import Precision, RegionTask, Task
from torchfpn.train.checkpoints import (
    STATE,
    AtomicCheckpointIO,
    CheckpointManager,
    ResumedRun,
    averaged_weights,
    changed_data,
    check_fit,
    explain_optimizer_error,
    read,
    read_newest,
)
from torchfpn.train.datamodule import (
    TrainingSetup,
    build,
    describe_weights,
    full_dataset,
    open_dataset,
    resolve_pretrained,
    weights_hint,
)
from torchfpn.train.loader import TrainLoader, ValidationLoader, explain_loader_error
from torchfpn.train.logs import MetricsTable, TensorBoardLog, quiet, total_seconds
from torchfpn.train.loop import Training
from torchfpn.train.progress import Progress, watcher
from torchfpn.train.run_folder import (
    CHECKPOINTS,
    Interrupted,
    Machine,
    StopRequest,
    check_writable,
    clear_folder,
    find_folder,
    machine,
    make_folder,
    watch_loaders,
    write_environment,
)
from torchfpn.types import Batch

RPN_LOSSES, BOX_LOSSES, MASK_LOSSES = ["objectness", "anchors"], ["classes", "boxes"], ["masks"]
SAMPLE_PICTURES = 8  # in samples/, evenly spread over the validation split
MODEL = "model.safetensors"
log = logging.getLogger(__name__)

# Environment variables by which the first of several processes tells the others what it has found.
FOLDER_FOR_RANKS, CHECKPOINT_FOR_RANKS = "FPN_RUN_FOLDER", "FPN_RUN_CHECKPOINT"
WEIGHTING_FOR_RANKS = "FPN_RUN_WEIGHTING"  # `ResumedRun.weighting`: config.yaml is overwritten by then

COPIES = 3 * 4  # last, previous and one being written, each with weights, averages and two moments


def metrics_columns(config: TrainConfig, task: str, validated: Sequence[str]) -> list[str]:
    """The columns of metrics.csv. task: as in dataset.yaml. validated: the classes that are scored, empty for none."""
    if task == "panoptic":
        terms = [f"train/loss_{name}" for name in [*RPN_LOSSES, *BOX_LOSSES, *MASK_LOSSES, SEMANTIC]]
        validation = [*PANOPTIC_COLUMNS, *(f"val/pq_{name}" for name in validated)] if validated else []
        return ["epoch", "step", "lr", "train/loss", *terms, *validation]
    if task != "semantic":
        return _object_columns(task == "instance", validated)
    deep = ["deep"] if config.loss.deep_supervision else []
    terms = [f"train/loss_{name}" for name in [*parse(config.loss.terms), *deep]]
    scores = [f"val/iou_{name}" for name in validated]
    validation = ["val/loss", "val/miou", "val/pixel_accuracy", *scores] if validated else []
    return ["epoch", "step", "lr", "train/loss", *terms, *validation]


def score_column(task: str) -> str:
    """The column of metrics.csv that selects the best epoch."""
    return {"semantic": "val/miou", "detection": "val/ap", "instance": "val/mask_ap", "panoptic": "val/pq"}[task]


def _object_columns(masks: bool, validated: Sequence[str]) -> list[str]:
    terms = [f"train/loss_{name}" for name in RPN_LOSSES + BOX_LOSSES + (MASK_LOSSES if masks else [])]
    scores = ["val/ap", "val/ap50", "val/ap75"] + (["val/mask_ap", "val/mask_ap50"] if masks else [])
    validation = [*scores, *(f"val/ap_{name}" for name in validated)] if validated else []
    return ["epoch", "step", "lr", "train/loss", *terms, *validation]


def steps(config: TrainConfig, images: int, per_step: int) -> int:
    """Steps of an epoch: `config.steps_per_epoch`, or one pass over the images rounded to whole steps, at least one.

    With 11 images and 8 a step, an epoch is one step and draws other 8 images each time.
    """
    wanted = config.steps_per_epoch or max(1, round(images / per_step))
    return count(config.limit_train_batches, wanted)


def count(limit: int | float | None, of: int) -> int:
    """What a limit leaves of `of` batches or images: an int is a number, a float a share (at least one)."""
    if limit is None:
        return of
    return min(limit, of) if isinstance(limit, int) else max(min(1, of), int(limit * of))


def fast_dev_config(config: TrainConfig, out: str) -> TrainConfig:
    """The same training in one step and one validation image, below `out`."""
    return replace(config, out=out, resume=False, max_epochs=1, steps_per_epoch=1, limit_val_batches=1, num_workers=0)


@dataclass(frozen=True)
class Scored:
    """values: of validation.json. metrics: the main ones among them. table: for a terminal."""

    values: dict[str, Any]
    metrics: dict[str, float | None]
    table: RenderableType


def score_pixels(task: Task, loader: ValidationLoader, machine: Machine, folder: Path, console: Console) -> Scored:
    """Scores of semantic segmentation; pictures of images evenly spread over the split go to samples/."""
    shown = _SamplePictures(folder, len(loader))
    recipe = task.recipe

    def watch(sample: Sample, labels: Tensor) -> None:
        image, truth = sample.image.numpy(), sample.target.numpy()
        shown(
            sample.name,
            lambda: side_by_side(image, truth, labels.numpy(), recipe.colors, names=recipe.classes, bands=recipe.bands),
        )

    each = (Sample(batch.images[0], batch.targets[0], batch.names[0]) for batch in _batches(loader, console))
    source = full_dataset(loader.samples, SemanticDataset)
    values = evaluate_pixels(task, each, source=source, precision=_precision(machine), watch=watch).to_dict(VALIDATE)
    metrics = {"miou": values["miou"], "pixel_accuracy": values["pixel_accuracy"]}
    return Scored(values, metrics, class_table(parse_scores(values)))


def score_objects(task: Task, loader: ValidationLoader, machine: Machine, folder: Path, console: Console) -> Scored:
    """Scores of a detector; pictures of images evenly spread, of the worst and of the best ones go to samples/."""
    each = (ObjectSample(batch.images[0], batch.targets[0], batch.names[0]) for batch in _batches(loader, console))
    source = full_dataset(loader.samples, ObjectDataset)
    found = evaluate_objects(task, each, source=source, precision=_precision(machine))
    sample, precision = loader.samples.__getitem__, _precision(machine)
    write_pictures(folder / "samples", picture_names(found), found, task, sample, precision=precision)
    values = found.to_dict(VALIDATE)
    return Scored(values, _summary(found), precision_table(values))


def score_panoptic(task: Task, loader: ValidationLoader, machine: Machine, folder: Path, console: Console) -> Scored:
    """Scores of a panoptic model; pictures of images evenly spread, of the worst and the best ones go to samples/."""
    assert isinstance(task, PanopticTask)
    source, precision = full_dataset(loader.samples, ObjectDataset), _precision(machine)
    found = evaluate_panoptic(task, _panoptic_samples(loader, console), source=source, precision=precision)
    write_panoptic_pictures(folder / "samples", found, task, loader.samples.__getitem__, precision=precision)
    values = found.to_dict(VALIDATE)
    metrics = {"pq": plain(found.quality.pq), "sq": plain(found.quality.sq), "rq": plain(found.quality.rq)}
    return Scored(values, metrics, panoptic_table(values))


def _panoptic_samples(loader: ValidationLoader, console: Console) -> Iterator[ObjectSample]:
    for batch in _batches(loader, console):
        targets = batch.targets
        segments = None if targets.segments is None else targets.segments[0]
        yield ObjectSample(batch.images[0], targets.objects[0], batch.names[0], targets.semantic[0], segments)


def _summary(found: ObjectEvaluation) -> dict[str, float | None]:
    """AP of masks, or of boxes; None without objects in the ground truth."""
    return {"ap": plain(found.precisions.ap), "ap50": plain(found.precisions.ap50)}


class _SamplePictures:
    """Writes pictures of images evenly spread over the split: neighbours are often frames of one film."""

    def __init__(self, folder: Path, images: int) -> None:
        self.folder, self.numbers, self.apart = folder / "samples", count_up(), max(1, images // SAMPLE_PICTURES)
        make_directory(self.folder)

    def __call__(self, name: str, picture: Callable[[], bytes]) -> None:
        number, between = divmod(next(self.numbers), self.apart)
        if number < SAMPLE_PICTURES and between == 0:
            write_bytes(self.folder / f"{number:02d}-{Path(name).stem[:80]}.png", picture())


def _batches(loader: ValidationLoader, console: Console) -> Iterator[Batch]:
    yield from track(loader, "scoring", console=console, transient=True, disable=not console.is_terminal)


def _precision(machine: Machine) -> Precision:
    return "bf16" if machine.precision == "bf16-mixed" else "fp32"


@dataclass(frozen=True)
class RunResult:
    """The result of `fit`.

    folder: the run folder. metrics: the last row of metrics.csv, and the scores of the kept weights: "miou",
    "pixel_accuracy"; "ap", "ap50" of masks or boxes; or "pq", "sq", "rq"; from 0 to 1, None without ground truth.
    model: the model file. unsaved: why the last checkpoint could not be written, None if it was.
    """

    folder: Path
    metrics: dict[str, float | None]
    model: Path
    unsaved: str | None = None


def finish(training: Training, setup: TrainingSetup, folder: Path, machine: Machine, console: Console) -> RunResult:
    """Loads the kept weights into the task and writes model.safetensors, validation.json, samples/ and report.html.

    Raises:
        FPNError: a file cannot be written; the training is saved, and `resume` writes the files again.
    """
    try:
        return _finish(training, setup, folder, machine, console)
    except OSError as error:
        reason = f"{error.file}: {error.reason}" if isinstance(error, WriteError) else str(error)
        raise FPNError(
            f"the results could not be written ({reason})",
            file=folder,
            hint="free disk space, then --resume writes them again",
        ) from error


def _finish(training: Training, setup: TrainingSetup, folder: Path, machine: Machine, console: Console) -> RunResult:
    checkpoints, task = training.checkpoints, setup.task
    origin = _load_kept_weights(training, console)
    model = folder / MODEL
    task.eval().save(model)
    row = checkpoints.metrics.rows[-1] if checkpoints.metrics.rows else {}
    metrics = {name: plain(value) for name, value in row.items()}
    try:
        metrics |= _score(training, folder, machine, console, origin)
    except NotFiniteError as error:  # the weights may be good for other images
        log.warning("no scores of the %s weights: %s", origin, error)
    from torchfpn.report.html import write_report

    images = {name: len(samples) for name, samples in ((TRAIN, setup.train), (VALIDATE, setup.validate)) if samples}
    parameters = sum(each.numel() for each in task.model.parameters())
    write_about(folder, seconds=total_seconds(folder), parameters=parameters, images=images, weights=setup.weights)
    write_report(folder)
    console.print(f"{model}  {folder / 'report.html'}", soft_wrap=True)
    unsaved = None if checkpoints.failure is None else str(checkpoints.failure)
    return RunResult(folder, metrics, model, unsaved)


def _score(training: Training, folder: Path, machine: Machine, console: Console, origin: str) -> dict[str, Any]:
    """Writes validation.json and prints its table; returns the main scores, none without a validation split.

    Raises:
        NotFiniteError: the weights give NaN or infinity for an image.
    """
    if training.validation_loader is None:
        return {}
    task = training.task.to(machine.accelerator)
    score = score_objects if isinstance(task, RegionTask) else score_pixels
    score = score_panoptic if isinstance(task, PanopticTask) else score
    with contextlib.closing(training.validation_loader.whole()) as loader:
        scored = score(task, loader, machine, folder, console)
    write_text(folder / "validation.json", json.dumps(scored.values) + "\n")
    console.print(f"validation of the {origin} weights")
    Console().print(scored.table)
    return scored.metrics


def _load_kept_weights(training: Training, console: Console) -> str:
    """Loads the weights that are kept into the task; returns "best (epoch N)" or "last"."""
    checkpoints, task = training.checkpoints, training.task
    if training.config.keep == "best" and checkpoints.best.is_file():
        try:
            fill(task.model, averaged_weights(read(checkpoints.best)), file=checkpoints.best)
            return f"best (epoch {checkpoints.best_epoch})"
        except WeightsError as error:
            console.print(f"{error}; the last weights are kept instead", soft_wrap=True)
    if training.averages is not None:
        task.model.load_state_dict(task.model.state_dict() | training.averages.named())
    elif training.position.step == 0:  # resumed after its end: this process did not train
        fill(task.model, averaged_weights(read(checkpoints.last)), file=checkpoints.last)
    return "last"


def fit(config: TrainConfig, *, console: Console | None = None) -> RunResult:
    """Trains a model as `fpn train` does, or resumes a training, and writes its run folder.

    Args:
        config: every setting of the training; `config.resume` continues an earlier one.
        console: receives the progress; by default stderr.

    Returns:
        The run folder, the model file and the scores of the kept weights.

    Raises:
        FPNError: a setting, a file, the machine or a checkpoint does not fit; the message says what to change.
        Interrupted: a signal stopped the training; `saved` says whether the state of the last step is saved.
    """
    rank = _rank()
    config = named(config)
    check(config)
    console = console or Console(stderr=True)
    with StopRequest() as stop, quiet(), contextlib.ExitStack() as stack:
        if config.fast_dev_run:
            config = fast_dev_config(config, stack.enter_context(tempfile.TemporaryDirectory()))
        result = _Run(config, stop, console, rank).go(stack)
        if config.fast_dev_run:
            console.print("dry run complete; nothing was kept")
        return result


def _rank() -> int:
    """The number of this process among those that train together; process 0 starts the others itself.

    Raises:
        ConfigError: torchrun or another program started several processes.
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
        self.checkpoint_file: Path | None = None
        self.resumed: ResumedRun | None = None

    def go(self, stack: contextlib.ExitStack) -> RunResult:
        """Runs all steps; `stack` holds locks and loader processes until the end."""
        found = self._find_run(stack) if self.rank == 0 else None
        self._resolve_pretrained(found)
        watch = partial(watcher, self.console)
        self.resumed = self._resumed_run()
        setup = build(self.config, self.dataset, watch, checked=self.rank == 0, resumed=self.resumed)
        for note in setup.notes:
            self._say(f"note: {note}")
        folder = self._folder(found, setup)
        if self.rank == 0:
            try:
                if found is None:
                    stack.enter_context(locked(folder / LOCK))
                self._prepare(folder, found, setup)
            except FPNError:
                if found is None and not self.config.overwrite:  # made by this run: in its way when it is started again
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            self._tell_ranks(folder, stack)
        training = self._training(folder, setup)
        stack.callback(training.close)
        if not self._is_finished(training):
            self._train(training, folder)
        if self.rank:
            return RunResult(folder, {}, folder / MODEL)
        return finish(training, setup, folder, self.machine, self.console)

    def _find_run(self, stack: contextlib.ExitStack) -> Path | None:
        """The run folder to resume in, locked, with its checkpoint read; None for a new training."""
        found = find_folder(self.config) if self.config.resume else None
        check_writable(
            Path(self.config.out) if found is None else found[0], 0
        )  # before the dataset is read: that may take long
        if found is None:
            if self.config.resume:
                self._say(f'{self.config.out}: no run of the name "{self.config.name}" yet; starts from the beginning')
            return None
        stack.enter_context(locked(found[0] / LOCK))
        self._open_checkpoint(*found)
        return found[0]

    def _resolve_pretrained(self, before: Path | None) -> None:
        """Resolves `model.pretrained: auto`; a new training prints where its weights come from."""
        if self.rank:  # config.yaml, written by the first process, has the decision
            before = Path(os.environ[FOLDER_FOR_RANKS])
        requested, self.config = self.config.model.pretrained, resolve_pretrained(self.config, before)
        if before is None:
            ways = f"; {weights_hint(self.config)}" if requested == AUTO and not self.config.model.pretrained else ""
            self._say(f"weights: {describe_weights(self.config)}{ways}")

    def _prepare(self, folder: Path, found: Path | None, setup: TrainingSetup) -> None:
        """Prepares the run folder, in the first process."""
        sweep(folder)
        if self.checkpoint is not None:
            self._check_resume(folder, self.checkpoint, setup)
        elif found is None and self.config.overwrite:
            clear_folder(folder)
        make_directory(folder / CHECKPOINTS)
        kept = replace(self.config, resume=False, overwrite=False)
        write_text(folder / "config.yaml", to_yaml(kept, folder=folder))
        write_environment(folder / "env.json", self.machine)

    def _tell_ranks(self, folder: Path, stack: contextlib.ExitStack) -> None:
        """Sets the environment variables that the other processes inherit; `stack` removes them."""
        weighting = None if self.resumed is None else self.resumed.weighting
        told = {FOLDER_FOR_RANKS: str(folder.absolute()), CHECKPOINT_FOR_RANKS: str(self.checkpoint_file or "")}
        told[WEIGHTING_FOR_RANKS] = json.dumps(weighting)
        os.environ |= told
        for name in told:
            stack.callback(os.environ.pop, name, None)

    def _folder(self, found: Path | None, setup: TrainingSetup) -> Path:
        if self.rank:
            return Path(os.environ[FOLDER_FOR_RANKS])
        weights = sum(p.numel() * p.element_size() for p in setup.task.model.parameters())
        if found is not None:
            check_writable(found, COPIES // 3 * weights)
        else:
            check_writable(Path(self.config.out), COPIES * weights)
        return found or make_folder(self.config)

    def _open_checkpoint(self, folder: Path, file: Path | None) -> None:
        """Reads the checkpoint to resume from: `file`, or the newest one."""
        found = read_newest(folder / CHECKPOINTS) if file is None else (file, read(file), [])
        if found is None:
            self._say(f"{folder}: no checkpoint yet; starts from the beginning")
            return
        self.checkpoint_file, self.checkpoint, complaints = found
        for complaint in complaints:
            self._say(f"{complaint}; resuming from {self.checkpoint_file.name}, the checkpoint before it")

    def _resumed_run(self) -> ResumedRun | None:
        """What the checkpoint says of the training; the first of several processes has found its file."""
        if self.rank and os.environ.get(CHECKPOINT_FOR_RANKS):
            self.checkpoint_file = Path(os.environ[CHECKPOINT_FOR_RANKS])
            weighting = json.loads(os.environ.get(WEIGHTING_FOR_RANKS, "null"))
            return ResumedRun.of(self.checkpoint_file, read(self.checkpoint_file))._replace(weighting=weighting)
        if self.checkpoint_file is None or self.checkpoint is None:
            return None
        return ResumedRun.of(self.checkpoint_file, self.checkpoint)

    def _check_resume(self, folder: Path, checkpoint: dict[str, Any], setup: TrainingSetup) -> None:
        """Checks that the checkpoint belongs to this training, and prints what has changed since."""
        assert self.checkpoint_file is not None  # it was read from there
        check_fit(checkpoint, setup.task, self.checkpoint_file)
        changed = changed_settings(folder / "config.yaml", self.config) + changed_data(checkpoint, setup.task)
        if changed:
            self._say(f"{folder}: not as before: {'; '.join(changed)}")
        position = checkpoint[STATE]["position"]
        self._say(f"{folder}: resuming after step {position['step']}, in epoch {position['epoch'] + 1}")

    def _training(self, folder: Path, setup: TrainingSetup) -> Training:
        config, world = self.config, self.machine.devices
        step_size = config.batch_size * config.accumulate
        loader = TrainLoader(
            setup.train,
            step_size=step_size,
            steps=steps(config, len(setup.train), step_size * world),
            seed=config.seed,
            workers=self.machine.workers,
            rank=self.rank,
            world=world,
        )
        validate = None
        if setup.validate is not None and (images := count(config.limit_val_batches, len(setup.validate))):
            workers = self.machine.workers
            validate = ValidationLoader(setup.validate, count=images, workers=workers, rank=self.rank, world=world)
        names = metrics_columns(config, setup.dataset.task, setup.task.classes if validate is not None else ())
        checkpoints = CheckpointManager(
            folder, MetricsTable(names), patience=config.early_stop, score_column=score_column(setup.dataset.task)
        )
        training = Training(
            setup.task, config, train=loader, validate=validate, checkpoints=checkpoints, stop=self.stop
        )
        return training.train()

    def _is_finished(self, training: Training) -> bool:
        """Whether the resumed training had reached its end, so that only the results have to be written."""
        if self.checkpoint is None:
            return False
        state = self.checkpoint[STATE]
        training.checkpoints.load_state_dict(state["keeper"])
        training.checkpoints.metrics.load_state_dict(state["journal"])
        training.checkpoints.metrics.write(training.checkpoints.folder / "metrics.csv")
        return state["position"]["epoch"] >= self.config.max_epochs or training.checkpoints.exhausted

    def _train(self, training: Training, folder: Path) -> None:
        config, checkpoint_io = self.config, AtomicCheckpointIO()
        checkpoint_io.loaded, self.checkpoint = self.checkpoint, None
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
            plugins=[checkpoint_io],
            callbacks=[progress] if self.rank == 0 else [],
        )
        if self.rank == 0:
            self._print_summary(training, folder)
        watch_loaders()
        tensorboard = TensorBoardLog(folder / "tb", training.position.step)
        training.after_epoch.append(lambda done: tensorboard.add(done.row, done.position.step))
        with self.stop.graceful():
            try:
                trainer.fit(training, ckpt_path=self.checkpoint_file)
            except RuntimeError as error:
                explained = explain_loader_error(error, self.machine.workers)
                if self.stop.signum is not None and explained is not None:  # loader processes got it too
                    raise Interrupted(self.stop.signum) from error
                if explained is not None:
                    raise explained from error
                raise
            except ValueError as error:
                if (unfit := explain_optimizer_error(error, self.checkpoint_file)) is not None:
                    raise unfit from error
                raise
        if self.stop.signum is not None:  # it came after the last step
            raise Interrupted(self.stop.signum, saved=training.checkpoints.failure is None)

    def _print_summary(self, training: Training, folder: Path) -> None:
        weights = sum(p.numel() for p in training.task.model.parameters()) / 1e6
        model = f"{self.config.model.pyramid} on {self.config.model.backbone}, {weights:.1f} M weights"
        loader = training.train_loader
        samples = loader.loader.dataset.samples  # type: ignore[attr-defined]
        what = "crops" if getattr(samples, "scenes", None) else "images"
        images = f"{len(samples)} {what}, {amount(loader.steps, 'step')} an epoch"
        self._say(f"{folder}: {model}; {images}; {self.machine.device}, {self.machine.precision}")

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)
