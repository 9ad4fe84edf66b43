"""LabelMe's JSON: a file for each image, with shapes as people drew them."""

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from torchfpn.data.annotation_formats.labelled import MAX_BYTES, BadObject, LabelledObject, box_object, polygon_object
from torchfpn.errors import DataError
from torchfpn.io.yaml_json import read_json, shown
from torchfpn.ops.extents import crops_of
from torchfpn.ops.rle import to_rle
from torchfpn.types import Size

_POINTS = 64  # of the polygon that stands for a circle


class LabelMe:
    """Polygons, rectangles, circles and masks; what has no area (lines, points) cannot be an object."""

    name, suffix, background = "LabelMe", ".json", False

    def names(self) -> list[str] | None:
        """Every file names its own."""
        return None

    def matches(self, path: Path) -> bool:
        """Whether it has shapes and the path of an image."""
        try:
            if path.stat().st_size > MAX_BYTES:
                return False
            return is_labelme(read_json(path)[0])
        except (DataError, OSError):
            return False

    def read(self, path: Path, size: Size) -> tuple[list[LabelledObject], list[BadObject]]:
        """The objects of an image of (height, width) `size`.

        Raises:
            DataError: no such file, or of an image of another size.
        """
        value = read_json(path)[0]
        if not is_labelme(value):
            raise DataError("no shapes", file=path, allowed="a file of LabelMe")
        said = value.get("imageHeight"), value.get("imageWidth")
        if None not in said and said != size:
            raise DataError(f"{said[1]} x {said[0]} pixels, {size[1]} x {size[0]} in the image", file=path)
        things, bad = list[LabelledObject](), list[BadObject]()
        groups: dict[tuple[str, Any], list[list[float]]] = {}  # polygons that are one object together
        for i, shape in enumerate(value["shapes"]):
            label = _label(shape)
            try:
                if label is None:
                    raise DataError("no label")
                group = shape.get("group_id")
                if group is not None and shape.get("shape_type", "polygon") == "polygon":
                    ring = _flat(shape)
                    polygon_object(label, [ring], size)
                    groups.setdefault((label, str(group)), []).append(ring)
                else:
                    things.append(_thing(label, shape, size))
            except DataError as error:
                bad.append(BadObject(f"shapes[{i}]: {error.found}", label))
        return things + [polygon_object(label, rings, size) for (label, _), rings in groups.items()], bad

    def notes(self) -> list[str]:
        """What people should know of how the files were read."""
        return []


def is_labelme(value: Any) -> bool:
    """Whether a value of JSON is what LabelMe writes."""
    return isinstance(value, dict) and isinstance(value.get("shapes"), list) and "imagePath" in value


def _label(shape: Any) -> str | None:
    label = shape.get("label") if isinstance(shape, dict) else None
    return " ".join(label.split()) or None if isinstance(label, str) else None


def _thing(label: str, shape: dict[str, Any], size: Size) -> LabelledObject:
    kind = shape.get("shape_type", "polygon") or "polygon"
    flat = _flat(shape)
    if kind == "polygon":
        return polygon_object(label, [flat], size)
    if kind == "rectangle" and len(flat) >= 4:
        xs, ys = flat[::2], flat[1::2]
        return box_object(label, (min(xs), min(ys), max(xs), max(ys)), size)
    if kind == "circle" and len(flat) == 4:
        x, y, u, v = flat
        turns = [2 * math.pi * i / _POINTS for i in range(_POINTS)]
        radius = math.hypot(u - x, v - y)
        ring = [value for a in turns for value in (x + radius * math.cos(a), y + radius * math.sin(a))]
        return polygon_object(label, [ring], size)
    if kind == "mask" and len(flat) == 4:
        return _mask(label, shape.get("mask"), flat, size)
    raise DataError(f"a {kind}; polygon, rectangle, circle or mask, which have an area")


def _flat(shape: dict[str, Any]) -> list[float]:
    points = shape.get("points")
    rows: list[Any] = points if isinstance(points, list) else [None]
    if not all(isinstance(row, list) and len(row) == 2 and set(map(type, row)) <= {int, float} for row in rows):
        raise DataError(f"points: {shown(points)}; a list of [x, y]")
    return [float(value) for row in rows for value in row]


def _mask(label: str, text: Any, corners: list[float], size: Size) -> LabelledObject:
    """A PNG within the JSON, in a window of the image; its corners are pixels of it."""
    from PIL.PngImagePlugin import PngImageFile

    left, top, right, bottom = (round(value) for value in corners)
    try:
        with PngImageFile(io.BytesIO(base64.b64decode(text, validate=True))) as image:
            if image.size != (right - left + 1, bottom - top + 1):
                raise DataError(f"a mask of {image.size[0]} x {image.size[1]} pixels in another window")
            window = np.array(image.convert("L")) > 0
    except (ValueError, TypeError, OSError, SyntaxError, EOFError) as error:
        raise DataError(f"a mask that is no PNG ({error})") from error
    if left < 0 or top < 0 or right >= size[1] or bottom >= size[0]:
        raise DataError("a mask outside of the image")
    ys, xs = np.nonzero(window)
    if not len(ys):
        raise DataError("a mask without a pixel")
    values = np.zeros(size, bool)
    values[top : bottom + 1, left : right + 1] = window
    box = left + int(xs.min()), top + int(ys.min()), left + int(xs.max()) + 1, top + int(ys.max()) + 1
    runs = to_rle(crops_of(values, np.array([1]), np.array([box])))[0]
    return LabelledObject(label, tuple(map(float, box)), runs={"size": list(size), "counts": runs["counts"]})  # type: ignore[arg-type]
