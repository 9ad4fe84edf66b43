"""What a model file says besides weights: task, architecture, classes, bands, scaling. Plain values, JSON in and out.

It makes a file of weights usable without the code that trained it: raw pixel values go in, class names come out.
"""

import colorsys
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torchfpn.errors import WeightsError, nearest
from torchfpn.recipe_fields import LARGEST, SMALLEST, check_fields, is_number

IGNORE = 255  # the label of a pixel that nobody labelled, inside torchfpn; files may use another value
LARGEST_VALUE = 2.0**64  # the square of a larger one overflows float32, in which norms compute variances
SCHEMA = 4  # raised when a field changes meaning; older files are migrated, newer ones refused
DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class Scaling:
    """Raw values to what the network sees, per band: ``(value - offset) / scale``.

    method: how the numbers were found ("imagenet", "mean-std", "percentile", "given"), for people to read.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    method: str = "given"

    def __post_init__(self) -> None:
        fitting = [is_number(x) and abs(x) <= LARGEST for x in self.offset]
        fitting += [is_number(x) and SMALLEST <= x <= LARGEST for x in self.scale]
        if len(self.offset) != len(self.scale) or not all(fitting):
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

    def placed(self, places: Sequence[int]) -> "Scaling":
        """The numbers of red, green and blue, in this order, as numbers of bands in the order of a file.

        Args:
            places: of red, green and blue among three bands, from 0.
        """
        colors = [list(places).index(band) for band in range(len(places))]
        return Scaling(tuple(self.offset[c] for c in colors), tuple(self.scale[c] for c in colors), self.method)


@dataclass(frozen=True)
class Inputs:
    """The values that a converted network learnt on, and how the pixels of files become such values.

    low, high: the range, such as 0..1 of torchvision's detectors; None where it is unknown, because the other project
    left the normalisation to its user. divisors: by the pixel type of a file ("uint8"), what its values are divided by
    to lie in the range. Files of other pixel types are refused.
    """

    low: float | None
    high: float | None
    divisors: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = self.low is not None and self.high is not None
        if (self.low is None) != (self.high is None) or (known and not _is_range(self.low, self.high)):
            raise WeightsError(
                f"range {self.low}..{self.high}", field="inputs", allowed="two numbers, low below high, or null twice"
            )
        if not all(is_number(by) and by > 0 for by in self.divisors.values()):
            raise WeightsError(f"{self.divisors}", field="inputs.divisors", allowed="numbers above 0")

    @classmethod
    def unit(cls) -> "Inputs":
        """0..1, as torchvision's `to_tensor` makes it: 8-bit values over 255."""
        return cls(0.0, 1.0, {"uint8": 255.0})

    @classmethod
    def eight_bit(cls) -> "Inputs":
        """0..255, as 8-bit files hold it."""
        return cls(0.0, 255.0, {"uint8": 1.0})

    @classmethod
    def unknown(cls) -> "Inputs":
        """Normalised by a rule that the checkpoint does not tell: no file can be brought to it."""
        return cls(None, None, {})

    def words(self) -> str:
        """For people: "0..1; uint8 files are divided by 255"."""
        if self.low is None:
            return "unknown: the other project left normalisation to its user"
        ways = [
            f"{name} files " + ("as they are" if by == 1 else f"divided by {by:g}")
            for name, by in self.divisors.items()
        ]
        return f"{self.low:g}..{self.high:g}; " + ", ".join(ways)


def _is_range(low: Any, high: Any) -> bool:
    return is_number(low) and is_number(high) and bool(low < high)


