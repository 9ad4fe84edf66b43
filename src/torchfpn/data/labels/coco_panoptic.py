"""COCO panoptic annotations: segments as arrays, and the PNG with the segment of each pixel.

Source: Kirillov et al. 2019; the format as on cocodataset.org: an id is R + 256 G + 65536 B, 0 is void. A PNG is read
with its image and checked against its annotation. Pixels of no segment are void, as in the evaluation of panopticapi;
an id that no segment has is an error, or void with `fix`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.files import is_inside
from torchfpn.data.labels.coco_annotations import (
    BEYOND,
    Annotations,
    BadValueError,
    Box,
    ClippedBox,
    Coco,
    CocoOptions,
    check_area,
    check_box,
)
from torchfpn.data.labels.coco_records import (
    Category,
    ImageFiles,
    RecordReader,
    Segment,
    Segments,
    count_lost,
    index_by_id,
    is_id,
    stack_segments,
)
from torchfpn.data.labels.ground_truth import GroundTruth
from torchfpn.data.labels.segments import SegmentMap
from torchfpn.data.splits import SHOWN, Problem
from torchfpn.errors import DataError, amount
from torchfpn.io.segment_png import MAX_SEGMENT_ID, read_segment_png
from torchfpn.io.yaml_json import Flaw, shown
from torchfpn.ops.extents import Extents, crops_of, extents
from torchfpn.types import Size

if TYPE_CHECKING:  # torch is loaded where masks are made
    from torchfpn.ops.masks import Crops


_BAD = -1  # category of a segment whose record is bad but for the id


class _Image(NamedTuple):
    """An image with an annotation. map: name of its PNG. record: index of the annotation."""

    id: int
    size: Size
    name: str
    map: str
    record: int
    segments: list[Segment]


class PanopticReader(RecordReader):
    """Reads a file of panoptic annotations: things become annotations, `Segments` holds things and stuff."""

    def __init__(self, options: CocoOptions, flaws: list[Flaw]) -> None:
        super().__init__(flaws)
        self.options = options

    def read(self, path: Path, value: dict[str, list[Any]]) -> Coco:
        """Reads the file; the categories are its things, or with `stuff` all.

        Raises:
            DataError: no masks are allowed, or their folder cannot be used.
        """
        maps = _folder(path, self.options)
        named = _named(value["annotations"])
        categories = self.categories(value["categories"], {number for number in named if is_id(number)})
        things = self._things(path, value["categories"], categories)
        classes = {number: place for place, number in enumerate(categories)}
        files = ImageFiles(self.options.root, self.options.folder)
        images = {image[0]: image for image in self.images(value["images"], files)}
        pngs = ImageFiles(self.options.root, maps, key="annotations", what="panoptic maps")
        found = self._annotations(value, images, pngs, classes)
        whole = [_Image(*images[number], *found[number]) for number in images if number in found]
        listed = [(image.map, image.record, image.segments) for image in whole]
        segments = stack_segments(maps, listed, list(categories.values()), [number in things for number in categories])
        own = set(categories) if self.options.stuff else things
        if self.options.stuff:
            segments = replace(segments, labels=segments.category.astype(np.int64))
        if self.options.crowds:
            segments = replace(segments, crowd=np.zeros_like(segments.crowd))
        ids = np.array([*categories, 0], np.int64)
        kept = Counter(ids[segments.category[segments.category >= 0]].tolist())
        return Coco(
            _thing_annotations(path, self.options.folder, whole, segments),
            tuple(category for category in categories.values() if category.id in own),
            tuple(self.flaws[i] for i in self.order()),
            tuple(category for category in self.roots if category.id in own),
            lost_by_category=count_lost(
                [number for number in named if is_id(number) and number in own], kept, value["categories"]
            ),
        )

    def _things(self, path: Path, records: Sequence[Any], categories: dict[int, Category]) -> set[int]:
        """Ids of the categories that are things."""
        found = set()
        if categories and not any(isinstance(record, dict) and "isthing" in record for record in records):
            raise DataError(
                "no category says whether it is a thing",
                file=path,
                field="categories[].isthing",
                allowed="1 of things, which can be counted, or 0 of stuff",
                hint="copy it from the categories of the data set that the annotations were made for",
            )
        for number, i in index_by_id(records).items():
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
        """Name of the PNG, index of the annotation and segments, by the id of the image."""
        known = index_by_id(value["images"])
        found: dict[int, tuple[str, int, list[Segment]]] = {}
        annotated: dict[int, int] = {}  # annotation of each image, good or bad
        for i, record in enumerate(value["annotations"]):
            try:
                number = self._image(i, record, known, annotated)
                if ("annotations", i) in self.bad or number not in images:  # the record or its image is bad
                    continue
                flaw = pngs.flaw(record.get("file_name"), i)
                if flaw is not None:
                    raise BadValueError(("file_name",), flaw)
                found[number] = (
                    pngs.name_on_disk(record["file_name"]),
                    i,
                    self._segments(i, record, images[number][1], classes),
                )
            except BadValueError as bad:
                self.flaw(("annotations", i, *bad.keys), bad.line)
        for number in images:
            if number not in annotated:
                self.flaw(("images", known[number]), "no annotation of it")
        return found

    def _image(self, i: int, record: Any, known: dict[int, int], annotated: dict[int, int]) -> int:
        """The id of the image of an annotation."""
        if not isinstance(record, dict):
            raise BadValueError((), f"{shown(record)}; expected an object")
        image: Any = record.get("image_id")
        if not is_id(image) or image not in known:
            raise BadValueError(("image_id",), f"{shown(image)}; expected the id of one of the images")
        first = annotated.setdefault(image, i)
        if first != i:
            raise BadValueError(("image_id",), f"{image} again, as annotations[{first}]")
        return int(image)

    def _segments(self, i: int, record: dict[str, Any], size: Size, classes: dict[int, int]) -> list[Segment]:
        """The segments of one image with a unique id, bad ones without a category."""
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
    """The category ids of all segments, good or bad."""
    lists = [record.get("segments_info") for record in records if isinstance(record, dict)]
    every = [one for segments in lists if isinstance(segments, list) for one in segments]
    return [one.get("category_id") for one in every if isinstance(one, dict)]


def _folder(path: Path, options: CocoOptions) -> Path:
    """The folder of the PNGs."""
    if options.maps is None:
        hint = "give annotations of instances"
        raise DataError("panoptic annotations, whose masks are images", file=path, allowed="boxes or masks", hint=hint)
    if not is_inside(options.root, options.maps):
        raise DataError("leads out of the root of the dataset", file=options.maps)
    if not options.maps.is_dir():
        hint = f"name the folder of the PNGs of {path.name}: `panoptic: FOLDER` beside `annotations`"
        raise DataError("no such folder", file=options.maps, hint=hint)
    return options.maps


def _number(record: Any, known: dict[int, Segment]) -> int:
    """The id of a segment."""
    if not isinstance(record, dict):
        raise BadValueError((), f"{shown(record)}; expected an object")
    number: Any = record.get("id")
    if type(number) is not int or not 0 < number <= MAX_SEGMENT_ID:
        raise BadValueError(("id",), f"{shown(number)}; expected a whole number from 1 to {MAX_SEGMENT_ID}")
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
    if isinstance(box, ClippedBox):
        raise BadValueError(("bbox",), box.line)
    return Segment(record["id"], classes[category], bool(crowd), _area(record.get("area"), box), box, place)


def _area(value: Any, box: Box) -> float:
    if value is None:
        raise BadValueError(("area",), "None; expected a number of pixels")
    return check_area(value, box)


def _thing_annotations(path: Path, folder: Path, images: Sequence[_Image], segments: Segments) -> Annotations:
    """The things among the segments; their labels are indices of the things, or of all if stuff is a class."""
    kinds = np.append(segments.things, False)  # the last entry is for bad segments
    chosen = np.flatnonzero(kinds[segments.category])
    labels = np.cumsum(kinds) - 1 if segments.labels is None else np.arange(len(kinds))
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


@dataclass(frozen=True)
class PanopticMap:
    """The segments of one image, with stuff and crowds, and their pixels.

    Attributes:
        ids: int32 [H, W].
        rows: int64 [S] good segments, indices in `Segments`.
        windows: int64 [S, 4] (x1, y1, x2, y2) tight boxes of their pixels.
        problems: of other segments, and of ids that no segment has.
        bad: number of such segments and ids.
    """

    ids: NDArray[np.int32]
    rows: NDArray[np.int64]
    windows: NDArray[np.int64]
    problems: tuple[Problem, ...]
    bad: int


def read_map(annotations: Annotations, number: int, max_pixels: int) -> PanopticMap:
    """Reads the map of image number `number` of panoptic annotations.

    Raises:
        DataError: the PNG cannot be read, has no 8-bit red, green and blue, or another size than the image.
    """
    segments = annotations.segments
    assert segments is not None  # panoptic annotations have segments
    file, rows = segments.folder / segments.maps[number], segments.rows(number)
    values = read_segment_png(file, max_pixels)
    height, width = annotations.size(number)
    if values.shape != (height, width):
        found = f"{values.shape[1]} x {values.shape[0]} pixels, {width} x {height} in {annotations.file.name}"
        raise DataError(found, file=file)
    present = extents(values)
    at = _places(present.ids, segments.ids[rows])
    lines = _mismatches(segments, rows, present, at, file.name)
    record = int(segments.records[number])
    problems = [
        Problem(
            annotations.file,
            str(Flaw(("annotations", record, "segments_info", int(segments.places[rows[i]]), key), line)),
            fixable=True,
        )
        for i, (key, line) in sorted(lines.items())
    ]
    unknown = np.setdiff1d(np.arange(len(present.ids)), at).tolist()
    of = f"annotations[{record}] of {annotations.file.name}"
    problems += [Problem(file, _unknown_id(present, k, width, of), fixable=True) for k in unknown[:SHOWN]]
    if len(unknown) > SHOWN:  # a photograph has one per pixel
        problems.append(Problem(file, f"and {len(unknown) - SHOWN:,} more ids that are not in {of}"))
    good = (at >= 0) & (segments.category[rows] >= 0)
    good[list(lines)] = False
    return PanopticMap(values, rows[good], present.windows[at[good]], tuple(problems), len(lines) + len(unknown))


def segment_map(found: PanopticMap, annotations: Annotations) -> SegmentMap:
    """The segments of an image that are of a class, in the order of the file; other pixels are void."""
    segments = annotations.segments
    assert segments is not None  # panoptic annotations have segments
    assert segments.labels is not None  # read for a panoptic dataset
    rows = found.rows[segments.labels[found.rows] >= 0]
    return SegmentMap.of(found.ids, segments.ids[rows], segments.labels[rows], segments.crowd[rows])


def panoptic_ground_truth(found: PanopticMap, annotations: Annotations, number: int, *, masks: bool) -> GroundTruth:
    """The things of an image, in the order of `annotations`, with the tight boxes of their pixels."""
    segments = annotations.segments
    assert segments is not None  # panoptic annotations have segments
    own = np.arange(annotations.first[number], annotations.first[number + 1])
    places = {identity: k for k, identity in enumerate(segments.ids[found.rows].tolist())}
    at = np.array([places.get(identity, -1) for identity in annotations.numbers[own].tolist()], np.int64)
    own, at = own[at >= 0], at[at >= 0]
    crowd = annotations.crowd[own]
    windows, numbers = found.windows[at[~crowd]], annotations.numbers[own[~crowd]]

    def crops(keep: NDArray[np.int64]) -> "Crops":
        return crops_of(found.ids, numbers[keep], windows[keep])

    return GroundTruth(
        windows.astype(np.float32),
        annotations.labels[own[~crowd]].astype(np.int64),
        found.windows[at[crowd]].astype(np.float32),
        annotations.size(number),
        crops if masks else None,
        dropped=found.bad,
    )


def _places(known: NDArray[np.int64], sought: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of `sought` is among `known`, which rises; -1 where it is not."""
    at = np.searchsorted(known, sought)
    found = at < len(known)
    found[found] = known[at[found]] == sought[found]
    return np.where(found, at, -1).astype(np.int64)


