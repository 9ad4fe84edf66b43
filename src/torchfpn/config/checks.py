"""Checks of a training configuration that need no torch: unknown keys, wrong types, values out of range."""

import types
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torchfpn.backbones.names import check_backbone
from torchfpn.config.settings import AUTO, GROUPS, TrainConfig
from torchfpn.errors import ConfigError, nearest

TERMS = ("ce", "focal", "dice", "lovasz")
WEIGHTINGS = ("median-frequency", "sqrt-median-frequency", "inverse", "enet")
PYRAMIDS = ("fpn", "panet", "simple")
HEADS = ("sum", "concat", "finest", "two-stage")
BAND_INITS = ("repeat", "mean", "copy", "zero")
COLORS = ("red", "green", "blue")

STRATEGIES = (  # of Lightning's those that leave every device all weights, as checkpoints and averages need them
    "auto",
    "ddp",
    "ddp_find_unused_parameters_true",
    "ddp_spawn",
    "ddp_fork",
    "ddp_notebook",
)

LARGEST = 2.0**63  # of any number in the settings: what PyTorch takes for a whole number
SHOWN = 80  # characters of a value that cannot be

OPTIONS: dict[str, Any] = {  # what `model.options` may hold, as far as its type is simple
    "strides": list[int] | None,
    "output_stride": int,
    "points": list[int] | None,
    "extra": Literal["pool", "conv", "conv-c5"] | None,
    "align_corners": bool,
    "semantic_classes": Literal["stuff", "all"],
    **{f"{piece}_options": dict[str, Any] | None for piece in ("backbone", "pyramid", "head")},
}

OF_PIXELS: dict[str, tuple[str, ...]] = {  # settings that one kind of dataset listens to, and the other does not
    "model": ("head_channels", "norm", "dropout"),
    "loss": ("terms", "class_weights", "label_smoothing", "deep_supervision"),
}

OF_OBJECTS: dict[str, tuple[str, ...]] = {
    "data": ("shorter", "longest", "visible", "covering"),
    "loss": ("anchors", "boxes", "crowds"),
}

OF_PANOPTIC: dict[str, tuple[str, ...]] = {"loss": ("instance_weight", "semantic_weight"), "model": ("merging",)}
MERGING = ("score", "overlap", "stuff_area")

LISTENING = {  # settings that only one choice of another one listens to
    "schedule.power": ("schedule.name", ("poly",)),
    "schedule.min_factor": ("schedule.name", ("poly", "cosine")),
    "optimizer.momentum": ("optimizer.name", ("sgd",)),
    "optimizer.betas": ("optimizer.name", ("adamw",)),
}

PARTS = ("none", "backbone", "stem", "pyramid", "head")  # what names of modules begin with


def check(config: TrainConfig) -> None:
    """Raises ConfigError for the first setting that cannot be, with what is allowed."""
    for name, field, kind, value in settings(config):
        check_type(name, kind, value)
        _check_range(name, field, value)
    _check_name("strategy", config.strategy, STRATEGIES)
    _check_data(config)
    check_backbone(config.model.backbone)
    _check_name("model.pyramid", config.model.pyramid, PYRAMIDS)
    if config.model.head is not None:
        _check_name("model.head", config.model.head, HEADS)
    _check_band_init(config.model.band_init)
    for name, value in config.model.options.items():
        if name not in OPTIONS:
            raise ConfigError("unknown option", field=f"model.options.{name}", hint=nearest(name, OPTIONS))
        check_type(f"model.options.{name}", OPTIONS[name], value)
    for name, threshold in config.model.merging.items():
        _check_name(f"model.merging.{name}", name, MERGING)
        check_type(f"model.merging.{name}", float, threshold)
    _check_effect(config)
    weighting = config.loss.class_weights
    if isinstance(weighting, str):
        _check_name("loss.class_weights", weighting, WEIGHTINGS)
    _check_terms(config.loss.terms)
    _check_files(config)


def _check_files(config: TrainConfig) -> None:
    """Raises ConfigError for a file of weights that is not there."""
    model = config.model
    files = {
        "pretrained": (model.pretrained, "auto, true, false, or a .safetensors or .pth file of the backbone"),
        "weights": (model.weights, "a model.safetensors of torchfpn, or null"),
    }
    for name, (given, allowed) in files.items():
        if isinstance(given, str) and given != AUTO and not Path(given).is_file():
            raise ConfigError(f"no such file: {given}", field=f"model.{name}", allowed=allowed)


