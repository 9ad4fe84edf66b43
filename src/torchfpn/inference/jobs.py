"""What is to be labelled, as files, and what each answer will be called: settled before the first image."""

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torchfpn.errors import ConfigError, DataError, amount, require
from torchfpn.geo.georef import metadata_file, world_file
from torchfpn.io.formats import (
    MAX_PIXELS,
    SUFFIXES,
    UNREAD_SUFFIXES,
    WINDOWED,
    format_of,
    is_companion,
    name_key,
    printable,
)
from torchfpn.io.images import photograph_geo
from torchfpn.sources.mosaic import is_tile_map, list_tiles

OBJECTS = "objects.json"  # one file of all sources, of models of objects

NAME_BYTES = 255  # of a file name, on every common file system

SHOWN = 3


@dataclass(frozen=True)
class Job:
    """One source and the files made of it: `labels`, and `others` by what they are ("overlay", ...).

    A folder as a source is one of web map tiles, and so are its labels. parts: files that form one scene, called
    `source` then.
    """

    source: Path
    labels: Path
    others: dict[str, Path]
    parts: tuple[Path, ...] = ()

    @property
    def is_tiles(self) -> bool:
        """Whether the source is a folder of tiles."""
        return not self.parts and self.source.is_dir()

    def outputs(self) -> list[Path]:
        """Every file that will be written."""
        return [self.labels, *self.others.values()]


def find_sources(sources: Sequence[str], *, tiles: bool = False) -> list[Path]:
    """The files that `sources` name: files as they are, the images of folders, what globs match. Each file once.

    Images of formats that are not read are among them, so that they fail by name.

    Folders are not searched below; the pattern "folder/**/*.tif" does that. tiles: folders of web map tiles (z/x/y.png)
    are named themselves.

    Raises:
        ConfigError: one of them names nothing.
    """
    found: dict[str, Path] = {}
    for source in sources:
        files = [Path(source)] if tiles and is_tile_map(Path(source)) else _named(source)
        if not files:
            kinds = ", ".join(SUFFIXES)
            raise ConfigError(
                "no image found", file=printable(source), allowed=f"files, folders or patterns of {kinds}"
            )
        for file in files:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def passed_over(sources: Sequence[str]) -> list[Path]:
    """The files of the folders among `sources` that are no images, side files and hidden ones left out."""
    folders = [Path(source) for source in sources if Path(source).is_dir()]
    return [
        child
        for folder in folders
        for child in sorted(folder.iterdir())
        if child.is_file() and not _is_image(child) and not is_companion(child.name)
    ]


def plan(sources: Sequence[Path], out: Path, extras: dict[str, str], *, raster_extras: dict[str, str]) -> list[Job]:
    """A job for every source. Labels are <stem>.tif of rasters and pictures with a world file, else <stem>.png.

    extras: what else is made -> its ending, such as {"overlay": ".overlay.png"}; raster_extras: the same for TIFFs.
    Sources with one stem keep their suffix in the name (a.jpg.png beside a.png.png); with one name, their folder
    (east-a.tif beside west-a.tif). A folder of tiles becomes a folder of tiles.

    Raises:
        ConfigError: two sources would have the same answer, or an answer too long a name; probabilities of tiles; TIFFs
            where rasterio is not installed.
    """
    kinds = [source.is_dir() or _is_raster(source) for source in sources]
    if any(kinds):
        require("raster", "the prediction of TIFFs")
    jobs = []
    for source, raster, stem in zip(sources, kinds, _stems(sources), strict=True):
        endings = raster_extras if raster else extras
        others = {what: out / f"{stem}{ending}" for what, ending in endings.items()}
        ending = "" if source.is_dir() else ".tif" if raster else ".png"
        if source.is_dir() and "probabilities" in others:
            hint = "predict the tiles as one raster: --mosaic NAME"
            raise ConfigError("probabilities of web map tiles", file=printable(source), hint=hint)
        jobs.append(Job(source, out / f"{stem}{ending}", others))
    _check(jobs)
    return jobs


def plan_objects(sources: Sequence[Path], out: Path, extras: dict[str, str], *, masks: bool) -> list[Job]:
    """A job for every source of a detection model: `labels` is one COCO file of all, objects.json.

    extras: as in `plan`. masks: the objects are also numbered in a file of each source ("instances").

    Raises:
        ConfigError: as `plan`.
    """
    return [
        replace(job, labels=out / OBJECTS, others=({"instances": job.labels} if masks else {}) | job.others)
        for job in plan(sources, out, extras, raster_extras=extras)
    ]


