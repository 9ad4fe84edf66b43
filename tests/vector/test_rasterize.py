"""Polygons to label maps: the right pixels on every grid, the same however many rows are drawn at a time."""

import json

import numpy as np
import pyogrio.raw
import pytest
import rasterio.features
import rasterio.warp
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from made_data import write_tiff
from shared import DATA, needs_shared
from torchfpn.classes import ClassMap
from torchfpn.errors import ConfigError, DataError, RasterError
from torchfpn.geo.crs import LON_LAT, crs_wkt, square_metres
from torchfpn.geo.georef import Geo
from torchfpn.geo.tiles import check_pattern, tile_geo
from torchfpn.io.geotiff import Layout, geotiff_writer, write_label_raster
from torchfpn.io.vectors import Vectors, read_vectors
from torchfpn.sources.polygon_classes import PolygonClasses, classes_of_attribute, single_class
from torchfpn.sources.polygons import RasterizeOptions, rasterize_file, strips
from torchfpn.vector.features import trace
from torchfpn.vector.geometry import buffer_by_metres, repair
from torchfpn.vector.rasterize import ASIDE, LabelledPolygons, PixelPolygons, place_polygons, touched_pixels

UTM, DEGREES = CRS.from_epsg(32633).to_wkt(), crs_wkt("EPSG:4326")
GRIDS = {
    "north up": (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_800_000.0),
    "south up": (0.5, 0.0, 500_000.0, 0.0, 0.5, 5_800_000.0),
    "turned": (0.4, 0.3, 500_000.0, 0.3, -0.4, 5_800_000.0),
    "mirrored, not square": (-0.5, 0.0, 500_000.0, 0.0, -2.0, 5_800_000.0),
}
SIZE = (90, 70)


def vectors(shapes, crs=UTM, column=None):
    shapes = np.array(shapes, dtype=object)
    return Vectors("labels.gpkg", shapes, np.zeros(len(shapes), bool), column, crs)


def ready(shapes, crs=UTM, values=None, **options):
    held = vectors(shapes, crs)
    values = np.ones(len(shapes), np.int64) if values is None else np.array(values)
    return LabelledPolygons("labels.gpkg", repair(held, **options), values, crs)


def classes(top=1):
    return PolygonClasses(ClassMap.of({value: f"class{value}" for value in range(top + 1)}))


def drawn(labels, geo, size=SIZE, *, border=0.0, **options):
    """Label values [H, W], and how many pixels were covered twice."""
    ignored = classes(int(labels.labels.max(initial=1))).ignore_value
    scene = place_polygons(labels, geo, size, ignored=ignored, border=border)
    blocks = list(strips(scene, **options))
    assert [row for row, _, _ in blocks] == list(range(0, size[0], len(blocks[0][1])))
    return np.concatenate([block for _, block, _ in blocks]), sum(doubled for _, _, doubled in blocks)


def on_grid(shape, transform):
    """A shape in pixels -> the same in the coordinate system of the grid."""
    a, b, c, d, e, f = transform
    matrix, origin = np.array([[a, d], [b, e]]), (c, f)
    return shapely.transform(shape, lambda points: points @ matrix + origin)


def random_shapes(seed, size=SIZE, count=25):
    """Valid polygons in pixels, on and around a map; corners on pixel corners, on pixel centres, or anywhere."""
    rng = np.random.default_rng(seed)
    shapes = []
    while len(shapes) < count:
        middle, reach = rng.uniform(-20, max(size) + 20, 2), rng.uniform(1, 40)
        points = middle + rng.uniform(-reach, reach, (rng.integers(3, 9), 2))
        points = [points.round(), (2 * points).round() / 2, points][seed % 3]
        shape = shapely.make_valid(shapely.Polygon(points), method="structure", keep_collapsed=False)
        shapes += [shape] if shape.area > 0 else []
    return shapes


def scene_of(shapes, values, size=SIZE):
    parts, owners = shapely.get_parts(np.array(shapes, dtype=object), return_index=True)
    return PixelPolygons(parts, owners, np.asarray(values)[owners], parts[:0], 255, size)


