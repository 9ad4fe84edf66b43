"""detectron2's Faster R-CNN, Mask R-CNN and Panoptic FPN, taken over.

Its stages against what the original computed (../shared/parity), the whole of it, from file to answer, against an
oracle that computes the same stages, and the ways in which its files differ.
"""

import json
import pickle
import re
from copy import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

import torchfpn
from importers.detectron2_oracle import Oracle, noisy
from importers.fixtures import Fixture
from importers.photographs import PHOTO, refused_in_16_bits, same_as_python
from shared import DATA, needs_shared
from torchfpn.cli.main import main
from torchfpn.errors import ConfigError, WeightsError
from torchfpn.importers.coco import STUFF, THINGS
from torchfpn.importers.convert import converted
from torchfpn.ops.resize import is_8_bit, resize_8_bit, rounded_size
from torchfpn.recipe import IGNORE, Scaling

CASES = ["faster_rcnn_R_50_FPN", "mask_rcnn_R_50_FPN", "panoptic_fpn_R_50"]
EQUAL = 1e-4  # of the largest value, as ../shared/parity/README.md has it; what is found is near 4e-6
SMALL = {"shorter": 64, "longer": 96}


def raw(fixture):
    """The input of a fixture [3, H, W], blue, green, red."""
    return torch.from_numpy((np.random.RandomState(3).random_sample((3, 96, 128)) * 255).astype(np.float32))


@needs_shared
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_every_stage_is_what_the_original_computed(case):
    fixture = Fixture(f"detectron2/{case}")
    made = converted(fixture.tensors)
    assert (made.family, made.placed, made.unread) == ("detectron2", len(fixture.parameters), ())
    head = made.model.head
    semantic, head = (head.semantic, head.regions) if "panoptic" in case else (None, head)
    boxes = torch.from_numpy(fixture.stored["boxes"]).reshape(1, 6, 4)
    images, _ = made.made.normalize(raw(fixture).flip(0)[None])
    maps = made.model[:-1](images)
    rois = head.box(head.pool(maps, boxes))
    found = {f"p{i + 2}": x for i, x in enumerate(maps)}
    found |= {f"rpn_logits{i}": one["scores"] for i, one in enumerate(head.dense(maps))}
    found |= {f"rpn_deltas{i}": one["deltas"] for i, one in enumerate(head.dense(maps))}
    found |= {"boxes": boxes[0], "box_scores": rois["scores"], "box_deltas": rois["deltas"]}
    if semantic is not None:
        found["semantic_logits"] = semantic(maps)
    if case != CASES[0]:
        found["mask_logits"] = head.mask(head.mask_pool(maps, boxes))
    assert found.keys() == fixture.outputs.keys()
    for name, tensor in found.items():
        assert fixture.difference(name, tensor) <= EQUAL, name


@needs_shared
@torch.no_grad()
def test_the_oracle_is_what_the_original_computed():
    fixture = Fixture("detectron2/panoptic_fpn_R_50")
    oracle = Oracle(5, stuff=6).eval()
    oracle.load_state_dict(fixture.tensors)
    boxes = torch.from_numpy(fixture.stored["boxes"]).reshape(6, 4)
    maps = oracle.maps(raw(fixture) - torch.tensor([103.53, 116.28, 123.675])[:, None, None])
    scores, deltas = oracle.rois(maps, boxes)
    found = {f"p{i + 2}": x for i, x in enumerate(maps)}
    found |= {f"rpn_logits{i}": score[None] for i, (score, _) in enumerate(oracle.dense(maps))}
    found |= {f"rpn_deltas{i}": delta[None] for i, (_, delta) in enumerate(oracle.dense(maps))}
    found |= {"box_scores": scores, "box_deltas": deltas, "mask_logits": oracle.mask_logits(maps, boxes)}
    found |= {"semantic_logits": oracle.sem_seg_head(maps)}
    for name, tensor in found.items():
        assert fixture.difference(name, tensor) <= EQUAL, name


@cache
def small(kind="mask"):
    """(an oracle that sees small images, our task of its weights)."""
    more = {"stuff": 4, "sure": 6.0} if kind == "panoptic" else {}
    oracle = noisy(masks=kind != "boxes", **more, **SMALL)
    return oracle, torchfpn.convert(oracle.state_dict())


