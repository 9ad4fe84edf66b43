"""The parts of a dataset (train, val, test): which folders they name, and which image goes with which label file."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from torchfpn.data.fields import Fields
from torchfpn.errors import ConfigError, DataError
from torchfpn.files.formats import SUFFIXES, printable

SHOWN = 20  # how many bad files a message names


@dataclass(frozen=True)
class Split:
    """Folders below the root of the dataset. labels: None where nothing is labelled. stems: a file that lists them."""

    images: str
    labels: str | None = None
    stems: str | None = None


@dataclass(frozen=True)
class Pair:
    """An image and the labels of its pixels, which have the same name up to the suffix."""

    image: Path
    label: Path | None = None


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used, and why; `line` is one line for people."""

    file: Path
    line: str


def parse_splits(fields: Fields) -> dict[str, Split]:
    """The splits under `splits:`, or of `images:` and `labels:` with ``{split}`` in them.

    Raises:
        ConfigError: none, unknown keys, or a path that is absolute or leads upwards.
    """
    images, labels = fields.text("images"), fields.text("labels")
    if fields.raw("splits") is None:
        if images is None:
            raise ConfigError(
                "no splits", file=fields.file, field="splits", allowed="train: {images: ..., labels: ...}"
            )
        return _pattern_splits(fields, images, labels)
    splits = {}
    for name in fields.inner("splits").values:
        splits[str(name)] = _parse_split(fields.inner("splits"), name, images, labels)
    if not splits:
        raise fields.wrong("splits", {}, "at least one, as train: {images: ..., labels: ...}")
    return splits


def _parse_split(parent: Fields, name: str, images: str | None, labels: str | None) -> Split:
    value = parent.raw(name)
    fields = Fields({} if value is None else value, parent.file, parent.path(str(name)))
    filled = [None if given is None else given.replace("{split}", str(name)) for given in (images, labels)]
    split = Split(fields.text("images") or filled[0] or "", fields.text("labels") or filled[1], fields.text("list"))
    fields.finish()
    if not split.images:
        raise fields.wrong("images", None, "a folder below the root of the dataset")
    for key, path in (("images", split.images), ("labels", split.labels), ("list", split.stems)):
        _check_inside(fields, key, path)
    return split


def _pattern_splits(fields: Fields, images: str, labels: str | None) -> dict[str, Split]:
    """The splits that a pattern such as ``{split}/images`` finds on the disk; one called "all" without ``{split}``.

    A split whose folder of labels is not there is taken for unlabelled.
    """
    for key, path in (("images", images), ("labels", labels)):
        _check_inside(fields, key, path)
    if "{split}" not in images:
        return {"all": Split(images, labels)}
    root, parts = fields.file.parent / (fields.text("root") or "."), PurePosixPath(images).parts
    if parts.count("{split}") != 1:
        raise fields.wrong("images", images, "{split} once, in place of a whole folder name")
    found = {}
    for folder in sorted(root.joinpath(*parts[: parts.index("{split}")]).glob("*")):
        split = Split(images.replace("{split}", folder.name), labels and labels.replace("{split}", folder.name))
        if not folder.name.startswith(".") and (root / split.images).is_dir():
            labelled = split.labels is not None and (root / split.labels).is_dir()
            found[folder.name] = split if labelled else Split(split.images)
    if not found:
        raise fields.wrong("images", images, "a pattern that fits folders on the disk")
    return found


def _check_inside(fields: Fields, key: str, path: str | None) -> None:
    if path is None:
        return
    pure = PurePosixPath(path.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or re.match(r"[A-Za-z]:", path):
        raise fields.wrong(key, path, "a path below the root of the dataset", "set `root:` to where the files lie")


def match_pairs(root: Path, name: str, split: Split) -> tuple[list[Pair], list[Problem]]:
    """The pairs of a split in natural order (a2 before a10), and the files that are left over or may not be read."""
    images, problems = _listed(root, split.images)
    labels: dict[str, Path] = {}
    if split.labels is not None:
        labels, more = _listed(root, split.labels)
        problems += more
    if split.stems is not None:
        images, labels, more = _chosen(root, split, images, labels)
        problems += more
    if split.labels is not None:
        problems += [Problem(images[s], "image without label") for s in images if s not in labels]
        problems += [Problem(labels[s], "label without image") for s in labels if s not in images]
        images = {stem: path for stem, path in images.items() if stem in labels}
    if not images and not problems:
        problems.append(Problem(root / split.images, f'no image in the split "{name}"'))
    stems = sorted(images, key=natural)
    return [Pair(images[stem], labels.get(stem)) for stem in stems], problems


def refuse(problems: list[Problem]) -> None:
    """Raises what is wrong with files, at most 20 of them by name.

    Raises:
        DataError: if there is any problem.
    """
    if problems:
        lines = [f"{printable(p.file)}: {p.line}" for p in problems[:SHOWN]]
        rest = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DataError("; ".join(lines) + rest)


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """A key that sorts names as people do: numbers by their value."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)], name


def _listed(root: Path, folder: str) -> tuple[dict[str, Path], list[Problem]]:
    """Images of a folder by stem, and those that lie outside the root or share a stem."""
    where, problems = root / folder, list[Problem]()
    found: dict[str, Path] = {}
    try:
        if not _inside(root, where):
            raise DataError("leads out of the root of the dataset", file=where)
        entries = [entry for entry in os.scandir(where) if _is_image(entry.name)]
    except OSError as error:
        raise DataError(f"cannot be listed ({error.strerror or error})", file=where) from error
    for entry in sorted(entries, key=lambda entry: natural(entry.name)):
        path = where / entry.name
        if entry.is_symlink() and not _inside(root, path):
            problems.append(Problem(path, "a link that leads out of the root of the dataset"))
        elif path.stem in found:
            problems.append(Problem(path, f"has the same name as {found[path.stem].name}"))
        else:
            found[path.stem] = path
    return found, problems


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def _inside(root: Path, path: Path) -> bool:
    """Whether the file itself, all links followed, lies below the root. A loop of links leads nowhere."""
    real = os.path.realpath(path)
    return os.path.commonpath([os.path.realpath(root), real]) == os.path.realpath(root)


def _chosen(
    root: Path, split: Split, images: dict[str, Path], labels: dict[str, Path]
) -> tuple[dict[str, Path], dict[str, Path], list[Problem]]:
    """Only the files that the list of stems names, and the stems that have no image."""
    file = root / str(split.stems)
    if not _inside(root, file):
        raise DataError("leads out of the root of the dataset", file=file)
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"the list cannot be read ({error})", file=file) from error
    stems = list(_stems(lines, images))
    problems = [
        Problem(file, f'lists "{stem}", which is no image of {split.images}') for stem in stems if stem not in images
    ]
    return _only(images, stems), _only(labels, stems), problems


def _stems(lines: Iterable[str], images: dict[str, Path]) -> Iterable[str]:
    """Each listed name once; a name with the suffix of an image counts as its stem."""
    for line in dict.fromkeys(line.strip() for line in lines if line.strip()):
        whole = line in images or not line.lower().endswith(SUFFIXES)
        yield line if whole else line.rpartition(".")[0]


def _only(files: dict[str, Path], stems: list[str]) -> dict[str, Path]:
    return {stem: files[stem] for stem in stems if stem in files}
