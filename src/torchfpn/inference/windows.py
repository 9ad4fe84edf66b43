"""A raster of any size -> its label map: windows read ahead, computed, kept block by block, put together at the end.

reader threads --windows--> model --blocks--> journal --assembly--> labels.tif, probabilities.tif, polygons

Memory is a few windows whatever the size of the raster. Killed at any moment, a prediction goes on where it was, and
what comes out is the same bytes.
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
from torchfpn.inference.outputs import (
    Canvas,
    file_values,
    label_type,
    nodata_value,
    outlines,
    write_map,
    write_shares,
    write_tiles,
)
from torchfpn.inference.semantic import (
    Answer,
    Options,
    Outcome,
    answers,
    as_input,
    check_polygons,
    coarseness,
    outlining,
    overflows,
    reading,
    remarks,
    write_outlines,
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

ON_A_GPU = 4  # windows at once

WINDOWS = 2**20  # of a raster: as many as one of the longest sides has at 1024 pixels; a plan of them takes 0.5 GB

READERS, AHEAD = 2, 4  # threads, windows

_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Streaming:
    """How a raster is cut. side: of a block. margin: around it, in pixels; None: the model's whole reach.

    blend: mix what overlapping windows say, instead of cutting the margins off. batch: windows of one size that are
    computed at once. resume: take up what an interrupted prediction left; anew: throw it away. always: also rasters
    that could be read whole. model: the digest of the model file (`journal.fingerprint`).
    """

    model: str
    side: int = SIDE
    margin: int | None = MARGIN
    blend: bool = False
    batch: int = 1
    resume: bool = False
    anew: bool = False
    always: bool = False


def open_scene(job: Job, options: Options, streaming: Streaming) -> RasterSource | None:
    """The source of a job, if it is read by windows: tiles, several files, rasters too large to be read whole, or all.

    Raises:
        DataError: it cannot be read. ConfigError: it would take too many windows, or it is read by windows, and an
            output was asked for that is made of whole images.
    """
    scene = _opened(job, options, streaming)
    if scene is not None and streaming.side >= 1:
        _check_windows(scene, job, streaming)
    if scene is not None and "overlay" in job.others:
        raise _no_overlay(scene, job, streaming)
    return scene


def _no_overlay(scene: RasterSource, job: Job, streaming: Streaming) -> ConfigError:
    """Overlays are drawn of images that are read whole: why this one is not."""
    if job.parts or job.is_tiles:
        why, hint = "a map of several files is", "leave out --overlay"
    elif streaming.always:
        why, hint = "with --tile-size or --blend all are", "leave out --overlay, or these flags"
    else:
        why, hint = "more than --max-pixels are", "allow more pixels with --max-pixels N, or leave out --overlay"
    found = f"{scene.width} x {scene.height} pixels, read by windows: {why}"
    return ConfigError(found, file=job.source, field="--overlay", allowed="an image that is read whole", hint=hint)


def _opened(job: Job, options: Options, streaming: Streaming) -> RasterSource | None:
    if job.parts:
        return open_mosaic(job.source, job.parts, reading(options))
    if job.is_tiles:
        return open_tiles(job.source, reading(options))
    if not job.source.is_file() or format_of(job.source) not in WINDOWED:
        return None
    scene = open_raster_file(job.source, reading(options))
    return scene if streaming.always or scene.height * scene.width > options.max_pixels else None


def _check_windows(scene: RasterSource, job: Job, streaming: Streaming) -> None:
    parts = scene.parts if isinstance(scene, Mosaic) else (scene,)
    count = sum(-(-part.height // streaming.side) * -(-part.width // streaming.side) for part in parts)
    if count > WINDOWS:
        found = f"{count:,} windows of {streaming.side} pixels"
        raise ConfigError(
            found, file=job.source, field="tile size", allowed=f"at most {WINDOWS:,}", hint="give a larger --tile-size"
        )


def window_count(scene: RasterSource, streaming: Streaming) -> int:
    """How many windows a scene is read by.

    Raises:
        ConfigError: blocks of no size.
    """
    if streaming.side < 1:
        raise ConfigError(f"{streaming.side}", field="tile size", allowed="pixels from 1")
    grounds = scene.grounds(streaming.side)
    return -(-scene.height // streaming.side) * -(-scene.width // streaming.side) if grounds is None else len(grounds)


def check_window(task: Task, streaming: Streaming) -> None:
    """Passes blocks that begin where the coarsest cells of the model do.

    Raises:
        ConfigError: blocks of no size, or of one that is no multiple of those cells.
    """
    multiple = int(getattr(task.model, "multiple", 1))
    if streaming.side < 1 or streaming.side % multiple:
        allowed = f"a multiple of {multiple} pixels, the model's coarsest stride"
        raise ConfigError(f"{streaming.side}", field="tile size", allowed=allowed)


def is_begun(job: Job) -> bool:
    """Whether blocks of an interrupted prediction are there."""
    return Journal.beside(job.labels).folder.is_dir()


def predict_stream(
    task: Task,
    scene: RasterSource,
    job: Job,
    options: Options,
    streaming: Streaming,
    *,
    step: Callable[[], None] = lambda: None,
) -> Outcome:
    """Reads the scene window by window, labels it, writes the outputs. step: called for each window that is done.

    Raises:
        DataError, RasterError: the source is damaged or not what the model wants. ConfigError: the model looks at whole
            images and its reach was asked for; blocks of another prediction are there, or of this one and neither
            `resume` nor `anew` is said.
    """
    lock = job.labels.with_name(f"{PREFIX}{job.labels.name}.lock")
    with locked(lock, doing="predicting this", instead="give another --out"):
        return _predicted(task, scene, job, options, streaming, step)


def _predicted(
    task: Task, scene: RasterSource, job: Job, options: Options, streaming: Streaming, step: Callable[[], None]
) -> Outcome:
    check_polygons(scene.geo, (scene.height, scene.width), job, options)
    as_input(task, scene.header(), options, file=scene.name)  # other bands are told before a window is decoded
    said = dict.fromkeys(remarks(job))
    multiple = int(getattr(task.model, "multiple", 1))
    margin = rounded_up(model_reach(task) if streaming.margin is None else streaming.margin, multiple)
    size, grounds = (scene.height, scene.width), scene.grounds(streaming.side)
    blocks = plan_blocks(*size, side=streaming.side, margin=margin, multiple=multiple, grounds=grounds)
    seams = Seams(streaming.side, margin, *size) if streaming.blend else None
    journal = Journal.beside(job.labels)
    facts = scene.facts()
    told = _facts(facts, options, streaming, margin)
    said |= dict.fromkeys(journal.begin(told, resume=streaming.resume, anew=streaming.anew))
    sweep(job.labels.parent)  # what a killed writer left
    groups = _to_do(blocks, streaming.batch, journal, step)
    lost = _overflowing(journal, blocks)
    for block, arrays in _cleaning_up(journal, _computed(task, scene, options, groups, seams, said)):
        journal.put(block.index, arrays)
        lost += int(arrays.get("overflowing", _NONE).sum())
        step()
    said |= {overflow_words(lost): None} if lost else {}
    try:
        check_unchanged(facts, scene.facts(), scene.name)
    except DataError:
        journal.close()  # its blocks are of two sources
        raise
    finished = journal if seams is None else _blended(task, journal, blocks, seams)
    canvas = Canvas(size, scene.geo, streaming.side, blocks, finished.get, task.recipe, scene.ties)
    if options.probabilities:
        write_shares(canvas, job.others["probabilities"], options.probabilities)
    if job.is_tiles and isinstance(scene, Mosaic):
        empty = write_tiles(canvas, job.labels, scene.parts)
    else:
        empty = write_map(canvas, job.labels)
    count = 0
    if options.polygons:
        with _without_blocks_of(job.source, journal):
            count = write_outlines(job, options, outlines(canvas, **outlining(task, job, options)), scene.geo)
    journal.close()
    seen = sum(block.block[2] * block.block[3] for block in blocks)
    return Outcome(job, size, empty + size[0] * size[1] - seen, count, tuple(said))


@contextmanager
def _without_blocks_of(source: Path, journal: Journal) -> Iterator[None]:
    """Removes the blocks of a source that has no place on the earth: `--resume` would end in the same error."""
    try:
        yield
    except RasterError as error:
        if error.file == source:
            journal.close()
        raise


def _overflowing(journal: Journal, blocks: Sequence[Block]) -> int:
    """How many pixels of the blocks that are done overflowed."""
    done = (journal.get(block.index) for block in blocks if journal.has(block.index))
    return sum(int(arrays.get("overflowing", _NONE).sum()) for arrays in done)


def _cleaning_up(
    journal: Journal, computed: Iterator[tuple[Block, dict[str, NDArray[Any]]]]
) -> Iterator[tuple[Block, dict[str, NDArray[Any]]]]:
    """The computed blocks; if a source file turns out to be damaged, the journal is removed before the error goes on.

    The mended file is another source, so blocks of the damaged one would only be in its way. Errors that name no file
    (out of memory), and errors of writing, leave the journal to `--resume`.
    """
    try:
        yield from computed
    except DataError as error:
        if error.file is not None:
            journal.close()
        raise


def model_reach(task: Task) -> int:
    """The margin from which on windows give what the whole image gives.

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


