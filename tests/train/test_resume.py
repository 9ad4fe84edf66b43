"""A training stopped by a signal and resumed is, to the last bit, the one that nobody stopped."""

import signal
from pathlib import Path

import pytest
import torch
from PIL import Image

import torchfpn
from passes import at_step, at_validation, own_signal
from torchfpn import WeightsError
from torchfpn.train.checkpoints import SCHEMA, STATE, changed_data, check_fit
from train.tiny import checkpoint, rows, same_training, train


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The run folder of a training that nobody stopped."""
    from train.tiny import SETTINGS, make_data

    folder = tmp_path_factory.mktemp("undisturbed")
    make_data(folder / "data")
    (folder / "small.yaml").write_text(SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train() == 0
    return folder / "runs" / "small"


STOPS = [(at_step, 0), (at_step, 2), (at_validation, 1)]  # at first, behind an epoch's last step, before its last image
MORE_STOPS = [pytest.param(at_step, 4, marks=pytest.mark.slow), pytest.param(at_validation, 2, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("kind", "call"), [*STOPS, *MORE_STOPS])
def test_stopped_at_any_step_and_resumed(small, undisturbed, kind, call):
    with kind(call, own_signal()):
        assert train() == 143
    run = small / "runs" / "small"
    steps_done = call + 1 if kind is at_step else 3 * (1 + call // 2)
    assert checkpoint(run)["torchfpn"]["position"]["step"] == steps_done
    assert not (run / "model.safetensors").exists()
    assert train("--resume") == 0
    assert same_training(undisturbed, run) == []


def test_stopped_twice_with_a_loader_process(small, undisturbed):
    for call in (1, 2):
        with at_step(call, own_signal(signal.SIGINT)):
            assert train("--resume", "--num_workers", "1") == 130
    assert callable(signal.getsignal(signal.SIGCHLD))  # the next training hears of a loader process that dies
    assert train("--resume", "runs/small") == 0
    assert same_training(undisturbed, small / "runs" / "small") == []


def test_resuming_what_is_finished_only_finishes_again(small, undisturbed):
    assert train() == 0
    run = small / "runs" / "small"
    for name in ("model.safetensors", "validation.json", "metrics.csv"):
        (run / name).unlink()
    assert train("--resume") == 0
    assert same_training(undisturbed, run) == []
    assert [p.name for p in (small / "runs").iterdir()] == ["small"]


def test_resume_without_a_run_begins_one(small, undisturbed):
    assert train("--resume") == 0
    assert same_training(undisturbed, small / "runs" / "small") == []


def test_more_epochs_go_on_from_the_end(small):
    assert train("--max_epochs", "1") == 0
    assert train("--resume", "--max_epochs", "2") == 0
    assert checkpoint(small / "runs" / "small")["torchfpn"]["position"]["epoch"] == 2


def test_the_moment_the_signal_came_is_told(small, capsys):
    with at_step(1, own_signal(signal.SIGINT)):
        assert train() == 130
    told = capsys.readouterr().err
    assert "finishing the step, then saving" in told
    assert "stopped by SIGINT; the state is saved, continue with --resume" in told


def test_the_averages_are_not_left_in_the_weights(small):
    """Stopped in the middle of a validation, when the averages stand in for the weights."""
    with at_validation(0, own_signal()):
        assert train() == 143
    state = checkpoint(small / "runs" / "small")
    name = "head.classify.weight"
    assert not torch.equal(state["state_dict"][f"task.model.{name}"], state["torchfpn"]["ema"]["averages"][name])
    assert train("--resume", "--ema", "0") == 0


FUSED = {"fusion": "fusenet", "in_channels": 5}


def fit(before, after):
    """Checks a checkpoint of a training of one model against another model's training."""
    common = {"backbone": "test_resnet", "num_classes": 2, "channels": 8, "head_channels": 8}
    old, new = (torchfpn.create_task(**{**common, **options}) for options in (before, after))
    state = {f"task.model.{name}": tensor for name, tensor in old.model.state_dict().items()}
    checkpoint = {"state_dict": state, STATE: {"schema": SCHEMA, "recipe": old.recipe.to_json()}}
    check_fit(checkpoint, new, Path("last.ckpt"))


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, {"align_corners": True}, "align_corners: False; expected that of the config: True"),
        (
            {"head": "concat"},
            {"head": "concat", "output_stride": 8},
            "output_stride: 32; expected that of the config: 8",
        ),
        (
            {"head": "concat"},
            {"head": "concat", "head_options": {"mode": "nearest"}},
            "head_options: None; expected that of the config: {'mode': 'nearest'}",
        ),
        (FUSED, {**FUSED, "points": [1, 5]}, "points: [1, 2, 3, 4, 5]; expected that of the config: [1, 5]"),
        (FUSED, {**FUSED, "rgb": [2, 1, 0]}, "rgb: [0, 1, 2]; expected that of the config: [2, 1, 0]"),
    ],
)
def test_another_architecture_of_the_same_tensors_is_refused(before, after, told):
    with pytest.raises(WeightsError) as caught:
        fit(before, after)
    assert str(caught.value) == f"last.ckpt: {told}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"align_corners": False, "strides": (4, 8, 16, 32), "head_options": {}, "backbone_options": None}),
        ({}, {"dropout": 0.3}),
        (FUSED, {**FUSED, "points": [5, 4, 3, 2, 1]}),
        ({**FUSED, "points": [1, 5]}, {**FUSED, "points": (5, 1, 1)}),
    ],
)
def test_the_same_architecture_said_otherwise_is_taken(before, after):
    fit(before, after)


