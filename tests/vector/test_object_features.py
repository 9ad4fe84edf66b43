"""Outlines of objects that overlap: whole, in their place, and worth the pixels they are made of."""

import json

import numpy as np
import rasterio.features
import shapely
import torch
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from torchfpn.geo.georef import Geo
from torchfpn.ops.masks import Instances, crop_images
from torchfpn.vector.object_features import mask_outlines, object_features

GEO = Geo(CRS.from_epsg(32633).to_wkt(), (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_800_000.0))


def random_masks(count, size, seed):
    return torch.rand(count, *size, generator=torch.Generator().manual_seed(seed)) > 0.5


def instances(masks, labels=None):
    count = len(masks)
    labels = torch.zeros(count, dtype=torch.int64) if labels is None else torch.tensor(labels)
    crops = crop_images(masks)
    scores = torch.linspace(0.9, 0.6, count)
    return Instances(crops.windows.float(), scores, labels, tuple(masks.shape[1:]), crops)


def burnt(polygon, size):
    """Pixels whose centre a polygon holds, by GDAL."""
    if polygon.is_empty:
        return np.zeros(size, bool)
    return rasterio.features.rasterize([polygon], out_shape=size).astype(bool)


@given(st.integers(1, 7), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_outlines_burnt_again_are_the_masks(count, height, width, seed):
    masks = random_masks(count, (height, width), seed)
    seen = {}
    for numbers, polygons in mask_outlines(crop_images(masks), np.arange(count)):
        seen |= dict(zip(numbers.tolist(), polygons, strict=True))
    for number, mask in enumerate(masks.numpy()):
        polygon = seen.pop(number, shapely.Polygon())
        assert polygon.is_valid
        assert polygon.area == mask.sum()
        assert np.array_equal(burnt(polygon, mask.shape), mask)
    assert not seen


def test_many_sheets_give_what_one_gives():
    crops = crop_images(random_masks(9, (20, 30), 0))

    def outlines(sheets):
        pairs = [pair for numbers, shapes in sheets for pair in zip(numbers, shapes, strict=True)]
        return [(int(number), shape.wkt) for number, shape in pairs]

    several = list(mask_outlines(crops, np.arange(9), at_once=700))
    assert len(several) > 3
    assert outlines(several) == outlines(mask_outlines(crops, np.arange(9)))


def test_classes_scores_and_square_metres():
    masks = torch.zeros(3, 20, 20, dtype=torch.bool)
    masks[0, 2:6, 2:7] = True
    masks[1, 4:8, 5:9] = True  # overlaps the first
    masks[2, 10:12, 0:3] = masks[2, 15:16, 0:1] = True  # two parts
    found = instances(masks, [0, 1, 0])
    names = {3: "cell", 7: "dot"}
    features = list(object_features(found, GEO, (3, 7), names))
    assert [f.name for f in features] == ["cell", "dot", "cell"]
    assert [f.value for f in features] == [3, 7, 3]
    assert [f.score for f in features] == [0.9, 0.75, 0.6]
    assert np.allclose([f.area for f in features], [5.0, 4.0, 1.75], rtol=2e-3)  # half a metre a side, scale of UTM
    assert features[2].polygon.geom_type == "MultiPolygon"
    assert json.loads(features[2].to_json())["geometry"]["type"] == "MultiPolygon"
    pixels = list(object_features(found, None, (3, 7), {3: "cell"}, min_pixels=2, coordinates="pixels"))
    assert [f.area for f in pixels] == [20, 6]  # the part of one pixel is left out


def test_boxes_are_polygons_too():
    boxes = torch.tensor([[1.25, 2.0, 5.5, 4.0], [3.0, 3.0, 3.0, 9.0]])
    found = Instances(boxes, torch.tensor([0.9, 0.6]), torch.tensor([1, 0]), (20, 20))
    features = list(object_features(found, None, (3, 7), {3: "cell", 7: "dot"}, coordinates="pixels"))
    assert features[0].polygon.bounds == (1.25, 2.0, 5.5, 4.0)
    assert features[0].area == 8.5
    assert all(f.polygon.is_valid and f.area > 0 for f in features)
    assert len(list(object_features(found, None, (3, 7), {3: "cell"}, coordinates="pixels", min_pixels=1))) == 0


def test_simplified_outlines_stay_near():
    rows, columns = np.mgrid[:60, :60]
    disc = torch.from_numpy((rows - 30) ** 2 + (columns - 30) ** 2 < 400)[None]
    plain, simple = (
        next(iter(object_features(instances(disc), None, (3,), {3: "cell"}, simplify=s, coordinates="pixels")))
        for s in (0.0, 1.5)
    )
    assert len(simple.polygon.exterior.coords) < len(plain.polygon.exterior.coords) / 3
    assert plain.polygon.symmetric_difference(simple.polygon).area < 0.06 * plain.area


def test_fault_27_ten_thousand_objects_as_polygons():
    count, size = 10_000, (700, 700)
    corner = torch.randint(0, 690, (count, 2), generator=torch.Generator().manual_seed(0))
    windows = torch.cat([corner, corner + 8], 1)
    crops = crop_images(torch.zeros(0, *size, dtype=torch.bool))
    crops = type(crops)(windows, torch.ones(count * 64, dtype=torch.bool), size)
    found = Instances(windows.float(), torch.ones(count), torch.zeros(count, dtype=torch.int64), size, crops)
    features = list(object_features(found, GEO, (3,), {3: "cell"}))
    assert len(features) == count
    assert np.allclose([f.area for f in features], 16.0, rtol=2e-3)


def test_nothing_found_gives_no_feature():
    assert list(object_features(instances(torch.zeros(0, 5, 5, dtype=torch.bool)), GEO, (3,), {3: "cell"})) == []
    none = Instances(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), (5, 5))
    assert list(object_features(none, GEO, (3,), {3: "cell"})) == []
