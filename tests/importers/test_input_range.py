"""Files reach a converted model in the range of values that it learnt on, or are refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

import torchfpn
from importers.photographs import predicted
from made_data import write_tiff
from made_objects import YAML, coco, make_objects, record
from tiny_detector import IDS, tiny_detector
from torchfpn.cli.main import main
from torchfpn.errors import DataError
from torchfpn.io.select_bands import in_range
from torchfpn.recipe import Inputs, Recipe, Scaling
from torchfpn.tasks.build import assemble

RECIPE = Recipe("detection", {}, ("a",), ("red", "green", "blue"), Scaling.identity(3), inputs=Inputs.unit())


@pytest.fixture
def unit(tmp_path):
    """A detector that learnt on 0..1, as a file, and the task itself."""
    scaling = torchfpn.Scaling((0.5,) * 3, (0.25,) * 3)
    made = tiny_detector("detection", dtype="", scaling=scaling)
    task = assemble(made.model, replace(made.recipe, inputs=Inputs.unit())).eval()
    task.save(tmp_path / "model.safetensors")
    return task


def pixels(seed=0, size=(48, 64)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def test_8_bit_files_of_any_kind_are_brought_to_0_to_1(unit, tmp_path):
    array = pixels()
    Image.fromarray(array).save(tmp_path / "a.png")
    write_tiff(tmp_path / "a.tif", array.transpose(2, 0, 1), photometric="RGB")
    image = torch.from_numpy(array).permute(2, 0, 1)
    found = unit.predict([image.float() / 255])[0]
    for i, file in enumerate(("a.png", "a.tif")):
        (tmp_path / str(i)).mkdir()
        boxes, scores, _ = predicted(unit, tmp_path / file, tmp_path / str(i))
        torch.testing.assert_close(boxes, found.boxes, atol=2e-3, rtol=0)
        torch.testing.assert_close(scores, found.scores, atol=1e-4, rtol=0)
    assert torch.equal(unit.predict([image])[0].boxes, found.boxes)  # uint8 tensors as well


@pytest.mark.parametrize(("dtype", "top"), [("uint16", 65535), ("uint16", 255), ("float32", 1.0), ("float32", 255.0)])
def test_other_pixel_types_are_refused_with_the_cure(unit, tmp_path, capsys, dtype, top):
    file = tmp_path / "a.tif"
    write_tiff(file, (pixels().transpose(2, 0, 1) / 255.0 * top).astype(dtype), photometric="RGB")
    words = ["predict", str(tmp_path / "model.safetensors"), str(file), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"a.tif: holds {dtype}; expected uint8, scaled to 0 to 1 in training; bring it to" in told
    taken = (dtype, top) in {("uint16", 255), ("float32", 1.0)}
    assert main([*words, "--accept-dtype"]) == (0 if taken else 2)
    told = capsys.readouterr().err
    assert taken or f"{dtype} values from" in told


@pytest.mark.parametrize("inputs", [Inputs.unit(), Inputs.eight_bit()], ids=["torchvision", "detectron2"])
@pytest.mark.parametrize("bands", [3, 1], ids=["colour", "grey"])
def test_16_bit_pngs_are_refused_by_every_way_in(unit, tmp_path, capsys, inputs, bands):
    """Grey: Pillow reads it, and the model repeats its one band; colour: GDAL does, Pillow would cut it to 8 bits."""
    recipe = replace(unit.recipe, inputs=inputs, rules={**unit.recipe.rules, "grey_as_color": True})
    task = assemble(unit.model, recipe).eval()
    task.save(tmp_path / "model.safetensors")
    deep = pixels().astype(np.uint16)[..., :bands].transpose(2, 0, 1) * 257
    write_tiff(tmp_path / "a.png", deep, driver="PNG")
    words = ["predict", str(tmp_path / "model.safetensors"), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert f"a.png: holds uint16; expected uint8, scaled to 0 to {inputs.high:g} in training; br" in told
    assert main([*words, "--accept-dtype"]) == 2
    assert "a.png: uint16 values from" in capsys.readouterr().err
    for given in (tmp_path / "a.png", deep):
        with pytest.raises(DataError, match="holds uint16"):
            task.predict(given)
    for wrong in (torch.from_numpy(deep.repeat(3 // bands, 0)), torch.from_numpy(deep.repeat(3 // bands, 0) * 1.0)):
        with pytest.raises(DataError, match="the model's range"):
            task.predict([wrong])


def test_an_overlay_shows_the_pixels_of_the_file(unit, tmp_path):
    array = pixels() // 4 + 100
    Image.fromarray(array).save(tmp_path / "a.png")
    words = ["predict", str(tmp_path / "model.safetensors"), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    assert main([*words, "--overlay", "--min-score", "1"]) == 0
    with Image.open(tmp_path / "out" / "a.overlay.png") as shown:
        assert np.array_equal(np.array(shown.convert("RGB")), array)


def test_evaluate_brings_a_dataset_to_the_range(unit, tmp_path):
    """The truth is what the model itself finds in images of 0..1, so that a wrong range would score next to nothing."""
    data = make_objects(tmp_path / "data", coco([]), yaml=YAML.replace("instance", "detection", 1))
    records = []
    for i in range(2):
        found = unit.predict([to_tensor(Image.open(data / "train" / "images" / f"a{i}.png"))])[0]
        rows = zip(found.boxes.tolist(), found.labels.tolist(), strict=True)
        records += [record(0, box, image=i + 1, category=IDS[label]) for box, label in rows]
    records = [{**each, "id": number} for number, each in enumerate(records, start=1)]
    (data / "train" / "instances.json").write_text(json.dumps(coco(records)))
    words = ["evaluate", str(tmp_path / "model.safetensors"), str(data), "--split", "train"]
    assert main([*words, "--json", str(tmp_path / "a.json"), "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["boxes"]["ap50"] > 0.99


def test_tensors_far_out_of_the_range_are_refused(unit):
    image = torch.from_numpy(pixels()).permute(2, 0, 1)
    for wrong in (image.float(), image.to(torch.int32)):
        with pytest.raises(DataError) as caught:
            unit.predict([wrong])
        assert "0..1" in str(caught.value)
    image = image.float() / 255
    image[:, :5] = torch.nan
    assert len(unit.predict([1.05 * image])[0])


def test_the_range_is_that_of_to_tensor():
    array = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    ours = in_range(torch.from_numpy(array).permute(2, 0, 1).float(), "uint8", RECIPE, file="x.png")
    assert torch.equal(ours, to_tensor(Image.fromarray(array)))
