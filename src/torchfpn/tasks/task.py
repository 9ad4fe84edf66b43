"""A Task: model, criterion, postprocessing and recipe of semantic segmentation, detection or instance segmentation."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfpn.criteria.region import Chosen
from torchfpn.criteria.semantic import DeepSupervision
from torchfpn.data.transforms import scale_size
from torchfpn.errors import ConfigError, DataError, NotFiniteError, ShapeError, amount
from torchfpn.heads.rpn import Limits
from torchfpn.io.select_bands import read_input
from torchfpn.nn.any_size import as_sizes
from torchfpn.nn.layers import Normalize, changing, evaluating, modes, restore
from torchfpn.ops.masks import Crops, Instances, Rule, crop_masks
from torchfpn.ops.pixel_classes import best_classes
from torchfpn.ops.resize import is_8_bit, resize_8_bit, resize_float, rounded_size
from torchfpn.recipe import IGNORE, Recipe
from torchfpn.types import Batch, Regions, Semantic, Size

Named = tuple[str | Path | None, str | None]  # an image's file, and which part of it was computed, for messages
MODES = "_modes"  # of all parts, in the state of a copied or pickled task
MOST_RESIZED = 2**24  # pixels that a model's rule enlarges an image to: as many as are read whole by default
TRAINING = Limits(2000, 2000)  # proposals that are sampled from; twice what is looked at in inference
Precision = Literal["auto", "fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "bf16")


def check_logits(logits: Tensor, valid: Tensor, names: Sequence[Named] = ()) -> None:
    """Passes logits that are finite where there is data: the largest of numbers with NaN among them means nothing.

    Args:
        logits: [B, K, H, W] of a semantic model.
        valid: [B, H, W] bool, where the images hold data.
        names: of the B images; none: "image 2 of 4".

    Raises:
        NotFiniteError: NaN or infinity, with the first image that has any.
    """
    _refuse((~logits.isfinite().all(1) & valid).flatten(1).sum(1), "pixel", names)


def check_regions(regions: Regions, names: Sequence[Named] = ()) -> None:
    """Passes what both stages of a detector say if all of it is finite: it drops boxes that are not, without a word.

    Args:
        regions: of B images.
        names: of the B images; none: "image 2 of 4".

    Raises:
        NotFiniteError: NaN or infinity in scores, codes of boxes, or masks, with the first image that has any.
    """
    tables = [table for level in regions.dense for table in level.values()] + list(regions.rois.values())
    tables += [] if regions.masks is None else [regions.masks]
    bad = torch.stack([(~table.isfinite()).flatten(1).sum(1) for table in tables]).sum(0)
    _refuse(bad, "score or coordinate", names, "scores and coordinates")


def check_scores(scores: Sequence[Tensor], names: Sequence[Named] = ()) -> None:
    """Passes the probabilities of the labels of each image, which are not finite where any logit is not.

    Args:
        scores: [H, W] of each of B images; 0 where there is no data.
        names: of the images; none: "image 2 of 4".

    Raises:
        NotFiniteError: NaN or infinity, with the first image that has any.
    """
    if scores:
        _refuse(torch.stack([(~own.isfinite()).sum() for own in scores]), "pixel", names)


@contextmanager
def naming(file: str | Path | None) -> Iterator[None]:
    """Inside, a NotFiniteError names `file`, if there is one."""
    try:
        yield
    except NotFiniteError as error:
        if file is None:
            raise
        raise NotFiniteError(
            error.found, file=file, field=error.field, allowed=error.allowed, hint=error.hint
        ) from error


def overflow_words(count: int) -> str:
    """What is said of `count` pixels that `Normalize.overflowing` found."""
    verb = "counts" if count == 1 else "count"
    return f"{amount(count, 'pixel')} with values too large for float32 when scaled {verb} as no data"


def _refuse(bad: Tensor, noun: str, names: Sequence[Named], plural: str = "") -> None:
    counts = bad.tolist()
    first = next((number for number, count in enumerate(counts) if count), None)
    if first is None:
        return
    one_of_many = f"image {first + 1} of {len(counts)}" if len(counts) > 1 else None
    file, part = names[first] if names else (one_of_many, None)
    raise NotFiniteError(
        f"the model gives NaN or infinity for {amount(counts[first], noun, plural)}",
        file=file,
        field=part,
        allowed="finite numbers",
        hint="look for extreme pixel values and for NaN in the weights; with bf16, try --precision fp32",
    )


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
    """Everything about one trained model. Images are raw values as in the files; scaling happens here and only here.

    raw images --scaling--> model --> raw predictions --+--> criterion(., targets)   -> {name: loss}
                                                        +--> postprocess(., sizes)   -> [Semantic, ...]
    """

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

        return read_input(source, self.recipe, accept_dtype=accept_dtype)

    def save(self, path: str | Path) -> None:
        """Weights and recipe as one .safetensors, whole or not at all; `torchfpn.load` gives the task back."""
        from torchfpn.tasks.storage import save_model

        save_model(self.model, self.recipe, path)

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


class RegionTask(Task):
    """A Task of detection or instance segmentation: the model gives `Regions`, results are `Instances`.

        raw images --scaling--> model --> Regions --+--> criterion(., choice)  -> {name: loss}
                          choose ^                  +--> postprocess(., sizes) -> [Instances, ...]

    In training, `choose` samples the proposals against the targets before the second stage.
    """

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Each term of the criterion by name; the loss is their sum. Images without objects are learnt from as well.

        Boxes are sampled with torch's global generator on the CPU.

        Raises:
            ShapeError: no Batch, one without targets, or of another number of them than images.
        """
        self._check_batch(batch)
        targets = batch.targets
        if not isinstance(targets, Sequence) or len(targets) != len(batch.images):
            found = f"{len(targets)} targets" if isinstance(targets, Sequence) else f"targets {targets}"
            raise ShapeError(found, allowed=f"a list of {len(batch.images)} Objects, one for each image")
        choice = self.criterion.joints(targets)  # type: ignore[operator]  # a RegionCriterion
        regions, _ = self._in_training(batch, choice)
        losses: dict[str, Tensor] = self.criterion(regions, choice)
        return losses

    def _in_training(self, batch: Batch, choice: Chosen) -> tuple[Any, Tensor]:
        """What the model gives with the joints `choice`, and where the images hold data."""
        images, valid = self._normalized(batch.images)
        sizes = as_sizes(batch.sizes, images)
        output = self.model(images, sizes, choose=choice.choose, detect=choice.detect, limits=TRAINING)
        return output, valid

    def _predict(self, raw: Tensor, sizes: Sequence[Size], names: Sequence[Named] = ()) -> list[Any]:
        weight = next(self.model.parameters())
        device, dtype = weight.device, weight.dtype
        images, valid = self.normalize(raw.to(device))
        rule = self.recipe.rules.get("resize")
        if rule is None:
            output = self.model(images.to(dtype), as_sizes(sizes, images))
            return self._results(output, sizes, sizes, valid, names)
        found: list[Any] = []
        each = names or [(f"image {number} of {len(raw)}", None) for number in range(1, len(raw) + 1)]
        own_sizes = zip(each, raw, images, valid, sizes, strict=True)
        for name, own, image, known, (height, width) in own_sizes:  # by factors of their own
            resized = self._resized(own[:, :height, :width], image[None, :, :height, :width], rule)
            size = (resized.shape[-2], resized.shape[-1])
            output = self.model(resized.to(dtype), as_sizes([size], images))
            found += self._results(output, [size], [(height, width)], known[None, :height, :width], [name])
        return found

    def _results(
        self, output: Any, sizes: Sequence[Size], originals: Sequence[Size], valid: Tensor, names: Sequence[Named]
    ) -> list[Any]:
        """The model's output -> a result for each image.

        Args:
            output: of B images.
            sizes: (height, width) of the images that the model saw.
            originals: of those that were asked about.
            valid: [B, H, W] bool, where the images that were asked about hold data.
            names: of the images, for messages.
        """
        check_regions(output, names)
        return list(self.postprocess(output, sizes, originals))

    def _resized(self, raw: Tensor, image: Tensor, rule: dict[str, Any]) -> Tensor:
        """What the network is shown [1, C, h, w] of an image as it is in the file [C, H, W], and normalised.

        Raises:
            DataError: the rule enlarges it beyond all bounds: a narrow image to a large shorter side.
        """
        check_resized((raw.shape[-2], raw.shape[-1]), rule)
        if rule.get("pillow") and is_8_bit(raw):
            size = rounded_size((raw.shape[-2], raw.shape[-1]), rule["shorter"], rule["longer"])
            normalised: Tensor = self.normalize(resize_8_bit(raw, size)[None].to(image.device))[0]
            return normalised
        return resize(image, **rule)


