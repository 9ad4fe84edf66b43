"""Fixtures for everything that trains: `from train.fixtures import small`."""

import pytest

from train.tiny import SETTINGS, make_data


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A current folder with the dataset `data` and the config `small.yaml`."""
    make_data(tmp_path / "data")
    (tmp_path / "small.yaml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    return tmp_path
