"""fpn compare: the right labels beside the right image, every pixel counted, and pictures in the right colours."""

import json

import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image

from made_data import picture, write_png, write_tiff
from torchfpn.cli.main import main
from torchfpn.errors import ConfigError
from torchfpn.geo.crs import crs_wkt
from torchfpn.geo.georef import Geo
from torchfpn.io.geotiff import write_label_raster
from torchfpn.metrics.confusion import ConfusionMatrix
from torchfpn.report.images import to_rgb
from torchfpn.report.sheets import FALSE, MISSED, OTHER, RIGHT, Comparison, draw_comparison, mark_differences
from torchfpn.sources.raster import Grid, grid_of, sampling, thumbnail

WEST, NORTH = 500_000, 5_800_000
PLACE = rasterio.Affine(0.5, 0, WEST, 0, -0.5, NORTH)
GEO = Geo(crs_wkt("EPSG:32633"), tuple(PLACE)[:6])
SIZE = (60, 80)
COLORS = [(214, 202, 176), (206, 68, 58), (110, 106, 120)]
NAMES = {0: "background", 1: "roof", 2: "road"}


def image(path, *, column=0, size=SIZE):
    path.parent.mkdir(exist_ok=True, parents=True)
    transform = PLACE @ rasterio.Affine.translation(column, 0)
    array = np.full((3, *size), 90, np.uint8)
    return write_tiff(path, array, crs="EPSG:32633", transform=transform, photometric="RGB")


def boxed(*boxes, size=SIZE):
    """Labels of (left, top, right, bottom, value), in pixels."""
    labels = np.zeros(size, np.uint8)
    for left, top, right, bottom, value in boxes:
        labels[top:bottom, left:right] = value
    return labels


def layer(path, *boxes):
    """The same as GeoJSON."""
    path.parent.mkdir(exist_ok=True, parents=True)
    features = []
    for left, top, right, bottom, value in boxes:
        shape = shapely.box(WEST + left / 2, NORTH - bottom / 2, WEST + right / 2, NORTH - top / 2)
        held = {"class": NAMES[value]}
        features.append({"type": "Feature", "properties": held, "geometry": shapely.geometry.mapping(shape)})
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    return path


TRUTH, FOUND = [(5, 5, 25, 25, 1), (40, 30, 70, 40, 2)], [(10, 5, 30, 25, 1), (40, 30, 55, 40, 2), (55, 30, 70, 40, 1)]


def run(*words):
    return main(["compare", *map(str, words)])


def fails(capsys, *words):
    assert run(*words) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    return shown.err


def pixels_of(path):
    with Image.open(path) as held:
        return np.asarray(held)


def colors(path):
    """How often each colour occurs in a picture."""
    found, counts = np.unique(pixels_of(path).reshape(-1, 3), axis=0, return_counts=True)
    return {tuple(color): int(count) for color, count in zip(found.tolist(), counts, strict=True)}


def expected():
    matrix = ConfusionMatrix(3)
    matrix.update(boxed(*FOUND), boxed(*TRUTH))
    return matrix


def side(tmp_path, name, kind, boxes):
    """Labels as files by name or as one file, as values or as polygons."""
    if kind == "polygons":
        return layer(tmp_path / f"{name}.geojson", *boxes)
    if kind == "folder of polygons":
        return layer(tmp_path / name / "a.geojson", *boxes).parent
    if kind == "larger raster":
        labels = np.pad(boxed(*boxes), ((10, 20), (30, 5)), constant_values=1)
        write_label_raster(tmp_path / f"{name}.tif", labels, geo=Geo(GEO.crs, tuple(WIDER)[:6]), names=NAMES)
        return tmp_path / f"{name}.tif"
    (tmp_path / name).mkdir()
    write_label_raster(tmp_path / name / "a.tif", boxed(*boxes), geo=GEO, names=NAMES)
    return tmp_path / name


WIDER = PLACE @ rasterio.Affine.translation(-30, -10)
KINDS = ["label files", "polygons", "folder of polygons", "larger raster"]


