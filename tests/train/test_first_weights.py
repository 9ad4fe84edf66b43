"""What a training begins from: published weights that are on this machine, a file, or random ones."""

import re
import urllib.error
from pathlib import Path

import huggingface_hub.constants
import pytest
import safetensors.torch
import timm
import torch
import torchvision
import yaml

from torchfpn import ConfigError, WeightsError
from torchfpn.backbones import backbone, published_weights
from train.tiny import train

REPOSITORY = "timm/test_resnet.r160_in1k"  # of the network of small.yaml
STILL = ("--lr", "0", "--optimizer.weight-decay", "0", "--ema", "0", "--max-epochs", "1", "--limit-val-batches", "0")


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches of the model hub and of torch, and no network; the folder of a repository's snapshot."""

    def refused(*_args, **_kwargs):
        raise urllib.error.URLError("Name or service not known")

    for door in ("socket.getaddrinfo", "socket.create_connection", "urllib.request.urlopen", "torch.hub.urlopen"):
        monkeypatch.setattr(door, refused)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "hub" / f"models--{REPOSITORY.replace('/', '--')}"


def fill(folder):
    """Weights of the small network where the hub's client keeps them; their tensors."""
    torch.manual_seed(7)
    tensors = timm.create_model("test_resnet").state_dict()
    commit = "0" * 40
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    safetensors.torch.save_file(tensors, folder / "snapshots" / commit / "model.safetensors")
    return tensors


def setting(run="runs/small"):
    return yaml.safe_load(Path(run, "config.yaml").read_text())["model"]["pretrained"]


def shown(run="runs/small"):
    return Path(run, "report.html").read_text().partition("<dt>weights</dt><dd>")[2].partition("</dd>")[0]


def learnt(run="runs/small"):
    """The first convolution of the model file."""
    tensors = safetensors.torch.load_file(Path(run, "model.safetensors"))
    return tensors["backbone.features.conv1.0.weight"]


def test_from_scratch_is_said_and_how_to_get_weights(small, caches, capsys):
    assert train(*STILL) == 0
    ways = "--model.pretrained true downloads it, --model.pretrained FILE starts from a file"
    assert f"weights: random; {REPOSITORY} is not on this machine: {ways}\n" in capsys.readouterr().err
    assert (setting(), shown()) == (False, "random")
    fill(caches)  # a run that goes on keeps what it began from
    assert train(*STILL, "--resume", "--max-epochs", "2") == 0
    said = capsys.readouterr().err
    assert "max_epochs: 2, was 1" in said
    assert "pretrained" not in said
    assert (setting(), shown()) == (False, "random")


def test_weights_on_this_machine_are_the_default(small, caches, capsys):
    tensors = fill(caches)
    assert train(*STILL) == 0
    assert f"weights: ImageNet, from {REPOSITORY}\n" in capsys.readouterr().err
    assert (setting(), shown()) == (True, f"ImageNet, from {REPOSITORY}")
    assert torch.equal(learnt(), tensors["conv1.0.weight"])
    assert train(*STILL, "--model.pretrained", "false", "--name", "plain") == 0
    assert "weights: random\n" in capsys.readouterr().err
    assert (setting("runs/plain"), shown("runs/plain")) == (False, "random")
    assert not torch.equal(learnt("runs/plain"), tensors["conv1.0.weight"])


def test_those_of_torchvision_as_well(small, caches, capsys, monkeypatch):
    place = Path(published_weights("torchvision/mobilenet_v2").how.partition(" into ")[2])
    place.mkdir(parents=True)
    network = torchvision.models.mobilenet_v2()
    url = torchvision.models.MobileNet_V2_Weights.DEFAULT.url
    torch.save(network.state_dict(), place / url.rpartition("/")[2])
    assert train("--fast_dev_run", "true", "--model.backbone", "torchvision/mobilenet_v2") == 0
    told = "weights: ImageNet, from torchvision's MobileNet_V2_Weights.IMAGENET1K_V2\n"
    assert told in capsys.readouterr().err
    assert published_weights("lukemelas/efficientnet_b0") is None


def test_a_file_is_named(small, caches, capsys):
    torch.save(timm.create_model("test_resnet").state_dict(), "mine.pth")
    assert train(*STILL, "--model.pretrained", "mine.pth") == 0
    assert "weights: from mine.pth\n" in capsys.readouterr().err
    assert shown() == "from mine.pth"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("test_resnet", f"`hf download {REPOSITORY}` keeps model.safetensors: copy the folder to .*models--timm--"),
        ("torchvision/resnet18", r"put resnet18-f37072fd\.pth .* into .*checkpoints"),
    ],
)
def test_without_a_network_the_error_says_how_to_go_on(small, caches, capsys, name, place):
    assert train("--model.backbone", name, "--model.pretrained", "true") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "could not be downloaded" in line]
    more = r"pretrained=FILE \(--model.pretrained FILE\); pretrained=False \(--model.pretrained false\) starts"
    assert re.search(f"{place}.*{more}", line)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_damaged_local_copy_is_named(caches, content):
    fill(caches)
    (file,) = caches.rglob("*.safetensors")
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"the local copy of timm/test_resnet.*delete it") as caught:
        backbone("test_resnet", pretrained=True)
    assert caught.value.file == file
    assert "\n" not in str(caught.value)


def test_networks_and_tags_without_published_weights(caches):
    with pytest.raises(WeightsError, match="no pretrained weights of efficientnet_b6 are published; give a file"):
        backbone("efficientnet_b6", pretrained=True)
    for pretrained in (False, True):
        with pytest.raises(ConfigError, match=r'"resnet50.bogus"; expected resnet50 \| resnet50.a1_in1k'):
            backbone("resnet50.bogus", pretrained=pretrained)
