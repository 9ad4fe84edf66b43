"""What `images:` and `labels:` may name besides folders: a file, a list of files, a map of tiles."""

from pathlib import Path

import numpy as np
import pytest
import rasterio.warp
import shapely

from made_data import labels, picture, write_png
from made_maps import box, write_geojson, write_map
from shared import needs_shared
from torchfpn.data.check import check
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import SemanticDataset
from torchfpn.data.init import init_dataset
from torchfpn.errors import ConfigError, DataError
from torchfpn.geo.tiles import tile_geo

CONFIGS = Path(__file__).parents[2] / "configs" / "datasets"


def read(folder, images, labels=None, more=""):
    given = f"images: {images}" + (f", labels: {labels}" if labels else "") + more
    (folder / "dataset.yaml").write_text(f"classes: [a, b, c]\nsplits: {{train: {{{given}}}}}\n")
    return read_dataset(folder)


def names(dataset):
    return [(p.image.name, p.label and p.label.name) for p in dataset.pairs("train")]


@pytest.fixture
def loose(tmp_path):
    """Four images and their masks, in one folder, with names of their own."""
    for i in range(4):
        write_png(tmp_path / f"photo{i}.png", picture(i))
        write_png(tmp_path / f"mask{i}.png", labels(i))
    return tmp_path


class TestFiles:
    """One file, or several."""

    def test_one(self, loose):
        assert names(read(loose, "photo1.png", "mask1.png")) == [("photo1.png", "mask1.png")]
        assert names(read(loose, "photo1.png")) == [("photo1.png", None)]

    def test_a_list_keeps_its_order(self, loose):
        dataset = read(loose, "[photo3.png, photo0.png]", "[mask3.png, mask0.png]")
        assert names(dataset) == [("photo3.png", "mask3.png"), ("photo0.png", "mask0.png")]
        assert np.array_equal(SemanticDataset(dataset, "train")[0].target, labels(3))

    def test_one_mask_for_a_list_on_one_grid(self, loose):
        assert names(read(loose, "[photo3.png, photo0.png]", "mask0.png")) == [
            ("photo3.png", "mask0.png"),
            ("photo0.png", "mask0.png"),
        ]

    def test_a_list_and_a_folder_go_by_name(self, loose):
        (loose / "masks").mkdir()
        for i in range(3):
            write_png(loose / "masks" / f"photo{i}.png", labels(i))
        assert names(read(loose, "[photo2.png, photo0.png]", "masks")) == [("photo2.png",) * 2, ("photo0.png",) * 2]
        with pytest.raises(DataError, match=r"photo3\.png: image without label"):
            names(read(loose, "[photo3.png]", "masks"))

    @pytest.mark.parametrize(
        ("images", "masks", "told"),
        [
            ("[photo0.png, photo1.png]", "[mask0.png]", "1 label file for 2 images; expected one for each image"),
            ("[photo0.png, gone.png]", "[mask0.png, mask1.png]", "gone.png: no such file"),
            ("photo0.png", "gone", "gone: cannot be listed (No such file or directory)"),
            (".", "mask0.png", "one label file for 8 images; expected polygons"),
            (".", "[mask0.png]", "1 label file for images that are not listed"),
            ("[sub/a.png, a.png]", "masks", "has the same name as"),
        ],
    )
    def test_what_cannot_be(self, loose, images, masks, told):
        for folder in ("sub", "masks"):
            (loose / folder).mkdir()
        if "sub" in images:
            for name in ("sub/a.png", "a.png", "masks/a.png"):
                write_png(loose / name, picture(0))
        with pytest.raises(DataError) as caught:
            read(loose, images, masks).pairs("train")
        assert told in str(caught.value)

    @pytest.mark.parametrize(
        ("images", "more", "told"),
        [
            ("[photo0.png, ../x.png]", "", "splits.train.images: '../x.png'; expected a path below the root"),
            ("[photo0.png, 3]", "", "splits.train.images: ['photo0.png', 3]; expected a path, or a list of files"),
            ("[]", "", "splits.train.images: []; expected a path, or a list of files"),
            ("[photo0.png]", ", list: a.txt", "splits.train.list: 'a.txt'; expected a folder to choose from"),
            ('"a/{z}/{y}"', "", "{z}, {x} and {y} once each as the last three folders"),
        ],
    )
    def test_what_yaml_cannot_say(self, loose, images, more, told):
        with pytest.raises(ConfigError) as caught:
            read(loose, images, more=more)
        assert told in str(caught.value)

    def test_links_that_lead_out(self, tmp_path):
        (tmp_path / "set").mkdir()
        write_png(tmp_path / "a.png", picture(0))
        (tmp_path / "set" / "a.png").symlink_to(tmp_path / "a.png")
        with pytest.raises(DataError, match="a link that leads out of the root"):
            read(tmp_path / "set", "a.png").pairs("train")

    def test_every_bad_file_of_a_list_is_named(self, loose):
        (loose / "mask1.png").write_bytes(b"")
        report = check(read(loose, "[photo0.png, photo1.png, gone.png]", "[mask0.png, mask1.png, mask2.png]"))
        assert [(p.file.name, p.line.split(";")[0]) for p in report.problems] == [
            ("gone.png", "no such file"),
            ("mask1.png", "empty file (0 bytes)"),
        ]
        assert report.splits[0].images == 1


