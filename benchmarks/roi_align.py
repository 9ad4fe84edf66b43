"""RoIAlign of a two-stage detector on the CPU: torchfpn's operator beside torchvision's, in turns in one process.

    python benchmarks/roi_align.py [--rounds 7] [--threads 2]

Maps P2..P5 of an 800 x 1088 image, 256 channels; boxes of mixed sizes (sides of 16 to 800 pixels, evenly in the
logarithm), on the level that Lin et al. 2017 give them. Medians in milliseconds and the ratio to torchvision, whose
operator runs level by level as in its MultiScaleRoIAlign. "contiguous": maps that are not channels_last, which
torchfpn has to transpose first; "flat": with the answer brought into the [R, C * h * w] of a fully connected layer.
"""

import argparse

import torch
import torchvision
from turns import compare

from torchfpn.ops.roi_align import pool_levels

HEIGHT, WIDTH, CHANNELS = 800, 1088, 256
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def boxes(number):
    """[R, 5] and their levels [R]."""
    generator = torch.Generator().manual_seed(0)
    sides = 16 * 50 ** torch.rand(number, 2, generator=generator)
    centres = torch.rand(number, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT])
    low, high = centres - sides / 2, centres + sides / 2
    limits = torch.tensor([WIDTH, HEIGHT])
    low, high = low.clamp(min=0).minimum(limits - 1), high.minimum(limits)
    levels = torch.log2((high - low).prod(1).sqrt() / 224 + 1e-6).floor().long().add(4).clamp(2, 5) - 2
    return torch.cat([torch.zeros(number, 1), low, high], 1), levels


def theirs(maps, rois, levels, size, sampling_ratio, aligned):
    """Level by level, as torchvision.ops.MultiScaleRoIAlign does it."""
    out = maps[0].new_zeros(len(rois), maps[0].shape[1], size, size)
    for i, (x, scale) in enumerate(zip(maps, SCALES, strict=True)):
        mine = torch.where(levels == i)[0]
        out[mine] = torchvision.ops.roi_align(x, rois[mine], size, scale, sampling_ratio, aligned)
    return out


def ours(maps, rois, levels, size, sampling_ratio, aligned):
    return pool_levels(maps, rois, levels, (size, size), SCALES, sampling_ratio, aligned)


def with_gradient(pool, maps, *arguments):
    def run():
        leaves = [x.detach().requires_grad_() for x in maps]
        torch.autograd.grad(pool(leaves, *arguments).sum(), leaves)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    planes = [torch.randn(1, CHANNELS, round(HEIGHT * s), round(WIDTH * s)) for s in SCALES]
    rows = [x.contiguous(memory_format=torch.channels_last) for x in planes]
    halves = [x.bfloat16() for x in rows]
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {torch.get_num_threads()} threads")
    for number, size, ratio, aligned in ((1000, 7, 2, False), (100, 14, 2, False), (1000, 7, 0, True)):
        rest = (*boxes(number), size, ratio, aligned)
        error = (theirs(planes, *rest) - ours(rows, *rest)).abs().max().item()
        title = f"\n{number} boxes, {size} x {size}, sampling {ratio}, aligned {aligned}: difference {error:.1e}"
        compare(
            title,
            args.rounds,
            {
                "torchvision": lambda rest=rest: theirs(planes, *rest),
                "torchfpn": lambda rest=rest: ours(rows, *rest),
                "torchfpn flat": lambda rest=rest: ours(rows, *rest).flatten(1),
                "torchfpn contiguous": lambda rest=rest: ours(planes, *rest),
                "torchfpn bfloat16": lambda rest=rest: ours(halves, *rest),
            },
        )
    rest = (*boxes(512), 7, 2, False)
    compare(
        "\n512 boxes, 7 x 7, sampling 2, aligned False: forward and backward",
        args.rounds,
        {
            "torchvision": with_gradient(theirs, planes, *rest),
            "torchfpn": with_gradient(ours, rows, *rest),
            "torchfpn contiguous": with_gradient(ours, planes, *rest),
        },
    )


if __name__ == "__main__":
    main()
