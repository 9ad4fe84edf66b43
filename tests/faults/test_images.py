"""Faults of images and rasters, as a user meets them: one line that names the file, exit code 2, or it simply works."""

import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from made_data import labels, make_dataset, picture, write_png, write_tiff
from torchfpn.cli.main import main
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import SemanticDataset
from torchfpn.data.sample import collate
from torchfpn.data.scaling import find_scaling
from torchfpn.data.transforms import Augment
from torchfpn.errors import DataError
from torchfpn.io.formats import READABLE
from torchfpn.recipe import IGNORE

UTM = {"crs": "EPSG:32633", "transform": rasterio.Affine(10.0, 0.0, 500000.0, 0.0, -10.0, 5500000.0)}


def checked(folder, capsys, *flags):
    """(exit code, lines on stderr) of `fpn check`."""
    code = main(["check", str(folder), *flags])
    return code, capsys.readouterr().err.splitlines()


def replaced(folder, name, suffix, write):
    """Image `name` of the training split, written anew with another suffix."""
    (folder / "train" / "images" / f"{name}.png").unlink()
    path = folder / "train" / "images" / f"{name}{suffix}"
    write(path)
    return path


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "compressed tif"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_fault_01_truncated_file_is_named_by_check(tmp_path, capsys, kind, share):
    make_dataset(tmp_path, size=(120, 160))
    array = picture(0, (120, 160))

    def write(path):
        if "tif" in kind:
            write_tiff(path, array.transpose(2, 0, 1), **({"compress": "deflate"} if "compressed" in kind else {}))
        else:
            Image.fromarray(array).save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])

    bad = replaced(tmp_path, "a1", "." + kind.split()[-1], write)
    code, lines = checked(tmp_path, capsys)
    assert code == 2
    assert len(lines) == 2
    assert lines[0].startswith(f"bad: {bad}: damaged")
    with pytest.raises(DataError, match=bad.name):
        SemanticDataset(read_dataset(tmp_path), "train")[1]


def test_fault_02_empty_file_text_and_folder_instead_of_an_image(tmp_path, capsys):
    make_dataset(tmp_path, train=4)
    empty = replaced(tmp_path, "a0", ".tif", lambda path: path.write_bytes(b""))
    text = replaced(tmp_path, "a1", ".tif", lambda path: path.write_text("II is not enough"))
    folder = replaced(tmp_path, "a2", ".tif", lambda path: path.mkdir())
    code, lines = checked(tmp_path, capsys)
    assert code == 2
    assert lines[:3] == [
        f"bad: {empty}: empty file (0 bytes); copy it again",
        f"bad: {text}: not an image this program reads; expected {READABLE}",
        f"bad: {folder}: a folder, not an image; move it elsewhere",
    ]


VRT = (
    '<VRTDataset rasterXSize="32" rasterYSize="24"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    '<SourceFilename relativeToVRT="0">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>'
    "</VRTDataset>"
)


@pytest.mark.parametrize("suffix", [".vrt", ".tif"])
def test_fault_03_vrt_is_refused_unless_allowed_and_never_leaves_the_root(tmp_path, capsys, suffix):
    folder = make_dataset(tmp_path / "set", train=1)
    outside = write_png(tmp_path / "outside.png", labels(0))
    inside = write_png(folder / "inside.png", picture(0)[..., 0])
    bad = replaced(folder, "a0", suffix, lambda path: path.write_text(VRT.format(outside)))
    code, lines = checked(folder, capsys)
    assert code == 2
    assert lines[0] == f"bad: {bad}: a VRT, which may point anywhere; if you trust it: --allow-vrt"
    code, lines = checked(folder, capsys, "--allow-vrt")
    assert code == 2
    assert f"a VRT over {outside}; expected files that lie under {folder}" in lines[0]
    for path in (folder / "val" / "images").iterdir():
        write_png(path, picture(0)[..., 0])
    bad.write_text(VRT.format(inside))
    assert checked(folder, capsys, "--allow-vrt") == (0, [])


def bomb(path):
    """A PNG header that claims 100000 x 100000 pixels, 67 bytes long."""
    Image.new("L", (1, 1)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)


def sparse_tiff(path):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        height=100_000,
        width=100_000,
        dtype="uint8",
        sparse_ok=True,
        tiled=True,
        **UTM,
    ):
        pass


