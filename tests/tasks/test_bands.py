"""Bands by name and by position, and the tasks that are made of them."""

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torchfpn
from torchfpn import ConfigError
from torchfpn.backbones import published_scaling
from torchfpn.tasks.build import band_options

BANDS = ("nir", "red", "swir", "green", "blue")


def task(**options):
    torch.manual_seed(0)
    options = {"backbone": "test_resnet", "classes": ["land", "water"], "bands": BANDS, "fusion": "fusenet"} | options
    return torchfpn.create_task("semantic", channels=8, head_channels=8, **options)


@settings(max_examples=50, deadline=None)
@given(st.permutations(["red", "green", "blue", "nir", "swir", "B8"]), st.booleans())
def test_red_green_and_blue_are_found_by_name_wherever_they_are(bands, shout):
    shown = [band.upper() if shout else band for band in bands]
    found = band_options(shown, fusion="fusenet")["rgb"]
    assert [bands[i] for i in found] == ["red", "green", "blue"]
    assert found == band_options(bands, rgb=["red", "green", "blue"], band_init="zero")["rgb"]
    assert found == band_options(bands, rgb=list(found), fusion="late")["rgb"]


@pytest.mark.parametrize("band_init", ["repeat", "mean"])
def test_what_needs_no_colours_asks_for_none(band_init):
    assert band_options(["a", "b"], band_init=band_init) == {"band_init": band_init}


@pytest.mark.parametrize("options", [{"fusion": "fusenet"}, {"band_init": "zero"}, {"band_init": "copy"}])
def test_bands_without_names_are_red_green_blue_and_the_rest(options):
    assert band_options(["band0", "band1", "band2", "band3"], named=False, **options)["rgb"] == (0, 1, 2)


def test_bands_that_begin_as_a_colour_are_named_or_numbered():
    found = band_options(BANDS, band_init={"nir": "red", 2: "blue"})
    assert found == {"rgb": (1, 3, 4), "band_init": {0: "red", 2: "blue"}}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"bands": ("a", "b", "c", "d")},
            "rgb: none given, and no bands red, green, blue among a, b, c, d; name the three",
        ),
        (
            {"rgb": ["red", "green", "bleu"]},
            "rgb: there is no band 'bleu'; expected nir, red, swir, green, blue; did you mean",
        ),
        ({"rgb": [0, 1, 5]}, "rgb: there is no band 5; expected nir, red, swir, green, blue; positions are 0..4"),
        ({"rgb": [0, 1, -1]}, "rgb: there is no band -1"),
        ({"rgb": ["red", "green"]}, "rgb: [1, 3] of 5 bands"),
        ({"rgb": ["red", "green", "red"]}, "rgb: [1, 3, 1] of 5 bands"),
        ({"band_init": {"nri": "red"}}, "band_init: there is no band 'nri'; expected nir, red"),
        ({"band_init": {"nir": "rad"}}, "band_init"),
        ({"fusion": "none", "rgb": ["rad", "green", "blue"]}, "rgb: there is no band 'rad'"),
        ({"fusion": "fusenett"}, 'fusion: "fusenett"; expected none | fusenet | late; did you mean "fusenet"?'),
        (
            {"fusion": "none", "band_init": "zerro"},
            'band_init: "zerro"; expected repeat | mean | copy | zero; did you mean',
        ),
        (
            {"bands": tuple("abcd"), "fusion": "fusnet"},
            'fusion: "fusnet"; expected none | fusenet | late; did you mean "fusenet"',
        ),
        (
            {"bands": tuple("abcd"), "fusion": "none", "band_init": "zerro"},
            'band_init: "zerro"; expected repeat | mean | copy',
        ),
        ({"fusion": "none", "band_init": None}, 'band_init: "None"; expected repeat | mean'),
        ({"fusion": "none", "rgb": ["nir"]}, "rgb: [0] of 5 bands; expected three different bands"),
        (
            {"fusion": "none", "rgb": [1, 1, 3], "band_init": "mean"},
            "rgb: [1, 1, 3] of 5 bands; expected three different",
        ),
        ({"fusion": "none", "points": [99]}, 'points: [99]; expected to come with fusion="fusenet"; leave points out'),
        ({"bands": ("red", "green", "blue")}, "fusion: 3 bands; expected more than red, green and blue"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(options, told):
    with pytest.raises(ConfigError) as caught:
        task(**options)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("bands", "band_init", "expected"),
    [
        (("vv", "vh"), {"vv": "red"}, {0: "red"}),
        (("vv", "vh", "hh", "hv"), {"hh": "blue", 3: "green"}, {2: "blue", 3: "green"}),
        (("nir", "Red"), {"nir": "green"}, {0: "green", 1: "red"}),
        (("nir", "red"), {"nir": "green", "red": "blue"}, {0: "green", 1: "blue"}),
    ],
)
def test_without_red_green_and_blue_bands_may_be_named_by_colour(bands, band_init, expected):
    assert band_options(bands, band_init=band_init) == {"rgb": (), "band_init": expected}
    made = task(fusion="none", bands=bands, band_init=band_init)
    assert made.predict(torch.rand(1, len(bands), 32, 32))


