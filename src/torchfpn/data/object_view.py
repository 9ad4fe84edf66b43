"""Pictures of objects for people: masks tinted and boxes drawn on the image, in the colours of their classes."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from torchfpn.data.colors import Color
from torchfpn.data.views import UNLABELLED, Rgb
from torchfpn.ops.masks import window_pixels
from torchfpn.types import Objects

_TINT = 0.5  # share of the colour in the pixels of a mask
_CELL = 300  # pixels: images are shown about this large, and lines are to be seen then


def object_view(picture: Rgb, objects: Objects, colors: Sequence[Color]) -> Rgb:
    """A picture [H, W, 3] with its objects on it; crowds in grey."""
    canvas = picture.copy()
    labels = objects.labels.tolist()
    if objects.masks is not None:
        windows = objects.masks.windows.tolist()
        for label, pixels, (x1, y1, x2, y2) in zip(labels, window_pixels(objects.masks), windows, strict=True):
            part, on = canvas[y1:y2, x1:x2], pixels.numpy()
            part[on] = (1 - _TINT) * part[on] + _TINT * np.array(colors[label])
    image = Image.fromarray(canvas)
    draw, width = ImageDraw.Draw(image), -(-max(image.size) // _CELL)
    crowds = [] if objects.crowds is None else objects.crowds.tolist()
    for box in crowds:
        _frame(draw, box, UNLABELLED, width)
    for label, box in zip(labels, objects.boxes.tolist(), strict=True):
        _frame(draw, box, colors[label], width)
    return np.asarray(image)


def _frame(draw: ImageDraw.ImageDraw, box: Sequence[float], color: Color, width: int) -> None:
    x1, y1, x2, y2 = box
    draw.rectangle(
        (round(x1), round(y1), max(round(x2) - 1, round(x1)), max(round(y2) - 1, round(y1))), None, color, width
    )
