"""Files of pretrained weights: whatever stands before the names, of as many bands as the model, of its depth alone."""

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from torchfpn.backbones import backbone
from torchfpn.backbones.lukemelas import LukemelasEfficientNet
from torchfpn.errors import WeightsError


def whole(name, bands=3):
    """The network with its classifier, every tensor drawn."""
    if name.startswith("torchvision/"):
        made = torchvision.models.get_model(name.removeprefix("torchvision/"), weights=None)
        if bands != 3:
            made.features[0][0] = nn.Conv2d(bands, made.features[0][0].out_channels, 3, stride=2, padding=1, bias=False)
    elif name.startswith("lukemelas/"):
        made = LukemelasEfficientNet(name.removeprefix("lukemelas/"), in_channels=bands, num_classes=7)
    else:
        made = timm.create_model(name, in_chans=bands)
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in made.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return made.state_dict()


def zeros(name):
    """The tensors of a network of timm or torchvision, all zero and small."""
    with torch.device("meta"):
        made = torchvision.models.get_model(name[12:]) if name.startswith("torchvision/") else timm.create_model(name)
    return {key: torch.zeros(each.shape, dtype=torch.float16) for key, each in made.state_dict().items()}


DEPTHS = [
    ("resnet18", "resnet34", "left over layer1.2."),
    ("resnet34", "resnet18", "missing layer1.2."),
    ("efficientnet_b0", "efficientnet_b1", "left over blocks.0.1."),
    ("pvt_v2_b1", "pvt_v2_b2", "left over stages.0.blocks.2."),
    ("torchvision/resnet18", "torchvision/resnet34", "left over layer1.2."),
    ("torchvision/efficientnet_b0", "torchvision/efficientnet_b1", "left over features.1.1."),
]


@pytest.mark.parametrize(("name", "other", "told"), DEPTHS)
def test_weights_of_another_depth_are_refused_with_their_name(name, other, told, tmp_path):
    safetensors.torch.save_file(zeros(other), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError) as caught:
        backbone(name, pretrained=tmp_path / "w.safetensors")
    line = str(caught.value)
    assert told in line
    assert line.endswith(f"the file seems to be of {other}: take that backbone")


def test_one_tensor_left_over_is_named_and_a_classifier_of_any_size_is_not(tmp_path):
    tensors = whole("test_resnet")
    tensors |= {"fc.weight": torch.ones(5, 7), "fc.bias": torch.ones(5)}
    torch.save(tensors, tmp_path / "a.pth")
    backbone("test_resnet", pretrained=tmp_path / "a.pth")
    torch.save({**tensors, "gate.weight": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"1 tensor does not fit test_resnet: left over gate\.weight"):
        backbone("test_resnet", pretrained=tmp_path / "a.pth")


def behind(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


OTHER = {"decoder.weight": torch.ones(2, 2), "loss.weight": torch.full((2,), torch.nan)}
WRAPPED = {
    "as they are": lambda t: t,
    **{prefix: lambda t, p=prefix: behind(p, t) for prefix in ("module.", "backbone.", "encoder.", "_orig_mod.")},
    "inside a model": lambda t: {"state_dict": {**behind("model.encoder.", t), **OTHER}, "epoch": 3},
    "net": lambda t: {"net": behind("module.", t), "acc": 0.9},
    "an average": lambda t: {"weights": t, "weights_ema": {name: each * 0 for name, each in t.items()}},
    "a teacher": lambda t: {**behind("student.net.", t), **behind("teacher.net.", {k: 0 * v for k, v in t.items()})},
    "a copy inside": lambda t: {**t, **behind("ema.", {k: 0 * v for k, v in t.items()})},
}


@pytest.mark.parametrize("way", WRAPPED)
@pytest.mark.parametrize("name", ["test_resnet", "torchvision/mobilenet_v2", "lukemelas/efficientnet_b0"])
def test_what_stands_before_the_names_is_taken_off(name, way, tmp_path, caplog):
    if name != "test_resnet" and way not in ("module.", "inside a model"):
        pytest.skip("one way for all")
    tensors = whole(name)
    torch.save(WRAPPED[way](tensors), tmp_path / "w.pth")
    torch.save(tensors, tmp_path / "plain.pth")
    found = backbone(name, pretrained=tmp_path / "w.pth").state_dict()
    said = {  # what lies beside the network
        "inside a model": [f"{tmp_path / 'w.pth'}: left out, beside model.encoder.*: decoder.weight, loss.weight"],
        "a teacher": [f"{tmp_path / 'w.pth'}: left out, beside student.net.*: teacher.net."],
    }
    records = [record.getMessage() for record in caplog.records]
    assert len(records) == len(said.get(way, []))
    assert all(line.startswith(start) for line, start in zip(records, said.get(way, []), strict=True))
    for key, value in backbone(name, pretrained=tmp_path / "plain.pth").state_dict().items():
        assert torch.equal(found[key], value), key


def test_two_networks_in_one_file_are_not_guessed(tmp_path):
    tensors = whole("test_resnet")
    torch.save({**behind("encoder_q.", tensors), **behind("encoder_k.", tensors)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"several sets of weights for test_resnet: encoder_q\.\*, encoder_k\.\*"):
        backbone("test_resnet", pretrained=tmp_path / "w.pth")
    torch.save({"first": tensors, "second": tensors}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="several sets of weights: first, second"):
        backbone("test_resnet", pretrained=tmp_path / "w.pth")


@pytest.mark.parametrize("bands", [1, 13])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "torchvision/mobilenet_v2", "lukemelas/efficientnet_b0"])
def test_weights_of_as_many_bands_are_loaded_as_they_are(name, bands, tmp_path):
    tensors = whole(name, bands)
    torch.save(tensors, tmp_path / "w.pth")
    first = next(each for each in tensors.values() if each.ndim == 4 and each.shape[1] == bands)
    ways = ("repeat", "mean") if name == "test_resnet" else ("repeat",)
    for way in ways:
        body = backbone(name, in_channels=bands, pretrained=tmp_path / "w.pth", band_init=way)
        conv = next(module for module in body.modules() if isinstance(module, nn.Conv2d))
        assert torch.equal(conv.weight, first)
        assert body(torch.rand(1, bands, 160, 160))[0].isfinite().all()


@pytest.mark.parametrize("name", ["test_resnet", "torchvision/mobilenet_v2"])
def test_weights_of_other_bands_are_refused(name, tmp_path):
    torch.save(whole(name, 13), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"in_channels: weights of 13 bands; expected 3, or the 5 of the model"):
        backbone(name, in_channels=5, pretrained=tmp_path / "w.pth")
