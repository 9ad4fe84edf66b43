"""Laws of objects that move with their image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.data.labels.coco_annotations import Shapes
from torchfpn.data.labels.ground_truth import GroundTruth
from torchfpn.data.transforms import Geometry, tight_boxes, transform_masks, transform_objects, visible_objects
from torchfpn.geo.window import Window
from torchfpn.ops.masks import crop_images, paste

SIZE = (40, 56)


def read_ground_truth(boxes, masks=True):
    """Ellipses in boxes [N, 4]."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    rings = [[((box[:2] + box[2:]) / 2 + circle * (box[2:] - box[:2]) / 2).astype(np.float32)] for box in boxes]
    shapes = Shapes.of(rings)
    return GroundTruth(
        boxes,
        np.arange(len(boxes)) % 3,
        boxes[:1],
        SIZE,
        (lambda keep: shapes.crops(keep, boxes[keep], SIZE)) if masks else None,
    )


@st.composite
def boxes(draw):
    count = draw(st.integers(0, 6))
    found = []
    for _ in range(count):
        x, y = draw(st.integers(0, SIZE[1] - 5)), draw(st.integers(0, SIZE[0] - 5))
        found.append([x, y, draw(st.integers(x + 4, SIZE[1])), draw(st.integers(y + 4, SIZE[0]))])
    return found


@st.composite
def geometries(draw):
    height, width = draw(st.integers(8, SIZE[0])), draw(st.integers(8, SIZE[1]))
    top, left = draw(st.integers(-4, SIZE[0] - height + 4)), draw(st.integers(-4, SIZE[1] - width + 4))
    factor = draw(st.sampled_from([0.5, 1.0, 1.0, 1.7]))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    turns = draw(st.integers(0, 3))
    size = size if turns % 2 == 0 else size[::-1]
    return Geometry(Window(top, left, height, width), size, turns, draw(st.booleans()), draw(st.booleans()))


def whole(turns=0, mirror=False, flip=False, size=SIZE):
    return Geometry(Window(0, 0, *size), size if turns % 2 == 0 else size[::-1], turns, mirror, flip)


@settings(max_examples=60, deadline=None)
@given(boxes(), geometries())
def test_masks_move_as_label_images_do(found, geometry):
    truth = read_ground_truth(found)
    crops = truth.masks(np.arange(len(truth)))
    one_by_one = [geometry.on_labels(mask.to(torch.uint8)) == 1 for mask in paste(crops)]
    wanted = torch.stack(one_by_one) if one_by_one else torch.zeros(0, *geometry.size, dtype=torch.bool)
    assert torch.equal(paste(transform_masks(crops, geometry)), wanted)


@settings(max_examples=60, deadline=None)
@given(boxes(), geometries(), st.booleans())
def test_nothing_is_left_outside_and_masks_stay_in_their_boxes(found, geometry, masks):
    objects = transform_objects(read_ground_truth(found, masks), geometry)
    height, width = geometry.size
    assert (objects.boxes >= 0).all()
    assert (objects.boxes <= torch.tensor([width, height, width, height])).all()
    assert ((objects.boxes[:, 2:] - objects.boxes[:, :2]) >= 1).all()
    assert len(objects.labels) == len(objects.boxes)
    if masks:
        tight, there = tight_boxes(objects.masks)
        assert there.all()
        factor = geometry.resized[0] / geometry.window.height
        assert ((tight - objects.boxes).abs() <= 1 + max(1, factor)).all()
    assert (objects.crowds[:, 2:] > objects.crowds[:, :2]).all()


@settings(max_examples=40, deadline=None)
@given(boxes(), st.integers(0, 3), st.booleans(), st.booleans())
def test_boxes_of_moved_masks_are_moved_boxes_of_masks(found, turns, mirror, flip):
    crops = read_ground_truth(found).masks(np.arange(len(found)))
    geometry = whole(turns, mirror, flip)
    tight, there = tight_boxes(crops)
    again, still = tight_boxes(transform_masks(crops, geometry))
    assert torch.equal(there, still)
    assert torch.equal(geometry.on_boxes(tight), again)


@settings(max_examples=30, deadline=None)
@given(boxes(), st.sampled_from(["mirror", "flip"]))
def test_twice_mirrored_is_as_before(found, how):
    truth = read_ground_truth(found)
    geometry = whole(**{how: True})
    once = transform_objects(truth, geometry)
    back = transform_objects(
        GroundTruth(once.boxes.numpy(), once.labels.numpy(), once.crowds.numpy(), SIZE, lambda keep: once.masks),
        geometry,
    )
    torch.testing.assert_close(back.boxes, torch.from_numpy(truth.boxes))
    torch.testing.assert_close(back.crowds, torch.from_numpy(truth.crowds))
    assert torch.equal(paste(back.masks), paste(truth.masks(np.arange(len(truth)))))