def _facts(source: list[Any], options: Options, streaming: Streaming, margin: int) -> dict[str, Any]:
    """What a prediction must have in common with the one that it takes up."""
    return {
        "source": source,
        "model": streaming.model,
        "window": [streaming.side, margin, streaming.blend, streaming.batch],
        "settings": [
            options.probabilities,
            bool(options.polygons),
            [str(band) for band in options.bands or ()],
            options.precision,
            options.accept_dtype,
        ],
    }


def _to_do(blocks: Sequence[Block], batch: int, journal: Journal, step: Callable[[], None]) -> list[list[Block]]:
    """Groups of windows of one size that are computed at once.

    Which ones go together depends on the plan alone: what a network gives for an image may differ in the last bit with
    its company.
    """
    groups = list[list[Block]]()
    for block in blocks:
        if groups and len(groups[-1]) < batch and groups[-1][0].window[2:] == block.window[2:]:
            groups[-1].append(block)
        else:
            groups.append([block])
    left = [group for group in groups if not all(journal.has(block.index) for block in group)]
    for _ in range(len(blocks) - sum(map(len, left))):
        step()
    return left


def _computed(
    task: Task,
    scene: RasterSource,
    options: Options,
    groups: Sequence[Sequence[Block]],
    seams: Seams | None,
    said: dict[str, None],
) -> Iterator[tuple[Block, dict[str, NDArray[Any]]]]:
    """Blocks with their answers, in order; the next windows are being read meanwhile. said: see `_read_ahead`."""
    shares = "float32" if seams else options.probabilities
    with closing(_read_ahead(task, scene, options, [block for group in groups for block in group], said)) as windows:
        for group in groups:
            images = [next(windows) for _ in group]
            given = [image for image in images if image is not None]
            names = [
                (scene.name, _named(block)) for block, image in zip(group, images, strict=True) if image is not None
            ]
            found = answers(task, torch.stack(given), options.precision, shares=shares, names=names) if given else []
            rest = iter(found)
            for block, image in zip(group, images, strict=True):
                there = image is not None  # where nothing is, there is nothing to compute
                answer = next(rest) if there else _nothing(len(task.classes), block.window[2:], shares)
                kept = _kept(task, block, answer, options, seams)
                if image is not None and (lost := overflows(task, image[:, *block.inside])):
                    kept["overflowing"] = np.array([lost])
                yield block, kept


