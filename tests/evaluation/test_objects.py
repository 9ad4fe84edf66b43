"""Objects against objects: the same matches as a plain matrix and a plain loop give, in any coordinate system."""

import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely
import shapely.affinity

from made_data import write_tiff
from torchfpn.errors import ConfigError, DataError, ShapeError
from torchfpn.evaluation.objects import MapPlace, MapScores, ObjectCounter, compare_objects
from torchfpn.geo.crs import crs_wkt, square_metres
from torchfpn.geo.window import plan_blocks
from torchfpn.metrics.polygons import ObjectScores, matched, overlaps, score_objects
from torchfpn.sources.label_classes import evaluated_classes
from torchfpn.vector.geometry import clip, ground_plane, to_plane
from torchfpn.vector.objects import Objects

UTM, LON_LAT, MERCATOR = crs_wkt("EPSG:32633"), crs_wkt("OGC:CRS84"), crs_wkt("EPSG:3857")
WEST, NORTH = 500_000.0, 5_800_000.0


def array(shapes):
    held = np.empty(len(shapes), dtype=object)
    held[:] = shapes
    return held


def boxes(*corners):
    return array([shapely.box(*corner) for corner in corners])


def scene(rng, count):
    """Turned rectangles, some with holes, some the same as others, in a small field."""
    shapes = []
    for _ in range(count):
        x, y, w, h = *rng.uniform(0, 30, 2), *rng.uniform(1, 8, 2)
        shape = shapely.affinity.rotate(shapely.box(x, y, x + w, y + h), rng.uniform(0, 90))
        if rng.random() < 0.2:
            shape = shape - shapely.affinity.scale(shape, 0.6, 0.6)
        shapes.append(shapes[rng.integers(len(shapes))] if shapes and rng.random() < 0.1 else shape)
    return array(shapes)


def plain_matrix(predicted, truth):
    """IoU of everything with everything."""
    return np.array([[p.intersection(t).area / p.union(t).area for t in truth] for p in predicted])


def plain_greedy(matrix, least, scores=None):
    """The rule, word for word."""
    free_p, free_t, pairs = set(range(matrix.shape[0])), set(range(matrix.shape[1])), []
    if scores is not None:
        for p in sorted(free_p, key=lambda p: (-scores[p], p)):
            best = max(sorted(free_t), key=lambda t: matrix[p, t], default=None)
            if best is not None and matrix[p, best] >= least:
                pairs.append((p, best))
                free_t.remove(best)
        return sorted(pairs)
    while free_p and free_t:
        p, t = max(((p, t) for p in sorted(free_p) for t in sorted(free_t)), key=lambda pair: matrix[pair])
        if matrix[p, t] < least:
            break
        pairs.append((p, t))
        free_p.remove(p)
        free_t.remove(t)
    return sorted(pairs)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("least", [0.05, 0.3, 0.5, 0.8])
def test_pairs_are_those_of_a_plain_matrix(seed, least):
    rng = np.random.default_rng(seed)
    predicted, truth = scene(rng, 40), scene(rng, 30)
    matrix = plain_matrix(predicted, truth)
    found = overlaps(predicted, truth, least)
    assert set(zip(found.predicted, found.truth, strict=True)) == set(zip(*np.nonzero(matrix >= least), strict=True))
    assert np.allclose(found.iou, matrix[found.predicted, found.truth], atol=1e-12)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("with_scores", [False, True])
def test_matches_are_those_of_a_plain_loop(seed, with_scores):
    rng = np.random.default_rng(seed)
    truth = scene(rng, 30)
    moved = [shapely.affinity.translate(shape, *rng.normal(0, 0.7, 2)) for shape in truth]
    predicted = array([*moved, *scene(rng, 15)])
    scores = rng.integers(0, 4, len(predicted)).astype(float) if with_scores else None  # with equal ones
    for least in (0.1, 0.5):
        found = matched(overlaps(predicted, truth, least), scores)
        expected = plain_greedy(plain_matrix(predicted, truth), least, scores)
        assert sorted(zip(found.predicted.tolist(), found.truth.tolist(), strict=True)) == expected


