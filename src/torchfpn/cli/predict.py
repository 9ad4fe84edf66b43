"""Runs a model on images, folders of images and patterns, and writes its predictions.

Pictures become <stem>.png, a palette PNG with the label values of the training data; TIFFs become <stem>.tif with the
same size, CRS and transform. A source that fails is reported, the others are processed, and the exit code is 1.

TIFFs of more than --max-pixels, and all with --tile-size or --blend, are read tile by tile in bounded memory and
written as cloud-optimised GeoTIFFs; --resume continues an interrupted prediction.

Detection models write objects.json, a COCO file of all sources with scores; models with masks also write instance ids
to <stem>.png or <stem>.tif.
"""

import argparse
from pathlib import Path

from torchfpn.cli.holding import accept_old_spelling, refuse_idle

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
    from torchfpn.cli.predict_objects import run_objects
    from torchfpn.cli.predict_options import check_flags, options_of, streaming_of, with_model_tiles
    from torchfpn.cli.predict_pixels import run_pixels
    from torchfpn.files.model_files import read_recipe
    from torchfpn.raster.sources import find_sources

    check_flags(args)
    read_recipe(args.model)  # what is no model, and sources that name nothing, are refused before torch is imported
    find_sources(args.sources, tiles=True)
    options, streaming = options_of(args), streaming_of(args)

    from torchfpn.tasks.precision import find_device
    from torchfpn.tasks.storage import load

    device = find_device(args.device)
    task = load(args.model)
    options = with_model_tiles(options, task, args.sources)
    refuse_idle(args, "predict", "a semantic model" if task.recipe.task == "semantic" else "a detection model")
    if task.recipe.task != "semantic":
        return run_objects(args, task.to(device), options)
    return run_pixels(args, task, device, options, streaming)
