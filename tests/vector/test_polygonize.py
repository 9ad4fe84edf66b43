"""Label maps traced block by block: the polygons of the whole map, whatever the blocks."""

from itertools import pairwise

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from torchfpn.errors import RasterError
from torchfpn.geo.georef import Geo
from torchfpn.vector.features import trace, trace_map
from torchfpn.vector.polygonize import trace_blocks

GEO = Geo(CRS.from_epsg(32633).to_wkt(), (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_800_000.0))
NAMES = {1: "field", 2: "road", 3: "roof"}
RING = ["1111111", "1000001", "1022201", "1023201", "1022201", "1000001", "1111111"]
STAIR = ["1010", "0101", "1111", "1011"]  # corners where an area meets itself, and others
TOUCHING = ["11111", "10111", "11011", "11101", "01111"]  # holes that touch each other and the outside


def drawn(rows, scale=1):
    return np.kron(np.array([[int(value) for value in row] for row in rows]), np.ones((scale, scale), int)).astype("u1")


def spiral(size):
    """One line of 1, one pixel wide, that winds to the middle; 2 between its turns."""
    labels = np.full((size, size), 2, np.uint8)
    row, column, down, right = 0, -1, 0, 1
    for length in [size] + [n for n in range(size - 1, 0, -2) for _ in (0, 1)]:
        for _ in range(length):
            row, column = row + down, column + right
            labels[row, column] = 1
        down, right = right, -down
    return labels


def cut(length, places):
    """(start, size) of the parts between the places."""
    stops = sorted({0, length, *(place for place in places if 0 < place < length)})
    return [(a, b - a) for a, b in pairwise(stops)]


def grid(shape, side):
    rows, columns = (cut(length, range(0, length, side)) for length in shape)
    return [(row, column, height, width) for row, height in rows for column, width in columns]


@st.composite
def cases(draw):
    """A label map and a plan for it, every band cut at other columns."""
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    seed, values, grain = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    coarse = np.random.default_rng(seed).integers(0, values, (14, 14), np.uint8)
    labels = np.kron(coarse, np.ones((grain, grain), np.uint8))[:height, :width]
    places = st.lists(st.integers(1, 13), max_size=6)
    bands = cut(height, draw(places))
    return labels, [(row, column, tall, wide) for row, tall in bands for column, wide in cut(width, draw(places))]


def reader(labels, plan):
    def read(number):
        row, column, height, width = plan[number]
        return labels[row : row + height, column : column + width]

    return read


def traced(labels, plan, values=(1, 2, 3), **options):
    """[(value, polygon)]"""
    batches = trace_blocks(plan, reader(labels, plan), values, **options)
    return [pair for values, polygons, _ in batches for pair in zip(values.tolist(), polygons, strict=True)]


def whole(labels, values=(1, 2, 3)):
    shapes = rasterio.features.shapes(labels.astype(np.int32), mask=np.isin(labels, values), connectivity=4)
    return [(int(value), shapely.geometry.shape(shape)) for shape, value in shapes]


def plain(pairs):
    """To be compared, whatever vertex a ring begins at; each polygon once."""
    rows = [(value, polygon.normalize().wkb) for value, polygon in pairs]
    assert len(rows) == len(set(rows))
    return set(rows)


def redrawn(pairs, shape):
    again = np.zeros(shape, np.uint16)
    for value, polygon in pairs:
        inside = rasterio.features.rasterize([polygon], shape, dtype=np.uint16)
        assert not again[inside > 0].any()  # no two overlap
        again += value * inside
    return again


@settings(max_examples=50, deadline=None)
@given(cases())
def test_blocks_give_the_polygons_of_the_whole_map(case):
    labels, plan = case
    found = traced(labels, plan)
    assert plain(found) == plain(whole(labels))
    assert all(polygon.is_valid for _, polygon in found)
    assert np.array_equal(redrawn(found, labels.shape), labels)


@settings(max_examples=25, deadline=None)
@given(cases(), st.integers(0, 9))
def test_small_holes_and_areas_go_as_in_one_block(case, least):
    labels, plan = case
    expected = []
    for value, polygon in whole(labels):
        holes = [hole for hole in polygon.interiors if shapely.Polygon(hole).area >= least]
        filled = shapely.Polygon(polygon.exterior, holes)
        if filled.area >= least:
            expected.append((value, filled))
    assert plain(traced(labels, plan, min_pixels=least)) == plain(expected)


