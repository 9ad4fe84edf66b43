"""Files as other programs write them: every pixel type, picture format and way of saying where an image lies."""

import json
import math
import warnings

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import WktVersion
from rasterio.rpc import RPC
from rasterio.shutil import copy

from made_data import write_png, write_tiff
from made_maps import PLACE, box, noise, write_geojson
from tiny_model import tiny_task
from torchfpn.cli.main import main
from torchfpn.config.settings import TrainConfig
from torchfpn.data.check import check
from torchfpn.data.config import read_dataset
from torchfpn.errors import DataError
from torchfpn.io.images import read_image
from torchfpn.io.labels import read_labels
from torchfpn.train.datamodule import SemanticDataModule

TYPES = (
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64",
    "complex_int16", "complex64", "complex128",
)  # fmt: skip


def write_typed(path, dtype, **profile):
    """A one-band GeoTIFF of the values 0 and 1 in any type of GDAL's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = (np.indices((32, 40)).sum(0) // 7 % 2)[None].astype("complex64" if dtype == "complex_int16" else dtype)
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=32, width=40, dtype=dtype, **(PLACE | profile)
    ) as sink:
        sink.write(array)
    return path


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "grey.safetensors"
    tiny_task(bands=("grey",), dtype="").save(path)
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "photo.safetensors"
    tiny_task(bands=("red", "green", "blue"), dtype="uint8").save(path)
    return path


def run(*words):
    return main([str(word) for word in words])


def err(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line]


@pytest.mark.parametrize("dtype", TYPES)
def test_every_pixel_type_is_predicted_or_refused_in_one_line(grey, tmp_path, capsys, dtype):
    image = write_typed(tmp_path / "a.tif", dtype)
    for more in ([], ["--tile-size", 32], ["--mosaic", "m"]):
        code = run("predict", grey, image, "--out", tmp_path / f"out{len(more)}{more[-1:]}", "--device", "cpu", *more)
        lines = err(capsys)
        if dtype.startswith("complex"):
            assert code == 2
            assert len(lines) == 1
            assert (
                f"a.tif: pixels of type {dtype}; expected whole or floating-point numbers; write the amplitude"
                in lines[0]
            )
        else:
            assert (code, lines) == (0, [])


@pytest.mark.parametrize("dtype", TYPES)
def test_every_pixel_type_has_an_answer_in_check_init_compare_and_evaluate(grey, tmp_path, capsys, dtype):
    for split in ("train", "val"):
        write_typed(tmp_path / "data" / split / "images" / "a.tif", dtype)
        write_typed(tmp_path / "data" / split / "labels" / "a.tif", "uint8")
    refused = dtype.startswith("complex")
    assert run("check", tmp_path / "data", "--init") == refused  # written, and said what is left to decide
    text = "classes: [a, b]\nsplits: {train: {images: train/images, labels: train/labels}}\n"
    (tmp_path / "data" / "dataset.yaml").write_text(text)
    assert run("check", tmp_path / "data") == 2 * refused
    val = tmp_path / "data" / "val"
    sheets = ("--prediction", val / "labels", "--truth", val / "labels", "--out", tmp_path / "sheets")
    assert run("compare", val / "images", *sheets) == 2 * refused
    out = capsys.readouterr()
    assert "Traceback" not in out.err
    # as labels
    labels = write_typed(tmp_path / "labels" / "a.tif", dtype)
    assert run("evaluate", labels, tmp_path / "data" / "val" / "labels" / "a.tif") == 2 * refused
    assert all(line.startswith("fpn: ") for line in err(capsys))
    write_typed(tmp_path / "data" / "train" / "labels" / "a.tif", dtype)
    write_typed(tmp_path / "data" / "train" / "images" / "a.tif", "uint8")
    assert run("check", tmp_path / "data") == 2 * refused


NFC, NFD = "Stra\u00dfe \u00e4", "Stra\u00dfe a\u0308"  # one name, as it is typed and as macOS decomposes it


def write_pairs(folder, images, labels, count=2):
    """Image and label PNGs of one name, spelt in two ways."""
    for kind, stem in (("images", images), ("labels", labels)):
        (folder / kind).mkdir(parents=True)
        for i in range(count):
            write_png(folder / kind / f"{stem}{i}.png", np.full((32, 32, 3) if kind == "images" else (32, 32), i, "u1"))


@pytest.mark.parametrize(("images", "labels", "listed"), [(NFC, NFD, NFC), (NFD, NFC, NFC), (NFD, NFD, NFC)])
def test_names_are_one_however_their_accents_are_composed(tmp_path, capsys, images, labels, listed):
    write_pairs(tmp_path, images, labels)
    (tmp_path / "dataset.yaml").write_text(
        "classes: [a, b]\nsplits: {train: {images: images, labels: labels, list: train.txt}}\n"
    )
    (tmp_path / "train.txt").write_text(f"{listed}0\n{listed}1.png\n", encoding="utf-8")
    assert run("check", tmp_path) == 0, err(capsys)
    assert run("evaluate", tmp_path / "labels", tmp_path / "labels") == 0
    one = tmp_path / "images" / f"{images}0.png"
    assert run("compare", one, "--truth", tmp_path / "labels", "--out", tmp_path / "sheets") == 0, err(capsys)


def test_folders_and_coco_names_are_found_however_their_accents_are_composed(tmp_path, capsys):
    write_pairs(tmp_path / NFD, NFD, NFD)
    (tmp_path / "dataset.yaml").write_text(
        f"classes: [a, b]\nsplits: {{train: {{images: '{NFC}/images', labels: '{NFC}/labels'}}}}\n", encoding="utf-8"
    )
    assert run("check", tmp_path) == 0, err(capsys)
    coco = {
        "images": [{"id": 1, "file_name": f"{NFC}0.png", "width": 32, "height": 32}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}],
    }
    (tmp_path / "a.json").write_text(json.dumps(coco))
    (tmp_path / "dataset.yaml").write_text(
        f"task: detection\nsplits: {{train: {{images: '{NFC}/images', annotations: a.json}}}}\n", encoding="utf-8"
    )
    assert run("check", tmp_path) == 0, err(capsys)


def test_two_files_of_one_name_composed_in_two_ways_are_named(tmp_path, capsys):
    write_pairs(tmp_path, NFC, NFC, count=1)
    write_png(tmp_path / "images" / f"{NFD}0.png", np.zeros((32, 32, 3), np.uint8))
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nsplits: {train: {images: images, labels: labels}}\n")
    assert run("check", tmp_path) == 2
    assert "has the same name as" in "".join(err(capsys))


def test_a_byte_order_mark_in_a_list_is_no_part_of_the_first_name(tmp_path, capsys):
    write_pairs(tmp_path, "a", "a")
    text = "classes: [a, b]\nsplits: {train: {images: images, labels: labels, list: train.txt}}\n"
    (tmp_path / "dataset.yaml").write_text(text, encoding="utf-8-sig")
    (tmp_path / "train.txt").write_text("a0\r\na1\r\n", encoding="utf-8-sig")
    assert run("check", tmp_path) == 0, err(capsys)


def place_of(path):
    """Transform, CRS, ground control points and RPC of a raster, as GDAL reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            points = [(p.row, p.col, p.x, p.y, p.z) for p in source.gcps[0]]
            return source.transform, source.crs, points, source.gcps[1], source.tags(ns="RPC")


