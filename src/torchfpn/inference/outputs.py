"""Files made of a prediction: labels, probabilities, polygons, tiles of a web map.

Each output writes its file from the finished blocks of a `PredictedMap`. It reads them one by one, so that memory does
not grow with the map, and the file appears whole or not at all.
"""

import io
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from torchfpn.geo.georef import Geo, Ties
from torchfpn.geo.window import Block, Window
from torchfpn.io.atomic import atomic_path, make_directory, write_bytes
from torchfpn.io.geotiff import Layout, write_bands, write_cog, write_label_raster
from torchfpn.io.labels import label_notes
from torchfpn.recipe import IGNORE, Recipe
from torchfpn.sources.mosaic import Part, tile_name
from torchfpn.vector.features import Feature, shifted, trace, trace_map


def nodata_value(recipe: Recipe) -> int:
    """The label of pixels without data: the recipe's value for "not labelled", unless a class has it."""
    taken = set(recipe.label_ids)
    wanted = (recipe.ignore_index, IGNORE, 0, 65535)
    return next(value for value in wanted if 0 <= value <= 65535 and value not in taken)


def file_values(labels: NDArray[Any], recipe: Recipe) -> NDArray[np.uint16]:
    """0-based labels [H, W] -> the values of the label files the model was trained on."""
    table = np.full(IGNORE + 1, nodata_value(recipe), np.uint16)
    table[: len(recipe.label_ids)] = recipe.label_ids
    return np.asarray(table[labels])


def write_label_png(path: Path, values: NDArray[np.uint16], recipe: Recipe) -> None:
    """Writes a palette PNG of the class colours, no data transparent; 16-bit grey where a value exceeds 255.

    Its text chunks hold names and colours of the classes, and the value of no data (`io.labels.label_notes`).
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
    """Writes a GeoTIFF on the grid of the image, or a PNG, as the suffix of `path` says."""
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
    """Writes [K, H, W] float32 (NaN: no data) or uint8: a band for each class (.tif), or an array (.npz)."""
    if path.suffix == ".npz":
        target = io.BytesIO()
        np.savez_compressed(target, probabilities=probabilities, classes=np.array(recipe.classes))
        write_bytes(path, target.getvalue())
        return
    nodata = float("nan") if probabilities.dtype.kind == "f" else None
    write_bands(path, probabilities, names=recipe.classes, geo=geo, nodata=nodata)


def write_features(
    path: Path,
    features: Iterable[Feature],
    *,
    crs: str | None = None,
    scored: bool = True,
    multi: bool = False,
    extra: Mapping[str, type] = {},
) -> int:
    """Writes polygons as they come; returns how many there were.

    Args:
        path: .gpkg and .fgb are written in the coordinate system `crs`, everything else as GeoJSON.
        features: the polygons.
        crs: well-known text of their coordinate system; None: GeoJSON, whatever the suffix.
        scored: the layer has an attribute "score".
        multi: the layer is one of MultiPolygon.
        extra: types of the further properties of the features.
    """
    if path.suffix not in (".gpkg", ".fgb") or crs is None:
        return write_polygons(path, features)
    from torchfpn.io.vector_writing import write_layer

    fields = dict(extra) | {"class": str, "class_id": int} | ({"score": float} if scored else {}) | {"area": float}

    def values(feature: Feature) -> tuple[Any, ...]:
        score = [feature.score] if scored else []
        further = [feature.extra[name] for name in extra]
        return (*further, feature.name, feature.value, *score, round(feature.area, 2))  # as GeoJSON has it

    rows = ((feature.polygon, values(feature)) for feature in features)
    return write_layer(path, rows, fields, crs=crs, multi=multi)


def write_polygons(path: Path, features: Iterable[Feature], **members: Any) -> int:
    """Writes a GeoJSON FeatureCollection, one feature a line, as they come; returns how many there were.

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


CACHED_BLOCKS = 6  # blocks in memory while tiles are cut out of them


def label_type(recipe: Recipe) -> str:
    """The pixel type of label files: "uint8", or "uint16" where a label value needs it."""
    return "uint8" if max(*recipe.label_ids, nodata_value(recipe)) <= 255 else "uint16"


