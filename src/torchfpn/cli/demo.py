"""The whole job in one command, offline, in about two minutes on two cores.

Paints small labelled aerial scenes, trains on them, scores the held-out ones, labels a larger scene, outlines its
buildings and writes a report; with --task instance or detection, finds the houses one by one. Everything goes into one
folder; a second run takes a new one.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchfpn.demo.job import Made, Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument(
        "--task", choices=("semantic", "detection", "instance"), default="semantic", help="what is learnt"
    )
    parser.add_argument("--out", type=Path, default=Path("fpn-demo"), metavar="DIR", help="folder; else DIR-2, DIR-3")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another country")
    parser.add_argument("--epochs", type=int, help="of training; default: enough")
    parser.add_argument("--quick", action="store_true", help="everything once and tiny, to see whether it runs")


def run(args: argparse.Namespace) -> int:
    """Runs the demo and says what it made."""
    begun = time.monotonic()
    plan = _plan(args)
    from torchfpn.cli.outputs import check_folder
    from torchfpn.demo.job import fresh_folder, run_demo

    check_folder(args.out.absolute().parent)
    made = run_demo(fresh_folder(args.out), plan, lambda text: print(text, file=sys.stderr, flush=True))
    print(_list(made, time.monotonic() - begun))
    return 0


def _plan(args: argparse.Namespace) -> "Plan":
    from torchfpn.demo.job import Plan
    from torchfpn.errors import ConfigError

    if args.seed < 0:
        raise ConfigError(f"{args.seed}", field="seed", allowed="a whole number from 0")
    if args.epochs is not None and args.epochs < 1:
        raise ConfigError(f"{args.epochs}", field="epochs", allowed="a whole number from 1")
    plan = (Plan.quick if args.quick else Plan.usual)(args.seed, args.task)
    return replace(plan, epochs=args.epochs) if args.epochs is not None else plan


def _list(made: "Made", seconds: float) -> str:
    from torchfpn.report.cells import percents

    width = max(len(str(path)) for path, _ in made.files)
    lines = [f"  {path!s:<{width}}  {what}" for path, what in made.files]
    held_out, town = (f"{percents(score)} %" for score in (made.held_out, made.town))
    scores = f"{made.score} {held_out} on the held-out scenes, {town} on the town, in {seconds:.0f} s"
    return "\n".join([scores, *lines])
