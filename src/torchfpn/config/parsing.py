"""The training configuration from YAML files and the flags of `fpn train`, and back to YAML.

Later values win: defaults, then each ``--config`` file in turn, then the flags (``--model.backbone resnet18``).
jsonargparse reads the flags; torch is not imported.
"""

import contextlib
import json
import os
import re
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from torchfpn.config.checks import check, check_keys, check_type, describe, known_settings, meant, settings
from torchfpn.config.settings import AUTO, GROUPS, TrainConfig
from torchfpn.errors import ConfigError, nearest
from torchfpn.io.yaml_json import read_yaml

SHOWN = 80  # characters of a value that cannot be
OWN_FLAGS = ("config", "print-config", "ckpt-path", "device", "help")
DEVICES = ("auto", "cpu", "cuda", "gpu", "mps")
MISMATCH = re.compile(r'key "(?P<key>[\w.]+)":?\s*(?P<rest>.*)', re.DOTALL)

EPILOG = """examples:
  fpn train --config configs/demo.yaml
  fpn train --config configs/demo.yaml --lr 5e-4 --model.backbone resnet18
  fpn train --dataset data/semantic --data.crop 256 --max-epochs 20
  fpn train --resume --config configs/demo.yaml     (or: --resume runs/demo)
"""

PATHS = ("dataset", "model.pretrained", "model.weights", "resume")  # settings that name a file
UNTOLD = ("name", "out", "resume", "overwrite", "num_workers", "data.cache")  # they change nothing that is learnt


def parser() -> Any:
    """A jsonargparse parser with a flag for every setting, in groups, with defaults and help."""
    from jsonargparse import ArgumentParser

    made = ArgumentParser(
        prog="fpn train",
        description="Trains a model on a dataset; every setting is a flag and a key of the YAML config.",
        epilog=EPILOG,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=_formatter(),
    )
    made.add_argument("--config", metavar="FILE", help="YAML file of settings; of several, later ones override")
    made.add_argument("--print-config", action="store_true", help="print the resolved config and exit")
    made.add_argument("--device", metavar="NAME", help="cpu, cuda, mps or auto: short for --accelerator")
    made.add_argument("-v", "--verbose", action="store_true", help="print more")
    made.add_argument("-q", "--quiet", action="store_true", help="print less")
    made.add_argument("--debug", action="store_true", help="print tracebacks of errors")
    sections = {group: made.add_argument_group(f"{group}", kind.__doc__) for group, kind in GROUPS.items()}
    for name, field, kind, default in settings(TrainConfig()):
        section = sections.get(name.split(".")[0], made)
        flag = f"--{name.replace('_', '-')}"
        section.add_argument(flag, type=kind, default=default, help=field.metadata["help"])
    return made


def _formatter() -> type:
    from jsonargparse import DefaultHelpFormatter

    class Formatter(DefaultHelpFormatter):  # type: ignore[misc] # no types
        def _fill_text(self, text: str, width: int, indent: str) -> str:  # keeps the line breaks of the examples
            return "".join(indent + line for line in text.splitlines(keepends=True))

        def _get_help_string(self, action: Any) -> Any:
            if action.nargs == 0 or action.default in (None, ""):
                return action.help
            default = str(action.default).lower() if isinstance(action.default, bool) else "%(default)s"
            return f"{action.help} (default: {default})"

    return Formatter


def spell(argv: Sequence[str]) -> list[str]:
    """The words with each flag as the parser knows it, and a bare ``--flag`` of a switch as ``--flag=true``.

    Settings may be written with hyphens or underscores; what follows ``--model.options.`` is spelt as it is.
    """
    known = known_settings()
    switches = {name for name, kind in known.items() if kind is bool or bool in get_args(kind)}
    words = []
    for position, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        name = flag[2:].replace("-", "_") if flag.startswith("--") else ""
        if name.startswith("model.options."):
            flag = f"--{name}"
        elif name:
            flag = f"--{name.replace('_', '-')}"
        bare = not equals and (position + 1 == len(argv) or argv[position + 1].startswith("--"))
        words.append(f"{flag}=true" if bare and name in switches else f"{flag}{equals}{value}")
    return words


