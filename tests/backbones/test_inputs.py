"""Any number of bands with the pretrained filters kept, from local files, for both families of backbones."""

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models import adapt_input_conv
from torch import nn

from shared import WEIGHTS, needs_shared
from torchfpn import ConfigError, WeightsError
from torchfpn.backbones import backbone
from torchfpn.backbones.first_conv import check_bands, widen, widen_first_conv

MOBILENET = WEIGHTS / "mobilenet_v2_imagenet1k.safetensors"


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7, 12])
def test_widening_is_timms_rule(bands):
    weight = torch.randn(8, 3, 3, 3)
    torch.testing.assert_close(widen(weight, bands), adapt_input_conv(bands, weight))


@pytest.mark.parametrize("bands", [1, 3, 6, 9])
def test_a_grey_image_gives_the_same_answer_for_any_number_of_bands(bands):
    weight, grey = torch.randn(8, 3, 3, 3), torch.randn(1, 1, 9, 9)
    expected = torch.conv2d(grey.expand(1, 3, 9, 9), weight)
    torch.testing.assert_close(torch.conv2d(grey.expand(1, bands, 9, 9), widen(weight, bands)), expected)


@needs_shared
def test_real_weights_are_placed_exactly():
    reference = torchvision.models.mobilenet_v2(weights=None)
    reference.load_state_dict(safetensors.torch.load_file(MOBILENET))
    reference.eval()
    body = backbone("torchvision/mobilenet_v2", pretrained=MOBILENET).eval()
    x = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        maps, seen = body(x), x
        for i, layer in enumerate(reference.features[:18]):
            seen = layer(seen)
            if i in (3, 6, 13, 17):
                assert torch.equal(maps[(3, 6, 13, 17).index(i)], seen)


def test_a_timm_file_is_placed_and_widened(tmp_path):
    source = timm.create_model("test_resnet")
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(source.state_dict(), path)
    body = backbone("test_resnet", pretrained=path, in_channels=5)
    first = next(m for m in body.modules() if isinstance(m, torch.nn.Conv2d))
    expected = next(m for m in source.modules() if isinstance(m, torch.nn.Conv2d)).weight
    torch.testing.assert_close(first.weight, adapt_input_conv(5, expected))
    plain, full = backbone("test_resnet", pretrained=path).eval(), source.eval()
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(plain(x)[-1], full.forward_features(x))


