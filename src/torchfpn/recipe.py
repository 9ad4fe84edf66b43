"""The recipe: what a model file says besides its weights, so that it can be used without the code that trained it."""

import colorsys
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from dataclasses import field as dataclass_field
from math import isfinite
from typing import Any

from torchfpn.errors import WeightsError, amount, nearest

TASKS = ("semantic", "detection", "instance", "panoptic", "features")  # "features": backbone and pyramid without a head

DTYPES = ("", "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32",
          "float64")  # fmt: skip

MASKS = ("detectron2", "torchvision")
MERGING_LIMITS = {"score": 1, "overlap": 1, "stuff_area": 2**53}  # the largest thresholds of a panoptic merge
LOADED = ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")  # read other files
LARGEST = 3.4028234663852886e38  # of float32, in which images are scaled
SMALLEST = 1.1754943508222875e-38  # above 0, of full precision
LABELS = (-(2**31), 2**32 - 1)  # values that label files hold
SIDE = 20_000  # pixels that an image is resized to at most
DEEPEST, LONGEST, MOST = 8, 2000, 65_536  # levels of nesting, characters of a word, values of a list
IGNORE = 255  # the label of a pixel that nobody labelled, inside torchfpn; files may use another value
LARGEST_VALUE = 2.0**64  # the square of a larger one overflows float32, in which norms compute variances
SCHEMA = 4  # raised when a field changes meaning; older files are migrated, newer ones refused
DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError)
REQUIRED = ("task", "model", "classes", "bands", "scaling", "label_ids", "colors", "class_weights")


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
    divisors: dict[str, float] = dataclass_field(default_factory=dict)

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

    task: "semantic", "detection", "instance", "panoptic". model: the arguments of `create_model`, plain values only.
    classes: names, in the order of the labels 0..K-1. things: of panoptic models, the first of the classes, which are
    told apart object by object; the others are stuff. label_ids: the value of each class in the label files it was
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
    where detectron2 resized), and how masks are laid into them, {"masks": "detectron2"}; of panoptic models how its
    branches are merged, {"panoptic": {"score": 0.5, "overlap": 0.5, "stuff_area": 4096}}, thresholds of
    `ops.panoptic.merge_segments`; of every task
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
    source: dict[str, Any] = dataclass_field(default_factory=dict)
    rules: dict[str, Any] = dataclass_field(default_factory=dict)
    inputs: Inputs | None = None
    file_bands: tuple[str, ...] = ()
    things: tuple[str, ...] = ()
    measures: dict[str, Any] = dataclass_field(default_factory=dict, compare=False)
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
        made |= {name: tuple(data.get(name, ())) for name in ("classes", "bands", "file_bands", "things")}
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


