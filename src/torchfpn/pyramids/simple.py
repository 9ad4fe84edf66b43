"""The simple feature pyramid of Li et al. 2022 (ViTDet), for a plain vision transformer: every level from its last map.

             +--deconv x2, norm, GELU, deconv x2--1x1--3x3--> P2
C4 (1/16) ---+--deconv x2-------------------------1x1--3x3--> P3
             +------------------------------------1x1--3x3--> P4
             +--max pool /2-----------------------1x1--3x3--> P5
"""

from collections.abc import Sequence

from torch import Tensor, nn

from torchfpn.errors import ConfigError
from torchfpn.nn.containers import Chain, Fork, Parallel, Pick, chain
from torchfpn.nn.layers import linear_conv
from torchfpn.types import Level, Maps

SCALES = ("up4", "up2", "same", "down2")


class MapNorm(nn.LayerNorm):
    """Layer norm over the channels of each cell of a map [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Rescale(Fork):
    """x -> the map at four times, twice, once and half its resolution, finest first."""

    def forward(self, x: Tensor, **hints: dict[str, object]) -> Maps:  # type: ignore[override]
        """[B, C, H, W] -> maps [B, C/4, 4H, 4W], [B, C/2, 2H, 2W], [B, C, H, W], [B, C, ceil(H/2), ceil(W/2)]."""
        return tuple(module(x) for module in self.values())


class SimplePyramid(Chain):
    """The last of the maps that come in -> maps of `channels` at 4, 2, 1 and 1/2 of its resolution (section 3).

    Scales whose stride would be no whole number are left out: stride 14 gives 7, 14, 28. Of a network whose maps do not
    come one from another (HRNet), what makes the other maps is never read and gets no gradient.
    """

    def __init__(self, levels: Sequence[Level], channels: int = 256) -> None:
        if not levels or channels < 1:
            raise ConfigError(
                f"{len(levels)} levels, {channels} channels", field="pyramid", allowed="at least one each"
            )
        super().__init__()
        width, stride = levels[-1]
        widths = {"up4": width // 4, "up2": width // 2, "same": width, "down2": width}
        strides = {"up4": stride / 4, "up2": stride / 2, "same": stride, "down2": 2 * stride}
        scales = [scale for scale in SCALES if strides[scale] == int(strides[scale])]
        self.last = Pick(-1)
        self.rescale = Rescale({scale: _rescaler(scale, width) for scale in scales})
        self.lateral = Parallel(_normed(widths[scale], channels, 1) for scale in scales)
        self.smooth = Parallel(_normed(channels, channels, 3) for _ in scales)
        self._levels = tuple(Level(channels, int(strides[scale])) for scale in scales)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Channels and stride of each map given, finest first."""
        return self._levels


def _rescaler(scale: str, width: int) -> nn.Module:
    if scale == "up4":
        return chain(
            up1=nn.ConvTranspose2d(width, width // 2, 2, stride=2),
            norm=MapNorm(width // 2),
            act=nn.GELU(),
            up2=nn.ConvTranspose2d(width // 2, width // 4, 2, stride=2),
        )
    if scale == "up2":
        return nn.ConvTranspose2d(width, width // 2, 2, stride=2)
    return nn.Identity() if scale == "same" else nn.MaxPool2d(2, ceil_mode=True)


def _normed(in_channels: int, channels: int, kernel: int) -> Chain:
    return chain(conv=linear_conv(in_channels, channels, kernel, bias=False), norm=MapNorm(channels))