def same(found, wanted):
    """Instances and an answer of the oracle."""
    assert len(found) == len(wanted["boxes"])
    torch.testing.assert_close(found.boxes, wanted["boxes"], atol=2e-3, rtol=0)
    torch.testing.assert_close(found.scores, wanted["scores"], atol=1e-4, rtol=0)
    assert torch.equal(found.labels, wanted["classes"])
    if wanted["masks"] is None:
        assert found.masks is None
    else:
        shared, either = ((a.sum((1, 2))) for a in (found.masks & wanted["masks"], found.masks | wanted["masks"]))
        assert (shared / either)[either > 0].min() > 0.99
        assert (either > 0).sum() >= 20  # masks that are all empty would agree as well


@pytest.mark.parametrize(("kind", "size"), [("8 bit", (97, 140)), ("float", (50, 200))])
@torch.inference_mode()
def test_the_same_instances_from_file_to_answer(size, kind):
    oracle, task = small()
    assert task.recipe.rules == {"resize": {"shorter": 800, "longer": 1333, "pillow": True}, "masks": "detectron2"}
    image = torch.randint(256, (3, *size), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    image = image if kind == "8 bit" else image.float() + 0.25
    found = predicted(task, image)
    assert len(found) >= 50
    same(found, oracle(image))


@needs_shared
@torch.inference_mode()
def test_a_photograph_gives_the_originals_instances(tmp_path, capsys):
    oracle, task = small("boxes")
    with Image.open(PHOTO) as photo:
        image = torch.from_numpy(np.array(photo.convert("RGB"))).permute(2, 0, 1)
    same(predicted(task, image), oracle(image))
    task = copy(task)
    task.recipe = replace(task.recipe, rules={**task.recipe.rules, "resize": {**SMALL, "pillow": True}})
    same_as_python(task, PHOTO, tmp_path, task.predict([image])[0])
    refused_in_16_bits(PHOTO, tmp_path, capsys)


@torch.inference_mode()
def test_boxes_without_masks_and_the_proposals_before_them():
    oracle, task = small("boxes")
    image = torch.randint(256, (3, 64, 90), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    same(predicted(task, image), oracle(image))
    pixels, size = oracle.shown(image)
    maps = oracle.maps(pixels)
    ours = task.model(task.normalize(image[None])[0]).proposals
    theirs = oracle.proposals(maps, size)
    assert int(ours.counts) == len(theirs) >= 100
    torch.testing.assert_close(ours.boxes[0], theirs, atol=2e-3, rtol=0)


def predicted(task, image):
    """Our answer, with the resizing of the oracle."""
    rules = task.recipe.rules
    before, rules["resize"] = rules["resize"], {**SMALL, "pillow": True}
    try:
        return task.predict([image.float()])[0]
    finally:
        rules["resize"] = before


# -- panoptic ----------------------------------------------------------------------------------------------------------
@torch.inference_mode()
def test_the_same_segments_from_file_to_answer():
    oracle, task = small("panoptic")
    image = torch.randint(256, (3, 197, 240), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    found, wanted = predicted(task, image), oracle(image)
    same(found.instances, wanted)
    labels = wanted["semantic"].argmax(0)
    assert len(labels.unique()) >= 4
    ours = torch.where(found.semantic.labels == IGNORE, 0, found.semantic.labels - 6)
    assert (ours != labels).float().mean() < 1e-3
    segments, infos = wanted["panoptic"]
    assert len([info for info in infos if info[1]]) >= 5
    assert len([info for info in infos if not info[1]]) >= 1
    assert [(s.label - 6 * (not s.isthing), s.isthing) for s in found.segments_info] == [info[:2] for info in infos]
    assert (found.segments != segments).float().mean() < 5e-3


def test_the_zoos_panoptic_models_know_things_and_stuff():
    made = converted(shapes_of(stuff=53))
    assert made.about == "Panoptic FPN on resnet50"
    assert made.recipe.things == tuple(THINGS.values())
    assert made.recipe.classes[80:] == tuple(STUFF.values())
    assert (made.recipe.label_ids[79], made.recipe.label_ids[80], made.recipe.label_ids[132]) == (90, 92, 200)
    assert made.recipe.rules["panoptic"] == {"score": 0.5, "overlap": 0.5, "stuff_area": 4096}
    assert made.recipe.model["norm"] == "group"
    assert made.unread == ()
    assert converted(shapes_of(stuff=53, blocks=(3, 4, 23, 3))).about == "Panoptic FPN on resnet101"
    assert converted(shapes_of(stuff=7)).recipe.classes[79:82] == ("thing79", "stuff0", "stuff1")


@needs_shared
def test_names_are_those_of_the_annotations():
    rows = json.loads((DATA / "coco-panoptic-sample" / "categories.json").read_text())
    assert {row["id"]: row["name"] for row in rows if row["isthing"]} == THINGS
    assert {row["id"]: row["name"] for row in rows if not row["isthing"]} == STUFF


def test_a_semantic_branch_of_other_norms():
    tensors = shapes_of(stuff=3)
    norms = [name for name in tensors if name.startswith("sem_seg_head.") and name.endswith("norm.weight")]
    batch = {name.replace("weight", end): torch.ones(128) for name in norms for end in ("running_mean", "running_var")}
    assert converted(tensors | batch).recipe.model["norm"] == "batch"
    plain = {name: tensor for name, tensor in tensors.items() if "sem_seg_head" not in name or ".norm." not in name}
    plain |= {name.replace("norm.weight", "bias"): torch.zeros(128) for name in norms}
    assert converted(plain).recipe.model["norm"] == "none"


def test_a_panoptic_pickle_of_the_zoo_with_more_bands_gives_the_same_segments(tmp_path, capsys):
    oracle, task = small("panoptic")
    arrays = {name: tensor.numpy() for name, tensor in oracle.state_dict().items()}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps({"model": arrays, "matching_heuristics": True}))
    image = torch.randint(256, (5, 97, 120), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    out = tmp_path / "model.safetensors"
    flags = ["--bands", "red,green,blue,nir,height", "--classes", "a,b,c,d,e,f,g,w,x,y,z"]
    assert main(["convert", str(tmp_path / "model_final.pkl"), str(out), *flags]) == 0
    assert "recognised  detectron2: Panoptic FPN on resnet50" in capsys.readouterr().out
    again = torchfpn.load(out)
    assert (again.things, again.stuff) == (tuple("abcdefg"), tuple("wxyz"))
    one, other = predicted(task, image[:3]), predicted(again, image)
    assert len(one) >= 5
    assert [segment.label for segment in one.segments_info] == [segment.label for segment in other.segments_info]
    assert (one.segments != other.segments).float().mean() < 5e-3


# -- how images are resized --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("size", "seen"),
    [((480, 640), (800, 1067)), ((1200, 1600), (800, 1067)), ((300, 1000), (400, 1333)), ((1000, 300), (1333, 400))],
)
def test_sizes_are_rounded_as_there(size, seen):
    assert rounded_size(size, 800, 1333) == seen


@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)))
def test_of_any_size_the_sides_are_in_bounds_and_in_proportion(size):
    seen = rounded_size(size, 800, 1333)
    assert max(seen) <= 1333
    assert min(seen) <= 800
    assert min(seen) == 800 or max(seen) == 1333
    factor = min(800 / min(size), 1333 / max(size))
    assert all(abs(side - max(1, factor * own)) <= 0.5 + 1e-6 for side, own in zip(seen, size, strict=True))


