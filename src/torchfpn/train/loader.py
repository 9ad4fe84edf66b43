"""Batches for training and validation, from keyed draws and loader processes.

Which image, crop and flip comes at which place is a pure function of (seed, epoch, place). So an epoch that starts at
step k gives the batches that the whole epoch gives from step k on, with any number of loader processes.
"""

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from torchfpn.data.sample import collate
from torchfpn.data.sampler import KeyedSampler
from torchfpn.errors import DataError, FPNError
from torchfpn.train.run_folder import ignore_in_worker
from torchfpn.types import Batch

NOTHING = Batch(torch.zeros(0, 1, 1, 1), [])  # where a loop wants a batch and there is none
MEETINGS = 8  # times in a validation that the processes ask each other whether to stop
TIMEOUT = 120  # seconds to wait for a loader process before it is taken for dead
SHARED = Path("/dev/shm")  # where loader processes hand over their batches


class Failure(NamedTuple):
    """An error on its way from a loader process: raised there, it would arrive with a traceback in its text."""

    error: FPNError


class Guarded(Dataset[Any]):
    """Samples whose errors come back as values."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Any) -> Any:
        try:
            return self.samples[draw]
        except FPNError as error:
            return Failure(error)


class TrainLoader:
    """The steps of one epoch, each a Batch of `step_size` images; `begin` says which epoch, from which step.

    steps: of a whole epoch. workers: loader processes; 0 loads in this one. rank, world: this process among those that
    train together; each takes its share of every step.
    """

    def __init__(
        self,
        samples: Any,
        *,
        step_size: int,
        steps: int,
        seed: int,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.steps, self.first = steps, 0
        sampler = KeyedSampler(len(samples), seed=seed, per_epoch=steps * step_size, rank=rank, world=world)
        self.plan = _Plan(sampler, step_size)
        self.loader = _loader(samples, self.plan, workers)
        self.workers = workers

    def begin(self, epoch: int, first: int = 0) -> None:
        """The next iteration gives epoch `epoch` from step `first` on; nothing but an empty batch if all are done."""
        self.plan.epoch, self.plan.first, self.first = epoch, first, first

    def share(self, rank: int, world: int) -> None:
        """Which of the processes that train together this is: one that was forked learns it late."""
        self.plan.sampler.rank, self.plan.sampler.world = rank, world

    def close(self) -> None:
        """Ends the loader processes."""
        _close(self.loader)

    def __len__(self) -> int:
        return max(1, self.steps - self.first)

    def __iter__(self) -> Iterator[Batch]:
        if self.first >= self.steps:
            yield NOTHING
            return
        yield from _checked(self.loader)


class ValidationLoader:
    """Every image once, in order, whole and alone; the first `count` if given, and of those every `world`-th.

    A process that gets no image, because there are fewer than processes, is given one empty batch.
    """

    def __init__(
        self, samples: Any, *, count: int | None = None, workers: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.samples, self.count, self.workers = samples, len(range(len(samples))[slice(count)]), workers
        self.plan: list[list[int]] = []
        self.share(rank, world)
        self.loader = _loader(samples, self.plan, workers)

    def share(self, rank: int, world: int) -> None:
        """Which of the processes that train together this is: one that was forked learns it late."""
        self.world = world
        self.plan[:] = [[index] for index in range(rank, self.count, world)]

    def whole(self) -> "ValidationLoader":
        """All the images, where this has a share of them."""
        if len(self.plan) == self.count:
            return self
        return ValidationLoader(self.samples, count=self.count, workers=self.workers)

    def meets(self, index: int) -> bool:
        """Whether the processes may speak to each other after the batch `index`: all get as far, each at its own pace.

        Eight times at most, evenly spread over what the process with the fewest images has.
        """
        shortest = self.count // self.world
        return index < shortest and (index + 1) % max(1, shortest // MEETINGS) == 0

    def close(self) -> None:
        """Ends the loader processes."""
        _close(self.loader)

    def __len__(self) -> int:
        return max(1, len(self.plan))

    def __iter__(self) -> Iterator[Batch]:
        if not self.plan:
            yield NOTHING
            return
        yield from _checked(self.loader)


def explain_loader_error(error: RuntimeError, workers: int) -> DataError | None:
    """What to tell about a loader process that died or hung; None for any other error."""
    text = f"{error} {error.__cause__ or ''}"  # the cause names the signal
    if "DataLoader worker" not in text and "DataLoader timed out" not in text:
        return None
    what = f"returned no data for {TIMEOUT} s" if "timed out" in text else _death(text)
    size = f"/dev/shm has {shutil.disk_usage(SHARED).total / 2**20:.0f} MiB" if SHARED.is_dir() else None
    return DataError(
        f"one of {workers} loader processes {what}",
        allowed=size,
        hint="memory or /dev/shm is too small for them: try --num-workers 0, or fewer",
    )


class _Plan:
    """Which draws make each step: the batch sampler of the loader, read in the main process."""

    def __init__(self, sampler: KeyedSampler, step_size: int) -> None:
        self.sampler, self.step_size = sampler, step_size
        self.epoch, self.first = 0, 0

    def __iter__(self) -> Iterator[list[Any]]:
        self.sampler.set_epoch(self.epoch)
        draws = islice(self.sampler, self.first * self.step_size, None)
        while step := list(islice(draws, self.step_size)):
            yield step


def _loader(samples: Any, plan: Any, workers: int) -> "DataLoader[Any]":
    return DataLoader(
        Guarded(samples),
        batch_sampler=plan,
        num_workers=workers,
        collate_fn=_gather,
        pin_memory=torch.cuda.is_available(),
        timeout=TIMEOUT if workers else 0,
        worker_init_fn=_enter_worker if workers else None,
        persistent_workers=workers > 0,
    )


def _close(loader: "DataLoader[Any]") -> None:
    """Now, and not when somebody collects the garbage: they wait 5 s for work before they look whether to end."""
    iterator, loader._iterator = loader._iterator, None
    if iterator is not None and hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()


def _gather(samples: list[Any]) -> Batch | Failure:
    failures = [sample for sample in samples if isinstance(sample, Failure)]
    return failures[0] if failures else collate(samples)


def _enter_worker(_: int) -> None:
    torch.set_num_threads(1)
    ignore_in_worker()


def _checked(loader: "DataLoader[Any]") -> Iterator[Batch]:
    for batch in loader:
        if isinstance(batch, Failure):
            raise batch.error
        yield batch


def _death(text: str) -> str:
    words = text.partition("killed by signal:")[2].split(".")[0].strip()
    return f"was killed ({words})" if words else "ended unexpectedly"
