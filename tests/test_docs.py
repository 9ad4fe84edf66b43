"""What the README and the docs show runs as it stands, and what they point at is there."""

import re
from pathlib import Path

import pytest

from made_data import make_dataset

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


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
    from torchfpn.cli.main import VERBS

    for page in PAGES:
        used = set(re.findall(r"^fpn (\w+)", page.read_text(), re.M))
        assert used <= VERBS.keys(), f"{page.name}: {used - VERBS.keys()}"


def test_no_path_of_one_machine_and_no_registry_stands_in_the_text():
    for path in [*PAGES, *sorted((ROOT / "configs").rglob("*.yaml")), *sorted((ROOT / "benchmarks").glob("*"))]:
        text = path.read_text()
        assert not re.search(r"(^|[^A-Za-z0-9_.])/(work|root|home)/", text), path
        assert not re.search(r"https?://\S+/simple", text), path
