"""Semantic predictions: whole images and windowed rasters.

Raw images -> what a model says of them, as arrays ready to be written.

One image file -> its label file, and what else was asked for: overlay, probabilities, polygons.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.data.headers import page_count
from torchfpn.data.moments import Moments
from torchfpn.errors import ConfigError, DataError, WeightsError, nearest
from torchfpn.geo.georef import Geo, Ties
from torchfpn.geo.tiles import check_pattern
from torchfpn.inference.jobs import Job
from torchfpn.inference.outputs import file_values, write_features, write_labels, write_polygons, write_probabilities
from torchfpn.io.atomic import write_bytes
from torchfpn.io.formats import MAX_SIDE, format_of, printable
from torchfpn.io.images import SEVERAL, Picture
from torchfpn.io.select_bands import fitted, in_range
from torchfpn.recipe import IGNORE
from torchfpn.sources.raster import ReadOptions, check_unchanged, digest, read_files
from torchfpn.tasks.task import Named, Precision, Task, check_logits, computing, overflow_words
from torchfpn.vector.features import trace
from torchfpn.vector.lon_lat import check_place

if TYPE_CHECKING:  # shapely is loaded where polygons are asked for
    from torchfpn.vector.features import Feature


@dataclass(frozen=True)
class Answer:
    """Of one image.

    labels: [H, W] 0-based, `IGNORE` without data. scores: [H, W] uint8, the probability of the label; 255: certain.
    shares: [K, H, W], the probability of every class, where it was asked for; without data NaN in floating-point types,
    0 in uint8.
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.uint8]
    shares: NDArray[Any] | None = None


@torch.inference_mode()
def answers(
    task: Task, images: Tensor, precision: Precision, *, shares: str | None = None, names: Sequence[Named] = ()
) -> list[Answer]:
    """Raw images [B, C, H, W] -> an answer each.

    shares: type of the probabilities ("uint8", "float16", "float32"). names: of the images, for messages.

    Raises:
        DataError: more memory is needed than there is. NotFiniteError: the model gives NaN or infinity.
    """
    device = next(task.model.parameters()).device
    height, width = images.shape[-2:]
    with enough_memory(images):
        with computing(device, precision):
            scaled, valid = task.normalize(images.to(device))
            raw = task.model(scaled.contiguous(memory_format=torch.channels_last))
        check_logits(raw, valid, names)
        results = task.postprocess(raw, [(height, width)] * len(images), valid)
        return [
            Answer(
                result.labels.cpu().numpy(),
                (255 * result.scores).round().to(torch.uint8).cpu().numpy(),
                as_type(logits.float().softmax(0), there, shares) if shares else None,
            )
            for result, logits, there in zip(results, raw, valid, strict=True)
        ]


@contextlib.contextmanager
def enough_memory(images: Tensor) -> Iterator[None]:
    """Inside, [B, C, H, W] images that need more memory than there is become a DataError that says so."""
    height, width = images.shape[-2:]
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            size = f"{width} x {height} pixels" + (f", {len(images)} at once," if len(images) > 1 else "")
            raise DataError(f"{size} need more memory than there is", hint="cut it into smaller windows") from error
        raise


def as_type(shares: Tensor, valid: Tensor, dtype: str) -> NDArray[Any]:
    """Probabilities [K, H, W] as they are written. valid: [H, W]."""
    if dtype == "uint8":
        return (255 * shares * valid).round().to(torch.uint8).cpu().numpy()
    shares = shares.to(getattr(torch, dtype))
    return shares.masked_fill(~valid, torch.nan).cpu().numpy()


MAX_PIXELS = 2**24  # of an image that is predicted whole: 4096 x 4096

Overlay = Callable[[NDArray[Any], NDArray[np.int64]], bytes]  # raw image [C, H, W] and labels [H, W] -> PNG


