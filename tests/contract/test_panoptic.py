"""Panoptic models on every pyramid: two branches on the same maps, any size, every weight learns."""

import copy
import pickle

import pytest
import torch

import torchfpn
from contract.subjects import PYRAMIDS, close, images
from torchfpn import ConfigError
from torchfpn.export.torch_export import graph
from torchfpn.types import PanopticOutput

REGIONS = {"hidden": 16, "proposals": 8, "mask_hidden": 16, "threshold": 0.0}
NAMES = [name for name in PYRAMIDS if "dilated" not in name]  # boxes are read from strides that double
SIZES = [(1, 1), (1, 40), (33, 64), (101, 67)]


def made(task="panoptic", **options):
    torch.manual_seed(0)
    own = {"regions": REGIONS} if task == "panoptic" else REGIONS
    classes = {"things": 2, "stuff": 3} if task == "panoptic" else {"num_classes": 2}
    usual = {"backbone": "test_resnet", "channels": 32, "head_channels": 32, "head_options": own}
    return torchfpn.create_model(task, **{**usual, **classes, **options})


@pytest.fixture(scope="module", params=[*((name, "sum") for name in NAMES), ("fpn", "concat")], ids=" x ".join)
def model(request):
    pyramid, head = request.param
    return made(**PYRAMIDS[pyramid], head=head).eval()


@pytest.mark.parametrize("size", SIZES)
def test_logits_have_the_size_of_the_input_and_boxes_lie_inside(model, size):
    with torch.inference_mode():
        found = model(images(model, *size))
    assert isinstance(found, PanopticOutput)
    assert tuple(found.semantic.shape) == (2, 4, *size)
    boxes = found.regions.detections.boxes
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([size[1], size[0]] * 2)).all()
    assert found.regions.masks.shape[2] == 2


def test_every_parameter_gets_a_gradient(model):
    trained = copy.deepcopy(model).train()
    found = trained(images(trained, 64, 64))
    tables = [found.semantic, found.regions.masks, *found.regions.rois.values()]
    tables += [table for level in found.regions.dense for table in level.values()]
    sum(table.square().mean() for table in tables).backward()
    dead = [name for name, p in trained.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not dead


def test_a_batch_of_one_equals_its_place_in_a_larger_batch(model):
    x = images(model, 40, 24, batch=3)
    with torch.inference_mode():
        one, three = model(x[1:2]), model(x)
        close(three.semantic[1:2], one.semantic)
        count = int(one.regions.detections.counts[0])
        assert count == int(three.regions.detections.counts[1])
        close(three.regions.detections.boxes[1, :count], one.regions.detections.boxes[0, :count])


def test_copies_and_pickles_compute_the_same():
    model = made().eval()
    x = images(model, 40, 33, batch=1)
    with torch.inference_mode():
        expected = model(x)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            found = other(x)
            assert torch.equal(found.semantic, expected.semantic)
            assert torch.equal(found.regions.masks, expected.regions.masks)


@torch.inference_mode()
def test_the_branches_are_those_of_the_two_tasks_alone():
    model, instance = made().eval(), made("instance").eval()
    tensors = model.state_dict()
    shared = {name: value for name, value in tensors.items() if not name.startswith("head.")}
    own = {name.replace("head.regions.", "head."): value for name, value in tensors.items()}
    instance.load_state_dict({name: value for name, value in own.items() if not name.startswith("head.semantic.")})
    x = images(model, 50, 70)
    found, alone = model(x), instance(x)
    assert torch.equal(found.regions.detections.boxes, alone.detections.boxes)
    assert torch.equal(found.regions.masks, alone.masks)
    semantic = made("semantic", num_classes=4, head_options={}).eval()
    own = {name.replace("pyramid.pyramid.", "pyramid."): value for name, value in shared.items()}
    branch = "head.semantic.logits."
    own |= {name.replace(branch, "head."): value for name, value in tensors.items() if name.startswith(branch)}
    semantic.load_state_dict(own)
    close(found.semantic, semantic(x), share=1e-5)


def test_the_semantic_branch_does_not_read_p6():
    model = made().eval()
    maps = model[:-1](images(model, 64, 64, batch=1))
    changed = (*maps[:4], torch.full_like(maps[4], torch.nan))
    sizes = torch.tensor([[64, 64]])
    hints = {"frame": (64, 64), "sizes": sizes}
    with torch.inference_mode():
        one, other = (model.head.semantic(given) for given in (maps, changed))
        assert torch.equal(one, other)
        assert model.head(maps, regions=hints)["regions"].masks is not None


@torch.inference_mode()
def test_it_has_a_graph_of_one_size():
    model = made().eval()
    x = images(model, 65, 96, batch=1)
    found, wanted = graph(model, 3, batch=1, size=(65, 96)).module(check_guards=False)(x), model(x)
    close(found.semantic, wanted.semantic)
    count = int(wanted.regions.detections.counts)
    assert int(found.regions.detections.counts) == count > 0
    close(found.regions.detections.boxes[:, :count], wanted.regions.detections.boxes[:, :count])
    close(found.regions.masks[:, :count], wanted.regions.masks[:, :count])


def test_it_prints_as_figure_1():
    text = str(made())
    assert [name for name, _ in made().named_children()] == ["backbone", "pyramid", "head"]
    for line in ("PanopticNet(", "(head): Fork(", "(semantic): Chain(", "(finer): Pick((0, 1, 2, 3))",
                 "(regions): RegionHead("):  # fmt: skip
        assert line in text


@pytest.mark.parametrize(("classes", "outputs"), [("stuff", 4), ("all", 5)])
def test_the_semantic_branch_has_one_class_for_things_or_each(classes, outputs):
    assert made(semantic_classes=classes, things=["a", "b"]).head.semantic.logits.num_classes == outputs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"things": None}, "things: nothing; expected the number of such classes, or their names"),
        ({"stuff": None}, "stuff: nothing; expected"),
        ({"things": 0}, '"semantic" does without things'),
        ({"stuff": []}, '"instance" does without stuff'),
        ({"things": 200, "stuff": 56}, "200 things and 56 stuff; expected at most 255 classes"),
        ({"num_classes": 4}, "num_classes: 4; things and stuff say it"),
        ({"head": "finest"}, r"head: .finest.; expected sum \| concat"),
        ({"head": "two-stage"}, r"head: .two-stage.; expected sum \| concat"),
        ({"semantic_classes": "al"}, r'semantic_classes: "al"; expected stuff \| all'),
        ({"head_options": {"hidden": 16}}, r"head_options.hidden: no such branch; expected semantic \| regions"),
        ({"head_options": {"region": {}}}, 'did you mean "regions"'),
        ({"head_options": {"regions": 3}}, "head_options.regions: 3; expected a table"),
        ({"head_options": {"regions": {"hiddn": 3}}}, "head_options.regions.hiddn: two-stage has no such option"),
        ({"head_options": {"semantic": {"merge": 3}}}, "head_options.semantic.merge: 3"),
        ({"task": "semantic", "num_classes": 2, "things": 2}, 'things: 2 of semantic; expected none: it is of task "p'),
        ({"task": "instance", "semantic_classes": "all"}, "semantic_classes: all of instance"),
        ({"task": "semantic", "num_classes": None}, "num_classes: nothing; expected a whole number"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        made(**options)
    assert "\n" not in str(caught.value)


def test_num_classes_that_agrees_is_taken():
    assert made(num_classes=5).head.semantic.logits.num_classes == 4
