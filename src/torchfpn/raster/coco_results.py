"""What a detector found in many images as one COCO file, written image by image.

It is a whole data set (images, categories, annotations), which `fpn check`, pycocotools and labelling tools open, and
its annotations have a score besides: the list of them is what COCO calls results.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.files.atomic import atomic_path
from torchfpn.ops.instances import Instances
from torchfpn.ops.masks import areas
from torchfpn.ops.rle import to_rle
from torchfpn.recipe import Recipe

DECIMALS = 3  # of a pixel
LEAST = 10.0**-DECIMALS  # pixels, of the side of a box: readers refuse boxes without an area


class CocoResults:
    """A file that is being written. recipe: of the model, whose label values are the ids of the categories."""

    def __init__(self, file: IO[str], recipe: Recipe) -> None:
        self.file, self.recipe, self.count = file, recipe, 0
        self.images: list[dict[str, Any]] = []
        classes = zip(recipe.label_ids, recipe.classes, strict=True)
        categories = [{"id": number, "name": name} for number, name in classes]
        file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')

    def add(self, number: int, name: str, found: Instances) -> None:
        """The objects of one image, best first. number: its id. name: of its file."""
        height, width = found.size
        self.images.append({"id": number, "file_name": name, "height": height, "width": width})
        for record in _records(found, self.recipe):
            self.count += 1
            whole = {"id": self.count, "image_id": number, **record, "iscrowd": 0}
            self.file.write(f"{',' if self.count > 1 else ''}\n{json.dumps(whole)}")

    def close(self) -> None:
        """The end of the file."""
        images = ",\n".join(json.dumps(image) for image in self.images)
        self.file.write(f'\n],\n"images": [\n{images}\n]}}\n')


class _NothingError(Exception):
    """No image was added."""


@contextlib.contextmanager
def coco_results(path: Path, recipe: Recipe) -> Iterator[CocoResults]:
    """Inside, images are added; after it, the file is there whole. Without an image there is none."""
    with contextlib.suppress(_NothingError), atomic_path(path) as part:
        with part.open("w", encoding="ascii", newline="\n") as file:
            results = CocoResults(file, recipe)
            yield results
            results.close()
        if not results.images:
            raise _NothingError


def thousandths(boxes: Tensor) -> NDArray[np.float64]:
    """Boxes [N, 4] (x1, y1, x2, y2), rounded, and none without an area."""
    corners = boxes.detach().double().cpu().numpy().reshape(-1, 4).round(DECIMALS)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + LEAST)
    return corners


def _records(found: Instances, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Of each object what does not depend on its place in the file."""
    corners = thousandths(found.boxes)
    sides = (corners[:, 2:] - corners[:, :2]).round(DECIMALS)
    masks = [None] * len(found) if found.crops is None else to_rle(found.crops)
    sizes = sides.prod(1).round(DECIMALS).tolist() if found.crops is None else areas(found.crops).tolist()
    boxes = np.concatenate([corners[:, :2], sides], 1).tolist()
    scores, labels = found.scores.double().numpy().round(6).tolist(), found.labels.tolist()
    for label, box, size, score, mask in zip(labels, boxes, sizes, scores, masks, strict=True):
        record = {"category_id": recipe.label_ids[label], "bbox": box, "area": size, "score": score}
        yield record if mask is None else {**record, "segmentation": mask}
