"""A colour for every class: by the meaning of its name where that has a habitual colour, else from a palette."""

import colorsys
import re
from collections.abc import Sequence

Color = tuple[int, int, int]

# What people expect of a map or a street scene. The first word found in the name counts.
_MEANINGS: dict[Color, str] = {
    (38, 110, 196): "water river lake sea ocean",
    (34, 120, 60): "forest tree trees wood woodland",
    (122, 176, 72): "vegetation grass grassland meadow herbaceous pasture terrain",
    (226, 190, 90): "crop crops cropland field agriculture farmland",
    (206, 68, 58): "building buildings house roof urban built",
    (110, 106, 120): "road roads street asphalt",
    (176, 148, 126): "bare barren soil sand desert",
    (232, 236, 240): "snow ice glacier cloud clouds",
    (132, 182, 226): "sky",
    (226, 96, 30): "burned burnt fire burn",
    (214, 202, 176): "land unburned background other",
    (188, 92, 168): "pavement sidewalk path",
    (60, 60, 160): "car cars vehicle truck bus",
    (222, 48, 96): "person pedestrian people",
    (96, 200, 190): "bicyclist bicycle bike cyclist rider",
    (250, 200, 60): "sign signsymbol lamp",
}
_PALETTE: tuple[Color, ...] = (
    (78, 121, 167),
    (242, 142, 43),
    (89, 161, 79),
    (225, 87, 89),
    (118, 183, 178),
    (237, 201, 72),
    (176, 122, 161),
    (255, 157, 167),
    (156, 117, 95),
    (186, 176, 172),
    (31, 90, 90),
    (140, 209, 125),
)


def class_colors(names: Sequence[str], given: Sequence[Color | None]) -> list[Color]:
    """One colour for each name: the one given, else its habitual one, else the one least like the others."""
    colors: list[Color | None] = list(given)
    for i, name in enumerate(names):
        meant = _meant(name)
        if colors[i] is None and meant not in colors:
            colors[i] = meant
    taken = [color for color in colors if color is not None]
    free = _Free([*_PALETTE, *(_turned(i) for i in range(len(names)))], taken)
    return [free.take() if color is None else color for color in colors]


class _Free:
    """Colours not taken yet, each with its distance from the nearest one that is."""

    def __init__(self, colors: Sequence[Color], taken: Sequence[Color]) -> None:
        self.apart = dict.fromkeys(colors, float("inf"))
        for color in taken:
            self._reduce(color)

    def take(self) -> Color:
        """The one that is farthest from all taken, the first of equals."""
        best = max(self.apart, key=self.apart.__getitem__)
        del self.apart[best]
        self._reduce(best)
        return best

    def _reduce(self, taken: Color) -> None:
        """Takes in one more colour that is taken.

        How different two colours look, roughly: the "redmean" formula (Riemersma). In one expression, without a call
        for each pair: there are 35,000 pairs of 255 classes.
        """
        red, green, blue = taken
        self.apart = {
            (r, g, b): min(
                apart,
                (2 + (r + red) / 512) * (r - red) ** 2 + 4 * (g - green) ** 2 + (3 - (r + red) / 512) * (b - blue) ** 2,
            )
            for (r, g, b), apart in self.apart.items()
        }


def _meant(name: str) -> Color | None:
    words = re.findall(r"[a-z]+", name.lower())
    return next((color for color, known in _MEANINGS.items() if set(words) & set(known.split())), None)


def _turned(i: int) -> Color:
    """Colours without end: the hue turned by the golden angle each time."""
    red, green, blue = colorsys.hsv_to_rgb((i * 0.381966) % 1, 0.55 + 0.3 * (i % 2), 0.9 - 0.25 * (i % 3) / 2)
    return round(255 * red), round(255 * green), round(255 * blue)
