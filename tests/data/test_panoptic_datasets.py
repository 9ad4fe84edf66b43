"""Panoptic datasets: things and stuff from every kind of label, one segment for each pixel; samples and batches."""

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from made_data import picture, write_png, write_tiff
from made_maps import box, write_geojson, write_map
from made_objects import record
from made_panoptic import (
    COMPOSED,
    FIRST,
    JSON,
    ONE,
    SIZE,
    WHOLE,
    coco_of,
    make_composed,
    make_panoptic,
    make_polygon_map,
    panoptic,
    rectangles,
)
from shared import DATA, needs_shared
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import ObjectDataset
from torchfpn.data.labels.ground_truth import truth_of_segments
from torchfpn.data.labels.segments import SegmentMap
from torchfpn.data.sample import collate
from torchfpn.data.sampler import Draw
from torchfpn.data.transforms import Geometry, ObjectAugment, Resize, semantic_of, transform_masks, visible_objects
from torchfpn.errors import ConfigError, DataError
from torchfpn.geo.window import Window
from torchfpn.metrics.panoptic import PanopticQuality
from torchfpn.ops.masks import paste
from torchfpn.recipe import IGNORE
from torchfpn.types import PanopticTargets

CELL, DOT, GRASS, WATER = range(4)  # indices: things first


def samples_of(folder, **options):
    return ObjectDataset(read_dataset(folder), "train", **options)


def truth_of(folder):
    return samples_of(folder, cache=False).truth(0)


