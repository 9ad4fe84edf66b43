"""Class index <-> label value <-> name: `ClassMap`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.classes import UNKNOWN, ClassMap, pack_color, unpack_color
from torchfpn.recipe import IGNORE

DTYPES = st.sampled_from(["uint8", "uint16", "int16", "int32", "int64"])


@given(
    st.lists(st.integers(0, 120), min_size=1, max_size=12, unique=True),
    st.sets(st.integers(0, 127), max_size=4),
    st.one_of(st.none(), st.integers(0, 127)),
    st.lists(st.integers(0, 127), min_size=6, max_size=6),
    DTYPES,
)
@settings(max_examples=60, deadline=None)
def test_indices_of_label_values_are_those_found_one_by_one(values, ignored, nodata, pixels, dtype):
    """For every pixel type: a class before nodata, and all else is ignored or unknown."""
    classes = ClassMap.of({value: f"class {value}" for value in values}, ignored=ignored - set(values))
    labels = np.array(pixels, dtype).reshape(2, 3)
    found = classes.indices(labels, nodata)
    expected = [
        values.index(value) if value in values else IGNORE if value in ignored or value == nodata else UNKNOWN
        for value in pixels
    ]
    assert found.shape == labels.shape
    assert found.ravel().tolist() == expected


def test_values_beyond_the_pixel_type_are_no_hindrance():
    classes = ClassMap.of({0: "a", 70_000: "b"}, ignored={-1, 300})
    assert classes.indices(np.array([[0, 7]], np.uint8)).tolist() == [[0, UNKNOWN]]
    assert classes.indices(np.array([[70_000, -1]])).tolist() == [[1, IGNORE]]


def test_words_of_attributes_are_names_before_they_are_values():
    classes = ClassMap.of({1: "roof", 2: "1", 5: "road"})
    assert classes.indices_of_words(["roof", "road", 5, "5", 1, "1", 2, "lake", None]).tolist() == [
        *(0, 2, 2, 2),
        *(1, 1, 1),
        *(UNKNOWN, UNKNOWN),
    ]


def test_given_colors_stay_and_the_others_differ():
    classes = ClassMap.of({3: "lake", 9: "x", 4: "y"}, {9: (1, 2, 3)})
    assert classes.color_of[9] == (1, 2, 3)
    assert len(set(classes.colors)) == 3
    assert classes.name_of == {3: "lake", 9: "x", 4: "y"}


def test_unknown_values_are_reported_with_the_classes_there_are(tmp_path):
    some = ClassMap.of({0: "land", 7: "lake"}).unknown_value(3, 2, tmp_path / "map.png")
    assert str(some) == (
        f"{tmp_path / 'map.png'}: the value 3 in 2 pixels; expected 0 land, 7 lake; "
        "name it with --classes, or leave it out with --ignore 3"
    )
    many = ClassMap.of({value: str(value) for value in range(30)})
    assert many.listed().endswith("19 19 ...")
    assert "0..254 where the values have no names" in str(ClassMap.of({0: "0"}, named=False).unknown_value(300, 1))


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (1, 2, 3)])
def test_packed_colors_come_back(color):
    assert unpack_color(pack_color(color)) == color
    assert pack_color(color) == color[0] * 65536 + color[1] * 256 + color[2]
