"""The scenes of the demo as a dataset on disk: GeoTIFFs side by side on the map, labels, dataset.yaml."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from torchfpn.demo.scenes import BANDS, CLASSES, COLORS, PIXEL, scene
from torchfpn.files.atomic import write_text
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

    numbered: the labels are the numbers of the buildings.
    """

    seed: int
    size: int
    row: int
    column: int
    image: Path
    label: Path
    numbered: bool = False

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
    folder.mkdir(parents=True, exist_ok=True)
    if task != "semantic":
        write_text(folder / "dataset.yaml", OBJECTS.format(pixel=PIXEL, task=task, bands=", ".join(BANDS)))
        return
    rows = [
        f'  - {{name: {name}, id: {i}, color: "#{r:02x}{g:02x}{b:02x}"}}'
        for i, (name, (r, g, b)) in enumerate(zip(CLASSES, COLORS, strict=True), start=1)
    ]
    text = YAML.format(pixel=PIXEL, classes="\n".join(rows), bands=", ".join(BANDS))
    write_text(folder / "dataset.yaml", text)


def make_sheets(
    sheets: list[Sheet], *, processes: int | None = None, meanwhile: Callable[[], object] | None = None
) -> Iterator[Sheet]:
    """Makes the files of all sheets; each is given back when it is there, in order.

    processes: how many at once, by default one per core, two at most. meanwhile: called while they work.
    """
    for sheet in sheets:
        sheet.image.parent.mkdir(parents=True, exist_ok=True)
        sheet.label.parent.mkdir(parents=True, exist_ok=True)
    count = min(2, os.cpu_count() or 1) if processes is None else processes
    if count <= 1:
        yield from map(make_sheet, sheets)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        made = [pool.submit(make_sheet, sheet) for sheet in sheets]
        if meanwhile is not None:
            meanwhile()
        for future in made:
            yield future.result()


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
    names, colors = dict(enumerate(CLASSES, start=1)), dict(enumerate(COLORS, start=1))
    write_label_raster(sheet.label, painted.labels, geo=geo, colors=colors, names=names, nodata=0)
    return sheet