def _named(block: Block) -> str:
    """A window as messages name it, in pixels of the whole raster; the margin is part of it."""
    row, column, height, width = block.window
    return f"window at row {row}, column {column} ({width} x {height} pixels)"


def _nothing(classes: int, shape: tuple[int, int], shares: str | None) -> Answer:
    """The answer where no data is."""
    empty = 0 if shares == "uint8" else np.nan
    probabilities = None if shares is None else np.full((classes, *shape), empty, shares)
    return Answer(np.full(shape, IGNORE, np.int64), np.zeros(shape, np.uint8), probabilities)


def _kept(task: Task, block: Block, answer: Answer, options: Options, seams: Seams | None) -> dict[str, NDArray[Any]]:
    """What the journal keeps of a window."""
    values = file_values(answer.labels[block.inside], task.recipe)
    arrays: dict[str, NDArray[Any]] = {"labels": values.astype(label_type(task.recipe))}
    if options.polygons:
        arrays["scores"] = answer.scores[block.inside]
    if answer.shares is not None and options.probabilities:
        inner = answer.shares[:, *block.inside]
        bytes_of_floats = seams is not None and options.probabilities == "uint8"
        arrays["probabilities"] = np.rint(255 * np.nan_to_num(inner)).astype(np.uint8) if bytes_of_floats else inner
    if answer.shares is not None and seams is not None:
        arrays["rim"] = answer.shares[:, seams.rim(block)].astype(np.float16)
    return arrays


def _is_empty(picture: Picture) -> bool:
    return picture.valid is not None and not picture.valid.any()


def _read_ahead(
    task: Task, scene: RasterSource, options: Options, blocks: Sequence[Block], said: dict[str, None]
) -> Generator[Tensor | None, None, None]:
    """The windows of the blocks, as the model wants them, None where nothing is.

    Windows that were read ahead are kept in the type of the file, which is smaller. said: gets the first window's
    remark on values too fine for float32.
    """
    rest, waiting, fine = iter(blocks), deque[Future[Picture]](), list[str]()
    with ThreadPoolExecutor(READERS, "fpn-read") as pool:
        try:
            while True:
                while len(waiting) < AHEAD and (block := next(rest, None)) is not None:
                    waiting.append(pool.submit(scene.read, block.window))
                if not waiting:
                    return
                picture = waiting.popleft().result()
                if not fine:
                    fine = coarseness(picture)
                    said.update(dict.fromkeys(fine))
                yield None if _is_empty(picture) else as_input(task, picture, options, file=scene.name)
        finally:
            for window in waiting:
                window.cancel()


def _blended(task: Task, journal: Journal, blocks: Sequence[Block], seams: Seams) -> Journal:
    """The blocks after their rims have been mixed, in a journal inside the other; it goes on like that one."""
    mixed = Journal(journal.folder / "blended")
    mixed.begin({}, resume=True)  # damaged blocks of this journal are made again from whole ones: nothing to tell
    values = np.array(task.recipe.label_ids, label_type(task.recipe))
    blender = Blender(blocks, seams, journal.get, values=values, nodata=nodata_value(task.recipe))
    for block in blocks:
        if not mixed.has(block.index):
            mixed.put(block.index, blender.block(block.index))
    return mixed
