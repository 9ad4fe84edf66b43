"""A run folder, read for reports and tables: curves, scores, settings, machine, sample pictures.

Its files are plain and may have been written by anybody: whatever is wrong in one is an error that names it.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torchfpn.errors import DataError
from torchfpn.io.atomic import write_text
from torchfpn.report.images import class_colors
from torchfpn.types import Color

Number = float | None  # None: nothing to measure

ABOUT = "about.json"

KINDS = {"detection": "detection", "instance": "instance segmentation"}  # "kind" in validation.json -> in words

SINGLE = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100")

EACH = ("class_ap", "class_ap50", "class_ap75", "class_ar100")

CURVES = ("curve50", "curve75")

RECALLS = 101

QUALITIES = {"pq": "PQ", "sq": "SQ", "rq": "RQ"}  # of segments, and their titles

BOUNDARY = {"boundary_pq": "boundary PQ"}

SEGMENT_COUNTS = ("tp", "fp", "fn")

BEST, WORST = "best-", "worst-"  # how names of sample pictures begin


@dataclass(frozen=True)
class Scores:
    """validation.json of a semantic model; None stands for a score that is undefined.

    Attributes:
        classes: their names.
        colors: of the classes.
        confusion: pixels; rows are the truth, columns the prediction.
        iou: of each class.
        boundary: boundary IoU of each class; None where it was not computed.
        miou: the mean.
        pixel_accuracy: share of the pixels that are right.
        split: which images were scored.
        objects: as `ObjectScores.to_dict` has them, where objects were scored too.
    """

    classes: list[str]
    colors: list[Color]
    confusion: list[list[int]]
    iou: list[Number]
    boundary: list[Number] | None
    miou: Number
    pixel_accuracy: Number
    split: str
    objects: dict[str, Any] | None = None

    def truth(self, k: int) -> int:
        """Pixels of class k."""
        return sum(self.confusion[k])

    def predicted(self, k: int) -> int:
        """Pixels predicted as class k."""
        return sum(row[k] for row in self.confusion)

    def precision(self, k: int) -> Number:
        """Share of the pixels predicted as class k that are of it."""
        return _ratio(self.confusion[k][k], self.predicted(k))

    def recall(self, k: int) -> Number:
        """Share of the pixels of class k that were found."""
        return _ratio(self.confusion[k][k], self.truth(k))

    def mean_boundary(self) -> Number:
        """Mean of the boundary IoU over the classes that have one."""
        known = [value for value in self.boundary or () if value is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class AveragePrecisions:
    """Scores of boxes, or of masks, as `PrecisionScores` has them; None where there is no object to score.

    Attributes:
        single: mean over the classes, by the names in `SINGLE`.
        classes: of each class, by the names in `EACH`.
        curves: of each class the precision at 101 recalls, by the names in `CURVES`.
        objects: number of objects of each class.
    """

    single: dict[str, Number]
    classes: dict[str, list[Number]]
    curves: dict[str, list[list[float] | None]]
    objects: list[int]


@dataclass(frozen=True)
class Matches:
    """Objects of an image, or of all, that are matched and missed, and false detections.

    Attributes:
        matched: number of objects that a detection overlaps.
        missed: number of other objects.
        false: number of other detections.
        f1: None where there is none of the three.
        name: of the image.
        threshold: least score of a detection that counts.
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
class DetectionScores:
    """validation.json of a detector.

    Attributes:
        kind: of the task, in words.
        split: which images were scored.
        classes: their names.
        colors: of the classes.
        images: their number.
        boxes: average precision of the boxes.
        masks: of the masks; None of a model without masks.
        most: detections that count of each image and class, at most.
        crowded: number of images with more objects of a class than that.
        total: matches in all images; None where they were not counted.
        each: matches in each image.
    """

    kind: str
    split: str
    classes: list[str]
    colors: list[Color]
    images: int
    boxes: AveragePrecisions
    masks: AveragePrecisions | None
    most: int
    crowded: int
    total: Matches | None
    each: list[Matches]

    @property
    def main(self) -> AveragePrecisions:
        """Average precision of the masks, of a model without masks that of the boxes."""
        return self.boxes if self.masks is None else self.masks

    def of_picture(self, stem: str) -> Matches | None:
        """Matches of the image whose sample picture is called ``worst-00-<stem>``."""
        return next((each for each in self.each if stem.split("-", 2)[2:] == [picture_stem(each.name)]), None)


