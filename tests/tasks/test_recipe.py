"""The recipe of a model file is held against everything that it can say before anything trusts it."""

import json
import shutil

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import torchfpn
from tiny_detector import tiny_detector
from tiny_model import tiny_task
from torchfpn import Scaling, WeightsError
from torchfpn.cli.main import main
from torchfpn.io.weights import read_tensors
from torchfpn.recipe import Recipe

IMAGE = torch.arange(3 * 16 * 20).reshape(3, 16, 20) % 256


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A semantic model and a detector: their tensors and the values of their recipes."""
    folder = tmp_path_factory.mktemp("models")
    tiny_task(bands=("red", "green", "blue"), dtype="uint8").save(folder / "pixels.safetensors")
    tiny_detector(proposals=5, rules={"resize": {"shorter": 16, "longer": 32}}).save(folder / "objects.safetensors")
    made = {}
    for path in folder.iterdir():
        tensors, metadata = read_tensors(path)
        made[path.stem] = tensors, json.loads(metadata["torchfpn"])
    return folder, made


def changed(value, path, new):
    """A copy of plain values with the one at `path` replaced."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], new) if len(path) > 1 else new
    return copy


def written(files, kind, recipe):
    """A model file with that recipe."""
    folder, made = files
    path = folder / "changed.safetensors"
    safetensors.torch.save_file(made[kind][0], path, metadata={"torchfpn": json.dumps(recipe)})
    return path


HAND_MADE = [
    ("pixels", ("classes",), "abc", "classes"),
    ("pixels", ("classes",), ["a", "b"], "label_ids"),
    ("pixels", ("classes",), ["a", "a", "b"], "classes"),
    ("pixels", ("classes", 0), {"name": "a"}, "classes"),
    ("pixels", ("classes", 0), "\ud800", "classes"),
    ("pixels", ("label_ids", 0), "1", "label_ids"),
    ("pixels", ("label_ids", 0), 2, "label_ids"),
    ("pixels", ("label_ids", 0), 2**40, "label_ids"),
    ("pixels", ("colors", 0), [1, 2], "colors"),
    ("pixels", ("colors", 0), [1, 2, 256], "colors"),
    ("pixels", ("colors",), [[1, 2, 3]], "colors"),
    ("pixels", ("bands",), [], "bands"),
    ("pixels", ("bands",), ["red", "green"], "scaling.offset"),
    ("pixels", ("dtype",), 7, "dtype"),
    ("pixels", ("dtype",), "uint9", "dtype"),
    ("pixels", ("nodata",), "x", "nodata"),
    ("pixels", ("ignore_index",), 0.5, "ignore_index"),
    ("pixels", ("scaling", "offset", 0), float("nan"), "scaling.offset"),
    ("pixels", ("scaling", "scale", 0), float("inf"), "scaling.scale"),
    ("pixels", ("scaling", "scale", 0), 1e-300, "scaling.scale"),
    ("pixels", ("scaling", "method"), None, "scaling.method"),
    ("pixels", ("class_weights",), [1, 2], "class_weights"),
    ("pixels", ("class_weights",), [1, 2, float("nan")], "class_weights"),
    ("pixels", ("source",), 3, "source"),
    ("pixels", ("source",), [[[[[[[[[[[1]]]]]]]]]]], "source"),
    ("pixels", ("loss",), "ce + zzz", "loss"),
    ("pixels", ("task",), "panoptical", "task"),
    ("pixels", ("task",), "panoptic", "things"),
    ("pixels", ("things",), ["grass"], "things"),
    ("objects", ("rules", "panoptic"), {"overlap": 2}, "rules.panoptic"),
    ("objects", ("rules", "panoptic"), {"area": 3}, "rules.panoptic"),
    ("pixels", ("inputs",), {"low": 0, "high": 10**400, "divisors": {}}, "inputs"),
    ("pixels", ("inputs",), {"low": 0, "high": 1, "divisors": {"x": 1}}, "inputs"),
    ("pixels", ("model", "channels"), 20_000, "tensors do not fit"),
    ("pixels", ("model", "channels"), 10**9, "cannot be built"),
    ("pixels", ("model", "channels"), 10**20, "model.channels"),
    ("pixels", ("model", "align_corners"), "x", "model.align_corners"),
    ("pixels", ("model", "strides"), [4, "8"], "model.strides"),
    ("pixels", ("model", "backbone"), 3, "model.backbone"),
    ("pixels", ("model", "pretrained"), True, "model.pretrained"),
    ("pixels", ("model", "backbone_options"), {"checkpoint_path": "other.pth"}, "checkpoint_path"),
    ("pixels", ("model", "pyramid_options"), {"mode": 3}, "pyramid_options.mode"),
    ("objects", ("rules", "resize"), 800, "rules.resize"),
    ("objects", ("rules", "resize", "shorter"), 0, "rules.resize"),
    ("objects", ("rules", "masks"), "theirs", "rules.masks"),
    ("objects", ("rules", "round"), True, "unknown rule"),
    ("objects", ("model", "head_options", "proposals"), 0, "proposals"),
    ("objects", ("model", "head_options", "proposals"), "many", "head_options.proposals"),
    ("objects", ("model", "head_options", "anchor_ratios"), [0], "anchor_ratios"),
    ("objects", ("model", "head_options", "iou"), float("nan"), "head_options.iou"),
]


