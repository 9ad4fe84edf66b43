"""A task small enough to be made, saved and asked in a test; untrained, but of several opinions."""

import torch

import torchfpn

CLASSES, BANDS, IDS = ("grass", "road", "roof"), ("red", "green", "blue", "nir"), (1, 2, 7)
COLORS = ((20, 160, 40), (90, 90, 90), (200, 60, 30))


def tiny_task(*, bands=BANDS, classes=CLASSES, ids=IDS, dtype="uint16", seed=0, **options):
    """A semantic task whose answers vary over the image."""
    torch.manual_seed(seed)
    scaling = torchfpn.Scaling((500.0,) * len(bands), (250.0,) * len(bands), "given")
    options = {"scaling": scaling, "label_ids": ids, "colors": COLORS[: len(classes)], "ignore_index": 0} | options
    task = torchfpn.create_task(
        "semantic", backbone="test_resnet", classes=classes, bands=bands, dtype=dtype, channels=16, head_channels=16,
        strides=(4, 8), **options,
    )  # fmt: skip
    task.eval()
    with torch.no_grad():  # no class is the favourite
        probe = 1000 * torch.rand(1, len(bands), 64, 64, generator=torch.Generator().manual_seed(1))
        task.model.head.classify.bias -= task.logits(probe).mean((0, 2, 3))
    return task
