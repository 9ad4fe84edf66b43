"""segmentation_models_pytorch's FPN, from the installed package, and what its converted state_dict computes."""

import warnings

import pytest
import segmentation_models_pytorch as smp
import timm
import torch

import torchfpn
from importers.test_convert import random
from torchfpn.errors import ConfigError, WeightsError
from torchfpn.importers.convert import converted


def theirs(encoder, **options):
    """An smp.FPN with random weights."""
    return random(smp.FPN(encoder, encoder_weights=None, **options))


@pytest.fixture
def few_modules(monkeypatch):
    """Searches a few networks of timm and not all, which takes ten seconds."""
    few = {
        "resnet": ["resnet18", "resnet34"],
        "efficientnet": ["efficientnet_b0", "efficientnet_b1", "tf_efficientnet_b0"],
        "mobilenetv3": ["mobilenetv3_small_050", "mobilenetv3_small_075"],
    }
    monkeypatch.setattr("timm.list_modules", lambda: list(few))
    monkeypatch.setattr("timm.list_models", lambda module: few[module])


CASES = [
    ("resnet18", 3, "add", (64, 96)),
    ("resnet18", 1, "cat", (32, 64)),
    ("resnet34", 6, "add", (64, 64)),
    ("resnet50", 3, "cat", (64, 64)),
    ("efficientnet-b0", 3, "add", (224, 224)),
    ("efficientnet-b0", 6, "cat", (64, 96)),
    ("efficientnet-b1", 1, "add", (96, 64)),
    ("mobilenet_v2", 6, "cat", (64, 64)),
    ("tu-convnext_atto", 3, "add", (64, 64)),
    ("tu-resnet18", 6, "cat", (64, 64)),
    ("tu-tf_efficientnet_b0", 1, "add", (64, 64)),
    ("timm-efficientnet-b0", 3, "add", (64, 64)),
    ("timm-mobilenetv3_small_minimal_100", 3, "add", (64, 64)),  # timm's tf_ network: other padding, other epsilon
    ("timm-tf_efficientnet_lite0", 3, "add", (64, 64)),  # timm's plain network
]
LARGER_CASES = [
    ("resnext50_32x4d", 3, "add", (64, 64)),
    ("efficientnet-b2", 3, "add", (96, 64)),
    ("efficientnet-b3", 3, "add", (96, 64)),
    ("mobilenet_v2", 3, "add", (64, 96)),
]