# -- dataset.yaml ------------------------------------------------------------------------------------------------------
def test_things_come_first_and_keep_their_values(tmp_path):
    (tmp_path / "dataset.yaml").write_text(COMPOSED.replace("things: [cell, dot]", "things: [dot, cell]"))
    dataset = read_dataset(tmp_path)
    assert (dataset.things, dataset.stuff, dataset.names) == (
        ("cell", "dot"),
        ("grass", "water"),
        ("cell", "dot", "grass", "water"),
    )
    assert [(c.id, c.thing) for c in dataset.classes] == [(2, True), (3, True), (0, False), (1, False)]
    assert (dataset.has_objects, dataset.has_masks, dataset.is_panoptic) == (True, True, True)
    assert (dataset.ignored, dataset.overlaps, dataset.background) == ((255,), "smaller", None)
    for text in ("stuff: [grass, water]", "things: [cell, dot]\nstuff: [water, grass]"):
        (tmp_path / "dataset.yaml").write_text(COMPOSED.replace("things: [cell, dot]", text))
        assert read_dataset(tmp_path).classes == dataset.classes
    marked = "classes: [grass, water, {name: cell, id: 2, thing: true}, {name: dot, id: 3, thing: true}]"
    (tmp_path / "dataset.yaml").write_text(f"{marked}\n" + COMPOSED.split("\n", 3)[3] + "task: panoptic\n")
    assert read_dataset(tmp_path).things == ("cell", "dot")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("things: [cell, dot]\n", "", "things: no things; name the classes whose objects are told apart"),
        ("[cell, dot]\n", "[cell, dots]\n", "things: 'dots'; expected names of classes; did you mean \"dot\"?"),
        ("[cell, dot]\n", "[]\n", "things: no things"),
        ("[cell, dot]\n", "[cell, dot, grass, water]\n", "things: things that are all classes, so no stuff"),
        ("[cell, dot]\n", "[cell]\nstuff: [grass, dot]\n", 'stuff: "water" in neither things nor stuff'),
        ("[cell, dot]\n", "[cell]\nstuff: [grass, dot, cell]\n", 'stuff: "water" in neither'),
        (
            "[cell, dot]\n",
            "[cell]\nstuff: [grass, water, dot, cell]\n",
            'stuff: "cell" in things and in stuff; expected the classes that are not in things',
        ),
        (", objects: train/objects", "", "splits.train.objects: nothing; expected objects beside `labels`"),
        (
            "labels: train/labels, ",
            "",
            "splits.train.labels: nothing; expected labels beside `objects`; name masks or polygons of the stuff, or",
        ),
        ("splits:", "background: sky\nsplits:", "background: 'sky'; expected the name or the value of one of the"),
        ("splits:", "overlaps: first\nsplits:", "overlaps: 'first'; expected one of smaller, last"),
        ("splits:", "polygons: {background: grass, field: a}\nsplits:", "polygons.background: 'grass'; expected nothi"),
        ("splits:", "object_polygons: {border: 1, field: a}\nsplits:", "object_polygons.border: 1; expected nothing"),
        ("splits:", "labels_are: components\nsplits:", "labels_are: 'components'; expected one of values, colors"),
        ("task: panoptic", "task: semantic", "things: ['cell', 'dot']; expected nothing with `task: semantic`"),
    ],
)
def test_mistakes_are_told_by_their_key(tmp_path, old, new, said):
    (tmp_path / "dataset.yaml").write_text(COMPOSED.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        read_dataset(tmp_path)
    assert said in str(caught.value)


def test_keys_of_files_of_objects_need_such_files(tmp_path):
    folder = make_panoptic(tmp_path, yaml=WHOLE + "background: grass\n")
    with pytest.raises(ConfigError, match="background: 'grass'; expected nothing without `objects`"):
        read_dataset(folder)
    (folder / "dataset.yaml").write_text("images: a\nobjects: b\nclasses: [a]\ntask: instance\n")
    with pytest.raises(ConfigError, match=r"splits.all.objects: 'b'; expected nothing with `task: instance`; name"):
        read_dataset(folder)


def test_files_of_all_splits_by_one_pattern(tmp_path):
    make_composed(tmp_path, np.zeros(SIZE), rectangles((1, 1, 5, 5)))
    head = ONE.partition("splits:")[0]
    pattern = "images: '{split}/images'\nlabels: '{split}/labels'\nobjects: '{split}/objects'\n"
    (tmp_path / "dataset.yaml").write_text(head + pattern)
    assert read_dataset(tmp_path).splits["train"].objects == "train/objects"
    (tmp_path / "dataset.yaml").write_text(head + pattern + "splits: {train: }\n")
    assert len(samples_of(tmp_path)[0].objects) == 1
    (tmp_path / "train" / "objects" / "a0.png").unlink()
    problems = read_dataset(tmp_path).list_pairs("train")[1]
    assert [problem.line for problem in problems] == ["image without file of objects"]


# -- COCO panoptic -----------------------------------------------------------------------------------------------------
def test_every_pixel_of_panoptic_annotations_has_its_class(tmp_path):
    samples = samples_of(make_panoptic(tmp_path, yaml=WHOLE))
    assert (samples.dataset.things, samples.dataset.stuff) == (("cell", "dot"), ("grass",))
    wanted = np.full(SIZE, IGNORE)
    for number, label in ((5, 2), (259, 0), (70000, 1), (9, 0)):
        wanted[number == FIRST] = label
    sample = samples[0]
    np.testing.assert_array_equal(sample.semantic.numpy(), wanted)
    assert sample.objects.boxes.tolist() == [[3, 2, 9, 10], [20, 10, 30, 20]]
    assert (sample.objects.labels.tolist(), sample.objects.crowds.tolist()) == ([0, 1], [[0, 15, 8, 24]])
    segments = sample.segments
    np.testing.assert_array_equal(segments.ids, FIRST)
    assert segments.numbers.tolist() == [5, 259, 70000, 9]
    assert segments.labels.tolist() == [2, 0, 1, 0]
    assert segments.crowds.tolist() == [False, False, False, True]
    assert segments.areas.tolist() == [(n == FIRST).sum() for n in (5, 259, 70000, 9)]
    assert samples.annotations.numbers[samples.annotations.rows(0)].tolist() == [259, 70000]  # those of `objects`


def test_classes_that_are_listed(tmp_path):
    folder = make_panoptic(tmp_path, yaml=f"classes: [grass, dot, cell]\n{WHOLE}")
    assert read_dataset(folder).names == ("dot", "cell", "grass")
    assert truth_of(folder).segments.labels.tolist() == [2, 1, 0, 1]
    (folder / "dataset.yaml").write_text(f"classes: [grass, dot]\nignore_index: 3\n{WHOLE}")
    truth = truth_of(folder)
    assert truth.segments.labels.tolist() == [1, 0]
    assert (truth.semantic[np.isin(FIRST, (259, 9))] == IGNORE).all()  # a category that is left out is void
    (folder / "dataset.yaml").write_text(f"classes: [grass, dot]\n{WHOLE}")
    with pytest.raises(DataError, match=r'categories\[0\]: "cell" is no class of the dataset'):
        samples_of(folder)
    (folder / "dataset.yaml").write_text(f"things: [cell, grass]\n{WHOLE}")
    with pytest.raises(DataError, match=r'categories\[1\].isthing: "grass" is stuff here, a thing in the dataset'):
        samples_of(folder)


def test_bad_segments_are_void_with_fix(tmp_path):
    value = panoptic()
    value["annotations"][0]["segments_info"][0]["area"] += 1  # grass
    folder = make_panoptic(tmp_path, value, yaml=WHOLE)
    with pytest.raises(DataError, match=r"segments_info\[0\].area: "):
        truth_of(folder)
    (folder / "dataset.yaml").write_text(WHOLE + "fix: true\n")
    truth = truth_of(folder)
    assert truth.dropped == 1
    assert truth.segments.numbers.tolist() == [259, 70000, 9]
    assert (truth.segments.ids[FIRST == 5] == 0).all()


def test_instances_are_no_panoptic_annotations(tmp_path):
    folder = make_panoptic(tmp_path, yaml=WHOLE)
    value = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    (folder / "train" / "panoptic.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match="no category says whether it is a thing"):
        read_dataset(folder)


# -- labels of pixels, and files of objects ----------------------------------------------------------------------------
def test_numbers_take_their_class_from_the_labels_below(tmp_path):
    target = np.zeros(SIZE, int)
    target[12:] = 1
    target[2:8, 2:8], target[14:20, 10:20], target[2:6, 20:30] = 2, 3, 2
    target[0] = 255
    numbers = rectangles((2, 2, 8, 8), (10, 14, 21, 20))  # one pixel wider than what is labelled; none at the right
    truth = truth_of(make_composed(tmp_path, target, numbers))
    assert (truth.labels.tolist(), truth.boxes.tolist()) == ([CELL, DOT], [[2, 2, 8, 8], [10, 14, 21, 20]])
    wanted = np.full(SIZE, GRASS)
    wanted[12:], wanted[0], wanted[2:6, 20:30] = WATER, IGNORE, IGNORE  # a thing without an object is unknown
    wanted[2:8, 2:8], wanted[14:20, 10:21] = CELL, DOT
    np.testing.assert_array_equal(truth.semantic, wanted)
    assert truth.segments.numbers.tolist() == [1, 2, 3, 4]
    make_composed(tmp_path, target, rectangles((2, 2, 8, 8), (22, 22, 24, 24)))
    with pytest.raises(DataError, match=r"the object with the box \[22, 22, 24, 24\] has no pixel of a thing in"):
        truth_of(tmp_path)


def test_connected_areas_are_objects_where_the_file_says_so(tmp_path):
    text = ONE.replace("splits:", "objects_are: components\nsplits:")
    folder = make_composed(tmp_path, np.zeros(SIZE), 255 * (rectangles((2, 2, 8, 8), (10, 14, 21, 20)) > 0), yaml=text)
    assert truth_of(folder).boxes.tolist() == [[2, 2, 8, 8], [10, 14, 21, 20]]


def test_a_coco_file_of_objects_lies_over_the_labels(tmp_path):
    runs = {"size": list(SIZE), "counts": [0, 24 * 4, 24 * 28]}  # the four columns at the left
    crowd = record(3, (0, 0, 4, 24), iscrowd=1, segmentation=runs)
    stuff = record(4, (20, 20, 30, 24), category=9)
    value = coco_of(record(1, (2, 2, 12, 12)), record(2, (4, 4, 8, 8), category=7), crowd, stuff)
    truth = truth_of(make_composed(tmp_path, np.ones(SIZE), value, yaml=JSON))
    wanted = np.full(SIZE, WATER)
    wanted[:, :4] = CELL  # the crowd
    wanted[2:12, 2:12] = CELL
    wanted[4:8, 4:8] = DOT
    np.testing.assert_array_equal(truth.semantic, wanted)
    assert (truth.labels.tolist(), truth.crowds.tolist()) == ([CELL, DOT], [[0, 0, 4, 24]])
    assert truth.segments.crowds.tolist() == [False, False, True, False]
    assert (truth.overlapping, truth.hidden) == (16, 0)
    np.testing.assert_array_equal(truth.semantic == CELL, np.isin(truth.segments.ids, [1, 3]))
    text = (tmp_path / "dataset.yaml").read_text()
    (tmp_path / "dataset.yaml").write_text(text + "crowds: objects\n")
    with pytest.raises(ConfigError, match="crowds: 'objects'; expected nothing without `annotations`"):
        read_dataset(tmp_path)


def test_of_two_objects_the_smaller_one_is_on_top_or_the_last(tmp_path):
    small, large = record(1, (4, 4, 8, 8)), record(2, (2, 2, 12, 12))
    folder = make_composed(tmp_path, np.zeros(SIZE), coco_of(small, large), yaml=JSON)
    truth = truth_of(folder)
    assert truth.segments.areas.tolist()[:2] == [16, 84]
    assert (truth.overlapping, truth.hidden) == (16, 0)
    (folder / "dataset.yaml").write_text(JSON + "overlaps: last\n")
    truth = truth_of(folder)
    assert (truth.overlapping, truth.hidden) == (16, 1)
    assert truth.segments.numbers.tolist() == [2, 3]
    assert truth.boxes.tolist() == [[2, 2, 12, 12]]
    equal = coco_of(small, record(2, (6, 4, 10, 8)))  # of equal ones the last one is on top
    assert truth_of(make_composed(tmp_path, np.zeros(SIZE), equal, yaml=JSON)).segments.areas.tolist()[:2] == [8, 16]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v["images"][0].update(file_name="b.png"), r"images\[\].file_name: no record of a0.png"),
        (lambda v: v["images"][0].update(width=30), "a0.png: 32 x 24 pixels, 30 x 24 in objects.json"),
        (lambda v: v["annotations"][0].update(bbox=[1, 2]), r"annotations\[0\].bbox: \[1, 2\]; expected"),
    ],
)
def test_coco_files_of_objects_that_do_not_fit(tmp_path, change, said):
    value = coco_of(record(1, (2, 2, 12, 12)))
    change(value)
    with pytest.raises(DataError, match=said):
        truth_of(make_composed(tmp_path, np.zeros(SIZE), value, yaml=JSON))


