"""A panoptic task that begins from the file of a detector: what is taken over, what is new, and what cannot be."""

from dataclasses import replace

import pytest
import torch

import torchfpn
from made_panoptic_targets import panoptic_batch
from tiny_detector import tiny_detector
from tiny_model import tiny_task
from torchfpn.errors import ConfigError, WeightsError
from torchfpn.recipe import Inputs, Scaling

REGIONS = "head.regions."


@pytest.fixture(scope="module")
def instance(tmp_path_factory):
    """A file of an instance task of three classes, trained with its own scaling, and the task."""
    path = tmp_path_factory.mktemp("start") / "cells.safetensors"
    task = tiny_detector(classes=("cell", "dot", "rod"), ids=(1, 2, 3), colors=(), smooth=False,
                         scaling=Scaling((7.0, 8.0, 9.0), (2.0, 2.0, 2.0)))  # fmt: skip
    task.save(path)
    return path, task


def begun(path, things=("dot", "disc", "cell"), stuff=("ground", "water"), **options):
    torch.manual_seed(1)
    return torchfpn.create_task("panoptic", weights=path, things=things, stuff=stuff, **options)


def test_parts_are_taken_over_and_classes_by_their_names(instance):
    path, before = instance
    task = begun(path, head_channels=32)
    old, new = before.model.state_dict(), task.model.state_dict()
    for name, tensor in new.items():
        by_class = name.startswith((REGIONS + "box.predict", REGIONS + "mask.classify"))
        if not by_class and not name.startswith("head.semantic."):
            assert torch.equal(tensor, old[name.replace(REGIONS, "head.")]), name
    scores, was = (t[f"{p}box.predict.scores.weight"] for t, p in ((new, REGIONS), (old, "head.")))
    assert torch.equal(scores[[0, 2, 3]], was[[1, 0, 3]])  # dot, cell, background
    assert not any(torch.equal(scores[1], row) for row in was)
    deltas, was = (t[f"{p}box.predict.deltas.bias"] for t, p in ((new, REGIONS), (old, "head.")))
    assert torch.equal(deltas.view(3, 4)[[0, 2]], was.view(3, 4)[[1, 0]])
    masks, was = (t[f"{p}mask.classify.weight"] for t, p in ((new, REGIONS), (old, "head.")))
    assert torch.equal(masks[[0, 2]], was[[1, 0]])


def test_it_says_what_it_took_over(instance, caplog):
    with caplog.at_level("INFO"):
        task = begun(instance[0])
    assert task.recipe.source == {
        "started_from": "cells.safetensors, instance",
        "taken_over": "backbone; pyramid; region head; classes dot, cell",
        "new": "semantic branch; classes disc",
    }
    assert "taken over: backbone; pyramid; region head; classes dot, cell; new: semantic branch" in caplog.text


def test_with_the_same_things_it_finds_the_same_instances(instance):
    path, before = instance
    task, image = begun(path, things=("cell", "dot", "rod")), torch.rand(3, 60, 70) * 10
    found, wanted = task.predict([image])[0].instances, before.predict([image])[0]
    assert torch.equal(found.boxes, wanted.boxes)
    assert torch.equal(found.scores, wanted.scores)
    assert torch.equal(found.masks, wanted.masks)
    assert len(found) > 5
    assert task.recipe.scaling == before.recipe.scaling
    assert task.recipe.model["smooth"] is False


def test_it_learns_and_is_saved_as_any_other(instance, tmp_path):
    task = begun(instance[0], things=("cell", "dot")).train()
    losses = task.losses(panoptic_batch())
    sum(losses.values()).backward()
    task.save(tmp_path / "model.safetensors")
    again = torchfpn.load(tmp_path / "model.safetensors")
    assert again.recipe.source["started_from"] == "cells.safetensors, instance"
    assert again.recipe == task.recipe


def test_boxes_alone_leave_the_mask_head_new(tmp_path):
    path = tmp_path / "boxes.safetensors"
    tiny_detector("detection").save(path)
    task = begun(path, things=("cell",))
    assert task.recipe.source["new"] == "semantic branch; mask head"


