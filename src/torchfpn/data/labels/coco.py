"""Reads COCO annotations: good records become arrays, bad ones are listed by their path in the file.

Every record is checked before compiled code sees it: libraries of run lengths trust their input.
"""

import functools
import math
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from torchfpn.data.labels.coco_annotations import (
    Annotations,
    BadValueError,
    Box,
    ClippedBox,
    Coco,
    CocoOptions,
    PartialShape,
    Shape,
    Shapes,
    are_fractions,
    check_area,
    check_box,
    check_shape,
    is_box,
)
from torchfpn.data.labels.coco_panoptic import PanopticReader
from torchfpn.data.labels.coco_records import Category, ImageFiles, RecordReader, count_lost, index_by_id, is_id
from torchfpn.errors import DataError, nearest
from torchfpn.io.yaml_json import Flaw, Keys, read_json, shown
from torchfpn.types import Size

_LISTS = ("images", "annotations", "categories")

BOXES_CUT = "boxes cut"  # a kind of repair, in counts

_CACHED = 8  # files whose annotations are cached

_lock = threading.Lock()


def read_coco(path: Path, options: CocoOptions) -> Coco:
    """Reads the annotations of a file, once in a process.

    Raises:
        DataError: no file, not JSON, or without the lists that make it a COCO file.
    """
    try:
        maps = options.maps is not None and options.maps.is_dir()
        stamp = path.stat().st_mtime_ns, path.stat().st_size, maps
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror or error})", file=path) from error
    with _lock:
        found = _read_cached(path, stamp, options)
    if isinstance(found, DataError):
        raise DataError(found.found, file=found.file, field=found.field, allowed=found.allowed, hint=found.hint)
    return found


def map_to_classes(
    coco: Coco, classes: Sequence[Category], ignored: Collection[int] = (), things: int | None = None
) -> Coco:
    """The annotations with labels that are indices of `classes`, matched by name, or else by id.

    Ids count only if no category has the name of a class: otherwise "pedestrian" with the id of "car" would be a car.
    Annotations of other categories are left out; this is a flaw unless the category is ignored or only groups others.

    Args:
        coco: with labels that are indices of its categories.
        classes: of the dataset.
        ignored: ids of categories that are left out.
        things: of panoptic datasets, how many of the first classes are things: categories must agree.
    """
    names = {each.name: i for i, each in enumerate(classes)}
    by_name = any(category.name in names for category in coco.categories if category.id not in ignored)
    known = {each.id: i for i, each in enumerate(classes)}
    ids = {} if by_name else known
    table, flaws = np.full(len(coco.categories), -1), []
    lost_by_category = {
        category: lost for category, lost in coco.lost_by_category.items() if category.id not in ignored
    }
    segments = coco.annotations.segments
    shown = coco.annotations.labels if segments is None or segments.labels is None else segments.labels
    counts = np.bincount(shown[shown >= 0], minlength=len(coco.categories)).tolist()
    for i, category in enumerate(coco.categories):
        place = names.get(category.name, ids.get(category.id, -1))
        if category.id not in ignored:
            table[i] = place
            if place >= 0 and things is not None and segments is not None and segments.things[i] != (place < things):
                table[i] = -1
                lost_by_category |= {category: (counts[i], counts[i])} if counts[i] else {}
                said = ("stuff", "a thing")
                line = f'"{category.name}" is {said[segments.things[i]]} here, {said[place < things]} in the dataset'
                flaws.append(Flaw(("categories", i, "isthing"), line))
        if place < 0 and category.id not in ignored and category not in coco.roots:
            hint = nearest(category.name, names)
            if category.id not in known:
                hint += f"; or leave it out: ignore_index: {category.id}"
            total = max(counts[i], lost_by_category.get(category, (0, 0))[1])
            lost_by_category |= {category: (total, total)} if total else {}
            flaws.append(Flaw(("categories", i), f'"{category.name}" is no class of the dataset; {hint}'))
    annotations = coco.annotations.relabel(table)
    if segments is not None and segments.labels is not None:
        labels = np.append(table, -1)[segments.labels].astype(np.int64)  # the last entry is for bad segments
        annotations = replace(annotations, segments=replace(segments, labels=labels))
    return replace(
        coco,
        annotations=annotations,
        categories=tuple(classes),
        flaws=(*flaws, *coco.flaws),
        repaired={at + len(flaws): what for at, what in coco.repaired.items()},
        lost_by_category=lost_by_category,
    )


