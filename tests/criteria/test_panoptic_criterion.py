"""The joint loss: the two criteria it is made of, weighted; classes of the semantic branch; weights as words."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import torchfpn
from made_panoptic_targets import panoptic_batch
from torchfpn.criteria.panoptic import PanopticCriterion, loss_weights, loss_words
from torchfpn.criteria.region import RegionCriterion
from torchfpn.errors import ConfigError, DataError
from torchfpn.recipe import IGNORE
from torchfpn.tasks.task import TRAINING

THINGS, STUFF = 2, 3


def said(batch, criterion, semantic_classes="stuff"):
    """What a small model says of a batch with the joints of a criterion, and these joints."""
    torch.manual_seed(0)
    model = torchfpn.create_model(
        "panoptic", backbone="test_resnet", things=THINGS, stuff=STUFF, semantic_classes=semantic_classes, channels=16,
        head_channels=16, head_options={"regions": {"hidden": 16, "proposals": 20, "mask_hidden": 16}},
    ).train()  # fmt: skip
    choice = criterion.joints(batch.targets.objects, torch.Generator().manual_seed(1))
    return model(batch.images, choose=choice.choose, detect=choice.detect, limits=TRAINING), choice


def test_it_is_the_weighted_sum_of_the_two():
    batch, generators = panoptic_batch(unknown=5), [torch.Generator().manual_seed(2) for _ in range(2)]
    joint = PanopticCriterion(things=THINGS, instance_weight=0.75, semantic_weight=0.25)
    output, choice = said(batch, joint)
    found = joint(output, choice, batch.targets.semantic, generators[0])
    regions = RegionCriterion()(output.regions, choice, generators[1])
    assert list(found) == [*regions, "semantic"]
    for name, loss in regions.items():
        torch.testing.assert_close(found[name], 0.75 * loss)
    own = {0: 0, 1: 0, 2: 1, 3: 2, IGNORE: IGNORE}
    targets = batch.targets.semantic.apply_(own.get)
    torch.testing.assert_close(found["semantic"], 0.25 * F.cross_entropy(output.semantic, targets, ignore_index=IGNORE))


def test_all_classes_keep_their_labels():
    batch, joint = panoptic_batch(), PanopticCriterion(things=THINGS, semantic_classes="all")
    output, choice = said(batch, joint, "all")
    assert output.semantic.shape[1] == THINGS + STUFF
    found = joint(output, choice, batch.targets.semantic)["semantic"]
    torch.testing.assert_close(found, 0.5 * F.cross_entropy(output.semantic, batch.targets.semantic))


def test_fault_26_without_a_labelled_pixel_the_semantic_loss_is_0():
    batch, joint = panoptic_batch(unknown=64), PanopticCriterion(things=THINGS)
    output, choice = said(batch, joint)
    losses = joint(output, choice, batch.targets.semantic)
    assert losses["semantic"] == 0
    sum(losses.values()).backward()
    assert joint.masses(batch.targets)["semantic"] == 0


@given(st.lists(st.integers(0, 63), min_size=2, max_size=2, unique=True).map(sorted))
def test_parts_weighted_by_their_masses_make_the_whole(rows):
    joint, targets = PanopticCriterion(things=THINGS), panoptic_batch(unknown=9).targets.semantic[:1]
    logits = torch.randn(1, STUFF + 1, *targets.shape[1:], generator=torch.Generator().manual_seed(0))
    spans = [slice(0, rows[0]), slice(rows[0], rows[1]), slice(rows[1], None)]
    own = joint.semantic_targets(targets)
    losses = [joint.pixels(logits[:, :, span], own[:, span])["ce"] for span in spans]
    masses = [joint.pixels.masses(own[:, span])["ce"] for span in spans]
    whole = joint.pixels(logits, own)["ce"]
    parts = sum(loss * mass for loss, mass in zip(losses, masses, strict=True)) / sum(masses)
    torch.testing.assert_close(parts, whole)


def test_masses_are_those_of_both():
    found = PanopticCriterion(things=THINGS).masses(panoptic_batch(unknown=5).targets)
    assert found == {"objectness": 2, "anchors": 2, "classes": 2, "boxes": 2, "masks": 2, "semantic": 2 * 59 * 96}


@pytest.mark.parametrize("wrong", [-1, 200])
def test_a_target_that_is_no_class_is_refused(wrong):
    batch, joint = panoptic_batch(), PanopticCriterion(things=THINGS)
    output, choice = said(batch, joint)
    batch.targets.semantic[0, 0, 0] = wrong
    with pytest.raises(DataError, match="target "):
        joint(output, choice, batch.targets.semantic)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_weights_are_read_from_the_words_they_were_written_in(instance, semantic):
    assert loss_weights(loss_words(instance, semantic)) == {"instance": instance, "semantic": semantic}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("ce", 'loss: term "ce" in "ce"; expected instance'),
        ("instance", 'loss: "instance" without semantic'),
        ("instance + 0*semantic", 'factor "0"'),
        ("instance + semantik", 'did you mean "semantic"'),
    ],
)
def test_other_words_are_refused(words, told):
    with pytest.raises(ConfigError, match=told.replace("*", r"\*").replace("+", r"\+")):
        loss_weights(words)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_is_above_0(weight):
    with pytest.raises(ConfigError, match=r"semantic_weight: .*; expected a finite number above 0"):
        PanopticCriterion(things=2, semantic_weight=weight)
