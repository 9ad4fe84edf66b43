"""Semantic prediction of rasters of any size, window by window.

Reader threads -> model -> journal of finished blocks -> outputs. Memory is a few windows, whatever the size of the
raster; a prediction that was killed continues from its journal and writes the same bytes.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.errors import ConfigError, DataError, RasterError
from torchfpn.geo.window import SIDE, Block, plan_blocks, rounded_up
from torchfpn.inference.jobs import Job
from torchfpn.inference.journal import Journal
from torchfpn.inference.outputs import PredictedMap, Written, label_type, nodata_value, write_outputs
from torchfpn.inference.semantic import (
    Outcome,
    Prediction,
    PredictOptions,
    as_input,
    block_arrays,
    check_polygons,
    count_overflows,
    float32_remarks,
    job_outputs,
    page_remarks,
    predict_batch,
    reading,
)
from torchfpn.inference.tiling import Blender, Seams
from torchfpn.io.atomic import PREFIX, locked, sweep
from torchfpn.io.formats import WINDOWED, format_of
from torchfpn.io.images import Picture
from torchfpn.nn.receptive_field import reach
from torchfpn.recipe import IGNORE
from torchfpn.sources.mosaic import Mosaic, open_mosaic, open_tiles
from torchfpn.sources.raster import RasterSource, check_unchanged, open_raster_file
from torchfpn.tasks.task import Task, overflow_words

MARGIN = 64  # pixels
GPU_BATCH = 4  # windows in a batch
MAX_WINDOWS = 2**20  # of a raster: as many as one of the longest sides has at 1024 pixels; a plan of them takes 0.5 GB
READERS, AHEAD = 2, 4  # threads; windows read before they are needed

NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class TilingOptions:
    """How rasters are cut into windows.

    Attributes:
        model: digest of the model file (`journal.fingerprint`); blocks of another model are not continued.
        side: of the blocks, in pixels.
        margin: context read around each block, in pixels; None: the receptive field of the model.
        blend: blend the margins of neighbouring windows instead of cutting them off.
        batch: windows of one size in a batch.
        resume: continue an interrupted prediction.
        overwrite: discard the blocks of an interrupted prediction.
        always: read all rasters by windows, also those that could be read whole.
    """

    model: str
    side: int = SIDE
    margin: int | None = MARGIN
    blend: bool = False
    batch: int = 1
    resume: bool = False
    overwrite: bool = False
    always: bool = False


def open_windowed(job: Job, options: PredictOptions, tiling: TilingOptions) -> RasterSource | None:
    """Opens the source of a job if it is read by windows; None: it is read whole.

    By windows are read tiles, mosaics, rasters of more than `options.max_pixels`, or all with `tiling.always`.

    Raises:
        DataError: it cannot be read. ConfigError: it would take too many windows, or it is read by windows and the job
            has an overlay, which is drawn of whole images.
    """
    source = _open(job, options, tiling)
    if source is not None and tiling.side >= 1:
        _check_windows(source, job, tiling)
    if source is not None and "overlay" in job.others:
        raise _no_overlay(source, job, tiling)
    return source


def _no_overlay(source: RasterSource, job: Job, tiling: TilingOptions) -> ConfigError:
    if job.parts or job.is_tiles:
        why, hint = "a map of several files is", "leave out --overlay"
    elif tiling.always:
        why, hint = "with --tile-size or --blend all are", "leave out --overlay, or these flags"
    else:
        why, hint = "more than --max-pixels are", "allow more pixels with --max-pixels N, or leave out --overlay"
    found = f"{source.width} x {source.height} pixels, read by windows: {why}"
    return ConfigError(found, file=job.source, field="--overlay", allowed="an image that is read whole", hint=hint)


def _open(job: Job, options: PredictOptions, tiling: TilingOptions) -> RasterSource | None:
    if job.parts:
        return open_mosaic(job.source, job.parts, reading(options))
    if job.is_tiles:
        return open_tiles(job.source, reading(options))
    if not job.source.is_file() or format_of(job.source) not in WINDOWED:
        return None
    source = open_raster_file(job.source, reading(options))
    return source if tiling.always or source.height * source.width > options.max_pixels else None


def _check_windows(source: RasterSource, job: Job, tiling: TilingOptions) -> None:
    parts = source.parts if isinstance(source, Mosaic) else (source,)
    count = sum(-(-part.height // tiling.side) * -(-part.width // tiling.side) for part in parts)
    if count > MAX_WINDOWS:
        found = f"{count:,} windows of {tiling.side} pixels"
        raise ConfigError(
            found,
            file=job.source,
            field="tile size",
            allowed=f"at most {MAX_WINDOWS:,}",
            hint="give a larger --tile-size",
        )


def window_count(source: RasterSource, tiling: TilingOptions) -> int:
    """How many windows a source is read by.

    Raises:
        ConfigError: a side that is not positive.
    """
    if tiling.side < 1:
        raise ConfigError(f"{tiling.side}", field="tile size", allowed="pixels from 1")
    grounds = source.grounds(tiling.side)
    return -(-source.height // tiling.side) * -(-source.width // tiling.side) if grounds is None else len(grounds)


def check_tiling(task: Task, tiling: TilingOptions) -> None:
    """Refuses blocks that do not begin where cells of the model's coarsest feature map do.

    Raises:
        ConfigError: a side that is not positive, or no multiple of the coarsest stride.
    """
    multiple = _multiple(task)
    if tiling.side < 1 or tiling.side % multiple:
        allowed = f"a multiple of {multiple} pixels, the model's coarsest stride"
        raise ConfigError(f"{tiling.side}", field="tile size", allowed=allowed)


def is_begun(job: Job) -> bool:
    """Whether blocks of an interrupted prediction are there."""
    return Journal.beside(job.labels).folder.is_dir()


def predict_windows(
    task: Task,
    source: RasterSource,
    job: Job,
    options: PredictOptions,
    tiling: TilingOptions,
    *,
    step: Callable[[], None] = lambda: None,
) -> Outcome:
    """Predicts a raster window by window and writes its outputs.

    Args:
        task: a semantic model.
        source: the raster, as `open_windowed` gives it.
        job: the outputs.
        options: how the raster is read, and what is written.
        tiling: how it is cut.
        step: called for each window that is done.

    Returns:
        The counts and warnings of the raster.

    Raises:
        DataError, RasterError: the raster is damaged or not what the model expects. ConfigError: the margin shall be
            the receptive field, and that is the whole image; blocks of another prediction are there, or of this one and
            neither `resume` nor `overwrite` is set.
    """
    lock = job.labels.with_name(f"{PREFIX}{job.labels.name}.lock")
    with locked(lock, doing="predicting this", instead="give another --out"):
        return _predict(task, source, job, options, tiling, step)


def _predict(
    task: Task, source: RasterSource, job: Job, options: PredictOptions, tiling: TilingOptions, step: Callable[[], None]
) -> Outcome:
    size = source.height, source.width
    check_polygons(source.geo, size, job, options)
    as_input(task, source.header(), options, file=source.name)  # refuses other bands before a window is decoded
    multiple = _multiple(task)
    margin = rounded_up(exact_margin(task) if tiling.margin is None else tiling.margin, multiple)
    grounds = source.grounds(tiling.side)
    blocks = plan_blocks(*size, side=tiling.side, margin=margin, multiple=multiple, grounds=grounds)
    seams = Seams(tiling.side, margin, *size) if tiling.blend else None
    journal, facts = Journal.beside(job.labels), source.facts()
    remarks = dict.fromkeys(page_remarks(job))
    begun = journal.begin(_facts(facts, options, tiling, margin), resume=tiling.resume, overwrite=tiling.overwrite)
    remarks |= dict.fromkeys(begun)
    sweep(job.labels.parent)  # temporary files of a killed process
    groups = _batches(blocks, tiling.batch, journal, step)
    overflows = _count_overflows(journal, blocks)
    computed = _compute(task, source, options, groups, seams, remarks)
    for block, arrays in _discarding_damaged_source(journal, computed):
        journal.put(block.index, arrays)
        overflows += int(arrays.get("overflowing", NONE).sum())
        step()
    if overflows:
        remarks[overflow_words(overflows)] = None
    try:
        check_unchanged(facts, source.facts(), source.name)
    except DataError:
        journal.close()  # its blocks are of two sources
        raise
    finished = journal if seams is None else _blend(task, journal, blocks, seams)
    predicted = PredictedMap(job.source, size, source.geo, tiling.side, blocks, finished.get, task.recipe, source.ties)
    written = _write(task, source, job, options, predicted, journal)
    journal.close()
    return Outcome(job, size, written.empty, written.polygons, tuple(remarks))


def _write(
    task: Task, source: RasterSource, job: Job, options: PredictOptions, predicted: PredictedMap, journal: Journal
) -> Written:
    tiles = source.parts if job.is_tiles and isinstance(source, Mosaic) else None
    with _discarding_unplaced(job.source, journal):
        return write_outputs(job_outputs(task, job, options, tiles=tiles), predicted)


def _multiple(task: Task) -> int:
    """The stride of the model's coarsest feature map, in pixels."""
    return int(getattr(task.model, "multiple", 1))