@pytest.mark.parametrize("name", ["test_resnet", "torchvision/resnet18"])
def test_weights_of_another_network_are_refused(name, tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file(torchvision.models.mobilenet_v2(weights=None).state_dict(), path)
    with pytest.raises(WeightsError, match=r"other\.safetensors: .*tensors"):
        backbone(name, pretrained=path)


@pytest.mark.parametrize("name", ["resnet18", "torchvision/resnet18"])
def test_fault_40_offline_download_says_where_to_put_the_file(name, monkeypatch, tmp_path):
    import socket

    def offline(*_args, **_kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"could not be downloaded; .*pretrained=FILE \(--model.pretrained FILE\)"):
        backbone(name, pretrained=True)


WAYS = ("repeat", "mean", "copy", "zero")
BACKBONES = ("torchvision/resnet18", "resnet18", "convnext_atto", "efficientnet_b0")


@st.composite
def bands_and_rgb(draw):
    """How many bands, and which three of them are red, green, blue."""
    bands = draw(st.integers(3, 9))
    return bands, tuple(draw(st.permutations(range(bands)))[:3])


def weights(seed=0, filters=4):
    return torch.randn(filters, 3, 3, 3, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(bands_and_rgb(), st.sampled_from(["repeat", "mean", "copy"]), st.integers(0, 99))
def test_a_constant_image_is_answered_alike_by_any_number_of_bands(case, how, seed):
    """Of "repeat" only where each colour comes equally often: R G B R is redder than R G B."""
    (bands, rgb), weight = case, weights(seed)
    bands = 3 * bands if how == "repeat" else bands
    wide = widen(weight, bands, how, rgb)
    assert wide.shape == (4, bands, 3, 3)
    torch.testing.assert_close(wide.sum(1), weight.sum(1), rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(bands_and_rgb(), st.integers(0, 99))
def test_zero_gives_three_bands_their_filters_and_the_others_nothing(case, seed):
    (bands, rgb), weight = case, weights(seed)
    wide = widen(weight, bands, "zero", rgb)
    assert torch.equal(wide[:, list(rgb)], weight)
    assert not wide[:, [band for band in range(bands) if band not in rgb]].any()


@settings(max_examples=25, deadline=None)
@given(bands_and_rgb(), st.integers(0, 99))
def test_copy_gives_three_bands_their_filters_and_the_others_the_mean(case, seed):
    (bands, rgb), weight = case, weights(seed)
    wide = widen(weight, bands, "copy", rgb) * bands / 3
    torch.testing.assert_close(wide[:, list(rgb)], weight)
    for band in set(range(bands)) - set(rgb):
        torch.testing.assert_close(wide[:, band], weight.mean(1))


@settings(max_examples=25, deadline=None)
@given(bands_and_rgb(), st.data())
def test_bands_named_by_colour_get_its_filter(case, data):
    (bands, rgb), weight = case, weights()
    others = [band for band in range(bands) if band not in rgb]
    colours = st.sampled_from(["red", "green", "blue"])
    named = data.draw(st.dictionaries(st.sampled_from(others), colours)) if others else {}
    wide = widen(weight, bands, named, rgb) * bands / 3
    torch.testing.assert_close(wide[:, list(rgb)], weight)
    for band in others:
        filters = {"red": weight[:, 0], "green": weight[:, 1], "blue": weight[:, 2], None: weight.mean(1)}
        torch.testing.assert_close(wide[:, band], filters[named.get(band)])


@pytest.mark.parametrize("bands", [1, 2, 3, 5])
def test_mean_gives_every_band_the_same_filter(bands):
    wide = widen(weights(), bands, "mean")
    for band in range(bands):
        torch.testing.assert_close(wide[:, band], weights().mean(1) * 3 / bands)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A pretrained file of each backbone: a network of random weights, none of them zero."""
    folder, made = tmp_path_factory.mktemp("pretrained"), {}
    for name in BACKBONES:
        torch.manual_seed(0)
        kind, _, model = name.rpartition("/")
        network = torchvision.models.get_model(model) if kind else timm.create_model(model)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
        made[name] = folder / f"{kind}-{model}.safetensors"
        safetensors.torch.save_file(network.state_dict(), made[name])
    return made


@pytest.mark.parametrize("name", BACKBONES)
def test_zero_answers_as_to_red_green_blue_alone_whatever_the_other_bands_hold(files, name):
    plain = backbone(name, pretrained=files[name]).eval()
    wide = backbone(name, pretrained=files[name], in_channels=5, rgb=(4, 1, 0), band_init="zero").eval()
    images = torch.randn(1, 5, 64, 64)
    other = images.clone()
    other[:, 2:4] = 1000 * torch.randn(1, 2, 64, 64)
    with torch.inference_mode():
        expected, first, second = plain(images[:, [4, 1, 0]]), wide(images), wide(other)
    for a, b, c in zip(expected, first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert torch.equal(b, c)
        assert a.std() > 0


@pytest.mark.parametrize(("name", "how"), list(zip(BACKBONES, ["repeat", "mean", "copy", {3: "red"}], strict=True)))
def test_the_first_convolution_is_widened_and_nothing_else_changed(files, name, how):
    plain = backbone(name, pretrained=files[name]).state_dict()
    wide = backbone(name, pretrained=files[name], in_channels=5, rgb=(0, 1, 2), band_init=how).state_dict()
    changed = [key for key in plain if plain[key].shape != wide[key].shape]
    assert wide.keys() == plain.keys()
    assert len(changed) == 1
    assert changed[0].endswith("weight")
    torch.testing.assert_close(wide[changed[0]], widen(plain[changed[0]], 5, how, (0, 1, 2)))
    assert all(torch.equal(wide[key], plain[key]) for key in plain if key not in changed)


@pytest.mark.parametrize(
    ("name", "convolutions", "how"),
    [
        ("repvgg_a0", 2, {3: "red"}),
        ("mobileone_s0", 2, "mean"),
        ("fastvit_t8", 2, "zero"),
        ("test_vit", 1, "copy"),
    ],
)
def test_every_convolution_that_sees_the_images_is_widened(name, convolutions, how):
    torch.manual_seed(0)
    plain = backbone(name).eval().state_dict()
    torch.manual_seed(0)
    body = backbone(name, in_channels=5, band_init=how).eval()
    wide = body.state_dict()
    changed = [key for key in plain if plain[key].shape != wide[key].shape]
    assert len(changed) == convolutions
    for key in changed:
        torch.testing.assert_close(wide[key], widen(plain[key], 5, how))
    with torch.inference_mode():
        assert len(body(torch.randn(1, 5, 64, 64))) == len(body.levels)


@pytest.mark.parametrize(
    ("name", "how"), [("test_nfnet", "zero"), ("test_nfnet", "copy"), ("test_nfnet", "mean"), ("nf_regnet_b0", "copy")]
)
def test_stems_that_standardise_their_weights_keep_their_answer(name, how):
    torch.manual_seed(0)
    plain = backbone(name).eval()
    torch.manual_seed(0)
    wide = backbone(name, in_channels=5, rgb=(4, 1, 0), band_init=how).eval()
    images = torch.randn(1, 5, 64, 64)
    images = images if how == "zero" else images[:, :1].expand(1, 5, 64, 64)  # grey: all ways keep its answer
    saved = backbone(name, in_channels=5).eval()
    saved.load_state_dict(wide.state_dict())
    with torch.inference_mode():
        for a, b, c in zip(plain(images[:, [4, 1, 0]]), wide(images), saved(images), strict=True):
            assert (a - b).abs().max() <= 1e-5 * a.abs().max()
            assert torch.equal(b, c)


@pytest.mark.parametrize(("name", "how"), [("resnetv2_50x1_bit", "zero"), ("test_nfnet", {3: "red"})])
def test_a_standardised_stem_that_cannot_have_such_filters_is_refused(name, how):
    with pytest.raises(ConfigError, match=r"band_init: .* standardises the weights of .*; expected repeat"):
        backbone(name, in_channels=5, band_init=how)


@pytest.mark.parametrize("options", [{"band_init": "zero"}, {"band_init": "mean", "fusion": "fusenet"}])
def test_a_network_that_does_not_convolve_the_bands_themselves_is_refused(options):
    with pytest.raises(
        ConfigError, match=r"band_init: '\w+' for a network whose first .* 48 channels;.*=repeat"
    ) as caught:
        backbone("tresnet_m", in_channels=5, **options)
    assert "\n" not in str(caught.value)


def test_a_network_without_a_convolution_is_refused():
    """Such as timm's naflexvit."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10))
    with pytest.raises(ConfigError, match=r"band_init: 'zero' for a network without a first convolution"):
        widen_first_conv(network, 5, "zero")


def test_both_streams_of_a_network_with_branches_take_their_bands():
    body = backbone("repvgg_a0", in_channels=5, fusion="fusenet", band_init="mean").eval()
    with torch.inference_mode():
        assert len(body(torch.randn(1, 5, 64, 64))) == 4


@pytest.mark.parametrize("name", BACKBONES[:1])
def test_three_bands_in_another_order_get_their_own_filters(files, name):
    plain = backbone(name, pretrained=files[name]).eval()
    turned = backbone(name, pretrained=files[name], rgb=(2, 1, 0), band_init="copy").eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        for a, b in zip(turned(x), plain(x.flip(1)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", WAYS)
def test_a_widened_convolution_is_of_its_own_kind_and_learns(how):
    net = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2, padding=2, bias=False), nn.Conv2d(4, 4, 1))
    widen_first_conv(net, 6, how)
    assert (net[0].in_channels, net[0].stride, net[0].bias) == (6, (2, 2), None)
    assert net[1].in_channels == 4
    net(torch.randn(1, 6, 8, 8)).sum().backward()
    assert net[0].weight.grad.shape == (4, 6, 5, 5)
    assert net[0].weight.grad.flatten(2).abs().sum((0, 2)).all()  # bands that began at zero learn too


@pytest.mark.parametrize("name", ["torchvision/resnet18", "test_resnet"])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"band_init": "zero", "rgb": (0, 1)}, "rgb: [0, 1] of 5 bands; expected three different bands"),
        ({"band_init": "zero", "rgb": (0, 1, 1)}, "rgb: [0, 1, 1] of 5 bands"),
        ({"band_init": "copy", "rgb": (0, 1, 5)}, "rgb: [0, 1, 5] of 5 bands"),
        ({"band_init": "copy", "rgb": (-1, 1, 2)}, "rgb: [-1, 1, 2] of 5 bands"),
        ({"band_init": "copy", "in_channels": 2}, "rgb: [0, 1, 2] of 2 bands"),
        ({"band_init": "zerro"}, 'band_init: "zerro"; expected repeat | mean | copy | zero; did you mean "zero"?'),
        ({"band_init": {3: "rad"}}, "band_init: band 3: 'rad'; expected 0..4, red | green | blue"),
        ({"band_init": {5: "red"}}, "band_init: band 5: 'red'; expected 0..4, red | green | blue"),
        ({"in_channels": 0}, "in_channels: 0; expected a whole number, 1 or more"),
    ],
)
def test_bands_that_cannot_be_are_told_in_one_line(name, options, told):
    with pytest.raises(ConfigError) as caught:
        backbone(name, **{"in_channels": 5, **options})
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.lists(st.integers(-1, 7), max_size=4), st.sampled_from(WAYS))
def test_what_is_passed_can_be_widened_and_the_rest_is_a_config_error(bands, rgb, how):
    try:
        check_bands(bands, rgb, how)
    except ConfigError:
        assert how in ("copy", "zero") or rgb not in ([], [0, 1, 2])
        assert not (len(set(rgb)) == len(rgb) == 3 and 0 <= min(rgb) <= max(rgb) < bands)
    else:
        assert widen(weights(), bands, how, rgb).shape == (4, bands, 3, 3)
