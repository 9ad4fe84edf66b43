"""Objects that overlap in one image of numbers."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from torchfpn.ops.masks import crop_images, numbered


@given(st.integers(0, 6), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_the_first_object_at_a_pixel_is_seen(count, height, width, seed):
    masks = torch.rand(count, height, width, generator=torch.Generator().manual_seed(seed)) > 0.6
    image = numbered(crop_images(masks))
    assert image.shape == (height, width)
    for y in range(height):
        for x in range(width):
            here = masks[:, y, x].nonzero()[:, 0].tolist()
            assert image[y, x] == (here[0] + 1 if here else 0)
