"""The FPN of segmentation_models_pytorch: a Panoptic FPN head on a pyramid that is not smoothed.

Group norm, bilinear enlargement with align_corners=True, levels added or concatenated coarsest first. Encoders:
ResNets, ResNeXts, MobileNetV2, lukemelas' EfficientNets (`efficientnet-b*`), and any of timm (`tu-*`). Where several
networks of timm have the same tensors, `backbone` names one, by smp's name (`timm-mobilenetv3_large_100`) or by timm's
(`tf_mobilenetv3_large_100`). Images of three bands are normalized as smp's preprocessing does with 8-bit files: with
timm's constants for a `tu-*` encoder, with ImageNet's for all others. The file does not say how images of other bands
were normalized.
"""

import re
from typing import Any, NamedTuple

from torchfpn.backbones.weights import candidates, first_conv, fits, normalisation, shapes_of, tags_of_other_constants
from torchfpn.errors import ConfigError, WeightsError
from torchfpn.importers.family import Asked, Family, Found, Tensors, efficientnet_name, renamed, resnet_name, shape
from torchfpn.importers.robosat import finest_first
from torchfpn.recipe import Inputs, Scaling

LEVELS = 4
B0_ENDS = [0, 2, 4, 8, 15]  # of efficientnet-b0: the library takes C4 two blocks before the last of its stride
UNREAD = r"encoder\.(_conv_head|_bn1|_fc|fc|classifier|conv_head|bn2)\..*|classification_head\..*"
DROPOUT = 0.2  # the library's default; the file does not say

ASSUMED = (
    "not in the checkpoint; assumed: upsampling=4, which answers at the size of the image (a model of upsampling=2 "
    'answers at half of it, of 8 at twice), decoder_interpolation="nearest", activation=None'
)

HEAD = "segmentation_head.0.weight"


def read(tensors: Tensors, asked: Asked) -> Found:
    """The state_dict of an smp.FPN of depth 5."""
    encoder = _encoder(tensors, asked)
    backbone, prefix, stem = encoder.name, encoder.prefix, encoder.stem
    width = shape(tensors, "decoder.seg_blocks.3.block.0.block.0.weight", asked)[0]
    num_classes, merged, *_ = shape(tensors, "segmentation_head.0.weight", asked)
    is_concat = merged != width
    if is_concat:
        tensors = {**tensors, HEAD: finest_first(tensors[HEAD], LEVELS)}
    bands = shape(tensors, _name_of(stem, prefix), asked)[1] // encoder.folds
    return Found(
        model={
            "backbone": backbone,
            **({"backbone_options": encoder.options} if encoder.options else {}),
            "strides": [4, 8, 16, 32],
            "pyramid": "fpn",
            "channels": shape(tensors, "decoder.p5.weight", asked)[0],
            "smooth": False,
            "head": "sum",
            "head_channels": width,
            "norm": "group",
            "dropout": DROPOUT,
            "align_corners": True,
            **({"head_options": {"merge": "concat"}} if is_concat else {}),
        },
        tensors=tensors,
        name_of=lambda ours: _name_of(ours, prefix),
        first_convs=(stem,),
        in_channels=bands,
        num_classes=num_classes,
        scaling=encoder.scaling if bands == 3 else Scaling.identity(bands),
        about=f"FPN ({'cat' if is_concat else 'add'}) on {backbone}",
        notes=(*encoder.notes, ASSUMED),
        folds=encoder.folds,
        inputs=Inputs.eight_bit() if bands == 3 else Inputs.unknown(),
        unread=UNREAD,
    )


class Encoder(NamedTuple):
    """An encoder understood. prefix: (pattern of ours, theirs). stem: our name of the first convolution's weight.

    folds: channels of that weight for each band.
    """

    name: str
    options: dict[str, Any]
    prefix: tuple[str, str]
    stem: str
    scaling: Scaling
    notes: tuple[str, ...] = ()
    folds: int = 1


def _encoder(tensors: Tensors, asked: Asked) -> Encoder:
    """Which encoder it is.

    Raises:
        WeightsError: one that is not taken over. ConfigError: the caller names another, or several fit.
    """
    timm_name = timm_name_of(asked.backbone) if asked.backbone else None
    if "encoder._conv_stem.weight" in tensors:
        name = "lukemelas/" + efficientnet_name(tensors, "encoder.", asked)
        options = {"ends": B0_ENDS} if name.endswith("_b0") else {}
        stem = "backbone._conv_stem.weight"
        found = Encoder(name, options, (r"backbone\.", "encoder."), stem, Scaling.imagenet())
    elif "encoder.features.0.0.weight" in tensors:
        found = _mobilenet(tensors, asked)
    elif {"encoder.conv1.weight", "encoder.layer1.0.conv1.weight"} <= tensors.keys():
        name = resnet_name(tensors, "encoder.layer{}", asked)
        stem = "backbone.features.conv1.weight"
        found = Encoder(name, {}, (r"backbone\.features\.", "encoder."), stem, Scaling.imagenet())
    elif any(name.startswith("encoder.model.") for name in tensors):
        return _timm(tensors, "encoder.model.", timm_name, asked)
    elif "encoder.conv_stem.weight" in tensors:
        return _timm(tensors, "encoder.", timm_name, asked)
    else:
        first = next((name for name in tensors if name.startswith("encoder.")), "encoder.")
        raise WeightsError(
            "an encoder that is not taken over",
            file=asked.file,
            field=first,
            allowed="ResNet, ResNeXt, MobileNetV2, EfficientNet, tu-*",
        )
    plain = found.name.rpartition("/")[2]
    if timm_name is not None and timm_name.replace("-", "_") != plain:
        raise ConfigError(f'"{asked.backbone}"', field="backbone", allowed=f"{plain}, the file's encoder")
    return found


