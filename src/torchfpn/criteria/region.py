"""The losses of a two-stage detector, and the sampling of anchors and proposals against the targets.

In training, proposals are sampled against the targets before the second stage, and only those that match an object get
a mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfpn.ops.boxes import by_anchor, encode, match, sample, spared
from torchfpn.ops.masks import mask_targets
from torchfpn.types import Boxes, Objects, Regions

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
CROWDS = 0.7  # share of a box in a crowd, above which it is no background


@dataclass(frozen=True)
class Draw:
    """How boxes are matched and sampled.

    high, low: see `ops.matching.match`. count: boxes an image; share: of matched ones at most.
    """

    high: float
    low: float
    count: int
    share: float


ANCHORS = Draw(0.7, 0.3, 256, 0.5)

PROPOSALS = Draw(0.5, 0.5, 512, 0.25)


class Chosen:
    """The joints of one training step. targets: the objects of each image. crowds: see `RegionCriterion`.

    After `choose`, matches holds [B, P] for each chosen box the number of its object, negative for background and for
    rows that are not there; after `detect`, positives the same of the boxes that get masks.
    """

    def __init__(
        self,
        targets: Sequence[Objects],
        draw: Draw,
        generator: torch.Generator | None = None,
        *,
        crowds: float | None = CROWDS,
    ) -> None:
        self.targets, self.draw, self.generator, self.crowds = targets, draw, generator, crowds
        self.matches = self.positives = torch.zeros(len(targets), 0, dtype=torch.int64)

    @torch.no_grad()
    def choose(self, proposals: Boxes) -> Boxes:
        """Proposals and the objects' own boxes -> `draw.count` of them at most, for each image."""
        chosen, matches = [], []
        for boxes, count, objects in zip(proposals.boxes, proposals.counts, self.targets, strict=True):
            pool = torch.cat([boxes[:count], objects.boxes.to(boxes)])
            found = match(pool, objects.boxes.to(boxes), high=self.draw.high, low=self.draw.low)
            found = _spared(found, pool, objects, self.crowds)
            positive, negative = sample(found, self.draw.count, self.draw.share, self.generator)
            index = torch.cat([positive, negative])
            chosen.append(pool[index])
            matches.append(found[index])
        self.matches = _table(matches, -1)
        return _boxes(chosen)

    @torch.no_grad()
    def detect(self, rois: dict[str, Tensor], chosen: Boxes) -> Boxes:
        """Those of the chosen boxes that match an object."""
        kept = [matches >= 0 for matches in self.matches]
        self.positives = _table([matches[keep] for matches, keep in zip(self.matches, kept, strict=True)], -1)
        return _boxes([boxes[keep] for boxes, keep in zip(chosen.boxes, kept, strict=True)])


