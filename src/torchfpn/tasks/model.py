"""Models by name: `create_model` checks the arguments of backbone, pyramid and head, and joins the three."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from torchfpn.backbones import backbone as named_backbone
from torchfpn.backbones.names import Fusion
from torchfpn.errors import ConfigError, amount, nearest
from torchfpn.heads.panoptic import BRANCHES, Outputs, SemanticClasses, panoptic_head
from torchfpn.heads.semantic import ConcatHead, FinestHead, SemanticHead
from torchfpn.heads.two_stage import two_stage
from torchfpn.nn.any_size import AnySize, Detector, PanopticNet
from torchfpn.nn.containers import chain
from torchfpn.nn.layers import Norm
from torchfpn.pyramids.fpn import FPN, ConvLevels, FromBackbone, PoolLevel
from torchfpn.pyramids.panet import PANet
from torchfpn.pyramids.simple import SimplePyramid
from torchfpn.types import Level

MOST = 2**31  # a whole number above this is no width, size or count
WORDS = {bool: "true | false", int: "a whole number", float: "a number", str: "a word", type(None): "null"}
PYRAMIDS: dict[str, Callable[..., Any]] = {"fpn": FPN, "panet": PANet, "simple": SimplePyramid}
HEADS: dict[str, Callable[..., nn.Module]] = {"sum": SemanticHead, "concat": ConcatHead, "finest": FinestHead}
REGIONS = "two-stage"

TASKS: dict[str, tuple[str, ...]] = {  # the heads of each, the usual one first
    "semantic": tuple(HEADS),
    "detection": (REGIONS,),
    "instance": (REGIONS,),
    "panoptic": ("sum", "concat"),  # of the semantic branch; its regions are two-stage
}
NETS: dict[str, type[AnySize]] = {"semantic": AnySize, "detection": Detector, "instance": Detector,
                                  "panoptic": PanopticNet}  # fmt: skip

UNUSED = {"output_stride": 32, "band_init": "repeat", "fusion": "none", "pretrained": False}  # what asks for nothing
ADDED = {"pool": 1, "conv": 2, "conv-c5": 2}  # levels that each `extra` makes
EXTRAS = tuple(ADDED)
REFUSED = re.compile(r"(?P<why>unexpected|multiple values for)(?: keyword)? argument '(?P<name>\w+)'")  # by Python
Extra = Literal["pool", "conv", "conv-c5"]


def check_arguments(function: Callable[..., Any], given: Mapping[str, Any], field: str) -> None:
    """Passes arguments whose values are of the types that a function declares.

    Names that the function does not have are left to the call. Types that files cannot hold are not looked at.

    Args:
        function: a function, or a class that is called; its annotations tell the types.
        given: values by the name of the argument.
        field: named in errors, with the argument behind it: "head_options" -> "head_options.hidden"; "" -> "hidden".

    Raises:
        ConfigError: a value of another type, a number that is not finite, or a whole number beyond 2^31.
    """
    hints = get_type_hints(function.__init__ if isinstance(function, type) else function)  # type: ignore[misc]
    for name, value in given.items():
        kind = hints.get(name)
        if kind is not None and not _is_of(value, kind):
            shown = repr(value)
            shown = shown if len(shown) <= 60 else shown[:57] + "..."
            where = f"{field}.{name}".lstrip(".")
            raise ConfigError(shown, field=where, allowed=" | ".join(dict.fromkeys(_words(kind))))


def _is_of(value: Any, kind: Any) -> bool:
    if kind in SIMPLE:
        return SIMPLE[kind](value)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_is_of(value, one) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin is dict or origin is Mapping:
        return isinstance(value, Mapping)
    if origin is Sequence:
        listed = hasattr(value, "__iter__") and not isinstance(value, str | bytes | Mapping)
        return listed and (not inner or not isinstance(value, Sequence | Set) or _each_of(value, inner[0]))
    return True


def _each_of(values: Iterable[Any], kind: Any) -> bool:
    return all(_is_of(value, kind) for value in values)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and abs(int(value)) < MOST


def _is_real(value: Any) -> bool:
    if isinstance(value, Integral):
        return _is_whole(value)
    return isinstance(value, Real) and isfinite(value)


SIMPLE: dict[Any, Callable[[Any], bool]] = {
    bool: lambda value: isinstance(value, bool),
    int: _is_whole,
    float: _is_real,
    str: lambda value: isinstance(value, str),
    type(None): lambda value: value is None,
}


def _words(kind: Any) -> Iterable[str]:
    """What a type is called in an error."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind in WORDS:
        yield WORDS[kind]
    elif origin in (Union, UnionType):
        for one in inner:
            yield from _words(one)
    elif origin is Literal:
        yield from (str(one) for one in inner)
    elif origin is Sequence:
        yield "a list of " + " or ".join({"a whole number": "whole numbers", "a number": "numbers"}.get(word, "lists")
                                         for word in _words(inner[0]))  # fmt: skip
    elif origin is not None:
        yield "a table"