@pytest.mark.parametrize("seed", range(4))
def test_classes_are_matched_apart(seed):
    rng = np.random.default_rng(seed)
    predicted, truth = scene(rng, 40), scene(rng, 40)
    truth[:20] = predicted[:20]
    classes = rng.integers(0, 3, 40), rng.integers(0, 3, 40)
    found = score_objects(predicted, truth, ["a", "b", "c"], classes=classes, iou=0.4)
    for k in range(3):
        alone = score_objects(predicted[classes[0] == k], truth[classes[1] == k], ["it"], iou=0.4)
        assert (found.matched[k], found.predicted[k], found.truth[k]) == (
            *alone.matched,
            *alone.predicted,
            *alone.truth,
        )


def counts(predicted, truth, **options):
    found = score_objects(predicted, truth, ["it"], **options)
    return found.matched[0], found.predicted[0], found.truth[0]


def test_objects_that_only_touch_do_not_match():
    assert counts(boxes((0, 0, 1, 1)), boxes((1, 0, 2, 1)), iou=0.001) == (0, 1, 1)


def test_a_small_object_in_a_large_one_does_not_match():
    assert counts(boxes((0, 0, 10, 10)), boxes((1, 1, 3, 3))) == (0, 1, 1)
    assert counts(boxes((0, 0, 10, 10)), boxes((1, 1, 3, 3)), iou=0.04) == (1, 1, 1)


def test_holes_count():
    ring = array([shapely.box(0, 0, 10, 10) - shapely.box(1, 1, 9, 9)])
    assert counts(boxes((0, 0, 10, 10)), ring, iou=0.37) == (0, 1, 1)  # 36 of 100
    assert counts(boxes((0, 0, 10, 10)), ring, iou=0.36) == (1, 1, 1)


def test_two_predictions_of_one_object_are_one_match():
    assert counts(boxes((0, 0, 2, 2), (0, 0, 2, 2)), boxes((0, 0, 2, 2))) == (1, 2, 1)
    assert counts(boxes((0, 0, 2, 2)), boxes((0, 0, 2, 2), (0, 0, 2, 2))) == (1, 1, 2)


def test_half_is_enough_for_half():
    assert counts(boxes((0, 0, 2, 1)), boxes((0, 0, 1, 1))) == (1, 1, 1)


def test_the_surest_prediction_comes_first():
    predicted, truth = boxes((0, 0, 10, 9), (0, 0, 10, 10)), boxes((0, 0, 10, 10), (0, 4, 10, 10))
    assert counts(predicted, truth, iou=0.3) == (2, 2, 2)
    found = matched(overlaps(predicted, truth, 0.3), np.array([0.9, 0.2]))
    assert found.truth[found.predicted == 0] == 0
    found = matched(overlaps(predicted, truth, 0.3))
    assert found.truth[found.predicted == 1] == 0


@pytest.mark.slow
def test_a_thousand_times_the_same():
    heap = boxes(*[(0, 0, 5, 5)] * 1000)
    assert counts(heap, heap) == (1000, 1000, 1000)


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ((), (), (None, None, None)),
        (((0, 0, 1, 1),), (), (0.0, None, 0.0)),
        ((), ((0, 0, 1, 1),), (None, 0.0, 0.0)),
        (((0, 0, 1, 1),), ((5, 5, 6, 6),), (0.0, 0.0, 0.0)),
    ],
)
def test_nothing_on_a_side_has_defined_values(predicted, truth, expected):
    found = score_objects(boxes(*predicted), boxes(*truth), ["it"]).to_dict()
    assert tuple(found["all"][name] for name in ("precision", "recall", "f1")) == expected
    assert (found["precision"], found["recall"], found["f1"]) == tuple([value] for value in expected)


def test_scores_add_up():
    one = ObjectScores(0.5, ("a", "b"), (1, 0), (2, 0), (4, 1))
    both = one + ObjectScores(0.5, ("a", "b"), (1, 2), (2, 2), (0, 2))
    assert both.to_dict() == {
        "unit": "fraction",
        "iou": 0.5,
        "classes": ["a", "b"],
        "precision": [0.5, 1.0],
        "recall": [0.5, pytest.approx(2 / 3)],
        "f1": [0.5, 0.8],
        "matched": [2, 2],
        "predicted": [4, 2],
        "truth": [4, 3],
        "all": {"precision": 4 / 6, "recall": 4 / 7, "f1": 8 / 13, "matched": 4, "predicted": 6, "truth": 7},
    }
    with pytest.raises(ShapeError):
        one + ObjectScores(0.4, ("a", "b"), (1, 2), (2, 2), (0, 2))


