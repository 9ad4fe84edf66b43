"""Taking settings out of a mapping that somebody wrote: each with its type, and nothing left over unread."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchfpn.errors import ConfigError, nearest


class Fields:
    """One mapping of a YAML file. Takes what is known; `finish` then refuses what nobody took."""

    def __init__(self, value: Any, file: Path, field: str = "") -> None:
        self.file, self.field = file, field
        if not isinstance(value, dict):
            raise ConfigError(_shown(value), file=file, field=field, allowed="a mapping, `name: value` on each line")
        self.values: dict[Any, Any] = value
        self.known: list[str] = []

    def wrong(self, name: str, value: Any, allowed: str, hint: str | None = None) -> ConfigError:
        """The error for a value that cannot be."""
        return ConfigError(_shown(value), file=self.file, field=self.path(name), allowed=allowed, hint=hint)

    def path(self, name: str) -> str:
        """Where a key stands, as in ``splits.train.images``."""
        return f"{self.field}.{name}" if self.field else name

    def raw(self, name: str) -> Any:
        """Whatever stands there; None if nothing does."""
        if name not in self.known:
            self.known.append(name)
        return self.values.get(name)

    def inner(self, name: str) -> "Fields":
        """The mapping that stands there."""
        return Fields(self.raw(name), self.file, self.path(name))

    def text(self, name: str) -> str | None:
        """Text, not empty."""
        value = self.raw(name)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            hint = f'write "{value}" in quotes' if isinstance(value, bool | int | float) else None
            raise self.wrong(name, value, "text", hint)
        return None if value is None else str(value)

    def choice(self, name: str, allowed: Sequence[str]) -> str | None:
        """One of several words."""
        value = self.raw(name)
        if value is not None and value not in allowed:
            raise self.wrong(name, value, "one of " + ", ".join(allowed), nearest(str(value), allowed))
        return None if value is None else str(value)

    def number(self, name: str) -> float | None:
        """A number, NaN allowed."""
        value = self.raw(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise self.wrong(name, value, "a number")
        return None if value is None else float(value)

    def flag(self, name: str) -> bool:
        """True or false; false if nothing stands there."""
        value = self.raw(name)
        if value not in (None, True, False):
            raise self.wrong(name, value, "true or false")
        return bool(value)

    def items(self, name: str) -> list[Any]:
        """A list, empty if nothing stands there."""
        value = self.raw(name)
        if value is not None and not isinstance(value, list):
            raise self.wrong(name, value, "a list")
        return value or []

    def finish(self) -> None:
        """Refuses the keys that nothing asked for."""
        for key in self.values:
            if key not in self.known:
                raise ConfigError(
                    f'unknown key "{key}"', file=self.file, field=self.field or None, hint=nearest(str(key), self.known)
                )


def is_whole(value: Any) -> bool:
    """Whether it is a whole number; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
