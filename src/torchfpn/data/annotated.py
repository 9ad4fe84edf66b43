"""Splits whose images and objects a COCO file names: which files, which objects, and what is wrong with them."""

import functools
from pathlib import Path
from typing import NamedTuple

from torchfpn.data.annotations import Annotations
from torchfpn.data.coco import Coco, Wanted, in_classes, read_coco
from torchfpn.data.coco_records import Category
from torchfpn.data.dataset import Dataset
from torchfpn.data.listing import is_inside
from torchfpn.data.splits import Pair, Problem, Split
from torchfpn.errors import DataError
from torchfpn.files.formats import on_disk


def annotated_pairs(dataset: Dataset, split: str) -> tuple[list[Pair], list[Problem]]:
    """The images of a split in the order of its file, and what is wrong with it; nothing is, with `dataset.fix`.

    Raises:
        DataError: the file cannot be used at all.
    """
    coco = _read(dataset, split)
    file, found = coco.annotations.file, coco.annotations
    maps: list[Path | None] = [None] * len(found.names)
    if found.segments is not None:
        maps = [found.segments.folder / name for name in found.segments.maps]
    pairs = [
        Pair(found.folder / name, maps[i], tiles=dataset.tiles, annotations=file, number=i)
        for i, name in enumerate(found.names)
    ]
    problems = [] if dataset.fix else [Problem(file, str(flaw)) for flaw in coco.flaws]
    if not pairs and not problems:
        problems.append(Problem(file, f'no image in the split "{split}"'))
    return pairs, problems


def split_annotations(dataset: Dataset, split: str) -> Annotations | None:
    """The annotations of a split, labels as classes of the dataset; None where they are no COCO file.

    Raises:
        DataError: the file cannot be used at all.
    """
    return None if dataset.splits[split].annotations is None else _read(dataset, split).annotations


def split_dropped(dataset: Dataset, split: str) -> dict[str, int]:
    """What `dataset.fix` leaves out or cuts: {"images": 1, "annotations": 3, "boxes cut": 2}."""
    return {} if dataset.splits[split].annotations is None or not dataset.fix else _read(dataset, split).dropped


def read_categories(root: Path, split: Split, *, masks: bool) -> tuple[Category, ...]:
    """Those of the annotations of a split.

    Raises:
        DataError: the file cannot be used, or has no categories.
    """
    coco = _open(root, split, masks)
    if not coco.categories:
        raise DataError("no categories, so no classes", file=coco.annotations.file, field="categories")
    return coco.categories


def _read(dataset: Dataset, split: str) -> Coco:
    found = dataset.splits[split]
    coco = _open(dataset.root, found, dataset.task == "instance")
    classes = tuple(Category(c.id, c.name) for c in dataset.classes)
    return _fitted(_Same(coco), classes, dataset.ignored)


class _Same(NamedTuple):
    """A file as it was read, equal to itself alone."""

    coco: Coco

    def __hash__(self) -> int:
        return id(self.coco)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.coco is self.coco


@functools.lru_cache(8)
def _fitted(same: _Same, classes: tuple[Category, ...], ignored: tuple[int, ...]) -> Coco:
    """Every image of a check asks for it."""
    return in_classes(same.coco, classes, ignored)


def _open(root: Path, split: Split, masks: bool) -> Coco:
    path, folder = on_disk(root, str(split.annotations)), on_disk(root, str(split.images))
    for one in (path, folder):
        if not is_inside(root, one):
            raise DataError("leads out of the root of the dataset", file=one)
    if not folder.is_dir():
        raise DataError("no such folder", file=folder)
    maps = path.with_suffix("") if split.panoptic is None else on_disk(root, split.panoptic)
    return read_coco(path, Wanted(root, folder, masks, maps=maps, panoptic=split.panoptic is not None))
