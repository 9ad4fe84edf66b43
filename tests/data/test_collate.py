"""Samples of different sizes in one batch."""

import torch

from torchfpn.data.sample import Sample, collate
from torchfpn.recipe import IGNORE


def sample(height, width, value):
    return Sample(torch.full((2, height, width), float(value)), torch.full((height, width), value), f"{value}.png")


def test_padding_means_nothing_here():
    batch = collate([sample(2, 5, 0), sample(4, 3, 1), sample(1, 1, 2)])
    assert batch.images.shape == (3, 2, 4, 5)
    assert batch.targets.shape == (3, 4, 5)
    assert batch.sizes == [(2, 5), (4, 3), (1, 1)]
    assert batch.names == ["0.png", "1.png", "2.png"]
    for i, (h, w) in enumerate(batch.sizes):
        assert (batch.images[i, :, :h, :w] == i).all()
        assert (batch.targets[i, :h, :w] == i).all()
        assert int(batch.images[i].isnan().sum()) == 2 * (20 - h * w)
        assert int((batch.targets[i] == IGNORE).sum()) == 20 - h * w


def test_equal_sizes_are_stacked_as_they_are():
    batch = collate([sample(3, 3, 0), sample(3, 3, 1)])
    assert not batch.images.isnan().any()
    assert batch.images.dtype == torch.float32
    assert batch.targets.dtype == torch.int64