def own_flags(words: list[str]) -> tuple[list[Path], list[str], bool]:
    """(config files, the other words, --print-config).

    ``--ckpt-path last`` is Lightning's word for --resume, ``--device`` that of the other verbs for --accelerator.
    """
    files: list[Path] = []
    others: list[str] = []
    queue = iter(words)
    for word in queue:
        flag, equals, value = word.partition("=")
        if flag in ("--config", "--ckpt-path", "--device") and not equals:
            value = next(queue, "")
            if not value:
                raise ConfigError("no value", field=flag)
        if flag == "--config":
            files.append(Path(value))
        elif flag == "--ckpt-path":
            others.append("--resume=true" if value == "last" else f"--resume={value}")
        elif flag == "--device":
            others.append(f"--accelerator={_accelerator(value)}")
        else:
            others.append(word)
    return files, [word for word in others if word != "--print-config"], "--print-config" in others


def _accelerator(device: str) -> str:
    """The kind of device that ``--device`` names."""
    if device not in DEVICES:
        kind, _, number = device.partition(":")
        hint = f"choose one of several GPUs with CUDA_VISIBLE_DEVICES={number}" if kind == "cuda" and number else None
        hint = hint or nearest(device, DEVICES)
        raise ConfigError(f'"{device}"', field="--device", allowed=" | ".join(DEVICES), hint=hint)
    return device


def explain(message: str) -> ConfigError:
    """The message of jsonargparse in our words."""
    known = [*known_settings(), *OWN_FLAGS]
    flags = [f"--{name.replace('_', '-')}" for name in known]
    if "unrecognized arguments:" in message:
        stranger = message.split("unrecognized arguments:")[1].split()[0]
        name = stranger.removeprefix("--").partition("=")[0]
        hint = nearest(f"--{name}", flags)
        hint = hint if stranger.startswith("-") else "every setting is a --flag"
        return ConfigError("unknown flag", field=stranger.partition("=")[0], hint=hint)
    match = MISMATCH.search(message)
    if match and match["key"] in known:
        found = re.split(r"(?:Got|Given) value:", match["rest"])[-1].strip()
        found = "a number with thousands of digits" if found.startswith("Exceeds the limit") else found[:SHOWN]
        kind = known_settings()[match["key"]]
        return ConfigError(f'"{found}"', field=match["key"], allowed=describe(kind), hint=meant(kind, found))
    if lacking := re.match(r"argument (?P<flag>--[\w.-]+): expected", message):
        name = lacking["flag"][2:].replace("-", "_")
        kind = describe(known_settings()[name]) if name in known_settings() else "a value"
        return ConfigError("no value", field=lacking["flag"], allowed=kind)
    return ConfigError(" ".join(message.split()))


@dataclass(frozen=True)
class Request:
    """What the command line asks for: the config, the file it came from, and whether only to print it.

    notes: what was changed on the way, a line each.
    """

    config: TrainConfig
    file: Path | None = None
    print_config: bool = False
    notes: tuple[str, ...] = ()


def read_config(argv: Sequence[str]) -> Request:
    """The config of a command line, checked.

    Raises:
        ConfigError: an unknown key or flag (with the nearest names), a wrong type, a value out of range.
        SystemExit: after --help.
    """
    flags = parser()
    files, words, print_config = own_flags(spell(argv))
    if not files:
        files = _config_of_resumed(words)
    values: dict[str, Any] = {}
    notes: list[str] = []
    for file in files:
        _merge(values, _from_file(file), notes)
    try:
        base = flags.parse_object(_group(values))
        namespace = flags.parse_args(words, namespace=base)
    except ArgumentError as error:
        raise explain(str(error)) from error
    except OverflowError as error:  # a whole number of hundreds of digits where a fraction may stand
        found, allowed = "a number with hundreds of digits", "a number below 2^63"
        raise ConfigError(found, field=_longest(values, words), allowed=allowed) from error
    config = from_plain(namespace.as_dict())
    if any(word.startswith("--model.pretrained") for word in words):
        notes.clear()
    elif _lost_weights(values, config.model.backbone):
        notes.append(_told(values, config.model.backbone))
        config = replace(config, model=replace(config.model, pretrained=AUTO))
    config = named(config, files[-1] if files else None)
    check(config)
    return Request(config, files[-1] if files else None, print_config, tuple(notes))