@dataclass(frozen=True)
class PanopticTable:
    """validation.json of a panoptic model.

    Attributes:
        split: which images were scored.
        classes: their names, things first.
        colors: of the classes.
        things: how many of the classes are things.
        images: their number.
        means: of "all", "things" and "stuff", the scores by the names in `qualities`.
        each: of each class, the scores by the names in `qualities`.
        counts: of each class, the segments by the names in `SEGMENT_COUNTS`.
        confusion: [K + 1][K + 1] segments by true and predicted class; the last row and column: matched by none.
        branches: scores of the two branches by themselves.
        pictures: of the name of each image, its panoptic quality and counts in words.
    """

    split: str
    classes: list[str]
    colors: list[Color]
    things: int
    images: int
    means: dict[str, dict[str, Number]]
    each: dict[str, list[Number]]
    counts: dict[str, list[int]]
    confusion: list[list[int]]
    branches: dict[str, Number]
    pictures: dict[str, str]

    @property
    def kind(self) -> str:
        """Of the task, in words."""
        return "panoptic segmentation"

    @property
    def qualities(self) -> dict[str, str]:
        """Names and titles of the scores of segments; with boundary PQ where it was computed."""
        return {name: title for name, title in (QUALITIES | BOUNDARY).items() if name in self.each}

    def of_picture(self, stem: str) -> str | None:
        """What is said of the image whose sample picture is called ``worst-00-<stem>``."""
        return self.pictures.get(stem.split("-", 2)[-1])


@dataclass(frozen=True)
class Run:
    """The contents of a run folder; a file that is missing leaves its value empty.

    Attributes:
        name: of the folder.
        curves: columns of metrics.csv, None where a cell is empty.
        scores: validation.json of a semantic model.
        config: config.yaml.
        config_text: the same as it is written.
        environment: env.json.
        samples: name and PNG of each sample picture, in order.
        detections: validation.json of a detector.
        panoptic: validation.json of a panoptic model.
        about: see `write_about`.
    """

    name: str
    curves: dict[str, list[Number]] = field(default_factory=dict)
    scores: Scores | None = None
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    samples: list[tuple[str, bytes]] = field(default_factory=list)
    detections: DetectionScores | None = None
    panoptic: PanopticTable | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Kind of the task, in words."""
        known = self.detections or self.panoptic
        if known is not None:
            return known.kind
        if "train/loss_semantic" in self.curves:
            return "panoptic segmentation"
        if self.scores is not None or "train/loss_objectness" not in self.curves:
            return "semantic segmentation"
        return KINDS["instance" if "train/loss_masks" in self.curves else "detection"]


def write_about(
    folder: Path, *, seconds: float, parameters: int | None, images: Mapping[str, int], weights: str = ""
) -> None:
    """Writes about.json, from which a report takes date, duration and sizes. The date is now, in UTC.

    Args:
        folder: of the run.
        seconds: duration.
        parameters: number of parameters of the model, None without a model.
        images: number of images of each split.
        weights: from which a training started, in words.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    facts: dict[str, Any] = {"date": date, "seconds": round(seconds, 3), "parameters": parameters}
    facts["images"] = dict(images)
    if weights:
        facts["weights"] = weights
    write_text(folder / ABOUT, json.dumps(facts, indent=2) + "\n")


def read_run(folder: Path) -> Run:
    """Reads the files of a run folder, all of which but metrics.csv or validation.json may be missing.

    Raises:
        DataError: the folder has neither of the two, or a file in it is damaged.
    """
    metrics, scores = folder / "metrics.csv", folder / "validation.json"
    if not metrics.is_file() and not scores.is_file():
        raise DataError("holds neither metrics.csv nor validation.json", file=folder, hint="give a run folder")
    found = _json(scores) if scores.is_file() else None
    detector = found is not None and is_detection_scores(found)
    panoptic = found is not None and is_panoptic_scores(found)
    config = folder / "config.yaml"
    return Run(
        name=folder.absolute().name,
        curves=_curves(metrics) if metrics.is_file() else {},
        scores=None if found is None or detector or panoptic else parse_scores(found, file=scores),
        detections=parse_detection_scores(found, file=scores) if found is not None and detector else None,
        panoptic=parse_panoptic_scores(found, file=scores) if found is not None and panoptic else None,
        config=_mapping(config, _yaml) if config.is_file() and _text(config) else {},
        config_text=_text(config) if config.is_file() else "",
        environment=_json(folder / "env.json") if (folder / "env.json").is_file() else {},
        about=_json(folder / ABOUT) if (folder / ABOUT).is_file() else {},
        samples=[(path.stem, path.read_bytes()) for path in sorted((folder / "samples").glob("*.png"))],
    )


