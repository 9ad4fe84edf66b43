"""Small maps that tests make for themselves: GeoTIFFs with a place, files of polygons, scenes."""

import json

import numpy as np
import rasterio
import shapely

from made_data import write_tiff

WEST, NORTH = 5e5, 5e6  # of every map, in metres of UTM zone 33
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, WEST, 0, -1, NORTH)}


def box(column, row, size=10):
    """A square of pixels as a polygon on the ground."""
    return shapely.box(WEST + column, NORTH - row - size, WEST + column + size, NORTH - row)


def write_geojson(path, shapes, values=None, *, field="kind", crs="EPSG:32633"):
    """Features with one attribute; metres, unless told otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = ["x"] * len(shapes) if values is None else values
    features = [
        {
            "type": "Feature",
            "properties": {field: value},
            "geometry": shape if shape is None or isinstance(shape, dict) else shapely.geometry.mapping(shape),
        }
        for shape, value in zip(shapes, values, strict=True)
    ]
    member = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    path.write_text(json.dumps({"type": "FeatureCollection", **member, "features": features}))
    return path


def noise(seed, size, bands=3, dtype=np.uint8):
    """[C, H, W] of random values."""
    return np.random.default_rng(seed).integers(1, 200, (bands, *size)).astype(dtype)


def write_map(path, array=None, *, size=(40, 50), seed=0, **profile):
    """A GeoTIFF in its place; random bytes unless an array is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_tiff(path, noise(seed, size) if array is None else array, **(PLACE | profile))


def blobs(size, classes=3, seed=0):
    """Class values [H, W]: areas of some 20 pixels; the last class is rare."""
    rng = np.random.default_rng(seed)
    grid = rng.integers(0, classes - 1, (-(-size[0] // 20), -(-size[1] // 20)))
    labels = grid.repeat(20, 0).repeat(20, 1)[: size[0], : size[1]].astype(np.uint8)
    labels[size[0] // 2 : size[0] // 2 + 6, size[1] // 3 : size[1] // 3 + 6] = classes - 1
    return labels


def scene_yaml(folder, *, pixels, more="", labels="mask.tif", split="train"):
    """A dataset.yaml of one scene; images of more than `pixels` count as such."""
    text = f"classes: [a, b, c]\nscene_pixels: {pixels}\nsplits: {{{split}: {{images: scene.tif, labels: {labels}}}}}\n"
    (folder / "dataset.yaml").write_text(text + more)
    return folder


def make_scene(folder, *, size=(300, 260), pixels=1000, more="", array=None, **profile):
    """scene.tif and mask.tif of three classes, tiled by 64 pixels, read by windows."""
    folder.mkdir(exist_ok=True)
    tiled = {"tiled": True, "blockxsize": 64, "blockysize": 64} | profile
    write_map(folder / "scene.tif", array, size=size, **tiled)
    stored = {name: value for name, value in tiled.items() if name in ("tiled", "blockxsize", "blockysize")}
    write_map(folder / "mask.tif", blobs(size)[None], **stored)
    return scene_yaml(folder, pixels=pixels, more=more)
