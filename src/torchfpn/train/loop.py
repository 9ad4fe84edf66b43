"""The training loop: a LightningModule over a Task, its training step, and its state at any step.

Lightning moves tensors, runs the loops and writes checkpoints. The progress of its loops is removed from the
checkpoints: `Position` says all, so a resumed run enters Lightning's loops like a new one, at its epoch.
"""

import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from torchfpn.config.settings import TrainConfig
from torchfpn.data.datasets import ObjectDataset
from torchfpn.data.sampler import key
from torchfpn.errors import FPNError, amount
from torchfpn.evaluation.model import ObjectValidation, PixelValidation
from torchfpn.evaluation.panoptic_model import PanopticValidation
from torchfpn.tasks.panoptic import PanopticTask
from torchfpn.tasks.task import RegionTask, Task
from torchfpn.train.checkpoints import SCHEMA, STATE, CheckpointManager
from torchfpn.train.datamodule import full_dataset
from torchfpn.train.loader import TrainLoader, ValidationLoader
from torchfpn.train.logs import RunningMean
from torchfpn.train.optim import Ema, Frozen, lr_factor, optimizer
from torchfpn.train.run_folder import Interrupted, StopRequest
from torchfpn.types import Batch

log = logging.getLogger(__name__)
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # in the errors of torch


@dataclass(frozen=True)
class StepResult:
    """losses: each loss by name, their sum as "loss". good: whether the weights were updated."""

    losses: dict[str, float]
    good: bool


class TrainingStep:
    """Trains `task` with `optimizer`, a Batch a step: forward passes, backward, check, update.

    The gradient is that of the whole batch, in however many passes and processes: each pass is weighted by what its
    losses are means over (`Task.masses`). A step whose loss or gradient is not finite changes nothing, not even the
    running statistics of batch norm.

    Args:
        task: a Task.
        optimizer: over its parameters.
        pass_size: images in one forward pass; a larger batch takes several, and gradients are summed.
        clip: largest norm of the gradient, 0 for no clipping.
        halve: when memory runs out, halve `pass_size` and repeat the step instead of raising.
        patience: steps in a row that may be skipped.
        backward: replaces ``loss.backward()``.
        reduce: sums a tensor over the processes that train together.
        world: number of these processes; their gradients are averaged.
    """

    def __init__(
        self,
        task: nn.Module,
        optimizer: Any,
        *,
        pass_size: int,
        clip: float = 0.0,
        halve: bool = False,
        patience: int = 10,
        backward: Callable[[Tensor], None] = Tensor.backward,
        reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        world: int = 1,
    ) -> None:
        self.task, self.optimizer, self.backward = task, optimizer, backward
        self.pass_size, self.clip, self.halve, self.patience = pass_size, clip, halve, patience
        self.reduce, self.world = reduce, world
        self.bad_in_a_row = 0
        self.parameters = [p for p in task.parameters() if p.requires_grad]
        self.statistics = Statistics(task)

    def step(self, batch: Batch, key: int) -> StepResult:
        """Trains on `batch`; `key` seeds what is random in the forward pass (dropout).

        Raises:
            FPNError: out of memory and nothing left to halve, or more than `patience` steps skipped in a row.
        """
        total_masses = self._total_masses(batch)
        while (losses := self._compute_gradients(batch, key, total_masses)) is None:
            self._halve_pass(len(batch))
        total = sum(losses.values())
        losses = {"loss": total, **losses}
        good = abs(total) < float("inf") and self._clip()
        if good:
            self.optimizer.step()
            self.bad_in_a_row = 0
        else:
            self.statistics.restore()
            self.bad_in_a_row += 1
            log.warning("the loss or its gradient is not finite: step skipped (%s)", _names(batch))
        self.optimizer.zero_grad(set_to_none=True)
        if self.bad_in_a_row > self.patience:
            raise _diverged(self.bad_in_a_row, batch)
        return StepResult(losses, good)

    def state_dict(self) -> dict[str, int]:
        """Plain values, for a checkpoint."""
        return {"pass_size": self.pass_size, "bad_in_a_row": self.bad_in_a_row}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restores what `state_dict` gave; passes stay as small as they had become."""
        self.pass_size = min(self.pass_size, state["pass_size"])
        self.bad_in_a_row = state["bad_in_a_row"]

    def _total_masses(self, batch: Batch) -> dict[str, float] | None:
        """`Task.masses` of the batch, averaged over the processes; None if there is one process."""
        if self.world == 1:
            return None
        own = self.task.masses(batch)  # type: ignore[operator]  # a Task
        summed = self.reduce(torch.tensor(list(own.values()), dtype=torch.float64))
        return dict(zip(own, (summed / self.world).tolist(), strict=True))

    def _compute_gradients(self, batch: Batch, key: int, masses: dict[str, float] | None) -> dict[str, float] | None:
        """Computes the gradients of the whole batch and returns the losses; None when memory ran out."""
        torch.manual_seed(key)
        self.statistics.keep()
        try:
            return self._accumulate(batch, masses)
        except RuntimeError as error:
            if not any(words in str(error) for words in OUT_OF_MEMORY):
                raise
            return None  # the tensors of the failed pass are freed only outside of this handler
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise FPNError(
                "batch norm cannot train on a single value: one image in a batch, and a map of 1 x 1",
                hint="a larger --data.crop (64 or more), or more images in a batch",
            ) from error

    def _accumulate(self, batch: Batch, masses: dict[str, float] | None) -> dict[str, float]:
        """Sums the gradients of all passes; returns the losses of this process. masses: of `_total_masses`."""
        losses: dict[str, float] = {}
        parts = list(passes(batch, self.pass_size))
        each: list[dict[str, float]] = [{} for _ in parts]
        if masses is not None or len(parts) > 1:
            each = [self.task.masses(part) for part in parts]  # type: ignore[operator]  # a Task
        own = {name: sum(here[name] for here in each) for name in each[0]}
        for part, here in zip(parts, each, strict=True):
            terms, images = self.task(part), len(part) / len(batch)
            shares = {name: _share(here, own, name, images) for name in terms}
            weights = shares if masses is None else {name: _share(here, masses, name, images) for name in terms}
            with torch.autocast(part.images.device.type, enabled=False):
                self.backward(torch.stack([weights[name] * loss for name, loss in terms.items()]).sum())
            for name, loss in terms.items():
                losses[name] = losses.get(name, 0.0) + shares[name] * loss.item()
        return losses

    def _clip(self) -> bool:
        """Clips the gradient; returns whether it is finite."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not bool(norm.isfinite()):
            return False
        if self.clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        return True

    def _halve_pass(self, images: int) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.statistics.restore()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size = min(self.pass_size, images)
        if not self.halve or size == 1:
            raise _out_of_memory(size)
        self.pass_size = (size + 1) // 2
        log.warning("out of memory with %d images in a batch: continuing with %d", size, self.pass_size)


