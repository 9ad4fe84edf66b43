"""Two streams and where they meet: the paper's loop, the plain network inside it, and nothing that is not used."""

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from shared import WEIGHTS, needs_shared
from torchfpn import ConfigError, Level
from torchfpn.backbones import backbone
from torchfpn.backbones.first_conv import widen
from torchfpn.backbones.fusion import LateFusion, SplitBands, StageFusion, stages_of

SWIN = "swin_tiny_patch4_window7_224"
SMALL_SWIN = {"img_size": 64, "embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4)}
STAGED = {
    "torchvision/resnet18": {},
    "resnet18": {},
    "mobilenetv3_small_050": {},
    "efficientnet_b0": {},
    "convnext_atto": {},
    SWIN: SMALL_SWIN,
    "test_resnet": {},
}
RGB, BANDS = (4, 1, 0), 5
MOBILENET = WEIGHTS / "mobilenet_v2_imagenet1k.safetensors"


def fused(name="test_resnet", **options):
    torch.manual_seed(0)
    options = {"in_channels": BANDS, "rgb": RGB, "fusion": "fusenet"} | STAGED.get(name, {}) | options
    return backbone(name, **options).eval()


def silenced(stream):
    """Every parameter and running mean zero: a stream that says nothing."""
    with torch.no_grad():
        for name, tensor in [*stream.named_parameters(), *stream.named_buffers()]:
            if "running_var" not in name and tensor.is_floating_point():
                tensor.zero_()


def lively(network):
    """Weights of norms that begin at zero, statistics that begin at nothing: random."""
    generator = torch.Generator().manual_seed(1)
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.weight.data.copy_(0.5 + torch.rand(m.weight.shape, generator=generator))
            m.running_mean.copy_(0.2 * torch.randn(m.bias.shape, generator=generator))
            m.running_var.copy_(0.5 + torch.rand(m.bias.shape, generator=generator))
    return network


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    """torchvision's network of random weights, and the file of them."""
    torch.manual_seed(0)
    network = lively(torchvision.models.resnet18(weights=None)).eval()
    path = tmp_path_factory.mktemp("pretrained") / "resnet18.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    return network, path


@pytest.mark.parametrize(
    "name", ["torchvision/resnet18", "mobilenetv3_small_050", "convnext_atto", SWIN, "test_resnet"]
)
def test_with_a_silent_second_stream_it_is_the_plain_network_to_the_bit(name):
    body = fused(name)
    assert isinstance(body, StageFusion)
    torch.manual_seed(0)
    plain = backbone(name, **STAGED[name]).eval()
    for ours, theirs in zip(body.main.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)  # made first, of the same seed
    silenced(body.extra)
    images = torch.randn(2, BANDS, 64, 64)
    other = images.clone()
    other[:, [2, 3]] = 1000 * torch.randn(2, 2, 64, 64)
    with torch.inference_mode():
        expected = plain(images[:, list(RGB)])
        assert body.levels == plain.levels
        for maps in (body(images), body(other)):
            assert len(maps) == 4
            assert all(map(torch.equal, maps, expected))


@pytest.mark.parametrize("name", ["torchvision/resnet18", "test_resnet", "mobilenetv3_small_050", SWIN])
def test_stages_are_the_network_taken_apart(name):
    body = backbone(name, **STAGED[name]).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        staged = stages_of(body)(x)
        maps = [staged[i] for i in body.indices]
        expected = body(x)
    if name == SWIN:
        maps = [y.permute(0, 3, 1, 2) for y in maps]
    assert all(map(torch.equal, maps, expected))
    assert {id(p) for p in stages_of(body).parameters()} == {id(p) for p in body.parameters()}


@pytest.mark.parametrize(
    ("name", "kind", "band_init"),
    [
        ("torchvision/resnet18", "fusenet", "repeat"),
        ("test_resnet", "fusenet", "repeat"),
        ("test_resnet", "late", "mean"),
    ],
)
def test_both_streams_begin_with_the_pretrained_weights(name, kind, band_init, tmp_path):
    family, _, model = name.rpartition("/")
    source = torchvision.models.get_model(model, weights=None) if family else timm.create_model(model)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(lively(source).state_dict(), path)
    body = fused(name, pretrained=path, fusion=kind, band_init=band_init)
    plain = list(backbone(name, pretrained=path).state_dict().values())
    main, extra = list(body.main.state_dict().values()), list(body.extra.state_dict().values())
    assert all(map(torch.equal, main, plain))
    first = next(i for i, tensor in enumerate(plain) if tensor.ndim == 4)
    torch.testing.assert_close(extra[first], widen(plain[first], BANDS - 3, band_init))
    same = [torch.equal(a, b) for i, (a, b) in enumerate(zip(extra, plain, strict=True)) if i != first]
    assert all(same)
    assert len(same) > 30


@needs_shared
def test_real_weights_reach_both_streams():
    body = fused("torchvision/mobilenet_v2", pretrained=MOBILENET, band_init="mean", strides=(4, 8, 16, 32))
    source = safetensors.torch.load_file(MOBILENET)
    tensors = [tensor for name, tensor in source.items() if name.startswith("features.0.0")]
    assert torch.equal(body.main.c1[0][0].weight, tensors[0])
    torch.testing.assert_close(body.extra.c1[0][0].weight, tensors[0].mean(1, keepdim=True).repeat(1, 2, 1, 1) * 1.5)
    silenced(body.extra)
    images = torch.randn(1, BANDS, 65, 97)
    with torch.inference_mode():
        plain = backbone("torchvision/mobilenet_v2", pretrained=MOBILENET).eval()
        assert all(map(torch.equal, body(images), plain(images[:, list(RGB)])))


def stages(network):
    """torchvision's ResNet by hand, up to the maps of strides 2, 4, 8, 16, 32."""
    return [
        lambda x: network.relu(network.bn1(network.conv1(x))),
        lambda x: network.layer1(network.maxpool(x)),
        network.layer2,
        network.layer3,
        network.layer4,
    ]


@pytest.mark.parametrize("points", [[1, 2, 3, 4], [1, 2, 3, 4, 5], [2]])
def test_it_is_the_papers_loop(resnet18, points):
    """Hazirbas et al. 2016: the sum takes the place of the RGB stream; the other stream goes on as it was.

    Points 1 to 4 are SF4 and 1 to 5 are SF5 of table 2; a pooling of VGG is a stage of the ResNet here.
    """
    network, path = resnet18
    other = torchvision.models.resnet18(weights=None).eval()
    first = widen(network.conv1.weight, 2).detach()
    other.conv1 = nn.Conv2d(2, 64, 7, stride=2, padding=3, bias=False)
    other.load_state_dict({**network.state_dict(), "conv1.weight": first})
    body = fused("torchvision/resnet18", pretrained=path, points=points)
    images = torch.randn(1, BANDS, 75, 101)
    with torch.inference_mode():
        rgb, rest, expected = images[:, [4, 1, 0]], images[:, [2, 3]], []
        for k, (main, extra) in enumerate(zip(stages(network), stages(other), strict=True), start=1):
            rgb, rest = main(rgb), extra(rest)
            if k in points:
                rgb = rgb + rest
            expected.append(rgb)
        maps = body(images)
    assert all(map(torch.equal, maps, expected[1:]))


def test_all_points_are_the_default_and_their_order_does_not_matter():
    images = torch.randn(1, BANDS, 64, 64)
    expected = fused()(images)
    for points in ([1, 2, 3, 4, 5], [5, 3, 1, 2, 4, 4]):
        assert all(map(torch.equal, fused(points=points)(images), expected))
    assert not torch.equal(fused(points=[1, 2, 3, 4])(images)[-1], expected[-1])


@pytest.mark.parametrize("last", [1, 3, 4, 5])
def test_the_second_stream_ends_at_the_last_point(last):
    body = fused(points=[1, last])
    assert [name for name, _ in body.extra.named_children()] == [f"c{k}" for k in range(1, last + 1)]
    assert [name for name, _ in body.main.named_children()] == ["c1", "c2", "c3", "c4", "c5"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_resnet", {}),
        ("test_resnet", {"points": [1, 2, 3, 4]}),
        ("test_resnet", {"points": [3]}),
        ("test_resnet", {"fusion": "late"}),
        ("test_resnet", {"strides": (4, 8)}),
        ("convnext_atto", {"points": [2, 3]}),
        (SWIN, {}),
    ],
)
def test_gradients_reach_every_parameter_of_both_streams(name, options):
    body = lively(fused(name, **options)).train()
    for p_name, p in body.named_parameters():
        if "gamma" in p_name:
            nn.init.ones_(p)  # of ConvNeXt, which begins at nearly nothing
    maps = body(torch.randn(2, BANDS, 64, 64))
    sum((x * torch.randn_like(x)).sum() for x in maps).backward()
    dead = [name for name, p in body.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []
    assert {name.partition(".")[0] for name, _ in body.named_parameters()} == {"main", "extra"}


@pytest.mark.parametrize("rgb", [(0, 1, 2), (2, 1, 0), (4, 0, 2)])
def test_bands_are_split_by_position_in_the_order_of_rgb(rgb):
    split, images = SplitBands(BANDS, rgb), torch.randn(1, BANDS, 2, 2)
    main, extra = split(images)
    assert torch.equal(main, images[:, list(rgb)])
    assert torch.equal(extra, images[:, [band for band in range(BANDS) if band not in rgb]])


def test_the_order_of_the_bands_in_the_image_does_not_matter():
    images = torch.randn(1, BANDS, 64, 64)
    turned = images[:, [4, 1, 0, 2, 3]]
    expected, got = fused()(images), fused(rgb=(0, 1, 2))(turned)
    assert all(map(torch.equal, got, expected))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("hrnet_w18_small", "fusenet"), ("test_vit", "fusenet"), ("selecsls42", "fusenet"), ("test_resnet", "late")],
)
def test_networks_without_stages_and_late_add_the_maps(name, kind):
    body = fused(name, fusion=kind)
    assert isinstance(body, LateFusion)
    assert body.in_channels == BANDS
    images = torch.randn(1, BANDS, 64, 64)
    with torch.inference_mode():
        main, extra = body.main(images[:, list(RGB)]), body.extra(images[:, [2, 3]])
        maps = body(images)
    assert body.levels == body.main.levels
    assert [x.shape[1] for x in maps] == [level.channels for level in body.levels]
    for x, a, b in zip(maps, main, extra, strict=True):
        assert torch.equal(x, a + b)
    silenced(body.extra)
    with torch.inference_mode():
        assert all(map(torch.equal, body(images), main))


