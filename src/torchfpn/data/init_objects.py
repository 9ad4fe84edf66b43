"""The lines of a first dataset.yaml for images with COCO annotations: which file annotates which folder."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from torchfpn.data.init_polygons import inline
from torchfpn.data.layout import image_folder, label_folder, ordered, split_name
from torchfpn.data.listing import is_inside
from torchfpn.data.strict_json import read_json
from torchfpn.errors import DataError
from torchfpn.files.formats import SUFFIXES

MARK = "converted_from"  # in the `info` of COCO files that `--init` makes of other formats
_KEYS = ("images", "annotations", "categories")
_WORDS = "coco|annotations?|instances?|panoptic"  # what names of files say besides that of a split
_KINDS = re.compile(rf"^({_WORDS}|labels?)(_|$)|[_.]({_WORDS})$")
_FOLDERS = ("annotations", "labels", ".")  # where the files of a data set lie that is not cut into folders


class Annotated(NamedTuple):
    """A split: its folder of images and its annotations, relative to the folder.

    masks: all objects have some. crowds: everything is marked as a crowd, so that there would be no object.
    """

    images: str
    annotations: str
    masks: bool
    crowds: bool = False


def find_annotated(folder: Path, *, converted: bool = True) -> dict[str, Annotated]:
    """The splits that COCO files annotate, train first; none if there are no such files.

    converted: also files that `--init` itself has made of other formats.

    Known are a file in the folder of a split (``train/instances.json`` beside ``train/images``, or beside the images
    themselves), and files that name their split (``annotations/instances_train2017.json`` with ``train2017/``, or with
    ``images``). Panoptic files count where there are no others, with the folder of maps that is called like them.

    Raises:
        DataError: panoptic annotations without maps, and no other labels.
    """
    found: dict[str, Annotated] = {}
    for child in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        own, images = _coco_files(child, converted), image_folder(child) or ("." if _has_images(child) else None)
        if len(own) == 1 and images and child.name not in _FOLDERS:
            file = own[0]
            where = child.name if images == "." else f"{child.name}/{images}"
            found[split_name(child.name)] = Annotated(where, f"{child.name}/{file.path.name}", file.masks, file.crowds)
    return ordered(found or _together(folder, converted))


def object_lines(found: dict[str, Annotated], *, fix: bool) -> list[str]:
    """Task and splits, classes left to the categories of the annotations. fix: bad ones are left out."""
    lines = [f"task: {'instance' if all(split.masks for split in found.values()) else 'detection'}"]
    if fix:
        lines.append("fix: true # bad annotations are left out: `fpn check` counts them")
    if crowd_notes(found):
        lines.append("crowds: objects # all annotations are marked `iscrowd: 1`, as CVAT marks masks")
    lines.append("splits:")
    for name, split in found.items():
        parts = {"images": split.images, "annotations": split.annotations}
        lines.append(f"  {inline(name)}: {inline(parts)}")
    return lines


def crowd_notes(found: dict[str, Annotated]) -> tuple[str, ...]:
    """What is decided of annotations that are all crowds, for people."""
    if not all(split.crowds for split in found.values()):
        return ()
    return (
        "all annotations are marked `iscrowd: 1`, as CVAT marks masks; they are read as objects: `crowds: objects`",
    )


def _together(folder: Path, converted: bool) -> dict[str, Annotated]:
    """Files in one folder, each named after its split."""
    for name in _FOLDERS:
        files = _coco_files(folder / name, converted) if (folder / name).is_dir() else []
        prefix = "" if name == "." else f"{name}/"
        found = {}
        for file in files:
            word = _KINDS.sub("", file.path.stem)
            images = _images_of(folder, word, file.first)
            if images is not None:
                split = split_name(re.sub(r"\d+$", "", word)) if len(files) > 1 else "train"
                found[split] = Annotated(images, f"{prefix}{file.path.name}", file.masks, file.crowds)
        if found:
            return found
    return {}


def _images_of(folder: Path, word: str, first: str | None) -> str | None:
    """The folder of images of a split called `word`. first: an image as the annotations name it, below that folder."""
    images = image_folder(folder)
    named = [f"{images}/{word}", word] if word else []
    places = [name for name in [*named, images, "."] if name and (folder / name).is_dir()]
    for name in places if first else []:
        if is_inside(folder, folder / name / str(first)) and (folder / name / str(first)).is_file():
            return name
    return next((name for name in places if _has_images(folder / name)), None)


def _has_images(folder: Path) -> bool:
    return any(path.name.lower().endswith(SUFFIXES) for path in folder.iterdir())


class _File(NamedTuple):
    """A COCO file. masks, crowds: see `Annotated`. first: an image as it names it."""

    path: Path
    masks: bool
    crowds: bool
    first: str | None


def _coco_files(folder: Path, converted: bool) -> list[_File]:
    """The COCO files in a folder: those of objects, or else panoptic ones beside maps.

    Raises:
        DataError: panoptic annotations without maps, and no other labels.
    """
    objects, panoptic = list[_File](), list[_File]()
    for path in sorted(folder.glob("*.json")):
        try:
            value: Any = read_json(path)[0]
        except DataError:  # whatever it is
            continue
        if not isinstance(value, dict) or not all(isinstance(value.get(key), list) for key in _KEYS):
            continue
        if not converted and isinstance(value.get("info"), dict) and MARK in value["info"]:
            continue
        records = [record for record in value["annotations"] if isinstance(record, dict)]
        if any("segments_info" in record for record in records):
            panoptic.append(_File(path, True, False, _first(value["images"])))
            continue
        own = [record for record in records if not record.get("iscrowd")]
        masks = bool(records) and all(record.get("segmentation") for record in own or records)
        objects.append(_File(path, masks, bool(records) and not own, _first(value["images"])))
    if objects:
        return objects
    whole = [file for file in panoptic if file.path.with_suffix("").is_dir()]
    if panoptic and not whole and label_folder(folder) is None:
        allowed = f"PNGs in {panoptic[0].path.stem}/ beside it"
        hint = "or name their folder in a dataset.yaml: panoptic"
        raise DataError("panoptic annotations without maps", file=panoptic[0].path, allowed=allowed, hint=hint)
    return whole


def _first(images: list[Any]) -> str | None:
    """The name of the first image; Windows' separators as others have them."""
    names = [record.get("file_name") for record in images[:1] if isinstance(record, dict)]
    return names[0].replace("\\", "/") if names and isinstance(names[0], str) and "\0" not in names[0] else None
