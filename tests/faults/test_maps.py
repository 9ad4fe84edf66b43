"""Faults of maps in training: scenes that are never held, and labels that are polygons; numbers as in faults.md."""

import json
import resource

import numpy as np
import pytest
import rasterio
import shapely

from made_data import write_png
from made_maps import NORTH, PLACE, WEST, blobs, box, make_scene, noise, write_geojson, write_map
from torchfpn.cli.main import main
from torchfpn.data.check import check
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import SemanticDataset
from torchfpn.data.reading import scene_of
from torchfpn.data.sampler import Draw
from torchfpn.data.scaling import find_scaling
from torchfpn.data.transforms import Augment
from torchfpn.errors import DataError, RasterError
from torchfpn.recipe import IGNORE

LIST = "images: [scene.tif, other.tif], labels: [mask.tif, mask.tif]"


def samples(folder, crop=32, **options):
    return SemanticDataset(read_dataset(folder), "train", augment=Augment((crop, crop), **options))


def with_another(folder, array, **profile):
    """A second image on the grid of the scene."""
    write_map(folder / "other.tif", array, **profile)
    text = (folder / "dataset.yaml").read_text().replace("images: scene.tif, labels: mask.tif", LIST)
    (folder / "dataset.yaml").write_text(text)
    return folder


def crops(found, number=8):
    return [found[Draw(len(found) - 1, seed)] for seed in range(number)]


def checked(folder, capsys):
    """(exit code, lines on stderr) of `fpn check`."""
    code = main(["check", str(folder)])
    return code, capsys.readouterr().err.splitlines()


HUGE = 400_000


