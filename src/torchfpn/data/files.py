"""Files of a split: lists the images and labels that dataset.yaml names, and pairs them."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torchfpn.data.splits import Pair, Paths, Problem, Split, natural_key, tile_parts
from torchfpn.errors import DataError, amount
from torchfpn.io.formats import (
    READABLE,
    SUFFIXES,
    UNREAD_SUFFIXES,
    check_regular,
    is_companion,
    is_vector,
    name_key,
    on_disk,
)
from torchfpn.io.formats import VECTOR_SUFFIXES as VECTORS


@dataclass(frozen=True)
class Listing:
    """Files that `images:` or `labels:` of a split stand for.

    Attributes:
        files: by the key that pairs them: stem in a folder (NFC), z/x/y of map tiles, index in a list ("0", ...).
        problems: files that may not be read, or share a name.
        named: whether dataset.yaml lists them one by one.
        tiles: pattern of map tiles.
    """

    files: dict[str, Path]
    problems: list[Problem]
    named: bool = False
    tiles: str | None = None


def list_files(root: Path, paths: Paths, *, polygons: bool = False) -> Listing:
    """Lists the images that `paths` names. polygons: list files of polygons in folders without images.

    Raises:
        DataError: no such folder, or one that leads out of the root.
    """
    if isinstance(paths, tuple):
        return _named(root, paths)
    tiles = tile_parts(paths)
    if tiles is not None:
        listing = _tiles(root, *tiles, SUFFIXES)
        return listing if listing.files or not polygons else _tiles(root, *tiles, VECTORS)
    where = on_disk(root, paths)
    if where.is_file():
        return _named(root, (paths,))
    if paths.lower().endswith(SUFFIXES + VECTORS) and not where.exists():
        raise DataError("no such file", file=where)
    entries = _scan(root, where)
    images = [entry for entry in entries if _has(entry.name, SUFFIXES)]
    if polygons and not images:
        images = [entry for entry in entries if is_vector(entry.name)]
        _refuse_foreign(where, entries if not images else [])
    listing = _folder(root, where, images)
    unread = sorted((e.name for e in entries if _has(e.name, UNREAD_SUFFIXES)), key=natural_key)
    hint = f"expected {READABLE}; convert it, or move it away"
    listing.problems.extend(
        Problem(where / name, f"{Path(name).suffix.lower()} is not read; {hint}") for name in unread
    )
    if not images and (below := sorted(entry.name for entry in entries if entry.name.isdigit())):
        hint = f'if it is a map of tiles, write "{paths}/{{z}}/{{x}}/{{y}}"'
        raise DataError(f"no image, but folders such as {below[0]}", file=where, hint=hint)
    return listing


def skipped_files(root: Path, paths: Paths) -> list[Path]:
    """Files of a folder that are neither images nor companions of images; none for listed files and map tiles.

    Raises:
        DataError: the folder cannot be listed.
    """
    if isinstance(paths, tuple) or tile_parts(paths) is not None or not (where := on_disk(root, paths)).is_dir():
        return []
    known = SUFFIXES + UNREAD_SUFFIXES + VECTORS
    names = sorted(e.name for e in _scan(root, where) if not _has(e.name, known) and not is_companion(e.name))
    return [where / name for name in names if (where / name).is_file()]


def _refuse_foreign(folder: Path, entries: list["os.DirEntry[str]"]) -> None:
    """Refuses folders of labels of other tools."""
    for suffix, kind in ((".txt", "YOLO"), (".xml", "Pascal VOC")):
        found = [entry.name for entry in entries if _has(entry.name, (suffix,))]
        if found:
            raise DataError(
                f"no label image, but {amount(len(found), f'{suffix} file')} such as {found[0]}, as of {kind}",
                file=folder,
                allowed="masks, polygons, or COCO annotations",
                hint="fpn check --init FOLDER writes COCO of the folder of the data set",
            )


def is_inside(root: Path, path: Path) -> bool:
    """Whether a path with all links resolved lies below the root; false for a loop of links."""
    real = os.path.realpath(path)
    return os.path.commonpath([os.path.realpath(root), real]) == os.path.realpath(root)


def _named(root: Path, paths: tuple[str, ...]) -> Listing:
    problems = []
    files = {str(i): on_disk(root, path) for i, path in enumerate(paths)}
    for path in files.values():
        if not is_inside(root, path):
            problems.append(Problem(path, "a link that leads out of the root of the dataset"))
        elif not path.is_file():
            problems.append(Problem(path, "no such file"))
    return Listing(files, problems, named=True)


def _folder(root: Path, where: Path, entries: list["os.DirEntry[str]"]) -> Listing:
    files: dict[str, Path] = {}
    problems = []
    for entry in sorted(entries, key=lambda entry: natural_key(entry.name)):
        path = where / entry.name
        key = name_key(path.stem)
        if entry.is_symlink() and not is_inside(root, path):
            problems.append(Problem(path, "a link that leads out of the root of the dataset"))
        elif key in files:
            problems.append(Problem(path, f"has the same name as {files[key].name}"))
        else:
            files[key] = path
    return Listing(files, problems)


def _tiles(root: Path, folder: str, pattern: str, suffixes: tuple[str, ...]) -> Listing:
    """Lists ``z/x/y`` below the folder, in the order of the pattern; ignores other names."""
    order = [part[1] for part in pattern.split("/")]
    files: dict[str, Path] = {}
    problems: list[Problem] = []
    for outer in _numeric_folders(root, root / folder):
        for inner in _numeric_folders(root, outer):
            rows = [entry for entry in _scan(root, inner) if _has(entry.name, suffixes)]
            found = _folder(root, inner, [entry for entry in rows if Path(entry.name).stem.isdigit()])
            problems += found.problems
            for stem, path in found.files.items():
                place = dict(zip(order, (outer.name, inner.name, stem), strict=True))
                files["/".join(str(int(place[axis])) for axis in "zxy")] = path
    return Listing(files, problems, tiles=pattern)


def _numeric_folders(root: Path, folder: Path) -> list[Path]:
    names = sorted(entry.name for entry in _scan(root, folder) if entry.name.isdigit() and entry.is_dir())
    return [folder / name for name in sorted(names, key=int)]


def _scan(root: Path, where: Path) -> list["os.DirEntry[str]"]:
    """The entries of a folder without hidden files."""
    try:
        if not is_inside(root, where):
            raise DataError("leads out of the root of the dataset", file=where)
        return [entry for entry in os.scandir(where) if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot be listed ({error.strerror or error})", file=where) from error


def _has(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes)


def match_pairs(root: Path, name: str, split: Split, *, tiles: str | None = None) -> tuple[list[Pair], list[Problem]]:
    """Pairs images with labels by stem, by place in a list, by map tile, or one label file for all.

    Args:
        root: of the dataset.
        name: of the split, for errors.
        split: what dataset.yaml says.
        tiles: pattern by which other paths of images tell their place.

    Returns:
        The pairs in natural order (a2 before a10), listed files in their order; problems of files.

    Raises:
        DataError: no such folder or list of names, or labels that cannot belong to these images.
    """
    listed = list_files(root, split.images)
    images, problems = listed.files, list(listed.problems)
    chosen: list[str] | None = None
    if split.stems is not None:
        chosen, more = _chosen(root, split, images)
        images = {stem: images[stem] for stem in chosen if stem in images}
        problems = [problem for problem in problems if name_key(problem.file.stem) in chosen] + more
    labels: dict[str, dict[str, Path]] = {"labels": {}, "objects": {}}
    paired = dict(images)
    for kind, paths in (("labels", split.labels), ("objects", split.objects)):
        if paths is None:
            continue
        found, unpaired, more = _labels(root, name, split, (kind, paths), listed, images, chosen)
        one = "label" if kind == "labels" else "file of objects"
        problems += more
        problems += [Problem(images[key], f"image without {one}") for key in images if key not in found]
        problems += [Problem(path, f"{one} without image") for path in unpaired]
        paired = {key: path for key, path in paired.items() if key in found}
        labels[kind] = found
    images = paired
    if not images and not problems:
        where = root / split.images if isinstance(split.images, str) else root
        problems.append(Problem(where, f'no image in the split "{name}"'))
    keys = sorted(images, key=natural_key)
    bad = {problem.file for problem in problems} if listed.named else set()
    keys = [key for key in keys if not bad & {images[key], labels["labels"].get(key), labels["objects"].get(key)}]
    pattern = listed.tiles or tiles
    pairs = [Pair(images[k], labels["labels"].get(k), pattern, objects=labels["objects"].get(k)) for k in keys]
    return pairs, problems


def _labels(
    root: Path,
    name: str,
    split: Split,
    given: tuple[str, Paths],
    listed: Listing,
    images: dict[str, Path],
    chosen: list[str] | None,
) -> tuple[dict[str, Path], list[Path], list[Problem]]:
    """Labels by the key of their image, labels without image, and problems. given: key of the split, and its value."""
    kind, paths = given
    found = list_files(root, paths, polygons=True)
    if found.named and isinstance(paths, str):
        return _one_for_all(root, split, listed, images, found)
    if found.named:
        if not listed.named or len(found.files) != len(listed.files):
            count = amount(len(listed.files), "image") if listed.named else "images that are not listed"
            raise DataError(
                f"{amount(len(found.files), 'label file')} for {count}",
                file=root,
                field=f"splits.{name}.{kind}",
                allowed="one for each image, in the same order; a folder; or one file of polygons",
            )
        return found.files, [], found.problems
    if (found.tiles is None) != (listed.tiles is None):
        raise DataError(
            "a map of tiles and a folder do not go together",
            file=root,
            field=f"splits.{name}.{kind}",
            allowed="both as {z}/{x}/{y}, both as folders, or polygons in one file",
        )
    labels = found.files
    if listed.named:
        return _by_stem(images, labels), [], found.problems
    if chosen is not None:
        labels = {stem: labels[stem] for stem in chosen if stem in labels}
    return labels, [path for key, path in labels.items() if key not in images], found.problems


def _one_for_all(
    root: Path, split: Split, listed: Listing, images: dict[str, Path], found: Listing
) -> tuple[dict[str, Path], list[Path], list[Problem]]:
    """One file of polygons for all images, or one raster for images on its grid, if they are listed."""
    label = found.files["0"]
    if not is_vector(label) and not listed.named and len(images) > 1:
        raise DataError(
            f"one label file for {amount(len(images), 'image')}",
            file=label,
            allowed="polygons (GeoJSON, GeoPackage, ...), or a folder of label files with the names of the images",
            hint=f"images on one grid can be listed one by one in place of {split.images}",
        )
    return dict.fromkeys(images, label), [], found.problems


def _by_stem(images: dict[str, Path], labels: dict[str, Path]) -> dict[str, Path]:
    """The labels in a folder of listed images; ignores other labels there.

    Raises:
        DataError: two images of one name.
    """
    stems: dict[str, Path] = {}
    for path in images.values():
        stem = name_key(path.stem)
        if stem in stems:
            hint = "list the labels as well, in the same order"
            raise DataError(f"has the same name as {stems[stem]}, so its label is unclear", file=path, hint=hint)
        stems[stem] = path
    return {key: labels[name_key(path.stem)] for key, path in images.items() if name_key(path.stem) in labels}


def chosen_files(root: Path, split: Split) -> tuple[set[Path], set[Path]]:
    """The images in the folder of a split with a `list`, and those that the list names.

    Raises:
        DataError: no such folder or list.
    """
    images = list_files(root, split.images).files
    names, _ = _chosen(root, split, images)
    return set(images.values()), {images[name] for name in names if name in images}


def _chosen(root: Path, split: Split, images: dict[str, Path]) -> tuple[list[str], list[Problem]]:
    """The stems in the list, once each, and problems of those that are no image."""
    file = on_disk(root, str(split.stems))
    if not is_inside(root, file):
        raise DataError("leads out of the root of the dataset", file=file)
    check_regular(file)
    try:
        lines = file.read_text("utf-8-sig").splitlines()  # accepts a byte order mark
    except (OSError, ValueError) as error:
        raise DataError(f"the list cannot be read ({error})", file=file) from error
    stems = list(_stems(lines, images))
    problems = [
        Problem(file, f'lists "{stem}", which is no image of {split.images}') for stem in stems if stem not in images
    ]
    return stems, problems


def _stems(lines: Iterable[str], images: dict[str, Path]) -> Iterable[str]:
    """Each listed name once, without the suffix of an image."""
    for line in dict.fromkeys(name_key(line.strip()) for line in lines if line.strip()):
        whole = line in images or not line.lower().endswith(SUFFIXES)
        yield line if whole else line.rpartition(".")[0]
