"""A saved task comes back the same, and files that are something else are refused in one line."""

import json
import os
import pickle
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import torchfpn
from file_events import full_disk
from torchfpn import ConfigError, Scaling, WeightsError
from torchfpn.io.atomic import atomic_path
from torchfpn.io.weights import read_tensors
from torchfpn.recipe import MIGRATIONS, SCHEMA, Inputs, Recipe


def tiny(**options):
    torch.manual_seed(0)
    options = {"backbone": "test_resnet", "classes": ["land", "water"], "bands": ["red", "nir"], **options}
    return torchfpn.create_task("semantic", **{"channels": 32, "head_channels": 32, **options})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    tiny().save(path)
    return path


def rewrite(saved, path, *, tensors=None, metadata=None, recipe=None):
    """The saved model again with something changed."""
    own, meta = read_tensors(saved)
    text = json.dumps({**json.loads(meta["torchfpn"]), **(recipe or {})})
    tensors = own if tensors is None else tensors(own)
    safetensors.torch.save_file(tensors, path, metadata={"torchfpn": text, **(metadata or {})})
    return path


def test_load_gives_the_same_task(tmp_path):
    task = tiny(
        scaling=Scaling((1.0, 2.0), (3.0, 4.0), "mean-std"), label_ids=[3, 7], colors=[(1, 2, 3), (4, 5, 6)],
        loss="ce + 0.5*dice", class_weights=[0.5, 2.0], nodata=-1.0, dtype="int16", source={"run": "x"},
    )  # fmt: skip
    path = tmp_path / "model.safetensors"
    task.save(path)
    again = torchfpn.load(path)
    assert again.recipe == task.recipe
    assert again.classes == ("land", "water")
    raw = torch.rand(1, 2, 33, 47) * 10
    a, b = task.predict(raw)[0], again.predict(raw)[0]
    assert torch.equal(a.labels, b.labels)
    assert torch.equal(a.scores, b.scores)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"strides": range(4, 9, 4)}, {"strides": [4, 8]}),
        ({"strides": np.array([4, 8])}, {"strides": [4, 8]}),
        ({"channels": np.int64(32), "dropout": np.float64(0.5)}, {"channels": 32, "dropout": 0.5}),
        ({"backbone_options": {"out_indices": range(1, 4)}}, {"backbone_options": {"out_indices": [1, 2, 3]}}),
        (
            {"backbone": "test_vit", "pyramid": "simple", "backbone_options": {"img_size": (96, 64)}},
            {"backbone_options": {"img_size": [96, 64]}},
        ),
        ({"in_channels": 4, "bands": None, "fusion": "fusenet", "points": {2, 1}}, {"points": [1, 2]}),
    ],
)
def test_the_recipe_keeps_plain_values(options, kept, tmp_path):
    task = tiny(**{"channels": 32, "head_channels": 32, **options})
    assert {name: task.recipe.model[name] for name in kept} == kept
    task.save(tmp_path / "model.safetensors")
    assert torchfpn.load(tmp_path / "model.safetensors").recipe == task.recipe


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"backbone_options": {"act_layer": nn.GELU}}, "backbone_options.act_layer: <class 'torch.nn.modules"),
        ({"head_options": {1: "x"}}, "head_options: {1: 'x'}; expected numbers, words, lists and tables"),
        ({"strides": (x for x in (4, 8))}, "strides: <generator"),
    ],
)
def test_what_no_recipe_can_keep_is_told_before_it_is_trained(options, told):
    with pytest.raises(ConfigError) as caught:
        tiny(**options)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


