"""The command as people meet it: help at once, one line for every error, an exit code that means something."""

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely

import torchfpn.metrics
from file_events import failing_at
from made_maps import box, write_geojson
from tiny_model import tiny_task
from torchfpn.cli.main import VERBS, main
from torchfpn.errors import ConfigError, DataError

FPN = Path(sys.executable).with_name("fpn")


def test_help_answers_in_under_half_a_second():
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([FPN, "--help"], capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5
    assert all(f"  {verb} " in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help_without_torch(verb):
    words = f"c = main(['{verb}', '--help']); print('torch' in sys.modules); sys.exit(c)"
    code = f"import sys; from torchfpn.cli.main import main; {words}"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert time.perf_counter() - start < 3  # a loaded machine; alone it is below 0.5
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("False")
    assert f"fpn {verb}" in done.stdout


def test_no_words_and_help_words_show_the_verbs(capsys):
    for words in ([], ["-h"], ["--help"]):
        assert main(words) == 0
        assert "predict" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"torchfpn {torchfpn.__version__}\n"


def test_a_misspelt_verb_names_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == 'fpn: unknown command "trian"; did you mean "train"?\n'


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["info"], "model: missing; see fpn info --help"),
        (["evaluate"], "model, dataset: missing; see fpn evaluate --help"),
        (["info", "a", "b"], '"b"; expected no further argument; see fpn info --help'),
        (["info", "--jsn", "a"], '--jsn: unknown flag; did you mean "--json"?'),
        (["predict", "m", "a", "--out"], "--out: no value; expected one argument; see fpn predict --help"),
        (["predict", "m", "a", "--out", "b", "--batch-size", "x"], '--batch-size: "x"; expected a whole number'),
        (
            ["weights", "a", "--method", "ennet"],
            '--method: "ennet"; expected median-frequency | sqrt-median-frequency |',
        ),
        (["train", "--max_epohs", "3"], '--max-epohs: unknown flag; did you mean "--max-epochs"'),
        (["train", "--lr"], "--lr: no value; expected a number"),
        (["train", "--device", "cuda:1"], '--device: "cuda:1"; expected auto | cpu | cuda | gpu | mps; choose one of'),
    ],
)
def test_a_usage_error_is_one_line(capsys, words, told):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"fpn: {told}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_help_is_alike_in_every_verb(capsys, verb):
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--quiet", "--debug"))
    assert not re.search(r"default: (None|null|False)\b|Union\[|--[\w.]+_\w+", shown)


def test_underscores_are_as_good_as_hyphens(capsys):
    assert main(["rasterize", "no.geojson", "no.tif", "--out", "x", "--ignore_border", "-1"]) == 2
    assert "ignore-border" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_said_before_torch_is_imported():
    code = "import sys; from torchfpn.cli.main import main; print(main(['check', 'nowhere']), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n"
    assert done.stderr == "fpn: nowhere: no such file; expected a folder or a dataset.yaml\n"


def test_errors_are_one_line_and_debug_shows_the_trace(capsys, tmp_path, caplog):
    assert main(["info", str(tmp_path / "none.safetensors")]) == 2
    err = capsys.readouterr().err
    assert err == f"fpn: {tmp_path}/none.safetensors: no such file\n"
    assert main(["info", str(tmp_path / "none.safetensors"), "--debug"]) == 2
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        (["rasterize", "a.geojson", "a.tif", "--out", "x"], "shapely", "raster"),
        (["compare", "a.png", "--truth", "b.png", "--out", "x"], "rasterio", "raster"),
        (["train", "--dataset", "x"], "lightning", "train"),
        (["demo"], "lightning", "train"),
    ],
)
def test_a_missing_extra_is_said_before_anything_else(capsys, monkeypatch, words, package, extra):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    assert main(words) == 2
    told = f'fpn {words[0]} needs {package}, which is not installed; pip install "torchfpn[{extra}]"'
    assert capsys.readouterr().err == f"fpn: {told}\n"
    assert main([words[0], "--help"]) == 0


