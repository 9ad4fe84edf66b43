"""Which sources are predicted, and the names of their outputs: settled before the first image is read."""

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

OBJECTS = "objects.json"  # the COCO file of a detection model, of all sources
SEGMENTS = "panoptic.json"  # the COCO panoptic file of a panoptic model, of all sources; PNGs are in "panoptic"
MAX_NAME_BYTES = 255  # of a file name, on every common file system
MAX_NAMES = 3  # file names in a message


@dataclass(frozen=True)
class Job:
    """One source and its outputs.

    Attributes:
        source: a file, a folder of web map tiles, or the name of a mosaic.
        labels: the label file, or the folder of label tiles.
        others: further outputs by kind: "overlay", "probabilities", "polygons", "instances"; "segments", a PNG of ids,
            and "raster", a GeoTIFF of them.
        parts: the files of a mosaic.
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
        """All files that will be written."""
        return [self.labels, *self.others.values()]


def find_sources(sources: Sequence[str], *, tiles: bool = False) -> list[Path]:
    """Finds the files that files, folders and patterns name, each file once.

    Folders are not searched below; the pattern "folder/**/*.tif" does that. Images of formats that are not read are
    included, so that they fail by name.

    Args:
        sources: paths and glob patterns.
        tiles: a folder of web map tiles (z/x/y.png) is a source itself.

    Returns:
        The files, in the order of `sources`, those of a folder or pattern by name.

    Raises:
        ConfigError: a source names nothing.
    """
    found: dict[str, Path] = {}
    for source in sources:
        files = [Path(source)] if tiles and is_tile_map(Path(source)) else _files(source)
        if not files:
            kinds = ", ".join(SUFFIXES)
            raise ConfigError(
                "no image found", file=printable(source), allowed=f"files, folders or patterns of {kinds}"
            )
        for file in files:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def skipped_files(sources: Sequence[str]) -> list[Path]:
    """The files in the folders among `sources` that are no images; side files and hidden files are left out."""
    folders = [Path(source) for source in sources if Path(source).is_dir()]
    return [
        child
        for folder in folders
        for child in sorted(folder.iterdir())
        if child.is_file() and not _is_image(child) and not is_companion(child.name)
    ]


def plan(sources: Sequence[Path], out: Path, extras: dict[str, str], *, raster_extras: dict[str, str]) -> list[Job]:
    """Plans a job for every source.

    Labels are <stem>.tif of rasters and georeferenced pictures, else <stem>.png. Sources with one stem keep their
    suffix in the name (a.jpg.png beside a.png.png); with one name, their folder (east-a.tif beside west-a.tif). A
    folder of tiles becomes a folder of tiles.

    Args:
        sources: as `find_sources` gives them.
        out: the output folder.
        extras: kind -> ending of further outputs, such as {"overlay": ".overlay.png"}.
        raster_extras: the same for sources whose labels are a GeoTIFF.

    Returns:
        The jobs, in the order of the sources.

    Raises:
        ConfigError: two sources would have the same output, or an output too long a name; probabilities of tiles; TIFFs
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
    _check_names(jobs)
    return jobs


def plan_objects(sources: Sequence[Path], out: Path, extras: dict[str, str], *, masks: bool) -> list[Job]:
    """Plans a job for every source of a detection model; their `labels` are one COCO file, objects.json.

    extras: as in `plan`. masks: also write the numbered masks of each source ("instances").

    Raises:
        ConfigError: as `plan`.
    """
    return [
        replace(job, labels=out / OBJECTS, others=({"instances": job.labels} if masks else {}) | job.others)
        for job in plan(sources, out, extras, raster_extras=extras)
    ]


def plan_panoptic(sources: Sequence[Path], out: Path, extras: dict[str, str]) -> list[Job]:
    """Plans a job for every source of a panoptic model; their `labels` are one COCO panoptic file, panoptic.json.

    Each has a PNG of ids in the folder "panoptic" beside it, and <stem>.tif if it is a raster or georeferenced.

    Args:
        sources: as `find_sources` gives them.
        out: the output folder.
        extras: as in `plan`.

    Raises:
        ConfigError: as `plan`.
    """
    planned = plan(sources, out, extras, raster_extras=extras)
    jobs = []
    for job, name in zip(planned, image_names(planned), strict=True):
        rasters = {"raster": job.labels} if job.labels.suffix == ".tif" else {}
        png = (out / SEGMENTS).with_suffix("") / Path(name).with_suffix(".png")
        jobs.append(replace(job, labels=out / SEGMENTS, others={"segments": png} | rasters | job.others))
    _check_names([replace(job, labels=job.others["segments"]) for job in jobs])
    return jobs


def image_names(jobs: Sequence[Job]) -> list[str]:
    """The names of the sources in a COCO file: paths below the folder that all have in common."""
    whole = [Path(os.path.abspath(job.source)) for job in jobs]  # noqa: PTH100, links are not followed
    top = os.path.commonpath([path.parent for path in whole])
    return [path.relative_to(top).as_posix() for path in whole]


def plan_mosaic(name: str, sources: Sequence[Path], out: Path, extras: dict[str, str]) -> list[Job]:
    """Plans the one job of a mosaic; its labels are <name>.tif. A folder of tiles stands for its tiles.

    Raises:
        ConfigError: the name is no file name.
    """
    if not name or name != Path(name).name or name.startswith("."):
        raise ConfigError(f'"{name}"', field="--mosaic", allowed="a name for the output, such as town")
    require("raster", "--mosaic")
    files = [file for source in sources for file in (list_tiles(source) if source.is_dir() else [source])]
    others = {what: out / f"{name}{ending}" for what, ending in extras.items()}
    jobs = [Job(Path(name), out / f"{name}.tif", others, tuple(files))]
    _check_names(jobs)
    return jobs


def refuse_existing(jobs: Sequence[Job]) -> None:
    """Refuses to replace files.

    Raises:
        ConfigError: outputs exist already.
    """
    paths = dict.fromkeys(path for job in jobs for path in job.outputs())
    there = [path for path in paths if path.exists() or path.is_symlink()]
    if there:
        shown = ", ".join(printable(path) for path in there[:MAX_NAMES]) + (" ..." if len(there) > MAX_NAMES else "")
        raise ConfigError(
            f"{amount(len(there), 'file already exists', 'files already exist')}: {shown}",
            field="out",
            hint="replace it with --overwrite",
        )


def refuse_own_sources(jobs: Sequence[Job]) -> None:
    """Refuses outputs that are sources, with or without --overwrite.

    Raises:
        ConfigError: the first such output.
    """
    sources = {os.path.realpath(file) for job in jobs for file in (job.parts or [job.source])}
    for job in jobs:
        for path in job.outputs():
            if os.path.realpath(path) in sources:
                raise ConfigError(
                    "would be overwritten by its own output", file=printable(path), hint="give another --out"
                )


def _files(source: str) -> list[Path]:
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
    """The name of each source: the shortest of stem, name, and path below the common folder that is unique."""
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
    """Whether the labels become a GeoTIFF: of rasters and of georeferenced photographs; the content decides."""
    try:
        kind = format_of(source)
        if kind in WINDOWED or world_file(source) is not None:
            return True
        return metadata_file(source) is not None and photograph_geo(source, kind, MAX_PIXELS) is not None
    except DataError:
        return source.suffix.lower() in (".tif", ".tiff", ".vrt")


def _check_names(jobs: Sequence[Job]) -> None:
    owners: dict[str, Path] = {}
    for job in jobs:
        for path in job.outputs():
            if len(os.fsencode(path.name)) > MAX_NAME_BYTES:
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
