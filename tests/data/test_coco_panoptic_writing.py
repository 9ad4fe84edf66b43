"""COCO panoptic annotations written: read back they are the same, and they appear whole or not at all."""

import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from shared import DATA, needs_shared
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import ObjectDataset
from torchfpn.data.labels.coco_panoptic_writing import PanopticCategory, coco_panoptic
from torchfpn.data.labels.segments import SegmentMap
from torchfpn.errors import ConfigError, DataError, WriteError
from torchfpn.io.segment_png import read_segment_png, write_segment_png
from torchfpn.metrics import panoptic_quality
from torchfpn.types import Panoptic, Segment

CATEGORIES = [PanopticCategory(5, "cat", True, (1, 2, 3)), PanopticCategory(9, "gräß", False)]


def segments(ids, labels, crowds=None):
    """labels: {id: class}."""
    numbers, kinds = (np.array(list(each), np.int64) for each in (labels, labels.values()))
    return SegmentMap.of(np.asarray(ids, np.int32), numbers, kinds, crowds)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_files_are_as_the_format_says(tmp_path):
    ids = [[300, 300, 0], [7, 70_000, 70_000]]
    with coco_panoptic(tmp_path / "out.json", tmp_path / "pngs", CATEGORIES) as out:
        out.add(4, "a/b.jpg", segments(ids, {300: 0, 70_000: 1, 7: 0}, np.array([False, False, True])))
        assert not (tmp_path / "pngs" / "a" / "b.png").exists()  # nothing is there before everything is
    assert files(tmp_path) == ["out.json", "pngs/a/b.png"]
    assert json.loads((tmp_path / "out.json").read_text()) == {
        "images": [{"id": 4, "file_name": "a/b.jpg", "height": 2, "width": 3}],
        "annotations": [
            {
                "image_id": 4,
                "file_name": "a/b.png",
                "segments_info": [
                    {"id": 300, "category_id": 5, "area": 2, "bbox": [0, 0, 2, 1], "iscrowd": 0},
                    {"id": 70000, "category_id": 9, "area": 2, "bbox": [1, 1, 2, 1], "iscrowd": 0},
                    {"id": 7, "category_id": 5, "area": 1, "bbox": [0, 1, 1, 1], "iscrowd": 1},
                ],
            }
        ],
        "categories": [
            {"id": 5, "name": "cat", "isthing": 1, "color": [1, 2, 3]},
            {"id": 9, "name": "gräß", "isthing": 0},
        ],
    }
    pixels = np.array(Image.open(tmp_path / "pngs" / "a" / "b.png"))
    assert pixels[1, 1].tolist() == [70_000 % 256, 70_000 // 256 % 256, 1]
    assert (pixels @ [1, 256, 65536]).tolist() == ids


def test_results_are_written_with_their_scores_and_evaluate_to_one(tmp_path):
    found = Panoptic(
        torch.tensor([[1, 1, 2], [0, 2, 2]], dtype=torch.int32),
        [Segment(1, 0, True, 0.987654321, 2, (0, 0, 2, 1)), Segment(2, 1, False, 0.5, 3, (1, 0, 3, 2))],
    )
    with coco_panoptic(tmp_path / "out.json", tmp_path, CATEGORIES) as out:
        out.add_result(1, "a.tif", found)
        out.add_result(2, "b.tif", Panoptic(torch.zeros(1, 1, dtype=torch.int32), []))
    records = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert [one["score"] for one in records[0]["segments_info"]] == [0.987654, 0.5]
    assert records[1]["segments_info"] == []
    side = tmp_path / "out.json", tmp_path
    assert panoptic_quality(*side, *side).pq == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=arrays.arrays(
        np.int32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.sampled_from([0, 1, 2, 255, 256, 65_535, 65_536, 2**24 - 1]),
    )
)
def test_ids_come_back(tmp_path, ids):
    write_segment_png(tmp_path / "a.png", ids)
    back = read_segment_png(tmp_path / "a.png")
    assert back.dtype == np.int32
    np.testing.assert_array_equal(back, ids)
    for kind in (np.uint32, np.int64):
        write_segment_png(tmp_path / "a.png", ids.astype(kind)[:, ::-1])
        np.testing.assert_array_equal(read_segment_png(tmp_path / "a.png"), ids[:, ::-1])


