"""The shapes and the numbers of parameters that papers and other codebases give, from our pieces.

Source of the totals: ../shared/docs/reference-architectures.md, sections 4.2 and 4.3; torchvision's are counted here.
"""

import pytest
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import FeaturePyramidNetwork

from torchfpn import FPN, ConcatHead, Level, PANet, SemanticHead
from torchfpn.backbones import backbone

C2_TO_C5 = [Level(256, 4), Level(512, 8), Level(1024, 16), Level(2048, 32)]
FPN_256 = 3_344_384
RESNET50_TRUNK = 23_508_032
FPN101 = 16_700_480  # kuangliu/pytorch-fpn, FPN101(), which is [2, 2, 2, 2] blocks
ROBOSAT = 30_678_058  # FPNSegmentation(2) of branch issue/60, with the ResNet's unused fc
SIZES = [(150, 225), (75, 113), (38, 57), (19, 29)]


@pytest.fixture(autouse=True)
def on_meta():
    """Nothing is computed: shapes and counts are all that is asked."""
    with torch.device("meta"):
        yield


def parameters(module, kind=""):
    return sum(p.numel() for name, p in module.named_parameters() if name.endswith(kind))


@pytest.mark.parametrize("pyramid", [FPN, PANet])
def test_600_by_900_pixels_give_the_maps_of_the_papers(pyramid):
    """C2..C5 and P2..P5 as Lin et al.'s strides on 600 x 900, and as kuangliu's test() prints them."""
    body = backbone("torchvision/resnet50")
    neck = pyramid(body.levels)
    cs = body(torch.empty(1, 3, 600, 900))
    ps = neck(cs)
    assert list(body.levels) == C2_TO_C5
    assert [tuple(x.shape) for x in cs] == [(1, level.channels, *size) for level, size in zip(C2_TO_C5, SIZES)]  # noqa: B905
    assert [tuple(x.shape) for x in ps] == [(1, 256, *size) for size in SIZES]
    assert neck.levels == tuple(Level(256, stride) for stride in (4, 8, 16, 32))


def test_the_trunk_of_resnet50_has_no_classifier():
    assert parameters(backbone("torchvision/resnet50")) == RESNET50_TRUNK
    assert parameters(backbone("resnet50")) == RESNET50_TRUNK


def test_fpn_of_256_channels_has_torchvisions_parameters():
    assert parameters(FPN(C2_TO_C5)) == parameters(FeaturePyramidNetwork([c for c, _ in C2_TO_C5], 256)) == FPN_256


def test_panet_adds_six_convolutions():
    """Liu et al. 2018: two 3x3 convolutions of 256 channels for each of N3, N4, N5."""
    assert parameters(PANet(C2_TO_C5)) - FPN_256 == 6 * (9 * 256 * 256 + 256)


def test_fpn101_of_kuangliu_is_our_fpn_without_the_coarsest_smoothing():
    trunk = ResNet(Bottleneck, [2, 2, 2, 2])
    trunk.fc = nn.Identity()
    fpn = FPN(C2_TO_C5)
    assert parameters(trunk) + parameters(fpn) - parameters(fpn.smooth[-1]) == FPN101


def test_robosats_total_is_ours_without_biases_and_with_its_unused_classifier():
    """Its lateral, smoothing and head convolutions have no bias, ours have; its ResNet keeps a dead fc of 1000."""
    trunk, fpn = backbone("torchvision/resnet50"), FPN(C2_TO_C5)
    head = ConcatHead(fpn.levels, 2, 128, norm="none", act=False, mode="nearest")
    biases = parameters(fpn, "bias") + parameters(head.scale, "bias")
    assert biases == 4 * 256 + 4 * 256 + 4 * 2 * 128
    ours = parameters(trunk) + parameters(fpn) + parameters(head)
    assert ours - biases + (2048 * 1000 + 1000) == ROBOSAT


def test_the_panoptic_head_has_seven_convolutions_and_a_classifier():
    """Kirillov et al. 2019, figure 3: 256 -> 128 once a level, then 128 -> 128 to 1/4: 3 + 2 + 1 + 1 convolutions."""
    levels, classes = FPN(C2_TO_C5).levels, 54  # COCO's stuff and "other"
    first, further, norm = 9 * 256 * 128, 9 * 128 * 128, 2 * 128
    expected = 4 * first + 3 * further + 7 * norm + 128 * classes + classes
    for kind in ("group", "batch"):
        assert parameters(SemanticHead(levels, classes, 128, norm=kind)) == expected


@pytest.mark.parametrize("classes", [1, 2, 19])
def test_the_concatenating_head_has_two_convolutions_a_level(classes):
    """Kirillov et al. 2019, section 4.2 on the COCO-Stuff 2017 entry."""
    head = ConcatHead(FPN(C2_TO_C5).levels, classes, 128)
    expected = 4 * (9 * 256 * 128 + 9 * 128 * 128 + 2 * 2 * 128) + 9 * 4 * 128 * classes + classes
    assert parameters(head) == expected
