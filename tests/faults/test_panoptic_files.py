"""Fault 24, bad panoptic annotations: the place in the JSON or the PNG, what was found; all of them at once."""

import json

import numpy as np
import pytest
from PIL import Image

from made_objects import broken
from made_panoptic import FIRST, SECOND, YAML, make_panoptic, panoptic, write_ids
from torchfpn.cli.main import main
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import ObjectDataset
from torchfpn.errors import DataError
from torchfpn.ops.masks import areas

NAMES = "classes: {3: cell, 7: dot}\n"
FIX = "fix: true\n" + YAML


def complaints(folder, capsys, *flags):
    """Of `fpn check`: the exit code, and what is said of each file, without the path of the folder."""
    code = main(["check", str(folder), *flags])
    lines = capsys.readouterr().err.splitlines()
    return code, [line.removeprefix(f"bad: {folder}/train/") for line in lines if line.startswith("bad: ")]


def dropped(folder, capsys):
    """What `fpn check --fix` leaves out, and the objects that stay; the rest must be fine."""
    assert main(["check", str(folder), "--fix", "--json"]) == 0
    split = json.loads(capsys.readouterr().out)["splits"]["train"]
    return split["dropped"], split["objects"]


def refused(folder):
    """The one line that stops a training, at the start or at the image."""
    with pytest.raises(DataError) as caught:
        [sample.objects for sample in ObjectDataset(read_dataset(folder), "train")]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(**more):
    """The file with the segment of the cell (the second of the first image) changed."""
    value = panoptic()
    value["annotations"][0]["segments_info"][1].update(more)
    return value


SEGMENTS = [
    ({"id": 5}, "id: 5 again, as segments_info[0]"),
    ({"id": 0}, "id: 0; expected a whole number from 1 to 16777215"),
    ({"id": 2**24}, "id: 16777216; expected a whole number from 1 to 16777215"),
    ({"id": "259"}, "id: '259'; expected a whole number from 1 to 16777215"),
    ({"id": None}, "id: None; expected a whole number from 1 to 16777215"),
    ({"category_id": 9}, "category_id: 9; expected the id of one of the categories"),
    ({"category_id": [3]}, "category_id: [3]; expected the id of one of the categories"),
    ({"iscrowd": 2}, "iscrowd: 2; expected 0 or 1"),
    ({"area": -1}, "area: -1; expected a number from 0"),
    ({"area": None}, "area: None; expected a number of pixels"),
    ({"area": 10**9}, "area: 1000000000 in a box of 6 x 8"),
    ({"bbox": None}, "bbox: None; expected [x, y, width, height]"),
    ({"bbox": [3, 2, 0, 8]}, "bbox: [3, 2, 0, 8]; expected width and height above 0"),
    ({"bbox": [3, 2, 60, 8]}, "bbox: [3, 2, 60, 8] reaches out of the image of 32 x 24"),
    # what only the PNG can tell
    ({"area": 29}, "area: 29; 28 pixels in a0.png"),
    ({"area": 28.5}, "area: 28.5; 28 pixels in a0.png"),
    ({"bbox": [10, 2, 6, 8]}, "bbox: [10, 2, 6, 8]; its pixels in a0.png: [3, 2, 6, 8]"),
]


@pytest.mark.parametrize(("more", "found"), SEGMENTS)
def test_fault_24_segments_that_cannot_be(tmp_path, capsys, more, found):
    folder = make_panoptic(tmp_path, changed(**more))
    code, lines = complaints(folder, capsys)
    assert code == 2
    assert lines[0] == f"panoptic.json: annotations[0].segments_info[1].{found}"
    assert f"annotations[0].segments_info[1].{found}" in refused(folder)
    left, objects = dropped(folder, capsys)
    assert left == {"segments": 2 if "id" in more else 1}  # without its id, the pixels are a riddle as well
    assert objects == 2  # the dot, and the cell of the other image
    (folder / "dataset.yaml").write_text(FIX)
    sample = ObjectDataset(read_dataset(folder), "train")[0]
    assert areas(sample.objects.masks).tolist() == [100]
    assert len(sample.objects.crowds) == 1


def test_fault_24_a_box_may_be_off_by_a_pixel(tmp_path):
    objects = ObjectDataset(read_dataset(make_panoptic(tmp_path, changed(bbox=[3, 2, 5, 7]))), "train")[0].objects
    assert objects.boxes[0].tolist() == [3, 2, 9, 10]  # as its pixels are


