"""Local weight files of backbones: which of their tensors belong to a network, and which network they belong to."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import timm
import torchvision
from timm.models import model_entrypoint
from torch import Tensor, nn

from torchfpn.backbones.names import PREFIX, TORCHVISION
from torchfpn.errors import WeightsError, amount
from torchfpn.io.formats import printable
from torchfpn.io.weights import check_finite, listed, originals, prefixes, read_weights
from torchfpn.nn.layers import shapes_only
from torchfpn.recipe import Scaling

Tensors = Mapping[str, Tensor]
COUNTERS = ".num_batches_tracked"  # torch's oldest files have none
SHOWN = 3  # tensors in a message
log = logging.getLogger(__name__)
ALIKE = 0.5  # share of common names, numbers left out, from which on a family of networks is searched
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation of values in 0..1
CLASSIFIER = 8  # tensors that a network's classifier has at most


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

    The file may hold the network alone or inside another model ("module.", "backbone.", "model.encoder."), and its
    first convolution may take three bands or `in_channels`. Everything but the classifier must fit, tensor for tensor:
    the file of a deeper network has all tensors of a shallower one.

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


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a timm feature extractor, as `features_only` has them."""
    return {key: tuple(tensor.shape) for key, tensor in _network(name).state_dict().items()}


def candidates(tensors: Mapping[str, Tensor], *, seconds: float = 30.0) -> tuple[list[str], bool]:
    """(names of the timm networks whose tensors have these names and shapes, the plainest first; are these all?).

    The likeliest families are searched first; what was not looked at after `seconds` of work is left out. Networks are
    built without storage ("meta"): only names and shapes count, and not the bands of the first convolution.
    """
    wanted, letters, alike = _styles(tensors), {_letters(key) for key in tensors}, []
    for family in timm.list_modules():
        names = [name for name in timm.list_models(module=family) if _begins_alike(name, letters)]
        names.sort(key=len)
        styles = _styles_of(names[0]) if names else frozenset()
        share = len(styles & wanted) / len(styles | wanted)
        if share >= ALIKE:
            alike.append((share, names))
    fitting: list[str] = []
    end = time.process_time() + seconds
    for _, names in sorted(alike, key=lambda found: -found[0]):
        while names and time.process_time() < end:
            kin = [name for name in names if any(found in name for found in fitting)]  # tf_..., ..._quant
            name = (kin or names)[0]
            names.remove(name)
            fitting += [name] if fits(name, tensors) else []
    return sorted(fitting, key=lambda name: (len(name), name)), not any(names for _, names in alike)


