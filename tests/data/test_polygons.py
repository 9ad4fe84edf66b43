"""Labels that are polygons: what dataset.yaml may say of them, and which pixels get which class."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import rasterio.warp
import shapely
from torch.utils.data import DataLoader

from file_events import before_event
from made_data import write_png, write_tiff
from made_maps import NORTH, WEST, box, noise, write_geojson, write_map
from shared import DATA, needs_shared
from torchfpn.cli.main import main
from torchfpn.data.check import check
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import SemanticDataset
from torchfpn.data.init import init_dataset
from torchfpn.data.sample import collate
from torchfpn.data.statistics import class_counts
from torchfpn.data.transforms import Augment
from torchfpn.errors import ConfigError, DataError
from torchfpn.geo.tiles import tile_geo
from torchfpn.recipe import IGNORE

CONFIGS = Path(__file__).parents[2] / "configs" / "datasets"
TWO = "classes: [ground, roof]\n"
THREE = "classes: [background, road, roof]\n"
SPLITS = "splits: {train: {images: images, labels: labels.geojson}}\n"


def described(folder, text, splits=SPLITS):
    (folder / "dataset.yaml").write_text(text + splits)
    return read_dataset(folder)


def targets(dataset):
    return [sample.target.numpy() for sample in SemanticDataset(dataset, "train")]


@pytest.fixture
def town(tmp_path):
    """Two maps beside each other, and a house on each."""
    write_map(tmp_path / "images" / "a.tif")
    beside = rasterio.Affine(1, 0, WEST + 50, 0, -1, NORTH)
    write_map(tmp_path / "images" / "b.tif", size=(30, 20), transform=beside)
    write_geojson(tmp_path / "labels.geojson", [box(5, 5), box(52, 3, 4)], ["road", "roof"])
    return tmp_path


class TestSettings:
    """What may stand under `polygons:`, and how mistakes are told."""

    def parsed(self, tmp_path, text, classes=THREE):
        return described(tmp_path, classes + text).polygons

    def test_defaults(self, tmp_path):
        plain = self.parsed(tmp_path, "", TWO)
        assert (plain.field, plain.burn, plain.background, plain.border) == (None, 1, 0, 0.0)
        assert self.parsed(tmp_path, "", "classes: [roof]\n").background is None  # nothing else to call it
        assert self.parsed(tmp_path, "").burn is None

    def test_everything(self, tmp_path):
        text = "polygons: {field: kind, background: road, layer: x, all_touched: true, border: 1.5, buffer: 2,"
        found = self.parsed(tmp_path, text + ' assume_crs: "EPSG:32633"}\n')
        assert (found.field, found.burn, found.background, found.layer) == ("kind", None, 1, "x")
        assert (found.all_touched, found.border, found.buffer, found.assume_crs) == (True, 1.5, 2.0, "EPSG:32633")

    def test_classes_by_name_or_value(self, tmp_path):
        classes = "classes: {5: ground, 9: roof}\n"
        assert self.parsed(tmp_path, "polygons: {class: 5}\n", classes).burn == 0
        assert self.parsed(tmp_path, "polygons: {class: 5}\n", classes).background is None
        assert self.parsed(tmp_path, "polygons: {class: roof, background: 5}\n", classes).background == 0

    def test_with_a_field_the_rest_is_background_only_if_a_class_is_called_so(self, tmp_path):
        assert self.parsed(tmp_path, "polygons: {field: kind}\n").background == 0
        assert self.parsed(tmp_path, "polygons: {field: kind}\n", "classes: [forest, lake]\n").background is None
        assert self.parsed(tmp_path, "polygons: {field: kind, background: false}\n").background is None

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("polygons: {fieldd: kind}", 'polygons: unknown key "fieldd"; did you mean "field"'),
            (
                "polygons: {class: rof}",
                "polygons.class: 'rof'; expected the name or the value of one of the classes; did you mean",
            ),
            ("polygons: {background: grass, class: roof}", "polygons.background: 'grass'"),
            ("polygons: {field: kind, class: roof}", "polygons.class: 'roof'; expected nothing beside `field`"),
            ("polygons: {border: -1, class: roof}", "polygons.border: -1"),
            ("polygons: {buffer: 0, class: roof}", "polygons.buffer: 0"),
            ("polygons: {all_touched: 3, class: roof}", "polygons.all_touched: 3; expected true or false"),
            ("polygons: {border: 1}", "polygons.field: nothing; expected one of them, as there are 3 classes"),
            ("polygons: [a]", "polygons: ['a']; expected a mapping"),
            ('tiles: "{z}/{x}"', "tiles: '{z}/{x}'"),
        ],
    )
    def test_mistakes(self, tmp_path, text, told):
        with pytest.raises(ConfigError) as caught:
            described(tmp_path, THREE + text + "\n")
        assert told in str(caught.value)


class TestBurning:
    """Which pixels get which class."""

    def test_one_file_for_all_images(self, town):
        first, second = targets(described(town, TWO))
        assert first[5:15, 5:15].all()
        assert first.sum() == 100
        assert second[3:7, 2:6].all()
        assert second.sum() == 16

    def test_classes_from_an_attribute_by_name_or_value(self, town):
        dataset = described(town, THREE + "polygons: {field: kind}\n")
        assert [sorted(np.unique(t)) for t in targets(dataset)] == [[0, 1], [0, 2]]
        for values in ([1, 2], ["1", "2"], ["road", 2]):
            write_geojson(town / "labels.geojson", [box(5, 5), box(52, 3, 4)], values)
            assert [sorted(np.unique(t)) for t in targets(dataset)] == [[0, 1], [0, 2]]

    def test_ignored_values_and_no_background(self, town):
        dataset = described(town, "classes: {3: road}\nignore_index: [9]\npolygons: {field: kind}\n")
        write_geojson(town / "labels.geojson", [box(5, 5), box(8, 5), box(52, 3, 4)], [3, 9, 9])
        first, second = targets(dataset)
        assert (first == 0).sum() == 30
        assert (first == IGNORE).sum() == first.size - 30
        assert (second == IGNORE).all()

    def test_a_border_of_a_class_tells_houses_apart_that_touch(self, town):
        write_geojson(town / "labels.geojson", [box(5, 5), box(15, 5)])
        text = TWO + "polygons: {border: 1.5, border_class: ground}\n"
        target = targets(described(town, text))[0]
        assert (target[5:15, 14:16] == 0).all()
        assert (target[7:13, 7:13] == 1).all()
        assert (target[7:13, 17:23] == 1).all()
        assert IGNORE not in target

    def test_a_class_of_a_border_that_is_not_there_is_refused(self, town):
        with pytest.raises(ConfigError, match=r"polygons.border_class: 'ground'; expected nothing without `border`"):
            described(town, TWO + "polygons: {border_class: ground}\n")

    def test_border_and_touched(self, town):
        write_geojson(town / "labels.geojson", [box(5, 5), shapely.transform(box(55, 5), lambda p: p + 0.4)])
        first, second = targets(described(town, TWO + "polygons: {border: 1, all_touched: true}\n"))
        assert (first[5:15, 5:15] == IGNORE).sum() == 36
        assert first[7, 7] == 1
        assert (first == IGNORE).sum() >= 36 + 40
        assert (second > 0).sum() >= 11 * 11

    @pytest.mark.parametrize("bands", [1, 4])
    def test_images_of_any_bands_and_types(self, town, bands):
        for path in (town / "images").iterdir():
            with rasterio.open(path) as source:
                size, place = (source.height, source.width), source.transform
            write_map(path, noise(0, size, bands, np.int16), transform=place)
        samples = SemanticDataset(described(town, TWO), "train")
        assert samples.dtype == "int16"
        assert len(samples[0].image) == bands
        assert samples[0].target.sum() == 100

    def test_pixels_without_data_are_ignored(self, town):
        array = noise(0, (40, 50), 3, np.int16)
        array[:, 5:10] = -1
        write_map(town / "images" / "a.tif", array, nodata=-1)
        first = SemanticDataset(described(town, TWO + "scaling: {offset: [0, 0, 0], scale: [1, 1, 1]}\n"), "train")[0]
        assert first.image[:, 5:10].isnan().all()
        assert (first.target[5:10] == IGNORE).all()
        assert first.target[10:].sum() == 50

    def test_a_folder_of_files_by_name(self, town):
        write_geojson(town / "polygons" / "a.geojson", [box(0, 0, 3)])
        wkb = np.array([shapely.to_wkb(box(55, 5, 2))], dtype=object)
        pyogrio.raw.write(town / "polygons" / "b.gpkg", wkb, [np.array([1])], ["n"], driver="GPKG",
                          geometry_type="Polygon", crs="EPSG:32633")  # fmt: skip
        splits = SPLITS.replace("labels.geojson", "polygons")
        assert [t.sum() for t in targets(described(town, TWO, splits))] == [9, 4]
        (town / "polygons" / "b.gpkg").unlink()
        with pytest.raises(DataError, match=r"b\.tif: image without label"):
            targets(read_dataset(town))

    def test_it_is_what_fpn_rasterize_draws(self, town, tmp_path):
        shapes = [shapely.transform(box(3 * i, 2 * i, 7), lambda p, i=i: p + 0.3 * i) for i in range(15)]
        points = [
            np.stack(rasterio.warp.transform("EPSG:32633", "OGC:CRS84", *shapely.get_coordinates(s).T), 1)
            for s in shapes
        ]
        write_geojson(town / "labels.geojson", [shapely.Polygon(p) for p in points], crs=None)
        for words, keys in (([], ""), (["--all-touched", "--ignore-border", "1.5"], "all_touched: true, border: 1.5")):
            dataset = described(town, TWO + f"polygons: {{{keys}}}\n")
            out = ["--out", str(town / "out"), "--overwrite", *words]
            assert main(["rasterize", str(town / "labels.geojson"), str(town / "images"), *out]) == 0
            for target, name in zip(targets(dataset), "ab", strict=True):
                with rasterio.open(town / "out" / f"{name}.tif") as source:
                    assert np.array_equal(target, source.read(1))

    @pytest.mark.parametrize("code", [3460, 3832, 3031])
    def test_polygons_cut_at_180_are_whole_in_training(self, tmp_path, code):
        """The truth: the longitudes and latitudes of the pixels' centres."""
        (x,), (y,) = rasterio.warp.transform("OGC:CRS84", f"EPSG:{code}", [180.0], [-17.05])
        grid = rasterio.Affine(900, 0, x - 36_000, 0, -900, y + 27_000)
        pixels = np.ones((3, 60, 80), np.uint8)
        (tmp_path / "images").mkdir()
        write_tiff(tmp_path / "images" / "a.tif", pixels, crs=f"EPSG:{code}", transform=grid)
        cut = shapely.MultiPolygon([shapely.box(179.9, -17.2, 180, -16.9), shapely.box(-180, -17.2, -179.85, -16.9)])
        feature = {"type": "Feature", "properties": {}, "geometry": json.loads(shapely.to_geojson(cut))}
        (tmp_path / "labels.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
        columns, rows = np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5)
        east, north = 900 * columns.ravel() + grid.c, grid.f - 900 * rows.ravel()
        truth = shapely.contains_xy(cut, *rasterio.warp.transform(f"EPSG:{code}", "OGC:CRS84", east, north))
        (found,) = targets(described(tmp_path, TWO))
        assert truth.sum() > 1000
        assert np.array_equal(found.ravel() == 1, truth)
        (found,) = targets(described(tmp_path, TWO + "polygons: {border: 2}\n"))
        column, row = 40, 30  # of 180 E
        assert (found[row - 5 : row + 5, column - 5 : column + 5] == 1).all()  # 180 is no outline

    def test_pictures_with_names_of_tiles(self, tmp_path):
        (tmp_path / "images").mkdir()
        for y in (100, 101):
            write_png(tmp_path / "images" / f"t-300-{y}-9.png", noise(y, (64, 64))[:3].transpose(1, 2, 0).copy())
        geo = tile_geo("300-101-9", "{x}-{y}-{z}", (64, 64))
        corners = np.array([geo.world(10, 20), geo.world(30, 60)])
        x, y = rasterio.warp.transform(geo.crs, "OGC:CRS84", *corners.T)
        write_geojson(tmp_path / "labels.geojson", [shapely.box(x[0], y[1], x[1], y[0])], crs=None)
        dataset = described(tmp_path, TWO + 'tiles: "t-{x}-{y}-{z}"\n')
        first, second = targets(dataset)
        assert first.sum() == 0
        assert second[20:60, 10:30].sum() == second.sum() == 800


