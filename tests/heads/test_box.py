"""The second stage's heads."""

import torch

from torchfpn.heads.roi import MaskHead


def test_masks_of_some_boxes_at_a_time_are_those_of_all():
    torch.manual_seed(0)
    head, rois = MaskHead(8, 3, hidden=8), torch.randn(70, 8, 14, 14)
    whole = head(rois)
    seen = []
    head.enlarge.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    with torch.inference_mode():
        torch.testing.assert_close(head(rois), whole, atol=1e-5, rtol=0)
        assert sum(seen) == 70
        assert max(seen) < 70
        assert head(rois[:0]).shape == (0, 3, 28, 28)
    assert len(head(rois)) == seen[-1] == 70  # a gradient may come
