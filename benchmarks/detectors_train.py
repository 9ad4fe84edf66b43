"""Detectors learnt from real data, torchvision's and ours: what they score on val, and how long training takes.

    python benchmarks/detectors_train.py peer bccd --epochs 8 --seed 0 --threads 2 --out runs/peer
    python benchmarks/detectors_train.py ours bccd --epochs 8 --seed 0 --threads 2 --out runs/ours
    python benchmarks/detectors_train.py peer nuclei ...      # masks as well

Both: MobileNetV2 with ImageNet weights, an FPN of 128 channels on strides 4 to 32, batches of 4, the shorter side 320
pixels (bccd) or 256 (nuclei, where 64 boxes an image are sampled), flips both ways, AdamW at 5e-4, weight decay 0.02,
50 steps of warm-up, then poly 0.9: the settings of configs/bccd.yaml and configs/nuclei.yaml. peer: torchvision's
FasterRCNN and MaskRCNN with their own anchors, sampling and losses, no averaged weights. ours: `fpn train`. The weights
of the last step are scored by faster-coco-eval at the size of the files, both by the code that stands here.
--limit N: a few steps only; says what an epoch would take.
"""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import torch
from faster_coco_eval import COCO, COCOeval_faster
from safetensors.torch import load_file
from torchvision.models import mobilenet_v2
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

import torchfpn
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import ObjectDataset
from torchfpn.ops.masks import crop_images, paste
from torchfpn.ops.rle import to_rle

ROOT = Path(__file__).parents[1]
WEIGHTS = os.environ.get("TORCHFPN_WEIGHTS")  # a .safetensors file of MobileNetV2's weights; both begin with it
SHORTER = {"bccd": 320, "nuclei": 256}
STAGES = {"3": 24, "6": 32, "13": 96, "17": 320}  # of MobileNetV2's features: the last block of each stride, its width
CHANNELS, BATCH, LR, DECAY, WARMUP = 128, 4, 5e-4, 0.02, 50


def peer(which, dataset):
    """A detector of torchvision's on MobileNetV2."""
    features = mobilenet_v2()
    if WEIGHTS is not None:
        features.load_state_dict(load_file(WEIGHTS))
    names = {name: str(i) for i, name in enumerate(STAGES)}
    backbone = BackboneWithFPN(features.features, names, list(STAGES.values()), CHANNELS, LastLevelMaxPool())
    maps = list(names.values())
    options = {
        "min_size": SHORTER[which],
        "rpn_anchor_generator": AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5),
        "box_roi_pool": MultiScaleRoIAlign(maps, 7, 2),
    }
    number = len(dataset.classes) + 1
    if dataset.task == "detection":
        return FasterRCNN(backbone, number, **options)
    pool = MultiScaleRoIAlign(maps, 14, 2)
    return MaskRCNN(backbone, number, mask_roi_pool=pool, box_batch_size_per_image=64, **options)


def example(sample, generator):
    """A sample as torchvision takes it, 0..1, flipped at random."""
    image, boxes = sample.image.nan_to_num(0) / 255, sample.objects.boxes.clone()
    masks = None if sample.objects.masks is None else paste(sample.objects.masks)
    height, width = sample.size
    for axis, extent in ((-1, width), (-2, height)):
        if generator.random() < 0.5:
            image, masks = image.flip(axis), None if masks is None else masks.flip(axis)
            near, far = (0, 2) if axis == -1 else (1, 3)
            boxes[:, [near, far]] = extent - boxes[:, [far, near]]
    target = {"boxes": boxes, "labels": sample.objects.labels + 1}
    return image, target if masks is None else {**target, "masks": masks.to(torch.uint8)}


