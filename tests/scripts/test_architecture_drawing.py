"""The drawing of a model: every level and every module is in it, as it is, legible, inside the frame."""

import re
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from architecture import architecture
from architecture.backbones import numbers
from architecture.labels import describe, level_after
from torchfpn import create_model
from torchfpn.nn.containers import Concat, Parallel, Pick, Shared, Sum, chain
from torchfpn.pyramids.fpn import FPN
from torchfpn.types import Level

SVG = "{http://www.w3.org/2000/svg}"
MODELS = {
    "finest": {"head": "finest"},
    "sum": {"norm": "group", "dropout": 0.1},
    "concat": {"head": "concat", "head_options": {"classifier": "bottleneck"}, "extra": "pool"},
    "panet": {"pyramid": "panet", "extra": "conv"},
    "conv-c5": {"strides": (8, 16, 32), "extra": "conv-c5"},
    "dilated": {"output_stride": 8, "pyramid": "panet"},
    "fusenet": {"in_channels": 5, "fusion": "fusenet", "points": (2, 4)},
    "late": {"in_channels": 5, "fusion": "late"},
    "simple": {"backbone": "vit_tiny_patch16_224", "pyramid": "simple"},
    "torchvision": {"backbone": "torchvision/resnet18"},
    "panoptic": {"task": "panoptic", "things": 1, "stuff": 6, "pyramid": "panet"},
}


class Body(nn.Module):
    levels = (Level(8, 4), Level(16, 8), Level(32, 16))
    in_channels = 4


class Strange(nn.Module):
    pass


class StrangeNeck(nn.Module):
    levels = (Level(32, 4), Level(32, 8), Level(32, 16), Level(32, 32))


def made(**options):
    with torch.device("meta"):
        return create_model(**{"backbone": "test_resnet", "num_classes": 7, **options})


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return made(**MODELS[request.param])


def parsed(model):
    return ElementTree.fromstring(architecture(model))


def texts(model):
    return [plain(element.text) for element in parsed(model).iter(f"{SVG}text")]


def plain(text):
    return text.replace("\N{MULTIPLICATION SIGN}", "x")


def rects(root, *kinds):
    """Left, top, right, bottom of each."""
    found = []
    for element in root.iter(f"{SVG}rect"):
        if element.get("class") in kinds:
            x, y, w, h = (float(element.get(key)) for key in ("x", "y", "width", "height"))
            found.append((x, y, x + w, y + h))
    return found


def inside(x, y, box):
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def test_every_level_is_there_with_stride_and_channels(model):
    words = texts(model)
    for piece, letters in ((model.backbone, "C"), (model.pyramid, "PN")):
        for k, level in zip(numbers(piece.levels), piece.levels, strict=True):
            assert any(f"{letter}{k}" in words for letter in letters)
            assert f"1/{level.stride} · {level.channels}" in words
    assert words.count("logits") == 1
    assert "1/1 · 7" in words


@pytest.mark.parametrize("piece", ["backbone", "pyramid", "head"])
def test_a_piece_by_itself_is_drawn(model, piece):
    part = model.get_submodule(piece)
    words = texts(part)
    if piece == "backbone":
        assert {f"C{k}" for k in numbers(part.levels)} <= set(words)
    elif isinstance(first := next(part.children()), Parallel):
        assert words.count("map") == len(first)


def test_a_backbone_of_chosen_maps_is_drawn_by_itself():
    words = texts(made(backbone="torchvision/resnet18", strides=(8, 16)).backbone)
    assert {"C3", "C4", "1/8 · 128", "1/16 · 256"} <= set(words)


def test_pieces_and_children_stand_under_their_names(model):
    words = texts(model)
    assert {"backbone", "pyramid", "head"} <= set(words)
    assert {name for name, _ in model.head.named_children()} - {"finest"} <= set(words)


def test_boxes_lie_apart_and_hold_their_text(model):
    root = parsed(model)
    boxes = rects(root, "op", "map")
    for a, b in combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)
    held = 0
    for text in root.iter(f"{SVG}text"):
        x, y = float(text.get("x")), float(text.get("y"))
        around = [box for box in boxes if inside(x, y, box)]
        if text.get("class") in ("what", "level"):
            (box,) = around
            assert x - box[0] >= 3.3 * len(text.text)  # half of 6.6 pixels a letter
            assert box[1] + 9 <= y <= box[3] - 3
            held += 1
        else:
            assert not around, text.text
    assert held >= len(boxes)


def test_nothing_is_outside_the_frame(model):
    root = parsed(model)
    _, _, width, height = map(float, root.get("viewBox").split())
    frame = (0, 0, width, height)
    panels = rects(root, "panel")
    for box in panels + rects(root, "op", "map"):
        assert inside(*box[:2], frame)
        assert inside(*box[2:], frame)
    for box in rects(root, "op", "map"):
        assert any(inside(*box[:2], panel) and inside(*box[2:], panel) for panel in panels)
    for path in root.iter(f"{SVG}path"):
        if path.get("class") in ("arrow", "tip") and "L" in path.get("d"):
            for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path.get("d")):
                assert inside(float(x), float(y), frame)
    for text in root.iter(f"{SVG}text"):
        half = 3.3 * len(text.text)
        assert inside(float(text.get("x")) - half, float(text.get("y")) - 10, frame)
        assert inside(float(text.get("x")) + half, float(text.get("y")), frame)


