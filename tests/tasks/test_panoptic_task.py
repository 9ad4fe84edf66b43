"""Panoptic segmentation as a task: losses of both branches, segments of any image, kept in a file with its rules."""

from dataclasses import replace

import pytest
import torch

import torchfpn
from made_panoptic_targets import panoptic_batch
from torchfpn.errors import ConfigError, NotFiniteError, ShapeError, WeightsError
from torchfpn.ops.panoptic import merge_segments
from torchfpn.recipe import IGNORE
from torchfpn.tasks.task import resize
from torchfpn.types import Batch, Panoptic

THINGS, STUFF = ["car", "tree"], ["road", "sky", "sea"]
ALL = {"score": 0.0, "overlap": 0.5, "stuff_area": 0}


def make(*, merging=ALL, **options):
    torch.manual_seed(0)
    usual = {"backbone": "test_resnet", "things": THINGS, "stuff": STUFF, "channels": 16, "head_channels": 16}
    usual["head_options"] = {"regions": {"hidden": 16, "proposals": 20, "mask_hidden": 16, "threshold": 0.0}}
    rules = {"panoptic": merging} if merging else None
    return torchfpn.create_task("panoptic", **{**usual, "rules": rules, **options})


def same(one, other):
    assert torch.equal(one.segments, other.segments)
    assert one.segments_info == other.segments_info
    assert torch.equal(one.semantic.labels, other.semantic.labels)
    assert torch.equal(one.instances.boxes, other.instances.boxes)


def test_every_weight_has_a_gradient_and_losses_are_finite():
    task = make().train()
    losses = task(panoptic_batch())
    assert list(losses) == ["objectness", "anchors", "classes", "boxes", "masks", "semantic"]
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    assert not [name for name, weight in task.model.named_parameters() if weight.grad is None]


def test_weights_of_the_losses_are_arguments_and_kept():
    batch, losses = panoptic_batch(), []
    for weights in ({}, {"instance_weight": 2.0, "semantic_weight": 1.5}):
        task = make(**weights).train()
        torch.manual_seed(5)
        losses.append(task.losses(batch))
    for name, loss in losses[0].items():
        torch.testing.assert_close(losses[1][name], (3 if name == "semantic" else 2) * loss)
    assert make().recipe.loss == "1.0*instance + 0.5*semantic"


def test_pixels_without_data_are_left_out_of_loss_and_result():
    batch, task = panoptic_batch(), make().train()
    images = batch.images.clone()
    images[:, :, :20] = torch.nan
    hidden = replace(batch, images=images)
    assert task.masses(hidden)["semantic"] == 2 * 44 * 96
    known = replace(batch.targets, semantic=batch.targets.semantic.clone())
    known.semantic[:, :20] = IGNORE
    torch.manual_seed(1)
    one = task.losses(hidden)["semantic"]
    torch.manual_seed(1)
    assert torch.equal(one, task.losses(replace(hidden, targets=known))["semantic"])
    found = task.predict(images)[0]
    assert (found.segments[:20] == 0).all()
    assert (found.semantic.labels[:20] == IGNORE).all()
    assert (found.semantic.scores[:20] == 0).all()
    assert (found.segments[20:] > 0).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (33, 31), (64, 96)])
def test_any_size_is_predicted(size):
    (found,) = make().predict([torch.rand(3, *size)])
    assert isinstance(found, Panoptic)
    assert found.segments.shape == found.semantic.labels.shape == size
    assert found.segments.dtype == torch.int32
    assert [segment.id for segment in found.segments_info] == list(range(1, len(found) + 1))
    assert sum(segment.area for segment in found.segments_info) == int((found.segments > 0).sum())
    assert all(segment.isthing == (segment.label < 2) for segment in found.segments_info)
    assert found.instances.size == size


def test_an_image_of_no_data_and_one_in_which_nothing_is_sure_are_void():
    task = make()
    (empty,) = task.predict([torch.full((3, 40, 50), torch.nan)])
    assert (empty.segments == 0).all()
    assert empty.segments_info == []
    sure = make(merging={"score": 1.0, "stuff_area": 10_000})
    (void,) = sure.predict([torch.rand(3, 40, 50)])
    assert (void.segments == 0).all()
    assert void.semantic.labels.shape == (40, 50)


@pytest.mark.parametrize("semantic_classes", ["stuff", "all"])
def test_the_result_is_the_merge_of_what_the_branches_say(semantic_classes):
    task, image = make(semantic_classes=semantic_classes).eval(), torch.rand(3, 50, 60)
    (found,) = task.predict([image])
    with torch.inference_mode():
        output = task.logits(image[None])
    best = output.semantic.argmax(1)[0]
    wanted = merge_segments(
        found.instances, best, output.semantic.softmax(1).amax(1)[0], things=2, semantic_classes=semantic_classes, **ALL
    )
    assert torch.equal(found.segments, wanted.segments)
    assert [s.label for s in found.segments_info] == [s.label for s in wanted.segments_info]
    if semantic_classes == "all":
        assert torch.equal(found.semantic.labels, best)
    else:
        assert torch.equal(found.semantic.labels, torch.where(best == 0, IGNORE, best + 1))
        assert (found.semantic.scores > 0).all()


