"""pytorch-fpn's two functions: its names and defaults, its own test's matrix, and no part of a model without use."""

import copy
import inspect
import runpy
import subprocess
import sys
import urllib.error
from pathlib import Path
from unittest.mock import patch

import huggingface_hub.constants
import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
import torchvision
from timm.models import adapt_input_conv
from torch import nn

from torchfpn import ConfigError, WeightsError, make_fpn_efficientnet, make_fpn_resnet
from torchfpn.backbones import backbone
from torchfpn.backbones.fusion import StageFusion
from torchfpn.tasks.factories import EFFICIENTNETS, RESNETS, TYPES

ROOT = Path(__file__).resolve().parents[2]
MATRIX = ["resnet18", "resnet50", "resnet101", *(f"efficientnet_b{size}" for size in range(8))]
BANDS = (3, 1, 8)
SLICE = [  # every type with every number of bands; the larger networks run in `make slow`
    ("resnet18", "fpn", 3),
    ("resnet18", "panoptic", 8),
    ("resnet18", "panet", 1),
    ("resnet50", "panet", 3),
    ("efficientnet_b0", "fpn", 8),
    ("efficientnet_b1", "panoptic", 1),
    ("efficientnet_b2", "panet", 8),
    ("efficientnet_b3", "fpn", 1),
]
V1 = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]


def factory(name):
    return make_fpn_resnet if name.startswith("resnet") else make_fpn_efficientnet


def made(name="resnet18", fpn_type="fpn", **options):
    torch.manual_seed(0)
    options = {"pretrained": False, "num_classes": 2, "fpn_channels": 64, **options}
    return factory(name)(name, fpn_type, **options)


def images(model, *size, batch=1):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, model[0].in_channels, *size, generator=generator)


@pytest.fixture(scope="module", params=TYPES)
def model(request):
    """One model of each type, whose result has the images' size."""
    return made(fpn_type=request.param, out_size=None, fpn_channels=32).eval()


@pytest.fixture
def no_network(monkeypatch):
    """Nothing can be downloaded; gives the addresses that were asked for."""
    asked = []

    def refused(address, *_args, **_kwargs):
        asked.append(getattr(address, "full_url", str(address)))
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refused)
    monkeypatch.setattr("torch.hub.urlopen", refused)
    monkeypatch.setattr("socket.getaddrinfo", refused)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return asked


@pytest.fixture(scope="module")
def torch_home(tmp_path_factory):
    """A folder for TORCH_HOME with random weights where torchvision's of a ResNet-18 would lie, and their network."""
    torch.manual_seed(2)
    network, home = torchvision.models.resnet18(weights=None), tmp_path_factory.mktemp("torch-home")
    path = home / "hub" / "checkpoints" / V1
    path.parent.mkdir(parents=True)
    torch.save(network.state_dict(), path)
    return home, network


# What the original promises: arguments, and the matrix of its own test.


@pytest.mark.parametrize(
    ("function", "name", "pretrained"),
    [(make_fpn_resnet, "resnet18", True), (make_fpn_efficientnet, "efficientnet_b0", "imagenet")],
)
def test_arguments_are_the_originals_in_its_order(function, name, pretrained):
    arguments = inspect.signature(function).parameters.values()
    ours = [(a.name, a.default) for a in arguments if a.kind is a.POSITIONAL_OR_KEYWORD]
    assert ours == [
        ("name", name),
        ("fpn_type", "fpn"),
        ("out_size", (224, 224)),
        ("fpn_channels", 256),
        ("num_classes", 1000),
        ("pretrained", pretrained),
        ("in_channels", 3),
    ]
    assert [(a.name, a.default) for a in arguments if a.kind is a.KEYWORD_ONLY] == [("compat", None)]


@pytest.mark.parametrize(("name", "fpn_type", "bands"), SLICE)
def test_a_slice_of_the_originals_matrix(name, fpn_type, bands):
    model = made(name, fpn_type, in_channels=bands, out_size=(40, 56)).eval()
    with torch.inference_mode():
        assert tuple(model(images(model, 64, 64)).shape) == (1, 2, 40, 56)


