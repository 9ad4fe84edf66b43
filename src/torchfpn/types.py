"""The values that flow between the pieces: levels, maps, batches, results. No behaviour beyond len, index and to.

Shapes: B images, C channels or bands, K classes, H x W pixels. This module does not import torch: code that only needs
`Size` or `Objects`, such as the check of a dataset, runs without it.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from torchfpn.recipe import IGNORE

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Maps = tuple["Tensor", ...]  # [B, C_i, H / s_i, W / s_i], finest first, always

Size = tuple[int, int]  # (height, width) in pixels

Color = tuple[int, int, int]  # red, green, blue, 0..255

SHOWN = 10  # classes that are named when a result is printed


class Level(NamedTuple):
    """The whole contract between two pieces: what one map of a tuple looks like."""

    channels: int
    stride: int  # input pixels per cell


@dataclass(frozen=True)
class Batch:
    """What one step sees.

    images: [B, C, H, W] float, raw values as in the files, NaN where there is none (nodata, padding).
    sizes: the true (height, width) of each image, before padding; the padding is at the right and the bottom.
    targets: semantic: [B, H, W] int64, 0-based class indices, `IGNORE` where nothing is known; detection and instances:
    a list of `Objects`; panoptic: `PanopticTargets`; None: no truth.
    names: where each image came from, for messages.
    """

    images: "Tensor"
    sizes: list[Size]
    targets: Any = None
    names: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: "torch.device | str") -> "Batch":
        """The same batch with its tensors on `device`."""
        targets = self.targets
        if isinstance(targets, list):
            targets = [objects.to(device) for objects in targets]
        elif isinstance(targets, PanopticTargets):
            targets = targets.to(device)
        elif targets is not None:
            targets = targets.to(device, non_blocking=True)
        return replace(self, images=self.images.to(device, non_blocking=True), targets=targets)

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, for a DataLoader with pin_memory."""
        targets = self.targets.pin_memory() if hasattr(self.targets, "pin_memory") else self.targets
        return replace(self, images=self.images.pin_memory(), targets=targets)


@dataclass(frozen=True)
class Semantic:
    """A class for every pixel of one image.

    labels: [H, W] int64, 0-based class indices, `IGNORE` where the image holds no data.
    scores: [H, W] float32, probability of that class, 0..1; 0 where the image holds no data.
    """

    labels: "Tensor"
    scores: "Tensor"

    def __repr__(self) -> str:
        """Size, classes and scores: "Semantic(45 x 60: class 0 70.0 %, class 2 30.0 %; scores 0.41 to 0.99)"."""
        counts = self.labels.flatten().cpu().bincount().tolist()
        shares = sorted(((100 * n / sum(counts), label) for label, n in enumerate(counts) if n), reverse=True)
        each = [f"{'no data' if label == IGNORE else f'class {label}'} {share:.1f} %" for share, label in shares]
        words = ", ".join(each[:SHOWN]) + (", ..." if len(each) > SHOWN else "")
        known = self.scores[self.labels != IGNORE]
        if known.numel():
            words += f"; scores {float(known.min()):.2f} to {float(known.max()):.2f}"
        return f"Semantic({self.labels.shape[-2]} x {self.labels.shape[-1]}: {words})"

    def to(self, device: "torch.device | str") -> "Semantic":
        """The same result on `device`."""
        return Semantic(self.labels.to(device), self.scores.to(device))


class Boxes(NamedTuple):
    """Boxes of every image of a batch in a table of fixed length, of which only the first `counts` are there.

    boxes: [B, K, 4] (x1, y1, x2, y2) in pixels. scores: [B, K], 0..1, best first. labels: [B, K] 0-based classes.
    counts: [B] how many there are. lost: [B] how many more there were, for which the table had no room.
    """

    boxes: "Tensor"
    scores: "Tensor"
    labels: "Tensor"
    counts: "Tensor"
    lost: "Tensor"

    @property
    def valid(self) -> "Tensor":
        """[B, K] bool: which rows are there."""
        import torch

        rows = torch.arange(self.boxes.shape[1], device=self.boxes.device)
        return rows < self.counts[:, None]


class Regions(NamedTuple):
    """What a two-stage model says of a batch, raw: all that losses and results are made of.

    dense: the first stage, for each level scores [B, A, h, w] (logits) and deltas [B, 4 A, h, w] (codes). anchors:
    [N, 4], of all levels, row by row, the A of a cell together. proposals: what came of them, K an image. rois: the
    second stage, scores [B, K, classes + 1] (logits), background last, and deltas [B, K, 4 classes] (codes).
    detections: the final boxes, D an image. masks: [B, D, classes, m, m] logits on them; None in models without masks.
    """

    dense: "tuple[dict[str, Tensor], ...]"
    anchors: "Tensor"
    proposals: Boxes
    rois: "dict[str, Tensor]"
    detections: Boxes
    masks: "Tensor | None" = None