@pytest.mark.parametrize(("truth", "prediction"), list(zip(KINDS, KINDS[1:] + KINDS[:1], strict=True)))
def test_every_kind_of_labels_gives_the_same(tmp_path, truth, prediction):
    t, p = side(tmp_path, "t", truth, TRUTH), side(tmp_path, "p", prediction, FOUND)
    file = image(tmp_path / "images" / "a.tif")
    names = ["--classes", "background,roof,road"] if "polygons" in truth and "polygons" in prediction else []
    assert run(file, "--truth", t, "--prediction", p, "--out", tmp_path / "out", *names) == 0
    data = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert data["over_all"]["confusion"] == expected().matrix.tolist()
    (row,) = data["images"]
    assert (row["picture"], row["mean_iou"]) == ("a.png", pytest.approx(expected().miou()))
    assert row["iou"] == pytest.approx(dict(zip(NAMES.values(), expected().iou().tolist(), strict=True)))
    found = colors(tmp_path / "out" / "a.png")
    swatches = 14 * 13  # of the legend, without its corners and outline
    scale = (380 // 80) ** 2
    truth_map, found_map = boxed(*TRUTH), boxed(*FOUND)
    for value, color in enumerate(COLORS):
        pixels = scale * (int((truth_map == value).sum()) + int((found_map == value).sum()))
        assert 0 < found[color] - pixels <= swatches
    kinds = {
        RIGHT: (truth_map == found_map) & (truth_map > 0),
        MISSED: (truth_map > 0) & (found_map == 0),
        FALSE: (truth_map == 0) & (found_map > 0),
        OTHER: (truth_map != found_map) & (truth_map > 0) & (found_map > 0),
    }
    for color, where in kinds.items():
        assert 0 < found[color] - scale * int(where.sum()) <= swatches


def test_images_by_name_the_worst_and_the_index(tmp_path, capsys):
    (tmp_path / "t").mkdir()
    (tmp_path / "p").mkdir()
    for k, name in enumerate("abcd"):
        write_png(tmp_path / f"{name}.png", picture(k))
        write_png(tmp_path / "t" / f"{name}.png", boxed((0, 0, 16, 24, 1), size=(24, 32)))
        write_png(tmp_path / "p" / f"{name}.png", boxed((0, 0, 16 - 3 * ((k + 2) % 4), 24, 1), size=(24, 32)))
    words = [tmp_path / "[abcd].png", "--truth", tmp_path / "t", "--prediction", tmp_path / "p"]
    out = tmp_path / "out"
    assert run(*words, "--out", out, "--classes", "land,water") == 0
    data = json.loads((out / "compare.json").read_text())
    scores = {row["picture"][0]: row["mean_iou"] for row in data["images"]}
    assert list(scores) == list("abcd")
    assert max(scores, key=scores.get) == "c"
    page = (out / "index.html").read_text()
    assert page.count("<img") == 4
    assert [page.index(f'href="{name}.png"') for name in "badc"] == sorted(
        page.index(f'href="{n}.png"') for n in "abcd"
    )
    assert fails(capsys, *words, "--out", out).endswith("already exists; replace it with --overwrite\n")
    worst = tmp_path / "worst"
    assert run(*words, "--out", worst, "--worst", 2, "--classes", "land,water") == 0
    assert sorted(path.name for path in worst.glob("*.png")) == ["001-b.png", "002-a.png"]
    again = json.loads((worst / "compare.json").read_text())
    assert again["over_all"] == data["over_all"]  # over all images, not the worst
    assert [row["mean_iou"] for row in again["images"]] == [scores["b"], scores["a"]]
    assert "2 pictures, 0 failed" in capsys.readouterr().out


def test_one_side_alone(tmp_path):
    file = image(tmp_path / "a.tif")
    held = layer(tmp_path / "roofs.geojson", *TRUTH)
    assert run(file, "--prediction", held, "--out", tmp_path / "out") == 0
    assert not (tmp_path / "out" / "compare.json").exists()
    assert "<img" in (tmp_path / "out" / "index.html").read_text()
    assert RIGHT not in colors(tmp_path / "out" / "a.png")
    assert pixels_of(tmp_path / "out" / "a.png").shape[1] < 3 * 320


def test_what_is_not_labelled_does_not_count(tmp_path):
    truth, found = boxed(*TRUTH), boxed(*FOUND)
    truth[:10], found[50:] = 255, 7
    write_png(tmp_path / "t.png", truth)
    write_png(tmp_path / "p.png", found)
    write_png(tmp_path / "a.png", np.zeros((*SIZE, 3), np.uint8))
    words = [tmp_path / "a.png", "--truth", tmp_path / "t.png", "--prediction", tmp_path / "p.png"]
    assert run(*words, "--classes", "background,roof,road", "--ignore", "7,255", "--out", tmp_path / "out") == 0
    matrix = ConfusionMatrix(3)
    matrix.update(boxed(*FOUND)[10:50], boxed(*TRUTH)[10:50])
    data = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert data["over_all"]["confusion"] == matrix.matrix.tolist()
    assert run(*words, "--out", tmp_path / "all") == 0  # nobody says what the values mean
    assert json.loads((tmp_path / "all" / "compare.json").read_text())["over_all"]["classes"] == list("0127")


def test_a_part_of_an_image(tmp_path):
    file = image(tmp_path / "a.tif")
    words = ["--truth", layer(tmp_path / "t.geojson", *TRUTH), "--prediction", layer(tmp_path / "p.geojson", *FOUND)]
    words += ["--classes", "background,roof,road", "--window", "5,20,30,40", "--out", tmp_path / "out"]
    assert run(file, *words) == 0
    matrix = ConfusionMatrix(3)
    matrix.update(boxed(*FOUND)[5:35, 20:60], boxed(*TRUTH)[5:35, 20:60])
    data = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert data["over_all"]["confusion"] == matrix.matrix.tolist()


def test_large_images_are_shown_smaller_and_counted_whole(tmp_path):
    rng = np.random.default_rng(0)
    truth, found = np.kron(rng.integers(0, 3, (2, 45, 60)), np.ones((1, 24, 20), int)).astype(np.uint8)  # 1080 x 1200
    write_label_raster(tmp_path / "t.tif", truth, geo=GEO, names=NAMES)
    write_label_raster(tmp_path / "p.tif", found, geo=GEO, names=NAMES)
    file = image(tmp_path / "a.tif", size=truth.shape)
    words = [file, "--truth", tmp_path / "t.tif", "--prediction", tmp_path / "p.tif", "--panel-size", 300]
    assert run(*words, "--out", tmp_path / "out") == 0
    matrix = ConfusionMatrix(3)
    matrix.update(found, truth)
    assert (
        json.loads((tmp_path / "out" / "compare.json").read_text())["over_all"]["confusion"] == matrix.matrix.tolist()
    )
    sheet = pixels_of(tmp_path / "out" / "a.png")
    assert sheet.shape[1] == 4 * 300 + 3 * 12 + 2 * 18
    panel = np.array(COLORS, np.uint8)[truth[2::4, 2::4]]
    top = next(y for y in range(sheet.shape[0]) if (sheet[y, 330:630] == panel[0]).all())
    assert (sheet[top : top + 270, 330:630] == panel).all()


def test_tiles_of_a_web_map(tmp_path):
    write_png(tmp_path / "5-3-3.png", np.zeros((32, 32, 3), np.uint8))
    side = 2 * np.pi * 6378137 / 8
    left, top = 5 * side - 4 * side, 4 * side - 3 * side
    shape = shapely.box(left, top - side / 2, left + side / 4, top)
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)}
    held = tmp_path / "l.geojson"
    held.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    words = [tmp_path / "5-3-3.png", "--truth", held, "--prediction", held, "--out", tmp_path / "out"]
    assert run(*words, "--tiles", "{x}-{y}-{z}") == 0
    over_all = json.loads((tmp_path / "out" / "compare.json").read_text())["over_all"]
    assert over_all["confusion"] == [[32 * 32 - 128, 0], [0, 128]]
    assert over_all["classes"] == ["background", "object"]


