"""The walls of the house: imports run down, heavy packages stay in their rooms, files are written in one way."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "torchfpn"
FLOORS = [
    "printing",
    "errors",
    "recipe_fields",
    "recipe",
    "types",
    "files ops",
    "nn vectors",
    "backbones pyramids heads criteria postprocess data metrics",
    "tasks",
    "config export importers raster report",
    "train",
    "demo",
    "cli",
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names.split()}
OWNERS = {  # package -> the only room that imports it
    "timm": {"backbones"},
    "faster_coco_eval": {"metrics"},
    "lightning": {"train"},
    "rasterio": {"files", "raster", "vectors"},
    "shapely": {"raster", "vectors"},
    "pyogrio": {"vectors"},
    "jinja2": {"report"},
}


def modules():
    return sorted(SRC.rglob("*.py"))


def room(path):
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imported(path):
    """Every absolute module name that the file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def test_every_room_stands_on_a_floor():
    rooms = {room(path) for path in modules()} - {"__init__"}
    assert rooms <= FLOOR.keys(), f"no floor for {sorted(rooms - FLOOR.keys())}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SRC)))
def test_no_import_runs_up(path):
    here = room(path)
    if here == "__init__":
        return  # the face names everything
    for name in imported(path):
        if not name.startswith("torchfpn."):
            continue
        there = name.split(".")[1]
        assert there == here or FLOOR[there] < FLOOR[here], f"{here} may not import {there}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SRC)))
def test_packages_stay_in_their_rooms(path):
    for name in imported(path):
        owners = OWNERS.get(name.split(".")[0])
        assert owners is None or room(path) in owners, f"{name} belongs in {owners}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SRC)))
def test_files_are_opened_in_one_place(path):
    text = path.read_text()
    name = str(path.relative_to(SRC))
    if name != "files/rasters.py":
        assert "rasterio.open(" not in text, "open rasters through torchfpn.files.rasters"
    if name not in ("files/checkpoints.py", "train/checkpoint_io.py"):
        assert "torch.load(" not in text, "read checkpoints through torchfpn.files.checkpoints"
    if name != "report/console.py":
        assert not re.search(r"rich\.console import [^\n]*\bConsole\b|rich\.get_console|from rich import", text), (
            "print through torchfpn.report.console, which spells out control characters"
        )
    assert "weights_only=False" not in text
    assert "MAX_IMAGE_PIXELS = None" not in text
    if name != "files/atomic.py":
        found = re.search(r"(\bopen\([^)]*[\"'][wax]b?\+?[\"']|\.write_text\(|\.write_bytes\()", text)
        assert not found or "part" in text[max(0, found.start() - 40) : found.start() + 40], (
            f"{found and found.group()}: write through torchfpn.files.atomic"
        )


def test_every_module_says_what_it_is_for():
    for path in modules():
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def loaded_by(code):
    script = f"import sys\n{code}\nprint(' '.join(m for m in sys.modules if '.' not in m))"
    return set(
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    )


def test_the_face_and_the_command_import_nothing_heavy():
    heavy = {"torch", "torchvision", "timm", "lightning", "rasterio", "matplotlib", "numpy"}
    assert not heavy & loaded_by("import torchfpn, torchfpn.cli.main; torchfpn.cli.main.main(['--help'])")


def test_settings_are_read_without_torch():
    heavy = {"torch", "torchvision", "timm", "lightning", "rasterio", "matplotlib"}
    code = "import torchfpn.config, torchfpn.data.dataset, torchfpn.backbones.names"
    if (SRC / "backbones" / "__init__.py").exists():
        assert not heavy & loaded_by(code)