def _share(part: Mapping[str, float], whole: Mapping[str, float], name: str, images: float) -> float:
    """The weight of a pass in a loss: its share of what the loss is a mean over, or of the images where that is 0."""
    return part[name] / whole[name] if whole.get(name) else images


class Statistics:
    """Copies of the buffers of a module (running statistics of batch norm), to undo a step."""

    def __init__(self, module: nn.Module) -> None:
        self.buffers = list(module.buffers())
        self.copies = [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()
    def keep(self) -> None:
        """Copies the buffers."""
        torch._foreach_copy_(self.copies, self.buffers)

    @torch.no_grad()
    def restore(self) -> None:
        """Writes the copies back."""
        torch._foreach_copy_(self.buffers, self.copies)


def passes(batch: Batch, size: int) -> Iterator[Batch]:
    """The batch in parts of at most `size` images."""
    for first in range(0, len(batch), size):
        part = slice(first, first + size)
        yield replace(
            batch,
            images=batch.images[part],
            sizes=batch.sizes[part],
            targets=batch.targets[part],
            names=batch.names[part],
        )


def _out_of_memory(size: int) -> FPNError:
    memory = ""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        memory = f", {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    return FPNError(
        f"out of memory with {amount(size, 'image')} in a batch{memory}",
        field="batch_size",
        hint="smaller --batch-size with --accumulate, smaller --data.crop, or --auto-batch",
    )


def _diverged(steps: int, batch: Batch) -> FPNError:
    return FPNError(
        f"the loss is not finite for {steps} steps in a row, lastly on {_names(batch)}",
        hint="look at these files, or lower --lr; the last good checkpoint is kept",
    )


def _names(batch: Batch) -> str:
    return ", ".join(batch.names[:8]) + (" ..." if len(batch.names) > 8 else "")


@dataclass
class Position:
    """epoch: epochs completed. batch: steps completed in the current one. step: steps completed in all."""

    epoch: int = 0
    batch: int = 0
    step: int = 0