def test_saving_over_a_file_replaces_it_whole_or_not(tmp_path):
    path = tmp_path / "model.safetensors"
    tiny().save(path)
    before = path.read_bytes()

    with full_disk("model.safetensors"), pytest.raises(OSError, match="No space"):
        tiny().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_architecture_built_by_hand_is_given_again(tmp_path):
    body = torchfpn.backbone("test_resnet", in_channels=2)
    torch.manual_seed(0)
    task = torchfpn.create_task(backbone=body, classes=["a"], in_channels=2)
    path = tmp_path / "by-hand.safetensors"
    task.save(path)
    with pytest.raises(WeightsError, match=r"built by hand: backbone <TimmBackbone>; .*model="):
        torchfpn.load(path)
    other = torchfpn.create_model(backbone=torchfpn.backbone("test_resnet", in_channels=2), num_classes=1)
    raw = torch.rand(1, 2, 20, 20)
    assert torch.equal(torchfpn.load(path, model=other).predict(raw)[0].scores, task.predict(raw)[0].scores)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_task_of_half_precision_is_saved_so_that_it_loads(kind, tmp_path):
    task = tiny(channels=8, head_channels=8).to(kind)
    task.save(tmp_path / "half.safetensors")
    again = torchfpn.load(tmp_path / "half.safetensors").to(kind)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in task.state_dict().items())


class Odd(nn.Module):
    """A backbone as users write them: its levels say more than two numbers, or it takes no strips of an image."""

    def __init__(self, body, levels=None):
        super().__init__()
        self.body, self.in_channels, self.said = body, body.in_channels, levels
        self.levels = body.levels

    def forward(self, images):
        if self.said is None and images.shape[-1] != images.shape[-2]:
            raise torchfpn.ShapeError("a strip")
        return self.body(images)


@pytest.mark.parametrize("levels", [None, [(8, 4, "fine")] * 4, [(8, 4, 1)] * 4, [(8, -4)] * 4])
def test_a_model_that_cannot_be_measured_is_saved_and_loads(levels, tmp_path):
    body = Odd(torchfpn.backbone("test_resnet", in_channels=2), levels)
    task = torchfpn.create_task(backbone=body, classes=["a"], in_channels=2, channels=8, head_channels=8)
    body.levels = levels or body.levels
    task.save(tmp_path / "odd.safetensors")
    again = torchfpn.load(tmp_path / "odd.safetensors", model=task.model)
    assert again.recipe.bands == ("band0", "band1")


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_fault_35_a_malicious_pickle_is_refused_by_name(tmp_path):
    for name in ("plain.pth", "zip.pth"):
        path = tmp_path / name
        if name == "plain.pth":
            path.write_bytes(pickle.dumps({"w": Evil()}))
        else:
            torch.save({"w": Evil()}, path)
        with pytest.raises(WeightsError, match=rf"{name}: refused: .*exec") as caught:
            read_tensors(path)
        assert "\n" not in str(caught.value)


def test_a_plain_state_dict_is_read_wherever_it_is_nested(tmp_path):
    tensors = {"a": torch.ones(2), "b": torch.zeros(1)}
    for i, content in enumerate([tensors, {"state_dict": tensors, "epoch": 3}, {"model": tensors}]):
        path = tmp_path / f"{i}.pth"
        torch.save(content, path)
        assert read_tensors(path)[0].keys() == tensors.keys()


