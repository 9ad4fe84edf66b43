"""Annotations of other tools that were read wrongly in silence, and what `--fix` may do to annotations."""

import json

import numpy as np
import pytest
from PIL import Image

from made_data import picture, write_png
from made_objects import YAML, coco, make_objects, record, ring, write_numbers
from made_panoptic import make_panoptic, panoptic
from torchfpn.cli.main import main
from torchfpn.data.check import check
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import ObjectDataset
from torchfpn.errors import DataError

BOX = (2, 3, 10, 9)


def fish(*annotations, more=()):
    """A file as Roboflow writes it: category 0 only groups the others."""
    roots = [{"id": 0, "name": "fish", "supercategory": "none"}, {"id": 1, "name": "fish", "supercategory": "fish"}]
    return coco(list(annotations)) | {"categories": [*roots, *more]}


def objects_of(folder):
    return ObjectDataset(read_dataset(folder), "train")[0].objects


@pytest.mark.parametrize("root", ["fish", "animals"])
def test_a_category_that_only_groups_others_is_no_class(tmp_path, capsys, root):
    value = fish(record(1, BOX, category=1), more=[{"id": 2, "name": "crab", "supercategory": root}])
    value["categories"][0]["name"] = value["categories"][1]["supercategory"] = root
    folder = make_objects(tmp_path, value, yaml=None)
    assert main(["check", "--init", str(folder)]) == 0
    assert main(["check", str(folder)]) == 0
    dataset = read_dataset(folder)
    assert dataset.names == ("fish", "crab")
    assert objects_of(folder).labels.tolist() == [0]
    assert f'so no class: "{root}"' in " ".join(capsys.readouterr().out.split())
    assert main(["check", str(folder), "--fix"]) == 0


def test_a_category_with_annotations_stays_a_class_whatever_it_groups(tmp_path):
    value = fish(record(1, BOX, category=1), record(2, BOX, category=0))
    value["categories"][0]["name"] = value["categories"][1]["supercategory"] = "animal"
    assert read_dataset(make_objects(tmp_path, value)).names == ("animal", "fish")


def test_a_category_that_groups_others_is_a_class_if_it_is_listed(tmp_path):
    value = fish(record(1, BOX, category=1))
    value["categories"][0]["name"] = value["categories"][1]["supercategory"] = "animal"
    folder = make_objects(tmp_path, value, yaml="classes: [animal, fish]\n" + YAML)
    assert objects_of(folder).labels.tolist() == [1]


def test_fix_never_empties_a_class_and_says_before_what_it_would_lose(tmp_path, capsys):
    bad = {"bbox": [2, 3, 0, 0]}
    value = coco([record(1, BOX), record(2, BOX) | bad, record(3, BOX, category=7)])
    folder = make_objects(tmp_path, value)
    assert main(["check", str(folder)]) == 2
    assert (
        'train: --fix leaves out or mends 1 annotation; lost: 1 of 2 annotations of "cell"' in capsys.readouterr().err
    )
    assert main(["check", str(folder), "--fix"]) == 0
    value["annotations"][2] |= bad
    make_objects(tmp_path, value)
    assert main(["check", str(folder)]) == 2
    assert 'train: --fix would leave nothing of "dot" (1 annotation); repair them' in capsys.readouterr().err
    assert main(["check", str(folder), "--fix"]) == 2
    (folder / "dataset.yaml").write_text("fix: true\n" + YAML)
    with pytest.raises(DataError, match='`fix` would leave nothing of "dot"'):
        ObjectDataset(read_dataset(folder), "train")
    (folder / "dataset.yaml").write_text("fix: true\nignore_index: 7\nclasses: [cell]\n" + YAML)
    assert len(objects_of(folder)) == 1


