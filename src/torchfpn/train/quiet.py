"""Lightning without its chatter: what it would say is said by `torchfpn.train.progress`, shorter."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning", "pytorch_lightning", "lightning_fabric")
CHATTER = (
    r".*does not have many workers.*",
    r".*number of training batches.*smaller than the logging interval.*",
    r".*module\(s\) in eval mode.*",
    r".*not resumable.*",
    r".*`enable_progress_bar`.*",
    r".*Checkpoint directory.*",
    r".*you defined a `validation_step` but have no `val_dataloader`.*",
    r".*barrier\(\): using the device under current context.*",
    r".*isinstance\(treespec, LeafSpec\).*",
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within the block Lightning's tips, warnings and device lines are not shown."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in CHATTER:
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
