"""Matching in parts: whatever is computed at a time, the answer is that of the whole table of overlaps."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from torchfpn.ops.boxes import BACKGROUND, UNDECIDED, match, overlaps


def whole(boxes, targets, *, high, low, always):
    """Ren et al. 2015, section 3.1.2, in one table."""
    if not len(targets):
        return torch.full((len(boxes),), BACKGROUND)
    table = overlaps(targets, boxes)
    best, which = table.max(0)
    found = which.clone()
    found[best < high] = UNDECIDED
    found[best < low] = BACKGROUND
    if always and len(boxes):
        most = table.max(1, keepdim=True).values
        nearest = ((table == most) & (most > 0)).any(0)
        found[nearest] = which[nearest]
    return found


def some(generator, count, side):
    """Boxes on a coarse grid: many are equal, touch, or have no area."""
    low = torch.randint(0, side, (count, 2), generator=generator).float()
    return torch.cat([low, low + torch.randint(0, 5, (count, 2), generator=generator).float()], 1)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(0, 40),
    st.integers(0, 40),
    st.sampled_from([4, 12, 60]),
    st.sampled_from([1, 3, 50, 10_000]),
    st.booleans(),
    st.sampled_from([(0.7, 0.3), (0.5, 0.5), (0.5, 0.0)]),
)
def test_the_answer_is_that_of_the_whole_table(seed, n, m, side, room, always, bounds):
    generator = torch.Generator().manual_seed(seed)
    boxes, targets = some(generator, n, side), some(generator, m, side)
    how = {"high": bounds[0], "low": bounds[1], "always": always}
    found = match(boxes, targets, **how, max_overlaps=room)
    assert torch.equal(found, whole(boxes, targets, **how))


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that is made, and in all tables [M, N] of IoUs together."""

    def __init__(self):
        super().__init__()
        self.largest = self.tables = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.largest = max(self.largest, made.numel())
            if func is torch.ops.aten.div.Tensor and made.dim() == 2:
                self.tables += made.numel()
        return made


def test_memory_is_bounded_and_boxes_far_from_a_target_are_not_compared_with_it():
    generator = torch.Generator().manual_seed(0)
    boxes, targets = some(generator, 900, 60), some(generator, 700, 60)
    with Largest() as seen:
        match(boxes, targets, high=0.7, low=0.3, always=True, max_overlaps=2000)
    assert seen.largest <= 2 * 4 * 2000  # the corners of a part
    assert 0 < seen.tables < 0.5 * 900 * 700
