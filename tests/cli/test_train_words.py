"""The words of `fpn train`: pyramid, head, fusion and bands from YAML and flags, refused early, trained and used."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
import yaml

import torchfpn
from made_data import labels, write_png, write_tiff
from torchfpn.cli.main import main
from torchfpn.config.parsing import load_config, read_config, to_yaml
from torchfpn.errors import ConfigError
from train.tiny import rows

NAMES = ("nir", "red", "swir", "green", "blue")
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 5e6), "photometric": "MINISBLACK"}
DATASET = {
    "task": "semantic",
    "classes": ["grass", "road", "water"],
    "splits": {s: {"images": f"{s}/images", "labels": f"{s}/labels"} for s in ("train", "val")},
}
TINY = """
dataset: data
max_epochs: 1
steps_per_epoch: 2
batch_size: 2
num_workers: 0
accelerator: cpu
precision: 32-true # fpn evaluate computes so, too
model: {backbone: test_resnet, channels: 8, head_channels: 8}
data: {crop: 32}
"""


def make(folder, *, names=NAMES, **changes):
    """A dataset of five bands, in which green and blue say what is there and infrared the rest."""
    for split, count in (("train", 3), ("val", 1)):
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True)
        for i in range(count):
            target = labels(i, (33, 40))
            noise = np.random.default_rng(i).integers(1, 100, (5, 33, 40))
            image = (noise + 300 * (target == 1) + np.arange(5)[:, None, None] * 200 * (target == 2)).astype(np.uint16)
            after = {"descriptions": names} if names else {}
            write_tiff(folder / split / "images" / f"{i}.tif", image, **after, **PLACE)
            write_png(folder / split / "labels" / f"{i}.png", target)
    (folder / "dataset.yaml").write_text(yaml.safe_dump(DATASET | changes, sort_keys=False))
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with a dataset of five bands and `tiny.yaml`."""
    make(tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*flags):
    return main(["train", "--config", "tiny.yaml", *flags])


def trained(here, name="tiny"):
    return torchfpn.load(here / "runs" / name / "model.safetensors")


WORDS = [
    ("model.pyramid", "panet", "pyramid", "panet"),
    ("model.head", "concat", "head", "concat"),
    ("model.fusion", "fusenet", "fusion", "fusenet"),
    ("model.rgb", "[red, green, blue]", "rgb", ["red", "green", "blue"]),
    ("model.rgb", "[3, 2, 1]", "rgb", [3, 2, 1]),
    ("model.rgb", "[3, green, 1]", "rgb", [3, "green", 1]),
    ("model.rgb", "null", "rgb", None),
    ("model.band_init", "zero", "band_init", "zero"),
    ("model.band_init", "{nir: red, 5: blue}", "band_init", {"nir": "red", 5: "blue"}),
    ("model.options.points", "[1, 2, 3, 4]", "options", {"points": [1, 2, 3, 4]}),
    ("model.options.strides", "[4, 8]", "options", {"strides": [4, 8]}),
    ("model.options.output_stride", "8", "options", {"output_stride": 8}),
    ("model.options.extra", "conv-c5", "options", {"extra": "conv-c5"}),
    ("model.options.pyramid_options", "{norm: group}", "options", {"pyramid_options": {"norm": "group"}}),
    ("model.options.pyramid_options.act", "false", "options", {"pyramid_options": {"act": False}}),
    (
        "model.options.head_options",
        "{classifier: bottleneck, mode: nearest}",
        "options",
        {"head_options": {"classifier": "bottleneck", "mode": "nearest"}},
    ),
]


@pytest.mark.parametrize(("flag", "text", "field", "expected"), WORDS)
def test_a_word_is_read_from_a_flag_and_comes_back_from_yaml(here, flag, text, field, expected):
    other = ("--model.band_init", "copy") if field == "rgb" else ()  # which alone reads it
    found = read_config(["--config", "tiny.yaml", f"--{flag}", text, *other]).config
    assert getattr(found.model, field) == expected
    (here / "again.yaml").write_text(to_yaml(found))
    assert load_config("again.yaml").model == found.model