def test_fault_36_another_architecture_names_the_first_five_tensors(saved, tmp_path):
    path = rewrite(saved, tmp_path / "other.safetensors", recipe={"model": {"backbone": "resnet18", "pyramid": "fpn"}})
    with pytest.raises(WeightsError, match=r"other\.safetensors: \d+ tensors do not fit: missing") as caught:
        torchfpn.load(path)
    assert str(caught.value).count(";") == 5  # five tensors and the hint
    two = rewrite(
        saved, tmp_path / "classes.safetensors", recipe={"classes": ["a", "b", "c"], "label_ids": [], "colors": []}
    )
    with pytest.raises(
        WeightsError, match=r"head.classify.weight is float32 \[2, 32, 1, 1\], the model's float32 \[3,"
    ):
        torchfpn.load(two)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tensors": lambda t: t | {"head.classify.bias": torch.tensor([float("nan"), 0])}},
            "classify.bias: 1 of 2 values",
        ),
        ({"tensors": lambda t: t | {"head.classify.bias": torch.zeros(2, dtype=torch.int32)}}, "bias is int32"),
        ({"tensors": lambda t: t | {"head.classify.bias": torch.zeros(2, dtype=torch.float16)}}, "bias is float16"),
        ({"tensors": lambda t: t | {"extra": torch.zeros(1)}}, r"1 tensor does not fit: unknown extra \[1\]"),
        (
            {"tensors": lambda t: {k: v for k, v in t.items() if k != "head.classify.bias"}},
            "missing head.classify.bias",
        ),
        ({"metadata": {"evil": "1"}}, 'metadata "evil"'),
        ({"recipe": {"clases": []}}, 'unknown field "clases" in the recipe; did you mean "classes"'),
        (
            {"recipe": {"scaling": {"offset": [0], "scale": [0], "method": ""}}},
            "scaling.offset: .*one for each of 2 bands",
        ),
        ({"recipe": {"scaling": {"offset": [0, 0], "scale": [1, 0], "method": ""}}}, "scaling.scale: .* above 0"),
    ],
)
def test_fault_37_a_safetensors_that_lies_is_refused(saved, tmp_path, change, message):
    with pytest.raises(WeightsError, match=message):
        torchfpn.load(rewrite(saved, tmp_path / "bad.safetensors", **change))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"newthing": 1}, "unexpected keyword argument 'newthing'"),
        ({"head": 3}, 'head: "3"; expected sum | concat | finest'),
        ({"head": "zzz"}, 'head: "zzz"; expected sum | concat | finest'),
        ({"fusion": "late", "rgb": [0, 1, 9]}, "fusion: 2 bands"),
        ({"backbone": "resnett18"}, 'did you mean "resnet18'),
    ],
)
def test_fault_37_a_recipe_that_cannot_be_built_is_refused_with_its_file(saved, tmp_path, change, told):
    model = {**tiny().recipe.model, **change}
    with pytest.raises(WeightsError, match=r"bad\.safetensors: the recipe's model cannot be built: ") as caught:
        torchfpn.load(rewrite(saved, tmp_path / "bad.safetensors", recipe={"model": model}))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "recipe",
    [
        {"schema": 0},
        {"schema": 1, "model": None},
        {"schema": 1, "model": {"backbone": "test_resnet", "strides": 4}},
        {"schema": 1, "model": {"backbone": "test_resnet", "backbone_options": {"replace_stride_with_dilation": 3}}},
    ],
)
def test_fault_37_a_damaged_recipe_of_an_older_schema_is_refused(saved, tmp_path, recipe):
    with pytest.raises(WeightsError, match=r"bad\.safetensors: a damaged recipe of schema [01]: ") as caught:
        torchfpn.load(rewrite(saved, tmp_path / "bad.safetensors", recipe=recipe))
    assert "\n" not in str(caught.value)


def test_fault_37_an_impossible_header_is_refused(tmp_path):
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(WeightsError, match=r"huge\.safetensors: not a safetensors file"):
        torchfpn.load(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.safetensors", b"", "the file is empty"),
        ("page.safetensors", b"<!DOCTYPE html><html>", "it is an HTML page"),
        ("page.ckpt", b"<!DOCTYPE html><html>", "it is an HTML page"),
        ("empty.pth", b"", "the file is empty"),
        ("list.pth", None, "a list; expected a state_dict"),
    ],
)
def test_fault_34_what_is_no_checkpoint_says_what_it_is(tmp_path, name, content, message):
    path = tmp_path / name
    torch.save([1], path) if content is None else path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_tensors(path)


def test_fault_34_a_truncated_file_is_refused(saved, tmp_path):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"cut\.safetensors: not a safetensors file"):
        torchfpn.load(cut)
    torch.save({"a": torch.zeros(9)}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:-50])
    with pytest.raises(WeightsError, match="a pickle, truncated or damaged"):
        read_tensors(tmp_path / "cut.pth")