def fits(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a timm network has these tensors, and no others."""
    if not timm.is_model(name.split(".", 1)[0]):
        return False
    try:
        own = shapes_of(name)
    except Exception:  # it gives no feature maps
        return False
    given = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if own.keys() != given.keys():
        return False
    differing = [key for key in own if own[key] != given[key]]
    return all(key == first_conv(name) and _without_bands(own[key]) == _without_bands(given[key]) for key in differing)


def kin(tensors: Mapping[str, Tensor], name: str, *, seconds: float = 4.0) -> str | None:
    """The network, of the family of `name` or of torchvision, that has these tensors; a classifier does not count.

    name: a timm model, or "torchvision/<name>", whose own kind is searched first. What was not looked at after
    `seconds` of work is left out.
    """
    given = {key: _without_bands(tuple(tensor.shape)) for key, tensor in tensors.items()}
    end = time.process_time() + seconds
    for other in _relatives(name):
        if time.process_time() > end:
            break
        with suppress(Exception):  # a network that cannot be built without storage
            own = {key: _without_bands(shape) for key, shape in whole_shapes(other).items() if not _is_counter(key)}
            left = [key for key in given if key not in own and not _is_counter(key)]
            if own.items() <= given.items() and len(left) <= CLASSIFIER:
                return other
    return None


@cache
def whole_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a whole network but for its classifier."""
    heads: tuple[str, ...] = ()
    with shapes_only():
        if name.startswith(PREFIX):
            network = torchvision.models.get_model(name.removeprefix(PREFIX), weights=None)
            heads = ("classifier.", "fc.")
        else:
            network = timm.create_model(name, num_classes=0)
    return {key: tuple(each.shape) for key, each in network.state_dict().items() if not key.startswith(heads)}


def _relatives(name: str) -> Iterator[str]:
    """Names of networks, those that are written like `name` first."""
    plain = name.removeprefix(PREFIX).split(".", 1)[0]

    def nearness(other: str) -> tuple[int, int]:  # convnext_small is nearer to convnext_tiny than convnextv2_tiny is
        mine, theirs = (re.findall(r"[a-z]+|\d+", each) for each in (plain, other.removeprefix(PREFIX)))
        return abs(len(mine) - len(theirs)) + sum(map(str.__ne__, mine, theirs)), len(other)

    torchvisions = [PREFIX + other for other in sorted(TORCHVISION, key=nearness)]
    family: list[str] = []
    if timm.is_model(plain):
        module = str(model_entrypoint(plain).__module__.rpartition(".")[2])
        family = sorted(timm.list_models(module=module), key=nearness)
    yield from (*torchvisions, *family) if name.startswith(PREFIX) else (*family, *torchvisions)


def _is_counter(key: str) -> bool:
    return key.endswith(".num_batches_tracked")


def first_conv(name: str) -> str:
    """The weight of the convolution that takes the bands."""
    names = [key for key, child in _network(name).named_modules() if isinstance(child, nn.Conv2d)]
    return f"{names[0]}.weight"


def normalisation(name: str) -> Scaling:
    """Raw 8-bit values to what the published weights of a network were trained on, as its library keeps it.

    Args:
        name: a network of timm, with the tag of its weights or without (its default ones), or "torchvision/<name>".

    Returns:
        Its mean and deviation, times 255, as method "pretrained" where they are not ImageNet's; ImageNet's where the
        library publishes no weights.
    """
    mean, std = _constants(name)
    found = Scaling(tuple(255 * m for m in mean), tuple(255 * s for s in std), "pretrained")
    plain = Scaling.imagenet()
    return plain if (found.offset, found.scale) == (plain.offset, plain.scale) else found


def tags_of_other_constants(name: str) -> list[str]:
    """Tags of a timm network's weights that have another mean or deviation than its default ones.

    Empty where `name` says a tag.
    """
    if "." in name:
        return []
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{name}.*")]
    return [tag for tag in tags if _constants(f"{name}.{tag}") != _constants(name)]


def _constants(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if name.startswith(PREFIX):
        published = torchvision.models.get_model_weights(name.removeprefix(PREFIX)).__members__.get("DEFAULT")
        config = None if published is None else published.transforms()
    elif "/" in name:  # lukemelas'
        config = None
    else:
        config = timm.get_pretrained_cfg(name)
    if config is None:
        return IMAGENET
    return tuple(map(float, config.mean)), tuple(map(float, config.std))


def _begins_alike(name: str, letters: set[str]) -> bool:
    """Whether the network's first convolution, as its settings name it, is among the tensors."""
    config = timm.get_pretrained_cfg(name)
    first = config.first_conv if config is not None else None
    return isinstance(first, str) and _letters(first + ".weight") in letters


def _letters(key: str) -> str:
    """Without dots and underscores: feature extractors turn some of one into the other."""
    return re.sub(r"[._]", "", key)


@cache
def _network(name: str) -> nn.Module:
    with shapes_only():
        network: nn.Module = timm.create_model(name, features_only=True)
    return network


def _without_bands(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:1], *shape[2:])


@cache
def _styles_of(name: str) -> frozenset[str]:
    try:
        return _styles(shapes_of(name))
    except Exception:  # it gives no feature maps
        return frozenset()


def _styles(names: Mapping[str, object]) -> frozenset[str]:
    """Names without their numbers, which tell families of networks apart."""
    return frozenset(re.sub(r"\d+", "#", name) for name in names)