def test_polygons_of_stuff_and_of_things(tmp_path):
    truth = truth_of(make_polygon_map(tmp_path))
    wanted = np.full((40, 50), IGNORE)
    wanted[:30, :30], wanted[20:, 20:] = GRASS, WATER
    wanted[5:17, 5:17], wanted[8:12, 8:12] = CELL, DOT
    wanted[30:36, 30:36] = wanted[2:22, 40:] = CELL
    wanted[35, 20] = DOT  # smaller than a pixel
    np.testing.assert_array_equal(truth.semantic, wanted)
    assert (truth.labels.tolist(), truth.hidden) == ([CELL, DOT, CELL, CELL, DOT], 0)  # none of stuff
    np.testing.assert_allclose(truth.boxes[3], [40, 2, 60, 22])  # it reaches beyond the image
    filled = truth_of(make_polygon_map(tmp_path, more="background: water\n"))
    np.testing.assert_array_equal(filled.semantic, np.where(wanted == IGNORE, WATER, wanted))


def test_polygons_of_one_thing_on_one_stuff(tmp_path):
    folder = make_polygon_map(tmp_path)
    write_geojson(folder / "things.geojson", [box(5, 5, 12), box(8, 8, 4)], field="height")
    (folder / "dataset.yaml").write_text(
        "task: panoptic\nclasses: [ground, roof]\nthings: [roof]\nbackground: ground\n"
        "splits: {train: {images: images, objects: things.geojson}}\n"
    )
    truth = truth_of(folder)
    assert (truth.segments.labels.tolist(), truth.segments.areas.tolist()) == ([0, 0, 1], [128, 16, 1856])