@contextmanager
def _discarding_unplaced(source: Path, journal: Journal) -> Iterator[None]:
    """Removes the blocks if the source has no place on the earth for polygons: `--resume` would fail again."""
    try:
        yield
    except RasterError as error:
        if error.file == source:
            journal.close()
        raise


def _count_overflows(journal: Journal, blocks: Sequence[Block]) -> int:
    """How many pixels overflowed in the blocks that are done."""
    done = (journal.get(block.index) for block in blocks if journal.has(block.index))
    return sum(int(arrays.get("overflowing", NONE).sum()) for arrays in done)


def _discarding_damaged_source(
    journal: Journal, computed: Iterator[tuple[Block, dict[str, NDArray[Any]]]]
) -> Iterator[tuple[Block, dict[str, NDArray[Any]]]]:
    """The computed blocks; if a file of the source turns out to be damaged, the journal is removed.

    The repaired file is another source, which the journal would refuse. Errors that name no file (out of memory), and
    errors of writing, leave the journal to `--resume`.
    """
    try:
        yield from computed
    except DataError as error:
        if error.file is not None:
            journal.close()
        raise


def exact_margin(task: Task) -> int:
    """The margin in pixels from which on windows give what the whole image gives: the receptive field.

    Raises:
        ConfigError: the receptive field is the whole image.
    """
    found = reach(task.model, len(task.recipe.bands), multiple=int(getattr(task.model, "multiple", 32)))
    if found is None:
        raise ConfigError(
            "the receptive field is the whole image (group norm, squeeze and excitation, attention)",
            field="--margin",
            allowed="a number of pixels",
        )
    return found


