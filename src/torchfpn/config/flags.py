"""The flags of `fpn train`: one for every setting, read by jsonargparse, its complaints put into our words."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from torchfpn.config.check import describe, known_settings, meant, settings
from torchfpn.config.settings import GROUPS, TrainConfig
from torchfpn.errors import ConfigError, nearest

OWN_FLAGS = ("config", "print_config", "ckpt_path", "help")
MISMATCH = re.compile(r'key "(?P<key>[\w.]+)":?\s*(?P<rest>.*)', re.DOTALL)
EPILOG = """examples:
  fpn train --config configs/camvid.yaml
  fpn train --config configs/camvid.yaml --lr 5e-4 --model.backbone resnet18
  fpn train --dataset data/roofs --data.crop 256 --max_epochs 20
  fpn train --resume --config configs/camvid.yaml     (or: --resume runs/camvid)
"""


def parser() -> Any:
    """A jsonargparse parser with a flag for every setting, in groups, with defaults and help."""
    from jsonargparse import ArgumentParser

    made = ArgumentParser(
        prog="fpn train",
        description="Trains a model on a dataset; every setting is a flag and a line of the YAML config.",
        epilog=EPILOG,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=_formatter(),
    )
    made.add_argument("--config", metavar="FILE", help="YAML file of settings; several: the later wins")
    made.add_argument("--print_config", action="store_true", help="print the resolved config and stop")
    sections = {group: made.add_argument_group(f"{group}", kind.__doc__) for group, kind in GROUPS.items()}
    for name, field, kind, default in settings(TrainConfig()):
        section = sections.get(name.split(".")[0], made)
        section.add_argument(f"--{name}", type=kind, default=default, help=field.metadata["help"])
    return made


def _formatter() -> type:
    from jsonargparse import DefaultHelpFormatter

    class Formatter(DefaultHelpFormatter):  # type: ignore[misc] # no types; keeps the line breaks of the examples
        def _fill_text(self, text: str, width: int, indent: str) -> str:
            return "".join(indent + line for line in text.splitlines(keepends=True))

    return Formatter


def spell(argv: Sequence[str]) -> list[str]:
    """The words with hyphens of flags as underscores, and a bare ``--flag`` of a switch as ``--flag=true``."""
    switches = {name for name, kind in known_settings().items() if kind is bool or bool in get_args(kind)}
    words = []
    for position, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            flag = "--" + flag[2:].replace("-", "_")
        bare = not equals and (position + 1 == len(argv) or argv[position + 1].startswith("--"))
        words.append(f"{flag}=true" if bare and flag[2:] in switches else f"{flag}{equals}{value}")
    return words


def own_flags(words: list[str]) -> tuple[list[Path], list[str], bool]:
    """(config files, the other words, --print_config); ``--ckpt_path last`` is Lightning's word for --resume."""
    files: list[Path] = []
    others: list[str] = []
    queue = iter(words)
    for word in queue:
        flag, equals, value = word.partition("=")
        if flag in ("--config", "--ckpt_path") and not equals:
            value = next(queue, "")
            if not value:
                raise ConfigError("no value", field=flag)
        if flag == "--config":
            files.append(Path(value))
        elif flag == "--ckpt_path":
            others.append("--resume=true" if value == "last" else f"--resume={value}")
        else:
            others.append(word)
    return files, [word for word in others if word != "--print_config"], "--print_config" in others


def explain(message: str) -> ConfigError:
    """The message of jsonargparse in our words."""
    known = [*known_settings(), *OWN_FLAGS]
    if "unrecognized arguments:" in message:
        stranger = message.split("unrecognized arguments:")[1].split()[0]
        name = stranger.removeprefix("--").partition("=")[0]
        hint = nearest(f"--{name}", [f"--{flag}" for flag in known])
        hint = hint if stranger.startswith("-") else "every setting is a --flag"
        return ConfigError("there is no such flag", field=stranger.partition("=")[0], hint=hint)
    match = MISMATCH.search(message)
    if match and match["key"] in known:
        found = re.split(r"(?:Got|Given) value:", match["rest"])[-1].strip()
        kind = known_settings()[match["key"]]
        return ConfigError(f'"{found}"', field=match["key"], allowed=describe(kind), hint=meant(kind, found))
    return ConfigError(" ".join(message.split()))
