"""Panoptic quality of COCO panoptic annotations, JSON files with folders of PNGs, against true ones.

Where panopticapi goes on with a truth that contradicts itself (an id of no segment, a segment without a pixel, a wrong
area), this stops and says so. Otherwise its numbers are these.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from torchfpn.data.files import is_inside
from torchfpn.errors import DataError
from torchfpn.io.formats import MAX_PIXELS
from torchfpn.io.segment_png import MAX_SEGMENT_ID, read_segment_png
from torchfpn.io.yaml_json import Keys, read_json, shown, spelt
from torchfpn.metrics.panoptic import PanopticQuality, PanopticScores, SegmentIds
from torchfpn.ops.extents import extents


def panoptic_quality(
    gt_json: str | Path,
    gt_dir: str | Path,
    pred_json: str | Path,
    pred_dir: str | Path,
    *,
    boundary: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> PanopticScores:
    """PQ, SQ and RQ of predicted panoptic annotations; oracle: panopticapi's `pq_compute`.

    Args:
        gt_json: the true annotations, with the categories.
        gt_dir: folder of their PNGs.
        pred_json: the predicted annotations; each image of the truth needs one, others are not read.
        pred_dir: folder of their PNGs.
        boundary: width of the bands of boundary PQ relative to the diagonal, 0.02 in the paper; None: no boundary PQ.
        max_pixels: of an image.

    Returns:
        The scores, things before stuff, in either the order of the file. Classes without a segment have NaN and are in
        no mean.

    Raises:
        DataError: a file that is not what it should be, by the path of the first wrong value.
    """
    truth, found = _Side(Path(gt_json), Path(gt_dir)), _Side(Path(pred_json), Path(pred_dir))
    categories = _categories(truth)
    things, stuff = ([name for _, name, thing in categories if thing == kind] for kind in (True, False))
    ordered = sorted(categories, key=lambda category: not category.isthing)
    places = {category.id: place for place, category in enumerate(ordered)}
    scores = PanopticQuality(things, stuff, boundary=boundary)
    known, predicted = truth.annotations(), found.annotations()
    for number, (image, one) in enumerate(known.items()):
        if image not in predicted:
            raise DataError(f"no annotation of image {shown(image)}", file=found.path, allowed="one of each true image")
        other = predicted[image]
        true, mine = truth.segments(one, places, max_pixels), found.segments(other, places, max_pixels)
        if true.ids.shape != mine.ids.shape:
            (h, w), (height, width) = mine.ids.shape, true.ids.shape
            allowed = f"{width} x {height}, as in {truth.png(one)}"
            raise DataError(f"{w} x {h} pixels", file=found.png(other), allowed=allowed)
        try:
            scores.update(mine, true, number=number)
        except DataError as error:  # an id in the PNG or in the JSON alone
            side, record = (truth, one) if error.field == "truth" else (found, other)
            field = spelt((*record.keys, "segments_info"))
            raise DataError(
                f"{error.found} ({record.file_name})", file=side.path, field=field, allowed=error.allowed
            ) from error
        truth.check_areas(one, true)
    return scores.compute()


class _Category(NamedTuple):
    id: int
    name: str
    isthing: bool


class _Annotation(NamedTuple):
    """keys: where it stands in the file."""

    keys: Keys
    file_name: str
    segments: Sequence[Any]


class _Side:
    """A JSON file and the folder of its PNGs."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder = path, folder
        value, flaws = read_json(path)
        if flaws:
            raise DataError(str(flaws[0]), file=path)
        if not isinstance(value, dict):
            raise self.wrong((), value, 'an object with "annotations"')
        self.value: dict[str, Any] = value
        if not folder.is_dir():
            raise DataError("no such folder", file=folder, allowed=f"the PNGs of {path.name}")

    def wrong(self, keys: Keys, value: Any, allowed: str) -> DataError:
        """The error about a value."""
        return DataError(shown(value), file=self.path, field=spelt(keys), allowed=allowed)

    def records(self, key: str) -> list[Any]:
        """The list of objects that stands at the top."""
        return self._objects((key,), self.value.get(key))

    def annotations(self) -> dict[int | str, _Annotation]:
        """By the id of the image, in the order of the file."""
        found: dict[int | str, _Annotation] = {}
        for i, record in enumerate(self.records("annotations")):
            keys: Keys = ("annotations", i)
            image: Any = record.get("image_id")
            if type(image) not in (int, str):
                raise self.wrong((*keys, "image_id"), image, "the id of an image")
            if image in found:
                raise self.wrong((*keys, "image_id"), image, f"each image once, but {spelt(found[image].keys)} has it")
            name: Any = record.get("file_name")
            if not isinstance(name, str) or not name.strip() or "\0" in name:
                raise self.wrong((*keys, "file_name"), name, "the name of a PNG")
            if not is_inside(self.folder, self.folder / name):
                raise self.wrong((*keys, "file_name"), name, f"a file in {self.folder}")
            segments = self._objects((*keys, "segments_info"), record.get("segments_info"))
            found[image] = _Annotation(keys, name, segments)
        return found

    def png(self, annotation: _Annotation) -> Path:
        """The path of its PNG."""
        return self.folder / annotation.file_name

    def segments(self, annotation: _Annotation, places: Mapping[int, int], max_pixels: int) -> SegmentIds:
        """The PNG and the records of an image. places: of the classes, by the ids of their categories."""
        labels = []
        for j, record in enumerate(annotation.segments):
            number, category, crowd = record.get("id"), record.get("category_id"), record.get("iscrowd", 0)
            keys = (*annotation.keys, "segments_info", j)
            if type(number) is not int or not 0 < number <= MAX_SEGMENT_ID:
                raise self.wrong((*keys, "id"), number, f"a whole number from 1 to {MAX_SEGMENT_ID}")
            if type(category) is not int or category not in places:
                raise self.wrong((*keys, "category_id"), category, "the id of one of the true categories")
            if crowd not in (0, 1):
                raise self.wrong((*keys, "iscrowd"), crowd, "0 or 1")
            labels.append(places[category])
        return SegmentIds(
            read_segment_png(self.png(annotation), max_pixels),
            np.array([record["id"] for record in annotation.segments], np.int64),
            np.array(labels, np.int64),
            np.array([bool(record.get("iscrowd", 0)) for record in annotation.segments], bool),
        )

    def check_areas(self, annotation: _Annotation, segments: SegmentIds) -> None:
        """Passes if each area that the file gives is the number of the segment's pixels, with which PQ is computed."""
        present = extents(segments.ids)
        counts = dict(zip(present.ids.tolist(), present.pixels.tolist(), strict=True))
        for j, record in enumerate(annotation.segments):
            pixels, area = counts[record["id"]], record.get("area")
            if area is not None and area != pixels:
                keys = (*annotation.keys, "segments_info", j, "area")
                raise self.wrong(keys, area, f"{pixels}, the pixels in {annotation.file_name}")

    def _objects(self, keys: Keys, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self.wrong(keys, value, "a list")
        for i, record in enumerate(value):
            if not isinstance(record, dict):
                raise self.wrong((*keys, i), record, "an object")
        return value


def _categories(truth: _Side) -> list[_Category]:
    found: dict[int, _Category] = {}
    for i, record in enumerate(truth.records("categories")):
        number, name, thing = record.get("id"), record.get("name"), record.get("isthing")
        if type(number) is not int or number in found:
            raise truth.wrong(("categories", i, "id"), number, "a whole number, each once")
        if thing not in (0, 1):
            raise truth.wrong(("categories", i, "isthing"), thing, "1 of things, 0 of stuff")
        if not isinstance(name, str) or not name.strip():
            raise truth.wrong(("categories", i, "name"), name, "text")
        found[number] = _Category(number, name, bool(thing))
    if not found:
        raise truth.wrong(("categories",), [], "the classes")
    return list(found.values())