def check_task(config: TrainConfig, task: str, classes: int) -> None:
    """Passes settings that a dataset for this task, with so many classes, listens to.

    Raises:
        ConfigError: one that it would take without effect, or another number of class weights than classes.
    """
    usual = TrainConfig()
    for group, name in _unused_settings(task):
        given, expected = (getattr(getattr(one, group), name) for one in (config, usual))
        if given != expected:
            found = f"{given} with a dataset for {task}"
            raise ConfigError(found, field=f"{group}.{name}", allowed=f"{expected}: it does not use this")
    options = config.model.options
    if task not in ("semantic", "panoptic") and options.get("align_corners"):
        found = f"true with a dataset for {task}"
        raise ConfigError(found, field="model.options.align_corners", allowed="false: it does not use this")
    if task != "panoptic" and "semantic_classes" in options:
        found = f"{options['semantic_classes']} with a dataset for {task}"
        raise ConfigError(found, field="model.options.semantic_classes", hint="leave it out: it does not use this")
    if task != "semantic" and config.data.class_aware and config.data.crop is None:
        found = f"{config.data.class_aware} without a crop"
        raise ConfigError(found, field="data.class_aware", allowed="0, or a --data.crop smaller than the images")
    weights = config.loss.class_weights
    if isinstance(weights, list) and len(weights) != classes:
        raise ConfigError(f"{len(weights)} numbers", field="loss.class_weights", allowed=f"one a class: {classes}")


def _unused_settings(task: str) -> Iterator[tuple[str, str]]:
    """(group, name) of the settings that a dataset for this task does not use."""
    tables = [OF_OBJECTS] if task == "semantic" else [OF_PIXELS]
    for table in tables if task == "panoptic" else [*tables, OF_PANOPTIC]:
        for group, names in table.items():
            if task == "panoptic" and group == "model":  # of the semantic branch
                continue
            yield from ((group, name) for name in names)


def settings(config: Any, prefix: str = "") -> Iterator[tuple[str, "Field[Any]", Any, Any]]:
    """(dotted name, field, type, value) of every setting, groups flattened."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from settings(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field, hints[field.name], value


def known_settings() -> dict[str, Any]:
    """Type of every setting by its dotted name."""
    return {name: kind for name, _, kind, _ in settings(TrainConfig())}


def check_keys(document: dict[str, Any], file: str | Path) -> None:
    """Raises ConfigError for the first key of a config file that is no setting, with the nearest ones."""
    known = known_settings()
    for key, value in document.items():
        if key not in GROUPS:
            _check_key(key, [name for name in known if "." not in name] + list(GROUPS), file)
            continue
        if not isinstance(value, dict):
            raise ConfigError(f"{value!r}", file=file, field=key, allowed="lines of `key: value`, indented")
        inner = [name.removeprefix(f"{key}.") for name in known if name.startswith(f"{key}.")]
        for name in value:
            _check_key(name, inner, file, f"{key}.")


def check_type(name: str, kind: Any, value: Any, file: str | Path | None = None) -> None:
    """Raises ConfigError when `value` is not of the type the setting has."""
    if not _fits(kind, value):
        raise ConfigError(_found(value), file=file, field=name, allowed=describe(kind), hint=meant(kind, value))


def meant(kind: Any, value: Any) -> str | None:
    """The word of a Literal that `value` was probably meant to be, as a hint."""
    inner = get_args(kind)
    words = (
        inner
        if get_origin(kind) is Literal
        else [w for part in inner if get_origin(part) is Literal for w in get_args(part)]
    )
    hint = nearest(value, words) if isinstance(value, str) and words else ""
    return hint if hint.startswith("did you mean") else None


def describe(kind: Any) -> str:
    """A type in words: "a whole number", "batch | group", "a list of numbers or null"."""
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    if kind in words:
        return words[kind]
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin is list:
        return f"a list, each {describe(inner[0])}"
    if origin is tuple:
        return f"a list of {len(inner)}, each {describe(inner[0])}"
    if origin is dict:
        return "lines of `key: value`"
    return " or ".join(dict.fromkeys(describe(part) for part in inner)) if inner else str(kind)


def _fits(kind: Any, value: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(part, value) for part in inner)
    if origin is Literal:
        return value in inner and not isinstance(value, bool)
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(_fits, inner, value))
    if origin is list:
        return isinstance(value, list) and all(_fits(inner[0], item) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _check_key(key: str, known: list[str], file: str | Path, prefix: str = "") -> None:
    if key not in known:
        raise ConfigError("unknown setting", file=file, field=f"{prefix}{key}", hint=nearest(key, known))


def _check_range(name: str, field: "Field[Any]", value: Any) -> None:
    least, most = field.metadata.get("least"), field.metadata.get("most")
    numbers = value if isinstance(value, tuple | list) else (value,)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        below, above = least is not None and not number >= least, most is not None and not number <= most
        if below or above:  # written so that NaN is refused too
            limits = f"{least} to {most}" if most is not None else f"{least} or more"
            raise ConfigError(_short(number), field=name, allowed=limits)
        if not -LARGEST <= number < LARGEST:
            raise ConfigError(_short(number), field=name, allowed="a number below 2^63")


def _found(value: Any) -> str:
    """A value as an error shows it: cut, numbers of many digits as their size."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _short(value)
    try:
        shown = repr(value)
    except ValueError:  # a list with a whole number that Python refuses to write
        shown = f"a {type(value).__name__} with a number with thousands of digits"
    return shown if len(shown) <= SHOWN else shown[: SHOWN - 3] + "..."


