"""The public face: every name is there, imports, and is what its home says."""

from importlib import import_module
from pathlib import Path

import pytest

import torchfpn
from torchfpn.deprecated import MOVED


def test_all_is_sorted_and_complete():
    assert list(torchfpn.__all__) == sorted(torchfpn.__all__)
    assert set(dir(torchfpn)) == set(torchfpn.__all__)


@pytest.mark.parametrize("name", [n for n in torchfpn.__all__ if n != "__version__"])
def test_each_name_comes_from_its_home(name):
    thing = getattr(torchfpn, name)
    assert thing.__doc__
    assert getattr(import_module(thing.__module__), name) is thing


def test_the_type_checker_sees_the_same_names():
    text = Path(torchfpn.__file__).read_text()
    shown = {line.split(" as ")[1] for line in text.splitlines() if line.startswith("    from ") and " as " in line}
    assert shown | {"__version__"} == set(torchfpn.__all__)


def test_rooms_are_reached_as_attributes():
    assert torchfpn.metrics.__name__ == "torchfpn.metrics"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        torchfpn.nonsense  # noqa: B018


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in MOVED.items() for name in names])
def test_former_paths_of_the_documentation_import_with_a_warning(module, name):
    former = import_module(module)
    path = MOVED[module][name]
    with pytest.warns(DeprecationWarning, match=f"is now {path}"):
        thing = getattr(former, name)
    home, _, today = path.rpartition(".")
    assert thing is getattr(import_module(home), today)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        former.nonsense  # noqa: B018