MAPS = {
    "spiral": spiral(17),
    "board": np.indices((12, 13)).sum(0).astype(np.uint8) % 2 + 1,
    "dots": np.indices((12, 13)).sum(0).astype(np.uint8) % 2,
    "full": np.ones((9, 7), np.uint8),
    "empty": np.zeros((9, 7), np.uint8),
    "ring": drawn(RING),
    "wide ring": drawn(RING, 3),
    "rings": np.tile(drawn(RING), (3, 3)),
    "stair": drawn(STAIR),
    "stairs": np.tile(drawn(STAIR), (3, 4)),
    "touching": drawn(TOUCHING, 2),
    "row": np.ones((1, 40), np.uint8),
    "column": np.arange(40, dtype=np.uint8)[:, None] // 3 % 3,
}


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, 100])
@pytest.mark.parametrize("name", MAPS)
def test_seams_may_lie_anywhere(name, side):
    labels = MAPS[name]
    found = traced(labels, grid(labels.shape, side))
    assert plain(found) == plain(whole(labels))
    assert np.array_equal(redrawn(found, labels.shape), labels)


def test_holes_and_the_islands_in_them_are_joined_across_seams():
    found = traced(drawn(RING, 2), grid((14, 14), 3))
    (_, field), (_, road), (_, roof) = sorted(found, key=lambda pair: pair[0])
    assert field.equals(shapely.box(0, 0, 14, 14) - shapely.box(2, 2, 12, 12))
    assert road.equals(shapely.box(4, 4, 10, 10) - roof)
    assert roof.equals(shapely.box(6, 6, 8, 8))
    assert len(roof.exterior.coords) == 5  # no vertex where the seams were


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int64])
def test_labels_of_any_type_and_what_is_no_data(dtype):
    top = np.iinfo(dtype).max
    labels = np.random.default_rng(0).integers(0, 4, (20, 30)).astype(dtype)
    labels[labels == 0] = top
    plan = grid(labels.shape, 7)
    assert plain(traced(labels, plan)) == plain(whole(labels))
    assert plain(traced(labels, plan, [2])) == plain(whole(labels, [2]))
    assert traced(np.full((4, 4), top), [(0, 0, 4, 4)]) == []
    assert traced(labels, plan, []) == []


def test_more_classes_than_a_byte_holds():
    labels = np.arange(400, dtype=np.uint16).reshape(20, 20) + 65_136
    found = traced(labels, grid(labels.shape, 6), labels.ravel().tolist())
    assert len(found) == 400
    assert np.array_equal(redrawn(found, labels.shape), labels)


def test_polygons_come_as_soon_as_nothing_can_be_added():
    labels = np.zeros((40, 40), np.uint8)
    labels[2:5, 2:5], labels[12:15, 22:25], labels[8:12, 33:36], labels[38, :] = 1, 2, 3, 1
    plan, asked = grid(labels.shape, 10), []

    def read(number):
        asked.append(number)
        return reader(labels, plan)(number)

    seen = [(values.tolist(), asked[-1]) for values, *_ in trace_blocks(plan, read, [1, 2, 3])]
    assert seen == [([1], 0), ([2], 6), ([3], 7), ([1], 15)]
    assert asked == list(range(16))


@settings(max_examples=25, deadline=None)
@given(cases())
def test_with_nodes_neighbours_have_the_same_vertices(case):
    labels, plan = case
    with_nodes = traced(labels, plan, nodes=True)
    polygons = np.array([polygon for _, polygon in with_nodes], dtype=object)
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    assert np.array_equal(redrawn(with_nodes, labels.shape), labels)


@settings(max_examples=25, deadline=None)
@given(cases(), st.sampled_from([0.8, 1.5, 4.0]), st.sampled_from([0, 3]))
def test_simplified_neighbours_still_share_their_borders(case, simplify, least):
    labels, plan = case
    found = list(
        trace_map(plan, reader(labels, plan), None, NAMES, simplify=simplify, min_pixels=least, coordinates="pixels")
    )
    polygons = np.array([feature.polygon for feature in found], dtype=object)
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    at_once = trace(labels, None, NAMES, simplify=simplify, min_pixels=least, coordinates="pixels")
    assert [(f.value, f.polygon.wkb) for f in found] == [(f.value, f.polygon.wkb) for f in at_once]
    exact = trace(labels, None, NAMES, min_pixels=least, coordinates="pixels")
    assert [feature.value for feature in found] == [feature.value for feature in exact]
    assert [len(f.polygon.interiors) for f in found] == [len(f.polygon.interiors) for f in exact]