def test_features_that_are_not_labelled_are_void_and_crowds(tmp_path):
    folder = make_polygon_map(tmp_path, more="ignore_index: [9, 255]\n")
    things = [box(5, 5, 12), box(8, 8, 4)]
    write_geojson(folder / "things.geojson", things, [9, "dot"])
    truth = truth_of(folder)
    assert (truth.semantic[5:17, 5:17] == IGNORE).sum() == 128
    assert (truth.labels.tolist(), truth.crowds.tolist()) == ([DOT], [[5, 5, 17, 17]])
    assert truth.hidden == 0


@pytest.mark.parametrize("labels", ["stuff.geojson", "mask.tif"])
def test_windows_of_a_scene_show_what_the_whole_shows(tmp_path, labels):
    folder = make_polygon_map(tmp_path, scene_pixels=100)
    mask = np.where(truth_of(make_polygon_map(tmp_path)).semantic == GRASS, 0, 1).astype(np.uint8)
    write_map(folder / "mask.tif", mask[None], tiled=True, blockxsize=16, blockysize=16)
    text = (folder / "dataset.yaml").read_text().replace("stuff.geojson", labels)
    (folder / "dataset.yaml").write_text(text)
    (folder / "scene.yaml").write_text(text.replace(f"scene_pixels: {2**22}", "scene_pixels: 100"))
    whole, scenes = samples_of(folder), samples_of(folder / "scene.yaml")
    assert list(scenes.scenes) == [0]
    np.testing.assert_array_equal(scenes.truth(0).semantic, whole.truth(0).semantic)
    np.testing.assert_array_equal(scenes[0].segments.ids, whole[0].segments.ids)  # one window
    augment = ObjectAugment(crop=(16, 24), scale=(0.7, 1.4), flip=0.5, turns=True)
    crops, views = (ObjectDataset(read_dataset(f), "train", augment=augment) for f in (folder / "scene.yaml", folder))
    for i in range(12):
        one, other = crops[Draw(0, i)], views[Draw(0, i)]
        assert torch.equal(one.semantic, other.semantic)
        assert torch.equal(one.objects.labels, other.objects.labels)
        torch.testing.assert_close(one.objects.boxes, other.objects.boxes)
        torch.testing.assert_close(one.objects.crowds, other.objects.crowds)
        assert torch.equal(paste(one.objects.masks), paste(other.objects.masks))


