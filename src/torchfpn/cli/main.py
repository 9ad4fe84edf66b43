"""The command `fpn`: finds the verb, hands it the arguments, turns errors into one line and an exit code.

Exit codes: 0 done; 1 done in part (a source failed, the others did not); 2 bad input; 130, 143 stopped by a signal.
Nothing heavy is imported before a verb needs it.
"""

import argparse
import contextlib
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from torchfpn.errors import ConfigError, FPNError, missing_package, nearest, require
from torchfpn.io.formats import check_regular
from torchfpn.printing import doors, log_to_stderr, occupy_closed

SIGPIPE_CODE = 141  # 128 + 13; Windows has no such signal

VERBS = {
    "demo": "the whole workflow in one command: data, training, evaluation, a predicted map, a report",
    "check": "validate a dataset before training; --init writes a first dataset.yaml",
    "weights": "class weights from label frequencies",
    "train": "train from a YAML config and flags; --resume continues an interrupted run",
    "evaluate": "score a model on a dataset, or a predicted map against the truth",
    "predict": "predict images and folders with a model",
    "rasterize": "rasterize polygons to label masks on the grid of images",
    "panoptic-from": "build a panoptic dataset from objects and labels of pixels",
    "compare": "draw images beside their truth, prediction and differences",
    "polygons": "vectorize label rasters, clean vector files: merge, right angles, exclude a layer",
    "convert": "convert a checkpoint of another project",
    "info": "print the contents of a model file: task, classes, bands, scaling, size",
}

NEEDS = {  # extras without which a verb can do nothing at all
    "demo": ("raster",),  # and train, but for --data
    "train": ("train",),
    "rasterize": ("raster",),
    "compare": ("raster",),
    "polygons": ("raster",),
}

