"""Polygons between coordinate reference systems, as fpn polygons, rasterize and evaluate move them.

The reference is PROJ, asked for each pixel: a pixel belongs to a polygon if its centre, brought into the CRS of the
polygon, lies inside. Areas are those of an equal-area projection of the true curve, with many points on each edge.
"""

import json

import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely
from rasterio.crs import CRS

from made_data import write_tiff
from torchfpn.cli.main import main
from torchfpn.geo.crs import LON_LAT
from torchfpn.geo.georef import Geo
from torchfpn.io.geotiff import write_label_raster
from torchfpn.io.vector_writing import write_layer
from torchfpn.io.vectors import read_vectors

NAMES = {1: "a", 2: "b", 3: "c"}


def run(*words):
    assert main([*map(str, words)]) == 0


def moved(points, source, target):
    return np.stack(rasterio.warp.transform(source, target, *np.asarray(points, float).reshape(-1, 2).T), axis=1)


def crs(code):
    return CRS.from_user_input(code)


def outlined(folder, labels, code, transform, *words, kind="geojson"):
    """The shapes and areas that fpn polygons writes of a label map, and the map that fpn rasterize draws of them."""
    source, layer = folder / "map.tif", folder / f"layer.{kind}"
    write_label_raster(source, labels, geo=Geo(crs(code).to_wkt(), transform), names=NAMES)
    run("polygons", source, layer, "--overwrite", *words)
    run("rasterize", layer, source, "--out", folder / "back", "--field", "class_id", "--overwrite")
    found = read_vectors(layer, field="area")
    with rasterio.open(folder / "back" / "map.tif") as back:
        return found.shapes, found.column.astype(float), back.read(1)


def true_area(mask, code, transform, cells=40):
    """Square metres of the pixels of a mask on an equal-area plane, with `cells` points on each side of a pixel row."""
    total = 0.0
    for polygon, _ in rasterio.features.shapes(mask.astype(np.uint8), mask=mask, transform=rasterio.Affine(*transform)):
        ring = shapely.segmentize(shapely.geometry.shape(polygon), max(abs(transform[0]), abs(transform[4])) / cells)
        points = moved(shapely.get_coordinates(ring), crs(code), LON_LAT)
        points[:, 0] = np.degrees(np.unwrap(np.radians(points[:, 0])))
        plane = CRS.from_proj4(f"+proj=cea +lon_0={points[:, 0].mean():.9f} +datum=WGS84")
        plain = moved(points, LON_LAT, plane)
        total += shapely.set_coordinates(shapely.from_wkb(ring.wkb), plain).area
    return total


def drawn(folder, shape, code, image_code, transform, size, kind="gpkg"):
    """What fpn rasterize draws of a polygon on the grid of an image; and which pixels hold it by their centres."""
    image = folder / "image.tif"
    write_tiff(image, np.zeros((1, *size), np.uint8), crs=crs(image_code), transform=rasterio.Affine(*transform))
    write_layer(folder / f"one.{kind}", [(shape, (1,))], {"n": int}, crs=crs(code).to_wkt(), multi=True)
    run("rasterize", folder / f"one.{kind}", image, "--out", folder / "drawn", "--overwrite")
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    a, _, c, _, e, f = transform
    centres = np.stack([a * columns.ravel() + c, e * rows.ravel() + f], axis=1)
    places = moved(centres, crs(image_code), crs(code))
    if image_code == 8857:  # beyond the curve where the map ends there is nothing
        places[np.abs(moved(places, crs(code), crs(image_code)) - centres).max(axis=1) > 1] = np.inf
    if crs(code).is_geographic:  # a polygon may go on beyond 180
        places = np.concatenate([places + np.array([turn, 0.0]) for turn in (-360, 0, 360)])
    inside = shapely.contains_xy(shape, places).reshape(-1, *size).any(axis=0)
    with rasterio.open(folder / "drawn" / "image.tif") as source:
        return source.read(1) > 0, inside