def check_fields(data: dict[str, Any], file: str) -> None:
    """Passes the fields of a recipe of this schema from which a `Recipe` can be made.

    Args:
        data: the recipe's JSON as `json.loads` gives it; all fields without a default are there.
        file: the model file, named in errors.

    Raises:
        WeightsError: a value of another type, length or range, with its field.
    """
    for field, value in data.items():
        wrong = next(_not_plain(value, field), None)
        if wrong is not None:
            raise WeightsError(wrong[1], file=file, field=wrong[0], allowed=wrong[2])
    for field, (is_right, allowed) in _rules(data).items():
        if field in data and not is_right(data[field]):
            raise WeightsError(_shown(data[field]), file=file, field=field, allowed=allowed)
    _check_scaling(data["scaling"], len(data["bands"]), file)
    _check_rules(data.get("rules", {}), file)
    _check_model(data["model"], file)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and no bool."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _rules(data: dict[str, Any]) -> dict[str, tuple[Callable[[Any], bool], str]]:
    """Of each field that stands alone: whether a value is right, and what is expected."""
    count = len(data["classes"]) if isinstance(data["classes"], list) else 0
    of_classes = f"one for each of {amount(count, 'class', 'classes')}"
    needed = data["task"] != "features"
    return {
        "task": (lambda x: x in TASKS, " | ".join(TASKS)),
        "model": (lambda x: isinstance(x, dict), "the arguments of the model by name"),
        "classes": (lambda x: _names(x) and (bool(x) or not needed), "a list of names, each once"),
        "things": (lambda x: _are_things(x, data), _things_allowed(data["task"])),
        "bands": (lambda x: _names(x) and bool(x), "a list of names, each once"),
        "file_bands": (
            lambda x: _names(x) and (not x or set(data["bands"]) <= set(x)),
            "a list of names, each once, with all of bands among them, or an empty list",
        ),
        "label_ids": (
            lambda x: _list_of(x, lambda y: _whole(y, *LABELS)) and len(set(x)) == len(x) in (count, 0),
            f"different whole numbers, {of_classes}",
        ),
        "colors": (
            lambda x: _list_of(x, _color) and len(x) in (count, 0),
            f"red, green and blue from 0 to 255, {of_classes}",
        ),
        "ignore_index": (lambda x: _whole(x, *LABELS), "a whole number"),
        "dtype": (lambda x: isinstance(x, str) and x in DTYPES, "a pixel type, such as uint8, or nothing"),
        "nodata": (lambda x: x is None or isinstance(x, float) or _whole(x, -(2**63), 2**64), "a number, or null"),
        "loss": (lambda x: isinstance(x, str), "the terms of the loss as a word"),
        "class_weights": (
            lambda x: x is None or (_list_of(x, _weight) and len(x) == count),
            f"null, or numbers from 0, {of_classes}",
        ),
        "source": (lambda x: isinstance(x, dict), "a table"),
        "rules": (lambda x: isinstance(x, dict), "a table"),
        "inputs": (lambda x: x is None or _is_inputs(x), "null, or a table of low, high and divisors"),
        "measures": (is_measures, "nothing, or a table of parameters, levels, multiple and reach"),
        "scaling": (lambda x: isinstance(x, dict), "a table of offset, scale and method"),
    }


def _check_scaling(scaling: dict[str, Any], bands: int, file: str) -> None:
    """Raises WeightsError of a scaling that no image of that many bands can be brought to the network by."""
    each = f"one for each of {amount(bands, 'band')}"
    for name, least in (("offset", -LARGEST), ("scale", SMALLEST)):
        values = scaling.get(name)
        if not (_list_of(values, lambda x, least=least: is_number(x) and least <= x <= LARGEST)
                and len(values or ()) == bands):  # fmt: skip
            allowed = f"numbers above 0, {each}" if name == "scale" else f"numbers, {each}"
            raise WeightsError(_shown(values), file=file, field=f"scaling.{name}", allowed=allowed)
    if not isinstance(scaling.get("method"), str):
        raise WeightsError(_shown(scaling.get("method")), file=file, field="scaling.method", allowed="a word")


def _check_rules(rules: dict[str, Any], file: str) -> None:
    """Raises WeightsError of a rule that is unknown, or says what cannot be done."""
    known: dict[str, tuple[Callable[[Any], bool], str]] = {
        "resize": (lambda x: x is None or _is_resize(x), f"shorter and longer: pixels from 1 to {SIDE:,}, or null"),
        "masks": (lambda x: x in MASKS, " | ".join(MASKS)),
        "grey_as_color": (lambda x: isinstance(x, bool), "true | false"),
        "tiles": (lambda x: isinstance(x, str), "a path with {z}, {x} and {y}"),
        "panoptic": (_is_merging, "a table of score and overlap, shares from 0 to 1, and stuff_area, pixels"),
    }
    for name, value in rules.items():
        if name not in known:
            raise WeightsError(
                f'unknown rule "{_cut(name)}"', file=file, field="rules", hint=nearest(_cut(name), known)
            )
        is_right, allowed = known[name]
        if not is_right(value):
            raise WeightsError(_shown(value), file=file, field=f"rules.{name}", allowed=allowed)