@pytest.mark.slow
@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize("fpn_type", TYPES)
@pytest.mark.parametrize("name", MATRIX)
def test_the_originals_whole_matrix(name, fpn_type, bands):
    model = made(name, fpn_type, in_channels=bands).eval()
    with torch.inference_mode():
        assert tuple(model(images(model, 224, 224)).shape) == (1, 2, 224, 224)


def test_arguments_are_taken_by_position_as_well():
    a = made("resnet18", "panoptic", out_size=(32, 48), fpn_channels=32, num_classes=5, in_channels=2).eval()
    torch.manual_seed(0)
    b = make_fpn_resnet("resnet18", "panoptic", (32, 48), 32, 5, False, 2).eval()
    assert torch.equal(a(images(a, 64, 64)), b(images(a, 64, 64)))


def test_it_is_a_sequence_of_backbone_pyramid_and_head():
    model = made()
    assert isinstance(model, nn.Sequential)
    assert [name for name, _ in model.named_children()] == ["backbone", "pyramid", "head"]
    assert model[0] is model.backbone
    assert "out_size=(224, 224)" in repr(model)
    assert model.head.refine.conv.out_channels == 32  # half of the pyramid's


def test_every_efficientnet_has_weights_in_timm():
    published = set(timm.list_pretrained("*efficientnet_b?.*"))
    for name, network in EFFICIENTNETS.items():
        assert timm.get_pretrained_cfg(network).has_weights
        assert f"tf_{name}.ap_in1k" in published


# What the original does not: any size, and every part in use.


@pytest.mark.parametrize("size", [(1, 1), (62, 64), (37, 101)])
def test_without_an_out_size_the_result_has_the_size_of_the_image(model, size):
    with torch.inference_mode():
        assert tuple(model(images(model, *size)).shape) == (1, 2, *size)


@pytest.mark.parametrize(("size", "out_size"), [((64, 64), (48, 70)), ((33, 90), 64), ((33, 90), [1, 1])])
def test_an_out_size_is_a_bilinear_resize_of_that_result(size, out_size):
    resized = made(fpn_type="panoptic", out_size=out_size, fpn_channels=32).eval()
    whole = made(fpn_type="panoptic", out_size=None, fpn_channels=32).eval()
    x = images(whole, *size)
    with torch.inference_mode():
        expected = F.interpolate(whole(x), out_size, mode="bilinear", align_corners=False)
        assert torch.equal(resized(x), expected)


def test_weights_go_from_one_out_size_to_another_and_copies_are_equal():
    small, large = made(out_size=32).eval(), made(out_size=None)
    large.load_state_dict(small.state_dict())
    x = images(small, 32, 32)
    with torch.inference_mode():
        assert torch.equal(small(x), large.eval()(x))
        assert torch.equal(copy.deepcopy(small)(x), small(x))


@pytest.mark.parametrize(
    ("name", "fpn_type", "bands"),
    [
        ("resnet18", "fpn", 3),
        ("resnet18", "panoptic", 5),
        ("efficientnet_b0", "panet", 1),
    ],
)
def test_every_parameter_gets_a_gradient(name, fpn_type, bands):
    model = made(name, fpn_type, in_channels=bands, fpn_channels=32, out_size=(64, 64)).train()
    model(images(model, 64, 64, batch=2)).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    dead = [name for name, p in model.named_parameters() if not p.grad.abs().sum() > 0]
    assert not [name for name in dead if not name.endswith("bias")], dead


def test_every_level_is_read(model):
    with torch.no_grad():
        maps = model.backbone(images(model, 64, 64))
    maps = tuple(x.requires_grad_() for x in maps)
    model.head(model.pyramid(maps)).square().sum().backward()
    assert len(maps) == 4
    assert all(x.grad.abs().sum() > 0 for x in maps)


def test_the_bottom_up_path_of_panet_changes_the_result():
    model = made(fpn_type="panet", out_size=None).eval()
    x = images(model, 64, 64)
    with torch.inference_mode():
        before = model(x)
        for parameter in model.pyramid.bottom_up.parameters():
            parameter.zero_()
        assert not torch.allclose(model(x), before)


def test_the_coarsest_map_reaches_all_of_panoptic():
    """The original's panoptic has no top-down path: there P2 is a function of C2 alone."""
    model = made(fpn_type="panoptic", out_size=None).eval()
    with torch.inference_mode():
        *finer, last = model.backbone(images(model, 64, 64))
        assert not torch.equal(model.pyramid((*finer, last))[0], model.pyramid((*finer, 2 * last))[0])


