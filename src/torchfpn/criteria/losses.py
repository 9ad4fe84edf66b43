"""Pixel losses: cross-entropy, focal, Dice and Lovasz-softmax; ignored pixels have no weight. Class weights."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfpn.errors import ConfigError, DataError, ShapeError
from torchfpn.recipe import IGNORE

SURE = 1e-12  # 1 - p below this counts as this: x ** gamma has no slope at 0 when gamma < 1
ONE = 0x3F800000  # the bits of float32 1.0; for floats >= 0 the order of the bits is the order of the numbers


class Pixels(NamedTuple):
    """One batch, checked. B images, K classes, H x W pixels."""

    logits: Tensor  # [B, K, H, W] float32 (float64 stays float64), whatever autocast made of them
    targets: Tensor  # [B, H, W] int64, 0..K-1 or IGNORE
    counts: Tensor  # [K] int64, labelled pixels of each class


def pixels(logits: Tensor, targets: Tensor, weight: Tensor | None = None) -> Pixels:
    """The batch in the precision losses need, with the number of pixels of each class.

    Raises:
        ShapeError: the shapes or types do not fit, or there is not one weight for each class.
        DataError: a target that is no class (on the CPU; on a GPU looking would mean waiting for it, see `fpn check`).
    """
    if logits.dim() < 3 or not logits.is_floating_point() or logits.shape[:1] + logits.shape[2:] != targets.shape:
        raise ShapeError(
            f"{_seen(logits)} logits and {_seen(targets)} targets",
            allowed="logits [B, K, H, W] of floats and targets [B, H, W] of integers",
        )
    if targets.is_floating_point() or not 1 <= logits.shape[1] <= IGNORE:
        raise ShapeError(
            f"{logits.shape[1]} classes and targets of {targets.dtype}",
            allowed=f"1 to {IGNORE} classes and targets of integers ({IGNORE} means not labelled)",
        )
    if weight is not None and len(weight) != logits.shape[1]:
        raise ShapeError(
            f"{len(weight)} class weights for {logits.shape[1]} classes",
            field="class_weights",
            allowed="one weight for each class",
        )
    dtype = torch.promote_types(logits.dtype, torch.float32)
    targets = targets.long()
    # log_softmax over the second of four dimensions is fastest on plain NCHW; the copy is free where dtype changes
    logits = logits.to(dtype, memory_format=torch.contiguous_format)
    return Pixels(logits, targets, class_pixels(targets, logits.shape[1]))


def mass(counts: Tensor, weight: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What a sum over labelled pixels is divided by to be their weighted mean; 1 where that would be 0."""
    total = (counts.to(dtype) if weight is None else counts * weight.to(dtype)).sum()
    return torch.where(total > 0, total, 1)


def class_weights(values: Sequence[float] | Tensor | None) -> Tensor | None:
    """One finite weight >= 0 for each class as float32, or None where no class is to weigh more than another.

    Raises:
        ConfigError: a weight is negative or not finite, or all are 0.
    """
    if values is None:
        return None
    numbers = [float(v) for v in values]
    if not numbers or not all(math.isfinite(n) and n >= 0 for n in numbers) or not any(numbers):
        raise ConfigError(
            f"class weights {numbers}", field="class_weights", allowed="finite, not negative, one above 0"
        )
    return torch.tensor(numbers, dtype=torch.float32)


def class_pixels(targets: Tensor, classes: int) -> Tensor:
    """How often each class occurs, [K]."""
    flat = targets.flatten()
    if flat.device.type != "cpu":  # bincount would make the CPU wait for the device
        return flat.new_zeros(IGNORE + 1).scatter_add_(0, flat, torch.ones_like(flat))[:classes]
    low, high = (int(v) for v in flat.aminmax()) if flat.numel() else (0, 0)
    if low < 0 or high > IGNORE:
        raise _no_class(low if low < 0 else high, classes)
    counts = flat.bincount(minlength=IGNORE + 1)
    if counts[classes:IGNORE].any():
        raise _no_class(classes + int(counts[classes:IGNORE].nonzero()[0]), classes)
    return counts[:classes]


def _no_class(value: int, classes: int) -> DataError:
    return DataError(
        f"target {value}", allowed=f"classes 0..{classes - 1}, not labelled is {IGNORE}", hint="run: fpn check"
    )


