"""Objects over their image and beside the true ones, as PNGs."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from shared import needs_shared
from torchfpn.ops.masks import Instances, crop_images
from torchfpn.report.images import to_rgb
from torchfpn.report.objects import Marks, draw_objects, objects_side_by_side, overlay_objects
from torchfpn.report.sheets import GAP, TITLE
from torchfpn.types import Objects

COLORS = ((200, 10, 10), (10, 200, 10), (10, 10, 200))
NAMES = ("roof", "tree", "car")


def opened(data):
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    return np.asarray(picture.convert("RGBA"))


def image(size=(200, 260)):
    return np.random.default_rng(0).integers(90, 110, (3, *size), dtype=np.uint8)


def found(size=(200, 260), masks=False):
    """Two objects far from each other, of the first two classes."""
    boxes = torch.tensor([[40.0, 40.0, 100.0, 120.0], [150.0, 100.0, 220.0, 180.0]])
    drawn = torch.zeros(2, *size, dtype=torch.bool)
    drawn[0, 40:120, 40:100] = drawn[1, 100:180, 150:220] = True
    crops = crop_images(drawn) if masks else None
    return Instances(boxes, torch.tensor([0.9, 0.6]), torch.tensor([0, 1]), size, crops)


def truth(size=(200, 260), masks=False):
    same = found(size, masks)
    return Objects(same.boxes, same.labels, same.crops, torch.tensor([[0.0, 0.0, 30.0, 30.0]]))


def test_boxes_are_drawn_where_they_are_and_nothing_else_is_touched():
    plain = to_rgb(image())
    over = opened(overlay_objects(image(), found(), colors=COLORS, names=NAMES))[..., :3]
    assert over.shape == plain.shape
    assert (over[40:120, 40] == COLORS[0]).all()
    assert (over[40:120, 99] == COLORS[0]).all()
    assert (over[119, 40:100] == COLORS[0]).all()
    assert (over[100:180, 219] == COLORS[1]).all()
    changed = (over != plain).any(-1)
    assert not changed[45:115, 45:95].any()
    assert not changed[:, 104:145].any()
    assert changed[28:40, 40:80].mean() > 0.5  # the text stands above the box


def test_masks_are_tinted_with_a_line_around_them():
    plain = to_rgb(image())
    over = opened(overlay_objects(image(), found(masks=True), colors=COLORS, names=NAMES))[..., :3]
    assert (over[119, 45:95] == COLORS[0]).all()
    assert np.abs(over[118, 50] - (0.65 * plain[118, 50] + 0.35 * np.array(COLORS[0]))).max() <= 1
    inner = over[50:110, 50:90].reshape(-1, 3).mean(0)
    assert inner[0] > 120
    assert inner[1] < 80
    assert not (over != plain).any(-1)[130:, :140].any()


def test_objects_of_one_class_with_masks_have_colours_of_their_own():
    one = Instances(found().boxes, torch.tensor([0.9, 0.6]), torch.tensor([0, 0]), (200, 260), found(masks=True).crops)
    over = opened(overlay_objects(image(), one, colors=COLORS[:1], names=NAMES[:1]))
    assert (over[119, 60] != over[179, 200]).any()
    boxes = Instances(one.boxes, one.scores, one.labels, one.size)
    over = opened(overlay_objects(image(), boxes, colors=COLORS[:1], names=NAMES[:1]))
    assert (over[119, 60] == over[179, 200]).all()


@pytest.mark.parametrize("masks", [False, True])
def test_panels_stand_side_by_side_with_a_legend(masks):
    sheet = opened(objects_side_by_side(image(), truth(masks=masks), found(masks=masks), colors=COLORS, names=NAMES))
    assert sheet.shape[1] == 3 * 260 + 2 * GAP
    left = [k * (260 + GAP) for k in range(3)]
    panels = [sheet[TITLE : TITLE + 200, x : x + 260, :3] for x in left]
    assert np.array_equal(panels[0], to_rgb(image()))
    assert (panels[1][119, 45:95] == COLORS[0]).all()
    assert (panels[2][119, 45:95] == COLORS[0]).all()
    assert panels[1][:30, :30].mean() > panels[0][:30, :30].mean() + 20  # crowds are hatched
    seen = {tuple(color) for color in sheet[TITLE + 200 :, :, :3].reshape(-1, 3)}
    assert {COLORS[0], COLORS[1]} <= seen
    assert COLORS[2] not in seen
    assert opened(objects_side_by_side(image(), None, found(), colors=COLORS)).shape[1] == 2 * 260 + GAP
    assert opened(objects_side_by_side(image(), truth(), None, colors=())).shape[1] == 2 * 260 + GAP


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (40, 20), (500, 1300)])
@pytest.mark.parametrize("masks", [False, True])
def test_any_size_and_nothing_found(size, masks):
    crops = crop_images(torch.ones(1, *size, dtype=torch.bool)) if masks else None
    boxes = torch.tensor([[0.0, 0.0, size[1], size[0]]])
    one = Instances(boxes, torch.tensor([0.5]), torch.tensor([0]), size, crops)
    values = image(size)
    assert opened(overlay_objects(values, one, colors=COLORS)).shape == (*size, 4)
    none = Instances(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), size)
    over = opened(overlay_objects(values, none, colors=COLORS))[..., :3]
    assert np.array_equal(over, to_rgb(values))
    sheet = opened(objects_side_by_side(values, Objects(boxes, one.labels, crops), one, colors=COLORS, names=NAMES))
    assert max(sheet.shape) < 2200


def test_boxes_out_of_the_image_and_images_without_data():
    boxes = torch.tensor([[-50.0, -3.0, 900.0, 700.0], [500.0, 500.0, 600.0, 600.0], [float("nan")] * 4])
    odd = Instances(boxes, torch.tensor([0.9, 0.5, 0.4]), torch.tensor([0, 1, 2]), (50, 60))
    nothing = np.full((4, 50, 60), np.nan, np.float32)
    assert opened(overlay_objects(nothing, odd, colors=COLORS, names=NAMES)).shape == (50, 60, 4)


def test_texts_never_hide_each_other_or_objects_smaller_than_they_are():
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 280, (400, 2))
    size = (300, 300)

    def drawn(side):
        boxes = np.concatenate([corners, corners + side], 1).astype(float)
        marks = [Marks(boxes, [COLORS[0]] * 400, size, texts=texts) for texts in ([], ["0.99"] * 400)]
        return [draw_objects(np.zeros((*size, 3), np.uint8), one) for one in marks]

    without, with_texts = drawn(3)
    assert np.array_equal(without, with_texts)
    without, with_texts = drawn(20)
    assert (without != with_texts).any()


@needs_shared
@pytest.mark.parametrize(("name", "masks"), [("nuclei", True), ("bccd", False)])
def test_real_images_with_their_true_objects(name, masks):
    from pathlib import Path

    from torchfpn.data.config import read_dataset
    from torchfpn.data.datasets import ObjectDataset

    configs = Path(__file__).resolve().parents[2] / "configs" / "datasets"
    dataset = read_dataset(configs / f"{name}.yaml")
    sample = ObjectDataset(dataset, "val")[3]
    objects = sample.objects
    scores = torch.linspace(1, 0.5, len(objects))
    same = Instances(objects.boxes, scores, objects.labels, sample.size, objects.masks)
    shown = {"colors": [c.color for c in dataset.classes], "names": [c.name for c in dataset.classes]}
    over = opened(overlay_objects(sample.image.numpy(), same, **shown))[..., :3]
    changed = (over != to_rgb(sample.image.numpy())).any(-1)
    if masks:
        on = same.masks.any(0).numpy()
        assert changed[on].mean() > 0.9
        assert changed[~on].mean() < 0.5 * changed[on].mean()
    assert changed.any()
    sheet = opened(objects_side_by_side(sample.image.numpy(), objects, same, **shown))
    assert sheet.shape[1] > 3 * 190