def test_long_sides_of_a_map_come_back_as_they_were(tmp_path):
    """EPSG:32632 at 60 N: the sides of three rectangles are bent by 180 m, 18 pixels, in longitude and latitude."""
    labels = np.zeros((90, 10_980), np.uint8)
    labels[:30], labels[30:60], labels[60:, :5000] = 1, 2, 3
    labels[31, 300] = 1  # a hole of one pixel near a long side
    transform = (10.0, 0.0, 399_960.0, 0.0, -10.0, 6_700_020.0)
    shapes, areas, back = outlined(tmp_path, labels, 32632, transform)
    assert (back != labels).sum() == 0
    assert shapely.coverage_is_valid(shapes)
    assert sum(len(shape.interiors) for shape in shapes) == 1
    _, again, _ = outlined(tmp_path, labels, 32632, transform, kind="gpkg")
    truth = [true_area(labels == value, 32632, transform, 1) for value in (1, 2, 3)]
    assert sum(areas) == pytest.approx(sum(truth), rel=1e-6)
    assert sorted(areas) == pytest.approx(sorted(again), rel=1e-6)
    assert areas[np.argmin(np.abs(areas - truth[2]))] == pytest.approx(truth[2], rel=1e-5)
    assert sum(len(shapely.get_coordinates(shape)) for shape in shapes) < 600


def test_neighbours_with_borders_that_end_on_a_long_side_do_not_overlap(tmp_path):
    labels = np.kron(np.array([[1] * 8, [2, 3, 2, 1, 2, 3, 1, 2]]), np.ones((20, 250))).astype(np.uint8)
    shapes, _, back = outlined(tmp_path, labels, 3035, (10.0, 0.0, 2.7e6, 0.0, -10.0, 4.6e6), "--min-area", "500")
    assert (back != labels).sum() == 0
    assert shapely.coverage_is_valid(shapes)


@pytest.mark.parametrize(
    ("code", "lat"), [(3857, 85.0), (3395, 85.0), (6933, 85.0), (4087, 85.0), (3832, 80.0), (8857, None)]
)
def test_maps_of_the_whole_earth_in_metres(tmp_path, code, lat):
    """Wider than 180 degrees is not across the 180th meridian."""
    middle = 150.0 if code == 3832 else 0.0
    half = moved([middle + 179.9999999, 0.0], LON_LAT, crs(code))[0, 0]
    top = (
        0.8 * moved([0.0, 80.0], LON_LAT, crs(code))[0, 1] if lat is None else moved([0, lat], LON_LAT, crs(code))[0, 1]
    )
    width, height = 80, 40
    transform = (2 * half / width, 0.0, -half, 0.0, -2 * top / height, top)
    labels = np.zeros((height, width), np.uint8)
    labels[10:20] = 1  # all around the earth
    labels[22:30, 5:75] = 2
    labels[24:27, 30:50] = 0
    if lat is None:  # the cut of an Equal Earth map is no straight line
        labels[:, :18], labels[:, -18:] = 0, 0
    shapes, areas, back = outlined(tmp_path, labels, code, transform)
    assert (back != labels).sum() == 0
    assert len(shapes) == 2
    assert shapely.area(shapes).min() > 2000  # square degrees
    if code == 6933:
        pixel = transform[0] * -transform[4]
        assert sorted(areas) == pytest.approx([(8 * 70 - 60) * pixel, 800 * pixel], rel=1e-4)


FIJI = shapely.box(178.5, -18.5, 181.2, -16.0)  # longitudes go on beyond 180


def in_crs(shape, code):
    dense = shapely.segmentize(shape, 0.05)
    return shapely.set_coordinates(dense, moved(shapely.get_coordinates(dense), LON_LAT, crs(code)))


@pytest.mark.parametrize("code", [3460, 32660, 3832, 2193])
def test_polygons_across_180_on_an_image_that_ends_there(tmp_path, code):
    found, truth = drawn(tmp_path, in_crs(FIJI, code), code, 4326, (0.1, 0.0, 175.0, 0.0, -0.1, -14.0), (60, 50))
    assert truth.sum() == 15 * 25
    assert (found != truth).sum() == 0


