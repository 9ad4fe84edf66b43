"""Labels images, folders and patterns of them with a model.

Pictures become <stem>.png, a palette PNG with the label values of the training data; TIFFs become <stem>.tif with the
same size, CRS and transform. A source that fails is named, the others go on, and the exit code is 1.

TIFFs of more than --max-pixels, and all with --window or --blend, are read window by window, in memory that does not
grow with them, and written as cloud-optimised GeoTIFFs; what a kill interrupted goes on with --resume.

Models of objects write objects.json, a COCO file of all sources with scores, and, if they have masks, the objects
numbered in <stem>.png or <stem>.tif.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchfpn.raster.predict import Options, Outcome, Overlay
    from torchfpn.raster.scenes import Scene
    from torchfpn.raster.sources import Job
    from torchfpn.raster.stream import Streaming
    from torchfpn.tasks.task import Task

MAX_PIXELS = 2**24
ON_A_GPU = 4  # windows at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("model", type=Path, help="a model.safetensors written by fpn train or task.save")
    parser.add_argument("sources", nargs="+", metavar="source", help="images, folders of images, patterns in quotes")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the answers go")
    parser.add_argument("--overlay", action="store_true", help="also <stem>.overlay.png: the answer over the image")
    parser.add_argument("--probs", choices=("uint8", "float32"), help="also the probability of every class")
    parser.add_argument(
        "--polygons",
        choices=("geojson", "gpkg", "fgb", "pixels"),
        help="also outlines: in lon/lat, in the CRS of the source (GeoPackage, FlatGeobuf), or in pixels",
    )
    parser.add_argument(
        "--score", type=float, metavar="S", help="least score of objects that are drawn and outlined (0.5)"
    )
    parser.add_argument("--outlined", metavar="A,B", help="classes that get polygons, if not all")
    parser.add_argument("--least", type=float, default=0.0, metavar="PIXELS", help="smallest polygon")
    parser.add_argument(
        "--simplify", type=float, default=0.0, metavar="PIXELS", help="about how far outlines may be off"
    )
    parser.add_argument("--assume-crs", metavar="EPSG:N", help="coordinate system of files that do not say")
    parser.add_argument("--bands", metavar="4,3,2", help="bands to use, numbers from 1 or names, in the model's order")
    parser.add_argument("--accept-dtype", action="store_true", help="take pixels of another type than trained on")
    parser.add_argument("--allow-vrt", action="store_true", help="read VRTs, over files below their own folder")
    parser.add_argument("--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help="of an image read whole")
    parser.add_argument("--window", type=int, metavar="PIXELS", help="side of the blocks that TIFFs are cut into")
    parser.add_argument(
        "--margin", default="64", metavar="PIXELS", help='read around every block; "exact": all that the model looks at'
    )
    parser.add_argument("--blend", action="store_true", help="mix the margins of neighbouring windows")
    parser.add_argument("--batch", type=int, metavar="N", help="windows computed at once (1; on a GPU 4)")
    parser.add_argument("--mosaic", metavar="NAME", help="all sources are one scene: files on one grid, or tiles")
    parser.add_argument("--tiles", metavar="PATTERN", help='how paths of files without a place end: "{z}/{x}/{y}"')
    parser.add_argument("--resume", action="store_true", help="go on where a killed prediction of a large TIFF was")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="fp32", help="of the computation")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps; auto: the first GPU if there is one")
    parser.add_argument("--overwrite", action="store_true", help="replace answers that are there already")


def run(args: argparse.Namespace) -> int:
    """0 all done; 1 some sources failed; 2 all of them did (or bad usage, said before the first image)."""
    from torchfpn.cli.outputs import check_folder
    from torchfpn.errors import ConfigError
    from torchfpn.raster.sources import refuse_own_sources
    from torchfpn.tasks.precision import find_device
    from torchfpn.tasks.storage import load

    options, streaming = _options(args), _streaming(args)
    device = find_device(args.device)
    task = load(args.model)
    if task.recipe.task != "semantic":
        from torchfpn.cli.predict_objects import run_objects

        return run_objects(args, task.to(device), options)
    if args.score is not None:
        raise ConfigError(f"{args.score}", field="score", allowed="with models of objects")
    planned = _plan(args)
    refuse_own_sources(planned)
    jobs = _to_do(planned, resume=args.resume, overwrite=args.overwrite)
    check_folder(args.out)
    task = task.to(device)
    check_classes(task, args.model, options)
    _check_window(task, streaming)
    if device.type != "cpu" and args.batch is None:
        streaming = replace(streaming, batch=ON_A_GPU)
    if len(jobs) < len(planned):
        print(f"{len(planned) - len(jobs)} left alone: finished before")
    return _predict_all(task, jobs, options, streaming, overlay=_overlay(task) if args.overlay else None)


def _plan(args: argparse.Namespace) -> "list[Job]":
    from torchfpn.raster.sources import find_sources, plan, plan_mosaic

    sources, extras = find_sources(args.sources, tiles=True), _extras(args)
    if args.mosaic is None:
        return plan(sources, args.out, extras[0], raster_extras=extras[1])
    return plan_mosaic(args.mosaic, sources, args.out, extras[1])


def _to_do(jobs: "list[Job]", *, resume: bool, overwrite: bool) -> "list[Job]":
    """All jobs, or with --resume those that an interrupted run did not finish.

    Raises:
        ConfigError: answers that are there already, without --overwrite.
    """
    from torchfpn.raster.sources import refuse_existing
    from torchfpn.raster.stream import is_begun, is_done

    if resume:
        jobs = [job for job in jobs if not is_done(job)]
    if not overwrite:
        refuse_existing([job for job in jobs if not (resume and is_begun(job))])
    return jobs


def _extras(args: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """Endings of what is made besides labels, of pictures and of TIFFs."""
    common = {"overlay": ".overlay.png"} if args.overlay else {}
    if args.polygons:
        common["polygons"] = ".pixels.json" if args.polygons == "pixels" else f".{args.polygons}"
    if not args.probs:
        return common, common
    return common | {"probabilities": ".probs.npz"}, common | {"probabilities": ".probs.tif"}


def _options(args: argparse.Namespace) -> "Options":
    from torchfpn.errors import ConfigError
    from torchfpn.raster.predict import Options

    for name in ("outlined", "least", "simplify"):
        if getattr(args, name) and not args.polygons:
            raise ConfigError(f"{getattr(args, name)}", field=name, allowed="with --polygons")
    for name in ("least", "simplify", "max_pixels"):
        if not 0 <= getattr(args, name) < float("inf"):
            raise ConfigError(f"{getattr(args, name)}", field=name.replace("_", "-"), allowed="a number from 0")
    words = [word.strip() for word in args.bands.split(",")] if args.bands else []
    return Options(
        probabilities=args.probs,
        polygons=args.polygons,
        outlined=None if args.outlined is None else [word.strip() for word in args.outlined.split(",")],
        least=args.least,
        simplify=args.simplify,
        assume_crs=_crs(args.assume_crs) if args.assume_crs else None,
        tiles=_tiles(args),
        bands=[int(word) if word.isdigit() else word for word in words] or None,
        accept_dtype=args.accept_dtype,
        allow_vrt=args.allow_vrt,
        max_pixels=args.max_pixels,
        precision=args.precision,
    )


def _tiles(args: argparse.Namespace) -> str | None:
    """How paths of tiles end; as in folders of tiles, where one of those is to become a mosaic."""
    from torchfpn.raster.tile_map import PATTERN, is_tile_map
    from torchfpn.vectors.tiles import check_pattern

    if args.tiles is None:
        return PATTERN if args.mosaic and any(is_tile_map(Path(source)) for source in args.sources) else None
    return check_pattern(args.tiles)


def _streaming(args: argparse.Namespace) -> "Streaming":
    from torchfpn.errors import ConfigError
    from torchfpn.raster.stream import SIDE, Streaming

    if args.margin != "exact" and not args.margin.isdecimal():
        raise ConfigError(f'"{args.margin}"', field="margin", allowed='pixels from 0, or "exact"')
    if args.batch is not None and args.batch < 1:
        raise ConfigError(f"{args.batch}", field="batch", allowed="a number from 1")
    if args.window is not None and args.window < 1:
        raise ConfigError(f"{args.window}", field="window", allowed="pixels from 1")
    if args.resume and args.overwrite:
        raise ConfigError("--resume and --overwrite", allowed="one of them: go on, or begin anew")
    side = args.window or SIDE
    if args.blend and args.margin != "exact" and not 1 <= int(args.margin) <= side // 2:
        allowed = f"1 to {side // 2}, half a window, with --blend"
        raise ConfigError(args.margin, field="margin", allowed=allowed, hint="give --margin, or a larger --window")
    return Streaming(
        args.model,
        side=side,
        margin=None if args.margin == "exact" else int(args.margin),
        blend=args.blend,
        batch=args.batch or 1,
        resume=args.resume,
        anew=args.overwrite,
        always=args.window is not None or args.blend,
    )


def _crs(text: str) -> str:
    """Well-known text of "EPSG:32759" and the like."""
    from torchfpn.errors import ConfigError
    from torchfpn.files.rasters import import_rasterio

    rasterio = import_rasterio()
    try:
        return str(rasterio.crs.CRS.from_user_input(text).to_wkt())
    except rasterio.errors.CRSError as error:
        raise ConfigError(f'"{text}"', field="assume-crs", allowed="a coordinate system, such as EPSG:4326") from error


def _check_window(task: "Task", streaming: "Streaming") -> None:
    """Passes blocks that begin where the coarsest cells of the model do."""
    from torchfpn.errors import ConfigError

    multiple = int(getattr(task.model, "multiple", 1))
    if streaming.side % multiple:
        allowed = f"a multiple of {multiple} pixels, the model's coarsest stride"
        raise ConfigError(f"{streaming.side}", field="window", allowed=allowed)


def check_classes(task: "Task", model: Path, options: "Options") -> None:
    """Passes classes whose values fit into 16 bits, and names of classes that there are."""
    from torchfpn.errors import ConfigError, WeightsError, nearest

    if (top := max(task.recipe.label_ids, default=0)) > 65535:
        raise WeightsError(f"a class with the value {top}", file=model, allowed="0..65535 in label files")
    for name in options.outlined or ():
        if name not in task.classes:
            raise ConfigError(f'no class "{name}"', field="outlined", hint=nearest(name, task.classes))


def _overlay(task: "Task") -> "Overlay":
    from torchfpn.report.pictures import overlay

    recipe = task.recipe
    return lambda image, labels: overlay(image, labels, recipe.colors, bands=recipe.bands)


def _predict_all(
    task: "Task", jobs: "list[Job]", options: "Options", streaming: "Streaming", *, overlay: "Overlay | None"
) -> int:
    from torchfpn.cli.counting import counted
    from torchfpn.errors import DataError, FPNError
    from torchfpn.files.formats import printable
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
                if scene is not None:
                    done.append(predict_stream(task, scene, job, options, streaming, step=step))
                else:
                    done.append(predict_file(task, job, options, overlay=overlay))
                    step()
                _report(done[-1])
            except (FPNError, OSError) as error:
                failed += 1
                line = error if isinstance(error, FPNError) else DataError(str(error), file=printable(job.source))
                print(f"fpn: {line}".encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
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
        words.append(f"{polygons:,} polygons")
    return ", ".join(words)
