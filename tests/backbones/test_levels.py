"""Which maps go on to the pyramid, by stride."""

import copy
import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn import ConfigError, Level
from torchfpn.backbones import backbone
from torchfpn.backbones.timm import pick_by_stride

C1_TO_C5, DILATED, PLAIN = (2, 4, 8, 16, 32), (2, 4, 8, 8, 8), (16, 16, 16)


def pick(available, strides=None):
    return pick_by_stride([Level(10 + i, s) for i, s in enumerate(available)], strides, name="net")


@pytest.mark.parametrize(
    ("available", "strides", "expected"),
    [
        (C1_TO_C5, None, (1, 2, 3, 4)),
        (DILATED, None, (1, 2, 3, 4)),
        ((4, 8, 16, 32), None, (0, 1, 2, 3)),
        ((1, 2, 4, 8), None, (2, 3)),
        (PLAIN, None, (2,)),
        ((2,), None, (0,)),
        (C1_TO_C5, (32,), (4,)),
        (C1_TO_C5, (2, 16), (0, 3)),
        (C1_TO_C5, (16, 2), (0, 3)),
        (DILATED, (4, 8), (1, 4)),
        (DILATED, (8, 8), (3, 4)),
        (DILATED, (4, 8, 8, 8), (1, 2, 3, 4)),
        (PLAIN, (16, 16), (1, 2)),
        ((4, 7, 7), (7,), (2,)),
    ],
)
def test_maps_are_picked_by_stride_the_last_of_those_that_share_one(available, strides, expected):
    assert pick(available, strides) == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([2, 4, 8, 16]), min_size=1, max_size=6), st.data())
def test_what_is_picked_has_the_strides_that_were_asked_for(available, data):
    available = sorted(available)
    wanted = data.draw(st.lists(st.sampled_from([2, 4, 8, 16, 32]), min_size=1, max_size=4))
    if any(wanted.count(s) > available.count(s) for s in wanted):
        with pytest.raises(ConfigError, match="expected some of its strides"):
            pick(available, wanted)
    else:
        picked = pick(available, wanted)
        assert sorted(wanted) == [available[i] for i in picked]
        assert list(picked) == sorted(set(picked))
        assert all(j in picked for i in picked for j in range(i, len(available)) if available[i] == available[j])


@pytest.mark.parametrize(
    ("available", "strides"), [(C1_TO_C5, (64,)), (C1_TO_C5, (8, 8)), (DILATED, (16,)), (C1_TO_C5, ())]
)
def test_a_stride_that_is_not_there_is_told_with_those_that_are(available, strides):
    with pytest.raises(ConfigError) as caught:
        pick(available, strides)
    shown = ", ".join(map(str, available))
    told = (
        f"backbone net: strides {list(strides)}; expected some of its strides [{shown}]; choose with strides=({shown},)"
    )
    assert str(caught.value) == told


@pytest.mark.parametrize("name", ["torchvision/resnet50", "resnet26"])
@pytest.mark.parametrize(("output_stride", "strides"), [(32, (4, 8, 16, 32)), (16, (4, 8, 16, 16)), (8, (4, 8, 8, 8))])
def test_a_dilated_network_gives_the_strides_it_declares(name, output_stride, strides):
    with torch.device("meta"):
        body = backbone(name, output_stride=output_stride)
        maps = body(torch.empty(1, 3, 96, 64))
    assert tuple(level.stride for level in body.levels) == strides
    for x, (channels, stride) in zip(maps, body.levels, strict=True):
        assert tuple(x.shape) == (1, channels, 96 // stride, 64 // stride)


def test_dilation_keeps_the_weights_and_looks_further():
    plain, dilated = backbone("test_resnet"), backbone("test_resnet", output_stride=8)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in dilated.state_dict().items()}
    dilated.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 64)
    fine, coarse = dilated.eval()(x), plain.eval()(x)
    assert torch.equal(fine[0], coarse[0])
    assert tuple(fine[3].shape[-2:]) == (8, 8)
    assert {m.dilation for m in dilated.modules() if isinstance(m, torch.nn.Conv2d)} > {(1, 1), (2, 2)}


@pytest.mark.parametrize(
    ("name", "output_stride", "told"),
    [
        (
            "torchvision/resnet18",
            8,
            "output_stride 8; expected 8, 16 or 32, of resnet50, resnet101 and resnet152; timm's resnet18",
        ),
        ("torchvision/mobilenet_v2", 16, "output_stride 16; expected 8, 16 or 32, of resnet50"),
        ("torchvision/resnet50", 4, "output_stride: 4; expected 8 | 16 | 32"),
        ("test_resnet", 12, "output_stride: 12; expected 8 | 16 | 32"),
        ("resnet18", 64, "output_stride: 64; expected 8 | 16 | 32"),
        ("resnet18", 0, "output_stride: 0; expected 8 | 16 | 32"),
        ("test_vit", 8, "output_stride 8; test_vit cannot be dilated"),
        ("hrnet_w18_small", 8, "output_stride 8; hrnet_w18_small cannot be dilated"),
    ],
)
def test_what_cannot_be_dilated_says_what_can(name, output_stride, told):
    with pytest.raises(ConfigError) as caught:
        backbone(name, output_stride=output_stride)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["torchvision/resnet18", "torchvision/resnet50"])
