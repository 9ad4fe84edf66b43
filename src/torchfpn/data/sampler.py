"""Order and random numbers of training samples as pure functions of the seed and the position.

Checkpoints hold no random state: with keys instead, a resumed run sees what an uninterrupted one would have seen.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

import torch
from torch.utils.data import Sampler

from torchfpn.errors import ConfigError


def key(*ints: int) -> int:
    """A hash of 63 bits of `ints` in their order, the same on every machine."""
    text = ",".join(str(int(i)) for i in ints)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(*ints: int) -> torch.Generator:
    """A new random generator on the CPU, seeded with `key(*ints)`."""
    return torch.Generator().manual_seed(key(*ints))


class Draw(NamedTuple):
    """One sample to fetch: its index in the split, and the key of its random numbers."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which no caller uses
    key: int


class KeyedSampler(Sampler[Draw]):
    """An endless shuffled stream of draws, cut into virtual epochs.

    Position p of the stream belongs to round p // n; each round is a permutation of all n samples, keyed by (seed,
    round), and a draw has the key (seed, round, place). So samplers with equal arguments give equal draws, any epoch
    can be entered directly, and every sample comes equally often over the epochs, whatever `per_epoch` is.

    Args:
        n: samples in the split.
        seed: of the run.
        per_epoch: draws in a virtual epoch; by default n.
        rank: index of this process; each takes every `world`-th position.
        world: number of processes that share the stream.
    """

    def __init__(self, n: int, *, seed: int = 0, per_epoch: int | None = None, rank: int = 0, world: int = 1) -> None:
        self.n, self.seed, self.per_epoch = n, seed, n if per_epoch is None else per_epoch
        self.rank, self.world, self.epoch = rank, world, 0
        if n < 1 or self.per_epoch < 1 or not 0 <= rank < world:
            raise ConfigError(
                f"{n} samples, {self.per_epoch} per epoch, rank {rank} of {world}", allowed="at least one of each"
            )

    def set_epoch(self, epoch: int) -> None:
        """Starts at a virtual epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.per_epoch

    def __iter__(self) -> Iterator[Draw]:
        start, known, order = self.epoch * self.per_epoch, -1, []
        for step in range(start, start + self.per_epoch):
            turn, place = divmod(step * self.world + self.rank, self.n)
            if turn != known:
                known, order = turn, torch.randperm(self.n, generator=generator(self.seed, turn)).tolist()
            yield Draw(order[place], key(self.seed, turn, place))
