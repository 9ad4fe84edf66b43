"""A model as a `torch.export` graph that takes batches and images of any size and gives what the model gives."""

from typing import Any

import torch
import torch.fx.experimental._config as tracing
from torch import nn

from torchfpn.nn.layers import evaluating
from torchfpn.types import Size

FREE = torch.export.Dim.DYNAMIC
EXAMPLE = (2, 75, 101)  # batch, height, width to trace with: no two alike, none special


def graph(
    model: nn.Module, in_channels: int, *, batch: int | None = None, size: Size | None = None
) -> torch.export.ExportedProgram:
    """The graph of images [B, C, H, W] -> what `model` gives in eval mode. batch, size: fixed to these; None: free.

    Free means free, also one image, also one pixel. Run it by ``graph(...).module(check_guards=False)``: torch would
    otherwise promise, on the strength of the example alone, that no map has a single row and how maps lie in memory.
    The model and its pieces are left in the modes they were in.
    """
    images, height, width = (batch or EXAMPLE[0], *(size or EXAMPLE[1:]))
    free: dict[int, Any] = {0: FREE} if batch is None else {}
    if size is None:
        free |= {2: FREE, 3: FREE}
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    example = torch.zeros(images, in_channels, height, width, device=device)
    with evaluating(model), tracing.patch(backed_size_oblivious=True):  # type: ignore[attr-defined] # set up at run time
        return torch.export.export(model, (example,), dynamic_shapes=(free or None,))