def test_fault_38_a_newer_recipe_is_refused_and_an_older_one_migrated(saved, tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=rf"schema {SCHEMA + 1}; expected {SCHEMA} or less; upgrade"):
        torchfpn.load(rewrite(saved, tmp_path / "newer.safetensors", recipe={"schema": SCHEMA + 1}))
    migrated = {"schema": SCHEMA, "dtype": "int8"}
    monkeypatch.setitem(MIGRATIONS, SCHEMA - 1, lambda fields, _file: {**fields, **migrated})
    old = rewrite(saved, tmp_path / "older.safetensors", recipe={"schema": SCHEMA - 1})
    assert torchfpn.load(old).recipe.dtype == "int8"


def test_fault_38_the_model_file_of_release_0_1_still_loads(tmp_path):
    """The recipe is stored as that release wrote it; weights follow from their names."""
    from golden import release_0_1

    path, raw, expected = release_0_1(tmp_path)
    logits = torchfpn.load(path).logits(raw)
    torch.testing.assert_close(logits.flatten()[::37], expected, rtol=1e-4, atol=1e-5)


def as_0_1(task, path, *, tensors=None, **changes):
    """The file of `task` as 0.1.0 wrote it: no head by name, `changes` in the model (None: not there)."""
    own = {**task.model.state_dict(), **(tensors or {})}
    recipe = json.loads(task.recipe.to_json())
    model = {key: value for key, value in {**recipe["model"], "head": None, **changes}.items() if value is not None}
    text = json.dumps({**recipe, "schema": 1, "model": model})
    safetensors.torch.save_file(own, path, metadata={"torchfpn": text, "format": "pt"})
    return path


OF_0_1 = {
    "plain": ({}, {}),
    "single": ({"strides": (8,)}, {}),
    "a plain transformer": ({"backbone": "test_vit", "strides": (16,)}, {}),
    "dilated": (
        {"output_stride": 16, "strides": (4, 8, 16)},
        {"output_stride": None, "backbone_options": {"output_stride": 16}},
    ),
}


@pytest.mark.parametrize("name", OF_0_1)
def test_models_of_0_1_answer_as_they_did(name, tmp_path):
    options, changes = OF_0_1[name]
    task = tiny(**options).eval()
    again = torchfpn.load(as_0_1(task, tmp_path / "old.safetensors", **changes))
    raw = torch.rand(1, 2, 45, 50)
    assert torch.equal(again.logits(raw), task.logits(raw))
    again.save(tmp_path / "new.safetensors")
    assert torchfpn.load(tmp_path / "new.safetensors").recipe == again.recipe


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
def test_stages_that_0_1_kept_and_nobody_reads_are_left_out(backbone, tmp_path):
    task = tiny(backbone=backbone, strides=(8, 16)).eval()
    whole = torchfpn.backbone(backbone, in_channels=2).state_dict()
    kept = {f"backbone.{name}": tensor for name, tensor in whole.items()}
    unread = {name: tensor for name, tensor in kept.items() if name not in task.model.state_dict()}
    assert unread
    old = as_0_1(task, tmp_path / "old.safetensors", tensors=unread)
    raw = torch.rand(1, 2, 45, 50)
    assert torch.equal(torchfpn.load(old).logits(raw), task.logits(raw))
    name, tensor = next(item for item in unread.items() if item[1].ndim)
    for wrong in ({name: tensor[:-1].clone()}, {"backbone.features.other": tensor.clone()}):
        with pytest.raises(WeightsError, match="1 tensor does not fit: unknown backbone"):
            torchfpn.load(as_0_1(task, tmp_path / "wrong.safetensors", tensors=unread | wrong))


