"""The one LightningModule: a Task, stepped through virtual epochs, that can be stopped and resumed at any step.

Lightning moves tensors, runs the loops and dumps checkpoints. Its own record of where it is is left out of them: the
position kept here says all, so a resumed run enters Lightning's loops like a fresh one, at its epoch.
"""

import logging
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from torchfpn.config import TrainConfig
from torchfpn.data.keys import key
from torchfpn.data.region_samples import RegionSamples
from torchfpn.tasks.region_task import RegionTask
from torchfpn.tasks.task import Task
from torchfpn.train.checkpoints import SCHEMA, STATE
from torchfpn.train.ema import Ema
from torchfpn.train.freeze import Frozen
from torchfpn.train.journal import Mean
from torchfpn.train.keeper import Keeper
from torchfpn.train.loader import TrainLoader, ValidationLoader
from torchfpn.train.optimizer import optimizer
from torchfpn.train.region_validation import RegionValidation
from torchfpn.train.sampling import whole_samples
from torchfpn.train.schedule import factor
from torchfpn.train.signals import Interrupted, StopRequest
from torchfpn.train.stepper import Stepped, Stepper
from torchfpn.train.validation import Validation
from torchfpn.types import Batch

log = logging.getLogger(__name__)


@dataclass
class Position:
    """Where a training is: whole epochs done, steps done of the next one, steps done in all."""

    epoch: int = 0
    batch: int = 0
    step: int = 0


