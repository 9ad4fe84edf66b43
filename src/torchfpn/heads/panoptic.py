"""The head of Panoptic FPN: a semantic branch for all pixels and a region branch for things, on one pyramid."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from torch import nn

from torchfpn.errors import ConfigError
from torchfpn.nn.containers import Fork, Pick, chain
from torchfpn.recipe import IGNORE
from torchfpn.types import Level

SemanticClasses = Literal["stuff", "all"]
BRANCHES = ("semantic", "regions")


class Outputs(NamedTuple):
    """How many classes each branch tells apart. things: of the region branch; semantic: of the semantic branch."""

    things: int
    semantic: int

    @classmethod
    def of(cls, things: int, stuff: int, semantic_classes: SemanticClasses) -> "Outputs":
        """Of a panoptic model.

        Args:
            things: number of classes.
            stuff: the same of stuff.
            semantic_classes: "stuff": one class for all things, index 0, then the stuff classes, as in the paper;
                "all": every class, things first.

        Raises:
            ConfigError: no thing, no stuff, more classes than labels can tell apart, or another word.
        """
        for field, count, task in (("things", things, "semantic"), ("stuff", stuff, "instance")):
            if count < 1:
                hint = f'task "{task}" does without {field}'
                raise ConfigError(f"{count} classes", field=field, allowed="1 or more", hint=hint)
        if things + stuff > IGNORE:
            found = f"{things} things and {stuff} stuff"
            raise ConfigError(found, field="classes", allowed=f"at most {IGNORE} classes")
        if semantic_classes not in ("stuff", "all"):
            raise ConfigError(f'"{semantic_classes}"', field="semantic_classes", allowed="stuff | all")
        return cls(things, stuff + (1 if semantic_classes == "stuff" else things))


def panoptic_head(
    levels: Sequence[Level],
    read: int,
    *,
    semantic: Callable[[Sequence[Level]], nn.Module],
    regions: Callable[[Sequence[Level]], nn.Module],
) -> Fork:
    """Maps -> {"semantic": logits, "regions": Regions}.

        P2..P5 --semantic--> logits [B, classes, H, W]
        P2..P6 --regions---> Regions

    Args:
        levels: of the pyramid.
        read: how many of them the semantic branch reads, the finest ones: in the paper P2 to P5, and not P6, which
            large anchors alone need.
        semantic: makes the semantic branch from the levels that it reads.
        regions: makes the region branch.

    Source: Kirillov et al. 2019, figure 1.
    """
    finer = chain(finer=Pick(range(read)), logits=semantic(levels[:read]))
    return Fork({"semantic": finer, "regions": regions(levels)})
