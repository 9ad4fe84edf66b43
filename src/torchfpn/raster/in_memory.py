"""`torchfpn.predict`: images, files and folders -> results in memory, as `fpn predict` computes them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from torchfpn.files.fitting import read_input
from torchfpn.raster.predict_objects import objects_of
from torchfpn.raster.sources import find_sources
from torchfpn.tasks.precision import find_device
from torchfpn.tasks.storage import load
from torchfpn.tasks.task import Task


def predict(
    model: Task | str | Path, sources: Any, *, accept_dtype: bool = False, device: str | None = None
) -> list[Any]:
    """What a model says of images that fit into memory; `fpn predict` does larger ones and writes files.

    Args:
        model: a task, or the path of a model.safetensors.
        sources: a path, a folder, a pattern such as "photos/*.jpg", an array, or whatever `Task.predict` takes, or a
            list of them. Of a folder or a pattern, images come in the order of their names.
        accept_dtype: of files and arrays, take pixels of another type than the model was trained on.
        device: "cpu", "cuda", ... or "auto"; None: where the task is, of a path as "auto".

    Returns:
        One result for each image: `Semantic` (labels [H, W] 0-based, `IGNORE` without data; scores), or `Instances` in
        pixels of the image, without objects of which no pixel holds data.

    Raises:
        FPNError: whatever `torchfpn.load` and `Task.predict` raise; a folder or pattern without an image.
    """
    task = model if isinstance(model, Task) else load(model)
    if device is not None or not isinstance(model, Task):
        task = task.to(find_device(device or "auto"))
    is_list = isinstance(sources, list | tuple) and any(isinstance(x, str | os.PathLike) for x in sources)
    if not is_list and not isinstance(sources, str | os.PathLike):
        return task.predict(sources, accept_dtype=accept_dtype)
    every = sources if is_list else [sources]
    return [_one(task, image, accept_dtype=accept_dtype) for source in every for image in _images(source)]


def _images(source: Any) -> Iterator[Any]:
    """The files that a path names; anything else itself."""
    is_path = isinstance(source, str | os.PathLike)
    yield from find_sources([os.fspath(source)]) if is_path else [source]


def _one(task: Task, image: Any, *, accept_dtype: bool) -> Any:
    if task.recipe.task == "semantic" or not isinstance(image, Path | np.ndarray):
        return task.predict([image], accept_dtype=accept_dtype)[0]
    pixels: Tensor = read_input(image, task.recipe, accept_dtype=accept_dtype)
    return objects_of(task, pixels, "fp32", name=image if isinstance(image, Path) else None)[0]