@pytest.mark.parametrize("odd", ["image", "truth"])
def test_a_pixel_size_of_zero(tmp_path, capsys, odd):
    flat = Geo(GEO.crs, (0.0, 0.0, GEO.transform[2], 0.0, 0.0, GEO.transform[5]))
    place = rasterio.Affine(*flat.transform) if odd == "image" else PLACE
    write_tiff(tmp_path / "a.tif", np.full((3, *SIZE), 90, np.uint8), crs="EPSG:32633", transform=place)
    write_label_raster(tmp_path / "t.tif", boxed(*TRUTH), geo=flat if odd == "truth" else GEO)
    assert run(tmp_path / "a.tif", "--truth", tmp_path / "t.tif", "--out", tmp_path / "out") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) == 1
    assert "on another grid than" in lines[0]


def test_an_image_that_fails_is_named_and_the_others_go_on(tmp_path, capsys):
    image(tmp_path / "in" / "a.tif")
    image(tmp_path / "in" / "b.tif")
    (tmp_path / "t").mkdir()
    write_label_raster(tmp_path / "t" / "a.tif", boxed(*TRUTH), geo=GEO)
    assert run(tmp_path / "in", "--truth", tmp_path / "t", "--out", tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith(f"fpn: {tmp_path / 'in' / 'b.tif'}: no labels for it")
    assert "1 picture, 1 failed" in captured.out
    write_label_raster(tmp_path / "t" / "b.tif", boxed(size=(5, 5)), geo=None)
    assert run(tmp_path / "in" / "b.tif", "--truth", tmp_path / "t", "--out", tmp_path / "out2") == 2
    assert "5 x 5 pixels, and 80 x 60 in b.tif" in capsys.readouterr().err


def test_what_cannot_be(tmp_path, capsys):
    file, held = image(tmp_path / "a.tif"), layer(tmp_path / "t.geojson", *TRUTH)
    out = ["--out", tmp_path / "out"]
    assert "neither --truth nor --prediction" in fails(capsys, file, *out)
    assert "worst" in fails(capsys, file, "--truth", held, "--worst", 3, *out)
    assert "--window" in fails(capsys, file, "--truth", held, "--window", "1,2,3", *out)
    assert "inside it" in fails_one(capsys, file, "--truth", held, "--window", "0,0,61,80", *out)
    assert "--panel-size" in fails(capsys, file, "--truth", held, "--panel-size", 3, *out)
    both = ("--truth", held, "--prediction", held)
    assert 'no class "rof"; did you mean "roof"' in fails(capsys, file, *both, "--background", "rof", *out)
    assert 'no class "road"' in fails_one(capsys, file, "--truth", held, "--classes", "background,roof", *out)
    assert "has 3 bands, band 9 is wanted" in fails_one(capsys, file, "--truth", held, "--bands", "9", *out)
    assert "allowed" not in fails(capsys, file, "--truth", held, "--classes", "a=b", *out)
    (tmp_path / "in").mkdir()
    (tmp_path / "t").mkdir()
    write_png(tmp_path / "in" / "a.png", np.zeros((*SIZE, 3), np.uint8))
    write_png(tmp_path / "t" / "a.png", boxed(*TRUTH))
    words = [tmp_path / "in" / "a.png", "--truth", tmp_path / "t", "--out", tmp_path / "t", "--overwrite"]
    assert "a label file would be overwritten" in fails(capsys, *words)
    words[1:] = ["--truth", tmp_path / "t", "--out", tmp_path / "in", "--overwrite"]
    assert "would be overwritten by its own" in fails(capsys, *words)
    write_png(tmp_path / "in" / "b.png", np.zeros((*SIZE, 3), np.uint8))
    line = fails(capsys, tmp_path / "in", "--truth", tmp_path / "t" / "a.png", *out)
    assert "one label file without a georeference for 2 images" in line
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.png"))


def fails_one(capsys, *words):
    """An image that fails, after all was found well before it."""
    assert run(*words) == 2
    return capsys.readouterr().err


# -- the parts


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (100, 99), (64, 64), (65, 33)])
@pytest.mark.parametrize("largest", [16, 33, 1000])
def test_windows_see_what_the_whole_sees(size, largest):
    look = sampling(Grid("a.tif", size, None), largest)
    assert max(look.size) <= largest
    values = np.arange(size[0] * size[1]).reshape(size)
    rows, columns, top, left = look.inside(look.part)
    whole = values[np.ix_(rows, columns)]
    assert (top, left, whole.shape) == (0, 0, look.size)
    parts = np.full(look.size, -1)
    for row in range(0, size[0], 20):
        for column in range(0, size[1], 20):
            window = (row, column, min(20, size[0] - row), min(20, size[1] - column))
            rows, columns, top, left = look.inside(window)
            seen = values[row : row + window[2], column : column + window[3]][np.ix_(rows, columns)]
            parts[top : top + len(rows), left : left + len(columns)] = seen
    assert (parts == whole).all()