@pytest.mark.parametrize(
    ("encoder", "bands", "merge", "size"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in LARGER_CASES)],
)
@torch.no_grad()
def test_logits_are_equal(encoder, bands, merge, size):
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        model = theirs(encoder, in_channels=bands, classes=4, decoder_merge_policy=merge)
    task = torchfpn.convert(model.state_dict(), backbone=encoder if encoder.startswith(("tu-", "timm-")) else None)
    images = torch.randn(1, bands, *size)
    wanted = model(images)
    assert (task.model(images) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert task.model(torch.randn(1, bands, 61, 37)).shape == (1, 4, 61, 37)  # theirs takes multiples of 32 alone


def zeros(encoder):
    """The state_dict of an smp.FPN, without weights."""
    with torch.device("meta"), warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        model = smp.FPN(encoder, encoder_weights=None)
    return {name: torch.zeros(x.shape, dtype=x.dtype) for name, x in model.state_dict().items()}


def test_the_scaling_is_that_of_smp_and_not_of_a_tag_of_timm():
    """smp documents ImageNet's constants for its own EfficientNets, and takes timm's for what timm builds."""
    assert timm.get_pretrained_cfg("efficientnet_b1").mean == (0.5, 0.5, 0.5)
    own = converted(zeros("timm-efficientnet-b1"), backbone="timm-efficientnet-b1")
    assert own.recipe.scaling == torchfpn.Scaling.imagenet()
    for name in ("tf_efficientnet_b0", "tf_efficientnet_b0.ap_in1k"):
        made = converted(zeros("tu-tf_efficientnet_b0"), backbone=f"tu-{name}")
        params = smp.encoders.get_preprocessing_params(f"tu-{name}")
        assert made.recipe.scaling.offset == pytest.approx([255 * mean for mean in params["mean"]])
        told = [note for note in made.notes if "its weights ap_in1k" in note]
        assert bool(told) == (name == "tf_efficientnet_b0")


def test_what_the_checkpoint_does_not_hold_is_said():
    """Among it `upsampling`: smp's model of 2 answers at half the size of the image, of 8 at twice."""
    made = converted(zeros("resnet18"))
    assert any("upsampling=4" in note and "of upsampling=2 answers at half" in note for note in made.notes)
    images = torch.zeros(1, 3, 64, 64)
    assert made.model(images).shape[2:] == smp.FPN("resnet18", encoder_weights=None)(images).shape[2:] == (64, 64)


def test_a_stem_that_takes_blocks_of_pixels_for_channels_has_three_bands():
    with pytest.raises(ConfigError, match=r"bands: 5; expected 3: .* takes blocks of pixels for channels"):
        converted(zeros("tu-tresnet_m"), backbone="tu-tresnet_m", bands=5)


@torch.no_grad()
def test_added_bands_change_nothing_where_the_stem_standardises_its_weights():
    tensors = theirs("tu-nf_regnet_b0").state_dict()
    images = torch.rand(1, 5, 64, 64)
    wanted = torchfpn.convert(tensors, backbone="nf_regnet_b0").model(images[:, :3])
    wide = torchfpn.convert(tensors, backbone="nf_regnet_b0", bands=["x", "y", "red", "green", "blue"])
    found = wide.model(images[:, [3, 4, 0, 1, 2]])
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("size", [4, 5, 6, 7])
def test_maps_are_taken_where_the_library_takes_them(size):
    from segmentation_models_pytorch.encoders.efficientnet import efficient_net_encoders

    from torchfpn.backbones.lukemelas import LukemelasEfficientNet

    wanted = efficient_net_encoders[f"efficientnet-b{size}"]["params"]["out_indexes"]
    with torch.device("meta"):
        assert LukemelasEfficientNet(f"efficientnet_b{size}").ends[1:] == wanted


@torch.no_grad()
def test_other_widths_and_one_class():
    model = theirs("resnet18", classes=1, decoder_pyramid_channels=64, decoder_segmentation_channels=32)
    task = torchfpn.convert(model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert (task.model(images) - model(images)).abs().max() <= 1e-5 * model(images).abs().max()


@torch.no_grad()
def test_a_saved_model_predicts_the_same(tmp_path):
    task = torchfpn.convert(theirs("efficientnet-b1", classes=3).state_dict())
    task.save(tmp_path / "model.safetensors")
    images = 255 * torch.rand(1, 3, 50, 70)
    assert torch.equal(torchfpn.load(tmp_path / "model.safetensors").logits(images), task.logits(images))
    assert task.recipe.scaling.method == "imagenet"


@pytest.mark.parametrize("merge", ["add", "cat"])
@torch.no_grad()
def test_added_bands_change_nothing(merge):
    tensors = theirs("efficientnet-b0", decoder_merge_policy=merge).state_dict()
    images = torch.rand(1, 5, 64, 64)
    wanted = torchfpn.convert(tensors).model(images[:, :3])
    found = torchfpn.convert(tensors, bands=5).model(images)
    assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()  # sums of more terms are added in another order


@pytest.mark.parametrize(
    ("encoder", "backbone", "told"),
    [
        ("tu-mobilenetv3_small_050", "tu-resnet18", '"tu-resnet18" has other tensors.*mobilenetv3_small_050'),
        ("resnet18", "resnet34", 'backbone: "resnet34"; expected resnet18, the file\'s encoder'),
    ],
)
@pytest.mark.usefixtures("few_modules")
def test_encoders_that_must_be_named(encoder, backbone, told):
    with pytest.raises(ConfigError, match=told):
        torchfpn.convert(theirs(encoder).state_dict(), backbone=backbone)


@pytest.mark.usefixtures("few_modules")
@torch.no_grad()
def test_an_encoder_that_one_network_of_timm_alone_can_be_is_taken_and_told():
    model = theirs("tu-mobilenetv3_small_050")
    made = converted(model.state_dict())
    images = torch.randn(1, 3, 64, 64)
    wanted = model(images)
    assert (made.model(images) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert "the encoder is timm's mobilenetv3_small_050, the only network of timm with these tensors" in made.notes


@pytest.mark.usefixtures("few_modules")
def test_plain_and_tf_efficientnets_have_the_same_tensors():
    tensors = theirs("tu-tf_efficientnet_b0").state_dict()
    with pytest.raises(ConfigError, match=r"fitting: efficientnet_b0 \| tf_efficientnet_b0"):
        torchfpn.convert(tensors)


def test_other_decoders_and_encoders_are_refused():
    with pytest.raises(WeightsError, match="not of a known family"):
        torchfpn.convert(smp.Unet("resnet18", encoder_weights=None).state_dict())
    with pytest.raises(WeightsError, match="an encoder that is not taken over; expected ResNet"):
        torchfpn.convert(zeros("densenet121"))
    for name in ("timm-skresnet18", "se_resnet50"):  # blocks are named as ResNets' are
        with pytest.raises(WeightsError, match="an encoder that is not taken over"):
            torchfpn.convert(zeros(name))