def train(model, samples, epochs, seed, limit):
    """Seconds of training; prints the losses of every epoch."""
    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=DECAY)
    steps = len(samples) // BATCH
    total = epochs * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(1, (t + 1) / WARMUP) * (1 - t / total) ** 0.9)
    model.train()
    start, worked, done = time.perf_counter(), time.process_time(), 0
    for epoch in range(epochs):
        generator, mean = random.Random(f"{seed} {epoch}"), 0.0
        order = generator.sample(range(len(samples)), len(samples))
        for i in range(steps):
            pairs = [example(samples[k], generator) for k in order[i * BATCH : (i + 1) * BATCH]]
            loss = sum(model([image for image, _ in pairs], [target for _, target in pairs]).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            mean, done = mean + loss.item() / steps, done + 1
            if done == limit:
                spent, work = time.perf_counter() - start, time.process_time() - worked
                ahead = f"{spent / done * steps:.0f} s, {work / done * steps:.0f} s of them on a processor"
                print(f"{done} steps in {spent:.1f} s; an epoch of {steps} would take {ahead}")
                return spent
        print(f"epoch {epoch + 1}: loss {mean:.3f}, {time.perf_counter() - start:.0f} s", flush=True)
    return time.perf_counter() - start


@torch.inference_mode()
def peer_results(model, image):
    """Boxes, scores, 0-based labels, run lengths."""
    (found,) = model.eval()([image / 255])
    masks = to_rle(crop_images(found["masks"][:, 0] > 0.5)) if "masks" in found else None
    return found["boxes"], found["scores"], found["labels"] - 1, masks


def our_results(task, image):
    (found,) = task.predict([image])
    return found.boxes, found.scores, found.labels, None if found.crops is None else to_rle(found.crops)


def score(samples, results, limit):
    """{"AP": ..., "AP50": ..., "mask AP": ...} of the split."""
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(samples.annotations.file))
        ids = sorted(truth.getCatIds())  # classes of a dataset are in the order of the file's ids
        rows = []
        for number, image in enumerate(samples.annotations.ids[: limit or None].tolist()):
            boxes, scores, labels, masks = results(samples[number].image.nan_to_num(0))
            corners = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
            for i, (box, chance, label) in enumerate(
                zip(corners.tolist(), scores.tolist(), labels.tolist(), strict=True)
            ):
                row = {"image_id": image, "category_id": ids[label], "bbox": box, "score": chance}
                rows.append(row if masks is None else {**row, "segmentation": masks[i]})
        found = {}
        for kind, name in (("bbox", ""), ("segm", "mask ")):
            if rows and (kind == "bbox" or "segmentation" in rows[0]):
                judged = COCOeval_faster(truth, truth.loadRes([dict(row) for row in rows]), kind)
                judged.evaluate(), judged.accumulate(), judged.summarize()
                found |= {f"{name}AP": judged.stats[0], f"{name}AP50": judged.stats[1]}
    return {name: round(float(value), 4) for name, value in found.items()}


def trained_by_us(which, args):
    """Our task after `fpn train`, and the seconds that the command took."""
    name = f"{which}-{args.seed}"
    command = [sys.executable, "-m", "torchfpn.cli.main", "train", "--config", str(ROOT / "configs" / f"{which}.yaml")]
    flags = {
        "max_epochs": args.epochs,
        "val_every": args.epochs,
        "seed": args.seed,
        "out": args.out,
        "name": name,
        "overwrite": True,
        "model.pretrained": WEIGHTS or "false",
    }
    if args.limit:
        flags |= {"max_epochs": 1, "val_every": 1, "steps_per_epoch": args.limit, "limit_val_batches": 1}
    start = time.perf_counter()
    subprocess.run([*command, *(f"--{key}={value}" for key, value in flags.items())], check=True)
    return torchfpn.load(args.out / name / "model.safetensors"), time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("who", choices=["peer", "ours"])
    parser.add_argument("which", choices=SHORTER)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of the peer; for ours set OMP_NUM_THREADS")
    parser.add_argument("--out", type=Path, default=Path("runs/detectors"))
    parser.add_argument("--limit", type=int, default=0, help="so many steps, and so many images of val")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    dataset = read_dataset(ROOT / "configs" / "datasets" / f"{args.which}.yaml")
    val = ObjectDataset(dataset, "val")
    if args.who == "peer":
        model = peer(args.which, dataset)
        spent = train(model, ObjectDataset(dataset, "train"), args.epochs, args.seed, args.limit)
        found = score(val, lambda image: peer_results(model, image), args.limit)
    else:
        task, spent = trained_by_us(args.which, args)
        found = score(val, lambda image: our_results(task, image), args.limit)
    record = {
        "who": args.who,
        "data": args.which,
        "epochs": args.epochs,
        "seed": args.seed,
        "seconds": round(spent),
        **found,
    }
    print(json.dumps(record))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{args.who}-{args.which}-{args.seed}.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
