"""The original on a file beside `fpn convert` and `fpn predict`: the same labels, or a refusal with the cure.

The original is fed as its own project feeds it: smp's preprocessing of the encoder, ToTensor for pytorch-fpn.
"""

import numpy as np
import pytest
import rasterio
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from segmentation_models_pytorch.encoders._preprocessing import preprocess_input
from torchvision.transforms.functional import to_tensor

from importers.fixtures import Fixture, cases
from importers.test_convert import random
from made_data import picture, write_tiff
from shared import needs_shared
from torchfpn.cli.main import main
from torchfpn.tasks.pytorch_fpn import original

SIZE = (64, 96)


@pytest.fixture(autouse=True)
def seeded():
    """Weights are drawn: other tests before must not decide which."""
    torch.manual_seed(3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One scene as a JPEG, a 16-bit PNG of the same brightness, and a float TIFF of 0..1."""
    folder = tmp_path_factory.mktemp("scene")
    smooth = np.asarray(Image.fromarray(picture(3, size=(8, 12))).resize(SIZE[::-1], Image.Resampling.BICUBIC))
    Image.fromarray(smooth).save(folder / "a.jpg", quality=95)
    bands = smooth.transpose(2, 0, 1)
    write_tiff(folder / "a16.tif", bands.astype(np.uint16) * 257, photometric="RGB")
    with (
        rasterio.open(folder / "a16.tif") as source,
        rasterio.open(
            folder / "deep.png", "w", driver="PNG", count=3, height=SIZE[0], width=SIZE[1], dtype="uint16"
        ) as sink,
    ):
        sink.write(source.read())
    write_tiff(folder / "unit.tif", (bands / 255).astype(np.float32), photometric="RGB")
    return folder


def convert(network, tmp_path, *more):
    torch.save(network.state_dict() if hasattr(network, "state_dict") else network, tmp_path / "theirs.pth")
    return main(["convert", str(tmp_path / "theirs.pth"), str(tmp_path / "ours.safetensors"), "--overwrite", *more])


def labels(tmp_path, file, *more):
    """The labels that `fpn predict` writes; None where it refuses."""
    out = tmp_path / f"out-{file.stem}"
    if main(["predict", str(tmp_path / "ours.safetensors"), str(file), "--out", str(out), *more]) != 0:
        return None
    (found,) = [path for path in out.iterdir() if path.suffix in (".png", ".tif")]
    with rasterio.open(found) as source:
        return source.read(1)


@torch.no_grad()
def argmax(network, image):
    found = network(image[None].float()).argmax(1)[0].numpy()
    assert len(np.unique(found)) > 1  # a single label would be equal by chance
    return found


def same(found, wanted):
    """All labels but those of a few pixels whose two best logits are equal up to rounding."""
    assert found is not None
    assert found.shape == wanted.shape
    assert np.mean(found != wanted) < 1e-3


def refused(tmp_path, file, capsys, *words):
    capsys.readouterr()
    assert labels(tmp_path, file) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert file.name in line
    assert all(word in line for word in words), line


@pytest.mark.parametrize("merge", ["add", "cat"])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_smp(files, tmp_path, capsys, merge):
    network = random(smp.FPN("resnet18", encoder_weights=None, classes=4, decoder_merge_policy=merge))
    assert convert(network, tmp_path) == 0
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the encoder's "imagenet" weights
    pixels = preprocess_input(np.asarray(Image.open(files / "a.jpg")), mean, std, "RGB", (0, 1))
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    same(labels(tmp_path, files / "a.jpg"), argmax(network, image))
    refused(tmp_path, files / "deep.png", capsys, "holds uint16; expected uint8", "bring it to 8 bits")
    refused(tmp_path, files / "unit.tif", capsys, "holds float32; expected uint8", "--accept-dtype")


@needs_shared
@pytest.mark.parametrize("case", cases("pytorch-fpn")[:1] or [None])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_fixtures_of_pytorch_fpn(files, tmp_path, capsys, case):
    from torchfpn.importers.convert import converted

    tensors = Fixture(case).tensors
    check_pytorch_fpn(converted(tensors).model, tensors, files, tmp_path, capsys)


@pytest.mark.parametrize("kind", ["fpn", "panet"])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_pytorch_fpn(files, tmp_path, capsys, kind):
    made = {"out_size": SIZE, "fpn_channels": 64, "num_classes": 3, "in_channels": 3, "fused": False}
    network = random(original("resnet18", kind, **made))
    check_pytorch_fpn(network, network, files, tmp_path, capsys)


def check_pytorch_fpn(network, saved, files, tmp_path, capsys):
    """As it comes it has no effect on the range, so all files are refused; `--scaling` tells it."""
    assert convert(saved, tmp_path) == 0
    for name in ("a.jpg", "deep.png", "unit.tif"):
        refused(tmp_path, files / name, capsys, "normalised as for its training", "--scaling unit | imagenet | none")
    jpeg = to_tensor(Image.open(files / "a.jpg"))
    assert convert(saved, tmp_path, "--scaling", "unit") == 0
    same(labels(tmp_path, files / "a.jpg"), argmax(network, jpeg))
    refused(tmp_path, files / "deep.png", capsys, "holds uint16; expected uint8", "bring it to 8 bits")
    refused(tmp_path, files / "unit.tif", capsys, "holds float32; expected uint8")
    assert convert(saved, tmp_path, "--scaling", "none") == 0  # files that hold what the network sees
    with rasterio.open(files / "unit.tif") as source:
        same(labels(tmp_path, files / "unit.tif"), argmax(network, torch.from_numpy(source.read())))