@pytest.mark.parametrize("grid", GRIDS)
def test_traced_again_the_map_gives_the_rectangles_back(grid):
    geo = Geo(UTM, GRIDS[grid])
    boxes = [shapely.box(3, 5, 20, 9), shapely.box(30, 0, 31, 90), shapely.box(40, 10, 70, 80)]
    labels, doubled = drawn(ready([on_grid(box, geo.transform) for box in boxes], values=[1, 2, 3]), geo)
    found = trace(labels, None, {1: "a", 2: "b", 3: "c"}, coordinates="pixels")
    assert [feature.value for feature in found] == [1, 2, 3]
    assert all(feature.polygon.equals(box) for feature, box in zip(found, boxes, strict=True))
    assert doubled == 0


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("pixel", [0.1, 0.3, 1 / 3])
def test_rectangles_on_pixel_borders_are_exact_whatever_the_size_of_the_pixel(grid, pixel):
    transform = tuple(value * (pixel if i not in (2, 5) else 1) for i, value in enumerate(GRIDS[grid]))
    box = on_grid(shapely.box(7, 11, 50, 61), transform)
    for touching in (False, True):
        labels, _ = drawn(ready([box]), Geo(UTM, transform), all_touched=touching)
        assert labels.sum() == labels[11:61, 7:50].sum() == 43 * 50


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 7, 64]), st.booleans())
def test_rows_drawn_apart_are_those_of_the_whole(seed, rows, touching):
    shapes = random_shapes(seed)
    scene = scene_of(shapes, 1 + np.arange(len(shapes)) % 3)
    ((_, whole, doubled),) = strips(scene, all_touched=touching, rows=10**6)
    parts = list(strips(scene, all_touched=touching, rows=rows, at_once=3 * SIZE[1]))
    assert np.array_equal(np.concatenate([block for _, block, _ in parts]), whole)
    assert sum(count for _, _, count in parts) == doubled


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_the_map_is_that_of_rasterio_on_the_whole_raster(seed):
    shapes = random_shapes(seed)
    values = 1 + np.arange(len(shapes)) % 3
    aside = rasterio.Affine.translation(-ASIDE[0], -ASIDE[1])  # these shapes have edges through centres
    expected = rasterio.features.rasterize(zip(shapes, values, strict=True), SIZE, transform=aside, dtype=np.uint16)
    blocks = [block for _, block, _ in strips(scene_of(shapes, values), rows=8)]
    assert np.array_equal(np.concatenate(blocks), expected)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_map_is_that_of_rasterio_on_the_grid_itself(grid):
    geo = Geo(UTM, GRIDS[grid])
    shapes = [on_grid(shape, geo.transform) for shape in random_shapes(2)]
    expected = rasterio.features.rasterize(shapes, SIZE, transform=rasterio.Affine(*geo.transform))
    assert np.array_equal(drawn(ready(shapes), geo, rows=16)[0], expected)


@pytest.mark.parametrize("seed", range(6))
def test_touched_pixels_are_those_whose_inside_meets_the_polygon(seed):
    shapes = random_shapes(seed, count=3)
    ((_, labels, _),) = strips(scene_of(shapes, [1, 1, 1]), all_touched=True, rows=100)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    pixels = shapely.box(columns, rows, columns + 1, rows + 1)
    inside = np.zeros(SIZE)
    for shape in shapes:
        shapely.prepare(shape)
        meets = shapely.intersects(shape, pixels)
        inside[meets] = np.maximum(inside[meets], shapely.area(shapely.intersection(shape, pixels[meets])))
    assert not labels[inside == 0].any()
    assert labels[inside > 1e-6].all()


def test_a_sliver_touches_without_holding_a_centre():
    sliver = shapely.box(2.1, 3.1, 60.2, 3.2)
    assert drawn(ready([on_grid(sliver, GRIDS["turned"])]), Geo(UTM, GRIDS["turned"]))[0].sum() == 0
    labels, _ = drawn(ready([on_grid(sliver, GRIDS["turned"])]), Geo(UTM, GRIDS["turned"]), all_touched=True)
    assert labels.sum() == labels[3, 2:61].sum() == 59
    assert len(touched_pixels(np.array([], dtype=object), (0, 9), 9)[0]) == 0