def test_a_simplified_map_has_no_gaps():
    rows, columns = np.mgrid[:80, :80]
    labels = (1 + (rows + 2 * columns > 100) + (rows - columns > 7)).astype(np.uint8)
    found = trace(labels, None, NAMES, simplify=2.0, coordinates="pixels")
    polygons = np.array([feature.polygon for feature in found], dtype=object)
    assert shapely.union_all(polygons).equals(shapely.box(0, 0, 80, 80))
    assert shapely.get_num_coordinates(polygons).sum() < 40


def test_features_are_the_same_in_blocks():
    labels = np.kron(np.random.default_rng(3).integers(0, 4, (9, 11)), np.ones((5, 5), int)).astype(np.uint8)
    plan = grid(labels.shape, 16)
    expected = trace(labels, GEO, NAMES, min_pixels=30)
    found = {
        feature.polygon.normalize().wkb: feature
        for feature in trace_map(plan, reader(labels, plan), GEO, NAMES, min_pixels=30)
    }
    assert len(found) == len(expected) > 10
    for feature in expected:
        same = found[feature.polygon.normalize().wkb]
        assert (same.value, same.name) == (feature.value, feature.name)
        assert same.area == pytest.approx(feature.area, rel=1e-9)


def test_a_map_without_a_place_is_refused_before_it_is_read():
    with pytest.raises(RasterError, match="no georeference"):
        trace_map([(0, 0, 4, 4)], lambda number: pytest.fail("read"), None, NAMES, file="a.tif")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ([], "0 blocks; expected bands of blocks"),
        ([(0, 0, 4, 4), (0, 5, 4, 3)], r"block 1: \(0, 5, 4, 3\); expected the one at row 0, column 4, of 4 rows"),
        ([(0, 0, 4, 4), (0, 4, 3, 4)], "block 1"),
        ([(0, 0, 4, 8), (4, 0, 4, 4)], "plan: 2 blocks"),
        ([(4, 0, 4, 8), (0, 0, 4, 8)], "block 0"),
        ([(0, 0, 0, 8)], "block 0"),
        ([(0, 0, 4, 4)], "block 0: labels of 4 x 8; expected 4 x 4"),
    ],
)
def test_blocks_that_do_not_tile_the_map(plan, message):
    with pytest.raises(RasterError, match=message):
        list(trace_blocks(plan, lambda number: np.ones((4, 8), np.uint8), [1]))


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1))
def test_scores_are_means_over_the_areas_whatever_the_blocks(case, seed):
    labels, plan = case
    marks = np.random.default_rng(seed).integers(0, 256, labels.shape).astype(np.uint8)
    found = [
        (int(value), polygon.normalize().wkb, score)
        for batch in trace_blocks(plan, reader(labels, plan), [1, 2, 3], scores=reader(marks, plan))
        for value, polygon, score in zip(*batch, strict=True)
    ]
    for value, polygon, score in found:
        inside = redrawn([(1, shapely.from_wkb(polygon))], labels.shape) == 1
        assert (labels[inside] == value).all()
        assert score == marks[inside].sum(dtype=np.int64) / (255 * inside.sum())
    at_once = trace(labels, None, NAMES, scores=marks, coordinates="pixels")
    expected = sorted((value, polygon, round(score, 3)) for value, polygon, score in found)
    assert sorted((f.value, f.polygon.normalize().wkb, f.score) for f in at_once) == expected


def test_filled_holes_do_not_count_in_scores():
    labels, marks = drawn(RING), np.full((7, 7), 255, np.uint8)
    marks[labels != 1] = 0
    features = trace(labels, None, {1: "field"}, scores=marks, min_pixels=100, coordinates="pixels")
    assert features == []
    (feature,) = trace(labels, None, {1: "field"}, scores=marks, min_pixels=20, coordinates="pixels")
    assert (feature.area, len(feature.polygon.interiors)) == (24, 1)
    labels[2:5, 2:5], labels[1, 1:6], labels[5, 1:6], labels[1:6, 1], labels[1:6, 5] = 1, 1, 1, 1, 1
    labels[3, 3] = 0
    marks[:] = 204
    marks[3, 3] = 0
    (feature,) = trace(labels, None, {1: "field"}, scores=marks, min_pixels=2, coordinates="pixels")
    assert (feature.area, feature.score) == (49, 0.8)
    assert (
        trace(labels, None, {1: "field"}, scores=marks, min_pixels=2, simplify=1, coordinates="pixels")[0].score == 0.8
    )


def test_scores_of_another_size_are_refused():
    with pytest.raises(RasterError, match=r"block 0: scores of 3 x 4; expected 4 x 4"):
        list(trace_blocks([(0, 0, 4, 4)], lambda _: np.ones((4, 4), "u1"), [1], scores=lambda _: np.ones((3, 4), "u1")))