@pytest.mark.parametrize(("kind", "path", "value", "told"), HAND_MADE)
def test_a_recipe_that_cannot_be_names_file_and_field(files, kind, path, value, told):
    with pytest.raises(WeightsError) as caught:
        torchfpn.load(written(files, kind, changed(files[1][kind][1], path, value)))
    assert "changed.safetensors: " in str(caught.value)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("verb", ["info", "predict"])
def test_the_commands_say_it_in_one_line(files, verb, tmp_path, capsys):
    path = shutil.copy(written(files, "pixels", changed(files[1]["pixels"][1], ("nodata",), "x")), tmp_path)
    more = ["image.png", "--out", str(tmp_path / "out")] if verb == "predict" else []
    assert main([verb, str(path), *more]) == 2
    told = capsys.readouterr().err.strip()
    assert "changed.safetensors: nodata: 'x'; expected a number, or null" in told.replace("\n", " ")
    assert "Traceback" not in told


@pytest.mark.parametrize("text", ["[" * 100_000, "7", "{}", '{"schema": 1e400}', '{"schema": true}', '{"schema": "4"}'])
def test_text_that_is_no_recipe_is_refused(text):
    with pytest.raises(WeightsError, match="model: the recipe is damaged"):
        Recipe.from_json(text, file="model")


@pytest.mark.parametrize("numbers", [((float("nan"),), (1.0,)), ((0.0,), (float("inf"),)), ((1e300,), (1.0,))])
def test_no_scaling_is_made_of_numbers_that_are_not_finite(numbers):
    with pytest.raises(WeightsError, match="finite"):
        Scaling(*numbers)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def places(draw):
    """Which of the two models, and indices that lead to some value of its recipe."""
    return draw(st.sampled_from(["pixels", "objects"])), draw(st.lists(st.integers(0, 30), min_size=1, max_size=4))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=places(), value=plain)
@example(place=("pixels", [5]), value=-1)
def test_any_change_of_a_recipe_loads_and_answers_or_is_refused_in_one_line(files, place, value):
    kind, indices = place
    recipe = files[1][kind][1]
    inner, path = recipe, []
    for index in indices:
        if not isinstance(inner, dict | list) or not inner:
            break
        path.append(sorted(inner)[index % len(inner)] if isinstance(inner, dict) else index % len(inner))
        inner = inner[path[-1]]
    file = written(files, kind, changed(recipe, path, value))
    try:
        task, told = torchfpn.load(file), "changed.safetensors"
    except WeightsError as error:
        task, told = None, str(error)
    assert "changed.safetensors" in told
    assert "\n" not in told
    assert len(told) < 2000
    if task is not None:
        task.recipe.rules.pop("resize", None)  # to thousands of pixels is allowed, and takes its time
        assert task.predict([IMAGE])[0].labels is not None
        assert len(task.recipe.label_ids) == len(task.recipe.colors) == len(task.classes)