def test_a_map_that_0_1_took_three_times_is_refused(tmp_path):
    task = tiny(backbone="test_vit", strides=(16, 16, 16))
    with pytest.raises(WeightsError, match=r"old\.safetensors: strides \[16, 16, 16\]; expected each once;") as caught:
        torchfpn.load(as_0_1(task, tmp_path / "old.safetensors"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"strides": [4, 8, 16, 32]}),
        ({"backbone_options": {"output_stride": 8, "x": 1}}, {"backbone_options": {"x": 1}, "output_stride": 8}),
        ({"head": "sum", "strides": [16, 16]}, {}),
        ({"head": "sum", "output_stride": 8, "fusion": "fusenet", "points": [1]}, {}),
        ({"head": "sum", "points": [99]}, {"points": None}),
        ({"head": "<Head>", "backbone": "<Net>"}, {}),
        ({"original": "somebody's"}, {}),
    ],
)
def test_recipes_of_schema_1_become_those_of_schema_2(before, after):
    fields = {"schema": 1, "task": "semantic", "model": {"backbone": "test_resnet", **before}}
    expected = {"backbone": "test_resnet", **before, **after}
    if "head" not in before and "original" not in before:
        expected = {"strides": [4, 8, 16, 32], **expected}
    made = MIGRATIONS[1](fields, "file")
    expected = {key: value for key, value in expected.items() if value is not None}
    assert made == {"schema": 2, "task": "semantic", "model": expected}
    assert fields == {"schema": 1, "task": "semantic", "model": {"backbone": "test_resnet", **before}}


@pytest.mark.parametrize(
    ("dilated", "strides", "output_stride", "translated"),
    [
        ([False, False, True], None, 16, [4, 8, 16, 16]),
        ([False, True, True], None, 8, [4, 8, 8, 8]),
        ([False, True, True], [4, 16, 32], 8, [4, 8, 8]),
        ([False, False, True], [4, 8, 32], 16, [4, 8, 16]),
        ([False, False, True], [4, 8, 16], None, [4, 8, 16]),  # C5 is not built
        ([False, False, False], [8, 32], None, [8, 32]),
    ],
)
def test_dilation_by_torchvisions_argument_becomes_output_stride(dilated, strides, output_stride, translated):
    options = {"replace_stride_with_dilation": dilated}
    model = {"backbone": "torchvision/resnet50", "head": "concat", "strides": strides, "backbone_options": options}
    model = {key: value for key, value in model.items() if value is not None}
    fields = {"schema": 1, "task": "semantic", "model": model}
    model = MIGRATIONS[1](fields, "file")["model"]
    assert model["backbone_options"] == {}
    assert (model.get("output_stride"), model["strides"]) == (output_stride, translated)


@pytest.mark.parametrize(
    ("dilated", "strides"),
    [([False, True, True], [4, 8, 16]), ([False, True, False], None), ([True, True, True], None)],
)
def test_what_no_output_stride_says_is_left_to_be_refused(dilated, strides):
    options = {"replace_stride_with_dilation": dilated}
    model = {"backbone": "torchvision/resnet50", "head": "sum", "strides": strides, "backbone_options": options}
    assert MIGRATIONS[1]({"schema": 1, "task": "semantic", "model": model}, "file")["model"] == model


def test_saving_nan_weights_is_refused(tmp_path):
    task = tiny()
    nn.init.constant_(task.model.head.classify.weight, float("nan"))
    with pytest.raises(WeightsError, match="NaN"):
        task.save(tmp_path / "m.safetensors")
    with pytest.raises(WeightsError, match="no such folder"):
        tiny().save(tmp_path / "none" / "m.safetensors")


def test_recipe_survives_json():
    recipe = tiny(class_weights=[1.0, 2.0]).recipe
    for inputs in (None, Inputs.unit(), Inputs.unknown()):
        recipe = replace(recipe, inputs=inputs)
        assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    "inputs",
    [
        {"low": 0, "high": None, "divisors": {}},
        {"low": 1, "high": 0, "divisors": {}},
        {"low": "0", "high": "1", "divisors": {}},
        {"low": 0, "high": 1, "divisors": {"uint8": 0}},
        {"low": 0, "high": 1, "divisors": [3]},
        {"low": 0, "high": 1},
        7,
    ],
)
def test_a_range_of_values_that_cannot_be_is_refused(saved, tmp_path, inputs):
    with pytest.raises(WeightsError) as caught:
        torchfpn.load(rewrite(saved, tmp_path / "bad.safetensors", recipe={"inputs": inputs}))
    assert "\n" not in str(caught.value)


