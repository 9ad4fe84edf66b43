"""One band under its many spellings, and what is not one band."""

import pytest

from torchfpn.errors import DataError
from torchfpn.io.bands import band_numbers, match_bands, same_band

SENTINEL = ("B02", "B03", "B04", "B08")


@pytest.mark.parametrize(
    "found",
    [
        ("B8", "B4", "B3", "B2"),
        ("b08_10m", "B04_10m", "B3 10m", "S2_B02"),
        ("nir", "red", "green", "blue"),
        ("Near Infrared", "Red", "GREEN", " blue"),
        ("B08", "red", "G", "Band 2"),
    ],
    ids=str,
)
def test_spellings_of_sentinel_2(found):
    assert match_bands(found, SENTINEL) == [3, 2, 1, 0]
    assert match_bands(SENTINEL, found) == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (("nir", "red", "green"), ("B4", "B3", "B2")),  # Landsat 7; of Sentinel-2 they are red, green, blue
        (("red", "green", "blue"), ("B4", "B3", "B2")),
        (("blue", "green", "red", "nir"), ("B2", "B3", "B4", "B5")),
        (("B8A", "B4"), ("B8", "B4")),
        (("B1", "B4"), ("B11", "B4")),
        (("nir", "NIR"), ("nir", "red")),
        (("vv", "vh"), ("hh", "hv")),
        (("nir08", "red"), ("B08", "B04")),  # the narrow one is B8A
    ],
    ids=str,
)
def test_what_is_not_clear_is_no_match(found, wanted):
    assert match_bands(found, wanted) is None
    assert match_bands(wanted, found) is None


def test_sensors_are_told_by_their_numbers():
    assert match_bands(["nir", "red"], ["SR_B5", "SR_B4"]) is None  # Landsat 8, or 5 and 7
    assert match_bands(["swir1", "red", "nir"], ["SR_B6", "SR_B4", "SR_B5"]) == [0, 1, 2]  # only Landsat 8 has a 6
    assert match_bands(["swir22", "rededge071", "nir08"], ["B12", "B5", "B8A"]) == [0, 1, 2]
    assert same_band("gray", "Grey")
    assert not same_band("B2", "blue")
    assert same_band("B02", "blue")


def test_bands_are_chosen_in_any_spelling():
    assert band_numbers(["B8", "red", 1], ["B02_10m", "B04_10m", "B08_10m"]) == [3, 2, 1]
    with pytest.raises(DataError, match=r'has no band "B3"; expected .* B02_10m'):
        band_numbers(["B3"], ["B02_10m", "B04_10m"])
