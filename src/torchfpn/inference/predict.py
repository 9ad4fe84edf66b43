"""`torchfpn.predict`: images, files and folders -> results in memory, or the files that `fpn predict` writes."""

import contextlib
import logging
import numbers
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from torchfpn.data.labels.coco_results import coco_results
from torchfpn.errors import ConfigError
from torchfpn.geo.window import SIDE
from torchfpn.inference import objects
from torchfpn.inference.jobs import (
    Job,
    find_sources,
    image_names,
    plan,
    plan_objects,
    refuse_existing,
    refuse_own_sources,
)
from torchfpn.inference.journal import Finished, fingerprint
from torchfpn.inference.semantic import Options, Outcome, check_classes, predict_file, tiles_of
from torchfpn.inference.windows import ON_A_GPU, Streaming, check_window, open_scene, predict_stream
from torchfpn.io.atomic import make_directory
from torchfpn.io.formats import printable
from torchfpn.io.select_bands import read_input
from torchfpn.nn.layers import evaluating
from torchfpn.tasks.build import load
from torchfpn.tasks.task import Task, find_device

log = logging.getLogger(__name__)


def predict(
    model: Task | str | Path,
    sources: Any,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    tile_size: int | None = None,
    accept_dtype: bool = False,
    device: str | None = None,
) -> list[Any]:
    """What a model says of images: in memory, or as the files that `fpn predict` writes.

    Args:
        model: a task, or the path of a model.safetensors.
        sources: a path, a folder, a pattern such as "photos/*.jpg", an array, or whatever `Task.predict` takes, or a
            list of them. Of a folder or a pattern, images come in the order of their names. With `out`, paths alone.
        out: a folder, which is made where it is missing, for a label file of each image, <stem>.png or <stem>.tif, or
            for objects.json, a COCO file of all images, and the numbered masks of each if the model gives masks. Each
            file is written whole or not at all, and is the same to the byte as that of `fpn predict`. Rasters of more
            than 4096 x 4096 pixels are read by windows of 1024. None: nothing is written.
        overwrite: with `out`, replace files that are there already, and blocks of an interrupted prediction.
        tile_size: with `out`, of a semantic model: side in pixels of the windows that all rasters are read by.
        accept_dtype: of files and arrays, take pixels of another type than the model was trained on.
        device: "cpu", "cuda", ... or "auto"; None: where the task is, of a path as "auto".

    Returns:
        One result for each image: `Semantic` (labels [H, W] 0-based, `IGNORE` without data; scores), or `Instances` in
        pixels of the image, without objects of which no pixel holds data. With `out`: the path of each label file in
        the order of the images, or of objects.json and then of each file of masks.

    Raises:
        FPNError: whatever `torchfpn.load` and `Task.predict` raise; a folder or pattern without an image. With `out`:
            arrays or tensors; files that are there already, before the first image; the first image that fails, after
            which the files of those before it stay, and objects.json is not written.
    """
    _check_arguments(out, overwrite=overwrite, tile_size=tile_size)
    task = model if isinstance(model, Task) else load(model)
    if device is not None or not isinstance(model, Task):
        task = task.to(find_device(device or "auto"))
    is_list = isinstance(sources, list | tuple) and any(isinstance(x, str | os.PathLike) for x in sources)
    every = list(sources) if is_list else [sources]
    if out is not None:
        paths = _paths(every)
        options = Options(accept_dtype=accept_dtype, model_tiles=tiles_of(task))
        file = None if isinstance(model, Task) else Path(model)
        with evaluating(task):
            if task.recipe.task != "semantic":
                return _write_objects(task, paths, Path(out), options, file, overwrite=overwrite, tile_size=tile_size)
            return _write_labels(task, paths, Path(out), options, file, overwrite=overwrite, tile_size=tile_size)
    if not is_list and not isinstance(sources, str | os.PathLike):
        return task.predict(sources, accept_dtype=accept_dtype)
    return [_one(task, image, accept_dtype=accept_dtype) for source in every for image in _images(source)]


def _check_arguments(out: str | Path | None, *, overwrite: bool, tile_size: int | None) -> None:
    for name, given in (("overwrite", overwrite), ("tile_size", tile_size is not None)):
        if given and out is None:
            raise ConfigError(f"{name} without out", field=name, allowed="to come with out=FOLDER")
    if tile_size is not None and (isinstance(tile_size, bool) or not isinstance(tile_size, numbers.Integral)):
        raise ConfigError(f"{tile_size!r}", field="tile_size", allowed="a whole number of pixels")


