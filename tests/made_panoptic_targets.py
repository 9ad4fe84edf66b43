"""Panoptic targets small enough to be made in a test: squares of things on stuff in two halves."""

import torch

from torchfpn.ops.masks import crop_images
from torchfpn.recipe import IGNORE
from torchfpn.types import Batch, Objects, PanopticTargets


def panoptic_batch(size=(64, 96), boxes=((5, 5, 40, 50), (50, 10, 90, 40)), *, bands=3, things=2, unknown=0):
    """Two images, the second without things: stuff class 0 above, class 1 below, `unknown` rows of nothing on top."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    labels = torch.arange(len(boxes)) % things
    semantic = torch.full((2, *size), things)
    semantic[:, size[0] // 2 :] = things + 1
    for mask, label, (x1, y1, x2, y2) in zip(masks, labels, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
        semantic[0][mask] = label
    semantic[:, :unknown] = IGNORE
    found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    nothing = Objects(found[:0], labels[:0], crop_images(masks[:0]))
    targets = PanopticTargets(semantic, [Objects(found, labels, crop_images(masks)), nothing])
    images = torch.rand(2, bands, *size, generator=torch.Generator().manual_seed(3))
    return Batch(images, [size, size], targets)