def most_memory():
    """The most this process ever had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("labels", ["mask.tif", "houses.geojson"])
def test_fault_04_a_sparse_map_of_400000_pixels_is_trained_on_by_windows(tmp_path, labels):
    """149 GiB if it were held."""
    sparse = {"tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True, "BIGTIFF": "YES"}
    for name in ("scene.tif", "mask.tif"):
        options = {"driver": "GTiff", "count": 1, "height": HUGE, "width": HUGE, "dtype": "uint8"}
        with rasterio.open(tmp_path / name, "w", **options, **sparse, **PLACE):
            pass
    write_geojson(tmp_path / "houses.geojson", [box(HUGE - 300, HUGE - 300, 100), box(9, 9)])
    text = f"classes: [a, b]\nsplits: {{train: {{images: scene.tif, labels: {labels}}}}}\n"
    (tmp_path / "dataset.yaml").write_text(text)
    before = most_memory()
    found = samples(tmp_path, 256, scale=(0.5, 2.0))
    assert len(found) == 2**20  # nearly half of the crops that fit: the order of an epoch must be held, too
    assert [sample.image.shape for sample in crops(found, 4)] == [(1, 256, 256)] * 4
    whole = SemanticDataset(read_dataset(tmp_path), "train")
    assert len(whole) == (HUGE // 1024 + 1) ** 2
    last = whole[len(whole) - 1]
    assert last.image.shape == (1, 704, 704)
    assert int((last.target == 1).sum()) == (100 * 100 if labels == "houses.geojson" else 0)
    assert most_memory() - before < 300 * 1024


def test_fault_04_a_scene_that_cannot_be_read_by_windows_says_so(tmp_path, capsys):
    """Its blocks are too large to be decoded one by one, as in a map that is a single tile."""
    make_scene(tmp_path, more="max_pixels: 50000\n")
    options = {"driver": "GTiff", "count": 3, "height": 300, "width": 260, "dtype": "uint8"}
    tile = {"tiled": True, "blockxsize": 20_480, "blockysize": 20_480, "interleave": "pixel", "sparse_ok": True}
    with rasterio.open(tmp_path / "scene.tif", "w", **options, **tile, **PLACE):
        pass  # the one tile, 1.2 GiB, is not written
    with pytest.raises(
        RasterError,
        match=r"scene\.tif: stored in blocks of 20480 x 20480 pixels, 1\.2 GiB each; expected at most 1 GiB",
    ):
        samples(tmp_path)
    code, lines = checked(tmp_path, capsys)
    assert code == 2
    assert lines[0].endswith("to be read by windows; store it in tiles: gdal_translate -of COG")
    (tmp_path / "dataset.yaml").write_text((tmp_path / "dataset.yaml").read_text().replace("max_pixels: 50000", ""))
    dataset = read_dataset(tmp_path)
    assert scene_of(dataset, dataset.pairs("train")[0]) is None  # small enough to be read whole


def test_fault_07_other_number_of_bands_in_a_scene(tmp_path, capsys):
    make_scene(tmp_path)
    with_another(tmp_path, noise(1, (300, 260), 5))
    with pytest.raises(DataError, match=r"other\.tif: has 5 bands .*; expected 3 as in scene\.tif: "):
        crops(samples(tmp_path))
    code, lines = checked(tmp_path, capsys)
    assert code == 2
    assert "other.tif: has 5 bands" in lines[0]


def test_fault_08_other_pixel_type_in_a_scene(tmp_path, capsys):
    make_scene(tmp_path)
    with_another(tmp_path, noise(1, (300, 260), dtype=np.uint16))
    with pytest.raises(DataError, match=r"other\.tif: pixels of type uint16, those of scene\.tif are uint8"):
        crops(samples(tmp_path))
    with pytest.raises(DataError, match=r"other\.tif: pixels of type uint16"):
        find_scaling(read_dataset(tmp_path))
    yaml = tmp_path / "dataset.yaml"
    yaml.write_text(yaml.read_text() + "scaling: {offset: [0, 0, 0], scale: [255, 255, 255]}\n")
    assert len(crops(samples(tmp_path))) == 8
    assert checked(tmp_path, capsys) == (0, [])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_fault_09_nan_and_infinity_of_a_scene_never_reach_the_network(tmp_path, bad):
    array = noise(1, (300, 260)).astype(np.float32)
    array[1, 40:200:3, ::5] = bad
    make_scene(tmp_path, array=array)
    assert all(np.isfinite(value) for value in find_scaling(read_dataset(tmp_path))[0].offset)
    found = crops(samples(tmp_path, scale=(0.5, 2.0), class_aware=0.5))
    assert any(sample.image.isnan().any() for sample in found)
    for sample in found:
        assert not sample.image.isinf().any()
        missing = sample.image.isnan()
        assert (missing.any(0) == missing.all(0)).all()
        assert (sample.target[missing[0]] == IGNORE).all()


@pytest.mark.parametrize("how", ["value", "yaml", "mask", "alpha"])
def test_fault_10_every_kind_of_no_data_is_honoured_in_windows(tmp_path, how):
    array, profile, more = noise(1, (300, 260), 3, np.int16), {}, ""
    hidden = np.zeros((300, 260), bool)
    hidden[100:180, 60:200] = True
    if how == "value":
        array[0, hidden], profile = -7, {"nodata": -7}
    elif how == "yaml":
        array[0, hidden], more = -7, "nodata: -7\n"
    elif how == "mask":
        profile = {"mask": (~hidden * 255).astype(np.uint8)}
    else:
        array = np.concatenate([array, ~hidden[None] * np.int16(9)])
        profile = {"colorinterp": [rasterio.enums.ColorInterp[c] for c in ("red", "green", "blue", "alpha")]}
    make_scene(tmp_path, array=array, more=more, **profile)
    found = samples(tmp_path, mirror=0.0)
    assert len(found.bands) == 3
    for sample in crops(found, 20):
        row, column = map(int, sample.name.rpartition("(")[2].strip(")").split(", "))
        part = hidden[row : row + 32, column : column + 32]
        assert np.array_equal(sample.image.isnan().all(0), part)
        assert np.array_equal(sample.target == IGNORE, part)
    report = check(read_dataset(tmp_path))
    assert report.splits[0].missing == pytest.approx(hidden.mean())
    assert report.splits[0].counts.ignored == hidden.sum()


def test_fault_10_a_scene_without_any_data(tmp_path):
    make_scene(tmp_path, array=np.full((3, 300, 260), -7, np.int16), nodata=-7)
    assert all((sample.target == IGNORE).all() for sample in crops(samples(tmp_path, class_aware=1.0)))
    with pytest.raises(DataError, match="no valid pixel in the images, so no scaling"):
        find_scaling(read_dataset(tmp_path))
    assert any("without a single pixel of data" in note for note in check(read_dataset(tmp_path)).notes)


def test_fault_13_a_mask_on_another_grid_than_its_scene(tmp_path, capsys):
    for moved, fits in ((0.009, True), (0.02, False)):
        make_scene(tmp_path)
        transform = PLACE["transform"] @ rasterio.Affine.translation(moved, 0)
        write_map(tmp_path / "mask.tif", blobs((300, 260))[None], transform=transform)
        code, lines = checked(tmp_path, capsys)
        assert code == (0 if fits else 2)
        if fits:
            assert len(crops(samples(tmp_path))) == 8
            continue
        assert "mask.tif: labels on another grid than the image, 0.02 pixels apart" in lines[0]
        assert len(lines) == 2  # once, not for each window
        with pytest.raises(DataError, match="another grid"):
            samples(tmp_path)


@pytest.mark.parametrize("size", [(1, 1200), (1200, 1), (31, 43), (1, 1)])
@pytest.mark.parametrize("labels", ["mask.tif", "houses.geojson"])
def test_fault_14_tiny_and_odd_maps(tmp_path, size, labels, capsys):
    tiny = {"tiled": False, "blockxsize": None, "blockysize": None}
    make_scene(tmp_path, size=size, pixels=1 if size == (1, 1) else 1000, **tiny)
    write_geojson(tmp_path / "houses.geojson", [box(-5, -5, 30)])
    yaml = tmp_path / "dataset.yaml"
    yaml.write_text(yaml.read_text().replace("mask.tif", labels) + "polygons: {class: b}\n")
    assert checked(tmp_path, capsys) == (0, [])
    found = samples(tmp_path, scale=(0.5, 2.0), turns=True, class_aware=0.5)
    for sample in crops(found):
        assert sample.image.shape == (3, 32, 32)
        assert np.array_equal(sample.image.isnan().any(0), sample.target == IGNORE)
    whole = list(SemanticDataset(read_dataset(tmp_path), "train"))
    assert sum(int((sample.target != IGNORE).sum()) for sample in whole) == size[0] * size[1]


class TestFault28:
    """GeoJSON labels: invalid rings, mixed geometry, other CRS, empty."""

    def town(self, folder, shapes, values=None, more="", **options):
        write_map(folder / "images" / "a.tif")
        write_geojson(folder / "l.geojson", shapes, values, **options)
        text = "classes: [ground, roof]\nsplits: {train: {images: images, labels: l.geojson}}\n" + more
        (folder / "dataset.yaml").write_text(text)
        return folder

    def target(self, folder):
        return SemanticDataset(read_dataset(folder), "train")[0].target.numpy()

    def test_fault_28_invalid_rings_are_mended_and_counted(self, tmp_path, capsys):
        x, y = WEST + 10, NORTH - 10
        bow = {"type": "Polygon", "coordinates": [[[x, y], [x + 10, y - 10], [x + 10, y], [x, y - 10], [x, y]]]}
        unclosed = {"type": "Polygon", "coordinates": [[[x + 20, y], [x + 30, y], [x + 30, y - 10], [x + 20, y - 10]]]}
        folder = self.town(tmp_path, [bow, unclosed, None])
        assert self.target(folder)[10:20, 30:40].all()
        (report,) = check(read_dataset(folder)).polygons
        assert (report.features, report.mended, report.empty) == (3, 2, 1)

    def test_fault_28_mixed_geometry_is_refused_or_widened(self, tmp_path, capsys):
        line = shapely.LineString([(WEST + 5, NORTH - 30.5), (WEST + 45, NORTH - 30.5)])
        folder = self.town(tmp_path, [box(5, 5), line, shapely.GeometryCollection([box(30, 5)])])
        code, lines = checked(folder, capsys)
        assert code == 2
        assert lines[0] == (
            f"bad: {folder}/l.geojson: 1 lines among 3 features; expected polygons; remove them, or make areas of "
            "them with polygons: {buffer: METRES} in dataset.yaml"
        )
        folder = self.town(
            tmp_path, [box(5, 5), line, shapely.GeometryCollection([box(30, 5)])], more="polygons: {buffer: 2}\n"
        )
        target = self.target(folder)
        assert target[29:32, 10:40].all()
        assert target[5:15, 30:40].all()
        assert not target[34:].any()

    def test_fault_28_other_coordinate_systems_give_the_same_pixels(self, tmp_path):
        expected = self.target(self.town(tmp_path, [box(5, 5, 20)]))
        for crs in ("OGC:CRS84", "EPSG:3857"):
            points = shapely.get_coordinates(shapely.segmentize(box(5, 5, 20), 5))
            x, y = rasterio.warp.transform("EPSG:32633", crs, *points.T)
            folder = self.town(tmp_path, [shapely.Polygon(np.stack([x, y], 1))], crs=crs)
            assert np.array_equal(self.target(folder), expected)

    def test_fault_28_an_empty_file_is_background_that_is_told(self, tmp_path, capsys):
        for more in ("", "polygons: {field: kind, background: ground}\n"):
            assert not self.target(self.town(tmp_path, [], more=more)).any()
            code, lines = checked(tmp_path, capsys)
            assert code == 2
            assert 'no polygon for the images of the split "train"' in lines[0]

    def test_fault_28_unknown_classes_are_counted_and_named(self, tmp_path, capsys):
        folder = self.town(tmp_path, [box(5, 5), box(9, 9)], ["roof", "roov"], more="polygons: {field: kind}\n")
        code, lines = checked(folder, capsys)
        assert code == 2
        assert lines[0] == f'bad: {folder}/l.geojson: no class "roov" in 1 feature; did you mean "roof"?'
        with pytest.raises(DataError, match=r'l\.geojson: kind: no class "roov" in 1 feature'):
            self.target(folder)
        folder = self.town(tmp_path, [box(5, 5)], more="polygons: {field: kin}\n")
        with pytest.raises(DataError, match=r'no field "kin"; did you mean "kind"\?'):
            self.target(folder)

    def test_fault_28_files_and_images_that_do_not_say_where_they_lie(self, tmp_path):
        folder = self.town(tmp_path, [box(5, 5)], crs=None)  # metres, where GeoJSON means degrees
        with pytest.raises(RasterError, match=r'give it with polygons: \{assume_crs: "EPSG:\.\.\."\} in dataset\.yaml'):
            self.target(folder)
        folder = self.town(tmp_path, [box(5, 5)], crs=None, more='polygons: {assume_crs: "EPSG:32633"}\n')
        write_map(folder / "images" / "a.tif", crs=None)
        assert self.target(folder).sum() == 100
        write_png(folder / "images" / "a.png", noise(0, (9, 9)).transpose(1, 2, 0).copy())
        (folder / "images" / "a.tif").unlink()
        with pytest.raises(RasterError, match=r'a\.png: no georeference.* tiles: "\{z\}/\{x\}/\{y\}"'):
            self.target(folder)

    @pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"type": "Point"}), "\x00" * 99])
    def test_fault_28_files_that_are_no_labels(self, tmp_path, capsys, text):
        folder = self.town(tmp_path, [])
        (folder / "l.geojson").write_text(text)
        code, lines = checked(folder, capsys)
        assert code == 2
        assert lines[0].startswith(f"bad: {folder}/l.geojson: ")
        assert len(lines) == 2
