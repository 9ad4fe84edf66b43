"""Deep supervision: what it adds to the loss, what it leaves out of the model, and a training with it that resumes."""

# ruff: noqa: F811 - the fixture `small` is imported

import pytest
import torch
import torch.nn.functional as F

import torchfpn
from passes import at_step, own_signal
from torchfpn import Batch, ConfigError, Level
from torchfpn.criteria.semantic import DeepSupervision, criterion
from torchfpn.evaluation.model import PixelValidation
from torchfpn.recipe import IGNORE
from train.fixtures import small  # noqa: F401
from train.tiny import checkpoint, rows, same_training, train

LEVELS, CLASSES = (Level(6, 4), Level(6, 8), Level(6, 16)), 3


def deep(spec="ce", factor=0.4, **options):
    torch.manual_seed(0)
    made = DeepSupervision(criterion(spec, **options), LEVELS, CLASSES, factor=factor)
    for conv in made.classify:
        torch.nn.init.normal_(conv.weight)
        torch.nn.init.normal_(conv.bias)
    return made


def test_a_pyramid_that_declares_no_levels_is_refused():
    body = torchfpn.backbone("test_resnet")
    pyramid = torchfpn.FPN(body.levels, 8)
    head = torchfpn.SemanticHead(pyramid.levels, 2, 8)
    silent = torch.nn.Sequential(pyramid)  # computes the same and declares nothing
    with pytest.raises(ConfigError, match="pyramid: Sequential declares no levels"):
        torchfpn.create_task(backbone=body, pyramid=silent, head=head, num_classes=2, deep_supervision=0.4)