class Training(pl.LightningModule):
    """Trains `task` as `config` says, and can be stopped and resumed at any step.

    Args:
        task: the task, on the CPU.
        config: the settings.
        train: training batches.
        validate: validation images; None for no validation.
        checkpoints: writes the state after every epoch.
        stop: tells that a signal came.
    """

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        *,
        train: TrainLoader,
        validate: ValidationLoader | None,
        checkpoints: CheckpointManager,
        stop: StopRequest,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.task, self.config, self.checkpoints, self.stop = task, config, checkpoints, stop
        self.train_loader, self.validation_loader = train, validate
        self.frozen = Frozen(task.model, config.freeze)
        self.position, self.mean, self.row = Position(), RunningMean(), dict[str, float]()
        self.after_epoch: list[Callable[[Training], None]] = []  # observers of `row`
        self.last: StepResult | None = None  # for the progress bar
        self._state: dict[str, Any] | None = None
        self.averages: Ema | None = None
        self._validation: PixelValidation | ObjectValidation | None = None

    # -- hooks of Lightning: data, optimizer, mode

    def train_dataloader(self) -> TrainLoader:
        """The remaining steps of the epoch; Lightning calls this at the start of each."""
        self.train_loader.share(self.global_rank, self.trainer.world_size)
        self.train_loader.begin(self.position.epoch, self.position.batch)
        return self.train_loader

    def val_dataloader(self) -> Any:
        """The validation images."""
        if self.validation_loader is None:
            return []
        self.validation_loader.share(self.global_rank, self.trainer.world_size)
        return self.validation_loader

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer; the model is on its device by now."""
        made = optimizer(self.task, self.config.optimizer, self.config.lr)
        self._settings = [{k: v for k, v in group.items() if k != "params"} for group in made.param_groups]
        return made

    def close(self) -> None:
        """Ends the loader processes."""
        for loader in (self.train_loader, self.validation_loader):
            if loader is not None:
                loader.close()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Moves a Batch and lays out its images channels last, which is fastest for convolutions."""
        moved = batch.to(device)
        images = moved.images.contiguous(memory_format=torch.channels_last)
        return Batch(images, moved.sizes, moved.targets, moved.names)

    def train(self, mode: bool = True) -> "Training":
        """Train mode, except for frozen modules."""
        super().train(mode)
        if hasattr(self, "frozen"):
            self.frozen.hold()
        return self

    # -- hooks of Lightning: the loop

    def on_train_epoch_start(self) -> None:
        """Validates the last epoch in any case, so that `keep: best` compares the final weights too."""
        last = self.position.epoch + 1 >= self.config.max_epochs
        self.trainer.check_val_every_n_epoch = 1 if last else self.config.val_every

    def on_train_start(self) -> None:
        """Makes what refers to the weights, which are on their device and restored by now."""
        config = self.config
        self.stop.install()
        for group, settings in zip(self._optimizer.param_groups, self._settings, strict=True):
            group.update(settings)  # the config may have changed since the checkpoint
        self._set_rates(lr_factor(config.schedule, max(0, self.steps_done - 1), self.total_steps))
        self._training_step = TrainingStep(
            self.task,
            self.optimizers(),
            pass_size=config.batch_size,
            clip=config.clip_grad,
            halve=config.auto_batch,
            patience=config.max_bad_steps,
            backward=self.manual_backward,
            reduce=self._sum,
            world=self.trainer.world_size,
        )
        self.averages = Ema(self.task.model, config.ema) if config.ema else None
        if self._state is not None:
            self._training_step.load_state_dict(self._state["stepper"])
            if self.averages is not None and self._state["ema"] is not None:
                self.averages.load_state_dict(self._state["ema"])
            self._state = None

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step; an empty batch means that the epoch has no steps left."""
        self.last = None
        if len(batch) == 0:
            return
        position = self.position
        self._set_rates(lr_factor(self.config.schedule, self.steps_done, self.total_steps))
        seed = key(self.config.seed, position.epoch, position.batch, self.global_rank)
        self.last = self._training_step.step(batch, seed)
        position.batch, position.step = position.batch + 1, position.step + 1
        if self.last.good:
            self.mean.add(self.last.losses)
            if self.averages is not None:
                self.averages.update()

    def on_train_batch_end(self, *_: Any) -> None:
        """Stops if a signal came."""
        self._stop_if_requested()

    def on_validation_epoch_start(self) -> None:
        """Swaps in the averaged weights."""
        if isinstance(self.task, RegionTask):
            samples = None if self.validation_loader is None else self.validation_loader.samples
            kind = PanopticValidation if isinstance(self.task, PanopticTask) else ObjectValidation
            self._validation = kind(self.task, self._gather, full_dataset(samples, ObjectDataset))  # type: ignore[arg-type]
        else:
            self._validation = PixelValidation(self.task, self._sum)
        if self.averages is not None:
            self.averages.swap()
        if self.trainer.world_size > 1:  # running statistics differ: those of the first process are used
            for buffer in self.task.model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """One image; an empty batch means that this process has none."""
        assert self._validation is not None
        assert self.validation_loader is not None
        if not len(batch):
            return
        if isinstance(self._validation, ObjectValidation):
            self._validation.step(batch, self.validation_loader.plan[batch_idx][0])
        else:
            self._validation.step(batch)

    def on_validation_batch_end(self, outputs: Any, batch: Batch, batch_idx: int, *_: Any) -> None:
        """Stops if a signal came, with the training weights swapped back.

        Processes have different numbers of images, so they communicate only at batches that all of them reach.
        """
        alone = self.trainer.world_size == 1
        if alone or (self.validation_loader is not None and self.validation_loader.meets(batch_idx)):
            self._stop_if_requested(before=self._end_validation)

    def on_validation_epoch_end(self) -> None:
        """Swaps the training weights back."""
        self._end_validation()

    def on_train_epoch_end(self) -> None:
        """Adds the row of the epoch, saves a checkpoint, and decides whether to stop."""
        position = self.position
        self.row = {
            "epoch": position.epoch + 1,
            "step": position.step,
            "lr": self.config.lr * lr_factor(self.config.schedule, self.steps_done - 1, self.total_steps),
            **{f"train/{_column(name)}": value for name, value in self.mean.means().items()},
            **(self._validation.row() if self._validation is not None else {}),
        }
        is_best = self.checkpoints.judge(self.row)
        self.mean, self._validation = RunningMean(), None
        position.epoch, position.batch = position.epoch + 1, 0
        self.checkpoints.save(self.trainer, is_best=is_best)
        self._notify()
        self.trainer.should_stop = self.checkpoints.exhausted
        if self._stop_requested():
            raise Interrupted(self.stop.signum or signal.SIGTERM, saved=self.checkpoints.failure is None)

    # -- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds our state and removes the progress of Lightning's loops."""
        del checkpoint["loops"]
        checkpoint["epoch"], checkpoint["global_step"] = self.position.epoch, self.position.step
        checkpoint[STATE] = {
            "schema": SCHEMA,
            "recipe": self.task.recipe.to_json(),
            "position": asdict(self.position),
            "mean": self.mean.state_dict(),
            "journal": self.checkpoints.metrics.state_dict(),
            "keeper": self.checkpoints.state_dict(),
            "stepper": self._training_step.state_dict(),
            "ema": self.averages.state_dict() if self.averages is not None else None,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the state; `on_train_start` restores what refers to weights, once they are on their device.

        The moments of another kind of optimizer are dropped: neither kind can continue from those of the other.
        """
        groups = [group for states in checkpoint["optimizer_states"] for group in states["param_groups"]]
        if any(("betas" in group) != (self.config.optimizer.name == "adamw") for group in groups):
            checkpoint["optimizer_states"] = []
        self._state = state = checkpoint[STATE]
        self.position = Position(**state["position"])
        self.mean.load_state_dict(state["mean"])
        self.checkpoints.metrics.load_state_dict(state["journal"])
        self.checkpoints.load_state_dict(state["keeper"])
        progress = self.trainer.fit_loop.epoch_progress.current
        for name in ("ready", "started", "processed", "completed"):
            setattr(progress, name, self.position.epoch)

    # -- steps, processes, signals

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.config.max_epochs * self.train_loader.steps

    @property
    def steps_done(self) -> int:
        """How many of `total_steps` are completed: the position in the learning-rate schedule.

        `position.step` counts the steps that were taken. After resuming with another batch size an epoch has another
        number of steps, and the schedule would end early, with a learning rate of 0, or never.
        """
        return min(self.total_steps, self.position.epoch * self.train_loader.steps + self.position.batch)

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        return self.trainer.optimizers[0]

    def _set_rates(self, rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = group["top_lr"] * rate

    def _sum(self, tensor: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return tensor
        summed: Tensor = self.trainer.strategy.reduce(tensor.to(self.device), reduce_op="sum")
        return summed.cpu()

    def _gather(self, value: Any) -> list[Any]:
        if self.trainer.world_size == 1:
            return [value]
        found: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(found, value)
        return found

    def _notify(self) -> None:
        """Calls the observers of the epoch; an observer that cannot write (a full disk) does not end the training."""
        for observer in self.after_epoch if self.trainer.is_global_zero else ():
            try:
                observer(self)
            except OSError as error:
                log.warning("%s", error)

    def _end_validation(self) -> None:
        if self.averages is not None:
            self.averages.swap()

    def _stop_requested(self) -> bool:
        """Whether a signal came to any of the processes that train together: they must stop at the same step."""
        requested = self.stop.signum is not None
        if self.trainer.world_size == 1:
            return requested
        return bool(self.trainer.strategy.reduce_boolean_decision(requested, all=False))

    def _stop_if_requested(self, before: Callable[[], None] = lambda: None) -> None:
        if self._stop_requested():
            before()
            saved = self.checkpoints.save(self.trainer)
            raise Interrupted(self.stop.signum or signal.SIGTERM, saved=saved)


def _column(name: str) -> str:
    return name if name == "loss" else f"loss_{name}"