# -- how its files differ ----------------------------------------------------------------------------------------------
def shapes_of(**options):
    """The state_dict of a network of the kind, all zero, by shapes alone."""
    with torch.device("meta"):
        tensors = Oracle(80, **options).state_dict()
    return {name: torch.zeros(tensor.shape) for name, tensor in tensors.items()}


def test_the_zoos_models_know_their_classes():
    made = converted(shapes_of())
    assert made.recipe.classes[:3] == ("person", "bicycle", "car")
    assert made.recipe.label_ids[-1] == 90
    assert made.recipe.scaling == Scaling((123.675, 116.28, 103.53), (1.0, 1.0, 1.0), "of detectron2")
    assert made.recipe.model["backbone_options"] == {"stride_in_1x1": True}
    assert made.about == "Mask R-CNN on resnet50"
    names = FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
    assert tuple(name for name in names[1:] if name != "N/A") == made.recipe.classes
    assert all(names[number] == name for number, name in THINGS.items())


def test_a_deeper_one():
    assert converted(shapes_of(blocks=(3, 4, 23, 3), masks=False)).about == "Faster R-CNN on resnet101"


def on_another(network):
    """The same on another network of torchvision's, under detectron2's names, by shapes alone."""
    with torch.device("meta"):
        body = getattr(torchvision.models, network)().state_dict()
    tensors = {name: value for name, value in shapes_of(masks=False).items() if "bottom_up" not in name}
    for name, value in body.items():
        if name.startswith("fc.") or name.endswith("num_batches_tracked"):
            continue
        stage = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
        stage = stage if stage.startswith("res") else f"stem.{stage}"
        stage = re.sub(r"\bbn(\d)", r"conv\1.norm", stage).replace("downsample.0", "shortcut")
        tensors["backbone.bottom_up." + stage.replace("downsample.1", "shortcut.norm")] = torch.zeros(value.shape)
    for i in (2, 3, 4, 5):
        width = [value.shape[0] for name, value in body.items() if re.match(rf"layer{i - 1}.*conv\d\.weight", name)][-1]
        tensors[f"backbone.fpn_lateral{i}.weight"] = torch.zeros(256, width, 1, 1)
    return tensors


