"""The command `fpn`: finds the verb, hands it the arguments, turns errors into one line and an exit code.

Exit codes: 0 done; 1 done in part (a source failed, the others did not); 2 bad input; 130, 143 stopped by a signal.
Nothing heavy is imported before a verb needs it.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from torchfpn.errors import FPNError, nearest

VERBS = {
    "demo": "the whole job in one command: make scenes, train, evaluate, predict a map, report",
    "check": "validate a dataset before training; --init writes a first dataset.yaml",
    "weights": "class weights from label frequencies",
    "train": "train from a YAML config and flags; --resume goes on after a kill",
    "evaluate": "IoU per class of a model on a dataset, or of a map against the truth; objects of polygons",
    "predict": "label images and folders with a model",
    "rasterize": "polygons to label masks on the grid of images",
    "compare": "pictures of images beside their truth, prediction and differences",
    "polygons": "label maps and vector files to clean polygons: merged, right-angled, without known ones",
    "convert": "take over a checkpoint of another project",
    "info": "what is in a model file: task, classes, bands, scaling, size",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(_version())
        return 0
    debug = "--debug" in words
    try:
        return _run(words[0], [word for word in words[1:] if word != "--debug"])
    except FPNError as error:
        return _fail(str(error), debug)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `fpn ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except ModuleNotFoundError as error:
        return _fail(_missing(error), debug) if _missing(error) else _reraise(error)
    except SystemExit as stop:  # argparse: 0 after --help, 2 after a usage error
        return stop.code if isinstance(stop.code, int) else 2


def _run(verb: str, words: list[str]) -> int:
    if verb not in VERBS:
        raise FPNError(f'there is no "fpn {verb}"', hint=nearest(verb, VERBS))
    module = import_module(f"torchfpn.cli.{verb}")
    if hasattr(module, "main"):
        return int(module.main(words))
    parser = argparse.ArgumentParser(prog=f"fpn {verb}", description=module.__doc__, formatter_class=_Formatter)
    module.add_arguments(parser)
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say more")
    parser.add_argument("-q", "--quiet", action="store_true", help="say less")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    args = parser.parse_args(words)
    level = logging.ERROR if args.quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(args.verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    return int(module.run(args))


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The verb's docstring as it is written, and defaults beside the options."""


def _fail(line: str, debug: bool) -> int:
    if debug:
        logging.getLogger(__name__).error(line, exc_info=True)
    print(f"fpn: {line}", file=sys.stderr)
    return 2


def _reraise(error: Exception) -> int:
    raise error


def _missing(error: ModuleNotFoundError) -> str:
    """What to install, for a package that is an extra; empty for any other."""
    extras = {"train": ("lightning", "matplotlib", "tensorboard"), "raster": ("rasterio", "shapely", "pyogrio")}
    name = (error.name or "").split(".")[0]
    for extra, packages in extras.items():
        if name in packages:
            return f'{name} is not installed; pip install "torchfpn[{extra}]"'
    return ""


def _overview() -> str:
    width = max(map(len, VERBS))
    rows = "\n".join(f"  {verb:<{width}}  {does}" for verb, does in VERBS.items())
    return f"fpn: feature pyramid networks, from pixels to maps\n\n{rows}\n\nfpn VERB --help tells more; fpn --version."


def _version() -> str:
    from torchfpn import __version__

    return f"torchfpn {__version__}"


if __name__ == "__main__":
    sys.exit(main())
