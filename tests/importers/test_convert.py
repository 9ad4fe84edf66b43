"""convert: any wrapping of a state_dict, more bands, families told apart, and models of shapes that no fixture has."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import torchfpn
from importers.fixtures import state_dict
from torchfpn.errors import ConfigError, WeightsError
from torchfpn.importers.convert import converted
from torchfpn.recipe import Scaling
from torchfpn.tasks.pytorch_fpn import original


def random(model):
    """The model with every tensor drawn, statistics of batch norm included, in eval mode."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def small(kind="fpn", bands=3, fused=False, name="resnet18"):
    """An original pytorch-fpn model."""
    made = original(name, kind, out_size=None, fpn_channels=64, num_classes=2, in_channels=bands, fused=fused)
    return random(made)


@pytest.mark.parametrize("wrap", ["module.", "model.", "net.", "_orig_mod.", "model.module."])
def test_wrappers_of_names_are_taken_off(wrap):
    tensors = small().state_dict()
    made = converted({"state_dict": {wrap + name: tensor for name, tensor in tensors.items()}, "epoch": 3})
    assert made.placed == len(tensors)


@pytest.mark.parametrize(
    "name",
    [
        "resnet34",
        "resnet50",
        "resnext50_32x4d",
        *(pytest.param(f"resnet{depth}", marks=pytest.mark.slow) for depth in (101, 152)),
    ],
)
def test_depths_are_told_from_shapes(name):
    with torch.device("meta"):
        tensors = original(name, "fpn", out_size=None, fpn_channels=8, num_classes=2, in_channels=3, fused=False)
    made = converted({key: torch.zeros(value.shape, dtype=value.dtype) for key, value in tensors.state_dict().items()})
    assert made.about == f"fpn on {name}"


@pytest.mark.parametrize(
    "name", ["efficientnet_b1", *(pytest.param(f"efficientnet_b{size}", marks=pytest.mark.slow) for size in (3, 5, 8))]
)
def test_efficientnets_are_told_from_depth_and_width(name):
    with torch.device("meta"):
        tensors = original(name, "fpn", out_size=None, fpn_channels=8, num_classes=2, in_channels=3, fused=False)
    made = converted({key: torch.zeros(value.shape, dtype=value.dtype) for key, value in tensors.state_dict().items()})
    assert made.about == f"fpn on {name}"


@pytest.mark.parametrize(
    ("kind", "bands", "fused"),
    [("fpn", 1, False), ("fpn", 8, True), ("panoptic", 8, False), ("panoptic", 4, True), ("panet", 4, True)],
)
@torch.no_grad()
def test_bands_and_streams_are_told_from_shapes(kind, bands, fused):
    model = small(kind, bands, fused)
    made = converted(model.state_dict())
    images = torch.rand(1, bands, 62, 97)
    assert torch.equal(made.model(images), model(images))


@pytest.mark.parametrize(("bands", "fused"), [(3, False), (2, False), (5, True)])
@torch.no_grad()
def test_added_bands_change_nothing(bands, fused):
    tensors = small("panoptic", bands, fused).state_dict()
    plain, wide = torchfpn.convert(tensors), torchfpn.convert(tensors, bands=bands + 2)
    images = torch.rand(1, bands + 2, 64, 64)
    assert torch.equal(wide.model(images), plain.model(images[:, :bands]))
    assert wide.recipe.bands == (*plain.recipe.bands, f"band{bands}", f"band{bands + 1}")
    assert len(wide.recipe.scaling.offset) == bands + 2


def test_bands_by_name_and_bands_that_cannot_be():
    tensors = small().state_dict()
    names = ("red", "green", "blue", "nir")
    assert torchfpn.convert(tensors, bands=names).recipe.bands == names
    for bands in (2, ["a", "b"], ["a", "b", "c", "c"]):
        with pytest.raises(ConfigError, match=r"bands: .*3 or more"):
            torchfpn.convert(tensors, bands=bands)