def check_resized(size: Size, rule: dict[str, Any]) -> None:
    """Passes an image of `size` (height, width) that the rule shrinks, or enlarges to `MOST_RESIZED` pixels at most.

    Raises:
        DataError: it becomes larger than that.
    """
    factor = _factor(size, rule["shorter"], rule["longer"])
    height, width = (round(side * factor) for side in size)
    if factor > 1 and height * width > MOST_RESIZED:
        raise DataError(
            f"{size[1]:,} x {size[0]:,} pixels, which the model's rule enlarges to {width:,} x {height:,}",
            field="rules.resize",
            allowed=f"at most {MOST_RESIZED:,} pixels",
            hint="cut the image into less narrow ones, or take a model with a smaller rule",
        )


def _factor(size: Size, shorter: int | None, longer: int | None) -> float:
    return min([side / of for side, of in ((shorter, min(size)), (longer, max(size))) if side], default=1.0)


def resize(
    image: Tensor, shorter: int | None, longer: int | None, *, antialias: bool = False, pillow: bool = False
) -> Tensor:
    """[1, C, H, W] with a shorter side of `shorter` pixels, or a longer one of `longer` where that is less.

    shorter, longer: None: any. antialias: as in our own training; without, as torchvision's detectors see their images.
    pillow: of a size rounded as detectron2 rounds it; both sides are given then.
    """
    height, width = image.shape[-2:]
    if pillow and shorter and longer:
        return resize_float(image, rounded_size((height, width), shorter, longer))
    factor = _factor((height, width), shorter, longer)
    if antialias:
        size = scale_size((height, width), factor)
        return F.interpolate(image, size, mode="bilinear", antialias=True) if size != (height, width) else image
    return F.interpolate(image, scale_factor=factor, mode="bilinear", recompute_scale_factor=True, align_corners=False)


