"""Levels beyond the backbone's: torchvision's to the bit, on odd sizes too."""

import pytest
import torch
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

import torchfpn
from torchfpn import FPN, ConvLevels, FromBackbone, Level, PANet, PoolLevel, chain

LEVELS = [Level(6, 8), Level(10, 16), Level(12, 32)]
SIZES = [[(38, 57), (19, 29), (10, 15)], [(5, 5), (3, 3), (2, 2)], [(1, 1)] * 3, [(8, 64), (4, 32), (2, 16)]]


def maps(levels, sizes):
    torch.manual_seed(0)
    return tuple(torch.randn(2, level.channels, *size) for level, size in zip(levels, sizes, strict=True))


def check_levels(piece, xs, ys):
    """Declared widths are seen, and the declared strides are those of maps that halve, rounded up."""
    assert [y.shape[1] for y in ys] == [level.channels for level in piece.levels]
    last, stride = xs[-1].shape[-2:], LEVELS[-1].stride
    for y, level in zip(ys, piece.levels, strict=True):
        if level.stride > stride:
            assert tuple(y.shape[-2:]) == tuple(-(-side * stride // level.stride) for side in last)


@pytest.mark.parametrize("sizes", SIZES)
def test_pooling_equals_torchvisions_bit_for_bit(sizes):
    levels = FPN(LEVELS, 8).levels
    xs, piece = maps(levels, sizes), PoolLevel(levels)
    expected, _ = LastLevelMaxPool()(list(xs), list(xs), ["0", "1", "2"])
    ys = piece(xs)
    assert all(map(torch.equal, ys, expected))
    assert len(ys) == len(expected) == 4
    assert list(piece.parameters()) == []
    assert piece.levels[-1] == Level(8, 64)
    check_levels(piece, xs, ys)


@pytest.mark.parametrize("sizes", SIZES)
def test_convolution_equals_torchvisions_bit_for_bit(sizes):
    levels = FPN(LEVELS, 8).levels
    piece, theirs = ConvLevels(levels, 8), LastLevelP6P7(8, 8)
    theirs.p6.load_state_dict(piece[0].state_dict())
    theirs.p7.load_state_dict(piece[1].state_dict())
    assert theirs.use_P5
    xs = maps(levels, sizes)
    expected, _ = theirs(list(xs), list(maps(LEVELS, sizes)), ["0", "1", "2"])
    ys = piece(xs)
    assert all(map(torch.equal, ys, expected))
    assert piece.levels[-2:] == (Level(8, 64), Level(8, 128))
    check_levels(piece, xs, ys)


def test_from_the_backbone_the_extra_levels_start_at_c5():
    """RetinaNet as the paper has it; torchvision's block chooses C5 where the widths differ."""
    piece = FromBackbone(FPN(LEVELS, 8), ConvLevels(LEVELS, 8))
    theirs = LastLevelP6P7(12, 8)
    theirs.p6.load_state_dict(piece.extra[0].state_dict())
    theirs.p7.load_state_dict(piece.extra[1].state_dict())
    assert not theirs.use_P5
    cs = maps(LEVELS, SIZES[0])
    ys, ps = piece(cs), piece.pyramid(cs)
    expected, _ = theirs(list(ps), list(cs), ["0", "1", "2"])
    assert all(map(torch.equal, ys, expected))
    assert piece.levels == tuple(Level(8, stride) for stride in (8, 16, 32, 64, 128))
    check_levels(piece, cs, ys)


@pytest.mark.parametrize("outputs", [1, 2, 3])
@pytest.mark.parametrize("extra", [PoolLevel(LEVELS), ConvLevels(LEVELS, 8), ConvLevels(LEVELS, 8, count=3)])
def test_a_pyramid_may_give_fewer_maps_than_the_backbone(outputs, extra):
    piece = FromBackbone(FPN(LEVELS, 8, outputs=outputs), extra)
    ys = piece(maps(LEVELS, SIZES[0]))
    assert len(ys) == len(piece.levels) == outputs + len(extra.levels) - 3
    assert [level.stride for level in piece.levels] == [*[8, 16, 32][:outputs], *[64, 128, 256][: len(ys) - outputs]]
    check_levels(piece, maps(LEVELS, SIZES[0]), ys)


def test_a_relu_stands_before_each_but_the_first():
    """Negative P6 must not reach P7; negative P5 must reach P6."""
    piece = ConvLevels([Level(1, 8)], 1)
    with torch.no_grad():
        for conv in piece:
            conv.weight.fill_(1)
    *_, p6, p7 = piece((-torch.ones(1, 1, 4, 4),))
    assert (p6 < 0).all()
    assert (p7 == 0).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_as_many_levels_as_asked_for(count):
    piece = ConvLevels([Level(4, 8)], 6, count=count)
    ys = piece(maps([Level(4, 8)], [(33, 20)]))
    assert [tuple(y.shape[1:]) for y in ys[1:]] == [(6, 17, 10), (6, 9, 5), (6, 5, 3)][:count]
    assert [level.stride for level in piece.levels] == [8, 16, 32, 64][: count + 1]


def test_the_same_on_a_panet():
    piece = chain(pyramid=PANet(LEVELS, 8), extra=PoolLevel(PANet(LEVELS, 8).levels))
    ys = piece(maps(LEVELS, SIZES[0]))
    assert torch.equal(ys[-1], ys[-2][..., ::2, ::2])
    assert [level.stride for level in piece.levels] == [8, 16, 32, 64]


@pytest.mark.parametrize("extra", ["pool", "conv", "conv-c5"])
@pytest.mark.parametrize("pyramid", ["fpn", "panet"])
def test_a_model_reads_its_extra_levels(pyramid, extra):
    torch.manual_seed(0)
    model = torchfpn.create_model(
        backbone="test_resnet",
        strides=(8, 16),
        pyramid=pyramid,
        extra=extra,
        num_classes=2,
        channels=8,
        head_channels=8,
    ).eval()
    assert [level.stride for level in model.pyramid.levels] == [8, 16, 32, 64][: 3 if extra == "pool" else 4]
    assert len(model.head.scale) == len(model.pyramid.levels)
    assert tuple(model(torch.randn(1, 3, 45, 70)).shape) == (1, 2, 45, 70)
    maps_ = model.pyramid(model.backbone(torch.randn(1, 3, 64, 96)))
    seen = [(y.shape[1], 64 // y.shape[-2]) for y in maps_]
    assert seen == [tuple(level) for level in model.pyramid.levels]
