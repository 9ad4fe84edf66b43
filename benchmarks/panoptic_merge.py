"""Merging 100 instances and 54 semantic classes into panoptic segments, beside a loop over whole masks, in turns.

    python benchmarks/panoptic_merge.py [--rounds 15] [--threads 2] [--objects 100] [--classes 54]

Masks as in masks.py, smooth areas of the semantic classes with a probability for every pixel, 800 x 1088. The loop does
what detectron2 does, on masks [N, H, W]: it gives ids alone, no areas, boxes or scores of stuff. Medians in
milliseconds.
"""

import argparse

import torch
import torch.nn.functional as F
from masks import objects
from turns import compare

from torchfpn.ops.masks import Instances, crop_masks, paste
from torchfpn.ops.panoptic import merge_segments

SIZE = (800, 1088)
THINGS = 80


def scene(number, classes):
    """Instances, and the class and the probability of every pixel."""
    masks, boxes = objects(number, SIZE)
    generator = torch.Generator().manual_seed(1)
    scores, labels = 0.5 + torch.rand(number, generator=generator) / 2, torch.arange(number) % THINGS
    instances = Instances(boxes, scores, labels, SIZE, crop_masks(masks, boxes, SIZE, rule="detectron2"))
    logits = F.interpolate(4 * torch.randn(1, classes, 25, 34, generator=generator), SIZE, mode="bilinear")
    chances, found = logits.softmax(1)[0].max(0)
    return instances, found, chances


def loop(masks, scores, labels, overlap=0.5, stuff_area=4096):
    """Ids [H, W] from whole masks."""
    ids, last = torch.zeros_like(labels, dtype=torch.int32), 0
    for k in scores.argsort(descending=True, stable=True).tolist():
        mask, taken = masks[k], masks[k] & (ids > 0)
        if mask.any() and int(taken.sum()) / int(mask.sum()) <= overlap:
            last += 1
            ids[mask & (ids == 0)] = last
    for label in labels.unique().tolist():
        left = (labels == label) & (ids == 0)
        if label and int(left.sum()) >= stuff_area:
            last += 1
            ids[left] = last
    return ids


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--objects", type=int, default=100)
    parser.add_argument("--classes", type=int, default=54)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    instances, labels, chances = scene(args.objects, args.classes)
    merged, masks = merge_segments(instances, labels, chances, things=THINGS), paste(instances.crops)
    wrong = int((merged.segments != loop(masks, instances.scores, labels)).sum())
    compare(
        f"{args.objects} objects, {args.classes} classes: {len(merged)} segments, {wrong} pixels unlike the loop's",
        args.rounds,
        {
            "loop over whole masks": lambda: loop(masks, instances.scores, labels),
            "merge_segments": lambda: merge_segments(instances, labels, chances, things=THINGS),
        },
    )


if __name__ == "__main__":
    main()