@pytest.mark.parametrize(("name", "network"), [("resnet18", "torchvision/resnet18"), ("efficientnet_b0", None)])
@pytest.mark.parametrize("bands", [2, 4])
def test_the_backbone_is_that_of_the_library(name, network, bands):
    model = made(name, in_channels=bands)
    torch.manual_seed(0)
    expected = backbone(network or name, in_channels=bands, fusion="fusenet" if bands > 3 else "none")
    assert isinstance(model.backbone, StageFusion) == (bands > 3)
    for (key, ours), (name, theirs) in zip(model[0].state_dict().items(), expected.state_dict().items(), strict=True):
        assert key == name
        assert torch.equal(ours, theirs)


# Weights.


def test_without_weights_nothing_is_asked_of_the_network(no_network):
    for pretrained in (False, None):
        made(in_channels=4, pretrained=pretrained)
    made("efficientnet_b0", pretrained=None)
    assert no_network == []


@pytest.mark.parametrize("pretrained", [False, True])
def test_the_call_of_raster_vision(pretrained, torch_home, no_network, monkeypatch):
    home, network = torch_home
    monkeypatch.setenv("TORCH_HOME", str(home))
    model = make_fpn_resnet(
        name="resnet18", fpn_type="panoptic", num_classes=4, fpn_channels=128, in_channels=3, out_size=(256, 256),
        pretrained=pretrained,
    ).eval()  # fmt: skip
    with torch.inference_mode():
        assert tuple(model(images(model, 256, 256)).shape) == (1, 4, 256, 256)
    assert holds(model.backbone.stages, network) == pretrained
    assert no_network == []


def holds(stages, network):
    """Whether these stages have the tensors of that network, but for the first convolution's."""
    parts = [(stages.c1.norm, network.bn1), (stages.c2.blocks, network.layer1)]
    parts += [(stages.c3, network.layer2), (stages.c4, network.layer3), (stages.c5, network.layer4)]
    pairs = [pair for ours, theirs in parts for pair in zip(ours.parameters(), theirs.parameters(), strict=True)]
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("bands", [1, 2, 5])
def test_published_weights_arrive_with_any_number_of_bands(bands, torch_home, monkeypatch):
    home, network = torch_home
    monkeypatch.setenv("TORCH_HOME", str(home))
    body = made(in_channels=bands, pretrained=True).backbone
    streams = [(body.main, 3), (body.extra, bands - 3)] if bands > 3 else [(body.stages, bands)]
    for stages, width in streams:
        assert holds(stages, network)
        torch.testing.assert_close(stages.c1.conv.weight, adapt_input_conv(width, network.conv1.weight))


def test_a_file_of_weights_is_taken(torch_home):
    home, network = torch_home
    path = home / "hub" / "checkpoints" / V1
    body = made(in_channels=4, pretrained=path).backbone
    assert holds(body.main, network)
    assert holds(body.extra, network)
    assert holds(made(pretrained=str(path)).backbone.stages, network)


def test_a_file_of_weights_is_taken_by_efficientnets(tmp_path):
    torch.manual_seed(2)
    network, path = timm.create_model("efficientnet_b0"), tmp_path / "efficientnet.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    body = made("efficientnet_b0", pretrained=path, in_channels=5).backbone
    assert torch.equal(body.main.c1.conv_stem.weight, network.conv_stem.weight)
    torch.testing.assert_close(body.extra.c1.conv_stem.weight, adapt_input_conv(2, network.conv_stem.weight))
    for stream in (body.main, body.extra):
        assert torch.equal(stream.c3.block3[0].conv_pw.weight, network.blocks[2][0].conv_pw.weight)


@pytest.mark.parametrize(
    ("name", "url"),
    [("resnet18", V1), ("resnet50", torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url.rpartition("/")[2])],
)
def test_true_asks_for_the_weights_that_the_original_took_and_offline_says_so(
    name, url, no_network, monkeypatch, tmp_path
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        WeightsError, match=f"torchvision/{name} could not be downloaded; put {url} .*or give a local file"
    ) as caught:
        factory(name)(name)
    assert "\n" not in str(caught.value)
    assert [address.rpartition("/")[2] for address in no_network] == [url]


