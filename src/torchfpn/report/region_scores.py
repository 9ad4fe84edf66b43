"""validation.json of a detector, read for the tables and the report: average precision, and what was found where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchfpn.errors import DataError
from torchfpn.report.numbers import Number, class_colors, number, numbers

KINDS = {"detection": "detection", "instance": "instance segmentation"}  # value of "kind" -> what people call it
SINGLE = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100")
EACH = ("class_ap", "class_ap50", "class_ap75", "class_ar100")
CURVES = ("curve50", "curve75")
RECALLS = 101


@dataclass(frozen=True)
class RegionTable:
    """Scores of boxes, or of masks, as `PrecisionScores` has them; None where nothing is to score.

    single: by name. classes: by name, a list with one for each class. curves: by name, for each class the precision at
    101 recalls. objects: of each class.
    """

    single: dict[str, Number]
    classes: dict[str, list[Number]]
    curves: dict[str, list[list[float] | None]]
    objects: list[int]


@dataclass(frozen=True)
class Found:
    """Objects matched and missed, false detections, and F1: None where there is nothing of the three.

    name: of the image. threshold: of the scores.
    """

    matched: int
    missed: int
    false: int
    f1: Number
    name: str = ""
    threshold: float = 0.5

    @property
    def line(self) -> str:
        """F1 and the counts in words."""
        if self.f1 is None:
            return "no object, and none was found"
        return f"F1 {100 * self.f1:.1f} %: {self.matched:,} found, {self.missed:,} missed, {self.false:,} false"


@dataclass(frozen=True)
class RegionScores:
    """The whole file. masks: None of boxes alone. total: all images together, None where nobody counted.

    most: detections of each image and class that count; crowded: images with more objects of a class.
    """

    kind: str
    split: str
    classes: list[str]
    colors: list[tuple[int, int, int]]
    images: int
    boxes: RegionTable
    masks: RegionTable | None
    most: int
    crowded: int
    total: Found | None
    each: list[Found]

    @property
    def main(self) -> RegionTable:
        """Of masks where there are any, else of boxes."""
        return self.boxes if self.masks is None else self.masks

    def of_picture(self, stem: str) -> Found | None:
        """The image of a picture called ``worst-00-<stem>``."""
        return next((each for each in self.each if stem.split("-", 2)[2:] == [picture_stem(each.name)]), None)


def picture_stem(name: str) -> str:
    """How a picture of the image with this name is called."""
    return Path(name).stem[:80]


def is_region_scores(data: Mapping[str, Any]) -> bool:
    """Whether a validation.json is that of a detector."""
    return data.get("kind") in KINDS


def parse_region_scores(data: Mapping[str, Any], *, file: str | Path = "scores") -> RegionScores:
    """The contents of a validation.json.

    Raises:
        DataError: it is not what that file holds.
    """
    try:
        classes = [str(name) for name in data["classes"]]
        masks, total = data.get("masks"), data.get("objects_found")
        return RegionScores(
            kind=KINDS[data["kind"]],
            split=str(data.get("split", "val")),
            classes=classes,
            colors=class_colors(data.get("colors") or (), len(classes)),
            images=int(data["images"]),
            boxes=_table(data["boxes"], len(classes)),
            masks=None if masks is None else _table(masks, len(classes)),
            most=int(data.get("most", 100)),
            crowded=int(data.get("crowded", 0)),
            total=None if total is None else _found(total),
            each=[_found(each) for each in data.get("each_image", ())],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"not the scores of a run ({error})", file=file) from error


def _table(data: Mapping[str, Any], count: int) -> RegionTable:
    return RegionTable(
        single={name: number(data[name]) for name in SINGLE},
        classes={name: numbers(data[name], count) for name in EACH},
        curves={name: _curves(data[name], count) for name in CURVES},
        objects=[int(n) for n in data["objects"]],
    )


def _curves(values: Sequence[Any], count: int) -> list[list[float] | None]:
    if len(values) != count:
        raise ValueError(f"{len(values)} curves for {count} classes")
    if any(curve is not None and len(curve) != RECALLS for curve in values):
        raise ValueError(f"a curve without {RECALLS} points")
    return [None if curve is None else [float(value) for value in curve] for curve in values]


def _found(data: Mapping[str, Any]) -> Found:
    matched, missed, false = (int(data[name]) for name in ("matched", "missed", "false"))
    name, threshold = str(data.get("name", "")), float(data.get("threshold", 0.5))
    f1 = number(data["f1"]) if matched or missed or false else None  # files of 0.1.0 say 1.0 for nothing
    return Found(matched, missed, false, f1, name, threshold)
