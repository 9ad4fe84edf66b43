"""How far a model looks, against what changing pixels shows."""

import pytest
import torch
from torch import nn

import torchfpn
from torchfpn.nn.receptive_field import reach


class Plain(nn.Sequential):
    """Convolutions whose reach can be counted."""


@pytest.mark.parametrize(("kernels", "wanted"), [((1,), 0), ((3,), 1), ((3, 5), 3), ((7, 7, 7), 9)])
def test_of_plain_convolutions_it_is_half_the_kernels(kernels, wanted):
    convs = [nn.Conv2d(2, 2, kernel, padding=kernel // 2) for kernel in kernels]
    assert reach(Plain(*convs), 2) == wanted


def test_weights_do_not_count():
    conv = nn.Conv2d(1, 1, 5, padding=2)
    nn.init.zeros_(conv.weight)
    assert reach(conv, 1) == 2


def test_dilation_and_pooling_count():
    assert reach(nn.Sequential(nn.Conv2d(1, 1, 3, padding=4, dilation=4), nn.MaxPool2d(3, 1, 1)), 1) == 5


class Gate(nn.Module):
    """Squeeze and excitation without the weights."""

    def forward(self, x):
        return x * x.mean((2, 3), keepdim=True).sigmoid()


@pytest.mark.parametrize("whole", [nn.GroupNorm(1, 4), Gate()])
def test_what_looks_at_everything_has_none(whole):
    assert reach(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), whole), 3, longest=256) is None


@pytest.mark.parametrize("options", [{}, {"pyramid": "panet", "head": "concat"}, {"head": "finest"}])
@torch.no_grad()
def test_no_pixel_further_away_changes_the_answer(options):
    model = torchfpn.create_model(
        backbone="test_resnet", num_classes=2, channels=16, head_channels=16, **options
    ).eval()
    far = reach(model, 3)
    image, cut = torch.randn(1, 3, 64, 1536), 512
    changed = image.clone()
    changed[..., :cut] = torch.randn(1, 3, 64, cut)
    differs = (model(image) != model(changed)).any(dim=(0, 1, 2))
    assert not differs[cut + far :].any()
    assert differs[cut : cut + far].any()
    assert model.training is False


def test_modes_are_left_as_they_were():
    model = torchfpn.create_model(backbone="test_resnet", num_classes=2, channels=16, head_channels=16).train()
    model.backbone.eval()
    reach(model, 3)
    assert model.training
    assert not model.backbone.training
