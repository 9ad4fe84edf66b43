"""The files that `images:` or `labels:` of a split stand for: of a folder, one by one, or the tiles of a map."""

import os
from dataclasses import dataclass
from pathlib import Path

from torchfpn.data.splits import Paths, Problem, natural, tile_parts
from torchfpn.errors import DataError, amount
from torchfpn.files.formats import READ, SUFFIXES, UNREAD_SUFFIXES, is_companion, name_key, on_disk
from torchfpn.vectors.formats import SUFFIXES as VECTORS
from torchfpn.vectors.formats import is_vector


@dataclass(frozen=True)
class Listing:
    """files: by what pairs them: the stem in a folder (NFC), z/x/y in a map of tiles, the place in a list ("0", ...).

    problems: files that may not be read, or share a name. named: one by one in dataset.yaml. tiles: the pattern of a
    map of tiles.
    """

    files: dict[str, Path]
    problems: list[Problem]
    named: bool = False
    tiles: str | None = None


def list_files(root: Path, paths: Paths, *, polygons: bool = False) -> Listing:
    """The images that `paths` names. polygons: in folders without any image, files of polygons instead.

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
    unread = sorted((e.name for e in entries if _has(e.name, UNREAD_SUFFIXES)), key=natural)
    cure = f"expected {READ}; convert it, or move it away"
    listing.problems.extend(
        Problem(where / name, f"{Path(name).suffix.lower()} is not read; {cure}") for name in unread
    )
    if not images and (below := sorted(entry.name for entry in entries if entry.name.isdigit())):
        hint = f'if it is a map of tiles, write "{paths}/{{z}}/{{x}}/{{y}}"'
        raise DataError(f"no image, but folders such as {below[0]}", file=where, hint=hint)
    return listing


def passed_over(root: Path, paths: Paths) -> list[Path]:
    """The files of a folder that are neither images nor side files of images; none of listed files and of tiles.

    Raises:
        DataError: the folder cannot be listed.
    """
    if isinstance(paths, tuple) or tile_parts(paths) is not None or not (where := on_disk(root, paths)).is_dir():
        return []
    known = SUFFIXES + UNREAD_SUFFIXES + VECTORS
    names = sorted(e.name for e in _scan(root, where) if not _has(e.name, known) and not is_companion(e.name))
    return [where / name for name in names if (where / name).is_file()]


def _refuse_foreign(folder: Path, entries: list["os.DirEntry[str]"]) -> None:
    """Passes folders of labels, but for those of other tools."""
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
    """Whether the file itself, all links followed, lies below the root. A loop of links leads nowhere."""
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
    for entry in sorted(entries, key=lambda entry: natural(entry.name)):
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
    """Every ``z/x/y`` below the folder, in whichever order the pattern has them; other names are left alone."""
    order = [part[1] for part in pattern.split("/")]
    files: dict[str, Path] = {}
    problems: list[Problem] = []
    for outer in _numbered(root, root / folder):
        for inner in _numbered(root, outer):
            rows = [entry for entry in _scan(root, inner) if _has(entry.name, suffixes)]
            found = _folder(root, inner, [entry for entry in rows if Path(entry.name).stem.isdigit()])
            problems += found.problems
            for stem, path in found.files.items():
                place = dict(zip(order, (outer.name, inner.name, stem), strict=True))
                files["/".join(str(int(place[axis])) for axis in "zxy")] = path
    return Listing(files, problems, tiles=pattern)


def _numbered(root: Path, folder: Path) -> list[Path]:
    names = sorted(entry.name for entry in _scan(root, folder) if entry.name.isdigit() and entry.is_dir())
    return [folder / name for name in sorted(names, key=int)]


def _scan(root: Path, where: Path) -> list["os.DirEntry[str]"]:
    """What a folder holds, hidden files left out."""
    try:
        if not is_inside(root, where):
            raise DataError("leads out of the root of the dataset", file=where)
        return [entry for entry in os.scandir(where) if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot be listed ({error.strerror or error})", file=where) from error


def _has(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes)