@settings(max_examples=20, deadline=None)
@given(boxes())
def test_four_quarter_turns_are_none(found):
    truth = read_ground_truth(found)
    size, now = SIZE, truth
    for _ in range(4):
        objects = transform_objects(now, whole(1, size=size))
        size = size[::-1]
        now = GroundTruth(
            objects.boxes.numpy(), objects.labels.numpy(), objects.crowds.numpy(), size, lambda keep, o=objects: o.masks
        )
    torch.testing.assert_close(now.boxes, truth.boxes)
    assert torch.equal(paste(now.masks(None)), paste(truth.masks(np.arange(len(truth)))))


def test_an_object_stays_while_a_tenth_of_it_is_seen():
    truth = read_ground_truth([[0, 0, 20, 10]], masks=False)
    for left, kept in ((0, 1), (17, 1), (18, 1), (19, 0), (20, 0)):
        objects = transform_objects(truth, Geometry(Window(0, left, 20, 20), (20, 20)))
        assert len(objects) == kept, left
    assert transform_objects(truth, Geometry(Window(0, 18, 20, 20), (20, 20))).boxes.tolist() == [[0, 0, 2, 10]]
    assert len(transform_objects(truth, Geometry(Window(0, 18, 20, 20), (20, 20)), visible=0.2)) == 0
    assert len(transform_objects(truth, Geometry(Window(0, 0, 40, 40), (4, 4)), smallest=1.0)) == 1
    assert len(transform_objects(truth, Geometry(Window(0, 0, 40, 40), (2, 2)), smallest=1.0)) == 0


@pytest.mark.parametrize("masks", [None, lambda keep: crop_images(torch.ones(1, *SIZE, dtype=torch.bool))])
def test_an_object_larger_than_ten_crops_stays(masks):
    """All of the crop is object: of its box 1.5 % are left."""
    box = np.array([[-100, -200, 156, 40]], np.float32)
    truth = GroundTruth(box, np.zeros(1, np.int64), size=SIZE, masks=masks)
    view, strip = (Geometry(Window(top, 8, 30, 30), (30, 30)) for top in (4, 38))
    assert transform_objects(truth, view).boxes.tolist() == [[0, 0, 30, 30]]
    assert len(transform_objects(truth, view, covering=1.0, visible=0.2)) == 1
    assert len(transform_objects(truth, strip)) == 0  # 2 rows of 30
    assert len(transform_objects(truth, strip, covering=0.05)) == 1
    assert visible_objects(truth, strip).boxes.tolist() == [[0, 0, 30, 2]]  # evaluation does not share training's rule


def test_what_is_left_of_an_object_that_is_dropped_is_no_background():
    truth = GroundTruth(np.array([[0, 0, 20, 10]], np.float32), np.zeros(1, np.int64), size=SIZE)
    objects = transform_objects(truth, Geometry(Window(0, 19, 20, 20), (20, 20)))
    assert (len(objects), objects.crowds.tolist()) == (0, [[0, 0, 1, 10]])
    every = visible_objects(truth, Geometry(Window(0, 19, 20, 20), (20, 20)))
    assert (len(every), len(every.crowds)) == (1, 0)


def test_the_box_of_an_object_that_is_cut_is_that_of_what_is_left():
    corner = np.zeros((1, *SIZE), bool)
    corner[0, 0:20, 0:4] = True  # an L: to the right of the leg only its foot is left
    corner[0, 16:20, 0:30] = True
    crops = crop_images(torch.from_numpy(corner))
    truth = GroundTruth(
        np.array([[0, 0, 30, 20]], np.float32), np.zeros(1, np.int64), size=SIZE, masks=lambda keep: crops
    )
    objects = transform_objects(truth, Geometry(Window(0, 10, 40, 40), (40, 40)))
    assert objects.boxes.tolist() == [[0, 16, 20, 20]]
    assert (
        len(transform_objects(truth, Geometry(Window(0, 5, 15, 40), (15, 40)))) == 0
    )  # its box is seen, nothing of itself


@pytest.mark.parametrize("factor", [0.05, 0.3])
def test_objects_that_shrink_below_a_pixel_keep_one(factor):
    truth = read_ground_truth([[10.2, 10.2, 14.1, 13.9]])
    size = round(SIZE[0] * factor), round(SIZE[1] * factor)
    objects = transform_objects(truth, Geometry(Window(0, 0, *SIZE), size), smallest=0.0)
    assert len(objects) == 1
    assert int(objects.masks.pixels.sum()) >= 1