def test_what_needs_an_extra_says_so_before_its_work(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyogrio", None)
    assert main(["predict", "no.safetensors", "a.png", "--out", str(tmp_path / "x"), "--polygons", "geojson"]) == 2
    assert "--polygons needs pyogrio, which is not installed; pip install" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ConfigError, match=r"the score of objects needs faster_coco_eval.*torchfpn\[objects\]"):
        torchfpn.metrics.AveragePrecision(["cell"])


def reading_raises(error):
    """A context in which reading the file x.safetensors raises `error`."""
    return failing_at(0, error, event="open", pattern="x.safetensors")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "x.safetensors"
    tiny_task().save(path)
    return str(path)


def test_an_interrupt_has_its_code(model):
    with reading_raises(KeyboardInterrupt()):
        assert main(["info", model]) == 130


def test_bugs_are_not_hidden(model):
    with reading_raises(ZeroDivisionError()), pytest.raises(ZeroDivisionError):
        main(["info", model])


def test_a_data_error_keeps_its_parts(model, capsys):
    error = DataError("value 12", file="07.png", field="row 3, column 9", allowed="classes 0..10")
    with reading_raises(error):
        assert main(["info", model]) == 2
    assert capsys.readouterr().err == "fpn: 07.png: row 3, column 9: value 12; expected classes 0..10\n"


def hints():
    """(file, line, flags) of each hint in the source that names flags and no verb."""
    for path in sorted((Path(torchfpn.__file__).parent).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                parts = [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
                text = " ".join(part for part in parts if isinstance(part, str))
                flags = re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text)
                if flags and "pip install" not in text and "fpn " not in text:
                    yield path.name, node.value.lineno, flags


def test_every_flag_that_a_hint_names_is_one_of_some_verb(capsys):
    known = set()
    for verb in VERBS:
        main([verb, "--help"])
        known |= set(re.findall(r"--[a-z][a-z-]*[a-z]", capsys.readouterr().out.replace("_", "-")))
    found = list(hints())
    assert len(found) > 20
    assert [row for row in found if not known.issuperset(row[2])] == []


@pytest.mark.parametrize("words", [["weights"], ["train", "--dataset"], ["evaluate", "MODEL"], ["check"]])
def test_the_cure_for_a_vrt_is_one_that_the_verb_has(tmp_path, capsys, words):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "a.vrt").write_text("<VRTDataset></VRTDataset>")
    (tmp_path / "dataset.yaml").write_text(
        "classes: [a, b]\nsplits: {train: {images: images, labels: labels}, val: {images: images, labels: labels}}\n"
    )
    if "MODEL" in words:
        tiny_task(classes=("a", "b"), ids=(0, 1)).save(tmp_path / "model.safetensors")
    assert main([word.replace("MODEL", str(tmp_path / "model.safetensors")) for word in words] + [str(tmp_path)]) == 2
    told = capsys.readouterr()
    told = told.out + told.err
    assert ("--allow-vrt" in told) == (words == ["check"])
    assert ("gdal_translate FILE.vrt FILE.tif" in told) == (words != ["check"])


def test_the_cure_for_several_layers_of_known_is_not_the_flag_of_another_file(tmp_path, capsys):
    known, source = tmp_path / "known.gpkg", write_geojson(tmp_path / "p.geojson", [box(3, 3)])
    shapes = np.array([shapely.to_wkb(shapely.box(4e5, 5.8e6, 4e5 + 10, 5.8e6 + 10))], object)
    for name in ("a", "b"):
        pyogrio.raw.write(
            known, shapes, [], [], layer=name, crs="EPSG:32633", geometry_type="Polygon", append=known.exists()
        )
    flags = ["polygons", str(source), str(tmp_path / "out.gpkg"), "--exclude", str(known)]
    within = ["evaluate", str(source), str(source), "--within", str(known)]
    for words in (flags, within):
        assert main(words) == 2
        assert (
            "known.gpkg: 2 layers (a, b); write the one you mean to a file of its own: ogr2ogr"
            in capsys.readouterr().err
        )
