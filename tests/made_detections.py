"""Objects and detections that tests make for themselves: boxes of whole pixels, and masks that fill them."""

import numpy as np
import torch

from torchfpn.ops.masks import Instances, crop_images
from torchfpn.types import Objects

SIZE = (80, 90)
NAMES = ("cell", "dot", "rod")
BOX, OTHER = [10, 10, 30, 30], [50, 50, 70, 70]


def boxes_of(rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def squares(boxes, size=SIZE):
    """Masks that fill their boxes, of whole pixels."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    return crop_images(masks)


def truth(rows, labels=None, *, masks=False, crowds=None, size=SIZE):
    boxes = boxes_of(rows)
    labels = torch.as_tensor([0] * len(boxes) if labels is None else labels, dtype=torch.int64)
    return Objects(boxes, labels, squares(boxes, size) if masks else None, None if crowds is None else boxes_of(crowds))


def found(rows, scores, labels=None, *, masks=False, size=SIZE):
    boxes = boxes_of(rows)
    labels = torch.as_tensor([0] * len(boxes) if labels is None else labels, dtype=torch.int64)
    crops = squares(boxes, size) if masks else None
    return Instances(boxes, torch.as_tensor(scores, dtype=torch.float32).reshape(-1), labels, size, crops)


def random_pair(rng, *, many=8, masks=False):
    """Objects, and detections of which most are near one of them."""

    def some(count):
        low = rng.integers(0, 50, (count, 2))
        return np.concatenate([low, low + rng.integers(1, 30, (count, 2))], 1).astype(float)

    count = int(rng.integers(0, many))
    rows, labels = some(count), rng.integers(0, 3, count)
    moved = rows.copy() + rng.integers(-3, 4, rows.shape)
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    guesses = np.concatenate([moved.clip(0, 80), some(int(rng.integers(0, 4)))])
    guessed = np.concatenate([labels, rng.integers(0, 3, len(guesses) - count)])
    chances = rng.permutation(10_000)[: len(guesses)] / 10_000
    crowds = some(int(rng.integers(0, 2)))
    return (
        found(guesses, chances, guessed, masks=masks),
        truth(rows, labels, masks=masks, crowds=crowds),
        rng.integers(0, 3, len(crowds)),
    )


def coco_files(pairs, *, masks):
    """Pairs as `random_pair` makes them, as two files of COCO: (objects, detections).

    Masks come from whole images by faster-coco-eval's own encoder.
    """
    import faster_coco_eval  # an extra

    def runs(image):
        encoded = faster_coco_eval.mask.encode(np.asfortranarray(image.numpy().astype(np.uint8)))
        return {"size": list(SIZE), "counts": encoded["counts"]}

    truths, results = [], []
    for number, (one, other, crowd_labels) in enumerate(pairs, start=1):
        rows = [(box, label, 0) for box, label in zip(other.boxes.tolist(), other.labels.tolist(), strict=True)]
        rows += [(box, label, 1) for box, label in zip(other.crowds.tolist(), crowd_labels.tolist(), strict=True)]
        sides = [
            (truths, rows),
            (results, zip(one.boxes.tolist(), one.labels.tolist(), one.scores.tolist(), strict=True)),
        ]
        for kept, records in sides:
            for (x1, y1, x2, y2), label, value in records:
                entry = {"image_id": number, "category_id": label + 1, "area": (x2 - x1) * (y2 - y1)}
                if masks:
                    image = torch.zeros(SIZE, dtype=torch.bool)
                    image[int(y1) : int(y2), int(x1) : int(x2)] = True
                    entry["segmentation"] = runs(image)
                entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1]}
                entry |= {"iscrowd": value} if kept is truths else {"score": value, "iscrowd": 0}
                kept.append(entry | {"id": len(kept) + 1})
    images = [{"id": i + 1, "height": SIZE[0], "width": SIZE[1]} for i in range(len(pairs))]
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(NAMES)]
    plain = {"images": images, "categories": categories}
    return plain | {"annotations": truths}, plain | {"annotations": results}
