"""Runs the whole workflow offline, in two to four minutes on two cores.

Renders small labelled aerial scenes, trains on them, evaluates on held-out scenes, predicts a larger scene, vectorizes
its buildings and writes a report; --task instance or detection finds single buildings, --task panoptic buildings, trees
and the land around them. All outputs go to one folder; a second run makes a new folder, or continues the first one with
--resume.

  fpn demo                 # all of it, in fpn-demo/
  fpn demo --data data     # only the scenes: datasets in data/semantic, instance, panoptic; a larger scene in data/town
"""

import argparse
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchfpn.demo.job import Made, Plan
    from torchfpn.train.run_folder import Interrupted


TASKS = ("semantic", "detection", "instance", "panoptic")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("--task", choices=TASKS, help="task of the model: semantic (default), ...")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="output folder; default: fpn-demo; if it exists, DIR-2, DIR-3"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="only write the scenes, as data for the other commands"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes")
    parser.add_argument("--epochs", type=int, help="training epochs; default: enough to converge")
    parser.add_argument("--resume", action="store_true", help="continue in the folder of an interrupted demo")
    parser.add_argument("--quick", action="store_true", help="run every step on tiny data, as a smoke test")


def run(args: argparse.Namespace) -> int:
    """Runs the demo and says what it made."""
    begun = time.monotonic()
    plan = _plan(args)
    if args.data is not None:
        return _write_data(args, plan)
    from torchfpn.cli.console import make_output_folder
    from torchfpn.demo.job import fresh_folder, run_demo
    from torchfpn.errors import require

    require("train", "fpn demo")
    out = args.out or Path("fpn-demo")
    make_output_folder(out.parent)
    folder = out if args.resume and out.is_dir() else fresh_folder(out)
    go_on = f"continue with --resume --out {folder}"
    try:
        made = run_demo(folder, plan, _say, resume=args.resume)
    except KeyboardInterrupt:
        print(f"fpn: stopped; {go_on}", file=sys.stderr)
        return 128 + signal.SIGINT
    except _interrupted() as stop:  # during the training, which saves its state
        print(f"fpn: stopped by {stop}; {go_on}", file=sys.stderr)
        return stop.exit_code
    print(_list(made, time.monotonic() - begun))
    return 0


def _interrupted() -> "type[Interrupted]":
    """Imported late: it brings torch, which is loaded while other processes paint."""
    from torchfpn.train.run_folder import Interrupted

    return Interrupted


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _write_data(args: argparse.Namespace, plan: "Plan") -> int:
    """Writes the scenes alone, and says what to do with them."""
    from torchfpn.cli.console import make_output_folder
    from torchfpn.demo.job import write_data
    from torchfpn.errors import ConfigError

    for name in ("out", "task", "epochs", "resume"):
        if getattr(args, name) not in (None, False):
            raise ConfigError(f"{getattr(args, name)}", field=f"--{name}", allowed="to come without --data")
    make_output_folder(args.data.parent)
    write_data(args.data, plan, _say)
    scenes = f"{plan.train} + {plan.val} scenes of {plan.size} x {plan.size} pixels, 4 bands"
    print(f"  {args.data / 'semantic'}  {scenes}, a class for every pixel")
    print(f"  {args.data / 'instance'}  the same scenes, a number for every building")
    print(f"  {args.data / 'panoptic'}  the same scenes, segments of buildings, trees and the rest")
    print(f"  {args.data / 'town'}  a scene of {plan.town} x {plan.town} pixels with its truth")
    print(f"next: fpn check {args.data / 'semantic'}")
    return 0


def _plan(args: argparse.Namespace) -> "Plan":
    from torchfpn.demo.job import Plan
    from torchfpn.errors import ConfigError

    if args.seed < 0:
        raise ConfigError(f"{args.seed}", field="--seed", allowed="a whole number from 0")
    if args.epochs is not None and args.epochs < 1:
        raise ConfigError(f"{args.epochs}", field="--epochs", allowed="a whole number from 1")
    plan = (Plan.quick if args.quick else Plan.usual)(args.seed, args.task or "semantic")
    return replace(plan, epochs=args.epochs) if args.epochs is not None else plan


def _list(made: "Made", seconds: float) -> str:
    from torchfpn.report.tables import percents

    width = max(len(str(path)) for path, _ in made.files)
    lines = [f"  {path!s:<{width}}  {what}" for path, what in made.files]
    held_out, town = (f"{percents(score)} %" for score in (made.held_out, made.town))
    phases = ", ".join(f"{name} {spent:.0f} s" for name, spent in made.seconds)
    scores = f"{made.score} {held_out} on the held-out scenes, {town} on the town"
    return "\n".join([f"{scores}, in {seconds:.0f} s ({phases})", *lines])
