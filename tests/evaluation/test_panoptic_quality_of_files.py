"""Panoptic quality of JSON files with folders of PNGs: panopticapi's numbers, real files, files that contradict."""

import copy
import json
import math

import numpy as np
import pytest

from made_panoptic import FIRST, KINDS, SECOND, make_panoptic, panoptic, segment, write_ids
from shared import DATA, PARITY, needs_shared
from torchfpn.errors import DataError
from torchfpn.metrics import panoptic_quality

SAMPLE = DATA / "coco-panoptic-sample"


def side(folder, value=None, maps=(FIRST, SECOND)):
    """A JSON and the folder of its PNGs."""
    train = make_panoptic(folder, value, maps=maps, yaml=None) / "train"
    return train / "panoptic.json", train / "panoptic"


def line(fields, value):
    """The file as a value, with one value in it changed; None takes the key out."""
    made = copy.deepcopy(panoptic())
    *path, last = fields
    inner = made
    for key in path:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return made


@needs_shared
def test_every_number_of_the_fixture():
    folder = PARITY / "panoptic-quality"
    scores = panoptic_quality(folder / "gt.json", folder / "gt", folder / "pred.json", str(folder / "pred"))
    expected = json.loads((folder / "expected.json").read_text())
    categories = json.loads((folder / "gt.json").read_text())["categories"]
    for name in ("All", "Things", "Stuff"):
        for key in ("pq", "sq", "rq"):
            assert abs(getattr(getattr(scores, name.lower()), key) - expected[name][key]) < 1e-12
        assert getattr(scores, name.lower()).classes == expected[name]["n"]
    for category in categories:
        place = scores.classes.index(category["name"])
        for key, value in expected["per_class"][str(category["id"])].items():
            assert abs(getattr(scores, f"class_{key}")[place] - value) < 1e-12
    assert scores.images == 24


@needs_shared
def test_the_sample_of_the_format_against_itself_is_one():
    truth = SAMPLE / "panoptic.json", SAMPLE / "panoptic"
    scores = panoptic_quality(*truth, *truth, boundary=0.02)
    assert (scores.pq, scores.things.pq, scores.stuff.pq) == (1, 1, 1)
    assert scores.boundary.pq == 1
    assert len(scores.classes) == 133
    records = json.loads(truth[0].read_text())["annotations"]
    assert sum(scores.tp) == sum(not one["iscrowd"] for record in records for one in record["segments_info"])


def test_images_go_together_by_their_id_and_more_of_them_do_not_matter(tmp_path):
    truth = side(tmp_path / "truth")
    value = panoptic()
    value["annotations"] = [*value["annotations"][::-1], {"image_id": 9, "file_name": "none.png", "segments_info": []}]
    scores = panoptic_quality(*truth, *side(tmp_path / "found", value))
    assert scores.pq == 1
    assert scores.classes == ("cell", "dot", "grass")  # things first
    assert scores.tp == (2, 1, 1)  # the crowd counts nowhere


