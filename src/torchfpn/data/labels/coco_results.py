"""Detections as COCO result files, read and written.

Two forms are read: the list of results that the COCO server takes, with the ids of the annotations; and a whole dataset
whose annotations have scores, as `fpn predict` writes it, whose images and categories are matched by name.
"""

import contextlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from torchfpn.data.labels.coco_annotations import BadValueError, Coco, are_fractions
from torchfpn.errors import DataError
from torchfpn.io.atomic import atomic_path
from torchfpn.io.yaml_json import Flaw, read_json, shown
from torchfpn.ops.masks import Instances, areas
from torchfpn.ops.rle import bbox, from_rle, run_lengths, to_rle
from torchfpn.recipe import Recipe
from torchfpn.types import Size
from torchfpn.vector.object_features import DECIMALS, round_boxes

Four = tuple[float, float, float, float]

LARGEST = 2.0**31  # pixels; limit of a coordinate


@dataclass(frozen=True)
class Detection:
    """One detected object.

    Attributes:
        image: index of its image in the ground truth.
        label: index of its category in the ground truth.
        score: confidence.
        box: (x, y, width, height) in pixels.
        mask: run lengths; None for boxes alone.
    """

    image: int
    label: int
    score: float
    box: Four
    mask: str | None


def read_detections(path: Path, truth: Coco) -> list[Detection]:
    """Reads detections in the images of `truth`; all of them have masks, or none.

    Args:
        path: of the file.
        truth: annotations of the images.

    Raises:
        DataError: no such file, or bad records: the first one and their number.
    """
    value, flaws = read_json(path)
    whole = isinstance(value, dict)
    records = value.get("annotations") if whole else value
    if not isinstance(records, list):
        allowed = 'a list of results, or an object with "images", "categories" and "annotations"'
        raise DataError(f"{shown(value)}", file=path, allowed=allowed)
    if flaws:
        raise _refused(path, flaws)
    images, labels = (_names(value, truth, path) if whole else _ids(truth)) if records else ({}, {})
    masks = bool(records) and isinstance(records[0], Mapping) and "segmentation" in records[0]
    found, start = [], ("annotations",) if whole else ()
    for i, record in enumerate(records):
        try:
            found.append(_detection(record, truth, images, labels, masks=masks))
        except BadValueError as bad:
            flaws.append(Flaw((*start, i, *bad.keys), bad.line))
    if flaws:
        raise _refused(path, flaws)
    if found and are_fractions([one.box for one in found]):
        raise DataError(
            f"all boxes lie within 0..1 ({len(found):,}), so they are shares of the image",
            file=path,
            field="bbox",
            allowed="[x, y, width, height] in pixels",
            hint="multiply x and width by the width of the image, y and height by its height",
        )
    return found


def _detection(
    record: Any, truth: Coco, images: Mapping[Any, int], labels: Mapping[Any, int], *, masks: bool
) -> Detection:
    if not isinstance(record, Mapping):
        raise BadValueError((), f"{shown(record)}; expected an object")
    places = []
    for key, known in (("image_id", images), ("category_id", labels)):
        number = _whole(record.get(key))
        if number not in known:
            raise BadValueError((key,), f"{shown(record.get(key))}; expected the id of one of the truth's")
        places.append(known[number])
    score = _finite(record.get("score"), "score")
    if ("segmentation" in record) != masks:
        raise BadValueError(("segmentation",), "in some results and not in others")
    mask = _mask(record["segmentation"], truth.annotations.size(places[0])) if masks else None
    return Detection(places[0], places[1], score, _box(record, mask, truth.annotations.size(places[0])), mask)


def _box(record: Mapping[str, Any], mask: str | None, size: Size) -> Four:
    """The box of the record, or else of its mask."""
    value = record.get("bbox")
    if value is None and mask is not None:
        x1, y1, x2, y2 = bbox({"size": list(size), "counts": mask})
        return float(x1), float(y1), float(x2 - x1), float(y2 - y1)
    if not isinstance(value, list) or len(value) != 4:
        raise BadValueError(("bbox",), f"{shown(value)}; expected [x, y, width, height]")
    x, y, w, h = (_finite(number, "bbox") for number in value)
    if w < 0 or h < 0 or max(abs(x), abs(y), w, h) > LARGEST:
        raise BadValueError(("bbox",), f"{shown(value)}; expected width and height from 0, in pixels")
    return x, y, w, h


def _mask(value: Any, size: Size) -> str:
    try:
        run_lengths(value, size)
    except DataError as error:
        keys = ("segmentation", error.field) if error.field else ("segmentation",)
        raise BadValueError(keys, error.said) from None
    counts = value["counts"]
    return counts if isinstance(counts, str) else to_rle(from_rle([value], size))[0]["counts"]


def _whole(value: Any) -> int | None:
    """An id as int: 1, or 1.0 as tables of floats write it; None for other values."""
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _finite(value: Any, key: str) -> float:
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        number = math.nan
    if not math.isfinite(number):
        raise BadValueError((key,), f"{shown(value)}; expected a finite number")
    return number


def _ids(truth: Coco) -> tuple[dict[int, int], dict[int, int]]:
    """Indices of images and of categories in the ground truth, by id."""
    images = {number: place for place, number in enumerate(truth.annotations.ids.tolist())}
    return images, {category.id: place for place, category in enumerate(truth.categories)}


