"""Which ResNet is it? Told from the shapes of its blocks, whatever the project calls them."""

from torchfpn.errors import WeightsError
from torchfpn.importers.family import Asked, Tensors, numbers, shape

# (blocks of each stage, 3 for bottlenecks or 2, width of the first 3x3, its inputs in one group) -> name
RESNETS: dict[tuple[tuple[int, ...], int, int, int], str] = {
    ((2, 2, 2, 2), 2, 64, 64): "resnet18",
    ((3, 4, 6, 3), 2, 64, 64): "resnet34",
    ((2, 2, 2, 2), 3, 64, 64): "resnet26",
    ((3, 4, 6, 3), 3, 64, 64): "resnet50",
    ((3, 4, 23, 3), 3, 64, 64): "resnet101",
    ((3, 8, 36, 3), 3, 64, 64): "resnet152",
    ((3, 4, 6, 3), 3, 128, 4): "resnext50_32x4d",
    ((3, 4, 23, 3), 3, 128, 4): "resnext101_32x4d",
    ((3, 4, 23, 3), 3, 256, 8): "resnext101_32x8d",
    ((3, 4, 23, 3), 3, 512, 16): "resnext101_32x16d",
    ((3, 4, 23, 3), 3, 1024, 32): "resnext101_32x32d",
    ((3, 4, 23, 3), 3, 256, 4): "resnext101_64x4d",
    ((3, 4, 6, 3), 3, 128, 128): "wide_resnet50_2",
    ((3, 4, 23, 3), 3, 128, 128): "wide_resnet101_2",
}


def resnet_name(tensors: Tensors, stage: str, asked: Asked, *, first: int = 1) -> str:
    """The name, common to timm and torchvision. stage: the names of the four stages, as a format of k = 1..4.

    first: k of the first stage, where it is another.

    Raises:
        WeightsError: blocks that no known ResNet has; they are told.
    """
    blocks, convs, width, inputs = resnet_shape(tensors, stage, asked, first=first)
    name = RESNETS.get((blocks, convs, width, inputs))
    if name is None:
        kind = "bottlenecks" if convs == 3 else "basic blocks"
        raise WeightsError(
            f"{list(blocks)} {kind} of width {width}, {inputs} inputs a group",
            file=asked.file,
            field=stage.format(first),
            allowed=" | ".join(RESNETS.values()),
        )
    return name


def resnet_shape(
    tensors: Tensors, stage: str, asked: Asked, *, first: int = 1
) -> tuple[tuple[int, ...], int, int, int]:
    """(blocks of each stage, convolutions of a block, width of its 3x3, its inputs in one group)."""
    escaped = [stage.format(k).replace(".", r"\.") for k in range(first, first + 4)]
    blocks = tuple(len(numbers(tensors, rf"{name}\.(\d+)\.")) for name in escaped)
    block = stage.format(first) + ".0."
    convs = 3 if f"{block}conv3.weight" in tensors else 2
    width, inputs, *_ = shape(tensors, f"{block}{'conv2' if convs == 3 else 'conv1'}.weight", asked)
    return blocks, convs, width, inputs
