"""Options that torchvision's networks have for the sake of foreign checkpoints."""

import pytest
import torch
from torch import nn

from torchfpn.backbones import backbone
from torchfpn.errors import ConfigError


def test_strides_in_the_first_convolution_of_a_bottleneck():
    body, plain = (backbone("torchvision/resnet50", stride_in_1x1=first) for first in (True, False))
    assert body.levels == plain.levels
    for name in ("c3", "c4", "c5"):
        block, other = body.stages.get_submodule(f"{name}.0"), plain.stages.get_submodule(f"{name}.0")
        assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))
        assert (other.conv1.stride, other.conv2.stride) == ((1, 1), (2, 2))
    assert [x.shape[-2:] for x in body(torch.rand(1, 3, 64, 96))] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_two_maps_of_a_stride():
    cuts = [2, 4, 7, 13, 14, 17]
    body = backbone("torchvision/mobilenet_v3_large", cuts=cuts, strides=[32, 32], norm_eps=1e-5)
    assert [tuple(level) for level in body.levels] == [(160, 32), (960, 32)]
    assert [x.shape[1:] for x in body(torch.rand(2, 3, 64, 96))] == [(160, 2, 3), (960, 2, 3)]
    assert {norm.eps for norm in body.modules() if isinstance(norm, nn.BatchNorm2d)} == {1e-5}


def test_mobilenet_v3_has_its_maps_at_the_end_of_each_stride():
    body = backbone("torchvision/mobilenet_v3_large")
    assert [tuple(level) for level in body.levels] == [(24, 4), (40, 8), (112, 16), (160, 32)]
    assert backbone("torchvision/mobilenet_v3_large", final_conv=True).levels[-1] == (960, 32)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("resnet18", {"stride_in_1x1": True}, "stride_in_1x1=True; expected a network of bottlenecks"),
        (
            "resnet50",
            {"stride_in_1x1": True, "output_stride": 16},
            "stride_in_1x1=True; expected a network of bottlenecks",
        ),
        ("resnet18", {"cuts": [1, 2]}, r"cuts \[1, 2\]; expected none: a ResNet has no"),
        ("mobilenet_v3_large", {"cuts": [4, 4]}, r"cuts \[4, 4\]; expected rising, up to 17"),
        ("mobilenet_v3_large", {"cuts": [4, 18]}, r"cuts \[4, 18\]; expected rising, up to 17"),
    ],
)
def test_what_cannot_be(name, options, told):
    with pytest.raises(ConfigError, match=told):
        backbone(f"torchvision/{name}", **options)