@pytest.mark.parametrize("how", ["repeat", "mean", {2: "green", 3: "green"}])
def test_the_second_stream_begins_as_band_init_says(resnet18, how):
    network, path = resnet18
    weight = network.conv1.weight
    body = fused("torchvision/resnet18", pretrained=path, band_init=how)
    expected = {
        "repeat": weight[:, :2] * 1.5,
        "mean": weight.mean(1, keepdim=True).repeat(1, 2, 1, 1) * 1.5,
    }.get(str(how), weight[:, [1, 1]] * 1.5)
    torch.testing.assert_close(body.extra.c1.conv.weight, expected)
    assert torch.equal(body.main.c1.conv.weight, weight)


@pytest.mark.parametrize("strides", [(4, 8), (8, 16, 32), (32,)])
def test_other_strides_can_be_chosen(strides):
    body = fused(strides=strides)
    maps = body(torch.randn(1, BANDS, 64, 64))
    assert tuple(level.stride for level in body.levels) == strides
    for x, (channels, stride) in zip(maps, body.levels, strict=True):
        assert tuple(x.shape) == (1, channels, 64 // stride, 64 // stride)
    assert f"c{strides[-1].bit_length() - 1}" == [name for name, _ in body.main.named_children()][-1]


def test_a_dilated_network_can_be_fused():
    body = fused(output_stride=8)
    assert body.levels == backbone("test_resnet", output_stride=8).levels
    assert [x.shape[-1] for x in body(torch.randn(1, BANDS, 64, 64))] == [16, 8, 8, 8]
    assert body.levels[0] == Level(32, 4)


@pytest.mark.parametrize("name", ["test_resnet", "torchvision/resnet18"])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"in_channels": 3, "rgb": (0, 1, 2)}, "fusion: 3 bands; expected more than red, green and blue; fusion=none"),
        ({"rgb": (0, 1)}, "rgb: [0, 1] of 5 bands"),
        ({"rgb": (0, 1, 1)}, "rgb: [0, 1, 1] of 5 bands"),
        ({"rgb": (0, 1, 5)}, "rgb: [0, 1, 5] of 5 bands"),
        ({"fusion": "fusenett"}, 'fusion: "fusenett"; expected none | fusenet | late; did you mean "fusenet"?'),
        ({"fusion": "late", "points": [1, 2]}, "points: [1, 2]; the maps themselves are added; leave points out"),
        ({"band_init": "zero"}, "band_init: 'zero'; expected repeat | mean | {band: colour}"),
        ({"band_init": {0: "red"}}, "band_init: {0: 'red'}; expected bands [2, 3], red | green | blue"),
        ({"band_init": {2: "rad"}}, "band_init: {2: 'rad'}; expected bands [2, 3], red | green | blue"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(name, options, told):
    with pytest.raises(ConfigError) as caught:
        fused(name, **options)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "points", "told"),
    [
        ("test_resnet", [6], "points: [6]; expected some of 1, 2, 3, 4, 5"),
        ("test_resnet", [0, 1], "points: [0, 1]; expected some of 1, 2, 3, 4, 5"),
        ("test_resnet", [], "points: []; expected some of 1, 2, 3, 4, 5"),
        ("convnext_atto", [1], "points: [1]; expected some of 2, 3, 4, 5"),
        ("hrnet_w18_small", [2], "points: [2]; hrnet_w18_small cannot be run stage by stage; leave points out"),
    ],
)
def test_points_that_are_no_stages_are_told_with_those_that_are(name, points, told):
    with pytest.raises(ConfigError) as caught:
        fused(name, points=points)
    assert str(caught.value) == told
