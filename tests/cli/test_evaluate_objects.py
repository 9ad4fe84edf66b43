"""fpn evaluate of detectors and of COCO results: the table, the exact numbers, the report, and what is refused."""

import json

import numpy as np
import pytest
import torch

import torchfpn
from made_objects import YAML, coco, make_objects, record
from shared import DATA, needs_shared
from torchfpn.cli.main import main

pytest.importorskip("faster_coco_eval", reason="the evaluator is not installed")

CLASSES = ("cell", "dot")
DETECTION = YAML.replace("instance", "detection", 1)
OBJECTS = [record(1, (2, 3, 10, 9)), record(2, (20, 10, 30, 20), category=7), record(3, (4, 12, 14, 22), image=2)]


def tiny_detector(path, task="detection", *, classes=CLASSES, seed=0):
    """An untrained one of many opinions."""
    torch.manual_seed(seed)
    made = torchfpn.create_task(
        task, backbone="test_resnet", classes=classes, bands=("red", "green", "blue"), dtype="uint8", channels=16,
        head_options={"hidden": 16, "proposals": 40}, scaling=torchfpn.Scaling.imagenet(),
    )  # fmt: skip
    made.save(path)
    return path


def run(*words):
    device = ["--device", "cpu"] if str(words[0]).endswith(".safetensors") else []
    return main(["evaluate", *map(str, words), *device])


@pytest.fixture
def data(tmp_path):
    return make_objects(tmp_path / "data", coco(OBJECTS), yaml=DETECTION)


def test_table_numbers_and_report_of_a_detector(data, tmp_path, capsys):
    model = tiny_detector(tmp_path / "model.safetensors")
    out = tmp_path / "scored"
    assert run(model, data, "--split", "train", "--json", tmp_path / "a.json", "--out", out) == 0
    held = json.loads((tmp_path / "a.json").read_text())
    assert (held["kind"], held["split"], held["images"], held["classes"]) == ("detection", "train", 2, list(CLASSES))
    assert "masks" not in held
    assert torchfpn.evaluate(model, data, split="train", device="cpu") == held
    assert held["boxes"]["objects"] == [2, 1]
    assert sum(held["objects_found"][name] for name in ("matched", "missed")) == 3
    assert [each["name"] for each in held["each_image"]] == ["a0.png", "a1.png"]
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("mean")).split()
    assert row == ["mean", *(f"{100 * held['boxes'][name]:.2f}" for name in ("ap", "ap50", "ap75", "ar100")), "3"]
    assert json.loads((out / "validation.json").read_text()) == held
    assert sorted(path.name[:8] for path in (out / "samples").iterdir()) == ["best-00-", "worst-00"]
    page = (out / "report.html").read_text()
    for words in ("detection</p>", "AP50, train", "Best and worst", "worst-00-a", "Precision and recall", "found,"):
        assert words in page, words


