"""Objects moved with their image: boxes, masks and crowds through one geometry, what leaves the image cut off."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.data.geometry import Geometry
from torchfpn.data.outlines import seen
from torchfpn.data.truth import Truth, cut_to
from torchfpn.ops.masks import Crops
from torchfpn.types import Objects

VISIBLE = 0.1  # share of its box that must be left of an object that is cut, for training to learn it
COVERING = 0.1  # or the share of the view that the rest of it covers: all of it, in the middle of a large object


def every_object(truth: Truth, geometry: Geometry) -> Objects:
    """All objects that `geometry` shows, for evaluation and for people; of one that is cut, a pixel is enough."""
    return moved(truth, geometry, visible=0.0, smallest=0.0)


def moved(
    truth: Truth, geometry: Geometry, *, visible: float = VISIBLE, covering: float = COVERING, smallest: float = 1.0
) -> Objects:
    """The objects as `geometry` shows them, in its order, for training.

    Boxes are cut at the edges of the image. Of an object that is cut, the box is that of what is left of its mask. An
    object of which too little is left to be learnt becomes a crowd: its rest is no background either.

    Args:
        truth: of the whole image.
        geometry: what is done to that.
        visible: share of its box that must be left, 0..1,
        covering: or the share of the view that what is left of the box must cover, 0..1.
        smallest: pixels that both sides of a box must have; of an object that is cut, at least 1.
    """
    whole = geometry.on_boxes(torch.from_numpy(truth.boxes).double()).numpy()
    inside, reduced, keep = cut_to(whole, geometry.size, visible=visible, covering=covering, smallest=smallest)
    rest, kept = inside[~keep & _has_area(inside)], np.flatnonzero(keep)
    boxes, cut = torch.from_numpy(inside[kept]).float(), torch.from_numpy(reduced[kept])
    labels, masks = torch.from_numpy(truth.labels[kept]), None
    if truth.masks is not None:
        masks = move_masks(truth.masks(kept), geometry)
        tight, there = tight_boxes(masks)
        boxes = torch.where((cut & there)[:, None], tight, boxes)
        sides = (boxes[:, 2:] - boxes[:, :2]).amin(1)
        stays = ~cut | (there & (sides >= smallest))
        masks = seen(_only(masks, stays), boxes[stays].numpy())
        boxes, labels = boxes[stays], labels[stays]
    crowds, _, _ = cut_to(geometry.on_boxes(torch.from_numpy(truth.crowds).double()).numpy(), geometry.size)
    crowds = crowds[_has_area(crowds)]
    crowds = np.concatenate([crowds, rest]) if visible > 0 else crowds
    return Objects(boxes, labels, masks, torch.from_numpy(crowds).float())


def move_masks(crops: Crops, geometry: Geometry) -> Crops:
    """The masks as `geometry` shows them, of each pixel the nearest one; memory follows what can be seen of them."""
    rows, columns = (lines.numpy() for lines in geometry.sources())
    windows = crops.windows.numpy()
    top, bottom = np.searchsorted(rows, windows[:, 1]), np.searchsorted(rows, windows[:, 3])
    left, right = np.searchsorted(columns, windows[:, 0]), np.searchsorted(columns, windows[:, 2])
    empty = (top >= bottom) | (left >= right)
    starts, flat = crops.starts().tolist(), crops.pixels.numpy()
    made = []
    for i in np.flatnonzero(~empty):
        x1, y1, x2, y2 = windows[i].tolist()
        pixels = flat[starts[i] : starts[i + 1]].reshape(x2 - x1, y2 - y1)  # columns first
        across, down = columns[left[i] : right[i]] - x1, rows[top[i] : bottom[i]] - y1
        made.append(_turned(pixels[across[:, None], down], geometry).reshape(-1))
    frames = np.stack([left, top, right, bottom], 1)
    frames = _turned_windows(frames, geometry)
    frames[empty] = 0
    pixels = np.concatenate(made) if made else np.zeros(0, bool)
    return Crops(torch.from_numpy(frames), torch.from_numpy(pixels), geometry.size)


def tight_boxes(crops: Crops) -> tuple[Tensor, Tensor]:
    """[N, 4] float32: the smallest boxes around the pixels of each mask; [N] bool: whether it has any."""
    windows, starts, flat = crops.windows.numpy(), crops.starts().tolist(), crops.pixels.numpy()
    boxes, there = np.zeros((len(windows), 4), np.float32), np.zeros(len(windows), bool)
    for i, (x1, y1, x2, y2) in enumerate(windows.tolist()):
        pixels = flat[starts[i] : starts[i + 1]].reshape(x2 - x1, y2 - y1)
        xs = np.flatnonzero(pixels.any(1))
        if len(xs):
            ys = np.flatnonzero(pixels.any(0))
            boxes[i], there[i] = (x1 + xs[0], y1 + ys[0], x1 + xs[-1] + 1, y1 + ys[-1] + 1), True
    return torch.from_numpy(boxes), torch.from_numpy(there)


def _has_area(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray((boxes[:, 2:] > boxes[:, :2]).all(1))


def _only(crops: Crops, keep: Tensor) -> Crops:
    """The masks that `keep` [N] tells."""
    if keep.all():
        return crops
    areas = crops.starts().diff()
    return Crops(crops.windows[keep], crops.pixels[keep.repeat_interleave(areas)], crops.size)


def _turned(pixels: NDArray[np.bool_], geometry: Geometry) -> NDArray[np.bool_]:
    """Pixels [w, h], columns first, turned and mirrored as images are."""
    rows = np.rot90(pixels.T, geometry.turns)
    rows = rows[:, ::-1] if geometry.mirror else rows
    return (rows[::-1] if geometry.flip else rows).T


def _turned_windows(windows: NDArray[np.int64], geometry: Geometry) -> NDArray[np.int64]:
    """[N, 4] of the resized window, turned and mirrored."""
    (height, width), (x1, y1, x2, y2) = geometry.resized, windows.T
    for _ in range(geometry.turns):
        x1, y1, x2, y2 = y1, width - x2, y2, width - x1
        height, width = width, height
    if geometry.mirror:
        x1, x2 = width - x2, width - x1
    if geometry.flip:
        y1, y2 = height - y2, height - y1
    return np.stack([x1, y1, x2, y2], 1).astype(np.int64)