@pytest.mark.parametrize("nodata", [None, float("nan"), 0.0])
def test_a_detector_that_is_as_before_is_not_said_to_differ(nodata):
    rules = {"tiles": "{z}/{x}/{y}", "resize": {"shorter": 64, "longer": None, "antialias": True}}
    options = {"backbone": "test_resnet", "num_classes": 1, "channels": 8, "nodata": nodata}
    before, after = (torchfpn.create_task("detection", rules=one, **options) for one in (rules, {**rules, "tiles": ""}))
    state = {STATE: {"recipe": before.recipe.to_json()}}
    assert changed_data(state, before) == []
    assert [line.partition(":")[0] for line in changed_data(state, after)] == ["rules"]


def lines_about(told, words):
    return [line for line in told.splitlines() if words in line]


def test_settings_that_differ_are_said(small, capsys):
    assert train("--max_epochs", "1") == 0
    capsys.readouterr()
    more = ("--lr", "0.01", "--loss.terms", "focal", "--data.noise", "0", "--num_workers", "0")
    assert train("--resume", "--max_epochs", "2", *more) == 0
    (line,) = lines_about(capsys.readouterr().err, "not as before")
    assert line.split(": not as before: ")[1] == (
        "max_epochs: 2, was 1; lr: 0.01, was 0.001; data.noise: 0.0, was 0.1; loss.terms: focal, was ce"
    )
    assert train("--resume", "--max_epochs", "2", *more) == 0
    assert lines_about(capsys.readouterr().err, "not as before") == []  # by now it is as before


def test_images_that_were_added_change_neither_scaling_nor_class_weights(small, capsys):
    flags = ("--loss.class_weights", "inverse")
    assert train("--max_epochs", "1", *flags) == 0
    run = small / "runs" / "small"
    before = torchfpn.load(run / "model.safetensors").recipe
    for kind, value in (("images", 255), ("labels", 1)):
        Image.new("RGB" if kind == "images" else "L", (48, 40), (value,) * 3 if kind == "images" else value).save(
            small / "data" / "train" / kind / "new.png"
        )
    capsys.readouterr()
    assert train("--resume", "--max_epochs", "2", *flags) == 0
    after = torchfpn.load(run / "model.safetensors").recipe
    assert (after.scaling, after.class_weights) == (before.scaling, before.class_weights)
    assert len(rows(run)) == 2


CHANGES = [  # flags, a line of dataset.yaml, and what is said
    (("--data.scaling", "percentile"), "", "scaling: mean-std; expected that of the config: percentile"),
    ((), "scaling: {offset: [1, 2, 3], scale: [4, 5, 6]}\n", "that of the config: offset [1, 2, 3] and scale [4, 5"),
    (("--data.use_bands", "[1, 2]"), "", "bands: "),
    ((), "classes: [ground, roof, street]\n", "classes: ground, roof, road; expected those of the config: ground, "),
]


def test_what_a_resumed_training_cannot_change_is_refused(small, capsys):
    assert train("--max_epochs", "1") == 0
    run, dataset = small / "runs" / "small", small / "data" / "dataset.yaml"
    kept = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    before = dataset.read_text()
    for flags, yaml, told in CHANGES:
        lines = [line for line in before.splitlines() if line.partition(":")[0] != yaml.partition(":")[0]]
        dataset.write_text(yaml + "\n".join(lines))
        capsys.readouterr()
        assert train("--resume", "--max_epochs", "2", *flags) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert "last.ckpt: " in line
        assert told in line
        assert {path: path.read_bytes() for path in kept} == kept


def test_a_name_that_another_run_begins_with_is_another_training(small, capsys):
    """Only roofs-2018 is there: `--name roofs --resume` begins roofs, and leaves it alone."""
    flags = ("--max_epochs", "1", "--steps_per_epoch", "1")
    assert train("--name", "roofs-2018", *flags) == 0
    before = (small / "runs" / "roofs-2018" / "model.safetensors").read_bytes()
    assert train("--name", "roofs", "--resume", *flags) == 0
    assert 'no run of the name "roofs" yet; starts from the beginning' in capsys.readouterr().err
    assert sorted(path.name for path in (small / "runs").iterdir()) == ["roofs", "roofs-2018"]
    assert (small / "runs" / "roofs-2018" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("there_and_back", [("adamw", "sgd")])
def test_another_optimiser_begins_with_moments_of_its_own(small, capsys, there_and_back):
    before, after = there_and_back
    assert train("--max_epochs", "1", "--optimizer.name", before) == 0
    capsys.readouterr()
    assert train("--resume", "--max_epochs", "2", "--optimizer.name", after) == 0
    (line,) = lines_about(capsys.readouterr().err, "not as before")
    assert f"optimizer.name: {after}, was {before}" in line
    (states,) = checkpoint(small / "runs" / "small")["optimizer_states"]
    assert set(states["state"][0]) == ({"momentum_buffer"} if after == "sgd" else {"step", "exp_avg", "exp_avg_sq"})


def test_with_fewer_steps_an_epoch_the_schedule_goes_on_by_epochs(small, capsys):
    """Six steps an epoch, then two: the rate is that of the third epoch of four, not of the end; no time below 0."""
    assert train("--max_epochs", "2", "--steps_per_epoch", "6") == 0
    flags = ("--max_epochs", "4", "--steps_per_epoch", "2", "--schedule.warmup", "0", "--schedule.power", "1")
    assert train("--resume", *flags) == 0
    assert [float(row["lr"]) for row in rows(small / "runs" / "small")[2:]] == [
        pytest.approx(1e-3 * (1 - 5 / 8)),
        pytest.approx(1e-3 * (1 - 7 / 8)),
    ]
    assert " -" not in "".join(line for line in capsys.readouterr().err.splitlines() if " left" in line)
