"""Rasters by windows: peak memory against size, and time against the bare model on the same windows.

    python benchmarks/stream.py memory --sizes 4096 16384 65536             # a model of one convolution
    python benchmarks/stream.py memory --model resnet50 --side 512 --sizes 4096 8192
    python benchmarks/stream.py time --size 10000                           # an R18-FPN, file to file with overviews

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
from torchfpn.geo.georef import Geo
from torchfpn.geo.window import plan_blocks
from torchfpn.inference.jobs import Job
from torchfpn.inference.journal import fingerprint
from torchfpn.inference.semantic import PredictOptions, as_input, predict_batch
from torchfpn.inference.windows import TilingOptions, predict_windows
from torchfpn.sources.raster import ReadOptions, open_raster_file

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


def make_task(model):
    """The least model there is ("conv"), or an FPN on a backbone."""
    backbone = "resnet18" if model == "conv" else model
    task = torchfpn.create_task(backbone=backbone, num_classes=4, scaling=torchfpn.Scaling.imagenet()).eval()
    if model == "conv":
        task.model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).eval()
    return task


def child(folder, model, side):
    """Predicts scene.tif of the folder; prints seconds and peak memory."""
    torch.set_num_threads(2)
    task, file = make_task(model), Path(folder, "scene.tif")
    task.save(Path(folder, "model.safetensors"))
    start = time.perf_counter()
    job, streaming = (
        Job(file, Path(folder, "labels.tif"), {}),
        TilingOptions(fingerprint(Path(folder, "model.safetensors")), side, MARGIN),
    )
    predict_windows(task, open_raster_file(file, ReadOptions()), job, PredictOptions(), streaming)
    spent = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": spent, "peak": peak}))


def bare(folder, model, side):
    """Seconds of the model alone on the windows of scene.tif, read beforehand one by one."""
    torch.set_num_threads(2)
    task, scene = make_task(model), open_raster_file(Path(folder, "scene.tif"), ReadOptions())
    spent = 0.0
    for block in plan_blocks(scene.height, scene.width, side=side, margin=MARGIN, multiple=32):
        image = as_input(task, scene.read(block.window), PredictOptions(), file=scene.name)
        start = time.perf_counter()
        predict_batch(task, image[None], "fp32")
        spent += time.perf_counter() - start
    print(json.dumps({"seconds": spent}))


def measured(*words):
    done = subprocess.run([sys.executable, __file__, *map(str, words)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "time", "stream", "bare"])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--model", help="conv, or the backbone of an FPN; default: conv for memory, resnet18 for time")
    parser.add_argument("--side", type=int, default=SIDE, help="of the blocks")
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    model = args.model or ("conv" if args.what == "memory" else "resnet18")
    how = ("--model", model, "--side", args.side)
    if args.what == "stream":
        child(args.folder, model, args.side)
    elif args.what == "bare":
        bare(args.folder, model, args.side)
    elif args.what == "memory":
        for size in args.sizes:
            with tempfile.TemporaryDirectory() as folder:
                make(Path(folder, "scene.tif"), size)
                found = measured("stream", folder, *how)
                print(f"{size:>6} x {size:<6} peak {found['peak']:.0f} MiB, {found['seconds']:.1f} s", flush=True)
    else:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder, "scene.tif"), args.size)
            for _ in range(args.rounds):
                alone = measured("bare", folder, *how)["seconds"]
                whole = measured("stream", folder, *how)["seconds"]
                print(f"bare model {alone:.1f} s, file to file {whole:.1f} s, ratio {whole / alone:.3f}", flush=True)


if __name__ == "__main__":
    main()