def test_torchvisions_own_argument_would_leave_the_strides_untrue(name):
    with pytest.raises(ConfigError, match=r"replace_stride_with_dilation: .*output_stride says it") as caught:
        backbone(name, replace_stride_with_dilation=[False, False, True])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"output_stride": 16}, {"pretrained": True}])
def test_an_option_that_the_network_does_not_have_is_named(options):
    with pytest.raises(ConfigError) as caught:
        backbone("test_resnet", foo=2, **options)
    assert str(caught.value) == "backbone_options.foo: test_resnet has no such option"


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
@pytest.mark.parametrize(
    ("chosen", "strides"), [((2, 3, 4), (8, 16)), ((1, 3, 4), (4, 16)), ((-3, -2, -1), (8,)), (range(1, 5), (8, 16))]
)
def test_strides_choose_among_the_maps_that_timm_was_asked_for(name, chosen, strides):
    body = backbone(name, out_indices=chosen, strides=strides).eval()
    whole = backbone(name).eval()
    whole.load_state_dict({**whole.state_dict(), **body.state_dict()})
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = {level.stride: y for level, y in zip(whole.levels, whole(x), strict=True)}
        maps = body(x)
    assert tuple(level.stride for level in body.levels) == strides
    assert all(torch.equal(y, expected[stride]) for y, stride in zip(maps, strides, strict=True))


@pytest.mark.parametrize(
    ("name", "strides"), [("inception_v3", (4,)), ("legacy_xception", (4,)), ("halonet26t", (4, 8, 16)),
                          ("mobilevitv2_050", None)],
)  # fmt: skip
def test_maps_lie_on_the_grid_of_their_strides_whatever_the_network_computes(name, strides):
    """Without padding, of even sides alone, in blocks of whole cells: what the network gives, in its place."""
    body = backbone(name, strides=strides).eval()
    for size in ((96, 160), (33, 50)):
        images = torch.randn(1, 3, *size)
        with torch.inference_mode():
            maps = body(images)
            wide = torch.nn.functional.pad(images, (0, 256 - size[1], 0, 256 - size[0]))
            raw = [body.features(wide)[index] for index in body.indices]
        for x, level, whole in zip(maps, body.levels, raw, strict=True):
            assert tuple(x.shape[2:]) == tuple(-(-side // level.stride) for side in size)
            assert x[:, :, -1, -1].abs().max() > 0
            lost = 256 // level.stride - whole.shape[2]  # cells, half of them at the start
            row, start, end = x.shape[2] // 2, lost - lost // 2, x.shape[3] - 5
            if "ception" in name:  # attention sees how large an image was padded
                found, expected = x[:, :, row, start + 1 : end], whole[:, :, row - start, 1 : end - start]
                torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(whole.abs().max()))


def test_attention_of_even_maps_sees_images_of_even_maps():
    body = backbone("mobilevitv2_050").eval()
    images = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        maps, even = body(images), body.features(torch.nn.functional.pad(images, (0, 32, 0, 32)))
    for x, index in zip(maps, body.indices, strict=True):
        torch.testing.assert_close(x, even[index][:, :, : x.shape[2], : x.shape[3]])


@pytest.mark.parametrize(
    ("name", "size"),
    [("swin_tiny_patch4_window7_224", (320, 224)), ("swin_tiny_patch4_window7_224", (224, 224)),
     ("swinv2_tiny_window8_256", (320, 512))],
)  # fmt: skip
def test_a_swin_transformer_shifts_its_windows_as_timm_does_for_that_size_of_image(name, size):
    small = {"depths": (2, 2, 2, 2), "embed_dim": 12, "num_heads": (1, 1, 2, 2)}
    body = backbone(name, **small).eval()
    for key, weight in body.named_parameters():
        if "norm" in key and key.endswith("weight"):
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    theirs = timm.create_model(name, features_only=True, img_size=size, **small).eval()
    theirs.load_state_dict(body.features.state_dict())
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        for one, other in zip(copy.deepcopy(body)(images), theirs(images), strict=True):
            torch.testing.assert_close(one, other.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5)


def test_a_network_that_takes_colours_apart_itself_is_refused_other_bands():
    with pytest.raises(ConfigError, match="in_channels: 5 bands for csatv2; expected 3"):
        backbone("csatv2", in_channels=5)


def test_networks_may_be_built_in_several_threads():
    """timm's logger and the hub client, whose settings are changed meanwhile, have their own again."""
    logger, level = logging.getLogger("timm.models._builder"), logging.getLogger("timm.models._builder").level
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert len(list(pool.map(lambda _: backbone("test_resnet"), range(8)))) == 8
    finally:
        sys.setswitchinterval(interval)
    assert logger.level == level


def test_of_a_plain_transformer_the_last_map_is_given_unless_more_are_asked_for():
    assert [level.stride for level in backbone("test_vit").levels] == [16]
    assert [level.stride for level in backbone("test_vit", strides=(16, 16)).levels] == [16, 16]
