"""A source overwritten while it is predicted, or between a kill and --resume: never an answer of two sources."""

import os
import threading

import numpy as np
import pytest

from made_data import write_tiff
from made_scenes import make_scene, make_task
from passes import before_pass, interrupted_at
from torchfpn.cli.main import main
from torchfpn.errors import DataError
from torchfpn.inference.jobs import find_sources, plan
from torchfpn.inference.semantic import PredictOptions
from torchfpn.inference.windows import TilingOptions, open_windowed, predict_windows

VRT = """<VRTDataset rasterXSize="190" rasterYSize="130">{bands}</VRTDataset>"""
BAND = """<VRTRasterBand dataType="Byte" band="{n}"><ColorInterp>{color}</ColorInterp><SimpleSource>
<SourceFilename relativeToVRT="1">part.tif</SourceFilename><SourceBand>{n}</SourceBand>
<SrcRect xOff="0" yOff="0" xSize="190" ySize="130"/><DstRect xOff="0" yOff="0" xSize="190" ySize="130"/>
</SimpleSource></VRTRasterBand>"""
CASES = {  # what is predicted, and the file that somebody overwrites meanwhile
    "file": ("scene.tif", "scene.tif", []),
    "vrt": ("scene.vrt", "scene.vrt", ["--allow-vrt"]),
    "source-of-vrt": ("scene.vrt", "part.tif", ["--allow-vrt"]),
    "mask": ("scene.tif", "scene.tif.msk", []),
    "mask-of-source": ("scene.vrt", "part.tif.msk", ["--allow-vrt"]),
    "mosaic": ("scene.tif", "scene.tif", ["--mosaic", "scene"]),
    "vrt-in-mosaic": ("scene.vrt", "part.tif", ["--allow-vrt", "--mosaic", "scene"]),
}


@pytest.fixture
def scene(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_task().save("model.safetensors")
    for name in ("scene.tif", "part.tif"):
        make_scene(name)
        write_tiff(tmp_path / f"{name}.msk", np.full((1, 130, 190), 255, np.uint8))
    georeference = "<SRS>EPSG:32645</SRS><GeoTransform>500000, 0.5, 0, 3000000, 0, -0.5</GeoTransform>"
    bands = [BAND.format(n=n, color=color) for n, color in enumerate(("Red", "Green", "Blue"), start=1)]
    (tmp_path / "scene.vrt").write_text(VRT.format(bands=georeference + "".join(bands)))
    return tmp_path


def overwrite(path):
    """The same bytes, as another file put in its place."""
    data = path.read_bytes()
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(data)
    fresh.replace(path)


@pytest.mark.parametrize("case", CASES)
def test_during_a_prediction_and_before_it_is_resumed(scene, capsys, case):
    source, changed, flags = CASES[case]
    words = ["predict", "model.safetensors", source, "--out", "out", "--tile-size", "128", *flags]
    with before_pass(lambda *_: overwrite(scene / changed)):
        assert main(words) == 2
    assert "changed while it was predicted" in capsys.readouterr().err
    assert not list((scene / "out").rglob("*.block"))  # they are of two sources
    assert not list((scene / "out").glob("*.tif"))

    with interrupted_at(1):
        assert main(words) == 130
    overwrite(scene / changed)
    capsys.readouterr()
    assert main([*words, "--resume"]) == 2
    assert "holds blocks made with a different source; give the former model" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


def test_by_another_thread_from_the_callback_of_the_library(scene):
    (job,) = plan(find_sources(["scene.tif"]), scene / "out", {}, raster_extras={})
    job.labels.parent.mkdir()
    options, streaming = PredictOptions(), TilingOptions("a model", side=128, always=True)
    opened = open_windowed(job, options, streaming)

    def elsewhere():
        thread = threading.Thread(target=os.utime, args=("scene.tif", (1, 1)))
        thread.start()
        thread.join()

    with pytest.raises(DataError, match=r"scene\.tif: changed while it was predicted"):
        predict_windows(make_task(), opened, job, options, streaming, step=elsewhere)
    assert list(job.labels.parent.iterdir()) == []