def test_bands_that_are_only_counted_may_be_fewer_than_three_colours():
    assert band_options(["band0", "band1"], band_init={0: "red"}, named=False) == {"rgb": (), "band_init": {0: "red"}}
    options = {"backbone": "test_resnet", "num_classes": 2, "in_channels": 2, "channels": 8, "head_channels": 8}
    torch.manual_seed(0)
    plain = torchfpn.create_model(**{**options, "in_channels": 3})
    torch.manual_seed(0)
    wide = torchfpn.create_model(**options, band_init={0: "red"})
    first, last = (next(m for m in net.modules() if isinstance(m, torch.nn.Conv2d)).weight for net in (plain, wide))
    torch.testing.assert_close(last, torch.stack([first[:, 0], first.mean(1)], 1) * 3 / 2)


@pytest.mark.parametrize("file_bands", [("nir", "red"), (*BANDS, "nir")])
def test_bands_of_files_that_no_model_file_can_hold_are_refused(file_bands):
    with pytest.raises(
        ConfigError, match=r"^file_bands: nir, red.*; expected each name once, nir, red, swir, green, b"
    ):
        task(file_bands=file_bands)


@pytest.mark.parametrize("rgb", [np.array([1, 3, 4]), [np.int64(1), "green", 4]])
def test_positions_may_be_numpys(rgb):
    assert task(rgb=rgb).recipe.model["rgb"] == [1, 3, 4]
    assert band_options(BANDS, rgb=rgb, band_init={"nir": "red"})["rgb"] == (1, 3, 4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    safetensors.torch.save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({"bands": None}, [0, 1, 2]),
        ({"bands": None, "in_channels": 3}, [0, 1, 2]),
        ({"bands": ("blue", "Green", "red")}, [2, 1, 0]),
        ({"bands": ("a", "b", "c"), "rgb": ["b", "c", "a"]}, [2, 0, 1]),
        ({"bands": ("nir", "swir", "vv")}, None),
        ({"bands": ("red", "green", "blue", "nir")}, None),
    ],
)
def test_imagenets_constants_are_those_of_each_colour(options, order, tmp_path):
    weights = tmp_path / "w.safetensors"
    safetensors.torch.save_file(timm.create_model("test_byobnet").state_dict(), weights)
    found = task(fusion="none", backbone="test_byobnet", pretrained=weights, **options).recipe.scaling
    plain = torchfpn.Scaling.imagenet()
    if order is None:
        assert found == torchfpn.Scaling.identity(len(options["bands"]))
    else:
        assert found.offset == tuple(plain.offset[c] for c in order)
        assert found.scale == tuple(plain.scale[c] for c in order)
        assert found.method == "imagenet"


