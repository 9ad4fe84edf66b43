"""The objects of a vector file: one for each feature, with its class and, where one is asked for, its score."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.errors import DataError, amount
from torchfpn.io.vectors import Vectors, read_vectors
from torchfpn.vector.geometry import repair

CLASS, SCORE = "class", "score"  # attributes that `fpn predict --polygons` writes

NO_SCORE = 'or use none: --score-field ""'

NO_CLASS = 'leave them out with --without-class skip, or take all as one class: --field ""'


@dataclass(frozen=True)
class Objects:
    """The objects of a vector file, one for each feature, in the order of the file.

    Attributes:
        shapes: [N] Polygon or MultiPolygon in `crs`.
        classes: [N] of the attribute; None without one.
        scores: [N]; None without any.
        crs: coordinate system, well-known text.
        features: number of features of the file.
        mended: how many had invalid rings, which were repaired.
        lost: how many had no area.
        unclassed: how many had no class and were left out.
    """

    file: Path
    shapes: NDArray[Any]
    classes: NDArray[Any] | None
    scores: NDArray[np.float64] | None
    crs: str
    features: int = 0
    mended: int = 0
    lost: int = 0
    unclassed: int = 0

    def kept(self, numbers: NDArray[Any], shapes: NDArray[Any] | None = None) -> "Objects":
        """Some of the objects.

        Args:
            numbers: of the objects.
            shapes: what has become of them.
        """
        return Objects(
            self.file,
            self.shapes[numbers] if shapes is None else shapes,
            None if self.classes is None else self.classes[numbers],
            None if self.scores is None else self.scores[numbers],
            self.crs,
            self.features,
            self.mended,
            self.lost,
            self.unclassed,
        )


def read_objects(
    path: str | Path,
    *,
    field: str | None = None,
    score: str | None = None,
    layer: str | None = None,
    assume_crs: str | None = None,
    skip_unclassed: bool = False,
) -> Objects:
    """A feature of several polygons is one object; features without an area are left out.

    Args:
        path: the file.
        field: the attribute that says the class; None: "class" where the file has it; empty: all are of one class.
        score: the attribute that says how sure each is; None: "score" where all features have it; empty: none.
        layer: the layer of the file.
        assume_crs: coordinate system of files without one, well-known text.
        skip_unclassed: leave out features without a class, and count them. The rest: see `read_vectors`.

    Raises:
        DataError, RasterError: as `read_vectors`; lines or points; a feature without a class or score.
    """
    path = Path(path)
    vectors = _read(path, field, CLASS, layer, assume_crs)
    skipped = vectors.unclassed if skip_unclassed else np.zeros(len(vectors.shapes), bool)
    try:
        found = repair(vectors.without(skipped) if skipped.any() else vectors)
    except DataError as error:
        raise DataError(error.found, file=path, allowed=error.allowed, hint="remove them") from error
    features, shapes = _together(found.features, found.shapes)
    classes = None
    if vectors.column is not None:
        if not skip_unclassed:
            _refuse_missing(vectors, vectors.unclassed, field or CLASS, NO_CLASS)
        classes = np.asarray(vectors.column)[features]
    scores = _scores(path, score, layer, assume_crs)
    scores = None if scores is None else scores[features]
    gone = int(skipped.sum())
    return Objects(
        path, shapes, classes, scores, vectors.crs, len(vectors.shapes), found.invalid, found.lost - gone, gone
    )


def _read(path: Path, field: str | None, habit: str, layer: str | None, assume_crs: str | None) -> Vectors:
    """With the attribute `field`, or without one if it is empty; None: with `habit`, where the file has that."""
    if field is not None:
        return read_vectors(path, field=field or None, layer=layer, assume_crs=assume_crs)
    try:
        return read_vectors(path, field=habit, layer=layer, assume_crs=assume_crs)
    except DataError as error:
        if error.found != f'no field "{habit}"':
            raise
        return read_vectors(path, layer=layer, assume_crs=assume_crs)


def _together(features: NDArray[np.int64], shapes: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """One shape for each feature; its parts may overlap."""
    order = np.argsort(features, kind="stable")
    shapes = shapes[order]
    numbers, first, count = np.unique(features[order], return_index=True, return_counts=True)
    joined = shapes[first]
    for i in np.flatnonzero(count > 1):
        joined[i] = shapely.union_all(shapes[first[i] : first[i] + count[i]])
    return numbers, joined


def _refuse_missing(vectors: Vectors, missing: NDArray[np.bool_], field: str, cure: str) -> None:
    if count := int(missing.sum()):
        found = f"{amount(count, 'feature')} without a value"
        raise DataError(found, file=vectors.file, field=field, hint=f"give them one, {cure}")


def _scores(path: Path, field: str | None, layer: str | None, assume_crs: str | None) -> NDArray[np.float64] | None:
    """[N] of the features."""
    if field == "":
        return None
    vectors = _read(path, field, SCORE, layer, assume_crs)
    if vectors.column is None or (field is None and any(value is None for value in vectors.column)):
        return None
    try:
        _refuse_missing(vectors, np.array([value is None for value in vectors.column]), field or SCORE, NO_SCORE)
        scores = np.array([float(value) for value in vectors.column])
    except ValueError as error:
        raise DataError(
            f"a value that is no number ({error})", file=path, field=field or SCORE, hint=NO_SCORE
        ) from error
    if not np.isfinite(scores).all():
        raise DataError("a value that is no number", file=path, field=field or SCORE, hint=NO_SCORE)
    return scores


@contextlib.contextmanager
def of_one_layer() -> Iterator[None]:
    """Inside, a file is read to which `--layer` does not apply: errors about several layers get another hint."""
    try:
        yield
    except DataError as error:
        if "--layer" not in (error.hint or ""):
            raise
        cure = "write the one you mean to a file of its own: ogr2ogr ONE.gpkg FILE LAYER"
        raise DataError(error.found, file=error.file, field=error.field, hint=cure) from error
