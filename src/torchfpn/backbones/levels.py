"""Which of a network's maps go on to the pyramid, chosen by stride."""

from collections.abc import Sequence

from torchfpn.errors import ConfigError
from torchfpn.types import Level


def pick_by_stride(available: Sequence[Level], strides: Sequence[int], *, name: str) -> tuple[int, ...]:
    """Index of the map of each wanted stride, the last one where several share it.

    Raises:
        ConfigError: a stride that the network does not give; those it gives are named.
    """
    found = {level.stride: index for index, level in enumerate(available)}
    missing = [stride for stride in strides if stride not in found]
    if missing or not strides:
        raise ConfigError(
            f"strides {list(strides)}",
            field=f"backbone {name}",
            allowed=f"its maps have strides {sorted(found)}",
            hint=f"choose with strides=({', '.join(map(str, sorted(found)))},)",
        )
    return tuple(found[stride] for stride in sorted(strides))