def find_device(name: str = "auto", there: Sequence[str] | None = None) -> torch.device:
    """The device called `name`: "cpu", "cuda", "cuda:1", "mps"; "auto" is the first GPU, on a Mac its own, or the CPU.

    there: the devices to choose from, the best one first; None: those of this machine.

    Raises:
        ConfigError: this machine has none of that name; what there is is named.
    """
    there = available() if there is None else there
    if name == "auto":
        return torch.device("cuda" if there[0].startswith("cuda") else there[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in there:
        raise ConfigError(f'"{name}"', field="device", allowed=f"{', '.join(there)}")
    return torch.device(wanted)


def available() -> list[str]:
    """Every device of this machine, the best one first."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def computing(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """The block computes in float32, or in bfloat16 where that is safe ("auto": if the hardware has it)."""
    wanted = precision == "bf16" or (precision == "auto" and has_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware computes bfloat16 itself; emulated it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        return any(bool(features.get(name, False)) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


class SemanticPostprocess(nn.Module):
    """logits [B, K, H, W], sizes, valid [B, H, W] -> one `Semantic` per image, cut to its own size.

    The label is the first class of the largest logit, the score its softmax probability; one class alone is a yes/no
    question: nothing else to choose, so its label is always 0. Where the image holds no data: `IGNORE`, score 0.
    """

    def forward(self, logits: Tensor, sizes: Sequence[Size], valid: Tensor) -> list[Semantic]:
        """Logits of a padded batch -> results in the order of the batch."""
        labels, scores, _ = best_classes(logits)
        labels = torch.where(valid, labels, IGNORE)
        scores = torch.where(valid, scores, 0.0)
        return [Semantic(labels[i, :h, :w], scores[i, :h, :w]) for i, (h, w) in enumerate(sizes)]


class RegionPostprocess(nn.Module):
    """Regions, sizes -> one `Instances` per image, best first.

    rule: how the small masks are laid into the image, see `torchfpn.ops.masks`; threshold: from which on a pixel is the
    object's. sizes: of the images that the model saw; originals: of those that were asked about, where they were
    resized: boxes and masks are given in their pixels.
    """

    def __init__(self, *, rule: Rule = "torchvision", threshold: float = 0.5) -> None:
        super().__init__()
        self.rule, self.threshold = rule, threshold

    def forward(
        self, regions: Regions, sizes: Sequence[Size], originals: Sequence[Size] | None = None
    ) -> list[Instances]:
        """Regions of a batch -> results in the order of the batch."""
        results = []
        found = regions.detections
        for image, (seen, size) in enumerate(zip(sizes, originals or sizes, strict=True)):
            count = int(found.counts[image])
            scale = [size[1] / seen[1], size[0] / seen[0]] * 2
            boxes = found.boxes[image, :count] * found.boxes.new_tensor(scale)
            labels = found.labels[image, :count]
            crops = None if regions.masks is None else self._crops(regions.masks[image, :count], boxes, labels, size)
            results.append(Instances(boxes, found.scores[image, :count], labels, size, crops))
        return results

    def _crops(self, masks: Tensor, boxes: Tensor, labels: Tensor, size: Size) -> Crops:
        rows = torch.arange(len(labels), device=labels.device)
        chances = masks[rows, labels].float().sigmoid()
        return crop_masks(chances.cpu(), boxes.float().cpu(), size, self.threshold, self.rule)

    def extra_repr(self) -> str:
        """The rule."""
        return f"masks as {self.rule}, threshold {self.threshold}"