def _facts(source: list[Any], options: PredictOptions, tiling: TilingOptions, margin: int) -> dict[str, Any]:
    """What a prediction must have in common with the interrupted one that it continues."""
    return {
        "source": source,
        "model": tiling.model,
        "window": [tiling.side, margin, tiling.blend, tiling.batch],
        "settings": [
            options.probabilities,
            bool(options.polygons),
            [str(band) for band in options.bands or ()],
            options.precision,
            options.accept_dtype,
        ],
    }


def _batches(blocks: Sequence[Block], batch: int, journal: Journal, step: Callable[[], None]) -> list[list[Block]]:
    """Batches of windows of one size that are still to be computed; calls `step` for each block that is done.

    The plan alone decides which windows go together: the last bit of a prediction may depend on the rest of its batch.
    """
    groups = list[list[Block]]()
    for block in blocks:
        if groups and len(groups[-1]) < batch and groups[-1][0].window[2:] == block.window[2:]:
            groups[-1].append(block)
        else:
            groups.append([block])
    remaining = [group for group in groups if not all(journal.has(block.index) for block in group)]
    for _ in range(len(blocks) - sum(map(len, remaining))):
        step()
    return remaining


def _compute(
    task: Task,
    source: RasterSource,
    options: PredictOptions,
    groups: Sequence[Sequence[Block]],
    seams: Seams | None,
    remarks: dict[str, None],
) -> Iterator[tuple[Block, dict[str, NDArray[Any]]]]:
    """Blocks with their arrays, in order; the next windows are read meanwhile. remarks: see `_read_ahead`."""
    dtype = "float32" if seams else options.probabilities
    order = [block for group in groups for block in group]
    with closing(_read_ahead(task, source, options, order, remarks)) as windows:
        for group in groups:
            images = [next(windows) for _ in group]
            with_data = [image for image in images if image is not None]
            names = [
                (source.name, _window_words(block))
                for block, image in zip(group, images, strict=True)
                if image is not None
            ]
            predictions = iter(
                predict_batch(task, torch.stack(with_data), options.precision, probabilities=dtype, names=names)
                if with_data
                else []
            )
            for block, image in zip(group, images, strict=True):
                empty = image is None
                prediction = _empty(len(task.classes), block.window[2:], dtype) if empty else next(predictions)
                arrays = block_arrays(task, block, prediction, options, seams)
                if image is not None and (overflows := count_overflows(task, image[:, *block.inside])):
                    arrays["overflowing"] = np.array([overflows])
                yield block, arrays


