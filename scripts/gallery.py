"""Writes docs/gallery.md and its pictures: what the pieces look like when they are put together.

Every model is built, counted and drawn from its own children, so the page says what the code is; tests/test_gallery.py
holds page and pictures equal to what this gives.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import torch
from torch import nn

from torchfpn import create_model
from torchfpn.report.architecture import architecture

DOCS = Path(__file__).resolve().parents[1] / "docs"
INTRO = """\
# Gallery

Eight models, each one call. The drawings are made from the models themselves: a row is a level, the coarsest at the
top; a column is one of its children, under the name it has there (`model.pyramid.lateral`). A blue box is a map, with
its size as a share of the image's and its channels: `1/4 · 256`. Any model can be drawn:

```python
import torchfpn
from torchfpn.report.architecture import architecture

model = torchfpn.create_model(backbone="test_resnet", num_classes=7)
svg = architecture(model)
```

This page is written by `python scripts/gallery.py`. None of its models is pretrained; `pretrained=True` makes the same
drawing.
"""


@dataclass(frozen=True)
class Entry:
    """One model. name: of the picture's file. arguments: of create_model."""

    name: str
    title: str
    text: str
    arguments: dict[str, Any]


ENTRIES = [
    Entry(
        "fpn",
        "Feature pyramid, read at its finest level",
        """Lin et al. 2017, *Feature Pyramid Networks for Object Detection*, section 3 and figure 3. Coarse maps know
        what is in the image and fine ones where: each coarser map is enlarged and added to the next finer one. Only the
        finest sum is read here, so only that one is smoothed.""",
        {"backbone": "resnet18", "head": "finest"},
    ),
    Entry(
        "panoptic-fpn",
        "Panoptic FPN's semantic branch",
        """Kirillov et al. 2019, *Panoptic Feature Pyramid Networks*, section 3.1 and figure 3. Every level is convolved
        and doubled until it has the size of the finest one; then all are added. The paper has group norm:
        `norm="group"`.""",
        {"backbone": "resnet18", "head": "sum"},
    ),
    Entry(
        "panet",
        "Path aggregation",
        """Liu et al. 2018, *Path Aggregation Network for Instance Segmentation*, section 3.1 and figure 1. A second
        path leads back up, so that from the finest map to the coarsest it is only a few convolutions.""",
        {"backbone": "resnet18", "pyramid": "panet", "head": "sum"},
    ),
    Entry(
        "concat",
        "Concatenation instead of a sum",
        """The COCO-Stuff 2017 entry that Kirillov et al. 2019 describe in section 4.2, and the head of robosat. Each
        level is enlarged in one go, and the classifier sees all levels side by side.""",
        {"backbone": "resnet18", "head": "concat"},
    ),
    Entry(
        "fusenet",
        "Two streams for more than three bands",
        """Hazirbas et al. 2016, *FuseNet*, here with all five stages fused (SF5 of table 2). The bands that are not
        red, green or blue have a backbone of their own, which is added into the main one after each stage and is itself
        left as it was.""",
        {"backbone": "resnet18", "in_channels": 5, "fusion": "fusenet"},
    ),
    Entry(
        "dilated",
        "Dilated backbone",
        """Chen et al. 2017, *Rethinking Atrous Convolution for Semantic Image Segmentation*, section 3.1. The last two
        stages keep the size of their maps and spread their kernels instead, so that C3, C4 and C5 all have stride 8:
        finer, and dearer in time and memory.""",
        {"backbone": "resnet18", "output_stride": 8},
    ),
    Entry(
        "simple-pyramid",
        "Plain vision transformer",
        """Li et al. 2022, *Exploring Plain Vision Transformer Backbones for Object Detection*, section 3. A plain
        transformer gives maps of one size only; all levels are made from the last of them, without a top-down path.""",
        {"backbone": "vit_tiny_patch16_224", "pyramid": "simple"},
    ),
    Entry(
        "p6-p7",
        "Coarser levels",
        """Lin et al. 2017, *Focal Loss for Dense Object Detection* (RetinaNet), footnote 2. P3 to P5 as ever, and
        behind them P6 and P7, convolved from C5, for what is too large for P5.""",
        {"backbone": "resnet18", "strides": (8, 16, 32), "extra": "conv-c5"},
    ),
]


def gallery() -> dict[Path, str]:
    """The text of every file of the gallery."""
    page, files = [INTRO], {}
    for entry in ENTRIES:
        arguments = {**entry.arguments, "num_classes": 7}
        with torch.device("meta"):  # no numbers are needed, and drawing them takes longest
            model = create_model(**arguments)
        picture = Path("images", "gallery", f"{entry.name}.svg")
        files[DOCS / picture] = architecture(model)
        text = fill(" ".join(entry.text.split()), 120, break_on_hyphens=False)
        call = ", ".join(f"{key}={_literal(value)}" for key, value in arguments.items())
        counts = ", ".join(f"{name} {_count(piece):,}" for name, piece in model.named_children())
        page.append(
            f"## {entry.title}\n\n{text}\n\n"
            f"```python\nimport torchfpn\n\nmodel = torchfpn.create_model({call})\n```\n\n"
            f"![{entry.title}: the drawing]({picture.as_posix()})\n\nParameters: {counts}.\n"
        )
    return {DOCS / "gallery.md": "\n".join(page), **files}


def _literal(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _count(piece: nn.Module) -> int:
    return sum(parameter.numel() for parameter in piece.parameters())


def main() -> None:
    """Writes the page and the pictures."""
    files = gallery()
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(f"{len(files) - 1} models")


if __name__ == "__main__":
    main()