def test_a_padded_batch_gives_the_results_of_its_images_alone():
    task = make()
    images = torch.full((2, 3, 64, 96), torch.nan)
    images[0], images[1, :, :40, :50] = torch.rand(3, 64, 96), torch.rand(3, 40, 50)
    found = task.predict(Batch(images, [(64, 96), (40, 50)]))
    assert [tuple(each.segments.shape) for each in found] == [(64, 96), (40, 50)]
    alone = task.predict([images[0]])[0]
    assert (found[0].segments == alone.segments).float().mean() > 0.99


def test_images_that_the_rule_resizes_are_answered_in_their_own_pixels():
    task, image = make(semantic_classes="all"), torch.rand(3, 40, 50)
    rule = {"shorter": 80, "longer": None}
    task.recipe = replace(task.recipe, rules={**task.recipe.rules, "resize": rule})
    (found,) = task.predict([image])
    assert found.segments.shape == found.semantic.scores.shape == found.instances.size == (40, 50)
    assert float(found.instances.boxes.max()) <= 50
    with torch.inference_mode():
        logits = task.eval().logits(resize(image[None], **rule)).semantic
    wanted = torch.nn.functional.interpolate(logits, (40, 50), mode="bilinear", align_corners=False).argmax(1)[0]
    assert (found.semantic.labels == wanted).float().mean() > 0.999
    image[:, :, 30:] = torch.nan
    (partly,) = task.predict([image])
    assert (partly.segments[:, 30:] == 0).all()
    assert (partly.semantic.labels[:, 30:] == IGNORE).all()


def test_it_is_saved_and_loaded(tmp_path):
    path, image = tmp_path / "model.safetensors", torch.rand(5, 48, 64)
    merging = {"score": 0.1, "overlap": 0.75, "stuff_area": 7}
    task = make(in_channels=5, merging=merging, semantic_classes="all", instance_weight=0.75)
    task.save(path)
    again = torchfpn.load(path)
    assert (again.things, again.stuff) == (tuple(THINGS), tuple(STUFF))
    assert again.classes == (*THINGS, *STUFF)
    assert again.recipe == task.recipe
    assert again.recipe.rules["panoptic"] == merging
    assert again.criterion.instance_weight == 0.75
    same(task.predict([image])[0], again.predict([image])[0])


def test_numbers_give_names():
    assert make(things=1, stuff=2).classes == ("thing0", "stuff0", "stuff1")
    assert make(merging=None).recipe.rules["panoptic"] == {"score": 0.5, "overlap": 0.5, "stuff_area": 4096.0}


def test_weights_that_give_nan_are_told():
    task = make()
    with torch.no_grad():
        task.model.head.semantic.logits.classify.bias[1] = torch.nan
    with pytest.raises(NotFiniteError, match="image 2 of 2: the model gives NaN or infinity for 1,200 pixels"):
        task.predict([torch.full((3, 30, 40), torch.nan), torch.rand(3, 30, 40)])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"things": None}, "things: nothing; give things or their number"),
        ({"stuff": []}, "stuff: 0 stuff; expected at least one"),
        ({"things": ["road"]}, 'things and stuff: "road" twice'),
        ({"classes": ["a"]}, 'classes: of task "panoptic"; expected things and stuff'),
        ({"num_classes": 3}, 'num_classes: of task "panoptic"'),
        ({"loss": "dice"}, "loss: of panoptic"),
        ({"label_smoothing": 0.1}, "loss: of panoptic"),
        ({"semantic_weight": 0.0}, 'loss: factor "0.0"'),
        ({"merging": {"area": 3}}, "rules.panoptic.area: no such threshold; expected score | overlap | stuff_area"),
        ({"merging": {"overlap": 1.5}}, "rules.panoptic.overlap: 1.5; expected a share from 0 to 1"),
        ({"merging": {"stuff_area": "big"}}, "rules.panoptic.stuff_area: 'big'; expected pixels, 0 or more"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(options, told):
    with pytest.raises(ConfigError) as caught:
        make(**options)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["things", "stuff", "semantic_weight", "instance_weight"])
def test_other_tasks_have_neither_things_nor_weights(name):
    with pytest.raises(ConfigError, match=f'{name}: .*of task "semantic"; expected task "panoptic"'):
        torchfpn.create_task(backbone="test_resnet", num_classes=2, **{name: 2})


def test_targets_that_do_not_fit_are_refused():
    batch, task = panoptic_batch(), make().train()
    with pytest.raises(ShapeError, match="expected PanopticTargets"):
        task.losses(replace(batch, targets=batch.targets.semantic))
    with pytest.raises(ShapeError, match=r"a class map \[2, 63, 96\] and the things of 2 images"):
        task.losses(replace(batch, targets=replace(batch.targets, semantic=batch.targets.semantic[:, 1:])))


def test_a_head_built_by_hand_is_given_again(tmp_path):
    task = make()
    by_hand = make(head=task.model.head, semantic_classes="stuff")
    by_hand.save(tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="built by hand: head <Fork>"):
        torchfpn.load(tmp_path / "model.safetensors")
    again = torchfpn.load(tmp_path / "model.safetensors", model=make().model)
    image = torch.rand(3, 40, 40)
    same(by_hand.predict([image])[0], again.predict([image])[0])