def test_fix_never_empties_a_class_by_its_category_its_images_or_the_list_of_classes(tmp_path, capsys):
    value = coco([record(1, BOX), record(2, BOX, category=7)])
    value["categories"] = [{"id": 3, "name": "cell"}, {"id": 7, "name": "cell"}]  # both are in use
    folder = make_objects(tmp_path, value)
    assert main(["check", str(folder), "--fix"]) == 2
    assert '`fix` would leave nothing of "cell" (1 annotation)' in capsys.readouterr().err
    value = coco([record(1, BOX), record(2, BOX, category=7, image=2)])
    value["images"][1]["height"] = 24.0
    assert main(["check", str(make_objects(tmp_path, value)), "--fix"]) == 2
    assert '`fix` would leave nothing of "dot"' in capsys.readouterr().err
    value["images"][1]["height"] = 24
    folder = make_objects(tmp_path, value, yaml="classes: [cell]\n" + YAML)
    assert main(["check", str(folder), "--fix"]) == 2
    assert '`fix` would leave nothing of "dot"' in capsys.readouterr().err


def test_of_two_categories_of_a_name_the_one_without_annotations_is_bad(tmp_path):
    value = coco([record(1, BOX, category=7)])
    value["categories"] = [{"id": 3, "name": "cell"}, {"id": 7, "name": "cell"}]
    folder = make_objects(tmp_path, value, yaml="fix: true\n" + YAML)
    assert (read_dataset(folder).names, len(objects_of(folder))) == (("cell",), 1)


@pytest.mark.parametrize("ring_", [[1, 2, 3, 4], [1, 2, float("nan"), 4, 5, 6]])
def test_fix_leaves_out_one_bad_polygon_of_an_object_not_the_object(tmp_path, capsys, ring_):
    value = coco([record(1, (2, 3, 20, 9), segmentation=[ring(2, 3, 10, 9), ring_, ring(12, 3, 20, 9)])])
    folder = make_objects(tmp_path, value)
    assert main(["check", str(folder)]) == 2
    assert "--fix leaves out or mends 1 polygon\n" in capsys.readouterr().err
    with pytest.raises(DataError, match="leave them out with `fix: true`"):
        objects_of(folder)
    (folder / "dataset.yaml").write_text("fix: true\n" + YAML)
    masks = objects_of(folder).masks
    assert masks.pixels.sum() == 2 * 8 * 6


def test_fix_takes_the_area_of_the_mask_for_a_bad_area(tmp_path):
    folder = make_objects(tmp_path, coco([record(1, BOX, area=float("nan"))]), yaml="fix: true\n" + YAML)
    found = ObjectDataset(read_dataset(folder), "train").annotations
    assert np.isnan(found.areas).tolist() == [True]  # that of the mask


def test_crowds_instead_of_objects_are_said_and_read_as_objects(tmp_path, capsys):
    runs = {"size": [24, 32], "counts": [0, 24, 744]}
    value = coco([record(i, (0, 0, 1, 24), segmentation=runs, iscrowd=1) for i in range(3)])
    folder = make_objects(tmp_path, value)
    assert len(objects_of(folder)) == 0
    main(["check", str(folder)])
    out = " ".join(capsys.readouterr().out.split())
    assert "3 of 3 annotations marked `iscrowd: 1`" in out
    assert "`crowds: objects` reads them as objects" in out
    (folder / "dataset.yaml").unlink()
    assert main(["check", "--init", str(folder)]) == 0
    assert "they are read as objects: `crowds: objects`" in capsys.readouterr().out
    dataset = read_dataset(folder)
    assert (dataset.crowds, dataset.task) == ("objects", "instance")
    assert objects_of(folder).masks.pixels.sum() == 3 * 24
    assert main(["check", str(folder)]) == 0


def test_crowds_of_panoptic_annotations_are_read_as_objects(tmp_path):
    from made_panoptic import YAML as PANOPTIC

    folder = make_panoptic(tmp_path, panoptic(), yaml="crowds: objects\n" + PANOPTIC)
    objects = objects_of(folder)
    assert (len(objects), len(objects.crowds)) == (3, 0)


