"""Geometry: images, labels and points move together."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.data.transforms import Geometry
from torchfpn.geo.window import Window
from torchfpn.recipe import IGNORE

windows = st.builds(Window, st.integers(-6, 8), st.integers(-6, 8), st.integers(1, 14), st.integers(1, 14))
geometries = st.builds(
    Geometry,
    windows,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.integers(0, 3),
    st.booleans(),
    st.booleans(),
)


def identity(window, **options):
    return Geometry(window, (window.height, window.width), **options)


@given(geometries)
@settings(max_examples=60, deadline=None)
def test_labels_are_the_source_pixels_under_the_centres(geometry):
    """Oracle: the output's pixel centres, found by sending every source pixel's square through `on_points`."""
    height, width = 9, 11
    labels = torch.arange(height * width).reshape(height, width)
    out = geometry.on_labels(labels)
    assert out.shape == geometry.size
    rows, columns = torch.meshgrid(torch.arange(-8, 24), torch.arange(-8, 24), indexing="ij")
    corners = torch.stack((columns.flatten(), rows.flatten()), 1).double()
    one, other = geometry.on_points(corners), geometry.on_points(corners + 1)
    low, high = torch.minimum(one, other), torch.maximum(one, other)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            centre = torch.tensor([x + 0.5, y + 0.5], dtype=torch.float64)
            under = ((low <= centre + 1e-9) & (centre - 1e-9 <= high)).all(1).nonzero().flatten()
            r, c = rows.flatten()[under], columns.flatten()[under]
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            allowed = {int(v) for v in torch.where(inside, r * width + c, IGNORE)}
            assert int(out[y, x]) in allowed


@given(geometries)
@settings(max_examples=60, deadline=None)
def test_images_move_with_points(geometry):
    """A picture whose two bands are its own coordinates: every pixel says where it came from."""
    x, y = torch.arange(11.0) + 0.5, torch.arange(9.0) + 0.5
    image = torch.stack((x.expand(9, 11), y[:, None].expand(9, 11)))
    out = geometry.on_image(image)
    assert out.shape == (2, *geometry.size)
    seen = ~out.isnan().any(0)
    back = geometry.on_points(out[:, seen].T)
    rows, columns = seen.nonzero().T
    centres = torch.stack((columns, rows), 1) + 0.5
    # Near the border of the window only one side is mixed in: off by up to half a pixel of the coarser of the two
    zoom = max(geometry.resized[0] / geometry.window.height, geometry.resized[1] / geometry.window.width, 1)
    assert (back - centres).abs().amax().item() <= 0.5 * zoom + 1e-3 if len(back) else True
    labels = geometry.on_labels(torch.zeros(9, 11, dtype=torch.uint8))
    assert not (seen & (labels == IGNORE)).any()


def test_no_resize_is_exact_and_a_copy():
    image = torch.rand(3, 6, 7)
    out = identity(Window(1, 2, 4, 3)).on_image(image)
    assert torch.equal(out, image[:, 1:5, 2:5])
    same = identity(Window(0, 0, 6, 7)).on_image(image)
    same.zero_()
    assert image.any()
    turned = Geometry(Window(0, 0, 6, 7), (7, 6), turns=1, mirror=True).on_image(image)
    assert torch.equal(turned, torch.rot90(image, 1, (1, 2)).flip(2))
    flipped = identity(Window(0, 0, 6, 7), turns=2, flip=True).on_image(image)
    assert torch.equal(flipped, torch.rot90(image, 2, (1, 2)).flip(1))


def test_bytes_and_floats_resample_alike():
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    geometry = Geometry(Window(3, 4, 30, 40), (13, 60), turns=3)
    assert (geometry.on_image(image) - geometry.on_image(image.float())).abs().max() <= 1.0


def triangles(n, m):
    """[m, n] weights of antialiased bilinear resampling from n to m pixels, from its definition."""
    step, centres = n / m, (torch.arange(m, dtype=torch.float64) + 0.5) * (n / m)
    weights = (1 - ((torch.arange(n) + 0.5 - centres[:, None]) / max(step, 1)).abs()).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


lengths = st.sampled_from([1, 2, 3, 4, 7, 13])


@given(lengths, lengths, lengths, lengths, st.sampled_from([torch.float32, torch.uint8, torch.int16]))
@settings(max_examples=80, deadline=None)
def test_resampling_is_antialiased_bilinear(h, w, out_h, out_w, dtype):
    image = (torch.rand(3, h + 2, w + 1) * 200).to(dtype)
    out = Geometry(Window(1, 1, h, w), (out_h, out_w)).on_image(image)
    want = triangles(h, out_h) @ image[:, 1 : h + 1, 1:].double() @ triangles(w, out_w).T
    assert (out - want).abs().max() < (1.1 if dtype == torch.uint8 else 1e-3)  # bytes are rounded, once each way


def test_nan_spreads_over_its_support_and_no_further():
    image = torch.ones(1, 40, 40)
    valid = torch.ones(40, 40, dtype=torch.bool)
    valid[20, 20] = False
    for size in ((40, 40), (20, 20), (80, 80), (57, 33)):
        missing = Geometry(Window(0, 0, 40, 40), size).on_image(image, valid)[0].isnan()
        zoom = size[0] / 40
        rows = missing.nonzero()[:, 0]
        assert missing.any()
        assert abs((rows + 0.5) / zoom - 20.5).max() <= 1.5 + 1 / zoom
    assert int(Geometry(Window(0, 0, 40, 40), (40, 40)).on_image(image, valid).isnan().sum()) == 1
