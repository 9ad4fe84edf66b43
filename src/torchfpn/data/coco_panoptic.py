"""Reading COCO's panoptic annotations: one PNG of segment ids for each image, and what the segments are.

Every record is checked; the things of the good ones become annotations like those of instances, and `Segments` keeps
all of them, stuff as well. The PNGs are only looked for here; each is read with its image (`coco_panoptic_map.py`).

Source: Kirillov et al. 2019; the format as cocodataset.org has it. An id is R + 256 G + 65536 B, 0 is void.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from torchfpn.data.annotations import Annotations
from torchfpn.data.coco import Coco, Wanted
from torchfpn.data.coco_files import ImageFiles
from torchfpn.data.coco_panoptic_segments import MOST, Segment, Segments, segments_of
from torchfpn.data.coco_records import Category, Records, is_id, losses_of, places_of
from torchfpn.data.coco_shapes import BadValueError, Box, Cut, check_area, check_box
from torchfpn.data.listing import is_inside
from torchfpn.data.strict_json import Flaw, shown
from torchfpn.errors import DataError
from torchfpn.types import Size

_BAD = -1  # of a segment of which only the id is good


class _Image(NamedTuple):
    """An image with an annotation. map: the name of its PNG. record: the place of the annotation."""

    id: int
    size: Size
    name: str
    map: str
    record: int
    segments: list[Segment]


class PanopticReader(Records):
    """Goes through a file of panoptic annotations."""

    def __init__(self, wanted: Wanted, flaws: list[Flaw]) -> None:
        super().__init__(flaws)
        self.wanted = wanted

    def read(self, path: Path, value: dict[str, list[Any]]) -> Coco:
        """What the file says; the categories are its things.

        Raises:
            DataError: the masks are not wanted, or their folder cannot be used.
        """
        maps = _folder(path, self.wanted)
        named = _named(value["annotations"])
        categories = self.categories(value["categories"], {number for number in named if is_id(number)})
        things = self._things(path, value["categories"], categories)
        classes = {number: place for place, number in enumerate(categories)}
        files = ImageFiles(self.wanted.root, self.wanted.folder)
        images = {image[0]: image for image in self.images(value["images"], files)}
        pngs = ImageFiles(self.wanted.root, maps, key="annotations", what="panoptic maps")
        found = self._annotations(value, images, pngs, classes)
        whole = [_Image(*images[number], *found[number]) for number in images if number in found]
        listed = [(image.map, image.record, image.segments) for image in whole]
        segments = segments_of(maps, listed, list(categories.values()), [number in things for number in categories])
        if self.wanted.crowds:
            segments = replace(segments, crowd=np.zeros_like(segments.crowd))
        ids = np.array([*categories, 0], np.int64)
        kept = Counter(ids[segments.category[segments.category >= 0]].tolist())
        return Coco(
            _things_of(path, self.wanted.folder, whole, segments),
            tuple(category for category in categories.values() if category.id in things),
            tuple(self.flaws[i] for i in self.order()),
            tuple(category for category in self.roots if category.id in things),
            losses=losses_of(
                [number for number in named if is_id(number) and number in things], kept, value["categories"]
            ),
        )

    def _things(self, path: Path, records: Sequence[Any], categories: dict[int, Category]) -> set[int]:
        """Ids of the categories whose objects can be counted."""
        found = set()
        if categories and not any(isinstance(record, dict) and "isthing" in record for record in records):
            raise DataError(
                "no category says whether it is a thing",
                file=path,
                field="categories[].isthing",
                allowed="1 of things, which can be counted, or 0 of stuff",
                hint="copy it from the categories of the data set that the annotations were made for",
            )
        for number, i in places_of(records).items():
            kind = records[i].get("isthing")
            if number in categories and kind not in (0, 1):
                self.flaw(("categories", i, "isthing"), f"{shown(kind)}; expected 0 or 1")
            elif number in categories and kind:
                found.add(number)
        return found

    def _annotations(
        self,
        value: dict[str, list[Any]],
        images: dict[int, tuple[int, Size, str]],
        pngs: ImageFiles,
        classes: dict[int, int],
    ) -> dict[int, tuple[str, int, list[Segment]]]:
        """By the id of the image: the name of the PNG, the place of the annotation, its segments."""
        known = places_of(value["images"])
        found: dict[int, tuple[str, int, list[Segment]]] = {}
        told: dict[int, int] = {}  # images that are spoken of, also by annotations that are bad
        for i, record in enumerate(value["annotations"]):
            try:
                number = self._image(i, record, known, told)
                if ("annotations", i) in self.odd or number not in images:  # bad itself
                    continue
                flaw = pngs.flaw(record.get("file_name"), i)
                if flaw is not None:
                    raise BadValueError(("file_name",), flaw)
                found[number] = (
                    pngs.spelt(record["file_name"]),
                    i,
                    self._segments(i, record, images[number][1], classes),
                )
            except BadValueError as bad:
                self.flaw(("annotations", i, *bad.keys), bad.line)
        for number in images:
            if number not in told:
                self.flaw(("images", known[number]), "no annotation of it")
        return found

    def _image(self, i: int, record: Any, known: dict[int, int], told: dict[int, int]) -> int:
        """The image that an annotation speaks of."""
        if not isinstance(record, dict):
            raise BadValueError((), f"{shown(record)}; expected an object")
        image: Any = record.get("image_id")
        if not is_id(image) or image not in known:
            raise BadValueError(("image_id",), f"{shown(image)}; expected the id of one of the images")
        first = told.setdefault(image, i)
        if first != i:
            raise BadValueError(("image_id",), f"{image} again, as annotations[{first}]")
        return int(image)

    def _segments(self, i: int, record: dict[str, Any], size: Size, classes: dict[int, int]) -> list[Segment]:
        """Of one image; those with an id of their own, bad ones without a category."""
        records = record.get("segments_info")
        if not isinstance(records, list):
            raise BadValueError(("segments_info",), f"{shown(records)}; expected a list of segments")
        found: dict[int, Segment] = {}
        for j, one in enumerate(records):
            try:
                number = _number(one, found)
                found[number] = Segment(number, _BAD, False, 0.0, (0.0, 0.0, 0.0, 0.0), j)
                found[number] = _segment(j, one, size, classes)
            except BadValueError as bad:
                self.flaw(("annotations", i, "segments_info", j, *bad.keys), bad.line)
        return list(found.values())


def _named(records: Sequence[Any]) -> list[Any]:
    """The category of every segment, good or bad."""
    lists = [record.get("segments_info") for record in records if isinstance(record, dict)]
    every = [one for segments in lists if isinstance(segments, list) for one in segments]
    return [one.get("category_id") for one in every if isinstance(one, dict)]


def _folder(path: Path, wanted: Wanted) -> Path:
    """That of the PNGs."""
    if wanted.maps is None:
        hint = "give annotations of instances"
        raise DataError("panoptic annotations, whose masks are images", file=path, allowed="boxes or masks", hint=hint)
    if not is_inside(wanted.root, wanted.maps):
        raise DataError("leads out of the root of the dataset", file=wanted.maps)
    if not wanted.maps.is_dir():
        hint = f"name the folder of the PNGs of {path.name}: `panoptic: FOLDER` beside `annotations`"
        raise DataError("no such folder", file=wanted.maps, hint=hint)
    return wanted.maps


def _number(record: Any, known: dict[int, Segment]) -> int:
    """The id of a segment."""
    if not isinstance(record, dict):
        raise BadValueError((), f"{shown(record)}; expected an object")
    number: Any = record.get("id")
    if type(number) is not int or not 0 < number <= MOST:
        raise BadValueError(("id",), f"{shown(number)}; expected a whole number from 1 to {MOST}")
    if number in known:
        raise BadValueError(("id",), f"{number} again, as segments_info[{known[number].place}]")
    return number


def _segment(place: int, record: dict[str, Any], size: Size, classes: dict[int, int]) -> Segment:
    category, crowd = record.get("category_id"), record.get("iscrowd", 0)
    if not is_id(category) or category not in classes:
        raise BadValueError(("category_id",), f"{shown(category)}; expected the id of one of the categories")
    if crowd not in (0, 1):
        raise BadValueError(("iscrowd",), f"{shown(crowd)}; expected 0 or 1")
    box = check_box(record.get("bbox"), size)
    if isinstance(box, Cut):
        raise BadValueError(("bbox",), box.line)
    return Segment(record["id"], classes[category], bool(crowd), _area(record.get("area"), box), box, place)


def _area(value: Any, box: Box) -> float:
    if value is None:
        raise BadValueError(("area",), "None; expected a number of pixels")
    return check_area(value, box)


def _things_of(path: Path, folder: Path, images: Sequence[_Image], segments: Segments) -> Annotations:
    """The things among the segments; their labels are places among the things."""
    kinds = np.append(segments.things, False)  # the last one of bad segments
    chosen = np.flatnonzero(kinds[segments.category])
    labels = np.cumsum(kinds) - 1
    return Annotations(
        file=path,
        folder=folder,
        names=tuple(image.name for image in images),
        sizes=np.array([image.size for image in images], np.int32).reshape(-1, 2),
        ids=np.array([image.id for image in images], np.int64),
        first=np.searchsorted(chosen, segments.first).astype(np.int64),
        boxes=segments.boxes[chosen],
        labels=labels[segments.category[chosen]].astype(np.int32),
        crowd=segments.crowd[chosen],
        numbers=segments.ids[chosen],
        areas=segments.areas[chosen].astype(np.float32),
        shapes=None,
        segments=segments,
    )
