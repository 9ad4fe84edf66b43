"""Bands in the model's order, NaN where there is no data, no other pixel type in silence."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from torchfpn.errors import DataError
from torchfpn.io.images import Picture
from torchfpn.io.select_bands import band_order, fitted, read_input
from torchfpn.recipe import Recipe, Scaling

RECIPE = Recipe("semantic", {}, ("a", "b"), ("red", "green", "nir"), Scaling.identity(3), (0, 1), dtype="uint16")


def picture(names, dtype="uint16", valid=None):
    array = np.stack([np.full((2, 3), i, dtype) for i in range(len(names))])
    return Picture(array, valid, tuple(names), dtype)


@pytest.mark.parametrize(
    ("found", "order"),
    [
        (["red", "green", "nir"], [0, 1, 2]),
        (["nir", "Red", "GREEN"], [1, 2, 0]),
        (["blue", "green", "red", "swir", "nir"], [2, 1, 4]),
        (["band1", "band2", "band3"], [0, 1, 2]),
        (["red", "green", "nir2"], [0, 1, 2]),
        (["red", "red", "nir"], [0, 1, 2]),
    ],
)
def test_bands_go_by_name_or_else_by_place(found, order):
    assert band_order(found, RECIPE.bands, file="x.tif") == order
    assert fitted(picture(found), RECIPE, file="x.tif")[:, 0, 0].tolist() == order


def test_files_without_names_have_their_bands_where_the_training_files_had_them():
    recipe = replace(RECIPE, bands=("z", "x", "y"), file_bands=("x", "y", "z", "pan"))
    unnamed = picture(["band1", "band2", "band3", "band4"])
    assert fitted(unnamed, recipe, file="x.tif")[:, 0, 0].tolist() == [2, 0, 1]
    named = replace(picture(["z", "y", "x", "pan"]), told=(True,) * 4)
    assert fitted(named, recipe, file="x.tif")[:, 0, 0].tolist() == [0, 2, 1]
    assert fitted(picture(["band1", "band2", "band3"]), recipe, file="x.tif")[:, 0, 0].tolist() == [0, 1, 2]
    array = np.stack([np.full((2, 5), i, "uint16") for i in range(4)])
    assert read_input(array, recipe)[:, 0, 0].tolist() == [2, 0, 1]
    assert read_input(array[:3], recipe)[:, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (["nir", "red", "blue"], True),
        (["B4", "B3", "B2"], True),  # of which sensor?
        (["red", "nir", "band3"], [True, True, False]),  # nir is the model's third band
    ],
)
def test_names_that_the_file_tells_and_the_model_does_not_know_are_refused(found, told):
    told = [True] * 3 if told is True else told
    with pytest.raises(DataError, match=r"x\.tif: names its bands .*; expected 3, as the model has .*--bands"):
        band_order(found, RECIPE.bands, file="x.tif", told=told)
    assert band_order(found, ["band1", "band2", "band3"], file="x.tif", told=told) == [0, 1, 2]
    assert band_order(["vv", "green", "nir"], ["band1", "green", "nir"], file="x.tif", told=[True] * 3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("found", "hint"), [(["red", "green"], None), (["band1", "band2", "band3", "band4"], "--bands")]
)
def test_another_number_of_bands_is_refused_with_both_lists(found, hint):
    with pytest.raises(DataError) as raised:
        band_order(found, RECIPE.bands, file="x.tif")
    error = raised.value
    assert str(error).startswith(f"x.tif: has {len(found)} bands (")
    assert "3, as the model has (red, green, nir)" in str(error)
    assert (error.hint or "").endswith(hint or "")
    assert bool(error.hint) == bool(hint)


def test_another_type_is_refused_unless_accepted():
    with pytest.raises(
        DataError, match=r"x\.tif: holds uint8; expected uint16, as the model was trained on.*--accept-dtype"
    ):
        fitted(picture(RECIPE.bands, "uint8"), RECIPE, file="x.tif")
    image = fitted(picture(RECIPE.bands, "uint8"), RECIPE, file="x.tif", accept_dtype=True)
    assert image.dtype == torch.float32


def test_invalid_pixels_are_nan_in_every_band():
    valid = np.array([[True, False, True], [True, True, True]])
    image = fitted(picture(RECIPE.bands, valid=valid), RECIPE, file="x.tif")
    assert torch.equal(image.isnan(), torch.from_numpy(~valid).expand(3, 2, 3))
