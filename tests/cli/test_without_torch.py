"""Verbs that compute no network, and refusals of all verbs, do not wait for torch, torchvision, timm or lightning."""

import json
import subprocess
import sys

import numpy as np
import pytest

from made_data import write_png
from made_maps import box, noise, write_geojson, write_map
from made_objects import coco, make_objects, record
from made_panoptic import WHOLE, make_panoptic
from tiny_model import tiny_task
from torchfpn.cli.main import main

RUN = """
import json, sys
from torchfpn.cli.main import main
heavy = {"torch", "torchvision", "timm", "lightning"}
found = []
for words in json.loads(sys.argv[1]):
    code = main(words)
    found.append([words, code, sorted(heavy & sys.modules.keys())])
print("\\n" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with a model, a label file, polygons, and datasets of labels and of objects."""
    top = tmp_path_factory.mktemp("light")
    tiny_task().save(top / "model.safetensors")
    (top / "page.safetensors").write_text("<html>")
    (top / "page.pth").write_text("<html>")
    write_map(top / "map.tif", np.kron([[1, 0], [0, 1]], np.ones((1, 20, 25), np.uint8)))
    write_map(top / "image.tif", noise(0, (40, 50)))
    write_geojson(top / "p.geojson", [box(3, 3)])
    for name in ("images", "labels"):
        (top / "data" / name).mkdir(parents=True)
    write_png(top / "data" / "images" / "a.png", noise(1, (30, 20)).transpose(1, 2, 0))
    write_png(top / "data" / "labels" / "a.png", np.eye(30, 20, dtype=np.uint8))
    (top / "data" / "dataset.yaml").write_text("classes: [a, b]\nsplits: {train: {images: images, labels: labels}}\n")
    runs = {"size": [24, 32], "counts": [24 * 10 + 4, 6, 0, 2, 24 * 21 + 12]}  # as COCO spells crowds
    crowd = record(2, (10, 4, 11, 12), segmentation=runs, iscrowd=1, area=8)
    make_objects(top / "objects", coco([record(1, (2, 3, 10, 9)), crowd]))
    make_panoptic(top / "panoptic", yaml=WHOLE)
    return top


def told(here, *verbs):
    """Exit code and heavy modules after each verb, all of them in one process."""
    words = [[str(here / word[1:]) if word.startswith("@") else word for word in words] for words in verbs]
    done = subprocess.run([sys.executable, "-c", RUN, json.dumps(words)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_info_check_polygons_rasterize_and_compare_come_without_torch(here):
    found, errors = told(
        here,
        ["info", "@model.safetensors"],
        ["info", "@model.safetensors", "--json"],
        ["check", "@data", "--sheet", "@sheet.png"],
        ["check", "@objects"],
        ["check", "@panoptic", "--sheet", "@segments.png"],
        ["weights", "@data"],
        ["polygons", "@map.tif", "@out.gpkg"],
        ["polygons", "@out.gpkg", "@out.geojson", "--merge", "1"],
        ["rasterize", "@p.geojson", "@image.tif", "--out", "@masks"],
        ["compare", "@image.tif", "--truth", "@map.tif", "--prediction", "@p.geojson", "--out", "@sheets"],
        ["evaluate", "@map.tif", "@map.tif"],
        ["evaluate", "@p.geojson", "@p.geojson"],
    )
    assert [row for row in found if row[1:] != [0, []]] == [], errors


def test_compare_of_label_files_loads_no_vector_library_and_answers_in_a_second_of_cpu_time(here, tmp_path):
    code = (
        "import sys, time; from torchfpn.cli.main import main; code = main(sys.argv[1:]);"
        "print(code, 'pyogrio' in sys.modules, time.process_time())"
    )
    words = ["compare", here / "image.tif", "--truth", here / "map.tif", "--out", tmp_path]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True)
    code, loaded, seconds = done.stdout.splitlines()[-1].split()
    assert (code, loaded) == ("0", "False")
    assert float(seconds) < 2  # 0.8 s on an idle machine; naming colours for 255 values alone took 0.3 s


def test_label_images_are_scored_without_the_packages_of_rasters(here):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['rasterio', 'shapely', 'pyogrio', 'torch'])); import torchfpn;"
        "print(torchfpn.evaluate(sys.argv[1], sys.argv[1])['miou'])"
    )
    words = [sys.executable, "-c", code, str(here / "data" / "labels" / "a.png")]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "1.0\n"


def test_every_refusal_comes_without_torch(here):
    found, errors = told(
        here,
        *(["info", f"@{name}"] for name in ("none.safetensors", "page.safetensors", "page.pth", "map.tif")),
        *(["predict", f"@{name}", "@image.tif", "--out", "@x"] for name in ("none.safetensors", "page.safetensors")),
        ["predict", "@model.safetensors", "@none.tif", "--out", "@x"],
        ["predict", "@model.safetensors", "@image.tif", "--out", "@x", "--margin", "much"],
        *(["convert", f"@{name}", "@x.safetensors"] for name in ("none.pth", "page.pth", "page.safetensors")),
        *(["evaluate", f"@{name}", "@data", "--split", "train"] for name in ("none.safetensors", "page.safetensors")),
        ["check", "@none"],
        ["polygons", "@model.safetensors", "@x.gpkg"],
        ["rasterize", "@none.geojson", "@image.tif", "--out", "@x"],
        ["compare", "@none.tif", "--truth", "@map.tif", "--out", "@x"],
        ["train", "--dataset", "@none"],
    )
    assert [row for row in found if row[1:] != [2, []]] == [], errors
    assert len(errors.splitlines()) == len(found)


def test_what_info_tells_of_a_file_is_what_its_model_gives(here, tmp_path, capsys):
    import safetensors.torch

    from torchfpn.io.weights import read_tensors
    from torchfpn.nn.receptive_field import reach

    def info(path):
        assert main(["info", str(path), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    stored, task = info(here / "model.safetensors"), tiny_task()
    assert stored["parameters"] == {
        name: sum(p.numel() for p in piece.parameters()) for name, piece in task.model.named_children()
    }
    assert stored["reach"] == reach(task.model, 4)
    assert stored["levels"]["backbone"] == [list(level) for level in task.model.backbone.levels]
    tensors, metadata = read_tensors(here / "model.safetensors")
    recipe = json.loads(metadata["torchfpn"])
    for changed in ({"measures": {}}, {"measures": {**recipe["measures"], "reach": 1}}):  # old; changed by others
        path = tmp_path / "model.safetensors"
        safetensors.torch.save_file(tensors, path, {"torchfpn": json.dumps(recipe | changed)})
        assert {**info(path), "file": "", "bytes": 0} == {**stored, "file": "", "bytes": 0}
    bad = bytearray((here / "model.safetensors").read_bytes())
    bad[-1] ^= 1
    path.write_bytes(bad)
    assert main(["info", str(path)]) == 2
    assert "damaged, not as it was written: " in capsys.readouterr().err
