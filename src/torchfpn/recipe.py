"""What a model file says besides weights: task, architecture, classes, bands, scaling. Plain values, JSON in and out.

It makes a file of weights usable without the code that trained it: raw pixel values go in, class names come out.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torchfpn.errors import WeightsError

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
    nodata: a value that marks missing pixels in raw arrays, besides NaN. source: where the weights came from.
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
        known = {f.name for f in fields(cls)}
        try:
            scaling = data["scaling"]
            data["scaling"] = Scaling(tuple(scaling["offset"]), tuple(scaling["scale"]), scaling["method"])
            data["colors"] = tuple((int(r), int(g), int(b)) for r, g, b in data["colors"])
            for name in ("classes", "bands", "label_ids"):
                data[name] = tuple(data[name])
            return cls(**{key: value for key, value in data.items() if key in known})
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"the recipe lacks {error}", file=file, hint="save the model again") from error