def test_crowds_mean_nothing_without_annotations(tmp_path, capsys):
    (tmp_path / "dataset.yaml").write_text(
        "task: instance\nclasses: [cell]\ncrowds: objects\nsplits: {a: {images: x}}\n"
    )
    assert main(["check", str(tmp_path)]) == 2
    assert "crowds: 'objects'; expected nothing without `annotations`" in capsys.readouterr().err


def test_boxes_that_are_shares_of_the_image_are_refused(tmp_path, capsys):
    value = coco([record(i, (0.1, 0.2, 0.4, 0.5), segmentation=[ring(0.1, 0.2, 0.4, 0.5)]) for i in range(2)])
    assert main(["check", str(make_objects(tmp_path, value))]) == 2
    assert "annotations[].bbox: all boxes lie within 0..1 (2" in " ".join(capsys.readouterr().err.split())
    value = coco([record(1, (0, 0, 1, 1)), record(2, (0.1, 0.2, 4.4, 5.5))])  # small, but pixels
    assert main(["check", str(make_objects(tmp_path, value))]) == 0


def test_detections_that_are_shares_of_the_image_are_refused(tmp_path, capsys):
    folder = make_objects(tmp_path)
    found = [{"image_id": 1, "category_id": 3, "bbox": [0.1, 0.2, 0.3, 0.4], "score": 0.5}]
    (tmp_path / "found.json").write_text(json.dumps(found))
    assert main(["evaluate", str(tmp_path / "found.json"), str(folder / "train" / "instances.json")]) == 2
    assert "all boxes lie within 0..1" in capsys.readouterr().err


def test_numbered_masks_of_scattered_parts_are_said_and_read_as_components(tmp_path, capsys):
    values = np.zeros((24, 32))
    values[2:5, 3:6] = values[10:14, 20:25] = values[5, 6] = 255  # (5, 6) touches the first by its corner
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    write_png(tmp_path / "images" / "a.png", picture(1))
    write_numbers(tmp_path / "labels" / "a.png", values)
    yaml = "task: instance\nclasses: [cell]\nsplits: {train: {images: images, labels: labels}}\n"
    (tmp_path / "dataset.yaml").write_text(yaml)
    assert check(read_dataset(tmp_path)).splits[0].objects.total == 1
    main(["check", str(tmp_path)])
    out = " ".join(capsys.readouterr().out.split())
    assert "1 image with one number in several parts (2 in all), so one object" in out
    assert "`labels_are: components`" in out
    (tmp_path / "dataset.yaml").write_text("labels_are: components\n" + yaml)
    objects = objects_of(tmp_path)
    assert objects.boxes.tolist() == [[3, 2, 7, 6], [20, 10, 25, 14]]
    assert objects.masks.pixels.sum() == 10 + 20
    assert not [note for note in check(read_dataset(tmp_path)).notes if "several parts" in note]


def test_numbers_that_count_objects_are_not_taken_for_parts(tmp_path):
    values = np.zeros((24, 32))
    values[2:5, 3:6], values[10:14, 20:25], values[20, 1] = 1, 2, 2
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    write_png(tmp_path / "images" / "a.png", picture(1))
    write_numbers(tmp_path / "labels" / "a.png", values)
    (tmp_path / "dataset.yaml").write_text(
        "task: instance\nclasses: [cell]\nsplits: {train: {images: images, labels: labels}}\n"
    )
    assert not [note for note in check(read_dataset(tmp_path)).notes if "parts" in note]


def test_whole_numbers_with_a_point_are_shown_with_it(tmp_path, capsys):
    value = coco([record(1, BOX), record(1.0, BOX)])
    value["images"][1]["height"] = 24.0
    assert main(["check", str(make_objects(tmp_path, value))]) == 2
    err = capsys.readouterr().err
    assert "images[1].height: 24.0; expected a number of pixels, written without a point" in err
    assert "annotations[1].id: 1.0; expected a whole number, written without a point" in err