# -- samples and batches -----------------------------------------------------------------------------------------------
def test_a_batch_has_both_kinds_of_targets(tmp_path):
    samples = samples_of(make_panoptic(tmp_path, yaml=WHOLE))
    first = samples_of(tmp_path, resize=Resize(longest=16))[0]
    assert (first.image.shape, first.semantic.shape, first.segments) == ((3, 12, 16), (12, 16), None)
    batch = collate([first, samples[1]])
    assert isinstance(batch.targets, PanopticTargets)
    assert batch.targets.semantic.dtype == torch.int64
    assert batch.targets.semantic.shape == (2, *SIZE)
    assert (batch.targets.semantic[0, 12:] == IGNORE).all()
    assert [len(objects) for objects in batch.targets.objects] == [2, 1]
    assert torch.equal(batch.to("cpu").targets.semantic[1], samples[1].semantic)
    assert batch.targets.segments is None  # one of them is resized
    whole = collate([samples[0], samples[1]]).to("cpu").targets
    assert [segments.numbers.tolist() for segments in whole.segments] == [[5, 259, 70000, 9], [70000]]
    quality = PanopticQuality(samples.dataset.things, samples.dataset.stuff)
    for segments in whole.segments:
        quality.update(segments, segments)
    assert quality.compute().pq == 1


def test_pixels_without_data_have_no_class_and_no_segment(tmp_path):
    folder = make_composed(tmp_path, np.zeros(SIZE), rectangles((2, 2, 8, 8)), yaml=ONE)
    image = np.concatenate([picture(0, SIZE), np.full((*SIZE, 1), 255, np.uint8)], -1)
    image[:5, :, 3] = 0
    write_png(folder / "train" / "images" / "a0.png", image)
    sample = samples_of(folder)[0]
    assert (sample.semantic[:5] == IGNORE).all()
    assert (sample.semantic[5:] != IGNORE).all()
    assert (sample.segments.ids[:5] == 0).all()
    assert sample.segments.areas.tolist() == [18, 19 * 32 - 18]
    assert sample.objects.boxes.tolist() == [[2, 2, 8, 8]]


def test_augmented_samples_are_a_function_of_the_draw_and_samples_travel(tmp_path):
    augment = ObjectAugment(crop=(16, 16), scale=(0.8, 1.25), flip=0.5, turns=True)
    samples = samples_of(make_panoptic(tmp_path, yaml=WHOLE), augment=augment)
    again = pickle.loads(pickle.dumps(samples))
    seen = [samples[Draw(i % 2, i)] for i in range(8)]
    for i, one in enumerate(seen):
        other = again[Draw(i % 2, i)]
        assert torch.equal(one.semantic, other.semantic)
        assert torch.equal(one.objects.boxes, other.objects.boxes)
        assert one.segments is None
    assert not torch.equal(seen[0].semantic, seen[2].semantic)


