"""RoIAlign: equal to torchvision's in values and gradients, one node for compilers and exporters."""

import subprocess
import sys

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn import ShapeError
from torchfpn.ops import roi_align_cpu
from torchfpn.ops.roi_align import by_torchvision, by_torchvision_backward, pool_levels, roi_align

SCALES = [1 / 4, 1 / 8, 1 / 16]


def scene(number=12, batch=2, channels=5, size=(64, 96), dtype=torch.float32, seed=0):
    """Maps of three levels, boxes (some outside, some without size) and a level for each."""
    torch.manual_seed(seed)
    maps = [torch.randn(batch, channels, int(size[0] * s), int(size[1] * s), dtype=dtype) for s in SCALES]
    corner = torch.rand(number, 2, dtype=dtype) * 120 - 20
    side = torch.rand(number, 2, dtype=dtype) ** 2 * 90 * (torch.rand(number, 1) > 0.1)
    image = torch.randint(0, batch, (number, 1)).to(dtype)
    return maps, torch.cat([image, corner, corner + side], 1), torch.randint(0, 3, (number,))


def level_by_level(maps, rois, levels, size, sampling_ratio=0, aligned=True):
    out = maps[0].new_zeros(len(rois), maps[0].shape[1], *size)
    for i, (x, scale) in enumerate(zip(maps, SCALES, strict=True)):
        mine = torch.where(levels == i)[0]
        out[mine] = torchvision.ops.roi_align(x, rois[mine], size, scale, sampling_ratio, aligned)
    return out


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 23),
    width=st.integers(1, 23),
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    boxes=st.lists(st.tuples(*[st.floats(-60, 300, width=32)] * 2, *[st.floats(0, 250, width=32)] * 2), max_size=6),
    scale=st.sampled_from([1.0, 0.25, 0.1, 1 / 3]),
    sampling_ratio=st.integers(0, 3),
    aligned=st.booleans(),
    layout=st.sampled_from(["planes", "channels_last", "strided"]),
)
def test_values_and_gradients_are_those_of_torchvision(
    batch, height, width, size, boxes, scale, sampling_ratio, aligned, layout
):
    torch.manual_seed(0)
    x = torch.randn(batch, 3, height, width)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        x = torch.randn(batch, 6, width, height * 2).transpose(2, 3)[:, ::2, ::2]
    x.requires_grad_()
    boxes = torch.tensor([(i % batch, a, b, a + c, b + d) for i, (a, b, c, d) in enumerate(boxes)]).reshape(-1, 5)
    theirs = torchvision.ops.roi_align(x, boxes, size, scale, sampling_ratio, aligned)
    ours = roi_align(x, boxes, size, scale, sampling_ratio, aligned)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-5)
    grad = torch.randn(theirs.shape)
    expected = torch.autograd.grad(theirs, x, grad)
    torch.testing.assert_close(torch.autograd.grad(ours, x, grad), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("sampling_ratio", "aligned"), [(2, False), (0, True)])
def test_levels_are_a_loop_over_levels(sampling_ratio, aligned):
    maps, rois, levels = scene(40)
    for x in maps:
        x.requires_grad_()
    theirs = level_by_level(maps, rois, levels, (7, 5), sampling_ratio, aligned)
    ours = pool_levels(maps, rois, levels, (7, 5), SCALES, sampling_ratio, aligned)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    grad = torch.randn(theirs.shape)
    expected, found = torch.autograd.grad(theirs, maps, grad), torch.autograd.grad(ours, maps, grad)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_other_devices_get_the_same_from_torchvision():
    maps, rois, levels = scene(20)
    levels[:3] = -1
    rest = (rois, levels, SCALES)
    values = by_torchvision(maps, *rest, (7, 7), 2, False)
    ours = pool_levels(maps, rois, levels, (7, 7), SCALES, 2, False)
    torch.testing.assert_close(ours, values, rtol=1e-5, atol=1e-5)
    grad, sizes = torch.randn(values.shape), [tuple(x.shape[-2:]) for x in maps]
    torch.testing.assert_close(
        roi_align_cpu.backward(grad, *rest, sizes, 2, 2, False),
        by_torchvision_backward(grad, *rest, sizes, 2, 2, False),
        rtol=1e-5,
        atol=2e-5,
    )


