"""Runs a model on images, folders of images and patterns, and writes its predictions.

Pictures become <stem>.png, a palette PNG with the label values of the training data; TIFFs become <stem>.tif with the
same size, CRS and transform. A source that fails is reported, the others are processed, and the exit code is 1.

TIFFs of more than --max-pixels, and all with --tile-size or --blend, are read tile by tile in bounded memory and
written as cloud-optimised GeoTIFFs; --resume continues an interrupted prediction.

Detection models write objects.json, a COCO file of all sources with scores; models with masks also write instance ids
to <stem>.png or <stem>.tif. Panoptic models write panoptic.json and panoptic/<image>.png, and segment ids of
georeferenced images to <stem>.tif.
"""

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfpn.cli.options import accept_old_spelling, once, refuse_unused
from torchfpn.errors import amount
from torchfpn.geo.window import SIDE

if TYPE_CHECKING:
    from torchfpn.inference.jobs import Job
    from torchfpn.inference.predict import Draw
    from torchfpn.inference.semantic import Outcome, PredictOptions
    from torchfpn.inference.windows import TilingOptions
    from torchfpn.tasks.task import Task

    Facts = Callable[[Job], dict[str, Any]]  # what the outputs of a job depend on, by name

MAX_PIXELS = 2**24
FACT_FLAGS = ("probabilities", "polygons", "min_pixels", "simplify", "tiles", "tile_size", "blend", "precision")
# Flags that change the outputs and are compared as they are given; of others, such as --bands, the meaning is compared.


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
    """0 all done; 1 some sources failed; 2 all of them did, or bad usage, which is reported before the first image."""
    from torchfpn.inference.jobs import find_sources
    from torchfpn.io.model_files import read_recipe

    _check_flags(args)
    read_recipe(args.model)  # files that are no models, and sources that name nothing, are refused before torch loads
    find_sources(args.sources, tiles=True)
    options = _predict_options(args)

    from torchfpn.tasks.build import load
    from torchfpn.tasks.task import find_device

    device = find_device(args.device)
    task = load(args.model)
    options = _with_model_tiles(options, task, args.sources)
    semantic = task.recipe.task == "semantic"
    kinds = {"semantic": "a semantic model", "panoptic": "a panoptic model"}
    refuse_unused(args, "predict", kinds.get(task.recipe.task, "a detection model"))
    if not semantic:
        _check_object_flags(args, masks=task.recipe.task != "detection")
    return _predict(args, task.to(device), options, _tiling_options(args))


def _predict(args: argparse.Namespace, task: "Task", options: "PredictOptions", tiling: "TilingOptions") -> int:
    """Plans the outputs, predicts what is not finished, prints a line for each source and the summary."""
    from torchfpn.cli.console import exit_code, for_each, make_output_folder, warn_of_skipped_files
    from torchfpn.inference.jobs import refuse_own_sources
    from torchfpn.inference.objects import MIN_SCORE
    from torchfpn.inference.predict import check_model, default_batch, open_predictor

    facts = partial(_facts, args=args, options=options, tiling=tiling)
    planned = _plan(args, task)
    refuse_own_sources(planned)
    warn_of_skipped_files(args.sources)
    jobs = _unfinished(planned, args, facts)
    make_output_folder(args.out)
    check_model(task, options, tiling, file=args.model)
    if args.batch_size is None:
        tiling = replace(tiling, batch=default_batch(task))
    if len(jobs) < len(planned):
        print(f"{amount(len(planned) - len(jobs), 'source')} skipped: already complete")
    min_score = MIN_SCORE if args.min_score is None else args.min_score
    of_objects = task.recipe.task != "semantic"
    total, draw = Total(min_score, task.recipe.task), _draw_overlay(task) if args.overlay else None
    with open_predictor(task, jobs, options, tiling, min_score=min_score, overlay=draw) as predictor:

        def predict(job: "Job", step: Callable[[], None]) -> "Outcome":
            with _noting(args, facts, job) if not of_objects else contextlib.nullcontext():
                return predictor.predict(job, step)

        def report(outcome: "Outcome") -> None:
            predictor.record(outcome)
            total.add(outcome)
            _print_outcome(outcome, min_score)

        steps = predictor.steps()
        unit = "windows" if max(steps, default=1) > 1 else "img"
        failed = for_each("predicting", jobs, predict, report, source=lambda job: job.source, steps=steps, unit=unit)
    print(total.summary(failed))
    return exit_code(total.done, failed)