@pytest.mark.parametrize("grid", GRIDS)
def test_reprojected_labels_land_within_a_pixel(grid):
    geo = Geo(UTM, GRIDS[grid])
    boxes = [on_grid(shapely.box(3, 5, 20, 9), geo.transform), on_grid(shapely.box(30, 20, 60, 80), geo.transform)]
    straight, _ = drawn(ready(boxes), geo)
    for crs in ("EPSG:4326", "EPSG:3857", "EPSG:3035"):
        points = shapely.get_coordinates(boxes)
        moved = shapely.set_coordinates(boxes.copy(), np.stack(rasterio.warp.transform(UTM, crs, *points.T), 1))
        labels, _ = drawn(ready(moved, crs_wkt(crs)), geo)
        away = shapely.boundary(shapely.union_all([shapely.box(3, 5, 20, 9), shapely.box(30, 20, 60, 80)]))
        row, column = np.nonzero(labels != straight)
        assert (shapely.distance(shapely.points(column + 0.5, row + 0.5), away) < 1).all()
        assert abs(int(labels.sum()) - int(straight.sum())) <= 10


def test_long_edges_follow_the_coordinate_system_of_the_labels():
    """A parallel is straight in degrees and bent by 500 m in UTM over five degrees."""
    geo = Geo(UTM, (100.0, 0.0, 300_000.0, 0.0, -100.0, 5_900_000.0))
    below = shapely.box(11.5, 50.0, 18.5, 52.95)
    labels, _ = drawn(ready([below], DEGREES), geo, (400, 4000))
    columns = np.arange(0, 4000, 50)
    x, y = 300_000 + 100 * (columns + 0.5), 5_900_000 - 100 * (np.argmax(labels[:, columns] > 0, axis=0))
    _, latitudes = rasterio.warp.transform(UTM, DEGREES, x, y)
    assert np.abs(np.array(latitudes) - 52.95).max() < 0.6 * 100 / 111_000 + 1e-4
    assert np.ptp(y) > 1000


def test_polygons_larger_than_the_world_of_the_image_are_cut():
    geo = Geo(UTM, GRIDS["north up"])
    labels, _ = drawn(ready([shapely.box(-180, -90, 180, 90)], DEGREES), geo)  # UTM has no place for most of it
    assert labels.all()
    far = shapely.box(-1e9, 0, 1e9, 1e9)
    labels, _ = drawn(ready([far]), geo)
    assert labels.all()


def test_places_that_do_not_exist_are_refused():
    pole = Geo(crs_wkt("EPSG:3995"), (1000.0, 0.0, -35_000.0, 0.0, -1000.0, 45_000.0))
    with pytest.raises(RasterError, match=r"no place|cannot be brought") as caught:
        drawn(ready([shapely.box(0, 80, 10, 100)], DEGREES), pole)
    assert "\n" not in str(caught.value)


def test_later_features_win_and_pixels_of_two_classes_are_counted():
    geo = Geo(UTM, GRIDS["north up"])
    boxes = [on_grid(shapely.box(*b), geo.transform) for b in ((0, 0, 10, 10), (5, 5, 15, 15), (6, 6, 8, 8))]
    labels, doubled = drawn(ready(boxes, values=[1, 2, 2]), geo)
    assert doubled == 25
    assert (labels == 2).sum() == 100
    labels, doubled = drawn(ready(boxes[::-1], values=[2, 2, 1]), geo)
    assert doubled == 25
    assert (labels == 1).sum() == 100
    assert drawn(ready(boxes), geo)[1] == 0


def test_borders_are_not_labelled():
    geo = Geo(UTM, GRIDS["north up"])
    boxes = [on_grid(shapely.box(*b), geo.transform) for b in ((10, 10, 20, 20), (20, 10, 30, 20))]
    labels, _ = drawn(ready(boxes), geo, border=1.0, rows=16)
    assert (labels[11:19, 11:19] == 1).all()
    assert (labels[12:18, 19:21] == 255).all()
    assert (labels == 1).sum() == 2 * 64
    assert (labels == 255).sum() == 22 * 12 - 128


