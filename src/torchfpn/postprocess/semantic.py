"""Class logits -> labels and scores of each image."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchfpn.types import IGNORE, Semantic, Size


class SemanticPostprocess(nn.Module):
    """logits [B, K, H, W], sizes, valid [B, H, W] -> one `Semantic` per image, cut to its own size.

    The label is the first class of the largest logit, the score its softmax probability; one class alone is a yes/no
    question: nothing else to choose, so its label is always 0. Where the image holds no data: `IGNORE`, score 0.
    """

    def forward(self, logits: Tensor, sizes: Sequence[Size], valid: Tensor) -> list[Semantic]:
        """Logits of a padded batch -> results in the order of the batch."""
        logits = logits.float()
        best, labels = logits.max(1)
        scores = torch.exp(best - logits.logsumexp(1))
        labels = torch.where(valid, labels, IGNORE)
        scores = torch.where(valid, scores, 0.0)
        return [Semantic(labels[i, :h, :w], scores[i, :h, :w]) for i, (h, w) in enumerate(sizes)]
