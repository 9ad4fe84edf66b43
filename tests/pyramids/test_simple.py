"""The simple pyramid of a plain transformer: four scales of one map, at whole strides."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchfpn
from torchfpn import ConfigError, Level, SimplePyramid
from torchfpn.pyramids.simple import MapNorm


def seen(pyramid, size, levels):
    xs = tuple(torch.randn(1, level.channels, *size) for level in levels)
    return [tuple(y.shape[1:]) for y in pyramid(xs)]


@pytest.mark.parametrize(
    ("stride", "strides"),
    [(16, (4, 8, 16, 32)), (14, (7, 14, 28)), (8, (2, 4, 8, 16)), (32, (8, 16, 32, 64)), (7, (7, 14)), (1, (1, 2))],
)
def test_scales_of_whole_strides_are_declared(stride, strides):
    pyramid = SimplePyramid([Level(16, stride)], 8)
    assert pyramid.levels == tuple(Level(8, s) for s in strides)
    shapes = seen(pyramid, (6, 4), [Level(16, stride)])
    assert shapes == [(8, 6 * stride // s, 4 * stride // s) for s in strides]


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 2)])
def test_an_odd_number_of_cells_is_halved_and_rounded_up(size):
    h, w = size
    expected = [(8, 4 * h, 4 * w), (8, 2 * h, 2 * w), (8, h, w), (8, (h + 1) // 2, (w + 1) // 2)]
    assert seen(SimplePyramid([Level(16, 16)], 8), size, [Level(16, 16)]) == expected


def test_it_reads_the_last_map_alone():
    levels = [Level(6, 16), Level(16, 16)]
    pyramid = SimplePyramid(levels, 8)
    x, last = torch.randn(1, 6, 4, 4), torch.randn(1, 16, 4, 4)
    assert all(map(torch.equal, pyramid((x, last)), pyramid((x + 1, last))))


def test_map_norm_is_layer_norm_over_the_channels_of_each_cell():
    norm = MapNorm(12)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 3 + 5 * torch.randn(2, 12, 5, 7)
    y = norm(x)
    for b, i, j in [(0, 0, 0), (1, 4, 6), (0, 2, 3)]:
        expected = F.layer_norm(x[b, :, i, j], (12,), norm.weight, norm.bias)
        torch.testing.assert_close(y[b, :, i, j], expected)
    plain = MapNorm(12)(x)
    torch.testing.assert_close(plain.mean(1), torch.zeros(2, 5, 7), atol=1e-5, rtol=0)
    torch.testing.assert_close(plain.var(1, correction=0), torch.ones(2, 5, 7), atol=1e-4, rtol=0)


def test_it_is_the_papers_wiring():
    """Li et al. 2022, section 3 and appendix A.1, written out in plain torch."""
    torch.manual_seed(0)
    pyramid = SimplePyramid([Level(16, 16)], 8)
    x = torch.randn(1, 16, 5, 6)
    first, second, only = [m for m in pyramid.rescale.modules() if isinstance(m, nn.ConvTranspose2d)]
    (between,) = [m for m in pyramid.rescale.modules() if isinstance(m, MapNorm)]

    def normed(y, norm):
        return F.layer_norm(y.movedim(1, -1), (y.shape[1],), norm.weight, norm.bias).movedim(-1, 1)

    def doubled(y, conv):
        return F.conv_transpose2d(y, conv.weight, conv.bias, stride=2)

    four = doubled(F.gelu(normed(doubled(x, first), between)), second)
    scales = [four, doubled(x, only), x, F.max_pool2d(F.pad(x, (0, 0, 0, 1), value=-torch.inf), 2)]
    for y, got, lateral, smooth in zip(scales, pyramid((x,)), pyramid.lateral, pyramid.smooth, strict=True):
        y = normed(F.conv2d(y, lateral.conv.weight), lateral.norm)
        torch.testing.assert_close(got, normed(F.conv2d(y, smooth.conv.weight, padding=1), smooth.norm))


def test_no_parameter_is_dead():
    torch.manual_seed(0)
    pyramid = SimplePyramid([Level(16, 16)], 8)
    ys = pyramid((torch.randn(2, 16, 5, 6),))
    sum((y * torch.randn_like(y)).sum() for y in ys).backward()
    assert [name for name, p in pyramid.named_parameters() if not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(("name", "strides"), [("test_vit", [4, 8, 16, 32])])
def test_a_plain_transformer_gives_the_pixels_their_classes(name, strides):
    model = torchfpn.create_model(backbone=name, pyramid="simple", num_classes=3, channels=8, head_channels=8).eval()
    assert [level.stride for level in model.pyramid.levels] == strides
    for size in [(64, 64), (33, 50), (1, 1)]:
        assert tuple(model(torch.randn(1, 3, *size)).shape) == (1, 3, *size)


def test_patches_of_14_give_strides_7_14_and_28():
    options = {"img_size": 56, "patch_size": 14}
    model = torchfpn.create_model(
        backbone="test_vit", pyramid="simple", num_classes=3, channels=8, head_channels=8, backbone_options=options
    ).eval()
    assert [level.stride for level in model.pyramid.levels] == [7, 14, 28]
    assert tuple(model(torch.randn(1, 3, 45, 70)).shape) == (1, 3, 45, 70)


@pytest.mark.parametrize("pyramid", ["fpn", "panet"])
def test_a_single_map_is_refused_by_the_others_which_name_this_one(pyramid):
    with pytest.raises(ConfigError, match='on a single map of stride 16; expected two maps or more; pyramid="simple"'):
        torchfpn.create_model(backbone="test_vit", pyramid=pyramid, num_classes=3)


@pytest.mark.parametrize(("levels", "channels"), [([], 8), ([Level(8, 16)], 0)])
def test_nothing_cannot_be_made_a_pyramid_of(levels, channels):
    with pytest.raises(ConfigError, match="at least one each"):
        SimplePyramid(levels, channels)