@functools.lru_cache(_CACHED)
def _read_cached(path: Path, stamp: tuple[int, int, bool], options: CocoOptions) -> Coco | DataError:
    try:
        value, flaws = _opened(path)
        if options.panoptic or any(isinstance(one, dict) and "segments_info" in one for one in value["annotations"]):
            return PanopticReader(options, flaws).read(path, value)
        return _Reader(options, flaws).read(path, value)
    except DataError as error:
        return error


def _opened(path: Path) -> tuple[dict[str, list[Any]], list[Flaw]]:
    value, flaws = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{shown(value)}", file=path, allowed="an object with images, annotations and categories")
    if isinstance(value.get("shapes"), list) and "imagePath" in value:
        hint = "fpn check --init FOLDER makes COCO of the folder of such files"
        raise DataError("a file of LabelMe", file=path, allowed="COCO", hint=hint)
    for key in _LISTS:
        if not isinstance(value.get(key), list):
            found = f'no list "{key}"' if key not in value else f"{key}: {shown(value[key])}"
            raise DataError(found, file=path, allowed="COCO: lists of images, annotations and categories")
    top = [flaw for flaw in flaws if not flaw.keys]
    if top:
        raise DataError(top[0].line, file=path)
    return value, flaws


class _Reader(RecordReader):
    """Reads a file of instance annotations."""

    def __init__(self, options: CocoOptions, flaws: list[Flaw]) -> None:
        super().__init__(flaws)
        self.options = options
        self.known = {flaw.keys[:4]: at for at, flaw in enumerate(flaws) if flaw.keys[:2] not in self.bad}
        self.repaired = {at: "areas" if keys[2:] == ("area",) else "polygons" for keys, at in self.known.items()}

    def read(self, path: Path, value: dict[str, list[Any]]) -> Coco:
        _refuse_fractions(path, value["annotations"])
        named = [record.get("category_id") for record in value["annotations"] if isinstance(record, dict)]
        categories = self.categories(value["categories"], {number for number in named if is_id(number)})
        classes = {number: place for place, number in enumerate(categories)}
        files = ImageFiles(self.options.root, self.options.folder) if self.options.files else None
        images = self.images(value["images"], files)
        places = {number: (i, size) for i, (number, size, _) in enumerate(images)}
        known = set(index_by_id(value["images"]))
        rows = self._objects(value["annotations"], places, known, classes)
        rows.sort(key=lambda row: row[0])
        annotations = Annotations(
            file=path,
            folder=self.options.folder,
            names=tuple(name for _, _, name in images),
            sizes=np.array([size for _, size, _ in images], np.int32).reshape(-1, 2),
            ids=np.array([number for number, _, _ in images], np.int64),
            first=np.searchsorted([row[0] for row in rows], np.arange(len(images) + 1)).astype(np.int64),
            boxes=np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
            labels=np.array([row[2] for row in rows], np.int32),
            crowd=np.array([row[3] for row in rows], bool),
            numbers=np.array([row[4] for row in rows], np.int64),
            areas=np.array([row[5] for row in rows], np.float32),
            shapes=Shapes.of([row[6] for row in rows]) if self.options.masks else None,
        )
        order = self.order()
        ids = list(categories)
        kept = Counter(ids[label] for label in annotations.labels.tolist())
        return Coco(
            annotations,
            tuple(categories.values()),
            tuple(self.flaws[i] for i in order),
            tuple(self.roots),
            {at: self.repaired[i] for at, i in enumerate(order) if i in self.repaired},
            count_lost(named, kept, value["categories"]),
        )

    def _objects(
        self,
        records: Sequence[Any],
        images: dict[int, tuple[int, Size]],
        known: set[Any],
        classes: dict[int, int],
    ) -> list[tuple[int, Box, int, bool, int, float, Shape]]:
        """(index of the image, box, class, crowd, id, area, shape) of the good records."""
        found = []
        numbers: dict[int, int] = {}
        for i, record in enumerate(records):
            number = self.number("annotations", i, record, numbers)
            if number is None:
                continue
            numbers[number] = i
            try:
                row = self._object(i, record, images, known, classes)
            except BadValueError as bad:
                keys: Keys = ("annotations", i, *bad.keys)
                if self.repaired.pop(self.known.get(keys, -1), None) is None:
                    self.flaw(keys, bad.line)
                continue
            if row is not None:
                at, box, label, crowd, area, shape = row
                found.append((at, box, label, crowd, number, area, shape))
        return found

    def _object(
        self,
        i: int,
        record: dict[str, Any],
        images: dict[int, tuple[int, Size]],
        known: set[Any],
        classes: dict[int, int],
    ) -> tuple[int, Box, int, bool, float, Shape] | None:
        image, category = record.get("image_id"), record.get("category_id")
        if not is_id(image) or image not in known:
            raise BadValueError(("image_id",), f"{shown(image)}; expected the id of one of the images")
        if not is_id(category) or category not in classes:
            raise BadValueError(("category_id",), f"{shown(category)}; expected the id of one of the categories")
        if image not in images:  # the image is bad
            return None
        at, size = images[image]
        crowd = record.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise BadValueError(("iscrowd",), f"{shown(crowd)}; expected 0 or 1")
        crowd = bool(crowd) and not self.options.crowds
        found = check_box(record.get("bbox"), size)
        clipped, box = (found, found.box) if isinstance(found, ClippedBox) else (None, found)
        masked = self.options.masks and (not crowd or self.options.crowd_masks)
        shape = self._shape(i, record, size, box) if masked else None
        if clipped is not None:
            self._repair(i, ("bbox",), clipped.line, BOXES_CUT)
        area = self._area(i, record.get("area") if clipped is None else None, box, masked=shape is not None)
        return at, box, classes[category], crowd, area, shape

    def _shape(self, i: int, record: dict[str, Any], size: Size, box: Box) -> Shape:
        """The mask without bad polygons."""
        shape = check_shape(record.get("segmentation"), size, box)
        if not isinstance(shape, PartialShape):
            return shape
        for bad in shape.bad:
            self._repair(i, bad.keys, bad.line, "polygons")
        return shape.rings

    def _area(self, i: int, value: Any, box: Box, *, masked: bool) -> float:
        """The area in the file; else NaN, which means that of the mask, or without a mask that of the box."""
        default = math.nan if masked else check_area(None, box)
        try:
            return default if value is None else check_area(value, box)
        except BadValueError as bad:
            self._repair(i, bad.keys, bad.line, "areas")
            return default

    def _repair(self, i: int, keys: Keys, line: str, what: str) -> None:
        """Records a flaw of a part of an annotation that is kept."""
        whole: Keys = ("annotations", i, *keys)
        self.repaired[self.known.get(whole, len(self.flaws))] = what
        if whole not in self.known:
            self.flaw(whole, line)


def _refuse_fractions(path: Path, records: Sequence[Any]) -> None:
    """Refuses boxes that are fractions of the image."""
    every: list[Any] = [record.get("bbox") for record in records if isinstance(record, dict)]
    boxes = [box for box in every if is_box(box)]
    if boxes and are_fractions(boxes):
        raise DataError(
            f"all boxes lie within 0..1 ({len(boxes):,}, the first {shown(boxes[0])}), so they are shares of the image",
            file=path,
            field="annotations[].bbox",
            allowed="[x, y, width, height] in pixels",
            hint="multiply x and width by the width of the image, y and height by its height",
        )
