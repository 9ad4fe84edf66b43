"""The files that a COCO file names, images and panoptic maps: there, once each, and below the root of the dataset."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from torchfpn.data.listing import is_inside
from torchfpn.data.strict_json import shown
from torchfpn.files.formats import name_key


class ImageFiles:
    """root: of the dataset. folder: where the names begin. key: of the records that name them. what: they are."""

    def __init__(self, root: Path, folder: Path, *, key: str = "images", what: str = "images") -> None:
        self.root, self.folder, self.key, self.what = root, folder, key, what
        self._named: dict[str, int] = {}
        self._folders: dict[str, bool] = {}
        self._spellings: dict[Path, dict[str, str]] = {}

    def flaw(self, name: Any, number: int) -> str | None:
        """What is wrong with a name, or with its file; None if it can be used. number: of the record that names it."""
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            return f"{shown(name)}; expected the name of a file"
        pure = PurePosixPath(name.replace("\\", "/"))
        if pure.is_absolute() or ".." in pure.parts or re.match(r"[A-Za-z]:", name):
            return f"{shown(name)} leads out of the folder of the {self.what}; a path below it"
        first = self._named.setdefault(str(pure), number)
        if first != number:
            return f"{shown(name)} again, as {self.key}[{first}]"
        try:
            return self._missing(name)
        except (OSError, ValueError) as error:  # too long, not encodable
            return f"{shown(name)} cannot be opened ({getattr(error, 'strerror', None) or 'no name of a file'})"

    def spelt(self, name: str) -> str:
        """The name as the disk spells it: in the record accents may be composed otherwise, separators be Windows'."""
        if "\\" in name and not (self.folder / name).exists():
            name = name.replace("\\", "/")
        if name.isascii() or (self.folder / name).exists():
            return name
        folder = PurePosixPath(name).parent
        where = self.folder / folder
        if where not in self._spellings:  # listed once for each folder
            self._spellings[where] = {name_key(own.name): own.name for own in where.iterdir()} if where.is_dir() else {}
        own = self._spellings[where].get(name_key(PurePosixPath(name).name))
        return name if own is None else str(folder / own)

    def _missing(self, name: str) -> str | None:
        path = self.folder / self.spelt(name)
        safe = self._is_inside(path.parent) and not path.is_symlink()
        if not safe and not is_inside(self.root, path):
            return f"{shown(name)} is a link that leads out of the root of the dataset"
        return None if path.is_file() else f"{shown(name)}: no such file in {self.folder}"

    def _is_inside(self, folder: Path) -> bool:
        """Looked at once for each folder: following links is slow."""
        key = str(folder)
        if key not in self._folders:
            self._folders[key] = is_inside(self.root, folder)
        return self._folders[key]
