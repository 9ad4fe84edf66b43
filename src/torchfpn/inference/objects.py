"""Objects predicted in images: clipped to valid pixels, COCO results and numbered masks written.

Objects as an image of numbers: 0 where none is, k where the k-th is, best first.

One image file -> the objects in it, and what else was asked for: numbered masks, overlay, polygons.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from torchfpn.data.labels.coco_results import CocoResults
from torchfpn.errors import DataError, amount
from torchfpn.geo.georef import Geo, Ties
from torchfpn.inference.jobs import Job
from torchfpn.inference.outputs import write_features, write_polygons
from torchfpn.inference.semantic import Options, enough_memory, opened, outlining
from torchfpn.io.atomic import write_bytes
from torchfpn.io.geotiff import write_bands
from torchfpn.ops.masks import Crops, Instances, areas, no_instances, numbered, select, window_pixels
from torchfpn.tasks.task import Precision, Task, computing, naming
from torchfpn.vector.object_features import object_features

TOP = 65535  # of 16 bits


def write_instances(path: Path, crops: Crops, geo: Geo | Ties | None, *, file: Path | None = None) -> None:
    """A 16-bit PNG, or a GeoTIFF on the grid of the image (32 bits if there are so many), as the suffix says.

    Where objects overlap the better one is seen; one that is hidden as a whole has no pixel. file: for messages.

    Raises:
        DataError: more objects than a PNG can number.
    """
    if path.suffix == ".tif":
        values = numbered(crops).numpy().astype(np.uint16 if len(crops) <= TOP else np.uint32)
        write_bands(path, values[None], names=["instance"], geo=geo)
        return
    if len(crops) > TOP:
        hint = "raise --min-score, or give the image as a TIFF"
        raise DataError(amount(len(crops), "object"), file=file, allowed=f"at most {TOP:,} in a PNG", hint=hint)
    target = io.BytesIO()
    Image.fromarray(numbered(crops).numpy().astype(np.uint16)).save(target, "PNG")
    write_bytes(path, target.getvalue())


ObjectOverlay = Callable[[NDArray[Any], Instances], bytes]  # raw image [C, H, W] and what was found in it -> PNG

MASKS = "instance"  # the task of models with masks

SCORE = 0.5  # least one of objects that are drawn and outlined


@dataclass(frozen=True)
class ObjectOutcome:
    """What came of one source. found: all objects. shown: of them, how many were drawn. empty: pixels without data."""

    job: Job
    found: Instances
    shown: int
    empty: int
    polygons: int = 0
    remarks: tuple[str, ...] = ()

    @property
    def pixels(self) -> int:
        """Of the image."""
        return self.found.size[0] * self.found.size[1]


def predict_objects(
    task: Task, job: Job, options: Options, *, score: float, overlay: ObjectOverlay | None = None
) -> ObjectOutcome:
    """Reads the source, finds its objects, writes the files of the job but its `labels`, which hold many images.

    score: of objects that are drawn and outlined. overlay: how that picture is made, where the job has one.

    Raises:
        DataError: the source is damaged, too large, or not what the model wants. RasterError: it has no place on the
            earth, and polygons need one.
    """
    image, raw, geo, place, said = opened(task, job, options)
    found, empty = objects_of(task, image, options.precision, name=job.source)
    shown = found.above(score)
    if "instances" in job.others and shown.crops is not None:
        write_instances(job.others["instances"], shown.crops, place, file=job.source)
    if overlay is not None:
        write_bytes(job.others["overlay"], overlay(raw.numpy(), shown))
    count = _write_polygons(task, job, options, shown, geo) if options.polygons else 0
    return ObjectOutcome(job, found, len(shown), empty, count, said)


def record(results: CocoResults, number: int, name: str, outcome: ObjectOutcome) -> None:
    """Adds an image to the file of all; what fails here is no matter of one source: half an image would spoil the file.

    number, name: of the image, as `CocoResults.add` takes them.

    Raises:
        DataError: the disk is full.
    """
    try:
        results.add(number, name, outcome.found)
    except OSError as error:
        raise DataError(f"cannot be written ({error.strerror or error})", file=outcome.job.labels) from error


@torch.inference_mode()
def objects_of(task: Task, image: Tensor, precision: Precision, *, name: Path | None = None) -> tuple[Instances, int]:
    """What lies in an image [C, H, W] that fits the model, on the CPU, best first; and how many pixels hold no data.

    Masks end where the data does. What has no pixel of it is no object: a mask without one, a box over none. name: of
    the image, for messages.

    Raises:
        DataError: more memory is needed than there is. NotFiniteError: the model gives NaN or infinity.
    """
    device = next(task.model.parameters()).device
    with enough_memory(image[None]):
        valid = task.normalize(image[None].to(device))[1][0].cpu()
        if not valid.any():
            return no_instances((image.shape[-2], image.shape[-1]), masks=task.recipe.task == MASKS), valid.numel()
        with computing(device, precision), naming(name):
            found: Instances = task.predict([image])[0]
        found = found.to("cpu")
    found = replace(found, boxes=found.boxes.float(), scores=found.scores.float())
    empty = int((~valid).sum())
    if found.crops is not None:
        found = replace(found, crops=_within(found.crops, valid) if empty else found.crops)
        keep = areas(found.crops) > 0  # type: ignore[arg-type]  # not None
    else:
        keep = _seen(found.boxes, valid)
    return (found if bool(keep.all()) else _chosen(found, keep)), empty


def _within(crops: Crops, valid: Tensor) -> Crops:
    """The masks without the pixels that are not `valid` [H, W]."""
    windows = crops.windows.tolist()
    here = [
        (pixels & valid[y1:y2, x1:x2]).t().reshape(-1)
        for pixels, (x1, y1, x2, y2) in zip(window_pixels(crops), windows, strict=True)
    ]
    return replace(crops, pixels=torch.cat(here) if here else crops.pixels)


def _seen(boxes: Tensor, valid: Tensor) -> Tensor:
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


def _chosen(found: Instances, keep: Tensor) -> Instances:
    crops = None if found.crops is None else select(found.crops, keep)
    return replace(found, boxes=found.boxes[keep], scores=found.scores[keep], labels=found.labels[keep], crops=crops)


def _write_polygons(task: Task, job: Job, options: Options, shown: Instances, geo: Geo | None) -> int:

    path = job.others["polygons"]
    features = object_features(shown, geo, task.recipe.label_ids, **outlining(task, job, options))
    if options.polygons == "pixels":
        return write_polygons(path, features, coordinates="pixels: column, row")
    return write_features(path, features, crs=None if geo is None else geo.crs, multi=shown.crops is not None)