# -- laws --------------------------------------------------------------------------------------------------------------
@st.composite
def segment_maps(draw):
    """Blobs of up to six ids in a grid of cells, some of them void; classes 0 and 1 are things."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    cells = draw(st.lists(st.integers(0, 6), min_size=rows * columns, max_size=rows * columns))
    ids = np.array(cells, np.int32).reshape(rows, columns).repeat(draw(st.integers(1, 7)), 0).repeat(4, 1)
    labels = np.array(draw(st.lists(st.integers(0, 3), min_size=6, max_size=6)), np.int64)
    return SegmentMap.of(ids, np.arange(1, 7), labels)


@st.composite
def geometries(draw, size):
    height, width = draw(st.integers(1, size[0] + 4)), draw(st.integers(1, size[1] + 4))
    top, left = draw(st.integers(-3, size[0] - 1)), draw(st.integers(-3, size[1] - 1))
    factor = draw(st.sampled_from([0.3, 0.5, 1.0, 1.0, 1.7]))
    shape = max(1, round(height * factor)), max(1, round(width * factor))
    turns = draw(st.integers(0, 3))
    shape = shape if turns % 2 == 0 else shape[::-1]
    return Geometry(Window(top, left, height, width), shape, turns, draw(st.booleans()), draw(st.booleans()))


@settings(max_examples=150, deadline=None)
@given(st.data(), segment_maps())
def test_pixels_of_things_are_those_of_the_masks_wherever_the_image_goes(data, segments):
    geometry = data.draw(geometries(segments.ids.shape))
    truth = truth_of_segments(segments, 2)
    semantic = semantic_of(truth, geometry, torch.zeros(3, *geometry.size))
    assert torch.equal(semantic, geometry.on_labels(torch.from_numpy(segments.semantic)))
    moved = paste(transform_masks(truth.masks(np.arange(len(truth))), geometry))
    objects = visible_objects(truth, geometry)
    masks, labels = paste(objects.masks), torch.from_numpy(truth.labels)
    for label in (0, 1):
        shown, seen = semantic == label, masks[objects.labels == label].any(0)
        assert torch.equal(moved[labels == label].any(0), shown)
        added = seen & ~shown  # an object without a pixel gets the one at the centre of its box
        assert added.sum() <= (masks[objects.labels == label].sum((1, 2)) == 1).sum()
        if geometry.resized[0] >= geometry.window.height and geometry.resized[1] >= geometry.window.width:
            assert not (shown & ~seen).any()  # of objects that shrink, a part of less than a pixel is left out


@settings(max_examples=100, deadline=None)
@given(segment_maps())
def test_segments_say_what_the_pixels_show(segments):
    assert (segments.semantic == IGNORE).sum() == (segments.ids == 0).sum()
    assert segments.areas.sum() == (segments.ids != 0).sum()
    for number, label, area in zip(segments.numbers, segments.labels, segments.areas, strict=True):
        assert area == (segments.ids == number).sum() > 0
        assert (segments.semantic[segments.ids == number] == label).all()
    valid = segments.ids % 2 == 0
    kept = segments.where(valid)
    np.testing.assert_array_equal(kept.semantic, np.where(valid, segments.semantic, IGNORE))
    assert kept.numbers.tolist() == [n for n in segments.numbers if n % 2 == 0]


# -- nothing -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ids", "kinds", "things", "stuff"),
    [
        (np.full(SIZE, 5), {5: 4}, 0, 1),
        (np.full(SIZE, 5), {5: 3}, 1, 0),
        (np.zeros(SIZE, int), {}, 0, 0),
        (np.ones((1, 1), int), {1: 3}, 1, 0),
        (np.ones((1, 1), int), {1: 4}, 0, 1),
        (np.zeros((1, 1), int), {}, 0, 0),
    ],
)
@pytest.mark.parametrize("augment", [None, ObjectAugment(crop=(8, 8), scale=(0.5, 2), turns=True)])
def test_images_without_things_without_stuff_without_anything(tmp_path, ids, kinds, things, stuff, augment):
    maps, kinds = (ids, FIRST), (kinds, {5: 4, 259: 3, 70000: 7, 9: 3})
    sample = samples_of(make_panoptic(tmp_path, panoptic(maps, kinds), maps=maps, yaml=WHOLE), augment=augment)[0]
    assert len(sample.objects) == len(sample.objects.masks) == things
    assert int((sample.semantic == 2).any()) == stuff
    assert (sample.semantic == IGNORE).all() == (things + stuff == 0)
    assert collate([sample]).targets.semantic.shape == (1, *sample.image.shape[1:])


def test_no_object_in_any_file(tmp_path):
    truth = truth_of(make_composed(tmp_path, np.zeros(SIZE), np.zeros(SIZE)))
    assert (len(truth), truth.segments.labels.tolist()) == (0, [GRASS])
    truth = truth_of(make_composed(tmp_path, np.full(SIZE, 255), coco_of(), yaml=JSON))
    assert (len(truth), len(truth.segments.numbers)) == (0, 0)
    truth = truth_of(make_composed(tmp_path, np.full(SIZE, 255), np.full(SIZE, 9), yaml=ONE))
    assert (truth.segments.numbers.tolist(), truth.semantic.max()) == ([1], 0)


def test_more_segments_than_16_bits_can_number(tmp_path):
    side = 260
    folder = make_composed(tmp_path, np.zeros((side, side)), np.zeros((side, side)), yaml=ONE)
    numbers = np.arange(1, side * side + 1, dtype=np.uint32).reshape(1, side, side)
    (folder / "train" / "objects" / "a0.png").unlink()
    write_tiff(folder / "train" / "objects" / "a0.tif", numbers)
    truth = truth_of(folder)
    assert len(truth) == side * side > 2**16
    np.testing.assert_array_equal(truth.segments.ids, numbers[0])


# -- real files --------------------------------------------------------------------------------------------------------
@needs_shared
def test_nuclei_are_the_same_from_three_kinds_of_labels(tmp_path):
    head = f"task: panoptic\nroot: {DATA / 'nuclei-dsb2018'}\ngrey_as_color: true\n"
    classes = "classes: [nucleus, background]\nthings: [nucleus]\n"
    sources = {
        "annotations: val/panoptic.json": head,
        "objects: val/instances.json": f"{head}{classes}background: background\n",
        "objects: val/instances": f"{head}{classes}background: background\n",
    }
    sides = []
    for i, (source, text) in enumerate(sources.items()):
        (tmp_path / f"{i}.yaml").write_text(f"{text}splits: {{train: {{images: val/images, {source}}}}}\n")
        samples = samples_of(tmp_path / f"{i}.yaml", cache=False)
        sides.append((samples, {pair.image.name: k for k, pair in enumerate(samples.pairs)}))
    assert all(samples.dataset.names == ("nucleus", "background") for samples, _ in sides)
    for name in sorted(sides[0][1])[::5]:
        first, *others = (samples.truth(places[name]) for samples, places in sides)
        for other in others:
            np.testing.assert_array_equal(first.semantic, other.semantic)
            np.testing.assert_array_equal(first.boxes, other.boxes)
            assert sorted(first.segments.areas.tolist()) == sorted(other.segments.areas.tolist())


@needs_shared
def test_photographs_of_the_format_s_own_sample(tmp_path):
    text = WHOLE.replace("train/images", "images").replace("train/pan", "pan")
    (tmp_path / "dataset.yaml").write_text(f"root: {DATA / 'coco-panoptic-sample'}\n{text}")
    samples = samples_of(tmp_path)
    assert (len(samples.dataset.things), len(samples.dataset.stuff)) == (80, 53)
    records = json.loads((DATA / "coco-panoptic-sample" / "panoptic.json").read_text())["annotations"]
    assert [(len(s.objects), len(s.objects.crowds)) for s in samples] == [(14, 1), (26, 2)]
    for sample, record_of in zip(samples, records, strict=True):
        wanted = [(one["id"], one["area"], bool(one["iscrowd"])) for one in record_of["segments_info"]]
        found = sample.segments
        assert list(zip(found.numbers, found.areas, found.crowds, strict=True)) == wanted
        assert (sample.semantic == IGNORE).sum() == (sample.segments.ids == 0).sum()


@needs_shared
def test_roofs_on_the_ground(tmp_path):
    (tmp_path / "dataset.yaml").write_text(
        f"task: panoptic\nroot: {DATA / 'buildings-banepa'}\nclasses: [building, ground]\nthings: [building]\n"
        "background: ground\ntiles: 'OAM-{x}-{y}-{z}'\n"
        "splits: {train: {images: val/images, objects: val/buildings.geojson}}\n"
    )
    truths = [samples_of(tmp_path).truth(i) for i in range(8)]
    assert sum(map(len, truths)) == 328
    assert all((truth.semantic != IGNORE).all() for truth in truths)
    assert sum(truth.hidden for truth in truths) <= 8