class RegionCriterion(nn.Module):
    """Regions, the joints' choice, targets -> {"objectness", "anchors", "classes", "boxes", "masks"}.

    objectness: binary cross-entropy over the sampled anchors. anchors: smooth L1 of the codes of matched anchors, over
    the number of sampled ones. classes: cross-entropy over the sampled proposals. boxes: smooth L1 of the codes of
    matched ones, over the number of sampled ones. masks: binary cross-entropy of the object's class, over the pixels of
    the matched ones. beta: where smooth L1 turns into a square; 0: plain L1. aligned: masks are read with the centres
    of pixels at halves, as detectron2 does, and not half a pixel beside, as torchvision does; so should be the maps
    that the mask head sees, and its masks be laid into the image.

    crowds: anchors and proposals of which more than this share lies in a crowd or an ignored object of the image are
    left out of the sampling, unless they match an object: nobody knows what there is. None: they are background, as in
    torchvision, which knows no crowds.

    Source: Ren et al. 2015, equation 1; He et al. 2017, section 3. Equals torchvision's losses where there are no
    crowds, or with crowds=None.
    """

    def __init__(
        self,
        *,
        anchors: Draw = ANCHORS,
        proposals: Draw = PROPOSALS,
        weights: Sequence[float] = WEIGHTS,
        beta: float = 1 / 9,
        aligned: bool = False,
        crowds: float | None = CROWDS,
    ) -> None:
        super().__init__()
        self.anchors, self.proposals, self.weights, self.beta = anchors, proposals, tuple(weights), beta
        self.aligned, self.crowds = aligned, crowds

    def joints(self, targets: Sequence[Objects], generator: torch.Generator | None = None) -> Chosen:
        """Those of a step on `targets`."""
        return Chosen(targets, self.proposals, generator, crowds=self.crowds)

    def forward(
        self,
        regions: Regions,
        chosen: Chosen,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """What the model said with the joints `chosen` -> the losses."""
        losses = self._first_stage(regions, chosen.targets, generator) | self._second_stage(regions, chosen)
        return losses if regions.masks is None else losses | {"masks": self._masks(regions, regions.masks, chosen)}

    def masses(self, targets: Sequence[Objects]) -> dict[str, float]:
        """How much the losses of some images count among those of more: see `SemanticCriterion.masses`.

        Anchors and proposals are sampled alike of every image; masks are learnt only where there are objects.
        """
        images = dict.fromkeys(("objectness", "anchors", "classes", "boxes"), float(len(targets)))
        most = self.proposals.count * self.proposals.share
        return {**images, "masks": float(sum(min(len(objects), most) for objects in targets))}

    def _first_stage(
        self, regions: Regions, targets: Sequence[Objects], generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        scores = torch.cat([by_anchor(one["scores"], 1)[..., 0] for one in regions.dense], 1).float()  # [B, N]
        deltas = torch.cat([by_anchor(one["deltas"], 4) for one in regions.dense], 1).float()
        said, wanted, codes, meant, count = [], [], [], [], 0
        for image, objects in enumerate(targets):
            boxes = objects.boxes.to(regions.anchors)
            with torch.no_grad():
                found = match(regions.anchors, boxes, high=self.anchors.high, low=self.anchors.low, always=True)
                found = _spared(found, regions.anchors, objects, self.crowds)
                positive, negative = sample(found, self.anchors.count, self.anchors.share, generator)
            said.append(scores[image, torch.cat([positive, negative])])
            wanted.append(torch.cat([torch.ones_like(positive), torch.zeros_like(negative)]).float())
            codes.append(deltas[image, positive])
            meant.append(encode(boxes[found[positive]], regions.anchors[positive]))
            count += len(positive) + len(negative)
        over = max(count, 1)
        objectness = F.binary_cross_entropy_with_logits(torch.cat(said), torch.cat(wanted), reduction="sum") / over
        return {"objectness": objectness, "anchors": self._smooth(torch.cat(codes), torch.cat(meant)) / over}

    def _second_stage(self, regions: Regions, chosen: Chosen) -> dict[str, Tensor]:
        there, matches = regions.proposals.valid, chosen.matches.to(regions.anchors.device)
        scores = regions.rois["scores"].float()
        classes = scores.shape[-1] - 1
        labels = torch.full_like(matches, classes)
        for image, objects in enumerate(chosen.targets):
            positive = matches[image] >= 0
            labels[image, positive] = objects.labels.to(labels)[matches[image, positive]]
        over = max(int(there.sum()), 1)
        deltas = regions.rois["deltas"].float()
        deltas = deltas.view(*deltas.shape[:2], classes, 4)
        codes, meant = [], []
        for image, objects in enumerate(chosen.targets):
            positive = (matches[image] >= 0).nonzero()[:, 0]
            codes.append(deltas[image, positive, labels[image, positive]])
            boxes = objects.boxes.to(regions.anchors)[matches[image, positive]]
            meant.append(encode(boxes, regions.proposals.boxes[image, positive], self.weights))
        return {
            "classes": F.cross_entropy(scores[there], labels[there], reduction="sum") / over,
            "boxes": self._smooth(torch.cat(codes), torch.cat(meant)) / over,
        }

    def _masks(self, regions: Regions, masks: Tensor, chosen: Chosen) -> Tensor:
        said, meant = [], []
        for image, objects in enumerate(chosen.targets):
            matches = chosen.positives[image].to(regions.anchors.device)
            matches = matches[matches >= 0]
            labels = objects.labels.to(matches)[matches]
            said.append(masks[image, torch.arange(len(matches), device=matches.device), labels].float())
            boxes = regions.detections.boxes[image, : len(matches)]
            meant.append(mask_targets(objects.masks, matches, boxes, masks.shape[-1], aligned=self.aligned))
        logits = torch.cat(said)
        if not logits.numel():
            return masks.sum() * 0  # of no image in the batch an object was found
        return F.binary_cross_entropy_with_logits(logits, torch.cat(meant))

    def _smooth(self, codes: Tensor, meant: Tensor) -> Tensor:
        return F.smooth_l1_loss(codes, meant, beta=self.beta, reduction="sum")


def _spared(matches: Tensor, boxes: Tensor, objects: Objects, crowds: float | None) -> Tensor:
    """`matches` [N] of boxes [N, 4], of which those in crowds are no background."""
    if crowds is None or objects.crowds is None:
        return matches
    return spared(matches, boxes, objects.crowds.to(boxes), crowds)


def _table(rows: Sequence[Tensor], nothing: int) -> Tensor:
    """[N_i, ...] -> [B, max N, ...], filled up."""
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=nothing)


def _boxes(boxes: Sequence[Tensor]) -> Boxes:
    """[N_i, 4] -> a table of them."""
    table = _table(boxes, 0)
    counts = torch.tensor([len(own) for own in boxes], device=table.device)
    nothing = torch.zeros_like(counts)
    return Boxes(table, table[..., 0] * 0, torch.zeros_like(table[..., 0], dtype=torch.int64), counts, nothing)