class TestWorldFiles:
    """Photographs and TIFFs beside a file of six numbers."""

    NUMBERS = "0.5\n0\n0\n-0.5\n500000.25\n4999999.75\n"  # the last two: the middle of the first pixel
    TRANSFORM = rasterio.Affine(0.5, 0, 500000, 0, -0.5, 5000000)

    @pytest.mark.parametrize(
        ("image", "world"),
        [("a.jpg", "a.jgw"), ("a.jpeg", "a.jgw"), ("a.png", "a.pgw"), ("a.png", "a.wld"), ("a.jpg", "a.JGW"),
         ("a.jpg", "a.jpgw"), ("a.bmp", "a.bpw"), ("a.webp", "a.wpw"), ("a.tif", "a.tfw"), ("a.jp2", "a.j2w")],
    )  # fmt: skip
    def test_place_a_prediction(self, photo, tmp_path, capsys, image, world):
        write_any(tmp_path / image)
        (tmp_path / world).write_text(self.NUMBERS)
        out = tmp_path / "out"
        words = ("predict", photo, tmp_path / image, "--out", out, "--assume-crs", "EPSG:32633", "--device", "cpu")
        assert run(*words, "--polygons", "geojson") == 0, err(capsys)
        transform, crs, *_ = place_of(out / "a.tif")
        assert transform.almost_equals(self.TRANSFORM, 1e-9)
        assert crs.to_epsg() == 32633
        ring = json.loads((out / "a.geojson").read_text())["features"][0]["geometry"]["coordinates"][0]
        assert all(abs(x - 15) < 0.001 and abs(y - 45.15) < 0.01 for x, y in np.array(ring).reshape(-1, 2))

    def test_place_the_polygons_of_a_dataset(self, tmp_path):
        write_any(tmp_path / "images" / "a.jpg")
        (tmp_path / "images" / "a.jgw").write_text(self.NUMBERS.replace(".", ","))  # as some systems write numbers
        write_geojson(tmp_path / "a.geojson", [box(0, 0, 8)])
        for task in ("semantic", "instance"):
            (tmp_path / "dataset.yaml").write_text(
                f"task: {task}\nclasses: [{'a, b' if task == 'semantic' else 'b'}]\n"
                "polygons: {assume_crs: 'EPSG:32633'}\n"
                "splits: {train: {images: images, labels: a.geojson}}\n"
            )
            report = check(read_dataset(tmp_path)).to_dict()
            assert report["problems"] == []
            train = report["splits"]["train"]
            if task == "semantic":
                assert train["pixels"] == [32 * 40 - 16 * 16, 16 * 16]  # 8 metres are 16 pixels
            else:
                assert train["objects"] == 1

    @pytest.mark.parametrize(
        "text", ["0.5\n0\n0\n", "0.5\n0\n0\n-0.5\nx\n1\n", "0\n0\n0\n-0.5\n1\n1\n", "", "nan\n" * 6]
    )
    def test_damaged_ones_are_named(self, photo, tmp_path, capsys, text):
        write_any(tmp_path / "a.jpg")
        (tmp_path / "a.jgw").write_text(text)
        assert run("predict", photo, tmp_path / "a.jpg", "--out", tmp_path / "out", "--device", "cpu") == 2
        (line,) = err(capsys)
        assert "a.jgw: a" in line

    @pytest.mark.parametrize("image", ["a.jpg", "a.png", "a.tif"])
    def test_a_prj_beside_one_is_its_coordinate_system(self, photo, tmp_path, capsys, image):
        write_any(tmp_path / image)
        (tmp_path / "a.wld").write_text(self.NUMBERS)
        (tmp_path / "a.prj").write_text(rasterio.crs.CRS.from_epsg(32633).to_wkt(version=WktVersion.WKT1_ESRI))
        words = ("predict", photo, tmp_path / image, "--device", "cpu", "--polygons", "geojson", "--overwrite", "--out")
        assert run(*words, tmp_path / "out") == 0, err(capsys)
        assert place_of(tmp_path / "out" / "a.tif")[1] == rasterio.crs.CRS.from_epsg(32633)
        for text in ("EPSG:32633", "/vsicurl/http://127.0.0.1/a", "PROJCS[", ""):  # names GDAL would follow, or damaged
            (tmp_path / "a.prj").write_text(text)
            assert run(*words, tmp_path / "out") == 2
            assert "a.prj: a damaged .prj file" in err(capsys)[0]
        (tmp_path / "a.shp").write_bytes(b"")  # the .prj is the shapefile's
        assert run(*words, tmp_path / "out") == 2
        assert "no coordinate system" in err(capsys)[0]

    @pytest.mark.parametrize("image", ["a.jpg", "a.png"])
    def test_gdals_side_file_places_a_photograph(self, photo, tmp_path, capsys, image):
        array = noise(0, (32, 40))
        driver = "JPEG" if image.endswith("jpg") else "PNG"
        with rasterio.open(
            tmp_path / image, "w", driver=driver, height=32, width=40, count=3, dtype="uint8",
            crs="EPSG:32633", transform=self.TRANSFORM,
        ) as sink:  # fmt: skip
            sink.write(array)
        assert (tmp_path / f"{image}.aux.xml").exists()
        assert run("predict", photo, tmp_path / image, "--out", tmp_path / "out", "--device", "cpu") == 0, err(capsys)
        transform, crs, *_ = place_of(tmp_path / "out" / "a.tif")
        assert transform.almost_equals(self.TRANSFORM, 1e-9)
        assert crs.to_epsg() == 32633

    def test_beside_a_picture_that_is_turned_say_nothing_certain(self, photo, tmp_path, capsys):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.zeros((32, 40, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
        (tmp_path / "a.jgw").write_text(self.NUMBERS)
        assert run("predict", photo, tmp_path / "a.jpg", "--out", tmp_path / "out", "--device", "cpu") == 2
        assert "turned by its EXIF orientation, and placed by a.jgw" in err(capsys)[0]


POINTS = [(0.5, 0.25, 15.123456789, 45, 7), (0, 40, 15.1, 45, 0), (32, 0, 15, 44.9, 0), (32, 40, 15.11, 44.91, 0)]
RPC_TEXT = {
    **{f"{what}_{kind}": "10" for what in ("HEIGHT", "LAT", "LINE", "LONG", "SAMP") for kind in ("OFF", "SCALE")},
    **{f"{what}_{kind}_COEFF": " ".join(["1", *["0"] * 19])
       for what in ("LINE", "SAMP") for kind in ("NUM", "DEN")},
}  # fmt: skip


def tied(kind):
    if kind == "rpc":
        return {"rpcs": RPC.from_gdal(RPC_TEXT)}
    crs = CRS() if kind == "bare" else "EPSG:4326"
    return {"gcps": [GroundControlPoint(*point) for point in POINTS], "crs": crs}


@pytest.mark.parametrize("kind", ["gcp", "bare", "rpc"])
def test_ground_control_points_and_camera_models_go_into_every_raster(photo, tmp_path, capsys, kind):
    array = np.random.default_rng(0).integers(0, 255, (3, 32, 40)).astype("u1")
    image = write_tiff(tmp_path / "a.tif", array, photometric="RGB", **tied(kind))
    for more in ([], ["--tile-size", 32]):
        out = tmp_path / f"out{len(more)}"
        words = ("predict", photo, image, "--out", out, "--device", "cpu", *more)
        assert run(*words, "--probabilities", "uint8", "--polygons", "pixels") == 0, err(capsys)
        for name in ("a.tif", "a.probs.tif"):
            assert place_of(out / name) == place_of(image)
    capsys.readouterr()
    assert run("predict", photo, image, "--out", tmp_path / "x", "--polygons", "geojson", "--device", "cpu") == 2
    (line,) = err(capsys)
    found = "an RPC and no transform" if kind == "rpc" else "4 ground control points and no transform"
    assert f"a.tif: {found}; expected a raster with a geotransform; warp it first: gdalwarp " in line
    write_geojson(tmp_path / "b.geojson", [box(0, 0)])
    assert run("rasterize", tmp_path / "b.geojson", image, "--out", tmp_path / "masks") == 2
    assert f"a.tif: {found}" in err(capsys)[0]
    assert run("predict", photo, image, "--mosaic", "m", "--out", tmp_path / "x", "--device", "cpu") == 2
    assert f"a.tif: {found}" in err(capsys)[0]


def test_a_camera_model_beside_a_transform_goes_into_every_raster(photo, tmp_path, capsys):
    array = np.random.default_rng(0).integers(0, 255, (3, 32, 40)).astype("u1")
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}
    image = write_tiff(tmp_path / "a.tif", array, photometric="RGB", rpcs=RPC.from_gdal(RPC_TEXT), **place)
    assert place_of(image)[4]
    for more in ([], ["--tile-size", 32]):
        words = ("predict", photo, image, "--out", tmp_path / f"out{len(more)}", "--device", "cpu", *more)
        assert run(*words, "--probabilities", "uint8") == 0, err(capsys)
        for name in ("a.tif", "a.probs.tif"):
            assert place_of(tmp_path / f"out{len(more)}" / name) == place_of(image)
    write_geojson(tmp_path / "b.geojson", [box(0, 0)])
    assert run("rasterize", tmp_path / "b.geojson", image, "--out", tmp_path / "masks") == 0, err(capsys)
    assert place_of(tmp_path / "masks" / "a.tif") == place_of(image)


def write_any(path, array=None):
    """A picture of red, green and blue in the format that the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(0).integers(0, 255, (32, 40, 3)).astype("u1") if array is None else array
    if path.suffix == ".tif":
        return write_tiff(path, np.moveaxis(array, -1, 0).copy(), photometric="RGB")
    Image.fromarray(array).save(path, **({"lossless": True} if path.suffix == ".webp" else {}))
    return path


HEADS = {
    "a.img": b"EHFA_HEADER_TAG\0",
    "b.heic": b"\0\0\0\x18ftypheic",
    "c.nc": b"CDF\x01",
    "d.dng": b"II*\0\x08\0\0\0",
    "e.npy": b"\x93NUMPY",
    "f.ecw": b"\1\2\3",
}


class TestFormats:
    """What people keep pictures in."""

    @pytest.mark.parametrize("suffix", [".webp", ".bmp", ".jp2", ".j2k", ".png"])
    def test_pictures_are_the_same_in_every_format_without_loss(self, photo, tmp_path, capsys, suffix):
        array = np.random.default_rng(0).integers(0, 255, (32, 40, 3)).astype("u1")
        if suffix in (".jp2", ".j2k"):
            Image.fromarray(array).save(tmp_path / f"a{suffix}", irreversible=False, no_jp2=suffix == ".j2k")
        else:
            write_any(tmp_path / f"a{suffix}", array)
        picture = read_image(tmp_path / f"a{suffix}")
        assert np.array_equal(picture.array, np.moveaxis(array, -1, 0))
        named = ("red", "green", "blue") if suffix != ".j2k" else ("band1", "band2", "band3")  # a bare code stream
        assert picture.band_names == named
        assert run("predict", photo, tmp_path, "--out", tmp_path / "out", "--device", "cpu") == 0, err(capsys)

    def test_sixteen_bits_and_windows_of_jpeg_2000(self, grey, tmp_path, capsys):
        array = np.random.default_rng(0).integers(0, 65535, (1, 200, 300)).astype("u2")
        made = write_tiff(tmp_path / "made.tif", array, **PLACE)
        copy(
            made, tmp_path / "a.jp2", driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES", BLOCKXSIZE=64, BLOCKYSIZE=64
        )
        assert np.array_equal(read_image(tmp_path / "a.jp2").array, array)
        assert np.array_equal(read_image(tmp_path / "a.jp2", window=(30, 40, 50, 60)).array, array[:, 30:80, 40:100])
        assert (
            run(
                "predict", grey, tmp_path / "a.jp2", "--tile-size", "64", "--margin", "exact", "--out", tmp_path / "out"
            )
            == 0
        )
        assert run("predict", grey, made, "--out", tmp_path / "out") == 0
        with rasterio.open(tmp_path / "out" / "a.tif") as one, rasterio.open(tmp_path / "out" / "made.tif") as other:
            assert np.array_equal(one.read(), other.read())
            assert one.transform == other.transform

    @pytest.mark.parametrize("suffix", [".gif", ".bmp"])
    def test_masks_with_a_palette(self, tmp_path, capsys, suffix):
        values = (np.indices((32, 40)).sum(0) // 7 % 3).astype("u1")
        mask = Image.fromarray(values)
        mask.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
        (tmp_path / "labels").mkdir()
        mask.save(tmp_path / "labels" / f"a{suffix}")
        write_any(tmp_path / "images" / "a.webp")
        assert np.array_equal(read_labels(tmp_path / "labels" / f"a{suffix}").values, values)
        assert run("check", tmp_path, "--init") == 0, err(capsys)
        report = check(read_dataset(tmp_path)).to_dict()
        assert report["splits"]["train"]["pixels"] == np.bincount(values.ravel()).tolist()
        assert run("evaluate", tmp_path / "labels", tmp_path / "labels") == 0

    def test_animations_and_masks_that_change_their_values_are_refused(self, photo, tmp_path, capsys):
        frames = [Image.fromarray(np.full((9, 9), i, "u1")) for i in (1, 50)]
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        assert run("predict", photo, tmp_path / "a.gif", "--out", tmp_path / "out", "--device", "cpu") == 2
        assert "a.gif: an animation of 2 frames" in err(capsys)[0]
        for name in ("a.webp", "a.jp2"):
            with pytest.raises(DataError, match=f"{name}: a {name[2:].upper()}, which may change the values"):
                read_labels(write_any(tmp_path / name))

    @pytest.mark.parametrize("suffix", [".webp", ".bmp", ".gif", ".jp2"])
    @pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
    def test_cut_off_files_are_refused_in_one_line(self, tmp_path, suffix, part):
        path = write_any(tmp_path / f"a{suffix}")
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(DataError, match=f"a{suffix}: "):
            read_image(path)

    def test_files_that_are_not_read_fail_by_name_and_others_are_passed_over_aloud(self, photo, tmp_path, capsys):
        folder = tmp_path / "in"
        write_any(folder / "good.png")
        for name, head in HEADS.items():
            (folder / name).write_bytes(head + bytes(100))
        for name in ("notes.txt", "good.json", "good.pgw", "Thumbs.db", "good.png.aux.xml", ".hidden.txt"):
            (folder / name).write_text("0.5\n0\n0\n-0.5\n5\n5\n")
        assert run("predict", photo, folder, "--out", tmp_path / "out", "--device", "cpu") == 1
        out = capsys.readouterr()
        lines = out.err.splitlines()
        assert lines[0] == f"fpn: skipped 2 files that are not images: {folder}/good.json, {folder}/notes.txt"
        for line, name in zip(lines[1:], HEADS, strict=True):
            assert f"{name}: not an image this program reads (" in line
            assert f"convert it: save it as PNG or TIFF, or gdal_translate {name} {name[0]}.tif" in line
        assert "1 predicted, 6 failed" in out.out

    def test_a_dataset_names_what_it_does_not_read(self, tmp_path, capsys):
        write_pairs(tmp_path, "a", "a")
        (tmp_path / "labels" / "a0.txt").write_text("0 0.5 0.5 0.1 0.1")
        (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nsplits: {train: {images: images, labels: labels}}\n")
        assert run("check", tmp_path) == 0
        assert "1 file that is not an image is skipped: labels/a0.txt" in capsys.readouterr().out
        (tmp_path / "images" / "b.heic").write_bytes(b"\0\0\0\x18ftypheic")
        assert run("check", tmp_path) == 2
        assert "b.heic: .heic is not read; expected PNG, JPEG" in "".join(err(capsys))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiles.safetensors"
    tiny_task(bands=("red", "green", "blue"), dtype="uint8", rules={"tiles": "town-{x}-{y}-{z}"}).save(path)
    return path


class TestTilesOfTheModel:
    """Models learnt from tiles of a web map remember how their paths tell the place."""

    def test_place_files_of_such_names_and_it_is_said(self, model, tmp_path, capsys):
        write_any(tmp_path / "town-10-20-18.png")
        words = ("--polygons", "geojson", "--out", tmp_path / "out", "--device", "cpu")
        assert run("predict", model, tmp_path / "town-10-20-18.png", *words) == 0, err(capsys)
        assert '"town-{x}-{y}-{z}", as in training (--tiles)' in capsys.readouterr().out
        west, north = -180 + 10 * 360 / 2**18, math.degrees(math.atan(math.sinh(math.pi * (1 - 40 / 2**18))))
        text = json.loads((tmp_path / "out" / "town-10-20-18.geojson").read_text())
        points = np.concatenate([np.array(ring) for f in text["features"] for ring in f["geometry"]["coordinates"]])
        assert np.abs(points.min(0)[0] - west) < 1e-6
        assert np.abs(points.max(0)[1] - north) < 1e-6
        assert run("info", model) == 0
        assert "town-{x}-{y}-{z}" in capsys.readouterr().out

    def test_leave_other_files_alone(self, model, tmp_path, capsys):
        write_any(tmp_path / "a.png")
        assert run("predict", model, tmp_path / "a.png", "--out", tmp_path / "out", "--device", "cpu") == 0
        assert "--tiles" not in capsys.readouterr().out
        words = ("--polygons", "geojson", "--out", tmp_path / "more", "--device", "cpu")
        assert run("predict", model, tmp_path / "a.png", *words) == 2
        assert "no georeference" in err(capsys)[0]
        write_tiff(tmp_path / "town-1-2-3.tif", np.ones((3, 32, 40), "u1"), **PLACE | {"photometric": "RGB"})
        assert run("predict", model, tmp_path / "town-1-2-3.tif", "--out", tmp_path / "out", "--device", "cpu") == 0
        assert place_of(tmp_path / "out" / "town-1-2-3.tif")[0] == PLACE["transform"]  # the file itself says

    def test_are_those_of_the_training_set(self, tmp_path):
        for name in ("18/10/20", "18/10/21"):
            for kind in ("images", "labels"):
                path = tmp_path / kind / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_png(path, np.ones((32, 32, 3) if kind == "images" else (32, 32), np.uint8))
        folders = "{images: 'images/{z}/{x}/{y}', labels: 'labels/{z}/{x}/{y}'}"
        (tmp_path / "dataset.yaml").write_text(f"classes: [a, b]\nsplits: {{train: {folders}}}\n")
        found = SemanticDataModule(TrainConfig(dataset=str(tmp_path)), read_dataset(tmp_path))
        assert found.rules == {"tiles": "{z}/{x}/{y}"}