def values(height=29, width=45):
    """Logits and targets of an image, and maps of the image padded to multiples of 16."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, CLASSES, height, width, generator=generator)
    targets = torch.randint(0, CLASSES, (2, height, width), generator=generator)
    targets[:, :3] = IGNORE
    padded = [-(-side // 16) * 16 for side in (height, width)]
    maps = tuple(torch.randn(2, c, padded[0] // s, padded[1] // s, generator=generator) for c, s in LEVELS)
    return logits, targets, maps


def task(**options):
    torch.manual_seed(0)
    options = {"backbone": "test_resnet", "classes": ["land", "water"], "channels": 8, "head_channels": 8} | options
    return torchfpn.create_task("semantic", **options)


@pytest.mark.parametrize("factor", [0.4, 1.0])
def test_it_adds_the_mean_over_levels_of_the_same_loss(factor):
    made = deep("ce + 0.5*dice", factor)
    logits, targets, maps = values()
    losses = made(logits, targets, maps)
    by_hand = []
    for conv, x, (_, stride) in zip(made.classify, maps, LEVELS, strict=True):
        coarse = torch.einsum("kc,bchw->bkhw", conv.weight[..., 0, 0], x) + conv.bias[:, None, None]
        size = [stride * side for side in x.shape[-2:]]
        fine = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)[..., :29, :45]
        ce = F.cross_entropy(fine, targets, ignore_index=IGNORE)
        by_hand.append(ce + criterion("0.5*dice")(fine, targets)["dice"])
    torch.testing.assert_close(losses["deep"], factor * sum(by_hand) / 3)
    assert list(losses) == ["ce", "dice", "deep"]
    torch.testing.assert_close(losses["ce"], F.cross_entropy(logits, targets, ignore_index=IGNORE))


def test_without_maps_it_is_the_criterion_alone():
    logits, targets, _ = values()
    losses, expected = deep()(logits, targets), criterion("ce")(logits, targets)
    assert losses.keys() == expected.keys() == {"ce"}
    assert torch.equal(losses["ce"], expected["ce"])


def test_unlabelled_pixels_change_nothing():
    made, (logits, targets, maps) = deep(), values()
    far = tuple(x.clone() for x in maps)
    far[0][..., 0, :] = 100  # rows 0..3; rows 0..2 are unlabelled, and row 3 sees them
    near = targets.clone()
    near[:, :6] = IGNORE
    assert torch.equal(made(logits, near, maps)["deep"], made(logits, near, far)["deep"])
    assert not torch.equal(made(logits, targets, maps)["deep"], made(logits, targets, far)["deep"])


def test_gradients_reach_the_classifiers_and_every_map():
    made, (logits, targets, maps) = deep(), values()
    maps = [x.requires_grad_() for x in maps]
    made(logits, targets, tuple(maps))["deep"].backward()
    assert all(p.grad.abs().sum() > 0 for p in made.parameters())
    assert all(x.grad.abs().sum() > 0 for x in maps)
    assert len(list(made.parameters())) == 2 * len(LEVELS)


@pytest.mark.parametrize("factor", [-0.1, float("nan"), float("inf")])
def test_a_factor_that_cannot_be_is_refused(factor):
    with pytest.raises(ConfigError, match=r"deep_supervision: .*; expected a number above 0"):
        task(deep_supervision=factor)


def test_class_weights_and_smoothing_count_on_every_level():
    logits, targets, maps = values()
    options = {"class_weights": [1.0, 0.1, 5.0], "label_smoothing": 0.1}
    weighted = deep("ce", **options)
    total = 0
    for conv, x, (_, stride) in zip(weighted.classify, maps, LEVELS, strict=True):
        fine = F.interpolate(conv(x), scale_factor=stride, mode="bilinear")[..., :29, :45]
        total = total + criterion("ce", **options)(fine, targets)["ce"]
    torch.testing.assert_close(weighted(logits, targets, maps)["deep"], 0.4 * total / 3)


@pytest.mark.parametrize(
    "options",
    [{}, {"pyramid": "panet"}, {"extra": "pool"}, {"head": "finest"}, {"output_stride": 8}, {"head": "concat"}],
)
def test_a_task_gives_it_beside_its_other_losses(options):
    made = task(deep_supervision=0.4, **options).train()
    batch = Batch(torch.rand(2, 3, 33, 50), [(33, 50)] * 2, torch.randint(0, 2, (2, 33, 50)))
    losses = made.losses(batch)
    assert list(losses) == ["ce", "deep"]
    sum(losses.values()).backward()
    assert len(made.criterion.classify) == len(made.model.pyramid.levels)
    assert all(p.grad.abs().sum() > 0 for p in made.criterion.parameters())


def test_the_answer_and_its_loss_are_those_without_it():
    plain, supervised = task().eval(), task(deep_supervision=0.4).eval()
    raw = torch.rand(1, 3, 33, 50)
    batch = Batch(raw, [(33, 50)], torch.randint(0, 2, (1, 33, 50)))
    assert torch.equal(plain.logits(raw), supervised.logits(raw))
    assert torch.equal(plain.losses(batch)["ce"], supervised.losses(batch)["ce"])


def test_a_validation_scores_the_answer_alone():
    made = task(deep_supervision=0.4).eval()
    batch = Batch(torch.rand(2, 3, 33, 50), [(33, 50)] * 2, torch.randint(0, 2, (2, 33, 50)))
    found = PixelValidation(made)
    with torch.inference_mode():
        found.step(batch)
        expected = F.cross_entropy(made.logits(batch.images), batch.targets)
    assert found.row()["val/loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_a_saved_model_has_no_trace_of_it(tmp_path):
    plain, supervised = task(), task(deep_supervision=0.4)
    plain.save(tmp_path / "plain.safetensors")
    supervised.save(tmp_path / "deep.safetensors")
    assert (tmp_path / "plain.safetensors").read_bytes() == (tmp_path / "deep.safetensors").read_bytes()
    again = torchfpn.load(tmp_path / "deep.safetensors")
    assert not isinstance(again.criterion, DeepSupervision)
    raw = torch.rand(1, 3, 33, 50)
    assert torch.equal(again.predict(raw)[0].scores, supervised.predict(raw)[0].scores)


def test_a_training_with_it_is_stopped_and_resumed_to_the_same_bits(small):
    flags = ("--loss.deep_supervision", "0.4")
    assert train(*flags, "--name", "whole") == 0
    whole, run = small / "runs" / "whole", small / "runs" / "small"
    with at_step(4, own_signal()):
        assert train(*flags) == 143
    assert train(*flags, "--resume") == 0
    one, other = rows(whole), rows(run)
    assert one == other
    for row in one:
        total = float(row["train/loss_ce"]) + float(row["train/loss_deep"])
        assert float(row["train/loss"]) == pytest.approx(total, rel=1e-6)
        assert float(row["train/loss_deep"]) > 0
    assert same_training(whole, run) == []
    learnt = checkpoint(run)["state_dict"]["task.criterion.classify.0.bias"]
    assert learnt.abs().sum() > 0  # it began at zero
    assert not any("criterion" in name for name in torchfpn.load(run / "model.safetensors").model.state_dict())


@pytest.mark.parametrize(("before", "after"), [("0.4", "0"), ("0", "0.4")])
def test_resuming_with_and_without_it_is_told_in_one_line(small, capsys, before, after):
    assert train("--max_epochs", "1", "--loss.deep_supervision", before) == 0
    capsys.readouterr()
    assert train("--resume", "--max_epochs", "2", "--loss.deep_supervision", after) == 2
    told = capsys.readouterr().err
    words = "without" if before == "0" else "with"
    assert (
        f"last.ckpt: loss.deep_supervision: a training {words} deep supervision; expected the same on resuming" in told
    )
    assert "Traceback" not in told
    assert told.count("\n") <= 2