@pytest.mark.parametrize(("flag", "text", "field", "expected"), WORDS)
def test_a_word_is_read_from_a_file(here, flag, text, field, expected):
    document = yaml.safe_load(text)
    for key in reversed(flag.split(".")):
        document = {key: document}
    if field == "rgb":
        document["model"]["band_init"] = "copy"  # which alone reads it
    (here / "words.yaml").write_text(yaml.safe_dump({"dataset": "data"} | document))
    assert getattr(load_config("words.yaml").model, field) == expected


def test_options_of_file_and_flag_are_joined(here):
    (here / "words.yaml").write_text("dataset: data\nmodel: {options: {points: [1, 2], strides: [4, 8]}}\n")
    found = read_config(["--config", "words.yaml", "--model.options.points", "[1]", "--model.options.extra", "pool"])
    assert found.config.model.options == {"points": [1], "strides": [4, 8], "extra": "pool"}


WRONG = [
    ("model.head", "sun", 'model.head: "sun"; expected sum | concat | finest | two-stage; did you mean "sum"?'),
    ("model.pyramid", "pannet", 'model.pyramid: "pannet"; expected fpn | panet | simple; did you mean "panet"?'),
    ("model.fusion", "fusenett", 'none | fusenet | late; did you mean "fusenet"?'),
    (
        "model.band_init",
        "zerro",
        'model.band_init: "zerro"; expected repeat | mean | copy | zero; did you mean "zero"?',
    ),
    ("model.band_init", "{nir: redd}", 'model.band_init.nir: "redd"; expected red | green | blue; did you mean "red"?'),
    ("model.rgb", "red", "model.rgb: "),
    ("model.options.points", "4", "model.options.points: 4; expected a list, each a whole number or null"),
    ("model.options.strides", "[a]", "model.options.strides: ['a']; expected a list, each a whole number or null"),
    ("model.options.output_stride", "[8]", "model.options.output_stride: [8]; expected a whole number"),
    (
        "model.options.extra",
        "pol",
        "model.options.extra: 'pol'; expected pool | conv | conv-c5 or null; did you mean \"pool\"?",
    ),
    ("model.options.head_options", "3", "model.options.head_options: 3; expected lines of `key: value` or null"),
]


@pytest.mark.parametrize(("name", "text", "told"), WRONG)
def test_a_word_that_cannot_be_is_told_in_one_line_from_flag_and_file(here, name, text, told):
    document = yaml.safe_load(text)
    for key in reversed(name.split(".")):
        document = {key: document}
    (here / "words.yaml").write_text(yaml.safe_dump({"dataset": "data"} | document))
    for flags in (["--config", "tiny.yaml", f"--{name}", text], ["--config", "words.yaml"]):
        with pytest.raises(ConfigError) as caught:
            read_config(flags)
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)


