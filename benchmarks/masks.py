"""Masks of 100 objects from a head's output to COCO's run lengths: crops beside torchvision's paste, in turns.

    python benchmarks/masks.py [--rounds 7] [--threads 2] [--objects 100]

Boxes of 16 to 400 pixels, evenly in the logarithm, in images of 800 x 1088 and 2000 x 2000; smooth grids of 28 x 28.
By torchvision's rule, to compare with it, and by pixel centres, as our own models and detectron2's have it.
Medians in milliseconds and the ratio to torchvision's `paste_masks_in_image` with the threshold after it, which gives
whole images and no run lengths yet.
"""

import argparse

import torch
import torch.nn.functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image
from turns import compare

from torchfpn.ops.masks import crop_masks, paste
from torchfpn.ops.rle import from_rle, to_rle


def objects(number, size):
    """Probabilities [N, 1, 28, 28] and boxes [N, 4]."""
    generator = torch.Generator().manual_seed(0)
    limits = torch.tensor([size[1], size[0]])
    sides = 16 * 25 ** torch.rand(number, 2, generator=generator)
    low = torch.rand(number, 2, generator=generator) * (limits - sides)
    noise = torch.randn(number, 1, 5, 5, generator=generator)
    masks = F.interpolate(4 * noise + 1, (28, 28), mode="bicubic").sigmoid()
    return masks, torch.cat([low, low + sides], 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--objects", type=int, default=100)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    for size in ((800, 1088), (2000, 2000)):
        masks, boxes = objects(args.objects, size)
        crops = crop_masks(masks, boxes, size)
        records = to_rle(crops)
        wrong = int((paste(crops) != (paste_masks_in_image(masks, boxes, size)[:, 0] > 0.5)).sum())
        title = f"\n{args.objects} objects in {size[0]} x {size[1]}: {len(crops.pixels) / 1e6:.1f} MB of crops, "
        compare(
            title + f"{wrong} pixels unlike torchvision's",
            args.rounds,
            {
                "torchvision paste > 0.5": lambda a=(masks, boxes, size): paste_masks_in_image(*a) > 0.5,
                "crops and run lengths": lambda a=(masks, boxes, size): to_rle(crop_masks(*a)),
                "  crops": lambda a=(masks, boxes, size): crop_masks(*a),
                "  run lengths": lambda a=crops: to_rle(a),
                "  back from run lengths": lambda a=records: from_rle(a),
                "the same by pixel centres": lambda a=(masks, boxes, size): to_rle(crop_masks(*a, rule="detectron2")),
                "  crops by pixel centres": lambda a=(masks, boxes, size): crop_masks(*a, rule="detectron2"),
                "crops pasted": lambda a=(masks, boxes, size): paste(crop_masks(*a)),
            },
        )


if __name__ == "__main__":
    main()
