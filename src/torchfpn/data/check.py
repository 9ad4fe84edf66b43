"""`fpn check`: every file inspected; problems, warnings and counts.

What is no error in a dataset and yet worth a look before training on it.

Looking at every file of a dataset before anything is trained on it: what is bad, what is odd, what there is.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from torchfpn.data.config import (
    DatasetConfig,
    annotation_notes,
    counted,
    fix_lines,
    listed,
    lost_line,
    split_annotations,
    split_dropped,
    split_losses,
)
from torchfpn.data.files import chosen_files, list_files, passed_over
from torchfpn.data.inspection import (
    Facts,
    PolygonReport,
    Seen,
    gather,
    look,
    polygon_reports,
    problem_of,
    unmet_polygons,
)
from torchfpn.data.parallel import Watch, each, spread, unwatched
from torchfpn.data.reading import SIDE, Piece, grey_cure, pieces, scene_of, swapped
from torchfpn.data.splits import Paths, Problem, Split
from torchfpn.data.statistics import ClassCounts, ObjectCounts
from torchfpn.errors import DataError, amount
from torchfpn.io.formats import is_vector, printable
from torchfpn.io.labels import read_labels

_SHOWN = 3

_LOOKED = 20  # label files that are looked at a second time


def notes(
    dataset: DatasetConfig, facts: list[Facts], counts: dict[str, ClassCounts], polygons: Sequence[PolygonReport] = ()
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


def object_notes(dataset: DatasetConfig, split: str, counts: ObjectCounts | None, dropped: dict[str, int]) -> list[str]:
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


def _absent_classes(dataset: DatasetConfig, counts: dict[str, ClassCounts]) -> list[str]:
    found = []
    for split, count in counts.items():
        if count.labelled:
            absent = [name for name, n in zip(dataset.names, count.pixels, strict=True) if n == 0]
            found += [f"{split}: no pixel of {_few(absent)}"] if absent else []
    return found


def _byte_masks(dataset: DatasetConfig, facts: list[Facts], counts: dict[str, ClassCounts]) -> list[str]:
    """Masks of 0 and 255 read with the default ignore value: the class itself would be ignored."""
    total = sum((count.pixels[0] for count in counts.values()), 0)
    others = sum(count.labelled for count in counts.values()) - total
    if 255 in dataset.ignored and len(dataset.classes) == 2 and total and not others and _holds_255(dataset, facts):
        names = dataset.names
        return [f"255 means `not labelled` here; for masks of 0 and 255: classes: {{0: {names[0]}, 255: {names[1]}}}"]
    return []


def _holds_255(dataset: DatasetConfig, facts: list[Facts]) -> bool:
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


def _unclassed(dataset: DatasetConfig, polygons: Sequence[PolygonReport]) -> list[str]:
    """Features without a class, which the dataset allows."""
    count = sum(one.unclassed for one in polygons)
    what = "left out" if dataset.polygons.without_class == "skip" else "not labelled"
    files = _few([printable(one.file.name) for one in polygons if one.unclassed])
    return [f"{amount(count, 'feature')} without a class, {what}: {files}"] if count else []


def _unmet(facts: list[Facts]) -> list[str]:
    return _files("that no polygon meets", [f for f in facts if f.met is not None and len(f.met) == 0])


def _striped(dataset: DatasetConfig, facts: list[Facts]) -> list[str]:
    """Scenes of which a window costs whole rows."""
    found = []
    for f in facts:
        header = scene_of(dataset, f.pair)
        found += [f] if header is not None and header.striped and header.size[1] > 4 * SIDE else []
    names = _files("stored by rows, each crop reads whole rows", found)
    return [f"{line}; faster in tiles: gdal_translate -of COG" for line in names]


def _no_images(dataset: DatasetConfig) -> list[str]:
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


def _in_no_list(dataset: DatasetConfig) -> list[str]:
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


def _named_images(dataset: DatasetConfig, name: str, split: Split) -> tuple[set[Path], set[Path]]:
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


TRAIN, VALIDATE = "train", "val"  # the splits that a training reads


@dataclass(frozen=True)
class BandReport:
    """One band over the good images of all splits. low, high, mean, std: of its valid pixels; None without any."""

    name: str
    low: float | None
    high: float | None
    mean: float | None
    std: float | None


@dataclass(frozen=True)
class SplitReport:
    """The good images of one split. heights, widths: the smallest and the largest. missing: share without data.

    objects: in datasets of objects. dropped: what the dataset leaves out of its annotations, counted.
    """

    name: str
    images: int
    counts: ClassCounts
    heights: tuple[int, int]
    widths: tuple[int, int]
    missing: float
    objects: ObjectCounts | None = None
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckReport:
    """What `check` found. problems: what must be mended before training. notes: what is worth a look.

    polygons: of each file of polygons that is used. fix: of each split with bad annotations, what `fix` would do.
    """

    dataset: DatasetConfig
    splits: tuple[SplitReport, ...]
    bands: tuple[BandReport, ...]
    dtypes: dict[str, int]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    polygons: tuple[PolygonReport, ...] = ()
    fix: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the dataset can be trained on as it is."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON; every problem, not only the first 20."""
        return {
            "ok": self.ok,
            "dataset": str(self.dataset.file),
            "task": self.dataset.task,
            "classes": [{"name": c.name, "id": c.id, "color": list(c.color)} for c in self.dataset.classes],
            "splits": {split.name: _split_dict(split) for split in self.splits},
            "bands": [vars(band) for band in self.bands],
            "dtypes": self.dtypes,
            "polygons": [{**vars(one), "file": str(one.file)} for one in self.polygons],
            "fix": list(self.fix),
            "problems": [{"file": str(p.file), "problem": p.line} for p in self.problems],
            "notes": list(self.notes),
        }


