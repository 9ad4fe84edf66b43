"""The plain files of a run folder, read for the report: curves, scores, settings, machine, sample pictures."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torchfpn.errors import DataError
from torchfpn.files.atomic import write_text
from torchfpn.report.numbers import Number, class_colors, number, numbers
from torchfpn.report.region_scores import KINDS, RegionScores, is_region_scores, parse_region_scores


@dataclass(frozen=True)
class Scores:
    """validation.json of a semantic model. confusion: rows are the truth. iou, boundary: per class, None if undefined.

    objects: as `ObjectScores.to_dict` has them, where objects were scored too.
    """

    classes: list[str]
    colors: list[tuple[int, int, int]]
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
        """Pixels taken for class k."""
        return sum(row[k] for row in self.confusion)

    def precision(self, k: int) -> Number:
        """Share of the pixels taken for class k that are."""
        return _ratio(self.confusion[k][k], self.predicted(k))

    def recall(self, k: int) -> Number:
        """Share of the pixels of class k that were found."""
        return _ratio(self.confusion[k][k], self.truth(k))

    def mean_boundary(self) -> Number:
        """Mean of the boundary IoU over the classes that have one."""
        known = [value for value in self.boundary or () if value is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Run:
    """What the folder holds. curves: the columns of metrics.csv, None where a cell is empty.

    scores: of a semantic model; regions: of a detector. about: see `write_about`.
    """

    name: str
    curves: dict[str, list[Number]] = field(default_factory=dict)
    scores: Scores | None = None
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    samples: list[tuple[str, bytes]] = field(default_factory=list)
    regions: RegionScores | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What was trained or scored, as people call it."""
        if self.regions is not None:
            return self.regions.kind
        if self.scores is not None or "train/loss_objectness" not in self.curves:
            return "semantic segmentation"
        return KINDS["instance" if "train/loss_masks" in self.curves else "detection"]


ABOUT = "about.json"


def write_about(
    folder: Path, *, seconds: float, parameters: int | None, images: Mapping[str, int], weights: str = ""
) -> None:
    """Writes about.json: what a report says of the work besides scores; the date is that of now, in UTC.

    seconds: that it took. parameters: of the model, None without one. images: of each split. weights: those that a
    training began from, in words.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    facts: dict[str, Any] = {
        "date": date,
        "seconds": round(seconds, 3),
        "parameters": parameters,
        "images": dict(images),
    }
    if weights:
        facts["weights"] = weights
    write_text(folder / ABOUT, json.dumps(facts, indent=2) + "\n")


def read_run(folder: Path) -> Run:
    """Every file that is there; a folder without metrics.csv and without validation.json is no run.

    Raises:
        DataError: no run folder, or a damaged file in it.
    """
    metrics, scores = folder / "metrics.csv", folder / "validation.json"
    if not metrics.is_file() and not scores.is_file():
        raise DataError("holds neither metrics.csv nor validation.json", file=folder, hint="give a run folder")
    found = _json(scores) if scores.is_file() else None
    regions = found is not None and is_region_scores(found)
    config = folder / "config.yaml"
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    return Run(
        name=folder.absolute().name,
        curves=_curves(metrics) if metrics.is_file() else {},
        scores=None if found is None or regions else parse_scores(found, file=scores),
        regions=parse_region_scores(found, file=scores) if found is not None and regions else None,
        config=_mapping(config, _yaml, text) if text else {},
        config_text=text,
        environment=_json(folder / "env.json") if (folder / "env.json").is_file() else {},
        about=_json(folder / ABOUT) if (folder / ABOUT).is_file() else {},
        samples=[(path.stem, path.read_bytes()) for path in sorted((folder / "samples").glob("*.png"))],
    )


def _curves(file: Path) -> dict[str, list[Number]]:
    with file.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    try:
        return {name: [number(row[name]) for row in rows] for name in rows[0]} if rows else {}
    except (ValueError, TypeError) as error:
        raise DataError(f"a cell that is no number ({error})", file=file) from error


def parse_scores(data: Mapping[str, Any], *, file: str | Path = "scores") -> Scores:
    """The contents of a validation.json.

    Raises:
        DataError: it is not what that file holds.
    """
    try:
        classes = [str(name) for name in data["classes"]]
        confusion = [[int(count) for count in row] for row in data["confusion"]]
        if len(confusion) != len(classes) or any(len(row) != len(classes) for row in confusion):
            raise ValueError(f"a matrix of {len(confusion)} rows for {len(classes)} classes")
        boundary = data.get("boundary_iou")
        return Scores(
            classes=classes,
            colors=class_colors(data.get("colors") or (), len(classes)),
            confusion=confusion,
            iou=numbers(data["iou"], len(classes)),
            boundary=None if boundary is None else numbers(boundary, len(classes)),
            miou=number(data.get("miou")),
            pixel_accuracy=number(data.get("pixel_accuracy")),
            split=str(data.get("split", "val")),
            objects=_objects(data.get("objects")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"not the scores of a run ({error})", file=file) from error


def _objects(data: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Shares are numbers or None, counts whole numbers."""
    if data is None:
        return None
    count, shares, counts = len(data["classes"]), ("precision", "recall", "f1"), ("matched", "predicted", "truth")
    columns = {name: numbers(data[name], count) for name in shares}
    total = {name: number(data["all"][name]) for name in shares} | {name: int(data["all"][name]) for name in counts}
    plain = {"iou": float(data["iou"]), "classes": [str(name) for name in data["classes"]], "all": total}
    return plain | columns | {name: [int(n) for n in data[name]] for name in counts}


def _ratio(part: int, whole: int) -> Number:
    return part / whole if whole else None


def _json(file: Path) -> dict[str, Any]:
    return _mapping(file, json.loads, file.read_text(encoding="utf-8"))


def _yaml(text: str) -> Any:
    import yaml  # which takes time, and pages without a run need none

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _mapping(file: Path, parse: Any, text: str) -> dict[str, Any]:
    try:
        data = parse(text)
    except ValueError as error:
        raise DataError(f"damaged ({error})", file=file) from error
    if not isinstance(data, Mapping):
        raise DataError(f"holds a {type(data).__name__}", file=file, allowed="names and values")
    return dict(data)
