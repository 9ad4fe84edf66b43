"""A model on a dataset whose labels are polygons: scores of pixels and of objects."""

import json

import numpy as np
import shapely
import torch

import torchfpn
from made_data import write_tiff
from made_scenes import UTM
from torchfpn import Scaling, create_task
from torchfpn.cli.main import main

YAML = """task: semantic
classes: [background, roof]
bands: [grey]
splits:
  val: {images: images, labels: roofs.geojson}
"""


def test_objects_are_scored_where_labels_are_polygons(tmp_path, capsys):
    """A model that calls bright pixels roofs; one of three roofs is dark, and one bright patch is no roof."""
    (tmp_path / "images").mkdir()
    image = np.zeros((1, 64, 96), np.uint8)
    roofs = [(4, 4, 20, 20), (40, 8, 60, 30), (70, 40, 90, 60)]
    for column, row, right, bottom in [*roofs[:2], (4, 40, 16, 60)]:
        image[0, row:bottom, column:right] = 200
    write_tiff(tmp_path / "images" / "a.tif", image, crs=UTM.crs, transform=UTM.transform, descriptions=["grey"])
    a, _, c, _, e, f = UTM.transform
    shapes = [shapely.box(c + a * x0, f + e * y1, c + a * x1, f + e * y0) for x0, y0, x1, y1 in roofs]
    features = [{"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)} for shape in shapes]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32645"}}
    collection = {"type": "FeatureCollection", "crs": crs, "features": features}
    (tmp_path / "roofs.geojson").write_text(json.dumps(collection))
    (tmp_path / "dataset.yaml").write_text(YAML)
    task = create_task(
        backbone="test_resnet", classes=["roof", "background"], bands=["grey"], scaling=Scaling((100.0,), (1.0,))
    )
    bright = torch.nn.Conv2d(1, 2, 1)
    bright.weight.data[:] = torch.tensor([1.0, -1.0])[:, None, None, None]
    bright.bias.data.zero_()
    task.save(tmp_path / "model.safetensors")
    assert main(["evaluate", str(tmp_path / "model.safetensors"), str(tmp_path), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == torchfpn.evaluate(task.eval(), tmp_path)
    task.model = torch.nn.Sequential(bright)
    found = torchfpn.evaluate(task, tmp_path)
    assert found["objects"]["matched"] == [2]
    assert found["objects"]["predicted"] == [3]
    assert found["objects"]["truth"] == [3]
    assert found["iou"][0] < 1