class TestReading:
    """Features are read once a process, whatever the number of images and workers."""

    @pytest.fixture(autouse=True)
    def count_openings(self):
        self.opened = []

    def test_once_for_all_images_and_again_when_the_file_changes(self, town):
        dataset = described(town, TWO)
        with before_event(self.opened.append, "open", "labels.geojson"):
            samples = SemanticDataset(dataset, "train", cache=False)
            assert samples[0].target.sum() == 100
            once = len(self.opened)
            for _ in range(3):
                assert [samples[i].target.sum() for i in range(2)] == [100, 16]
            class_counts(dataset)
            assert len(self.opened) == once
            write_geojson(town / "labels.geojson", [box(5, 5, 4)])
            written = len(self.opened)
            assert samples[0].target.sum() == 16
            assert len(self.opened) > written

    def test_a_bad_file_is_read_once_and_every_image_says_so(self, town):
        for name in "cdef":
            shutil.copy(town / "images" / "a.tif", town / "images" / f"{name}.tif")
        (town / "labels.geojson").write_text("{")
        with before_event(self.opened.append, "open", "labels.geojson"):
            found = check(described(town, TWO))
        assert [p.file.name for p in found.problems] == ["labels.geojson"]
        assert found.splits[0].images == 0
        assert len(self.opened) < 6  # images

    def test_samples_are_small_and_the_same_in_workers(self, town):
        write_geojson(town / "labels.geojson", [box(i % 40, i % 30, 2) for i in range(5000)])
        samples = SemanticDataset(described(town, TWO), "train", augment=Augment((16, 16)), cache=False)
        assert len(pickle.dumps(samples)) < 10_000
        alone = list(DataLoader(samples, 1, collate_fn=collate))
        for one, other in zip(alone, DataLoader(samples, 1, collate_fn=collate, num_workers=2), strict=True):
            assert np.array_equal(one.targets, other.targets)
            assert np.array_equal(one.images, other.images)


