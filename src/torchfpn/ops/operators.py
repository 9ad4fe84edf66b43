"""Operations of our own that torch takes for one: exported and compiled graphs call them and do not look inside.

Defined by schema: `torch.library.custom_op` would import the whole compiler (seconds) at the first call.
"""

from collections.abc import Callable
from typing import Any

import torch


def operator(
    name: str,
    schema: str,
    run: Callable[..., Any],
    shape: Callable[..., Any],
    *,
    gradient: Callable[..., Any] | None = None,
    keep: Callable[..., Any] | None = None,
) -> None:
    """Makes `torch.ops.torchfpn.<name>`, once in a process, however often the package is imported.

    schema: its arguments and results. run: does it, on every device. shape: gives empty results of the right shapes.
    gradient, keep: see `torch.library.register_autograd`.
    """
    if hasattr(torch.ops.torchfpn, name):
        return
    full = f"torchfpn::{name}"
    torch.library.define(full, schema)
    torch.library.impl(full, "default", run)
    torch.library.register_fake(full, shape)
    if gradient is not None:
        torch.library.register_autograd(full, gradient, setup_context=keep)
