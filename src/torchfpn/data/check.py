"""`fpn check`: inspects every file of a dataset before training; problems, warnings and counts."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from torchfpn.data.config import (
    DatasetConfig,
    annotation_warnings,
    fix_previews,
    split_annotations,
    split_dropped,
    split_lost,
)
from torchfpn.data.files import chosen_files, list_files, skipped_files
from torchfpn.data.inspection import (
    ImageStats,
    PairFindings,
    PolygonReport,
    as_problem,
    inspect_part,
    merge_parts,
    polygon_reports,
    polygons_off_images,
)
from torchfpn.data.parallel import Watch, map_threads, spread_evenly, unwatched
from torchfpn.data.reading import SIDE, ImagePart, grey_hint, image_parts, is_reordered, scene_of
from torchfpn.data.splits import Problem, Split, format_count, format_counts, format_lost
from torchfpn.data.statistics import ClassCounts, ObjectCounts
from torchfpn.errors import DataError, amount
from torchfpn.io.formats import is_vector, printable
from torchfpn.io.labels import read_labels

TRAIN, VALIDATE = "train", "val"  # the splits that training reads

_SHOWN = 3  # names that a message lists

_REREAD = 20  # label files that are read a second time, for values of 255

T = TypeVar("T")


@dataclass(frozen=True)
class BandReport:
    """One band over the good images of all splits: statistics of its valid pixels, None if there are none."""

    name: str
    low: float | None
    high: float | None
    mean: float | None
    std: float | None


@dataclass(frozen=True)
class SplitReport:
    """The good images of one split.

    Attributes:
        name: of the split.
        images: how many.
        counts: pixels of each class.
        heights: smallest and largest in pixels.
        widths: smallest and largest in pixels.
        missing: fraction of pixels without data.
        objects: in datasets of objects.
        dropped: counts of what `fix` leaves out of the annotations or repairs.
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
    """The result of `check`.

    Attributes:
        dataset: that was checked.
        splits: of each split.
        bands: of each band.
        dtypes: images of each pixel type.
        problems: errors that have to be repaired before training.
        notes: warnings.
        polygons: of each file of polygons.
        fix: what `fix` would do, one line for each split with bad annotations.
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
        """Whether training can start: no problems."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON, with all problems."""
        return {
            "ok": self.ok,
            "dataset": str(self.dataset.file),
            "task": self.dataset.task,
            "classes": [{"name": c.name, "id": c.id, "color": list(c.color)} for c in self.dataset.classes],
            **({"things": list(self.dataset.things)} if self.dataset.is_panoptic else {}),
            "splits": {split.name: _split_dict(split, panoptic=self.dataset.is_panoptic) for split in self.splits},
            "bands": [vars(band) for band in self.bands],
            "dtypes": self.dtypes,
            "polygons": [{**vars(one), "file": str(one.file)} for one in self.polygons],
            "fix": list(self.fix),
            "problems": [{"file": str(p.file), "problem": p.line} for p in self.problems],
            "notes": list(self.notes),
        }