def test_masks_are_scored_where_there_are_masks(tmp_path, capsys):
    data = make_objects(tmp_path / "data", coco(OBJECTS))
    model = tiny_detector(tmp_path / "model.safetensors", "instance")
    assert run(model, data, "--split", "train", "--json", "-") == 0
    held = json.loads(capsys.readouterr().out)
    assert held["kind"] == "instance"
    assert held["masks"]["objects"] == held["boxes"]["objects"] == [2, 1]
    boxes = make_objects(tmp_path / "boxes", coco(OBJECTS), yaml=DETECTION)
    assert run(model, boxes, "--split", "train", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "detection"


def test_classes_are_found_by_name(data, tmp_path, capsys):
    """Another order of the categories changes nothing."""
    model = tiny_detector(tmp_path / "model.safetensors")
    assert run(model, data, "--split", "train", "--json", "-") == 0
    first = json.loads(capsys.readouterr().out)
    value = coco(OBJECTS)
    value["categories"] = value["categories"][::-1]
    other = make_objects(tmp_path / "other", value, yaml=DETECTION)
    assert run(model, other, "--split", "train", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == first


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--no-boundary"], "--no-boundary: has no effect on a detection model; leave it out"),
        (["--iou", "0.7"], "--iou: has no effect on"),
        (["--within", "a.tif"], "--within: has no effect on"),
        (["--classes", "a"], "--classes: has no effect on"),
        (["--max-detections", "10"], "--max-detections: 10; expected a number from 100"),
        (["--split", "trian"], 'did you mean "train"?'),
    ],
)
def test_flags_that_make_no_sense_are_one_line(data, tmp_path, capsys, words, said):
    model = tiny_detector(tmp_path / "model.safetensors")
    assert run(model, data, "--split", "train", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_a_model_of_other_classes_is_refused(data, tmp_path, capsys):
    model = tiny_detector(tmp_path / "model.safetensors", classes=("cell", "rod"))
    assert run(model, data, "--split", "train") == 2
    assert "only the dataset has dot; only the model has rod" in capsys.readouterr().err


def test_most_is_for_objects_alone(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.zeros(1))
    (tmp_path / "a.tif").write_bytes(b"")
    assert run(tmp_path / "a.tif", tmp_path / "a.tif", "--max-detections", "200") == 2
    assert "--max-detections: has no effect on label files against label files" in capsys.readouterr().err


# -- COCO results ------------------------------------------------------------------------------------------------------
def result(box, score, *, image=1, category=3, **more):
    x1, y1, x2, y2 = box
    return {"image_id": image, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score, **more}


PERFECT = [
    result((2, 3, 10, 9), 0.9),
    result((20, 10, 30, 20), 0.8, category=7),
    result((4, 12, 14, 22), 0.7, image=2),
]


def files(tmp_path, results, truth=None):
    (tmp_path / "truth.json").write_text(json.dumps(coco(OBJECTS) if truth is None else truth))
    (tmp_path / "results.json").write_text(results if isinstance(results, str) else json.dumps(results))
    return tmp_path / "results.json", tmp_path / "truth.json"


def test_results_against_annotations(tmp_path, capsys):
    assert run(*files(tmp_path, PERFECT), "--json", "-") == 0
    held = json.loads(capsys.readouterr().out)
    assert held["boxes"]["ap"] == 1
    assert torchfpn.evaluate(*files(tmp_path, PERFECT)) == held
    assert (held["kind"], held["split"], held["images"]) == ("detection", "all", 2)
    assert run(*files(tmp_path, PERFECT[:2]), "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["boxes"]["class_ap"] == [pytest.approx(51 / 101), 1]
    assert run(*files(tmp_path, []), "--out", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "validation.json").read_text())["boxes"]["ap"] == 0
    assert (tmp_path / "out" / "report.html").is_file()


def test_scores_of_nothing_are_dashes_and_null(tmp_path, capsys):
    """Neither an object nor a detection: every score is "-" in the table and the report, null in JSON."""
    paths = files(tmp_path, [], coco([]))
    assert run(*paths, "--out", tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "F1 -: 0 found, 0 missed, 0 false" in out
    assert "100.00" not in out
    held = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert held["unit"] == "fraction"
    assert held["objects_found"] == {"threshold": 0.5, "matched": 0, "missed": 0, "false": 0, "f1": None}
    assert [each["f1"] for each in held["each_image"]] == [None, None]
    single = [name for name, value in held["boxes"].items() if not isinstance(value, list)]
    assert {held["boxes"][name] for name in single} == {None}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "No object in 2 images, and none was found" in page
    assert "100.0" not in page.split("<body>")[1]


def test_results_with_masks_are_those_of_the_evaluator(tmp_path, capsys):
    """Polygons with fractions, drawn by COCO's rule; oracle: the evaluator on the same two files."""
    import faster_coco_eval as oracle

    rng = np.random.default_rng(0)
    truth, results = [], []
    for number in range(1, 13):
        points = rng.uniform(0, 24, (6, 2)).round(1) + np.array([number % 5, 0])
        low, high = points.min(0), points.max(0)
        box = (low[0], low[1], high[0], high[1])
        ring = points.reshape(-1).tolist()
        runs = oracle.mask.merge(oracle.mask.frPyObjects([ring], 24, 32))
        image = 1 + number % 2
        area = float(oracle.mask.area(runs))
        truth.append(record(number, box, image=image, segmentation=[ring], area=area, iscrowd=int(number == 12)))
        moved = oracle.mask.merge(
            oracle.mask.frPyObjects([(points + rng.uniform(-1, 1, 2)).reshape(-1).tolist()], 24, 32)
        )
        counts = moved["counts"].decode() if isinstance(moved["counts"], bytes) else moved["counts"]
        results.append(
            {
                "image_id": image,
                "category_id": 3,
                "score": float(rng.random()),
                "segmentation": {"size": [24, 32], "counts": counts},
            }
        )
    paths = files(tmp_path, results, coco(truth))
    assert run(*paths, "--json", "-") == 0
    held = json.loads(capsys.readouterr().out)
    known = oracle.COCO(str(paths[1]))
    theirs = oracle.COCOeval_faster(known, known.loadRes(str(paths[0])), "segm")
    theirs.run()
    names = ("ap", "ap50", "ap75", "ap_small")
    assert [held["masks"][name] for name in names] == pytest.approx(theirs.stats[:4].tolist(), abs=1e-12)
    assert 0 < held["masks"]["ap"] < 1


def test_a_file_with_names_is_matched_by_names(tmp_path, capsys):
    """As fpn predict writes it: its own ids, images and categories in another order."""
    whole = {
        "images": [{"id": 9, "file_name": "some/a1.png"}, {"id": 5, "file_name": "a0.png", "height": 24, "width": 32}],
        "categories": [{"id": 1, "name": "dot"}, {"id": 2, "name": "cell"}],
        "annotations": [
            result((2, 3, 10, 9), 0.9, image=5, category=2),
            result((20, 10, 30, 20), 0.8, image=5, category=1),
            result((4, 12, 14, 22), 0.7, image=9, category=2),
        ],
    }
    assert run(*files(tmp_path, whole), "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["boxes"]["ap"] == 1
    for change, said in (
        ({"images": [{"id": 5, "file_name": "b.png"}]}, "images[0]: 'b.png' is no image of truth.json"),
        ({"images": [{"id": 5, "file_name": "a0.png", "height": 1, "width": 1}]}, "24, as in the truth"),
        ({"categories": [{"id": 1, "name": "rod"}]}, "categories[0].name: 'rod'; expected one of cell, dot"),
        ({"images": None}, "no list of images with ids"),
    ):
        assert run(*files(tmp_path, whole | change)) == 2
        assert said in capsys.readouterr().err


def test_equal_scores_count_in_the_order_of_image_ids(tmp_path, capsys):
    """The images stand in the file in another order; oracle: COCO's evaluation of the same two files."""
    import faster_coco_eval as oracle

    truth = coco([record(1, (2, 3, 10, 9), image=5), record(2, (2, 3, 10, 9), image=2)], images=3)
    for image, number in zip(truth["images"], (9, 5, 2), strict=True):
        image["id"] = number
    wrong = (15, 3, 23, 9)
    results = [result(wrong, 0.5, image=9), result((2, 3, 10, 9), 0.5, image=5), result((2, 3, 10, 9), 0.5, image=2)]
    paths = files(tmp_path, results, truth)
    assert run(*paths, "--json", "-") == 0
    held = json.loads(capsys.readouterr().out)
    known = oracle.COCO(str(paths[1]))
    theirs = oracle.COCOeval_faster(known, known.loadRes(str(paths[0])), "bbox")
    theirs.run()
    assert held["boxes"]["ap"] == theirs.stats[0] == 1
    assert [(each["name"], each["false"]) for each in held["each_image"]] == [
        ("a0.png", 1),
        ("a1.png", 0),
        ("a2.png", 0),
    ]


def test_an_id_with_a_point_is_the_same_id(tmp_path, capsys):
    """Tables with gaps write whole numbers as 1.0: JSON's numbers have no type."""
    pointed = [
        {**each, "image_id": float(each["image_id"]), "category_id": each["category_id"] * 1.0} for each in PERFECT
    ]
    assert run(*files(tmp_path, pointed), "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["boxes"]["ap"] == 1
    whole = {
        "images": [{"id": float(i), "file_name": f"a{i - 1}.png"} for i in (1, 2)],
        "categories": [{"id": 3.0, "name": "cell"}, {"id": 7.0, "name": "dot"}],
        "annotations": PERFECT,
    }
    assert run(*files(tmp_path, whole), "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["boxes"]["ap"] == 1
    for number in (1.5, True):
        assert run(*files(tmp_path, [{**PERFECT[0], "image_id": number}])) == 2
        assert f"[0].image_id: {number}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"images": [{"id": 1, "file_name": "x/a0.png"}, {"id": 2, "file_name": "y/a0.png"}]},
            "images[1]: 'y/a0.png' is a0.png of truth.json, as images[0] is; write paths as the truth does",
        ),
        ({"images": [{"id": 1, "file_name": "a0.png"}, {"id": 1, "file_name": "a1.png"}]}, "images[1].id: 1 again"),
        ({"categories": [{"id": 3, "name": "cell"}, {"id": 7, "name": " cell"}]}, "categories[1]: the category"),
        ({"categories": [{"id": 3, "name": "cell"}, {"id": 3, "name": "dot"}]}, "categories[1].id: 3 again"),
    ],
)
def test_results_of_two_images_are_never_taken_for_one(tmp_path, capsys, change, said):
    whole = {
        "images": [{"id": i, "file_name": f"a{i - 1}.png"} for i in (1, 2)],
        "categories": [{"id": 3, "name": "cell"}, {"id": 7, "name": "dot"}],
        "annotations": PERFECT,
    }
    assert run(*files(tmp_path, whole | change)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


RUNS = {"size": [24, 32], "counts": [0, 768]}


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ("[", "not JSON: cut off"),
        ("3", 'a list of results, or an object with "images"'),
        ("[1]", "[0]: 1; expected an object"),
        ([{**PERFECT[0], "image_id": 17}], "[0].image_id: 17; expected the id of one of the truth's"),
        ([{**PERFECT[0], "image_id": "1"}], "[0].image_id: '1'"),
        ([PERFECT[0], {**PERFECT[0], "category_id": 4}], "[1].category_id: 4"),
        ([{**PERFECT[0], "score": None}], "[0].score: None; expected a finite number"),
        ([{**PERFECT[0], "score": 10**400}], "[0].score"),
        ("[" + json.dumps(PERFECT[0]).replace("0.9", "NaN") + "]", "[0].score: nan; JSON has no such number"),
        ([{**PERFECT[0], "bbox": [1, 2, -3, 4]}], "[0].bbox"),
        ([{**PERFECT[0], "bbox": [1, 2, 3]}, {**PERFECT[0], "bbox": []}], "[x, y, width, height] (and 1 more)"),
        ([{**PERFECT[0], "bbox": [1e300, 2, 3, 4]}], "[0].bbox"),
        ([{**PERFECT[0], "segmentation": {"size": [1, 1], "counts": "0"}}], "[0].segmentation.size"),
        ([{**PERFECT[0], "segmentation": {"size": [24, 32], "counts": [5]}}], "[0].segmentation.counts"),
        ([{**PERFECT[0], "segmentation": {"size": [24, 32], "counts": "zzzz"}}], "[0].segmentation.counts"),
        ([{**PERFECT[0], "segmentation": [[1, 2, 3, 4, 5, 6]]}], "[0].segmentation: no run lengths"),
        ([PERFECT[0], {**PERFECT[0], "segmentation": RUNS}], "in some results and not in others"),
    ],
)
def test_results_that_cannot_be_are_one_line_before_any_c_code(tmp_path, capsys, results, said):
    assert run(*files(tmp_path, results)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "results.json" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bbox": [1, 2, 0, 4]}, "annotations[0].bbox"),
        ({"segmentation": [[1, 2, 3]]}, "annotations[0].segmentation[0]"),
        ({"segmentation": None}, "annotations[0].segmentation: None"),
        ({"segmentation": [[1, 2, 3]], "iscrowd": 1}, "annotations[0].segmentation[0]"),
        ({"segmentation": {"size": [24, 32], "counts": "?"}, "iscrowd": 1}, "annotations[0].segmentation"),
    ],
)
def test_a_truth_that_cannot_be_is_one_line(tmp_path, capsys, change, said):
    results = [{**each, "segmentation": RUNS} for each in PERFECT]
    assert run(*files(tmp_path, results, coco([{**OBJECTS[0], **change}]))) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "truth.json" in error
    assert len(error.splitlines()) == 1


