"""The first stage of a detector: at every cell of every level, how likely each anchor holds an object, and its box.

P2..P6 --3x3 conv, ReLU--> --1x1--> scores [B, A, h, w]
                           --1x1--> deltas [B, 4 A, h, w]
"""

from torch import nn

from torchfpn.nn.containers import Fork, Shared, chain


def _conv(channels: int) -> nn.Module:
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # there is one
    return chain(conv=conv, act=nn.ReLU(inplace=True))


def _predict(channels: int, outputs: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, outputs, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


class DenseHead(Shared):
    """Maps of one width -> for each level {"scores": [B, A, h, w], "deltas": [B, 4 A, h, w]}; the same weights for all.

    anchors: A, of a cell. depth: 3x3 convolutions, one in the paper. The deltas of one anchor are four channels in a
    row (dx, dy, dw, dh). Source: Lin et al. 2017, section 4.1. Equals torchvision's `RPNHead`.
    """

    def __init__(self, channels: int, *, anchors: int = 3, depth: int = 1) -> None:
        layers = {f"conv{i + 1}": _conv(channels) for i in range(depth)}
        predict = Fork({"scores": _predict(channels, anchors), "deltas": _predict(channels, 4 * anchors)})
        super().__init__(chain(**layers, predict=predict))
        self.anchors = anchors