def create_model(
    task: str = "semantic",
    *,
    backbone: str | nn.Module,
    pyramid: str | nn.Module = "fpn",
    head: str | nn.Module | None = None,
    num_classes: int | None = None,
    things: int | Sequence[str] | None = None,
    stuff: int | Sequence[str] | None = None,
    semantic_classes: SemanticClasses = "stuff",
    in_channels: int | None = None,
    pretrained: bool | str | Path = False,
    strides: Sequence[int] | None = None,
    output_stride: int = 32,
    rgb: Sequence[int] = (0, 1, 2),
    band_init: str | Mapping[int, str] = "repeat",
    fusion: Fusion = "none",
    points: Sequence[int] | None = None,
    channels: int = 256,
    smooth: bool | Literal["finer"] = True,
    extra: Extra | None = None,
    head_channels: int = 128,
    norm: Norm = "batch",
    dropout: float = 0.0,
    align_corners: bool = False,
    backbone_options: dict[str, Any] | None = None,
    pyramid_options: dict[str, Any] | None = None,
    head_options: dict[str, Any] | None = None,
) -> AnySize:
    """An nn.Sequential `backbone`, `pyramid`, `head`: normalised images [B, C, H, W] -> raw predictions.

    task: "semantic": logits [B, num_classes, H, W]; "detection": `torchfpn.types.Regions`, Faster R-CNN's two stages;
    "instance": the same with masks, Mask R-CNN; "panoptic": `torchfpn.types.PanopticOutput`, Panoptic FPN's semantic
    branch and Mask R-CNN's stages on one pyramid. H and W are what was given, from 1 x 1 up; with group norm of 32
    channels, one a group, larger than a cell of the coarsest map, which has no variance then. Each of the three words
    is a name or a module you built: a backbone with `.levels`, a pyramid with `.levels`, a head.

    num_classes: of panoptic models things and stuff instead, each a number or names. semantic_classes: of their
    semantic branch, "stuff": one class for all things (index 0), then stuff, as in the paper, or "all": each thing too.
    backbone: see `torchfpn.backbone` for names, strides, output_stride, rgb, band_init, fusion and points; one that is
    built takes none of these. in_channels: 3, or those of the backbone that is built.
    pyramid: "fpn", "panet", or "simple" for a plain vision transformer. channels: its width; smooth: the FPN's 3x3
    convolutions; extra: coarser levels by "pool" (P6) or convolution of P5 ("conv") or of C5 ("conv-c5"), P6 and P7.
    head: "sum" (Panoptic FPN's), "concat" (COCO-Stuff 2017's, robosat's) or "finest" (reads the finest map alone); of
    detection and instance segmentation "two-stage", on a pyramid with P6; of panoptic models the semantic branch's,
    "sum" or "concat", which does not read P6. head_channels, norm, dropout, align_corners:
    of a semantic head. The three *_options go to the piece of that name: {"norm": "group"} to PANet, {"classifier":
    "bottleneck"} to the concatenating head, {"box": "4conv1fc"} to the two-stage one (`torchfpn.heads.two_stage`),
    {"regions": {"box": "4conv1fc"}, "semantic": {...}} to the branches of a panoptic head.

    Raises:
        ConfigError: an unknown word (with the nearest names), words that do not go together, an impossible number.
        WeightsError: pretrained weights that do not fit or cannot be had.
    """
    check_name("task", task, TASKS)
    numbers: dict[str, Any] = {"num_classes": num_classes, "things": things, "stuff": stuff}
    numbers |= {"in_channels": in_channels, "channels": channels}
    numbers |= {"head_channels": head_channels, "dropout": dropout, "align_corners": align_corners}
    check_arguments(create_model, numbers, "")
    outputs = _outputs(task, num_classes, things, stuff, semantic_classes)
    head = TASKS[task][0] if head is None else head
    extra = extra or (None if task == "semantic" else "pool")
    if head_channels < 1:
        raise ConfigError(f"{head_channels}", field="head_channels", allowed="1 or more")
    if not 0 <= dropout < 1:
        raise ConfigError(f"{dropout}", field="dropout", allowed="a share, 0 or more and less than 1")
    if isinstance(backbone, nn.Module):
        check_unused(
            strides=strides,
            output_stride=output_stride,
            rgb=None if tuple(rgb) == (0, 1, 2) else rgb,
            band_init=band_init,
            fusion=fusion,
            points=points,
            pretrained=pretrained,
            backbone_options=backbone_options or None,
        )
        body = backbone
        takes = getattr(body, "in_channels", in_channels)
        if in_channels not in (None, takes):
            found = f"{amount(in_channels, 'band')} for a backbone of {takes}"
            raise ConfigError(found, field="in_channels", hint="give the bands that it was built for")
    else:
        with _unknown_options("backbone_options", backbone):
            body = named_backbone(
                backbone,
                in_channels=3 if in_channels is None else in_channels,
                pretrained=pretrained,
                strides=strides,
                output_stride=output_stride,
                rgb=rgb,
                band_init=band_init,
                fusion=fusion,
                points=points,
                **(backbone_options or {}),
            )
    levels = declared_levels(body, "backbone")
    neck = _pyramid(
        pyramid,
        levels,
        channels,
        smooth=smooth,
        extra=extra,
        options=pyramid_options or {},
        finest=head == "finest" and task == "semantic",
        single=strides is not None,  # a single map is taken as it is where it was asked for
    )
    if not isinstance(head, nn.Module):
        check_name("head", head, TASKS[task])
        settings = {"norm": norm, "dropout": dropout, "align_corners": align_corners}
        given = declared_levels(neck, "pyramid")
        added = 1 if extra is None or isinstance(pyramid, nn.Module) else ADDED[extra]
        finer = max(len(given) - added, 1)
        head = _head(task, head, given, finer, outputs, head_channels, settings, head_options or {})
    return NETS[task](multiple=max(level.stride for level in levels), backbone=body, pyramid=neck, head=head)