@needs_shared
def test_real_cells(tmp_path, capsys):
    """The truth of BCCD as results is perfect; an untrained model on a few of its images is not."""
    value = json.loads((DATA / "bccd" / "val" / "instances.json").read_text())
    results = [
        {key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 1.0} for a in value["annotations"]
    ]
    assert run(*files(tmp_path, results, value), "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["boxes"]["ap"] == 1
    few = value["images"][:3]
    names = [category["name"] for category in value["categories"]]
    kept = [a for a in value["annotations"] if a["image_id"] in {image["id"] for image in few}]
    folder = tmp_path / "few"
    (folder / "images").mkdir(parents=True)
    for image in few:
        source = DATA / "bccd" / "val" / "images" / image["file_name"]
        (folder / "images" / image["file_name"]).write_bytes(source.read_bytes())
    (folder / "instances.json").write_text(json.dumps(value | {"images": few, "annotations": kept}))
    (folder / "dataset.yaml").write_text(
        "task: detection\nsplits:\n  val: {images: images, annotations: instances.json}\n"
    )
    model = tiny_detector(tmp_path / "model.safetensors", classes=names)
    assert run(model, folder, "--json", "-") == 0
    held = json.loads(capsys.readouterr().out)
    assert sum(held["boxes"]["objects"]) == len(kept)
    assert 0 <= held["boxes"]["ap"] < 0.2