def _check_flags(args: argparse.Namespace) -> None:
    """Refuses values and combinations of flags that are wrong for every model and source.

    Raises:
        ConfigError: a value that is out of range, a flag without the one it needs, or two that contradict each other.
    """
    from torchfpn.errors import ConfigError, require

    if args.polygons:
        require("raster", "--polygons")
    for name in ("vectorize", "min_pixels", "simplify"):
        if getattr(args, name) and not args.polygons:
            raise ConfigError(
                f"{getattr(args, name)}", field=f"--{name.replace('_', '-')}", allowed="to come with --polygons"
            )
    for name in ("min_pixels", "simplify", "max_pixels", "max_side"):
        if not 0 <= getattr(args, name) < float("inf"):
            raise ConfigError(f"{getattr(args, name)}", field=f"--{name.replace('_', '-')}", allowed="a number from 0")
    _check_tiling_flags(args)


def _check_tiling_flags(args: argparse.Namespace) -> None:
    """The same for flags of large rasters."""
    from torchfpn.errors import ConfigError

    if args.margin != "exact" and not args.margin.isdecimal():
        raise ConfigError(f'"{args.margin}"', field="--margin", allowed='pixels from 0, or "exact"')
    if args.batch_size is not None and args.batch_size < 1:
        raise ConfigError(f"{args.batch_size}", field="--batch-size", allowed="a number from 1")
    if args.tile_size is not None and args.tile_size < 1:
        raise ConfigError(f"{args.tile_size}", field="--tile-size", allowed="pixels from 1")
    if args.resume and args.overwrite:
        raise ConfigError("--resume and --overwrite", allowed="one of them: continue, or start over")
    side = args.tile_size or SIDE
    if args.blend and args.margin != "exact" and not 1 <= int(args.margin) <= side // 2:
        allowed = f"1 to {side // 2}, half a tile, with --blend"
        raise ConfigError(args.margin, field="--margin", allowed=allowed, hint="give --margin, or a larger --tile-size")


def _check_object_flags(args: argparse.Namespace, *, masks: bool) -> None:
    """Refuses flags that are wrong for a detection model. masks: the model gives masks."""
    from torchfpn.errors import ConfigError

    if args.min_score is not None and not 0 <= args.min_score <= 1:
        raise ConfigError(f"{args.min_score}", field="--min-score", allowed="0 to 1")
    if args.simplify and not masks:
        raise ConfigError(
            f"{args.simplify}", field="--simplify", allowed="to come with models that give masks: boxes are simple"
        )


def _predict_options(args: argparse.Namespace) -> "PredictOptions":
    """How sources are read, and what is written of each.

    Raises:
        ConfigError: a class twice, an unknown coordinate system, or a pattern of tiles that is none.
    """
    words = [word.strip() for word in args.bands.split(",")] if args.bands else []
    classes = None if args.vectorize is None else [word.strip() for word in args.vectorize.split(",")]
    classes = classes and once(classes, "--vectorize")
    crs, tiles = _crs(args.assume_crs) if args.assume_crs else None, _tiles(args)

    from torchfpn.inference.semantic import PredictOptions  # imports torch: after all that can be refused without it

    return PredictOptions(
        probabilities=args.probabilities,
        polygons=args.polygons,
        vectorize=classes,
        min_pixels=args.min_pixels,
        simplify=args.simplify,
        assume_crs=crs,
        tiles=tiles,
        bands=[int(word) if word.isdigit() else word for word in words] or None,
        accept_dtype=args.accept_dtype,
        allow_vrt=args.allow_vrt,
        max_pixels=args.max_pixels,
        max_side=args.max_side,
        precision=args.precision,
    )


def _tiles(args: argparse.Namespace) -> str | None:
    """The pattern of tile paths: as given, or that of folders of tiles if one of them becomes a mosaic."""
    from torchfpn.geo.tiles import check_pattern
    from torchfpn.sources.mosaic import PATTERN, is_tile_map

    if args.tiles is None:
        return PATTERN if args.mosaic and any(is_tile_map(Path(source)) for source in args.sources) else None
    return check_pattern(args.tiles)