def check(
    dataset: DatasetConfig,
    *,
    watch: Watch = unwatched,
    splits: Sequence[str] | None = None,
    max_parts: int | None = None,
) -> CheckReport:
    """Inspects every file of every split and reports all problems at once.

    Args:
        dataset: to check.
        watch: shows the progress.
        splits: check only these.
        max_parts: inspect at most as many images and windows of scenes, evenly spread; the warnings then say so.
    """
    if splits is not None:
        dataset = replace(dataset, splits={name: dataset.splits[name] for name in splits})
    listed, problems = _listed(dataset)
    work = listed if max_parts is None else spread_evenly(listed, max_parts)
    findings = list(merge_parts(dataset, work, map_threads(lambda item: inspect_part(dataset, *item), work, watch)))
    problems += [problem for f in findings for problem in f.problems]
    problems += _unlike(dataset, findings)
    useless = [problem for name in dataset.splits for problem in _useless(dataset, name, findings, problems)]
    if useless and len(work) < len(listed):  # the rest may be labelled
        return check(dataset, watch=watch)
    problems += useless
    problems = list(dict.fromkeys(problems))  # a file of polygons is read for every image
    bad = {problem.file for problem in problems}
    good = [f for f in findings if not bad & {f.pair.image, f.pair.label, f.pair.objects}]
    polygons = polygon_reports(dataset, findings)
    reports = tuple(_split_report(dataset, name, [f for f in good if f.split == name]) for name in dataset.splits)
    problems += [problem for split in reports if len(work) == len(listed) for problem in _emptied(dataset, split)]
    warnings = dataset_warnings(dataset, good, {split.name: split.counts for split in reports}, polygons)
    for split in reports:
        warnings += _if_readable(object_warnings, dataset, split.name, split.objects, split.dropped) or []
    if len(work) < len(listed):
        warnings = [f"in {len(work):,} of {len(listed):,} images and windows: {line}" for line in warnings]
    return CheckReport(
        dataset=dataset,
        splits=reports,
        bands=_band_reports([f.stats for f in good if f.stats is not None]),
        dtypes=dict(Counter(f.stats.dtype for f in good if f.stats is not None)),
        problems=tuple(problems),
        notes=tuple(warnings),
        polygons=polygons,
        fix=tuple(line for name in dataset.splits for line in _if_readable(fix_previews, dataset, name) or []),
    )


def _listed(dataset: DatasetConfig) -> tuple[list[tuple[str, ImagePart]], list[Problem]]:
    """The name of the split and every image or window in it; problems of files without partner, or not readable."""
    work: list[tuple[str, ImagePart]] = []
    problems: list[Problem] = []
    for name in dataset.splits:
        try:
            pairs, found = dataset.list_pairs(name)
        except DataError as error:  # no such folder: the other splits are checked all the same
            images = dataset.splits[name].images
            where = error.file or (dataset.root / images if isinstance(images, str) else dataset.root)
            pairs, found = [], [as_problem(error, Path(where))]
        problems += found
        for pair in pairs:
            try:
                work += [(name, part) for part in image_parts(dataset, [pair])]
            except DataError as error:
                problems.append(as_problem(error, pair.image))
    return work, problems


def _useless(
    dataset: DatasetConfig, split: str, findings: list[PairFindings], problems: list[Problem]
) -> list[Problem]:
    """Problems of a split with nothing to train on or validate with: no label, no object, no polygon on an image.

    Splits other than "train" may have no labels, for predictions. A split with another problem gets no second one.
    """
    own = [f for f in findings if f.split == split]
    files = {file for f in own for file in (f.pair.image, f.pair.label, f.pair.annotations, f.pair.objects)}
    if not own or any(problem.file in files for problem in problems):
        return []
    labelled = [f for f in own if any((f.pair.label, f.pair.annotations, f.pair.objects))]
    if not labelled:
        missing = f'no labels in the split "{split}", so there is nothing to train on'
        return [Problem(dataset.file, missing)] if split == TRAIN else []
    if unused := polygons_off_images(dataset, split, own):
        others = [f for f in findings if f.split != split]
        used = {file for f in others for file, features in f.drawn.items() if len(features)}
        return [problem for problem in unused if split == TRAIN or problem.file not in used]
    if dataset.has_objects:
        return _without_objects(dataset, split, labelled)
    if any(f.counts.labelled for f in labelled):
        return []
    found = f'no labelled pixel in the split "{split}": all {len(labelled)} label files say "not labelled"'
    return [Problem(dataset.file, f"{found}, or their images hold no data; look at ignore_index and nodata")]


def _without_objects(dataset: DatasetConfig, split: str, findings: list[PairFindings]) -> list[Problem]:
    """The same for objects in the split for training; others may be without objects."""
    counts = sum((f.objects for f in findings if f.objects is not None), ObjectCounts.none(len(dataset.classes)))
    if counts.total or split != TRAIN:
        return []
    file = findings[0].pair.annotations or dataset.file
    crowds = f": all {counts.crowds:,} are crowds" if counts.crowds else ""
    hint = "; set iscrowd to 0 where an annotation is one object" if counts.crowds and file != dataset.file else ""
    return [Problem(file, f'no object in the split "{split}"{crowds}{hint}')]