def parse_scores(data: Mapping[str, Any], *, file: str | Path = "scores") -> Scores:
    """Checks the contents of a validation.json of a semantic model.

    Args:
        data: as it is read.
        file: named in errors.

    Raises:
        DataError: something is missing, or not of the kind that this file has.
    """
    try:
        classes = [str(name) for name in data["classes"]]
        confusion = [[int(count) for count in row] for row in data["confusion"]]
        if len(confusion) != len(classes) or any(len(row) != len(classes) for row in confusion):
            raise ValueError(f"a matrix of {len(confusion)} rows for {len(classes)} classes")
        boundary = data.get("boundary_iou")
        return Scores(
            classes=classes,
            colors=class_colors(data.get("colors") or (), len(classes))[: len(classes)],
            confusion=confusion,
            iou=_numbers(data["iou"], len(classes)),
            boundary=None if boundary is None else _numbers(boundary, len(classes)),
            miou=_number(data.get("miou")),
            pixel_accuracy=_number(data.get("pixel_accuracy")),
            split=str(data.get("split", "val")),
            objects=_objects(data.get("objects")),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise DataError(f"not the scores of a run ({error})", file=file) from error


def is_detection_scores(data: Mapping[str, Any]) -> bool:
    """Whether the contents of a validation.json are those of a detector."""
    return data.get("kind") in KINDS


def parse_detection_scores(data: Mapping[str, Any], *, file: str | Path = "scores") -> DetectionScores:
    """Checks the contents of a validation.json of a detector.

    Args:
        data: as it is read.
        file: named in errors.

    Raises:
        DataError: something is missing, or not of the kind that this file has.
    """
    try:
        classes = [str(name) for name in data["classes"]]
        masks, total = data.get("masks"), data.get("objects_found")
        return DetectionScores(
            kind=KINDS[data["kind"]],
            split=str(data.get("split", "val")),
            classes=classes,
            colors=class_colors(data.get("colors") or (), len(classes))[: len(classes)],
            images=int(data["images"]),
            boxes=_table(data["boxes"], len(classes)),
            masks=None if masks is None else _table(masks, len(classes)),
            most=int(data.get("most", 100)),
            crowded=int(data.get("crowded", 0)),
            total=None if total is None else _found(total),
            each=[_found(each) for each in data.get("each_image", ())],
        )
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise DataError(f"not the scores of a run ({error})", file=file) from error


def is_panoptic_scores(data: Mapping[str, Any]) -> bool:
    """Whether the contents of a validation.json are those of a panoptic model."""
    return data.get("kind") == "panoptic"


def parse_panoptic_scores(data: Mapping[str, Any], *, file: str | Path = "scores") -> PanopticTable:
    """Checks the contents of a validation.json of a panoptic model.

    Args:
        data: as it is read.
        file: named in errors.

    Raises:
        DataError: something is missing, or not of the kind that this file has.
    """
    try:
        classes = [str(name) for name in data["classes"]]
        confusion = [[int(count) for count in row] for row in data["confusion"]]
        if len(confusion) != len(classes) + 1 or any(len(row) != len(confusion) for row in confusion):
            raise ValueError(f"a matrix of {len(confusion)} rows for {len(classes)} classes")
        means = {name: {key: _number(data[name][key]) for key in QUALITIES} for name in ("all", "things", "stuff")}
        each = {key: _numbers(data[f"class_{key}"], len(classes)) for key in QUALITIES}
        if (boundary := data.get("boundary")) is not None:
            for name, mean in means.items():
                mean["boundary_pq"] = _number(boundary[name]["pq"])
            each["boundary_pq"] = _numbers(boundary["class_pq"], len(classes))
        return PanopticTable(
            split=str(data.get("split", "val")),
            classes=classes,
            colors=class_colors(data.get("colors") or (), len(classes))[: len(classes)],
            things=int(data["num_things"]),
            images=int(data["images"]),
            means=means,
            each=each,
            counts={key: _counts(data[key], len(classes)) for key in SEGMENT_COUNTS},
            confusion=confusion,
            branches={str(name): _number(value) for name, value in dict(data.get("branches", {})).items()},
            pictures={picture_stem(str(one["name"])): _segments(one) for one in data.get("each_image", ())},
        )
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise DataError(f"not the scores of a run ({error})", file=file) from error


def _segments(image: Mapping[str, Any]) -> str:
    """The panoptic quality of an image and its segments, in words."""
    quality, (found, false, missed) = _number(image["pq"]), (int(image[key]) for key in SEGMENT_COUNTS)
    counts = f"{found:,} segments found, {missed:,} missed, {false:,} false"
    return counts if quality is None else f"PQ {100 * quality:.1f} %: {counts}"


def _counts(values: Sequence[Any], count: int) -> list[int]:
    """A whole number for each of `count` classes."""
    if len(values) != count:
        raise ValueError(f"{len(values)} values for {count} classes")
    return [int(value) for value in values]


def picture_stem(name: str) -> str:
    """The part of the name of a sample picture that tells the image, from the name of the image."""
    return Path(name).stem[:80]


def _number(value: Any) -> Number:
    """A finite float, or None for an empty cell, null, NaN."""
    if value is None or value == "":
        return None
    found = float(value)
    return found if math.isfinite(found) else None


def _numbers(values: Sequence[Any], count: int) -> list[Number]:
    """A number for each of `count` classes."""
    if len(values) != count:
        raise ValueError(f"{len(values)} values for {count} classes")
    return [_number(value) for value in values]


def _curves(file: Path) -> dict[str, list[Number]]:
    try:
        rows = list(csv.DictReader(io.StringIO(_text(file), newline="")))
        return {name: [_number(row[name]) for row in rows] for name in rows[0]} if rows else {}
    except (ValueError, TypeError, csv.Error) as error:
        raise DataError(f"a cell that is no number ({error})", file=file) from error


def _objects(data: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Shares are numbers or None, counts whole numbers."""
    if data is None:
        return None
    count, shares, counts = len(data["classes"]), ("precision", "recall", "f1"), ("matched", "predicted", "truth")
    columns = {name: _numbers(data[name], count) for name in shares}
    total = {name: _number(data["all"][name]) for name in shares} | {name: int(data["all"][name]) for name in counts}
    plain = {"iou": float(data["iou"]), "classes": [str(name) for name in data["classes"]], "all": total}
    return plain | columns | {name: [int(n) for n in data[name]] for name in counts}


def _ratio(part: int, whole: int) -> Number:
    return part / whole if whole else None


def _json(file: Path) -> dict[str, Any]:
    return _mapping(file, json.loads)


def _yaml(text: str) -> Any:
    import yaml  # start-up time: tables need none

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8", file=file) from error


def _mapping(file: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    try:
        data = parse(_text(file))
    except ValueError as error:
        raise DataError(f"damaged ({error})", file=file) from error
    if not isinstance(data, Mapping):
        raise DataError(f"holds a {type(data).__name__}", file=file, allowed="names and values")
    return dict(data)


def _table(data: Mapping[str, Any], count: int) -> AveragePrecisions:
    return AveragePrecisions(
        single={name: _number(data[name]) for name in SINGLE},
        classes={name: _numbers(data[name], count) for name in EACH},
        curves={name: _precisions(data[name], count) for name in CURVES},
        objects=[int(n) for n in data["objects"]],
    )


def _precisions(values: Sequence[Any], count: int) -> list[list[float] | None]:
    if len(values) != count:
        raise ValueError(f"{len(values)} curves for {count} classes")
    if any(curve is not None and len(curve) != RECALLS for curve in values):
        raise ValueError(f"a curve without {RECALLS} points")
    return [None if curve is None else [float(value) for value in curve] for curve in values]


def _found(data: Mapping[str, Any]) -> Matches:
    matched, missed, false = (int(data[name]) for name in ("matched", "missed", "false"))
    name, threshold = str(data.get("name", "")), float(data.get("threshold", 0.5))
    f1 = _number(data["f1"]) if matched or missed or false else None  # files of 0.1.0 say 1.0 for nothing
    return Matches(matched, missed, false, f1, name, threshold)
