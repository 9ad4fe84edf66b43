"""The answer of a model as files: labels as PNG or GeoTIFF, probabilities, polygons; each whole or not at all."""

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from torchfpn.files.atomic import atomic_path, write_bytes
from torchfpn.files.geo import Geo, Ties
from torchfpn.files.labels import label_notes
from torchfpn.files.rasters import write_label_raster
from torchfpn.raster.sink import write_bands
from torchfpn.recipe import IGNORE, Recipe

if TYPE_CHECKING:  # shapely is loaded where polygons are asked for
    from torchfpn.raster.polygons import Feature


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
    from torchfpn.vectors.writing import write_layer

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