def _seen(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


class CrossEntropy(nn.Module):
    """Logits [B, K, H, W], targets [B, H, W] -> weighted mean of -log p(truth) over the labelled pixels.

    weight: one for each class. label_smoothing: share of the truth given to all classes alike, 0 <= share < 1.
    A batch without a labelled pixel gives 0 and zero gradients, where torch's own gives NaN.
    Oracle: `F.cross_entropy(weight=, ignore_index=255, label_smoothing=)` wherever that is finite.
    """

    weight: Tensor | None

    def __init__(self, weight: Sequence[float] | Tensor | None = None, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label smoothing {label_smoothing}", field="label_smoothing", allowed="0 <= share < 1")
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", class_weights(weight), persistent=False)  # a setting, not something learnt

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss, a scalar."""
        logits, targets, counts = pixels(logits, targets, self.weight)
        weight = None if self.weight is None else self.weight.to(logits.dtype)
        total = F.cross_entropy(
            logits, targets, weight, ignore_index=IGNORE, reduction="sum", label_smoothing=self.label_smoothing
        )
        return total / mass(counts, weight, total.dtype)


class Focal(nn.Module):
    """Logits [B, K, H, W], targets [B, H, W] -> weighted mean of -(1 - p)^gamma log p over the labelled pixels.

    p: softmax probability of the truth. gamma: how fast known pixels fade; 0 is cross-entropy.
    weight: one for each class (alpha of the paper); the mean is over weights, as in cross-entropy.
    Source: Lin et al. 2017, equation 5, with softmax over K classes in place of K sigmoids.
    """

    weight: Tensor | None

    def __init__(self, gamma: float = 2.0, weight: Sequence[float] | Tensor | None = None) -> None:
        super().__init__()
        if not 0 <= gamma < float("inf"):
            raise ConfigError(f"gamma {gamma}", field="gamma", allowed="a finite number >= 0")
        self.gamma = gamma
        self.register_buffer("weight", class_weights(weight), persistent=False)  # a setting, not something learnt

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss, a scalar."""
        logits, targets, counts = pixels(logits, targets, self.weight)
        entropy = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")  # [B, H, W], 0 at IGNORE
        unsure = -torch.expm1(-entropy)  # 1 - p
        loss = unsure.clamp_min(SURE) ** self.gamma * entropy
        if self.weight is not None:
            table = F.pad(self.weight.to(loss.dtype), (0, IGNORE + 1 - len(self.weight)))  # IGNORE weighs nothing
            loss = loss * table[targets]
        return loss.sum() / mass(counts, self.weight, loss.dtype)


class Dice(nn.Module):
    """Logits [B, K, H, W], targets [B, H, W] -> mean over classes of 1 - 2 |P and T| / (|P| + |T|), 0..1.

    P: softmax probability, T: truth, both summed over the labelled pixels of the whole batch. Only classes that occur
    in the batch's truth are in the mean. smooth: added to both sides of the fraction.
    Source: Milletari et al. 2016 (V-Net), without the squares, for K classes.
    Oracle: `smp.losses.DiceLoss("multiclass")` where all K classes occur (it divides by K even where some do not).
    """

    def __init__(self, *, smooth: float = 0.0) -> None:
        super().__init__()
        if not 0 <= smooth < float("inf"):
            raise ConfigError(f"smooth {smooth}", field="smooth", allowed="a finite number >= 0")
        self.smooth = smooth

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss, a scalar."""
        logits, targets, counts = pixels(logits, targets)
        p = logits.softmax(dim=1).flatten(2)  # [B, K, N]
        t = targets.flatten(1).unsqueeze(1)  # [B, 1, N]
        truth = t == torch.arange(p.shape[1], device=t.device).unsqueeze(1)  # [B, K, N]
        overlap = (p * truth).sum((0, 2))
        area = (p * (t != IGNORE)).sum((0, 2)) + counts
        present = counts > 0
        safe = torch.where(present, area, 1)  # an absent class nobody predicts would be 0 / 0
        loss = 1 - (2 * overlap + self.smooth) / (safe + self.smooth)
        return (loss * present).sum() / present.sum().clamp_min(1)


class Lovasz(nn.Module):
    """Logits [B, K, H, W], targets [B, H, W] -> mean over classes of the Lovasz extension of 1 - IoU, 0..1.

    Per batch, over the classes that occur in its truth; unlabelled pixels count for nothing. One sort for each such
    class, and one wait for the device to learn which they are.
    Source: Berman et al. 2018, algorithm 1, `classes="present"`.
    Oracle: `smp.losses.LovaszLoss("multiclass")`, which raises on a batch without a labelled pixel.
    """

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss, a scalar."""
        logits, targets, counts = pixels(logits, targets)
        p = logits.softmax(dim=1)
        truth = targets.unsqueeze(1) == torch.arange(p.shape[1], device=p.device).view(-1, 1, 1)  # [B, K, H, W]
        errors = (truth.to(p.dtype) - p).abs()
        with torch.no_grad():
            ignored = (targets == IGNORE).flatten()
            slopes = torch.zeros_like(errors)
            present = counts.nonzero().flatten().tolist()
            for k in present:
                slopes[:, k] = slope(errors[:, k].flatten(), truth[:, k].flatten(), ignored).view_as(targets)
        return (errors * slopes).sum() / max(len(present), 1)


def slope(errors: Tensor, truth: Tensor, ignored: Tensor) -> Tensor:
    """How 1 - IoU grows with the error of each pixel of one class. All [N], errors in 0..1; 0 where ignored.

    In order of falling error, a pixel after F true and B other ones adds 1 / (T + B) when it is true and
    (T - F) / ((T + B) (T + B + 1)) when it is not, T being all true pixels. The published code takes the difference of
    two running quotients instead, of which float32 keeps few digits on large maps.
    """
    order = falling(errors, ignored)
    hit = truth[order]
    before = hit.cumsum(0) - hit.long()  # F; whole numbers, exact beyond 2^24 pixels
    union = truth.sum() + torch.arange(len(hit), device=hit.device) - before  # T + B
    missing = (truth.sum() - before).to(errors.dtype)
    size = union.to(errors.dtype)
    grown = torch.where(hit, 1.0, missing / (size + 1)) / size
    return torch.empty_like(errors).scatter_(0, order, grown)  # ignored: last, nothing missing any more, 0


def falling(errors: Tensor, ignored: Tensor) -> Tensor:
    """Indices from the largest of the errors (>= 0) to the smallest, the ignored ones last; ties in their old order."""
    if errors.dtype == torch.float32 and errors.device.type == "cpu":
        # torch sorts int32 by radix on the CPU, eleven times faster than float32; NaN comes first, in both ways
        keys = (ONE - errors.view(torch.int32)).masked_fill_(ignored, ONE + 1)
        return keys.sort(stable=True).indices
    return errors.masked_fill(ignored, -1.0).sort(descending=True, stable=True).indices