def check(
    dataset: DatasetConfig, *, watch: Watch = unwatched, splits: Sequence[str] | None = None, most: int | None = None
) -> CheckReport:
    """Reads every file of every split, whatever is wrong with others, and reports on all of it.

    splits: only these. most: of more images and windows of scenes, as many evenly spread; the notes then say so.
    """
    if splits is not None:
        dataset = replace(dataset, splits={name: dataset.splits[name] for name in splits})
    listed, problems = _listed(dataset)
    work = listed if most is None else spread(listed, most)
    facts = list(gather(dataset, work, each(lambda item: look(dataset, *item), work, watch)))
    problems += [problem for f in facts for problem in f.problems]
    problems += _unlike(dataset, facts)
    taught = [problem for name in dataset.splits for problem in _untaught(dataset, name, facts, problems)]
    if taught and len(work) < len(listed):  # maybe in those that were not looked at
        return check(dataset, watch=watch)
    problems += taught
    problems = list(dict.fromkeys(problems))  # a file of polygons is met once for every image
    bad = {problem.file for problem in problems}
    good = [f for f in facts if f.pair.image not in bad and f.pair.label not in bad]
    polygons = polygon_reports(dataset, facts)
    reports = tuple(_split_report(dataset, name, [f for f in good if f.split == name]) for name in dataset.splits)
    problems += [problem for split in reports if len(work) == len(listed) for problem in _emptied(dataset, split)]
    found = notes(dataset, good, {split.name: split.counts for split in reports}, polygons)
    found += [line for split in reports for line in _object_notes(dataset, split)]
    return CheckReport(
        dataset=dataset,
        splits=reports,
        bands=_band_reports([f.seen for f in good if f.seen is not None]),
        dtypes=dict(Counter(f.seen.dtype for f in good if f.seen is not None)),
        problems=tuple(problems),
        notes=tuple(_partly(found, len(work), len(listed))),
        polygons=polygons,
        fix=tuple(line for name in dataset.splits for line in _fix_lines(dataset, name)),
    )