@pytest.mark.parametrize("code", [3857, 3832, 8857, 4087])
def test_polygons_across_180_on_other_images_that_end_there(tmp_path, code):
    """The cut of EPSG:3832 lies at 30 W; that of Equal Earth is a curve."""
    end = -30.0 if code == 3832 else 180.0
    shape = shapely.box(end - 1.5, -18.5, end + 1.2, -16.0)
    (west, _), (east, north), (_, south) = moved(
        [(end - 5, -14), (end - 1e-7, -14), (end - 1, -20)], LON_LAT, crs(code)
    )
    east = max(west, east)
    transform = ((east - west) / 50, 0.0, west, 0.0, (south - north) / 60, north)
    found, truth = drawn(tmp_path, shape, 4326, code, transform, (60, 50))
    assert truth.sum() > 300
    assert (found != truth).sum() == 0


@pytest.mark.parametrize("code", ["ESRI:54009", "ESRI:54030", "ESRI:54012"])
def test_a_polygon_across_180_on_a_map_of_the_world_by_esri(tmp_path, code):
    """Mollweide, Robinson, Eckert IV, which call a degree "Degree": cut at 180, as the two halves of it lie."""
    halves = [shapely.box(170, -30, 180 - 1e-9, -10), shapely.box(-180 + 1e-9, -30, -170, -10)]
    points = [np.stack([x, y], axis=1) for x, y in (half.segmentize(0.1).exterior.xy for half in halves)]
    truth = [shapely.Polygon(moved(each, LON_LAT, crs(code))) for each in points]
    write_tiff(
        tmp_path / "image.tif",
        np.zeros((1, 91, 181), np.uint8),
        crs=crs(code),
        transform=rasterio.Affine(2e5, 0, -18.1e6, 0, -2e5, 9.1e6),
    )
    write_layer(tmp_path / "one.gpkg", [(shapely.box(170, -30, 190, -10), (1,))], {"n": int}, crs=crs(4326).to_wkt())
    run("rasterize", tmp_path / "one.gpkg", tmp_path / "image.tif", "--out", tmp_path / "drawn")
    rows, columns = np.mgrid[:91, :181] + 0.5
    inside = [shapely.contains_xy(half, 2e5 * columns - 18.1e6, 9.1e6 - 2e5 * rows) for half in truth]
    with rasterio.open(tmp_path / "drawn" / "image.tif") as source:
        assert np.array_equal(source.read(1) > 0, inside[0] | inside[1])
    assert min(half.sum() for half in inside) > 40


def test_a_polygon_in_greenwich_on_a_map_of_the_pacific(tmp_path):
    middle = moved([0.0, 51.5], LON_LAT, crs(3832))[0]
    transform = (5000.0, 0.0, middle[0] - 100_000, 0.0, -5000.0, middle[1] + 100_000)
    found, truth = drawn(tmp_path, shapely.box(-0.5, 51.0, 0.5, 52.0), 4326, 3832, transform, (40, 40))
    assert truth.sum() > 300
    assert (found != truth).sum() == 0


def test_a_map_from_0_to_360_takes_polygons_from_minus_180_to_180(tmp_path):
    brazil = shapely.box(-60.0, -20.0, -45.0, -5.0)
    found, _ = drawn(tmp_path, brazil, 4326, 4326, (1.0, 0.0, 0.0, 0.0, -1.0, 90.0), (180, 360))
    assert found.sum() == 15 * 15
    assert found[95:110, 300:315].all()
    _, _, back = outlined(tmp_path, found.astype(np.uint8), 4326, (1.0, 0.0, 0.0, 0.0, -1.0, 90.0))
    assert (back != found).sum() == 0
    found, _ = drawn(tmp_path, in_crs(FIJI, 3460), 3460, 4326, (0.1, 0.0, 175.0, 0.0, -0.1, -14.0), (60, 100))
    assert found.sum() == 27 * 25


