"""dataset.yaml: what it may say, how each mistake is told, and which files belong together."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from made_data import YAML, labels, make_dataset, picture, write_png
from made_objects import make_objects
from made_panoptic import make_panoptic
from shared import DATA, needs_shared
from torchfpn.data.config import read_dataset
from torchfpn.data.splits import natural_key
from torchfpn.errors import ConfigError, DataError

FULL = """
task: semantic
root: data
classes:
  - {name: forest, id: 1, color: [1, 2, 3]}
  - {name: car, id: 7, color: "#ff8000", thing: true}
ignore_index: [0, 255]
bands: [blue, green, red, nir]
use_bands: [red, 4]
nodata: -9999
scaling: {offset: [100, 200.5], scale: [10, 20]}
max_pixels: 1000000
splits:
  train: {images: train/images, labels: train/labels}
  unseen: {images: more}
"""


def read(tmp_path, text):
    (tmp_path / "dataset.yaml").write_text(text)
    return read_dataset(tmp_path)


def test_everything_it_may_say(tmp_path):
    dataset = read(tmp_path, FULL)
    assert dataset.root == tmp_path / "data"
    assert dataset.names == ("forest", "car")
    assert [(c.id, c.color, c.thing) for c in dataset.classes] == [(1, (1, 2, 3), False), (7, (255, 128, 0), True)]
    assert dataset.ignored == (0, 255)
    assert dataset.ignore_index == 0
    assert dataset.use_bands == ("red", "nir")
    assert dataset.nodata == -9999
    assert dataset.scaling.offset == (100, 200.5)
    assert dataset.max_pixels == 1_000_000
    assert dataset.splits["unseen"].labels is None
    assert not dataset.allow_vrt


def test_the_least_it_must_say(tmp_path):
    dataset = read(tmp_path, "classes: {1: forest, 5: water}\nsplits: {train: {images: a, labels: b}}")
    assert [(c.id, c.name) for c in dataset.classes] == [(1, "forest"), (5, "water")]
    assert len({c.color for c in dataset.classes}) == 2
    assert (dataset.ignored, dataset.bands, dataset.scaling_method) == ((255,), (), "auto")


def test_255_is_ignored_unless_it_is_a_class(tmp_path):
    assert read(tmp_path, "classes: {0: land, 255: water}\nimages: a").ignored == ()


SMALL = "classes: [a, b]\nsplits: {train: {images: a, labels: b}}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SMALL + "clasz: [a]", 'unknown key "clasz"; did you mean "classes"'),
        (SMALL + "task: depth", "task: 'depth'; expected one of semantic, detection, instance, panoptic"),
        (SMALL.replace("[a, b]", "[a, a]"), "several classes with the name a"),
        (SMALL.replace("[a, b]", "{1: a, 2: yes}"), 'classes[1].name: True; expected text; write "True" in quotes'),
        (SMALL.replace("[a, b]", "[]"), "classes: []; expected 1 to 255 classes"),
        (SMALL.replace("[a, b]", "[{name: a, id: 1}, {name: b, id: 1}]"), "several classes with the value 1"),
        (SMALL.replace("[a, b]", "[{name: a, colour: 1}]"), 'classes[0]: unknown key "colour"; did you mean "color"?'),
        (SMALL.replace("[a, b]", "[{name: a, color: [1, 2]}]"), "classes[0].color: [1, 2]; expected red, green, blue"),
        (SMALL + "ignore_index: 1", 'ignore_index: 1; expected a value that is no class; 1 is "b"'),
        (SMALL + "bands: [r, g]\nuse_bands: [nir]", "use_bands: 'nir'"),
        (SMALL + "bands: [red, green]\nuse_bands: [gren]", 'did you mean "green"'),
        (SMALL + "bands: [r, g]\nuse_bands: [3]", "use_bands: 3; expected names of bands, or their numbers from 1"),
        (SMALL + "bands: [r, g]\nuse_bands: [1, r]", "every band once"),
        (SMALL + "scaling: imagnet", 'did you mean "imagenet"?'),
        (SMALL + "bands: [r]\nscaling: {offset: [1, 2], scale: [1, 2]}", "1 numbers, one for each band that is used"),
        (SMALL + "scaling: {offset: [1], scale: [0]}", "scaling: offset [1.0] and scale [0.0]"),
        (SMALL + "scaling: {offset: [.nan], scale: [1]}", "scaling.offset: [nan]"),
        (SMALL + "nodata: none", "nodata: 'none'; expected a number"),
        (SMALL.replace("images: a", "imagse: a"), 'splits.train: unknown key "imagse"; did you mean "images"?'),
        (SMALL.replace("images: a", "images: ../a"), "splits.train.images: '../a'; expected a path below the root"),
        (SMALL.replace("images: a", "images: /etc"), "splits.train.images: '/etc'; expected a path below the root"),
        (SMALL.replace("labels: b", 'labels: "c:\\\\b"'), "a path below the root"),
        ("classes: [a]", "splits: no splits"),
        ("classes: [a]\nsplits: {}", "splits: {}; expected at least one"),
        ("- a", "['a']; expected a mapping"),
        ("", "nothing; expected a mapping"),
        (SMALL + "labels_are: colors\n" + "ignore_color: [0, 0]", "ignore_color: [0, 0]"),
        (
            "labels_are: colors\nclasses: [{name: a, color: [1, 1, 1]}, {name: b, color: [1, 1, 1]}]\nimages: a",
            "every class with its own color",
        ),
    ],
)
def test_mistakes_are_told_by_their_key(tmp_path, text, said):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/dataset.yaml: ")
    assert said in str(caught.value)


def test_a_folder_without_one(tmp_path):
    with pytest.raises(ConfigError, match=r"no such file; make one with: fpn check --init"):
        read_dataset(tmp_path)


def test_pairs_in_natural_order(tmp_path):
    make_dataset(tmp_path, train=11, val=0)
    pairs = read_dataset(tmp_path).pairs("train")
    assert [pair.image.name for pair in pairs] == [f"a{i}.png" for i in range(11)]
    assert all(pair.label == tmp_path / "train" / "labels" / pair.image.name for pair in pairs)
    assert sorted(["b", "a10", "a9", "a", "10", "9"], key=natural_key) == ["9", "10", "a", "a9", "a10", "b"]


def test_files_without_a_partner_are_named(tmp_path):
    make_dataset(tmp_path, train=30)
    for i in range(25):
        (tmp_path / "train" / "labels" / f"a{i}.png").unlink()
    (tmp_path / "train" / "images" / "a29.png").unlink()
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path).pairs("train")
    text = str(caught.value)
    assert text.count("image without label") == 20
    assert "a0.png" in text
    assert text.endswith("and 6 more")


def test_what_is_no_image_is_passed_over(tmp_path):
    make_dataset(tmp_path)
    for name in ("README.txt", ".a9.png", ".fpn-0123.part.png", "a0.png.aux.xml"):
        (tmp_path / "train" / "images" / name).write_text("x")
    assert len(read_dataset(tmp_path).pairs("train")) == 3


def test_same_name_twice(tmp_path):
    make_dataset(tmp_path)
    write_png(tmp_path / "train" / "images" / "a0.JPG", picture(0), format="PNG")
    with pytest.raises(DataError, match=r"a0\.png: has the same name as a0\.JPG"):
        read_dataset(tmp_path).pairs("train")


def test_lists_of_stems(tmp_path):
    text = YAML.replace("train/labels}", "train/labels, list: some.txt}")
    make_dataset(tmp_path, train=12, yaml=text)
    (tmp_path / "some.txt").write_text("a10\n\na2.png\na2\n")
    assert [pair.image.stem for pair in read_dataset(tmp_path).pairs("train")] == ["a2", "a10"]
    (tmp_path / "some.txt").write_text("a2\nb7\n")
    with pytest.raises(DataError, match=r'some\.txt: lists "b7"'):
        read_dataset(tmp_path).pairs("train")


@pytest.mark.parametrize("pattern", ["{split}/images", "images/{split}"])
def test_patterns_find_the_splits(tmp_path, pattern):
    other = pattern.replace("images", "labels")
    for split in ("train", "val"):
        for path, what in ((pattern, picture(0)), (other, labels(0))):
            (tmp_path / path.replace("{split}", split)).mkdir(parents=True)
            write_png(tmp_path / path.replace("{split}", split) / "a.png", what)
    (tmp_path / pattern.replace("{split}", "more")).mkdir(parents=True)
    dataset = read(tmp_path, f'classes: [a, b, c]\nimages: "{pattern}"\nlabels: "{other}"')
    assert sorted(dataset.splits) == ["more", "train", "val"]
    assert dataset.splits["more"].labels is None
    assert len(dataset.pairs("val")) == 1


def test_links_that_lead_out_are_refused(tmp_path):
    folder = make_dataset(tmp_path / "in")
    secret = write_png(tmp_path / "secret.png", picture(0))
    (folder / "train" / "images" / "a7.png").symlink_to(secret)
    write_png(folder / "train" / "labels" / "a7.png", labels(0))
    with pytest.raises(DataError, match=r"a7\.png: a link that leads out"):
        read_dataset(folder).pairs("train")
    (tmp_path / "door").symlink_to(folder)  # the root itself may be anywhere
    assert len(read_dataset(tmp_path / "door").pairs("val")) == 2
    (folder / "train").rename(tmp_path / "elsewhere")
    (folder / "train").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="leads out of the root"):
        read_dataset(folder).pairs("train")


def test_unknown_split_and_missing_folder(tmp_path):
    make_dataset(tmp_path, yaml=YAML + "  test: {images: nowhere, labels: train/labels}\n")
    with pytest.raises(ConfigError, match='no split "tset"; did you mean "test"'):
        read_dataset(tmp_path).pairs("tset")
    with pytest.raises(DataError, match="nowhere: cannot be listed"):
        read_dataset(tmp_path).pairs("test")


def test_reading_imports_nothing_heavy_and_is_quick(tmp_path):
    make_dataset(tmp_path)
    code = (
        "import sys, time; begun = time.process_time()\n"
        "from torchfpn.data.config import read_dataset\n"
        f"read_dataset({str(tmp_path)!r}).pairs('train')\n"
        "print(time.process_time() - begun, *sorted({'torch', 'numpy', 'PIL', 'rasterio'} & set(sys.modules)))"
    )
    out = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
           for _ in range(2)]  # fmt: skip
    assert all(len(words) == 1 for words in out), out
    assert min(float(words[0]) for words in out) < 0.3


@needs_shared
@pytest.mark.parametrize(
    ("name", "folder", "counts", "classes"),
    [
        ("camvid", "camvid", {"train": 367, "val": 101, "test": 117}, 11),
        ("water", "water-12band", {"train": 150, "val": 40}, 2),
        ("burned-area", "s2-burned-area", {"train": 10, "val": 4}, 2),
        ("buildings", "buildings-banepa", {"train": 32, "val": 8, "unlabelled": 16}, 2),
        ("atlanta", "spacenet-atlanta-sample", {"train": 1}, 2),
        ("landcover", "landsat7-landcover", {"train": 2}, 5),
        ("bccd", "bccd", {"train": 205, "val": 87}, 3),
        ("nuclei", "nuclei-dsb2018", {"train": 232, "val": 67}, 1),
        ("buildings-panoptic", "buildings-banepa", {"train": 32, "val": 8, "unlabelled": 16}, 2),
        ("nuclei-panoptic", "nuclei-dsb2018", {"train": 232, "val": 67}, 2),
    ],
)
def test_the_configs_of_the_real_sets(name, folder, counts, classes):
    dataset = read_dataset(Path(__file__).parents[2] / "configs" / "datasets" / f"{name}.yaml")
    assert dataset.root.resolve() == (DATA / folder).resolve()
    assert {split: len(dataset.pairs(split)) for split in dataset.splits} == counts
    assert len(dataset.classes) == classes


def test_the_page_about_datasets_shows_files_that_can_be_read(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.S)
    assert len(blocks) == 6
    complete = read(tmp_path, blocks[0])
    assert list(complete.splits) == ["train", "val", "test"]
    assert complete.use_bands == ("red", "green", "blue", "nir")
    assert read(tmp_path, "classes: [a, b]\n" + blocks[1]).splits["val"].stems == "val.txt"
    drawn = read(tmp_path, blocks[2])
    assert (drawn.polygons.field, drawn.polygons.border, drawn.polygons.background) == ("kind", 1.5, 0)
    categories = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
    make_objects(tmp_path, {"images": [], "annotations": [], "categories": categories}, yaml=None)
    objects = read(tmp_path, blocks[3])
    assert (objects.task, objects.names, objects.splits["train"].annotations) == (
        "instance",
        ("car", "person"),
        "train/instances.json",
    )
    parts = read(tmp_path, blocks[5])
    assert (parts.things, parts.stuff, parts.splits["train"].objects) == (
        ("tree",),
        ("grass", "water"),
        "train/trees.geojson",
    )
    make_panoptic(tmp_path, yaml=None)
    assert read(tmp_path, blocks[4]).things == ("cell", "dot")
    page, _, rest = page.partition("| key of `polygons` |")
    page += rest.partition("\n\n")[2]  # that table has the keys of the inner mapping
    told = set(re.findall(r"^\| `(\w+)`(?:, `(\w+)`)? \|", page, re.M))
    keys = {name for names in told for name in names if name} - {"mean", "percentile", "imagenet", "auto"}
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, blocks[0] + "zzzzzz: 1\n")
    known = set(re.findall(r"known: (.*)$", str(caught.value))[0].split(", "))
    assert known == keys


def test_the_root_may_lie_below_a_folder_of_the_environment(tmp_path, monkeypatch):
    (tmp_path / "dataset.yaml").write_text(SMALL + "root: ${TORCHFPN_DATA}/roofs\n")
    monkeypatch.delenv("TORCHFPN_DATA", raising=False)
    with pytest.raises(ConfigError, match=r"root: the environment variable TORCHFPN_DATA is not set; set it"):
        read_dataset(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHFPN_DATA", "all")
    assert read_dataset(tmp_path / "dataset.yaml").root == tmp_path / "all" / "roofs"
    (tmp_path / "dataset.yaml").write_text(SMALL + "root: ${HOME}/roofs\n")  # no other variable is looked at
    with pytest.raises(ConfigError, match=r"root: '\$\{HOME\}/roofs'; expected a folder, in it variables like"):
        read_dataset(tmp_path)
