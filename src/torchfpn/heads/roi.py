"""The second stage of a detector: RoI pooling, box head, mask head, and the selection of detections."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from torchfpn.errors import ConfigError
from torchfpn.nn.containers import Chain, Fork, chain
from torchfpn.nn.layers import Norm, conv_norm_act
from torchfpn.ops.boxes import clip, decode, nms, picked, roi_levels
from torchfpn.ops.roi_align import pool_levels
from torchfpn.types import Boxes, Level, Maps

Kind = Literal["2fc", "4conv1fc"]
SOME = 32  # boxes whose masks are computed at a time on a CPU: enlarged to 28 x 28, they are the largest maps of all
WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the codes: they make the four numbers about as large


class RoIPool(nn.Module):
    """RoIAlign: maps, boxes [B, K, 4] -> [B * K, C, size, size], each box from the map that fits its size. No weights.

    levels: of the maps that are read; coarser ones may follow them. sampling: points a bin along each side, 0: as many
    as cells. aligned: pixel centres at halves, as detectron2 has them; torchvision's detectors do not. inside: see
    `torchfpn.ops.boxes`. Equals torchvision's `MultiScaleRoIAlign`.
    """

    def __init__(
        self, levels: Sequence[Level], size: int, *, sampling: int = 0, aligned: bool = True, inside: bool = False
    ) -> None:
        super().__init__()
        names = [math.log2(level.stride) for level in levels]
        if any(name != names[0] + i for i, name in enumerate(names)) or names[0] % 1:
            found = ", ".join(str(level.stride) for level in levels)
            raise ConfigError(f"strides {found}", field="pyramid", allowed="powers of two, each twice the one before")
        self.first, self.scales = int(names[0]), [1 / level.stride for level in levels]
        self.size, self.sampling, self.aligned, self.inside = size, sampling, aligned, inside

    def forward(self, maps: Maps, boxes: Tensor) -> Tensor:
        """[B, C, h, w] each, [B, K, 4] -> [B * K, C, size, size]."""
        images, rows = boxes.shape[:2]
        number = torch.arange(images, device=boxes.device, dtype=boxes.dtype)[:, None].expand(images, rows)
        rois = torch.cat([number[..., None], boxes], -1).flatten(0, 1)
        count = len(self.scales)
        levels = roi_levels(rois[:, 1:], first=self.first, last=self.first + count - 1, inside=self.inside)
        size = (self.size, self.size)
        return pool_levels(maps[:count], rois, levels, size, self.scales, self.sampling, self.aligned)

    def extra_repr(self) -> str:
        """Size, sampling, alignment."""
        sampling = "adaptive" if self.sampling == 0 else f"{self.sampling} x {self.sampling}"
        return f"{self.size} x {self.size}, P{self.first}..P{self.first + len(self.scales) - 1}, {sampling} samples" + (
            ", aligned" if self.aligned else ""
        )


def _linear(inputs: int, outputs: int, *, std: float | None = None) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    if std is None:
        nn.init.kaiming_uniform_(layer.weight, a=1)
    else:
        nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer


class BoxHead(Chain):
    """RoIs [R, C, size, size] -> {"scores": [R, classes + 1], background last, "deltas": [R, 4 classes]}.

        [R, C, 7, 7] --fc 1024, ReLU--> --fc 1024, ReLU--> --fc--> scores [R, classes + 1]
                                                           --fc--> deltas [R, 4 classes]

    kind: "2fc", two fully connected layers (Lin et al. 2017, section 4.2), or "4conv1fc", four convolutions and one
    (Wu & He 2018, section 5.2). hidden: width of the fully connected ones. norm: of the convolutions. Equals
    torchvision's `TwoMLPHead` and `FastRCNNConvFCHead`, whose background stands first.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        size: int = 7,
        kind: Kind = "2fc",
        hidden: int = 1024,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        if kind not in ("2fc", "4conv1fc"):
            raise ConfigError(f'"{kind}"', field="box", allowed='"2fc" or "4conv1fc"')
        if kind == "4conv1fc":
            self.convs = chain(**{f"conv{i}": conv_norm_act(channels, channels, norm=norm) for i in range(1, 5)})
        self.flatten = nn.Flatten()
        layers = {"fc1": _linear(channels * size * size, hidden), "act1": nn.ReLU(inplace=True)}
        if kind == "2fc":
            layers |= {"fc2": _linear(hidden, hidden), "act2": nn.ReLU(inplace=True)}
        self.features = chain(**layers)
        scores, deltas = _linear(hidden, num_classes + 1, std=0.01), _linear(hidden, 4 * num_classes, std=0.001)
        self.predict = Fork({"scores": scores, "deltas": deltas})