def test_around_a_pole_on_a_map_in_longitude_and_latitude(tmp_path):
    """A square around the North Pole, with a hole at the pole."""
    square = shapely.box(-1.5e6, -1.2e6, 1.2e6, 1.5e6).difference(shapely.box(-2e5, -2e5, 3e5, 3e5))
    found, truth = drawn(tmp_path, square, 3413, 4326, (1.0, 0.0, -180.0, 0.0, -0.5, 90.0), (60, 360))
    assert truth.sum() > 5000
    assert (found != truth).sum() <= 4  # centres that lie within a fiftieth of a pixel of the edge


@pytest.mark.parametrize(("code", "image"), [(4326, 3857), (3857, 4326), (4326, 3395)])
def test_s_shaped_bends_are_followed(tmp_path, code, image):
    """The middle of an edge that is symmetric about the equator stays on its chord; all the rest does not."""
    shape = shapely.Polygon([(-100, -75), (100, 75), (100, -75)])
    shape = shape if code == 4326 else shapely.set_coordinates(shape, moved(shape.exterior.coords, LON_LAT, crs(code)))
    (west, south), (east, north) = moved([(-110, -80), (110, 80)], LON_LAT, crs(image))
    transform = ((east - west) / 300, 0.0, west, 0.0, (south - north) / 280, north)
    found, truth = drawn(tmp_path, shape, code, image, transform, (280, 300))
    assert (found != truth).sum() <= 4  # centres that lie within a fiftieth of a pixel of the edge


@pytest.mark.parametrize("seed", range(4))
def test_maps_around_180_in_utm_have_valid_polygons(tmp_path, seed):
    labels = np.kron(np.random.default_rng(seed).integers(0, 4, (14, 16)), np.ones((3, 3), int)).astype(np.uint8)
    (x, y) = moved([-179.9999, -70.0 + 20 * seed], LON_LAT, crs(32701))[0]
    pixel = (0.5, 100.0, 3000.0, 30.0)[seed]
    transform = (pixel, 0.0, x - 24 * pixel, 0.0, -pixel, y + 21 * pixel)
    shapes, _, back = outlined(tmp_path, labels, 32701, transform)
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(shapes)
    assert (np.abs(shapely.bounds(shapes)[:, ::2]) <= 180).all()
    assert (back != labels).sum() == 0


@pytest.mark.parametrize(("code", "pixel", "top"), [(4326, 1 / 6, 90.0), (4087, 50_000.0, 10_018_754.171394622)])
@pytest.mark.parametrize("kind", ["geojson", "gpkg"])
def test_grids_centred_on_the_pole_reach_half_a_pixel_beyond_it(tmp_path, code, pixel, top, kind):
    labels = np.zeros((12, 20), np.uint8)
    labels[:4, 3:9], labels[4:, 12:] = 1, 2
    transform = (pixel, 0.0, 3 * pixel, 0.0, -pixel, top + pixel / 2)
    _, areas, back = outlined(tmp_path, labels, code, transform, "--min-area", "1", "--merge", "1", kind=kind)
    assert (back != labels)[1:].sum() == 0  # the centres of the first row are the pole itself
    (areas,) = [sorted(areas)]
    degrees = pixel / (top / 90)
    cap = 2 * np.pi * 6_371_007.2**2 * (1 - np.cos(np.radians(3.5 * degrees))) * 6 * degrees / 360
    assert areas[0] == pytest.approx(cap, rel=0.02)  # of a sphere


@pytest.mark.parametrize(
    ("code", "place", "decimals"), [(32660, (180.0, -17.0), 8), (3413, (10.0, 89.0), 8), (32633, (15.0, 52.0), 8)]
)
def test_decimals_keep_a_fiftieth_of_the_smallest_step(tmp_path, code, place, decimals):
    labels = np.kron(np.random.default_rng(0).integers(0, 4, (9, 9)), np.ones((3, 3), int)).astype(np.uint8)
    x, y = moved(place, LON_LAT, crs(code))[0]
    transform = (0.5, 0.0, x - 6.75, 0.0, -0.5, y + 6.75)
    shapes, _, back = outlined(tmp_path, labels, code, transform)
    assert (back != labels).sum() == 0
    text = (tmp_path / "layer.geojson").read_text()
    longest = max(
        len(str(value).partition(".")[2]) for point in shapely.get_coordinates(shapes).tolist() for value in point
    )
    assert longest == decimals
    corners = moved(shapely.get_coordinates(shapes), LON_LAT, crs(code))
    pixels = (corners - (transform[2], transform[5])) / (0.5, -0.5)
    aside = np.abs(pixels - pixels.round()).min(axis=1)  # every point lies on a side of a pixel
    assert aside.max() < 0.03
    assert "e-" not in text


