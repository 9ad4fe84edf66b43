"""A Task: the model, what it learns (criterion), how it is read (postprocess), and the recipe that travels with it.

raw images --scaling--> model --> raw predictions --+--> criterion(., targets)   -> {name: loss}
                                                    +--> postprocess(., sizes)   -> [Semantic, ...]
"""

import os
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from torchfpn.criteria.deep import DeepSupervision
from torchfpn.errors import DataError, ShapeError
from torchfpn.nn.modes import changing, evaluating, modes, restore
from torchfpn.nn.normalize import Normalize
from torchfpn.recipe import Recipe
from torchfpn.tasks.finite import Named, check_logits
from torchfpn.types import IGNORE, Batch, Size

MODES = "_modes"  # of all parts, in the state of a copied or pickled task


def _each(images: Any) -> list[Any]:
    """The images, paths and arrays of what `Task.predict` was given.

    Raises:
        ShapeError: something else.
    """
    one = isinstance(images, str | PathLike) or (isinstance(images, np.ndarray) and images.ndim < 4)
    listed = [images] if one else list(images) if isinstance(images, Iterable) and not isinstance(images, dict) else []
    wrong = next((x for x in listed if not isinstance(x, Tensor | str | PathLike | np.ndarray)), None)
    if wrong is not None or (not listed and not isinstance(images, Sequence | np.ndarray)):
        found = type(images if wrong is None else wrong).__name__
        allowed = "a Tensor [B, C, H, W], a Batch, a path, an array, or a list of Tensors [C, H, W], paths or arrays"
        raise ShapeError(f"a {found}", allowed=allowed)
    return listed


