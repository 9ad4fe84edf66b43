"""Run lengths: those of pycocotools for every mask, back again, and no harm from what others wrote."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from torchfpn import DataError
from torchfpn.ops.masks import areas, crop_images, crop_masks, paste
from torchfpn.ops.rle import area, bbox, from_rle, run_lengths, spelled, to_rle

stacks = arrays.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12)))


def naive(mask):
    """COCO's lengths, one pixel at a time."""
    lengths, value = [0], False
    for pixel in mask.T.flatten().tolist():
        if pixel != value:
            lengths.append(0)
            value = pixel
        lengths[-1] += 1
    return lengths


@settings(max_examples=150, deadline=None)
@given(stacks)
def test_there_and_back(masks):
    masks = torch.from_numpy(masks)
    crops = crop_images(masks)
    records = to_rle(crops)
    for mask, record in zip(masks.numpy(), records, strict=True):
        assert run_lengths(record).tolist() == naive(mask)
        assert record["size"] == list(mask.shape)
        assert area(record) == mask.sum()
    assert [list(bbox(record)) for record in records] == crops.windows.tolist()
    back = from_rle(records)
    assert torch.equal(back.windows, crops.windows)
    assert torch.equal(back.pixels, crops.pixels)
    as_lists = [{"size": record["size"], "counts": run_lengths(record).tolist()} for record in records]
    assert torch.equal(paste(from_rle(as_lists)), masks)


def test_the_strings_are_those_of_coco():
    mask = pytest.importorskip("faster_coco_eval").mask
    torch.manual_seed(0)
    for size in ((60, 80), (700, 500), (1, 40), (40, 1)):
        corner = torch.rand(30, 2) * torch.tensor([size[1], size[0]]) * 1.2 - 5
        found = torch.cat([corner, corner + torch.rand(30, 2) ** 2 * 500], 1)
        crops = crop_masks(torch.rand(30, 1, 28, 28), found, size)
        whole = paste(crops).numpy().astype(np.uint8)
        records = to_rle(crops)
        for image, record in zip(whole, records, strict=True):
            counts = mask.encode(np.asfortranarray(image))["counts"]
            assert record["counts"] == (counts.decode() if isinstance(counts, bytes) else counts)
            assert np.array_equal(mask.decode(record), image)
        assert torch.equal(paste(from_rle(records)), torch.from_numpy(whole).bool())


def test_a_known_string():
    mask = torch.zeros(1, 4, 5, dtype=torch.bool)
    mask[0, 1:3, 1:3] = True
    assert to_rle(crop_images(mask)) == [{"size": [4, 5], "counts": "52207"}]
    assert run_lengths({"size": [4, 5], "counts": b"52207"}).tolist() == [5, 2, 2, 2, 9]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**31 // 20), min_size=1, max_size=20))
def test_long_runs(lengths):
    record = {"size": [1, sum(lengths)], "counts": lengths}
    assert run_lengths(record).tolist() == lengths
    assert area(record) == sum(lengths[1::2])


def test_windows_as_high_as_the_image_have_runs_over_several_columns():
    masks = torch.zeros(2, 6, 9, dtype=torch.bool)
    masks[0, :, 2:7] = True
    masks[1, :, 2:7] = True
    masks[1, 3, 4] = False
    records = to_rle(crop_images(masks))
    assert run_lengths(records[0]).tolist() == [12, 30, 12]
    assert run_lengths(records[1]).tolist() == [12, 15, 1, 14, 12]


