"""The bottom-up path: the paper's formula on any sizes, every output knowing every input, nothing that is not used."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torchfpn import ConfigError, Level, PANet
from torchfpn.backbones import backbone
from torchfpn.pyramids.panet import BottomUp

LEVELS = [Level(6, 4), Level(10, 8), Level(12, 16), Level(16, 32)]
SIZES = [(75, 113), (38, 57), (19, 29), (10, 15)]  # of 300 x 452, halved and rounded up


def maps(levels=LEVELS, sizes=SIZES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, level.channels, *size, generator=generator) for level, size in zip(levels, sizes))  # noqa: B905


def stirred(module, seed=0):
    """The module with every weight, bias and statistic random, so that nothing is hidden behind a zero or a one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            scale = p[0].numel() ** -0.5 if p.ndim > 1 else 0.5
            p.copy_(scale * torch.randn(p.shape, generator=generator) + (p.ndim == 1))
        for name, b in module.named_buffers():
            if "running" in name:
                b.copy_(0.5 + torch.rand(b.shape, generator=generator))
    return module


def paper(bottom_up, ps, *, norm, act):
    """N2 = P2; N_{i+1} = conv(P_{i+1} + conv_s2(N_i)), each convolution followed by `norm` and `act`."""

    def convolve(part, x, stride):
        conv = part if isinstance(part, nn.Conv2d) else part.conv
        y = F.conv2d(x, conv.weight, conv.bias, stride=stride, padding=1)
        if norm == "batch":
            n = part.norm
            y = F.batch_norm(y, n.running_mean, n.running_var, n.weight, n.bias, training=False, eps=1e-5)
        if norm == "group":
            y = F.group_norm(y, 32, part.norm.weight, part.norm.bias, eps=1e-5)
        return y.relu() if act else y

    ns = [ps[0]]
    for merge, p in zip(bottom_up, ps[1:], strict=True):
        ns.append(convolve(merge.conv, p + convolve(merge.shrink, ns[-1], 2), 1))
    return ns


@pytest.mark.parametrize("act", [True, False])
@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_it_is_the_papers_formula(norm, act):
    """Liu et al. 2018, section 3.1; the authors' code has norm and ReLU or neither, mmdetection's has neither."""
    panet = stirred(PANet(LEVELS, 32, norm=norm, act=act)).eval()
    with torch.no_grad():
        ps = panet.fpn(maps())
        expected, got = paper(panet.bottom_up, ps, norm=norm, act=act), panet(maps())
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert (got[1] >= 0).all() == act


def test_the_paper_has_a_relu_after_every_convolution_and_no_norm():
    merge = PANet(LEVELS, 8).bottom_up[0]
    for part, stride in ((merge.shrink, (2, 2)), (merge.conv, (1, 1))):
        assert [type(m) for m in part] == [nn.Conv2d, nn.ReLU]
        assert (part.conv.kernel_size, part.conv.stride, part.conv.bias is None) == ((3, 3), stride, False)


def test_the_finest_map_is_that_of_the_fpn():
    panet = PANet(LEVELS, 8)
    assert torch.equal(panet(maps())[0], panet.fpn(maps())[0])


@pytest.mark.parametrize("output", range(4))
def test_every_output_depends_on_every_input(output):
    panet = stirred(PANet(LEVELS, 8))
    xs = [x.requires_grad_() for x in maps()]
    panet(tuple(xs))[output].square().sum().backward()
    assert [bool(x.grad.abs().sum() > 0) for x in xs] == [True] * 4


def test_the_far_corner_of_the_finest_map_reaches_the_coarsest():
    """What the path is for: a change of one cell of C2 is seen in N5, eight convolutions away."""
    panet = stirred(PANet(LEVELS, 8))
    xs = maps()
    moved = (xs[0].clone(), *xs[1:])
    moved[0][0, :, -1, -1] += 10
    before, after = panet(xs)[-1], panet(moved)[-1]
    assert not torch.equal(before[..., -1, -1], after[..., -1, -1])
    assert torch.equal(before[..., 0, 0], after[..., 0, 0])


@pytest.mark.parametrize(
    "sizes", [SIZES, [(33, 31), (17, 16), (9, 8), (5, 4)], [(1, 1)] * 4, [(2, 64), (1, 32), (1, 16), (1, 8)]]
)
def test_sizes_are_kept_whether_odd_or_even(sizes):
    assert [tuple(y.shape) for y in PANet(LEVELS, 8)(maps(sizes=sizes))] == [(1, 8, *size) for size in sizes]


def test_a_map_that_is_a_cell_short_is_met_by_cutting():
    """Backbones that round down (VGG's pooling): 75 -> 37, where the convolution of stride 2 gives 38."""
    sizes = [(75, 113), (37, 56), (18, 28), (9, 14)]
    assert [tuple(y.shape[-2:]) for y in PANet(LEVELS, 8)(maps(sizes=sizes))] == sizes


def test_levels_of_one_stride_stay_on_their_grid():
    body = backbone("test_resnet", output_stride=8).eval()
    assert [level.stride for level in body.levels] == [4, 8, 8, 8]
    panet = stirred(PANet(body.levels, 8))
    with torch.no_grad():
        xs = body(torch.randn(1, 3, 75, 101))
        ys = panet(xs)
    assert [y.shape[-2:] for y in ys] == [x.shape[-2:] for x in xs] == [(19, 26), *[(10, 13)] * 3]
    assert panet.levels == tuple(Level(8, stride) for stride in (4, 8, 8, 8))
    assert [merge.shrink.conv.stride for merge in panet.bottom_up] == [(2, 2), (1, 1), (1, 1)]


@pytest.mark.parametrize("options", [{}, {"act": False}, {"norm": "batch"}, {"norm": "group"}, {"smooth": False}])
def test_no_parameter_is_dead(options):
    panet = stirred(PANet(LEVELS, 32, **options)).train()
    sum(y.square().mean() for y in panet(maps(seed=1))).backward()
    assert [name for name, p in panet.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_smoothing_may_be_left_out():
    assert [name for name, _ in PANet(LEVELS, 8, smooth=False).fpn.named_children()] == ["lateral", "top_down"]


@pytest.mark.parametrize(
    "levels",
    [
        [Level(8, 4), Level(16, 8)],
        [Level(8, 4), Level(8, 16)],
        [Level(8, 8), Level(8, 4)],
        [Level(8, 4), Level(8, 6)],
        [Level(8, 4), Level(8, 9)],
    ],
)
def test_levels_that_it_cannot_join_are_refused(levels):
    with pytest.raises(ConfigError, match="levels of one width, strides doubling from each to the next") as caught:
        BottomUp(levels)
    assert "\n" not in str(caught.value)
    assert str([tuple(level) for level in levels]) in str(caught.value)
