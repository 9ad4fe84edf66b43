"""Faults 25 and 27 beyond the reading of files: classes without objects, very many objects, objects on one another."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from made_data import picture, write_png
from made_detections import BOX, NAMES, OTHER, found, squares, truth
from made_objects import YAML, coco, make_objects, record
from tiny_detector import tiny_detector
from torchfpn.cli.main import main
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import ObjectDataset
from torchfpn.data.sample import collate
from torchfpn.metrics.detection import AveragePrecision
from torchfpn.ops.masks import Crops, Instances, areas
from torchfpn.types import Batch, Objects

STATUS = Path("/proc/self/status")
MIB = 2**20


def memory_of(code):
    """Runs `work()` of the code in a process of its own: MiB that it took at most beyond what was there before."""
    if not STATUS.is_file():
        pytest.skip("only Linux says how much memory a process had at most")
    head = "import re, torch\ntorch.set_num_threads(1)\n"
    head += "def most(): return int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1]) // 1024\n"
    tail = "\nbefore = most()\nwork()\nprint(most() - before)\n"
    words = [sys.executable, "-c", head + code + tail]
    where = Path(__file__).resolve().parents[1]
    done = subprocess.run(words, capture_output=True, text=True, cwd=where, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


# -- 25: a class without an object -------------------------------------------------------------------------------------
@pytest.mark.parametrize("masks", [False, True])
def test_fault_25_a_class_without_an_object_has_no_score_and_no_part_in_the_mean(masks):
    pytest.importorskip("faster_coco_eval", reason="the evaluator is not installed")
    count = AveragePrecision(NAMES, masks=masks)
    count.update(
        found([BOX, OTHER, BOX], [0.9, 0.8, 0.7], [0, 1, 2], masks=masks), truth([BOX, OTHER], [0, 1], masks=masks)
    )
    scores = count.compute()
    for each in (scores.boxes, scores.masks) if masks else (scores.boxes,):
        assert each.class_ap[:2] == (1, 1)
        assert np.isnan(each.class_ap[2])  # found, but nowhere to be found: no 0, which would lower the mean
        assert np.isnan(each.class_ar100[2])
        assert (each.ap, each.ap50, each.ar100) == (1, 1, 1)
        assert each.to_dict()["class_ap"] == [1, 1, None]
        assert each.objects == (1, 1, 0)


@pytest.mark.parametrize("kind", ["detection", "instance"])
def test_fault_25_the_table_and_the_report_say_so(tmp_path, capsys, kind):
    pytest.importorskip("faster_coco_eval", reason="the evaluator is not installed")
    data = make_objects(tmp_path, coco([record(1, (2, 3, 10, 9))]), yaml=YAML.replace("instance", kind, 1))
    tiny_detector(kind).save(tmp_path / "model.safetensors")
    words = [str(tmp_path / "model.safetensors"), str(data), "--split", "train", "--device", "cpu"]
    assert main(["evaluate", *words, "--json", str(tmp_path / "a.json"), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    (row,) = [line.split() for line in out.splitlines() if line.startswith("dot")]
    assert set(row[1:-1]) == {"-"}
    assert row[-1] == "0"
    assert "-: no object, left out of the mean (dot)" in " ".join(out.split())  # its lines are as long as the table
    held = json.loads((tmp_path / "a.json").read_text())
    assert held["boxes"]["class_ap"][1] is None
    assert held["boxes"]["ap"] == held["boxes"]["class_ap"][0]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "No object of dot" in page
    assert "left out of the mean." in page


def test_fault_25_without_any_object_there_is_no_mean(tmp_path, capsys):
    pytest.importorskip("faster_coco_eval", reason="the evaluator is not installed")
    data = make_objects(tmp_path, coco([]))
    tiny_detector().save(tmp_path / "model.safetensors")
    assert (
        main(["evaluate", str(tmp_path / "model.safetensors"), str(data), "--split", "train", "--device", "cpu"]) == 0
    )
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("mean ")]
    (row,) = [row for row in rows if row[-1] == "0"]
    assert set(row[1:-1]) == {"-"}


# -- 27: very many -----------------------------------------------------------------------------------------------------
GRID = """
def grid(count, step):
    side = round(count ** 0.5)
    ys, xs = torch.meshgrid(torch.arange(side) * step, torch.arange(side) * step, indexing="ij")
    low = torch.stack([xs, ys], -1).reshape(-1, 2).float()
    return torch.cat([low, low + step], 1)
"""


@pytest.mark.parametrize(
    ("where", "limit"),
    [("spread", 300), ("in one place", 300)],
)
def test_fault_27_a_hundred_thousand_objects_are_matched_in_parts(where, limit):
    """The table of overlaps alone would be 7.5 GiB, or 380 MiB, and what it is made of ten times that."""
    code = f"""
{GRID}
from torchfpn.ops.boxes import match
objects = grid(316 ** 2, 9)
boxes = objects[:: 5].clone() + 1
if {where!r} == "in one place":  # nothing lies apart
    objects, boxes = objects / 1000 + torch.tensor([0.0, 0.0, 9.0, 9.0]), boxes[:1000]
def work():
    found = match(boxes, objects, high=0.5, low=0.3, always=True)
    assert len(objects) > 99_000
    if {where!r} == "spread":  # a box a pixel off: IoU 64 / 98
        assert (found == torch.arange(0, len(objects), 5)).all()