class Task(nn.Module):
    """Everything about one trained model. Images are raw values as in the files; scaling happens here and only here."""

    def __init__(self, model: nn.Sequential, criterion: nn.Module, postprocess: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        together = recipe.dtype.startswith("uint")
        self.normalize = Normalize(recipe.scaling, nodata=recipe.nodata, together=together)
        self.model, self.criterion, self.postprocess = model, criterion, postprocess
        self.recipe = recipe

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels 0..K-1."""
        return self.recipe.classes

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses, so that a Task can be wrapped for distributed training as it is."""
        return self.losses(batch)

    def logits(self, images: Tensor) -> Tensor:
        """Raw images [B, C, H, W] -> what the model gives for them: semantic: [B, K, H, W]."""
        normalized, _ = self._normalized(images)
        output: Tensor = self.model(normalized)
        return output

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Each term of the criterion by name, already weighted; the loss is their sum.

        Pixels without data are no pixels: the network sees the mean there and the loss leaves them out.

        Raises:
            ShapeError: no Batch, one without targets, or targets of another size than the images.
        """
        self._check_batch(batch)
        if not isinstance(batch.targets, Tensor) or batch.targets.shape[-2:] != batch.images.shape[-2:]:
            found = list(batch.targets.shape) if isinstance(batch.targets, Tensor) else batch.targets
            raise ShapeError(f"targets {found}", allowed=f"[B, H, W] like the images {list(batch.images.shape)}")
        images, valid = self._normalized(batch.images)
        targets = torch.where(valid, batch.targets, IGNORE)
        if isinstance(self.criterion, DeepSupervision):  # looks at the maps between pyramid and head, too
            maps = self.model.maps(images)  # type: ignore[operator] # create_task makes an AnySize
            losses: dict[str, Tensor] = self.criterion(self.model.answer(maps, images), targets, maps)  # type: ignore[operator]
        else:
            losses = self.criterion(self.model(images), targets)
        return losses

    def masses(self, batch: Batch) -> dict[str, float]:
        """What each of the losses is a mean over, such as labelled pixels; empty where the criterion does not say."""
        if not hasattr(self.criterion, "masses"):
            return {}
        targets = batch.targets
        if isinstance(targets, Tensor):
            targets = torch.where(self.normalize(batch.images)[1], targets, IGNORE)
        found: dict[str, float] = self.criterion.masses(targets)  # type: ignore[operator]
        return found

    def train(self, mode: bool = True) -> Self:
        """Train mode, or eval mode. Train mode waits until no other thread is in `predict`, which works in eval mode.

        A thread must not call `predict` while another one trains: both use the same weights and the same modes. Give
        it a copy of the task.
        """
        with changing(self, mode):
            return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: modes as they are outside `predict`, in which another thread may be."""
        return {**self.__dict__, MODES: modes(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        held = state.pop(MODES, None)
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if held is not None:  # pickles of 0.1.0 say nothing
            restore(self, held)

    @torch.inference_mode()
    def predict(self, images: Any, *, accept_dtype: bool = False) -> list[Any]:
        """Images -> one result per image, whatever modes the task and its pieces are in, which they keep.

        Args:
            images: Tensor [B, C, H, W] or a list of [C, H, W] of any sizes, or a Batch: values as in the files the task
                was trained on, NaN where there is no data; of a converted model as its network learnt on them
                (`recipe.inputs`: 0..1 of torchvision's detectors), or uint8, which is brought there. Or a path, an
                array [H, W, C], [C, H, W] or [H, W], or a list of such: they are read as `fpn predict` reads files.
            accept_dtype: of paths and arrays, take pixels of another type than the model was trained on.

        Returns:
            A `Semantic` each; of a detector, `Instances`.

        Raises:
            ShapeError: something else, or images of another number of bands than the recipe's.
            DataError: a file that cannot be read; another pixel type or other values than the model was trained on.
            NotFiniteError: the model gives NaN or infinity.
        """
        with evaluating(self):
            if isinstance(images, Batch):
                names = [(name, None) for name in images.names]
                return self._predict(self._in_range(images.images), images.sizes, names)
            if isinstance(images, Tensor):
                self._check(images, 4)
                return self._predict(self._in_range(images), [(images.shape[-2], images.shape[-1])] * len(images))
            every = _each(images)
            for image in every:
                if isinstance(image, Tensor):
                    self._check(image, 3)
            found: list[Any] = []
            for number, image in enumerate(every, start=1):
                one = self._in_range(image) if isinstance(image, Tensor) else self._read(image, accept_dtype)
                name = f"image {number} of {len(every)}" if len(every) > 1 else None
                name = os.fspath(image) if isinstance(image, str | PathLike) else name
                found += self._predict(one[None], [(one.shape[-2], one.shape[-1])], [(name, None)])
            return found

    def _read(self, source: Any, accept_dtype: bool) -> Tensor:
        from torchfpn.files.fitting import read_input

        return read_input(source, self.recipe, accept_dtype=accept_dtype)

    def save(self, path: str | Path) -> None:
        """Weights and recipe as one .safetensors, whole or not at all; `torchfpn.load` gives the task back."""
        from torchfpn.tasks.storage import save

        save(self, path)

    def _predict(self, raw: Tensor, sizes: Sequence[Size], names: Sequence[Named] = ()) -> list[Any]:
        device = next(self.model.parameters()).device
        images, valid = self._normalized(raw.to(device))
        logits = self.model(images)
        check_logits(logits, valid, names)
        results: list[Any] = self.postprocess(logits, sizes, valid)
        return results

    def _normalized(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Raw images as the network sees them, of the type of its weights, and where there is data."""
        images, valid = self.normalize(raw)
        return images.to(next(self.model.parameters()).dtype), valid

    def _in_range(self, images: Tensor) -> Tensor:
        """Images of a converted model with the values that it learnt on.

        Raises:
            DataError: whole numbers that nothing brings there, or values far out of the range.
        """
        inputs = self.recipe.inputs
        if inputs is None:
            return images
        dtype = str(images.dtype).removeprefix("torch.")
        if not images.is_floating_point():
            if dtype not in inputs.divisors:
                raise DataError(f"images of {dtype}", allowed=f"the model's range, {inputs.words()}")
            return images.float() / inputs.divisors[dtype]
        if inputs.low is not None and inputs.high is not None:
            most = float(images.nan_to_num(inputs.low, inputs.low, inputs.low).amax()) if images.numel() else inputs.low
            if most > 2 * inputs.high - inputs.low:  # resampling overshoots a little, another unit by far
                hint = "give 8-bit images as uint8, or bring them to the range"
                raise DataError(f"values up to {most:g}", allowed=f"the model's range, {inputs.words()}", hint=hint)
        return images

    def _check_batch(self, batch: Any) -> None:
        """Raises ShapeError of anything but a Batch, with what to give instead."""
        if not isinstance(batch, Batch):
            found = f"a {type(batch).__name__}" + (
                f" of shape {list(batch.shape)}" if isinstance(batch, Tensor) else ""
            )
            allowed = "a torchfpn.Batch(images, sizes, targets) in task(batch) and task.losses(batch)"
            hint = "task.predict(images) gives results for images alone"
            raise ShapeError(found, allowed=allowed, hint=hint)

    def _check(self, images: Tensor, ndim: int) -> None:
        bands = self.recipe.bands
        if images.ndim != ndim or images.shape[-3] != len(bands):
            shape = "[B, C, H, W]" if ndim == 4 else "[C, H, W]"
            raise ShapeError(
                f"an image of shape {list(images.shape)}",
                allowed=f"{shape} with C = {len(bands)} bands ({', '.join(bands)})",
            )
