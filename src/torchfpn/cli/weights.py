"""Computes class weights from label frequencies, for losses on imbalanced classes.

p is the share of a class in the labelled pixels, f its share in the images that contain it:
  median-frequency       median(f) / f (Eigen and Fergus 2015)
  sqrt-median-frequency  the square root of that
  inverse                1 / (K p), K classes that occur
  enet                   1 / ln(1.02 + p) (Paszke et al. 2016)
A class without pixels has weight 0.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from torchfpn.cli.console import FileProgress, results_console

if TYPE_CHECKING:
    from torchfpn.data.config import DatasetConfig
    from torchfpn.data.statistics import ClassCounts


METHODS = ("median-frequency", "sqrt-median-frequency", "inverse", "enet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("dataset", type=Path, help="a folder with a dataset.yaml, or the yaml")
    parser.add_argument("--method", choices=METHODS, default=METHODS[0], help="formula of the weights")
    parser.add_argument("--split", default="train", help="split whose labels are counted")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Counts the labels of a split and prints the weights."""
    from torchfpn.data.config import read_dataset
    from torchfpn.data.statistics import class_counts, class_weights

    dataset = read_dataset(args.dataset)
    counts = class_counts(dataset, args.split, watch=FileProgress("counting", quiet=args.quiet))
    weights = class_weights(counts, args.method)
    if args.json:
        rows = zip(dataset.names, counts.pixels, counts.shares, counts.images, weights, strict=True)
        keys = ("class", "pixels", "share", "images", "weight")
        classes = [dict(zip(keys, row, strict=True)) for row in rows]
        print(
            json.dumps({"method": args.method, "split": args.split, "classes": classes, "weights": weights}, indent=2)
        )
    else:
        _print(dataset, counts, weights, f"{args.method}, {args.split}")
    return 0


def _print(dataset: "DatasetConfig", counts: "ClassCounts", weights: list[float], title: str) -> None:
    from rich.table import Table

    table = Table(title=f"class weights: {title}", title_justify="left")
    table.add_column("class")
    for column in ("pixels", "share", "images", "weight"):
        table.add_column(column, justify="right")
    for name, pixels, share, images, weight in zip(
        dataset.names, counts.pixels, counts.shares, counts.images, weights, strict=True
    ):
        table.add_row(name, f"{pixels:,}", f"{share:.2%}", f"{images:,}", f"{weight:.4f}" if pixels else "0")
    out = results_console()
    out.print(table)
    out.print(f"class_weights: [{', '.join(f'{weight:.4f}' for weight in weights)}]", soft_wrap=True)