def _longest(values: dict[str, Any], words: Sequence[str]) -> str | None:
    """The setting with the longest number, in files (by dotted names) or in flags."""
    told = {name: str(value) for name, value in values.items()}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            told[flag[2:].replace("-", "_")] = value if equals else following
    digits = {name: max(map(len, re.findall(r"\d+", text)), default=0) for name, text in told.items()}
    return max(digits, key=lambda name: digits[name], default=None)


def load_config(path: str | Path) -> TrainConfig:
    """The config of one YAML file, checked. Paths in it are relative to the file, or else to the current folder.

    Raises:
        ConfigError: see `read_config`.
    """
    return read_config(["--config", str(path)]).config


def from_plain(values: dict[str, Any]) -> TrainConfig:
    """Nested plain values -> TrainConfig; what is absent keeps its default.

    Raises:
        ConfigError: a value of the wrong type.
    """
    known = known_settings()
    flat = {name: _as(known[name], value) for name, value in _flatten(values).items()}
    for name, value in flat.items():
        check_type(name, known[name], value)
    groups = {group: kind(**_inside(flat, group)) for group, kind in GROUPS.items()}
    return TrainConfig(**{name: value for name, value in flat.items() if "." not in name}, **groups)


def to_yaml(config: TrainConfig, *, folder: str | Path | None = None) -> str:
    """The config as YAML that `load_config` reads back. folder: where it will lie; paths are written relative to it."""
    values = _flatten(asdict(config))
    for name in PATHS:
        path = values[name]
        if folder is not None and _names_file(name, path) and Path(path).exists():
            values[name] = os.path.relpath(Path(path).resolve(), Path(folder).resolve())
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    text: str = yaml.safe_dump(_group(plain), sort_keys=False, allow_unicode=True, width=120)
    return text


def changed_settings(file: Path, config: TrainConfig) -> list[str]:
    """What `config` sets otherwise than the config that was written to `file`: "lr: 0.01, was 0.001".

    Settings that say only where the run lies and how its images are loaded do not count. Nothing without a file that
    can be read.
    """
    try:
        before = {**_flatten(asdict(TrainConfig())), **_from_file(file)} if file.is_file() else {}
    except ConfigError:  # of another version, say
        return []
    now = _flatten(asdict(config))
    return [
        f"{name}: {_in_yaml(now[name])}, was {_in_yaml(was)}"
        for name, was in before.items()
        if name not in UNTOLD and _comparable(name, was) != _comparable(name, now[name])
    ]


def recorded_setting(file: Path, name: str) -> Any:
    """What the config file sets under this dotted name; None where it does not, or cannot be read."""
    try:
        return _from_file(file).get(name) if file.is_file() else None
    except ConfigError:  # of another version, say
        return None


def _comparable(name: str, value: Any) -> Any:
    return os.path.realpath(value) if _names_file(name, value) else value


def _names_file(name: str, value: Any) -> bool:
    return name in PATHS and isinstance(value, str) and value != "" and (name, value) != ("model.pretrained", AUTO)


def _in_yaml(value: Any) -> str:
    """A value as people write it in YAML, on one line."""
    plain = list(value) if isinstance(value, tuple) else value
    return str(yaml.safe_dump([plain], default_flow_style=True, allow_unicode=True, width=10**9)).strip()[1:-1]


