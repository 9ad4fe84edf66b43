"""Validates a dataset before training: reads every file, reports errors, counts classes, measures bands.

fpn check DATASET            a folder with a dataset.yaml, or the yaml itself; exit code 2 if anything is bad
fpn check --init FOLDER      writes a first dataset.yaml for a folder that has none; 1 if something is left to decide
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torchfpn.cli.console import FileProgress
from torchfpn.cli.options import refuse_unused
from torchfpn.errors import ConfigError, amount
from torchfpn.io.atomic import check_local

if TYPE_CHECKING:
    from torchfpn.data.check import CheckReport
    from torchfpn.data.config import DatasetConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("dataset", type=Path, help="a folder with a dataset.yaml, or the yaml")
    parser.add_argument("--init", action="store_true", help="write a first dataset.yaml into the folder")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw a contact sheet: images beside their labels")
    parser.add_argument("--palette", action="store_true", help="labels are colours, not class values")
    parser.add_argument("--fix", action="store_true", help="leave out and count bad annotations")
    parser.add_argument("--max-pixels", type=int, metavar="N", help="largest image, height x width")
    parser.add_argument("--allow-vrt", action="store_true", help="read VRTs whose files lie below the root")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Checks, or describes, the dataset; 2 if anything in it is bad."""
    if args.sheet:
        check_local(args.sheet)
    if args.sheet and args.sheet.exists() and not args.overwrite:
        raise ConfigError("already exists", file=args.sheet, hint="replace it with --overwrite")
    watch = FileProgress("reading", quiet=args.quiet)
    if args.init:
        refuse_unused(args, "check", "--init")
        from torchfpn.data.init import init_dataset

        told: list[str] = []
        dataset = init_dataset(
            args.dataset,
            colors=args.palette,
            overwrite=args.overwrite,
            fix=args.fix,
            watch=watch,
            tell=told.append,
        )
    else:
        dataset = _dataset(args)  # before the import of what reads files, which takes seconds
    from torchfpn.data.check import check

    report = check(dataset, watch=watch)
    if args.init:
        return _say_written(dataset, report, told)
    if args.sheet:
        _write_sheet(report, args.sheet)
    if args.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        _print(report)
    _complain(report)
    return 0 if report.ok else 2


def _dataset(args: argparse.Namespace) -> "DatasetConfig":
    """The dataset with what the flags say on top."""
    from torchfpn.data.config import read_dataset

    dataset = replace(read_dataset(args.dataset), allow_vrt=args.allow_vrt)
    refuse_unused(args, "check", f"a dataset of {'objects' if dataset.has_objects else 'label files'}")
    if args.max_pixels is not None:
        dataset = replace(dataset, max_pixels=args.max_pixels)
    if args.fix:
        dataset = replace(dataset, fix=True)
    return replace(dataset, labels_are="colors") if args.palette else dataset


def _say_written(dataset: "DatasetConfig", report: "CheckReport", told: list[str]) -> int:
    """What was written, and what a first look cannot decide; 1 if there is any of that. told: on the way."""
    from torchfpn.data.config import annotation_warnings
    from torchfpn.io.formats import printable

    splits = ", ".join(f"{name} {len(dataset.pairs(name))}" for name in dataset.splits)
    classes = amount(len(dataset.classes), "class", "classes")
    print(f"wrote {printable(dataset.file)}: {classes} ({', '.join(dataset.names)}); {splits}")
    for note in [*told, *(note for name in dataset.splits for note in annotation_warnings(dataset, name))]:
        print(f"note: {note}")
    _complain(report, "left to decide")
    first = "" if dataset.has_objects else "rename the classes in it, then: "
    print(f"next: {first}fpn check {printable(dataset.file.parent)} --sheet sheet.png")
    return 0 if report.ok else 1


def _write_sheet(report: "CheckReport", path: Path) -> None:
    from torchfpn.report.dataset_sheet import write_sheet

    write_sheet(report, path)


def _print(report: "CheckReport") -> None:
    from torchfpn.cli.check_tables import tables
    from torchfpn.cli.console import results_console

    out = results_console()
    for table in tables(report):
        out.print(table)
    for note in report.notes:
        out.print(f"note: {note}")
    if report.ok:
        images = sum(split.images for split in report.splits)
        out.print(f"ok: {amount(images, 'image')}, no problems")


def _complain(report: "CheckReport", word: str = "bad") -> None:
    """What is bad, at most 20 lines of it, on stderr. word: what each line begins with."""
    from torchfpn.data.splits import SHOWN
    from torchfpn.io.formats import printable

    for problem in report.problems[:SHOWN]:
        print(f"{word}: {printable(problem.file)}: {problem.line}", file=sys.stderr)
    if len(report.problems) > SHOWN:
        print(f"{word}: and {len(report.problems) - SHOWN} more (all of them: --json)", file=sys.stderr)
    if report.problems:
        files = len({problem.file for problem in report.problems})
        print(f"fpn: {amount(files, 'bad file')} in {printable(report.dataset.file)}", file=sys.stderr)
    for line in report.fix or _segments_fix(report):
        print(f"fpn: {line}", file=sys.stderr)


def _segments_fix(report: "CheckReport") -> list[str]:
    """What --fix does where only panoptic maps are bad, of which no annotation is lost for certain."""
    bad = any(problem.fixable for problem in report.problems)
    return ["--fix leaves out bad segments, and counts them"] if bad else []
