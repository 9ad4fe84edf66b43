"""The check: facts that are right, problems that are all named, and oddities that are noticed."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from PIL import Image

from made_data import YAML, labels, make_dataset, picture, write_png, write_tiff
from torchfpn.data.check import check
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import SemanticDataset
from torchfpn.data.headers import page_count
from torchfpn.errors import DataError
from torchfpn.report.dataset_sheet import write_sheet


def report(folder, **options):
    return check(read_dataset(make_dataset(folder, **options)))


def test_facts(tmp_path):
    found = report(tmp_path)
    assert found.ok
    assert found.notes == ()
    images = np.concatenate([picture(s).reshape(-1, 3) for s in (0, 1, 2, 100, 101)]).astype(float)
    for i, band in enumerate(found.bands):
        assert (band.low, band.high) == (images[:, i].min(), images[:, i].max())
        assert band.mean == pytest.approx(images[:, i].mean())
        assert band.std == pytest.approx(images[:, i].std())
    train = found.splits[0]
    assert (train.name, train.images, train.heights, train.widths) == ("train", 3, (24, 24), (32, 32))
    values = np.concatenate([labels(s).ravel() for s in range(3)])
    assert train.counts.pixels == tuple(np.bincount(values))
    assert found.to_dict()["splits"]["val"]["images"] == 2


def test_missing_data_is_counted(tmp_path):
    make_dataset(tmp_path, train=1, val=0)
    (tmp_path / "train" / "images" / "a0.png").unlink()
    array = np.ones((2, 24, 32), "float32")
    array[0, :6] = np.nan
    write_tiff(tmp_path / "train" / "images" / "a0.tif", array)
    found = check(read_dataset(make_dataset(tmp_path, train=0, val=0)))
    assert found.splits[0].missing == 0.25
    assert found.splits[0].counts.ignored == 6 * 32


def test_every_bad_file_is_named_once_and_the_good_ones_counted(tmp_path):
    make_dataset(tmp_path, train=6)
    folder = tmp_path / "train"
    (folder / "images" / "a0.png").write_bytes(b"")
    (folder / "labels" / "a1.png").write_text("hello")
    write_png(folder / "labels" / "a2.png", labels(0, (5, 5)))
    write_png(folder / "labels" / "a3.png", labels(0) + 7)
    (folder / "labels" / "a4.png").unlink()
    found = check(read_dataset(tmp_path))
    assert not found.ok
    bad = {f"{p.file.parent.name}/{p.file.name}" for p in found.problems}
    assert bad == {"images/a0.png", "labels/a1.png", "labels/a2.png", "labels/a3.png", "images/a4.png"}
    assert len(found.problems) == 5
    assert found.splits[0].images == 1
    assert found.splits[1].images == 2


def test_both_of_a_pair_may_be_bad(tmp_path):
    make_dataset(tmp_path)
    for kind in ("images", "labels"):
        (tmp_path / "train" / kind / "a0.png").write_bytes(b"x")
    assert len(check(read_dataset(tmp_path)).problems) == 2


def test_a_missing_split_does_not_hide_the_others(tmp_path):
    found = report(tmp_path, yaml=YAML + "  test: {images: gone, labels: gone}\n")
    assert [p.file.name for p in found.problems] == ["gone"]
    assert [split.images for split in found.splits] == [3, 2, 0]


class TestNotes:
    """What is no error and yet worth a look."""

    def note(self, folder):
        found = check(read_dataset(folder))
        assert found.ok, found.problems
        return " | ".join(found.notes)

    def test_the_same_picture_in_two_splits(self, tmp_path):
        make_dataset(tmp_path)
        write_png(tmp_path / "val" / "images" / "a1.png", picture(2))
        assert "1 image in several splits: train/a2.png = val/a1.png" in self.note(tmp_path)

    def test_a_class_that_never_occurs(self, tmp_path):
        make_dataset(tmp_path, yaml=YAML.replace("water]", "water, snow]"))
        assert "train: no pixel of snow | val: no pixel of snow" in self.note(tmp_path)

    def test_masks_of_0_and_255(self, tmp_path):
        make_dataset(tmp_path, yaml=YAML.replace("[grass, road, water]", "[land, water]"))
        for path in tmp_path.glob("*/labels/*.png"):
            write_png(path, labels(0, classes=2) * 255)
        assert "for masks of 0 and 255: classes: {0: land, 255: water}" in self.note(tmp_path)

    def test_alpha_that_may_be_infrared(self, tmp_path):
        make_dataset(tmp_path)
        for path in list(tmp_path.glob("*/images/*.png")):
            array = np.maximum(picture(len(path.parent.parent.name), bands=4), 1)
            write_tiff(path.with_suffix(".tif"), array.transpose(2, 0, 1))
            path.unlink()
        assert "band 4 is marked as alpha" in self.note(tmp_path)

    def test_images_without_labels_or_data(self, tmp_path):
        make_dataset(tmp_path)
        write_png(tmp_path / "train" / "labels" / "a1.png", np.full((24, 32), 255, "uint8"))
        write_png(tmp_path / "train" / "images" / "a2.png", np.zeros((24, 32, 4), "uint8"))
        text = self.note(tmp_path)
        assert "2 images without a single labelled pixel: a1.png, a2.png" in text
        assert "1 image without a single pixel of data: a2.png" in text

    def test_bands_with_other_names(self, tmp_path):
        make_dataset(tmp_path)
        for path in list(tmp_path.glob("train/images/*.png")):
            write_tiff(path.with_suffix(".tif"), np.ones((3, 24, 32), "uint8"), descriptions=("nir", "red", path.stem))
            path.unlink()
        assert "bands have different names" in self.note(tmp_path)

    def test_several_pages_of_images_and_labels(self, tmp_path):
        """Overviews and masks are directories of a TIFF as well, but no pages."""
        make_dataset(tmp_path, train=2)
        for kind, bands in (("images", 3), ("labels", 1)):
            (tmp_path / f"train/{kind}/a0.png").unlink()
            pages = [Image.fromarray(np.full((24, 32, 3)[: 2 + (bands > 1)], i, "uint8")) for i in range(3)]
            pages[0].save(tmp_path / f"train/{kind}/a0.tif", save_all=True, append_images=pages[1:])
        (tmp_path / "train/images/a1.png").unlink()
        layered = write_tiff(
            tmp_path / "train/images/a1.tif", np.ones((3, 24, 32), "uint8"), mask=np.ones((24, 32), "uint8")
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(layered, "r+") as sink:
                sink.write_mask(np.full((24, 32), 255, "uint8"))
                sink.build_overviews([2, 4])
        assert page_count(layered) == 1
        assert "2 files of several pages or pictures, of which the first is read: a0.tif (3), a0.tif (3)" in self.note(
            tmp_path
        )

    @pytest.mark.parametrize(("dtype", "start"), [("float64", 1e9), ("int32", 2_000_000_000)])
    def test_values_too_fine_for_float32(self, tmp_path, dtype, start):
        make_dataset(tmp_path, train=2, val=1)
        for path in list(tmp_path.glob("*/images/*.png")):
            array = np.random.default_rng(0).integers(-1, 2, (1, 24, 32)) + (start if "train" in str(path) else 0)
            write_tiff(path.with_suffix(".tif"), array.astype(dtype))
            path.unlink()
        note = self.note(tmp_path)
        assert "a0.tif: float32, which models compute in, is too coarse for the band grey (" in note
        assert note.count("too coarse") == 1

    def test_values_beyond_what_models_see(self, tmp_path):
        make_dataset(tmp_path, train=2, val=1)
        for path in list(tmp_path.glob("*/images/*.png")):
            array = np.random.default_rng(0).random((1, 24, 32), np.float32)
            array[0, 3, 4:7] = 3e38 if path.parents[1].name == "train" else 9
            write_tiff(path.with_suffix(".tif"), array)
            path.unlink()
        note = self.note(tmp_path)
        assert "6 pixels with values beyond 2^64 count as no data, and the scaling leaves them out: a0.tif, a1." in note


class TestNamesInAnotherOrder:
    """Bands that the files name are not read in the order of other files, or of dataset.yaml."""

    def folder(self, tmp_path, *orders, yaml=YAML):
        make_dataset(tmp_path, train=len(orders), val=0, yaml=yaml.split("  val")[0])
        names = np.array(["B2", "B3", "B4", "B8"])
        array = np.arange(4)[:, None, None] + np.zeros((4, 24, 32))
        for i, order in enumerate(orders):
            path = tmp_path / f"train/images/a{i}.png"
            write_tiff(
                path.with_suffix(".tif"), array[list(order)].astype("uint16"), descriptions=tuple(names[list(order)])
            )
            path.unlink()
        return read_dataset(tmp_path)

    def test_files_of_one_split(self, tmp_path):
        dataset = self.folder(tmp_path, (0, 1, 2, 3), (3, 2, 1, 0))
        (problem,) = check(dataset).problems
        assert problem.file.name == "a1.tif"
        assert "names its bands B8, B4, B3, B2" in problem.line
        samples = SemanticDataset(dataset, "train")
        with pytest.raises(DataError, match=r"a1\.tif: names its bands B8, B4, B3, B2; expected the order of a0\.tif"):
            samples[1]
        samples = SemanticDataset(replace(dataset, use_bands=("B02", "B08")), "train")
        assert [sample.image[:, 0, 0].tolist() for sample in (samples[0], samples[1])] == [[0, 3], [0, 3]]

    def test_the_yaml_says_another_order_than_the_file(self, tmp_path):
        dataset = self.folder(tmp_path, (3, 2, 1, 0), yaml="bands: [B02, B03, B04, B08]\n" + YAML)
        assert "names its bands B8, B4, B3, B2; expected the order of `bands`" in check(dataset).problems[0].line
        other = self.folder(tmp_path / "other", (3, 2, 1, 0), yaml="bands: [a, b, c, d]\n" + YAML)
        assert check(other).ok


def test_contact_sheet_shows_pixels_labels_and_bad_files(tmp_path):
    folder = make_dataset(tmp_path / "set", yaml=YAML.replace("road", "{name: road, color: [250, 3, 5]}"))
    flat = np.zeros((24, 32, 3), "uint8")
    flat[:, 16:] = (10, 200, 40)
    write_png(folder / "train" / "images" / "a0.png", flat)
    (folder / "val" / "images" / "a0.png").write_bytes(b"")
    write_sheet(check(read_dataset(folder)), tmp_path / "sheet.png")
    page = np.array(Image.open(tmp_path / "sheet.png"))
    assert page.ndim == 3
    assert 600 < page.shape[1] < 2000
    road = (page == (250, 3, 5)).all(-1).sum()
    assert road > 3 * 300 * 200 // 5  # a third of each labels picture, and the legend
    assert (page == 255).all(-1).mean() < 0.6  # not an empty page


def test_contact_sheet_of_very_odd_sizes(tmp_path):
    make_dataset(tmp_path, train=2, val=0, size=(1, 400))
    write_png(tmp_path / "train" / "images" / "a1.png", picture(1, (300, 1)))
    write_png(tmp_path / "train" / "labels" / "a1.png", labels(1, (300, 1)))
    write_sheet(check(read_dataset(tmp_path)), tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000
