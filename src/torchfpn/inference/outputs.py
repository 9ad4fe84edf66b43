"""Outputs of a windowed prediction: label and probability rasters, polygons, assembled from blocks.

The answer of a model as files: labels as PNG or GeoTIFF, probabilities, polygons; each whole or not at all.

Finished blocks -> the files that were asked for: label map, probabilities, polygons, or the tiles of a web map.

Blocks are read one by one, so that memory does not grow with the map; every file is written whole or not at all.
"""

import io
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from torchfpn.geo.georef import Geo, Ties, Window
from torchfpn.geo.window import Block
from torchfpn.io.atomic import atomic_path, make_directory, write_bytes
from torchfpn.io.geotiff import Layout, write_bands, write_cog
from torchfpn.io.labels import label_notes
from torchfpn.io.rasters import write_label_raster
from torchfpn.recipe import IGNORE, Recipe
from torchfpn.sources.mosaic import Part, tile_name
from torchfpn.vector.features import shifted, trace_map

if TYPE_CHECKING:  # shapely is loaded where polygons are asked for
    from torchfpn.vector.features import Feature


def nodata_value(recipe: Recipe) -> int:
    """What stands in label files where the image holds no data: the recipe's own value for "not labelled"."""
    taken = set(recipe.label_ids)
    wanted = (recipe.ignore_index, IGNORE, 0, 65535)
    return next(value for value in wanted if 0 <= value <= 65535 and value not in taken)


def file_values(labels: NDArray[Any], recipe: Recipe) -> NDArray[np.uint16]:
    """0-based labels [H, W] -> the values of the label files the model was trained on."""
    table = np.full(IGNORE + 1, nodata_value(recipe), np.uint16)
    table[: len(recipe.label_ids)] = recipe.label_ids
    return np.asarray(table[labels])


def write_label_png(path: Path, values: NDArray[np.uint16], recipe: Recipe) -> None:
    """A palette PNG of the class colours, no data transparent; 16-bit grey where a value exceeds 255.

    Its text chunks say names and colours of the classes, and the value of no data (`files.labels.label_notes`).
    """
    target = io.BytesIO()
    names = dict(zip(recipe.label_ids, recipe.classes, strict=True))
    notes = label_notes(names, dict(zip(recipe.label_ids, recipe.colors, strict=True)), nodata_value(recipe))
    if max(*recipe.label_ids, nodata_value(recipe)) > 255:
        Image.fromarray(values).save(target, "PNG", pnginfo=notes)
    else:
        picture = Image.fromarray(values.astype(np.uint8))  # "L": a palette makes it "P"
        palette = np.zeros((256, 3), np.uint8)
        palette[list(recipe.label_ids)] = recipe.colors
        picture.putpalette(palette.tobytes())
        picture.save(target, "PNG", transparency=nodata_value(recipe), pnginfo=notes)
    write_bytes(path, target.getvalue())


def write_labels(path: Path, values: NDArray[np.uint16], recipe: Recipe, geo: Geo | Ties | None) -> None:
    """A GeoTIFF on the grid of the image, or a PNG, as the suffix of `path` says."""
    if path.suffix != ".tif":
        write_label_png(path, values, recipe)
        return
    write_label_raster(
        path,
        values,
        geo=geo,
        colors=dict(zip(recipe.label_ids, recipe.colors, strict=True)),
        names=dict(zip(recipe.label_ids, recipe.classes, strict=True)),
        nodata=nodata_value(recipe),
    )


def write_probabilities(path: Path, probabilities: NDArray[Any], recipe: Recipe, geo: Geo | Ties | None) -> None:
    """[K, H, W], float32 (NaN: no data) or uint8, as they are: a band per class (.tif), or an array (.npz)."""
    if path.suffix == ".npz":
        target = io.BytesIO()
        np.savez_compressed(target, probabilities=probabilities, classes=np.array(recipe.classes))
        write_bytes(path, target.getvalue())
        return
    nodata = float("nan") if probabilities.dtype.kind == "f" else None
    write_bands(path, probabilities, names=recipe.classes, geo=geo, nodata=nodata)