CURES = {  # flags that hints name -> what to do in verbs without them
    "--allow-vrt": "write its pixels to a file of their own: gdal_translate FILE.vrt FILE.tif",
    "--layer": "write the one you mean to a file of its own: ogr2ogr ONE.gpkg FILE LAYER",
    "--max-side": "cut it into parts: gdal_retile.py",
    "--accept-dtype": "train and evaluate on files of one pixel type",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    occupy_closed()
    with doors() as out:
        try:
            code = _answer(words)
            out.flush()
        except BrokenPipeError:  # `fpn ... | head`
            _drop_the_rest()
            return SIGPIPE_CODE
        if out.failure is None:
            return code
        error = ConfigError(f"cannot be written to ({out.failure.strerror or out.failure})", file="standard output")
        print(f"fpn: {error}", file=sys.stderr)
        _drop_the_rest()
        return code or 1


def _answer(words: list[str]) -> int:
    """Runs one verb and says its errors; the exit code."""
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(_version())
        return 0
    debug = "--debug" in words
    try:
        return _run(words[0], [word for word in words[1:] if word != "--debug"])
    except BrokenPipeError:
        raise
    except (FPNError, OSError, ModuleNotFoundError) as error:
        return _fail(_line_of(error, words[0]), debug)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except SystemExit as stop:  # argparse: 0 after --help
        return stop.code if isinstance(stop.code, int) else 2


def _line_of(error: FPNError | OSError | ModuleNotFoundError, verb: str) -> str:
    """What is said of an error."""
    if isinstance(error, ModuleNotFoundError):
        return _missing(error)
    return _with_cure_of(verb, error) if isinstance(error, FPNError) else _reason(error)


def _with_cure_of(verb: str, error: FPNError) -> str:
    """The error's line. A hint that names a flag which the verb lacks gives way to another cure, or is left out.

    Hints are written where files are read, which serves several verbs. "fpn check --init" names its verb itself.
    """
    flags = re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", error.hint or "")
    if verb not in VERBS or not flags or "fpn " in (error.hint or ""):
        return str(error)
    known = _flags(verb)
    lacking = next((flag for flag in flags if flag not in known), None)
    if lacking is None or (verb == "train" and lacking not in CURES):  # its settings have more names than its flags
        return str(error)
    return str(
        FPNError(error.found, file=error.file, field=error.field, allowed=error.allowed, hint=CURES.get(lacking))
    )


def _flags(verb: str) -> set[str]:
    """The flags of a verb; of `train` those that its help shows."""
    module = _module(verb)
    return set() if hasattr(module, "main") else set(_parser(verb, module)._option_string_actions)


def _module(verb: str) -> Any:
    """The module of a verb."""
    return import_module(f"torchfpn.cli.{verb.replace('-', '_')}")


def _reason(error: OSError) -> str:
    """What an error of the system says, with the file it is about."""
    file = next(
        (name for name in (error.filename2, error.filename) if isinstance(name, str | bytes | os.PathLike)), None
    )
    return str(FPNError(error.strerror or str(error), file=None if file is None else os.fsdecode(file)))


def _drop_the_rest() -> None:
    """What is still buffered for stdout goes nowhere, so that it fails no second time when Python ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no file of the system; closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(verb: str, words: list[str]) -> int:
    if odd := next((word for word in words if "\0" in word), ""):
        raise ConfigError(f'"{odd}"', allowed="words without a zero byte")
    for word in words:
        check_regular(word.partition("=")[2] if word.startswith("--") else word)
    if verb not in VERBS:
        raise FPNError(f'unknown command "{verb}"', hint=nearest(verb, VERBS))
    module = _module(verb)
    if not {"-h", "--help"} & set(words):
        for extra in NEEDS.get(verb, ()):
            require(extra, f"fpn {verb}")
    if hasattr(module, "main"):
        return int(module.main(words))
    parser = _parser(verb, module)
    args = parser.parse_args(_hyphens(words))
    args.usual = {name: parser.get_default(name) for name in vars(args)}
    level = logging.ERROR if args.quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(args.verbose, 2)]
    log_to_stderr(level)
    return int(module.run(args))


def _parser(verb: str, module: Any) -> "_Parser":
    """The parser of a verb: its own flags and those that all verbs have."""
    parser = _Parser(prog=f"fpn {verb}", description=module.__doc__, formatter_class=_Formatter, allow_abbrev=False)
    module.add_arguments(parser)
    parser.add_argument("-v", "--verbose", action="count", default=0, help="print more")
    parser.add_argument("-q", "--quiet", action="store_true", help="print less")
    parser.add_argument("--debug", action="store_true", help="print tracebacks of errors")
    return parser


def _hyphens(words: list[str]) -> list[str]:
    """The words with the underscores of flags as hyphens: --max_pixels is --max-pixels. What follows "--" stays."""
    spelt: list[str] = []
    for position, word in enumerate(words):
        if word == "--":
            return spelt + words[position:]
        flag, equals, value = word.partition("=")
        spelt.append(f"{flag.replace('_', '-')}{equals}{value}" if flag.startswith("--") else word)
    return spelt


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The verb's docstring as it is written, and beside the options their defaults, where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_default = action.default is not None and action.default is not False and action.nargs != 0
        return super()._get_help_string(action) if has_default else action.help


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line of ours instead of the usage."""

    def error(self, message: str) -> NoReturn:
        """Raises the ConfigError that says what argparse says."""
        help_hint = f"see {self.prog} --help"
        if "arguments are required: " in message:
            raise ConfigError("missing", field=message.split("required: ")[1], hint=help_hint)
        if "unrecognized arguments: " in message:
            raise self._unknown((message.split("arguments: ")[1].split() or [" "])[0], help_hint)
        match = re.match(r"argument (?P<field>[^:]+): (?P<rest>.*)", message, re.DOTALL)
        raise _wrong_value(match["field"], match["rest"], help_hint) if match else ConfigError(message, hint=help_hint)

    def _unknown(self, word: str, help_hint: str) -> ConfigError:
        flag = word.partition("=")[0]
        if not flag.startswith("-"):
            return ConfigError(f'"{word}"', allowed="no further argument", hint=help_hint)
        shown = [action for action in self._actions if action.help != argparse.SUPPRESS]
        flags = [name for action in shown for name in action.option_strings if name.startswith("--")]
        return ConfigError("unknown flag", field=flag, hint=nearest(flag, flags))


def _wrong_value(field: str, rest: str, help_hint: str) -> ConfigError:
    """What argparse says about the value of one flag, in our words."""
    field = field.rpartition("/")[2]
    if choice := re.match(r"invalid choice: '?(?P<found>.*?)'? \(choose from (?P<known>.*)\)$", rest):
        known = choice["known"].replace("'", "").split(", ")
        hint = nearest(choice["found"], known)
        hint = hint if hint.startswith("did you mean") else help_hint
        return ConfigError(f'"{choice["found"]}"', field=field, allowed=" | ".join(known), hint=hint)
    if kind := re.match(r"invalid (?P<kind>int|float) value: '(?P<found>.*)'$", rest):
        allowed = {"int": "a whole number", "float": "a number"}[kind["kind"]]
        return ConfigError(f'"{kind["found"]}"', field=field, allowed=allowed)
    if rest.startswith("expected "):
        return ConfigError("no value", field=field, allowed=rest.removeprefix("expected "), hint=help_hint)
    return ConfigError(rest, field=field, hint=help_hint)


def _fail(line: str, debug: bool) -> int:
    if debug:
        logging.getLogger(__name__).error(line, exc_info=True)
    print(f"fpn: {line}", file=sys.stderr)
    return 2


def _missing(error: ModuleNotFoundError) -> str:
    """What to install, for a package of an extra; any other is a fault of ours."""
    missing = missing_package((error.name or "").split(".")[0])
    if missing is None:
        raise error
    return str(missing)


def _overview() -> str:
    width = max(map(len, VERBS))
    rows = "\n".join(f"  {verb:<{width}}  {does}" for verb, does in VERBS.items())
    more = "Help on a command: fpn COMMAND --help. Version: fpn --version."
    return f"fpn: feature pyramid networks, from pixels to maps\n\n{rows}\n\n{more}"


def _version() -> str:
    from torchfpn import __version__

    return f"torchfpn {__version__}"


if __name__ == "__main__":
    sys.exit(main())