def test_pretrained_weights_bring_the_constants_that_they_learnt_with(weights):
    """timm's and torchvision's own tables say them: 0.5 for each colour here."""
    half = torchfpn.Scaling((127.5,) * 3, (127.5,) * 3, "pretrained")
    assert timm.get_pretrained_cfg("test_resnet").mean == (0.5, 0.5, 0.5)
    assert task(fusion="none", bands=None, pretrained=weights).recipe.scaling == half
    for name in ("vit_small_patch16_224.augreg_in1k", "tf_efficientnet_b0.ap_in1k", "torchvision/efficientnet_v2_l"):
        assert published_scaling(name) == half
    for name in ("tf_efficientnet_b0.aa_in1k", "torchvision/resnet50", "lukemelas/efficientnet_b0"):
        assert published_scaling(name) == torchfpn.Scaling.imagenet()


@pytest.mark.parametrize(
    ("options", "order"),
    [({"bands": ("blue", "Green", "red")}, [2, 1, 0]), ({"bands": ("a", "b", "c"), "rgb": ["b", "c", "a"]}, [2, 0, 1])],
)
def test_filters_of_three_colours_follow_them_like_their_constants(weights, options, order):
    plain = task(fusion="none", bands=None, pretrained=weights)
    made = task(fusion="none", pretrained=weights, **options)
    images = 255 * torch.rand(1, 3, 32, 64)
    torch.testing.assert_close(made.eval().logits(images[:, order]), plain.eval().logits(images))


@pytest.mark.parametrize("rgb", [None, ["red", "green", "blue"], [1, 3, 4]])
def test_a_task_splits_its_bands_by_name(rgb):
    made = task(rgb=rgb)
    assert made.model.backbone.split.main.tolist() == [1, 3, 4]
    assert made.model.backbone.split.extra.tolist() == [0, 2]
    assert made.recipe.model["rgb"] == [1, 3, 4]
    assert made.recipe.bands == BANDS


def test_bands_that_are_only_counted_begin_with_red_green_and_blue():
    made = task(bands=None, in_channels=5)
    assert made.model.backbone.split.main.tolist() == [0, 1, 2]


def test_a_band_that_begins_as_a_colour_has_its_filter(tmp_path):
    source = timm.create_model("test_resnet")
    safetensors.torch.save_file(source.state_dict(), tmp_path / "w.safetensors")
    weight = next(m for m in source.modules() if isinstance(m, torch.nn.Conv2d)).weight
    made = task(fusion="none", band_init={"nir": "red", "swir": "blue"}, pretrained=tmp_path / "w.safetensors")
    wide = next(m for m in made.model.modules() if isinstance(m, torch.nn.Conv2d)).weight
    torch.testing.assert_close(wide, weight[:, [0, 0, 2, 1, 2]] * 3 / 5)


MODELS = {
    "fusenet": {},
    "fusenet-sf4": {"points": [1, 2, 3, 4], "rgb": ["blue", "nir", "red"]},
    "late": {"fusion": "late"},
    "panet": {"fusion": "none", "pyramid": "panet", "pyramid_options": {"norm": "batch"}},
    "concat": {"fusion": "none", "head": "concat", "head_options": {"classifier": "bottleneck", "mode": "nearest"}},
    "finest": {"fusion": "none", "head": "finest"},
    "vit": {"fusion": "none", "backbone": "test_vit", "pyramid": "simple"},
    "dilated": {"fusion": "none", "output_stride": 8},
    "dilated-fusenet": {"output_stride": 16},
    "extra": {"fusion": "none", "extra": "conv-c5", "strides": (8, 16, 32)},
    "zero": {"fusion": "none", "band_init": "zero"},
    "named": {"fusion": "none", "band_init": {"nir": "red"}},
}


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_of_every_new_word_answers_the_same(name, tmp_path):
    made = task(**MODELS[name])
    last = [m for m in made.model.head.classify.modules() if isinstance(m, torch.nn.Conv2d)][-1]
    torch.nn.init.normal_(last.weight)
    raw = torch.rand(1, 5, 45, 70)
    before = made.predict(raw)[0]
    made.save(tmp_path / "model.safetensors")
    torch.manual_seed(1)  # another start must not matter
    again = torchfpn.load(tmp_path / "model.safetensors")
    assert again.recipe == made.recipe
    after = again.predict(raw)[0]
    assert torch.equal(before.scores, after.scores)
    assert torch.equal(before.labels, after.labels)
    assert before.scores.std() > 1e-3  # not a constant