@pytest.mark.parametrize("write", [bomb, sparse_tiff])
def test_fault_05_decompression_bomb_is_told_its_size_and_the_option(tmp_path, capsys, write):
    make_dataset(tmp_path)
    bad = replaced(tmp_path, "a1", ".png", write)
    limit = Image.MAX_IMAGE_PIXELS
    code, lines = checked(tmp_path, capsys)
    assert code == 2
    assert lines[0].startswith(f"bad: {bad}: 100000 x 100000 = 10000000000 pixels; expected at most 268435456; ")
    assert "--max-pixels" in lines[0]
    assert limit == Image.MAX_IMAGE_PIXELS


def test_fault_07_other_number_of_bands(tmp_path, capsys):
    make_dataset(tmp_path)
    bad = replaced(tmp_path, "a1", ".tif", lambda path: write_tiff(path, np.ones((5, 24, 32), "uint8")))
    code, lines = checked(tmp_path, capsys)
    assert code == 2
    assert lines[0].startswith(f"bad: {bad}: has 5 bands (")
    assert lines[0].endswith("most images have 3 (red, green, blue)")
    yaml = tmp_path / "dataset.yaml"
    yaml.write_text(yaml.read_text() + "bands: [red, green, blue]\n")
    code, lines = checked(tmp_path, capsys)
    assert lines[0].endswith("; expected 3 bands: red, green, blue")
    with pytest.raises(DataError, match=r"a1\.tif: has 5 bands .*; expected 3 bands: red, green, blue"):
        SemanticDataset(read_dataset(tmp_path), "train")[1]


def test_fault_08_other_pixel_type_is_never_rescaled_in_silence(tmp_path, capsys):
    make_dataset(tmp_path)
    array = picture(1).transpose(2, 0, 1).astype("uint16") * 257
    bad = replaced(tmp_path, "a1", ".tif", lambda path: write_tiff(path, array))
    code, lines = checked(tmp_path, capsys)
    assert code == 2
    assert lines[0].startswith(f"bad: {bad}: pixels of type uint16; most images are uint8; ")
    samples = SemanticDataset(read_dataset(tmp_path), "train")
    for attempt in (lambda: samples[1], lambda: find_scaling(read_dataset(tmp_path))):
        with pytest.raises(DataError, match=r"a1\.tif: pixels of type uint16"):
            attempt()
    yaml = tmp_path / "dataset.yaml"
    yaml.write_text(yaml.read_text() + "scaling: {offset: [0, 0, 0], scale: [255, 255, 255]}\n")
    assert checked(tmp_path, capsys) == (0, [])
    sample = SemanticDataset(read_dataset(tmp_path), "train")[1]
    assert torch.equal(sample.image, torch.from_numpy(array.astype("float32")))  # raw values, whatever they are


def test_fault_09_nan_and_infinity_are_no_data(tmp_path, capsys):
    make_dataset(tmp_path, train=1, val=0)
    array = np.full((2, 24, 32), 7.0, "float32")
    array[0, 3, 4], array[1, 5, 6], array[1, 7, 8] = np.nan, np.inf, -np.inf
    replaced(tmp_path, "a0", ".tif", lambda path: write_tiff(path, array))
    yaml = tmp_path / "dataset.yaml"
    yaml.write_text(yaml.read_text().split("  val:")[0])
    code, lines = checked(tmp_path, capsys)
    assert (code, lines) == (0, [])
    dataset = read_dataset(tmp_path)
    assert find_scaling(dataset)[0].offset == (7.0, 7.0)
    for augment in (None, Augment((24, 32), mirror=0.0)):
        sample = SemanticDataset(dataset, "train", augment=augment)[0]
        places = [[3, 4], [5, 6], [7, 8]]
        assert sample.image.isnan().all(0).nonzero().tolist() == places
        assert int(sample.image.isnan().sum()) == 6
        assert not sample.image.isinf().any()
        assert (sample.target == IGNORE).nonzero().tolist() == places


