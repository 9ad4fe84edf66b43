"""The console of rich that every table, bar and line goes through: names cannot bring escape sequences with them."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from torchfpn.printing import visible


class Console(RichConsole):
    """Prints like rich's own, with control characters spelt out (`torchfpn.printing.visible`).

    Text is not searched for numbers and words to colour, for markup or for the names of emojis unless it is asked for.
    """

    def __init__(self, *, markup: bool = False, **options: Any) -> None:
        super().__init__(markup=markup, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Text of a string; spelt out here, so that the cells of tables get the width they need."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The pieces of anything that can be printed: texts made visible, without links; commands of rich stay."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                style = segment.style
                plain = style.update_link(None) if style is not None and style.link else style
                yield Segment(visible(segment.text), plain)
