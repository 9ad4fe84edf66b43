"""Tasks of objects small enough to be made, saved and asked in a test; untrained, but of several opinions."""

import torch

import torchfpn

NAMES, IDS, COLORS = ("cell", "dot"), (3, 7), ((200, 60, 30), (20, 160, 40))


def tiny_detector(kind="instance", *, classes=NAMES, ids=IDS, bands=("red", "green", "blue"), proposals=50, **options):
    """A task that finds as many objects as there are proposals, with scores from 0.1 to 0.9 and ragged masks."""
    torch.manual_seed(0)
    options = {"dtype": "uint8", "colors": COLORS[: len(classes)], "label_ids": ids} | options
    task = torchfpn.create_task(
        kind, backbone="test_resnet", classes=classes, bands=bands, channels=16,
        head_options={"hidden": 32, "proposals": proposals}, **options,
    )  # fmt: skip
    return task.eval()
