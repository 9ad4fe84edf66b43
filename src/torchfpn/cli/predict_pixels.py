"""fpn predict with a semantic model: label files, and what else was asked for, of every source, window by window."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torchfpn.errors import amount

if TYPE_CHECKING:
    import torch

    from torchfpn.raster.predict import Options, Outcome, Overlay
    from torchfpn.raster.scenes import Scene
    from torchfpn.raster.sources import Job
    from torchfpn.raster.stream import Streaming
    from torchfpn.tasks.task import Task

    Facts = Callable[[Job], dict[str, Any]]  # what the answer of a job depends on, by name

CHANGES = ("probabilities", "polygons", "min_pixels", "simplify", "tiles", "tile_size", "blend", "precision")  # flags
# that change the output and whose values have one spelling; of others, such as --bands, the meaning is compared


def run_pixels(
    args: argparse.Namespace, task: "Task", device: "torch.device", options: "Options", streaming: "Streaming"
) -> int:
    """0 all done; 1 some sources failed; 2 all of them did (or bad usage, said before the first image)."""
    from torchfpn.cli.outputs import check_folder
    from torchfpn.cli.told import tell_passed_over
    from torchfpn.raster.predict import check_classes
    from torchfpn.raster.sources import refuse_own_sources
    from torchfpn.raster.stream import ON_A_GPU, check_window

    planned = _plan(args)
    refuse_own_sources(planned)
    tell_passed_over(args.sources)
    facts = partial(_facts, args=args, options=options, streaming=streaming)
    jobs = _to_do(planned, args, facts)
    check_folder(args.out)
    task = task.to(device)
    check_classes(task, options, file=args.model)
    check_window(task, streaming)
    if device.type != "cpu" and args.batch_size is None:
        streaming = replace(streaming, batch=ON_A_GPU)
    if len(jobs) < len(planned):
        print(f"{amount(len(planned) - len(jobs), 'source')} skipped: already complete")
    finish = partial(_finishing, args, facts)
    return _predict_all(task, jobs, options, streaming, finish, overlay=_overlay(task) if args.overlay else None)


def _plan(args: argparse.Namespace) -> "list[Job]":
    from torchfpn.raster.sources import find_sources, plan, plan_mosaic

    sources, extras = find_sources(args.sources, tiles=True), _extras(args)
    if args.mosaic is None:
        return plan(sources, args.out, extras[0], raster_extras=extras[1])
    return plan_mosaic(args.mosaic, sources, args.out, extras[1])


def _to_do(jobs: "list[Job]", args: argparse.Namespace, facts: "Facts") -> "list[Job]":
    """All jobs, or with --resume those that are not finished.

    Raises:
        ConfigError: answers that are there already, without --overwrite; or with --resume, finished answers of another
            source, model or settings.
    """
    from torchfpn.raster.journal import Finished
    from torchfpn.raster.sources import refuse_existing

    if args.overwrite:
        return jobs
    if not args.resume:
        refuse_existing(jobs)
        return jobs
    known = Finished(args.out).facts()
    return [job for job in jobs if not _is_finished(job, known, facts)]


def _is_finished(job: "Job", known: dict[str, Any], facts: "Facts") -> bool:
    """Whether all files of a job are there and are of this source, model and settings. known: see `Finished.facts`."""
    from torchfpn.raster.journal import check_same
    from torchfpn.raster.sources import refuse_existing
    from torchfpn.raster.stream import is_begun

    name, there = job.labels.name, [path.exists() for path in job.outputs()]
    begun_again = name in known and known[name] is None
    if is_begun(job) or begun_again or not any(there):
        return False
    if name in known:
        check_same(known[name], facts(job), job.labels)
    if name not in known or not all(there):
        refuse_existing([job])
    return True


def _facts(job: "Job", args: argparse.Namespace, options: "Options", streaming: "Streaming") -> dict[str, Any]:
    """What the answer of a job depends on, by name."""
    from torchfpn.files.formats import WINDOWED, format_of
    from torchfpn.raster.scenes import digest, read_files
    from torchfpn.raster.tile_map import list_tiles

    files = job.parts or (list_tiles(job.source) if job.is_tiles else [job.source])
    pattern = options.tiles or options.model_tiles
    depth = 3 if job.is_tiles else 0 if pattern is None else pattern.count("/") + 1  # names that tell a tile's place
    places = [file.absolute().parts[-depth:] for file in files] if depth else []
    single = not job.parts and not job.is_tiles and job.source.is_file() and format_of(job.source) in WINDOWED
    return {
        "source": digest([each for file in files for each in read_files(file)], places),
        "model": streaming.model,
        **{f"--{name.replace('_', '-')}": getattr(args, name) for name in CHANGES},
        "--vectorize": options.outlined and sorted(options.outlined),
        "--assume-crs": options.assume_crs,
        "--bands": [str(band) for band in options.bands or ()],
        "--margin": streaming.margin,
        "--max-pixels": args.max_pixels if single else None,  # which decides how a raster is read
    }


@contextlib.contextmanager
def _finishing(args: argparse.Namespace, facts: "Facts", job: "Job") -> Iterator[None]:
    """Inside, the answer of a job is made; afterwards it is noted as finished."""
    from torchfpn.raster.journal import Finished

    finished, told = Finished(args.out), facts(job)
    if any(path.exists() for path in job.outputs()):
        finished.begin(job.labels)
    yield
    finished.end(job.labels, told)


def _extras(args: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """Endings of what is made besides labels, of pictures and of TIFFs."""
    common = {"overlay": ".overlay.png"} if args.overlay else {}
    if args.polygons:
        common["polygons"] = ".pixels.json" if args.polygons == "pixels" else f".{args.polygons}"
    if not args.probabilities:
        return common, common
    return common | {"probabilities": ".probs.npz"}, common | {"probabilities": ".probs.tif"}


def _overlay(task: "Task") -> "Overlay":
    from torchfpn.report.images import overlay

    recipe = task.recipe
    return lambda image, labels: overlay(image, labels, recipe.colors, bands=recipe.bands, names=recipe.classes)


def _predict_all(
    task: "Task",
    jobs: "list[Job]",
    options: "Options",
    streaming: "Streaming",
    finish: "Callable[[Job], contextlib.AbstractContextManager[None]]",
    *,
    overlay: "Overlay | None",
) -> int:
    from torchfpn.cli.counting import counted
    from torchfpn.errors import FPNError, of_system
    from torchfpn.raster.predict import predict_file
    from torchfpn.raster.stream import predict_stream, window_count

    begun, done, failed = time.monotonic(), list[Any](), 0
    scenes = [_scene(job, options, streaming) for job in jobs]
    windows = [
        0 if scene is None or isinstance(scene, Exception) else window_count(scene, streaming) for scene in scenes
    ]
    unit = "windows" if any(windows) else "img"
    with counted("predicting", sum(count or 1 for count in windows), unit=unit) as step:
        for job, scene in zip(jobs, scenes, strict=True):
            try:
                if isinstance(scene, Exception):
                    raise scene
                with finish(job):
                    if scene is not None:
                        done.append(predict_stream(task, scene, job, options, streaming, step=step))
                    else:
                        done.append(predict_file(task, job, options, overlay=overlay))
                        step()
                _report(done[-1])
            except (FPNError, OSError) as error:
                failed += 1
                line = error if isinstance(error, FPNError) else of_system(error, job.source)
                print(f"fpn: {line}", file=sys.stderr)
    print(_summary(done, failed, time.monotonic() - begun))
    return 0 if not failed else 1 if done else 2


def _scene(job: "Job", options: "Options", streaming: "Streaming") -> "Scene | Exception | None":
    """What is read by windows; None for what is read whole; or what is wrong with it, to be told in its turn."""
    from torchfpn.errors import DataError
    from torchfpn.raster.stream import open_scene

    try:
        return open_scene(job, options, streaming)
    except (DataError, OSError) as error:
        return error


def _report(outcome: "Outcome") -> None:
    """One line for a source, and a warning where it holds nothing at all."""
    from torchfpn.cli.told import tell
    from torchfpn.files.formats import printable

    height, width = outcome.size
    words = [f"{printable(outcome.job.labels)}  {width} x {height}"]
    tell(words, outcome, outcome.job.source, polygons="polygons" in outcome.job.others)


def _summary(done: "list[Outcome]", failed: int, seconds: float) -> str:
    pixels = sum(outcome.pixels for outcome in done)
    words = [f"{len(done)} predicted", f"{failed} failed", f"{pixels / 1e6:.2f} million pixels in {seconds:.1f} s"]
    if empty := sum(outcome.empty for outcome in done):
        words.append(f"{empty:,} of them without data")
    if polygons := sum(outcome.polygons for outcome in done):
        words.append(amount(polygons, "polygon"))
    return ", ".join(words)