def _mobilenet(tensors: Tensors, asked: Asked) -> Encoder:
    shape(tensors, "encoder.features.18.0.weight", asked)
    stem = "backbone.stages.c1.0.0.weight"
    return Encoder(
        "torchvision/mobilenet_v2",
        {"final_conv": True},
        (r"backbone\.stages\.c\d\.", "encoder.features."),
        stem,
        Scaling.imagenet(),
    )


def timm_name_of(encoder: str) -> str:
    """The network of timm that smp builds for an encoder's name; names of timm stay as they are.

    smp builds timm's tf_ networks ("same" padding, epsilon 1e-3) for its `timm-mobilenetv3_*`, and a network of its own
    that equals timm's plain one for its `timm-efficientnet-*` and `timm-tf_efficientnet_lite*`.
    """
    name = encoder.removeprefix("tu-")
    if not encoder.startswith("timm-"):
        return name
    name = encoder.removeprefix("timm-").replace("-", "_").removeprefix("tf_")
    return f"tf_{name}" if name.startswith("mobilenetv3") else name


def _timm(tensors: Tensors, prefix: str, name: str | None, asked: Asked) -> Encoder:
    inner = {
        key.removeprefix(prefix): tensor
        for key, tensor in tensors.items()
        if key.startswith(prefix) and not re.fullmatch(UNREAD, key)
    }
    own_class = prefix == "encoder."  # timm-efficientnet-b*: as timm's plain ones, whose tensors tf_ ones have too
    name = name.replace("-", "_") if name and own_class else name
    if name is None or not fits(name, inner) or (own_class and name.startswith("tf_")):
        every, complete = candidates(inner)
        fitting = [other for other in every if not (own_class and other.startswith("tf_"))]
        if name is None and complete and len(fitting) == 1:
            note = f"the encoder is timm's {fitting[0]}, the only network of timm with these tensors"
            return _of_timm(fitting[0], prefix, note)
        found = "names and shapes do not tell the encoder" if name is None else f'"{asked.backbone}" has other tensors'
        raise ConfigError(
            found,
            file=asked.file,
            field="backbone",
            allowed=f"fitting: {' | '.join(fitting[:6])}" if fitting else None,
            hint=f"choose one: backbone={fitting[0] if fitting else '<name in timm>'}",
        )
    return _of_timm(name, prefix)


def _of_timm(name: str, prefix: str, *notes: str) -> Encoder:
    """The encoder of a name of timm. Its constants: timm's for a `tu-*` encoder, ImageNet's for smp's own classes."""
    stem = f"backbone.features.{first_conv(name)}"
    scaling = Scaling.imagenet() if prefix == "encoder." else normalisation(name)
    if prefix != "encoder." and len(others := tags_of_other_constants(name)) > 0:
        notes = (*notes, f"mean and deviation of timm's {name}; its weights {', '.join(others)} have others: --scaling")
    folds = shapes_of(name)[first_conv(name)][1] // 3  # of space-to-depth stems 16
    return Encoder(name, {}, (r"backbone\.features\.", prefix), stem, scaling, notes, folds)


def _name_of(ours: str, prefix: tuple[str, str]) -> str:
    for i in range(LEVELS):  # ours counts from the finest level, theirs from the coarsest
        block = f"decoder.seg_blocks.{LEVELS - 1 - i}.block."
        lateral = "decoder.p5." if i == LEVELS - 1 else f"decoder.p{i + 2}.skip_conv."
        ours = renamed(
            ours,
            (rf"pyramid\.lateral\.{i}\.", lateral),
            (rf"head\.scale\.{i}\.(\d+)\.conv\.", block + r"\1.block.0."),
            (rf"head\.scale\.{i}\.(\d+)\.norm\.", block + r"\1.block.1."),
        )
    return renamed(ours, prefix, (r"head\.classify\.", "segmentation_head.0."))


SMP = Family("segmentation-models-pytorch", r"decoder\.(p\d|seg_blocks)\.", read, asks=("backbone",))