def _mismatches(
    segments: Segments, rows: NDArray[np.int64], present: Extents, at: NDArray[np.int64], name: str
) -> dict[int, tuple[str, str]]:
    """Key and message of each good segment that contradicts the map, by its index in `rows`.

    at: index of each segment among the ids of the map; -1 if it has no pixel.
    """
    good = segments.category[rows] >= 0
    lines = {
        int(i): ("id", f"{segments.ids[rows[i]]}, which has no pixel in {name}")
        for i in np.flatnonzero(good & (at < 0))
    }
    seen = np.flatnonzero(good & (at >= 0))
    pixels, windows = present.pixels[at[seen]], present.windows[at[seen]]
    areas, boxes = segments.areas[rows[seen]], segments.boxes[rows[seen]]
    for k in np.flatnonzero(np.abs(boxes - windows).max(1, initial=0) > BEYOND):
        x, y, x2, y2 = boxes[k].tolist()
        box, real = [x, y, x2 - x, y2 - y], [*windows[k, :2].tolist(), *(windows[k, 2:] - windows[k, :2]).tolist()]
        lines[int(seen[k])] = "bbox", f"[{', '.join(f'{value:.6g}' for value in box)}]; its pixels in {name}: {real}"
    for k in np.flatnonzero(areas != pixels):
        lines[int(seen[k])] = "area", f"{areas[k]:.10g}; {pixels[k]} pixels in {name}"
    return lines


def _unknown_id(present: Extents, k: int, width: int, of: str) -> str:
    """The message about an id in the map that no segment has."""
    row, column = divmod(int(present.first[k]), width)
    count = int(present.pixels[k])
    pixels = f"{amount(count, 'pixel')}, the first at row {row}, column {column}"
    return f"the id {present.ids[k]} ({pixels}); an id in {of}, or 0 where nothing is labelled"
