"""Finds images, labels and splits in a folder without dataset.yaml."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from torchfpn.data.files import list_files, match_pairs
from torchfpn.data.splits import Pair, Split, natural_key, raise_problems
from torchfpn.errors import DataError
from torchfpn.io.formats import SUFFIXES, is_vector, name_key

T = TypeVar("T")

SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "test": "test",
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
}

_ORDER = ("train", "val", "test")

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "scenes", "rgb", "jpegimages", "x")

LABEL_FOLDERS = (
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

_HOLD_OUT = 5  # one image in five goes to val if the folder has no splits


@dataclass(frozen=True)
class Layout:
    """Splits by name, train first; their pairs; lists of stems that have to be written, name to text."""

    splits: dict[str, Split]
    pairs: dict[str, list[Pair]]
    lists: dict[str, str]


def find_layout(folder: Path) -> Layout:
    """Finds ``train/images`` or ``images/train``, or splits one folder ``images`` 80 to 20.

    Labels are a folder or a file of polygons beside the images. Folders may hold map tiles (z/x/y).

    Raises:
        DataError: nothing found, or files without a partner.
    """
    splits = _split_folders(folder) or _split_below(folder)
    lists: dict[str, str] = {}
    if not splits:
        splits, lists = _flat(folder)
    if not any(split.labels for split in splits.values()):
        raise DataError(
            "no images and labels found",
            file=folder,
            allowed="train/images + train/labels (or masks), images/train + labels/train, or images + labels;"
            " in place of a folder of labels, a file of polygons",
        )
    pairs = {}
    for name, split in splits.items():
        pairs[name], problems = match_pairs(folder, name, Split(split.images, split.labels))
        raise_problems(problems)
        if split.stems:
            files = list_files(folder, split.images).files
            chosen = {files[stem] for stem in lists[split.stems].splitlines()}
            pairs[name] = [pair for pair in pairs[name] if pair.image in chosen]
    return Layout(splits, pairs, lists)


def find_image_splits(folder: Path) -> dict[str, tuple[str | tuple[str, ...], str]]:
    """Finds ``train/images``, or ``images/train``, or splits one folder of images 80 to 20; labels are not looked for.

    Returns:
        By the name of the split, the path of its images, or the paths of all, and the name of its folder.

    Raises:
        DataError: no images.
    """
    found: dict[str, tuple[str | tuple[str, ...], str]] = {}
    for child in _folders(folder):
        images = _one_of(child, IMAGE_FOLDERS)
        if images and child.name.lower() not in IMAGE_FOLDERS + LABEL_FOLDERS:
            found[split_name(child.name)] = str(folder / _as_yaml_path(folder, f"{child.name}/{images}")), child.name
    inner = _one_of(folder, IMAGE_FOLDERS)
    if not found and inner and not _is_map(folder / inner):
        for child in _folders(folder / inner):
            found[split_name(child.name)] = str(child), child.name
    if found:
        return order_splits(found)
    where = _as_yaml_path(folder, inner or ".")
    files = {path.name: str(path) for path in list_files(folder, where).files.values()}
    if not files:
        raise DataError("no images", file=folder, allowed="images, or folders train/images or images/train")
    if _is_map(folder / (inner or ".")) or len(files) < 2:
        return {"train": (str(folder / where), "train")}
    held = hold_out(list(files))
    parts = {"train": [n for n in files if n not in held], "val": [n for n in files if n in held]}
    return {name: (tuple(files[n] for n in names), name) for name, names in parts.items()}


def _split_folders(folder: Path) -> dict[str, Split]:
    """Finds ``train/images`` and ``train/labels``."""
    found = {}
    for child in _folders(folder):
        images, labels = _one_of(child, IMAGE_FOLDERS), _one_of(child, LABEL_FOLDERS) or _polygons(child)
        if images and (labels or child.name.lower() not in IMAGE_FOLDERS + LABEL_FOLDERS):
            found[split_name(child.name)] = Split(
                _as_yaml_path(folder, f"{child.name}/{images}"),
                _as_yaml_path(folder, f"{child.name}/{labels}") if labels else None,
            )
    return order_splits(found)


def _split_below(folder: Path) -> dict[str, Split]:
    """Finds ``images/train`` and ``labels/train``."""
    images, labels = _one_of(folder, IMAGE_FOLDERS), _one_of(folder, LABEL_FOLDERS)
    if not images or not labels or _is_map(folder / images):
        return {}
    labelled = {name_key(path.stem): path.name for path in (folder / labels).iterdir() if is_vector(path)}
    labelled |= {name_key(child.name): child.name for child in _folders(folder / labels)}
    return order_splits(
        {
            split_name(child.name): Split(
                _as_yaml_path(folder, f"{images}/{child.name}"),
                _as_yaml_path(folder, f"{labels}/{labelled[name_key(child.name)]}")
                if name_key(child.name) in labelled
                else None,
            )
            for child in _folders(folder / images)
        }
    )


def _flat(folder: Path) -> tuple[dict[str, Split], dict[str, str]]:
    """Finds ``images`` and ``labels``, and holds out every fifth image."""
    name, labels = _one_of(folder, IMAGE_FOLDERS), _one_of(folder, LABEL_FOLDERS) or _polygons(folder)
    if name is None and labels is not None and is_vector(labels):
        name = _lone_images(folder)  # beside the polygons
    if not name or not labels:
        return {}, {}
    images, labels = _as_yaml_path(folder, name), _as_yaml_path(folder, labels)
    pairs, problems = match_pairs(folder, "all", Split(images, labels))
    raise_problems(problems)
    listing = list_files(folder, images)
    stems = list(listing.files)
    for stem, path in listing.files.items():
        if stem != stem.strip() or not stem.isprintable():
            raise DataError("a name that cannot stand in a list", file=path, hint="rename it")
    if listing.named or len(pairs) < 2:
        return {"train": Split(images, labels)}, {}
    held = hold_out(stems)
    lists = {"train.txt": [stem for stem in stems if stem not in held], "val.txt": list(held)}
    return (
        {name.removesuffix(".txt"): Split(images, labels, name) for name in lists},
        {name: "".join(f"{stem}\n" for stem in sorted(chosen, key=natural_key)) for name, chosen in lists.items()},
    )


def hold_out(names: list[str]) -> set[str]:
    """One name in five, at least one, chosen by its hash: the same on every machine."""
    names = sorted(names, key=lambda name: blake2b(name.encode()).digest())
    return set(names[: max(1, round(len(names) / _HOLD_OUT))])


def _polygons(folder: Path) -> str | None:
    """The file of polygons of a folder, if there is exactly one."""
    found = [path.name for path in folder.iterdir() if is_vector(path) and not path.name.startswith(".")]
    return found[0] if len(found) == 1 else None


def _lone_images(folder: Path) -> str | None:
    """Images in the folder itself: the name of a single one, or "." for several."""
    found = [path.name for path in folder.iterdir() if path.name.lower().endswith(SUFFIXES) and path.is_file()]
    return None if not found else found[0] if len(found) == 1 else "."


def _as_yaml_path(folder: Path, path: str) -> str:
    """The path as written in dataset.yaml: map tiles by their pattern."""
    return f"{path}/{{z}}/{{x}}/{{y}}" if _is_map(folder / path) else path


def _is_map(folder: Path) -> bool:
    """Whether all folders in a folder are z/x folders of map tiles."""
    below = _folders(folder) if folder.is_dir() else []
    return bool(below) and all(child.name.isdigit() and _folders(child) for child in below)


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _one_of(folder: Path, names: tuple[str, ...]) -> str | None:
    """The first of the names, in any case, that is a folder here."""
    there = {child.name.lower(): child.name for child in _folders(folder)}
    return next((there[name] for name in names if name in there), None)


def image_folder(folder: Path) -> str | None:
    """The name of the folder of images within a folder."""
    return _one_of(folder, IMAGE_FOLDERS)


def label_folder(folder: Path) -> str | None:
    """The name of the folder of labels within a folder."""
    return _one_of(folder, LABEL_FOLDERS)


def split_name(folder: str) -> str:
    """The usual name of a split whose folder is named `folder`."""
    return SPLIT_FOLDERS.get(folder.lower(), folder.lower())


def order_splits(splits: dict[str, T]) -> dict[str, T]:
    """Orders splits: train, val, test, then others by name."""
    known = [name for name in _ORDER if name in splits]
    return {name: splits[name] for name in [*known, *sorted(splits.keys() - known)]}