@dataclass(frozen=True)
class PredictedMap:
    """The finished blocks of one source.

    Attributes:
        source: the file, for messages.
        size: height and width in pixels.
        geo: where the source lies.
        side: of the blocks, in pixels.
        blocks: those that hold data; where no block is, the source holds no data.
        read: index of a block -> its arrays: "labels" [h, w], in the values of label files; where they were asked for
            "scores" [h, w] uint8 and "probabilities" [K, h, w].
        recipe: of the model.
        ties: ground control points of a source without a transform.
        is_whole: the one block is the whole image, in memory.
    """

    source: Path
    size: tuple[int, int]
    geo: Geo | None
    side: int
    blocks: Sequence[Block]
    read: Callable[[int], dict[str, NDArray[Any]]]
    recipe: Recipe
    ties: Ties | None = None
    is_whole: bool = False

    @property
    def place(self) -> Geo | Ties | None:
        """The georeference of raster outputs."""
        return self.geo or self.ties

    @property
    def dtype(self) -> str:
        """The pixel type of the labels."""
        return label_type(self.recipe)

    @property
    def nodata(self) -> int:
        """The label of pixels without data."""
        return nodata_value(self.recipe)

    @property
    def pixels_without_block(self) -> int:
        """How many pixels lie in no block."""
        return self.size[0] * self.size[1] - sum(block.block[2] * block.block[3] for block in self.blocks)

    def layers(self, name: str) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Row, column and array [C, h, w] of each block, as `write_cog` takes them."""
        for block in self.blocks:
            array = self.read(block.index)[name]
            yield block.block[0], block.block[1], array[None] if array.ndim == 2 else array


class Written(NamedTuple):
    """What an output counted. empty: pixels without data. polygons: features of the file."""

    empty: int = 0
    polygons: int = 0


class Output(Protocol):
    """A file, or a folder of tiles, made of a prediction."""

    def write(self, predicted: PredictedMap) -> Written:
        """Writes it, whole or not at all.

        Raises:
            WriteError: the disk is full, or the place cannot be written to.
        """
        ...


def write_outputs(outputs: Iterable[Output], predicted: PredictedMap) -> Written:
    """Writes the outputs one after another; returns the sums of what they counted."""
    counts = [output.write(predicted) for output in outputs]
    return Written(sum(count.empty for count in counts), sum(count.polygons for count in counts))


@dataclass(frozen=True)
class LabelOutput:
    """The label map: a PNG, or a GeoTIFF, cloud-optimised if the source was read by windows."""

    path: Path

    def write(self, predicted: PredictedMap) -> Written:
        """See `Output`."""
        recipe, nodata = predicted.recipe, predicted.nodata
        if predicted.is_whole:
            labels = predicted.read(predicted.blocks[0].index)["labels"]
            write_labels(self.path, labels, recipe, predicted.place)
            return Written(empty=int((labels == nodata).sum()))
        empty = 0

        def counted() -> Iterator[tuple[int, int, NDArray[Any]]]:
            nonlocal empty
            for row, column, labels in predicted.layers("labels"):
                empty += int((labels == nodata).sum())
                yield row, column, labels

        layout = Layout(
            *predicted.size,
            dtype=predicted.dtype,
            names=("class",),
            geo=predicted.place,
            nodata=nodata,
            colors=dict(zip(recipe.label_ids, recipe.colors, strict=True)) if predicted.dtype == "uint8" else {},
            classes=dict(zip(recipe.label_ids, recipe.classes, strict=True)),
        )
        write_cog(self.path, layout, counted())
        return Written(empty=empty + predicted.pixels_without_block)


@dataclass(frozen=True)
class TileOutput:
    """The labels of each tile of a web map as <z>/<x>/<y>.png below a folder. tiles: those of the source."""

    folder: Path
    tiles: Sequence[Part]

    def write(self, predicted: PredictedMap) -> Written:
        """See `Output`; each tile is written whole or not at all."""
        empty, cutter = predicted.pixels_without_block, _Cutter(predicted)
        for tile in sorted(self.tiles, key=lambda tile: (tile.row, tile.column)):
            labels = cutter.cut(Window(tile.row, tile.column, tile.height, tile.width))
            empty += int((labels == predicted.nodata).sum())
            path = self.folder / tile_name(tile.file)
            make_directory(path.parent)
            write_label_png(path, labels.astype(np.uint16), predicted.recipe)
        return Written(empty=empty)


@dataclass(frozen=True)
class ProbabilityOutput:
    """The probability of every class. dtype: "uint8" (255: certain) or "float32" (NaN: no data)."""

    path: Path
    dtype: str

    def write(self, predicted: PredictedMap) -> Written:
        """See `Output`."""
        if predicted.is_whole:
            probabilities = predicted.read(predicted.blocks[0].index)["probabilities"]
            write_probabilities(self.path, probabilities, predicted.recipe, predicted.place)
            return Written()
        nodata = float("nan") if self.dtype == "float32" else None
        names = predicted.recipe.classes
        layout = Layout(*predicted.size, dtype=self.dtype, names=names, geo=predicted.place, nodata=nodata)
        write_cog(self.path, layout, predicted.layers("probabilities"))
        return Written()


@dataclass(frozen=True)
class PolygonOutput:
    """The polygons of the classes, none cut at a border of blocks.

    settings: keyword arguments of `torchfpn.vector.features.trace` but `scores`.
    """

    path: Path
    settings: Mapping[str, Any]

    def write(self, predicted: PredictedMap) -> Written:
        """See `Output`."""
        if predicted.is_whole:
            arrays = predicted.read(predicted.blocks[0].index)
            features = iter(trace(arrays["labels"], predicted.geo, scores=arrays["scores"], **self.settings))
        else:
            features = _traced(predicted, self.settings)
        crs = None if predicted.geo is None else predicted.geo.crs
        in_pixels = self.settings["coordinates"] == "pixels"
        return Written(polygons=write_feature_file(self.path, features, crs=crs, in_pixels=in_pixels))


@dataclass(frozen=True)
class PictureOutput:
    """A picture of an image that was read whole. draw: makes the PNG."""

    path: Path
    draw: Callable[[], bytes]

    def write(self, predicted: PredictedMap) -> Written:
        """See `Output`."""
        write_bytes(self.path, self.draw())
        return Written()


def write_feature_file(
    path: Path,
    features: Iterable[Feature],
    *,
    crs: str | None,
    in_pixels: bool,
    multi: bool = False,
    extra: Mapping[str, type] = {},
) -> int:
    """Writes the polygons of one source; returns how many there were.

    Args:
        path: the suffix says the format, as in `write_features`.
        features: written as they come.
        crs: of the source.
        in_pixels: their coordinates are pixels, which the file says.
        multi: the layer is one of MultiPolygon.
        extra: types of the further properties of the features.
    """
    if in_pixels:
        return write_polygons(path, features, coordinates="pixels: column, row")
    return write_features(path, features, crs=crs, multi=multi, extra=extra)


def _traced(predicted: PredictedMap, settings: Mapping[str, Any]) -> Iterator[Feature]:
    """Polygons of a map in blocks, one group of touching blocks after another."""
    for row, column, plan, numbers in _islands(predicted.blocks, predicted.side):
        arrays = _LastBlock(predicted, plan, numbers)
        geo = None if predicted.geo is None else predicted.geo.part(row, column)
        features = trace_map(plan, arrays.labels, geo, scores=arrays.scores, **settings)
        at_origin = (row, column) == (0, 0) or settings["coordinates"] != "pixels"
        yield from features if at_origin else (shifted(feature, column, row) for feature in features)


class _LastBlock:
    """Labels and scores of the blocks of an island; a block is read once for both."""

    def __init__(self, predicted: PredictedMap, plan: Sequence[Window], numbers: Sequence[int | None]) -> None:
        self.predicted, self.plan, self.numbers = predicted, plan, numbers
        self.last: tuple[int, dict[str, NDArray[Any]]] = (-1, {})

    def labels(self, i: int) -> NDArray[Any]:
        return self._get(i)["labels"]

    def scores(self, i: int) -> NDArray[Any]:
        return self._get(i)["scores"]

    def _get(self, i: int) -> dict[str, NDArray[Any]]:
        if self.last[0] != i:
            number, shape = self.numbers[i], self.plan[i][2:]
            if number is None:
                labels = np.full(shape, self.predicted.nodata, self.predicted.dtype)
                self.last = i, {"labels": labels, "scores": np.zeros(shape, np.uint8)}
            else:
                self.last = i, self.predicted.read(number)
        return self.last[1]


class _Cutter:
    """Cuts rectangles out of the map; the last blocks stay in memory."""

    def __init__(self, predicted: PredictedMap) -> None:
        self.predicted, self.side = predicted, predicted.side
        self.blocks = {(b.block[0] // self.side, b.block[1] // self.side): b for b in predicted.blocks}
        self.cache: OrderedDict[int, NDArray[Any]] = OrderedDict()

    def cut(self, rectangle: Window) -> NDArray[Any]:
        row, column, rows, columns = rectangle
        result = np.full((rows, columns), self.predicted.nodata, self.predicted.dtype)
        for i in range(row // self.side, (row + rows - 1) // self.side + 1):
            for j in range(column // self.side, (column + columns - 1) // self.side + 1):
                block = self.blocks[i, j]
                top, left, tall, wide = block.block
                y0, y1, x0, x1 = max(row, top), min(row + rows, top + tall), max(column, left), 0
                x1 = min(column + columns, left + wide)
                labels = self._labels(block.index)[y0 - top : y1 - top, x0 - left : x1 - left]
                result[y0 - row : y1 - row, x0 - column : x1 - column] = labels
        return result

    def _labels(self, index: int) -> NDArray[Any]:
        if index not in self.cache:
            self.cache[index] = self.predicted.read(index)["labels"]
            while len(self.cache) > CACHED_BLOCKS:
                self.cache.popitem(last=False)
        return self.cache[index]


def _islands(blocks: Sequence[Block], side: int) -> Iterator[tuple[int, int, list[Window], list[int | None]]]:
    """Groups of blocks that touch by sides or corners, each filled up to a rectangle.

    Yields row and column of the rectangle's corner; its blocks, relative to that corner, row by row; and the index of
    each block, None where the map has none.
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