def test_panoptic_categories_that_do_not_say_what_is_a_thing(tmp_path, capsys):
    value = panoptic()
    value["categories"] = [{"id": one["id"], "name": one["name"]} for one in value["categories"]]
    assert main(["check", str(make_panoptic(tmp_path, value))]) == 2
    assert (
        "categories[].isthing: no category says whether it is a thing; expected 1 of things" in capsys.readouterr().err
    )


@pytest.mark.parametrize("kind", ["lines", "records", "CRLF"])
def test_geojson_of_a_feature_on_each_line_is_read_whole_or_refused(tmp_path, kind):
    vectors = pytest.importorskip("torchfpn.io.vectors")
    corners = [[0, 0], [1, 0], [1, 1], [0, 0]]
    features = [
        {
            "type": "Feature",
            "properties": {"n": i, "t": "x" * 700},
            "geometry": {"type": "Polygon", "coordinates": [corners]},
        }
        for i in range(3)
    ]
    before, after = {"lines": ("", "\n"), "records": ("\x1e", "\n"), "CRLF": ("", "\r\n")}[kind]
    text = "".join(before + json.dumps(feature) + after for feature in features)
    for name in ("a.geojson", "b.geojsonl", "c.ndjson"):
        (tmp_path / name).write_text(text)
        found = vectors.read_vectors(tmp_path / name, field="n")
        assert (len(found.shapes), list(found.column)) == (3, [0, 1, 2])
        assert vectors.field_names(tmp_path / name) == ["n", "t"]
    (tmp_path / "a.geojson").write_text(text[: -len(text) // 6])
    with pytest.raises(DataError, match="2 of 3 lines are features"):
        vectors.read_vectors(tmp_path / "a.geojson")


def test_a_file_of_labelme_is_called_so(tmp_path):
    vectors = pytest.importorskip("torchfpn.io.vectors")
    value = {"version": "5.0", "flags": {}, "shapes": [], "imagePath": "a.png"}
    (tmp_path / "a.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"a file of LabelMe.*; fpn check --init FOLDER makes COCO"):
        vectors.read_vectors(tmp_path / "a.json")


@pytest.mark.parametrize("task", ["instance", "semantic"])
@pytest.mark.parametrize("turn", [1, 6])
def test_sides_that_changed_places_are_blamed_on_exif_only_where_there_is_one(tmp_path, capsys, task, turn):
    folder = make_objects(tmp_path, coco([record(1, BOX)], images=1), images=1)
    exif = Image.Exif()
    exif[0x0112] = turn
    size = (24, 32) if turn == 1 else (32, 24)  # width, height
    (folder / "train" / "labels").mkdir()
    Image.new("RGB", size).save(folder / "train" / "images" / "a0.png", exif=exif)
    write_png(folder / "train" / "labels" / "a0.png", np.zeros((24, 32), np.uint8))
    if task == "semantic":
        splits = "classes: [a]\nsplits: {train: {images: train/images, labels: train/labels}}\n"
        (folder / "train" / "images" / "a1.png").unlink(missing_ok=True)
        (folder / "dataset.yaml").write_text(splits)
    assert main(["check", str(folder)]) == 2
    err = capsys.readouterr().err
    assert ("the EXIF orientation of the image has been applied" in err) == (turn == 6)
    assert ("height and width have changed places" in err) == (turn == 1)


@pytest.mark.parametrize("value", [0, 255])
def test_the_note_on_255_needs_a_label_of_255(tmp_path, value):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    image = np.full((24, 32, 4), 200, np.uint8)
    image[:5, :, 3] = 0  # no data, so not labelled either
    write_png(tmp_path / "images" / "a.png", image)
    labels = np.zeros((24, 32), np.uint8)
    labels[20:] = value
    write_png(tmp_path / "labels" / "a.png", labels)
    yaml = "classes: [ground, roof]\nsplits: {train: {images: images, labels: labels}}\n"
    (tmp_path / "dataset.yaml").write_text(yaml)
    notes = check(read_dataset(tmp_path)).notes
    assert any("255 means" in note for note in notes) == (value == 255)
