"""Objects of many images as one COCO file."""

import json

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO
from faster_coco_eval import mask as rle

from torchfpn.data.labels.coco_results import coco_results
from torchfpn.ops.masks import Instances, crop_images
from torchfpn.recipe import Recipe, Scaling

RECIPE = Recipe("instance", {}, ("cell", "Zelle ß"), ("grey",), Scaling.identity(1), (3, 7))


def some(count=4, size=(12, 15), seed=0, masks=True):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(count, *size, generator=generator) > 0.5
    crops = crop_images(drawn)
    labels = torch.arange(count) % 2
    return Instances(crops.windows + 0.12345, torch.linspace(0.9, 0.1, count), labels, size, crops if masks else None)


def test_another_reader_sees_the_same_objects(tmp_path):
    first, second = some(), some(3, seed=1)
    with coco_results(tmp_path / "a.json", RECIPE) as results:
        results.add(1, "a.png", first)
        results.add(5, "b\udcff.png", second)
    held = COCO(str(tmp_path / "a.json"))
    assert sorted(held.imgs) == [1, 5]
    assert {c["id"]: c["name"] for c in held.cats.values()} == {3: "cell", 7: "Zelle ß"}
    for number, found in ((1, first), (5, second)):
        records = [held.anns[i] for i in held.getAnnIds(imgIds=[number])]
        assert [r["category_id"] for r in records] == [RECIPE.label_ids[i] for i in found.labels.tolist()]
        assert np.allclose([r["score"] for r in records], found.scores, atol=1e-6)
        decoded = np.stack([rle.decode(r["segmentation"]) for r in records]).astype(bool)
        assert np.array_equal(decoded, found.masks.numpy())
        assert [r["area"] for r in records] == decoded.sum((1, 2)).tolist()
        boxes = np.array([r["bbox"] for r in records])
        boxes[:, 2:] += boxes[:, :2]
        assert np.allclose(boxes, found.boxes, atol=1e-3)


def test_boxes_without_masks_have_no_segmentation_and_never_no_area(tmp_path):
    found = some(2, masks=False)
    found.boxes[0, 2:] = found.boxes[0, :2]
    with coco_results(tmp_path / "a.json", RECIPE) as results:
        results.add(1, "a.png", found)
    records = json.loads((tmp_path / "a.json").read_text())["annotations"]
    assert all("segmentation" not in r and r["bbox"][2] > 0 and r["bbox"][3] > 0 for r in records)


def test_no_image_no_file_and_no_object_a_valid_one(tmp_path):
    with coco_results(tmp_path / "none.json", RECIPE):
        pass
    assert not list(tmp_path.iterdir())
    with coco_results(tmp_path / "empty.json", RECIPE) as results:
        results.add(1, "a.png", some(0))
    held = json.loads((tmp_path / "empty.json").read_text())
    assert held["annotations"] == []
    assert len(held["images"]) == 1


def test_a_file_that_is_not_finished_never_appears(tmp_path):
    def stopped():
        with coco_results(tmp_path / "a.json", RECIPE) as results:
            results.add(1, "a.png", some())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not list(tmp_path.iterdir())