def _unlike(dataset: DatasetConfig, findings: list[PairFindings]) -> list[Problem]:
    """Problems of images whose number or order of bands or pixel type differs from that of most images."""
    stats = [(f.pair.image, f.stats) for f in findings if f.stats is not None]
    if not stats:
        return []
    count = Counter(len(s.bands) for _, s in stats).most_common(1)[0][0]
    first = Counter(s.bands for _, s in stats if len(s.bands) == count).most_common(1)[0][0]
    names = ", ".join(first)
    dtype = Counter(s.dtype for _, s in stats).most_common(1)[0][0]
    found = []
    for file, s in stats:
        if len(s.bands) != count:
            line = f"has {amount(len(s.bands), 'band')} ({', '.join(s.bands)}); most images have {count} ({names})"
            hint = grey_hint(len(s.bands), count)
            found.append(Problem(file, f"{line}; {hint}" if hint else line))
        elif is_reordered(s.bands, first):
            line = f"names its bands {', '.join(s.bands)}; most images {', '.join(first)}; read them by name: list them"
            found.append(Problem(file, line + " in `use_bands`"))
        elif s.dtype != dtype and dataset.scaling is None:
            line = f"pixels of type {s.dtype}; most images are {dtype}; convert it, or if the values mean the same give"
            found.append(Problem(file, line + " `scaling: {offset: [...], scale: [...]}`"))
    return found


def _emptied(dataset: DatasetConfig, split: SplitReport) -> list[Problem]:
    """Classes that `fix` leaves without segments, which only the panoptic maps show."""
    found = split_annotations(dataset, split.name) if dataset.fix and split.objects and split.images else None
    if found is None or found.segments is None or split.objects is None:
        return []
    things = len(dataset.things)
    named = np.bincount(found.labels[~found.crowd], minlength=len(dataset.classes))
    if found.segments.labels is not None:
        kinds = found.segments.labels[found.segments.labels >= things]
        named += np.bincount(kinds, minlength=len(dataset.classes))
    remaining = [*split.objects.objects[:things], *split.counts.pixels[things:]]
    return [
        Problem(found.file, f'`fix` would leave nothing of "{c.name}" ({format_count(n, "segments")}); repair them')
        for c, n, left in zip(dataset.classes, named.tolist(), remaining, strict=True)
        if n and not left
    ]


def _split_report(dataset: DatasetConfig, name: str, findings: list[PairFindings]) -> SplitReport:
    counts = ClassCounts.empty(len(dataset.classes))
    for f in findings:
        counts += f.counts
    stats = [f.stats for f in findings if f.stats is not None]
    heights, widths = [s.size[0] for s in stats] or [0], [s.size[1] for s in stats] or [0]
    pixels = sum(s.size[0] * s.size[1] for s in stats)
    missing = sum(s.missing for s in stats) / max(pixels, 1)
    sizes = (min(heights), max(heights)), (min(widths), max(widths))
    if not dataset.has_objects:
        return SplitReport(name, len(findings), counts, *sizes, missing)
    objects = sum((f.objects for f in findings if f.objects is not None), ObjectCounts.none(len(dataset.classes)))
    dropped = Counter(_if_readable(split_dropped, dataset, name) or {})
    dropped["segments"] += objects.dropped
    return SplitReport(name, len(findings), counts, *sizes, missing, objects, dict(sorted((+dropped).items())))


def _band_reports(stats: list[ImageStats]) -> tuple[BandReport, ...]:
    if not stats:
        return ()
    total = sum((s.moments for s in stats[1:]), stats[0].moments)
    if total.count == 0:
        return tuple(BandReport(name, None, None, None, None) for name in stats[0].bands)
    columns = (total.low, total.high, total.mean, total.std)
    return tuple(BandReport(name, *(float(column[i]) for column in columns)) for i, name in enumerate(stats[0].bands))


