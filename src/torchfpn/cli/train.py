"""Trains a model on a dataset; every setting is a flag and a line of the YAML config."""

import logging
import sys
from collections.abc import Sequence

from torchfpn.config import read_config, to_yaml


def main(argv: Sequence[str]) -> int:
    """Exit code: 0 done; 1 the last checkpoint could not be written; 130, 143 stopped by a signal, state saved."""
    words = [word for word in argv if word not in ("-v", "--verbose")]
    logging.basicConfig(level=logging.INFO if len(words) < len(argv) else logging.WARNING, format="fpn: %(message)s")
    request = read_config(words)
    if request.print_config:
        print(to_yaml(request.config), end="")
        return 0
    from torchfpn.train.run import fit
    from torchfpn.train.signals import Interrupted

    try:
        result = fit(request.config)
    except Interrupted as stop:
        saved = "the state is saved" if stop.saved else "the last saved state is kept"
        print(f"fpn: stopped by {stop}; {saved}, go on with --resume", file=sys.stderr)
        return stop.exit_code
    if result.unsaved:
        print(f"fpn: the last checkpoint could not be written: {result.unsaved}", file=sys.stderr)
        return 1
    return 0
