"""Objects that were found, as pictures: over the image alone, or beside the true ones for reports and TensorBoard.

Colours are those of the classes; of a model with masks that knows one class alone, every object has a colour of its
own, so that neighbours are told apart.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from torchfpn.ops.instances import Instances
from torchfpn.ops.masks import Crops
from torchfpn.recipe import default_colors
from torchfpn.report.display import displayed
from torchfpn.report.object_marks import Color, Marks, marked
from torchfpn.report.pictures import LARGEST, encoded, laid_out, resized, shortened
from torchfpn.types import Objects, Size

HUES = 36  # colours of objects, used again and again
DARK = 150  # of 255; darker colours are lost on the black ground of microscopes
NAME = 120  # pixels, of the name of a class beside a score


def objects_side_by_side(
    image: ArrayLike,
    truth: Objects | None,
    found: Instances | None,
    *,
    colors: Sequence[Sequence[int]],
    names: Sequence[str] = (),
    bands: Sequence[str] = (),
    largest: int = LARGEST,
    palette: bool = False,
) -> bytes:
    """One PNG: image | truth | prediction, with the classes that occur below. Its background is transparent.

    Areas of objects that nobody told apart are hatched.

    Args:
        image: [C, H, W] raw values, NaN where there are none.
        truth: the labelled objects, in the pixels of the image; None leaves the panel out.
        found: what a model says. All of it is drawn: `found.above(0.5)` for what one would believe. None: no panel.
        colors: of each class (missing ones are made up).
        names: of each class.
        bands: names of the image's bands, to find the true colours.
        largest: height or width of the panels in pixels, to which larger images are reduced.
        palette: 256 colours only, a quarter of the bytes.
    """
    values = np.asarray(image)
    size = (values.shape[-2], values.shape[-1])
    pixels = displayed(values, bands)
    shown = np.asarray(resized(pixels, largest, smooth=True))
    labels = [*(() if truth is None else truth.labels.tolist()), *(() if found is None else found.labels.tolist())]
    palette_of = _colors(colors, names, labels)
    panels, present = [("image", pixels)], set(labels)
    if truth is not None:
        painted = _painted(truth.labels, truth.masks, palette_of)
        crowds = np.zeros((0, 4)) if truth.crowds is None else truth.crowds.double().cpu().numpy()
        panels.append(("truth", marked(shown, Marks(_boxes(truth), painted, size, truth.masks, crowds=crowds))))
    if found is not None:
        panels.append(("prediction", marked(shown, _marks(found, palette_of, names, size))))
    masks = [None if truth is None else truth.masks, None if found is None else found.crops]
    legend: list[tuple[Sequence[int], str]] = []
    if not any(_own_colors(crops, palette_of) for crops in masks):
        legend = [(palette_of[i], name) for i, name in enumerate(names) if i in present]
    sheet = laid_out(panels, legend, largest)
    return encoded(sheet.quantize(256, Image.Quantize.FASTOCTREE) if palette else sheet)


def overlay_objects(
    image: ArrayLike,
    found: Instances,
    *,
    colors: Sequence[Sequence[int]],
    names: Sequence[str] = (),
    bands: Sequence[str] = (),
) -> bytes:
    """One PNG of the size of the image [C, H, W]: masks (or boxes) with class and score laid over it.

    All of `found` is drawn, of several classes with their names; a text that would hide a better one's is left out.
    """
    values = np.asarray(image)
    size = (values.shape[-2], values.shape[-1])
    marks = _marks(found, _colors(colors, names, found.labels.tolist()), names, size)
    return encoded(Image.fromarray(marked(displayed(values, bands), marks)))


def _colors(colors: Sequence[Sequence[int]], names: Sequence[str], labels: Sequence[int]) -> list[Color]:
    """Of every class, also of those that are seen only."""
    count = max(len(colors), len(names), 1 + max(labels, default=0))
    given = [(int(red), int(green), int(blue)) for red, green, blue in colors]
    return [*given, *default_colors(count)[len(given) :]]


def _marks(found: Instances, colors: Sequence[Color], names: Sequence[str], size: Size) -> Marks:
    labels = found.labels.tolist()
    short = [shortened(name, NAME) + " " for name in names] if len(names) > 1 else []
    texts = [
        f"{short[i] if i < len(short) else ''}{score:.2f}"
        for i, score in zip(labels, found.scores.tolist(), strict=True)
    ]
    return Marks(_boxes(found), _painted(found.labels, found.crops, colors), size, found.crops, texts)


def _boxes(objects: Objects | Instances) -> NDArray[np.float64]:
    return np.asarray(objects.boxes.detach().double().cpu().numpy().reshape(-1, 4))


def _painted(labels: Tensor, crops: Crops | None, colors: Sequence[Color]) -> list[Color]:
    """The colour of each object."""
    if _own_colors(crops, colors):
        own = [color for color in default_colors(HUES) if max(color) > DARK]
        return [own[i % len(own)] for i in range(len(labels))]
    return [colors[i] for i in labels.tolist()]


def _own_colors(crops: Crops | None, colors: Sequence[Color]) -> bool:
    """Whether colours tell objects apart, since there is one class only."""
    return crops is not None and len(colors) == 1