def test_no_objects_and_empty_masks():
    none = crop_images(torch.zeros(0, 3, 4, dtype=torch.bool))
    assert to_rle(none) == []
    assert len(from_rle([], (3, 4))) == 0
    with pytest.raises(DataError, match="no masks and no size"):
        from_rle([])
    empty = to_rle(crop_images(torch.zeros(2, 3, 4, dtype=torch.bool)))
    assert run_lengths(empty[1]).tolist() == [12]
    assert bbox(empty[0]) == (0, 0, 0, 0)
    assert not areas(from_rle(empty)).any()
    nothing = to_rle(crop_images(torch.zeros(1, 0, 4, dtype=torch.bool)))
    assert area(nothing[0]) == 0
    assert paste(from_rle(nothing)).shape == (1, 0, 4)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([4, 5], "no run lengths"),
        ({"size": [4, 5]}, "no run lengths"),
        ({"size": [4], "counts": [20]}, r"size: \[4\]; expected \[height, width\]"),
        ({"size": [4, 5.0], "counts": [20]}, "size"),
        ({"size": [True, 20], "counts": [20]}, "size"),
        ({"size": [-4, -5], "counts": [20]}, "size"),
        ({"size": [2**20, 2**20], "counts": [2**40]}, "fewer than 2"),
        ({"size": "45", "counts": [20]}, "size"),
        ({"size": [4, 5], "counts": None}, "counts: None; expected a string"),
        ({"size": [4, 5], "counts": [20.0]}, "whole numbers"),
        ({"size": [4, 5], "counts": [True] * 20}, "whole numbers"),
        ({"size": [4, 5], "counts": [2**70]}, "whole numbers"),
        ({"size": [4, 5], "counts": [25, -5]}, "a run of -5 pixels"),
        ({"size": [4, 5], "counts": [5, 14]}, "runs of 19 pixels together; expected 4 x 5 = 20"),
        ({"size": [4, 5], "counts": []}, "runs of 0 pixels together"),
        ({"size": [4, 5], "counts": ""}, "runs of 0 pixels together"),
        ({"size": [4, 5], "counts": "5220"}, "together; expected 4 x 5"),
        ({"size": [4, 5], "counts": "5220P"}, "in the middle of a number"),
        ({"size": [4, 5], "counts": "52 07"}, "character ' '"),
        ({"size": [4, 5], "counts": "52p07"}, "character 'p'"),
        ({"size": [4, 5], "counts": "52é07"}, "not ASCII"),
        ({"size": [4, 5], "counts": "oooooooo0"}, "more than 35 bits"),
    ],
)
def test_what_is_no_mask_is_refused_with_the_reason(record, message):
    with pytest.raises(DataError, match=message) as caught:
        run_lengths(record)
    assert "\n" not in str(caught.value)


def test_the_size_must_be_that_of_the_image():
    record = {"size": [4, 5], "counts": [20]}
    with pytest.raises(DataError, match=r"size: size \[4, 5\]; expected \[5, 4\], as of the image"):
        run_lengths(record, (5, 4))
    with pytest.raises(DataError, match="as of the image"):
        from_rle([record, {"size": [5, 4], "counts": [20]}])


@settings(max_examples=300, deadline=None)
@given(
    size=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    counts=st.one_of(
        st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=20),
        st.binary(max_size=20),
        st.lists(st.integers(-5, 400), max_size=8),
    ),
)
def test_noise_gives_a_mask_or_a_reason(size, counts):
    record = {"size": list(size), "counts": counts}
    try:
        crops = from_rle([record])
    except DataError:
        return
    assert int(areas(crops)) == area(record)
    assert paste(crops).shape == (1, *size)


@settings(max_examples=100, deadline=None)
@given(stacks, st.data())
def test_a_spoilt_string_gives_a_mask_or_a_reason(masks, data):
    record = to_rle(crop_images(torch.from_numpy(masks[:1])))[0]
    text = record["counts"]
    place = data.draw(st.integers(0, len(text)))
    spoilt = data.draw(
        st.sampled_from([text[:place], text[:place] + "o" + text[place:], text[:place] + "`" + text[place + 1 :]])
    )
    try:
        crops = from_rle([record | {"counts": spoilt}])
    except DataError:
        return
    assert paste(crops).shape == (1, *masks.shape[1:])


def test_run_lengths_are_spelled_without_masks_as_with_them():
    rng = np.random.default_rng(0)
    for _ in range(50):
        runs = rng.integers(0, 4, int(rng.integers(1, 12))).tolist()  # runs of no pixel among them
        runs.append(60 - sum(runs))
        record = {"size": [6, 10], "counts": runs}
        assert spelled(record) == to_rle(from_rle([record]))[0]["counts"]
