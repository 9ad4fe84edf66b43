"""The second stage of a detector: the class of every proposal, and how its box should move.

[R, C, 7, 7] --fc 1024, ReLU--> --fc 1024, ReLU--> --fc--> scores [R, classes + 1]
                                                   --fc--> deltas [R, 4 classes]
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from torchfpn.errors import ConfigError
from torchfpn.nn.containers import Chain, Fork, chain
from torchfpn.nn.layers import Norm, conv_norm_act

Kind = Literal["2fc", "4conv1fc"]
SOME = 32  # boxes whose masks are computed at a time on a CPU: enlarged to 28 x 28, they are the largest maps of all


def _linear(inputs: int, outputs: int, *, std: float | None = None) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    if std is None:
        nn.init.kaiming_uniform_(layer.weight, a=1)
    else:
        nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer


class BoxHead(Chain):
    """RoIs [R, C, size, size] -> {"scores": [R, classes + 1], background last, "deltas": [R, 4 classes]}.

    kind: "2fc", two fully connected layers (Lin et al. 2017, section 4.2), or "4conv1fc", four convolutions and one
    (Wu & He 2018, section 5.2). hidden: width of the fully connected ones. norm: of the convolutions. Equals
    torchvision's `TwoMLPHead` and `FastRCNNConvFCHead`, whose background stands first.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        size: int = 7,
        kind: Kind = "2fc",
        hidden: int = 1024,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        if kind not in ("2fc", "4conv1fc"):
            raise ConfigError(f'"{kind}"', field="box", allowed='"2fc" or "4conv1fc"')
        if kind == "4conv1fc":
            self.convs = chain(**{f"conv{i}": conv_norm_act(channels, channels, norm=norm) for i in range(1, 5)})
        self.flatten = nn.Flatten()
        layers = {"fc1": _linear(channels * size * size, hidden), "act1": nn.ReLU(inplace=True)}
        if kind == "2fc":
            layers |= {"fc2": _linear(hidden, hidden), "act2": nn.ReLU(inplace=True)}
        self.features = chain(**layers)
        scores, deltas = _linear(hidden, num_classes + 1, std=0.01), _linear(hidden, 4 * num_classes, std=0.001)
        self.predict = Fork({"scores": scores, "deltas": deltas})


class MaskHead(Chain):
    """RoIs [R, C, 14, 14] -> mask logits [R, classes, 28, 28]: four convolutions, one transposed, one 1x1.

    Source: He et al. 2017, figure 4 (right). Equals torchvision's `MaskRCNNHeads` and `MaskRCNNPredictor`, which have a
    mask for the background as well.
    """

    def __init__(
        self, channels: int, num_classes: int, *, hidden: int = 256, depth: int = 4, norm: Norm = "none"
    ) -> None:
        super().__init__()
        widths = [channels] + [hidden] * depth
        self.convs = chain(**{f"conv{i + 1}": conv_norm_act(widths[i], hidden, norm=norm) for i in range(depth)})
        self.enlarge = nn.ConvTranspose2d(widths[-1], hidden, 2, stride=2)
        self.act = nn.ReLU(inplace=True)
        self.classify = nn.Conv2d(hidden, num_classes, 1)
        for layer in (self.enlarge, self.classify):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, rois: Tensor) -> Tensor:
        """In one piece, or, on a CPU and with no gradient to come, some boxes after another: no row sees another."""
        run: Callable[[Tensor], Tensor] = super().forward
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or rois.device.type != "cpu":
            return run(rois)
        return torch.cat([run(some) for some in torch.split(rois, SOME)])


def by_image(flat: Tensor, images: int) -> Tensor:
    """[B * K, ...] -> [B, K, ...]."""
    return flat.reshape(images, flat.shape[0] // images, *flat.shape[1:])