def test_known_polygons_across_180_are_known_and_no_others(tmp_path):
    boxes = [shapely.box(x, -17.02, x + 0.02, -17.0) for x in (-179.98, -60.0, 30.0, 179.96)]
    across = [shapely.box(179.99, -17.02, 180.0, -17.0), shapely.box(-180.0, -17.02, -179.99, -17.0)]
    layer = [*boxes, shapely.multipolygons(across)]
    rows = [(shape, (i,)) for i, shape in enumerate(layer)]
    write_layer(tmp_path / "all.gpkg", rows, {"n": int}, crs=crs(4326).to_wkt(), multi=True)
    known = shapely.box(179.95, -17.03, 180.05, -16.99)  # three of them
    for code in (3460, 3832, 32760):
        write_layer(tmp_path / "known.gpkg", [(in_crs(known, code), (1,))], {"n": int}, crs=crs(code).to_wkt())
        run(
            "polygons",
            tmp_path / "all.gpkg",
            tmp_path / "new.gpkg",
            "--exclude",
            tmp_path / "known.gpkg",
            "--overwrite",
        )
        left = read_vectors(tmp_path / "new.gpkg").shapes
        assert sorted(shapely.bounds(left)[:, 0].tolist()) == [-60.0, 30.0]


def test_long_edges_of_known_polygons_stay_where_they_are(tmp_path):
    """A parallel of 6 degrees leaves its chord in UTM by 7 km."""
    houses = [shapely.box(x, 59.998, x + 0.001, 59.999) for x in np.arange(12.1, 17.9, 0.5)]
    rows = [(in_crs(house, 32633), (1,)) for house in houses]
    write_layer(tmp_path / "all.gpkg", rows, {"n": int}, crs=crs(32633).to_wkt())
    known = shapely.box(12.0, 59.9, 18.0, 60.0)
    write_layer(tmp_path / "known.gpkg", [(known, (1,))], {"n": int}, crs=crs(4326).to_wkt())
    run("polygons", tmp_path / "all.gpkg", tmp_path / "new.gpkg", "--exclude", tmp_path / "known.gpkg")
    assert len(houses) == 12
    assert len(read_vectors(tmp_path / "new.gpkg").shapes) == 0


@pytest.mark.parametrize("swapped", [False, True])
def test_equal_objects_across_180_are_the_same_in_every_crs(tmp_path, swapped, capsys):
    objects = [shapely.box(x, -17.5, x + 0.4, -17.0) for x in (179.2, 179.8, 180.4)]
    cut = [
        shapely.multipolygons([shapely.box(179.8, -17.5, 180.0, -17.0), shapely.box(-180.0, -17.5, -179.8, -17.0)]),
        shapely.box(-179.6, -17.5, -179.2, -17.0),
    ]
    one, other = tmp_path / "one.gpkg", tmp_path / "other.gpkg"
    write_layer(one, [(shape, (1,)) for shape in [objects[0], *cut]], {"n": int}, crs=crs(4326).to_wkt(), multi=True)
    write_layer(other, [(in_crs(shape, 3460), (1,)) for shape in objects], {"n": int}, crs=crs(3460).to_wkt())
    capsys.readouterr()
    run("evaluate", *((other, one) if swapped else (one, other)), "--json", "-")
    found = json.loads(capsys.readouterr().out)
    assert '"matched": [3], "predicted": [3], "truth": [3]' in json.dumps(found), found