def _paths(sources: Sequence[Any]) -> list[str]:
    """Sources that have names, which their answers are called by.

    Raises:
        ConfigError: the first that has none.
    """
    for source in sources:
        if not isinstance(source, str | os.PathLike):
            hint = "leave out=FOLDER out, or save the images as files"
            raise ConfigError(
                f"a {type(source).__name__}", field="sources", allowed="paths, with out=FOLDER", hint=hint
            )
    return [os.fspath(source) for source in sources]


def _write_labels(
    task: Task,
    paths: list[str],
    out: Path,
    options: Options,
    file: Path | None,
    *,
    overwrite: bool,
    tile_size: int | None,
) -> list[Path]:
    """The label files of a semantic model. file: of the model, if it is one."""
    on_cpu = next(task.model.parameters()).device.type == "cpu"
    streaming = Streaming(
        "" if file is None else fingerprint(file),  # what is not in a file is not resumed: nothing to compare
        side=SIDE if tile_size is None else int(tile_size),
        batch=1 if on_cpu else ON_A_GPU,
        anew=overwrite,
        always=tile_size is not None,
    )
    check_classes(task, options, file=file)
    check_window(task, streaming)
    jobs = plan(find_sources(paths, tiles=True), out, {}, raster_extras={})
    _begin(jobs, out, overwrite=overwrite)
    finished = Finished(out)
    known = finished.facts()
    for job in jobs:
        scene = open_scene(job, options, streaming)
        with _noting(job, finished) if job.labels.name in known else contextlib.nullcontext():
            if scene is None:
                outcome = predict_file(task, job, options)
            else:
                outcome = predict_stream(task, scene, job, options, streaming)
        _tell(outcome)
    return [job.labels for job in jobs]


def _write_objects(
    task: Task,
    paths: list[str],
    out: Path,
    options: Options,
    file: Path | None,
    *,
    overwrite: bool,
    tile_size: int | None,
) -> list[Path]:
    """The COCO file of a detection model, and its numbered masks. file: of the model, if it is one."""
    if tile_size is not None:
        raise ConfigError(
            f"{tile_size}", field="tile_size", allowed="a semantic model: images are searched for objects whole"
        )
    check_classes(task, options, file=file)
    jobs = plan_objects(find_sources(paths), out, {}, masks=task.recipe.task == objects.MASKS)
    _begin(jobs, out, overwrite=overwrite)
    with coco_results(jobs[0].labels, task.recipe) as results:
        for number, (job, name) in enumerate(zip(jobs, image_names(jobs), strict=True), start=1):
            outcome = objects.predict_objects(task, job, options, score=objects.SCORE)
            objects.record(results, number, name, outcome)
            _tell(outcome)
    return [jobs[0].labels, *(path for job in jobs for path in job.others.values())]


def _begin(jobs: Sequence[Job], out: Path, *, overwrite: bool) -> None:
    """Passes jobs that may be written, and makes the folder."""
    refuse_own_sources(jobs)
    if not overwrite:
        refuse_existing(jobs)
    make_directory(out)


@contextlib.contextmanager
def _noting(job: Job, finished: Finished) -> Iterator[None]:
    """Inside, an answer that `fpn predict` finished is replaced; it is noted as another, which `--resume` refuses."""
    finished.begin(job.labels)
    yield
    finished.end(job.labels, {"writer": "torchfpn.predict"})


def _tell(outcome: Outcome | objects.ObjectOutcome) -> None:
    """What is to be said of a source, as `fpn predict` says it."""
    for line in outcome.remarks:
        log.warning("%s: %s", printable(outcome.job.source), line)
    if outcome.empty == outcome.pixels:
        log.warning("%s: contains no valid pixel", printable(outcome.job.source))


def _images(source: Any) -> Iterator[Any]:
    """The files that a path names; anything else itself."""
    is_path = isinstance(source, str | os.PathLike)
    yield from find_sources([os.fspath(source)]) if is_path else [source]


def _one(task: Task, image: Any, *, accept_dtype: bool) -> Any:
    if task.recipe.task == "semantic" or not isinstance(image, Path | np.ndarray):
        return task.predict([image], accept_dtype=accept_dtype)[0]
    pixels: Tensor = read_input(image, task.recipe, accept_dtype=accept_dtype)
    return objects.objects_of(task, pixels, "fp32", name=image if isinstance(image, Path) else None)[0]
