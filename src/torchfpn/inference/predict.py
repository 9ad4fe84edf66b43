"""`torchfpn.predict`, and the predictors that it shares with `fpn predict`."""

import contextlib
import logging
import numbers
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.data.labels.coco_panoptic_writing import CocoPanoptic, coco_panoptic
from torchfpn.data.labels.coco_results import CocoResults, coco_results
from torchfpn.errors import ConfigError, DataError
from torchfpn.geo.window import SIDE
from torchfpn.inference.jobs import (
    Job,
    find_sources,
    image_names,
    plan,
    plan_mosaic,
    plan_objects,
    plan_panoptic,
    refuse_existing,
    refuse_own_sources,
)
from torchfpn.inference.journal import Finished, fingerprint
from torchfpn.inference.objects import INSTANCE, MIN_SCORE, find_objects, predict_objects
from torchfpn.inference.panoptic import PANOPTIC, find_segments, panoptic_categories, predict_panoptic
from torchfpn.inference.semantic import (
    Outcome,
    PredictOptions,
    check_classes,
    predict_image,
    tile_pattern,
)
from torchfpn.inference.windows import (
    GPU_BATCH,
    TilingOptions,
    check_tiling,
    open_windowed,
    predict_windows,
    window_count,
)
from torchfpn.io.atomic import make_directory
from torchfpn.io.formats import printable
from torchfpn.io.select_bands import read_input
from torchfpn.nn.layers import evaluating
from torchfpn.sources.raster import RasterSource
from torchfpn.tasks.build import load
from torchfpn.tasks.task import Task, find_device

log = logging.getLogger(__name__)