def _short(number: int | float) -> str:
    """A number as it is written, or its size: Python refuses to write whole numbers of thousands of digits."""
    if isinstance(number, int) and abs(number) >= LARGEST:
        return f"a number of {int(number.bit_length() * 0.30103) + 1} digits"
    return f"{number}"


def _check_data(config: TrainConfig) -> None:
    if not config.dataset:
        raise ConfigError("none given", field="dataset", hint="--dataset FOLDER, or `dataset:` in the config file")
    if not Path(config.dataset).exists():
        raise ConfigError(f"no such file or folder: {config.dataset}", field="dataset")
    if config.name in (".", "..") or "/" in config.name or "\\" in config.name:
        raise ConfigError(f'"{config.name}"', field="name", allowed="the name of one folder", hint="--out says where")
    low, high = config.data.scale
    if low > high:
        raise ConfigError(f"{low} to {high}", field="data.scale", allowed="the smaller number first")
    shorter = config.data.shorter
    if isinstance(shorter, tuple) and shorter[0] > shorter[1]:
        raise ConfigError(f"{shorter[0]} to {shorter[1]}", field="data.shorter", allowed="the smaller number first")
    crop = config.data.crop
    if crop is not None and min(crop if isinstance(crop, tuple) else (crop,)) < 1:
        raise ConfigError(f"{crop}", field="data.crop", allowed="1 pixel or more")


def _check_effect(config: TrainConfig) -> None:
    """Passes settings that change something, and shares that are shares."""
    plain, usual = ({name: value for name, _, _, value in settings(one)} for one in (config, TrainConfig()))
    for name, (other, values) in LISTENING.items():
        if plain[name] != usual[name] and plain[other] not in values:
            allowed = f"{usual[name]}, or {other}: {' | '.join(values)}"
            raise ConfigError(f"{plain[name]} with {other}: {plain[other]}", field=name, allowed=allowed)
    model = config.model
    if model.rgb is not None and model.fusion == "none" and model.band_init in ("repeat", "mean"):
        found = f"{model.rgb} with band_init: {model.band_init}"
        raise ConfigError(found, field="model.rgb", allowed="null, or --model.band_init copy | zero, or a fusion")
    for name in ("limit_train_batches", "limit_val_batches"):
        share = plain[name]
        if isinstance(share, float) and not 0 < share <= 1:
            raise ConfigError(f"{share}", field=name, allowed="a whole number, or a share above 0, up to 1.0")
    if config.limit_train_batches == 0:
        raise ConfigError("0", field="limit_train_batches", allowed="1 step or more, or a share above 0, up to 1.0")
    for word in filter(None, map(str.strip, config.freeze.split(","))):
        _check_name("freeze", word.partition(".")[0], PARTS)


def _check_band_init(how: str | dict[str | int, str]) -> None:
    if isinstance(how, str):
        _check_name("model.band_init", how, BAND_INITS)
        return
    for band, color in how.items():
        _check_name(f"model.band_init.{band}", color, COLORS)


def _check_terms(terms: str) -> None:
    for term in terms.split("+"):
        name = term.rpartition("*")[2].strip()
        _check_name("loss.terms", name, TERMS)


def _check_name(field: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ConfigError(f'"{name}"', field=field, allowed=" | ".join(known), hint=nearest(name, known))
