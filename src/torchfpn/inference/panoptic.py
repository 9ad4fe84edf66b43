"""Panoptic segments predicted in one image, written as GeoTIFF, overlay and polygons."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.data.labels.coco_panoptic_writing import PanopticCategory
from torchfpn.geo.georef import Geo
from torchfpn.inference.jobs import Job
from torchfpn.inference.outputs import write_feature_file
from torchfpn.inference.semantic import Outcome, PredictOptions, enough_memory, open_image, polygon_settings
from torchfpn.io.atomic import write_bytes
from torchfpn.io.geotiff import write_bands
from torchfpn.ops.masks import Crops, Instances, no_instances
from torchfpn.recipe import IGNORE, Recipe
from torchfpn.tasks.task import Precision, Task, computing, naming
from torchfpn.types import Panoptic, Semantic
from torchfpn.vector.features import Feature
from torchfpn.vector.object_features import object_features

PANOPTIC = "panoptic"  # the task
VOID = 0  # the id of pixels of no segment

DrawSegments = Callable[[NDArray[Any], Panoptic], bytes]  # raw image [C, H, W] and its segments -> PNG


def predict_panoptic(task: Task, job: Job, options: PredictOptions, *, overlay: DrawSegments | None = None) -> Outcome:
    """Reads an image whole, finds its segments and writes the files of the job that it has for itself.

    The annotations of all images and their PNGs are written by the caller.

    Args:
        task: a panoptic model.
        job: the image and its outputs.
        options: how the image is read, and what is written.
        overlay: draws the picture, where the job has one.

    Returns:
        The segments, and the counts and warnings of the image.

    Raises:
        DataError: the image is damaged, too large, or not what the model expects. RasterError: it has no place on the
            earth, and polygons need one.
    """
    image = open_image(task, job, options)
    found, empty = find_segments(task, image.pixels, options.precision, name=job.source)
    if "raster" in job.others:
        ids = found.segments.numpy().astype(np.uint32)
        write_bands(job.others["raster"], ids[None], names=["segment"], geo=image.place, nodata=VOID)
    if overlay is not None:
        write_bytes(job.others["overlay"], overlay(image.raw.numpy(), found))
    polygons = _write_polygons(task, job, options, found, image.geo) if options.polygons else 0
    size = found.segments.shape[0], found.segments.shape[1]
    return Outcome(job, size, empty, polygons, image.remarks, panoptic=found)


@torch.inference_mode()
def find_segments(task: Task, image: Tensor, precision: Precision, *, name: Path | None = None) -> tuple[Panoptic, int]:
    """Finds the segments of one image; pixels without data are of none.

    Args:
        task: a panoptic model.
        image: [C, H, W], as `as_input` gives it.
        precision: numerical precision.
        name: of the image, for messages.

    Returns:
        The result, on the CPU; and how many pixels hold no data.

    Raises:
        DataError: more memory is needed than there is. NotFiniteError: the model gives NaN or infinity.
    """
    device, size = next(task.model.parameters()).device, (image.shape[-2], image.shape[-1])
    with enough_memory(image[None]):
        valid = task.normalize(image[None].to(device))[1][0].cpu()
        if not valid.any():
            semantic = Semantic(torch.full(size, IGNORE), torch.zeros(size))
            nothing = Panoptic(torch.zeros(size, dtype=torch.int32), [], no_instances(size, masks=True), semantic)
            return nothing, valid.numel()
        with computing(device, precision), naming(name):
            found: Panoptic = task.predict([image])[0].to("cpu")
    return found, int((~valid).sum())


def panoptic_categories(recipe: Recipe) -> list[PanopticCategory]:
    """The classes of a model as COCO panoptic categories, with the ids of its label files."""
    rows = zip(recipe.label_ids, recipe.classes, recipe.colors, strict=True)
    return [PanopticCategory(number, name, name in recipe.things, color) for number, name, color in rows]


def segment_features(found: Panoptic, geo: Geo | None, recipe: Recipe, settings: dict[str, Any]) -> Iterator[Feature]:
    """One feature for each segment, a MultiPolygon where it has several parts; things first, best first.

    Args:
        found: on the CPU.
        geo: where the image lies.
        recipe: of the model.
        settings: as `polygon_settings` gives them.

    Yields:
        Features with the id of the segment and whether it is a thing beside its class.
    """
    named = settings["names"]
    infos = [one for one in found.segments_info if recipe.label_ids[one.label] in named]
    infos.sort(key=lambda one: (not one.isthing, -one.score, one.id))
    ids = found.segments.numpy()
    windows = np.array([one.box for one in infos], np.int64).reshape(-1, 4)
    pixels = [(ids[y1:y2, x1:x2] == one.id).T.reshape(-1) for one, (x1, y1, x2, y2) in zip(infos, windows, strict=True)]
    crops = Crops.of(windows, np.concatenate(pixels) if pixels else np.zeros(0, bool), ids.shape)
    masks = Instances(
        torch.from_numpy(windows).float(),
        torch.tensor([one.score for one in infos]),
        torch.arange(len(infos)),
        ids.shape,
        crops,
    )
    known = {one.id: one for one in infos}
    names = {one.id: recipe.classes[one.label] for one in infos}
    for feature in object_features(masks, geo, [one.id for one in infos], **{**settings, "names": names}):
        one = known[feature.value]
        extra = {"id": one.id, "isthing": int(one.isthing)}
        yield replace(feature, value=recipe.label_ids[one.label], extra=extra)


def _write_polygons(task: Task, job: Job, options: PredictOptions, found: Panoptic, geo: Geo | None) -> int:
    features = segment_features(found, geo, task.recipe, polygon_settings(task, job, options))
    crs, in_pixels = None if geo is None else geo.crs, options.polygons == "pixels"
    extra = {"id": int, "isthing": int}
    return write_feature_file(job.others["polygons"], features, crs=crs, in_pixels=in_pixels, multi=True, extra=extra)