class MaskHead(Chain):
    """RoIs [R, C, 14, 14] -> mask logits [R, classes, 28, 28]: four convolutions, one transposed, one 1x1.

    Source: He et al. 2017, figure 4 (right). Equals torchvision's `MaskRCNNHeads` and `MaskRCNNPredictor`, which have a
    mask for the background as well.
    """

    def __init__(
        self, channels: int, num_classes: int, *, hidden: int = 256, depth: int = 4, norm: Norm = "none"
    ) -> None:
        super().__init__()
        widths = [channels] + [hidden] * depth
        self.convs = chain(**{f"conv{i + 1}": conv_norm_act(widths[i], hidden, norm=norm) for i in range(depth)})
        self.enlarge = nn.ConvTranspose2d(widths[-1], hidden, 2, stride=2)
        self.act = nn.ReLU(inplace=True)
        self.classify = nn.Conv2d(hidden, num_classes, 1)
        for layer in (self.enlarge, self.classify):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, rois: Tensor) -> Tensor:
        """In one piece, or, on a CPU and with no gradient to come, some boxes after another: no row sees another."""
        run: Callable[[Tensor], Tensor] = super().forward
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or rois.device.type != "cpu":
            return run(rois)
        return torch.cat([run(some) for some in torch.split(rois, SOME)])


def by_image(flat: Tensor, images: int) -> Tensor:
    """[B * K, ...] -> [B, K, ...]."""
    return flat.reshape(images, flat.shape[0] // images, *flat.shape[1:])


class Detect(nn.Module):
    """Class scores and box codes of the proposals -> for each image the best boxes of all classes.

    Every class of every proposal with a probability over `threshold` is a box of its own; it is decoded, cut at the
    image's border, left out where smaller than `smallest` pixels, suppressed within its class at an overlap of `iou`,
    and the best `limit` are kept. smallest=0: empty boxes are left out last, after the best `limit` were counted with
    them. weights: of the codes. candidates: how many boxes are suppressed at most in a graph
    of fixed sizes; run eagerly, all are. What there was no room for is counted.

    Source: Girshick 2015, section 2; Lin et al. 2017, section 4.2. Equals torchvision's `RoIHeads` with smallest=1e-2,
    and detectron2's `FastRCNNOutputLayers` and its rescaling with smallest=0.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.05,
        iou: float = 0.5,
        limit: int = 100,
        smallest: float = 1e-2,
        weights: Sequence[float] = WEIGHTS,
        candidates: int = 2000,
    ) -> None:
        super().__init__()
        self.threshold, self.iou, self.limit, self.smallest = threshold, iou, limit, smallest
        self.weights, self.candidates = tuple(weights), candidates

    @torch.no_grad()
    def forward(self, rois: dict[str, Tensor], proposals: Boxes, sizes: Tensor) -> Boxes:
        """Scores [B, K, C + 1], deltas [B, K, 4 C], sizes [B, 2] (height, width) -> at most `limit` boxes an image.

        Rows behind the last detection are 0, as all are where K = 0, or where no score is a number.
        """
        if not rois["scores"].shape[1]:
            return _none(proposals, self.limit)
        chances = rois["scores"].float().softmax(-1)[..., :-1]
        b, k, classes = chances.shape
        likely = (chances > self.threshold) & proposals.valid[..., None]
        flat = chances.masked_fill(~likely, 0).flatten(1)
        which = flat.topk(self._room(likely, k * classes)).indices.sort(1).values  # of equal ones the first is better
        best = flat.gather(1, which)
        cut = likely.flatten(1).sum(1) - (best > 0).sum(1)
        rows = which.div(classes, rounding_mode="floor")
        codes = picked(rois["deltas"].float().reshape(b, k * classes, 4), which)
        before = picked(proposals.boxes, rows)
        boxes, labels = clip(decode(codes, before, self.weights), sizes), which % classes
        sides = boxes[..., 2:] - boxes[..., :2]
        valid = (best > 0) & (sides >= self.smallest).all(-1)
        index, counts, lost = nms(boxes, best, labels, valid, iou=self.iou, keep=self.limit)
        found = Boxes(picked(boxes, index), best.gather(1, index), labels.gather(1, index), counts, lost + cut)
        there = found.valid  # boxes of overflown codes are no numbers, and masks are read from every row in a graph
        found = found._replace(boxes=found.boxes.masked_fill(~there[..., None], 0))
        return found if self.smallest > 0 else without_empty(found)

    def _room(self, likely: Tensor, most: int) -> int:
        """How many candidates are looked at: as many as there are, or a fixed number in a graph."""
        if torch.compiler.is_compiling():
            return min(self.candidates, most)
        return max(1, int(likely.flatten(1).sum(1).max()))

    def extra_repr(self) -> str:
        """The three numbers."""
        return f"threshold {self.threshold}, iou {self.iou}, at most {self.limit}"


def _none(proposals: Boxes, limit: int) -> Boxes:
    """A table of `limit` rows for each image, none of which is there."""
    images, zeros = len(proposals.counts), torch.zeros_like(proposals.counts)
    scores = proposals.scores.new_zeros(images, limit, dtype=torch.float32)
    boxes = proposals.boxes.new_zeros(images, limit, 4)
    return Boxes(boxes, scores, torch.zeros_like(scores, dtype=torch.int64), zeros, zeros.clone())


def without_empty(found: Boxes) -> Boxes:
    """The table without the boxes that have no area; the others move up."""
    there = ((found.boxes[..., 2:] > found.boxes[..., :2]).all(-1)) & found.valid
    order = (~there).to(torch.int64).argsort(dim=1, stable=True)
    boxes, scores, labels = picked(found.boxes, order), found.scores.gather(1, order), found.labels.gather(1, order)
    return Boxes(boxes, scores, labels, there.sum(1), found.lost)