def image_names(jobs: Sequence[Job]) -> list[str]:
    """Every source as a path below the folder that all have in common, which is how COCO names images."""
    whole = [Path(os.path.abspath(job.source)) for job in jobs]  # noqa: PTH100, links are not followed
    top = os.path.commonpath([path.parent for path in whole])
    return [path.relative_to(top).as_posix() for path in whole]


def plan_mosaic(name: str, sources: Sequence[Path], out: Path, extras: dict[str, str]) -> list[Job]:
    """The one job of files that form one scene. Labels are <name>.tif in `out`; a folder of tiles stands for its tiles.

    Raises:
        ConfigError: a name that is none of a file.
    """
    if not name or name != Path(name).name or name.startswith("."):
        raise ConfigError(f'"{name}"', field="--mosaic", allowed="a name for the output, such as town")
    require("raster", "--mosaic")
    files = [file for source in sources for file in (list_tiles(source) if source.is_dir() else [source])]
    others = {what: out / f"{name}{ending}" for what, ending in extras.items()}
    jobs = [Job(Path(name), out / f"{name}.tif", others, tuple(files))]
    _check(jobs)
    return jobs


def refuse_existing(jobs: Sequence[Job]) -> None:
    """Passes jobs whose every output is new.

    Raises:
        ConfigError: how many are there already, and the first of them.
    """
    paths = dict.fromkeys(path for job in jobs for path in job.outputs())
    there = [path for path in paths if path.exists() or path.is_symlink()]
    if there:
        shown = ", ".join(printable(path) for path in there[:SHOWN]) + (" ..." if len(there) > SHOWN else "")
        raise ConfigError(
            f"{amount(len(there), 'file already exists', 'files already exist')}: {shown}",
            field="out",
            hint="replace it with --overwrite",
        )


def refuse_own_sources(jobs: Sequence[Job]) -> None:
    """Passes jobs that overwrite none of the sources, whatever `--overwrite` says.

    Raises:
        ConfigError: the first output that is a source.
    """
    sources = {os.path.realpath(file) for job in jobs for file in (job.parts or [job.source])}
    for job in jobs:
        for path in job.outputs():
            if os.path.realpath(path) in sources:
                raise ConfigError(
                    "would be overwritten by its own output", file=printable(path), hint="give another --out"
                )


def _named(source: str) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        return sorted(child for child in path.iterdir() if _is_image(child))
    if path.exists() or path.is_symlink() or not glob.has_magic(source):
        return [path] if path.exists() or path.is_symlink() else []
    matches = (Path(match) for match in glob.glob(source, recursive=True))  # noqa: PTH207, pathlib refuses absolute patterns
    return sorted(match for match in matches if not match.is_dir() and _is_image(match))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES + UNREAD_SUFFIXES and not path.name.startswith(".")


def _stems(sources: Sequence[Path]) -> list[str]:
    """What each source is called: the shortest of stem, name, and path below the common folder that no other has."""
    whole = [os.path.abspath(source) for source in sources]  # noqa: PTH100, links are not followed
    top = os.path.commonpath([os.path.dirname(path) for path in whole])  # noqa: PTH120
    paths = [os.path.relpath(path, top).replace(os.sep, "-") for path in whole]
    candidates = ([source.stem for source in sources], [source.name for source in sources])
    below = [path.removesuffix(source.suffix) for path, source in zip(paths, sources, strict=True)]
    chosen = [*paths]
    for names in (below, *reversed(candidates)):
        counts = Counter(name_key(name).casefold() for name in names)
        chosen = [
            name if counts[name_key(name).casefold()] == 1 else old for name, old in zip(names, chosen, strict=True)
        ]
    return chosen


def _is_raster(source: Path) -> bool:
    """Whether the answer is a GeoTIFF: of rasters and of photographs that say where they lie; the content decides."""
    try:
        kind = format_of(source)
        if kind in WINDOWED or world_file(source) is not None:
            return True
        return metadata_file(source) is not None and photograph_geo(source, kind, MAX_PIXELS) is not None
    except DataError:
        return source.suffix.lower() in (".tif", ".tiff", ".vrt")


def _check(jobs: Sequence[Job]) -> None:
    owners: dict[str, Path] = {}
    for job in jobs:
        for path in job.outputs():
            if len(os.fsencode(path.name)) > NAME_BYTES:
                raise ConfigError(
                    "the name is too long for its output", file=printable(job.source), hint="rename the image"
                )
            other = owners.setdefault(name_key(str(path)).casefold(), job.source)
            if other != job.source:
                raise ConfigError(
                    f"has the same name as {printable(other)}, so one output would overwrite the other",
                    file=printable(job.source),
                    hint="predict them into two folders",
                )
