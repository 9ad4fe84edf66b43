"""The undamaged files that the fuzzer starts from: a small one of every kind that a verb of `fpn` reads."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import rasterio
import segmentation_models_pytorch as smp
import torch
from PIL import Image

from made_data import labels, make_dataset, picture, write_png, write_tiff
from made_maps import PLACE, box, make_scene, noise, write_geojson, write_map
from made_objects import make_objects
from made_panoptic import WHOLE, make_panoptic, make_polygon_map
from tiny_detector import tiny_detector
from tiny_model import tiny_task
from torchfpn.geo.georef import Geo
from torchfpn.io.geotiff import write_label_raster

TRAINING = """dataset: pixels
max_epochs: 1
steps_per_epoch: 1
batch_size: 2
num_workers: 0
accelerator: cpu
model: {backbone: test_resnet, channels: 8, head_channels: 8}
data: {crop: 32, hflip: 0.5}
optimizer: {name: adamw, weight_decay: 0.01}
schedule: {name: poly, warmup: 1}
loss: {terms: ce}
"""
SHAPE = {"label": "cat", "shape_type": "polygon", "points": [[4, 6], [12, 6], [12, 18], [4, 18]]}
LABELME = {"version": "5.0", "flags": {}, "shapes": [SHAPE], "imageHeight": 24, "imageWidth": 32}
VOC = """<annotation><filename>NAME.png</filename>
<size><width>32</width><height>24</height><depth>3</depth></size>
<object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>5</xmin><ymin>7</ymin><xmax>12</xmax><ymax>18</ymax></bndbox></object></annotation>
"""


def make_originals(folder: Path) -> Path:
    """Writes every file; returns the folder. Paths inside are relative to it, so that a copy works anywhere."""
    make_dataset(folder / "pixels", train=2, val=1)
    make_objects(folder / "objects")
    make_panoptic(folder / "panoptic")
    (folder / "panoptic" / "whole.yaml").write_text(WHOLE)
    make_polygon_map(folder / "composed")
    make_scene(folder / "scenes", size=(70, 90))
    (folder / "train.yaml").write_text(TRAINING)
    _images(folder / "images")
    _labels(folder / "labels")
    _maps(folder / "maps")
    _beside(folder / "beside")
    _annotations(folder)
    _models(folder / "models")
    _results(folder)
    return folder


def _images(folder: Path) -> None:
    folder.mkdir()
    array, exif = picture(0, (40, 50)), Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    write_png(folder / "exif.png", array, exif=exif)
    Image.fromarray(array).quantize(16).save(folder / "palette.png")
    Image.fromarray(array[..., 0].astype("uint16") * 9).save(folder / "wide.png")
    Image.fromarray(array).save(folder / "color.jpg", exif=exif)
    Image.fromarray(array).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(array).save(folder / "color.bmp")
    Image.fromarray(array).save(folder / "color.webp")
    bands, grid = array.transpose(2, 0, 1), rasterio.Affine(10, 0, 5, 0, -10, 3)
    write_tiff(folder / "strips.tif", bands, crs="EPSG:32633", transform=grid)
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    write_tiff(folder / "tiles.tif", bands.astype("float32"), nodata=-9999.0, **tiled)
    write_tiff(folder / "masked.tif", bands, mask=array[..., 0] > 9, photometric="rgb")


def _labels(folder: Path) -> None:
    folder.mkdir()
    Image.fromarray(labels(0)).save(folder / "a0.png")
    write_tiff(folder / "a1.tif", labels(1)[None], nodata=255)


def _maps(folder: Path) -> None:
    write_map(folder / "scene.tif", size=(64, 80), descriptions=("red", "green", "blue"))
    named = {"colors": [(1, 2, 3), (90, 90, 90), (200, 60, 30)], "names": ["grass", "road", "roof"]}
    place = Geo(rasterio.crs.CRS.from_string(PLACE["crs"]).to_wkt(), PLACE["transform"][:6])
    write_label_raster(folder / "predicted.tif", labels(0, (64, 80)), geo=place, **named)
    write_map(folder / "truth.tif", labels(1, (64, 80))[None])
    shapes = [box(5, 5), box(20, 20, 15), box(50, 30, 20)]
    write_geojson(folder / "roofs.geojson", shapes, ["roof", "shed", "roof"])
    from pyogrio.raw import write

    wkb, kind = np.array([shape.wkb for shape in shapes], object), np.array(["roof", "shed", "roof"], object)
    for name, driver in (("roofs.gpkg", "GPKG"), ("roofs.fgb", "FlatGeobuf"), ("roofs.shp", "ESRI Shapefile")):
        write(folder / name, wkb, [kind], ["kind"], geometry_type="Polygon", crs="EPSG:32633", driver=driver)


def _beside(folder: Path) -> None:
    """Rasters with their places, masks, overviews, metadata and mosaics in files of their own."""
    folder.mkdir()
    Image.fromarray(picture(0, (40, 50))).save(folder / "photo.jpg")
    (folder / "photo.jgw").write_text("0.5\n0\n0\n-0.5\n500000\n5000000\n")
    for name, bands in (("scene.tif", 3), ("scene.tif.msk", 1)):
        write_map(folder / name, noise(0, (40, 50), bands))
    with rasterio.open(folder / "scene.tif.msk", "r+") as mask:
        mask.update_tags(INTERNAL_MASK_FLAGS_1=2)
    (folder / "scene.tif.aux.xml").write_text(
        '<PAMDataset>\n<Metadata>\n<MDI key="AREA_OR_POINT">Area</MDI>\n</Metadata>\n'
        '<PAMRasterBand band="1">\n<Description>red</Description>\n<NoDataValue>0</NoDataValue>\n'
        "</PAMRasterBand>\n</PAMDataset>\n"
    )
    stacked = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}">\n<SimpleSource>\n'
        f'<SourceFilename relativeToVRT="1">scene.tif</SourceFilename>\n<SourceBand>{i}</SourceBand>\n'
        "</SimpleSource>\n</VRTRasterBand>\n"
        for i in (1, 2, 3)
    )
    (folder / "mosaic.vrt").write_text(f'<VRTDataset rasterXSize="50" rasterYSize="40">\n{stacked}</VRTDataset>\n')


def _annotations(folder: Path) -> None:
    """Objects as YOLO, LabelMe and Pascal VOC have them."""
    for number in range(2):
        name = f"a{number}"
        texts = {
            f"yolo/images/train/{name}.png": "",
            f"yolo/labels/train/{name}.txt": "1 0.25 0.5 0.25 0.5\n0 0.1 0.2 0.4 0.2 0.4 0.6\n",
            f"labelme/{name}.png": "",
            f"labelme/{name}.json": json.dumps(LABELME | {"imagePath": f"{name}.png"}, indent=1),
            f"voc/JPEGImages/{name}.png": "",
            f"voc/Annotations/{name}.xml": VOC.replace("NAME", name),
        }
        for file, text in texts.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text) if text else write_png(folder / file, picture(number))
    (folder / "yolo" / "data.yaml").write_text("train: images/train\nnc: 2\nnames: ['dog', 'cat']\n")
    (folder / "voc" / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "voc" / "ImageSets" / "Main" / "train.txt").write_text("a0\na1\n")


def _models(folder: Path) -> None:
    folder.mkdir()
    tiny_task(bands=("red", "green", "blue"), dtype="uint8").save(folder / "pixels.safetensors")
    of_pixels = {"classes": ("grass", "road", "water"), "ids": (0, 1, 2), "ignore_index": 255}
    tiny_task(bands=("red", "green", "blue"), dtype="uint8", **of_pixels).save(folder / "trained.safetensors")
    tiny_detector(proposals=5).save(folder / "objects.safetensors")
    torch.manual_seed(0)
    theirs = smp.FPN(
        "mobilenet_v2", encoder_weights=None, classes=2, decoder_pyramid_channels=32, decoder_segmentation_channels=32
    )
    torch.save({"state_dict": theirs.state_dict(), "epoch": 3, "lr": 0.1}, folder / "foreign.pth")


def _results(folder: Path) -> None:
    found = [{"image_id": 1, "category_id": 3, "bbox": [2, 3, 8, 6], "score": 0.9}]
    (folder / "results.json").write_text(json.dumps(found))


def copy_tree(source: Path, target: Path) -> None:
    """A copy by hard links: fast; a damaged file replaces its link and leaves the original alone."""
    shutil.copytree(source, target, copy_function=os.link)
