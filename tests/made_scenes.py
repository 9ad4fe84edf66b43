"""A small raster on the earth, and a small model to label it with."""

import numpy as np
import rasterio
import torch

import torchfpn
from torchfpn.geo.georef import Geo
from torchfpn.io.geotiff import write_bands
from torchfpn.recipe import Scaling

UTM = Geo(rasterio.crs.CRS.from_epsg(32645).to_wkt(), (0.5, 0.0, 5e5, 0.0, -0.5, 3e6))
HEIGHT, WIDTH = 130, 190


def make_task(backbone="test_resnet", bands=3):
    """A small model that tells its classes apart."""
    torch.manual_seed(0)
    task = torchfpn.create_task(
        backbone=backbone,
        num_classes=4,
        in_channels=bands,
        channels=16,
        head_channels=16,
        scaling=Scaling((120.0,) * bands, (60.0,) * bands),
    )
    task.train()
    for _ in range(2):  # statistics of batch norm
        task.model(torch.randn(2, bands, 64, 64))
    torch.nn.init.normal_(task.model.head.classify.weight)
    return task.eval()


def make_scene(path, geo=UTM, height=HEIGHT, width=WIDTH, dtype=np.uint8, bands=3):
    """Smooth random bands."""
    draw = torch.Generator().manual_seed(1)
    coarse = torch.rand((1, bands, height // 9 + 2, width // 9 + 2), generator=draw)
    array = 255 * torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[0].numpy()
    names = ("red", "green", "blue") if bands == 3 else tuple(f"band{i}" for i in range(bands))
    write_bands(path, array.astype(dtype), names=names, geo=geo)
    return array.astype(dtype)


def read(path):
    with rasterio.open(path) as source:
        return source.read()