"""
    assert memory_of(code) < limit


@pytest.mark.slow
def test_fault_27_a_hundred_thousand_objects_are_learnt_from():
    """Every joint of a training step: anchors, proposals and the objects' own boxes, masks."""
    code = f"""
{GRID}
from tiny_detector import tiny_detector
from torchfpn.ops.masks import Crops
from torchfpn.types import Batch, Objects
boxes = grid(316 ** 2, 3)
size = (960, 960)
def work():
    crops = Crops(boxes.long(), torch.ones(9 * len(boxes), dtype=torch.bool), size)
    objects = Objects(boxes, torch.zeros(len(boxes), dtype=torch.int64), crops)
    losses = tiny_detector().train().losses(Batch(torch.rand(1, 3, *size), [size], [objects]))
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total) and losses["masks"] > 0
"""
    assert memory_of(code) < 1500


def test_fault_27_a_thousand_objects_on_one_another_are_learnt_from():
    size = (64, 64)
    shift = torch.linspace(0, 1, 1000)[:, None]
    boxes = torch.tensor([[10.0, 10, 40, 40]]) + shift
    objects = Objects(boxes, torch.arange(1000) % 2, squares(boxes, size))
    task = tiny_detector().train()
    losses = task.losses(Batch(255 * torch.rand(1, 3, *size), [size], [objects]))
    assert set(losses) == {"objectness", "anchors", "classes", "boxes", "masks"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["masks"] > 0
    sum(losses.values()).backward()
    assert all(weight.grad.isfinite().all() for weight in task.parameters() if weight.grad is not None)


def test_fault_27_a_thousand_objects_on_one_another_are_never_whole_images(tmp_path):
    """1000 whole masks of 4000 x 4000 pixels would be 15 GiB; what is held is their windows, and one map of numbers."""
    pytest.importorskip("faster_coco_eval", reason="the evaluator is not installed")
    code = f"""
import json
from pathlib import Path
from torchfpn.metrics import AveragePrecision
from torchfpn.ops.masks import Instances
from torchfpn.ops.masks import Crops, areas
from torchfpn.ops.masks import numbered
from torchfpn.ops.rle import from_rle, to_rle
from torchfpn.data.labels.coco_results import coco_results
from torchfpn.recipe import Recipe
from tiny_detector import tiny_detector
from torchfpn.types import Objects
size, count = (4000, 4000), 1000
low = 1500 + torch.arange(count)[:, None].expand(-1, 2) // 10
windows = torch.cat([low, low + 100], 1)
crops = Crops(windows, torch.ones(count * 100 * 100, dtype=torch.bool), size)
scores, labels = torch.linspace(1, 0.5, count), torch.zeros(count, dtype=torch.int64)
recipe = tiny_detector().recipe
count_of = AveragePrecision(["cell"], masks=True, most=1000)
def work():
    found = Instances(windows.float(), scores, labels, size, crops)
    assert len(found.above(0.75)) == 500
    runs = to_rle(crops)
    assert torch.equal(from_rle(runs).windows, windows)
    image = numbered(crops)
    assert image[1500, 1500] == 1 and len(image.unique()) == 1 + 100  # the first of those in the same place is seen
    with coco_results(Path({str(tmp_path)!r}) / "a.json", recipe) as results:
        results.add(1, "a.png", found)
    count_of.update(found, Objects(windows.float(), labels, crops))
    scored = count_of.compute()
    assert scored.masks.ap == 1 and scored.masks.objects == (count,)
"""
    assert memory_of(code) < 700
    records = json.loads((tmp_path / "a.json").read_text())["annotations"]
    assert len(records) == 1000
    assert {one["area"] for one in records} == {10_000}


def test_fault_27_ten_thousand_objects_as_an_image_of_numbers(tmp_path):
    from PIL import Image

    from torchfpn.inference.objects import write_instances

    low = 4 * torch.cartesian_prod(torch.arange(100), torch.arange(100))
    crops = Crops(torch.cat([low, low + 3], 1), torch.ones(90_000, dtype=torch.bool), (400, 400))
    write_instances(tmp_path / "a.png", crops, None)
    counts = np.bincount(np.asarray(Image.open(tmp_path / "a.png")).reshape(-1))
    assert len(counts) == 10_001
    assert set(counts[1:].tolist()) == {9}


@pytest.mark.parametrize("kind", ["detection", "instance"])
def test_fault_27_an_image_of_one_pixel(tmp_path, kind):
    value = coco([record(1, (0, 0, 1, 1)), record(2, (2, 3, 40, 39), image=2)])
    value["images"][0] |= {"height": 1, "width": 1}
    value["images"][1] |= {"height": 50, "width": 60}
    folder = make_objects(tmp_path, value, yaml=YAML.replace("instance", kind, 1))
    for i, size in enumerate([(1, 1), (50, 60)]):
        write_png(folder / "train" / "images" / f"a{i}.png", picture(i, size))
    samples = ObjectDataset(read_dataset(folder), "train")
    sample = samples[0]
    assert sample.objects.boxes.tolist() == [[0, 0, 1, 1]]
    task = tiny_detector(kind)
    losses = task.train().losses(collate([sample, samples[1]]))  # batch norm wants more than one value
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    (answer,) = task.eval().predict([sample.image])
    assert isinstance(answer, Instances)
    assert answer.size == (1, 1)
    assert (answer.boxes >= 0).all()
    assert (answer.boxes <= 1).all()
    if kind == "instance":
        assert areas(sample.objects.masks).tolist() == [1]
        assert answer.masks.shape == (len(answer), 1, 1)
