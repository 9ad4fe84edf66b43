"""A local file of a network's weights: which of its tensors are meant, and whether each of them has its place.

The file may hold the network alone or inside another model ("module.", "backbone.", "model.encoder."), and its first
convolution may take three bands or as many as the network shall take. What it holds of the network beyond its
classifier must fit, tensor for tensor: the file of a deeper network has all tensors of a shallower one.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from torchfpn.errors import WeightsError, amount
from torchfpn.files.checkpoints import check_finite, listed, originals, prefixes, read_weights
from torchfpn.files.formats import printable

Tensors = Mapping[str, Tensor]
COUNTERS = ".num_batches_tracked"  # torch's oldest files have none
SHOWN = 3  # tensors in a message
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What a network wants of a file.

    name: of the network, as the caller writes it. own: shapes of its tensors for images of three bands, the classifier
    left out. unused: beginnings of the names that it does not read, those of its classifier. first_convs: the weights
    that see the images. rename: the file's names -> the network's, for files of other projects. kin: the name of the
    network that has given tensors, None where none is found.
    """

    name: str
    own: Mapping[str, tuple[int, ...]]
    unused: tuple[str, ...]
    first_convs: tuple[str, ...]
    kin: Callable[[Tensors], str | None]
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] = field(default=lambda tensors: tensors)


class Fitting(NamedTuple):
    """The tensors of a file that fit. bands: those that its first convolution takes."""

    tensors: dict[str, Tensor]  # under the file's names, without what stands before all of them
    renamed: dict[str, Tensor]
    bands: int


class _Try(NamedTuple):
    prefix: str
    tensors: dict[str, Tensor]
    renamed: dict[str, Tensor]
    missing: list[str]


def fitting_weights(path: str | Path, wanted: Wanted, in_channels: int) -> Fitting:
    """The tensors in `path` that `wanted` asks for.

    Raises:
        WeightsError: no weights file; a tensor that is missing, left over (but for the classifier's) or of another
            shape, with the network that the file seems to be of; NaN; a first convolution of other bands.

    What lies beside the network in the file is left out, and named in a log record.
    """
    every = read_weights(path).tensors
    tries = [_stripped(every, prefix, wanted) for prefix, _ in prefixes(every, max(1, len(wanted.own) // 2))]
    whole = [one for one in tries if not one.missing]
    names = originals([one.prefix for one in whole])
    if len(names) > 1 and "" not in names:
        found = f"several sets of weights for {wanted.name}: {listed([name + '*' for name in names])}"
        raise WeightsError(found, file=path, hint="save the one you mean alone")
    if not whole:
        best = min(tries, key=lambda one: len(one.missing), default=_stripped(every, "", wanted))
        raise _unfit(path, wanted, best.renamed, [f"missing {key}" for key in best.missing])
    chosen = next(one for one in whole if one.prefix == names[0])
    copies = tuple(one.prefix for one in whole if one.prefix != chosen.prefix)
    wrong = [f"left over {key}" for key in _left_over(chosen, wanted, copies)]
    bands = _bands(chosen.renamed, wanted)
    wrong += [
        f"{key} is {list(chosen.renamed[key].shape)}, not {list(shape)}"
        for key, shape in wanted.own.items()
        if key in chosen.renamed
        and _but_bands(key, chosen.renamed[key].shape, wanted) != _but_bands(key, shape, wanted)
    ]
    if wrong:
        raise _unfit(path, wanted, chosen.renamed, wrong)
    if bands not in (3, in_channels):
        allowed = f"3, or the {in_channels} of the model"
        raise WeightsError(f"weights of {amount(bands, 'band')}", file=path, field="in_channels", allowed=allowed)
    check_finite(chosen.tensors, file=path)
    if beside := [name for name in every if not name.startswith(chosen.prefix)]:
        log.warning(f"{printable(path)}: left out, beside {chosen.prefix}*: {listed(beside)}")
    return Fitting(chosen.tensors, chosen.renamed, bands)


def _stripped(every: Tensors, prefix: str, wanted: Wanted) -> _Try:
    """The tensors behind `prefix`, and what they lack."""
    tensors = {name.removeprefix(prefix): each for name, each in every.items() if name.startswith(prefix)}
    try:
        renamed = wanted.rename(dict(tensors))
    except Exception:  # it looks for what only files of its own project have
        renamed = tensors
    missing = [key for key in wanted.own if key not in renamed and not key.endswith(COUNTERS)]
    return _Try(prefix, tensors, renamed, missing)


def _left_over(chosen: _Try, wanted: Wanted, copies: tuple[str, ...]) -> list[str]:
    inside = tuple(copy.removeprefix(chosen.prefix) for copy in copies if copy.startswith(chosen.prefix))
    skipped = (*wanted.unused, *inside)
    return [key for key in chosen.renamed if key not in wanted.own and not key.startswith(skipped)]


def _bands(given: Tensors, wanted: Wanted) -> int:
    """Bands of the first convolution; the network's own takes three, folded into more channels by some."""
    for key in wanted.first_convs:
        if key in given and key in wanted.own and given[key].ndim == len(wanted.own[key]) == 4:
            return given[key].shape[1] * 3 // wanted.own[key][1]
    return 3


def _but_bands(key: str, shape: tuple[int, ...], wanted: Wanted) -> tuple[int, ...]:
    return (*shape[:1], *shape[2:]) if key in wanted.first_convs and len(shape) == 4 else tuple(shape)


def _unfit(path: str | Path, wanted: Wanted, given: Tensors, wrong: list[str]) -> WeightsError:
    kin = wanted.kin(given)
    shown = ", ".join(wrong[:SHOWN]) + (", ..." if len(wrong) > SHOWN else "")
    number = amount(len(wrong), "tensor does", "tensors do")
    hint = (
        f"the file seems to be of {kin}: take that backbone"
        if kin
        else "timm's files go with timm's names, torchvision's with torchvision/"
    )
    return WeightsError(f"{number} not fit {wanted.name}: {shown}", file=path, hint=hint)
