"""Options of an evaluation, and which of them each kind of input uses."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfpn.errors import ConfigError
from torchfpn.io.formats import MAX_SIDE

if TYPE_CHECKING:
    from torchfpn.tasks.task import Precision

FEWEST = 100  # of `max_detections`

MODEL = {"split", "device", "precision", "accept_dtype"}
VECTOR = {"classes", "iou", "min_area", "field", "truth_field", "skip_unclassed", "layer", "truth_layer", "assume_crs"}
USED: Mapping[str, set[str]] = {  # kind of evaluation -> options that have an effect on it
    "a semantic model on label files": {*MODEL, "boundary"},
    "a semantic model on polygons": {*MODEL, "boundary", "iou"},
    "a detection model": {*MODEL, "max_detections"},
    "a panoptic model": {*MODEL, "boundary"},
    "COCO results": {"max_detections"},
    "COCO panoptic annotations": {"boundary"},
    "label files against label files": {"classes", "ignore", "max_side"},
    "label files against polygons": {*VECTOR, "ignore", "max_side", "tiles"},
    "polygons against polygons": {*VECTOR, "score_field", "within"},
    "polygons within an area": {*VECTOR, "score_field", "within", "tiles"},
}

Counting = Callable[[str, int], AbstractContextManager[Callable[[], None]]]  # what, how many -> called after each


@dataclass(frozen=True)
class Options:
    """The keyword arguments of `evaluate`, and what it documents of each."""

    split: str = "val"
    boundary: bool = True
    precision: "Precision" = "fp32"
    device: str | None = None
    accept_dtype: bool = False
    max_detections: int = 100
    classes: Mapping[int, str] | Sequence[str] = ()
    ignore: Collection[int] | None = None
    iou: float = 0.5
    min_area: float = 0.0
    field: str | None = None
    truth_field: str | None = None
    score_field: str | None = None
    skip_unclassed: bool = False
    within: Sequence[str | Path] = ()
    layer: str | None = None
    truth_layer: str | None = None
    assume_crs: str | None = None
    tiles: str | None = None
    max_side: int = MAX_SIDE

    def check(self, kind: str) -> None:
        """Passes options that all have an effect on this kind of evaluation.

        Raises:
            ConfigError: the first option that has none.
        """
        usual = asdict(Options())
        for name, value in vars(self).items():
            if name not in USED[kind] and value != usual[name]:
                raise ConfigError(f"has no effect on {kind}", field=name, hint="leave it out")

    def checked_max_detections(self) -> int:
        """`max_detections`.

        Raises:
            ConfigError: fewer than 100, the number that COCO's AP counts.
        """
        if self.max_detections < FEWEST:
            raise ConfigError(f"{self.max_detections}", field="max_detections", allowed=f"a number from {FEWEST}")
        return self.max_detections


@dataclass(frozen=True)
class Scores:
    """Scores of a map, and what has to be said about them.

    Attributes:
        values: plain values for JSON.
        notes: lines about what was counted.
        warnings: those lines that put the scores in doubt.
    """

    values: dict[str, Any]
    notes: list[str]
    warnings: list[str]


@contextlib.contextmanager
def no_progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A `Counting` that shows nothing."""
    yield lambda: None
