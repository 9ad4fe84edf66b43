"""Which epoch is the best, and what is left of that when the disk is full."""

from torchfpn.train.checkpoints import CheckpointManager
from torchfpn.train.logs import MetricsTable


class Trainer:
    is_global_zero = True

    def __init__(self, *, full=False):
        self.full = full

    def save_checkpoint(self, path):
        if self.full:
            raise OSError(28, "No space left on device")
        path.write_text("state")


def keeper(tmp_path, patience=0):
    (tmp_path / "checkpoints").mkdir()
    return CheckpointManager(tmp_path, MetricsTable(["epoch", "val/miou"]), patience=patience)


def epoch(made, number, score, *, full=False):
    is_best = made.judge({"epoch": number, "val/miou": score})
    made.save(Trainer(full=full), is_best=is_best)
    return is_best


def test_higher_is_better_and_equal_is_not(tmp_path):
    made = keeper(tmp_path)
    assert [epoch(made, n, s) for n, s in enumerate((0.1, 0.3, 0.3, 0.2, 0.4))] == [True, True, False, False, True]
    assert (made.best_epoch, made.best_score, made.waited) == (4, 0.4, 0)


def test_patience_counts_validations_without_a_better_score(tmp_path):
    made = keeper(tmp_path, patience=2)
    exhausted = []
    for number, score in enumerate((0.2, 0.1, 0.3, 0.1, 0.1)):
        epoch(made, number, score)
        made.judge({"epoch": number + 0.5})  # an epoch that was not validated counts neither way
        exhausted.append(made.exhausted)
    assert exhausted == [False, False, False, False, True]


def test_a_score_that_is_nothing_is_never_the_best(tmp_path):
    made = keeper(tmp_path)
    assert not epoch(made, 1, float("nan"))
    assert epoch(made, 2, 0.0)


def test_a_best_that_could_not_be_saved_is_not_the_one_to_beat(tmp_path):
    made = keeper(tmp_path)
    epoch(made, 1, 0.1)
    epoch(made, 2, 0.5, full=True)
    assert (made.best_epoch, made.best_score) == (1, 0.1)
    assert made.failure is not None
    assert epoch(made, 3, 0.3)
    assert made.failure is None
    assert made.best.samefile(made.last)
