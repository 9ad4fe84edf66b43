"""report.html: one file, nothing fetched, everything escaped, the right numbers in it."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from made_page import EVIL, Page
from torchfpn.errors import DataError
from torchfpn.report.html import write_report
from torchfpn.report.run import parse_scores, read_run, write_about
from torchfpn.report.tables import class_table


def scores(names, confusion, **more):
    confusion = np.array(confusion)
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    iou = [float(h / u) if u else None for h, u in zip(confusion.diagonal(), union, strict=True)]
    known = [v for v in iou if v is not None]
    return {
        "classes": names, "colors": [[10, 20, 30]] * len(names), "confusion": confusion.tolist(), "iou": iou,
        "boundary_iou": [None if v is None else v / 2 for v in iou], "miou": sum(known) / max(1, len(known)),
        "pixel_accuracy": float(confusion.trace() / confusion.sum()), "split": "val",
    } | more  # fmt: skip


def make_run(folder, names=("road", "roof", "water"), confusion=((90, 10, 0), (20, 60, 0), (0, 0, 0)), **more):
    folder.mkdir(exist_ok=True)
    (folder / "validation.json").write_text(json.dumps(scores(list(names), confusion, **more)))
    with (folder / "metrics.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["epoch", "step", "lr", "train/loss", "val/loss", "val/miou", *(f"val/iou_{n}" for n in names)])
        for epoch in (1, 2, 3):
            validated = (
                [0.5 / epoch, 0.2 * epoch, *[0.1 * epoch] * len(names)] if epoch != 2 else [""] * (2 + len(names))
            )
            writer.writerow([epoch, 10 * epoch, 0.001 / epoch, 1 / epoch, *validated])
    (folder / "config.yaml").write_text("lr: 0.001\nmodel: {backbone: resnet18}\ndataset: roofs\nseed: 0\n")
    (folder / "env.json").write_text(
        json.dumps({"device": "cpu", "precision": "32-true", "packages": {"torch": "2.15.0"}})
    )
    (folder / "samples").mkdir(exist_ok=True)
    Image.new("RGBA", (40, 20), (1, 2, 3, 255)).save(folder / "samples" / "00-scene-7.png")
    return folder


def test_the_page_holds_numbers_curves_pictures_and_settings(tmp_path):
    path = write_report(make_run(tmp_path / "roofs-2"))
    assert path == tmp_path / "roofs-2" / "report.html"
    page = Page(path.read_text())
    for fact in (
        "roofs-2",
        "resnet18",
        "75.0",
        "83.3",
        "road",
        "water",
        "scene-7",
        "float32",
        "0.001",
        "2.15.0",
        "boundary",
    ):
        assert fact in page.text, fact
    assert "seed 0" in page.text
    assert "00-" not in page.text
    assert page.tags.count("svg") == 4  # loss, IoU, learning rate, confusion
    assert page.tags.count("img") == 1
    assert sum(name == "src" and value.startswith("data:image/webp;base64,") for name, value in page.attributes) == 1


def test_the_page_asks_nobody_for_anything(tmp_path):
    text = write_report(make_run(tmp_path)).read_text()
    page = Page(text)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert all(value.startswith("data:") for name, value in page.attributes if name in ("src", "href", "srcset"))
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_names_of_classes_runs_and_settings_are_escaped(tmp_path):
    folder = make_run(tmp_path / "a <b>&", names=[EVIL, "roof", "water"])
    (folder / "config.yaml").write_text(f"dataset: '{EVIL}'\n")
    (folder / "samples" / "01-<i>x.png").write_bytes((folder / "samples" / "00-scene-7.png").read_bytes())
    page = Page(write_report(folder).read_text())
    assert "script" not in page.tags
    assert page.text.count(EVIL) >= 3
    assert "a <b>&" in page.text


def test_shares_of_nothing_are_dashes(tmp_path):
    nothing = {"miou": None, "pixel_accuracy": None}
    with np.errstate(invalid="ignore"):
        folder = make_run(tmp_path / "none", confusion=np.zeros((3, 3), int), **nothing)
    rows = write_report(folder).read_text().split("<tbody>")[1].split("</tbody>")[0]
    assert "%" not in rows
    assert "0.0" not in rows
    one = make_run(tmp_path / "one", confusion=((1, 0, 0), (0, 0, 0), (0, 0, 0)))
    assert "<td>1</td><td></td></tr></tfoot>" in write_report(one).read_text()


def test_a_class_without_score_is_a_dash_and_left_out_of_the_mean(tmp_path):
    page = Page(write_report(make_run(tmp_path)).read_text())
    assert "Nothing to score (\N{EN DASH}), left out of the mean: water." in page.text
    mean = (90 / 120 + 60 / 90) / 2
    assert f"{100 * mean:.1f}" in page.text


def test_a_class_that_is_only_predicted_is_named(tmp_path):
    make_run(tmp_path, confusion=((90, 0, 10), (0, 60, 0), (0, 0, 0)))
    assert "Not in the truth, but predicted somewhere: water." in Page(write_report(tmp_path).read_text()).text


@pytest.mark.parametrize("count", [1, 2, 13, 40])
def test_any_number_of_classes_fits(tmp_path, count):
    names = [f"kind {'x' * (i % 40)}" for i in range(count)]
    confusion = np.random.default_rng(0).integers(0, 9, (count, count)) + 50 * np.eye(count, dtype=int)
    page = Page(write_report(make_run(tmp_path, names, confusion)).read_text())
    cells = [value for name, value in page.attributes if name == "class" and value in ("hit", "miss")]
    assert len(cells) == count**2


def test_scores_alone_or_curves_alone_are_enough(tmp_path):
    only = tmp_path / "scores"
    only.mkdir()
    (only / "validation.json").write_text(json.dumps(scores(["a", "b"], [[1, 0], [0, 2]], boundary_iou=None)))
    assert "100.0" in Page(write_report(only).read_text()).text
    curves = make_run(tmp_path / "curves")
    for name in ("validation.json", "config.yaml", "env.json"):
        (curves / name).unlink()
    page = Page(write_report(curves).read_text())
    assert page.tags.count("svg") == 3
    assert "Classes" not in page.text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("validation.json", "{"),
        ("validation.json", "[]"),
        ("validation.json", '{"classes": ["a"], "confusion": [[1, 2]], "iou": [1]}'),
        ("validation.json", '{"classes": ["a"], "confusion": [[1]], "iou": []}'),
        ("metrics.csv", "epoch,lr\n1,x\n"),
        ("config.yaml", "a: ["),
        ("env.json", "nonsense"),
        ("validation.json", '{"classes": ["a"], "confusion": [[Infinity]], "iou": [1]}'),
        ("metrics.csv", "epoch,lr\n1,\xff\n"),
        ("config.yaml", "a: \xff\n"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content):
    make_run(tmp_path)
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError) as raised:
        write_report(tmp_path)
    assert raised.value.file == tmp_path / name


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"neither metrics\.csv nor validation\.json"):
        read_run(tmp_path)


def test_the_table_of_the_terminal_says_the_same(capsys):
    found = parse_scores(scores(["[road]", "roof", "water"], ((90, 10, 0), (20, 60, 0), (0, 0, 0))))
    Console(width=100).print(class_table(found))
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert rows["[road]"] == ["75.00", "37.50", "81.82", "90.00", "100"]
    assert rows["water"] == ["-", "-", "-", "-", "0"]
    assert "left out of the mean (water)" in out


def test_the_report_says_when_how_long_how_many_and_how_large(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "about.json").write_text(
        json.dumps({"date": "2026-11-30T15:04:05+00:00", "seconds": 754.3, "parameters": 25_600_123,
                    "images": {"train": 1200, "val": 80}})
    )  # fmt: skip
    page = write_report(folder).read_text()
    for words in ("2026-11-30 15:04 UTC", "12 min 34 s", "1,200 in train, 80 in val", "25,600,123"):
        assert f"<dd>{words}</dd>" in page, words
    for seconds, shown in ((5.25, "5.2 s"), (59.99, "60.0 s"), (3600, "1 h 0 min"), (7384, "2 h 3 min")):
        write_about(folder, seconds=seconds, parameters=None, images={})
        page = write_report(folder).read_text()
        assert f"<dd>{shown}</dd>" in page
        assert "<dt>parameters</dt>" not in page
    (folder / "about.json").write_text(
        '{"date": 3, "seconds": "x", "images": {"train": "<b>", "val": 3}, "parameters": "<b>"}'
    )
    page = write_report(folder).read_text()
    assert "duration" not in page
    assert "<b>&" not in page
    assert "<dd>3 in val</dd>" in page


def test_notes_below_a_table_are_as_wide_as_the_terminal(capsys):
    found = parse_scores(
        scores(["a", "a class of a long name", "another one of a long name"], [[1, 0, 0]] + [[0] * 3] * 2)
    )
    Console(width=120).print(class_table(found))
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "-: nothing to score, left out of the mean (a class of a long name, another one of a long name)"
