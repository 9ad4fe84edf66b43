"""What reaches the terminal: no control characters of other people's names, no endless lines; streams that fail."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from made_data import YAML, make_dataset, picture
from made_maps import box, write_geojson, write_map
from torchfpn.cli.main import VERBS, main
from torchfpn.errors import FPNError
from torchfpn.printing import visible
from torchfpn.report.console import Console

HOSTILE = "a\x1b]8;;http://x\x07\x1b[31mb\u202ec\x9bd\x00"  # a link, a colour, right-to-left, C1, zero
RAW = set("\x00\x07\x1b\x9b\u202e")


@given(st.text())
def test_visible_text_holds_nothing_that_acts_and_all_that_is_read(text):
    shown = visible(text)
    assert not RAW & set(shown)
    assert visible(shown) == shown
    shown.encode()  # no lone surrogates
    assert [c for c in text if c.isalnum()] == [c for c in text if c.isalnum() and c in shown]


def test_names_of_other_scripts_stay_as_they_are():
    text = "Straße 道路 \u0646\u06cc\u0645\u200c\u0641 👩\u200d🌾 a\tb\n"
    assert visible(text) == text
    assert visible("a\udcff\udce4") == r"a\xff\xe4"


@pytest.mark.parametrize("verb", ["check", "check --json", "weights", "weights --json"])
def test_class_names_of_a_dataset_are_spelt_out(tmp_path, capsys, verb):
    name = HOSTILE.replace("\0", "")
    make_dataset(tmp_path, yaml=YAML.replace("grass", json.dumps(name)))
    word, *more = verb.split()
    main([word, str(tmp_path), *more])
    out, err = capsys.readouterr()
    assert not RAW & set(out + err)
    assert "x1b" in out + err or "u001b" in out + err


def test_attributes_of_polygons_are_spelt_out(tmp_path, capsys):
    scene = write_map(tmp_path / "scene.tif")
    write_geojson(tmp_path / "a.geojson", [box(5, 5)], [HOSTILE.replace("\0", "")])
    words = ["rasterize", str(tmp_path / "a.geojson"), str(scene), "--field", "kind", "--out", str(tmp_path / "out")]
    main(words)
    out, err = capsys.readouterr()
    assert not RAW & set(out + err)
    assert "x1b" in out + err


@pytest.mark.parametrize("words", [["check", HOSTILE], [f"--{HOSTILE}"], ["info", "a", f"--{HOSTILE}"], [HOSTILE],
                                   ["train", f"--lr={HOSTILE}"], ["train", f"--{HOSTILE}", "1"],
                                   ["info", "a", " "]])  # fmt: skip
def test_flags_and_names_of_files_are_spelt_out_in_errors(words, capsys):
    for given_words in (words, [word.replace("\0", "") for word in words]):
        assert main(given_words) == 2
        out, err = capsys.readouterr()
        assert not RAW & set(out + err)
        assert err.count("\n") == 1


def test_a_long_error_is_one_line_that_is_cut_and_keeps_its_end(capsys):
    line = str(FPNError("x" * 100_000, file="a.tif", hint="copy it again"))
    assert len(line) < 3600
    assert line.startswith("a.tif: xxx")
    assert "characters left out" in line
    assert line.endswith("copy it again")
    assert main(["x" * 100_000]) == 2
    assert len(capsys.readouterr().err) < 3700


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_colours_by_itself_alone(terminal):
    sink = io.StringIO()
    console = Console(file=sink, force_terminal=terminal, width=200, color_system="standard" if terminal else None)
    table = Table("class")
    table.add_row(HOSTILE)
    console.print(table)
    console.print(HOSTILE, style="bold")
    printed = sink.getvalue()
    assert "\x1b]8" not in printed
    assert "\x1b[31m" not in printed
    assert not (RAW - {"\x1b"}) & set(printed)
    assert printed.count(r"\x1b[31mb\u202ec") == 2  # the cell is as wide as what is shown


def fpn(words, **options):
    code = f"import sys; from torchfpn.cli.main import main; sys.exit(main({words!r}))"
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False, **options)


def test_a_full_stdout_is_one_line_and_an_exit_code():
    with Path("/dev/full").open("w") as full:
        done = fpn(["--help"], stdout=full)
    assert done.returncode == 1
    assert done.stderr == "fpn: standard output: cannot be written to (No space left on device)\n"


def test_a_closed_stdout_is_one_line_and_an_exit_code(tmp_path):
    make_dataset(tmp_path)
    for words in (["--version"], ["check", str(tmp_path), "--json"]):
        code = f"import sys; from torchfpn.cli.main import main; sys.exit(main({words!r}))"
        shell = ["/bin/sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, code]
        done = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr == "fpn: standard output: cannot be written to (Bad file descriptor)\n"


def test_damaged_jpeg_data_in_a_tiff_is_a_counted_warning(tmp_path, capsys, caplog):
    image = np.moveaxis(picture(0, (256, 256)), -1, 0)
    tiles = {"tiled": True, "blockxsize": 128, "blockysize": 128}
    path = write_map(tmp_path / "a.tif", image, compress="jpeg", photometric="ycbcr", **tiles)
    with rasterio.open(path) as source:
        start, size = (int(source.get_tag_item(f"BLOCK_{key}_0_0", "TIFF", 1)) for key in ("OFFSET", "SIZE"))
    data = bytearray(path.read_bytes())
    data[start + size // 2 : start + size // 2 + 200] = bytes(200)
    path.write_bytes(data)
    truth = write_map(tmp_path / "truth.tif", np.zeros((1, 256, 256), np.uint8))
    assert main(["compare", str(path), "--truth", str(truth), "--out", str(tmp_path / "out")]) == 0
    told = [record.getMessage() for record in caplog.records if "rasterio" not in record.name]
    assert len(told) == 1
    assert f"{path}: 1 warning while it was read (Corrupt JPEG data" in told[0]
    assert not [record for record in caplog.records if record.name.startswith("rasterio")]


def test_zero_bytes_in_a_dataset_yaml_are_one_line(tmp_path, capsys):
    make_dataset(tmp_path, yaml=YAML.replace("train/images", r'"train/\0images"'))
    assert main(["check", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert r"the character '\x00'" in error


UNUSABLE = (
    "info FILE/x", "check FILE/x", "check DATA --sheet FILE/s.png", "convert FILE/a.pth b.safetensors",
    "polygons FILE/a.tif b.geojson", "polygons MAP FILE/b.geojson", "polygons MAP FOLDER --overwrite",
    "compare MAP --truth MAP --out FILE", "evaluate MAP MAP --json FILE/a.json",
)  # fmt: skip


@pytest.mark.parametrize("words", UNUSABLE)
def test_what_cannot_be_opened_or_written_is_one_line_with_its_name(tmp_path, capsys, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "data")
    write_map(tmp_path / "map.tif", np.zeros((1, 8, 8), np.uint8))
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.geojson").mkdir()
    places = {"FILE": "file", "DATA": "data", "MAP": "map.tif", "FOLDER": "folder.geojson"}
    for name, place in places.items():
        words = words.replace(name, place)
    before = sorted(tmp_path.rglob("*"))
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("fpn: ")
    assert error.count("\n") == 1
    assert "file" in error or "folder.geojson" in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_knows_no_utf8_gets_escapes(tmp_path, monkeypatch, encoding):
    """Help, tables, counts and errors of every verb; names that the terminal has no letters for are spelt out."""
    data = make_dataset(tmp_path / "größe 道", yaml=YAML.replace("grass", "Straße 道"))
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    for verb in VERBS:
        assert main([verb, "--help"]) == 0
        assert main([verb, "--größe-道"]) == 2
    for words in (["check"], ["check", "--json"], ["weights"], ["info"], ["evaluate", "道.tif"]):
        assert main([*words, str(data)]) == (0 if words[0] in ("check", "weights") else 2)
    shown = [stream.buffer.getvalue().decode(encoding) for stream in streams]
    for text in shown:
        assert r"\u9053" in text
        assert ("ß" in text) == (encoding == "latin-1")
