"""Finding the images and labels of a folder nobody has described yet."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from torchfpn.data.splits import Pair, Split, match_pairs, natural, refuse
from torchfpn.errors import DataError

_SPLITS = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
_ORDER = ("train", "val", "test")
_IMAGES = ("images", "image", "imgs", "img", "scenes", "rgb", "jpegimages", "x")
_LABELS = (
    "labels",
    "label",
    "masks",
    "mask",
    "annotations",
    "annotation",
    "gt",
    "segmentation",
    "segmentationclass",
    "y",
)
_HELD_OUT = 5  # one image in so many goes to val where nobody has split them


@dataclass(frozen=True)
class Layout:
    """splits: by name, train first. pairs: of each. lists: files of stems that have to be written, name to text."""

    splits: dict[str, Split]
    pairs: dict[str, list[Pair]]
    lists: dict[str, str]


def find_layout(folder: Path) -> Layout:
    """The splits of a folder: ``train/images`` or ``images/train``, or one ``images`` that is split here, 80 to 20.

    Raises:
        DataError: nothing of the kind, or files without a partner.
    """
    splits = _split_folders(folder) or _split_below(folder)
    lists: dict[str, str] = {}
    if not splits:
        splits, lists = _flat(folder)
    if not any(split.labels for split in splits.values()):
        raise DataError(
            "no images and labels found",
            file=folder,
            allowed="train/images + train/labels (or masks), images/train + labels/train, or images + labels",
        )
    pairs = {}
    for name, split in splits.items():
        pairs[name], problems = match_pairs(folder, name, Split(split.images, split.labels))
        refuse(problems)
        if split.stems:
            chosen = set(lists[split.stems].splitlines())
            pairs[name] = [pair for pair in pairs[name] if pair.image.stem in chosen]
    return Layout(splits, pairs, lists)


def _split_folders(folder: Path) -> dict[str, Split]:
    """``train/images`` and ``train/labels``."""
    found = {}
    for child in _folders(folder):
        images, labels = _one_of(child, _IMAGES), _one_of(child, _LABELS)
        if images and (labels or child.name.lower() not in _IMAGES + _LABELS):
            found[_split_name(child.name)] = Split(
                f"{child.name}/{images}", f"{child.name}/{labels}" if labels else None
            )
    return _ordered(found)


def _split_below(folder: Path) -> dict[str, Split]:
    """``images/train`` and ``labels/train``."""
    images, labels = _one_of(folder, _IMAGES), _one_of(folder, _LABELS)
    if not images or not labels:
        return {}
    theirs = {child.name for child in _folders(folder / labels)}
    return _ordered(
        {
            _split_name(child.name): Split(
                f"{images}/{child.name}", f"{labels}/{child.name}" if child.name in theirs else None
            )
            for child in _folders(folder / images)
        }
    )


def _flat(folder: Path) -> tuple[dict[str, Split], dict[str, str]]:
    """``images`` and ``labels``: every fifth image by the hash of its name is held out, the same on every machine."""
    images, labels = _one_of(folder, _IMAGES), _one_of(folder, _LABELS)
    if not images or not labels:
        return {}, {}
    pairs, problems = match_pairs(folder, "all", Split(images, labels))
    refuse(problems)
    stems = [pair.image.stem for pair in pairs]
    for pair in pairs:
        if pair.image.stem != pair.image.stem.strip() or not pair.image.stem.isprintable():
            raise DataError("a name that cannot stand in a list", file=pair.image, hint="rename it")
    if len(stems) < 2:
        return {"train": Split(images, labels)}, {}
    stems.sort(key=lambda stem: blake2b(stem.encode()).digest())
    held = max(1, round(len(stems) / _HELD_OUT))
    lists = {"train.txt": stems[held:], "val.txt": stems[:held]}
    return (
        {name.removesuffix(".txt"): Split(images, labels, name) for name in lists},
        {name: "".join(f"{stem}\n" for stem in sorted(chosen, key=natural)) for name, chosen in lists.items()},
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _one_of(folder: Path, names: tuple[str, ...]) -> str | None:
    """The first of the names, in any case, that is a folder here."""
    there = {child.name.lower(): child.name for child in _folders(folder)}
    return next((there[name] for name in names if name in there), None)


def _split_name(folder: str) -> str:
    return _SPLITS.get(folder.lower(), folder.lower())


def _ordered(splits: dict[str, Split]) -> dict[str, Split]:
    """Train, val, test, then the others by name."""
    known = [name for name in _ORDER if name in splits]
    return {name: splits[name] for name in [*known, *sorted(splits.keys() - known)]}
