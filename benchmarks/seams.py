"""How much windows differ from the whole image: the share of labels, by margin and size of the window.

    python benchmarks/seams.py MODEL IMAGE [--windows 256 512] [--margins 0 32 64 128 exact]

MODEL is a model.safetensors, IMAGE a raster small enough to be predicted whole. Prints the share of differing labels,
and the largest difference of a probability.
"""

import argparse
from pathlib import Path

import torch

import torchfpn
from torchfpn.geo.window import plan_blocks, rounded_up
from torchfpn.inference.semantic import PredictOptions, as_input, predict_batch
from torchfpn.inference.windows import exact_margin
from torchfpn.sources.raster import ReadOptions


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("image", type=Path)
    parser.add_argument("--windows", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--margins", nargs="+", default=["0", "32", "64", "128", "exact"])
    args = parser.parse_args()
    task = torchfpn.load(args.model)
    image = as_input(
        task, ReadOptions(max_pixels=2**26).whole(args.image), PredictOptions(accept_dtype=True), file=args.image
    )
    whole = predict_batch(task, image[None], "fp32", probabilities="float32")[0]
    print(f"{args.image.name}, {image.shape[-1]} x {image.shape[-2]}, reach {exact_margin(task)} pixels")
    print("window  margin  differing labels  largest difference of a probability")
    for window in args.windows:
        for margin in args.margins:
            share, most = compared(task, image, whole, window, exact_margin(task) if margin == "exact" else int(margin))
            print(f"{window:>6}  {margin:>6}  {100 * share:>15.4f}%  {most:.2e}", flush=True)


def compared(task, image, whole, window, margin):
    """(share of labels that differ, largest difference of a probability)."""
    multiple = task.model.multiple
    height, width = image.shape[-2:]
    differing, most = 0, 0.0
    for block in plan_blocks(height, width, side=window, margin=rounded_up(margin, multiple), multiple=multiple):
        row, column, rows, columns = block.window
        part = image[None, :, row : row + rows, column : column + columns]
        found = predict_batch(task, part, "fp32", probabilities="float32")[0]
        top, left, tall, wide = block.block
        place = slice(top, top + tall), slice(left, left + wide)
        differing += int((found.labels[block.inside] != whole.labels[place]).sum())
        apart = (
            torch.from_numpy(found.probabilities[:, *block.inside] - whole.probabilities[:, *place]).abs().nan_to_num()
        )
        most = max(most, float(apart.max()))
    return differing / (height * width), most


if __name__ == "__main__":
    main()