class Training(pl.LightningModule):
    """Trains `task` as `config` says. `train`, `validate`: the data, None to validate nothing."""

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        *,
        train: TrainLoader,
        validate: ValidationLoader | None,
        keeper: Keeper,
        stop: StopRequest,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.task, self.config, self.keeper, self.stop = task, config, keeper, stop
        self.train_loader, self.validation_loader = train, validate
        self.frozen = Frozen(task.model, config.freeze)
        self.position, self.mean, self.row = Position(), Mean(), dict[str, float]()
        self.after_epoch: list[Callable[[Training], None]] = []  # who wants to see `row`
        self.last: Stepped | None = None  # for the progress bar
        self._state: dict[str, Any] | None = None
        self.averages: Ema | None = None
        self._validation: Validation | RegionValidation | None = None

    # -- what Lightning asks for

    def train_dataloader(self) -> TrainLoader:
        """The rest of the epoch; asked for at the beginning of each."""
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
        """Over the model, which is on its device by now."""
        made = optimizer(self.task, self.config.optimizer, self.config.lr)
        self._settings = [{k: v for k, v in group.items() if k != "params"} for group in made.param_groups]
        return made

    def close(self) -> None:
        """Ends the loader processes."""
        for loader in (self.train_loader, self.validation_loader):
            if loader is not None:
                loader.close()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """A Batch moves itself; its images are laid out as the convolutions like them."""
        moved = batch.to(device)
        images = moved.images.contiguous(memory_format=torch.channels_last)
        return Batch(images, moved.sizes, moved.targets, moved.names)

    def train(self, mode: bool = True) -> "Training":
        """Train mode, but for what is frozen."""
        super().train(mode)
        if hasattr(self, "frozen"):
            self.frozen.hold()
        return self

    # -- the loop

    def on_train_epoch_start(self) -> None:
        """The last epoch is validated in any case, so that `keep: best` judges the weights a training ends with."""
        last = self.position.epoch + 1 >= self.config.max_epochs
        self.trainer.check_val_every_n_epoch = 1 if last else self.config.val_every

    def on_train_start(self) -> None:
        """Everything is on its device and restored: the pieces that point at the weights are made."""
        config = self.config
        self.stop.install()
        for group, settings in zip(self._optimizer.param_groups, self._settings, strict=True):
            group.update(settings)  # what the config says now, not what it said when the checkpoint was written
        self._set_rates(factor(config.schedule, max(0, self.steps_done - 1), self.total_steps))
        self._stepper = Stepper(
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
            self._stepper.load_state_dict(self._state["stepper"])
            if self.averages is not None and self._state["ema"] is not None:
                self.averages.load_state_dict(self._state["ema"])
            self._state = None

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step; an empty batch says that this epoch has none left."""
        self.last = None
        if len(batch) == 0:
            return
        position = self.position
        self._set_rates(factor(self.config.schedule, self.steps_done, self.total_steps))
        seed = key(self.config.seed, position.epoch, position.batch, self.global_rank)
        self.last = self._stepper.step(batch, seed)
        position.batch, position.step = position.batch + 1, position.step + 1
        if self.last.good:
            self.mean.add(self.last.losses)
            if self.averages is not None:
                self.averages.update()

    def on_train_batch_end(self, *_: Any) -> None:
        """Stops here if a signal came."""
        self._stop_if_asked()

    def on_validation_epoch_start(self) -> None:
        """The averaged weights take the place of the weights."""
        if isinstance(self.task, RegionTask):
            samples = None if self.validation_loader is None else self.validation_loader.samples
            self._validation = RegionValidation(self.task, self._gather, whole_samples(samples, RegionSamples))
        else:
            self._validation = Validation(self.task, self._sum)
        if self.averages is not None:
            self.averages.swap()
        if self.trainer.world_size > 1:  # each process has its own running statistics: the first one's are kept
            for buffer in self.task.model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """One image; an empty batch says that this process has none."""
        assert self._validation is not None
        assert self.validation_loader is not None
        if not len(batch):
            return
        if isinstance(self._validation, RegionValidation):
            self._validation.step(batch, self.validation_loader.plan[batch_idx][0])
        else:
            self._validation.step(batch)

    def on_validation_batch_end(self, outputs: Any, batch: Batch, batch_idx: int, *_: Any) -> None:
        """Stops here if a signal came, with the weights back in their place.

        Processes that train together have different numbers of images: they ask each other where all come by.
        """
        alone = self.trainer.world_size == 1
        if alone or (self.validation_loader is not None and self.validation_loader.meets(batch_idx)):
            self._stop_if_asked(before=self._end_validation)

    def on_validation_epoch_end(self) -> None:
        """The weights come back."""
        self._end_validation()

    def on_train_epoch_end(self) -> None:
        """The row of this epoch, the checkpoint, and whether to go on."""
        position = self.position
        self.row = {
            "epoch": position.epoch + 1,
            "step": position.step,
            "lr": self.config.lr * factor(self.config.schedule, self.steps_done - 1, self.total_steps),
            **{f"train/{_column(name)}": value for name, value in self.mean.means().items()},
            **(self._validation.row() if self._validation is not None else {}),
        }
        is_best = self.keeper.judge(self.row)
        self.mean, self._validation = Mean(), None
        position.epoch, position.batch = position.epoch + 1, 0
        self.keeper.save(self.trainer, is_best=is_best)
        self._show()
        self.trainer.should_stop = self.keeper.exhausted
        if self._is_asked_to_stop():
            raise Interrupted(self.stop.signum or signal.SIGTERM, saved=self.keeper.failure is None)

    # -- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds our state and takes out Lightning's loops."""
        del checkpoint["loops"]
        checkpoint["epoch"], checkpoint["global_step"] = self.position.epoch, self.position.step
        checkpoint[STATE] = {
            "schema": SCHEMA,
            "recipe": self.task.recipe.to_json(),
            "position": asdict(self.position),
            "mean": self.mean.state_dict(),
            "journal": self.keeper.journal.state_dict(),
            "keeper": self.keeper.state_dict(),
            "stepper": self._stepper.state_dict(),
            "ema": self.averages.state_dict() if self.averages is not None else None,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the state; what points at weights waits until they are on their device.

        The moments of another kind of optimiser are left behind: neither could go on from those of the other.
        """
        groups = [group for states in checkpoint["optimizer_states"] for group in states["param_groups"]]
        if any(("betas" in group) != (self.config.optimizer.name == "adamw") for group in groups):
            checkpoint["optimizer_states"] = []
        self._state = state = checkpoint[STATE]
        self.position = Position(**state["position"])
        self.mean.load_state_dict(state["mean"])
        self.keeper.journal.load_state_dict(state["journal"])
        self.keeper.load_state_dict(state["keeper"])
        progress = self.trainer.fit_loop.epoch_progress.current
        for name in ("ready", "started", "processed", "completed"):
            setattr(progress, name, self.position.epoch)

    # -- small things

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.config.max_epochs * self.train_loader.steps

    @property
    def steps_done(self) -> int:
        """How many of `total_steps` are behind: where the schedule is.

        Not `position.step`, which counts the steps that were taken: after resuming with another batch size an epoch has
        another number of steps, and the schedule would end early, with a learning rate of 0, or never.
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

    def _show(self) -> None:
        """To those who want to see; what they cannot write (a full disk) is not worth the training."""
        for look in self.after_epoch if self.trainer.is_global_zero else ():
            try:
                look(self)
            except OSError as error:
                log.warning("%s", error)

    def _end_validation(self) -> None:
        if self.averages is not None:
            self.averages.swap()

    def _is_asked_to_stop(self) -> bool:
        """Whether a signal came, to any of the processes that train together: they must stop at the same step."""
        asked = self.stop.signum is not None
        if self.trainer.world_size == 1:
            return asked
        return bool(self.trainer.strategy.reduce_boolean_decision(asked, all=False))

    def _stop_if_asked(self, before: Callable[[], None] = lambda: None) -> None:
        if self._is_asked_to_stop():
            before()
            saved = self.keeper.save(self.trainer)
            raise Interrupted(self.stop.signum or signal.SIGTERM, saved=saved)


def _column(name: str) -> str:
    return name if name == "loss" else f"loss_{name}"