def _config_of_resumed(words: list[str]) -> list[Path]:
    """``--resume runs/name`` alone: the config that lies in that folder."""
    value = ""
    for position, word in enumerate(words):
        flag, _, given = word.partition("=")
        if flag == "--resume":
            value = given or "".join(words[position + 1 : position + 2])
    path = Path(value)
    folder = path.parent.parent if path.is_file() else path
    return [folder / "config.yaml"] if value not in ("", "true", "false") and (folder / "config.yaml").is_file() else []


def _from_file(file: Path) -> dict[str, Any]:
    """The settings of one file by dotted name, types checked, paths found."""
    document = read_yaml(file)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"a {type(document).__name__}", file=file, allowed="lines of `key: value`")
    check_keys(document, file)
    known, flat = known_settings(), _flatten(document)
    for name, value in flat.items():
        flat[name] = _as(known[name], value)
        check_type(name, known[name], flat[name], file)
    for name in PATHS:
        if _names_file(name, flat.get(name)) and (file.parent / flat[name]).exists():
            flat[name] = os.path.normpath(file.parent / flat[name])
    return flat


def _as(kind: Any, value: Any) -> Any:
    """YAML has no tuples, and takes 1e-3 for text: both become what the setting is."""
    kinds = (kind, *(get_args(kind) if not isinstance(kind, type) else ()))
    if isinstance(value, list) and any(get_origin(part) is tuple for part in kinds):
        return tuple(value)
    if isinstance(value, str) and float in kinds and str not in kinds:
        with contextlib.suppress(ValueError):
            return float(value)
    if get_origin(kind) is dict and isinstance(value, dict):
        return {name: _spoken(inner) if isinstance(inner, dict) else inner for name, inner in value.items()}
    return value


def _spoken(options: dict[str, Any]) -> dict[str, Any]:
    """Options of an option come from flags as text (``--model.options.pyramid_options.act false``)."""
    meant = dict(options)
    for name, value in options.items():
        with contextlib.suppress(ValueError):
            meant[name] = json.loads(value) if isinstance(value, str) else value
    return meant


def _flatten(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    known = known_settings()
    for key, value in values.items():
        if key in GROUPS:
            flat |= {f"{key}.{name}": inner for name, inner in value.items()}
        elif key in known:
            flat[key] = value
    return flat


def _group(flat: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in flat.items():
        group, dot, inner = name.partition(".")
        if dot:
            plain.setdefault(group, {})[inner] = value
        else:
            plain[name] = value
    return plain


def _merge(values: dict[str, Any], more: dict[str, Any], notes: list[str]) -> None:
    """Adds the settings of a later file, in place."""
    backbone = more.get("model.backbone")
    if backbone is not None and "model.pretrained" not in more and _lost_weights(values, backbone):
        notes.append(_told(values, backbone))
        values["model.pretrained"] = AUTO
    options = {**values.get("model.options", {}), **more.get("model.options", {})}
    values |= more
    if options:
        values["model.options"] = options


def _lost_weights(values: dict[str, Any], backbone: str) -> bool:
    """Whether the weights that a file names belong to another backbone than the one asked for later."""
    before = values.get("model.backbone", TrainConfig().model.backbone)
    return _names_file("model.pretrained", values.get("model.pretrained")) and before != backbone


def _told(values: dict[str, Any], backbone: str) -> str:
    weights, before = values["model.pretrained"], values.get("model.backbone", TrainConfig().model.backbone)
    return f"{weights} is left out: weights of {before}; --model.pretrained gives {backbone} others"


def _inside(flat: dict[str, Any], group: str) -> dict[str, Any]:
    return {name.removeprefix(f"{group}."): value for name, value in flat.items() if name.startswith(f"{group}.")}


def named(config: TrainConfig, file: Path | None = None) -> TrainConfig:
    """A name for the run folder, where none is given: the config file's, or the dataset's."""
    if config.name or not config.dataset:
        return config
    dataset = Path(config.dataset)
    name = dataset.resolve().parent.name if dataset.name == "dataset.yaml" else dataset.resolve().stem
    return replace(config, name=file.stem if file is not None else name)