class TestCheck:
    """What `fpn check` says about labels from polygons."""

    def test_features_are_counted(self, town, capsys):
        bow = shapely.Polygon([(WEST, NORTH), (WEST + 9, NORTH - 9), (WEST + 9, NORTH), (WEST, NORTH - 9)])
        write_geojson(
            town / "labels.geojson", [bow, box(5, 5), box(500, 5), None, shapely.Point(WEST + 30, NORTH - 30)]
        )
        dataset = described(town, TWO + "polygons: {buffer: 2}\n")
        report = check(dataset)
        assert report.ok, report.problems
        (one,) = report.polygons
        assert (one.features, one.mended, one.widened, one.empty, one.outside) == (5, 1, 1, 1, 1)
        assert report.to_dict()["polygons"][0]["outside"] == 1
        assert "1 image that no polygon meets: b.tif" in report.notes
        assert main(["check", str(town)]) == 0
        assert "labels.geojson" in capsys.readouterr().out

    def test_polygons_elsewhere_are_a_note_where_others_meet_their_image(self, town):
        (town / "labels.geojson").unlink()
        for name, column in (("a", 5), ("b", 5000)):
            write_geojson(town / "labels" / f"{name}.geojson", [box(column, 5)])
        report = check(described(town, TWO, SPLITS.replace(".geojson", "")))
        assert "polygons that overlap no image: b.geojson; check the coordinate systems" in report.notes
        assert report.ok

    def test_a_place_that_nobody_tells_names_the_image_and_the_key(self, town):
        write_png(town / "images" / "c.png", noise(0, (9, 9)).transpose(1, 2, 0).copy())
        (problem,) = check(described(town, TWO)).problems
        assert problem.file.name == "c.png"
        assert problem.line == (
            "no georeference, so nothing can be drawn on it; for tiles of a web map: "
            'tiles: "{z}/{x}/{y}" in dataset.yaml'
        )

    def test_more_than_two_classes_and_nothing_says_which(self, town):
        with pytest.raises(ConfigError, match=r"nothing says of which class; write polygons: \{field"):
            check(described(town, THREE))

    def test_sheet_and_weights(self, town, capsys):
        described(town, TWO)
        assert main(["check", str(town), "--sheet", str(town / "sheet.png")]) == 0
        assert main(["weights", str(town), "--method", "inverse"]) == 0
        assert "class_weights:" in capsys.readouterr().out


