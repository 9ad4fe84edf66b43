"""Which image goes with which labels: by name, by the place in a list, by the tile, or one file for all."""

from collections.abc import Iterable
from pathlib import Path

from torchfpn.data.listing import Listing, is_inside, list_files
from torchfpn.data.splits import Pair, Problem, Split, natural
from torchfpn.errors import DataError, amount
from torchfpn.files.formats import SUFFIXES, check_regular, name_key, on_disk
from torchfpn.vectors.formats import is_vector


def match_pairs(root: Path, name: str, split: Split, *, tiles: str | None = None) -> tuple[list[Pair], list[Problem]]:
    """The pairs of a split in natural order (a2 before a10), and the files that are left over or may not be read.

    Listed files keep their order. tiles: how paths of images tell their place; those of a map of tiles do anyway.

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
    labels: dict[str, Path] = {}
    if split.labels is not None:
        labels, alone, more = _labels(root, name, split, listed, images, chosen)
        problems += more
        problems += [Problem(images[key], "image without label") for key in images if key not in labels]
        problems += [Problem(path, "label without image") for path in alone]
        images = {key: path for key, path in images.items() if key in labels}
    if not images and not problems:
        where = root / split.images if isinstance(split.images, str) else root
        problems.append(Problem(where, f'no image in the split "{name}"'))
    keys = sorted(images, key=natural)
    bad = {problem.file for problem in problems} if listed.named else set()
    keys = [key for key in keys if images[key] not in bad and labels.get(key) not in bad]
    return [Pair(images[key], labels.get(key), listed.tiles or tiles) for key in keys], problems


def _labels(
    root: Path, name: str, split: Split, listed: Listing, images: dict[str, Path], chosen: list[str] | None
) -> tuple[dict[str, Path], list[Path], list[Problem]]:
    """Labels by the key of their image, labels of no image, and labels that may not be read."""
    assert split.labels is not None  # the caller has seen to it
    found = list_files(root, split.labels, polygons=True)
    if found.named and isinstance(split.labels, str):
        return _one_for_all(root, split, listed, images, found)
    if found.named:
        if not listed.named or len(found.files) != len(listed.files):
            count = amount(len(listed.files), "image") if listed.named else "images that are not listed"
            raise DataError(
                f"{amount(len(found.files), 'label file')} for {count}",
                file=root,
                field=f"splits.{name}.labels",
                allowed="one for each image, in the same order; a folder; or one file of polygons",
            )
        return found.files, [], found.problems
    if (found.tiles is None) != (listed.tiles is None):
        raise DataError(
            "a map of tiles and a folder do not go together",
            file=root,
            field=f"splits.{name}.labels",
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
    """A file of polygons for all images; a raster for one image, or for several that were listed: all on its grid."""
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
    """The labels of listed images in a folder; other labels there are left alone.

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
    """The images in the folder of a split with a `list`, and those of them that the list names.

    Raises:
        DataError: no such folder or list.
    """
    images = list_files(root, split.images).files
    names, _ = _chosen(root, split, images)
    return set(images.values()), {images[name] for name in names if name in images}


def _chosen(root: Path, split: Split, images: dict[str, Path]) -> tuple[list[str], list[Problem]]:
    """The names that the list of stems has, once each, and those that are no image."""
    file = on_disk(root, str(split.stems))
    if not is_inside(root, file):
        raise DataError("leads out of the root of the dataset", file=file)
    check_regular(file)
    try:
        lines = file.read_text("utf-8-sig").splitlines()  # some editors begin with a byte order mark
    except (OSError, ValueError) as error:
        raise DataError(f"the list cannot be read ({error})", file=file) from error
    stems = list(_stems(lines, images))
    problems = [
        Problem(file, f'lists "{stem}", which is no image of {split.images}') for stem in stems if stem not in images
    ]
    return stems, problems


def _stems(lines: Iterable[str], images: dict[str, Path]) -> Iterable[str]:
    """Each listed name once; a name with the suffix of an image counts as its stem."""
    for line in dict.fromkeys(name_key(line.strip()) for line in lines if line.strip()):
        whole = line in images or not line.lower().endswith(SUFFIXES)
        yield line if whole else line.rpartition(".")[0]