def _split_dict(split: SplitReport, *, panoptic: bool) -> dict[str, Any]:
    counts = split.counts
    sizes = {"images": split.images, "heights": list(split.heights), "widths": list(split.widths)}
    pixels = {
        "ignored_pixels": counts.ignored,
        "pixels": list(counts.pixels),
        "shares": counts.shares,
        "images_with_class": list(counts.images),
    }
    if split.objects is None:
        return {**sizes, "missing": split.missing, **pixels}
    objects = {**split.objects.to_dict(), "dropped": split.dropped}
    if not panoptic:
        return {**sizes, "missing": split.missing, **objects}
    hidden = {"overlapping_pixels": split.objects.overlapping, "hidden_objects": split.objects.hidden}
    return {**sizes, "missing": split.missing, **objects, **pixels, **hidden}


def _if_readable(function: Callable[..., T], *args: Any) -> T | None:
    """The result of the function; None for a file that cannot be read, which is reported as a problem."""
    try:
        return function(*args)
    except DataError:
        return None


def dataset_warnings(
    dataset: DatasetConfig,
    findings: list[PairFindings],
    counts: dict[str, ClassCounts],
    polygons: Sequence[PolygonReport] = (),
) -> list[str]:
    """Warnings about a dataset, one line each.

    Args:
        dataset: that was checked.
        findings: of the good pairs of files.
        counts: pixels of each class, by split.
        polygons: of each file of polygons.
    """
    return [
        *_absent_classes(dataset, counts),
        *_byte_masks(dataset, findings, counts),
        *([] if dataset.has_objects and not dataset.is_panoptic else _unlabelled(findings)),
        *_without_data(findings),
        *_duplicates(findings),
        *_alpha(findings),
        *_band_names(findings),
        *_pages(findings),
        *_float32(findings),
        *_extreme(findings),
        *_off_images(polygons),
        *_unclassed(dataset, polygons),
        *_no_polygon(findings),
        *_striped(dataset, findings),
        *_no_images(dataset),
        *_in_no_list(dataset),
    ]


def object_warnings(
    dataset: DatasetConfig, split: str, counts: ObjectCounts | None, dropped: dict[str, int]
) -> list[str]:
    """Warnings about the objects of a split, one line each."""
    if counts is None:
        return []
    things = len(dataset.things)
    absent = [name for name, n in zip(dataset.things, counts.objects[:things], strict=True) if n == 0]
    found = [f"{split}: no object of {_few(absent)}"] if absent and counts.images else []
    found += [f"{split}: {amount(counts.empty, 'image')} without an object, used as negatives"] if counts.empty else []
    if counts.scattered and counts.total == counts.images - counts.empty:
        one = f"{amount(counts.scattered, 'image')} with one number in several parts ({counts.parts:,} in all)"
        key = "objects_are" if dataset.is_panoptic else "labels_are"
        found.append(f"{split}: {one}, so one object each; if each part is an object: `{key}: components`")
    if counts.overlapping:
        top = "smaller one" if dataset.overlaps == "smaller" else "last one"
        found.append(f"{split}: objects overlap on {amount(counts.overlapping, 'pixel')}; the {top} is on top")
    found += [f"{split}: {amount(counts.hidden, 'object')} covered by others, left out"] if counts.hidden else []
    if dropped:
        lost = format_lost(split_lost(dataset, split))
        found.append(f"{split}: bad and left out or repaired, because of `fix`: {format_counts(dropped)}{lost}")
    return found + annotation_warnings(dataset, split)


def _absent_classes(dataset: DatasetConfig, counts: dict[str, ClassCounts]) -> list[str]:
    found = []
    for split, count in counts.items():
        if count.labelled:
            start = len(dataset.things) if dataset.is_panoptic else 0
            absent = [name for name, n in zip(dataset.names[start:], count.pixels[start:], strict=True) if n == 0]
            found += [f"{split}: no pixel of {_few(absent)}"] if absent else []
    return found


