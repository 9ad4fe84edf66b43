"""One step of training: forward in passes that fit the device, backward, a look at the result, and the update.

A step whose loss or gradient is not finite changes nothing, not even the running statistics of batch norm.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from torchfpn.errors import FPNError, amount
from torchfpn.types import Batch

log = logging.getLogger(__name__)

OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


@dataclass(frozen=True)
class Stepped:
    """What a step gave: each loss by name, their sum as "loss", and whether the weights moved."""

    losses: dict[str, float]
    good: bool


class Stepper:
    """Trains `task` with `optimizer`, a Batch a step.

    pass_size: images in one forward pass; a larger batch is taken in several, gradients added up. clip: largest norm of
    the gradient, 0 for none. halve: when memory runs out, halve `pass_size` and do the step again, else give up.
    patience: bad steps in a row that are borne. backward: what to call instead of ``loss.backward()``. reduce: sums a
    tensor over the `world` processes that train together and whose gradients are averaged.

    The gradient is that of all images at once, in however many passes and processes: each pass weighs by what its
    losses are means over (`Task.masses`).
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

    def step(self, batch: Batch, key: int) -> Stepped:
        """Trains on `batch`; `key` seeds whatever is random in the forward pass (dropout).

        Raises:
            FPNError: out of memory with nothing left to halve, or more bad steps in a row than `patience`.
        """
        total_masses = self._together(batch)
        while (losses := self._try(batch, key, total_masses)) is None:
            self._shrink(len(batch))
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
        return Stepped(losses, good)

    def state_dict(self) -> dict[str, int]:
        """Plain values, for a checkpoint."""
        return {"pass_size": self.pass_size, "bad_in_a_row": self.bad_in_a_row}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Passes stay as small as they had to become."""
        self.pass_size = min(self.pass_size, state["pass_size"])
        self.bad_in_a_row = state["bad_in_a_row"]

    def _together(self, batch: Batch) -> dict[str, float] | None:
        """What each loss is a mean over, in all processes, for each of them; None: this one sees the whole batch."""
        if self.world == 1:
            return None
        own = self.task.masses(batch)  # type: ignore[operator]  # a Task
        summed = self.reduce(torch.tensor(list(own.values()), dtype=torch.float64))
        return dict(zip(own, (summed / self.world).tolist(), strict=True))

    def _try(self, batch: Batch, key: int, masses: dict[str, float] | None) -> dict[str, float] | None:
        """Gradients of the whole batch; None when memory ran out."""
        torch.manual_seed(key)
        self.statistics.keep()
        try:
            return self._accumulate(batch, masses)
        except RuntimeError as error:
            if not any(words in str(error) for words in OUT_OF_MEMORY):
                raise
            return None  # only now, outside of the handler, are the tensors of the failed pass let go
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise FPNError(
                "batch norm cannot train on a single value: one image in a pass, and a map of 1 x 1",
                hint="a larger --data.crop (64 or more), or more images in a pass",
            ) from error

    def _accumulate(self, batch: Batch, masses: dict[str, float] | None) -> dict[str, float]:
        """Gradients of all passes; the losses of this process. masses: what `_together` gives."""
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
        """Clips the gradient; whether it is finite."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not bool(norm.isfinite()):
            return False
        if self.clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        return True

    def _shrink(self, images: int) -> None:
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
    """How much a pass counts in a loss: its share of what that is a mean over; of images, where there is nothing."""
    return part[name] / whole[name] if whole.get(name) else images


class Statistics:
    """The buffers of a module (running statistics of batch norm), kept aside before a step that may go wrong."""

    def __init__(self, module: nn.Module) -> None:
        self.buffers = list(module.buffers())
        self.copies = [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()
    def keep(self) -> None:
        """Remembers them as they are."""
        torch._foreach_copy_(self.copies, self.buffers)

    @torch.no_grad()
    def restore(self) -> None:
        """Puts them back as they were."""
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
        f"out of memory with {amount(size, 'image')} in a pass{memory}",
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