# -- other coordinate systems


def in_crs(shapes, crs, source=UTM):
    def move(points):
        return np.stack(rasterio.warp.transform(source, crs, points[:, 0], points[:, 1]), axis=1)

    return array([shapely.transform(shape, move) for shape in shapes])


def layer(shapes, crs=UTM, classes=None, scores=None):
    return Objects("layer.gpkg", shapes, classes, scores, crs, len(shapes))


def town(rng, count=60):
    shapes = scene(rng, count)
    return array([shapely.affinity.translate(shape, WEST, NORTH) for shape in shapes])


@pytest.mark.parametrize("crs", [LON_LAT, MERCATOR, crs_wkt("EPSG:32634"), crs_wkt("EPSG:3035")])
def test_the_coordinate_systems_do_not_matter(crs):
    rng = np.random.default_rng(0)
    truth = town(rng)
    predicted = array([shapely.affinity.translate(shape, *rng.normal(0, 0.5, 2)) for shape in truth])
    expected = score_objects(predicted, truth, ["object"])
    assert 5 < expected.matched[0] < 60
    assert compare_objects(layer(predicted), layer(in_crs(truth, crs), crs)).scores == expected
    assert compare_objects(layer(in_crs(predicted, crs), crs), layer(truth)).scores == expected
    assert compare_objects(layer(truth), layer(in_crs(truth, crs), crs), iou=0.9999).scores.matched == (60,)


@pytest.mark.parametrize("place", [(0, 0), (15, 52), (179.9995, -17), (20, 78), (-70, -33)])
def test_areas_on_the_plane_are_those_on_the_ground(place):
    lon, lat = place
    shapes = boxes((lon, lat, lon + 0.002, lat + 0.001), (lon, lat, lon + 1, lat + 1))
    plane = ground_plane([(shapes, LON_LAT)])
    moved = to_plane(shapes, LON_LAT, plane)
    assert shapely.area(moved) == pytest.approx([square_metres(shape) for shape in shapes], rel=1e-6)


def test_long_edges_stay_where_they_are():
    """A straight edge in Mercator is one in the file, and bent on the plane."""
    country = boxes((0, 6e6, 1e6, 7e6))
    same = array([shapely.segmentize(country[0], 1000.0)])
    found = compare_objects(layer(country, MERCATOR), layer(in_crs(same, LON_LAT, MERCATOR), LON_LAT), iou=0.99999)
    assert found.scores.matched == (1,)


def test_layers_far_apart_have_nothing_in_common():
    far = boxes((-60.001, -20, -60, -19.999))
    found = compare_objects(layer(far, LON_LAT), layer(town(np.random.default_rng(0)))).scores
    assert (found.matched, found.predicted, found.truth) == ((0,), (1,), (60,))


def test_an_area_cuts_both_layers():
    truth = boxes(*[(WEST + 20 * i, NORTH, WEST + 20 * i + 10, NORTH + 10) for i in range(5)])
    predicted = truth.copy()
    predicted[3] = shapely.box(WEST + 60, NORTH, WEST + 64, NORTH + 10)
    area = (boxes((WEST + 17, NORTH - 5, WEST + 63, NORTH + 5)), UTM, "area")
    found = compare_objects(layer(predicted), layer(truth), within=[area])
    assert found.scores.to_dict()["all"]["matched"] == 3  # 20..30, 40..50, and 60..63 of both
    assert found.scores.predicted == found.scores.truth == (3,)
    assert found.outside == (2, 2)
    found = compare_objects(layer(predicted), layer(truth), within=[area], min_area=20)
    assert (found.scores.matched, found.outside) == ((2,), (3, 3))  # 3 x 5 metres are too small
    everything = compare_objects(layer(predicted), layer(truth), within=[area], min_area=1e9)
    assert everything.scores.to_dict()["all"]["f1"] is None


def test_what_is_cut_keeps_its_parts_inside():
    area = shapely.union_all([shapely.box(0, 0, 10, 10), shapely.box(10, 10, 20, 20)])
    shapes = boxes((1, 1, 2, 2), (10, 0, 12, 2), (8, 8, 12, 12), (30, 30, 31, 31))
    parts, numbers = clip(shapes, area)
    assert numbers.tolist() == [0, 2]  # what only touches is out
    assert parts[0] is shapes[0]
    assert shapely.area(parts).tolist() == [1, 8]