@dataclass(frozen=True)
class Options:
    """How files are predicted.

    probabilities: type of the values, None for none. polygons: in longitude and latitude ("geojson"), in the coordinate
    system of the file ("gpkg", "fgb"), or in pixels. outlined: classes that get polygons, None: all. least: pixels of
    the smallest polygon. simplify: about how many pixels outlines may be off. assume_crs: well-known text for files
    that have a transform but no coordinate system. tiles: how paths of files without a georeference end, such as
    "{z}/{x}/{y}"; model_tiles: the same as the model learnt it, for files whose paths end so. bands: which bands of the
    files to use, names or numbers from 1, in the model's order. accept_dtype: take pixels of another type than the
    model was trained on. max_pixels: of an image read whole; max_side: height and width of one read by windows.
    """

    probabilities: Literal["uint8", "float32"] | None = None
    polygons: Literal["geojson", "gpkg", "fgb", "pixels"] | None = None
    outlined: Sequence[str] | None = None
    least: float = 0.0
    simplify: float = 0.0
    assume_crs: str | None = None
    tiles: str | None = None
    model_tiles: str | None = None
    bands: Sequence[int | str] | None = None
    accept_dtype: bool = False
    allow_vrt: bool = False
    max_pixels: int = MAX_PIXELS
    max_side: int = MAX_SIDE
    precision: Precision = "fp32"


@dataclass(frozen=True)
class Outcome:
    """What came of one source. empty: pixels without data. polygons: how many were written. remarks: to be said."""

    job: Job
    size: tuple[int, int]
    empty: int
    polygons: int = 0
    remarks: tuple[str, ...] = ()

    @property
    def pixels(self) -> int:
        """Of the image."""
        return self.size[0] * self.size[1]


def predict_file(task: Task, job: Job, options: Options, *, overlay: Overlay | None = None) -> Outcome:
    """Reads the source, labels it whole, writes its outputs. overlay: how that picture is made, where the job has one.

    Raises:
        DataError: the source is damaged, too large, or not what the model wants. RasterError: it has no place on the
            earth, and polygons need one.
    """
    image, raw, geo, place, said = opened(task, job, options)
    named = [(job.source, None)]
    answer = answers(task, image[None], options.precision, shares=options.probabilities, names=named)[0]
    labels, probabilities = answer.labels, answer.shares
    values = file_values(labels, task.recipe)
    write_labels(job.labels, values, task.recipe, place)
    if overlay is not None:
        write_bytes(job.others["overlay"], overlay(raw.numpy(), labels))
    if probabilities is not None:
        write_probabilities(job.others["probabilities"], probabilities, task.recipe, place)
    count = _write_polygons(job, values, answer.scores, task, geo, options) if options.polygons else 0
    return Outcome(job, (labels.shape[0], labels.shape[1]), int((labels == IGNORE).sum()), count, said)


class Opened(NamedTuple):
    """A source.

    image: as the model wants it. raw: with the values of the file, for pictures. geo: where it lies. place: what its
    answers say of that. said: what is to be said of it.
    """

    image: Tensor
    raw: Tensor
    geo: Geo | None
    place: Geo | Ties | None
    said: tuple[str, ...]


def opened(task: Task, job: Job, options: Options) -> Opened:
    """Reads the source of a job.

    Raises:
        DataError: damaged, too large, or not what the model wants. RasterError: it has no place on the earth, and
            polygons need one.
    """
    if format_of(job.source) in ("tiff", "vrt"):
        as_input(task, reading(options).bands_of(job.source), options, file=job.source)  # other bands are told at once
    before = digest(read_files(job.source))
    picture = reading(options).whole(job.source)
    check_unchanged(before, digest(read_files(job.source)), job.source)
    geo = reading(options).place(picture.geo, job.source, picture.size)
    check_polygons(geo, picture.size, job, options)
    raw = _raw(task, picture, options, file=job.source)
    image = _in_range(task, picture, raw, options, file=job.source)
    lost = overflows(task, image)
    said = (*remarks(job), *coarseness(picture), *([overflow_words(lost)] if lost else []))
    return Opened(image, raw, geo, geo or picture.ties, said)


def overflows(task: Task, image: Tensor) -> int:
    """How many pixels of an image [C, H, W] overflow when they are scaled for the model."""
    return int(task.normalize.overflowing(image[None].to(task.normalize.offset.device)).sum())


def remarks(job: Job) -> list[str]:
    """What is to be said of the files of a job before they are read: that they have more pages than the one taken."""
    found = []
    for file in job.parts or ([job.source] if job.source.is_file() else []):
        if (pages := page_count(file)) > 1:
            name = f"{printable(file.name)}: " if job.parts else ""
            one, tool = ("picture", "") if file.suffix.lower() in SEVERAL else ("page", " (tiffsplit)")
            found.append(
                f"{name}has {pages} {one}s, of which {one} 1 is taken; write the others to files of their own{tool}"
            )
    return found


