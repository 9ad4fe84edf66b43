"""fpn predict: maps, masks or objects for images and rasters.

Runs a model on images, folders of images and patterns, and writes its predictions.

Pictures become <stem>.png, a palette PNG with the label values of the training data; TIFFs become <stem>.tif with the
same size, CRS and transform. A source that fails is reported, the others are processed, and the exit code is 1.

TIFFs of more than --max-pixels, and all with --tile-size or --blend, are read tile by tile in bounded memory and
written as cloud-optimised GeoTIFFs; --resume continues an interrupted prediction.

Detection models write objects.json, a COCO file of all sources with scores; models with masks also write instance ids
to <stem>.png or <stem>.tif.

fpn predict with a semantic model: label files, and what else was asked for, of every source, window by window.

fpn predict with a detection model: one COCO file of all sources; numbered masks, overlays, polygons of each.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfpn.cli.options import accept_old_spelling, refuse_idle
from torchfpn.errors import amount

if TYPE_CHECKING:
    import torch

    from torchfpn.inference.jobs import Job
    from torchfpn.inference.objects import ObjectOutcome, ObjectOverlay
    from torchfpn.inference.semantic import Options, Outcome, Overlay
    from torchfpn.inference.windows import Streaming
    from torchfpn.sources.raster import RasterSource
    from torchfpn.tasks.task import Task


MAX_PIXELS = 2**24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("model", type=Path, help="a model.safetensors written by fpn train or task.save")
    parser.add_argument("sources", nargs="+", metavar="source", help="images, folders of images, patterns in quotes")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--overlay", action="store_true", help="also write <stem>.overlay.png: the prediction over the image"
    )
    probabilities = parser.add_argument(
        "--probabilities", choices=("uint8", "float32"), help="also write the probability of every class"
    )
    parser.add_argument(
        "--polygons",
        choices=("geojson", "gpkg", "fgb", "pixels"),
        help="also write polygons: in lon/lat, in the CRS of the source (GeoPackage, FlatGeobuf), or in pixels",
    )
    score = parser.add_argument(
        "--min-score", type=float, metavar="S", help="lowest score of objects in overlays, masks and polygons (0.5)"
    )
    vectorize = parser.add_argument("--vectorize", metavar="CLASSES", help="classes to vectorize; default: all")
    pixels = parser.add_argument(
        "--min-pixels", type=float, default=0.0, metavar="N", help="smallest polygon or hole, in pixels"
    )
    parser.add_argument(
        "--simplify", type=float, default=0.0, metavar="PIXELS", help="tolerance of the simplification of polygons"
    )
    parser.add_argument("--assume-crs", metavar="EPSG:N", help="coordinate system of files without one")
    parser.add_argument(
        "--bands", metavar="4,3,2", help="bands to use, by number from 1 or by name, in the model's order"
    )
    parser.add_argument("--accept-dtype", action="store_true", help="accept another pixel type than in training")
    parser.add_argument("--allow-vrt", action="store_true", help="read VRTs whose files lie below their own folder")
    parser.add_argument(
        "--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help="largest image read whole, height x width"
    )
    parser.add_argument(
        "--max-side", type=int, default=2**20, metavar="N", help="largest height or width of a raster read by tiles"
    )
    size = parser.add_argument(
        "--tile-size", type=int, metavar="PIXELS", help="side of the tiles that TIFFs are read by (1024)"
    )
    parser.add_argument(
        "--margin", default="64", metavar="PIXELS", help='context read around every tile; "exact": the receptive field'
    )
    parser.add_argument("--blend", action="store_true", help="blend the margins of neighbouring tiles")
    batch = parser.add_argument("--batch-size", type=int, metavar="N", help="tiles in a batch (1; on a GPU 4)")
    parser.add_argument(
        "--mosaic", metavar="NAME", help="read all sources as one raster: files on one grid, or web map tiles"
    )
    parser.add_argument(
        "--tiles", metavar="PATTERN", help='pattern of tile paths, for files without a georeference: "{z}/{x}/{y}"'
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue an interrupted prediction; complete outputs of the same model and flags are kept",
    )
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="fp32", help="numerical precision")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps; auto: the first GPU if there is one")
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    for old, flag in (
        ("--probs", probabilities),
        ("--score", score),
        ("--outlined", vectorize),
        ("--least", pixels),
        ("--window", size),
        ("--batch", batch),
    ):
        accept_old_spelling(parser, old, flag)


def run(args: argparse.Namespace) -> int:
    """0 all done; 1 some sources failed; 2 all of them did (or bad usage, said before the first image)."""
    from torchfpn.cli.options import check_flags, options_of, streaming_of, with_model_tiles
    from torchfpn.inference.jobs import find_sources
    from torchfpn.io.model_files import read_recipe

    check_flags(args)
    read_recipe(args.model)  # what is no model, and sources that name nothing, are refused before torch is imported
    find_sources(args.sources, tiles=True)
    options, streaming = options_of(args), streaming_of(args)

    from torchfpn.tasks.build import load
    from torchfpn.tasks.task import find_device

    device = find_device(args.device)
    task = load(args.model)
    options = with_model_tiles(options, task, args.sources)
    refuse_idle(args, "predict", "a semantic model" if task.recipe.task == "semantic" else "a detection model")
    if task.recipe.task != "semantic":
        return run_objects(args, task.to(device), options)
    return run_pixels(args, task, device, options, streaming)


if TYPE_CHECKING:
    Facts = Callable[[Job], dict[str, Any]]  # what the answer of a job depends on, by name


CHANGES = ("probabilities", "polygons", "min_pixels", "simplify", "tiles", "tile_size", "blend", "precision")  # flags

# that change the output and whose values have one spelling; of others, such as --bands, the meaning is compared


def run_pixels(
    args: argparse.Namespace, task: "Task", device: "torch.device", options: "Options", streaming: "Streaming"
) -> int:
    """0 all done; 1 some sources failed; 2 all of them did (or bad usage, said before the first image)."""
    from torchfpn.cli.console import check_folder, tell_passed_over
    from torchfpn.inference.jobs import refuse_own_sources
    from torchfpn.inference.semantic import check_classes
    from torchfpn.inference.windows import ON_A_GPU, check_window

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
    from torchfpn.inference.jobs import find_sources, plan, plan_mosaic

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
    from torchfpn.inference.jobs import refuse_existing
    from torchfpn.inference.journal import Finished

    if args.overwrite:
        return jobs
    if not args.resume:
        refuse_existing(jobs)
        return jobs
    known = Finished(args.out).facts()
    return [job for job in jobs if not _is_finished(job, known, facts)]


def _is_finished(job: "Job", known: dict[str, Any], facts: "Facts") -> bool:
    """Whether all files of a job are there and are of this source, model and settings. known: see `Finished.facts`."""
    from torchfpn.inference.jobs import refuse_existing
    from torchfpn.inference.journal import check_same
    from torchfpn.inference.windows import is_begun

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
    from torchfpn.io.formats import WINDOWED, format_of
    from torchfpn.sources.mosaic import list_tiles
    from torchfpn.sources.raster import digest, read_files

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
    from torchfpn.inference.journal import Finished

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
    from torchfpn.cli.console import counted
    from torchfpn.errors import FPNError, of_system
    from torchfpn.inference.semantic import predict_file
    from torchfpn.inference.windows import predict_stream, window_count

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


def _scene(job: "Job", options: "Options", streaming: "Streaming") -> "RasterSource | Exception | None":
    """What is read by windows; None for what is read whole; or what is wrong with it, to be told in its turn."""
    from torchfpn.errors import DataError
    from torchfpn.inference.windows import open_scene

    try:
        return open_scene(job, options, streaming)
    except (DataError, OSError) as error:
        return error


def _report(outcome: "Outcome") -> None:
    """One line for a source, and a warning where it holds nothing at all."""
    from torchfpn.cli.console import tell
    from torchfpn.io.formats import printable

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


@dataclass
class _Totals:
    done: int = 0
    failed: int = 0
    pixels: int = 0
    found: int = 0
    shown: int = 0
    polygons: int = 0

    def add(self, outcome: "ObjectOutcome") -> None:
        self.done += 1
        self.pixels += outcome.pixels
        self.found += len(outcome.found)
        self.shown += outcome.shown
        self.polygons += outcome.polygons


def run_objects(args: argparse.Namespace, task: "Task", options: "Options") -> int:
    """0 all done; 1 some sources failed; 2 all of them did (or bad usage, said before the first image)."""
    from torchfpn.cli.console import check_folder, tell_passed_over
    from torchfpn.inference.jobs import refuse_existing, refuse_own_sources
    from torchfpn.inference.objects import SCORE
    from torchfpn.inference.semantic import check_classes

    _check_flags(args, task)
    check_classes(task, options, file=args.model)
    jobs = _plan_objects(args, masks=_has_masks(task))
    refuse_own_sources(jobs)
    tell_passed_over(args.sources)
    if not args.overwrite:
        refuse_existing(jobs)
    check_folder(args.out)
    score = SCORE if args.min_score is None else args.min_score
    return _predict_all_objects(task, jobs, options, score, overlay=_overlay_objects(task) if args.overlay else None)


def _has_masks(task: "Task") -> bool:
    from torchfpn.inference.objects import MASKS

    return task.recipe.task == MASKS


def _check_flags(args: argparse.Namespace, task: "Task") -> None:
    """Passes flags that mean something for this kind of model.

    Raises:
        ConfigError: the first that does not.
    """
    from torchfpn.errors import ConfigError

    if args.min_score is not None and not 0 <= args.min_score <= 1:
        raise ConfigError(f"{args.min_score}", field="--min-score", allowed="0 to 1")
    if args.simplify and not _has_masks(task):
        raise ConfigError(
            f"{args.simplify}", field="--simplify", allowed="to come with models that give masks: boxes are simple"
        )


def _plan_objects(args: argparse.Namespace, *, masks: bool) -> "list[Job]":
    """A job for each source, whose `labels` is the one file of all."""
    from torchfpn.inference.jobs import find_sources, plan_objects

    endings = {"overlay": ".overlay.png"} if args.overlay else {}
    if args.polygons:
        endings["polygons"] = ".pixels.json" if args.polygons == "pixels" else f".{args.polygons}"
    return plan_objects(find_sources(args.sources), args.out, endings, masks=masks)


def _overlay_objects(task: "Task") -> "ObjectOverlay":
    from torchfpn.report.objects import overlay_objects

    recipe = task.recipe
    return lambda image, found: overlay_objects(
        image, found, colors=recipe.colors, names=recipe.classes, bands=recipe.bands
    )


def _predict_all_objects(
    task: "Task", jobs: "list[Job]", options: "Options", score: float, *, overlay: "ObjectOverlay | None"
) -> int:
    from torchfpn.cli.console import counted
    from torchfpn.data.labels.coco_results import coco_results
    from torchfpn.inference.jobs import image_names
    from torchfpn.inference.objects import record

    begun, totals = time.monotonic(), _Totals()
    names = image_names(jobs)
    with coco_results(jobs[0].labels, task.recipe) as results, counted("predicting", len(jobs)) as step:
        for number, (job, name) in enumerate(zip(jobs, names, strict=True), start=1):
            outcome = _predict_one(task, job, options, score, overlay)
            if outcome is None:
                totals.failed += 1
            else:
                totals.add(outcome)
                record(results, number, name, outcome)
            step()
    print(_summarize_objects(totals, score, time.monotonic() - begun))
    return 0 if not totals.failed else 1 if totals.done else 2


def _predict_one(
    task: "Task", job: "Job", options: "Options", score: float, overlay: "ObjectOverlay | None"
) -> "ObjectOutcome | None":
    """None: it failed, and was named."""
    from torchfpn.errors import FPNError, of_system
    from torchfpn.inference.objects import predict_objects

    try:
        outcome = predict_objects(task, job, options, score=score, overlay=overlay)
    except (FPNError, OSError) as error:
        line = error if isinstance(error, FPNError) else of_system(error, job.source)
        print(f"fpn: {line}", file=sys.stderr)
        return None
    _report_objects(outcome, score)
    return outcome


def _report_objects(outcome: "ObjectOutcome", score: float) -> None:
    """One line for a source, and a warning where it holds nothing at all."""
    from torchfpn.cli.console import tell
    from torchfpn.io.formats import printable

    height, width = outcome.found.size
    words = [f"{printable(outcome.job.source)}  {width} x {height}", _counted(outcome.shown, len(outcome.found), score)]
    tell(words, outcome, outcome.job.source, polygons="polygons" in outcome.job.others)


def _counted(shown: int, found: int, score: float) -> str:
    rest = f" (and {found - shown:,} below a score of {score:g})" if found > shown else ""
    return f"{amount(shown, 'object')}{rest}"


def _summarize_objects(totals: _Totals, score: float, seconds: float) -> str:
    words = [f"{totals.done} predicted", f"{totals.failed} failed", _counted(totals.shown, totals.found, score)]
    if totals.polygons:
        words.append(amount(totals.polygons, "polygon"))
    return ", ".join([*words, f"{totals.pixels / 1e6:.2f} million pixels in {seconds:.1f} s"])
