"""RoIAlign as one operator, `torchfpn::roi_align_levels`, with its gradient: features of boxes resampled to one size.

He et al. 2017, Mask R-CNN, section 3: a box is divided into h x w bins, every bin is the mean of sampling_ratio^2
bilinear samples, no coordinate is rounded. The operator takes the maps of all levels and the level of each box, so the
number of boxes on a level is never a shape: it exports and compiles as one node. On a CPU it uses `roi_align_cpu.py`,
elsewhere torchvision. Oracle: `torchvision.ops.roi_align`.

Shapes: B images, C channels, L levels, R boxes (RoIs), h x w bins. The output is channels last on a CPU.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from torchfpn.errors import ShapeError
from torchfpn.ops import roi_align_cpu
from torchfpn.ops.boxes import operator
from torchfpn.types import Size


def roi_align(
    features: Tensor, rois: Tensor, size: Size, scale: float, sampling_ratio: int = 0, aligned: bool = True
) -> Tensor:
    """Boxes of one map [B, C, H, W] -> [R, C, h, w]: `pool_levels` with a single level.

    The arguments are those of `pool_levels`; `scale` is cells per pixel, 1 / stride.

    Raises:
        ShapeError: as `pool_levels`.
    """
    levels = torch.zeros_like(rois[:, 0], dtype=torch.int64)
    return pool_levels([features], rois, levels, size, [scale], sampling_ratio, aligned)


def pool_levels(
    maps: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    size: Size,
    scales: Sequence[float],
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Tensor:
    """Boxes of several maps -> [R, C, h, w] in the order of the boxes and the dtype of the maps.

    On a CPU, channels_last maps are read as they are and others are transposed first: make them channels_last once if
    they are pooled twice. bfloat16 and float16 maps are summed in float32. The gradient reaches the maps only.

    Args:
        maps: L tensors [B, C, H_i, W_i], all of one floating dtype.
        rois: [R, 5] float: index of the image, x1, y1, x2, y2 in pixels of the image; may reach outside of it.
        levels: [R] integers: which of `maps` a box reads; -1 for none (rows that only fill up), which gives zeros.
        size: (h, w), the bins.
        scales: cells per pixel of each map, 1 / stride.
        sampling_ratio: samples along each side of a bin; 0: as many as the bin has cells, rounded up.
        aligned: True: cell i covers [i, i + 1] (detectron2's ROIAlignV2); False: half a cell to the right and below,
            and no box smaller than a cell (torchvision's detection models).

    Raises:
        ShapeError: tensors that do not fit together, or (CPU) an image or a level that there is not.
    """
    _check(maps, rois, levels, scales)
    if min(size) < 1:
        raise ShapeError(f"size {tuple(size)}", allowed="at least 1 x 1 bins")
    pooled: Tensor = torch.ops.torchfpn.roi_align_levels(
        list(maps), rois, levels, list(scales), size[0], size[1], sampling_ratio, aligned
    )
    return pooled


def _check(maps: Sequence[Tensor], rois: Tensor, levels: Tensor, scales: Sequence[float]) -> None:
    if not maps or len(maps) != len(scales):
        raise ShapeError(f"{len(maps)} maps and {len(scales)} scales", allowed="one scale for each map, at least one")
    if any(x.dim() != 4 or x.dtype != maps[0].dtype or not x.is_floating_point() for x in maps):
        found = ", ".join(f"{x.dim()}-d {x.dtype}" for x in maps)
        raise ShapeError(f"maps: {found}", allowed="[B, C, H, W] of one floating dtype")
    if any(x.shape[:2] != maps[0].shape[:2] for x in maps):
        raise ShapeError(f"maps {[list(x.shape) for x in maps]}", allowed="the same images and channels on every level")
    if rois.dim() != 2 or rois.shape[1] != 5 or not rois.is_floating_point():
        raise ShapeError(f"rois {list(rois.shape)} {rois.dtype}", allowed="[R, 5] float: image, x1, y1, x2, y2")
    if levels.dim() != 1 or levels.shape[0] != rois.shape[0] or levels.is_floating_point():
        raise ShapeError(f"levels {list(levels.shape)} {levels.dtype}", allowed="[R] integers, one for each of rois")


# -- the operator ------------------------------------------------------------------------------------------------------
def _forward(
    maps: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    h: int,
    w: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    if maps[0].device.type == "cpu":
        return roi_align_cpu.forward(maps, rois, levels, scales, (h, w), sampling_ratio, aligned)
    return by_torchvision(maps, rois, levels, scales, (h, w), sampling_ratio, aligned)


def _backward(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    sizes: Sequence[int],
    images: int,
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    if grad.device.type == "cpu":
        return roi_align_cpu.backward(grad, rois, levels, scales, _pairs(sizes), images, sampling_ratio, aligned)
    return by_torchvision_backward(grad, rois, levels, scales, _pairs(sizes), images, sampling_ratio, aligned)


def _forward_shape(
    maps: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    h: int,
    w: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return _made(maps[0], rois.shape[0], maps[0].shape[1], (h, w))


def _backward_shape(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    sizes: Sequence[int],
    images: int,
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    return [_made(grad, images, grad.shape[1], size) for size in _pairs(sizes)]


def _made(like: Tensor, number: int, channels: int, size: Size) -> Tensor:
    """An empty [number, channels, h, w] in the layout of the device: rows of channels on a CPU, planes elsewhere."""
    if like.device.type == "cpu":
        return like.new_empty(number, *size, channels).permute(0, 3, 1, 2)
    return like.new_empty(number, channels, *size)


def _pairs(sizes: Sequence[int]) -> list[Size]:
    return list(zip(sizes[::2], sizes[1::2], strict=True))  # a schema has no lists of pairs


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:  # type: ignore[type-arg]
    maps, rois, levels, scales, _, _, sampling_ratio, aligned = inputs
    ctx.save_for_backward(rois, levels)
    ctx.rest = (scales, [n for x in maps for n in x.shape[-2:]], maps[0].shape[0], sampling_ratio, aligned)  # type: ignore[attr-defined]


def _differentiate(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple:  # type: ignore[type-arg]
    rois, levels = ctx.saved_tensors  # type: ignore[attr-defined]
    grads = torch.ops.torchfpn.roi_align_levels_backward(grad, rois, levels, *ctx.rest)  # type: ignore[attr-defined]
    return grads, *(None,) * 7


operator(
    "roi_align_levels",
    "(Tensor[] maps, Tensor rois, Tensor levels, float[] scales, SymInt h, SymInt w, int sampling_ratio, bool aligned)"
    " -> Tensor",
    _forward,
    _forward_shape,
    gradient=_differentiate,
    keep=_keep,
)

operator(
    "roi_align_levels_backward",
    "(Tensor grad, Tensor rois, Tensor levels, float[] scales, SymInt[] sizes, SymInt images, int sampling_ratio,"
    " bool aligned) -> Tensor[]",
    _backward,
    _backward_shape,
)


# -- other devices -----------------------------------------------------------------------------------------------------
def by_torchvision(
    maps: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    size: Size,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """What the operator gives, by torchvision's kernel on the boxes of each level in turn; float32 inside."""
    import torchvision  # noqa: F401  # registers torch.ops.torchvision

    dtype = _wide(maps[0].dtype)
    out = maps[0].new_zeros(rois.shape[0], maps[0].shape[1], *size)
    for i, (x, scale) in enumerate(zip(maps, scales, strict=True)):
        mine = (levels == i).nonzero()[:, 0]
        values = torch.ops.torchvision.roi_align(
            x.to(dtype), rois[mine].to(dtype), scale, *size, sampling_ratio, aligned
        )
        out.index_copy_(0, mine, values.to(out.dtype))
    return out


def by_torchvision_backward(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    sizes: Sequence[Size],
    images: int,
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    """The gradient of `by_torchvision` for each map [images, C, H_i, W_i]."""
    import torchvision  # noqa: F401

    dtype, out = _wide(grad.dtype), []
    for i, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
        mine = (levels == i).nonzero()[:, 0]
        pooled = grad[mine].to(dtype).contiguous()
        shape = (*grad.shape[-2:], images, grad.shape[1], *size)
        made = torch.ops.torchvision._roi_align_backward(
            pooled, rois[mine].to(dtype), scale, *shape, sampling_ratio, aligned
        )
        out.append(made.to(grad.dtype))
    return out


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
