"""A Task from raw values to labels: scaling once, no data nowhere, and a learning curve that falls."""

import copy
import itertools
import pickle
import threading

import pytest
import torch

import torchfpn
from tiny_detector import tiny_detector
from torchfpn import Batch, ConfigError, Scaling, ShapeError
from torchfpn.recipe import IGNORE


def task(**options):
    torch.manual_seed(0)
    options = {"backbone": "test_resnet", "classes": ["land", "water"], "bands": ["a", "b", "c", "d"], **options}
    return torchfpn.create_task("semantic", channels=32, head_channels=32, **options)


def test_raw_values_are_scaled_once_in_losses_and_predict_alike():
    scaling = Scaling((100.0, 0.0, 5.0, 1.0), (50.0, 2.0, 1.0, 10.0))
    scaled, plain = task(scaling=scaling).eval(), task().eval()
    plain.model.load_state_dict(scaled.model.state_dict())
    raw = torch.rand(2, 4, 40, 24) * 200
    by_hand = (raw - torch.tensor(scaling.offset).view(-1, 1, 1)) / torch.tensor(scaling.scale).view(-1, 1, 1)
    targets = torch.randint(0, 2, (2, 40, 24))
    sizes = [(40, 24)] * 2
    torch.testing.assert_close(scaled.logits(raw), plain.logits(by_hand))
    a, b = scaled.losses(Batch(raw, sizes, targets)), plain.losses(Batch(by_hand, sizes, targets))
    torch.testing.assert_close(a["ce"], b["ce"])
    assert torch.equal(scaled.predict(raw)[1].labels, plain.predict(by_hand)[1].labels)


@pytest.mark.parametrize("missing", [float("nan"), float("inf"), -9999.0])
def test_no_data_never_reaches_the_network_and_comes_out_as_no_data(missing):
    model = task(nodata=-9999.0)
    raw = torch.rand(1, 4, 32, 32)
    holes = raw.clone()
    holes[0, 2, 3:6, 7] = missing
    result = model.predict(holes)[0]
    assert (result.labels[3:6, 7] == IGNORE).all()
    assert (result.scores[3:6, 7] == 0).all()
    assert int((result.labels == IGNORE).sum()) == 3
    assert model.eval().logits(holes).isfinite().all()
    targets = torch.zeros(1, 32, 32, dtype=torch.int64)
    other = targets.clone()
    other[0, 3:6, 7] = 1  # whatever the label there: it does not count
    losses = [model.losses(Batch(holes, [(32, 32)], t))["ce"] for t in (targets, other)]
    assert torch.equal(*losses)


def test_nodata_of_unsigned_images_needs_every_band():
    """0 is a dark pixel as well: the rule by which files are read holds for raw arrays too."""
    raw = torch.ones(1, 4, 32, 32)
    raw[0, 1, 2, 3] = 0  # one band
    raw[0, :, 5, 6] = 0  # all of them
    for dtype, missing in (("uint8", [[5, 6]]), ("int16", [[2, 3], [5, 6]])):
        labels = task(nodata=0.0, dtype=dtype).predict(raw)[0].labels
        assert (labels == IGNORE).nonzero().tolist() == missing


def test_a_list_of_sizes_a_batch_and_a_tensor_agree():
    model = task()
    images = [torch.rand(4, 33, 20), torch.rand(4, 1, 1), torch.rand(4, 32, 64)]
    results = model.predict(images)
    assert [tuple(r.labels.shape) for r in results] == [(33, 20), (1, 1), (32, 64)]
    assert all(r.labels.dtype == torch.int64 and (r.scores >= 0.5).all() for r in results)
    assert torch.equal(model.predict(images[2][None])[0].labels, results[2].labels)
    padded = torch.full((2, 4, 33, 64), torch.nan)
    padded[0, :, :33, :20], padded[1, :, :32, :] = images[0], images[2]
    batch = model.predict(Batch(padded, [(33, 20), (32, 64)]))
    assert [tuple(r.labels.shape) for r in batch] == [(33, 20), (32, 64)]
    assert not (batch[0].labels == IGNORE).any()


def test_predict_leaves_the_mode_as_it_was():
    model = task().train()
    model.predict(torch.rand(1, 4, 8, 8))
    assert model.training
    assert all(m.training for m in model.modules())
    model.model.backbone.eval()
    modes = [m.training for m in model.modules()]
    model.predict([torch.rand(4, 8, 8)])
    with pytest.raises(ShapeError):
        model.predict(torch.rand(1, 3, 8, 8))
    assert [m.training for m in model.modules()] == modes


