"""The architecture as tables: floors, owners of heavy packages, sizes; no circles; imports in functions save time."""

import ast
import functools
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "torchfpn"
FLOORS = [  # bottom up: a folder imports lower floors and itself; folders of one floor do not import each other
    "printing deprecated",
    "errors",
    "recipe",
    "types geo",
    "ops",
    "io nn metrics",
    "classes backbones pyramids heads criteria",
    "vector",
    "sources",
    "data",
    "tasks",
    "config inference evaluation importers export",
    "report",
    "train",
    "demo",
    "cli",
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names.split()}
OWNERS = {  # package -> the folders that import it
    "timm": {"backbones"},
    "faster_coco_eval": {"metrics"},
    "lightning": {"train"},
    "jsonargparse": {"config"},
    "rasterio": {"io", "geo", "sources", "vector"},
    "shapely": {"io", "geo", "vector", "sources", "data", "evaluation", "inference", "metrics"},
    "pyogrio": {"io"},
    "jinja2": {"report"},
    "rich": {"printing", "report", "cli", "train"},
}
HEAVY = {  # packages that take long to import, or are optional: an import inside a function saves one of them
    "torch", "torchvision", "timm", "lightning", "rasterio", "shapely", "pyogrio", "faster_coco_eval", "jsonargparse",
    "numpy", "PIL", "rich", "jinja2", "yaml",
}  # fmt: skip
MAX_FILE, MAX_FOLDER = 600, 18


def modules():
    return sorted(SRC.rglob("*.py"))


def room(path):
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def is_empty(path):
    return path.name == "__init__.py" and len(path.read_text().splitlines()) < 6


def dotted(path):
    return ".".join(("torchfpn", *path.relative_to(SRC).with_suffix("").parts)).removesuffix(".__init__")


PATHS = {dotted(path): path for path in modules()}


@functools.cache
def imports(path):
    """(module or package, line, whether inside a function, whether for the type checker alone) of every import."""
    found = []

    def visit(node, inside, typing):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((alias.name, child.lineno, inside, typing) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                for alias in child.names:
                    full = f"{child.module}.{alias.name}"
                    found.append((full if full in PATHS else child.module, child.lineno, inside, typing))
            else:
                is_typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
                is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                visit(child, inside or is_function, typing or is_typing)

    visit(ast.parse(path.read_text()), False, False)
    return found


@functools.cache
def loads(module):
    """Heavy packages and own modules that importing `module` loads."""
    found, waiting = set(), [module]
    while waiting:
        one = waiting.pop()
        for name, _, inside, typing in imports(PATHS[one]):
            if inside or typing:
                continue
            package = name.split(".")[0]
            if package in HEAVY:
                found.add(package)
            parents = [name.rsplit(".", n)[0] for n in range(name.count(".") + 1)]
            for own in parents:
                if own in PATHS and own not in found and own != "torchfpn":
                    found.add(own)
                    waiting.append(own)
    return found


def by_path(path):
    return str(path.relative_to(SRC))


def test_every_folder_stands_on_a_floor():
    rooms = {room(path) for path in modules()} - {"__init__"}
    assert rooms <= FLOOR.keys(), f"no floor for {sorted(rooms - FLOOR.keys())}"


@pytest.mark.parametrize("path", modules(), ids=by_path)
def test_imports_go_down(path):
    here = room(path)
    if here == "__init__":
        return  # the public face names everything
    for name, line, _, _ in imports(path):
        if name.startswith("torchfpn."):
            there = name.split(".")[1]
            assert there == here or FLOOR[there] < FLOOR[here], f"line {line}: {here} may not import {there}"


def test_modules_do_not_import_each_other_in_circles():
    """Also not by imports inside functions, nor by those for the type checker."""
    edges = {
        name: {found for found, *_ in imports(path) if found in PATHS and found not in (name, "torchfpn")}
        for name, path in PATHS.items()
        if name != "torchfpn"
    }
    left = dict(edges)
    while done := [name for name, found in left.items() if not found & left.keys()]:
        for name in done:
            del left[name]
    assert not left, f"in or above a circle: {sorted(left)}"


@pytest.mark.parametrize("path", modules(), ids=by_path)
def test_packages_are_imported_by_their_owners(path):
    for name, line, _, _ in imports(path):
        owners = OWNERS.get(name.split(".")[0])
        assert owners is None or room(path) in owners, f"line {line}: {name} belongs in {sorted(owners)}"


@pytest.mark.parametrize("path", modules(), ids=by_path)
def test_an_import_inside_a_function_saves_a_heavy_package(path):
    if room(path) in ("__init__", "cli", "demo"):
        return  # these import what they use when they use it, for the time that a command needs to start
    here = loads(dotted(path))
    for name, line, inside, typing in imports(path):
        if not inside or typing or name.split(".")[0] in HEAVY:
            continue
        there = (loads(name) | {name}) if name in PATHS else set()
        saved = {package for package in there - here if package in HEAVY}
        assert saved or not name.startswith("torchfpn"), f"line {line}: import {name} at the top"


def test_files_and_folders_are_of_a_size():
    lines = {path: len(path.read_text().splitlines()) for path in modules()}
    assert not {by_path(path): n for path, n in lines.items() if n > MAX_FILE}
    folders = Counter(path.parent.relative_to(SRC).as_posix() for path in modules() if not is_empty(path))
    assert not {folder: n for folder, n in folders.items() if n > MAX_FOLDER}


@pytest.mark.parametrize("path", modules(), ids=by_path)
def test_files_are_opened_in_one_place(path):
    text = path.read_text()
    name = str(path.relative_to(SRC))
    if name not in ("io/rasters.py", "io/geotiff.py"):
        assert "rasterio.open(" not in text, "read rasters through torchfpn.io.rasters, write by torchfpn.io.geotiff"
    if name != "io/weights.py":
        assert "torch.load(" not in text, "read checkpoints through torchfpn.io.weights"
    if name != "report/console.py":
        assert not re.search(r"rich\.console import [^\n]*\bConsole\b|rich\.get_console|from rich import", text), (
            "print through torchfpn.report.console, which spells out control characters"
        )
    assert "weights_only=False" not in text
    assert "MAX_IMAGE_PIXELS = None" not in text
    if name != "io/atomic.py":
        found = re.search(r"((?<!rasterio\.)\bopen\([^)]*[\"'][wax]b?\+?[\"']|\.write_text\(|\.write_bytes\()", text)
        assert not found or "part" in text[max(0, found.start() - 40) : found.start() + 40], (
            f"{found and found.group()}: write through torchfpn.io.atomic"
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
    code = "import torchfpn.config, torchfpn.data.config, torchfpn.backbones.names"
    assert not heavy & loaded_by(code)
