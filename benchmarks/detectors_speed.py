"""Faster and Mask R-CNN beside torchvision's with the same weights: prediction, a training step, memory, run lengths.

    python benchmarks/detectors_speed.py predict [--name fasterrcnn_resnet50_fpn] [--bf16] [--profile]
    python benchmarks/detectors_speed.py train   [--batch 1]
    python benchmarks/detectors_speed.py memory

ResNet-50, one image of 800 x 1088 (--size), 90 classes, 100 detections. torchvision's model has random weights, the
last layers scaled until many boxes are found; ours is `torchfpn.convert` of it. Before anything is timed, both must
give the same detections. Both run in one process, in turns that change direction every round, after a warm-up; a ratio
is the median of the ratios of the rounds. Processor time tells the same on a machine that is busy with other things
(set OMP_WAIT_POLICY=PASSIVE). Ours predicts to run lengths, torchvision to whole masks, which is as far as it goes.
memory: the peak of a fresh process above what it held before its first prediction, ours over theirs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
import torchvision
import torchvision.models.detection as peers

import torchfpn
from torchfpn.ops.masks import crop_images
from torchfpn.ops.rle import to_rle
from torchfpn.types import Batch, Objects

CLASSES = 90
NAMES = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn_v2")
GOALS = {"predict": 0.80, "bf16": 0.47, "train": 0.70, "memory": 0.55}


def image(size):
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def detector(name, sample):
    """A detector of torchvision's that finds 100 objects in `sample`, which it does not resize."""
    torch.manual_seed(0)
    model = getattr(peers, name)(weights=None, weights_backbone=None, num_classes=CLASSES + 1).eval()
    model.transform.min_size, model.transform.max_size = (min(sample.shape[1:]),), max(sample.shape[1:])
    for module in model.modules():
        if hasattr(module, "running_var"):
            module.running_var.uniform_(1.0, 3.0)
            module.running_mean.normal_(std=0.1)
    predictor, dense = model.roi_heads.box_predictor, model.rpn.head
    images, _ = model.transform([sample])
    maps = model.backbone(images.tensors)
    said = [dense.conv(x) for x in maps.values()]
    size = torch.cat([x.flatten() for x in said]).square().mean().sqrt() * said[0].shape[1] ** 0.5
    dense.cls_logits.weight.normal_(std=float(1.0 / size))
    dense.bbox_pred.weight.normal_(std=float(0.3 / size))
    proposals, _ = model.rpn(images, maps)
    rows = model.roi_heads.box_head(model.roi_heads.box_roi_pool(maps, proposals, images.image_sizes))
    size = rows.square().mean().sqrt() * rows.shape[1] ** 0.5
    predictor.cls_score.weight.normal_(std=float(1.5 / size))
    predictor.bbox_pred.weight.normal_(std=float(1.5 / size))
    return model


def pair(name, size):
    """A model of torchvision's, and ours with its weights."""
    theirs = detector(name, image(size))
    ours = torchfpn.convert(theirs.state_dict())
    ours.recipe.rules["resize"] = {"shorter": min(size), "longer": max(size)}
    return theirs, ours


def predictions(theirs, ours, size):
    """{name: function}: the image to boxes, scores, labels and masks."""
    sample = image(size)

    @torch.inference_mode()
    def peer():
        return theirs([sample])[0]

    def own():
        (found,) = ours.predict([sample])
        crops = getattr(found, "crops", None)  # panoptic segments are the end of their way
        return found, None if crops is None else to_rle(crops)

    def half():
        with torch.autocast("cpu", torch.bfloat16):
            return own()

    return {"torchvision": peer, "torchfpn": own, "torchfpn bf16": half}


def check_equal(theirs, ours, size):
    """Stops unless both find the same objects."""
    ways = predictions(theirs, ours, size)
    other, (one, _) = ways["torchvision"](), ways["torchfpn"]()
    one = getattr(one, "instances", one)  # of a panoptic result
    torch.testing.assert_close(one.boxes, other["boxes"], atol=1e-2, rtol=0)
    torch.testing.assert_close(one.scores, other["scores"], atol=1e-4, rtol=0)
    assert torch.equal(one.labels, other["labels"] - 1), "other labels"
    boxes, scores = ((a - b).abs().max() for a, b in ((one.boxes, other["boxes"]), (one.scores, other["scores"])))
    said = f"{len(one)} detections each; boxes differ by {boxes:.1e} pixels, scores by {scores:.1e}"
    if "masks" in other:
        wrong = (one.masks != (other["masks"][:, 0] > 0.5)).sum() / (other["masks"] > 0.5).sum()
        assert wrong < 1e-3, f"{wrong:.1e} of the pixels of the masks"
        said += f", {wrong:.1e} of the pixels of the masks"
    print(said)