@pytest.mark.parametrize("make", [task, lambda: tiny_detector(bands=("a", "b", "c", "d"))])
def test_predict_in_several_threads_gives_the_answers_of_one_and_changes_nothing(make):
    """A task in train mode, and two threads of which the first leaves predict before the second has computed."""
    model = make().train()
    image = torch.rand(1, 4, 32, 32, generator=torch.Generator().manual_seed(2))
    alone = model.predict(image)[0].scores
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    turns, answers = itertools.count(), {}
    first_in, second_in, first_out = (threading.Event() for _ in range(3))

    def meet(*_):
        if next(turns) == 0:
            first_in.set()
            second_in.wait(20)
        else:
            second_in.set()
            first_out.wait(20)

    model.model.register_forward_pre_hook(meet)
    threads = [threading.Thread(target=lambda i=i: answers.update({i: model.predict(image)[0].scores})) for i in (0, 1)]
    threads[0].start()
    first_in.wait(20)
    threads[1].start()
    threads[0].join()
    first_out.set()
    threads[1].join()
    assert torch.equal(answers[0], alone)
    assert torch.equal(answers[1], alone)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(part.training for part in model.modules())


def test_train_mode_that_is_asked_for_during_predict_stays():
    """A served task whose owner goes on training it while a request is computed."""
    model = task().eval()
    model.model.register_forward_hook(lambda *_: model.train() and None)
    model.predict(torch.rand(1, 4, 32, 32))
    assert all(part.training for part in model.modules())


def test_modes_set_and_copies_made_while_another_thread_predicts():
    """Copies have the mode from before predict; eval() lasts; train() waits until nobody predicts."""
    model = task().train()
    alone = model.predict(torch.ones(1, 4, 32, 32))[0].scores
    inside, leave, answers = threading.Event(), threading.Event(), []

    def images():  # read inside predict, which it keeps there until `leave`
        inside.set()
        leave.wait(20)
        yield torch.ones(4, 32, 32)

    def in_predict(*actions):
        inside.clear()
        leave.clear()
        threads = [threading.Thread(target=lambda: answers.append(model.predict(images())[0].scores))]
        threads[0].start()
        assert inside.wait(20)
        threads += [threading.Thread(target=action) for action in actions]
        for thread in threads[1:]:
            thread.start()
            thread.join(0.2 if model.train in actions else 20)
        waiting, modes = [thread.is_alive() for thread in threads[1:]], [part.training for part in model.modules()]
        leave.set()
        for thread in threads:
            thread.join(20)
        assert not any(modes)
        return waiting

    copies = []
    made = (copy.copy, copy.deepcopy, lambda task: pickle.loads(pickle.dumps(task)))
    assert in_predict(*(lambda make=make: copies.append(make(model)) for make in made)) == [False] * 3
    assert len(copies) == 3
    assert all(part.training for one in (model, *copies) for part in one.modules())
    assert in_predict(model.eval) == [False]
    assert not any(part.training for part in model.modules())
    assert in_predict(model.train) == [True]
    assert all(part.training for part in model.modules())
    assert all(torch.equal(scores, alone) for scores in answers)


@pytest.mark.parametrize("make", [task, lambda: tiny_detector("detection", bands=("a", "b", "c", "d"), proposals=5)])
def test_a_task_of_half_precision_predicts(make):
    """Raw values keep their digits: the scaling stays float32."""
    model = make().eval()
    image = 3000 * torch.rand(1, 4, 32, 32, generator=torch.Generator().manual_seed(2))
    offset = model.normalize.offset.clone()
    wanted = model.predict(image)[0].scores
    found = model.to(torch.bfloat16).predict(image)[0].scores
    assert torch.equal(model.normalize.offset, offset)
    assert found.dtype == torch.float32
    assert (found.flatten()[:3] - wanted.flatten()[:3]).abs().max() < 0.1


def test_integers_are_taken_as_values():
    model = task()
    raw = torch.randint(0, 255, (1, 4, 16, 16), dtype=torch.uint8)
    assert torch.equal(model.predict(raw)[0].labels, model.predict(raw.float())[0].labels)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (4, 8, 8)])
def test_wrong_bands_are_named(shape):
    with pytest.raises(ShapeError, match=r"4 bands \(a, b, c, d\)"):
        task().predict(torch.rand(shape))


def test_targets_must_be_there_and_fit():
    with pytest.raises(ShapeError, match="targets None"):
        task().losses(Batch(torch.rand(1, 4, 8, 8), [(8, 8)]))
    with pytest.raises(ShapeError, match=r"targets \[1, 4, 8\]"):
        task().losses(Batch(torch.rand(1, 4, 8, 8), [(8, 8)], torch.zeros(1, 4, 8, dtype=torch.int64)))


@pytest.mark.parametrize(
    "options",
    [{"classes": None}, {"num_classes": 3}, {"in_channels": 2}, {"scaling": Scaling.identity(3)}, {"loss": "cee"}],
)
def test_contradictions_are_refused(options):
    with pytest.raises(ConfigError):
        task(**options)


def test_it_learns_a_simple_rule():
    model = task(loss="ce + lovasz").train()
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    first = None
    for _ in range(60):
        raw = torch.randn(8, 4, 32, 32, generator=generator)
        raw = torch.nn.functional.avg_pool2d(raw, 9, 1, 4)
        targets = (raw[:, 0] > raw[:, 3]).long()
        loss = sum(model.losses(Batch(raw * 9, [(32, 32)] * 8, targets)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = first or loss.item()
    assert loss.item() < 0.6 * first