@needs_shared
def test_the_sample_of_the_format_comes_back_identical(tmp_path):
    root = DATA / "coco-panoptic-sample"
    text = f"task: panoptic\nroot: {root}\nsplits: {{train: {{images: images, annotations: panoptic.json}}}}\n"
    (tmp_path / "dataset.yaml").write_text(text)
    samples = ObjectDataset(read_dataset(tmp_path), "train")
    value = json.loads((root / "panoptic.json").read_text())
    categories = {one["id"]: one for one in value["categories"]}
    names = {one["name"]: one for one in value["categories"]}
    classes = [names[name] for name in samples.dataset.names]
    with coco_panoptic(
        tmp_path / "out.json",
        tmp_path / "out",
        [PanopticCategory(one["id"], one["name"], bool(one["isthing"])) for one in classes],
    ) as out:
        for i, sample in enumerate(samples):
            image = value["images"][i]
            assert sample.name.endswith(image["file_name"])
            out.add(image["id"], image["file_name"], sample.segments)
    written = json.loads((tmp_path / "out.json").read_text())
    assert {one["id"]: (one["name"], one["isthing"]) for one in written["categories"]} == {
        number: (one["name"], one["isthing"]) for number, one in categories.items()
    }
    assert written["annotations"] == value["annotations"]
    for record in value["annotations"]:
        sides = [np.array(Image.open(folder / record["file_name"])) for folder in (root / "panoptic", tmp_path / "out")]
        np.testing.assert_array_equal(*sides)
    truth, found = (root / "panoptic.json", root / "panoptic"), (tmp_path / "out.json", tmp_path / "out")
    assert panoptic_quality(*truth, *found, boundary=0.02).pq == 1


# -- whole or not at all -----------------------------------------------------------------------------------------------
def fail_after_one(folder, error):
    with coco_panoptic(folder / "out.json", folder / "pngs", CATEGORIES) as out:
        out.add(1, "a.png", segments([[1]], {1: 0}))
        raise error


def test_nothing_appears_if_it_fails(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fail_after_one(tmp_path, KeyboardInterrupt())
    assert files(tmp_path) == []
    (tmp_path / "out.json").write_text("before")
    (tmp_path / "pngs" / "a.png").write_text("before")
    with pytest.raises(ValueError, match="no"):
        fail_after_one(tmp_path, ValueError("no"))
    assert {(tmp_path / name).read_text() for name in files(tmp_path)} == {"before"}
    assert files(tmp_path) == ["out.json", "pngs/a.png"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([("a.jpg", [[1]], {1: 2})], r"a\.jpg: a segment of class 2; expected 0\.\.1"),
        ([("a.jpg", [[2**24]], {2**24: 0})], "a.png: the segment id 16777216; expected 0..16777215"),
        ([("a.jpg", np.zeros((0, 3)), {})], r"a\.png: segment ids \[0, 3\]; expected \[H, W\] with at least one pixel"),
        ([("a.jpg", [[1]], {1: 0}), ("A.tif", [[1]], {1: 0})], r"A\.tif and a\.jpg would both be A\.png; rename"),
        ([("a.jpg", [[1]], {1: 0})] * 2, "would both be a.png"),
        ([("../a.jpg", [[1]], {1: 0})], r'file_name: "../a\.jpg"; expected a path below'),
        ([("/a.jpg", [[1]], {1: 0})], "expected a path below the folder of the images"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, images, message):
    def write():
        with coco_panoptic(tmp_path / "o.json", tmp_path / "o", CATEGORIES) as out:
            for number, (name, ids, labels) in enumerate(images):
                out.add(number, name, segments(ids, labels))

    with pytest.raises(DataError, match=message):
        write()
    assert files(tmp_path) == []


def test_places_and_categories_that_cannot_be(tmp_path):
    for categories in ([], [CATEGORIES[0]] * 2):
        with pytest.raises(ConfigError, match="each id once"), coco_panoptic(tmp_path / "a", tmp_path, categories):
            pass
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file"), coco_panoptic(tmp_path / "o.json", tmp_path / "file", CATEGORIES):
        pass
    with pytest.raises(DataError, match=r"negative\.png: the segment id -1"):
        write_segment_png(tmp_path / "negative.png", np.array([[-1]]))
    assert files(tmp_path) == ["file"]


def test_nothing_to_write_is_a_file_without_images(tmp_path):
    with coco_panoptic(tmp_path / "out.json", tmp_path / "out", CATEGORIES):
        pass
    side = tmp_path / "out.json", tmp_path / "out"
    assert panoptic_quality(*side, *side).images == 0