@pytest.mark.parametrize(
    ("network", "scale"),
    [
        ("resnet18", 1.0),
        ("resnext101_32x8d", 58.395),
        pytest.param("resnet34", 1.0, marks=pytest.mark.slow),
        pytest.param("resnet152", 1.0, marks=pytest.mark.slow),
    ],
)
def test_other_networks_and_where_they_halve(network, scale):
    made = converted(on_another(network))
    assert made.about == f"Faster R-CNN on {network}"
    assert made.recipe.scaling.scale[0] == scale
    assert made.recipe.scaling.offset == (123.675, 116.28, 103.53)
    assert ("backbone_options" in made.recipe.model) == (network == "resnet152")
    assert "trained on blue, green, red" in made.notes[0]


def test_batch_norm_everywhere():
    """As in its baselines of 2021, with two convolutions before the proposals and four before the boxes."""

    def norm(width):
        ends = ("weight", "bias", "running_mean", "running_var")
        return {f"norm.{end}": torch.ones(width) for end in ends} | {"norm.num_batches_tracked": torch.tensor(0)}

    left = re.compile(r"roi_heads\.(box_head|mask_head\.mask_fcn)|backbone\.fpn_|proposal_generator\.rpn_head\.conv\.")
    tensors = {name: value for name, value in shapes_of().items() if not left.match(name)}
    tensors |= {f"backbone.bottom_up.stem.conv1.{end}": value for end, value in norm(64).items()}
    layers = {f"roi_heads.box_head.conv{k}.": (256, 3) for k in (1, 2, 3, 4)}
    layers |= {f"roi_heads.mask_head.mask_fcn{k}.": (256, 3) for k in (1, 2, 3, 4)}
    layers |= {f"backbone.fpn_lateral{k}.": (64 * 2**k, 1) for k in (2, 3, 4, 5)}
    layers |= {f"backbone.fpn_output{k}.": (256, 3) for k in (2, 3, 4, 5)}
    for prefix, (inputs, kernel) in layers.items():
        tensors[prefix + "weight"] = torch.zeros(256, inputs, kernel, kernel)
        tensors |= {prefix + end: value for end, value in norm(256).items()}
    for k in (0, 1):
        tensors[f"proposal_generator.rpn_head.conv.conv{k}.weight"] = torch.zeros(256, 256, 3, 3)
        tensors[f"proposal_generator.rpn_head.conv.conv{k}.bias"] = torch.zeros(256)
    tensors["roi_heads.box_head.fc1.weight"] = torch.zeros(1024, 256 * 49)
    tensors["roi_heads.box_head.fc1.bias"] = torch.zeros(1024)
    made = converted(tensors)
    assert (made.placed, made.unread) == (len(tensors), ())
    assert made.notes[0].startswith("torchvision: trained on red, green, blue, a deviation, stride in the 3x3")


def test_norms_that_learn_behind_frozen_stages_are_no_caffe():
    """NORM="BN" with FREEZE_AT=2: the stem and the first stage hold no counters, the others do."""
    tensors = shapes_of()
    counters = {
        name.removesuffix("weight") + "num_batches_tracked": torch.tensor(0)
        for name in tensors
        if re.match(r"backbone\.bottom_up\.res[345]\..*norm\.weight", name)
    }
    assert counters
    assert converted(tensors).notes[0].startswith("caffe: ")
    assert converted(tensors | counters).notes[0].startswith("torchvision: trained on red, green, blue, a deviation")


@torch.inference_mode()
def test_a_resnet_of_torchvision_has_its_strides_and_colours_in_another_place():
    torch.manual_seed(0)
    oracle = Oracle(3, masks=False, caffe=False).eval()
    task = torchfpn.convert(oracle.state_dict(), variant="torchvision")
    assert task.recipe.scaling.scale == (58.395, 57.12, 57.375)
    images = torch.rand(1, 3, 64, 96)
    for ours, theirs in zip(task.model[:-1](images), oracle.backbone(images), strict=True):
        torch.testing.assert_close(ours, theirs, atol=float(1e-5 * theirs.abs().max()), rtol=0)