@pytest.mark.parametrize("semantic_classes", ["stuff", "all"])
def test_a_panoptic_file_gives_its_semantic_branch_too(tmp_path, semantic_classes):
    path = tmp_path / "town.safetensors"
    torch.manual_seed(0)
    before = torchfpn.create_task(
        "panoptic", backbone="test_resnet", things=["car", "tree"], stuff=["road", "sky", "sea"], channels=16,
        head_channels=32, norm="group", semantic_classes=semantic_classes, head_options={"regions": {"hidden": 16}},
    )  # fmt: skip
    before.save(path)
    task = begun(path, things=["tree"], stuff=["sea", "ice"])
    assert task.recipe.model["norm"] == "group"
    assert task.recipe.source["taken_over"].endswith("region head; semantic branch; classes tree, sea")
    assert task.recipe.source["new"] == "classes ice"
    name = "head.semantic.logits.classify.weight"
    now, was = task.model.state_dict()[name], before.model.state_dict()[name]
    assert torch.equal(now[:2], was[[1, 4]] if semantic_classes == "all" else was[[0, 3]])
    with pytest.raises(ConfigError, match=r"norm: batch; expected group, as town.safetensors has it; leave it out"):
        begun(path, things=["tree"], stuff=["sea"], norm="batch")


def test_a_network_that_learnt_on_0_to_1_is_given_the_values_of_8_bit_files(tmp_path):
    path, task = tmp_path / "unit.safetensors", tiny_detector(classes=("a",), ids=(0,), dtype="")
    scaling = Scaling((0.5, 0.4, 0.3), (0.2, 0.2, 0.25), "imagenet, of 0..1")
    task.recipe = replace(task.recipe, scaling=scaling, inputs=Inputs.unit())
    task.save(path)
    made = begun(path)
    assert made.recipe.scaling.offset == pytest.approx((127.5, 102, 76.5))
    assert made.recipe.scaling.scale == pytest.approx((51, 51, 63.75))
    assert (made.recipe.inputs, made.recipe.dtype) == (None, "uint8")
    own = Scaling((1.0,) * 3, (2.0,) * 3)
    assert begun(path, scaling=own, dtype="uint16").recipe.scaling == own


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"backbone": "resnet18"}, "backbone: resnet18; expected test_resnet, as cells.safetensors has it"),
        ({"pyramid": "panet"}, "pyramid: panet; expected fpn, as cells.safetensors has it"),
        ({"fusion": "late"}, "fusion: late; expected none, as cells"),
        ({"pretrained": True}, "pretrained: True; expected none with weights"),
        ({"channels": 32}, "channels: 32; expected 16, as cells.safetensors has it"),
        ({"in_channels": 4}, "bands: 4; expected 3; the bands of cells.safetensors: red, green, blue"),
        ({"bands": ["green", "red", "blue"]}, "bands: green at place 1; expected the file's order"),
        ({"head_options": {"regions": 3}}, "head_options.regions: 3"),
    ],
)
def test_another_architecture_is_refused_by_name(instance, options, told):
    with pytest.raises(ConfigError) as caught:
        begun(instance[0], **options)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_that_change_shapes_are_refused(instance):
    with pytest.raises(WeightsError, match=r"tensors do not fit: head.regions.box.features.fc1.weight is \[32, 784\]"):
        begun(instance[0], head_options={"regions": {"hidden": 16}})


def test_options_that_change_no_shape_are_taken(instance):
    task = begun(instance[0], head_options={"regions": {"threshold": 0.3}, "semantic": {"merge": "concat"}})
    assert task.recipe.model["head_options"]["regions"] == {"hidden": 32, "proposals": 50, "threshold": 0.3}
    assert task.recipe.model["head_options"]["semantic"] == {"merge": "concat"}


def test_other_tasks_and_files_are_refused(instance, tmp_path):
    with pytest.raises(ConfigError, match='weights: of task "instance"; expected task "panoptic"; pretrained='):
        torchfpn.create_task("instance", weights=instance[0], num_classes=2)
    tiny_task(bands=("red", "green", "blue")).save(tmp_path / "pixels.safetensors")
    with pytest.raises(WeightsError, match='a model of task "semantic"; expected detection'):
        begun(tmp_path / "pixels.safetensors")
    with pytest.raises(WeightsError, match="no such file"):
        begun(tmp_path / "nothing.safetensors")
    with pytest.raises(ConfigError, match="backbone: nothing"):
        torchfpn.create_task(num_classes=2)
