"""What the flags of fpn predict mean, checked as far as that can be done before the first image."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torchfpn.cli.holding import once
from torchfpn.raster.blocks import SIDE

if TYPE_CHECKING:
    from torchfpn.raster.predict import Options
    from torchfpn.raster.stream import Streaming
    from torchfpn.tasks.task import Task


def check_flags(args: argparse.Namespace) -> None:
    """Passes flags that can be, alone and together; neither the model nor a source is looked at.

    Raises:
        ConfigError: a flag that cannot be, that says nothing without another, or two that contradict each other.
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
    _check_windows(args)


def _check_windows(args: argparse.Namespace) -> None:
    """Raises the ConfigError of `check_flags` for flags of large rasters."""
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


def options_of(args: argparse.Namespace) -> "Options":
    """How sources are read, and what is made of each.

    Raises:
        ConfigError: a flag that cannot be, or that says nothing without another.
    """
    words = [word.strip() for word in args.bands.split(",")] if args.bands else []
    classes = None if args.vectorize is None else [word.strip() for word in args.vectorize.split(",")]
    classes = classes and once(classes, "--vectorize")
    crs, tiles = _crs(args.assume_crs) if args.assume_crs else None, _tiles(args)

    from torchfpn.raster.predict import Options  # imports torch: after everything that can be refused

    return Options(
        probabilities=args.probabilities,
        polygons=args.polygons,
        outlined=classes,
        least=args.min_pixels,
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
    """How paths of tiles end; as in folders of tiles, where one of those is to become a mosaic."""
    from torchfpn.raster.tile_map import PATTERN, is_tile_map
    from torchfpn.vectors.tiles import check_pattern

    if args.tiles is None:
        return PATTERN if args.mosaic and any(is_tile_map(Path(source)) for source in args.sources) else None
    return check_pattern(args.tiles)


def with_model_tiles(options: "Options", task: "Task", sources: Sequence[str]) -> "Options":
    """The options with the pattern of tiles that the model learnt, where `--tiles` is not given; it is said if it fits.

    Raises:
        ConfigError: the model's pattern is none.
    """
    from dataclasses import replace

    from torchfpn.raster.predict import tiles_of
    from torchfpn.raster.sources import find_sources
    from torchfpn.vectors.tiles import is_tile

    pattern = tiles_of(task)
    if pattern is None or options.tiles is not None:
        return options
    if any(is_tile(source, pattern) for source in find_sources(sources, tiles=True)):
        print(f'files without a georeference are located by their paths, "{pattern}", as in training (--tiles)')
    return replace(options, model_tiles=pattern)


def streaming_of(args: argparse.Namespace) -> "Streaming":
    """How large rasters are cut into windows.

    Raises:
        ConfigError: a flag that cannot be, or two that contradict each other.
    """
    from torchfpn.raster.journal import fingerprint
    from torchfpn.raster.stream import Streaming

    return Streaming(
        fingerprint(args.model) if args.model.is_file() else "",
        side=args.tile_size or SIDE,
        margin=None if args.margin == "exact" else int(args.margin),
        blend=args.blend,
        batch=args.batch_size or 1,
        resume=args.resume,
        anew=args.overwrite,
        always=args.tile_size is not None or args.blend,
    )


def _crs(text: str) -> str:
    """Well-known text of "EPSG:32759" and the like."""
    from torchfpn.errors import ConfigError
    from torchfpn.files.rasters import import_rasterio

    rasterio = import_rasterio()
    try:
        return str(rasterio.crs.CRS.from_user_input(text).to_wkt())
    except rasterio.errors.CRSError as error:
        raise ConfigError(
            f'"{text}"', field="--assume-crs", allowed="a coordinate system, such as EPSG:4326"
        ) from error
