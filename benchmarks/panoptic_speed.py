"""Panoptic FPN beside torchvision's Mask R-CNN, whose weights its region branch has: prediction, memory.

    python benchmarks/panoptic_speed.py predict [--bf16] [--norm group] [--profile]
    python benchmarks/panoptic_speed.py memory

ResNet-50, one image of 800 x 1088 (--size), 90 things and 53 stuff classes, 100 detections, from the image to merged
segments; torchvision ends at whole masks. Ours begins from the converted Mask R-CNN (`create_task(weights=)`), its
semantic branch is random. Before anything is timed, both must give the same instances. How both are timed and their
memory is measured: see detectors_speed.py. Goals are ratios to torchvision's eager fp32.
"""

import argparse
import tempfile
from pathlib import Path

import torch
import torchvision
from detectors_speed import check_equal, memory, pair, predictions, profiled, show, take_turns

import torchfpn

NAME, STUFF = "maskrcnn_resnet50_fpn", 53
GOALS = {"torchfpn": 0.80, "torchfpn bf16": 0.45}
MEMORY = 1.0


def panoptic_pair(size, norm):
    """Torchvision's Mask R-CNN, and a panoptic task with its weights that shows images as it does."""
    theirs, instance = pair(NAME, size)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "instance.safetensors")
        instance.save(path)
        ours = torchfpn.create_task(
            "panoptic",
            weights=path,
            things=instance.classes,
            stuff=STUFF,
            norm=norm,
            scaling=instance.recipe.scaling,
            rules={"resize": instance.recipe.rules["resize"]},
        )
    return theirs, ours.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["predict", "memory"])
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1088], help="height and width of the image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--norm", choices=["batch", "group"], default="batch", help="of the semantic branch")
    parser.add_argument("--bf16", action="store_true", help="ours in bfloat16 as well (needs a CPU that has it)")
    parser.add_argument("--profile", action="store_true", help="where the time goes, one run of each")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    size = (args.size[0], args.size[1])
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {args.threads} threads; {args.norm} norm")
    theirs, ours = panoptic_pair(size, args.norm)
    if args.what == "memory":
        memory(theirs, ours, size, args.rounds, MEMORY)
        return
    check_equal(theirs, ours, size)
    ways = predictions(theirs, ours, size)
    print(f"  {ways['torchfpn']()[0]}")
    if not args.bf16:
        del ways["torchfpn bf16"]
    show(take_turns(ways, args.rounds), GOALS)
    if args.profile:
        profiled(ways)


if __name__ == "__main__":
    main()