def test_no_arrow_runs_through_a_box(model):
    root = parsed(model)
    boxes = rects(root, "op", "map")
    (lines,) = (p.get("d") for p in root.iter(f"{SVG}path") if p.get("class") == "arrow" and "L" in p.get("d"))
    for line in lines.split("M")[1:]:
        corners = [tuple(map(float, corner.split())) for corner in line.split("L")]
        for (x, y), (x2, y2) in pairwise(corners):
            for left, top, right, bottom in boxes:
                crosses = max(min(x, x2), left + 1) < min(max(x, x2), right - 1) and top + 1 < y < bottom - 1
                falls = max(min(y, y2), top + 1) < min(max(y, y2), bottom - 1) and left + 1 < x < right - 1
                assert not (crosses and y == y2), (line, left, top)
                assert not (falls and x == x2), (line, left, top)


def test_the_numbers_are_those_of_the_modules():
    wide, narrow = texts(made(channels=96, head_channels=64)), texts(made(channels=32, num_classes=3))
    assert wide.count("1x1 → 96") == wide.count("3x3 → 96") == 4
    assert narrow.count("1x1 → 32") == narrow.count("3x3 → 32") == 4
    assert "→ 64" in " ".join(wide)
    assert "1x1 → 3" in narrow
    changed = made()
    changed.pyramid.smooth[2] = nn.Conv2d(256, 256, 5, padding=2)
    assert texts(changed).count("5x5 → 256") == 1


def test_what_is_left_out_is_not_drawn():
    assert "smooth" not in texts(made(smooth=False))
    assert texts(made(head="finest")).count("3x3 → 256") == 1


@pytest.mark.parametrize("points", [(2,), (2, 4), (1, 2, 3, 4, 5)])
def test_streams_meet_at_the_points_only(points):
    root = parsed(made(in_channels=5, fusion="fusenet", points=points))
    top_down = 3
    assert sum(e.get("class") == "plus" for e in root.iter(f"{SVG}circle")) == len(points) + top_down


@pytest.mark.parametrize(
    ("module", "lines"),
    [
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), ("3x3 /2 → 8",)),
        (nn.Conv2d(3, 8, (1, 5), dilation=2), ("1x5 dilated 2", "→ 8")),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)), ("1x1 8, 1x1 4",)),
        (nn.Sequential(*(nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU()) for _ in range(3))), ("[3x3, ReLU] x3", "→ 8")),
        (nn.Upsample(scale_factor=2), ("up x2",)),
        (nn.MaxPool2d(3, stride=2), ("max pool /2",)),
        (nn.Sequential(nn.Identity(), nn.GELU()), ("GELU",)),
        (Strange(), ("Strange",)),
        (nn.Sequential(*(nn.Sequential(nn.Linear(i, 1), Strange()) for i in range(1, 40))), None),
    ],
)
def test_a_box_says_what_is_in_it(module, lines):
    found = tuple(map(plain, describe(module)))
    assert lines is None or found == lines
    assert len(found) <= 5


def test_levels_follow_the_layers():
    half = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU())
    assert level_after(half, Level(8, 4)) == Level(16, 8)
    assert level_after(nn.ConvTranspose2d(8, 4, 2, stride=2), Level(8, 4)) == Level(4, 2)
    assert level_after(Strange(), Level(8, 4)) is None
    assert numbers([Level(1, 4), Level(1, 8), Level(1, 8), Level(1, 16)]) == [2, 3, 4, 5]


@pytest.mark.parametrize(
    "model",
    [
        chain(backbone=Body(), pyramid=Strange(), head=Strange()),
        chain(normalize=nn.Identity(), backbone=Body(), odd=Strange(), pyramid=FPN(Body.levels, 32), head=Strange()),
        chain(
            backbone=Body(), pyramid=chain(fpn=FPN(Body.levels, 32), odd=Strange()), head=chain(a=Sum(), b=Strange())
        ),
        chain(backbone=Body(), head=chain(odd=Parallel(Strange() for _ in range(3)), concat=Concat())),
        chain(backbone=Body(), head=chain(pick=Pick([0, 2]), each=Shared(Strange()))),
        chain(backbone=Body(), pyramid=StrangeNeck(), head=chain(pick=Pick(0), classify=nn.Conv2d(32, 7, 1))),
        chain(backbone=Body(), pyramid=chain(last=Pick(-1), odd=StrangeNeck()), head=Strange()),
        nn.Sequential(nn.Conv2d(3, 4, 3), Strange()),
        Strange(),
    ],
)
def test_what_is_unknown_is_drawn_by_its_name(model):
    root = parsed(model)
    assert any(text.get("class") == "what" and "Strange" in text.text for text in root.iter(f"{SVG}text"))
    test_boxes_lie_apart_and_hold_their_text(model)
    test_nothing_is_outside_the_frame(model)
    test_no_arrow_runs_through_a_box(model)


def test_names_are_escaped():
    body = Body()
    body.name = '<b> & "c"'
    figure = architecture(chain(**{"<x>": body, "a&b": Strange()}))
    assert "<b>" not in figure
    assert {"<x>", '<b> & "c"', "a&b"} <= {e.text for e in ElementTree.fromstring(figure).iter(f"{SVG}text")}


def test_the_picture_needs_nothing_else():
    figure = architecture(chain(backbone=Body(), pyramid=FPN(Body.levels, 32)))
    assert "url(" not in figure
    assert re.findall(r"https?://[^\"]+", figure) == ["http://www.w3.org/2000/svg"]
    assert "prefers-color-scheme: dark" in figure
    assert architecture(chain(backbone=Body(), pyramid=FPN(Body.levels, 32))) == figure
