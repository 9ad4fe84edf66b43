"""Objects of panoptic annotations: which pixels they have, what becomes of stuff, crowds and void; real files."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from made_panoptic import FIRST, SECOND, YAML, make_panoptic, panoptic, segment
from shared import DATA, needs_shared
from torchfpn.cli.main import main
from torchfpn.data.check import check
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import ObjectDataset
from torchfpn.data.labels.coco_panoptic import read_map
from torchfpn.data.sampler import Draw
from torchfpn.data.transforms import ObjectAugment
from torchfpn.errors import ConfigError, DataError
from torchfpn.io.formats import MAX_PIXELS
from torchfpn.ops.extents import extents
from torchfpn.ops.masks import paste


def samples_of(folder, **options):
    return ObjectDataset(read_dataset(folder), "train", **options)


def test_things_are_objects_and_their_pixels_are_those_of_their_id(tmp_path):
    samples = samples_of(make_panoptic(tmp_path))
    assert samples.dataset.names == ("cell", "dot")  # stuff is no class
    first, second = samples[0].objects, samples[1].objects
    assert first.boxes.tolist() == [[3, 2, 9, 10], [20, 10, 30, 20]]
    assert first.labels.tolist() == [0, 1]
    assert first.crowds.tolist() == [[0, 15, 8, 24]]
    np.testing.assert_array_equal(paste(first.masks).numpy(), [FIRST == 259, FIRST == 70000])
    assert second.labels.tolist() == [0]  # ids are of their image: 70000 is a dot in the other one
    np.testing.assert_array_equal(paste(second.masks).numpy(), [SECOND == 70000])
    assert samples.annotations.numbers[samples.annotations.rows(0)].tolist() == [259, 70000]
    assert samples.annotations.areas[samples.annotations.rows(0)].tolist() == [28, 100]


def test_stuff_and_void_are_kept_for_whoever_wants_them(tmp_path):
    annotations = samples_of(make_panoptic(tmp_path)).annotations
    found, segments = read_map(annotations, 0, MAX_PIXELS), annotations.segments
    np.testing.assert_array_equal(found.ids, FIRST)
    names = [segments.categories[kind].name for kind in segments.category[found.rows]]
    assert names == ["grass", "cell", "dot", "cell"]
    assert segments.things == (True, False, True)
    assert segments.crowd[found.rows].tolist() == [False, False, False, True]
    assert segments.areas[found.rows].tolist() == [(n == FIRST).sum() for n in (5, 259, 70000, 9)]
    assert found.windows[0].tolist() == [0, 1, 32, 24]
    assert found.problems == ()


def test_boxes_alone(tmp_path):
    folder = make_panoptic(tmp_path, yaml=YAML.replace("instance\n", "detection\n"))
    sample = samples_of(folder)[0]
    assert sample.objects.masks is None
    assert sample.objects.boxes.tolist() == [[3, 2, 9, 10], [20, 10, 30, 20]]


@pytest.mark.parametrize(
    ("classes", "labels"),
    [("[dot, cell]", [1, 0]), ("{3: Zelle, 7: Punkt}", [0, 1]), ("[cell]\nignore_index: 7", [0])],
)
def test_classes_are_found_among_the_things(tmp_path, classes, labels):
    samples = samples_of(make_panoptic(tmp_path, yaml=f"classes: {classes}\n{YAML}"))
    assert samples[0].objects.labels.tolist() == labels
    assert len(samples[0].objects.crowds) == 1
    (tmp_path / "dataset.yaml").write_text(f"classes: [cell, gras, dot]\n{YAML}")
    with pytest.raises(ConfigError, match=r'"gras" is no category of train/panoptic\.json'):
        read_dataset(tmp_path)


def test_the_folder_of_the_maps_may_be_named(tmp_path):
    folder = make_panoptic(tmp_path, yaml=YAML.replace("json}", "json, panoptic: maps}"))
    (folder / "train" / "panoptic").rename(folder / "maps")
    assert len(samples_of(folder)[0].objects) == 2
    (folder / "maps").rename(folder / "train" / "maps")
    text = "task: instance\nimages: '{split}/images'\nannotations: '{split}/panoptic.json'\npanoptic: '{split}/maps'\n"
    (folder / "dataset.yaml").write_text(text)
    assert read_dataset(folder).splits["train"].panoptic == "train/maps"
    assert len(samples_of(folder)[0].objects) == 2
    (folder / "dataset.yaml").write_text(YAML.replace("annotations: train/panoptic.json", "panoptic: train/maps"))
    with pytest.raises(ConfigError, match=r"splits.train.panoptic: 'train/maps'; .* beside `annotations`"):
        read_dataset(folder)


def test_augmented_samples_are_a_function_of_the_draw_and_samples_travel(tmp_path):
    augment = ObjectAugment(crop=(16, 16), scale=(0.8, 1.25), flip=0.5, turns=True)
    samples = samples_of(make_panoptic(tmp_path), augment=augment)
    again = pickle.loads(pickle.dumps(samples))
    for i in range(6):
        one, other = samples[Draw(i % 2, i)].objects, again[Draw(i % 2, i)].objects
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.masks.pixels, other.masks.pixels)


def test_check_counts_and_draws(tmp_path, capsys):
    folder = make_panoptic(tmp_path)
    report = check(read_dataset(folder))
    assert report.ok
    counts = report.splits[0].objects
    assert (counts.objects, counts.crowds, counts.images) == ((2, 1), 1, 2)
    assert main(["check", str(folder), "--sheet", str(tmp_path / "sheet.png")]) == 0
    assert "ok: 2 images, no problems" in capsys.readouterr().out


def test_an_image_of_nothing_but_void_has_no_objects(tmp_path):
    maps = (FIRST, np.zeros((24, 32), int))
    samples = samples_of(make_panoptic(tmp_path, panoptic(maps, ({5: 4, 259: 3, 70000: 7, 9: 3}, {})), maps=maps))
    assert samples[1].objects.boxes.shape == (0, 4)
    assert len(samples[1].objects.masks) == 0


def test_many_objects_in_one_image(tmp_path):
    side = 100
    rows, columns = np.mgrid[: 3 * side, : 3 * side]
    ids = np.where((rows % 3 == 2) | (columns % 3 == 2), 0, rows // 3 * side + columns // 3 + 1)
    kinds = dict.fromkeys(range(1, side * side + 1), 3)
    value = panoptic((ids,), ({},))
    value["annotations"][0]["segments_info"] = [
        {"id": n, "category_id": 3, "area": 4, "bbox": [(n - 1) % side * 3, (n - 1) // side * 3, 2, 2], "iscrowd": 0}
        for n in kinds
    ]
    objects = samples_of(make_panoptic(tmp_path, value, maps=(ids,)))[0].objects
    assert len(objects) == side * side
    assert objects.masks.pixels.all()
    assert len(objects.masks.pixels) == 4 * side * side


# -- laws --------------------------------------------------------------------------------------------------------------
@settings(max_examples=100, deadline=None)
@given(
    arrays.arrays(
        np.int32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.sampled_from([0, 0, 1, 2, 300, 2**24 - 1]),
    )
)
def test_extents_are_those_of_every_id_by_itself(values):
    found = extents(values)
    assert found.ids.tolist() == [n for n in np.unique(values).tolist() if n]
    for k, number in enumerate(found.ids):
        record = segment(values, number, 3)
        x, y, w, h = record["bbox"]
        assert found.windows[k].tolist() == [x, y, x + w, y + h]
        assert found.pixels[k] == record["area"]
        assert found.first[k] == np.flatnonzero(values.reshape(-1) == number)[0]


# -- real files --------------------------------------------------------------------------------------------------------
@needs_shared
def test_nuclei_are_the_same_in_panoptic_annotations_and_in_instances(tmp_path):
    text = "task: instance\nroot: {}\ngrey_as_color: true\nsplits: {{train: {{images: val/images, annotations: {}}}}}\n"
    sides = []
    for name in ("instances", "panoptic"):
        (tmp_path / name).with_suffix(".yaml").write_text(text.format(DATA / "nuclei-dsb2018", f"val/{name}.json"))
        sides.append(samples_of(tmp_path / f"{name}.yaml", cache=False))
    one, other = sides
    assert [pair.image for pair in one.pairs] == [pair.image for pair in other.pairs]
    assert one.dataset.names == other.dataset.names == ("nucleus",)
    total = 0
    for i in range(0, len(one), 3):
        mine, theirs = one.truth(i), other.truth(i)
        every = np.arange(len(mine))
        assert len(mine) == len(theirs)
        np.testing.assert_array_equal(mine.boxes, theirs.boxes)
        assert torch.equal(mine.masks(every).windows, theirs.masks(every).windows)
        assert torch.equal(mine.masks(every).pixels, theirs.masks(every).pixels)
        total += len(mine)
    assert total == 843  # of 3173


@needs_shared
def test_photographs_of_the_format_s_own_sample(tmp_path):
    root = DATA / "coco-panoptic-sample"
    text = f"task: instance\nroot: {root}\nsplits: {{train: {{images: images, annotations: panoptic.json}}}}\n"
    (tmp_path / "dataset.yaml").write_text(text)
    samples = samples_of(tmp_path)
    assert len(samples.dataset.classes) == 80  # of 133 categories
    assert [(len(s.objects), len(s.objects.crowds)) for s in samples] == [(14, 1), (26, 2)]
    segments = samples.annotations.segments
    for i in range(2):
        found = read_map(samples.annotations, i, MAX_PIXELS)
        assert found.problems == ()
        assert segments.areas[found.rows].sum() == (found.ids > 0).sum()


@needs_shared
def test_a_truth_of_panoptic_annotations_is_no_truth_of_coco_results(tmp_path, capsys):
    (tmp_path / "results.json").write_text("[]")
    truth = DATA / "coco-panoptic-sample" / "panoptic.json"
    assert main(["evaluate", str(tmp_path / "results.json"), str(truth)]) == 2
    assert (
        "panoptic.json: panoptic annotations, whose masks are images; expected boxes or masks"
        in capsys.readouterr().err
    )


def test_a_record_without_segments_among_others_is_named(tmp_path):
    value = panoptic()
    del value["annotations"][0]["segments_info"]
    with pytest.raises(DataError, match=r"annotations\[0\].segments_info: None; expected a list of segments"):
        samples_of(make_panoptic(tmp_path, value))