def test_so_many_boxes_that_they_are_pooled_in_several_rounds():
    """More taps than are made at a time, forward and backward, on a map of more cells than are summed at a time."""
    torch.manual_seed(0)
    x, rois = torch.randn(1, 64, 150, 150, requires_grad=True), torch.rand(300, 5) * 300
    rois[:, 0] = 0
    rois[:, 3:] = rois[:, 1:3] + 250 + rois[:, 3:] / 10
    theirs = torchvision.ops.roi_align(x, rois, (7, 7), 0.25, 0, True)
    ours = roi_align(x, rois, (7, 7), 0.25, 0, True)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    (expected,) = torch.autograd.grad(theirs, x, torch.ones_like(theirs))
    (found,) = torch.autograd.grad(ours, x, torch.ones_like(ours))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_gradient_in_double_precision():
    maps, rois, levels = scene(4, batch=1, channels=2, size=(24, 16), dtype=torch.float64)
    for sampling_ratio, aligned in ((0, True), (2, False)):
        torch.autograd.gradcheck(
            lambda *xs, rest=(sampling_ratio, aligned): pool_levels(xs, rois, levels, (2, 3), SCALES, *rest),
            [x.requires_grad_() for x in maps],
        )


def test_the_gradient_is_the_same_every_time():
    x = torch.randn(1, 8, 30, 30, requires_grad=True)
    rois = torch.tensor([[0, 1.0, 2.0, 90.0, 80.0]]).repeat(50, 1)
    grad = torch.randn(50, 8, 7, 7)
    made = [torch.autograd.grad(roi_align(x, rois, (7, 7), 0.25), x, grad)[0] for _ in range(3)]
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_coarse_maps_are_summed_finely(dtype):
    maps, rois, levels = scene(60, channels=16)
    coarse = [x.to(dtype) for x in maps]
    expected = level_by_level([x.float() for x in coarse], rois, levels, (7, 7)).to(dtype)
    found = pool_levels(coarse, rois, levels, (7, 7), SCALES)
    assert found.dtype == dtype
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=step, atol=step / 100)  # the last bit, where rounding is close
    assert (found == expected).float().mean() > 0.98
    leaf = coarse[0].clone().requires_grad_()
    pool_levels([leaf, *coarse[1:]], rois, levels, (7, 7), SCALES).float().sum().backward()
    assert leaf.grad.dtype == dtype
    assert leaf.grad.any()


