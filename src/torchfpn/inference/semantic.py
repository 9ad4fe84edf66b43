"""Semantic prediction: batches of images -> labels and probabilities; one image file -> its outputs."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.data.headers import page_count
from torchfpn.data.moments import Moments
from torchfpn.errors import ConfigError, DataError, WeightsError, nearest
from torchfpn.geo.georef import Geo, Ties
from torchfpn.geo.tiles import check_pattern
from torchfpn.geo.window import Block, Window
from torchfpn.inference.jobs import Job
from torchfpn.inference.outputs import (
    LabelOutput,
    Output,
    PictureOutput,
    PolygonOutput,
    PredictedMap,
    ProbabilityOutput,
    TileOutput,
    file_values,
    label_type,
    write_outputs,
)
from torchfpn.inference.tiling import Seams
from torchfpn.io.formats import MAX_SIDE, format_of, printable
from torchfpn.io.images import SEVERAL, Picture
from torchfpn.io.select_bands import fitted, in_range
from torchfpn.ops.masks import Instances
from torchfpn.sources.mosaic import Part
from torchfpn.sources.raster import ReadOptions, check_unchanged, digest, read_files
from torchfpn.tasks.task import Named, Precision, Task, check_logits, computing, overflow_words
from torchfpn.types import Panoptic
from torchfpn.vector.lon_lat import check_place

MAX_PIXELS = 2**24  # of an image that is predicted whole: 4096 x 4096

DrawOverlay = Callable[[NDArray[Any], NDArray[np.int64]], bytes]  # raw image [C, H, W], labels [H, W] -> PNG


@dataclass(frozen=True)
class PredictOptions:
    """How sources are read, and what is written of each.

    Attributes:
        probabilities: pixel type of the probabilities; None: they are not written.
        polygons: in longitude and latitude ("geojson"), in the coordinate system of the source ("gpkg", "fgb"), or in
            pixels; None: they are not written.
        vectorize: classes that get polygons; None: all.
        min_pixels: smallest polygon or hole, in pixels.
        simplify: tolerance of the simplification of polygons, in pixels.
        assume_crs: well-known text for files that have a transform but no coordinate system.
        tiles: pattern of the paths of files without a georeference, such as "{z}/{x}/{y}".
        model_tiles: the same as the model learnt it, for files whose paths match it.
        bands: names or numbers from 1 of the bands to use, in the model's order; None: as the model finds them.
        accept_dtype: accept pixels of another type than in training.
        allow_vrt: read VRTs whose files lie below their own folder.
        max_pixels: largest image read whole, height x width.
        max_side: largest height or width of a raster read by windows.
        precision: numerical precision of the model.
    """

    probabilities: Literal["uint8", "float32"] | None = None
    polygons: Literal["geojson", "gpkg", "fgb", "pixels"] | None = None
    vectorize: Sequence[str] | None = None
    min_pixels: float = 0.0
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
    """The result of one source, for messages.

    Attributes:
        job: the source and its files.
        size: height and width in pixels.
        empty: pixels without data.
        polygons: how many were written.
        remarks: warnings about the source.
        objects: of a detection model, all objects found.
        shown: how many of them reach the lowest score of drawn objects.
        panoptic: of a panoptic model, the segments.
    """

    job: Job
    size: tuple[int, int]
    empty: int
    polygons: int = 0
    remarks: tuple[str, ...] = ()
    objects: Instances | None = None
    shown: int = 0
    panoptic: Panoptic | None = None

    @property
    def pixels(self) -> int:
        """Of the source."""
        return self.size[0] * self.size[1]


@dataclass(frozen=True)
class Prediction:
    """The prediction of one image or window.

    Attributes:
        labels: [H, W], 0-based; `IGNORE` without data.
        scores: [H, W] uint8, the probability of the label; 255: certain.
        probabilities: [K, H, W] of every class, if they were asked for; without data NaN in floating-point types, 0 in
            uint8.
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.uint8]
    probabilities: NDArray[Any] | None = None


def predict_image(task: Task, job: Job, options: PredictOptions, *, overlay: DrawOverlay | None = None) -> Outcome:
    """Reads an image whole, labels it and writes its outputs.

    Args:
        task: a semantic model.
        job: the image and its outputs.
        options: how the image is read, and what is written.
        overlay: draws the picture, where the job has one.

    Returns:
        The counts and warnings of the image.

    Raises:
        DataError: the image is damaged, too large, or not what the model expects. RasterError: it has no place on the
            earth, and polygons need one.
    """
    image = open_image(task, job, options)
    names = [(job.source, None)]
    batch = image.pixels[None]
    prediction = predict_batch(task, batch, options.precision, probabilities=options.probabilities, names=names)[0]
    size = (prediction.labels.shape[0], prediction.labels.shape[1])
    whole = Block(0, Window(0, 0, *size), Window(0, 0, *size))
    arrays = block_arrays(task, whole, prediction, options)
    outputs = job_outputs(task, job, options)
    if overlay is not None:
        draw = partial(overlay, image.raw.numpy(), prediction.labels)
        outputs.append(PictureOutput(job.others["overlay"], draw))
    predicted = PredictedMap(
        job.source, size, image.geo, max(size), [whole], lambda _: arrays, task.recipe, image.ties, is_whole=True
    )
    written = write_outputs(outputs, predicted)
    return Outcome(job, size, written.empty, written.polygons, image.remarks)


