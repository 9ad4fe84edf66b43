"""Which models the verbs take that write or score a class for every pixel."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchfpn.recipe import Recipe


def check_semantic(recipe: "Recipe", model: Path) -> None:
    """Passes models that give a class for every pixel.

    Raises:
        ConfigError: a detector.
    """
    from torchfpn.errors import ConfigError

    if recipe.task != "semantic":
        hint = "in Python: torchfpn.load(...).predict(images)"
        raise ConfigError(f"a model of {recipe.task}", file=model, allowed="semantic ones", hint=hint)