@pytest.mark.parametrize(
    ("mean", "std", "offset", "strided"),
    [
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), (123.675, 116.28, 103.53), False),
        ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395), (123.675, 116.28, 103.53), False),
        ((10.0, 20.0, 30.0), (1.0, 1.0, 1.0), (30.0, 20.0, 10.0), True),
    ],
)
def test_old_files_tell_their_mean_and_deviation(mean, std, offset, strided):
    tensors = shapes_of(masks=False)
    stem = tensors["backbone.bottom_up.stem.conv1.weight"]
    stem[:, 0] = 7.0
    tensors |= {"pixel_mean": torch.tensor(mean)[:, None, None], "pixel_std": torch.tensor(std)[:, None, None]}
    made = converted(tensors)
    assert made.unread == ("pixel_mean", "pixel_std")
    assert made.recipe.scaling.offset == offset
    assert made.recipe.scaling.scale == (std if mean[0] > mean[2] else std[::-1])
    assert ("backbone_options" in made.recipe.model) == strided
    first = made.model.get_parameter("backbone.stages.c1.conv.weight")
    assert torch.equal(first[:, 0 if mean[0] > mean[2] else 2], stem[:, 0])


def test_batch_norm_that_was_folded_has_no_statistics_in_old_files():
    tensors = small("boxes")[0].state_dict()
    folded = {name: value for name, value in tensors.items() if ".running_" not in name}
    model = torchfpn.convert(folded).model
    assert float(model.get_buffer("backbone.stages.c2.blocks.0.bn1.running_var").min()) == 1.0
    assert float(model.get_buffer("backbone.stages.c5.2.bn3.running_mean").abs().max()) == 0.0


def cells(sizes, ratios):
    """cell_anchors as old files hold them."""
    sides = [[(size * ratio**-0.5, size * ratio**0.5) for size in own for ratio in ratios] for own in sizes]
    rows = [torch.tensor([(-w / 2, -h / 2, w / 2, h / 2) for w, h in own]) for own in sides]
    return {f"proposal_generator.anchor_generator.cell_anchors.{i}": own for i, own in enumerate(rows)}


def test_old_files_tell_their_anchors():
    usual = [[32 * 2**i] for i in range(5)]
    tensors = shapes_of(masks=False)
    assert converted(tensors | cells(usual, (0.5, 1.0, 2.0))).recipe.model == converted(tensors).recipe.model
    smaller = [[16 * 2**i] for i in range(5)]
    made = converted(tensors | cells(smaller, (0.5, 1.0, 3.0)))
    theirs = cells(smaller, (0.5, 1.0, 3.0))
    for i, own in enumerate(theirs.values()):
        torch.testing.assert_close(made.model.head.propose.get_buffer(f"cell{i}"), own, atol=1e-2, rtol=0)
    with pytest.raises(
        WeightsError, match=r"cell_anchors.0: several anchor sizes; expected one size and the same ratios"
    ):
        converted(tensors | cells([[32, 64]] * 5, (0.5, 1.0, 2.0)))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("roi_heads.box_head.0.fc1.weight", "Cascade R-CNN"),
        ("sem_seg_head.predictor.weight", "Panoptic FPN without masks"),
        ("backbone.bottom_up.res5.0.conv2_offset.weight", "deformable convolutions"),
        ("backbone.fpn_lateral2.norm.weight", "group norm"),
    ],
)
def test_what_is_not_taken_over_is_named(name, told):
    with pytest.raises(WeightsError, match=f"{told} of detectron2; expected Faster R-CNN, Mask R-CNN and Panoptic"):
        converted(shapes_of(masks=False) | {name: torch.zeros(4)})


def test_a_semantic_branch_alone_is_named():
    tensors = {name: value for name, value in shapes_of(stuff=3).items() if "roi_heads" not in name}
    with pytest.raises(WeightsError, match="Semantic FPN of detectron2; expected"):
        converted(tensors)


def test_variants_that_there_are_not():
    with pytest.raises(
        ConfigError, match=r'variant: "cafe"; expected detectron2 has caffe \| torchvision; did you mean "caffe"'
    ):
        torchfpn.convert(shapes_of(masks=False), variant="cafe")