def test_classes_by_name_and_those_that_are_asked_for():
    shapes = boxes(*[(WEST + 20 * i, NORTH, WEST + 20 * i + 10, NORTH + 10) for i in range(4)])
    predicted = layer(shapes, classes=array(["road", "road", "roof", 3]))
    truth = layer(shapes, classes=array(["road", "roof", "roof", 3]))
    found = compare_objects(predicted, truth).scores
    assert found.classes == ("3", "road", "roof")
    assert found.matched == (1, 1, 1)
    found = compare_objects(predicted, truth, only=["roof"])
    assert found.scores.to_dict()["all"] | {"f1": 0} == {
        "precision": 1.0,
        "recall": 0.5,
        "f1": 0,
        "matched": 1,
        "predicted": 1,
        "truth": 2,
    }
    assert found.others == (3, 2)
    found = compare_objects(predicted, layer(shapes), only=["road"]).scores  # the truth has no classes
    assert (found.classes, found.matched, found.predicted, found.truth) == (("road",), (2,), (2,), (4,))
    assert compare_objects(predicted, layer(shapes)).scores.matched == (4,)
    with pytest.raises(ConfigError, match='no object is of the class "rof"; did you mean "roof"'):
        compare_objects(predicted, truth, only=["rof"])


# -- label maps


def drawn(shapes, values, size):
    labels = np.zeros(size, np.uint8)
    for shape, value in zip(shapes, values, strict=True):
        left, top, right, bottom = (int(v) for v in shape.bounds)
        labels[top:bottom, left:right] = value
    return labels


def test_label_maps_against_polygons_over_images():
    shapes = boxes((1, 1, 5, 5), (8, 1, 12, 5), (1, 8, 5, 11), (-3, 14, 4, 18))
    values = np.array([1, 2, 1, 2])
    labels = drawn(shapes[:3], [1, 2, 2], (20, 16))  # the third in the wrong class
    labels[14:18, 0:4] = 2  # the fourth as far as it lies in the image
    labels[19, 15] = 1  # a false one
    counter = ObjectCounter({1: "roof", 2: "road"})
    counter.update(labels, shapes, values)
    found = counter.scores
    assert (found.matched, found.predicted, found.truth) == ((1, 2), (2, 3), (2, 2))
    counter.update(np.zeros((4, 4), np.int64), shapes[:0], values[:0])  # nothing at all
    assert counter.scores == found
    counter.update(labels, shapes, values)
    assert counter.scores == found + found
    least = ObjectCounter({1: "roof", 2: "road"}, min_area=2)
    least.update(labels, shapes, values)
    assert least.scores.predicted == (1, 3)
    with pytest.raises(DataError, match="a polygon of the value 3"):
        counter.update(labels, shapes[:1], np.array([3]))


@pytest.mark.parametrize("side", [7, 16, 64])
def test_blocks_change_nothing(side):
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 3, (12, 10)), np.ones((5, 5), int)).astype(np.uint8)
    shapes, values = boxes((0, 0, 9, 9), (20, 20, 31, 24), (3, 40, 14, 44)), np.array([1, 2, 1])
    whole, parts = ObjectCounter({1: "a", 2: "b"}, iou=0.1), ObjectCounter({1: "a", 2: "b"}, iou=0.1)
    whole.update(labels, shapes, values)
    plan = [block.block for block in plan_blocks(*labels.shape, side=side, margin=0)]
    parts.update_by_blocks(
        plan, lambda n: labels[plan[n][0] :, plan[n][1] :][: plan[n][2], : plan[n][3]], shapes, values
    )
    assert parts.scores == whole.scores


