"""Any number of bands with the pretrained filters kept, from local files, for both families of backbones."""

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from timm.models import adapt_input_conv

from shared import WEIGHTS, needs_shared
from torchfpn import WeightsError
from torchfpn.backbones import backbone
from torchfpn.backbones.inputs import widen

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
    with pytest.raises(WeightsError, match="could not be downloaded; give a local file instead, pretrained="):
        backbone(name, pretrained=True)
