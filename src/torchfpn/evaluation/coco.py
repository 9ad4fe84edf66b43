"""AP and AR of COCO results against COCO annotations.

Polygons of the annotations are rasterized by COCO's rule, not by the one of `vector.instance_masks`, so that scores can
be compared with published ones.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.labels.coco import BOXES_CUT, read_coco
from torchfpn.data.labels.coco_annotations import BadValueError, Coco, CocoOptions, PartialShape, check_shape
from torchfpn.data.labels.coco_results import Detection, read_detections
from torchfpn.errors import DataError
from torchfpn.evaluation.model import ObjectEvaluation, as_given
from torchfpn.io.yaml_json import Flaw, read_json
from torchfpn.metrics.detection import AveragePrecision, polygon_runs
from torchfpn.metrics.precisions import LIMITS, ImageRecord, ObjectArrays, best_detections
from torchfpn.ops.rle import area, from_rle, to_rle
from torchfpn.recipe import default_colors
from torchfpn.types import Size

Record = Mapping[str, Any]


def evaluate_results(results: Path, truth: Path, *, most: int = LIMITS[-1]) -> ObjectEvaluation:
    """The scores of `results` against the annotations `truth`; of masks where the results have them.

    Neither needs the images. Every image of the truth counts, also those without a result.

    Raises:
        DataError: a file that is not what it should be, by the path of the first wrong value.
    """
    known = _read(truth, masks=False)
    found = read_detections(results, known)
    masks = bool(found) and found[0].mask is not None
    if masks:
        known = _read(truth, masks=True)
    names = [category.name for category in known.categories]
    if not names:
        raise DataError("no categories, so no classes", file=truth, field="categories")
    scores = AveragePrecision(names, masks=masks, most=most)
    objects, detections = (
        _by_image(_annotations(truth, masks=masks), known),
        _grouped(found, len(known.annotations.ids)),
    )
    labels = {category.id: place for place, category in enumerate(known.categories)}
    ids = known.annotations.ids.tolist()
    for place, (records, each) in enumerate(zip(objects, detections, strict=True)):
        size = known.annotations.size(place)
        record = _record(records, each, labels, size, masks=masks, most=most)
        scores.append(record._replace(number=ids[place]))
    colors = tuple(default_colors(len(names)))
    matches = as_given(scores.matches(), ids)
    return ObjectEvaluation(scores.compute(), colors, known.annotations.names, matches)


def _read(truth: Path, *, masks: bool) -> Coco:
    """The annotations, all of them good; boxes may reach out of their image."""
    coco = read_coco(truth, CocoOptions(truth.parent, truth.parent, masks, files=False))
    flaws = [flaw for i, flaw in enumerate(coco.flaws) if coco.repaired.get(i) != BOXES_CUT]
    if flaws:
        more = f" (and {len(flaws) - 1:,} more)" if len(flaws) > 1 else ""
        raise DataError(f"{flaws[0]}{more}", file=truth)
    return coco


def _annotations(truth: Path, *, masks: bool) -> list[Record]:
    """As they stand in the file: arrays have fewer digits. `read_coco` has checked all but the masks of crowds."""
    value: Any = read_json(truth)[0]
    records: list[Record] = value["annotations"]
    sizes = {image["id"]: (image["height"], image["width"]) for image in value["images"]}
    for i, record in enumerate(records):
        if masks and record.get("iscrowd", 0):
            x, y, w, h = record["bbox"]
            try:
                shape = check_shape(record.get("segmentation"), sizes[record["image_id"]], (x, y, x + w, y + h))
                if isinstance(shape, PartialShape):
                    raise shape.bad[0]
            except BadValueError as bad:
                raise DataError(str(Flaw(("annotations", i, *bad.keys), bad.line)), file=truth) from None
    return records


def _by_image(records: Sequence[Record], known: Coco) -> list[list[Record]]:
    places = {number: place for place, number in enumerate(known.annotations.ids.tolist())}
    found: list[list[Record]] = [[] for _ in places]
    for record in records:
        found[places[record["image_id"]]].append(record)
    return found


def _grouped(found: Sequence[Detection], images: int) -> list[list[Detection]]:
    groups: list[list[Detection]] = [[] for _ in range(images)]
    for each in found:
        groups[each.image].append(each)
    return groups


def _record(
    records: Sequence[Record],
    found: Sequence[Detection],
    labels: Mapping[int, int],
    size: Size,
    *,
    masks: bool,
    most: int,
) -> ImageRecord:
    scores = np.array([each.score for each in found], np.float64)
    kept = best_detections(scores, np.array([each.label for each in found], np.int64), most).tolist()
    chosen = [found[i] for i in kept]
    texts = [each.mask or "" for each in chosen] if masks else None
    boxes = _boxes([each.box for each in chosen])
    sizes = (
        [area({"size": list(size), "counts": text}) for text in texts] if texts is not None else boxes[:, 2:].prod(1)
    )
    shown = ObjectArrays(
        boxes,
        np.array([each.label for each in chosen], np.int64),
        boxes[:, 2:].prod(1),
        texts,
        np.asarray(sizes, np.float64),
    )
    crowd = np.array([record.get("iscrowd", 0) == 1 for record in records], bool)
    return ImageRecord(None, size, _truth(records, labels, size, masks=masks), crowd, shown, scores[kept])


def _truth(records: Sequence[Record], labels: Mapping[int, int], size: Size, *, masks: bool) -> ObjectArrays:
    boxes = _boxes([record["bbox"] for record in records])
    said = [record.get("area") for record in records]
    texts = [_runs(record, size) for record in records] if masks else None
    if texts is None:
        unsaid = boxes[:, 2:].prod(1).tolist()
    else:
        unsaid = [area({"size": list(size), "counts": text}) for text in texts]
    areas = np.array([other if a is None else a for a, other in zip(said, unsaid, strict=True)], np.float64)
    return ObjectArrays(
        boxes, np.array([labels[record["category_id"]] for record in records], np.int64), areas, texts, areas
    )


def _runs(record: Record, size: Size) -> str:
    """The mask as run lengths."""
    value = record["segmentation"]
    if isinstance(value, list):
        return polygon_runs(value, size)
    counts = value["counts"]
    return counts if isinstance(counts, str) else to_rle(from_rle([value], size))[0]["counts"]


def _boxes(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    return np.array(rows, np.float64).reshape(-1, 4)
