"""What a model file says besides weights: task, architecture, classes, bands, scaling. Plain values, JSON in and out.

It makes a file of weights usable without the code that trained it: raw pixel values go in, class names come out.
"""

import colorsys
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torchfpn.errors import WeightsError, nearest

IGNORE = 255  # the label of a pixel that nobody labelled, inside torchfpn; files may use another value
SCHEMA = 1  # raised when a field changes meaning; older files are migrated, newer ones refused


@dataclass(frozen=True)
class Scaling:
    """Raw values to what the network sees, per band: ``(value - offset) / scale``.

    method: how the numbers were found ("imagenet", "mean-std", "percentile", "given"), for people to read.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    method: str = "given"

    def __post_init__(self) -> None:
        if len(self.offset) != len(self.scale) or not all(s > 0 for s in self.scale):
            raise WeightsError(
                f"offset {list(self.offset)} and scale {list(self.scale)}",
                field="scaling",
                allowed="one finite offset and one scale above 0 for each band",
            )

    @classmethod
    def identity(cls, bands: int) -> "Scaling":
        """No change: for images that are already normalised."""
        return cls((0.0,) * bands, (1.0,) * bands, "identity")

    @classmethod
    def imagenet(cls) -> "Scaling":
        """8-bit red, green, blue as the ImageNet backbones were trained: mean and deviation of that set, times 255."""
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        return cls(tuple(255 * m for m in mean), tuple(255 * s for s in std), "imagenet")


@dataclass(frozen=True)
class Recipe:
    """All that is needed to build the model again and to read its answer.

    task: "semantic" (others follow). model: the arguments of `create_model`, plain values only.
    classes: names, in the order of the labels 0..K-1. label_ids: the value of each class in the label files it was
    trained on, which is what `fpn predict` writes. colors: red, green, blue of each class, 0..255.
    ignore_index: the value in label files that means "not labelled". bands: name of each input band.
    dtype: pixel type of the images the scaling was found on ("uint8"), "" where unknown.
    nodata: a value that marks missing pixels in raw arrays, besides NaN. loss, class_weights: what it was trained with.
    source: where the weights came from, for people.
    """

    task: str
    model: dict[str, Any]
    classes: tuple[str, ...]
    bands: tuple[str, ...]
    scaling: Scaling
    label_ids: tuple[int, ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()
    ignore_index: int = IGNORE
    dtype: str = ""
    nodata: float | None = None
    loss: str = "ce"
    class_weights: tuple[float, ...] | None = None
    source: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_json(self) -> str:
        """One line of JSON, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, *, file: str = "recipe") -> "Recipe":
        """The recipe written by `to_json`.

        Raises:
            WeightsError: not JSON, a missing field, or written by a newer torchfpn.
        """
        try:
            data = json.loads(text)
            schema = int(data["schema"])
        except (ValueError, TypeError, KeyError) as error:
            raise WeightsError(
                "the recipe is damaged", file=file, hint="save the model again with task.save"
            ) from error
        if schema > SCHEMA:
            raise WeightsError(
                f"recipe of schema {schema}",
                file=file,
                allowed=f"this torchfpn reads up to {SCHEMA}",
                hint="upgrade with: pip install -U torchfpn",
            )
        for step in range(schema, SCHEMA):
            data = MIGRATIONS[step](data)
        return cls._from_fields(data, file)

    @classmethod
    def _from_fields(cls, data: dict[str, Any], file: str) -> "Recipe":
        known = {f.name for f in fields(cls)}
        for key in data:
            if key not in known:
                raise WeightsError(f'unknown field "{key}" in the recipe', file=file, hint=nearest(key, known))
        try:
            scaling = data["scaling"]
            data["scaling"] = Scaling(tuple(scaling["offset"]), tuple(scaling["scale"]), str(scaling["method"]))
            data["colors"] = tuple((int(r), int(g), int(b)) for r, g, b in data["colors"])
            data["class_weights"] = None if data["class_weights"] is None else tuple(data["class_weights"])
            for name in ("classes", "bands", "label_ids"):
                data[name] = tuple(data[name])
            return cls(**data)
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"the recipe lacks {error}", file=file, hint="save the model again") from error


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}  # fields of schema n -> fields of schema n + 1


def default_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """Red, green, blue of `count` classes: hues a golden angle apart, in three lightnesses, so neighbours differ."""
    colors = []
    for i in range(count):
        hue, value, saturation = (0.58 + i * 0.381966) % 1.0, (0.9, 0.7, 0.5)[i % 3], (0.65, 0.85)[i % 2]
        colors.append(tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value)))
    return tuple((r, g, b) for r, g, b in colors)