@pytest.mark.parametrize(
    ("name", "pretrained", "network"),
    [
        ("efficientnet_b0", "imagenet", "efficientnet_b0"),
        ("efficientnet_b0", True, "efficientnet_b0"),
        ("efficientnet_b6", "imagenet", "tf_efficientnet_b6"),
        ("efficientnet_b0", "advprop", r"tf_efficientnet_b0\.ap_in1k"),
    ],
)
def test_which_weights_efficientnets_ask_for(name, pretrained, network, no_network, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        WeightsError, match=f"weights of {network} could not be downloaded; .* or give a local"
    ) as caught:
        factory(name)(name, pretrained=pretrained)
    assert "\n" not in str(caught.value)


def test_weights_of_torchvision_have_names(torch_home, monkeypatch):
    home, network = torch_home
    monkeypatch.setenv("TORCH_HOME", str(home))
    for pretrained in ("IMAGENET1K_V1", True):
        assert holds(backbone("torchvision/resnet18", pretrained=pretrained).stages, network)


def test_the_hash_of_a_download_is_the_one_in_its_name(monkeypatch, tmp_path):
    asked = {}

    def downloaded(url, path, hash_prefix):
        asked.update(url=url, hash_prefix=hash_prefix)
        torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", downloaded)
    backbone("torchvision/resnet18", pretrained="IMAGENET1K_V1")
    assert asked["hash_prefix"] == torch.hub.HASH_REGEX.search(asked["url"]).group(1)


def test_the_oldest_files_have_no_counters(torch_home, tmp_path):
    _, network = torch_home
    path = tmp_path / "resnet18-5c106cde.pth"
    torch.save({key: value for key, value in network.state_dict().items() if "num_batches" not in key}, path)
    assert holds(backbone("torchvision/resnet18", pretrained=path).stages, network)


@pytest.mark.parametrize(
    ("name", "pretrained", "told"),
    [
        ("resnet18", "IMAGENET1K_V2", r'no such file; .* torchvision/resnet18; did you mean "IMAGENET1K_V1"'),
        ("resnet18", "weights.pth", r"weights.pth: no such file; .*known: DEFAULT, IMAGENET1K_V1"),
        ("efficientnet_b0", "imagent", r'imagent: no such file; expected "imagenet" .* did you mean "imagenet"'),
        ("efficientnet_b0", "weights.pth", "weights.pth: no such file"),
    ],
)
def test_weights_that_are_not_there_are_told_in_one_line(name, pretrained, told):
    with pytest.raises(WeightsError, match=told) as caught:
        made(name, pretrained=pretrained)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"\x80", "truncated or damaged"), (b"<html>", "HTML page"), (None, "tensors do not fit torchvision/resnet18")],
)
def test_a_bad_file_in_the_cache_is_named(content, told, monkeypatch, tmp_path, no_network):
    path = tmp_path / "hub" / "checkpoints" / V1
    path.parent.mkdir(parents=True)
    if content is None:
        torch.save({"weight": torch.ones(1)}, path)
    else:
        path.write_bytes(content)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=told) as caught:
        made(pretrained=True)
    assert caught.value.file == path
    assert "\n" not in str(caught.value)
    assert no_network == []


# The original's own networks.


@pytest.mark.parametrize(
    ("name", "pretrained", "bands", "streams"),
    [
        ("resnet18", True, 3, 1),
        ("resnet18", True, 5, 2),
        ("resnet18", False, 5, 1),
        ("efficientnet_b0", None, 5, 2),
        ("efficientnet_b0", "imagenet", 2, 1),
    ],
)
def test_compat_is_wired_as_the_original_and_downloads_nothing(name, pretrained, bands, streams, no_network):
    model = made(name, "panet", compat="pytorch-fpn", pretrained=pretrained, in_channels=bands, out_size=64).eval()
    with torch.inference_mode():
        assert tuple(model(torch.randn(1, bands, 64, 64)).shape) == (1, 2, 64, 64)
    assert any(key.startswith("0.1.1.") for key in model.state_dict()) == (streams == 2)
    assert {"1.0.0.1.0.weight", "1.0.2.3.0.weight"} <= set(model.state_dict())
    assert no_network == []


# What cannot be.


