"""What the Python API takes: files, folders, arrays and tensors give one answer; anything else is told what to give."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import torchfpn
from made_data import write_png, write_tiff
from tiny_detector import tiny_detector
from tiny_model import BANDS, IDS, tiny_task
from torchfpn import AnySize, Batch, ConfigError, DataError, ShapeError
from torchfpn.cli.main import main
from torchfpn.io.rasters import open_raster
from torchfpn.ops.masks import Instances
from torchfpn.recipe import IGNORE
from torchfpn.types import Semantic

SIZE = (40, 56)


def scene(path, seed=0):
    """A 16-bit scene of four bands, part of it without data; its values."""
    array = np.random.default_rng(seed).integers(1, 1000, (4, *SIZE)).astype(np.uint16)
    array[:, :6] = 0
    write_tiff(path, array, nodata=0, descriptions=("red", "green", "blue", "nir"))
    return array


@pytest.fixture
def folder(tmp_path):
    """A model and two scenes."""
    (tmp_path / "scenes").mkdir()
    for i in (1, 0):
        scene(tmp_path / "scenes" / f"{i}.tif", seed=i)
    tiny_task().save(tmp_path / "model.safetensors")
    return tmp_path


def test_a_folder_gives_what_fpn_predict_writes(folder):
    model, scenes = folder / "model.safetensors", folder / "scenes"
    assert main(["predict", str(model), str(scenes), "--out", str(folder / "out")]) == 0
    results = torchfpn.predict(model, scenes)
    assert len(results) == 2
    for i, result in enumerate(results):
        with open_raster(folder / "out" / f"{i}.tif") as source:
            written = source.read(1)
        values = torch.tensor([*IDS, *[0] * (IGNORE - len(IDS) + 1)])[result.labels]
        assert np.array_equal(written, values.numpy())
        assert (result.labels[:6] == IGNORE).all()
    task = torchfpn.load(model)
    for given in (str(scenes / "*.tif"), [scenes / "0.tif", str(scenes / "1.tif")], [str(scenes)]):
        again = torchfpn.predict(task, given)
        assert [torch.equal(a.labels, b.labels) for a, b in zip(again, results, strict=True)] == [True, True]
    assert torch.equal(task.predict(scenes / "0.tif")[0].labels, results[0].labels)


def files_of(folder):
    """Content by name of the files of a folder, hidden ones left out."""
    return {file.name: file.read_bytes() for file in folder.glob("[!.]*")}


@pytest.mark.parametrize("kind", ["picture", "raster", "objects", "boxes"])
def test_files_written_from_python_are_those_of_fpn_predict_to_the_byte(tmp_path, kind):
    (tmp_path / "in" / "low").mkdir(parents=True)
    model, out, window = tmp_path / "model.safetensors", tmp_path / "out", np.int64(32) if kind == "raster" else None
    sources = [tmp_path / "in", tmp_path / "in" / "low" / "a.png"]
    if kind == "raster":
        tiny_task().save(model)
        scene(tmp_path / "in" / "b.tif")
        sources, names = sources[:1], ["b.tif"]
    else:
        for i, file in enumerate((sources[1], tmp_path / "in" / "b.png")):
            write_png(file, np.random.default_rng(i).integers(0, 256, (*SIZE, 3), dtype=np.uint8))
        is_picture = kind == "picture"
        made = tiny_task(bands=BANDS[:3], dtype="uint8") if is_picture else None
        (made or tiny_detector("instance" if kind == "objects" else "detection")).save(model)
        masks = [] if kind == "boxes" else ["b.png", "a.png"]
        names = masks if is_picture else ["objects.json", *masks]
    words = ["predict", str(model), *map(str, sources), "--out", str(out)]
    assert main([*words, "--tile-size", "32"] if window else words) == 0
    for given in (
        model,
        torchfpn.load(model).train(),
    ):  # batch norm of a task in training mode would tell the images apart
        own = tmp_path / type(given).__name__
        written = torchfpn.predict(given, sources, out=own, tile_size=window)
        assert written == [own / name for name in names]
        assert files_of(own) == files_of(out)
    assert given.training


def test_files_written_from_python_replace_none_unasked(folder, capsys):
    model, scenes, out = folder / "model.safetensors", folder / "scenes", folder / "out"
    words = ["predict", str(model), str(scenes), "--out", str(out)]
    assert main(words) == 0
    before = files_of(out)
    with pytest.raises(ConfigError, match="out: 2 files already exist: "):
        torchfpn.predict(model, scenes, out=out)
    with pytest.raises(ConfigError, match="would be overwritten by its own output"):
        torchfpn.predict(model, scenes, out=scenes, overwrite=True)
    assert files_of(out) == before
    torchfpn.predict(tiny_task(seed=3), scenes, out=out, overwrite=True)
    after = files_of(out)
    assert after != before
    assert main([*words, "--resume"]) == 2  # these are not its own finished answers
    assert "was made with a different " in capsys.readouterr().err
    assert files_of(out) == after


def test_files_written_from_python_are_whole_or_not_there(tmp_path, caplog):
    task = tiny_detector("detection")
    for i in range(2):
        write_png(tmp_path / f"{i}.png", np.full((*SIZE, 3), 9, np.uint8))
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"1\.png: damaged"):
        torchfpn.predict(task, str(tmp_path / "*.png"), out=tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    array = np.zeros((4, *SIZE), np.uint16)
    write_tiff(tmp_path / "a.tif", array, nodata=0)
    torchfpn.predict(tiny_task(), tmp_path / "a.tif", out=tmp_path / "out")
    assert caplog.messages == [f"{tmp_path / 'a.tif'}: contains no valid pixel"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sources": np.zeros((4, 9, 9), np.uint16)}, r"sources: a ndarray; expected paths, with out=FOLDER"),
        ({"sources": ["a.tif", torch.zeros(4, 9, 9)]}, r"sources: a Tensor; expected paths, with out=FOLDER"),
        ({"tile_size": 9}, r"tile size: 9; expected a multiple of \d+ pixels"),
        ({"tile_size": 0}, r"tile size: 0; expected a multiple of \d+ pixels"),
        ({"tile_size": "32"}, r"tile_size: '32'; expected a whole number of pixels"),
        ({"tile_size": 32.0}, r"tile_size: 32\.0; expected a whole number of pixels"),
        ({"model": tiny_detector, "tile_size": 32}, r"tile_size: 32; expected a semantic model"),
        ({"model": lambda: tiny_task(ids=(1, 2, 70_000))}, r"a class with the value 70000; expected 0\.\.65535"),
        ({"out": None, "overwrite": True}, r"overwrite: overwrite without out; expected to come with out=FOLDER"),
        ({"out": None, "tile_size": 32}, r"tile_size: tile_size without out"),
    ],
)
def test_what_cannot_be_written_is_told_before_anything_is_made(tmp_path, given, told):
    scene(tmp_path / "a.tif")
    given = {"model": tiny_task, "sources": tmp_path / "a.tif", "out": tmp_path / "out"} | given
    with pytest.raises(torchfpn.FPNError, match=told):
        torchfpn.predict(given.pop("model")(), **given)
    assert not (tmp_path / "out").exists()


def test_arrays_stand_for_files_of_their_type(tmp_path):
    task = tiny_task()
    array = scene(tmp_path / "a.tif")
    wanted = task.predict([torch.from_numpy(array.astype(np.float32))])[0].labels
    for given in (array, array.transpose(1, 2, 0), [array], array[None]):
        assert torch.equal(task.predict(given)[0].labels, wanted)
        assert torch.equal(torchfpn.predict(task, given)[0].labels, wanted)
    with pytest.raises(DataError, match="holds float64; expected uint16"):
        task.predict(array.astype(np.float64))
    assert torch.equal(task.predict(array.astype(np.float64), accept_dtype=True)[0].labels, wanted)


def test_a_photograph_and_its_array_give_the_same_objects(tmp_path):
    task = tiny_detector("instance")
    array = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    one, other = task.predict([tmp_path / "a.png", array])
    assert len(one) > 10
    assert torch.equal(one.boxes, other.boxes)
    found = torchfpn.predict(task, tmp_path / "a.png")[0]
    assert torch.equal(found.boxes, one.boxes[one.masks.flatten(1).any(1)])


@pytest.mark.parametrize("shape", [(3, 9, 3), (9, 9), (9, 9, 4), (3,), (2, 2, 2, 2)])
def test_arrays_that_can_be_read_in_no_way_or_two_are_refused(shape):
    with pytest.raises(ShapeError, match=r"array uint8 of shape .*expected numbers \[H, W, C\] or \[C, H, W\]"):
        tiny_detector("detection").predict(np.zeros(shape, np.uint8))


def test_files_that_are_not_there_or_not_what_the_model_wants_are_named(folder):
    task = torchfpn.load(folder / "model.safetensors")
    with pytest.raises(DataError, match=r"none\.tif"):
        task.predict(folder / "none.tif")
    with pytest.raises(torchfpn.FPNError, match=r"none\.tif: no image found"):
        torchfpn.predict(task, folder / "none.tif")
    write_png(folder / "photo.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(DataError, match=r"photo\.png: has 3 bands"):
        torchfpn.predict(task, [folder / "photo.png"])


@pytest.mark.parametrize("made", [tiny_task, tiny_detector], ids=["semantic", "instance"])
@pytest.mark.parametrize("wrong", ["tensor", "pair", "array", "none"])
def test_what_is_no_batch_is_told_what_to_give(made, wrong):
    task, image = made(), torch.zeros(1, 3, 8, 8)
    given = {"tensor": image, "pair": (image, image), "array": image.numpy(), "none": None}[wrong]
    for call in (task, task.losses):
        with pytest.raises(ShapeError, match=r"expected a torchfpn\.Batch\(images, sizes, targets\).*task\.predict"):
            call(given)


@pytest.mark.parametrize("wrong", [7, None, {"images": 1}, [3], [[1, 2], [3, 4]]])
def test_what_is_no_image_is_told_what_to_give(wrong):
    with pytest.raises(ShapeError, match=r"expected a Tensor \[B, C, H, W\], a Batch, a path"):
        tiny_task().predict(wrong)


def test_backbones_are_listed_without_torch_or_timm():
    code = (
        "import sys, torchfpn; names = torchfpn.list_backbones(); "
        "assert {'resnet50', 'torchvision/resnet18', 'convnext_tiny'} <= set(names), names[:9]; "
        "assert torchfpn.list_backbones('torchvision/resnet1*') == "
        "['torchvision/resnet101', 'torchvision/resnet152', 'torchvision/resnet18']; "
        "assert 'seresnet50' in torchfpn.list_backbones('resnet50'); assert torchfpn.list_backbones('nothing') == []; "
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("size", [(100, 133), (1, 1), (33, 64)])
def test_a_model_composed_by_hand_gives_the_size_of_its_images(size):
    body = torchfpn.backbone("test_resnet", in_channels=6)
    pyramid = torchfpn.FPN(body.levels, channels=16)
    head = torchfpn.SemanticHead(pyramid.levels, num_classes=5)
    model = AnySize(multiple=body.levels[-1].stride, backbone=body, pyramid=pyramid, head=head).eval()
    assert model(torch.rand(1, 6, *size)).shape == (1, 5, *size)


def test_results_print_as_numbers():
    boxes = torch.zeros(3, 4)
    found = Instances(boxes, torch.tensor([0.9, 0.5, 0.25]), torch.tensor([4, 0, 4]), (480, 640))
    assert repr(found) == "Instances(3 objects: class 0 x 1, class 4 x 2; scores 0.25 to 0.90; boxes; image 480 x 640)"
    nothing = Instances(boxes[:0], boxes[:0, 0], boxes[:0, 0].long(), (4, 6))
    assert repr(nothing) == "Instances(0 objects; boxes; image 4 x 6)"
    labels, scores = torch.tensor([[2, 2, 2], [0, IGNORE, 2]]), torch.tensor([[0.5, 0.6, 0.7], [0.8, 0.0, 0.9]])
    shares = "class 2 66.7 %, no data 16.7 %, class 0 16.7 %"
    assert repr(Semantic(labels, scores)) == f"Semantic(2 x 3: {shares}; scores 0.50 to 0.90)"
    assert repr(Semantic(torch.full((1, 1), IGNORE), torch.zeros(1, 1))) == "Semantic(1 x 1: no data 100.0 %)"


def test_a_batch_is_learnt_from_as_before():
    task = tiny_task()
    losses = task(Batch(torch.rand(1, 4, 32, 32), [(32, 32)], torch.zeros(1, 32, 32, dtype=torch.int64)))
    assert set(losses) == {"ce"}
