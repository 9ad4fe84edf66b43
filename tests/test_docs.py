"""What the README and the docs show runs as it stands, and what they point at is there."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from made_data import make_dataset
from torchfpn.cli.main import VERBS, main

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^(?P<mark><!-- not run: .+ -->\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```", re.M | re.S)
QUICK = {  # what makes a command of the docs take a second: later flags win
    "demo": ["--quick"],
    "train": shlex.split(
        "--max-epochs 1 --steps-per-epoch 1 --batch-size 2 --num-workers 0 --data.crop 64 --device cpu "
        "--model.backbone test_resnet --model.channels 8"
    ),
}
NOT_RUN = 4  # blocks of commands that need what a clone has not; raise it only for another such block


def blocks(page):
    """The blocks of Python."""
    return [fence["text"] for fence in FENCE.finditer(page.read_text()) if fence["language"] == "python"]


def command_blocks(page, *, marked):
    """The blocks of commands, each a list of lines: those that run in a clone, or those that are marked as not to."""
    found = []
    for fence in FENCE.finditer(page.read_text()):
        lines = fence["text"].replace("\\\n", " ").splitlines()
        commands = [line for line in lines if line.startswith("fpn ")]
        if commands and fence["language"] in ("", "sh") and bool(fence["mark"]) == marked:
            found.append(commands)
    return found


def run(line):
    """The exit code of a command of the docs, made small."""
    words = shlex.split(line, comments=True)[1:]
    return main([*words, *QUICK.get(words[0], [])])


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """A clone after the README's first commands: configs, the demo's data, three models, a prediction."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "configs", folder / "configs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("TORCHFPN_DATA", raising=False)
        for line in (
            "fpn demo --data data",
            "fpn train --config configs/demo.yaml",
            "fpn train --dataset data/instance --name houses",
            "fpn train --dataset data/panoptic --name segments",
            "fpn predict runs/demo/model.safetensors data/town/town.tif --out predictions --polygons geojson",
        ):
            assert run(line) == 0, line
    return folder


@pytest.mark.parametrize("page", [p for p in PAGES if command_blocks(p, marked=False)], ids=lambda p: p.name)
def test_commands_run_in_a_clone(page, kit, tmp_path, monkeypatch, capsys):
    if page == README:  # from the beginning
        shutil.copytree(ROOT / "configs", tmp_path / "configs")
    else:
        shutil.copytree(kit, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TORCHFPN_DATA", raising=False)
    for lines in command_blocks(page, marked=False):
        for line in lines:
            assert run(line) == 0, f"{line}\n{capsys.readouterr().err}"


def test_few_blocks_are_marked_as_not_to_be_run():
    assert sum(len(command_blocks(page, marked=True)) for page in PAGES) <= NOT_RUN


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "FOLDER")  # what the pages call their data set
    names = {}
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_verbs_in_the_text_exist():
    for page in PAGES:
        used = set(re.findall(r"^fpn (\w[\w-]*)", page.read_text(), re.M))
        assert used <= VERBS.keys(), f"{page.name}: {used - VERBS.keys()}"


def test_no_path_of_one_machine_and_no_registry_stands_in_the_text():
    for path in [*PAGES, *sorted((ROOT / "configs").rglob("*.yaml")), *sorted((ROOT / "benchmarks").glob("*.*"))]:
        text = path.read_text()
        assert not re.search(r"(^|[^A-Za-z0-9_.])/(work|root|home)/", text), path
        assert not re.search(r"https?://\S+/simple", text), path
        assert "../shared" not in text, path


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_config_whose_data_is_not_there_says_what_to_set(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TORCHFPN_DATA", raising=False)
    assert main(["train", "--config", str(config)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert ("data/semantic" if config.stem == "demo" else "export TORCHFPN_DATA=") in told


def test_the_first_lines_of_a_dataset_say_where_it_is_published():
    for path in sorted((ROOT / "configs" / "datasets").glob("*.yaml")):
        head = path.read_text().partition("task:")[0]
        assert all(line.startswith("#") for line in head.splitlines()), path
        assert "export TORCHFPN_DATA=DIR" in head, path
        assert "repository" in head or "published" in head.lower(), path
