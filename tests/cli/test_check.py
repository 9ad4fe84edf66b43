"""fpn check as people run it."""

import json

import numpy as np
import pytest
from PIL import Image

from made_data import YAML, labels, make_dataset, picture, write_png
from made_objects import make_objects
from torchfpn.cli.console import FileProgress as Progress
from torchfpn.cli.main import main


def test_a_good_dataset(tmp_path, capsys):
    assert main(["check", str(make_dataset(tmp_path))]) == 0
    out, err = capsys.readouterr()
    for fact in ("train", "val", "grass", "road", "water", "24", "32", "red", "uint8", "ok: 5 images, no problems"):
        assert fact in out, fact
    assert err == ""


def test_json_is_all_there_is_on_stdout(tmp_path, capsys):
    make_dataset(tmp_path)
    (tmp_path / "val" / "images" / "a0.png").write_bytes(b"")
    assert main(["check", str(tmp_path / "dataset.yaml"), "--json"]) == 2
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["ok"] is False
    assert [p["file"] for p in report["problems"]] == [str(tmp_path / "val" / "images" / "a0.png")]
    assert (
        report["splits"]["train"]["pixels"]
        == np.bincount(np.concatenate([labels(i).ravel() for i in range(3)])).tolist()
    )
    assert len(report["bands"]) == 3
    assert "a0.png: empty file" in err


def test_twenty_bad_files_are_shown_and_the_rest_counted(tmp_path, capsys):
    make_dataset(tmp_path, train=30)
    for path in (tmp_path / "train" / "images").iterdir():
        path.write_bytes(b"GIF89a")
    assert main(["check", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert len(lines) == 22
    assert all(line.startswith("bad: ") for line in lines[:21])
    assert lines[20] == "bad: and 10 more (all of them: --json)"
    assert lines[21] == f"fpn: 30 bad files in {tmp_path / 'dataset.yaml'}"
    assert "ok:" not in out
    assert main(["check", str(tmp_path), "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 30


def test_contact_sheet_on_request_and_never_over_another_file(tmp_path, capsys):
    make_dataset(tmp_path / "set")
    sheet = tmp_path / "sheet.png"
    assert main(["check", str(tmp_path / "set")]) == 0
    assert not sheet.exists()
    assert main(["check", str(tmp_path / "set"), "--sheet", str(sheet)]) == 0
    with Image.open(sheet) as page:
        assert page.width > 600
    before = sheet.read_bytes()
    assert main(["check", str(tmp_path / "set"), "--sheet", str(sheet)]) == 2
    assert "sheet.png: already exists; replace it with --overwrite" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "set"), "--sheet", str(sheet), "--overwrite"]) == 0
    assert sheet.read_bytes() == before
    assert main(["check", str(tmp_path / "set"), "--sheet", str(tmp_path / "no" / "sheet.png")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_init_then_check(tmp_path, capsys):
    make_dataset(tmp_path, yaml="")
    assert main(["check", str(tmp_path)]) == 2
    assert f"fpn check --init {tmp_path}" in capsys.readouterr().err
    assert main(["check", "--init", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "3 classes (class0, class1, class2); train 3, val 2" in out
    assert main(["check", str(tmp_path)]) == 0
    assert main(["check", "--init", str(tmp_path)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["check", "--init", str(tmp_path), "--overwrite"]) == 0


def test_colour_masks_with_palette(tmp_path, capsys):
    rows = "[{name: a, color: [9, 0, 0]}, {name: b, color: [0, 9, 0]}, {name: c, color: [0, 0, 9]}]"
    make_dataset(tmp_path, yaml=YAML.replace("[grass, road, water]", rows))
    for path in tmp_path.glob("*/labels/*.png"):
        write_png(path, (np.eye(3, dtype="uint8") * 9)[labels(0)])
    assert main(["check", str(tmp_path)]) == 2
    assert "--palette" in capsys.readouterr().err
    assert main(["check", str(tmp_path), "--palette"]) == 0
    assert "#090000" in capsys.readouterr().out


def test_larger_pictures_are_let_in_by_the_flag(tmp_path, capsys):
    make_dataset(tmp_path, yaml=YAML + "max_pixels: 100\n")
    assert main(["check", str(tmp_path)]) == 2
    assert "--max-pixels" in capsys.readouterr().err
    assert main(["check", str(tmp_path), "--max-pixels", "768"]) == 0


@pytest.mark.parametrize("words", [["check"], ["check", "a", "--no-such-flag"]])
def test_usage_errors(words, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("fpn: ")
    assert error.count("\n") == 1


def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path, capsys):
    make_dataset(tmp_path, yaml=YAML.replace("grass", '"[red]:smile:[/]"'))
    assert main(["check", str(tmp_path)]) == 0
    assert "[red]:smile:[/]" in capsys.readouterr().out


def test_progress_passes_everything_on_and_speaks_on_stderr(monkeypatch, capsys):
    assert list(Progress("reading", interval=0)(iter("abc"), 3)) == ["a", "b", "c"]
    out, err = capsys.readouterr()
    assert out == ""
    assert "reading 2/3  " in err
    assert list(Progress("reading", quiet=True)(iter("abc"), 3)) == ["a", "b", "c"]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(Progress("reading")(iter("abc"), 3)) == ["a", "b", "c"]
    assert capsys.readouterr().out == ""


def test_picture_sizes_may_differ(tmp_path, capsys):
    make_dataset(tmp_path)
    write_png(tmp_path / "train" / "images" / "a0.png", picture(0, (40, 50)))
    write_png(tmp_path / "train" / "labels" / "a0.png", labels(0, (40, 50)))
    assert main(["check", str(tmp_path)]) == 0
    assert "24..40" in capsys.readouterr().out


def test_check_notes_the_files_of_the_folder_that_stand_in_no_list(tmp_path, capsys):
    make_dataset(tmp_path)
    text = (tmp_path / "dataset.yaml").read_text()
    names = sorted(path.stem for path in (tmp_path / "train" / "images").iterdir())
    (tmp_path / "some.txt").write_text("\n".join(names[1:]))
    (tmp_path / "train" / "images" / "broken.png").write_bytes(b"no image")
    (tmp_path / "dataset.yaml").write_text(text.replace("train/labels}", "train/labels, list: some.txt}"))
    assert main(["check", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 images of the folders stand in no list, not used: " in shown
    assert "train/images/broken.png" in shown
    (tmp_path / "some.txt").write_text("\n".join(names))
    (tmp_path / "train" / "images" / "broken.png").unlink()
    assert main(["check", str(tmp_path)]) == 0
    assert "in no list" not in capsys.readouterr().out


def test_check_notes_the_images_that_no_annotation_file_names(tmp_path, capsys):
    folder = make_objects(tmp_path, images=2)
    write_png(folder / "train" / "images" / "new.png", np.zeros((24, 32, 3), np.uint8))
    assert main(["check", str(folder)]) == 0
    told = "1 image of the folders stands in no list, not used: train/images/new.png"
    assert told in " ".join(capsys.readouterr().out.split())
