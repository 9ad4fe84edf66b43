"""`fpn check` of panoptic datasets: what it counts, what it notes and what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image

from made_maps import box, noise, write_geojson, write_map
from made_objects import record
from made_panoptic import (
    FIRST,
    JSON,
    ONE,
    SECOND,
    SIZE,
    WHOLE,
    coco_of,
    make_composed,
    make_panoptic,
    make_polygon_map,
    panoptic,
    rectangles,
    write_ids,
)
from shared import DATA, needs_shared
from torchfpn.cli.main import main
from torchfpn.data.check import check
from torchfpn.data.config import read_dataset
from torchfpn.data.statistics import class_counts


def report_of(folder):
    return check(read_dataset(folder))


def lines_of(folder):
    return [problem.line for problem in report_of(folder).problems]


def test_things_and_stuff_are_counted(tmp_path, capsys):
    folder = make_panoptic(tmp_path, yaml=WHOLE)
    report = report_of(folder)
    (split,) = report.splits
    assert report.ok
    assert (split.objects.objects, split.objects.crowds) == ((2, 1, 0), 1)
    pixels = [np.isin(FIRST, (259, 9)).sum() + (SECOND == 70000).sum(), (FIRST == 70000).sum(), (FIRST == 5).sum()]
    assert split.counts.pixels == tuple(pixels)
    assert split.counts.images == (2, 1, 1)
    assert split.counts.ignored == (FIRST == 0).sum() + (SECOND == 0).sum()
    assert class_counts(report.dataset) == split.counts
    assert main(["check", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["things"] == ["cell", "dot"]
    assert shown["splits"]["train"]["pixels"] == [int(n) for n in pixels]
    assert shown["splits"]["train"]["objects_of_class"] == [2, 1, 0]
    assert main(["check", str(folder), "--sheet", str(tmp_path / "sheet.png")]) == 0
    told = capsys.readouterr().out
    share = split.counts.ignored / (2 * FIRST.size)
    assert all(word in told for word in ("void", f"{share:.2%}", "thing", "stuff", "ok: 2 images, no problems"))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1000


def test_overlaps_and_hidden_objects_are_notes(tmp_path):
    value = coco_of(record(1, (4, 4, 8, 8)), record(2, (2, 2, 12, 12)), record(3, (2, 2, 12, 12)))
    folder = make_composed(tmp_path, np.zeros(SIZE), value, yaml=JSON)
    report = report_of(folder)
    assert report.ok
    assert (report.splits[0].objects.total, report.splits[0].objects.hidden) == (2, 1)
    assert "train: objects overlap on 100 pixels; the smaller one is on top" in report.notes
    assert "train: 1 object covered by others, left out" in report.notes
    assert "train: no object of dot" in report.notes
    assert "train: no pixel of water" in report.notes
    (folder / "dataset.yaml").write_text(JSON + "overlaps: last\n")
    assert "train: objects overlap on 100 pixels; the last one is on top" in report_of(folder).notes


def segments_of(value):
    return value["annotations"][0]["segments_info"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: segments_of(v).append(segments_of(v)[0] | {"id": 6}), "segments_info[4].id: 6, which has no pixel"),
        (lambda v: segments_of(v).pop(0), "the id 5 ("),
        (lambda v: segments_of(v)[0].update(area=3), "segments_info[0].area: 3; "),
        (lambda v: v["images"][0].update(width=30), "32 x 24 pixels, 30 x 24 in panoptic.json"),
        (lambda v: v["categories"][1].pop("isthing"), "categories[1].isthing: None; expected 0 or 1"),
        (lambda v: [c.pop("isthing") for c in v["categories"]], None),
        (lambda v: v["annotations"].pop(1), "images[1]: no annotation of it"),
    ],
)
def test_what_is_wrong_with_panoptic_annotations_is_said(tmp_path, capsys, change, said):
    value = json.loads(json.dumps(panoptic()))
    change(value)
    folder = make_panoptic(tmp_path, value, yaml=WHOLE)
    if said is None:
        assert main(["check", str(folder)]) == 2
        assert "no category says whether it is a thing" in capsys.readouterr().err
    else:
        assert any(said in line for line in lines_of(folder))


def test_fix_empties_no_stuff(tmp_path, capsys):
    value = panoptic()
    segments_of(value)[0]["area"] += 1  # the only grass
    folder = make_panoptic(tmp_path, value, yaml=WHOLE)
    assert main(["check", str(folder), "--fix"]) == 2
    assert '`fix` would leave nothing of "grass" (1 segment)' in capsys.readouterr().err
    value = panoptic()
    segments_of(value)[1]["area"] += 1  # one of two cells
    folder = make_panoptic(tmp_path / "cell", value, yaml=WHOLE)
    assert main(["check", str(folder), "--fix"]) == 0
    assert "1 segment" in capsys.readouterr().out


def test_bad_records_of_a_file_of_objects_are_counted_with_fix(tmp_path, capsys):
    value = coco_of(record(1, (4, 4, 8, 8)), record(2, (9, 9, 12, 12)) | {"bbox": [1]}, record(3, (1, 1, 2, 2), 1, 7))
    folder = make_composed(tmp_path, np.zeros(SIZE), value, yaml=JSON)
    assert main(["check", str(folder)]) == 2
    told = capsys.readouterr().err
    assert "objects.json: annotations[1].bbox: [1]; expected [x, y, width, height]" in told
    assert 'train: --fix leaves out or mends 1 annotation; lost: 1 of 2 annotations of "cell"' in told
    assert main(["check", str(folder), "--fix"]) == 0
    assert "1 annotation" in capsys.readouterr().out


def test_labels_that_cannot_be_read_are_problems_of_their_file(tmp_path):
    folder = make_composed(tmp_path, np.full(SIZE, 9), rectangles((1, 1, 5, 5)), yaml=ONE)
    (problem,) = report_of(folder).problems
    assert (problem.file.parent.name, problem.line.partition(" in ")[0]) == ("labels", "the value 9")
    make_composed(folder, np.zeros(SIZE), np.zeros((5, 5)), yaml=ONE)
    (problem,) = report_of(folder).problems
    assert (problem.file.parent.name, problem.line) == ("objects", "labels of 5 x 5 pixels for an image of 32 x 24")
    (folder / "train" / "objects" / "a0.png").write_bytes(b"nothing")
    assert report_of(folder).problems[0].file.parent.name == "objects"


def test_training_images_without_things_or_without_labels(tmp_path):
    folder = make_composed(tmp_path, np.zeros(SIZE), np.zeros(SIZE), yaml=ONE)
    assert lines_of(folder) == ['no object in the split "train"']
    nothing = np.zeros(SIZE, int)
    folder = make_panoptic(tmp_path / "void", panoptic((nothing,), ({},)), maps=(nothing,), yaml=WHOLE)
    assert lines_of(folder) == ['no object in the split "train"']
    (folder / "dataset.yaml").write_text(WHOLE.replace("train:", "val:"))
    report = report_of(folder)
    assert report.ok
    assert any("without a single labelled pixel" in note for note in report.notes)
    head = "task: panoptic\nclasses: [a, b]\nthings: [a]\n"
    (folder / "dataset.yaml").write_text(head + "splits: {train: {images: train/images}}")
    assert lines_of(folder) == ['no labels in the split "train", so there is nothing to train on']


def test_polygons_of_both_kinds_are_reported(tmp_path):
    report = report_of(make_polygon_map(tmp_path))
    assert report.ok
    assert [(one.file.name, one.features, one.outside) for one in report.polygons] == [
        ("stuff.geojson", 2, 0),
        ("things.geojson", 7, 0),
    ]
    write_geojson(tmp_path / "things.geojson", [box(500, 500)], ["cell"])
    (problem,) = report_of(tmp_path).problems
    assert problem.file.name == "things.geojson"
    assert problem.line.startswith('no polygon meets an image of the split "train"; the polygons lie around')
    write_geojson(tmp_path / "things.geojson", [box(5, 5)], ["roof"])
    (problem,) = report_of(tmp_path).problems
    assert problem.line.startswith('no class "roof" in 1 feature')


def test_a_scene_counts_as_the_whole_image_does(tmp_path):
    size = (1500, 1200)  # more than one window
    folder = make_polygon_map(tmp_path, size=size)
    things = [box(100 * i, 90 * i, 50) for i in range(12)] + [box(1020, 1000, 40), box(1030, 1010, 40)]
    write_geojson(folder / "things.geojson", things, ["cell", "dot"] * 7)
    write_map(folder / "images" / "a.tif", noise(0, size, dtype=np.uint8), tiled=True, blockxsize=256, blockysize=256)
    whole = report_of(folder)
    text = (folder / "dataset.yaml").read_text().replace(f"scene_pixels: {2**22}", "scene_pixels: 100")
    (folder / "dataset.yaml").write_text(text)
    scene = report_of(folder)
    assert scene.splits == whole.splits
    assert whole.splits[0].objects.overlapping > 0
    assert class_counts(scene.dataset) == scene.splits[0].counts


def test_weights_of_things_and_stuff(tmp_path, capsys):
    assert main(["weights", str(make_panoptic(tmp_path, yaml=WHOLE)), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["class"] for one in shown["classes"]] == ["cell", "dot", "grass"]
    assert all(one["weight"] > 0 for one in shown["classes"])


def test_two_images_of_which_one_map_is_damaged(tmp_path):
    folder = make_panoptic(tmp_path, yaml=WHOLE)
    write_ids(folder / "train" / "panoptic" / "a1.png", np.zeros((5, 5), int))
    assert lines_of(folder) == ["5 x 5 pixels, 32 x 24 in panoptic.json"]


@needs_shared
@pytest.mark.parametrize(("name", "pixels"), [("coco-panoptic-sample", "panoptic.json")])
def test_the_format_s_own_sample(tmp_path, name, pixels):
    text = WHOLE.replace("train/images", "images").replace("train/panoptic.json", pixels)
    (tmp_path / "dataset.yaml").write_text(f"root: {DATA / name}\n{text}")
    report = report_of(tmp_path)
    assert report.ok
    assert (report.splits[0].objects.total, report.splits[0].objects.crowds) == (40, 3)
    assert report.splits[0].counts.labelled == 493779