def _byte_masks(dataset: DatasetConfig, findings: list[PairFindings], counts: dict[str, ClassCounts]) -> list[str]:
    """Masks of 0 and 255 read with the default ignore value, so that the class itself is ignored."""
    total = sum((count.pixels[0] for count in counts.values()), 0)
    others = sum(count.labelled for count in counts.values()) - total
    two = len(dataset.classes) == 2 and not dataset.is_panoptic
    if 255 in dataset.ignored and two and total and not others and _holds_255(dataset, findings):
        names = dataset.names
        return [f"255 means `not labelled` here; for masks of 0 and 255: classes: {{0: {names[0]}, 255: {names[1]}}}"]
    return []


def _holds_255(dataset: DatasetConfig, findings: list[PairFindings]) -> bool:
    """Whether a label file holds 255: pixels may also be ignored since the image has no data."""
    labels = [f.pair.label for f in findings if f.counts.ignored and f.pair.label and not is_vector(f.pair.label)]
    if dataset.labels_are == "colors":
        return False
    limits: dict[str, Any] = {"max_pixels": dataset.max_pixels, "allow_vrt": dataset.allow_vrt, "root": dataset.root}
    return any((read_labels(label, **limits).values == 255).any() for label in spread_evenly(labels, _REREAD))


def _unlabelled(findings: list[PairFindings]) -> list[str]:
    empty = [f for f in findings if any((f.pair.label, f.pair.objects)) and f.counts.labelled == 0]
    return _files("without a single labelled pixel", empty)


def _without_data(findings: list[PairFindings]) -> list[str]:
    empty = [f for f in findings if f.stats is not None and f.stats.missing == f.stats.size[0] * f.stats.size[1]]
    return _files("without a single pixel of data", empty)


def _duplicates(findings: list[PairFindings]) -> list[str]:
    """Images in two splits, which make validation scores too good."""
    same: dict[bytes, list[PairFindings]] = defaultdict(list)
    for f in findings:
        if f.stats is not None:
            same[f.stats.digest].append(f)
    duplicates = [group for group in same.values() if len({f.split for f in group}) > 1]
    shown = [" = ".join(f"{f.split}/{printable(f.pair.image.name)}" for f in group[:_SHOWN]) for group in duplicates]
    return [f"{amount(len(duplicates), 'image')} in several splits: {_few(shown)}"] if duplicates else []


def _alpha(findings: list[PairFindings]) -> list[str]:
    numbers = sorted({f.stats.alpha for f in findings if f.stats is not None and f.stats.alpha is not None})
    return [
        f"band {n} is marked as alpha and taken for a mask; if it is data (near infrared?), name all bands in `bands`"
        for n in numbers
    ]


def _band_names(findings: list[PairFindings]) -> list[str]:
    names = {f.stats.bands for f in findings if f.stats is not None}
    if len(names) < 2:
        return []
    shown = [" ".join(one) for one in sorted(names)]
    return [f"bands have different names in different files: {_few(shown)}; name them in `bands`"]


def _pages(findings: list[PairFindings]) -> list[str]:
    files = {file: n for f in findings if f.stats is not None for file, n in f.stats.pages.items()}
    shown = [f"{printable(file.name)} ({n})" for file, n in files.items()]
    return (
        [f"{amount(len(files), 'file')} of several pages or pictures, of which the first is read: {_few(shown)}"]
        if files
        else []
    )


def _float32(findings: list[PairFindings]) -> list[str]:
    """Values that differ by less than float32 resolves."""
    found = [f for f in findings if f.stats is not None and f.stats.moments.float32_warning(f.stats.bands)]
    if not found or found[0].stats is None:
        return []
    first = found[0].stats
    more = "" if len(found) == 1 else f" ({amount(len(found), 'image')} like it)"
    return [f"{printable(found[0].pair.image.name)}: {first.moments.float32_warning(first.bands)}{more}"]