@torch.inference_mode()
def predict_batch(
    task: Task,
    images: Tensor,
    precision: Precision,
    *,
    probabilities: str | None = None,
    names: Sequence[Named] = (),
) -> list[Prediction]:
    """Predicts raw images [B, C, H, W].

    Args:
        task: a semantic model.
        images: as `as_input` gives them.
        precision: numerical precision.
        probabilities: type of the probabilities, "uint8", "float16" or "float32"; None: none are kept.
        names: of the images, for messages.

    Returns:
        A prediction for each image.

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
            Prediction(
                result.labels.cpu().numpy(),
                (255 * result.scores).round().to(torch.uint8).cpu().numpy(),
                _as_type(logits.float().softmax(0), mask, probabilities) if probabilities else None,
            )
            for result, logits, mask in zip(results, raw, valid, strict=True)
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


def _as_type(probabilities: Tensor, valid: Tensor, dtype: str) -> NDArray[Any]:
    """Probabilities [K, H, W] as they are written. valid: [H, W]."""
    if dtype == "uint8":
        return (255 * probabilities * valid).round().to(torch.uint8).cpu().numpy()
    probabilities = probabilities.to(getattr(torch, dtype))
    return probabilities.masked_fill(~valid, torch.nan).cpu().numpy()


def block_arrays(
    task: Task, block: Block, prediction: Prediction, options: PredictOptions, seams: Seams | None = None
) -> dict[str, NDArray[Any]]:
    """The arrays that outputs read of a block, cut out of the prediction of its window.

    "labels" [h, w] in the values of label files; with polygons "scores" [h, w]; with probabilities "probabilities"
    [K, h, w]; with `seams` also "rim" [K, n], see `torchfpn.inference.tiling`.
    """
    labels = file_values(prediction.labels[block.inside], task.recipe)
    arrays: dict[str, NDArray[Any]] = {"labels": labels.astype(label_type(task.recipe))}
    if options.polygons:
        arrays["scores"] = prediction.scores[block.inside]
    if prediction.probabilities is not None and options.probabilities:
        inner = prediction.probabilities[:, *block.inside]
        is_rounded = seams is not None and options.probabilities == "uint8"
        arrays["probabilities"] = np.rint(255 * np.nan_to_num(inner)).astype(np.uint8) if is_rounded else inner
    if prediction.probabilities is not None and seams is not None:
        arrays["rim"] = prediction.probabilities[:, seams.rim(block)].astype(np.float16)
    return arrays


def job_outputs(task: Task, job: Job, options: PredictOptions, *, tiles: Sequence[Part] | None = None) -> list[Output]:
    """The outputs of a job but its picture. tiles: of a source whose labels become web map tiles."""
    outputs: list[Output] = []
    if options.probabilities:
        outputs.append(ProbabilityOutput(job.others["probabilities"], options.probabilities))
    outputs.append(LabelOutput(job.labels) if tiles is None else TileOutput(job.labels, tiles))
    if options.polygons:
        outputs.append(PolygonOutput(job.others["polygons"], polygon_settings(task, job, options)))
    return outputs


class OpenImage(NamedTuple):
    """An image that was read whole.

    pixels: [C, H, W] as the model expects them. raw: [C, H, W] in the values of the file, for pictures. geo: where it
    lies. ties: ground control points, if it has no transform. remarks: warnings about it.
    """

    pixels: Tensor
    raw: Tensor
    geo: Geo | None
    ties: Ties | None
    remarks: tuple[str, ...]

    @property
    def place(self) -> Geo | Ties | None:
        """The georeference of raster outputs."""
        return self.geo or self.ties


def open_image(task: Task, job: Job, options: PredictOptions) -> OpenImage:
    """Reads the source of a job whole.

    Raises:
        DataError: it is damaged, too large, or not what the model expects. RasterError: it has no place on the earth,
            and polygons need one.
    """
    if format_of(job.source) in ("tiff", "vrt"):
        as_input(task, reading(options).bands_of(job.source), options, file=job.source)  # refuses other bands early
    before = digest(read_files(job.source))
    picture = reading(options).whole(job.source)
    check_unchanged(before, digest(read_files(job.source)), job.source)
    geo = reading(options).place(picture.geo, job.source, picture.size)
    check_polygons(geo, picture.size, job, options)
    raw = _raw(task, picture, options, file=job.source)
    image = _in_range(task, picture, raw, options, file=job.source)
    overflows = count_overflows(task, image)
    remarks = (*page_remarks(job), *float32_remarks(picture), *([overflow_words(overflows)] if overflows else []))
    return OpenImage(image, raw, geo, picture.ties, remarks)


def count_overflows(task: Task, image: Tensor) -> int:
    """How many pixels of an image [C, H, W] overflow when they are scaled for the model."""
    return int(task.normalize.overflowing(image[None].to(task.normalize.offset.device)).sum())


def page_remarks(job: Job) -> list[str]:
    """Warnings about files of a job that have more pages than the first, which alone is read."""
    remarks = []
    for file in job.parts or ([job.source] if job.source.is_file() else []):
        if (pages := page_count(file)) > 1:
            name = f"{printable(file.name)}: " if job.parts else ""
            one, tool = ("picture", "") if file.suffix.lower() in SEVERAL else ("page", " (tiffsplit)")
            remarks.append(
                f"{name}has {pages} {one}s, of which {one} 1 is taken; write the others to files of their own{tool}"
            )
    return remarks


def float32_remarks(picture: Picture) -> list[str]:
    """A warning if values differ by less than float32 resolves."""
    dtype = picture.array.dtype
    if dtype.itemsize <= 2 or dtype == np.float32:
        return []
    line = Moments.of(picture.array, picture.valid).float32_warning(picture.band_names)
    return [] if line is None else [line]


def as_input(task: Task, picture: Picture, options: PredictOptions, *, file: Path) -> Tensor:
    """An image [C, H, W] as the model expects it: its bands in its order, its range of values, NaN without data.

    Raises:
        DataError: other bands, another pixel type or other values than the model was trained on.
    """
    return _in_range(task, picture, _raw(task, picture, options, file=file), options, file=file)


def _in_range(task: Task, picture: Picture, raw: Tensor, options: PredictOptions, *, file: Path) -> Tensor:
    return in_range(raw, picture.dtype, task.recipe, file=file, accept=options.accept_dtype)


def _raw(task: Task, picture: Picture, options: PredictOptions, *, file: Path) -> Tensor:
    if options.bands and len(options.bands) == len(task.recipe.bands):
        named = (True,) * len(options.bands)  # the user's order is the model's
        picture = replace(picture, band_names=task.recipe.bands, told=named)
    return fitted(picture, task.recipe, file=file, accept_dtype=options.accept_dtype)


def reading(options: PredictOptions) -> ReadOptions:
    """How the files of a prediction are read."""
    bands = tuple(options.bands) if options.bands else None
    limits = options.max_pixels, options.max_side
    return ReadOptions(bands, options.assume_crs, options.tiles, options.model_tiles, options.allow_vrt, *limits)


def check_polygons(geo: Geo | None, size: tuple[int, int], job: Job, options: PredictOptions) -> None:
    """Refuses images without a place on the earth, if polygons on the earth are asked for.

    geo: where the image lies. size: its height and width.

    Raises:
        RasterError: the image has none.
    """
    if options.polygons not in (None, "pixels"):
        check_place(geo, job.source, size)


def check_classes(task: Task, options: PredictOptions, *, file: Path | None) -> None:
    """Refuses a model whose label values exceed 16 bits, and names of classes that it does not have.

    file: of the model.

    Raises:
        WeightsError: a value. ConfigError: a name.
    """
    if (top := max(task.recipe.label_ids, default=0)) > 65535:
        raise WeightsError(f"a class with the value {top}", file=file, allowed="0..65535 in label files")
    for name in options.vectorize or ():
        if name not in task.classes:
            raise ConfigError(f'no class "{name}"', field="--vectorize", hint=nearest(name, task.classes))


def tile_pattern(task: Task) -> str | None:
    """The pattern of tile paths that the model learnt, for files without a georeference; None: it learnt none.

    Raises:
        ConfigError: the recipe holds a word that is no pattern.
    """
    pattern = task.recipe.rules.get("tiles")
    return None if pattern is None else check_pattern(str(pattern))


def polygon_settings(task: Task, job: Job, options: PredictOptions) -> dict[str, Any]:
    """Keyword arguments of `vector.features.trace` and `vector.object_features.object_features`."""
    classes = zip(task.recipe.label_ids, task.recipe.classes, strict=True)
    return {
        "names": {value: name for value, name in classes if options.vectorize is None or name in options.vectorize},
        "min_pixels": options.min_pixels,
        "simplify": options.simplify,
        "coordinates": {"geojson": "degrees", "pixels": "pixels"}.get(options.polygons or "", "map"),
        "file": job.source,
    }
