"""The flags of `fpn train`: one for every setting, read by jsonargparse, its complaints put into our words."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from torchfpn.config.check import describe, known_settings, meant, settings
from torchfpn.config.settings import GROUPS, TrainConfig
from torchfpn.errors import ConfigError, nearest

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