def test_fault_24_an_id_in_the_png_that_is_not_in_the_json(tmp_path, capsys):
    ids = FIRST.copy()
    ids[22, 30:] = 77
    folder = make_panoptic(tmp_path, panoptic((ids, SECOND)), maps=(ids, SECOND))
    code, lines = complaints(folder, capsys)
    assert code == 2
    assert lines == [
        "panoptic/a0.png: the id 77 (2 pixels, the first at row 22, column 30); "
        "an id in annotations[0] of panoptic.json, or 0 where nothing is labelled"
    ]
    assert "the id 77" in refused(folder)
    assert dropped(folder, capsys) == ({"segments": 1}, 3)
    ids = np.arange(24 * 32).reshape(24, 32) + 100_000  # no map at all: not one line for each of its pixels
    write_ids(folder / "train" / "panoptic" / "a0.png", ids)
    assert main(["check", str(folder), "--json"]) == 2
    problems = [one["problem"] for one in json.loads(capsys.readouterr().out)["problems"]]
    assert len(problems) == 4 + 20 + 1
    assert problems[-1] == "and 748 more ids that are not in annotations[0] of panoptic.json"
    assert main(["check", str(folder), "--fix"]) == 2  # the only dot is among them
    assert '`fix` would leave nothing of "dot" (1 segment); repair them' in capsys.readouterr().err


def test_fault_24_an_id_in_the_json_that_is_not_in_the_png(tmp_path, capsys):
    ids = np.where(FIRST == 259, 5, FIRST)
    value = panoptic()
    value["annotations"][0]["segments_info"][0]["area"] += 28
    folder = make_panoptic(tmp_path, value)
    write_ids(folder / "train" / "panoptic" / "a0.png", ids)
    code, lines = complaints(folder, capsys)
    assert code == 2
    assert lines == ["panoptic.json: annotations[0].segments_info[1].id: 259, which has no pixel in a0.png"]
    assert "259, which has no pixel" in refused(folder)
    assert dropped(folder, capsys) == ({"segments": 1}, 2)


def test_fault_24_crowds_and_void_are_no_objects(tmp_path):
    objects = ObjectDataset(read_dataset(make_panoptic(tmp_path)), "train")[0].objects
    assert (len(objects), objects.crowds.tolist()) == (2, [[0, 15, 8, 24]])
    value = panoptic(crowds=(9, 5))  # of stuff
    assert len(ObjectDataset(read_dataset(make_panoptic(tmp_path, value)), "train")[0].objects.crowds) == 1


