"""Converts a checkpoint of another project to a torchfpn model, and prints what it recognised.

  fpn convert their.pth model.safetensors
  fpn convert smp.ckpt model.safetensors --backbone tu-convnext_tiny --classes background,water
  fpn convert rgb.pth model.safetensors --bands red,green,blue,nir
  fpn convert model_final.pkl model.safetensors --variant torchvision

Families: pytorch-fpn, robosat, kuangliu, segmentation-models-pytorch, torchvision's detectors, detectron2. All tensors
of the file must fit the model, otherwise nothing is written. Pickles are read without executing code.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfpn.cli.options import once
from torchfpn.errors import amount

if TYPE_CHECKING:
    from torchfpn.importers.convert import Converted
    from torchfpn.recipe import Recipe, Scaling


SCALINGS = ("none", "unit", "imagenet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("checkpoint", type=Path, help=".pth, .pt, .ckpt, .pkl or .safetensors of another project")
    parser.add_argument("out", type=Path, help="the model.safetensors to write")
    parser.add_argument("--source", metavar="FAMILY", help="project of the checkpoint, if several fit")
    parser.add_argument("--backbone", metavar="NAME", help="encoder, if the file does not determine it")
    parser.add_argument(
        "--variant",
        metavar="NAME",
        help="what the file does not determine: torchvision: 320, coco_v1, backbone; detectron2: caffe, torchvision",
    )
    parser.add_argument(
        "--anchors",
        metavar="SIZES[:RATIOS]",
        help="anchors of a detector, if not the defaults: sizes of each level in pixels, 16,32,64,128,256:0.5,1,2; "
        "several sizes of a level: 8+16,16+32,...",
    )
    parser.add_argument("--align-corners", action="store_true", help="kuangliu: trained with torch 0.3 or older")
    parser.add_argument(
        "--bands",
        metavar="N|NAMES",
        help="bands of the model, more than the checkpoint has: their number, or all names",
    )
    parser.add_argument("--classes", metavar="NAMES", help="names of the classes, in label order")
    parser.add_argument(
        "--scaling",
        choices=SCALINGS,
        help="input scaling: none, values / 255 (unit), or ImageNet's constants; default: that of the family",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def run(args: argparse.Namespace) -> int:
    """Converts, checks, writes, and prints what was recognised."""
    from torchfpn.errors import ConfigError
    from torchfpn.io.atomic import check_local
    from torchfpn.io.model_files import check_weights

    check_local(args.out)
    if args.out.suffix != ".safetensors":
        raise ConfigError(f"{args.out}", field="OUT", allowed="a file that ends in .safetensors")
    if args.out.exists() and not args.overwrite:
        raise ConfigError("already exists", file=args.out, hint="replace it with --overwrite")
    check_weights(args.checkpoint)  # what holds no weights is refused before torch is imported

    from torchfpn.importers.convert import converted
    from torchfpn.tasks.storage import save_model

    made = converted(
        args.checkpoint,
        source=args.source,
        backbone=args.backbone,
        align_corners=args.align_corners,
        bands=_bands(args.bands),
        variant=args.variant,
        anchors=_anchors(args.anchors),
    )
    recipe = _named(made.recipe, args.classes, args.scaling)
    save_model(made.model, recipe, args.out)
    _print(made, recipe, args)
    return 0


def _bands(text: str | None) -> int | list[str] | None:
    if text is None:
        return None
    return int(text) if text.isdecimal() else [name.strip() for name in text.split(",")]


def _anchors(text: str | None) -> list[Any] | None:
    """Sizes and, after a colon, ratios."""
    if text is None:
        return None
    sizes, colon, ratios = text.partition(":")
    try:
        levels = [[float(size) for size in level.split("+")] for level in sizes.split(",")]
        return [levels, [float(ratio) for ratio in ratios.split(",")]] if colon else [levels]
    except ValueError:
        from torchfpn.errors import ConfigError

        allowed = "SIZES or SIZES:RATIOS, such as 32,64,128,256,512:0.5,1,2"
        raise ConfigError(f'"{text}"', field="--anchors", allowed=allowed) from None


def _named(recipe: "Recipe", classes: str | None, scaling: str | None) -> "Recipe":
    from torchfpn.errors import ConfigError
    from torchfpn.importers.convert import scaled_inputs

    if classes is not None:
        names = tuple(once([name.strip() for name in classes.split(",")], "--classes"))
        if len(names) != len(recipe.classes):
            raise ConfigError(
                amount(len(names), "name"),
                field="--classes",
                allowed=amount(len(recipe.classes), "class", "classes"),
            )
        things = names[: len(recipe.things)]
        recipe = replace(recipe, classes=names, things=things, label_ids=tuple(range(len(names))))
    if scaling is None:
        return recipe
    chosen = _scaling(scaling, recipe.bands)
    return replace(recipe, scaling=chosen, inputs=scaled_inputs(chosen))


def _scaling(word: str, bands: "Sequence[str]") -> "Scaling":
    from torchfpn.errors import ConfigError
    from torchfpn.io.bands import match_bands
    from torchfpn.recipe import Scaling

    count = len(bands)
    if word == "none":
        return Scaling.identity(count)
    if word == "unit":
        return Scaling((0.0,) * count, (255.0,) * count, "unit")
    if count != 3:
        raise ConfigError(
            amount(count, "band"), field="--scaling", allowed="imagenet: three bands", hint="--scaling unit"
        )
    return Scaling.imagenet().placed(match_bands(bands, ("red", "green", "blue")) or range(count))


def _print(made: "Converted", recipe: "Recipe", args: argparse.Namespace) -> None:
    from torchfpn.report.console import Console

    console = Console()

    def line(name: str, value: Any) -> None:
        console.print(f"{name:<11} {value}", soft_wrap=True)

    line("recognised", f"{made.family}: {made.about}")
    unread = f", {len(made.unread)} unused left out ({', '.join(made.unread[:2])}, ...)"
    line("tensors", f"{made.placed} placed, none missing" + (unread if made.unread else ", none left"))
    line("bands", ", ".join(recipe.bands))
    if recipe.classes:
        line("classes", ", ".join(recipe.classes))
    line("scaling", f"{recipe.scaling.method}: (value - offset) / scale")
    if recipe.inputs is not None:
        line("range", recipe.inputs.words())
    for note in made.notes:
        line("note", note)
    line("written", f"{args.out}, {args.out.stat().st_size / 1e6:.1f} MB")
    if recipe.classes:
        line("next", f"fpn predict {args.out} IMAGES --out DIR")
    else:
        line("next", f'torchfpn.load_model("{args.out}"): a backbone and its pyramid')