def test_detectors_converted_from_torchvision_before_learn_their_range(saved, tmp_path):
    given = json.loads(read_tensors(saved)[1]["torchfpn"])["scaling"]
    for method, inputs in (("imagenet, of 0..1", Inputs.unit()), ("imagenet", None)):
        changes = {"schema": 3, "scaling": {**given, "method": method}}
        assert torchfpn.load(rewrite(saved, tmp_path / "old.safetensors", recipe=changes)).recipe.inputs == inputs


def header(path):
    data = path.read_bytes()
    return json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])


def test_a_flipped_bit_is_refused_and_the_tensor_that_it_hit_is_named(saved, tmp_path):
    """Any bit of the file, the sign of a weight and a digit of the scaling among them."""
    whole, bad = saved.read_bytes(), tmp_path / "bad.safetensors"
    start = 8 + struct.unpack("<Q", whole[:8])[0]
    entries = {name: entry for name, entry in header(saved).items() if name != "__metadata__"}
    rng = np.random.default_rng(0)
    for place in [*rng.integers(0, start, 40), *rng.integers(start, len(whole), 40)]:
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        bad.write_bytes(data)
        if bytes(data[:start]).rstrip() == whole[:start].rstrip() and place < start:
            continue  # a blank behind the header
        with pytest.raises(WeightsError) as caught:
            torchfpn.load(bad)
        assert "\n" not in str(caught.value)
        if place >= start:
            (name,) = (n for n, e in entries.items() if e["data_offsets"][0] <= place - start < e["data_offsets"][1])
            assert f"bad.safetensors: damaged, not as it was written: {name}; copy" in str(caught.value)


def test_a_changed_recipe_is_damage_too(saved, tmp_path):
    data = saved.read_bytes()
    changed = data.replace(b'\\"label_ids\\": [0, 1]', b'\\"label_ids\\": [0, 7]')
    assert changed != data
    (tmp_path / "bad.safetensors").write_bytes(changed)
    for read in (torchfpn.load, torchfpn.load_model):
        with pytest.raises(WeightsError, match="damaged, not as it was written: the recipe; copy or download it again"):
            read(tmp_path / "bad.safetensors")


def test_damaged_weights_are_no_pretrained_ones(tmp_path):
    """The same file as the weights of a backbone: what reads a model file looks at its digests."""
    path = tmp_path / "model.safetensors"
    torchfpn.create_task("semantic", backbone="test_resnet", classes=["a", "b"]).save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x80
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="damaged, not as it was written"):
        torchfpn.backbone("test_resnet", pretrained=str(path))


def test_a_file_without_digests_loads_as_before(saved, tmp_path):
    tensors, metadata = read_tensors(saved)
    assert "sha256" in header(saved)["__metadata__"]
    assert metadata.keys() == {"torchfpn"}
    safetensors.torch.save_file(tensors, tmp_path / "plain.safetensors", metadata=metadata)
    assert torchfpn.load(tmp_path / "plain.safetensors").recipe == torchfpn.load(saved).recipe


def test_equal_tasks_make_equal_bytes(saved, tmp_path):
    tiny().save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_what_a_killed_writer_left_is_swept_by_the_next_one(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f".fpn-{ended.pid}-0123456789ab.part.safetensors").write_bytes(b"half")
    (tmp_path / f".fpn-{os.getppid()}-0123456789ab.part.safetensors").write_bytes(b"of one that runs")
    with atomic_path(tmp_path / "other.safetensors") as part:  # of another thread, say
        part.write_bytes(b"being written")
        tiny().save(tmp_path / "model.safetensors")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [f".fpn-{os.getppid()}-0123456789ab.part.safetensors", "model.safetensors", "other.safetensors"]