def _names(value: Mapping[str, Any], truth: Coco, path: Path) -> tuple[dict[int, int], dict[int, int]]:
    """Indices in the ground truth by id, matched by name: images by path, or else by the last part of it.

    Raises:
        DataError: an unknown image or category, two records for one of them, or an image of another size.
    """
    known = truth.annotations
    whole = {name: place for place, name in enumerate(known.names)}
    last = _unique([PurePosixPath(name).name for name in known.names])
    images = _IndexById("images", path)
    for i, record in enumerate(_records(value, "images", path)):
        name = str(record.get("file_name"))
        place = whole.get(name, last.get(PurePosixPath(name).name))
        if place is None:
            raise DataError(f"{shown(name)} is no image of {known.file.name}", file=path, field=f"images[{i}]")
        size = (record.get("height"), record.get("width"))
        if size not in ((None, None), known.size(place)):
            found = f"{shown(name)} of {size[1]} x {size[0]} pixels"
            height, width = known.size(place)
            raise DataError(found, file=path, field=f"images[{i}]", allowed=f"{width} x {height}, as in the truth")
        images.add(i, record, place, f"{shown(name)} is {known.names[place]} of {known.file.name}")
    names = {category.name: place for place, category in enumerate(truth.categories)}
    labels = _IndexById("categories", path)
    for i, record in enumerate(_records(value, "categories", path)):
        name = " ".join(str(record.get("name")).split())
        if name not in names:
            allowed = f"one of {', '.join(list(names)[:12])}"
            raise DataError(f"{shown(name)}", file=path, field=f"categories[{i}].name", allowed=allowed)
        labels.add(i, record, names[name], f'the category "{name}"')
    return images.found, labels.found


class _IndexById:
    """Indices of images or of categories in the ground truth by their ids in the file; no two ids share one."""

    def __init__(self, key: str, path: Path) -> None:
        self.key, self.path = key, path
        self.found: dict[int, int] = {}
        self._first: dict[int, int] = {}  # place -> the record that has it

    def add(self, i: int, record: Mapping[str, Any], place: int, what: str) -> None:
        """Adds record number `i`.

        Raises:
            DataError: another record has its id, or its index.
        """
        number = _whole(record["id"])
        assert number is not None  # checked by `_records`
        if number in self.found:
            raise DataError(f"{number} again", file=self.path, field=f"{self.key}[{i}].id", allowed="each id once")
        if place in self._first:
            found = f"{what}, as {self.key}[{self._first[place]}] is"
            hint = "write paths as the truth does: names alone do not tell them apart" if self.key == "images" else None
            raise DataError(found, file=self.path, field=f"{self.key}[{i}]", hint=hint)
        self.found[number], self._first[place] = place, i


def _records(value: Mapping[str, Any], key: str, path: Path) -> list[Mapping[str, Any]]:
    found = value.get(key)
    records: list[Any] = found if isinstance(found, list) else [None]
    if not all(isinstance(record, Mapping) and _whole(record.get("id")) is not None for record in records):
        raise DataError(f"no list of {key} with ids", file=path, field=key)
    return records


def _unique(names: Sequence[str]) -> dict[str, int]:
    """Index by name of the names that only one image has."""
    times = Counter(names)
    return {name: place for place, name in enumerate(names) if times[name] == 1}


def _refused(path: Path, flaws: Sequence[Flaw]) -> DataError:
    more = f" (and {len(flaws) - 1:,} more)" if len(flaws) > 1 else ""
    return DataError(f"{flaws[0]}{more}", file=path)


class CocoResults:
    """Writes detections image by image; the label values of the recipe are the ids of the categories.

    The file is a whole dataset with scores, which pycocotools and labelling tools open.
    """

    def __init__(self, file: IO[str], recipe: Recipe) -> None:
        self.file, self.recipe, self.count = file, recipe, 0
        self.images: list[dict[str, Any]] = []
        classes = zip(recipe.label_ids, recipe.classes, strict=True)
        categories = [{"id": number, "name": name} for number, name in classes]
        file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')

    def add(self, number: int, name: str, found: Instances) -> None:
        """Writes the objects of one image, best first. number: id of the image. name: of its file."""
        height, width = found.size
        self.images.append({"id": number, "file_name": name, "height": height, "width": width})
        for record in _result_records(found, self.recipe):
            self.count += 1
            whole = {"id": self.count, "image_id": number, **record, "iscrowd": 0}
            self.file.write(f"{',' if self.count > 1 else ''}\n{json.dumps(whole)}")

    def close(self) -> None:
        """Writes the images and the end of the file."""
        images = ",\n".join(json.dumps(image) for image in self.images)
        self.file.write(f'\n],\n"images": [\n{images}\n]}}\n')


class _NothingError(Exception):
    """No image was added."""


@contextlib.contextmanager
def coco_results(path: Path, recipe: Recipe) -> Iterator[CocoResults]:
    """Opens a file for detections, which appears when the block ends; without images, none appears."""
    with contextlib.suppress(_NothingError), atomic_path(path) as part:
        with part.open("w", encoding="ascii", newline="\n") as file:
            results = CocoResults(file, recipe)
            yield results
            results.close()
        if not results.images:
            raise _NothingError


def _result_records(found: Instances, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """The record of each object without ids."""
    corners = round_boxes(found.boxes)
    sides = (corners[:, 2:] - corners[:, :2]).round(DECIMALS)
    masks = [None] * len(found) if found.crops is None else to_rle(found.crops)
    sizes = sides.prod(1).round(DECIMALS).tolist() if found.crops is None else areas(found.crops).tolist()
    boxes = np.concatenate([corners[:, :2], sides], 1).tolist()
    scores, labels = found.scores.double().numpy().round(6).tolist(), found.labels.tolist()
    for label, box, size, score, mask in zip(labels, boxes, sizes, scores, masks, strict=True):
        record = {"category_id": recipe.label_ids[label], "bbox": box, "area": size, "score": score}
        yield record if mask is None else {**record, "segmentation": mask}