# -- more bands --------------------------------------------------------------------------------------------------------
@torch.inference_mode()
def test_added_bands_change_nothing():
    oracle, task = small()
    wide = torchfpn.convert(oracle.state_dict(), bands=["red", "green", "blue", "nir", "height"])
    assert wide.recipe.bands[3:] == ("nir", "height")
    image = torch.randint(256, (5, 70, 80), dtype=torch.uint8)
    one, other = predicted(task, image[:3]), predicted(wide, image)
    assert len(one) >= 50
    torch.testing.assert_close(one.boxes, other.boxes, atol=2e-3, rtol=0)  # sums of five bands round otherwise
    torch.testing.assert_close(one.scores, other.scores, atol=1e-5, rtol=0)
    assert torch.equal(one.labels, other.labels)
    assert (one.masks != other.masks).float().mean() < 1e-4


# -- the zoo's files ---------------------------------------------------------------------------------------------------
def test_a_pickle_of_the_zoo_by_the_command(tmp_path, capsys):
    oracle, task = small()
    arrays = {name: tensor.numpy() for name, tensor in oracle.state_dict().items()}
    zoo = {"model": arrays, "__author__": "made here", "matching_heuristics": True}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(zoo))
    out = tmp_path / "model.safetensors"
    assert main(["convert", str(tmp_path / "model_final.pkl"), str(out)]) == 0
    told = capsys.readouterr().out
    assert "recognised  detectron2: Mask R-CNN on resnet50" in told
    assert f"{len(arrays)} placed, none missing" in told
    assert "caffe: trained on blue, green, red, no deviation, stride in the 1x1; the file does not say" in told
    again = torchfpn.load(out)
    assert again.recipe.rules == task.recipe.rules
    image = torch.randint(256, (3, 60, 70), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    one, other = predicted(task, image), predicted(again, image)
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.scores, other.scores)
    assert torch.equal(one.masks, other.masks)


def test_a_checkpoint_of_ones_own_training_by_the_command(tmp_path, capsys):
    tensors = small("boxes")[0].state_dict()
    torch.save({"model": tensors, "optimizer": {"state": {}}, "iteration": 9}, tmp_path / "model_final.pth")
    out = tmp_path / "model.safetensors"
    flags = ["--variant", "torchvision", "--bands", "4", "--classes", "a,b,c,d,e,f,g"]
    assert main(["convert", str(tmp_path / "model_final.pth"), str(out), *flags]) == 0
    assert "torchvision: trained on red, green, blue, a deviation, stride in the 3x3" in capsys.readouterr().out
    task = torchfpn.load(out)
    assert task.recipe.bands == ("red", "green", "blue", "band3")
    assert task.recipe.scaling.scale == (58.395, 57.12, 57.375, 1.0)
    assert task.classes == tuple("abcdefg")
    assert task.model.get_submodule("backbone.stages.c3.0").conv1.stride == (1, 1)


def test_photographs_are_resized_to_the_bit_as_pillow_does():
    pixels = np.random.RandomState(0).randint(0, 256, (100, 150, 3), dtype=np.uint8)
    for size in ((64, 96), (123, 200)):
        wanted = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
        found = resize_8_bit(torch.from_numpy(pixels).permute(2, 0, 1).float(), size)
        assert np.array_equal(found.permute(1, 2, 0).numpy(), wanted)


@pytest.mark.parametrize(
    ("values", "is_so"),
    [([0.0, 255.0], True), ([0.5], False), ([256.0], False), ([-1.0], False), ([float("nan")], False)],
)
def test_what_is_a_photograph(values, is_so):
    assert is_8_bit(torch.tensor(values)) == is_so


def test_anchors_of_files_that_do_not_hold_them_are_said_or_given():
    tensors = small("boxes")[0].state_dict()
    assert any("assumed: sizes 32, 64, 128, 256, 512, ratios 0.5, 1, 2" in note for note in converted(tensors).notes)
    own = converted(tensors, anchors=([8, 16, 32, 64, 128], [0.3, 1, 3]))
    options = own.recipe.model["head_options"]
    assert options["anchor_sizes"] == [[8.0], [16.0], [32.0], [64.0], [128.0]]
    assert options["anchor_ratios"] == [0.3, 1.0, 3.0]
    assert not any("anchors" in note for note in own.notes)
    for wrong, told in (([[8, 16]], "3 at each place of 5"), (([[8, 16, 32]] * 5, [1]), "one size on every level")):
        with pytest.raises(ConfigError, match=told):
            converted(tensors, anchors=wrong)
