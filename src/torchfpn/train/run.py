"""A training from its config to its run folder: `fit`.

runs/<name>/config.yaml  env.json  metrics.csv  timing.csv  tb/  checkpoints/{last,previous,best}.ckpt
model.safetensors  validation.json  samples/*.png  report.html
"""

import contextlib
import json
import os
import shutil
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from torchfpn.config import TrainConfig, changed_settings, to_yaml
from torchfpn.config.check import check
from torchfpn.config.read import named
from torchfpn.config.settings import AUTO
from torchfpn.errors import ConfigError, FPNError, amount
from torchfpn.files.atomic import make_directory, sweep, write_text
from torchfpn.files.lock import NAME as LOCK
from torchfpn.files.lock import locked
from torchfpn.report.console import Console
from torchfpn.train.board import Board
from torchfpn.train.build import Parts, build, open_dataset, settle_weights, ways_to_weights, weights_in_words
from torchfpn.train.checkpoints import STATE, AtomicCheckpointIO, newest, read
from torchfpn.train.environment import write_environment
from torchfpn.train.finish import MODEL, RunResult, finish
from torchfpn.train.folder import CHECKPOINTS, empty, find_folder, make_folder, probe
from torchfpn.train.journal import Journal
from torchfpn.train.keeper import Keeper
from torchfpn.train.loader import TrainLoader, ValidationLoader, explain
from torchfpn.train.machine import Machine, machine
from torchfpn.train.module import Training
from torchfpn.train.plan import best_by, columns, count, hurried, steps
from torchfpn.train.progress import Progress, watcher
from torchfpn.train.quiet import quiet
from torchfpn.train.resume import Past, changed_data, check_fit, explain_restore
from torchfpn.train.signals import Interrupted, StopRequest, watch_loaders

FOLDER_FOR_RANKS, CHECKPOINT_FOR_RANKS = "FPN_RUN_FOLDER", "FPN_RUN_CHECKPOINT"  # told by the first process of several
WEIGHTING_FOR_RANKS = "FPN_RUN_WEIGHTING"  # how classes were weighed before, which config.yaml says no more by then
COPIES = 3 * 4  # last, previous and one being written, each with weights, averages and two moments


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