@dataclass(frozen=True)
class Recipe:
    """All that is needed to build the model again and to read its answer.

    task: "semantic", "detection", "instance". model: the arguments of `create_model`, plain values only.
    classes: names, in the order of the labels 0..K-1. label_ids: the value of each class in the label files it was
    trained on, which is what `fpn predict` writes. colors: red, green, blue of each class, 0..255.
    ignore_index: the value in label files that means "not labelled". bands: name of each input band.
    dtype: pixel type of the images the scaling was found on ("uint8"), "" where unknown.
    inputs: of converted models, the values that the network learnt on and how files become such values; None: the
    values of files are taken as they are.
    file_bands: names of all bands of the training files in the order of the files, where the dataset named them; of
    files without names, `bands` are read from these places.
    nodata: a value that marks missing pixels in raw arrays, besides NaN. loss, class_weights: what it was trained with.
    source: where the weights came from, for people. rules: what else is fixed of a detector: how large images are shown
    to it, {"resize": {"shorter": 800, "longer": 1333}} (null: any; "antialias": true where it learnt so, "pillow": true
    where detectron2 resized), and how masks are laid into them, {"masks": "detectron2"}; of every task
    {"grey_as_color": true} where one band may stand for three, {"tiles": "{z}/{x}/{y}"} as paths of images told their
    place. measures: what `fpn info` tells of the architecture, filled in when a file is written, empty in older files:
    "parameters" of each part, "levels" of backbone and pyramid ([channels, stride] of each map), "multiple", "reach".
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
    rules: dict[str, Any] = field(default_factory=dict)
    inputs: Inputs | None = None
    file_bands: tuple[str, ...] = ()
    measures: dict[str, Any] = field(default_factory=dict, compare=False)
    schema: int = SCHEMA

    def to_json(self) -> str:
        """One line of JSON, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, *, file: str = "recipe") -> "Recipe":
        """The recipe written by `to_json`.

        Raises:
            WeightsError: not JSON, a missing field, written by a newer torchfpn, or a model of an older one that
                cannot be built any more.
        """
        try:
            data = json.loads(text)
            schema = data["schema"]
            if type(schema) is not int:
                raise TypeError("no whole number")
        except DAMAGE as error:
            raise WeightsError(
                "the recipe is damaged", file=file, hint="save the model again with task.save"
            ) from error
        if schema > SCHEMA:
            raise WeightsError(
                f"recipe of schema {schema}",
                file=file,
                allowed=f"{SCHEMA} or less",
                hint="upgrade with: pip install -U torchfpn",
            )
        try:
            for step in range(schema, SCHEMA):
                data = MIGRATIONS[step](data, file)
        except DAMAGE as error:
            found = f"a damaged recipe of schema {schema}: {error}"
            raise WeightsError(found, file=file, hint="save the model again") from error
        return cls._from_fields(data, file)

    @classmethod
    def _from_fields(cls, data: dict[str, Any], file: str) -> "Recipe":
        known = {f.name for f in fields(cls)}
        for key in data:
            if key not in known:
                shown = key if len(key) < 60 else key[:57] + "..."
                raise WeightsError(f'unknown field "{shown}" in the recipe', file=file, hint=nearest(shown, known))
        if missing := next((name for name in REQUIRED if name not in data), None):
            raise WeightsError("the recipe lacks it", file=file, field=missing, hint="save the model again")
        check_fields(data, file)
        scaling, inputs, count = data["scaling"], data.get("inputs"), len(data["classes"])
        try:
            offset, scale = (tuple(map(float, scaling[name])) for name in ("offset", "scale"))
            made: dict[str, Any] = {
                "scaling": Scaling(offset, scale, scaling["method"]),
                "inputs": None if inputs is None else Inputs(**inputs),
            }
        except WeightsError as error:
            raise WeightsError(
                error.found, file=file, field=error.field, allowed=error.allowed, hint=error.hint
            ) from error
        weights, nodata = data["class_weights"], data.get("nodata")
        made |= {name: tuple(data.get(name, ())) for name in ("classes", "bands", "file_bands")}
        made |= {
            "label_ids": tuple(data["label_ids"]) or tuple(range(count)),
            "colors": tuple((r, g, b) for r, g, b in data["colors"]) or default_colors(count),
            "class_weights": None if weights is None else tuple(map(float, weights)),
            "nodata": float(nodata) if isinstance(nodata, int) and abs(nodata) > 2**53 else nodata,
        }
        return cls(**{**data, **made})


