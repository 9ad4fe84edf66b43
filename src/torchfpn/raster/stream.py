"""A raster of any size -> its label map: windows read ahead, computed, kept block by block, put together at the end.

reader threads --windows--> model --blocks--> journal --assemble--> labels.tif, probabilities.tif

Memory is a few windows whatever the size of the raster. Killed at any moment, a prediction goes on where it was, and
what comes out is the same bytes.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import ConfigError
from torchfpn.files.atomic import sweep
from torchfpn.files.cogs import Layout, write_cog
from torchfpn.files.formats import format_of
from torchfpn.files.geo import Geo
from torchfpn.files.rasters import geo_of, open_raster
from torchfpn.nn.reach import reach
from torchfpn.raster.answers import file_values, nodata_value
from torchfpn.raster.blocks import Block, plan_blocks
from torchfpn.raster.journal import Journal, fingerprint
from torchfpn.raster.polygons import check_place, trace_map
from torchfpn.raster.predict import Options, Outcome, answer, outlining, read_picture, write_outlines
from torchfpn.raster.sources import Job
from torchfpn.tasks.task import Task
from torchfpn.types import IGNORE

SIDE, MARGIN = 1024, 64  # pixels
READERS, AHEAD = 2, 4  # threads, windows


@dataclass(frozen=True)
class Streaming:
    """How a raster is cut. side: of a block. margin: around it, in pixels; None: the model's whole reach.

    resume: take up what an interrupted prediction left; anew: throw it away. always: also rasters that could be read
    whole. model_file: whose content tells one model from another.
    """

    model_file: Path
    side: int = SIDE
    margin: int | None = MARGIN
    resume: bool = False
    anew: bool = False
    always: bool = False


def window_count(job: Job, options: Options, streaming: Streaming) -> int:
    """How many windows a source is read by: rasters that are too large to be read whole, or all; 0: it is read whole.

    Raises:
        ConfigError: it is read by windows, and an output was asked for that is made of whole images.
    """
    if job.labels.suffix != ".tif" or not job.source.is_file() or format_of(job.source) not in ("tiff", "vrt"):
        return 0
    height, width, _ = _extent(job, options)
    if not streaming.always and height * width <= options.max_pixels:
        return 0
    if "overlay" in job.others:
        raise ConfigError(f"{width} x {height} pixels", file=job.source, allowed="overlay: up to --max-pixels")
    return -(-height // streaming.side) * -(-width // streaming.side)


def is_done(job: Job) -> bool:
    """Whether an earlier prediction came to its end: the answer is there, and no blocks."""
    return job.labels.exists() and not is_begun(job)


def is_begun(job: Job) -> bool:
    """Whether blocks of an interrupted prediction are there."""
    return Journal.beside(job.labels).folder.is_dir()


def predict_stream(
    task: Task, job: Job, options: Options, streaming: Streaming, *, step: Callable[[], None] = lambda: None
) -> Outcome:
    """Reads the source window by window, labels it, writes its outputs. step: called for each window that is done.

    Raises:
        DataError, RasterError: the source is damaged or not what the model wants. ConfigError: the model looks at whole
            images and its reach was asked for; blocks of another prediction are there, or of this one and neither
            `resume` nor `anew` is said.
    """
    height, width, geo = _extent(job, options)
    if options.polygons == "geojson":
        check_place(geo, job.source)
    multiple = int(getattr(task.model, "multiple", 1))
    margin = model_reach(task) if streaming.margin is None else streaming.margin
    blocks = plan_blocks(height, width, side=streaming.side, margin=margin, multiple=multiple)
    journal = Journal.beside(job.labels)
    facts = _facts(job, options, streaming, margin, (height, width))
    journal.begin(facts, resume=streaming.resume, anew=streaming.anew)
    sweep(job.labels.parent)  # what a killed writer left
    todo = [block for block in blocks if not journal.has(block.index)]
    for _ in range(len(blocks) - len(todo)):
        step()
    for block, arrays in _computed(task, job, options, todo):
        journal.put(block.index, arrays)
        step()
    empty = _assemble(task, job, journal, blocks, (height, width), geo, options)
    polygons = _write_polygons(task, job, journal, blocks, geo, options) if options.polygons else 0
    journal.close()
    return Outcome(job, (height, width), empty, polygons)


def model_reach(task: Task) -> int:
    """The margin from which on windows give what the whole image gives.

    Raises:
        ConfigError: the model looks at whole images.
    """
    found = reach(task.model, len(task.recipe.bands), multiple=int(getattr(task.model, "multiple", 32)))
    if found is None:
        raise ConfigError(
            "the model looks at whole images (group norm, squeeze and excitation, attention)",
            field="margin",
            allowed="a number of pixels",
        )
    return found


def _extent(job: Job, options: Options) -> tuple[int, int, Geo | None]:
    with open_raster(job.source, allow_vrt=options.allow_vrt) as source:
        geo = geo_of(source)
        if geo is not None and geo.crs is None and options.assume_crs is not None:
            geo = Geo(options.assume_crs, geo.transform)
        return source.height, source.width, geo


def _facts(job: Job, options: Options, streaming: Streaming, margin: int, size: tuple[int, int]) -> dict[str, Any]:
    """What a prediction must have in common with the one that it takes up."""
    status = job.source.stat()
    return {
        "source": [str(job.source.absolute()), status.st_size, status.st_mtime_ns, *size],
        "model": fingerprint(streaming.model_file),
        "window": [streaming.side, margin],
        "settings": [
            options.probabilities,
            [str(band) for band in options.bands or ()],
            options.precision,
            options.accept_dtype,
        ],
    }


def _computed(
    task: Task, job: Job, options: Options, blocks: Sequence[Block]
) -> Iterator[tuple[Block, dict[str, NDArray[Any]]]]:
    """Blocks with their answers, in order; the next windows are being read meanwhile."""
    with closing(_read_ahead(task, job, options, blocks)) as windows:
        for block, image in windows:
            if bool(image.isnan().all()):  # nothing there: nothing to compute
                shape = block.block[2:]
                labels = np.full(shape, IGNORE, np.int64)
                shares = _no_shares(len(task.classes), shape, options.probabilities) if options.probabilities else None
            else:
                labels, shares = answer(task, image, options.precision, probabilities=options.probabilities)
                labels = labels[block.inside]
                shares = None if shares is None else shares[:, *block.inside]
            values = file_values(labels, task.recipe)
            arrays: dict[str, NDArray[Any]] = {"labels": values.astype(_label_type(task))}
            if shares is not None:
                arrays["probabilities"] = shares
            yield block, arrays


def _read_ahead(
    task: Task, job: Job, options: Options, blocks: Sequence[Block]
) -> Generator[tuple[Block, Any], None, None]:
    rest, waiting = iter(blocks), deque[tuple[Block, Future[Any]]]()
    with ThreadPoolExecutor(READERS, "fpn-read") as pool:
        try:
            while True:
                while len(waiting) < AHEAD and (block := next(rest, None)) is not None:
                    waiting.append((block, pool.submit(read_picture, task, job, options, window=block.window)))
                if not waiting:
                    return
                block, image = waiting.popleft()
                yield block, image.result()[0]
        finally:
            for _, image in waiting:
                image.cancel()


def _no_shares(classes: int, shape: tuple[int, int], dtype: str) -> NDArray[Any]:
    empty = 0 if dtype == "uint8" else np.nan
    return np.full((classes, *shape), empty, dtype)


def _label_type(task: Task) -> str:
    top = max(*task.recipe.label_ids, nodata_value(task.recipe))
    return "uint8" if top <= 255 else "uint16"


def _write_polygons(
    task: Task, job: Job, journal: Journal, blocks: Sequence[Block], geo: Geo | None, options: Options
) -> int:
    """Outlines of the whole map, traced block by block: none is cut at a seam."""
    plan = [block.block for block in blocks]
    features = trace_map(plan, lambda number: journal.get(number)["labels"], geo, **outlining(task, job, options))
    return write_outlines(job, options, features)


def _assemble(
    task: Task,
    job: Job,
    journal: Journal,
    blocks: Sequence[Block],
    size: tuple[int, int],
    geo: Geo | None,
    options: Options,
) -> int:
    """Puts the blocks together; how many pixels hold no data."""
    recipe, nodata = task.recipe, nodata_value(task.recipe)
    empty = 0

    def labels() -> Iterator[tuple[int, int, NDArray[Any]]]:
        nonlocal empty
        for block in blocks:
            values = journal.get(block.index)["labels"]
            empty += int((values == nodata).sum())
            yield block.block[0], block.block[1], values[None]

    layout = Layout(
        *size,
        dtype=_label_type(task),
        names=("class",),
        geo=geo,
        nodata=nodata,
        colors=dict(zip(recipe.label_ids, recipe.colors, strict=True)) if _label_type(task) == "uint8" else {},
        classes=dict(zip(recipe.label_ids, recipe.classes, strict=True)),
    )
    if options.probabilities:
        shares = ((b.block[0], b.block[1], journal.get(b.index)["probabilities"]) for b in blocks)
        missing = float("nan") if options.probabilities == "float32" else None
        of_shares = Layout(*size, dtype=options.probabilities, names=recipe.classes, geo=geo, nodata=missing)
        write_cog(job.others["probabilities"], of_shares, shares)
    write_cog(job.labels, layout, labels())
    return empty