def _outputs(
    task: str,
    num_classes: int | None,
    things: int | Sequence[str] | None,
    stuff: int | Sequence[str] | None,
    semantic_classes: SemanticClasses,
) -> Outputs:
    """How many classes each branch has.

    Raises:
        ConfigError: arguments of another task, or none.
    """
    counts = {name: len(one) if isinstance(one, Sequence) else one for name, one in
              (("things", things), ("stuff", stuff))}  # fmt: skip
    if task == "panoptic":
        if missing := next((name for name, count in counts.items() if count is None), None):
            raise ConfigError("nothing", field=missing, allowed="the number of such classes, or their names")
        made = Outputs.of(counts["things"] or 0, counts["stuff"] or 0, semantic_classes)
        if num_classes not in (None, sum(count or 0 for count in counts.values())):
            raise ConfigError(f"{num_classes}", field="num_classes", hint="things and stuff say it; leave it out")
        return made
    for name, given in (*counts.items(), ("semantic_classes", semantic_classes)):
        if given not in (None, "stuff"):
            raise ConfigError(f"{given} of {task}", field=name, allowed='none: it is of task "panoptic"')
    if num_classes is None:
        raise ConfigError("nothing", field="num_classes", allowed="a whole number")
    return Outputs(num_classes, num_classes)


def _head(
    task: str,
    word: str,
    levels: tuple[Level, ...],
    finer: int,
    outputs: Outputs,
    channels: int,
    settings: dict[str, Any],
    options: dict[str, Any],
) -> nn.Module:
    """The head that a word names.

    finer: how many levels are not made for large anchors alone; boxes, and the semantic branch of a panoptic head, are
    read from these. settings: arguments of a semantic head, which `options` override.
    """

    def semantic(read: Sequence[Level], own: dict[str, Any], field: str) -> nn.Module:
        check_arguments(HEADS[word], own, field)
        with _unknown_options(field, word):
            return HEADS[word](read, outputs.semantic, channels, **(settings | own))

    def regions(read: Sequence[Level], own: dict[str, Any], field: str) -> nn.Module:
        check_arguments(two_stage, own, field)
        with _unknown_options(field, REGIONS):
            return two_stage(read, outputs.things, masks=task != "detection", **{"roi_levels": finer, **own})

    if task == "semantic":
        return semantic(levels, options, "head_options")
    if task == "panoptic":
        branches = _branch_options(options)
        return panoptic_head(
            levels,
            finer,
            semantic=lambda read: semantic(read, branches["semantic"], "head_options.semantic"),
            regions=lambda read: regions(read, branches["regions"], "head_options.regions"),
        )
    if settings["dropout"]:
        found = f"{settings['dropout']} in {task}"
        raise ConfigError(found, field="dropout", allowed="0: a two-stage head has none")
    return regions(levels, options, "head_options")


