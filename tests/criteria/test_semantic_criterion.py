"""The line that names losses, and what becomes of it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.criteria.losses import CrossEntropy, Dice, Focal, Lovasz
from torchfpn.criteria.semantic import SemanticCriterion, criterion, parse
from torchfpn.errors import ConfigError

LOGITS, TARGETS = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))


@pytest.mark.parametrize(
    ("spec", "factors"),
    [
        ("ce", {"ce": 1.0}),
        ("ce+dice", {"ce": 1.0, "dice": 1.0}),
        ("  ce + 0.5*lovasz ", {"ce": 1.0, "lovasz": 0.5}),
        ("focal", {"focal": 1.0}),
        ("2 * focal+.25* dice+1e-3*ce", {"focal": 2.0, "dice": 0.25, "ce": 0.001}),
    ],
)
def test_a_line_of_losses(spec, factors):
    assert parse(spec) == factors
    losses = criterion(spec)(LOGITS, TARGETS)
    assert list(losses) == list(factors)
    alone = {"ce": CrossEntropy(), "focal": Focal(), "dice": Dice(), "lovasz": Lovasz()}
    for name, value in losses.items():
        torch.testing.assert_close(value, factors[name] * alone[name](LOGITS, TARGETS))


def test_class_weights_and_smoothing_reach_the_losses_that_know_them():
    weight = [1.0, 0.2, 3.0]
    losses = criterion("ce+focal+dice", weight, label_smoothing=0.1)(LOGITS, TARGETS)
    torch.testing.assert_close(losses["ce"], CrossEntropy(weight, label_smoothing=0.1)(LOGITS, TARGETS))
    torch.testing.assert_close(losses["focal"], Focal(weight=weight)(LOGITS, TARGETS))
    torch.testing.assert_close(losses["dice"], Dice()(LOGITS, TARGETS))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("cee", 'term "cee" in "cee"; expected ce, focal, dice, lovasz.*did you mean "ce"?'),
        ("ce+dise", 'term "dise".*did you mean "dice"?'),
        ("lovazs*0.5", "term"),
        ("", 'term "" in ""'),
        ("ce+", 'term ""'),
        ("ce+ce", '"ce" twice'),
        ("0*ce", 'factor "0" in "0\\*ce"; expected a number above 0'),
        ("-1*ce", 'factor "-1"'),
        ("nan*ce", 'factor "nan"'),
        ("inf*ce", 'factor "inf"'),
        ("two*ce", 'factor "two"'),
        ("*ce", 'factor ""'),
        ("2*3*ce", 'factor "2\\*3"'),
    ],
)
def test_a_line_that_cannot_be(spec, words):
    with pytest.raises(ConfigError, match=words) as caught:
        criterion(spec)
    assert caught.value.field == "loss"


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="cediolvaszf+*. 015-\n", max_size=20))
def test_no_line_crashes(spec):
    try:
        factors = parse(spec)
    except ConfigError:
        factors = {}
    assert set(factors) <= {"ce", "focal", "dice", "lovasz"}
    assert all(f > 0 for f in factors.values())


def test_options_that_no_term_knows_are_refused():
    with pytest.raises(ConfigError, match='class_weights: the loss "dice" has no use for it; expected ce or focal'):
        criterion("dice", [1.0, 2.0, 3.0])
    with pytest.raises(ConfigError, match='label_smoothing: the loss "focal" has no use for it; expected ce'):
        criterion("focal", label_smoothing=0.1)


def test_any_loss_can_be_a_term():
    class Size(torch.nn.Module):
        def forward(self, logits, targets):
            return logits.square().mean()

    losses = SemanticCriterion({"ce": (1.0, CrossEntropy()), "size": (0.01, Size())})(LOGITS, TARGETS)
    torch.testing.assert_close(losses["size"], 0.01 * LOGITS.square().mean())
