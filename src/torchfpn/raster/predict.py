"""One image file -> its label file, and what else was asked for: overlay, probabilities, polygons."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.errors import DataError
from torchfpn.files.atomic import write_bytes
from torchfpn.files.geo import Geo
from torchfpn.files.images import Window, read_image
from torchfpn.raster.answers import file_values, write_labels, write_polygons, write_probabilities
from torchfpn.raster.fitting import fitted
from torchfpn.raster.sources import Job
from torchfpn.tasks.precision import Precision, computing
from torchfpn.tasks.task import Task
from torchfpn.types import IGNORE

if TYPE_CHECKING:  # shapely is loaded where polygons are asked for
    from torchfpn.raster.polygons import Feature

MAX_PIXELS = 2**24  # of an image that is predicted whole: 4096 x 4096
Overlay = Callable[[NDArray[Any], NDArray[np.int64]], bytes]  # raw image [C, H, W] and labels [H, W] -> PNG


@dataclass(frozen=True)
class Options:
    """How files are predicted.

    probabilities: type of the values, None for none. polygons: in longitude and latitude ("geojson") or in pixels.
    outlined: classes that get polygons, None: all. least: pixels of the smallest polygon. simplify: about how many
    pixels outlines may be off. assume_crs: well-known text for files that have a transform but no coordinate system.
    bands: which bands of the files to use, names or numbers from 1, in the model's order. accept_dtype: take pixels of
    another type than the model was trained on.
    """

    probabilities: Literal["uint8", "float32"] | None = None
    polygons: Literal["geojson", "pixels"] | None = None
    outlined: Sequence[str] | None = None
    least: float = 0.0
    simplify: float = 0.0
    assume_crs: str | None = None
    bands: Sequence[int | str] | None = None
    accept_dtype: bool = False
    allow_vrt: bool = False
    max_pixels: int = MAX_PIXELS
    precision: Precision = "fp32"


@dataclass(frozen=True)
class Outcome:
    """What came of one source. empty: pixels without data. polygons: how many were written."""

    job: Job
    size: tuple[int, int]
    empty: int
    polygons: int = 0

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
    image, geo = read_picture(task, job, options)
    if options.polygons == "geojson":
        from torchfpn.raster.polygons import check_place

        check_place(geo, job.source)
    labels, probabilities = answer(task, image, options.precision, probabilities=options.probabilities)
    values = file_values(labels, task.recipe)
    write_labels(job.labels, values, task.recipe, geo)
    if overlay is not None:
        write_bytes(job.others["overlay"], overlay(image.numpy(), labels))
    if probabilities is not None:
        write_probabilities(job.others["probabilities"], probabilities, task.recipe, geo)
    count = _write_polygons(job, values, task, geo, options) if options.polygons else 0
    return Outcome(job, (labels.shape[0], labels.shape[1]), int((labels == IGNORE).sum()), count)


@torch.inference_mode()
def answer(
    task: Task, image: Tensor, precision: Precision, *, probabilities: str | None = None
) -> tuple[NDArray[np.int64], NDArray[Any] | None]:
    """Raw image [C, H, W] -> labels [H, W], and probabilities [K, H, W] of type `probabilities` (None: not wanted).

    Without data: `IGNORE`; NaN in float32 and 0 in every class in uint8, where 255 means certain.

    Raises:
        DataError: more memory is needed than there is.
    """
    device = next(task.model.parameters()).device
    try:
        with computing(device, precision):
            images, valid = task.normalize(image[None].to(device))
            raw = task.model(images.contiguous(memory_format=torch.channels_last))
        result = task.postprocess(raw, [(image.shape[-2], image.shape[-1])], valid)[0]
        shares = _shares(raw[0].float(), valid[0], probabilities) if probabilities else None
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            size = f"{image.shape[-1]} x {image.shape[-2]} pixels"
            raise DataError(f"{size} need more memory than there is", hint="cut it into parts") from error
        raise
    return result.labels.cpu().numpy(), shares


def _shares(logits: Tensor, valid: Tensor, dtype: str) -> NDArray[Any]:
    shares = logits.softmax(0)
    if dtype == "uint8":
        return (255 * shares * valid).round().to(torch.uint8).cpu().numpy()
    shares[:, ~valid] = torch.nan
    return shares.cpu().numpy()


def read_picture(task: Task, job: Job, options: Options, *, window: Window | None = None) -> tuple[Tensor, Geo | None]:
    """The image, or a window of it, as the model wants it, and where the whole one lies.

    Raises:
        DataError: damaged, too large, other bands or another pixel type than the model was trained on.
    """
    file, bands = job.source, list(options.bands) if options.bands else None
    limit = options.max_pixels if window is None else max(options.max_pixels, window[2] * window[3])
    picture = read_image(file, bands=bands, max_pixels=limit, allow_vrt=options.allow_vrt, window=window)
    if bands is not None and len(bands) == len(task.recipe.bands):
        picture = replace(picture, band_names=task.recipe.bands)  # the user's order is the model's
    geo = picture.geo
    if geo is not None and geo.crs is None and options.assume_crs is not None:
        geo = Geo(options.assume_crs, geo.transform)
    return fitted(picture, task.recipe, file=file, accept_dtype=options.accept_dtype), geo


def outlining(task: Task, job: Job, options: Options) -> dict[str, Any]:
    """How areas are outlined, as `polygons.trace` and `trace_map` take it."""
    classes = zip(task.recipe.label_ids, task.recipe.classes, strict=True)
    return {
        "names": {value: name for value, name in classes if options.outlined is None or name in options.outlined},
        "least": options.least,
        "simplify": options.simplify,
        "in_pixels": options.polygons == "pixels",
        "file": job.source,
    }


def write_outlines(job: Job, options: Options, features: "Iterable[Feature]") -> int:
    """The file of polygons of a job; how many there were."""
    members = {"coordinates": "pixels: column, row"} if options.polygons == "pixels" else {}
    return write_polygons(job.others["polygons"], (feature.to_json() for feature in features), **members)


def _write_polygons(job: Job, values: NDArray[np.uint16], task: Task, geo: Geo | None, options: Options) -> int:
    from torchfpn.raster.polygons import trace

    return write_outlines(job, options, trace(values, geo, **outlining(task, job, options)))