def steps(theirs, ours, size, batch):
    """{name: function}: forward, losses, backward and SGD on the same images and objects; 512 and 256 boxes sampled."""
    generator = torch.Generator().manual_seed(2)
    low = torch.rand(10, 2, generator=generator) * (torch.tensor(size[::-1]) * 0.6)
    boxes = torch.cat([low, low + 20 + (0.4 * min(size) - 20) * torch.rand(10, 2, generator=generator)], 1)
    labels = torch.randint(0, CLASSES, (10,), generator=generator)
    masks = torch.zeros(10, *size, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[(y1 + y2) // 2 : y2, x1:x2] = mask[y1:y2, x1 : (x1 + x2) // 2] = True
    images = [image(size) for _ in range(batch)]
    target = {"boxes": boxes, "labels": labels + 1, "masks": masks.to(torch.uint8)}
    objects = Objects(boxes, labels, crop_images(masks))
    sizes = [size] * batch
    theirs.train(), ours.train()
    sgd = {
        "theirs": torch.optim.SGD(theirs.parameters(), 1e-4, 0.9),
        "ours": torch.optim.SGD(ours.parameters(), 1e-4, 0.9),
    }

    def peer():
        sgd["theirs"].zero_grad()
        sum(theirs(images, [dict(target) for _ in images]).values()).backward()
        sgd["theirs"].step()

    def own():
        sgd["ours"].zero_grad()
        stacked = torch.stack(images).contiguous(memory_format=torch.channels_last)  # as `fpn train` gives it
        sum(ours.losses(Batch(stacked, sizes, [objects] * batch)).values()).backward()
        sgd["ours"].step()

    ours.model.to(memory_format=torch.channels_last)
    return {"torchvision": peer, "torchfpn": own}


def take_turns(ways, rounds):
    """(Seconds, seconds of the processor) of each way in each round but the first."""
    times = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            start, worked = time.perf_counter(), time.process_time()
            ways[name]()
            if turn:
                times[name].append((time.perf_counter() - start, time.process_time() - worked))
    return times


def show(times, goals):
    """Of time and of work, ours over theirs."""
    base = times["torchvision"]
    for name, taken in times.items():
        ratio, work = (median(a[k] / b[k] for a, b in zip(taken, base, strict=True)) for k in (0, 1))
        goal = f"  goal {goals[name]:.2f}: {'met' if ratio <= goals[name] else 'MISSED'}" if name in goals else ""
        middle, best = median(a for a, _ in taken), min(a for a, _ in taken)
        row = f"median {middle:7.3f} s, best {best:7.3f} s, ratio {ratio:.3f}, of processor time {work:.3f}"
        print(f"  {name:<15} {row}{goal}", flush=True)


def profiled(ways):
    for name, run in ways.items():
        with torch.profiler.profile() as seen:
            run()
        print(name, seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=40))


# -- memory ------------------------------------------------------------------------------------------------------------
def status(field):
    """MiB of this process: VmRSS what it holds, VmHWM the most that it held since `forget_peak` (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")


def alone(which, path, size):
    """In a process of its own: prints what was held before the first prediction, and how much more in it, in MiB."""
    if which == "torchvision":
        given = torch.load(path, weights_only=True)
        has_masks = any("mask" in key for key in given)
        name = "maskrcnn_resnet50_fpn" if has_masks else "fasterrcnn_resnet50_fpn"
        model = getattr(peers, name)(weights=None, weights_backbone=None, num_classes=CLASSES + 1).eval()
        model.load_state_dict(given)
        model.transform.min_size, model.transform.max_size = (min(size),), max(size)
        del given
    else:
        model = torchfpn.load(path)
    run = predictions(model, model, size)[which]
    held = status("VmRSS")
    forget_peak()
    run()
    print(json.dumps([held, status("VmHWM") - held]))


def memory(theirs, ours, size, rounds, goal):
    with tempfile.TemporaryDirectory() as folder:
        paths = {"torchvision": Path(folder, "theirs.pth"), "torchfpn": Path(folder, "ours.safetensors")}
        torch.save(theirs.state_dict(), paths["torchvision"])
        ours.save(paths["torchfpn"])
        del theirs, ours
        found = {which: [] for which in paths}
        for _ in range(rounds):
            for which, path in paths.items():
                command = [
                    sys.executable,
                    __file__,
                    "alone",
                    "--which",
                    which,
                    "--path",
                    str(path),
                    "--size",
                    *map(str, size),
                ]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[which].append(json.loads(said.splitlines()[-1]))
    for which, rows in found.items():
        held, above = median(a for a, _ in rows), median(b for _, b in rows)
        print(f"  {which:<15} held {held:6.0f} MiB, above that {above:6.0f} MiB")
    ours, theirs = (median(above for _, above in found[which]) for which in ("torchfpn", "torchvision"))
    ratio = ours / theirs
    print(f"  ratio {ratio:.3f}  goal {goal:.2f}: {'met' if ratio <= goal else 'MISSED'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["predict", "train", "memory", "alone"])
    parser.add_argument("--name", choices=NAMES, default="maskrcnn_resnet50_fpn")
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1088], help="height and width of the image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1, help="train: images in a step")
    parser.add_argument(
        "--bf16", action="store_true", help="predict: ours in bfloat16 as well (needs a CPU that has it)"
    )
    parser.add_argument("--profile", action="store_true", help="where the time goes, one run of each")
    parser.add_argument("--which", help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    size = (args.size[0], args.size[1])
    if args.what == "alone":
        alone(args.which, args.path, size)
        return
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {args.threads} threads; {args.name}")
    theirs, ours = pair(args.name, size)
    if args.what == "memory":
        memory(theirs, ours, size, args.rounds, GOALS["memory"])
        return
    check_equal(theirs, ours, size)
    if args.what == "train":
        ways, goals = steps(theirs, ours, size, args.batch), {"torchfpn": GOALS["train"]}
    else:
        ways, goals = predictions(theirs, ours, size), {"torchfpn": GOALS["predict"], "torchfpn bf16": GOALS["bf16"]}
        if not args.bf16:
            del ways["torchfpn bf16"]
    show(take_turns(ways, args.rounds), goals)
    if args.profile:
        profiled(ways)


if __name__ == "__main__":
    main()