def write_features(
    path: Path, features: "Iterable[Feature]", *, crs: str | None = None, scored: bool = True, multi: bool = False
) -> int:
    """Polygons as GeoPackage or FlatGeobuf in the coordinate system `crs`, else as GeoJSON; how many there were.

    They are written as they come. scored: the layer has an attribute "score". multi: it is one of MultiPolygon.
    """
    if path.suffix not in (".gpkg", ".fgb") or crs is None:
        return write_polygons(path, features)
    from torchfpn.io.vector_writing import write_layer

    fields = {"class": str, "class_id": int} | ({"score": float} if scored else {}) | {"area": float}
    rows = (
        (f.polygon, (f.name, f.value, *([f.score] if scored else []), round(f.area, 2)))  # as GeoJSON has it
        for f in features
    )
    return write_layer(path, rows, fields, crs=crs, multi=multi)


def write_polygons(path: Path, features: "Iterable[Feature]", **members: Any) -> int:
    """A GeoJSON FeatureCollection, one feature a line, written as they come; how many there were.

    members: further plain values beside the features.
    """
    whole = {"type": "FeatureCollection", **members}
    count = 0
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f'{json.dumps(whole, ensure_ascii=False)[:-1]}, "features": [')
        for count, feature in enumerate(features, start=1):
            file.write(",\n" if count > 1 else "\n")
            file.write(feature.to_json())
        file.write("\n]}\n")
    return count


KEPT = 6  # blocks in memory while tiles are cut out of them


@dataclass(frozen=True)
class Canvas:
    """A map in blocks.

    blocks: those that hold anything; read: number of a block -> its arrays ("labels" [h, w], and where wanted "scores"
    [h, w] and "probabilities" [K, h, w]). size: height and width of the whole; side: of blocks.
    ties: where it lies without a transform.
    """

    size: tuple[int, int]
    geo: Geo | None
    side: int
    blocks: Sequence[Block]
    read: Callable[[int], dict[str, NDArray[Any]]]
    recipe: Recipe
    ties: Ties | None = None

    @property
    def dtype(self) -> str:
        """Of the labels."""
        return label_type(self.recipe)

    @property
    def nodata(self) -> int:
        """The label of pixels without data."""
        return nodata_value(self.recipe)


def label_type(recipe: Recipe) -> str:
    """Of label files, the same for all blocks."""
    return "uint8" if max(*recipe.label_ids, nodata_value(recipe)) <= 255 else "uint16"


def write_map(canvas: Canvas, path: Path) -> int:
    """The label map as a cloud-optimised GeoTIFF; how many pixels hold no data, of those that lie in a block."""
    recipe, empty = canvas.recipe, 0

    def labels() -> Iterator[tuple[int, int, NDArray[Any]]]:
        nonlocal empty
        for block in canvas.blocks:
            values = canvas.read(block.index)["labels"]
            empty += int((values == canvas.nodata).sum())
            yield block.block[0], block.block[1], values[None]

    layout = Layout(
        *canvas.size,
        dtype=canvas.dtype,
        names=("class",),
        geo=canvas.geo or canvas.ties,
        nodata=canvas.nodata,
        colors=dict(zip(recipe.label_ids, recipe.colors, strict=True)) if canvas.dtype == "uint8" else {},
        classes=dict(zip(recipe.label_ids, recipe.classes, strict=True)),
    )
    write_cog(path, layout, labels())
    return empty


def write_shares(canvas: Canvas, path: Path, dtype: str) -> None:
    """The probabilities as a cloud-optimised GeoTIFF, a band for each class."""
    missing = float("nan") if dtype == "float32" else None
    layout = Layout(
        *canvas.size, dtype=dtype, names=canvas.recipe.classes, geo=canvas.geo or canvas.ties, nodata=missing
    )
    blocks = ((b.block[0], b.block[1], canvas.read(b.index)["probabilities"]) for b in canvas.blocks)
    write_cog(path, layout, blocks)


def write_tiles(canvas: Canvas, folder: Path, parts: Sequence[Part]) -> int:
    """The labels of every tile as <z>/<x>/<y>.png below `folder`; how many pixels hold no data."""
    empty, cutter = 0, _Cutter(canvas)
    for part in sorted(parts, key=lambda part: (part.row, part.column)):
        values = cutter.cut(Window(part.row, part.column, part.height, part.width))
        empty += int((values == canvas.nodata).sum())
        path = folder / tile_name(part.file)
        make_directory(path.parent)
        write_label_png(path, values.astype(np.uint16), canvas.recipe)
    return empty


