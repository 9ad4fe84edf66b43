"""Which of a network's maps go on to the pyramid, chosen by stride."""

from collections import Counter
from collections.abc import Sequence

from torchfpn.errors import ConfigError
from torchfpn.types import Level

FINEST = 4  # C2: what lies above it (C1) is left out of the pyramid, as in Lin et al. 2017


def pick_by_stride(available: Sequence[Level], strides: Sequence[int] | None, *, name: str) -> tuple[int, ...]:
    """Indices of the maps of the wanted strides, finest first; the last maps of a stride that several share.

    None: every map from stride 4 on, which is C2..C5 of a classification network, also of a dilated one (4, 8, 8, 8).
    Of a network whose maps all have one stride (a plain vision transformer) it is the last.

    Raises:
        ConfigError: a stride that the network does not give, or not that often; those it gives are named.
    """
    given = [level.stride for level in available]
    if strides is None:
        if len(set(given)) == 1:
            return (len(given) - 1,)
        return tuple(i for i, stride in enumerate(given) if stride >= FINEST)
    wanted = Counter(strides)
    if not wanted or any(count > given.count(stride) for stride, count in wanted.items()):
        choices = sorted(given)
        raise ConfigError(
            f"strides {list(strides)}",
            field=f"backbone {name}",
            allowed=f"some of its strides {choices}",
            hint=f"choose with strides=({', '.join(map(str, choices))},)",
        )
    picked: list[int] = []
    for stride, count in wanted.items():
        picked += [i for i, s in enumerate(given) if s == stride][-count:]
    return tuple(sorted(picked))