@torch.no_grad()
def test_filters_and_scaling_follow_the_names_red_green_and_blue():
    tensors = small("panoptic").state_dict()
    given = Scaling((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    plain = torchfpn.convert(tensors, scaling=given)
    images = torch.rand(1, 4, 64, 64)
    wide = torchfpn.convert(tensors, scaling=given, bands=["nir", "blue", "Red", "green"])
    assert (wide.logits(images) - plain.logits(images[:, [2, 3, 1]])).abs().max() < 1e-4
    assert (wide.recipe.scaling.offset, wide.recipe.scaling.scale) == ((0.0, 3.0, 1.0, 2.0), (1.0, 6.0, 4.0, 5.0))
    turned = torchfpn.convert(tensors, scaling=given, bands=["blue", "green", "red"])
    assert (turned.logits(images[:, :3]) - plain.logits(images[:, [2, 1, 0]])).abs().max() < 1e-4
    renamed = torchfpn.convert(tensors, scaling=given, bands=["vv", "vh", "ratio"])
    assert torch.equal(renamed.logits(images[:, :3]), plain.logits(images[:, :3]))


@pytest.mark.parametrize(
    "bands", [["vv", "vh", "ratio", "nir"], ["nir", "red", "green"], ["red", "green", "nir", "swir"]]
)
def test_bands_that_leave_red_green_and_blue_open_are_refused(bands):
    with pytest.raises(ConfigError, match=r"bands: .* expected red, green and blue among them: .* follow these names"):
        torchfpn.convert(small().state_dict(), bands=bands)


def test_a_fused_model_takes_its_colours_from_certain_places():
    tensors = small(bands=5, fused=True).state_dict()
    with pytest.raises(ConfigError, match="expected band0, band1, band2, band3, band4 first"):
        torchfpn.convert(tensors, bands=["band1", "band0", "band2", "band3", "band4"])


def test_scaling_is_the_familys_or_the_callers():
    tensors = small().state_dict()
    assert torchfpn.convert(tensors).recipe.scaling.method == "identity"
    given = Scaling((0.0,) * 3, (255.0,) * 3)
    task = torchfpn.convert(tensors, scaling=given, bands=4)
    assert task.recipe.scaling.scale == (255.0, 255.0, 255.0, 1.0)
    with pytest.raises(ConfigError, match="scaling: 5 scales"):
        torchfpn.convert(tensors, scaling=Scaling.identity(5))


def test_half_precision_and_old_batch_norms_are_taken():
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in small().state_dict().items()}
    tensors = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    assert all(p.dtype == torch.float32 for p in torchfpn.convert(tensors).model.parameters())


def test_our_own_files_are_sent_to_load(tmp_path):
    task = torchfpn.create_task(backbone="test_resnet", num_classes=2, channels=16, head_channels=16)
    task.save(tmp_path / "ours.safetensors")
    with pytest.raises(WeightsError, match=r"already a torchfpn model; torchfpn.load reads it"):
        torchfpn.convert(tmp_path / "ours.safetensors")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"source": "pytorch_fpn"},
            'source: "pytorch_fpn"; expected pytorch-fpn | robosat.*did you mean "pytorch-fpn"',
        ),
        ({"source": "robosat"}, "not of a known family"),
    ],
)
def test_sources_by_name(given, told):
    with pytest.raises((ConfigError, WeightsError), match=told):
        torchfpn.convert(small().state_dict(), **given)


def test_a_backbone_alone_is_told_where_to_go():
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in torchvision.models.resnet18().state_dict().items()}
    with pytest.raises(WeightsError, match=r'not of a known family.*"conv1.weight".*create_model\(pretrained='):
        torchfpn.convert(state_dict(shapes))


class Block(nn.Module):
    """A bottleneck, with the names of kuangliu's."""

    def __init__(self, width_in, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = nn.Sequential()
        if stride != 1 or width_in != 4 * width:
            conv = nn.Conv2d(width_in, 4 * width, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


class Retina(nn.Module):
    """kuangliu's RetinaFPN written down from its description: the oracle where no fixture is."""

    def __init__(self, blocks):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(64)
        width_in = 64
        for i, count in enumerate(blocks):
            width = 64 * 2**i
            strides = [1 if i == 0 else 2, *[1] * (count - 1)]
            stage = nn.Sequential()
            for stride in strides:
                stage.append(Block(width_in, width, stride))
                width_in = 4 * width
            setattr(self, f"layer{i + 2}", stage)
        self.conv6 = nn.Conv2d(2048, 256, 3, stride=2, padding=1)
        self.conv7 = nn.Conv2d(256, 256, 3, stride=2, padding=1)
        self.toplayer = nn.Conv2d(2048, 256, 1)
        self.latlayer1, self.latlayer2 = nn.Conv2d(1024, 256, 1), nn.Conv2d(512, 256, 1)
        self.smooth1, self.smooth2 = nn.Conv2d(256, 256, 3, padding=1), nn.Conv2d(256, 256, 3, padding=1)

    def forward(self, x, align_corners):
        c2 = self.layer2(F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1))
        c3 = self.layer3(c2)
        c4 = self.layer4(c3)
        c5 = self.layer5(c4)
        p6 = self.conv6(c5)
        p7 = self.conv7(F.relu(p6))
        p5 = self.toplayer(c5)
        c4, c3 = self.latlayer1(c4), self.latlayer2(c3)
        p4 = F.interpolate(p5, size=c4.shape[2:], mode="bilinear", align_corners=align_corners) + c4
        p3 = F.interpolate(p4, size=c3.shape[2:], mode="bilinear", align_corners=align_corners) + c3
        return self.smooth2(p3), self.smooth1(p4), p5, p6, p7


@pytest.mark.parametrize(("blocks", "align_corners"), [((2, 2, 2, 2), False), ((1, 2, 3, 1), True)])
@torch.no_grad()
def test_kuangliu_retina(blocks, align_corners):
    theirs = random(Retina(blocks))
    ours = torchfpn.convert(theirs.state_dict(), align_corners=align_corners)
    images = torch.randn(1, 3, 75, 101)
    for a, b in zip(ours(images), theirs(images, align_corners), strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()
    assert [level.stride for level in ours.levels] == [8, 16, 32, 64, 128]
