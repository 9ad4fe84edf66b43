"""Trains a model on a dataset; every setting is a flag and a line of the YAML config."""

import logging
import os
import sys
from collections.abc import Sequence

from torchfpn.config.checks import check_task
from torchfpn.config.parsing import read_config, to_yaml
from torchfpn.data.config import read_dataset
from torchfpn.printing import log_to_stderr

VERBOSE, QUIET = ("-v", "--verbose"), ("-q", "--quiet")


def main(argv: Sequence[str]) -> int:
    """Exit code: 0 done; 1 the last checkpoint could not be written; 130, 143 stopped by a signal, state saved."""
    words = [word for word in argv if word not in VERBOSE + QUIET]
    verbose, is_quiet = any(word in VERBOSE for word in argv), any(word in QUIET for word in argv)
    level = logging.INFO if verbose else logging.ERROR if is_quiet else logging.WARNING
    log_to_stderr(level)
    request = read_config(words)
    if request.print_config:
        print(to_yaml(request.config), end="")
        return 0
    for note in request.notes if not is_quiet else ():
        print(f"fpn: {note}", file=sys.stderr)
    dataset = read_dataset(request.config.dataset)  # what is wrong in it is said before torch is imported
    check_task(request.config, dataset.task, len(dataset.classes))
    from torchfpn import fit
    from torchfpn.report.console import Console
    from torchfpn.train.run_folder import Interrupted

    try:
        result = fit(request.config, console=Console(stderr=True, quiet=is_quiet))
    except Interrupted as stop:
        if os.environ.get("LOCAL_RANK", "0") != "0":  # of several processes the first one speaks
            return stop.exit_code
        saved = "the state is saved" if stop.saved else "the last saved state is kept"
        print(f"fpn: stopped by {stop}; {saved}, continue with --resume", file=sys.stderr)
        return stop.exit_code
    if result.unsaved:
        print(f"fpn: the last checkpoint could not be written: {result.unsaved}", file=sys.stderr)
        return 1
    return 0