class TestWithoutClass:
    """Features whose attribute is empty."""

    @pytest.fixture
    def partly(self, town):
        """A road, over it a roof of unknown class, one of blanks elsewhere, and one without a geometry."""
        shapes = [box(5, 5), box(10, 10, 3), box(30, 30, 2), None]
        write_geojson(town / "labels.geojson", shapes, ["road", None, "  ", None])
        return town

    def described(self, folder, more, task="semantic"):
        classes = "classes: [road]\n" if task != "semantic" else THREE
        return described(folder, f"task: {task}\n{classes}polygons: {{field: kind{more}}}\n")

    def test_are_an_error_with_the_cure(self, partly):
        (problem,) = check(self.described(partly, "")).problems
        assert "no class (empty) in 2 features, (empty) in 1 feature; give them one, or write polygons" in problem.line

    @pytest.mark.parametrize(("how", "there", "counted"), [("ignore", 255, 1), ("skip", 1, 1)])
    def test_are_ignored_or_skipped_and_counted(self, partly, how, there, counted, capsys):
        dataset = self.described(partly, f", background: background, without_class: {how}")
        target = targets(dataset)[0]
        assert target[6, 6] == 1
        assert target[11, 11] == there
        assert target[31, 31] == (255 if how == "ignore" else 0)
        report = check(dataset)
        assert report.ok
        (one,) = report.polygons
        assert (one.features, one.unclassed, one.empty, one.outside) == (4, 3, 0 if how == "skip" else 1, 0)
        what = {"ignore": "not labelled", "skip": "left out"}[how]
        assert f"3 features without a class, {what}: labels.geojson" in report.notes

    @pytest.mark.parametrize(("how", "crowds"), [("ignore", 2), ("skip", 0)])
    def test_of_objects_they_are_crowds_or_nothing(self, partly, how, crowds):
        report = check(self.described(partly, f", without_class: {how}", task="instance"))
        assert report.ok
        assert (report.splits[0].objects.total, report.splits[0].objects.crowds) == (1, crowds)

    def test_a_word_that_is_no_class_stays_an_error(self, partly):
        write_geojson(partly / "labels.geojson", [box(5, 5), box(9, 9)], ["raod", None])
        (problem,) = check(self.described(partly, ", without_class: skip")).problems
        assert 'no class "raod" in 1 feature; did you mean' in problem.line

    @pytest.mark.parametrize(("how", "there"), [("ignore", 255), ("skip", 1)])
    def test_rasterize_does_as_well(self, partly, how, there, capsys):
        words = ["rasterize", str(partly / "labels.geojson"), str(partly / "images" / "a.tif"), "--field", "kind"]
        words += ["--classes", "background,road", "--out", str(partly / "out")]
        assert main(words) == 2
        assert "--without-class ignore | skip" in capsys.readouterr().err
        assert main([*words, "--without-class", how]) == 0
        assert "3 without a class" in capsys.readouterr().out
        with rasterio.open(partly / "out" / "a.tif") as raster:
            assert raster.read(1)[11, 11] == there

    def test_a_first_description_ignores_them(self, partly):
        shapes = [box(5, 5), box(55, 5), box(30, 30, 2)]
        write_geojson(partly / "labels.geojson", shapes, ["road", "road", None])
        dataset = init_dataset(partly)
        assert dataset.names == ("background", "road")
        assert dataset.polygons.without_class == "ignore"
        assert check(dataset).ok