@dataclass(frozen=True)
class Objects:
    """The objects of one image, as they are labelled.

    boxes: [N, 4] (x1, y1, x2, y2) in pixels. labels: [N] 0-based classes. masks: of each object within its box, None
    where only boxes are known. crowds: boxes [M, 4] of areas full of objects that nobody told apart: not learnt from.
    """

    boxes: "Tensor"
    labels: "Tensor"
    masks: Any = None
    crowds: "Tensor | None" = None

    def __len__(self) -> int:
        return len(self.boxes)

    def to(self, device: "torch.device | str") -> "Objects":
        """The same objects on `device`; masks stay where they are, few of them are looked at."""
        crowds = None if self.crowds is None else self.crowds.to(device)
        return replace(self, boxes=self.boxes.to(device), labels=self.labels.to(device), crowds=crowds)


class PanopticOutput(NamedTuple):
    """What a panoptic model says of a batch, raw.

    semantic: [B, Ks, H, W] logits at the size of the input. Ks = S + 1 with one class for all things (index 0, then the
    S stuff classes: the paper, detectron2), or T + S, every class in the order of the classes, things first. regions:
    of the things, as a two-stage model gives them.
    """

    semantic: "Tensor"
    regions: Regions


@dataclass(frozen=True)
class PanopticTargets:
    """What the images of a batch show: a class for every pixel, and each thing by itself.

    semantic: [B, H, W] int64, 0-based indices of all classes, things first; `IGNORE` where nothing is known. objects:
    of each image, the things; their labels are indices of the same classes. Crowds as in detection. segments: of each
    image in its own pixels, what `metrics.panoptic` takes as truth, on the CPU; None of images that were augmented.
    """

    semantic: "Tensor"
    objects: list[Objects]
    segments: list[Any] | None = None

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, images: slice) -> "PanopticTargets":
        """The targets of some of the images."""
        segments = None if self.segments is None else self.segments[images]
        return PanopticTargets(self.semantic[images], self.objects[images], segments)

    def to(self, device: "torch.device | str") -> "PanopticTargets":
        """The same targets on `device`."""
        semantic = self.semantic.to(device, non_blocking=True)
        return replace(self, semantic=semantic, objects=[objects.to(device) for objects in self.objects])

    def pin_memory(self) -> "PanopticTargets":
        """The same targets with the class map in page-locked memory; the objects are small."""
        return replace(self, semantic=self.semantic.pin_memory())


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic result: a thing, or all pixels of a stuff class.

    id: its value in `Panoptic.segments`, from 1. label: 0-based class. isthing: whether it is an object. score: 0..1,
    of a thing its detection score, of stuff the mean probability of its pixels. area: pixels. box: (x1, y1, x2, y2)
    around its pixels, ends excluded.
    """

    id: int
    label: int
    isthing: bool
    score: float
    area: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Panoptic:
    """A segment for every pixel of one image.

    segments: [H, W] int32, the id of the segment; 0 = void, where no segment lies or the image holds no data.
    segments_info: of each id that occurs, once, in the order of the ids. instances: `Instances`, all that the region
    branch found, before merging; semantic: what the semantic branch says; both None where they were not kept.
    """

    segments: "Tensor"
    segments_info: list[Segment]
    instances: Any = None
    semantic: Semantic | None = None

    def __len__(self) -> int:
        return len(self.segments_info)

    def __repr__(self) -> str:
        """Size and segments: "Panoptic(45 x 60: 3 things: class 0 x 2, class 1 x 1; 1 stuff: class 3; void 2.5 %)"."""
        words = []
        for kind, isthing in (("things", True), ("stuff", False)):
            labels = [segment.label for segment in self.segments_info if segment.isthing == isthing]
            counts = {label: labels.count(label) for label in sorted(set(labels))}
            each = [f"class {label} x {n}" if isthing else f"class {label}" for label, n in counts.items()]
            names = ", ".join(each[:SHOWN]) + (", ..." if len(each) > SHOWN else "")
            words.append(f"{len(labels)} {kind}" + (f": {names}" if names else ""))
        height, width = self.segments.shape[-2:]
        void = height * width - sum(segment.area for segment in self.segments_info)
        words.append(f"void {100 * void / max(height * width, 1):.1f} %")
        return f"Panoptic({height} x {width}: {'; '.join(words)})"

    def to(self, device: "torch.device | str") -> "Panoptic":
        """The same result on `device`; masks of the instances stay where they are."""
        parts = [None if part is None else part.to(device) for part in (self.instances, self.semantic)]
        return Panoptic(self.segments.to(device), self.segments_info, *parts)