def test_a_part_must_lie_inside():
    for part in ((0, 0, 11, 5), (-1, 0, 2, 2), (0, 6, 5, 5), (0, 0, 0, 1)):
        with pytest.raises(ConfigError, match="row,column,height,width inside it"):
            sampling(Grid("a.tif", (10, 10), None), 100, part)


def test_bands_that_are_shown(tmp_path):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 3000, (5, 40, 60)).astype(np.int16)
    array[:, 0, 0] = -9999
    names = ["blue", "green", "red", "nir", "swir"]
    file = write_tiff(tmp_path / "a.tif", array, nodata=-9999, descriptions=names)
    look = sampling(grid_of(file), 100)
    seen = thumbnail(file, look)
    assert seen.names == ("red", "green", "blue")
    assert (seen.array == array[[2, 1, 0]]).all()
    assert np.argwhere(~seen.valid).tolist() == [[0, 0]]
    assert thumbnail(file, look, bands=["nir"]).array.shape == (1, 40, 60)
    assert thumbnail(file, look, bands=[5, 4, 3]).names == ("swir", "nir", "red")
    small = thumbnail(file, sampling(grid_of(file), 30))
    assert small.array.shape == (3, 20, 30)
    blocks = array[[2, 1, 0]].reshape(3, 20, 2, 30, 2).astype(float).mean((2, 4))
    assert np.abs(small.array - blocks)[:, 1:, 1:].max() <= 1
    pixels = to_rgb(small.array, small.names, small.valid)
    assert pixels.shape == (20, 30, 3)


