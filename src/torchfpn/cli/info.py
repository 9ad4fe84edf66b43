"""Prints the contents of a model file: task, classes, bands, scaling, architecture, size."""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


KINDS = {
    "semantic": "semantic segmentation",
    "detection": "detection",
    "instance": "instance segmentation",
    "panoptic": "panoptic segmentation",
    "features": "backbone and pyramid, no head",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("model", type=Path, help="a model.safetensors written by fpn train or task.save")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the recipe and what the architecture says of itself."""
    facts = model_facts(args.model)
    if args.json:
        print(json.dumps(facts, indent=2))
    else:
        _print(facts)
    return 0


def model_facts(path: Path) -> dict[str, Any]:
    """Everything that `fpn info` shows, as plain values.

    Raises:
        WeightsError: a file that is no model, or does not fit the architecture it names.
    """
    from dataclasses import asdict

    from torchfpn.io.model_files import read_recipe

    recipe, proven = read_recipe(path, whole=True)
    measures = recipe.measures if proven and recipe.measures else _measured(path)
    told = asdict(recipe)
    del told["measures"]
    if recipe.things:
        told["stuff"] = recipe.classes[len(recipe.things) :]
    return {"file": str(path), "bytes": path.stat().st_size, **told, **measures}


def _measured(path: Path) -> dict[str, Any]:
    """Measures of a file that does not say them, or whose recipe may have been changed: the model is built."""
    from torchfpn.tasks.storage import load_model, measured, read_task_file

    return measured(load_model(path), read_task_file(path)[1])


def _print(facts: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from torchfpn.report.console import Console

    console = Console()
    about = f"  {facts['bytes'] / 1e6:.1f} MB, {KINDS[facts['task']]}"
    console.print(Text.assemble((facts["file"], "bold"), about))
    console.print(_grid(_rows(facts)))
    bands = Table("band", "offset", "scale", title=f"scaling: {facts['scaling']['method']}", title_justify="left")
    for row in zip(facts["bands"], facts["scaling"]["offset"], facts["scaling"]["scale"], strict=True):
        bands.add_row(row[0], f"{row[1]:.6g}", f"{row[2]:.6g}")
    console.print(bands)
    things = len(facts["things"])
    columns = ["label", "in files", "class", *(["kind"] if things else []), "color"]
    classes = Table(*columns, title="classes", title_justify="left")
    for i, (name, value) in enumerate(zip(facts["classes"], facts["label_ids"], strict=True)):
        r, g, b = facts["colors"][i]
        color = Text.assemble(("    ", f"on rgb({r},{g},{b})"), f" #{r:02x}{g:02x}{b:02x}")
        kind = ["thing" if i < things else "stuff"] if things else []
        classes.add_row(str(i), str(value), name, *kind, color)
    if facts["classes"]:
        console.print(classes)
    if facts["source"]:
        console.print(_grid((_spaced(key), words(value)) for key, value in facts["source"].items()))


def _grid(rows: Iterable[tuple[str, str]]) -> "Table":
    """Names and what is said of them; lines that are too long go on below their beginning."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=10)
    grid.add_column()
    for name, said in rows:
        grid.add_row(name, said)
    return grid


def words(value: Any) -> str:
    """A plain value as people write it: no brackets, no quotes; "none" for nothing."""
    if isinstance(value, dict):
        return ", ".join(f"{_spaced(key)} {words(part)}" for key, part in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(words, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return str(value)


def _spaced(name: str) -> str:
    return str(name).replace("_", " ")


def _rows(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The architecture, and how images are shown to it."""
    total = sum(facts["parameters"].values())
    yield "parameters", f"{total:,}  ({', '.join(f'{k} {v:,}' for k, v in facts['parameters'].items())})"
    maps = {
        name: "; ".join(f"{channels} channels at 1/{stride}" for channels, stride in levels)
        for name, levels in facts["levels"].items()
    }
    for key, value in facts["model"].items():
        yield _spaced(key), f"{words(value)}: {maps.pop(key)}" if key in maps else words(value)
    yield from maps.items()  # of models whose recipe does not name the part
    if facts["task"] == "semantic":
        pixels = "the whole image" if facts["reach"] is None else f"at most {facts['reach']} pixels on every side"
        yield "receptive field", pixels
    if facts["things"]:
        yield "classes", f"{len(facts['things'])} of things, {len(facts['stuff'])} of stuff"
        yield "loss", facts["loss"]
    yield from _rules(facts["rules"])
    if facts["inputs"] is None:
        nodata = "no nodata value" if facts["nodata"] is None else f"nodata {facts['nodata']:g}"
        yield "trained on", f"{facts['dtype'] or 'unknown pixel type'}, {nodata}"
    else:
        from torchfpn.recipe import Inputs

        yield "range", Inputs(**facts["inputs"]).words()


def _rules(rules: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """How images are shown to the model, and how its masks are laid into them."""
    if resize := rules.get("resize"):
        sides = [f"the {name} side {resize[name]} pixels" for name in ("shorter", "longer") if resize.get(name)]
        yield "images", f"resized: {', or less for '.join(sides)}"
    if rules.get("grey_as_color"):
        yield "images", "a grey band is repeated to three"
    if "tiles" in rules:
        yield "tiles", f"located by their paths, {rules['tiles']}, if files have no georeference"
    if "masks" in rules:
        yield "masks", f"pasted as in {rules['masks']}"
    if merging := rules.get("panoptic"):
        yield "merging", words({name: f"{value:g}" for name, value in merging.items()})