def test_fault_13_image_and_mask_of_different_size_or_on_other_grids(tmp_path, capsys):
    make_dataset(tmp_path, train=4)
    write_png(tmp_path / "train" / "labels" / "a0.png", labels(0, (24, 33)))
    array = picture(1).transpose(2, 0, 1)

    def both(name, transform, crs="EPSG:32633"):
        replaced(tmp_path, name, ".tif", lambda path: write_tiff(path, array, **UTM))
        (tmp_path / "train" / "labels" / f"{name}.png").unlink()
        return write_tiff(tmp_path / "train" / "labels" / f"{name}.tif", labels(0)[None], crs=crs, transform=transform)

    near = UTM["transform"] @ rasterio.Affine.translation(0.009, 0)
    both("a1", near)
    far = both("a2", UTM["transform"] @ rasterio.Affine.translation(0.02, 0))
    other = both("a3", UTM["transform"], crs="EPSG:32634")
    code, lines = checked(tmp_path, capsys)
    assert code == 2
    assert len(lines) == 4
    size = tmp_path / "train" / "labels" / "a0.png"
    assert lines[0] == f"bad: {size}: labels of 33 x 24 pixels for an image of 32 x 24"
    assert lines[1].startswith(f"bad: {far}: labels on another grid than the image, 0.02 pixels apart: [10.0, ")
    assert lines[1].count("[10.0, 0.0, 50000") == 2
    assert lines[2].startswith(f"bad: {other}: labels in another coordinate system")
    samples = SemanticDataset(read_dataset(tmp_path), "val")
    assert len(samples) == 2
    with pytest.raises(DataError, match=r"a0\.png: labels of 33 x 24"):
        SemanticDataset(read_dataset(tmp_path), "train")


def test_fault_14_tiny_and_odd_images_are_read_and_batched(tmp_path, capsys):
    sizes = [(1, 1), (1, 50), (50, 1), (31, 33)]
    make_dataset(tmp_path, train=4)
    for i, size in enumerate(sizes):
        write_png(tmp_path / "train" / "labels" / f"a{i}.png", labels(i, size))
        replaced(
            tmp_path,
            f"a{i}",
            ".tif",
            lambda path, i=i, size=size: write_tiff(path, picture(i, size).transpose(2, 0, 1)),
        )
    assert checked(tmp_path, capsys) == (0, [])
    dataset = read_dataset(tmp_path)
    batch = collate(list(SemanticDataset(dataset, "train")))
    assert batch.sizes == sizes
    assert batch.images.shape == (4, 3, 50, 50)
    augment = Augment((32, 32), scale=(0.5, 2.0), turns=True, class_aware=0.5)
    cropped = collate(list(SemanticDataset(dataset, "train", augment=augment)))
    assert cropped.images.shape == (4, 3, 32, 32)
    assert torch.equal(cropped.images.isnan().any(1), cropped.targets == IGNORE)
    assert (cropped.targets != IGNORE).flatten(1).any(1).all()


def test_fault_16_every_colour_model_is_converted_and_exif_turns_images_and_labels_alike(tmp_path, capsys):
    make_dataset(tmp_path, train=6, val=0)
    yaml = tmp_path / "dataset.yaml"
    yaml.write_text(yaml.read_text().split("  val:")[0])
    upright, truth = np.repeat(np.repeat(picture(0, (3, 4)), 8, 0), 8, 1), labels(0)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn counter-clockwise
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    replaced(tmp_path, "a0", ".jpg", lambda path: stored.save(path, exif=exif, quality=100, subsampling=0))
    write_png(tmp_path / "train" / "labels" / "a0.png", np.ascontiguousarray(np.rot90(truth)), exif=exif)
    replaced(tmp_path, "a1", ".jpg", lambda path: Image.fromarray(upright).convert("CMYK").save(path, quality=100))
    replaced(tmp_path, "a2", ".png", lambda path: Image.fromarray(upright).quantize(64).save(path))
    gray_alpha = Image.fromarray(upright).convert("LA")
    gray_alpha.putalpha(Image.fromarray(np.where(truth == 0, 0, 255).astype("uint8")))
    with_alpha = Image.merge("RGBA", (*Image.fromarray(upright).split(), gray_alpha.getchannel("A")))
    replaced(tmp_path, "a3", ".png", with_alpha.save)
    for i in (1, 2, 3):
        write_png(tmp_path / "train" / "labels" / f"a{i}.png", truth)
    assert checked(tmp_path, capsys) == (0, [])
    samples = SemanticDataset(read_dataset(tmp_path), "train")
    want = torch.from_numpy(upright).permute(2, 0, 1).float()
    for i, close in ((0, 12), (1, 12), (2, 40)):
        assert (samples[i].image - want).abs().mean() < close, i
        assert torch.equal(samples[i].target, torch.from_numpy(truth).long()), i
    assert torch.equal(samples[3].image.isnan().any(0), torch.from_numpy(truth == 0))
    assert (samples[3].target[torch.from_numpy(truth == 0)] == IGNORE).all()


