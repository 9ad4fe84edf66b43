"""A real photograph, and what `fpn predict` makes of one beside what a task makes of it in Python."""

import json

import numpy as np
import torch
from PIL import Image

from made_data import write_tiff
from shared import DATA
from torchfpn.cli.main import main

PHOTO = DATA / "bccd" / "val" / "images" / "BloodImage_00000.jpg"


def predicted(task, file, folder):
    """The boxes [N, 4] (x1, y1, x2, y2), scores and label values that `fpn predict` writes, best first."""
    task.save(folder / "model.safetensors")
    assert main(["predict", str(folder / "model.safetensors"), str(file), "--out", str(folder / "out")]) == 0
    records = json.loads((folder / "out" / "objects.json").read_text())["annotations"]
    boxes = torch.tensor([record["bbox"] for record in records]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes, torch.tensor([r["score"] for r in records]), [r["category_id"] for r in records]


def same_as_python(task, file, folder, found):
    """Asserts that the command writes what `task.predict` has found, but for objects without a pixel."""
    boxes, scores, labels = predicted(task, file, folder)
    keep = torch.ones(len(found), dtype=torch.bool) if found.masks is None else found.masks.flatten(1).any(1)
    assert int(keep.sum()) == len(boxes) > 20
    torch.testing.assert_close(boxes, found.boxes[keep], atol=2e-3, rtol=0)
    torch.testing.assert_close(scores, found.scores[keep], atol=1e-4, rtol=0)
    assert labels == [task.recipe.label_ids[label] for label in found.labels[keep]]


def refused_in_16_bits(photo, folder, capsys):
    """Asserts that the model that `predicted` saved refuses a photograph saved as a 16-bit PNG, with the cure."""
    with Image.open(photo) as opened:
        array = np.asarray(opened.convert("RGB")).astype(np.uint16) * 257
    write_tiff(folder / "deep.png", array.transpose(2, 0, 1), driver="PNG")
    words = ["predict", str(folder / "model.safetensors"), str(folder / "deep.png"), "--out", str(folder / "out")]
    capsys.readouterr()
    assert main([*words, "--overwrite"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "deep.png: holds uint16; expected uint8, scaled to 0 to " in told
    assert "; bring it to 8 bits as it was done for the training" in told
