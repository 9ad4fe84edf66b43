"""What the contract tests are run on: backbones of every kind, and tiny models of every pyramid and head."""

import pytest
import torch
from torch import nn

import torchfpn

PLAIN = ["test_vit", "vit_tiny_patch16_224", "deit_tiny_patch16_224", "xcit_nano_12_p16_224"]  # one map, of stride 16
BACKBONES = [
    "resnet18",
    "resnest14d",
    "test_resnet",
    "regnetx_002",
    "regnety_002",
    "mobilenetv2_100",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "ghostnet_100",
    "test_byobnet",
    "convnext_atto",
    "convnextv2_atto",
    "edgenext_xx_small",
    "efficientvit_b0",
    "fastvit_t8",
    "repvgg_a0",
    "hrnet_w18_small",
    "pvt_v2_b0",
    "swin_tiny_patch4_window7_224",
    *PLAIN,
    "torchvision/resnet18",
    "torchvision/mobilenet_v2",
    "torchvision/efficientnet_b0",
]
SMALL_SWIN = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}  # the kind, not the size
MORE_BACKBONES = [  # in `make contract`
    "resnet50",
    "torchvision/resnet50",
    "resnetv2_50",
    "res2net50_26w_4s",
    "mixnet_s",
    "poolformer_s12",
    "densenet121",
    "dla34",
    "vgg11",
    "cspdarknet53",
    "swinv2_cr_tiny_ns_224",
    "torchvision/efficientnet_v2_s",
]
CNNS = ["test_resnet", "resnet18", "test_efficientnet", "mobilenetv3_small_050", "test_convnext", "test_byobnet"]
LARGER_CNNS = ["resnet50", "regnety_002", "efficientnet_b0", "convnext_atto", "torchvision/mobilenet_v2", "densenet121"]
PYRAMIDS = {
    "fpn": {"pyramid": "fpn"},
    "fpn without smoothing": {"pyramid": "fpn", "smooth": False},
    "fpn with P6": {"pyramid": "fpn", "extra": "pool"},
    "fpn with P6 and P7": {"pyramid": "fpn", "extra": "conv"},
    "fpn with P6 and P7 of C5": {"pyramid": "fpn", "extra": "conv-c5"},
    "panet": {"pyramid": "panet"},
    "panet with group norm": {"pyramid": "panet", "pyramid_options": {"norm": "group"}},
    "simple": {"pyramid": "simple", "backbone": "test_vit"},
    "fpn on a dilated network": {"pyramid": "fpn", "output_stride": 8},
    "fpn on fused bands": {"pyramid": "fpn", "fusion": "fusenet", "in_channels": 5},
    "panet on late fusion": {"pyramid": "panet", "fusion": "late", "in_channels": 5},
}
HEADS = {
    "sum": {"head": "sum"},
    "sum with group norm": {"head": "sum", "norm": "group"},
    "concat": {"head": "concat"},
    "concat with bottleneck": {"head": "concat", "head_options": {"classifier": "bottleneck"}, "dropout": 0.1},
    "concat as robosat": {"head": "concat", "norm": "none", "head_options": {"act": False, "mode": "nearest"}},
    "finest": {"head": "finest"},
}
REFUSED = [  # the finest head reads one map: what makes others has to be read
    (pyramid, "finest") for pyramid in PYRAMIDS if pyramid.startswith(("panet", "simple", "fpn with P6"))
]
PAIRS = [(pyramid, head) for pyramid in PYRAMIDS for head in HEADS if (pyramid, head) not in REFUSED]
FEW_PAIRS = [  # every pyramid, every head, and pairs that meet in no other; the others run in `make contract`
    *((pyramid, head) for pyramid, head in PAIRS if head == "sum" or pyramid == "fpn"),
    ("panet", "concat"),
    ("panet on late fusion", "concat with bottleneck"),
    ("simple", "concat"),
    ("fpn with P6 and P7", "concat"),
    ("fpn on fused bands", "finest"),
    ("fpn on a dilated network", "finest"),
    ("fpn without smoothing", "concat as robosat"),
]


def made(backbone="test_resnet", **options):
    """A small model of 3 classes, every parameter of which takes part in what it gives."""
    torch.manual_seed(0)
    if backbone in PLAIN:
        options = {"pyramid": "simple", **options}
    if backbone.startswith("swin_"):
        options = {"backbone_options": SMALL_SWIN, **options}
    options = {"num_classes": 3, "channels": 32, "head_channels": 32, **options}
    model = torchfpn.create_model("semantic", backbone=backbone, **options)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 1.0, 0.1)  # norms and scales that start at 0 would hide what lies before them
    return model


def product(names):
    """Parameters of a test that only `make contract` runs."""
    return [pytest.param(name, marks=pytest.mark.product) for name in names]


def whole(pyramid, head, **options):
    """A tiny model of that pyramid and head."""
    return made(**{**PYRAMIDS[pyramid], **HEADS[head], **options})


def images(model, *size, batch=2, seed=0):
    """Random images for `model`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, model.backbone.in_channels, *size, generator=generator)


def close(found, expected, *, share=1e-4):
    """Passes outputs that differ by no more than a share of the largest."""
    torch.testing.assert_close(found, expected, rtol=0, atol=share * float(expected.abs().max()))
