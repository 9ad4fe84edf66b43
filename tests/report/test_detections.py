"""The report of a detector, and its table for a terminal: the right numbers, nothing that is not there, no drift."""

import csv
import json

import pytest
from PIL import Image
from rich.console import Console

from made_detections import BOX, NAMES, OTHER, found, truth
from made_page import EVIL, Page
from torchfpn.errors import DataError
from torchfpn.evaluation.model import ObjectEvaluation
from torchfpn.metrics.detection import AveragePrecision
from torchfpn.report.html import write_report
from torchfpn.report.objects import picture_names
from torchfpn.report.run import parse_detection_scores
from torchfpn.report.tables import precision_table

pytest.importorskip("faster_coco_eval", reason="the evaluator is not installed")

TERMS = ("objectness", "anchors", "classes", "boxes")


def evaluation(*, masks=False, names=NAMES):
    """Two images: one all found, one of whose two objects one is missed, and a false detection. No rod anywhere."""
    scores = AveragePrecision(names, masks=masks)
    scores.update(found([BOX], [0.9], masks=masks), truth([BOX], masks=masks))
    scores.update(found([BOX, [0, 0, 4, 4]], [0.8, 0.7], [1, 0], masks=masks), truth([BOX, OTHER], [1, 1], masks=masks))
    colors = ((10, 20, 30), (40, 50, 60), (70, 80, 90))
    return ObjectEvaluation(scores.compute(), colors, ("in/good.png", "in/bad.png"), tuple(scores.matches()))


def make_run(folder, *, masks=False, names=NAMES):
    (folder / "samples").mkdir(parents=True)
    (folder / "validation.json").write_text(json.dumps(evaluation(masks=masks, names=names).to_dict("test")))
    terms = [*TERMS, *(["masks"] if masks else [])]
    scores = ["val/ap", "val/ap50", "val/ap75", *(["val/mask_ap", "val/mask_ap50"] if masks else [])]
    with (folder / "metrics.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        columns = [*(f"train/loss_{t}" for t in terms), *scores, *(f"val/ap_{name}" for name in names)]
        writer.writerow(["epoch", "step", "lr", "train/loss", *columns])
        for epoch, score in ((1, 0.2), (2, 0.6), (3, 0.4)):
            writer.writerow(
                [epoch, epoch, 0.1, 1 / epoch, *[0.1 / epoch] * len(terms), *[score] * (len(columns) - len(terms))]
            )
    for name in ("00-other", "worst-00-bad", "best-00-good"):
        Image.new("RGB", (20, 10)).save(folder / "samples" / f"{name}.png")
    return folder


@pytest.mark.parametrize("masks", [False, True])
def test_the_page_holds_kind_numbers_curves_and_the_worst_images(tmp_path, masks):
    page = Page(write_report(make_run(tmp_path / "run", masks=masks)).read_text())
    kind, first = ("instance segmentation", "mask AP, test") if masks else ("detection", "AP, test")
    assert f"{kind} run" in page.text
    ap = (1 + 51 / 101) / 2  # of cell: found before the false one; of dot: one of two; of rod nothing
    for words in (first, f"{100 * ap:.1f}", "2 best epoch", "No object of rod", "Precision and recall"):
        assert words in page.text, words
    worst, best = page.text.index("worst-00-bad: F1 66.7 %"), page.text.index("best-00-good: F1 100.0 %")
    assert worst < best < page.text.index("other", best)
    assert page.text.count("worst-00-bad") == 1
    assert "Of 3 objects in 2 images, 2 are found and 1 missed" in page.text
    assert page.tags.count("svg") == 7  # loss, AP, AP of classes, learning rate, terms, twice precision over recall
    assert page.tags.count("img") == 3
    assert "Confusion" not in page.text


def test_names_are_escaped(tmp_path):
    page = Page(write_report(make_run(tmp_path / "run", names=(EVIL, "dot", "rod"))).read_text())
    assert "script" not in page.tags
    assert page.text.count(EVIL) >= 3


def test_curves_alone_tell_the_kind(tmp_path):
    folder = make_run(tmp_path / "run", masks=True)
    (folder / "validation.json").unlink()
    assert "instance segmentation" in Page(write_report(folder).read_text()).text


@pytest.mark.parametrize(
    "change",
    [
        {"boxes": {}},
        {"classes": ["a"]},
        {"boxes": None},
        {"images": "many"},
        {"each_image": [{}]},
        {"masks": {"ap": 1}},
    ],
)
def test_a_damaged_file_is_named(tmp_path, change):
    folder = make_run(tmp_path / "run")
    file = folder / "validation.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DataError, match="not the scores of a run") as raised:
        write_report(folder)
    assert raised.value.file == file


@pytest.mark.parametrize("masks", [False, True])
def test_the_table_of_the_terminal_says_the_same(capsys, masks):
    scores = evaluation(masks=masks, names=("[cell]", "dot", "rod")).to_dict()
    Console(width=120).print(precision_table(scores))
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    half = f"{5100 / 101:.2f}"
    assert rows["[cell]"][:4] == ["100.00"] * 4
    assert rows["dot"][:4] == [half, half, half, "50.00"]
    assert set(rows["rod"][:-1]) == {"-"}
    assert rows["mean"][-1] == "3"
    assert len(rows["mean"]) == (7 if masks else 5)
    assert "left out of the mean (rod)" in out
    assert "2 found, 1 missed, 0 false" in out


def test_half_of_the_images_at_most_are_worst():
    names = picture_names(evaluation())
    assert names == {"worst-00-bad": 1, "best-00-good": 0}


def test_a_picture_belongs_to_the_image_of_its_name():
    scores = parse_detection_scores(evaluation().to_dict())
    assert scores.of_picture("worst-00-bad").name == "bad.png"
    assert scores.of_picture("worst-00-very-bad") is None
    assert scores.of_picture("bad") is None


def test_images_with_nothing_to_score_are_neither_best_nor_worst():
    scores = AveragePrecision(NAMES)
    scores.update(found([], []), truth([]))
    scores.update(found([BOX], [0.9]), truth([BOX]))
    scores.update(found([], []), truth([BOX]))
    colors = ((10, 20, 30), (40, 50, 60), (70, 80, 90))
    result = ObjectEvaluation(scores.compute(), colors, ("none.png", "good.png", "bad.png"), tuple(scores.matches()))
    assert picture_names(result) == {"00-none": 0, "worst-00-bad": 2, "best-00-good": 1}


def test_files_that_give_one_for_nothing_are_read_as_without_a_score():
    """validation.json of 0.1.0 holds an F1 of 1 where nothing was found and nothing was there."""
    data = evaluation().to_dict()
    data["objects_found"] = {"threshold": 0.5, "matched": 0, "missed": 0, "false": 0, "f1": 1.0}
    total = parse_detection_scores(data).total
    assert total.f1 is None
    assert total.line == "no object, and none was found"