def test_fault_24_all_is_told_at_once_and_twenty_are_shown(tmp_path, capsys):
    value = panoptic()
    more = [{"id": 1000 + i, "category_id": 3, "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0} for i in range(30)]
    value["annotations"][0]["segments_info"] += more  # none of them has a pixel
    folder = make_panoptic(tmp_path, value)
    code, lines = complaints(folder, capsys)
    assert code == 2
    assert lines[:20] == [
        f"panoptic.json: annotations[0].segments_info[{4 + i}].id: {1000 + i}, which has no pixel in a0.png"
        for i in range(20)
    ]
    assert lines[20:] == ["bad: and 10 more (all of them: --json)"]
    line = refused(folder)
    assert "segments_info[23]" in line
    assert "segments_info[24]" not in line
    assert "; and 10 more; or leave them out with `fix: true`" in line
    assert dropped(folder, capsys) == ({"segments": 30}, 3)


PNGS = [
    (lambda file: file.write_bytes(b""), "empty file (0 bytes)"),
    (lambda file: file.write_bytes(file.read_bytes()[:60]), "damaged or cut off"),
    (lambda file: file.write_text("this is no image"), "not an image this program reads"),
    (
        lambda file: Image.fromarray(np.zeros((24, 32), np.uint8)).save(file),
        "a PNG of 1 band; expected a PNG of 8-bit red",
    ),
    (lambda file: Image.fromarray(np.zeros((24, 32), np.uint16)).save(file), "a PNG of 1 band; "),
    (lambda file: Image.fromarray(np.zeros((24, 32, 4), np.uint8)).save(file), "a PNG of 4 bands; "),
    (lambda file: Image.fromarray(np.zeros((24, 32, 3), np.uint8)).quantize(4).save(file), "a PNG of 1 band; "),
    (lambda file: Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(file, "JPEG"), "a JPEG; "),
    (lambda file: Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(file, "TIFF"), "a TIFF; "),
    (lambda file: write_ids(file, FIRST[:20]), "32 x 20 pixels, 32 x 24 in panoptic.json"),
    (lambda file: write_ids(file, FIRST.T), "24 x 32 pixels, 32 x 24 in panoptic.json"),
]


@pytest.mark.parametrize(("spoil", "found"), PNGS)
def test_fault_24_pngs_that_cannot_be(tmp_path, capsys, spoil, found):
    folder = make_panoptic(tmp_path)
    spoil(folder / "train" / "panoptic" / "a0.png")
    code, lines = complaints(folder, capsys)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"panoptic/a0.png: {found}")
    assert refused(folder).startswith(str(folder / "train" / "panoptic" / "a0.png"))
    assert complaints(folder, capsys, "--fix")[0] == 2  # a file that cannot be read is no record to leave out


def test_fault_24_a_png_of_16_bits(tmp_path, capsys):
    folder = make_panoptic(tmp_path)
    file = folder / "train" / "panoptic" / "a0.png"
    head = bytearray(file.read_bytes())
    head[24] = 16  # bits of a value, which Pillow would cut to 8
    file.write_bytes(head)
    assert complaints(folder, capsys)[1][0].startswith("panoptic/a0.png: a PNG of 16 bits; expected a PNG of 8-bit red")


def test_fault_24_a_bomb_is_not_decoded(tmp_path, capsys):
    value = panoptic()
    value["images"][0] |= {"height": 40_000, "width": 40_000}
    folder = make_panoptic(tmp_path, value, yaml="max_pixels: 1000\n" + YAML)
    write_ids(folder / "train" / "panoptic" / "a1.png", np.zeros((100, 100), int))
    lines = complaints(folder, capsys)[1]
    assert "a0.png: 32 x 24 pixels, 40000 x 40000 in panoptic.json" in lines[0]
    assert lines[1].startswith("panoptic/a1.png: 100 x 100 = 10000 pixels; expected at most 1000")


def test_fault_24_annotations_that_cannot_be(tmp_path, capsys):
    value = panoptic()
    first, second = value["annotations"]
    value["images"] += [{"id": 9, "file_name": "a1.png", "height": 24, "width": 32}]
    value["images"] += [{"id": 10, "file_name": "gone.png", "height": 24, "width": 32}]
    value["annotations"] = [
        7,
        {**first, "image_id": 77},
        {**first, "image_id": [1]},
        {**first, "segments_info": {"id": 1}},
        {**first, "file_name": "a1.png"},
        {**second, "file_name": "gone.png"},
        {**second, "image_id": 10},
    ]
    folder = make_panoptic(tmp_path, value)
    code, lines = complaints(folder, capsys)
    maps = folder / "train" / "panoptic"
    assert code == 2
    assert lines == [
        "panoptic.json: images[2].file_name: 'a1.png' again, as images[1]",
        f"panoptic.json: images[3].file_name: 'gone.png': no such file in {folder / 'train' / 'images'}",
        "panoptic.json: annotations[0]: 7; expected an object",
        "panoptic.json: annotations[1].image_id: 77; expected the id of one of the images",
        "panoptic.json: annotations[2].image_id: [1]; expected the id of one of the images",
        "panoptic.json: annotations[3].segments_info: {'id': 1}; expected a list of segments",
        "panoptic.json: annotations[4].image_id: 1 again, as annotations[3]",
        f"panoptic.json: annotations[5].file_name: 'gone.png': no such file in {maps}",
    ]
    assert main(["check", str(folder), "--fix"]) == 2  # nothing is left
    assert '`fix` would leave nothing of "dot"' in capsys.readouterr().err


def test_fault_24_images_without_an_annotation_and_maps_of_two_images(tmp_path, capsys):
    value = panoptic()
    del value["annotations"][1]
    folder = make_panoptic(tmp_path, value)
    assert complaints(folder, capsys) == (2, ["panoptic.json: images[1]: no annotation of it"])
    assert dropped(folder, capsys) == ({"images": 1}, 2)  # not learnt from: nobody says that nothing is on it
    value = panoptic()
    value["annotations"][1]["file_name"] = "a0.png"
    lines = complaints(make_panoptic(tmp_path, value), capsys)[1]
    assert lines == ["panoptic.json: annotations[1].file_name: 'a0.png' again, as annotations[0]"]


def test_fault_24_categories_that_cannot_be(tmp_path, capsys):
    value = panoptic()
    value["categories"] = [{"id": 3, "name": "cell"}, *value["categories"][1:], {"id": [4], "name": "x", "isthing": 1}]
    folder = make_panoptic(tmp_path, value, yaml=NAMES + YAML)
    assert complaints(folder, capsys)[1] == [
        "panoptic.json: categories[0].isthing: None; expected 0 or 1",
        "panoptic.json: categories[3].id: [4]; expected a whole number",
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "empty file (0 bytes)"),
        (json.dumps(panoptic())[:-40], "not JSON: cut off at line 1"),
        (
            json.dumps(panoptic()).replace('"area": 28', '"area": NaN'),
            "annotations[0].segments_info[1].area: nan; JSON",
        ),
        (json.dumps(panoptic()).replace('"area": 28', '"id": 4, "area": 28'), 'segments_info[1]: the key "id" twice'),
        (
            json.dumps(panoptic()).replace('"categories"', '"kinds"'),
            'no list "categories"; expected COCO: lists of images',
        ),
    ],
)
def test_fault_24_json_that_cannot_be(tmp_path, capsys, text, found):
    folder = make_panoptic(tmp_path, text=text, yaml=NAMES + YAML)
    code, lines = complaints(folder, capsys)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("panoptic.json: ")
    assert found in lines[0]
    assert found in refused(folder)