GRIDS = {
    "north up": (0.5, 0.0, WEST, 0.0, -0.5, NORTH),
    "south up": (0.5, 0.0, WEST, 0.0, 0.5, NORTH),
    "turned": (0.4, 0.3, WEST, 0.3, -0.4, NORTH),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("crs", [UTM, LON_LAT])
def test_a_map_on_any_grid(tmp_path, grid, crs):
    rng = np.random.default_rng(1)
    labels = np.zeros((600, 1100), np.uint8)  # more than one window
    places = [(40 * i % 1000 + 5, 60 * (i // 20) + 10) for i in range(150)]
    for x, y in places:
        labels[y : y + 20, x : x + 30] = 1 if rng.random() < 0.8 else 0
    transform = rasterio.Affine(*GRIDS[grid])
    pixels = boxes(*[(x + 1, y, x + 31, y + 20) for x, y in dict.fromkeys(places)])
    corners = [shapely.transform(p, lambda points: np.stack(transform @ points.T, 1)) for p in pixels]
    file = write_tiff(tmp_path / "map.tif", labels[None], crs="EPSG:32633", transform=transform)
    scores = MapScores({1: "roof"})
    scores.add(file, layer(in_crs(corners, crs), crs))
    expected = ObjectCounter({1: "roof"})
    expected.update(labels, pixels, np.ones(len(pixels), int))
    assert scores.objects == expected.scores
    assert 50 < scores.objects.matched[0] < len(pixels)
    truth = drawn(pixels, [1] * len(pixels), labels.shape)
    assert scores.pixels().confusion.matrix.tolist() == [
        [int(((truth == t) & (labels == p)).sum()) for p in (0, 1)] for t in (0, 1)
    ]


def test_small_objects_are_measured_in_square_metres(tmp_path):
    labels = np.zeros((40, 40), np.uint8)
    labels[2:8, 2:8] = 1  # 36 pixels of a quarter of a square metre
    labels[20:30, 20:30] = 1
    file = write_tiff(
        tmp_path / "map.tif", labels[None], crs="EPSG:32633", transform=rasterio.Affine(*GRIDS["north up"])
    )
    for least, count in ((8.9, 2), (9.1, 1), (30, 0)):
        scores = MapScores({1: "roof"}, min_area=least)
        scores.add(file, layer(boxes()))
        assert scores.objects.predicted == (count,)


def test_pixels_without_a_prediction_do_not_count(tmp_path):
    labels = np.full((10, 10), 1, np.uint8)
    labels[:2] = 9
    labels[2:4] = 255
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, WEST, 0, -1, NORTH)}
    file = write_tiff(tmp_path / "map.tif", labels[None], nodata=9, **place)
    scores = MapScores({1: "roof"})
    scores.add(file, layer(boxes((WEST, NORTH - 10, WEST + 10, NORTH))))
    found = scores.pixels()
    assert (found.unanswered, found.confusion.matrix.tolist()) == (40, [[0, 0], [0, 60]])
    empty = MapScores({1: "roof"}, ignore=[1, 255])  # a class stays a class
    empty.add(file, layer(boxes()))
    assert empty.pixels().confusion.matrix.tolist() == [[0, 60], [0, 0]]


def test_maps_without_a_place(tmp_path):
    file = write_tiff(tmp_path / "1-2-3.tif", np.ones((1, 4, 4), np.uint8))
    with pytest.raises(DataError, match="no georeference"):
        MapScores({1: "roof"}).add(file, layer(boxes()))
    scores = MapScores({1: "roof"})
    scores.add(file, layer(boxes()), MapPlace(tiles="{x}-{y}-{z}"))
    assert scores.objects.predicted == (1,)


def test_which_values_the_polygons_are():
    plain, named = layer(boxes((0, 0, 1, 1))), {0: "land", 2: "roof", 5: "road"}
    assert evaluated_classes({}, [plain]) == {1: "object"}
    assert evaluated_classes({}, [plain], ["roof"]) == {1: "roof"}
    assert evaluated_classes({}, [plain], ["255"]) == {255: "255"}
    assert evaluated_classes({0: "land", 2: "roof"}, [plain]) == {2: "roof"}
    assert evaluated_classes(named, [plain], ["road"]) == {5: "road"}
    with_names = layer(boxes((0, 0, 1, 1), (1, 1, 2, 2)), classes=array(["roof", 5]))
    assert evaluated_classes(named, [with_names]) == {5: "road", 2: "roof"}
    assert evaluated_classes(named, [with_names], ["roof"]) == {2: "roof"}
    with pytest.raises(DataError, match="has the classes land, roof, road, and the polygons have none"):
        evaluated_classes(named, [plain])
    with pytest.raises(ConfigError, match='no class "rood"; did you mean "roof" or "road"'):
        evaluated_classes(named, [plain], ["rood"])
    with pytest.raises(ConfigError, match="its values have no names"):
        evaluated_classes({}, [with_names])
    with pytest.raises(ConfigError, match="2 classes"):
        evaluated_classes(named, [plain], ["roof", "road"])