def _window_words(block: Block) -> str:
    """A window as messages name it, in pixels of the whole raster; the margin is part of it."""
    row, column, height, width = block.window
    return f"window at row {row}, column {column} ({width} x {height} pixels)"


def _empty(classes: int, shape: tuple[int, int], dtype: str | None) -> Prediction:
    """The prediction of a window without data."""
    missing = 0 if dtype == "uint8" else np.nan
    probabilities = None if dtype is None else np.full((classes, *shape), missing, dtype)
    return Prediction(np.full(shape, IGNORE, np.int64), np.zeros(shape, np.uint8), probabilities)


def _is_empty(picture: Picture) -> bool:
    return picture.valid is not None and not picture.valid.any()


def _read_ahead(
    task: Task, source: RasterSource, options: PredictOptions, blocks: Sequence[Block], remarks: dict[str, None]
) -> Generator[Tensor | None, None, None]:
    """The windows of the blocks as the model expects them; None: a window without data.

    Windows that wait keep the pixel type of the file, which is smaller. remarks: gets a warning if values are too fine
    for float32.
    """
    rest, waiting, warnings = iter(blocks), deque[Future[Picture]](), list[str]()
    with ThreadPoolExecutor(READERS, "fpn-read") as pool:
        try:
            while True:
                while len(waiting) < AHEAD and (block := next(rest, None)) is not None:
                    waiting.append(pool.submit(source.read, block.window))
                if not waiting:
                    return
                picture = waiting.popleft().result()
                if not warnings:
                    warnings = float32_remarks(picture)
                    remarks.update(dict.fromkeys(warnings))
                yield None if _is_empty(picture) else as_input(task, picture, options, file=source.name)
        finally:
            for window in waiting:
                window.cancel()


def _blend(task: Task, journal: Journal, blocks: Sequence[Block], seams: Seams) -> Journal:
    """Blends the rims of the blocks into a journal inside the other one, which can be continued as well."""
    blended = Journal(journal.folder / "blended")
    blended.begin({}, resume=True)  # damaged blocks are blended again from whole ones: no remark
    values = np.array(task.recipe.label_ids, label_type(task.recipe))
    blender = Blender(blocks, seams, journal.get, values=values, nodata=nodata_value(task.recipe))
    for block in blocks:
        if not blended.has(block.index):
            blended.put(block.index, blender.block(block.index))
    return blended
