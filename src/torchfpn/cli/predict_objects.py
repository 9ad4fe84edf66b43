"""fpn predict with a detection model: one COCO file of all sources; numbered masks, overlays, polygons of each."""

import argparse
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchfpn.errors import amount

if TYPE_CHECKING:
    from torchfpn.raster.predict import Options
    from torchfpn.raster.predict_objects import Outcome, Overlay
    from torchfpn.raster.sources import Job
    from torchfpn.tasks.task import Task


@dataclass
class _Totals:
    done: int = 0
    failed: int = 0
    pixels: int = 0
    found: int = 0
    shown: int = 0
    polygons: int = 0

    def add(self, outcome: "Outcome") -> None:
        self.done += 1
        self.pixels += outcome.pixels
        self.found += len(outcome.found)
        self.shown += outcome.shown
        self.polygons += outcome.polygons


def run_objects(args: argparse.Namespace, task: "Task", options: "Options") -> int:
    """0 all done; 1 some sources failed; 2 all of them did (or bad usage, said before the first image)."""
    from torchfpn.cli.outputs import check_folder
    from torchfpn.cli.told import tell_passed_over
    from torchfpn.raster.predict import check_classes
    from torchfpn.raster.predict_objects import SCORE
    from torchfpn.raster.sources import refuse_existing, refuse_own_sources

    _check_flags(args, task)
    check_classes(task, options, file=args.model)
    jobs = _plan(args, masks=_has_masks(task))
    refuse_own_sources(jobs)
    tell_passed_over(args.sources)
    if not args.overwrite:
        refuse_existing(jobs)
    check_folder(args.out)
    score = SCORE if args.min_score is None else args.min_score
    return _predict_all(task, jobs, options, score, overlay=_overlay(task) if args.overlay else None)


def _has_masks(task: "Task") -> bool:
    from torchfpn.raster.predict_objects import MASKS

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


def _plan(args: argparse.Namespace, *, masks: bool) -> "list[Job]":
    """A job for each source, whose `labels` is the one file of all."""
    from torchfpn.raster.sources import find_sources, plan_objects

    endings = {"overlay": ".overlay.png"} if args.overlay else {}
    if args.polygons:
        endings["polygons"] = ".pixels.json" if args.polygons == "pixels" else f".{args.polygons}"
    return plan_objects(find_sources(args.sources), args.out, endings, masks=masks)


def _overlay(task: "Task") -> "Overlay":
    from torchfpn.report.objects import overlay_objects

    recipe = task.recipe
    return lambda image, found: overlay_objects(
        image, found, colors=recipe.colors, names=recipe.classes, bands=recipe.bands
    )


def _predict_all(
    task: "Task", jobs: "list[Job]", options: "Options", score: float, *, overlay: "Overlay | None"
) -> int:
    from torchfpn.cli.counting import counted
    from torchfpn.raster.coco_results import coco_results
    from torchfpn.raster.predict_objects import record
    from torchfpn.raster.sources import image_names

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
    print(_summary(totals, score, time.monotonic() - begun))
    return 0 if not totals.failed else 1 if totals.done else 2


def _predict_one(
    task: "Task", job: "Job", options: "Options", score: float, overlay: "Overlay | None"
) -> "Outcome | None":
    """None: it failed, and was named."""
    from torchfpn.errors import FPNError, of_system
    from torchfpn.raster.predict_objects import predict_objects

    try:
        outcome = predict_objects(task, job, options, score=score, overlay=overlay)
    except (FPNError, OSError) as error:
        line = error if isinstance(error, FPNError) else of_system(error, job.source)
        print(f"fpn: {line}", file=sys.stderr)
        return None
    _report(outcome, score)
    return outcome


def _report(outcome: "Outcome", score: float) -> None:
    """One line for a source, and a warning where it holds nothing at all."""
    from torchfpn.cli.told import tell
    from torchfpn.files.formats import printable

    height, width = outcome.found.size
    words = [f"{printable(outcome.job.source)}  {width} x {height}", _counted(outcome.shown, len(outcome.found), score)]
    tell(words, outcome, outcome.job.source, polygons="polygons" in outcome.job.others)


def _counted(shown: int, found: int, score: float) -> str:
    rest = f" (and {found - shown:,} below a score of {score:g})" if found > shown else ""
    return f"{amount(shown, 'object')}{rest}"


def _summary(totals: _Totals, score: float, seconds: float) -> str:
    words = [f"{totals.done} predicted", f"{totals.failed} failed", _counted(totals.shown, totals.found, score)]
    if totals.polygons:
        words.append(amount(totals.polygons, "polygon"))
    return ", ".join([*words, f"{totals.pixels / 1e6:.2f} million pixels in {seconds:.1f} s"])