def test_empty_images_and_classes(tmp_path):
    value, void = panoptic((FIRST,), ({},)), np.zeros((24, 32), int)
    nothing = side(tmp_path / "nothing", value, (void,))
    assert math.isnan(panoptic_quality(*nothing, *nothing).pq)
    truth = side(tmp_path / "truth", panoptic((FIRST,), KINDS[:1]), (FIRST,))
    scores = panoptic_quality(*truth, *nothing)
    assert (scores.pq, scores.fn) == (0, (1, 1, 1))
    value["annotations"] = []
    empty = side(tmp_path / "empty", value, (void,))
    assert panoptic_quality(*empty, *nothing).images == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((("annotations", 0, "segments_info", 1, "id"), 258), r"annotations\[0\].segments_info: the id 259 in the map"),
        ((("annotations", 0, "segments_info", 1, "id"), 5), r"the id 5 of two segments \(a0\.png\); expected each id"),
        ((("annotations", 1, "segments_info", 0, "id"), 0), r"segments_info\[0\].id: 0; expected a whole number"),
        ((("annotations", 1, "segments_info", 0, "id"), 2**24), "expected a whole number from 1 to 16777215"),
        ((("annotations", 1, "segments_info", 0, "category_id"), 8), r"category_id: 8; expected the id of one of"),
        ((("annotations", 1, "segments_info", 0, "iscrowd"), 2), r"iscrowd: 2; expected 0 or 1"),
        ((("annotations", 1, "segments_info"), None), r"annotations\[1\].segments_info: None; expected a list"),
        ((("annotations", 1, "segments_info", 0), 3), r"segments_info\[0\]: 3; expected an object"),
        ((("annotations", 1, "image_id"), 1), r"annotations\[1\].image_id: 1; expected each image once"),
        ((("annotations", 1, "image_id"), [1]), r"image_id: \[1\]; expected the id of an image"),
        ((("annotations", 1, "file_name"), "../a1.png"), r"file_name: '../a1.png'; expected a file in"),
        ((("annotations", 1, "file_name"), ""), r"file_name: ''; expected the name of a PNG"),
        ((("annotations", 1, "file_name"), "b.png"), r"b\.png: "),
        ((("annotations",), None), "annotations: None; expected a list"),
    ],
)
def test_what_contradicts_is_named_on_either_side(tmp_path, change, message):
    good, bad = side(tmp_path / "good"), side(tmp_path / "bad", line(*change))
    for sides in ((good, bad), (bad, good)):
        with pytest.raises(DataError, match=message):
            panoptic_quality(*sides[0], *sides[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((("annotations", 0, "segments_info", 0, "area"), 3), r"segments_info\[0\].area: 3; expected 536, the pix"),
        ((("categories", 0, "isthing"), None), r"categories\[0\].isthing: None; expected 1 of things, 0 of stuff"),
        ((("categories", 0, "id"), 4), r"categories\[1\].id: 4; expected a whole number, each once"),
        ((("categories", 0, "name"), " "), r"categories\[0\].name: ' '; expected text"),
        ((("categories",), []), r"categories: \[\]; expected the classes"),
    ],
)
def test_what_contradicts_in_the_truth_alone(tmp_path, change, message):
    value = line(*change)
    good, bad = side(tmp_path / "good"), side(tmp_path / "bad", value)
    with pytest.raises(DataError, match=message):
        panoptic_quality(*bad, *good)
    assert panoptic_quality(*good, *bad).pq == 1  # of the prediction, panopticapi does not read it either


def test_a_segment_without_pixels_is_refused(tmp_path):
    value = panoptic()
    value["annotations"][1]["segments_info"].append({**segment(FIRST, 5, 4), "id": 6})
    good, bad = side(tmp_path / "good"), side(tmp_path / "bad", value)
    for sides in ((good, bad), (bad, good)):
        with pytest.raises(DataError, match=r"annotations\[1\]\.segments_info: the id 6 of a segment without a pixel"):
            panoptic_quality(*sides[0], *sides[1])


def test_areas_that_are_not_given_are_counted(tmp_path):
    value = copy.deepcopy(panoptic())
    for record in value["annotations"]:
        for one in record["segments_info"]:
            del one["area"], one["iscrowd"]
    truth = side(tmp_path / "truth", value)
    assert panoptic_quality(*truth, *truth).pq == 1


def test_sides_that_do_not_fit(tmp_path):
    truth = side(tmp_path / "truth")
    value = panoptic()
    del value["annotations"][1]
    with pytest.raises(DataError, match=r"panoptic\.json: no annotation of image 2; expected one of each true image"):
        panoptic_quality(*truth, *side(tmp_path / "fewer", value))
    found = side(tmp_path / "smaller")
    write_ids(found[1] / "a0.png", FIRST[:-1])
    with pytest.raises(DataError, match=r"a0\.png: 32 x 23 pixels; expected 32 x 24, as in"):
        panoptic_quality(*truth, *found)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        panoptic_quality(*truth, truth[0], tmp_path / "nowhere")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match=r"list\.json: \[\]; expected an object"):
        panoptic_quality(tmp_path / "list.json", truth[1], *truth)
    (tmp_path / "twice.json").write_text('{"annotations": [], "annotations": []}')
    with pytest.raises(DataError, match='the key "annotations" twice'):
        panoptic_quality(tmp_path / "twice.json", truth[1], *truth)