class TestTiles:
    """Maps of tiles: z/x/y.png."""

    def tiles(self, folder, kind="images", write=picture):
        for x, y in ((3, 9), (3, 10), (12, 9)):
            path = folder / kind / "5" / str(x) / f"{y}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, write(x + y))
        return folder

    def test_images_and_masks_by_their_place(self, tmp_path):
        self.tiles(tmp_path)
        self.tiles(tmp_path, "masks", labels)
        (tmp_path / "images" / "5" / "3" / "notes.txt").write_text("x")
        (tmp_path / "images" / "thumbs").mkdir()
        dataset = read(tmp_path, '"images/{z}/{x}/{y}"', '"masks/{z}/{x}/{y}"')
        found = [tuple(p.image.with_suffix("").parts[-3:]) for p in dataset.pairs("train")]
        assert found == [("5", "3", "9"), ("5", "3", "10"), ("5", "12", "9")]
        assert np.array_equal(SemanticDataset(dataset, "train")[2].target, labels(21))
        (tmp_path / "masks" / "5" / "12" / "9.png").rename(tmp_path / "masks" / "5" / "12" / "8.png")
        with pytest.raises(DataError, match=r"12/9\.png: image without label; .*12/8\.png: label without image"):
            dataset.pairs("train")

    def test_other_orders_of_the_folders(self, tmp_path):
        self.tiles(tmp_path)
        self.tiles(tmp_path, "masks", labels)
        (tmp_path / "masks").rename(tmp_path / "m")
        for path in sorted(tmp_path.glob("m/5/*/*.png")):
            target = tmp_path / "masks" / "5" / path.stem / f"{path.parent.name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        assert len(names(read(tmp_path, '"images/{z}/{x}/{y}"', '"masks/{z}/{y}/{x}"'))) == 3

    def test_polygons_find_the_place_in_the_path(self, tmp_path):
        self.tiles(tmp_path)
        geo = tile_geo("5/3/10", "{z}/{x}/{y}", (24, 32))
        corners = np.array([geo.world(4, 6), geo.world(12, 20)])
        x, y = rasterio.warp.transform(geo.crs, "OGC:CRS84", *corners.T)
        write_geojson(tmp_path / "a.geojson", [shapely.box(x[0], y[1], x[1], y[0])], crs=None)
        dataset = read(tmp_path, '"images/{z}/{x}/{y}"', "a.geojson")
        (tmp_path / "dataset.yaml").write_text((tmp_path / "dataset.yaml").read_text() + "polygons: {class: b}\n")
        found = [s.target.sum() for s in SemanticDataset(read_dataset(tmp_path), "train")]
        assert found == [0, 8 * 14, 0]
        assert dataset.pairs("train")[0].tiles == "{z}/{x}/{y}"

    def test_a_list_chooses_tiles(self, tmp_path):
        self.tiles(tmp_path)
        (tmp_path / "some.txt").write_text("5/12/9\n5/3/9.png\n")
        dataset = read(tmp_path, '"images/{z}/{x}/{y}"', more=", list: some.txt")
        assert [p.image.parent.name for p in dataset.pairs("train")] == ["3", "12"]

    def test_a_map_named_like_a_folder_is_told(self, tmp_path):
        self.tiles(tmp_path)
        with pytest.raises(DataError, match=r'no image, but folders such as 5; .* write "images/\{z\}/\{x\}/\{y\}"'):
            read(tmp_path, "images").pairs("train")
        self.tiles(tmp_path, "masks", labels)
        (tmp_path / "flat").mkdir()
        write_png(tmp_path / "flat" / "a.png", labels(0))
        with pytest.raises(DataError, match="a map of tiles and a folder do not go together"):
            read(tmp_path, '"images/{z}/{x}/{y}"', "flat").pairs("train")

    def test_init_knows_them(self, tmp_path):
        self.tiles(tmp_path)
        self.tiles(tmp_path, "masks", labels)
        dataset = init_dataset(tmp_path)
        assert dataset.splits["train"].images == "images/{z}/{x}/{y}"
        assert [len(dataset.pairs(split)) for split in ("train", "val")] == [2, 1]
        assert check(dataset).ok

    def test_patterns_of_splits(self, tmp_path):
        for split in ("train", "val"):
            self.tiles(tmp_path / split)
            write_geojson(tmp_path / split / "a.geojson", [box(5, 5)])
        text = 'classes: [a, b]\nimages: "{split}/images/{z}/{x}/{y}"\nlabels: "{split}/a.geojson"\n'
        (tmp_path / "dataset.yaml").write_text(text)
        dataset = read_dataset(tmp_path)
        assert {name: split.labels for name, split in dataset.splits.items()} == {
            "train": "train/a.geojson",
            "val": "val/a.geojson",
        }
        assert len(dataset.pairs("val")) == 3


def test_a_scene_and_its_polygons(tmp_path):
    write_map(tmp_path / "scene.tif")
    write_geojson(tmp_path / "houses.geojson", [box(5, 5)])
    dataset = read(tmp_path, "scene.tif", "houses.geojson")
    assert names(dataset) == [("scene.tif", "houses.geojson")]


@needs_shared
def test_two_dates_with_one_mask():
    dataset = read_dataset(CONFIGS / "landcover.yaml")
    assert [label for _, label in names(dataset)] == ["training_data.tif"] * 2
    samples = SemanticDataset(dataset, "train")
    assert np.array_equal(samples[0].target, samples[1].target)
    assert not samples[1].image.eq(-9999).any()
