"""Frozen parts: no gradient, and statistics that stay, whoever calls train()."""

import pytest
import torch
from torch import nn

import torchfpn
from torchfpn.errors import ConfigError
from torchfpn.train.optim import Frozen


def model(backbone="torchvision/resnet18", **options):
    options = {"num_classes": 2, "channels": 8, "head_channels": 8, **options}
    return torchfpn.create_model("semantic", backbone=backbone, **options)


def frozen_names(net):
    return {n for n, p in net.named_parameters() if not p.requires_grad}


def test_backbone_keeps_its_statistics_through_train_and_a_forward():
    net = model()
    frozen = Frozen(net, "backbone")
    before = {k: v.clone() for k, v in net.backbone.state_dict().items()}
    net.train()
    frozen.hold()
    net(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in net.backbone.state_dict().items())
    assert frozen_names(net) == {n for n, _ in net.named_parameters() if n.startswith("backbone.")}
    assert net.head.training


@pytest.mark.parametrize(
    ("backbone", "stem"),
    [
        ("torchvision/resnet18", {"stages.c1.conv", "stages.c1.norm"}),
        ("torchvision/mobilenet_v2", {"stages.c1.0.0", "stages.c1.0.1"}),
        ("resnet18", {"features.conv1", "features.bn1"}),
        ("efficientnet_b0", {"features.conv_stem", "features.bn1"}),
        ("torchvision/efficientnet_b0", {"stages.c1.0.0", "stages.c1.0.1"}),
        ("lukemelas/efficientnet_b0", {"_conv_stem", "_bn0"}),
        ("resnet18d", {"features.conv1.0", "features.conv1.1", "features.conv1.3", "features.conv1.4"}
         | {"features.conv1.6", "features.bn1"}),
        ("regnetx_002", {"features.stem.conv", "features.stem.bn"}),
        ("test_convnext", {"features.stem_0", "features.stem_1"}),
        ("densenet121", {"features.features_conv0", "features.features_norm0"}),
        ("rexnetr_200", {"features.stem.conv", "features.stem.bn"}),
        ("swin_tiny_patch4_window7_224", {"features.patch_embed.proj", "features.patch_embed.norm"}),
    ],
)  # fmt: skip
def test_stem_is_what_comes_before_the_first_stage(backbone, stem):
    net = model(backbone)
    Frozen(net, "stem")
    assert {n.removeprefix("backbone.").rpartition(".")[0] for n in frozen_names(net)} == stem


@pytest.mark.parametrize(
    ("backbone", "fusion", "stem"),
    [
        ("torchvision/resnet18", "fusenet", {"c1.conv", "c1.norm"}),
        ("resnet18", "late", {"features.conv1", "features.bn1"}),
        ("efficientnet_b0", "fusenet", {"c1.conv_stem", "c1.bn1"}),
        ("test_efficientnet", "fusenet", {"c1.conv_stem", "c1.bn1"}),
        ("test_convnext", "fusenet", {"c2.stem_0", "c2.stem_1"}),
    ],
)
def test_of_two_streams_both_stems_are_frozen(backbone, fusion, stem):
    options = {"in_channels": 5, "fusion": fusion, "channels": 8, "head_channels": 8}
    net = torchfpn.create_model("semantic", backbone=backbone, num_classes=2, **options)
    Frozen(net, "stem")
    found = {n.removeprefix("backbone.").rpartition(".")[0] for n in frozen_names(net)}
    assert found == {f"{stream}.{name}" for stream in ("main", "extra") for name in stem}


def test_of_a_plain_transformer_the_patches_are_frozen():
    net = model("test_vit", pyramid="simple")
    Frozen(net, "stem")
    assert frozen_names(net) == {f"backbone.features.model.patch_embed.proj.{kind}" for kind in ("weight", "bias")}


@pytest.mark.parametrize("backbone", ["vgg11", "test_resnet"])
def test_without_stages_there_is_no_stem(backbone):
    net = model(backbone)
    if backbone == "test_resnet":
        net.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    with pytest.raises(ConfigError, match=r'freeze: "stem" of .*; expected networks of a stem and stages') as caught:
        Frozen(net, "stem")
    assert "\n" not in str(caught.value)
    assert not frozen_names(net)


def test_modules_by_name():
    net = model()
    Frozen(net, "backbone.stages.c1, pyramid")
    assert {n.split(".")[0] for n in frozen_names(net)} == {"backbone", "pyramid"}
    assert any(p.requires_grad for p in net.backbone.parameters())


def test_a_misspelt_module_is_named_with_its_neighbours():
    with pytest.raises(ConfigError, match='unknown module "bakbone"; did you mean "backbone"'):
        Frozen(model(), "bakbone")


def test_something_must_be_left_to_train():
    with pytest.raises(ConfigError, match="must remain trainable"):
        Frozen(nn.Sequential(nn.Linear(2, 2)), "0")
