"""Looking at every file of a dataset before anything is trained on it: what is bad, what is odd, what there is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from torchfpn.data.annotated import counted, fix_lines, split_annotations, split_dropped
from torchfpn.data.dataset import Dataset
from torchfpn.data.each import Watch, each, spread, unwatched
from torchfpn.data.facts import Facts, Seen, gather, look, problem_of
from torchfpn.data.notes import notes, object_notes
from torchfpn.data.object_counts import ObjectCounts
from torchfpn.data.polygon_facts import PolygonReport, polygon_reports, unmet_polygons
from torchfpn.data.reading import grey_cure, swapped
from torchfpn.data.splits import Problem
from torchfpn.data.statistics import ClassCounts
from torchfpn.data.windows import Piece, pieces
from torchfpn.errors import DataError, amount

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

    dataset: Dataset
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
    dataset: Dataset, *, watch: Watch = unwatched, splits: Sequence[str] | None = None, most: int | None = None
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


def _listed(dataset: Dataset) -> tuple[list[tuple[str, Piece]], list[Problem]]:
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


def _untaught(dataset: Dataset, split: str, facts: list[Facts], problems: list[Problem]) -> list[Problem]:
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


def _without_objects(dataset: Dataset, split: str, facts: list[Facts]) -> list[Problem]:
    """The same of objects, for the split that is learnt from; another without objects has scores of nothing."""
    counts = sum((f.objects for f in facts if f.objects is not None), ObjectCounts.none(len(dataset.classes)))
    if counts.total or split != TRAIN:
        return []
    file = facts[0].pair.annotations or dataset.file
    crowds = f": all {counts.crowds:,} are crowds" if counts.crowds else ""
    hint = "; set iscrowd to 0 where an annotation is one object" if counts.crowds and file != dataset.file else ""
    return [Problem(file, f'no object in the split "{split}"{crowds}{hint}')]


def _unlike(dataset: Dataset, facts: list[Facts]) -> list[Problem]:
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


def _split_report(dataset: Dataset, name: str, facts: list[Facts]) -> SplitReport:
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


def _object_notes(dataset: Dataset, split: SplitReport) -> list[str]:
    try:
        return object_notes(dataset, split.name, split.objects, split.dropped)
    except DataError:  # a problem, which is told
        return []


def _fix_lines(dataset: Dataset, split: str) -> list[str]:
    try:
        return fix_lines(dataset, split)
    except DataError:  # of the file as a whole: nothing can be left out
        return []


def _emptied(dataset: Dataset, split: SplitReport) -> list[Problem]:
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


def _dropped(dataset: Dataset, split: str) -> dict[str, int]:
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
