"""The gallery is what scripts/gallery.py gives today: the page, the calls on it, the pictures."""

from pathlib import Path

import pytest

import gallery as script

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def gallery():
    return script.gallery()


def test_page_and_pictures_are_of_today(gallery):
    for path, text in gallery.items():
        assert path.read_text() == text, f"{path.name}: run python scripts/gallery.py"


def test_no_picture_is_left_over(gallery):
    assert set((ROOT / "docs" / "images" / "gallery").iterdir()) == {p for p in gallery if p.suffix == ".svg"}


def test_every_picture_is_shown(gallery):
    page = gallery[ROOT / "docs" / "gallery.md"]
    assert all(f"(images/gallery/{path.name})" in page for path in gallery if path.suffix == ".svg")