def test_misspelt_words_are_told_before_torch_is_imported(here):
    flags = [(name, text) for name, text, _ in WRONG[:5]]
    script = (
        "import sys; from torchfpn.cli.main import main\n"
        f"codes = [main(['train', '--config', 'tiny.yaml', '--' + name, text]) for name, text in {flags!r}]\n"
        "print(codes, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{[2] * len(flags)} False"
    told = done.stderr.splitlines()
    assert len(told) == len(flags)
    for line, (_, _, expected) in zip(told, WRONG, strict=False):
        assert line.startswith("fpn: model.")
        assert expected in line
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    "rgb", ["[2, 4, 5]", *(pytest.param(rgb, marks=pytest.mark.slow) for rgb in ("null", "[red, green, blue]"))]
)
def test_fusenet_is_trained_predicts_and_tells_what_it_is(here, capsys, rgb):
    points = ("--model.options.points", "[1, 2, 3, 4]")
    assert train("--model.fusion", "fusenet", "--model.rgb", rgb, *points) == 0
    task = trained(here)
    assert task.model.backbone.split.main.tolist() == [1, 3, 4]
    assert (task.recipe.model["rgb"], task.recipe.model["points"]) == ([1, 3, 4], [1, 2, 3, 4])
    assert task.recipe.bands == NAMES
    model, image = "runs/tiny/model.safetensors", "data/val/images/0.tif"
    capsys.readouterr()
    assert main(["info", model]) == 0
    shown = capsys.readouterr().out
    assert all(fact in shown for fact in ("fusenet", "1, 3, 4", "1, 2, 3, 4", "nir", "1/32"))
    assert main(["info", model, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["model"]["fusion"] == "fusenet"
    assert [stride for _, stride in facts["levels"]["backbone"]] == [4, 8, 16, 32]
    assert sum(facts["parameters"].values()) == sum(p.numel() for p in task.model.parameters())
    assert main(["predict", model, image, "--out", "out", "--device", "cpu"]) == 0
    with rasterio.open(image) as source, rasterio.open("out/0.tif") as answer:
        expected = task.predict(torch.from_numpy(source.read().astype(np.float32))[None])[0].labels
        assert np.array_equal(answer.read(1), expected.numpy())
    capsys.readouterr()
    assert main(["evaluate", model, "data", "--json", "-", "--device", "cpu"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["miou"] == json.loads((here / "runs" / "tiny" / "validation.json").read_text())["miou"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--model.pyramid", "panet", "--model.head", "concat", "--model.options.pyramid_options", "{norm: batch}"],
        ["--model.head", "concat", "--model.options.head_options", "{norm: none, act: false, mode: nearest}"],
        ["--model.head", "finest", "--model.options.output_stride", "8"],
        ["--model.backbone", "test_vit", "--model.pyramid", "simple", "--loss.deep_supervision", "0.4"],
        ["--model.options.extra", "conv-c5", "--model.options.strides", "[8, 16]", "--loss.deep_supervision", "1"],
        ["--model.fusion", "late", "--freeze", "stem"],
        ["--model.band_init", "{nir: red}"],
    ],
)
def test_every_word_is_trained_and_its_model_scores_what_the_training_said(here, capsys, flags):
    assert train(*flags) == 0
    (row,) = rows(here / "runs" / "tiny")
    scores = json.loads((here / "runs" / "tiny" / "validation.json").read_text())
    capsys.readouterr()
    model = "runs/tiny/model.safetensors"
    assert main(["evaluate", model, "data", "--json", "-", "--no-boundary", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["miou"] == scores["miou"]
    assert float(row["val/miou"]) == pytest.approx(scores["miou"], abs=0.2)
    assert main(["info", model]) == 0
    assert "Traceback" not in capsys.readouterr().err
    config = load_config("runs/tiny/config.yaml")
    given = read_config(["--config", "tiny.yaml", *flags]).config.model
    assert config.model == replace(given, pretrained=False)  # there are no published weights on this machine


def widened(folder, capsys):
    """What `fpn train` put into the first convolution of five bands."""
    task = torchfpn.load(folder / "runs" / "tiny" / "model.safetensors")
    capsys.readouterr()
    return next(m for m in task.model.modules() if isinstance(m, torch.nn.Conv2d)).weight


@pytest.mark.parametrize(
    ("named", "given"), [("{nir: red, swir: blue}", {}), ("{1: red, 3: blue}", {"bands": list(NAMES)})]
)
def test_bands_begin_as_the_colours_given_by_name_or_by_number_from_1(here, capsys, named, given):
    (here / "data" / "dataset.yaml").write_text(yaml.safe_dump(DATASET | given, sort_keys=False))
    assert train("--model.band_init", named, "--model.rgb", "[2, 4, 5]", "--freeze", "backbone", "--ema", "0") == 0
    wide = widened(here, capsys)
    assert torch.equal(wide[:, 0], wide[:, 1])  # nir as red
    assert torch.equal(wide[:, 2], wide[:, 4])  # swir as blue
    assert not torch.equal(wide[:, 0], wide[:, 2])


@pytest.mark.parametrize(("use_bands", "rgb", "split"), [
    ("[5, 1, 2, 4]", "[2, 4, 5]", [2, 3, 0]),
    ("[blue, nir, red, green]", "[red, green, blue]", [2, 3, 0]),
])  # fmt: skip
def test_numbers_are_those_of_the_files_also_where_some_bands_are_used(here, use_bands, rgb, split):
    assert train("--data.use_bands", use_bands, "--model.rgb", rgb, "--model.fusion", "fusenet") == 0
    task = trained(here)
    assert task.recipe.bands == ("blue", "nir", "red", "green")
    assert task.model.backbone.split.main.tolist() == split


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--model.rgb", "[1, 2, 6]"], "model.rgb: band 6; expected one of 1, 2, 3, 4, 5"),
        (["--model.rgb", "[0, 1, 2]"], "model.rgb: band 0; expected 1 to the last"),
        (["--model.rgb", "[red, green, bleu]"], "rgb: there is no band 'bleu'"),
        (["--model.rgb", "[2, 4, 4]"], "rgb: [1, 3, 3] of 5 bands"),
        (
            ["--data.use_bands", "[1, 2, 3, 4]", "--model.rgb", "[2, 4, 5]"],
            "model.rgb: band 5; expected one of 1, 2, 3, 4",
        ),
        (["--data.use_bands", "[2, 4, 5]"], "fusion: 3 bands; expected more than red, green and blue; fusion=none"),
        (["--model.band_init", "zero"], "expected repeat | mean | {band: colour}"),
        (["--model.band_init", "{6: red}"], "model.band_init: band 6; expected one of 1, 2, 3, 4, 5"),
        (["--model.options.points", "[1, 9]"], "points: [1, 9]; expected some of 1, 2, 3, 4, 5"),
        (["--model.options.fusion", "late"], "model.options.fusion: unknown option"),
        (["--model.options.head_options", "{mod: nearest}"], "head_options.mod: sum has no such option"),
        (["--model.head", "finest", "--model.pyramid", "panet"], "head=sum"),
    ],
)
def test_bands_and_options_that_cannot_be_are_told_in_one_line(here, capsys, flags, told):
    assert train("--model.fusion", "fusenet", *flags) == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert "Traceback" not in shown
    assert not list((here / "runs").glob("*/model.safetensors"))


def test_bands_without_names_must_be_told_apart(here, capsys):
    make(here / "plain", names=())
    assert train("--dataset", "plain", "--model.fusion", "fusenet") == 2
    assert "rgb: none given, and no bands red, green, blue among" in capsys.readouterr().err
    assert train("--dataset", "plain", "--model.fusion", "fusenet", "--model.rgb", "[2, 4, 5]") == 0
    assert trained(here).model.backbone.split.main.tolist() == [1, 3, 4]


def test_resuming_with_other_bands_or_points_is_refused(here, capsys):
    assert train("--model.fusion", "fusenet") == 0
    for flags, told in (
        (["--model.rgb", "[5, 4, 2]"], "last.ckpt: rgb: [1, 3, 4]; expected that of the config: [4, 3, 1]"),
        (["--model.options.points", "[1, 5]"], "points: [1, 2, 3, 4, 5]; expected that of the config: [1, 5]"),
        (["--model.fusion", "late"], "tensors do not fit"),
    ):
        capsys.readouterr()
        assert train("--model.fusion", "fusenet", "--resume", "--max_epochs", "2", *flags) == 2
        assert told in capsys.readouterr().err
