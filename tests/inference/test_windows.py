"""Windows against the whole image, resuming, places on the earth, missing pixels, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

import torchfpn
from file_events import full_disk, interrupted_before
from made_data import declare_size, write_tiff
from made_scenes import HEIGHT, UTM, WIDTH, make_scene, make_task, read
from passes import before_pass, interrupted_at
from torchfpn.cli.main import main
from torchfpn.geo.georef import Geo
from torchfpn.io.atomic import locked
from torchfpn.io.geotiff import write_bands


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """A folder with scene.tif and model.safetensors, as the current one."""
    monkeypatch.chdir(tmp_path)
    make_scene("scene.tif")
    make_task().save("model.safetensors")
    return tmp_path


def predict(out, *flags, source="scene.tif"):
    return main(["predict", "model.safetensors", source, "--out", out, *flags])


@pytest.mark.parametrize(
    ("backbone", "side"),
    [
        ("test_resnet", 96),
        ("torchvision/mobilenet_v2", 96),
        ("test_convnext", 96),
    ],
)
def test_with_the_models_reach_windows_give_the_whole_image(scene, backbone, side):
    make_task(backbone).save("model.safetensors")
    assert predict("whole", "--probabilities", "float32") == 0
    assert predict("windows", "--tile-size", str(side), "--margin", "exact", "--probabilities", "float32") == 0
    whole, windows = read("whole/scene.tif"), read("windows/scene.tif")
    assert len(np.unique(whole)) > 1
    assert np.array_equal(whole, windows)
    assert np.abs(read("whole/scene.probs.tif") - read("windows/scene.probs.tif")).max() <= 1e-5


def test_without_a_margin_seams_show(scene):
    assert predict("whole", "--probabilities", "float32") == 0
    assert predict("windows", "--tile-size", "64", "--margin", "0", "--probabilities", "float32") == 0
    assert np.abs(read("whole/scene.probs.tif") - read("windows/scene.probs.tif")).max() > 1e-2


def test_the_answer_is_a_cog_with_names_colours_and_place(scene):
    assert predict("out", "--tile-size", "64") == 0
    with rasterio.open("out/scene.tif") as source, rasterio.open("scene.tif") as image:
        assert (source.transform, source.crs, source.shape) == (image.transform, image.crs, image.shape)
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert source.nodata == 255
        assert json.loads(source.tags()["CLASSES"]) == {str(i): f"class{i}" for i in range(4)}
        assert source.colormap(1)[2][:3] == make_task().recipe.colors[2]
    assert [path.name for path in (scene / "out").glob("[!.]*")] == ["scene.tif"]


def test_large_answers_have_overviews_by_nearest_neighbour(scene):
    make_scene("large.tif", height=1100, width=600)
    assert predict("out", "--tile-size", "512", source="large.tif") == 0
    with rasterio.open("out/large.tif") as source:
        assert source.overviews(1) == [2, 4]
        assert set(np.unique(source.read(1, out_shape=(550, 300)))) <= set(np.unique(source.read(1)))


@pytest.mark.parametrize(
    "transform",
    [
        (0.5, 0.0, 5e5, 0.0, 0.5, 3e6),  # south up
        (0.4, 0.3, 5e5, 0.3, -0.4, 3e6),  # rotated
        (2.0, 0.0, 5e5, 0.0, -0.5, 3e6),  # not square
    ],
)
def test_fault_12_every_grid_is_kept(scene, transform):
    make_scene("scene.tif", Geo(UTM.crs, transform))
    assert predict("out", "--tile-size", "128") == 0
    with rasterio.open("out/scene.tif") as source:
        assert tuple(source.transform)[:6] == pytest.approx(transform, abs=1e-9)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_fault_11_without_a_place_it_works_in_pixels(scene):
    make_scene("scene.tif", None)
    assert predict("out", "--tile-size", "128") == 0
    assert read("out/scene.tif").shape == (1, HEIGHT, WIDTH)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 200), (31, 33), (200, 1)])
def test_fault_14_any_size(scene, height, width):
    make_scene("scene.tif", height=height, width=width)
    assert predict("out", "--tile-size", "64") == 0
    assert predict("whole") == 0
    assert np.array_equal(read("out/scene.tif"), read("whole/scene.tif"))


def test_fault_09_and_10_missing_pixels_stay_missing_and_empty_windows_are_not_computed(scene, capsys):
    array = make_scene("scene.tif", dtype=np.float32)
    array[:, :70, :70] = np.nan
    array[1, 100, 150] = np.inf
    write_bands("scene.tif", array, names=("red", "green", "blue"), geo=UTM)
    seen = []
    with before_pass(lambda number, *_: seen.append(number)):
        assert predict("out", "--tile-size", "64", "--margin", "0") == 0
    labels = read("out/scene.tif")[0]
    missing = ~np.isfinite(array).all(0)
    assert np.array_equal(labels == 255, missing)
    assert f"{missing.sum():,} pixels without data" in capsys.readouterr().out
    assert len(seen) == 3 * 3 - 1  # the first window holds nothing


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_fault_04_a_raster_larger_than_memory_is_read_by_windows(scene):
    profile = {"driver": "GTiff", "count": 3, "height": 40_000, "width": 40_000, "dtype": "uint8"}
    with rasterio.open("scene.tif", "w", **profile, tiled=True, sparse_ok=True, blockxsize=512, blockysize=512):
        pass
    from torchfpn.io.images import read_image

    assert read_image("scene.tif", window=(39_000, 100, 64, 32)).size == (64, 32)


@pytest.mark.parametrize("count", [0, 5])
def test_what_was_interrupted_goes_on_to_the_same_bytes(scene, count):
    flags = ("--tile-size", "64", "--probabilities", "uint8")
    assert predict("undisturbed", *flags) == 0
    with interrupted_at(count):
        assert predict("out", *flags) == 130
    assert not (scene / "out" / "scene.tif").exists()
    passes = []
    with before_pass(lambda number, *_: passes.append(number)):
        assert predict("out", *flags, "--resume") == 0
    assert len(passes) == 9 - count  # nothing is computed again
    for name in ("scene.tif", "scene.probs.tif"):
        assert (scene / "out" / name).read_bytes() == (scene / "undisturbed" / name).read_bytes()


def test_fault_48_killed_and_resumed_to_the_same_bytes(scene):
    make_scene("scene.tif", height=320, width=320)
    flags = ("--tile-size", "64", "--margin", "0")
    assert predict("undisturbed", *flags) == 0
    command = [sys.executable, "-m", "torchfpn.cli.main", "predict", "model.safetensors", "scene.tif"]
    command += ["--out", "out", *flags, "--resume"]
    blocks = scene / "out" / ".fpn-scene.tif.blocks"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list(blocks.glob("*.block"))) < 5:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (scene / "out" / "scene.tif").exists()
    assert len(list(blocks.glob("*.block"))) >= 5
    assert predict("out", *flags, "--resume") == 0
    assert (scene / "out/scene.tif").read_bytes() == (scene / "undisturbed/scene.tif").read_bytes()
    assert [path.name for path in (scene / "out").glob("[!.]*")] == ["scene.tif"]


def damage_last_block(path):
    """Zeros instead of the last compressed block of a TIFF."""
    with rasterio.open(path) as source:
        rows, columns = (
            -(-side // block) - 1 for side, block in zip(source.shape, source.block_shapes[0], strict=True)
        )
        tags = [int(source.get_tag_item(f"BLOCK_{what}_{columns}_{rows}", "TIFF", 1)) for what in ("OFFSET", "SIZE")]
    data = bytearray(path.read_bytes())
    data[tags[0] : sum(tags)] = bytes(tags[1])
    path.write_bytes(data)


@pytest.mark.parametrize(("mosaic", "flags"), [(False, ("--resume",)), (True, ())])
def test_a_damaged_source_leaves_nothing_in_the_way_of_the_mended_one(scene, capsys, flags, mosaic):
    more = ("--tile-size", "64", *(("--mosaic", "scene") if mosaic else ()))
    array = np.random.default_rng(0).integers(0, 255, (3, HEIGHT, WIDTH)).astype("uint8")
    profile = {"crs": UTM.crs, "transform": rasterio.Affine(*UTM.transform), "compress": "deflate"}
    write_tiff(scene / "scene.tif", array, photometric="RGB", tiled=True, blockxsize=64, blockysize=64, **profile)
    whole = (scene / "scene.tif").read_bytes()
    damage_last_block(scene / "scene.tif")
    assert predict("out", *more) == 2
    assert "damaged or not readable" in capsys.readouterr().err
    assert list((scene / "out").iterdir()) == []
    (scene / "scene.tif").write_bytes(whole)
    assert predict("out", *more, *flags) == 0


def test_a_prediction_without_room_on_the_disk_can_be_resumed(scene, capsys):
    with full_disk("*.block", 3):
        assert predict("out", "--tile-size", "64") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert len(list((scene / "out" / ".fpn-scene.tif.blocks").glob("*.block"))) == 3
    assert predict("out", "--tile-size", "64", "--resume") == 0


@pytest.mark.parametrize("blend", [(), ("--blend", "--margin", "16")])
def test_damaged_parts_of_an_interrupted_prediction_are_told_and_made_again(scene, capsys, blend):
    flags = ("--tile-size", "64", *blend)
    assert predict("undisturbed", *flags) == 0
    folder = scene / "out" / ".fpn-scene.tif.blocks"
    for name, told in (
        ("0000001.block", "1 damaged block"),
        ("plan.json", "plan.json: damaged; the prediction starts"),
    ):
        with interrupted_at(3):
            assert predict("out", *flags) == 130
        (folder / name).write_bytes((folder / name).read_bytes().replace((folder / name).read_bytes()[40:44], b"0123"))
        capsys.readouterr()
        assert predict("out", *flags, "--resume") == 0
        assert told in capsys.readouterr().err
        assert (scene / "out/scene.tif").read_bytes() == (scene / "undisturbed/scene.tif").read_bytes()
        (scene / "out/scene.tif").unlink()


def test_blocks_of_another_prediction_are_refused(scene, capsys):
    with interrupted_at(2):
        assert predict("out", "--tile-size", "64") == 130
    assert predict("out", "--tile-size", "128", "--resume") == 2
    assert "holds blocks made with a different window" in capsys.readouterr().err
    make_task("test_convnext").save("model.safetensors")
    assert predict("out", "--tile-size", "64", "--resume") == 2
    assert "a different model" in capsys.readouterr().err
    assert predict("out", "--tile-size", "64") == 2
    assert "holds 2 blocks of an interrupted prediction; continue with --resume" in capsys.readouterr().err
    assert predict("out", "--tile-size", "64", "--overwrite") == 0


@pytest.mark.parametrize("written", ["scene.tif", "scene.probs.tif"])
def test_interrupted_while_the_answers_are_put_together(scene, written):
    flags = ("--tile-size", "64", "--probabilities", "uint8")
    assert predict("undisturbed", *flags) == 0
    with interrupted_before(written):
        assert predict("out", *flags) == 130
    (scene / "out" / ".fpn-0123.part.tif").write_bytes(b"half a file")  # what a kill would leave
    assert predict("out", *flags, "--resume") == 0
    assert sorted(path.name for path in (scene / "out").glob("[!.]*")) == ["scene.probs.tif", "scene.tif"]
    for name in ("scene.tif", "scene.probs.tif"):
        assert (scene / "out" / name).read_bytes() == (scene / "undisturbed" / name).read_bytes()


def test_resuming_what_is_finished_does_nothing_and_the_rest_is_done(scene):
    make_scene("other.tif")
    assert predict("out", "--tile-size", "64") == 0
    stamp = (scene / "out/scene.tif").stat().st_mtime_ns
    words = ["scene.tif", "other.tif", "--out", "out", "--tile-size", "64", "--resume"]
    assert main(["predict", "model.safetensors", *words]) == 0
    assert (scene / "out/scene.tif").stat().st_mtime_ns == stamp
    assert (scene / "out/other.tif").exists()


def left_alone(capsys, out, *flags, source="scene.tif"):
    """Resumes a finished prediction, which must touch nothing; what it prints."""
    before = {path: path.read_bytes() for path in sorted(Path(out).rglob("*")) if path.is_file()}
    capsys.readouterr()
    code = predict(out, *flags, "--resume", source=source)
    assert before == {path: path.read_bytes() for path in before}
    shown = capsys.readouterr()
    assert (code, shown.err.count("\n")) in ((0, 0), (2, 1))
    return shown.out.splitlines()[0] if code == 0 else shown.err.strip()


def test_a_finished_answer_remembers_model_source_and_settings(scene, capsys):
    flags = ("--tile-size", "64", "--polygons", "gpkg")
    assert predict("out", *flags) == 0
    assert left_alone(capsys, "out", *flags) == "1 source skipped: already complete"
    for more, told in (
        (("--margin", "0"), "--margin"), (("--min-pixels", "9"), "--min-pixels"), (("--bands", "3,2,1"), "--bands"),
        (("--blend", "--margin", "32"), "--blend, --margin"),
    ):  # fmt: skip
        assert f"out/scene.tif: was made with a different {told}; give the former" in left_alone(
            capsys, "out", *flags, *more
        )
    first = Path("model.safetensors").read_bytes()
    retrained = make_task()
    torch.nn.init.normal_(retrained.model.head.classify.weight)
    retrained.save("model.safetensors")
    assert "scene.tif: was made with a different model; " in left_alone(capsys, "out", *flags)
    Path("model.safetensors").write_bytes(first)
    assert "already complete" in left_alone(capsys, "out", *flags)
    make_scene("scene.tif")
    assert "scene.tif: was made with a different source; " in left_alone(capsys, "out", *flags)
    assert predict("out", *flags, "--overwrite") == 0
    assert "already complete" in left_alone(capsys, "out", *flags)


def test_the_same_settings_in_other_words_are_the_same(scene, capsys):
    """Spellings of flags, of the path, names of folders and of the model: none of them changes the answer."""
    Path("maps").mkdir()
    Path("scene.tif").rename("maps/scene.tif")
    make_scene("maps/no-crs.tif", Geo(None, UTM.transform))
    flags = "--tile-size", "64", "--margin", "32", "--assume-crs", "EPSG:32633", "--bands", "1,2,3"
    flags = *flags, "--polygons", "gpkg"
    assert predict("out", *flags, "--vectorize", "class0,class1", source="maps") == 0
    others = "--bands", " 1, 2,3", "--assume-crs", "epsg:32633", "--margin", "032", "--tile-size", "64"
    others = *others, "--vectorize", " class1, class0", "--polygons", "gpkg"
    Path("model.safetensors").rename("other.safetensors")
    for folder in ("maps", "./maps", "out/../maps", str(scene / "maps")):
        words = [folder, "--out", str(scene / "out"), *others, "--resume"]
        assert main(["predict", "other.safetensors", *words]) == 0
        assert "2 sources skipped: already complete" in capsys.readouterr().out
    Path("maps").rename("renamed")
    Path("out").rename("answers")
    assert main(["predict", "other.safetensors", "renamed", "--out", "answers", *others, "--resume"]) == 0
    assert "2 sources skipped: already complete" in capsys.readouterr().out


def test_blocks_are_taken_up_from_a_folder_of_another_name(scene):
    Path("maps").mkdir()
    Path("scene.tif").rename("maps/scene.tif")
    with interrupted_before("scene.tif"):
        assert predict("out", "--tile-size", "64", source="maps") == 130
    Path("maps").rename("renamed")
    assert predict("out", "--tile-size", "64", "--resume", source="out/../renamed") == 0
    assert Path("out/scene.tif").is_file()


def test_a_limit_of_pixels_changes_nothing_of_pictures(scene, capsys):
    """A second run may read a larger picture too; those that were read before stay as they are."""
    Path("photos").mkdir()
    for name, side in (("a.png", 32), ("b.png", 64)):
        Image.fromarray(np.full((side, side, 3), 90, np.uint8)).save(f"photos/{name}")
    assert predict("out", "--max-pixels", "2000", source="photos") == 1
    capsys.readouterr()
    assert predict("out", "--resume", source="photos") == 0
    assert "1 source skipped: already complete" in capsys.readouterr().out
    assert Path("out/b.png").is_file()


def test_tiles_of_another_place_are_another_source(scene, capsys):
    """The same files: where they lie follows from the names of their folders."""
    Path("tiles/3/4").mkdir(parents=True)
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save("tiles/3/4/2.png")
    assert predict("out", source="tiles") == 0
    assert predict("one", "--tiles", "{z}/{x}/{y}", source="tiles/3/4/2.png") == 0
    assert "already complete" in left_alone(capsys, "out", source="./tiles")
    Path("tiles/3/4").rename("tiles/3/5")
    assert "was made with a different source" in left_alone(capsys, "out", source="tiles")
    more = "--tiles", "{z}/{x}/{y}"
    assert "was made with a different source" in left_alone(capsys, "one", *more, source="tiles/3/5/2.png")


def test_finished_pictures_and_tiles_remember_them_too(scene, capsys):
    for name in ("a.png", "tiles/3/4/2.png", "tiles/3/4/3.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(name)
    for source, answer in (("a.png", "a.png"), ("tiles", "tiles")):
        assert predict("out", source=source) == 0
        assert "already complete" in left_alone(capsys, "out", source=source)
        assert f"out/{answer}: was made with a different --bands; " in left_alone(
            capsys, "out", "--bands", "3,2,1", source=source
        )
    Image.fromarray(np.full((32, 32, 3), 91, np.uint8)).save("tiles/3/4/3.png")
    assert "was made with a different source" in left_alone(capsys, "out", source="tiles")
    Path("a.pgw").write_text("1\n0\n0\n-1\n5\n5\n")
    Path("out/a.tif").write_bytes(b"of an unknown model")
    assert "1 file already exists" in left_alone(capsys, "out", source="a.png")


def test_an_answer_that_was_being_replaced_is_not_finished(scene):
    assert predict("out", "--polygons", "pixels") == 0
    with interrupted_before("scene.pixels.json"):
        assert predict("out", "--bands", "3,2,1", "--polygons", "pixels", "--overwrite") == 130
    assert predict("out", "--polygons", "pixels", "--resume") == 0
    assert predict("undisturbed", "--polygons", "pixels") == 0
    for name in ("scene.tif", "scene.pixels.json"):
        assert Path("out", name).read_bytes() == Path("undisturbed", name).read_bytes()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--tile-size", "60"), "tile size: 60; expected a multiple of 32 pixels"),
        (("--margin", "much"), 'margin: "much"'),
        (("--tile-size", "64", "--overlay"), "overlay: 190 x 130 pixels, read by windows"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(scene, capsys, flags, told):
    assert predict("out", *flags) == 2
    assert told in capsys.readouterr().err


def test_a_model_of_whole_images_has_no_exact_margin(scene, capsys):
    task = torchfpn.create_task(backbone="test_resnet", num_classes=2, channels=32, head_channels=32, norm="group")
    task.save("model.safetensors")
    assert predict("out", "--tile-size", "64", "--margin", "exact") == 2
    assert "the receptive field is the whole image" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [("--polygons", "pixels"), ("--polygons", "geojson", "--min-pixels", "20")])
def test_polygons_are_those_of_the_whole_map(scene, flags):
    def features(folder):
        (file,) = [path for path in (scene / folder).iterdir() if path.suffix in (".json", ".geojson")]
        found = [json.loads(line.rstrip(",")) for line in file.read_text().splitlines()[1:-1]]
        assert len(json.loads(file.read_text())["features"]) == len(found)
        return sorted((f["properties"]["class_id"], f["properties"]["area"], str(f["geometry"]["type"])) for f in found)

    assert predict("whole", *flags) == 0
    assert predict("windows", "--tile-size", "64", "--margin", "exact", *flags) == 0
    assert features("whole") == features("windows")
    assert len(features("whole")) > 3


def test_two_predictions_of_one_answer_are_refused_and_the_first_goes_on(scene, capsys):
    (scene / "out").mkdir()
    with locked(scene / "out" / ".fpn-scene.tif.lock"):
        for flags in ((), ("--overwrite",), ("--resume",)):
            assert predict("out", "--tile-size", "64", *flags) == 2
            assert "is predicting this; wait for it, or give another --out" in capsys.readouterr().err
    assert predict("out", "--tile-size", "64") == 0
    assert [path.name for path in (scene / "out").glob("[!.]*")] == ["scene.tif"]


def test_resuming_with_more_outputs_than_are_there_is_told(scene, capsys):
    assert predict("out", "--tile-size", "64") == 0
    assert predict("out", "--tile-size", "64", "--resume") == 0
    assert "1 source skipped: already complete" in capsys.readouterr().out
    assert predict("out", "--tile-size", "64", "--resume", "--polygons", "gpkg") == 2
    assert "out/scene.tif: was made with a different --polygons; " in capsys.readouterr().err
    assert predict("out", "--tile-size", "64", "--resume", "--overwrite") == 2
    assert "one of them: continue, or start over" in capsys.readouterr().err


@pytest.mark.parametrize("side", ["0", "-5", "7"])
def test_impossible_windows_are_told_before_the_first_source(scene, capsys, side):
    assert predict("out", "--tile-size", side) == 2
    error = capsys.readouterr()
    assert "tile-size: " in error.err.replace("tile size", "tile-size")
    assert error.out == ""


class TestLimits:
    """What a header or two places on the earth declare, and no machine can do."""

    @pytest.mark.parametrize("flags", [(), ("--tile-size", "64")])
    def test_an_impossible_size(self, scene, capsys, flags):
        array = np.ones((3, 64, 64), "uint8")
        write_tiff(scene / "scene.tif", array, photometric="RGB", tiled=True, blockxsize=64, blockysize=64)
        declare_size(scene / "scene.tif", 2**31 - 1, 64)
        assert predict("out", *flags) == 2
        assert capsys.readouterr().err.splitlines() == [
            "fpn: scene.tif: 2,147,483,647 x 64 pixels; expected at most 1,048,576 pixels a side; if this is right,"
            " allow more with --max-side N"
        ]

    def test_a_mosaic_around_the_world(self, scene, capsys):
        for name, x in (("west", -2e7), ("east", 2e7)):
            place = {"crs": "EPSG:3857", "transform": rasterio.Affine(0.5, 0, x, 0, -0.5, 0)}
            write_tiff(scene / f"{name}.tif", np.ones((3, 64, 64), "uint8"), photometric="RGB", **place)
        words = ["predict", "model.safetensors", "west.tif", "east.tif", "--mosaic", "world", "--out", "out"]
        assert main(words) == 2
        assert "fpn: world: 80,000,064 x 64 pixels; expected at most 1,048,576 pixels a side" in capsys.readouterr().err
        assert not list(scene.glob("out/*"))

    def test_a_mosaic_of_a_picture_that_its_exif_turns(self, scene, capsys):
        turned = Image.Exif()
        turned[0x0112] = 6
        Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save("a.jpg", exif=turned)
        (scene / "a.jgw").write_text("0.5\n0\n0\n-0.5\n0\n0\n")
        assert main(["predict", "model.safetensors", "a.jpg", "--mosaic", "m", "--out", "out"]) == 2
        assert "a.jpg: turned by its EXIF orientation, and placed by a.jgw" in capsys.readouterr().err

    def test_windows_without_number(self, scene, capsys):
        array = np.ones((3, 64, 64), "uint8")
        write_tiff(scene / "scene.tif", array, photometric="RGB", tiled=True, blockxsize=64, blockysize=64)
        declare_size(scene / "scene.tif", 64, 2**31 - 1)
        assert predict("out", "--tile-size", "32", "--max-side", str(2**31)) == 2
        assert capsys.readouterr().err.splitlines() == [
            "fpn: scene.tif: tile size: 134,217,728 windows of 32 pixels; expected at most 1,048,576;"
            " give a larger --tile-size"
        ]

    def test_the_limit_is_adjustable(self, scene):
        assert predict("out", "--tile-size", "64", "--max-side", str(WIDTH - 1)) == 2
        assert predict("out", "--tile-size", "64", "--max-side", str(WIDTH)) == 0


def test_a_source_overwritten_meanwhile_is_refused(tmp_path):
    from torchfpn.errors import DataError
    from torchfpn.sources.raster import check_unchanged, stamp

    file = tmp_path / "a.tif"
    file.write_bytes(b"1234")
    before = stamp(file)
    check_unchanged(before, stamp(file), file)
    other = tmp_path / "b.tif"
    other.write_bytes(b"1234")
    other.replace(file)
    with pytest.raises(DataError, match=r"a\.tif: changed while it was predicted"):
        check_unchanged(before, stamp(file), file)
