"""Objects predicted in one image: clipped to its valid pixels, written as masks, overlay and polygons."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from torchfpn.errors import DataError, amount
from torchfpn.geo.georef import Geo, Ties
from torchfpn.inference.jobs import Job
from torchfpn.inference.outputs import write_feature_file
from torchfpn.inference.semantic import Outcome, PredictOptions, enough_memory, open_image, polygon_settings
from torchfpn.io.atomic import write_bytes
from torchfpn.io.geotiff import write_bands
from torchfpn.ops.masks import Crops, Instances, areas, no_instances, numbered, select, window_pixels
from torchfpn.tasks.task import Precision, Task, computing, naming
from torchfpn.vector.object_features import object_features

INSTANCE = "instance"  # the task of models with masks
MIN_SCORE = 0.5  # default lowest score of objects that are drawn and vectorized
MAX_IN_PNG = 65535  # objects, of 16 bits

DrawObjects = Callable[[NDArray[Any], Instances], bytes]  # raw image [C, H, W] and its objects -> PNG


def predict_objects(
    task: Task, job: Job, options: PredictOptions, *, min_score: float, overlay: DrawObjects | None = None
) -> Outcome:
    """Reads an image whole, finds its objects and writes the files of the job except `labels`, which all images share.

    Args:
        task: a detection model.
        job: the image and its outputs.
        options: how the image is read, and what is written.
        min_score: lowest score of objects in masks, overlays and polygons.
        overlay: draws the picture, where the job has one.

    Returns:
        All objects, and the counts and warnings of the image.

    Raises:
        DataError: the image is damaged, too large, or not what the model expects. RasterError: it has no place on the
            earth, and polygons need one.
    """
    image = open_image(task, job, options)
    objects, empty = find_objects(task, image.pixels, options.precision, name=job.source)
    shown = objects.above(min_score)
    if "instances" in job.others and shown.crops is not None:
        write_instances(job.others["instances"], shown.crops, image.place, file=job.source)
    if overlay is not None:
        write_bytes(job.others["overlay"], overlay(image.raw.numpy(), shown))
    polygons = _write_polygons(task, job, options, shown, image.geo) if options.polygons else 0
    return Outcome(job, objects.size, empty, polygons, image.remarks, objects, len(shown))


@torch.inference_mode()
def find_objects(task: Task, image: Tensor, precision: Precision, *, name: Path | None = None) -> tuple[Instances, int]:
    """Finds the objects of one image.

    Masks end where the data does. An object is left out if no pixel of its mask, or of its box, holds data.

    Args:
        task: a detection model.
        image: [C, H, W], as `as_input` gives it.
        precision: numerical precision.
        name: of the image, for messages.

    Returns:
        The objects, on the CPU, best first; and how many pixels hold no data.

    Raises:
        DataError: more memory is needed than there is. NotFiniteError: the model gives NaN or infinity.
    """
    device = next(task.model.parameters()).device
    with enough_memory(image[None]):
        valid = task.normalize(image[None].to(device))[1][0].cpu()
        if not valid.any():
            return no_instances((image.shape[-2], image.shape[-1]), masks=task.recipe.task == INSTANCE), valid.numel()
        with computing(device, precision), naming(name):
            found: Instances = task.predict([image])[0]
        found = found.to("cpu")
    found = replace(found, boxes=found.boxes.float(), scores=found.scores.float())
    empty = int((~valid).sum())
    if found.crops is not None:
        found = replace(found, crops=_clip(found.crops, valid) if empty else found.crops)
        keep = areas(found.crops) > 0  # type: ignore[arg-type]  # not None
    else:
        keep = _meets_data(found.boxes, valid)
    return (found if bool(keep.all()) else _select(found, keep)), empty


def _clip(crops: Crops, valid: Tensor) -> Crops:
    """The masks without the pixels that are not `valid` [H, W]."""
    windows = crops.windows.tolist()
    here = [
        (pixels & valid[y1:y2, x1:x2]).t().reshape(-1)
        for pixels, (x1, y1, x2, y2) in zip(window_pixels(crops), windows, strict=True)
    ]
    return replace(crops, pixels=torch.cat(here) if here else crops.pixels)


def _meets_data(boxes: Tensor, valid: Tensor) -> Tensor:
    """[N] bool: whether a box reaches into a pixel that is valid."""
    height, width = valid.shape
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = valid.numpy().astype(np.int64).cumsum(0).cumsum(1)
    low, high = boxes[:, :2].floor().long(), boxes[:, 2:].ceil().long()
    high = torch.maximum(high, low + 1)
    x1, y1, x2, y2 = (
        side.clamp(0, most).numpy() for side, most in zip((*low.T, *high.T), (width, height) * 2, strict=True)
    )
    return torch.from_numpy(sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1] > 0)


def _select(found: Instances, keep: Tensor) -> Instances:
    crops = None if found.crops is None else select(found.crops, keep)
    return replace(found, boxes=found.boxes[keep], scores=found.scores[keep], labels=found.labels[keep], crops=crops)


def _write_polygons(task: Task, job: Job, options: PredictOptions, shown: Instances, geo: Geo | None) -> int:
    features = object_features(shown, geo, task.recipe.label_ids, **polygon_settings(task, job, options))
    crs, in_pixels = None if geo is None else geo.crs, options.polygons == "pixels"
    multi = shown.crops is not None
    return write_feature_file(job.others["polygons"], features, crs=crs, in_pixels=in_pixels, multi=multi)


def write_instances(path: Path, crops: Crops, geo: Geo | Ties | None, *, file: Path | None = None) -> None:
    """Writes the number of the object of each pixel: 0 where none is, k for the k-th, best first.

    Where objects overlap the better one is seen; one that others cover has no pixel.

    Args:
        path: .tif: a GeoTIFF on the grid of the image, of 16 bits, or 32 if there are so many; else a 16-bit PNG.
        crops: the masks.
        geo: where the image lies.
        file: the image, for messages.

    Raises:
        DataError: more objects than a PNG can number.
    """
    if path.suffix == ".tif":
        values = numbered(crops).numpy().astype(np.uint16 if len(crops) <= MAX_IN_PNG else np.uint32)
        write_bands(path, values[None], names=["instance"], geo=geo)
        return
    if len(crops) > MAX_IN_PNG:
        hint = "raise --min-score, or give the image as a TIFF"
        raise DataError(amount(len(crops), "object"), file=file, allowed=f"at most {MAX_IN_PNG:,} in a PNG", hint=hint)
    target = io.BytesIO()
    Image.fromarray(numbered(crops).numpy().astype(np.uint16)).save(target, "PNG")
    write_bytes(path, target.getvalue())