Step = Callable[[], None]
Draw = Callable[[NDArray[Any], Any], bytes]  # raw image [C, H, W], its labels or objects -> PNG


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
    """Predicts images: in memory, or as the files that `fpn predict` writes.

    Args:
        model: a task, or the path of a model.safetensors.
        sources: a path, a folder, a pattern such as "photos/*.jpg", an array, or whatever `Task.predict` takes, or a
            list of them. Of a folder or a pattern, images come in the order of their names. With `out`, paths alone.
        out: a folder, which is made where it is missing, for a label file of each image, <stem>.png or <stem>.tif, or
            for objects.json, a COCO file of all images, and the numbered masks of each if the model gives masks, or for
            panoptic.json, a COCO panoptic file, and the segments of each. Each
            file is written whole or not at all, and is the same to the byte as that of `fpn predict`. Rasters of more
            than 4096 x 4096 pixels are read by windows of 1024. None: nothing is written.
        overwrite: with `out`, replace files that are there already, and blocks of an interrupted prediction.
        tile_size: with `out`, of a semantic model: side in pixels of the windows that all rasters are read by.
        accept_dtype: of files and arrays, take pixels of another type than the model was trained on.
        device: "cpu", "cuda", ... or "auto"; None: where the task is, of a path as "auto".

    Returns:
        One result for each image: `Semantic` (labels [H, W] 0-based, `IGNORE` without data; scores), `Instances` in
        pixels of the image, without objects of which no pixel holds data, or `Panoptic`. With `out`: the path of each
        label file in the order of the images, or of objects.json and then of each file of masks, or of panoptic.json
        and then of each file of segments.

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
        paths, file = _paths(every), None if isinstance(model, Task) else Path(model)
        with evaluating(task):
            return _write_files(
                task, file, paths, Path(out), overwrite=overwrite, tile_size=tile_size, accept_dtype=accept_dtype
            )
    if not is_list and not isinstance(sources, str | os.PathLike):
        return task.predict(sources, accept_dtype=accept_dtype)
    return [_predict_one(task, image, accept_dtype=accept_dtype) for source in every for image in _images(source)]


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


def _write_files(
    task: Task,
    file: Path | None,
    paths: list[str],
    out: Path,
    *,
    overwrite: bool,
    tile_size: int | None,
    accept_dtype: bool,
) -> list[Path]:
    """Writes the outputs of all sources; the first error ends it. file: of the model, if it is one."""
    semantic = task.recipe.task == "semantic"
    if tile_size is not None and not semantic:
        raise ConfigError(
            f"{tile_size}", field="tile_size", allowed="a semantic model: images are searched for objects whole"
        )
    options = PredictOptions(accept_dtype=accept_dtype, model_tiles=tile_pattern(task))
    tiling = TilingOptions(
        fingerprint(file) if file is not None and semantic else "",  # only predictions by a file can be resumed
        side=SIDE if tile_size is None else int(tile_size),
        batch=default_batch(task),
        overwrite=overwrite,
        always=tile_size is not None,
    )
    check_model(task, options, tiling, file=file)
    jobs = plan_jobs(task, find_sources(paths, tiles=semantic), out)
    refuse_own_sources(jobs)
    if not overwrite:
        refuse_existing(jobs)
    make_directory(out)
    finished = Finished(out)
    known = finished.facts()
    with open_predictor(task, jobs, options, tiling) as predictor:
        for job in jobs:
            with _replacing(job, finished) if job.labels.name in known else contextlib.nullcontext():
                outcome = predictor.predict(job)
            predictor.record(outcome)
            _log_remarks(outcome)
    if semantic:
        return [job.labels for job in jobs]
    return [jobs[0].labels, *(path for job in jobs for path in job.others.values())]


@contextlib.contextmanager
def _replacing(job: Job, finished: Finished) -> Iterator[None]:
    """Inside, an output that `fpn predict` finished is replaced; it gets other facts, which `--resume` refuses."""
    finished.begin(job.labels)
    yield
    finished.end(job.labels, {"writer": "torchfpn.predict"})


def _log_remarks(outcome: Outcome) -> None:
    for line in outcome.remarks:
        log.warning("%s: %s", printable(outcome.job.source), line)
    if outcome.empty == outcome.pixels:
        log.warning("%s: contains no valid pixel", printable(outcome.job.source))


def _images(source: Any) -> Iterator[Any]:
    """The files that a path names; anything else itself."""
    is_path = isinstance(source, str | os.PathLike)
    yield from find_sources([os.fspath(source)]) if is_path else [source]


def _predict_one(task: Task, image: Any, *, accept_dtype: bool) -> Any:
    if task.recipe.task == "semantic" or not isinstance(image, Path | np.ndarray):
        return task.predict([image], accept_dtype=accept_dtype)[0]
    pixels: Tensor = read_input(image, task.recipe, accept_dtype=accept_dtype)
    find = find_segments if task.recipe.task == PANOPTIC else find_objects
    return find(task, pixels, "fp32", name=image if isinstance(image, Path) else None)[0]


def default_batch(task: Task) -> int:
    """How many windows are computed at once: 1 on a CPU, more on a GPU."""
    return 1 if next(task.model.parameters()).device.type == "cpu" else GPU_BATCH


def check_model(task: Task, options: PredictOptions, tiling: TilingOptions, *, file: Path | None) -> None:
    """Refuses options that do not fit the model. file: of the model, for messages.

    Raises:
        WeightsError: label values that exceed 16 bits. ConfigError: a class that the model does not have; a tile size
            that is no multiple of its coarsest stride.
    """
    check_classes(task, options, file=file)
    if task.recipe.task == "semantic":
        check_tiling(task, tiling)


def plan_jobs(
    task: Task,
    sources: Sequence[Path],
    out: Path,
    endings: Mapping[str, str] = {},
    raster_endings: Mapping[str, str] = {},
    mosaic: str | None = None,
) -> list[Job]:
    """Plans the outputs of every source.

    Args:
        task: a semantic or detection model.
        sources: as `find_sources` gives them.
        out: the output folder.
        endings: kind -> ending of further outputs, such as {"overlay": ".overlay.png"}.
        raster_endings: the same for sources whose labels are a GeoTIFF; of a semantic model.
        mosaic: name of the one raster that the sources form; of a semantic model.

    Returns:
        The jobs, in the order of the sources.

    Raises:
        ConfigError: names that are taken, too long, or no file names.
    """
    if task.recipe.task == PANOPTIC:
        return plan_panoptic(sources, out, dict(endings))
    if task.recipe.task != "semantic":
        return plan_objects(sources, out, dict(endings), masks=task.recipe.task == INSTANCE)
    if mosaic is not None:
        return plan_mosaic(mosaic, sources, out, dict(raster_endings))
    return plan(sources, out, dict(endings), raster_extras=dict(raster_endings))


class Predictor(Protocol):
    """Predicts the sources of a plan one by one."""

    def steps(self) -> list[int]:
        """How many steps of progress each source of the plan takes."""
        ...

    def predict(self, job: Job, step: Step = ...) -> Outcome:
        """Reads a source and writes its own outputs. step: called for each step of progress that is done.

        Raises:
            FPNError: what is wrong with the source.
        """
        ...

    def record(self, outcome: Outcome) -> None:
        """Adds the outcome to the output that all sources share.

        Raises:
            DataError: the disk is full. That concerns all sources: half an image would spoil the file.
        """
        ...


@contextlib.contextmanager
def open_predictor(
    task: Task,
    jobs: Sequence[Job],
    options: PredictOptions,
    tiling: TilingOptions,
    *,
    min_score: float = MIN_SCORE,
    overlay: Draw | None = None,
) -> Iterator[Predictor]:
    """Opens the predictor that fits the model; the output that all sources share is written at the end.

    Args:
        task: a semantic or detection model.
        jobs: the plan.
        options: how sources are read, and what is written.
        tiling: of a semantic model, how large rasters are cut.
        min_score: of a detection model, lowest score of objects in masks, overlays and polygons.
        overlay: draws the pictures of jobs that have one.

    Yields:
        The predictor.
    """
    if task.recipe.task == "semantic":
        yield _SemanticPredictor(task, jobs, options, tiling, overlay)
        return
    if task.recipe.task == PANOPTIC:
        with _panoptic_file(jobs[0].labels, task) as annotations:
            yield _PanopticPredictor(task, jobs, options, overlay, annotations)
        return
    with coco_results(jobs[0].labels, task.recipe) as results:
        yield _ObjectPredictor(task, jobs, options, min_score, overlay, results)


class _NothingError(Exception):
    """No image was predicted."""


@contextlib.contextmanager
def _panoptic_file(path: Path, task: Task) -> Iterator[CocoPanoptic]:
    """The annotations of all images, as `coco_panoptic`; without an image neither they nor their folder appear."""
    folder = path.with_suffix("")
    is_new = not folder.exists()
    try:
        with (
            contextlib.suppress(_NothingError),
            coco_panoptic(path, folder, panoptic_categories(task.recipe)) as annotations,
        ):
            yield annotations
            if not annotations.images:
                raise _NothingError
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # there are PNGs in it
                folder.rmdir()


@dataclass
class _SemanticPredictor:
    task: Task
    jobs: Sequence[Job]
    options: PredictOptions
    tiling: TilingOptions
    overlay: Draw | None
    opened: dict[Path, RasterSource | Exception | None] = field(default_factory=dict)  # by the path of the labels

    def steps(self) -> list[int]:
        """Windows of each source; 1 for one that is read whole, or that cannot be opened, which `predict` reports."""
        return [self._steps(job) for job in self.jobs]

    def _steps(self, job: Job) -> int:
        try:
            source = self.opened[job.labels] = open_windowed(job, self.options, self.tiling)
        except (DataError, OSError) as error:
            self.opened[job.labels] = error
            return 1
        return 1 if source is None else window_count(source, self.tiling)

    def predict(self, job: Job, step: Step = lambda: None) -> Outcome:
        """See `Predictor`."""
        if job.labels not in self.opened:
            self.opened[job.labels] = open_windowed(job, self.options, self.tiling)
        source = self.opened.pop(job.labels)
        if isinstance(source, Exception):
            raise source
        if source is None:
            return predict_image(self.task, job, self.options, overlay=self.overlay)
        return predict_windows(self.task, source, job, self.options, self.tiling, step=step)

    def record(self, outcome: Outcome) -> None:
        """Nothing: every source has outputs of its own."""


class _ObjectPredictor:
    def __init__(
        self,
        task: Task,
        jobs: Sequence[Job],
        options: PredictOptions,
        min_score: float,
        overlay: Draw | None,
        results: CocoResults,
    ) -> None:
        self.task, self.options, self.min_score, self.overlay, self.results = task, options, min_score, overlay, results
        self.images = {
            job.source: (k, name) for k, (job, name) in enumerate(zip(jobs, image_names(jobs), strict=True), 1)
        }

    def steps(self) -> list[int]:
        """One for each image."""
        return [1] * len(self.images)

    def predict(self, job: Job, step: Step = lambda: None) -> Outcome:
        """See `Predictor`."""
        return predict_objects(self.task, job, self.options, min_score=self.min_score, overlay=self.overlay)

    def record(self, outcome: Outcome) -> None:
        """Adds the objects of an image to the COCO file."""
        assert outcome.objects is not None
        try:
            self.results.add(*self.images[outcome.job.source], outcome.objects)
        except OSError as error:
            raise DataError(f"cannot be written ({error.strerror or error})", file=outcome.job.labels) from error


class _PanopticPredictor:
    def __init__(
        self,
        task: Task,
        jobs: Sequence[Job],
        options: PredictOptions,
        overlay: Draw | None,
        annotations: CocoPanoptic,
    ) -> None:
        self.task, self.options, self.overlay, self.annotations = task, options, overlay, annotations
        self.images = {
            job.source: (k, name) for k, (job, name) in enumerate(zip(jobs, image_names(jobs), strict=True), 1)
        }

    def steps(self) -> list[int]:
        """One for each image."""
        return [1] * len(self.images)

    def predict(self, job: Job, step: Step = lambda: None) -> Outcome:
        """See `Predictor`."""
        return predict_panoptic(self.task, job, self.options, overlay=self.overlay)

    def record(self, outcome: Outcome) -> None:
        """Adds the segments of an image to the annotations."""
        assert outcome.panoptic is not None
        self.annotations.add_result(*self.images[outcome.job.source], outcome.panoptic)