def _from_1(fields: dict[str, Any], file: str) -> dict[str, Any]:
    """0.1.0 had no heads by name, took C2..C5 or nothing, and dilated a backbone through its options.

    Unreleased files of this schema name their head; of them only what would be refused is changed.
    """
    model = dict(fields["model"])
    options = dict(model.get("backbone_options") or {})
    if fields["task"] == "semantic" and "head" not in model and "original" not in model:
        strides = model.setdefault("strides", [4, 8, 16, 32])
        if len(set(strides)) < len(strides):
            raise WeightsError(
                f"strides {strides}",
                file=file,
                allowed="each once; torchfpn 0.1.0 took the last map of a stride several times",
                hint="train the model again",
            )
    if "output_stride" in options:
        model["output_stride"] = options.pop("output_stride")
    if "replace_stride_with_dilation" in options:
        _dilated_by_stride(model, options)
    if "backbone_options" in model:
        model["backbone_options"] = options
    if model.get("fusion", "none") == "none":
        model.pop("points", None)  # said nothing, and was kept
    return {**fields, "model": model, "schema": 2}


def _dilated_by_stride(model: dict[str, Any], options: dict[str, Any]) -> None:
    """The argument of torchvision's, which left the declared strides as they were -> `output_stride` and true strides.

    What no output_stride says stays, and is refused where the model is built.
    """
    dilated = [bool(stage) for stage in options["replace_stride_with_dilation"] or (False, False, False)]
    strides = model.get("strides")
    if not any(dilated) or (dilated == [False, False, True] and strides is not None and 32 not in strides):
        del options["replace_stride_with_dilation"]  # C5 alone is dilated, and is not built
    elif dilated in ([False, False, True], [False, True, True]):
        coarsest = 8 if dilated[1] else 16
        wanted = [4, 8, 16, 32] if strides is None else sorted(strides)
        behind = [stride for stride in (8, 16, 32) if stride >= coarsest]
        shared = [stride for stride in wanted if stride in behind]
        if shared == behind[len(behind) - len(shared) :]:  # of maps that share a stride the last are taken
            del options["replace_stride_with_dilation"]
            model["output_stride"] = coarsest
            model["strides"] = [min(stride, coarsest) for stride in wanted]


def _from_3(fields: dict[str, Any], _file: str) -> dict[str, Any]:
    """Detectors converted from torchvision learnt on 0..1 and did not say so: 8-bit files went in as 0..255."""
    model = fields["model"]
    if fields["task"] in ("detection", "instance") and model.get("extra") in ("conv", "conv-c5"):
        options = {"roi_levels": 5, **(model.get("head_options") or {})}  # boxes were read from P6 as well
        fields = {**fields, "model": {**model, "head_options": options}}
    of_unit = fields["scaling"]["method"] == "imagenet, of 0..1"
    return {**fields, "inputs": asdict(Inputs.unit()) if of_unit else None, "schema": 4}


REQUIRED = ("task", "model", "classes", "bands", "scaling", "label_ids", "colors", "class_weights")

# Fields of schema n and the file they stand in -> fields of schema n + 1.
MIGRATIONS: dict[int, Callable[[dict[str, Any], str], dict[str, Any]]] = {
    1: _from_1,
    2: lambda fields, _file: {**fields, "rules": {}, "schema": 3},  # semantic models know of none
    3: _from_3,
}


def default_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """Red, green, blue of `count` classes: hues a golden angle apart, in three lightnesses, so neighbours differ."""
    colors = []
    for i in range(count):
        hue, value, saturation = (0.58 + i * 0.381966) % 1.0, (0.9, 0.7, 0.5)[i % 3], (0.65, 0.85)[i % 2]
        colors.append(tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value)))
    return tuple((r, g, b) for r, g, b in colors)