def test_alpha_palettes_and_photographs(tmp_path):
    rgba = np.full((4, 10, 12), 200, np.uint8)
    rgba[3, :5] = 0
    file = write_tiff(tmp_path / "a.tif", rgba, photometric="RGB", alpha="YES")
    seen = thumbnail(file, sampling(grid_of(file), 100))
    assert (seen.array.shape, seen.valid.sum()) == ((3, 10, 12), 60)
    write_label_raster(tmp_path / "b.tif", boxed(*TRUTH), colors=COLORS)
    seen = thumbnail(tmp_path / "b.tif", sampling(grid_of(tmp_path / "b.tif"), 100))
    assert (np.moveaxis(seen.array, 0, -1) == np.array(COLORS)[boxed(*TRUTH)]).all()
    photo = picture(0, size=(30, 44))
    write_png(tmp_path / "c.png", photo)
    seen = thumbnail(tmp_path / "c.png", sampling(grid_of(tmp_path / "c.png"), 22, (10, 0, 20, 44)))
    assert (np.moveaxis(seen.array, 0, -1) == photo[11:30:2, 1::2]).all()
    assert thumbnail(tmp_path / "c.png", sampling(grid_of(tmp_path / "c.png"), 99), bands=["red"]).array.shape[0] == 1


def test_differences_without_a_background():
    truth, found = np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 1, 1, 1]], np.uint8)
    marked, kinds = mark_differences(np.zeros((1, 4, 3), np.uint8), truth, found, None)
    assert kinds == ["wrong class"]
    assert [tuple(p) for p in marked[0, :3].tolist()] == [(168, 168, 168), OTHER, (168, 168, 168)]


def test_nothing_is_cut_off_on_narrow_and_wide_sheets():
    for size, names in (((300, 20), ["a name that is far too long for so small a picture"]), ((40, 1600), ["road"])):
        labels = np.zeros(size, np.uint8)
        look = Comparison(np.zeros((*size, 3), np.uint8), labels, labels, names, COLORS, None, [1.0], ["a" * 300, "b"])
        sheet = np.asarray(draw_comparison(look))
        assert (sheet[:, :10] == 255).all()
        assert (sheet[:, -10:] == 255).all()
        assert (sheet[-10:] == 255).all()
        assert (sheet[:8] == 255).all()


def test_a_mask_of_black_and_white_is_scored(tmp_path):
    """Against polygons without a class 255 is their value; against another mask it is a class, as in fpn evaluate."""
    mask = (boxed((5, 5, 25, 25, 1)) * 255)[None]
    file = image(tmp_path / "a.tif")
    found = write_tiff(tmp_path / "p.tif", mask, crs="EPSG:32633", transform=PLACE)
    roofs = layer(tmp_path / "t.geojson", (5, 5, 25, 25, 1))
    truth = write_tiff(tmp_path / "t.tif", mask, crs="EPSG:32633", transform=PLACE)
    for given, words in ((roofs, ["--field", ""]), (truth, [])):
        out = tmp_path / f"out-{given.suffix[1:]}"
        assert run(file, "--truth", given, "--prediction", found, "--out", out, *words) == 0
        held = json.loads((out / "compare.json").read_text())["over_all"]
        assert held["miou"] == 1
        assert held["confusion"][-1][-1] == 400


def test_polygons_that_meet_no_image_are_told(tmp_path, capsys):
    file, away = image(tmp_path / "images" / "a.tif"), layer(tmp_path / "away.geojson", (9000, 9000, 9100, 9100, 1))
    assert run(file, "--truth", away, "--out", tmp_path / "out") == 0
    assert "away.geojson: no polygon of the evaluated classes overlaps a image" not in (line := capsys.readouterr().err)
    assert "away.geojson: no polygon of the evaluated classes overlaps an image; check their coordinate systems" in line


def test_files_of_the_image_folder_that_are_no_images_are_named(tmp_path, capsys):
    image(tmp_path / "in" / "a.tif")
    (tmp_path / "in" / "notes.txt").write_text("x")
    assert run(tmp_path / "in", "--truth", side(tmp_path, "t", "label files", TRUTH), "--out", tmp_path / "out") == 0
    assert capsys.readouterr().err == f"fpn: skipped 1 file that is not an image: {tmp_path / 'in' / 'notes.txt'}\n"