def _with_model_tiles(options: "PredictOptions", task: "Task", sources: Sequence[str]) -> "PredictOptions":
    """Adds the pattern of tile paths that the model learnt, unless --tiles is given; prints it if a source matches.

    Raises:
        ConfigError: the recipe holds a word that is no pattern.
    """
    from torchfpn.geo.tiles import is_tile
    from torchfpn.inference.jobs import find_sources
    from torchfpn.inference.semantic import tile_pattern

    pattern = tile_pattern(task)
    if pattern is None or options.tiles is not None:
        return options
    if any(is_tile(source, pattern) for source in find_sources(sources, tiles=True)):
        print(f'files without a georeference are located by their paths, "{pattern}", as in training (--tiles)')
    return replace(options, model_tiles=pattern)


def _tiling_options(args: argparse.Namespace) -> "TilingOptions":
    from torchfpn.inference.journal import fingerprint
    from torchfpn.inference.windows import TilingOptions

    return TilingOptions(
        fingerprint(args.model) if args.model.is_file() else "",
        side=args.tile_size or SIDE,
        margin=None if args.margin == "exact" else int(args.margin),
        blend=args.blend,
        batch=args.batch_size or 1,
        resume=args.resume,
        overwrite=args.overwrite,
        always=args.tile_size is not None or args.blend,
    )


def _crs(text: str) -> str:
    """Well-known text of "EPSG:32759" and the like."""
    from torchfpn.errors import ConfigError
    from torchfpn.io.rasters import import_rasterio

    rasterio = import_rasterio()
    try:
        return str(rasterio.crs.CRS.from_user_input(text).to_wkt())
    except rasterio.errors.CRSError as error:
        raise ConfigError(
            f'"{text}"', field="--assume-crs", allowed="a coordinate system, such as EPSG:4326"
        ) from error


def _plan(args: argparse.Namespace, task: "Task") -> "list[Job]":
    from torchfpn.inference.jobs import find_sources
    from torchfpn.inference.predict import plan_jobs

    endings = {"overlay": ".overlay.png"} if args.overlay else {}
    if args.polygons:
        endings["polygons"] = ".pixels.json" if args.polygons == "pixels" else f".{args.polygons}"
    raster_endings = dict(endings)
    if args.probabilities:
        endings["probabilities"], raster_endings["probabilities"] = ".probs.npz", ".probs.tif"
    sources = find_sources(args.sources, tiles=task.recipe.task == "semantic")
    return plan_jobs(task, sources, args.out, endings, raster_endings, args.mosaic)


def _draw_overlay(task: "Task") -> "Draw":
    from torchfpn.report.images import overlay
    from torchfpn.report.objects import overlay_objects

    recipe = task.recipe
    if recipe.task == "semantic":
        return lambda image, labels: overlay(image, labels, recipe.colors, bands=recipe.bands, names=recipe.classes)
    if recipe.task == "panoptic":
        from torchfpn.report.panoptic import overlay_panoptic

        return lambda image, found: overlay_panoptic(
            image, found, colors=recipe.colors, names=recipe.classes, bands=recipe.bands
        )
    return lambda image, objects: overlay_objects(
        image, objects, colors=recipe.colors, names=recipe.classes, bands=recipe.bands
    )


