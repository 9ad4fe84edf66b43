"""What is no error in a dataset and yet worth a look before training on it."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchfpn.data.annotated import annotation_notes, listed, lost_line, split_losses
from torchfpn.data.dataset import Dataset
from torchfpn.data.each import spread
from torchfpn.data.facts import Facts
from torchfpn.data.listing import list_files, passed_over
from torchfpn.data.object_counts import ObjectCounts
from torchfpn.data.pairing import chosen_files
from torchfpn.data.polygon_facts import PolygonReport
from torchfpn.data.splits import Paths, Split
from torchfpn.data.statistics import ClassCounts
from torchfpn.data.windows import SIDE, scene_of
from torchfpn.errors import DataError, amount
from torchfpn.files.formats import printable
from torchfpn.files.labels import read_labels
from torchfpn.vectors.formats import is_vector

_SHOWN = 3
_LOOKED = 20  # label files that are looked at a second time


def notes(
    dataset: Dataset, facts: list[Facts], counts: dict[str, ClassCounts], polygons: Sequence[PolygonReport] = ()
) -> list[str]:
    """One line for each oddity. counts: of each split."""
    return [
        *_absent_classes(dataset, counts),
        *_byte_masks(dataset, facts, counts),
        *([] if dataset.has_objects else _unlabelled(facts)),
        *_without_data(facts),
        *_twins(facts),
        *_alpha(facts),
        *_band_names(facts),
        *_pages(facts),
        *_coarse(facts),
        *_beyond(facts),
        *_elsewhere(polygons),
        *_unclassed(dataset, polygons),
        *_unmet(facts),
        *_striped(dataset, facts),
        *_no_images(dataset),
        *_in_no_list(dataset),
    ]


def object_notes(dataset: Dataset, split: str, counts: ObjectCounts | None, dropped: dict[str, int]) -> list[str]:
    """The same of the objects of a split."""
    if counts is None:
        return []
    absent = [name for name, n in zip(dataset.names, counts.objects, strict=True) if n == 0]
    found = [f"{split}: no object of {_few(absent)}"] if absent and counts.images else []
    found += [f"{split}: {amount(counts.empty, 'image')} without an object, used as negatives"] if counts.empty else []
    if counts.scattered and counts.total == counts.images - counts.empty:
        one = f"{amount(counts.scattered, 'image')} with one number in several parts ({counts.parts:,} in all)"
        found.append(f"{split}: {one}, so one object each; if each part is an object: `labels_are: components`")
    if dropped:
        lost = lost_line(split_losses(dataset, split)) if dataset.splits[split].annotations else ""
        found.append(f"{split}: bad and left out or repaired, because of `fix`: {listed(dropped)}{lost}")
    return found + annotation_notes(dataset, split)


def _absent_classes(dataset: Dataset, counts: dict[str, ClassCounts]) -> list[str]:
    found = []
    for split, count in counts.items():
        if count.labelled:
            absent = [name for name, n in zip(dataset.names, count.pixels, strict=True) if n == 0]
            found += [f"{split}: no pixel of {_few(absent)}"] if absent else []
    return found


def _byte_masks(dataset: Dataset, facts: list[Facts], counts: dict[str, ClassCounts]) -> list[str]:
    """Masks of 0 and 255 read with the default ignore value: the class itself would be ignored."""
    total = sum((count.pixels[0] for count in counts.values()), 0)
    others = sum(count.labelled for count in counts.values()) - total
    if 255 in dataset.ignored and len(dataset.classes) == 2 and total and not others and _holds_255(dataset, facts):
        names = dataset.names
        return [f"255 means `not labelled` here; for masks of 0 and 255: classes: {{0: {names[0]}, 255: {names[1]}}}"]
    return []


def _holds_255(dataset: Dataset, facts: list[Facts]) -> bool:
    """Whether a label file has the value; pixels without image data are ignored as well."""
    labels = [f.pair.label for f in facts if f.counts.ignored and f.pair.label and not is_vector(f.pair.label)]
    if dataset.labels_are == "colors":
        return False
    limits: dict[str, Any] = {"max_pixels": dataset.max_pixels, "allow_vrt": dataset.allow_vrt, "root": dataset.root}
    return any((read_labels(label, **limits).values == 255).any() for label in spread(labels, _LOOKED))


def _unlabelled(facts: list[Facts]) -> list[str]:
    empty = [f for f in facts if f.pair.label is not None and f.counts.labelled == 0]
    return _files("without a single labelled pixel", empty)


def _without_data(facts: list[Facts]) -> list[str]:
    empty = [f for f in facts if f.seen is not None and f.seen.missing == f.seen.size[0] * f.seen.size[1]]
    return _files("without a single pixel of data", empty)


def _twins(facts: list[Facts]) -> list[str]:
    """The same pixels in two splits: a validation that knows its questions."""
    same: dict[bytes, list[Facts]] = defaultdict(list)
    for f in facts:
        if f.seen is not None:
            same[f.seen.digest].append(f)
    twins = [group for group in same.values() if len({f.split for f in group}) > 1]
    shown = [" = ".join(f"{f.split}/{printable(f.pair.image.name)}" for f in group[:_SHOWN]) for group in twins]
    return [f"{amount(len(twins), 'image')} in several splits: {_few(shown)}"] if twins else []


def _alpha(facts: list[Facts]) -> list[str]:
    numbers = sorted({f.seen.alpha for f in facts if f.seen is not None and f.seen.alpha is not None})
    return [
        f"band {n} is marked as alpha and taken for a mask; if it is data (near infrared?), name all bands in `bands`"
        for n in numbers
    ]


def _band_names(facts: list[Facts]) -> list[str]:
    names = {f.seen.bands for f in facts if f.seen is not None}
    if len(names) < 2:
        return []
    shown = [" ".join(each) for each in sorted(names)]
    return [f"bands have different names in different files: {_few(shown)}; name them in `bands`"]


def _pages(facts: list[Facts]) -> list[str]:
    files = {file: n for f in facts if f.seen is not None for file, n in f.seen.pages.items()}
    shown = [f"{printable(file.name)} ({n})" for file, n in files.items()]
    return (
        [f"{amount(len(files), 'file')} of several pages or pictures, of which the first is read: {_few(shown)}"]
        if files
        else []
    )


def _coarse(facts: list[Facts]) -> list[str]:
    """Values that differ by less than float32 can tell."""
    found = [f for f in facts if f.seen is not None and f.seen.moments.coarse(f.seen.bands)]
    if not found or found[0].seen is None:
        return []
    first = found[0].seen
    more = "" if len(found) == 1 else f" ({amount(len(found), 'image')} like it)"
    return [f"{printable(found[0].pair.image.name)}: {first.moments.coarse(first.bands)}{more}"]


def _beyond(facts: list[Facts]) -> list[str]:
    """Pixels that models take for no data, which nothing in the file says."""
    found = [f for f in facts if f.seen is not None and f.seen.moments.beyond]
    count = sum(f.seen.moments.beyond for f in found if f.seen is not None)
    files = _few([printable(f.pair.image.name) for f in found])
    verb, do = ("counts", "declare it as nodata") if count == 1 else ("count", "declare them as nodata")
    what = f"{amount(count, 'pixel')} with values beyond 2^64 {verb} as no data"
    return (
        [f"{what}, and the scaling leaves them out: {files}; {do}, or find the program that wrote them"]
        if count
        else []
    )


def _elsewhere(polygons: Sequence[PolygonReport]) -> list[str]:
    """Files of polygons that lie beside all images: mostly a coordinate system that is not theirs."""
    found = [printable(one.file.name) for one in polygons if one.features > one.empty and one.outside == one.features]
    return [f"polygons that overlap no image: {_few(found)}; check the coordinate systems"] if found else []


def _unclassed(dataset: Dataset, polygons: Sequence[PolygonReport]) -> list[str]:
    """Features without a class, which the dataset allows."""
    count = sum(one.unclassed for one in polygons)
    what = "left out" if dataset.polygons.without_class == "skip" else "not labelled"
    files = _few([printable(one.file.name) for one in polygons if one.unclassed])
    return [f"{amount(count, 'feature')} without a class, {what}: {files}"] if count else []


def _unmet(facts: list[Facts]) -> list[str]:
    return _files("that no polygon meets", [f for f in facts if f.met is not None and len(f.met) == 0])


def _striped(dataset: Dataset, facts: list[Facts]) -> list[str]:
    """Scenes of which a window costs whole rows."""
    found = []
    for f in facts:
        header = scene_of(dataset, f.pair)
        found += [f] if header is not None and header.striped and header.size[1] > 4 * SIDE else []
    names = _files("stored by rows, each crop reads whole rows", found)
    return [f"{line}; faster in tiles: gdal_translate -of COG" for line in names]


def _no_images(dataset: Dataset) -> list[str]:
    """Folders of images or labels that hold other files, too: mostly labels of a kind that is not read."""
    folders = {
        (dataset.root, paths)
        for split in dataset.splits.values()
        if split.annotations is None
        for paths in (split.images, split.labels)
        if paths is not None
    }
    files = sorted({file for root, paths in folders for file in _passed_over(root, paths)})
    names = [printable(file.relative_to(dataset.root)) for file in files]
    what = amount(len(names), "file that is not an image is", "files that are not images are")
    return [f"{what} skipped: {_few(names)}"] if names else []


def _in_no_list(dataset: Dataset) -> list[str]:
    """Images in folders of the dataset that neither a `list` nor a COCO file names, so that nobody looks at them."""
    there, read = set[Path](), set[Path]()
    for name, split in dataset.splits.items():
        try:
            folder, named = _named_images(dataset, name, split)
        except DataError:  # a problem, which is told
            return []
        there, read = there | folder, read | named
    names = sorted(printable(file.relative_to(dataset.root)) for file in there - read)
    stand = "stands" if len(names) == 1 else "stand"
    return (
        [f"{amount(len(names), 'image')} of the folders {stand} in no list, not used: {_few(names)}"] if names else []
    )


def _named_images(dataset: Dataset, name: str, split: Split) -> tuple[set[Path], set[Path]]:
    """The images in the folder that a split chooses from, and those it reads."""
    if split.stems is not None:
        return chosen_files(dataset.root, split)
    read = {pair.image for pair in dataset.list_pairs(name)[0]}
    if split.annotations is None or not isinstance(split.images, str):
        return set(), read
    return set(list_files(dataset.root, split.images).files.values()), read


def _passed_over(root: Path, paths: Paths) -> list[Path]:
    try:
        return passed_over(root, paths)
    except DataError:  # a problem, which is told
        return []


def _files(what: str, facts: list[Facts]) -> list[str]:
    names = [printable(f.pair.image.name) for f in facts]
    return [f"{amount(len(names), 'image')} {what}: {_few(names)}"] if names else []


def _few(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
