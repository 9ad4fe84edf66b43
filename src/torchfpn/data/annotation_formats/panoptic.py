"""A panoptic dataset written as COCO panoptic annotations, with a dataset.yaml beside them; images stay where they are.

Each split becomes `panoptic_<split>.json` and a folder of PNGs of the same name. The PNG of a georeferenced image has a
side file of GDAL's (a.png.aux.xml) with its place. All files appear together when everything is written, or none does.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from torchfpn.data.config import NAME, SCENE_PIXELS, DatasetConfig, split_annotations
from torchfpn.data.labels.coco_annotations import Annotations
from torchfpn.data.labels.coco_panoptic_writing import CocoPanoptic, PanopticCategory, coco_panoptic
from torchfpn.data.labels.ground_truth import GroundTruth, truth_of_segments
from torchfpn.data.labels.load import read_ground_truth
from torchfpn.data.parallel import Watch, unwatched
from torchfpn.data.reading import read_picture, reading_windows, scene_of
from torchfpn.data.splits import Pair
from torchfpn.data.statistics import ClassCounts, ObjectCounts
from torchfpn.errors import ConfigError
from torchfpn.geo.georef import Geo
from torchfpn.geo.tiles import tile_geo
from torchfpn.io.atomic import atomic_path, make_directory
from torchfpn.io.formats import MAX_PIXELS
from torchfpn.types import Size

_HEAD = "# Written by `fpn panoptic-from`. Look at the contact sheet of\n#   fpn check {} --sheet sheet.png\n"


@dataclass(frozen=True)
class WrittenSplit:
    """What was written of a split.

    Attributes:
        images: how many.
        counts: pixels of each class.
        objects: things, with what overlaps and what is hidden.
    """

    name: str
    images: int
    counts: ClassCounts
    objects: ObjectCounts


def write_panoptic(
    dataset: DatasetConfig, out: str | Path, *, overwrite: bool = False, watch: Watch = unwatched
) -> tuple[WrittenSplit, ...]:
    """Writes the labelled splits of a panoptic dataset as COCO panoptic annotations, and a dataset.yaml.

    The categories are the classes, things first, with ids from 1. Splits without labels keep their images.

    Args:
        dataset: with `task: panoptic`.
        out: the folder; it is made if it is missing.
        overwrite: replace existing files.
        watch: shows the progress.

    Returns:
        What was written of each labelled split.

    Raises:
        ConfigError: no panoptic dataset, no labelled split, or files that exist.
        DataError: images or labels that cannot be used.
        WriteError: a file cannot be written.
    """
    if not dataset.is_panoptic:
        raise ConfigError(f"a dataset for {dataset.task}", file=dataset.file, field="task", allowed="panoptic")
    pairs = {name: dataset.pairs(name) for name in dataset.splits}
    labelled = {name: own for name, own in pairs.items() if any(p.objects or p.annotations for p in own)}
    if not labelled:
        raise ConfigError("no split with labels", file=dataset.file, field="splits")
    out = Path(os.path.realpath(out))
    if not overwrite:
        _refuse_existing(out, list(labelled))
    folders = {name: _common([pair.image.parent for pair in own]) for name, own in pairs.items() if own}
    categories = [PanopticCategory(i + 1, c.name, c.thing, c.color) for i, c in enumerate(dataset.classes)]
    with _no_empty_folders(out), contextlib.ExitStack() as files:
        make_directory(out)
        part = files.enter_context(atomic_path(out / NAME))  # entered first, so renamed last
        written = []
        for name, own in labelled.items():
            stem = f"panoptic_{name}"
            sink = files.enter_context(coco_panoptic(out / f"{stem}.json", out / stem, categories))
            written.append(_write_split(dataset, name, own, folders[name], sink, watch))
        text = _HEAD.format(out.name) + _description(dataset, out, folders, list(labelled))
        part.write_text(text, "utf-8")
    return tuple(written)


def _write_split(
    dataset: DatasetConfig, name: str, pairs: Sequence[Pair], folder: Path, sink: CocoPanoptic, watch: Watch
) -> WrittenSplit:
    annotations = split_annotations(dataset, name)
    counts, objects = ClassCounts.empty(len(dataset.classes)), ObjectCounts.none(len(dataset.classes))
    for number, pair in enumerate(watch(pairs, len(pairs)), 1):
        truth, geo = _read(dataset, pair, annotations)
        assert truth.segments is not None  # of panoptic datasets
        sink.add(number, _relative(pair.image, folder), truth.segments, geo=geo)
        counts += ClassCounts.of(truth.segments.semantic, len(dataset.classes))
        objects += _count(truth, len(dataset.things), len(dataset.classes))
    return WrittenSplit(name, len(pairs), counts, objects)


def _count(truth: GroundTruth, things: int, classes: int) -> ObjectCounts:
    """Counts of the objects as the map shows them."""
    assert truth.segments is not None  # of panoptic datasets
    counts = ObjectCounts.of_truth(truth_of_segments(truth.segments, things), classes)
    return replace(counts, overlapping=truth.overlapping, hidden=truth.hidden)


def _read(dataset: DatasetConfig, pair: Pair, annotations: Annotations | None) -> tuple[GroundTruth, Geo | None]:
    """The labels of a whole image where it has data, and its place on the earth."""
    size, valid, geo = _grid(dataset, pair)
    truth = read_ground_truth(dataset, pair, size, annotations)
    if geo is None and pair.tiles is not None:
        geo = tile_geo(pair.image, pair.tiles, size)
    return truth.where(valid), geo


def _grid(dataset: DatasetConfig, pair: Pair) -> tuple[Size, NDArray[np.bool_] | None, Geo | None]:
    """(height, width) of an image, its pixels with data (None: all), its georeference; scenes are read by windows."""
    header = scene_of(dataset, pair)
    if header is None:
        picture = read_picture(dataset, pair.image)
        return picture.size, picture.valid, picture.geo
    valid = np.ones(header.size, bool)
    for window in reading_windows(header):
        found = read_picture(dataset, pair.image, window).valid
        if found is not None:
            valid[window.slices] = found
    return header.size, valid, header.geo


def _refuse_existing(out: Path, splits: Sequence[str]) -> None:
    for name in [NAME, *(f"panoptic_{split}.json" for split in splits), *(f"panoptic_{split}" for split in splits)]:
        if (out / name).exists():
            raise ConfigError("already exists", file=out / name, hint="replace it with --overwrite")


@contextlib.contextmanager
def _no_empty_folders(out: Path) -> Iterator[None]:
    """Removes the folders that were made inside the block, and hold nothing, if it fails."""
    there = {path for path in out.rglob("*") if path.is_dir()} if out.is_dir() else set()
    existed = out.is_dir()
    try:
        yield
    except BaseException:
        made = [path for path in out.rglob("*") if path.is_dir() and path not in there] if out.is_dir() else []
        for path in [*sorted(made, reverse=True), *([] if existed else [out])]:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _common(folders: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([os.path.realpath(folder) for folder in folders]))


def _relative(path: Path, folder: Path) -> str:
    real = Path(os.path.realpath(path.parent)) / path.name
    return Path(os.path.relpath(real, folder)).as_posix()


def _description(dataset: DatasetConfig, out: Path, folders: dict[str, Path], labelled: Sequence[str]) -> str:
    """The text of dataset.yaml: how images are read, as before; the classes with the ids of the categories."""
    root = _common([out, *folders.values()])
    rows = [{"name": c.name, "id": i + 1, "color": list(c.color)} for i, c in enumerate(dataset.classes)]
    splits = {}
    for name, folder in folders.items():
        splits[name] = {"images": _relative(folder, root)}
        if name in labelled:
            splits[name]["annotations"] = _relative(out / f"panoptic_{name}.json", root)
    value = {
        "task": "panoptic",
        "root": Path(os.path.relpath(root, out)).as_posix(),
        "classes": rows,
        "things": list(dataset.things),
        **_reading(dataset),
        "splits": splits,
    }
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def _reading(dataset: DatasetConfig) -> dict[str, Any]:
    """The keys that say how images are read, where they differ from the defaults."""
    scaling = dataset.scaling
    method = None if dataset.scaling_method == "auto" else dataset.scaling_method
    numbers = scaling and {"offset": list(scaling.offset), "scale": list(scaling.scale)}
    tiles = next((pair.tiles for name in dataset.splits for pair in dataset.pairs(name) if pair.tiles), None)
    found = {
        "bands": list(dataset.bands),
        "use_bands": list(dataset.use_bands),
        "nodata": dataset.nodata,
        "scaling": numbers or method,
        "grey_as_color": dataset.grey_as_color,
        "max_pixels": dataset.max_pixels if dataset.max_pixels != MAX_PIXELS else None,
        "scene_pixels": dataset.scene_pixels if dataset.scene_pixels != SCENE_PIXELS else None,
        "tiles": tiles,
    }
    return {key: value for key, value in found.items() if value not in (None, [], False)}
