"""Splits whose images and objects a COCO file names: which files, which objects, and what is wrong with them."""

import functools
from collections.abc import Mapping
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

_SHOWN = 6  # classes that a line names
_SINGULAR = {
    "annotations": "annotation",
    "areas": "area",
    "boxes cut": "box cut",
    "categories": "category",
    "images": "image",
    "polygons": "polygon",
    "segments": "segment",
}


def annotated_pairs(dataset: Dataset, split: str) -> tuple[list[Pair], list[Problem]]:
    """The images of a split in the order of its file, and what is wrong with it.

    With `dataset.fix`, bad annotations are no problem, unless a class would lose all it has.

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
    problems = [Problem(file, str(flaw), fixable=True) for flaw in coco.flaws]
    if dataset.fix:
        problems = [Problem(file, f"`fix` {line}") for line in _emptied(coco)]
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


def annotation_notes(dataset: Dataset, split: str) -> list[str]:
    """What is odd about the annotations of a split and no error: categories left out, crowds instead of objects."""
    if dataset.splits[split].annotations is None:
        return []
    coco = _read(dataset, split)
    names = [f'"{root.name}"' for root in coco.roots if root not in coco.categories]
    lines = (
        [f"{split}: without annotations and above other categories, so no class: {', '.join(names)}"] if names else []
    )
    crowd = coco.annotations.crowd
    if crowd.any() and 2 * crowd.sum() >= len(crowd):
        share = f"{crowd.sum():,} of {counted(len(crowd), 'annotations')}"
        marked = f"{share} marked `iscrowd: 1`, not used in training or scores"
        lines.append(f"{split}: {marked}; CVAT marks every mask so: `crowds: objects` reads them as objects")
    return lines


def fix_lines(dataset: Dataset, split: str) -> list[str]:
    """What `dataset.fix` would do to the annotations of a split, before it does."""
    if dataset.splits[split].annotations is None or dataset.fix:
        return []
    coco = _read(dataset, split)
    if not coco.flaws:
        return []
    return [f"{split}: --fix {line}" for line in _emptied(coco)] or [
        f"{split}: --fix leaves out or mends {listed(coco.dropped)}{lost_line(split_losses(dataset, split))}"
    ]


def split_losses(dataset: Dataset, split: str) -> dict[str, tuple[int, int]]:
    """By class, how many annotations of how many are bad and lost with `dataset.fix`."""
    return {category.name: lost for category, lost in _read(dataset, split).losses.items()}


def lost_line(losses: Mapping[str, tuple[int, int]]) -> str:
    """``: 3 of 12 annotations of "fish" are lost``; empty without losses."""
    parts = [f'{lost:,} of {counted(total, "annotations")} of "{name}"' for name, (lost, total) in losses.items()]
    more = f" and of {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return f"; lost: {', '.join(parts[:_SHOWN])}{more}" if parts else ""


def listed(dropped: Mapping[str, int]) -> str:
    """``3 annotations, 1 image, 2 boxes cut``."""
    return ", ".join(counted(count, what) for what, count in dropped.items())


def counted(count: int, what: str) -> str:
    """``1 annotation``, ``3 annotations``. what: the plural."""
    return f"{count:,} {_SINGULAR.get(what, what) if count == 1 else what}"


def _emptied(coco: Coco) -> list[str]:
    """The classes that would lose all they have."""
    return [
        f'would leave nothing of "{category.name}" ({counted(total, "annotations")}); repair them, or leave out the'
        f" class: name the others in `classes`, and `ignore_index: {category.id}`"
        for category, (lost, total) in coco.losses.items()
        if lost == total
    ]


def read_categories(root: Path, split: Split, *, masks: bool, crowds: bool, roots: bool) -> tuple[Category, ...]:
    """Those of the annotations of a split. masks, crowds: see `Wanted`. roots: also those that only group others.

    Raises:
        DataError: the file cannot be used, or has no categories.
    """
    coco = _open(root, split, masks, crowds)
    if not coco.categories:
        raise DataError("no categories, so no classes", file=coco.annotations.file, field="categories")
    return tuple(each for each in coco.categories if roots or each not in coco.roots) or coco.categories


def _read(dataset: Dataset, split: str) -> Coco:
    found = dataset.splits[split]
    coco = _open(dataset.root, found, dataset.task == "instance", dataset.crowds == "objects")
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


def _open(root: Path, split: Split, masks: bool, crowds: bool) -> Coco:
    path, folder = on_disk(root, str(split.annotations)), on_disk(root, str(split.images))
    for one in (path, folder):
        if not is_inside(root, one):
            raise DataError("leads out of the root of the dataset", file=one)
    if not folder.is_dir():
        raise DataError("no such folder", file=folder)
    maps = path.with_suffix("") if split.panoptic is None else on_disk(root, split.panoptic)
    panoptic = split.panoptic is not None
    return read_coco(path, Wanted(root, folder, masks, maps=maps, panoptic=panoptic, crowds=crowds))
