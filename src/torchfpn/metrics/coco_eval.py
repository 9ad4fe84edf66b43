"""Records of images -> tables of precision and recall, by the C++ code of faster-coco-eval.

Its code trusts what it gets: everything here comes from tensors that were checked, and masks from `ops.rle`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from torchfpn.errors import DataError, require
from torchfpn.metrics.image_record import ImageRecord, Shown
from torchfpn.metrics.precisions import LIMITS, PrecisionScores, nothing, scores_of
from torchfpn.ops.rle import MOST


def package() -> Any:
    """faster_coco_eval.

    Raises:
        ConfigError: it is not installed, with the command that installs it.
    """
    require("objects", "the score of objects")
    import faster_coco_eval

    return faster_coco_eval


def polygon_runs(rings: Sequence[Sequence[float]], size: tuple[int, int]) -> str:
    """Polygons [x, y, x, y, ...], joined, -> run lengths by COCO's rule. Checked before: three points each, finite.

    Raises:
        DataError: an image whose pixels 32 bits cannot count.
    """
    if size[0] * size[1] >= MOST:
        raise DataError(f"an image of {size[0]} x {size[1]} pixels", allowed="fewer than 2^32 pixels")
    mask = package().mask
    counts = mask.merge(mask.frPyObjects([[float(value) for value in ring] for ring in rings], *size))["counts"]
    return counts.decode("ascii") if isinstance(counts, bytes) else str(counts)


def evaluated(records: Sequence[ImageRecord], classes: int, *, masks: bool, most: int) -> PrecisionScores:
    """The scores of boxes, or of masks, of images in the order of `records`."""
    if not records:
        return nothing(classes)
    coco = package()
    truth = _index(coco, classes, records, [_truths(record, masks=masks) for record in records])
    found = _index(coco, classes, records, [_detections(record, masks=masks) for record in records])
    kind = "segm" if masks else "bbox"
    run = coco.COCOeval_faster(truth, found, kind, print_function=lambda *words: None)
    run.params.maxDets = sorted({*LIMITS, most})
    run.evaluate()
    run.accumulate()
    labels = np.concatenate([record.truth.labels[~record.crowd] for record in records])
    return scores_of(run.eval, np.bincount(labels, minlength=classes).tolist())


def _index(coco: Any, classes: int, records: Sequence[ImageRecord], objects: list[list[dict[str, Any]]]) -> Any:
    """What the package calls a dataset. Ids of objects begin at 1: there 0 means "unmatched"."""
    annotations = [
        {"id": number, "image_id": image, **one}
        for number, (image, one) in enumerate(((i, one) for i, each in enumerate(objects) for one in each), start=1)
    ]
    images = [{"id": i, "height": r.size[0], "width": r.size[1]} for i, r in enumerate(records)]
    categories = [{"id": k, "name": str(k)} for k in range(classes)]
    return coco.COCO({"images": images, "categories": categories, "annotations": annotations})


def _truths(record: ImageRecord, *, masks: bool) -> list[dict[str, Any]]:
    objects = _plain(record.truth, record.size, masks=masks)
    return [one | {"iscrowd": int(crowd)} for one, crowd in zip(objects, record.crowd.tolist(), strict=True)]


def _detections(record: ImageRecord, *, masks: bool) -> list[dict[str, Any]]:
    objects = _plain(record.found, record.size, masks=masks)
    return [one | {"score": score} for one, score in zip(objects, record.scores.tolist(), strict=True)]


def _plain(shown: Shown, size: tuple[int, int], *, masks: bool) -> list[dict[str, Any]]:
    """As COCO has them, without ids."""
    areas = shown.mask_areas if masks else shown.areas
    columns = zip(shown.labels.tolist(), shown.boxes.tolist(), areas.tolist(), strict=True)
    found: list[dict[str, Any]] = [{"category_id": k, "bbox": box, "area": area} for k, box, area in columns]
    if masks and shown.masks is not None:
        for one, text in zip(found, shown.masks, strict=True):
            one["segmentation"] = {"size": list(size), "counts": text}
    return found
