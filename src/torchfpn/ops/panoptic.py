"""Merging what is found of things and of stuff into one panoptic result: a segment for every pixel.

The three rules of Kirillov et al. 2019 (Panoptic Feature Pyramid Networks, section 3): things that overlap are settled
in favour of the better score, things win over stuff, and small areas of stuff are dropped.

Oracles, equal to the pixel: `combine_semantic_and_instance_outputs` of detectron2, which tests the overlap of a mask
with the pixels painted so far, and panopticapi's `combine_semantic_and_instance_predictions.py`, which tests it with
the union of the whole masks kept so far. A kept mask paints all of its free pixels, so these are the same pixels: one
function equals both.

Shapes: N objects, H x W pixels. Memory is that of a few maps [H, W], whatever N.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.errors import ConfigError, DataError, ShapeError
from torchfpn.ops.extents import extents
from torchfpn.ops.masks import Crops, Instances, window_pixels
from torchfpn.recipe import IGNORE
from torchfpn.types import Panoptic, Segment

SemanticClasses = Literal["stuff", "all"]
VOID = 0  # the id of no segment
NODATA = -1  # in the map of ids while it is made: nothing is painted there

Kind = tuple[int, bool, float]  # label, isthing and score of a segment


def merge_segments(
    instances: Instances,
    labels: Tensor,
    scores: Tensor | None = None,
    *,
    things: int,
    semantic_classes: SemanticClasses = "stuff",
    score: float = 0.5,
    overlap: float = 0.5,
    stuff_area: float = 4096,
) -> Panoptic:
    """Instances and the class of each pixel -> segments that do not overlap.

    1. Instances are taken by score, equal ones in the order they came in. One without a pixel is dropped, and one of
       whose pixels a share of more than `overlap` is in segments already; the free pixels of the others are a segment.
    2. The free pixels of each stuff class are a segment, unless there are fewer than `stuff_area`.
    3. What is left is void, as are pixels without data, which masks lose before anything else.

    Args:
        instances: N things with masks, in any order; labels 0 .. things - 1.
        labels: [H, W] integers, for each pixel the class that the semantic branch gives it; `IGNORE` without data.
        scores: [H, W] its probability, 0..1; None: 1 everywhere.
        things: how many of the classes are things. They come first, then stuff.
        semantic_classes: how the branch counts: "stuff", 0 = things and k = the k-th stuff class, counted from 1; or
            "all", the classes themselves. Pixels of things, where no instance is, become void in either case.
        score: the lowest of an instance that is taken, 0..1.
        overlap: 0..1.
        stuff_area: pixels.

    Returns:
        Ids from 1 on, on the device of `labels`: things, best first, then stuff in the order of the classes.
        `instances` and `semantic` of the result are None.

    Raises:
        ShapeError: instances without masks, or a map of another size.
        DataError: an instance that is no thing, or a pixel of no class.
        ConfigError: a threshold out of its range.
    """
    _check_rules(things, semantic_classes, score, overlap, stuff_area)
    _check_shapes(instances, labels, scores)
    assert instances.crops is not None  # just checked
    kinds = _thing_kinds(instances, things)
    order = [k for k in _best_first(instances.scores) if kinds[k][2] >= score]
    found = _class_map(labels)
    segments = np.where(found == IGNORE, np.int32(NODATA), np.int32(VOID))
    kept = [kinds[k] for k in _paint_things(segments, instances.crops, order, overlap)]
    shares = None if scores is None else scores.detach().float().cpu().numpy()
    first, shift = (1, things - 1) if semantic_classes == "stuff" else (things, 0)
    for label, share in _paint_stuff(segments, found, shares, first, len(kept), stuff_area):
        kept.append((label + shift, False, share))
    np.maximum(segments, VOID, out=segments)
    where = extents(segments)
    infos = [
        Segment(number, *kind, area=area, box=(x1, y1, x2, y2))
        for number, kind, area, (x1, y1, x2, y2) in zip(
            where.ids.tolist(), kept, where.pixels.tolist(), where.windows.tolist(), strict=True
        )
    ]
    return Panoptic(torch.from_numpy(segments).to(labels.device), infos)


def _check_rules(things: int, semantic_classes: str, score: float, overlap: float, stuff_area: float) -> None:
    if not 0 <= things <= IGNORE:
        raise ConfigError(f"{things}", field="things", allowed=f"the number of classes that are things, 0..{IGNORE}")
    if semantic_classes not in ("stuff", "all"):
        raise ConfigError(f'"{semantic_classes}"', field="semantic_classes", allowed="stuff | all")
    for name, value in (("score", score), ("overlap", overlap)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{value}", field=name, allowed="0..1")
    if not stuff_area >= 0:
        raise ConfigError(f"{stuff_area}", field="stuff_area", allowed="0 or more pixels")


def _check_shapes(instances: Instances, labels: Tensor, scores: Tensor | None) -> None:
    if instances.crops is None:
        raise ShapeError("instances without masks", allowed="instances with crops")
    size = tuple(instances.crops.size)
    if tuple(labels.shape) != size or labels.is_floating_point():
        raise ShapeError(f"labels {list(labels.shape)} {labels.dtype}", allowed=f"integers {list(size)}, as the masks")
    if scores is not None and tuple(scores.shape) != size:
        raise ShapeError(f"scores {list(scores.shape)}", allowed=f"{list(size)}, as the labels")


def _thing_kinds(instances: Instances, things: int) -> list[Kind]:
    labels, scores = instances.labels.tolist(), instances.scores.tolist()
    for label in labels:
        if not 0 <= label < things:
            raise DataError(f"an instance of class {label}", allowed=f"one of the {things} things, counted from 0")
    return [(label, True, score) for label, score in zip(labels, scores, strict=True)]


def _best_first(scores: Tensor) -> list[int]:
    """Places of the scores [N], the best first; equal ones as they came."""
    order: list[int] = np.argsort(-scores.detach().double().cpu().numpy(), kind="stable").tolist()
    return order


def _class_map(labels: Tensor) -> NDArray[np.uint8]:
    if labels.numel():
        low, high = (int(value) for value in labels.aminmax())
        if low < 0 or high > IGNORE:
            raise DataError(f"pixels of class {low if low < 0 else high}", allowed=f"0..{IGNORE - 1}, or {IGNORE}")
    found: NDArray[np.uint8] = labels.to(torch.uint8).cpu().numpy()
    return found


def _paint_things(segments: NDArray[np.int32], crops: Crops, order: list[int], overlap: float) -> list[int]:
    """Paints masks into the map of ids [H, W], numbers from 1; the objects of these numbers. order: of the masks."""
    pixels, windows = window_pixels(crops), crops.windows.tolist()
    masked = bool((segments == NODATA).any())
    painted: list[int] = []
    for k in order:
        x1, y1, x2, y2 = windows[k]
        part, mask = segments[y1:y2, x1:x2], pixels[k].numpy()
        if masked:
            mask = mask & (part != NODATA)
        free = mask & (part == VOID)
        area, left = int(np.count_nonzero(mask)), int(np.count_nonzero(free))
        if not left or (area - left) / area > overlap:
            continue
        painted.append(k)
        np.copyto(part, len(painted), where=free)
    return painted


def _paint_stuff(
    segments: NDArray[np.int32],
    labels: NDArray[np.uint8],
    scores: NDArray[np.float32] | None,
    first: int,
    last_id: int,
    least: float,
) -> list[tuple[int, float]]:
    """Paints the free pixels of each class from `first` on, numbers after `last_id`; (label, mean score) of each."""
    free = segments == VOID
    shown = labels[free]
    counts = np.bincount(shown, minlength=IGNORE + 1)
    sums = counts if scores is None else np.bincount(shown, scores[free], minlength=IGNORE + 1)
    kept = [k for k in range(first, IGNORE) if counts[k] and counts[k] >= least]
    ids = np.full(IGNORE + 1, VOID, np.int32)
    ids[kept] = np.arange(len(kept)) + last_id + 1
    np.copyto(segments, ids[labels], where=free)
    return [(k, float(sums[k] / counts[k])) for k in kept]