def _unfinished(jobs: "list[Job]", args: argparse.Namespace, facts: "Facts") -> "list[Job]":
    """All jobs, or with --resume those whose outputs are not finished.

    Raises:
        ConfigError: outputs exist, without --overwrite; or with --resume, finished outputs of another source, model or
            flags.
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
    """Whether all outputs of a job are there and are of this source, model and flags. known: see `Finished.facts`."""
    from torchfpn.inference.jobs import refuse_existing
    from torchfpn.inference.journal import check_same
    from torchfpn.inference.windows import is_begun

    name, exist = job.labels.name, [path.exists() for path in job.outputs()]
    begun_again = name in known and known[name] is None
    if is_begun(job) or begun_again or not any(exist):
        return False
    if name in known:
        check_same(known[name], facts(job), job.labels)
    if name not in known or not all(exist):
        refuse_existing([job])
    return True


def _facts(job: "Job", args: argparse.Namespace, options: "PredictOptions", tiling: "TilingOptions") -> dict[str, Any]:
    """What the outputs of a job depend on, by name."""
    from torchfpn.io.formats import WINDOWED, format_of
    from torchfpn.sources.mosaic import list_tiles
    from torchfpn.sources.raster import digest, read_files

    files = job.parts or (list_tiles(job.source) if job.is_tiles else [job.source])
    pattern = options.tiles or options.model_tiles
    depth = 3 if job.is_tiles else 0 if pattern is None else pattern.count("/") + 1  # folders that locate a tile
    places = [file.absolute().parts[-depth:] for file in files] if depth else []
    single = not job.parts and not job.is_tiles and job.source.is_file() and format_of(job.source) in WINDOWED
    return {
        "source": digest([each for file in files for each in read_files(file)], places),
        "model": tiling.model,
        **{f"--{name.replace('_', '-')}": getattr(args, name) for name in FACT_FLAGS},
        "--vectorize": options.vectorize and sorted(options.vectorize),
        "--assume-crs": options.assume_crs,
        "--bands": [str(band) for band in options.bands or ()],
        "--margin": tiling.margin,
        "--max-pixels": args.max_pixels if single else None,  # which decides whether a raster is read whole
    }


@contextlib.contextmanager
def _noting(args: argparse.Namespace, facts: "Facts", job: "Job") -> Iterator[None]:
    """Inside, the outputs of a job are written; afterwards they are noted as finished."""
    from torchfpn.inference.journal import Finished

    finished, before = Finished(args.out), facts(job)
    if any(path.exists() for path in job.outputs()):
        finished.begin(job.labels)
    yield
    finished.end(job.labels, before)


def _print_outcome(outcome: "Outcome", min_score: float) -> None:
    """Prints one line about a source, and its warnings."""
    from torchfpn.cli.console import warn
    from torchfpn.io.formats import printable

    height, width = outcome.size
    of_pixels = outcome.objects is None and outcome.panoptic is None
    file = outcome.job.labels if of_pixels else outcome.job.source
    words = [f"{printable(file)}  {width} x {height}"]
    if outcome.objects is not None:
        words.append(_object_words(outcome.shown, len(outcome.objects), min_score))
    if outcome.panoptic is not None:
        words.append(_segment_words(*segment_counts(outcome)))
    if "polygons" in outcome.job.others:
        words.append(amount(outcome.polygons, "polygon"))
    if outcome.empty:
        words.append(f"{amount(outcome.empty, 'pixel')} without data")
    print(", ".join(words))
    empty = ["contains no valid pixel"] if outcome.empty == outcome.pixels else []
    for line in (*outcome.remarks, *empty):
        warn(f"{printable(outcome.job.source)}: {line}")


def segment_counts(outcome: "Outcome") -> tuple[int, int]:
    """How many things a panoptic result has, and how many segments of stuff."""
    infos = [] if outcome.panoptic is None else outcome.panoptic.segments_info
    things = sum(one.isthing for one in infos)
    return things, len(infos) - things


def _segment_words(things: int, stuff: int) -> str:
    return f"{amount(things, 'thing')}, {amount(stuff, 'segment')} of stuff"


def _object_words(shown: int, found: int, min_score: float) -> str:
    rest = f" (and {found - shown:,} below a score of {min_score:g})" if found > shown else ""
    return f"{amount(shown, 'object')}{rest}"


@dataclass
class Total:
    """The counts of all sources."""

    min_score: float
    task: str
    done: int = 0
    pixels: int = 0
    empty: int = 0
    polygons: int = 0
    found: int = 0
    shown: int = 0
    things: int = 0
    stuff: int = 0

    def __post_init__(self) -> None:
        self.begun = time.monotonic()

    def add(self, outcome: "Outcome") -> None:
        """Counts one source."""
        self.done += 1
        self.pixels += outcome.pixels
        self.empty += outcome.empty
        self.polygons += outcome.polygons
        things, stuff = segment_counts(outcome)
        self.things, self.stuff = self.things + things, self.stuff + stuff
        if outcome.objects is not None:
            self.found += len(outcome.objects)
            self.shown += outcome.shown

    def summary(self, failed: int) -> str:
        """The last line."""
        words = [f"{self.done} predicted", f"{failed} failed"]
        polygons = [amount(self.polygons, "polygon")] if self.polygons else []
        pixels = f"{self.pixels / 1e6:.2f} million pixels in {time.monotonic() - self.begun:.1f} s"
        if self.task == "panoptic":
            words += [_segment_words(self.things, self.stuff), *polygons, pixels]
        elif self.task != "semantic":
            words += [_object_words(self.shown, self.found, self.min_score), *polygons, pixels]
        else:
            words += [pixels, *([f"{self.empty:,} of them without data"] if self.empty else []), *polygons]
        return ", ".join(words)