def coarseness(picture: Picture) -> list[str]:
    """That values differ by less than float32 can tell, if they do."""
    dtype = picture.array.dtype
    if dtype.itemsize <= 2 or dtype == np.float32:
        return []
    line = Moments.of(picture.array, picture.valid).coarse(picture.band_names)
    return [] if line is None else [line]


def as_input(task: Task, picture: Picture, options: Options, *, file: Path) -> Tensor:
    """An image as the model wants it: its bands, its order, its range of values, NaN where there is no data.

    Raises:
        DataError: other bands, another pixel type or other values than the model was trained on.
    """
    return _in_range(task, picture, _raw(task, picture, options, file=file), options, file=file)


def _in_range(task: Task, picture: Picture, raw: Tensor, options: Options, *, file: Path) -> Tensor:
    return in_range(raw, picture.dtype, task.recipe, file=file, accept=options.accept_dtype)


def _raw(task: Task, picture: Picture, options: Options, *, file: Path) -> Tensor:
    if options.bands and len(options.bands) == len(task.recipe.bands):
        told = (True,) * len(options.bands)  # the user's order is the model's
        picture = replace(picture, band_names=task.recipe.bands, told=told)
    return fitted(picture, task.recipe, file=file, accept_dtype=options.accept_dtype)


def reading(options: Options) -> ReadOptions:
    """How the files of a prediction are read."""
    bands = tuple(options.bands) if options.bands else None
    limits = options.max_pixels, options.max_side
    return ReadOptions(bands, options.assume_crs, options.tiles, options.model_tiles, options.allow_vrt, *limits)


def check_polygons(geo: Geo | None, size: tuple[int, int], job: Job, options: Options) -> None:
    """Passes places that the polygons asked for can be written for. size: height and width of the image.

    Raises:
        RasterError: no place on the earth, and polygons need one.
    """
    if options.polygons not in (None, "pixels"):
        check_place(geo, job.source, size)


def check_classes(task: Task, options: Options, *, file: Path | None) -> None:
    """Passes classes whose values fit into 16 bits, and names of classes that the model has. file: of the model.

    Raises:
        WeightsError, ConfigError: the first that does not.
    """
    if (top := max(task.recipe.label_ids, default=0)) > 65535:
        raise WeightsError(f"a class with the value {top}", file=file, allowed="0..65535 in label files")
    for name in options.outlined or ():
        if name not in task.classes:
            raise ConfigError(f'no class "{name}"', field="--vectorize", hint=nearest(name, task.classes))


def tiles_of(task: Task) -> str | None:
    """How paths of files that do not say where they lie end, as the model learnt it; None: it learnt none.

    Raises:
        ConfigError: the model's pattern is none.
    """
    pattern = task.recipe.rules.get("tiles")
    return None if pattern is None else check_pattern(str(pattern))


def outlining(task: Task, job: Job, options: Options) -> dict[str, Any]:
    """How areas are outlined, as `polygons.trace` and `trace_map` take it."""
    classes = zip(task.recipe.label_ids, task.recipe.classes, strict=True)
    return {
        "names": {value: name for value, name in classes if options.outlined is None or name in options.outlined},
        "min_pixels": options.least,
        "simplify": options.simplify,
        "coordinates": {"geojson": "degrees", "pixels": "pixels"}.get(options.polygons or "", "map"),
        "file": job.source,
    }


def write_outlines(job: Job, options: Options, features: "Iterable[Feature]", geo: Geo | None) -> int:
    """The file of polygons of a job; how many there were. geo: of the source."""
    path = job.others["polygons"]
    if options.polygons == "pixels":
        return write_polygons(path, features, coordinates="pixels: column, row")
    return write_features(path, features, crs=None if geo is None else geo.crs)


def _write_polygons(
    job: Job, values: NDArray[np.uint16], scores: NDArray[np.uint8], task: Task, geo: Geo | None, options: Options
) -> int:

    return write_outlines(job, options, trace(values, geo, scores=scores, **outlining(task, job, options)), geo)
