"""The values: what they say when printed, and that they move from device to device whole."""

import torch

from torchfpn.recipe import IGNORE
from torchfpn.types import Batch, Objects, Panoptic, PanopticTargets, Segment, Semantic

META = torch.device("meta")


def test_a_panoptic_batch_moves_with_its_objects():
    objects = Objects(torch.tensor([[0.0, 0.0, 2.0, 3.0]]), torch.tensor([1]), crowds=torch.zeros(0, 4))
    targets = PanopticTargets(torch.full((1, 4, 6), IGNORE), [objects])
    assert len(targets) == 1
    moved = Batch(torch.zeros(1, 3, 4, 6), [(4, 6)], targets, ["one"]).to(META)
    assert isinstance(moved.targets, PanopticTargets)
    assert moved.images.device == moved.targets.semantic.device == META
    (there,) = moved.targets.objects
    assert there.boxes.device == there.labels.device == there.crowds.device == META
    assert (moved.sizes, moved.names) == ([(4, 6)], ["one"])


def test_a_panoptic_result_is_printed_short():
    segments = torch.zeros(4, 5, dtype=torch.int32)
    segments[0], segments[1], segments[2] = 1, 2, 3
    infos = [
        Segment(1, 0, True, 0.9, 5, (0, 0, 5, 1)),
        Segment(2, 0, True, 0.8, 5, (0, 1, 5, 2)),
        Segment(3, 2, False, 0.7, 5, (0, 2, 5, 3)),
    ]
    result = Panoptic(segments, infos)
    assert repr(result) == "Panoptic(4 x 5: 2 things: class 0 x 2; 1 stuff: class 2; void 25.0 %)"
    assert len(result) == 3


def test_a_panoptic_result_without_segments_is_printed_too():
    assert repr(Panoptic(torch.zeros(2, 2, dtype=torch.int32), [])) == (
        "Panoptic(2 x 2: 0 things; 0 stuff; void 100.0 %)"
    )


def test_a_panoptic_result_moves_with_what_it_keeps():
    semantic = Semantic(torch.zeros(2, 2, dtype=torch.int64), torch.ones(2, 2))
    moved = Panoptic(torch.zeros(2, 2, dtype=torch.int32), [], semantic=semantic).to(META)
    assert moved.segments.device == moved.semantic.labels.device == META
    assert moved.instances is None