def _listed(dataset: DatasetConfig) -> tuple[list[tuple[str, Piece]], list[Problem]]:
    """(split, piece) of every split, and the files that have no partner or may not be read."""
    work: list[tuple[str, Piece]] = []
    problems: list[Problem] = []
    for name in dataset.splits:
        try:
            pairs, found = dataset.list_pairs(name)
        except DataError as error:  # no such folder: the other splits are looked at all the same
            images = dataset.splits[name].images
            where = error.file or (dataset.root / images if isinstance(images, str) else dataset.root)
            pairs, found = [], [problem_of(error, Path(where))]
        problems += found
        for pair in pairs:
            try:
                work += [(name, piece) for piece in pieces(dataset, [pair])]
            except DataError as error:
                problems.append(problem_of(error, pair.image))
    return work, problems


def _partly(notes: list[str], seen: int, there: int) -> list[str]:
    """The notes, saying of how much they are where not all was looked at."""
    return notes if seen == there else [f"in {seen:,} of {there:,} images and windows: {note}" for note in notes]


def _untaught(dataset: DatasetConfig, split: str, facts: list[Facts], problems: list[Problem]) -> list[Problem]:
    """Why there is nothing to learn from, or to validate on, in a split: no label, no object, no polygon on an image.

    Splits without labels are for predictions, but for "train". problems: what is known to be bad; where that is so of a
    file of the split, nothing more is said.
    """
    own = [f for f in facts if f.split == split]
    files = {file for f in own for file in (f.pair.image, f.pair.label, f.pair.annotations)}
    if not own or any(problem.file in files for problem in problems):
        return []
    labelled = [f for f in own if f.pair.label is not None or f.pair.annotations is not None]
    if not labelled:
        missing = f'no labels in the split "{split}", so there is nothing to train on'
        return [Problem(dataset.file, missing)] if split == TRAIN else []
    if unmet := unmet_polygons(dataset, split, own):
        others = [f for f in facts if f.split != split]
        elsewhere = {f.pair.label for f in others if f.met is not None and len(f.met)}
        return [problem for problem in unmet if split == TRAIN or problem.file not in elsewhere]
    if dataset.has_objects:
        return _without_objects(dataset, split, labelled)
    if any(f.counts.labelled for f in labelled):
        return []
    found = f'no labelled pixel in the split "{split}": all {len(labelled)} label files say "not labelled"'
    return [Problem(dataset.file, f"{found}, or their images hold no data; look at ignore_index and nodata")]


def _without_objects(dataset: DatasetConfig, split: str, facts: list[Facts]) -> list[Problem]:
    """The same of objects, for the split that is learnt from; another without objects has scores of nothing."""
    counts = sum((f.objects for f in facts if f.objects is not None), ObjectCounts.none(len(dataset.classes)))
    if counts.total or split != TRAIN:
        return []
    file = facts[0].pair.annotations or dataset.file
    crowds = f": all {counts.crowds:,} are crowds" if counts.crowds else ""
    hint = "; set iscrowd to 0 where an annotation is one object" if counts.crowds and file != dataset.file else ""
    return [Problem(file, f'no object in the split "{split}"{crowds}{hint}')]


def _unlike(dataset: DatasetConfig, facts: list[Facts]) -> list[Problem]:
    """The images whose number of bands or pixel type is not that of most."""
    seen = [(f.pair.image, f.seen) for f in facts if f.seen is not None]
    if not seen:
        return []
    count = Counter(len(s.bands) for _, s in seen).most_common(1)[0][0]
    first = Counter(s.bands for _, s in seen if len(s.bands) == count).most_common(1)[0][0]
    names = ", ".join(first)
    dtype = Counter(s.dtype for _, s in seen).most_common(1)[0][0]
    found = []
    for file, s in seen:
        if len(s.bands) != count:
            line = f"has {amount(len(s.bands), 'band')} ({', '.join(s.bands)}); most images have {count} ({names})"
            cure = grey_cure(len(s.bands), count)
            found.append(Problem(file, f"{line}; {cure}" if cure else line))
        elif swapped(s.bands, first):
            line = f"names its bands {', '.join(s.bands)}; most images {', '.join(first)}; read them by name: list them"
            found.append(Problem(file, line + " in `use_bands`"))
        elif s.dtype != dtype and dataset.scaling is None:
            line = f"pixels of type {s.dtype}; most images are {dtype}; convert it, or if the values mean the same give"
            found.append(Problem(file, line + " `scaling: {offset: [...], scale: [...]}`"))
    return found