@pytest.mark.parametrize("crs", [UTM, DEGREES], ids=["the same", "degrees"])
def test_borders_agree_at_the_seam_of_two_images(crs):
    """An outline two pixels beside an image has its border in it, too; the truth is one image of both."""
    geo = Geo(UTM, GRIDS["north up"])
    boxes = [on_grid(shapely.box(*b), geo.transform) for b in ((5, 10, 28, 20), (32, 12, 50, 22), (3, 40, 50, 50))]
    boxes = boxes if crs == UTM else [shapely.transform(box, to_lon_lat) for box in boxes]
    held = ready(boxes, crs)
    whole, _ = drawn(held, geo, (60, 60), border=4.0)
    assert (whole[8:22, 26:34] == 255).any(axis=0).all()
    for column in (0, 30):
        part, _ = drawn(held, geo.part(0, column), (60, 30), border=4.0)
        assert np.array_equal(part, whole[:, column : column + 30])
        scene = place_polygons(held, geo.part(0, column), (60, 30), ignored=classes().ignore_value, border=4.0)
        assert scene.owners.tolist() == [[0, 2], [1, 2]][column // 30]  # what is beside the image is not on it


@pytest.mark.parametrize(
    ("code", "place"), [(32701, (180.0, -17.0)), (3832, (180.0, -17.0)), (4326, (180.0, -17.0)), (3031, (180.0, -90.0))]
)
def test_the_180th_meridian_where_geojson_cuts_polygons_is_no_outline(code, place):
    """The truth is the same polygon uncut; around the pole a circle, which GeoJSON slits open along the meridian."""
    (x,), (y,) = rasterio.warp.transform(DEGREES, CRS.from_epsg(code), *np.reshape(place, (2, 1)))
    pixel = 0.01 if code == 4326 else 1000.0
    geo = Geo(CRS.from_epsg(code).to_wkt(), (pixel, 0.0, x - 30 * pixel, 0.0, -pixel, y + 30 * pixel))
    west, east = shapely.box(179.85, -17.15, 180, -16.9), shapely.box(-180, -17.15, -179.9, -16.9)
    if code == 3031:
        cut = shapely.Polygon([(-180, -90), *((lon, -89.8) for lon in range(-180, 181)), (180, -90)])
        whole, crs = ready([shapely.Point(0, 0).buffer(21_700)], geo.crs), DEGREES
    else:
        cut, whole, crs = (
            shapely.MultiPolygon([west, east]),
            ready([shapely.box(179.85, -17.15, 180.1, -16.9)], DEGREES),
            DEGREES,
        )
    found, _ = drawn(ready([cut], crs), geo, (60, 60), border=2.0)
    truth, _ = drawn(whole, geo, (60, 60), border=2.0)
    assert (truth == 1).sum() > 100
    assert (found != truth).sum() <= 40 * (code == 3031)  # whose circle is about as large


def test_the_cut_around_an_image_is_no_outline():
    """A country around a tile, in another coordinate system: no outline within 100 pixels, whatever is cut off it."""
    geo = Geo(UTM, GRIDS["north up"])
    country = shapely.transform(shapely.box(400_000, 5_700_000, 600_000, 5_900_000).segmentize(1e4), to_lon_lat)
    labels, _ = drawn(ready([country], DEGREES), geo, (64, 64), border=100.0)
    assert (labels == 1).all()


def to_lon_lat(points):
    return np.stack(rasterio.warp.transform(UTM, "OGC:CRS84", *points.T), 1)


def test_rings_are_mended_and_collections_opened():
    bow = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    doubled = shapely.MultiPolygon([shapely.box(20, 0, 30, 10), shapely.box(25, 0, 35, 10)])
    nested = shapely.GeometryCollection([shapely.GeometryCollection([shapely.box(40, 0, 50, 10)])])
    flat = shapely.Polygon([(0, 0), (1, 1), (2, 2)])
    found = repair(vectors([bow, doubled, None, nested, shapely.Polygon(), flat]))
    assert (found.invalid, found.lost) == (1, 3)
    assert found.features.tolist() == [0, 1, 1, 3]
    assert shapely.is_valid(found.shapes).all()
    assert shapely.area(found.shapes).tolist() == [50, 100, 100, 100]
    geo = Geo(UTM, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    labels, _ = drawn(ready([doubled]), geo)
    assert labels.sum() == 15 * 10  # joined: the overlap is no hole


def windings(ring, points):
    """How often a closed ring [N, 2] runs around each point [M, 2]: the sum over the sides to the right of it."""
    (x1, y1), (x2, y2) = ring.T[..., None], np.roll(ring, -1, 0).T[..., None]
    left = (x2 - x1) * (points[:, 1] - y1) - (points[:, 0] - x1) * (y2 - y1)
    up = (y1 <= points[:, 1]) & (points[:, 1] < y2) & (left > 0)
    down = (y2 <= points[:, 1]) & (points[:, 1] < y1) & (left < 0)
    return up.sum(0) - down.sum(0)


@pytest.mark.parametrize(
    "ring",
    [
        [(0, 0), (10, 10), (10, 0), (0, 10)],
        [(5 + 5 * np.sin(0.8 * np.pi * i), 5 + 5 * np.cos(0.8 * np.pi * i)) for i in range(5)],
        [(0, 0), (10, 0), (10, 10), (0, 10), (0, 2), (8, 2), (8, 8), (2, 8), (2, 1), (0, 1)],
        [(0, 0), (10, 0), (10, 10), (0, 10), (0, 0), (3, 3), (3, 6), (6, 6), (6, 3), (3, 3)],
        np.random.default_rng(1).uniform(0, 10, (12, 2)).tolist(),
    ],
    ids=["bow tie", "star", "twice around", "once each way", "random"],
)
def test_rings_that_cross_themselves_follow_the_nonzero_rule(ring):
    points = np.random.default_rng(0).uniform(0, 10, (2000, 2))
    (found,) = repair(vectors([shapely.Polygon(ring)])).shapes
    inside = windings(np.array(ring, float), points) != 0
    assert np.array_equal(shapely.contains_xy(found, *points.T), inside)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32633", "EPSG:2263"])
def test_widths_are_metres_on_the_ground(crs):
    place = {"EPSG:2263": (-74.0, 40.7)}.get(crs, (15.0, 60.0))
    x, y = (values[0] for values in rasterio.warp.transform(LON_LAT, crs, [place[0]], [place[1]]))
    (circle,) = buffer_by_metres(np.array([shapely.Point(x, y)], dtype=object), crs_wkt(crs), 50.0)
    points = shapely.get_coordinates(circle)
    degrees = shapely.set_coordinates(circle, np.stack(rasterio.warp.transform(crs, LON_LAT, *points.T), 1))
    assert square_metres(degrees) == pytest.approx(np.pi * 50**2, rel=0.01)


def test_lines_and_points_without_a_width_are_refused():
    mixed = [shapely.box(0, 0, 1, 1), shapely.LineString([(0, 0), (9, 9)]), shapely.Point(1, 1), shapely.Point(2, 1)]
    with pytest.raises(DataError, match=r"1 lines and 2 points among 4 features; expected polygons; .*--buffer"):
        repair(vectors(mixed))
    found = repair(vectors([shapely.affinity.translate(s, 500_000, 5_800_000) for s in mixed]), buffer=2.0)
    assert found.widened == 3
    assert (shapely.area(found.shapes) > 0).all()


def test_polygons_of_one_class():
    assert single_class().classes.name_of == {0: "background", 1: "object"}
    white = single_class(["no", "yes"], 255)
    assert white.classes.name_of == {0: "no", 255: "yes"}
    assert (white.ignore_value, white.dtype) == (65535, "uint16")
    assert single_class(["a", "b", "c"], 2).classes.name_of == {0: "a", 1: "b", 2: "c"}
    for names, burn in ((["a", "b", "c"], 3), ([], 0), ([], 65536), (["a"], 1), (["a", "a"], 1), (["a", ""], 1)):
        with pytest.raises(ConfigError):
            single_class(names, burn)


def test_classes_of_an_attribute():
    def of(*values, names=()):
        held = vectors([None] * len(values), column=np.array(values, dtype=object))
        return classes_of_attribute("kind", [held], names)

    assert of("road", "field", "road").attribute_values == {"road": 2, "field": 1}
    assert of("road", "background").classes.name_of == {0: "background", 1: "road"}
    assert of(7, 3).classes.name_of == {0: "background", 3: "3", 7: "7"}
    assert of("road", names=["none", "road"]).attribute_values == {"road": 1}
    assert of(2, "road", names=["none", "road", "field"]).attribute_values == {2: 2, "road": 1}
    for values in ((-1,), (70_000,), tuple(range(256))):
        with pytest.raises(DataError):
            of(*values)


def test_unknown_and_missing_values_name_the_nearest():
    held = vectors([None] * 3, column=np.array(["buildinx", "building", "buildinx"], dtype=object))
    known = classes_of_attribute("kind", [held], ["background", "building"])
    with pytest.raises(DataError, match=r'kind: no class "buildinx" in 2 features; did you mean "building"\?'):
        known.label_values(held)
    held.column[:] = ["building", None, "building"]
    with pytest.raises(DataError, match="1 feature without a value"):
        known.label_values(held)


@pytest.mark.parametrize("size", [(30, 40), (600, 1100), (2000, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_streamed_file_is_the_one_written_whole(tmp_path, size, dtype):
    top = 255 if dtype == "uint8" else 300
    labels = np.random.default_rng(0).integers(0, 3, size).astype(dtype)
    labels[-1, -1] = top
    names, colors, geo = {0: "none", 1: "Straße"}, {0: (1, 2, 3), 1: (4, 5, 6)}, Geo(UTM, GRIDS["turned"])
    layout = Layout(*size, dtype, geo=geo, nodata=top, colors=colors, classes=names)
    with geotiff_writer(tmp_path / "a.tif", layout) as write:
        for row in range(0, size[0], 512):
            write(row, 0, labels[row : row + 512])
    write_label_raster(tmp_path / "b.tif", labels, geo=geo, colors=colors, names=names, nodata=top)
    with rasterio.open(tmp_path / "a.tif") as a, rasterio.open(tmp_path / "b.tif") as b:
        assert np.array_equal(a.read(), b.read())
        assert a.profile == b.profile
        assert a.colormap(1) == b.colormap(1)
        assert (a.tags(), a.tags(1)) == (b.tags(), b.tags(1))
        assert a.colorinterp == b.colorinterp


def test_a_stream_that_breaks_leaves_nothing(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"before")

    def broken():
        with geotiff_writer(tmp_path / "a.tif", Layout(600, 600, "uint8")) as write:
            write(0, 0, np.zeros((512, 600), np.uint8))
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        broken()
    assert (tmp_path / "a.tif").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_memory_does_not_grow_with_the_height(tmp_path):
    """Rows are drawn `AT_ONCE` pixels at a time: the map itself is never there."""
    scene = scene_of([shapely.box(0, 0, 3000, 10**7)], [1], (10**7, 3000))  # 30 GB
    blocks = strips(scene)
    row, block, _ = next(blocks)
    assert (row, block.shape) == (0, (512, 3000))
    wide = strips(scene_of([shapely.box(0, 0, 10**6, 9)], [1], (9, 10**6)), at_once=10**5)
    assert next(wide)[1].sum() == 9 * 10**6


def test_formats_of_vector_files(tmp_path):
    shape = shapely.box(500_001, 5_799_990, 500_010, 5_799_999)
    for name, driver in (("a.gpkg", "GPKG"), ("a.fgb", "FlatGeobuf"), ("a.shp", "ESRI Shapefile"), ("a.geojson", None)):
        write_vectors(tmp_path / name, [shape], {"kind": ["road"]}, driver=driver or "GeoJSON")
        held = read_vectors(tmp_path / name, field="kind")
        assert held.column.tolist() == ["road"]
        assert held.shapes[0].equals(shape)
        assert CRS.from_wkt(held.crs) == CRS.from_epsg(32633)
    with pytest.raises(DataError, match='no field "kinds"; did you mean "kind"'):
        read_vectors(tmp_path / "a.gpkg", field="kinds")


def test_layers_are_chosen_by_name(tmp_path):
    for layer in ("roads", "roofs"):
        write_vectors(tmp_path / "a.gpkg", [shapely.box(0, 0, 1, 1)], {"k": [layer]}, layer=layer, append=True)
    with pytest.raises(DataError, match=r"2 layers \(roads, roofs\); choose one with --layer"):
        read_vectors(tmp_path / "a.gpkg")
    assert read_vectors(tmp_path / "a.gpkg", layer="roofs", field="k").column.tolist() == ["roofs"]
    with pytest.raises(DataError, match='did you mean "roofs"'):
        read_vectors(tmp_path / "a.gpkg", layer="roof")


def test_tiles_of_a_web_map(tmp_path):
    geo = tile_geo("map/1/1/0.png", "{z}/{x}/{y}", (256, 256))
    assert geo.world(0, 256) == pytest.approx((0, 0), abs=1e-6)
    assert geo.world(256, 0) == pytest.approx((20037508.342789244,) * 2)
    assert tile_geo("a/OAM-1-0-1.tif", "OAM-{x}-{y}-{z}", (256, 256)) == geo
    for path in ("map/1/2/0.png", "map/99/1/0.png", "map/a/1/0.png", "1x1x0.png"):
        with pytest.raises(RasterError):
            tile_geo(path, "{z}/{x}/{y}", (256, 256))
    for pattern in ("{z}/{x}", "{z}/{x}/{x}/{y}", "{z}/{x}/{y}/{q}", ""):
        with pytest.raises(ConfigError):
            check_pattern(pattern)


@needs_shared
def test_real_buildings_in_another_coordinate_system(tmp_path):
    """SpaceNet's tile: the same map from its own labels and from labels in degrees, but for a pixel at the outlines."""
    folder = DATA / "spacenet-atlanta-sample"
    held = read_vectors(folder / "buildings.geojson")
    points = shapely.get_coordinates(held.shapes)
    degrees = np.stack(rasterio.warp.transform(held.crs, LON_LAT, *points.T), axis=1)
    moved = shapely.set_coordinates(held.shapes.copy(), degrees)
    maps = []
    for name, shapes, crs in (("a", held.shapes, held.crs), ("b", moved, crs_wkt(LON_LAT))):
        labels = LabelledPolygons("x", repair(vectors(shapes, crs)), np.ones(len(shapes), np.int64), crs)
        target = tmp_path / f"{name}.tif"
        outcome = rasterize_file(folder / "image.tif", target, labels, single_class(), RasterizeOptions())
        assert outcome.features.all()
        with rasterio.open(target) as drawn_map, rasterio.open(folder / "image.tif") as image:
            maps.append(drawn_map.read(1))
            assert (drawn_map.shape, drawn_map.transform, drawn_map.crs) == (image.shape, image.transform, image.crs)
            expected = rasterio.features.rasterize(held.shapes, image.shape, transform=image.transform)
    assert np.array_equal(maps[0], expected)
    assert (maps[0] != maps[1]).sum() <= 5
    assert maps[0].sum() == pytest.approx(shapely.area(held.shapes).sum() / 0.25, rel=0.2)  # some reach out of the tile


@needs_shared
def test_real_buildings_on_tiles_lie_on_roofs(tmp_path):
    """Banepa: the share of building pixels that its README names, and all labels met."""
    folder = DATA / "buildings-banepa" / "val"
    held = read_vectors(folder / "buildings.geojson")
    labels = LabelledPolygons("x", repair(held), np.ones(len(held.shapes), np.int64), held.crs)
    met = np.zeros(len(held.shapes), bool)
    for image in sorted((folder / "images").iterdir()):
        target = tmp_path / image.name
        outcome = rasterize_file(image, target, labels, single_class(), RasterizeOptions(tiles="OAM-{x}-{y}-{z}"))
        assert 0.15 < outcome.pixels[1] / 512**2 < 0.7
        met |= outcome.features
    assert met.all()


def write_vectors(path, shapes, fields=None, *, crs="EPSG:32633", driver="GPKG", kind="Polygon", **options):
    """A vector file of these shapes; None writes no geometry."""
    fields = fields or {"n": list(range(len(shapes)))}
    wkb = np.array([shape if shape is None else shapely.to_wkb(shape) for shape in shapes], dtype=object)
    data = [np.array(values) for values in fields.values()]
    pyogrio.raw.write(path, wkb, data, list(fields), crs=crs, driver=driver, geometry_type=kind, **options)
    return path


def test_a_file_in_degrees_drawn_on_an_image_in_metres(tmp_path):
    write_tiff(
        tmp_path / "a.tif",
        np.zeros((1, 90, 70), np.uint8),
        crs="EPSG:32633",
        transform=rasterio.Affine(*GRIDS["north up"]),
    )
    corner = rasterio.warp.transform("EPSG:32633", LON_LAT, [500_005.0, 500_015.0], [5_799_995.0, 5_799_985.0])
    box = shapely.box(corner[0][0], corner[1][1], corner[0][1], corner[1][0])
    collection = {"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry": None}]}
    collection["features"][0]["geometry"] = shapely.geometry.mapping(box)
    (tmp_path / "a.geojson").write_text(json.dumps(collection))
    held = read_vectors(tmp_path / "a.geojson")
    labels = LabelledPolygons("a", repair(held), np.ones(1, np.int64), held.crs)
    outcome = rasterize_file(tmp_path / "a.tif", tmp_path / "out.tif", labels, single_class(), RasterizeOptions())
    assert outcome.pixels == {0: 90 * 70 - 400, 1: 400}
