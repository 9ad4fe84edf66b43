"""What lies in one image: masks end where the data does, and numbers fit into the file."""

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from tiny_detector import tiny_detector
from torchfpn.errors import DataError
from torchfpn.geo.georef import Geo
from torchfpn.inference.objects import find_objects, write_instances
from torchfpn.ops.masks import Crops, crop_images

GEO = Geo(None, (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_800_000.0))


def picture(size=(48, 64), seed=1):
    return 255 * torch.rand(3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["instance", "detection"])
def test_a_whole_image_is_the_models_own_answer(kind):
    task = tiny_detector(kind, rules={"masks": "torchvision"})  # by it masks may have no pixel
    found, empty = find_objects(task, picture(), "fp32")
    own = task.predict([picture()])[0]
    assert empty == 0
    keep = torch.ones(len(own), dtype=torch.bool) if own.masks is None else own.masks.flatten(1).any(1)
    assert len(found) > 10
    assert torch.equal(found.boxes, own.boxes[keep])
    assert torch.equal(found.scores, own.scores[keep])
    if kind == "instance":
        assert not keep.all()
        assert torch.equal(found.masks, own.masks[keep])


@pytest.mark.parametrize("kind", ["instance", "detection"])
def test_nothing_is_found_where_there_is_no_data(kind):
    task, image = tiny_detector(kind), picture()
    image[:, :, :40] = torch.nan
    found, empty = find_objects(task, image, "fp32")
    assert empty == 48 * 40
    assert 0 < len(found) < len(task.predict([image])[0])
    if kind == "instance":
        assert not found.masks[:, :, :40].any()
        assert found.masks.flatten(1).any(1).all()
    assert (found.boxes[:, 2] > 40).all() or kind == "instance"
    nothing, empty = find_objects(task, torch.full((3, 5, 7), torch.nan), "fp32")
    assert (len(nothing), empty) == (0, 35)
    assert (nothing.masks is not None) == (kind == "instance")


def test_nodata_of_the_recipe_counts():
    image = picture()
    image[:, 30:] = 0
    found, empty = find_objects(tiny_detector(nodata=0.0), image, "fp32")
    assert empty == 18 * 64
    assert not found.masks[:, 30:].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (33, 2)])
def test_any_size(size):
    found, empty = find_objects(tiny_detector(), picture(size), "fp32")
    assert found.size == size
    assert empty == 0


def test_more_objects_than_sixteen_bits(tmp_path):
    count = 65_536
    windows = torch.tensor([[0, 0, 1, 1]]).repeat(count, 1)
    windows[-1] = torch.tensor([1, 0, 2, 1])
    crops = Crops(windows, torch.ones(count, dtype=torch.bool), (1, 2))
    with pytest.raises(DataError, match=r"a.jpg: 65,536 objects; expected at most 65,535 in a PNG; raise --min-score"):
        write_instances(tmp_path / "a.png", crops, None, file="a.jpg")
    write_instances(tmp_path / "a.tif", crops, GEO)
    with rasterio.open(tmp_path / "a.tif") as source:
        assert source.dtypes == ("uint32",)
        assert source.read(1).tolist() == [[1, 65_536]]


def test_numbers_in_sixteen_bits(tmp_path):
    masks = torch.zeros(3, 4, 5, dtype=torch.bool)
    masks[0, :2], masks[1, 1:], masks[2, 0, 0] = True, True, True  # the last is hidden
    for name in ("a.png", "a.tif"):
        write_instances(tmp_path / name, crop_images(masks), GEO)
    with Image.open(tmp_path / "a.png") as image, rasterio.open(tmp_path / "a.tif") as source:
        assert image.mode == "I;16"
        assert source.dtypes == ("uint16",)
        expected = np.repeat([1, 1, 2, 2], 5).reshape(4, 5)
        assert np.array_equal(np.asarray(image), expected)
        assert np.array_equal(source.read(1), expected)
