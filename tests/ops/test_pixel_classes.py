"""Class and probability of every pixel: the same as of all logits at once, whatever the size and the layout."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from torchfpn.ops.pixel_classes import AT_ONCE, best_classes

SIDE = st.integers(1, 9)


def drawn(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.tuples(SIDE, SIDE), st.tuples(SIDE, SIDE), st.integers(1, 5), st.booleans())
def test_it_equals_resizing_all_logits_at_once(size, wanted, classes, channels_last):
    logits = drawn(2, classes, *size)
    logits = logits.contiguous(memory_format=torch.channels_last) if channels_last else logits
    labels, scores, best = best_classes(logits, wanted)
    whole = F.interpolate(logits, wanted, mode="bilinear", align_corners=False)
    torch.testing.assert_close(best, whole.max(1).values, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.gather(1, labels[:, None])[:, 0], best, atol=1e-5, rtol=0)
    torch.testing.assert_close(scores, whole.softmax(1).max(1).values, atol=1e-5, rtol=0)


def test_rows_that_are_computed_apart_join_without_a_seam():
    logits, wanted = drawn(1, 200, 20, 30), (100, 300)
    assert AT_ONCE // (200 * 300) < 50  # rows at once
    labels, scores, _ = best_classes(logits, wanted)
    whole = F.interpolate(logits, wanted, mode="bilinear", align_corners=False)
    assert (labels != whole.argmax(1)).float().mean() < 1e-5
    torch.testing.assert_close(scores, whole.softmax(1).max(1).values, atol=1e-5, rtol=0)


def test_the_first_of_equal_logits_is_taken_and_nan_is_seen():
    labels, scores, best = best_classes(torch.zeros(1, 3, 2, 2))
    assert (labels == 0).all()
    assert scores.flatten().tolist() == pytest.approx([1 / 3] * 4)
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 1, 0, 0] = torch.nan
    _, scores, best = best_classes(logits)
    assert best.isnan().sum() == scores.isnan().sum() == 1


def test_half_precision_is_computed_in_float32():
    logits = drawn(1, 5, 8, 8)
    labels, scores, _ = best_classes(logits.bfloat16(), (16, 16))
    assert scores.dtype == torch.float32
    again = best_classes(logits.bfloat16().float(), (16, 16))
    assert torch.equal(labels, again[0])
    assert torch.equal(scores, again[1])