def outlines(canvas: Canvas, **outlining: Any) -> "Iterator[Feature]":
    """Polygons of the map, none cut at a seam. outlining: see `polygons.trace_map`."""
    for row, column, plan, numbers in _islands(canvas.blocks, canvas.side):
        arrays = _Once(canvas, plan, numbers)
        geo = None if canvas.geo is None else canvas.geo.part(row, column)
        features = trace_map(plan, arrays.labels, geo, scores=arrays.scores, **outlining)
        at_origin = (row, column) == (0, 0) or outlining["coordinates"] != "pixels"
        yield from features if at_origin else (shifted(feature, column, row) for feature in features)


class _Once:
    """Labels and scores of the blocks of an island; each block is read once for both."""

    def __init__(self, canvas: Canvas, plan: Sequence[Window], numbers: Sequence[int | None]) -> None:
        self.canvas, self.plan, self.numbers = canvas, plan, numbers
        self.last: tuple[int, dict[str, NDArray[Any]]] = (-1, {})

    def labels(self, i: int) -> NDArray[Any]:
        return self._get(i)["labels"]

    def scores(self, i: int) -> NDArray[Any]:
        return self._get(i)["scores"]

    def _get(self, i: int) -> dict[str, NDArray[Any]]:
        if self.last[0] != i:
            number, shape = self.numbers[i], self.plan[i][2:]
            nothing = {
                "labels": np.full(shape, self.canvas.nodata, self.canvas.dtype),
                "scores": np.zeros(shape, np.uint8),
            }
            self.last = i, nothing if number is None else self.canvas.read(number)
        return self.last[1]


class _Cutter:
    """Rectangles of the map; the last blocks stay in memory."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas, self.side = canvas, canvas.side
        self.numbers = {(b.block[0] // self.side, b.block[1] // self.side): b for b in canvas.blocks}
        self.kept: OrderedDict[int, NDArray[Any]] = OrderedDict()

    def cut(self, rectangle: Window) -> NDArray[Any]:
        row, column, rows, columns = rectangle
        result = np.full((rows, columns), self.canvas.nodata, self.canvas.dtype)
        for i in range(row // self.side, (row + rows - 1) // self.side + 1):
            for j in range(column // self.side, (column + columns - 1) // self.side + 1):
                block = self.numbers[i, j]
                top, left, tall, wide = block.block
                y0, y1, x0, x1 = max(row, top), min(row + rows, top + tall), max(column, left), 0
                x1 = min(column + columns, left + wide)
                labels = self._labels(block.index)[y0 - top : y1 - top, x0 - left : x1 - left]
                result[y0 - row : y1 - row, x0 - column : x1 - column] = labels
        return result

    def _labels(self, index: int) -> NDArray[Any]:
        if index not in self.kept:
            self.kept[index] = self.canvas.read(index)["labels"]
            while len(self.kept) > KEPT:
                self.kept.popitem(last=False)
        return self.kept[index]


def _islands(blocks: Sequence[Block], side: int) -> Iterator[tuple[int, int, list[Window], list[int | None]]]:
    """Groups of blocks that touch, by sides or corners, each filled up to a rectangle.

    Row and column of its corner, blocks from there in bands from top to bottom, and their numbers (None: one that is
    not in the plan).
    """
    left = {(b.block[0] // side, b.block[1] // side): b for b in blocks}
    for start in list(left):
        if start not in left:
            continue
        island, front = {start: left.pop(start)}, [start]
        while front:
            i, j = front.pop()
            for near in ((i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)):
                if near in left:
                    island[near] = left.pop(near)
                    front.append(near)
        yield _filled(island)


def _filled(
    island: dict[tuple[int, int], Block],
) -> tuple[int, int, list[Window], list[int | None]]:
    rows, columns = sorted({i for i, _ in island}), sorted({j for _, j in island})
    tall = {i: block.block[2] for (i, _), block in island.items()}
    wide = {j: block.block[3] for (_, j), block in island.items()}
    top = {i: block.block[0] for (i, _), block in island.items()}
    left = {j: block.block[1] for (_, j), block in island.items()}
    row, column = top[rows[0]], left[columns[0]]
    plan, numbers = list[Window](), list[int | None]()
    for i in rows:
        for j in columns:
            plan.append(Window(top[i] - row, left[j] - column, tall[i], wide[j]))
            numbers.append(island[i, j].index if (i, j) in island else None)
    return row, column, plan, numbers