def _split_report(dataset: DatasetConfig, name: str, facts: list[Facts]) -> SplitReport:
    counts = ClassCounts.empty(len(dataset.classes))
    for f in facts:
        counts += f.counts
    seen = [f.seen for f in facts if f.seen is not None]
    heights, widths = [s.size[0] for s in seen] or [0], [s.size[1] for s in seen] or [0]
    pixels = sum(s.size[0] * s.size[1] for s in seen)
    missing = sum(s.missing for s in seen) / max(pixels, 1)
    sizes = (min(heights), max(heights)), (min(widths), max(widths))
    if not dataset.has_objects:
        return SplitReport(name, len(facts), counts, *sizes, missing)
    objects = sum((f.objects for f in facts if f.objects is not None), ObjectCounts.none(len(dataset.classes)))
    dropped = Counter(_dropped(dataset, name))
    dropped["segments"] += objects.dropped
    return SplitReport(name, len(facts), counts, *sizes, missing, objects, dict(sorted((+dropped).items())))


def _object_notes(dataset: DatasetConfig, split: SplitReport) -> list[str]:
    try:
        return object_notes(dataset, split.name, split.objects, split.dropped)
    except DataError:  # a problem, which is told
        return []


def _fix_lines(dataset: DatasetConfig, split: str) -> list[str]:
    try:
        return fix_lines(dataset, split)
    except DataError:  # of the file as a whole: nothing can be left out
        return []


def _emptied(dataset: DatasetConfig, split: SplitReport) -> list[Problem]:
    """Classes of panoptic annotations that `fix` leaves nothing of: only their maps tell."""
    found = split_annotations(dataset, split.name) if dataset.fix and split.objects and split.images else None
    if found is None or found.segments is None or split.objects is None:
        return []
    named = np.bincount(found.labels[~found.crowd], minlength=len(dataset.classes)).tolist()
    return [
        Problem(found.file, f'`fix` would leave nothing of "{c.name}" ({counted(n, "segments")}); repair them')
        for c, n, left in zip(dataset.classes, named, split.objects.objects, strict=True)
        if n and not left
    ]


def _dropped(dataset: DatasetConfig, split: str) -> dict[str, int]:
    try:
        return split_dropped(dataset, split)
    except DataError:  # a problem, which is told
        return {}


def _band_reports(seen: list[Seen]) -> tuple[BandReport, ...]:
    if not seen:
        return ()
    total = sum((s.moments for s in seen[1:]), seen[0].moments)
    if total.count == 0:
        return tuple(BandReport(name, None, None, None, None) for name in seen[0].bands)
    columns = (total.low, total.high, total.mean, total.std)
    return tuple(BandReport(name, *(float(column[i]) for column in columns)) for i, name in enumerate(seen[0].bands))


def _split_dict(split: SplitReport) -> dict[str, Any]:
    counts = split.counts
    sizes = {"images": split.images, "heights": list(split.heights), "widths": list(split.widths)}
    if split.objects is not None:
        return {**sizes, "missing": split.missing, **split.objects.to_dict(), "dropped": split.dropped}
    return {
        **sizes,
        "missing": split.missing,
        "ignored_pixels": counts.ignored,
        "pixels": list(counts.pixels),
        "shares": counts.shares,
        "images_with_class": list(counts.images),
    }
