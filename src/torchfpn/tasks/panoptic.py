"""The Task of panoptic segmentation: region losses and one of all pixels; results are merged segments."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from torchfpn.errors import ConfigError, ShapeError, nearest
from torchfpn.heads.panoptic import SemanticClasses
from torchfpn.ops.masks import Rule
from torchfpn.ops.panoptic import merge_segments
from torchfpn.ops.pixel_classes import best_classes
from torchfpn.recipe import IGNORE, MERGING_LIMITS, is_number
from torchfpn.tasks.task import Named, RegionPostprocess, RegionTask, check_regions, check_scores
from torchfpn.types import Batch, Panoptic, PanopticOutput, PanopticTargets, Semantic, Size

MERGING = {"score": 0.5, "overlap": 0.5, "stuff_area": 4096.0}  # detectron2's thresholds
NAMED = " | ".join(MERGING)


class PanopticTask(RegionTask):
    """A Task of panoptic segmentation: the model gives a `PanopticOutput`, results are `Panoptic`.

        raw images --scaling--> model --> PanopticOutput --+--> criterion(., choice, semantic) -> {name: loss}
                          choose ^                         +--> postprocess(., sizes)          -> [Panoptic, ...]

    Boxes and masks of things are learnt and found as in `RegionTask`; pixels without data are left out of the semantic
    loss and belong to no segment.
    """

    @property
    def things(self) -> tuple[str, ...]:
        """Names of the labels 0..T-1, the classes that are told apart object by object."""
        return self.recipe.things

    @property
    def stuff(self) -> tuple[str, ...]:
        """Names of the labels T..K-1."""
        return self.classes[len(self.things) :]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Each term of the criterion by name, already weighted; the loss is their sum.

        Raises:
            ShapeError: no Batch, one without `PanopticTargets`, or targets that do not fit the images.
        """
        self._check_batch(batch)
        targets = batch.targets
        shape = (len(batch.images), *batch.images.shape[-2:])
        if not isinstance(targets, PanopticTargets):
            raise ShapeError(f"targets {targets}", allowed="PanopticTargets: a class map and the things of each image")
        if tuple(targets.semantic.shape) != shape or len(targets) != len(batch.images):
            found = f"a class map {list(targets.semantic.shape)} and the things of {len(targets)} images"
            raise ShapeError(found, allowed=f"{list(shape)} and {len(batch.images)}, like the images")
        choice = self.criterion.joints(targets.objects)  # type: ignore[operator]  # a PanopticCriterion
        output, valid = self._in_training(batch, choice)
        losses: dict[str, Tensor] = self.criterion(output, choice, torch.where(valid, targets.semantic, IGNORE))
        return losses

    def masses(self, batch: Batch) -> dict[str, float]:
        """What each of the losses is a mean over: labelled pixels, images, objects."""
        targets: PanopticTargets = batch.targets
        known = torch.where(self.normalize(batch.images)[1], targets.semantic, IGNORE)
        found: dict[str, float] = self.criterion.masses(replace(targets, semantic=known))  # type: ignore[operator]
        return found

    def _results(
        self, output: Any, sizes: Sequence[Size], originals: Sequence[Size], valid: Tensor, names: Sequence[Named]
    ) -> list[Any]:
        check_regions(output.regions, names)
        results: list[Panoptic] = self.postprocess(output, sizes, originals, valid)
        check_scores([each.semantic.scores for each in results if each.semantic is not None], names)
        return results


class PanopticPostprocess(nn.Module):
    """Output, sizes -> one `Panoptic` per image.

    Each keeps what its branches said, `instances` and `semantic`. The latter has labels of all classes; where the
    branch has one class for all things, its pixels are IGNORE with the probability of that class as their score, and
    so differ from pixels without data, whose score is 0.

    Args:
        things: how many of the classes are things.
        semantic_classes: what the semantic branch tells apart, see `torchfpn.create_model`.
        rule: how masks are laid into the image, see `torchfpn.ops.masks`.
        merging: the thresholds `score`, `overlap` and `stuff_area` (pixels of the images that are asked about) of
            `torchfpn.ops.panoptic.merge_segments`; those left out are detectron2's.

    Raises:
        ConfigError: no such threshold, or one out of its range.
    """

    def __init__(
        self,
        *,
        things: int,
        semantic_classes: SemanticClasses = "stuff",
        rule: Rule = "torchvision",
        merging: Mapping[str, float] = MERGING,
    ) -> None:
        super().__init__()
        for name, value in merging.items():
            if name not in MERGING:
                hint = nearest(name, MERGING)
                raise ConfigError("no such threshold", field=f"rules.panoptic.{name}", allowed=NAMED, hint=hint)
            if not is_number(value) or not 0 <= value <= MERGING_LIMITS[name]:
                allowed = "pixels, 0 or more" if name == "stuff_area" else "a share from 0 to 1"
                raise ConfigError(f"{value!r}", field=f"rules.panoptic.{name}", allowed=allowed)
        self.things, self.semantic_classes = things, semantic_classes
        self.merging = {**MERGING, **merging}
        self.regions = RegionPostprocess(rule=rule)

    def forward(
        self,
        output: PanopticOutput,
        sizes: Sequence[Size],
        originals: Sequence[Size] | None = None,
        valid: Tensor | None = None,
    ) -> list[Panoptic]:
        """What the model said of a batch -> results in the order of the batch.

        Args:
            output: of B images.
            sizes: (height, width) of the images that the model saw.
            originals: of those that were asked about, where they were resized; all results are in their pixels.
            valid: [B, H, W] bool, where those hold data; None: everywhere.
        """
        results = []
        found = self.regions(output.regions, sizes, originals)
        for image, (instances, (height, width)) in enumerate(zip(found, sizes, strict=True)):
            logits = output.semantic[image : image + 1, :, :height, :width]
            (labels,), (scores,), _ = best_classes(logits, instances.size)
            if valid is not None:
                known = valid[image, : instances.size[0], : instances.size[1]]
                labels, scores = torch.where(known, labels, IGNORE), torch.where(known, scores, 0.0)
            merged = merge_segments(
                instances,
                labels,
                scores,
                things=self.things,
                semantic_classes=self.semantic_classes,
                **self.merging,
            )
            semantic = Semantic(self._classes(labels), scores)
            results.append(replace(merged, instances=instances, semantic=semantic))
        return results

    def _classes(self, labels: Tensor) -> Tensor:
        """Labels of the semantic branch -> labels of all classes."""
        if self.semantic_classes == "all":
            return labels
        return torch.where((labels == 0) | (labels == IGNORE), IGNORE, labels + (self.things - 1))

    def extra_repr(self) -> str:
        """Things and thresholds."""
        rules = ", ".join(f"{name} {value:g}" for name, value in self.merging.items())
        return f"{self.things} things, {rules}"
