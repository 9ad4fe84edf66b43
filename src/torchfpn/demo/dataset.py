"""The scenes of the demo as a dataset on disk: GeoTIFFs side by side on the map, labels, dataset.yaml."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from torchfpn.demo.scenes import BANDS, CLASSES, COLORS, PIXEL, scene
from torchfpn.errors import ConfigError
from torchfpn.files.atomic import make_directory, write_text
from torchfpn.files.geo import Geo

CRS = "EPSG:32759"  # UTM zone 59 south: the plains of Canterbury, where the sun stands in the north
WEST, NORTH = 570_000.0, 5_170_000.0  # metres, of the first scene
COLUMNS = 4  # scenes in a row on the map
YAML = """# made by `fpn demo`: aerial scenes that never were, at {pixel} m
task: semantic
classes:
{classes}
ignore_index: 0
bands: [{bands}]
splits:
  train: {{images: images/train, labels: labels/train}}
  val: {{images: images/val, labels: labels/val}}
"""
OBJECTS = """# made by `fpn demo`: aerial scenes that never were, at {pixel} m; every building has a number
task: {task}
classes: [building]
bands: [{bands}]
splits:
  train: {{images: images/train, labels: labels/train}}
  val: {{images: images/val, labels: labels/val}}
"""


@dataclass(frozen=True)
class Sheet:
    """One scene to be made: its seed, size and place in the grid, and its files.

    numbered: the labels are the numbers of the buildings. numbers: a second file of labels, for these numbers.
    """

    seed: int
    size: int
    row: int
    column: int
    image: Path
    label: Path
    numbered: bool = False
    numbers: Path | None = None

    def west_north(self) -> tuple[float, float]:
        """Its upper left corner, metres."""
        side = self.size * PIXEL
        return WEST + self.column * side, NORTH - self.row * side


def plan_dataset(folder: Path, *, seed: int, train: int, val: int, size: int, numbered: bool = False) -> list[Sheet]:
    """The sheets of a dataset in `folder`; each has a seed of its own, no two overlap on the map."""
    sheets = []
    for number in range(train + val):
        split, name = ("train", f"{number + 1:02d}") if number < train else ("val", f"{number - train + 1:02d}")
        row, column = divmod(number, COLUMNS)
        image, label = (folder / kind / split / f"scene-{name}.tif" for kind in ("images", "labels"))
        sheets.append(Sheet(1000 * seed + number, size, row, column, image, label, numbered))
    return sheets


def plan_map(folder: Path, *, seed: int, size: int, numbered: bool = False) -> Sheet:
    """The larger sheet, made from another seed, south of the dataset."""
    return Sheet(1000 * seed + 999, size, 8, 0, folder / "town.tif", folder / "truth.tif", numbered)


def describe_dataset(folder: Path, task: str = "semantic") -> None:
    """Writes dataset.yaml."""
    make_directory(folder)
    if task != "semantic":
        write_text(folder / "dataset.yaml", OBJECTS.format(pixel=PIXEL, task=task, bands=", ".join(BANDS)))
        return
    rows = [
        f'  - {{name: {name}, id: {i}, color: "#{r:02x}{g:02x}{b:02x}"}}'
        for i, (name, (r, g, b)) in enumerate(zip(CLASSES, COLORS, strict=True), start=1)
    ]
    text = YAML.format(pixel=PIXEL, classes="\n".join(rows), bands=", ".join(BANDS))
    write_text(folder / "dataset.yaml", text)


def make_data(folder: Path, *, seed: int, train: int, val: int, size: int, town: int, processes: int | None) -> None:
    """Writes the demo's data into a new `folder`, which appears whole or not at all.

    ``semantic/`` and ``instance/`` are datasets of the same scenes, ``town/`` a larger scene: town.tif, the classes of
    its pixels in truth.tif, the numbers of its buildings in houses.tif.

    Args:
        folder: absent, or empty.
        seed: of the scenes.
        train: scenes to train on.
        val: scenes to validate on.
        size: side of a scene, pixels.
        town: side of the town, pixels.
        processes: how many paint at once.

    Raises:
        ConfigError: something is in the folder.
    """
    refuse_filled(folder)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        sheets = plan_dataset(part / "semantic", seed=seed, train=train, val=val, size=size)
        numbers = part / "instance" / "labels"
        both = [
            replace(sheet, numbers=numbers / sheet.label.relative_to(part / "semantic" / "labels")) for sheet in sheets
        ]
        place = replace(plan_map(part / "town", seed=seed, size=town), numbers=part / "town" / "houses.tif")
        list(make_sheets([place, *both], processes=processes))
        shutil.copytree(part / "semantic" / "images", part / "instance" / "images")
        for task in ("semantic", "instance"):
            describe_dataset(part / task, task)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def refuse_filled(folder: Path) -> None:
    """Passes a folder that is absent or empty.

    Raises:
        ConfigError: something is in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("already exists", file=folder, field="--data", allowed="a new folder")


def make_sheets(
    sheets: list[Sheet], *, processes: int | None = None, meanwhile: Callable[[], object] | None = None
) -> Iterator[Sheet]:
    """Makes the files of all sheets; each is given back when it is there, in order.

    processes: how many at once, by default one per core, two at most. meanwhile: called while they work.
    """
    for sheet in sheets:
        make_directory(sheet.image.parent)
        make_directory(sheet.label.parent)
        if sheet.numbers is not None:
            make_directory(sheet.numbers.parent)
    count = min(2, os.cpu_count() or 1) if processes is None else processes
    if count <= 1:
        yield from map(make_sheet, sheets)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_leave_interrupts_to_parent) as pool:
        made = [pool.submit(make_sheet, sheet) for sheet in sheets]
        try:
            if meanwhile is not None:
                meanwhile()
            for future in made:
                yield future.result()
        except BaseException:  # Ctrl-C as well: what is not begun is not painted
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_sheet(sheet: Sheet) -> Sheet:
    """Paints one scene and writes its two files."""
    from torchfpn.files.rasters import import_rasterio, write_label_raster
    from torchfpn.raster.sink import write_bands

    painted = scene(sheet.seed, sheet.size)
    west, north = sheet.west_north()
    crs = import_rasterio().crs.CRS.from_user_input(CRS).to_wkt()
    geo = Geo(crs, (PIXEL, 0.0, west, 0.0, -PIXEL, north))
    write_bands(sheet.image, painted.image, names=BANDS, geo=geo)
    if sheet.numbered:
        write_bands(sheet.label, painted.numbers[None], names=("building",), geo=geo)
        return sheet
    if sheet.numbers is not None:
        write_bands(sheet.numbers, painted.numbers[None], names=("building",), geo=geo)
    names, colors = dict(enumerate(CLASSES, start=1)), dict(enumerate(COLORS, start=1))
    write_label_raster(sheet.label, painted.labels, geo=geo, colors=colors, names=names, nodata=0)
    return sheet
