"""fpn evaluate of two vector files: which of the true polygons were found."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfpn.cli.evaluate_maps import Scored, described, left_out, read_layer, wanted
from torchfpn.cli.holding import of_one_layer

if TYPE_CHECKING:
    from torchfpn.vectors.comparing import Compared, Layer


def polygons_against_polygons(args: argparse.Namespace) -> Scored:
    """Matches the objects of two files and counts them."""
    from torchfpn.errors import ConfigError
    from torchfpn.vectors.comparing import compare_objects

    if args.out:
        raise ConfigError(
            "polygons against polygons make no report", field="--out", hint="write the numbers with --json"
        )
    for path in (args.model, args.dataset):
        if path.is_dir():
            raise ConfigError("a folder", file=path, allowed="one vector file against another")
    predicted, truth = read_layer(args, args.model, truth=False), read_layer(args, args.dataset, truth=True)
    area = _area(args) if args.within else []
    found = compare_objects(predicted, truth, iou=args.iou, only=wanted(args.classes), within=area, least=args.min_area)
    left = [left_out((found.others[k], "of other classes"), (found.outside[k], "outside or too small")) for k in (0, 1)]
    lines = [described(layer) + words for layer, words in zip((predicted, truth), left, strict=True)]
    if found.apart:
        lines.append("the two layers do not overlap; check their coordinate systems")
    return {"objects": found.scores.to_dict(), "left_out": _left_out(found)}, lines


def _area(args: argparse.Namespace) -> "list[Layer]":
    """Polygons of a vector file, or the outlines of rasters."""
    from torchfpn.errors import DataError
    from torchfpn.raster.footprints import footprint
    from torchfpn.raster.sources import find_sources
    from torchfpn.vectors.formats import is_vector
    from torchfpn.vectors.objects import read_objects
    from torchfpn.vectors.reading import crs_wkt
    from torchfpn.vectors.tiles import check_pattern

    crs = crs_wkt(args.assume_crs) if args.assume_crs else None
    if not is_vector(args.within):
        tiles = check_pattern(args.tiles) if args.tiles is not None else None
        return [footprint(file, assume_crs=crs, tiles=tiles) for file in find_sources([args.within])]
    with of_one_layer():
        area = read_objects(Path(args.within), field="", score="", assume_crs=crs)
    if not len(area.shapes):
        raise DataError("holds no area", file=args.within)
    return [(area.shapes, area.crs, area.file)]


def _left_out(found: "Compared") -> dict[str, Any]:
    sides = ("predicted", "truth")
    return {
        "outside_or_small": dict(zip(sides, found.outside, strict=True)),
        "of_other_classes": dict(zip(sides, found.others, strict=True)),
    }