def _extreme(findings: list[PairFindings]) -> list[str]:
    """Pixels that models take for no data although the file does not declare them."""
    found = [f for f in findings if f.stats is not None and f.stats.moments.extreme]
    count = sum(f.stats.moments.extreme for f in found if f.stats is not None)
    files = _few([printable(f.pair.image.name) for f in found])
    verb, do = ("counts", "declare it as nodata") if count == 1 else ("count", "declare them as nodata")
    what = f"{amount(count, 'pixel')} with values beyond 2^64 {verb} as no data"
    return (
        [f"{what}, and the scaling leaves them out: {files}; {do}, or find the program that wrote them"]
        if count
        else []
    )


def _off_images(polygons: Sequence[PolygonReport]) -> list[str]:
    """Files of polygons that overlap no image, mostly because of a wrong coordinate system."""
    found = [printable(one.file.name) for one in polygons if one.features > one.empty and one.outside == one.features]
    return [f"polygons that overlap no image: {_few(found)}; check the coordinate systems"] if found else []


def _unclassed(dataset: DatasetConfig, polygons: Sequence[PolygonReport]) -> list[str]:
    """Features without a class that `without_class` allows."""
    count = sum(one.unclassed for one in polygons)
    what = "left out" if dataset.polygons.without_class == "skip" else "not labelled"
    files = _few([printable(one.file.name) for one in polygons if one.unclassed])
    return [f"{amount(count, 'feature')} without a class, {what}: {files}"] if count else []


def _no_polygon(findings: list[PairFindings]) -> list[str]:
    return _files("that no polygon meets", [f for f in findings if f.drawn and not any(map(len, f.drawn.values()))])


def _striped(dataset: DatasetConfig, findings: list[PairFindings]) -> list[str]:
    """Scenes stored by rows, of which every window reads whole rows."""
    found = []
    for f in findings:
        header = scene_of(dataset, f.pair)
        found += [f] if header is not None and header.striped and header.size[1] > 4 * SIDE else []
    names = _files("stored by rows, each crop reads whole rows", found)
    return [f"{line}; faster in tiles: gdal_translate -of COG" for line in names]


def _no_images(dataset: DatasetConfig) -> list[str]:
    """Other files in folders of images or labels: mostly labels of a format that is not read."""
    folders = {
        (dataset.root, paths)
        for split in dataset.splits.values()
        if split.annotations is None
        for paths in (split.images, split.labels, split.objects)
        if paths is not None
    }
    files = sorted({file for root, paths in folders for file in _if_readable(skipped_files, root, paths) or []})
    names = [printable(file.relative_to(dataset.root)) for file in files]
    what = amount(len(names), "file that is not an image is", "files that are not images are")
    return [f"{what} skipped: {_few(names)}"] if names else []


def _in_no_list(dataset: DatasetConfig) -> list[str]:
    """Images in the folders that neither a `list` nor a COCO file names."""
    there, read = set[Path](), set[Path]()
    for name, split in dataset.splits.items():
        try:
            folder, named = _named_images(dataset, name, split)
        except DataError:  # reported as a problem
            return []
        there, read = there | folder, read | named
    names = sorted(printable(file.relative_to(dataset.root)) for file in there - read)
    stand = "stands" if len(names) == 1 else "stand"
    return (
        [f"{amount(len(names), 'image')} of the folders {stand} in no list, not used: {_few(names)}"] if names else []
    )


def _named_images(dataset: DatasetConfig, name: str, split: Split) -> tuple[set[Path], set[Path]]:
    """The images in the folder of a split with a list or a COCO file, and those it reads."""
    if split.stems is not None:
        return chosen_files(dataset.root, split)
    read = {pair.image for pair in dataset.list_pairs(name)[0]}
    if split.annotations is None or not isinstance(split.images, str):
        return set(), read
    return set(list_files(dataset.root, split.images).files.values()), read


def _files(what: str, findings: list[PairFindings]) -> list[str]:
    names = [printable(f.pair.image.name) for f in findings]
    return [f"{amount(len(names), 'image')} {what}: {_few(names)}"] if names else []


def _few(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
