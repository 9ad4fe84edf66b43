"""Lovasz-softmax: a convex stand-in for 1 - IoU, for when the score is mean IoU."""

import torch
from torch import Tensor, nn

from torchfpn.criteria.pixels import pixels
from torchfpn.recipe import IGNORE

ONE = 0x3F800000  # the bits of float32 1.0; for floats >= 0 the order of the bits is the order of the numbers


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
