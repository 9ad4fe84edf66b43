"""Writes docs/gallery.md and its drawings of architectures.

Each model is built, counted and drawn from its own child modules, so the page matches the code; tests/test_gallery.py
compares page and drawings with the output of this script.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import torch
from torch import nn

from architecture import architecture
from torchfpn import create_model

DOCS = Path(__file__).resolve().parents[1] / "docs"
INTRO = """\
# Gallery

This page draws nine architectures, each built by one call. In each drawing, a row is a pyramid level, coarsest at the
top; a column is a child module, labelled with its name (`model.pyramid.lateral`). A blue box is a feature map with its
size relative to the image and its channels: `1/4 · 256`.

`architecture` draws any model. It is in the folder `scripts`, not in the package; set `PYTHONPATH=scripts`:

```python
import torchfpn
from architecture import architecture

model = torchfpn.create_model(backbone="test_resnet", num_classes=7)
svg = architecture(model)
```

`python scripts/gallery.py` writes this page. The models are not pretrained; `pretrained=True` gives the same drawings.
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
        "Feature pyramid with a finest-level head",
        """Lin et al. 2017, *Feature Pyramid Networks for Object Detection*, section 3 and figure 3. The
        top-down path upsamples each coarser, semantically stronger map and adds it to the next finer one. The head
        reads only the finest sum, so only that one is smoothed.""",
        {"backbone": "resnet18", "head": "finest"},
    ),
    Entry(
        "panoptic-fpn",
        "Panoptic FPN's semantic branch",
        """Kirillov et al. 2019, *Panoptic Feature Pyramid Networks*, section 3.1 and figure 3. Each level is
        convolved and upsampled by 2 until it has the finest level's size; then all are summed. The paper uses group
        norm: `norm="group"`.""",
        {"backbone": "resnet18", "head": "sum"},
    ),
    Entry(
        "panoptic",
        "Panoptic segmentation: two branches on one pyramid",
        """Kirillov et al. 2019, *Panoptic Feature Pyramid Networks*, figure 1. The semantic branch reads P2 to P5 and
        gives logits of all pixels, one class for all things; the region branch is Mask R-CNN's and finds things on P2
        to P6. `PanopticTask` merges both into segments. Any backbone, any pyramid.""",
        {"task": "panoptic", "backbone": "resnet18", "things": 3, "stuff": 4},
    ),
    Entry(
        "panet",
        "Path aggregation",
        """Liu et al. 2018, *Path Aggregation Network for Instance Segmentation*, section 3.1 and figure 1. A second,
        bottom-up path shortens the way from the finest map to the coarsest to a few convolutions.""",
        {"backbone": "resnet18", "pyramid": "panet", "head": "sum"},
    ),
    Entry(
        "concat",
        "Concatenation instead of a sum",
        """The COCO-Stuff 2017 entry described in section 4.2 of Kirillov et al. 2019, and the head of robosat. Each
        level is upsampled in one step, and the classifier reads the concatenated levels.""",
        {"backbone": "resnet18", "head": "concat"},
    ),
    Entry(
        "fusenet",
        "Two streams for more than three bands",
        """Hazirbas et al. 2016, *FuseNet*, here with all five stages fused (SF5 of table 2). Bands other than red,
        green and blue have a second backbone. Its maps are added to the main backbone's after each stage; its own path
        is unchanged.""",
        {"backbone": "resnet18", "in_channels": 5, "fusion": "fusenet"},
    ),
    Entry(
        "dilated",
        "Dilated backbone",
        """Chen et al. 2017, *Rethinking Atrous Convolution for Semantic Image Segmentation*, section 3.1. The last two
        stages keep their map size and dilate their kernels instead, so C3, C4 and C5 all have stride 8: finer maps at a
        higher cost in time and memory.""",
        {"backbone": "resnet18", "output_stride": 8},
    ),
    Entry(
        "simple-pyramid",
        "Plain vision transformer",
        """Li et al. 2022, *Exploring Plain Vision Transformer Backbones for Object Detection*, section 3. A plain
        transformer has maps of one size only; all levels are computed from the last map, without a top-down path.""",
        {"backbone": "vit_tiny_patch16_224", "pyramid": "simple"},
    ),
    Entry(
        "p6-p7",
        "Coarser levels",
        """Lin et al. 2017, *Focal Loss for Dense Object Detection* (RetinaNet), footnote 2. P6 and P7,
        convolved from C5, follow P3 to P5, for objects too large for P5.""",
        {"backbone": "resnet18", "strides": (8, 16, 32), "extra": "conv-c5"},
    ),
]


def gallery() -> dict[Path, str]:
    """The text of every file of the gallery."""
    page, files = [INTRO], {}
    for entry in ENTRIES:
        arguments = entry.arguments if "things" in entry.arguments else {**entry.arguments, "num_classes": 7}
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
