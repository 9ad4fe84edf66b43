"""Panoptic segments written as COCO panoptic annotations: a PNG of ids for each image, and one JSON file.

The format is that of cocodataset.org: `coco_panoptic` reads it, and so do panopticapi and detectron2. The JSON and all
PNGs appear together when everything is written, or none does.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from torchfpn.data.labels.segments import SegmentMap
from torchfpn.errors import ConfigError, DataError
from torchfpn.geo.georef import Geo, aux_xml
from torchfpn.io.atomic import atomic_path, make_directory
from torchfpn.io.segment_png import save_segment_png
from torchfpn.types import Color, Panoptic

DECIMALS = 6  # of scores


class PanopticCategory(NamedTuple):
    """A class: its id in the file, its name, whether it is a thing, and its color if it has one."""

    id: int
    name: str
    isthing: bool
    color: Color | None = None

    def record(self) -> dict[str, Any]:
        """As it stands in the file."""
        found: dict[str, Any] = {"id": self.id, "name": self.name, "isthing": int(self.isthing)}
        return found if self.color is None else {**found, "color": list(self.color)}


class CocoPanoptic:
    """Writes images one by one; made by `coco_panoptic`."""

    def __init__(self, folder: Path, categories: Sequence[PanopticCategory], files: contextlib.ExitStack) -> None:
        self.folder, self.categories, self._files = folder, tuple(categories), files
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self._names: dict[str, str] = {}  # of the images, by those of their PNGs

    def add(
        self,
        number: int | str,
        name: str,
        segments: SegmentMap,
        scores: Sequence[float] | None = None,
        geo: Geo | None = None,
    ) -> None:
        """Writes the segments of one image.

        Args:
            number: id of the image.
            name: of its file, relative to the folder of the images; the PNG has the same name but for the suffix.
            segments: their labels are indices of the categories.
            scores: of each segment, where they are predicted.
            geo: where the image lies, for a side file of the PNG (a.png.aux.xml) that GDAL reads.

        Raises:
            DataError: a second image of that name, an id above 16,777,215, or a label that is no category.
            WriteError: the PNG cannot be written.
        """
        png = self._png(name)
        if len(segments.labels) and not 0 <= segments.labels.min() <= segments.labels.max() < len(self.categories):
            wrong = segments.labels[(segments.labels < 0) | (segments.labels >= len(self.categories))][0]
            raise DataError(f"a segment of class {wrong}", file=name, allowed=f"0..{len(self.categories) - 1}")
        file = self.folder / png
        make_directory(file.parent)
        save_segment_png(self._files.enter_context(atomic_path(file)), segments.ids, file)
        if geo is not None:
            side = file.with_name(f"{file.name}.aux.xml")
            part = self._files.enter_context(atomic_path(side))
            part.write_text(aux_xml(geo), "utf-8")
        height, width = segments.ids.shape
        self.images.append({"id": number, "file_name": name, "height": height, "width": width})
        records = self._segments(segments)
        for record, score in zip(records, scores or (), strict=scores is not None):
            record["score"] = round(float(score), DECIMALS)
        self.annotations.append({"image_id": number, "file_name": png, "segments_info": records})

    def add_result(self, number: int | str, name: str, found: Panoptic) -> None:
        """The same of a result, with its scores."""
        infos = found.segments_info
        numbers, labels = (np.array([getattr(one, key) for one in infos], np.int64) for key in ("id", "label"))
        segments = SegmentMap.of(found.segments.cpu().numpy(), numbers, labels)
        self.add(number, name, segments, [one.score for one in infos])

    def text(self) -> str:
        """The JSON of all images so far, an image a line."""
        categories = [category.record() for category in self.categories]
        parts = {"images": self.images, "annotations": self.annotations, "categories": categories}
        lists = []
        for key, records in parts.items():
            lines = ",\n".join(json.dumps(one) for one in records)
            lists.append(f'"{key}": [\n{lines}\n]')
        return "{" + ",\n".join(lists) + "}\n"

    def _png(self, name: str) -> str:
        """The name of the PNG of an image."""
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise DataError(f'"{name}"', field="file_name", allowed="a path below the folder of the images")
        png = str(path.with_suffix(".png"))
        key = png.casefold()  # some file systems take A.png for a.png
        if key in self._names:
            found = f"{name} and {self._names[key]} would both be {png}"
            raise DataError(found, file=self.folder, hint="rename one of them")
        self._names[key] = name
        return png

    def _segments(self, segments: SegmentMap) -> list[dict[str, Any]]:
        columns = (segments.numbers, segments.labels, segments.areas, segments.windows, segments.crowds)
        return [
            {
                "id": number,
                "category_id": self.categories[label].id,
                "area": area,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "iscrowd": int(crowd),
            }
            for number, label, area, (x1, y1, x2, y2), crowd in zip(*(c.tolist() for c in columns), strict=True)
        ]


@contextlib.contextmanager
def coco_panoptic(path: Path, folder: Path, categories: Sequence[PanopticCategory]) -> Iterator[CocoPanoptic]:
    """Opens panoptic annotations for writing. All files appear when the block ends, none if it fails.

    Args:
        path: of the JSON.
        folder: of the PNGs, made if it is missing.
        categories: the classes, in the order of the labels; each id once.

    Raises:
        ConfigError: no categories, or an id twice.
        WriteError: a file cannot be written.
    """
    ids = [category.id for category in categories]
    if not ids or len(set(ids)) < len(ids):
        raise ConfigError(f"ids {ids}" if ids else "no categories", field="categories", allowed="each id once")
    make_directory(folder)
    with contextlib.ExitStack() as files:
        part = files.enter_context(atomic_path(path))  # entered first, so renamed last
        written = CocoPanoptic(folder, categories, files)
        yield written
        part.write_text(written.text(), "utf-8")