def test_under_autocast_the_maps_keep_their_type():
    maps, rois, levels = scene()
    conv = torch.nn.Conv2d(5, 4, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = pool_levels([conv(x) for x in maps], rois, levels, (3, 3), SCALES)
    assert found.dtype == torch.bfloat16
    found.float().sum().backward()
    assert conv.weight.grad.any()


def test_no_boxes():
    maps, rois, levels = scene(0)
    maps[0].requires_grad_()
    found = pool_levels(maps, rois, levels, (7, 7), SCALES)
    assert found.shape == (0, 5, 7, 7)
    found.sum().backward()
    assert not maps[0].grad.any()


def test_boxes_that_only_fill_up_are_zero_and_have_no_gradient():
    maps, rois, levels = scene(6)
    leaf = maps[0].requires_grad_()
    levels[:] = 0
    levels[2:] = -1
    found = pool_levels(maps, rois, levels, (3, 3), SCALES)
    assert not found[2:].any()
    alone = pool_levels(maps, rois[:2], levels[:2], (3, 3), SCALES)
    assert torch.equal(found[:2], alone)
    assert torch.equal(*(torch.autograd.grad(x.sum(), leaf)[0] for x in (found, alone)))


def test_boxes_far_larger_than_the_map_or_not_finite_do_no_harm():
    x = torch.randn(1, 2, 8, 8)
    rois = torch.tensor(
        [[0, -1e30, -1e30, 1e30, 1e30], [0, 0, 0, torch.nan, 8], [0, -1e6, 0, 1e6, 8], [0, 0, 0, 8, torch.inf]]
    )
    found = roi_align(x, rois, (7, 7), 1.0)
    assert found[[1, 3]].isnan().all()
    assert found[[0, 2]].isfinite().all()
    smaller = torch.tensor([[0, -300.0, -20.0, 400.0, 30.0]])
    theirs = torchvision.ops.roi_align(x, smaller, (7, 7), 1.0, 0, True)
    torch.testing.assert_close(roi_align(x, smaller, (7, 7), 1.0), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rois": torch.zeros(12, 4)}, r"rois \[12, 4\]"),
        ({"levels": torch.zeros(3, dtype=torch.int64)}, r"levels \[3\]"),
        ({"scales": [1.0]}, "3 maps and 1 scales"),
        ({"maps": [torch.zeros(1, 2, 3)] * 3}, "3-d"),
        ({"maps": [torch.zeros(1, c, 3, 3) for c in (1, 2, 2)]}, "same images and channels"),
        ({"size": (0, 7)}, r"size \(0, 7\)"),
        ({"rois": torch.tensor([[2.0, 0, 0, 1, 1]]).repeat(12, 1)}, "image 2 to 2; expected 0 to 1"),
        ({"rois": torch.tensor([[-1.0, 0, 0, 1, 1]]).repeat(12, 1)}, "image -1 to -1; expected 0 to 1"),
        ({"rois": torch.full((12, 5), torch.nan)}, "image nan"),
        ({"levels": torch.full((12,), 3)}, "levels 3 to 3; expected -1 to 2"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    maps, rois, levels = scene()
    given_ = {"maps": maps, "rois": rois, "levels": levels, "size": (7, 7), "scales": SCALES} | change
    with pytest.raises(ShapeError, match=message):
        pool_levels(**given_)


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("number", [0, 5])
def test_the_operator_keeps_its_promises_to_compilers(number):
    maps, rois, levels = scene(number, channels=2, size=(32, 32))
    arguments = ([x.requires_grad_() for x in maps], rois, levels, SCALES, 3, 2, 2, False)
    torch.library.opcheck(torch.ops.torchfpn.roi_align_levels.default, arguments)
    sizes = [n for x in maps for n in x.shape[-2:]]
    grad = torch.randn(number, 2, 3, 2)
    arguments = (grad, rois, levels, SCALES, sizes, 2, 2, False)
    torch.library.opcheck(torch.ops.torchfpn.roi_align_levels_backward.default, arguments)


def test_a_first_call_does_not_import_the_compiler():
    script = """
import sys, torch
from torchfpn.ops.roi_align import roi_align
x = torch.randn(1, 2, 8, 8, requires_grad=True)
roi_align(x, torch.tensor([[0.0, 1, 1, 5, 5]]), (2, 2), 1.0).sum().backward()
print(*{"torch._dynamo", "torch._inductor", "torchvision"} & sys.modules.keys())
"""
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout == "\n"


class Pool(torch.nn.Module):
    def forward(self, fine, middle, coarse, rois, levels):
        return pool_levels([fine, middle, coarse], rois, levels, (7, 7), SCALES, 2).flatten(1) * 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_compiles_as_one_graph():
    maps, rois, levels = scene()
    leaf = maps[0].requires_grad_()
    compiled = torch.compile(Pool(), fullgraph=True, backend="aot_eager", dynamic=True)
    for number in (12, 7):
        rest = (leaf, *maps[1:], rois[:number], levels[:number])
        found, expected = compiled(*rest), Pool()(*rest)
        torch.testing.assert_close(found, expected)
        grads = [torch.autograd.grad(x.square().sum(), leaf)[0] for x in (found, expected)]
        torch.testing.assert_close(*grads)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_exports_for_any_number_of_boxes_and_any_size():
    maps, rois, levels = scene()
    number = torch.export.Dim("number", min=0)
    sides = [{2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}] * 3
    program = torch.export.export(Pool(), (*maps, rois, levels), dynamic_shapes=(*sides, {0: number}, {0: number}))
    for count, size in ((0, (64, 96)), (1, (32, 48)), (33, (208, 80))):
        maps, rois, levels = scene(count, size=size)
        found = program.module()(*maps, rois, levels)
        torch.testing.assert_close(found, Pool()(*maps, rois, levels))
