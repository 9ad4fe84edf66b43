"""The images of a split as a model wants to see them, for fpn evaluate."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torchfpn.data.dataset import Dataset
    from torchfpn.data.split_images import SplitImages
    from torchfpn.recipe import Recipe
    from torchfpn.tasks.evaluate import Fit

S = TypeVar("S", bound="SplitImages")


def open_samples(
    kind: "Callable[..., S]", dataset: "Dataset", split: str, recipe: "Recipe", *, accept_dtype: bool = False
) -> S:
    """The images of a split with the bands that the model wants, found by name where the names are known.

    kind: SemanticSamples or RegionSamples.

    Raises:
        ConfigError: a dataset of the other kind. DataError: an image that cannot be used, other bands or another pixel
        type than the model's.
    """
    from dataclasses import replace

    from torchfpn.files.bands import is_name
    from torchfpn.files.fitting import band_order, divisor_of

    if recipe.inputs is not None:  # values of several pixel types would need a divisor each
        dataset = replace(dataset, scaling=None)
    samples = kind(dataset, split, cache=False)
    file = samples.pairs[0].image
    divisor_of(samples.dtype, recipe, file=file, accept=accept_dtype)
    told = [is_name(name) for name in samples.bands]
    cure = "name them in `bands` of dataset.yaml as the model does, or choose the model's with `use_bands`"
    whole = () if dataset.bands else recipe.file_bands  # names of the dataset's own come first
    order = band_order(samples.bands, recipe.bands, file=file, told=told, cure=cure, whole=whole)
    if order == list(range(len(samples.bands))):
        return samples
    return kind(replace(dataset, use_bands=tuple(samples.bands[i] for i in order)), split, cache=False)


def fitting(samples: "SplitImages", recipe: "Recipe", *, accept_dtype: bool = False) -> "Fit":
    """What brings images of `samples` to the values that the model learnt on."""
    from functools import partial

    from torchfpn.files.fitting import in_range

    return partial(in_range, dtype=samples.dtype, recipe=recipe, file=samples.dataset.file, accept=accept_dtype)