@pytest.mark.parametrize("name", ["../../outside.png", "/etc/passwd", "a/../../a0.png", "C:\\a0.png"])
def test_fault_24_names_that_lead_out(tmp_path, capsys, name):
    value = panoptic()
    value["annotations"][0]["file_name"] = name
    lines = complaints(make_panoptic(tmp_path, value), capsys)[1]
    assert len(lines) == 1
    assert lines[0].startswith("panoptic.json: annotations[0].file_name: ")
    assert lines[0].endswith("leads out of the folder of the panoptic maps; a path below it")


def test_fault_24_folders_and_links_that_lead_out(tmp_path, capsys):
    outside = tmp_path / "outside"
    outside.mkdir()
    write_ids(outside / "a0.png", FIRST)
    folder = make_panoptic(tmp_path / "data", yaml=NAMES + YAML)
    maps = folder / "train" / "panoptic"
    (maps / "a0.png").unlink()
    (maps / "a0.png").symlink_to(outside / "a0.png")
    found = "panoptic.json: annotations[0].file_name: 'a0.png' is a link that leads out of the root of the dataset"
    assert complaints(folder, capsys)[1] == [found]
    (folder / "train" / "panoptic.json").rename(folder / "train" / "other.json")
    (folder / "dataset.yaml").write_text(NAMES + YAML.replace("panoptic.json", "other.json"))
    assert complaints(folder, capsys)[1][0].startswith(
        "other: no such folder; name the folder of the PNGs of other.json"
    )
    (folder / "train" / "other").symlink_to(outside)
    assert complaints(folder, capsys)[1] == ["other: leads out of the root of the dataset"]
    (folder / "dataset.yaml").write_text(YAML.replace("json}", "json, panoptic: ../outside}"))
    assert main(["check", str(folder)]) == 2
    assert "splits.train.panoptic: '../outside'; expected a path below the root" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["values", "bytes", "png"])
def test_fault_24_broken_files_are_refused_or_read_and_nothing_else(tmp_path, how):
    rng = np.random.default_rng(7)
    folder = make_panoptic(tmp_path, yaml=NAMES + YAML)
    fixed = folder / "fixed.yaml"
    fixed.write_text(NAMES + FIX)
    file = folder / "train" / ("panoptic/a0.png" if how == "png" else "panoptic.json")
    good, outcomes = file.read_bytes(), {True: 0, False: 0}
    for _ in range(150):
        if how == "values":
            data = json.dumps(broken(rng, panoptic())).encode()
        else:
            data = bytearray(good)
            for place in rng.integers(len(data), size=rng.integers(1, 4)):
                data[place] = rng.integers(256)
        file.unlink()
        file.write_bytes(data)
        for path in (folder, fixed):
            said = None
            try:
                samples = ObjectDataset(read_dataset(path), "train", cache=False)
                assert all(len(sample.objects.masks) == len(sample.objects) for sample in samples)
            except DataError as error:
                said = str(error)
            assert said is None or "panoptic.json" in said or "a0.png" in said
            outcomes[said is None] += 1
    assert min(outcomes.values()) > 0
