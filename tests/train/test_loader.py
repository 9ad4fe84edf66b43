"""Batches: the same whatever the number of processes and wherever the epoch begins; errors that stay one line."""

import os
import signal

import pytest
import torch

from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import SemanticDataset
from torchfpn.data.transforms import Augment
from torchfpn.errors import DataError
from torchfpn.recipe import Scaling
from torchfpn.train.loader import TrainLoader, ValidationLoader, explain_loader_error
from train.tiny import make_data

AUGMENT = Augment(crop=(16, 16), scale=(0.5, 2.0), noise=0.1, scaling=Scaling.imagenet())


@pytest.fixture
def samples(tmp_path):
    return SemanticDataset(read_dataset(make_data(tmp_path / "data")), "train", augment=AUGMENT)


def loader(samples, **options):
    return TrainLoader(samples, **({"step_size": 3, "steps": 4, "seed": 1} | options))


def seen(loader, epoch=0, first=0):
    loader.begin(epoch, first)
    try:
        return list(loader)
    finally:
        loader.close()


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) and a.names == b.names
        for a, b in zip(one, other, strict=True)
    )


def test_an_epoch_entered_in_its_middle_gives_its_rest(samples):
    whole = seen(loader(samples), 2)
    assert [len(b) for b in whole] == [3, 3, 3, 3]
    for first in range(4):
        assert same(seen(loader(samples), 2, first), whole[first:])


def test_epochs_differ_and_seeds_differ(samples):
    one = loader(samples)
    assert not same(seen(one, 0), seen(one, 1))
    assert not same(seen(one, 0), seen(loader(samples, seed=2), 0))
    assert same(seen(one, 1), seen(loader(samples), 1))


def test_loader_processes_change_nothing_and_stay_for_the_next_epoch(samples):
    alone, helped = loader(samples), loader(samples, workers=2)
    processes = set()
    for epoch, first in ((0, 0), (1, 2), (2, 0)):
        helped.begin(epoch, first)
        assert same(list(helped), seen(alone, epoch, first))
        processes |= {worker.pid for worker in helped.loader._iterator._workers}
    helped.close()
    assert len(processes) == 2


def test_an_epoch_with_nothing_left_gives_one_empty_batch(samples):
    one = loader(samples)
    (batch,) = seen(one, 0, 4)
    assert len(batch) == 0
    assert len(one) == 1


def test_processes_that_train_together_share_every_step(samples):
    both = [seen(loader(samples, rank=rank, world=2), 1) for rank in (0, 1)]
    names = [name for pair in zip(*both, strict=True) for batch in pair for name in batch.names]
    assert all(names.count(name) == 3 for name in names)  # 24 draws from 8 images


def test_validation_gives_every_image_whole_and_alone(tmp_path):
    samples = SemanticDataset(read_dataset(make_data(tmp_path / "data")), "val")
    sizes = [tuple(b.images.shape) for b in ValidationLoader(samples)]
    assert sizes == [(1, 3, 32, 48), (1, 3, 40, 40)]
    assert len(list(ValidationLoader(samples, count=1))) == 1
    assert [b.names for b in ValidationLoader(samples, rank=1, world=2)] == [[str(samples.pairs[1].image)]]


class Broken:
    def __init__(self, found):
        self.found = found

    def __len__(self):
        return 8

    def __getitem__(self, draw):
        if self.found is None:
            os.kill(os.getpid(), signal.SIGKILL)
        raise DataError(self.found, file="a.png", hint="mend it")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_loader_process_arrives_as_it_was(workers):
    with pytest.raises(DataError) as caught:
        seen(loader(Broken("the value 7"), workers=workers))
    assert str(caught.value) == "a.png: the value 7; mend it"
    assert caught.value.hint == "mend it"


def test_a_killed_loader_process_is_explained():
    with pytest.raises(RuntimeError) as caught:
        seen(loader(Broken(None), workers=1))
    told = str(explain_loader_error(caught.value, 1))
    assert "one of 1 loader processes was killed (Killed)" in told
    assert "--num-workers" in told
    assert "/dev/shm has" in told
    assert explain_loader_error(RuntimeError("something else"), 1) is None
    assert "returned no data for 120 s" in str(
        explain_loader_error(RuntimeError("DataLoader timed out after 120 seconds"), 2)
    )