@pytest.mark.parametrize("function", [make_fpn_resnet, make_fpn_efficientnet])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"fpn_type": "panoptik"}, 'fpn_type: "panoptik".* did you mean "panoptic"'),
        ({"name": "resnet19"}, 'name: "resnet19"; .*resnet18|efficientnet_b0 '),
        ({"name": "efficientnet_b9"}, 'name: "efficientnet_b9"'),
        ({"out_size": (224, 0)}, r"out_size: \(224, 0\); expected height and width, 1 or more"),
        ({"out_size": 0}, "out_size: 0; "),
        ({"out_size": (1, 2, 3)}, r"out_size: \(1, 2, 3\); "),
        ({"fpn_channels": 0}, "fpn_channels: 0; expected 1 or more"),
        ({"num_classes": 0}, "num_classes: 0; expected 1 or more"),
        ({"in_channels": -1}, "in_channels: -1; expected 1 or more"),
        ({"compat": "pytorchfpn"}, 'compat: "pytorchfpn".* did you mean "pytorch-fpn"'),
    ],
)
def test_what_cannot_be_is_told_in_one_line_before_anything_is_downloaded(function, options, told, no_network):
    with pytest.raises(ConfigError, match=told) as caught:
        function(**options)
    assert "\n" not in str(caught.value)
    assert no_network == []


def test_the_smallest_width_there_can_be():
    assert made(fpn_channels=1, fpn_type="panoptic").head.scale[0][0].conv.out_channels == 1


def test_resnets_are_those_of_the_table():
    assert {"resnet18", "resnet34", "resnet50", "resnet101", "resnet152"} <= set(RESNETS)


# torch.hub.


def test_the_entry_points_of_torch_hub_are_three():
    seen = runpy.run_path(str(ROOT / "hubconf.py"))
    callables = [name for name, value in seen.items() if callable(value) and not name.startswith("_")]
    assert sorted(callables) == ["create_model", "make_fpn_efficientnet", "make_fpn_resnet"]


def test_torch_hub_takes_it_from_the_checkout():
    options = {"pretrained": False, "num_classes": 2, "fpn_channels": 64}
    torch.manual_seed(0)
    model = torch.hub.load(str(ROOT), "make_fpn_resnet", source="local", **options).eval()
    x = images(model, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(x), made().eval()(x))


@pytest.fixture
def checkout(tmp_path):
    """What torch.hub reads, in a folder that from its parent looks like the package."""
    folder = tmp_path / "torchfpn"
    folder.mkdir()
    (folder / "hubconf.py").write_bytes((ROOT / "hubconf.py").read_bytes())
    (folder / "src").symlink_to(ROOT / "src", target_is_directory=True)
    return folder


HUB_CALL = ("make_fpn_resnet", "resnet18", "panet", 32, 16, 2, False)


def test_torch_hub_takes_it_where_torchfpn_is_not_installed(checkout, monkeypatch):
    monkeypatch.chdir(checkout.parent)
    elsewhere = [place for place in sys.path if not Path(place, "torchfpn", "__init__.py").is_file()]
    monkeypatch.setattr(sys, "path", ["", *elsewhere])
    with patch.dict(sys.modules):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchfpn"]:
            del sys.modules[name]
        model = torch.hub.load(str(checkout), *HUB_CALL, source="local").eval()
        assert Path(sys.modules["torchfpn"].__file__).is_relative_to(checkout)
    assert tuple(model(torch.zeros(1, 3, 64, 64)).shape) == (1, 2, 32, 32)


@pytest.mark.slow
def test_torch_hub_takes_it_in_a_python_of_its_own(checkout):
    script = f"""
import sys
from pathlib import Path
sys.path = [place for place in sys.path if not Path(place, "torchfpn", "__init__.py").is_file()]
import torch
model = torch.hub.load({str(checkout)!r}, *{HUB_CALL}, source="local").eval()
assert Path(sys.modules["torchfpn"].__file__).is_relative_to({str(checkout)!r})
assert "matplotlib" not in sys.modules and "lightning" not in sys.modules
print(list(model(torch.zeros(1, 3, 64, 64)).shape))
"""
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=checkout.parent)
    assert (run.returncode, run.stdout.strip()) == (0, "[1, 2, 32, 32]"), run.stderr