def _check_model(model: dict[str, Any], file: str) -> None:
    """Raises WeightsError of arguments that would have other files read, or that are missing."""
    options = model.get("backbone_options")
    for field, table in (("model", model), ("model.backbone_options", options if isinstance(options, dict) else {})):
        if taken := next((name for name in LOADED if name in table), None):
            found = "an argument that has other weights read"
            raise WeightsError(found, file=file, field=f"{field}.{taken}", allowed="the weights of this file alone")
    needed = "name" if "original" in model else "backbone"
    if not isinstance(model.get(needed), str):
        raise WeightsError(_shown(model.get(needed)), file=file, field=f"model.{needed}", allowed="a name")


def _not_plain(value: Any, field: str, depth: int = 0) -> Iterator[tuple[str, str, str]]:
    """(field, found, expected) of each part that is nested too deeply, too long, or no text that can be printed."""
    if depth > DEEPEST:
        yield field, "lists in lists", f"at most {DEEPEST} within each other"
        return
    if isinstance(value, str) and (len(value) > LONGEST or not _is_text(value)):
        yield field, _shown(value), f"text of at most {LONGEST:,} characters"
    if isinstance(value, dict | list) and len(value) > MOST:
        yield field, f"{len(value):,} values", f"at most {MOST:,}"
    elif isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else ((None, part) for part in value)
        for key, part in parts:
            inner = field if key is None else f"{field}.{_cut(key)}"
            yield from _not_plain(key, field, depth)
            yield from _not_plain(part, inner, depth + 1)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _names(value: Any) -> bool:
    return _list_of(value, lambda x: isinstance(x, str) and x != "") and len(set(value)) == len(value)


def _list_of(value: Any, is_right: Callable[..., bool]) -> bool:
    return isinstance(value, list) and all(is_right(part) for part in value)


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _color(value: Any) -> bool:
    return _list_of(value, lambda x: _whole(x, 0, 255)) and len(value) == 3


def _weight(value: Any) -> bool:
    return is_number(value) and 0 <= value <= LARGEST


def _is_inputs(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"low", "high", "divisors"} and _divisors(value["divisors"])


def is_measures(value: Any) -> bool:
    """Whether a value can stand as `measures` in a recipe."""
    if not isinstance(value, dict) or value.keys() not in (set(), {"parameters", "levels", "multiple", "reach"}):
        return False
    if not value:
        return True
    counts, levels = value["parameters"], value["levels"]
    return (
        isinstance(counts, dict)
        and all(_whole(x, 0, 2**53) for x in counts.values())
        and isinstance(levels, dict)
        and all(_list_of(x, lambda y: _list_of(y, lambda z: _whole(z, 0, 2**31))) for x in levels.values())
        and all(len(level) == 2 for maps in levels.values() for level in maps)
        and all(value[name] is None or _whole(value[name], 0, 2**31) for name in ("multiple", "reach"))
    )


def _are_things(value: Any, data: dict[str, Any]) -> bool:
    """Whether a value can stand as `things` beside the task and the classes of a recipe."""
    if data["task"] != "panoptic":
        return bool(value == [])
    return isinstance(value, list) and 0 < len(value) < len(data["classes"]) and data["classes"][: len(value)] == value


def _things_allowed(task: Any) -> str:
    return "the first of the classes, not all of them" if task == "panoptic" else "none of other tasks than panoptic"


def _is_merging(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= MERGING_LIMITS.keys():
        return False
    return all(is_number(number) and 0 <= number <= MERGING_LIMITS[name] for name, number in value.items())


def _divisors(value: Any) -> bool:
    return isinstance(value, dict) and all(name in DTYPES for name in value)


def _is_resize(value: Any) -> bool:
    if not isinstance(value, dict) or not {"shorter", "longer"} <= value.keys() <= {
        "shorter", "longer", "antialias", "pillow"
    }:  # fmt: skip
        return False
    sides = [value["shorter"], value["longer"]]
    if not all(side is None or _whole(side, 1, SIDE) for side in sides):
        return False
    flags = [value.get("antialias", False), value.get("pillow", False)]
    return all(isinstance(flag, bool) for flag in flags) and not (flags[1] and None in sides)


def _shown(value: Any) -> str:
    """A value of the JSON as an error shows it: as JSON has it, cut where it is long."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