@pytest.mark.parametrize("mode", ["16-bit", "grey+alpha"])
def test_fault_16_deep_and_grey_png_keep_their_values(tmp_path, capsys, mode):
    make_dataset(tmp_path, train=2, val=0)
    yaml = tmp_path / "dataset.yaml"
    yaml.write_text(yaml.read_text().split("  val:")[0])
    deep = np.arange(24 * 32, dtype="uint16").reshape(24, 32) * 80
    for i in range(2):
        if mode == "16-bit":
            image = Image.fromarray(deep)
        else:
            image = Image.merge("LA", [Image.fromarray((deep // 256).astype("uint8"))] * 2)
        replaced(tmp_path, f"a{i}", ".png", image.save)
    assert checked(tmp_path, capsys) == (0, [])
    sample = SemanticDataset(read_dataset(tmp_path), "train")[0]
    want = torch.from_numpy((deep if mode == "16-bit" else deep // 256).astype("float32"))
    missing = torch.zeros(24, 32, dtype=torch.bool) if mode == "16-bit" else want == 0
    assert torch.equal(sample.image[0].isnan(), missing)
    assert torch.equal(sample.image[0][~missing], want[~missing])


NAMES = ["höhe Ω 地図", "two words  ", "line\nbreak", "n" * 246, "[bold]x", "-rf", "#?%&'\"", "a.b.c"]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_fault_17_odd_file_names_work(tmp_path, capsys, suffix):
    make_dataset(tmp_path, train=0)
    for i, name in enumerate(NAMES):
        write = write_png if suffix == ".png" else lambda path, array: write_tiff(path, array.transpose(2, 0, 1))
        write(tmp_path / "train" / "images" / f"{name}{suffix}", picture(i))
        write_png(tmp_path / "train" / "labels" / f"{name}.png", labels(i))
    sheet = tmp_path / "sheet.png"
    assert checked(tmp_path, capsys, "--sheet", str(sheet)) == (0, [])
    assert sheet.exists()
    dataset = read_dataset(tmp_path)
    assert sorted(sample.name for sample in SemanticDataset(dataset, "train")) == sorted(
        str(tmp_path / "train" / "images" / f"{name}{suffix}") for name in NAMES
    )
    for path in (tmp_path / "train" / "labels").iterdir():
        path.write_bytes(b"")
    code, lines = checked(tmp_path, capsys)
    assert code == 2
    assert len(lines) == len(NAMES) + 1  # one line each, newline or not
    assert any(r"line\nbreak.png: empty file" in line for line in lines)


def test_fault_17_names_that_are_no_utf8(tmp_path):
    """In a process of its own, whose output is a real pipe: such a name must not break the printing either."""
    make_dataset(tmp_path)
    images, truth = tmp_path / "train" / "images", tmp_path / "train" / "labels"
    odd, odder = os.fsdecode(b"\xff\xfe"), os.fsdecode(b"\xfd")
    (images / "a0.png").rename(images / f"{odd}.png")
    (truth / "a0.png").rename(truth / f"{odd}.png")
    assert SemanticDataset(read_dataset(tmp_path), "train")[2].image.shape == (3, 24, 32)
    write_tiff(tmp_path / "a.tif", np.ones((3, 24, 32), "uint8"))  # GDAL takes no such names, so this is told
    (tmp_path / "a.tif").rename(images / f"{odder}.tif")
    (truth / f"{odder}.png").hardlink_to(truth / "a1.png")
    code = f"import sys; from torchfpn.cli.main import main; sys.exit(main(['check', {str(tmp_path)!r}, '--json']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert r"\xfd.tif: a file name that is not UTF-8; rename the file" in done.stderr


def test_fault_17_loops_of_links(tmp_path, capsys):
    make_dataset(tmp_path)
    loop = replaced(tmp_path, "a0", ".png", lambda path: path.symlink_to(path))
    code, lines = checked(tmp_path, capsys)
    assert code == 2
    assert lines[0].startswith(f"bad: {loop}: cannot be opened (Too many levels of symbolic links)")
    (tmp_path / "val" / "images").rename(tmp_path / "val" / "old")
    (tmp_path / "val" / "images").symlink_to(tmp_path / "val" / "images")
    code, lines = checked(tmp_path, capsys)
    assert code == 2
    assert any("val/images: cannot be listed" in line for line in lines)