class TestInit:
    """`fpn check --init` on images beside polygons."""

    def test_flat_with_one_file(self, town):
        dataset = init_dataset(town)
        assert dataset.names == ("background", "road", "roof")
        assert dataset.polygons.field == "kind"
        assert list(dataset.splits) == ["train", "val"]
        assert check(dataset).ok

    def test_split_folders(self, town):
        for split in ("train", "val"):
            write_map(town / "set" / split / "images" / "a.tif")
            write_geojson(town / "set" / split / "roofs.geojson", [box(5, 5)], field="osm_id")
        dataset = init_dataset(town / "set")
        assert dataset.names == ("background", "roofs")
        assert dataset.splits["val"].labels == "val/roofs.geojson"
        assert check(dataset).ok

    def test_a_folder_of_files(self, town):
        (town / "labels.geojson").unlink()
        for name, column in (("a", 5), ("b", 55)):
            write_geojson(town / "labels" / f"{name}.geojson", [box(column, 5)], [3], field="class")
        dataset = init_dataset(town)
        assert [(c.name, c.id) for c in dataset.classes] == [("background", 0), ("class3", 3)]
        assert dataset.polygons.field == "class"
        assert check(dataset).ok

    def test_an_image_beside_its_polygons(self, town):
        write_map(town / "one" / "scene.tif")
        write_geojson(town / "one" / "houses.geojson", [box(5, 5)], field="n")
        dataset = init_dataset(town / "one")
        assert dataset.splits["train"].images == "scene.tif"
        assert check(dataset).ok

    @needs_shared
    def test_banepa_tells_its_tiles_by_their_names(self, tmp_path):
        for split in ("train", "val"):
            (tmp_path / split / "images").mkdir(parents=True)
            source = DATA / "buildings-banepa" / split
            for path in sorted((source / "images").iterdir())[:3]:
                (tmp_path / split / "images" / path.name).write_bytes(path.read_bytes())
            (tmp_path / split / "buildings.geojson").write_bytes((source / "buildings.geojson").read_bytes())
        dataset = init_dataset(tmp_path)
        assert dataset.tiles == "OAM-{x}-{y}-{z}"
        report = check(dataset)
        assert report.ok
        assert report.splits[0].counts.shares[1] > 0.2


@needs_shared
def test_real_maps_are_described_and_checked():
    buildings = check(read_dataset(CONFIGS / "buildings.yaml"))
    assert buildings.ok, buildings.problems
    assert [(one.features, one.outside) for one in buildings.polygons] == [(971, 0), (301, 0)]  # as its README counts
    assert 0.4 < buildings.splits[0].counts.shares[1] < 0.5
    atlanta = check(read_dataset(CONFIGS / "atlanta.yaml"))
    assert (atlanta.ok, atlanta.polygons[0].features, atlanta.dtypes) == (True, 43, {"uint16": 1})
    landcover = check(read_dataset(CONFIGS / "landcover.yaml"))
    assert landcover.ok
    assert landcover.splits[0].counts.pixels == (766, 32, 290, 212, 136)  # twice what its README counts
    assert landcover.bands[0].low > -9999
