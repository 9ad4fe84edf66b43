"""The numbers that a vector file gives its classes beside their names, as `fpn predict --polygons` writes them."""

from pathlib import Path

import numpy as np
import pyogrio
import pyogrio.raw

from torchfpn.vectors.formats import DRIVERS

NAME, NUMBER = "class", "class_id"


def class_ids(path: str | Path, *, field: str = NAME, layer: str | None = None) -> dict[str, int]:
    """Name of a class -> its number, of those that have just one.

    path: of a file that `reading.read_vectors` has read, and so found harmless.
    """
    path = Path(path)
    source = f"GeoJSON:{path.absolute()}" if DRIVERS[path.suffix.lower()] == "GeoJSON" else path.absolute()
    if layer is None:  # the one with geometries, as `reading.read_vectors` takes it
        layer = next(str(name) for name, kind in pyogrio.list_layers(source) if kind is not None)
    info = pyogrio.read_info(source, layer=layer)
    if not {field, NUMBER} <= set(info["fields"]) or not info["features"]:
        return {}
    found, columns = pyogrio.raw.read(source, layer=layer, columns=[field, NUMBER], read_geometry=False)[::3]
    columns = dict(zip(found["fields"], columns, strict=True))
    pairs = {(str(name), number) for name, number in zip(columns[field], columns[NUMBER], strict=True)}
    names = [name for name, _ in pairs]
    return {name: int(number) for name, number in pairs if names.count(name) == 1 and _is_whole(number)}


def _is_whole(number: object) -> bool:
    return isinstance(number, (int, float, np.number)) and float(number).is_integer()
