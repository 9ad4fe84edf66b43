"""The pins: the same in both places, for every direct dependency, and without an address."""

import re
import tomllib
from pathlib import Path

import torchfpn

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = (ROOT / "constraints.txt").read_text().splitlines()


def name_of(requirement):
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")


def test_both_lists_are_one():
    assert PROJECT["tool"]["uv"]["constraint-dependencies"] == PINS


def test_every_direct_dependency_is_pinned():
    project = PROJECT["project"]
    groups = [*project["optional-dependencies"].values(), PROJECT["dependency-groups"]["dev"]]
    wanted = project["dependencies"] + [name for group in groups for name in group]
    assert {name_of(w) for w in wanted} - {"torchfpn"} <= {name_of(pin) for pin in PINS}


def test_the_packages_of_extras_are_imported():
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    named = {
        name_of(w).replace("-", "_") for group in PROJECT["project"]["optional-dependencies"].values() for w in group
    }
    for name in named - {"torchfpn", "tensorboard"}:  # lightning imports tensorboard
        assert re.search(rf"(import|from) {name}\b", source), name


def test_no_address_stands_in_the_pins():
    assert not [pin for pin in PINS if "://" in pin or "@" in pin]
    assert not (ROOT / "uv.lock").exists() or "uv.lock" in (ROOT / ".gitignore").read_text().split()


def test_version_is_the_changelogs_newest():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[(\d.*?)\]", text, re.M).group(1) == torchfpn.__version__ == PROJECT["project"]["version"]