def _branch_options(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of each branch of a panoptic head.

    Raises:
        ConfigError: a branch that there is not, or no table.
    """
    for name, own in options.items():
        field = f"head_options.{name}"
        if name not in BRANCHES:
            raise ConfigError("no such branch", field=field, allowed=" | ".join(BRANCHES), hint=nearest(name, BRANCHES))
        if not isinstance(own, Mapping):
            raise ConfigError(f"{own!r}", field=field, allowed="a table of the options of this branch")
    return {name: dict(options.get(name, {})) for name in BRANCHES}


def check_name(field: str, name: str, known: Any) -> None:
    """Raises ConfigError with the nearest names when `name` is none of the known ones."""
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f'"{name}"', field=field, allowed=" | ".join(known), hint=nearest(str(name), list(known)))


def check_unused(**options: Any) -> None:
    """Passes when nothing is asked of a backbone that was built by hand and would not hear of it."""
    for name, value in options.items():
        if value is not None and not (name in UNUSED and value == UNUSED[name]):
            found = f"{value!r} for a backbone that is already built"
            raise ConfigError(found, field=name, hint="give it to torchfpn.backbone, or name the backbone")


def declared_levels(piece: nn.Module, field: str) -> tuple[Level, ...]:
    """The levels of a piece; ConfigError when it declares none."""
    levels = getattr(piece, "levels", None)
    if not levels:
        raise ConfigError(
            f"{type(piece).__name__} declares no levels", field=field, hint="give it .levels, finest first"
        )
    return tuple(levels)


def _pyramid(
    pyramid: str | nn.Module,
    levels: tuple[Level, ...],
    channels: int,
    *,
    smooth: bool | Literal["finer"],
    extra: Extra | None,
    options: dict[str, Any],
    finest: bool,
    single: bool,
) -> nn.Module:
    if isinstance(pyramid, nn.Module):
        return pyramid
    check_name("pyramid", pyramid, PYRAMIDS)
    if extra is not None:
        check_name("extra", extra, EXTRAS)
    if extra == "conv-c5" and pyramid == "simple":
        raise ConfigError('"conv-c5" on simple', field="extra", allowed="on fpn and panet", hint="extra=conv")
    if finest:
        options = _one_output(pyramid, extra, options)
    if pyramid != "simple":
        if len(levels) == 1 and not (single and pyramid == "fpn"):
            found = f"{pyramid} on a single map of stride {levels[0].stride}"
            raise ConfigError(
                found, field="pyramid", allowed="two maps or more", hint='pyramid="simple" for a plain ViT'
            )
        options = {"smooth": smooth, **options}
    check_arguments(PYRAMIDS[pyramid], options, "pyramid_options")
    with _unknown_options("pyramid_options", pyramid):
        neck = PYRAMIDS[pyramid](levels, channels, **options)
    return neck if extra is None else _with_extra(neck, levels, extra)


def _one_output(pyramid: str, extra: Extra | None, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a pyramid that makes the one map which the finest-level head reads."""
    if pyramid != "fpn" or extra:
        found = f"{pyramid} with levels that it does not read" if extra else f'"finest" on {pyramid}'
        raise ConfigError(found, field="head", allowed='"finest" reads the finest map of an fpn', hint="head=sum")
    if options.get("outputs", 1) != 1:
        allowed = '1 with head="finest", which reads one map'
        raise ConfigError(f"{options['outputs']}", field="pyramid_options.outputs", allowed=allowed, hint="head=sum")
    return {**options, "outputs": 1}


def _with_extra(neck: Any, levels: tuple[Level, ...], extra: Extra) -> nn.Module:
    channels = neck.levels[-1].channels
    if extra == "conv-c5":
        return FromBackbone(neck, ConvLevels(levels, channels))
    return chain(pyramid=neck, extra=PoolLevel(neck.levels) if extra == "pool" else ConvLevels(neck.levels, channels))


@contextmanager
def _unknown_options(field: str, piece: str) -> Iterator[None]:
    """Inside, an option that a piece does not have, or has been given already, becomes a ConfigError that names it."""
    try:
        yield
    except TypeError as error:
        match = REFUSED.search(str(error))
        if not match:
            raise
        found = f"{piece} has no such option" if match["why"] == "unexpected" else "is an argument of its own"
        raise ConfigError(found, field=f"{field}.{match['name']}") from error
