"""Rasters by windows: peak memory against size, and time against the bare model on the same windows.

    python benchmarks/stream.py memory --sizes 2048 4096 16384     # a model of one convolution
    python benchmarks/stream.py time --size 4096                    # an R18-FPN, file to file with overviews

Each measurement is a process of its own; peaks are its largest resident size.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rasterio
import torch
from torch import nn

import torchfpn
from torchfpn.files.geo import Geo
from torchfpn.files.images import read_image
from torchfpn.raster.blocks import plan_blocks
from torchfpn.raster.predict import Options, answer, read_picture
from torchfpn.raster.sources import Job
from torchfpn.raster.stream import Streaming, predict_stream

SIDE, MARGIN = 1024, 64
UTM = Geo(rasterio.crs.CRS.from_epsg(32645).to_wkt(), (0.5, 0.0, 5e5, 0.0, -0.5, 3e6))


def make(path, size):
    """A raster of valid pixels, written row by row of blocks."""
    profile = {"driver": "GTiff", "count": 3, "height": size, "width": size, "dtype": "uint8", "compress": "deflate"}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "zlevel": 1, "bigtiff": "IF_SAFER"}
    block = torch.randint(1, 255, (3, 64, 64), dtype=torch.uint8).repeat(1, 8, 8).numpy()
    with rasterio.open(path, "w", **profile, transform=rasterio.Affine(*UTM.transform), crs=UTM.crs) as sink:
        for row in range(0, size, 512):
            for column in range(0, size, 512):
                rows, columns = min(512, size - row), min(512, size - column)
                sink.write(block[:, :rows, :columns], window=((row, row + rows), (column, column + columns)))


def make_task(kind):
    """The least model there is, or an FPN on ResNet-18."""
    task = torchfpn.create_task(backbone="resnet18", num_classes=4, scaling=torchfpn.Scaling.imagenet()).eval()
    if kind == "conv":
        task.model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).eval()
    return task


def child(kind, folder):
    """Predicts scene.tif of the folder; prints seconds, CPU seconds and peak memory."""
    torch.set_num_threads(2)
    task, scene = make_task(kind), Path(folder, "scene.tif")
    task.save(Path(folder, "model.safetensors"))
    start = time.perf_counter()
    job = Job(scene, Path(folder, "labels.tif"), {})
    predict_stream(task, job, Options(), Streaming(Path(folder, "model.safetensors"), side=SIDE, margin=MARGIN))
    spent = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": spent, "peak": peak}))


def bare(folder):
    """Seconds of the model alone on the windows of scene.tif, read beforehand one by one."""
    torch.set_num_threads(2)
    task, scene = make_task("fpn"), Path(folder, "scene.tif")
    with rasterio.open(scene) as source:
        blocks = plan_blocks(source.height, source.width, side=SIDE, margin=MARGIN, multiple=32)
    spent = 0.0
    for block in blocks:
        image, _ = read_picture(task, Job(scene, scene, {}), Options(), window=block.window)
        start = time.perf_counter()
        answer(task, image, "fp32")
        spent += time.perf_counter() - start
    print(json.dumps({"seconds": spent}))


def measured(*words):
    done = subprocess.run([sys.executable, __file__, *map(str, words)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "time", "conv", "fpn", "bare"])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 4096, 16384])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.what in ("conv", "fpn"):
        child(args.what, args.folder)
    elif args.what == "bare":
        bare(args.folder)
    elif args.what == "memory":
        for size in args.sizes:
            with tempfile.TemporaryDirectory() as folder:
                make(Path(folder, "scene.tif"), size)
                found = measured("conv", folder)
                print(f"{size:>6} x {size:<6} peak {found['peak']:.0f} MiB, {found['seconds']:.1f} s", flush=True)
    else:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder, "scene.tif"), args.size)
            assert read_image(Path(folder, "scene.tif"), window=(0, 0, 8, 8)).size == (8, 8)
            for _ in range(args.rounds):
                alone, whole = measured("bare", folder)["seconds"], measured("fpn", folder)["seconds"]
                print(f"bare model {alone:.1f} s, file to file {whole:.1f} s, ratio {whole / alone:.3f}", flush=True)


if __name__ == "__main__":
    main()
