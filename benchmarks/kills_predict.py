"""Does a prediction that is killed and resumed end like one that nobody touched? SIGKILLs, compared byte by byte.

    python benchmarks/kills_predict.py --kills 25 [--size 2048] [--seed 0]

A raster is predicted by windows, undisturbed: labels, probabilities and polygons, as a GeoPackage with windows cropped
and as GeoJSON with windows blended, in turn. Then the same is killed at random moments, resumed with the same command
each time, and where it comes to its end, compared: every file must be equal to the last byte, and nothing else must be
left. Prints a line per kill; exit code 1 if anything differed.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

PRELOAD = ["torchfpn.inference.windows", "torchfpn.vector.features", "torchfpn.tasks.storage", "timm", "pyogrio"]
FLAGS = ["--tile-size", "256", "--margin", "32", "--probabilities", "uint8"]
FINISHED = ".fpn-finished.jsonl"  # grows with each start; --resume reads it
EACH = 5  # kills of one prediction, which is then left in peace
KINDS = [["--polygons", "gpkg"], ["--polygons", "geojson", "--blend"]]


def main():
    """Reads the arguments; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25, help="how many SIGKILLs")
    parser.add_argument("--size", type=int, default=2048, help="of the raster, in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["OMP_NUM_THREADS"] = "1"
        make(args.size)
        return kill(args.kills, random.Random(args.seed))


def kill(kills, moments):
    """Runs the undisturbed predictions and the disturbed ones; the exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    start(context, "warm", 0).join()  # the preloading itself
    durations = []
    for kind in range(len(KINDS)):
        begun = time.monotonic()
        process = start(context, f"undisturbed{kind}", kind)
        process.join()
        assert process.exitcode == 0, "the undisturbed prediction failed"
        durations.append(time.monotonic() - begun)
        print(f"undisturbed {' '.join(KINDS[kind])}: {durations[-1]:.1f} s, {', '.join(listed(f'undisturbed{kind}'))}")
    done = run = failures = 0
    while done < kills:
        kind, name, before = run % len(KINDS), f"run{run}", done
        while True:
            process = start(context, name, kind)
            disturbed = done < min(kills, before + EACH)
            wait = moments.uniform(0.02, 0.8) * durations[kind] if disturbed else None
            process.join(wait)
            if not process.is_alive():
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            done += 1
            blocks = len(list(Path(name).glob(".fpn-*/*.block")))
            mixed = len(list(Path(name).glob(".fpn-*/blended/*.block")))
            what = f"{blocks} + {mixed} blocks; {', '.join(listed(name)) or 'no file yet'}"
            print(f"kill {done}: {name} after {wait:.2f} s; {what}", flush=True)
        assert process.exitcode == 0, f"{name} failed with {process.exitcode}"
        differing = compare(Path(f"undisturbed{kind}"), Path(name))
        failures += bool(differing)
        print(f"{name}: " + ("; ".join(differing) or "equal to the last byte"), flush=True)
        run += 1
    return 1 if failures else 0


def start(context, name, kind):
    """A prediction into that folder, in a process of its own."""
    process = context.Process(target=predict, args=(name, kind))
    process.start()
    return process


def predict(name, kind):
    """In the process that is killed: the command, with its output in a file."""
    from torchfpn.cli.main import main

    with Path(f"{name}.log").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        sys.exit(main(["predict", "model.safetensors", "scene.tif", "--out", name, "--resume", *FLAGS, *KINDS[kind]]))


def listed(folder):
    """Names of the finished files."""
    return sorted(path.name for path in Path(folder).glob("*") if not path.name.startswith("."))


def compare(one, other):
    """What differs between two folders."""
    names = sorted({path.name for folder in (one, other) for path in folder.iterdir()} - {FINISHED})
    whole = [name for name in names if (one / name).is_file() and (other / name).is_file()]
    return [name for name in names if name not in whole or (one / name).read_bytes() != (other / name).read_bytes()]


def make(size):
    """A raster of smooth bands and a model with random weights."""
    import numpy as np
    import rasterio
    import torch

    import torchfpn
    from torchfpn.geo.georef import Geo
    from torchfpn.io.geotiff import write_bands

    torch.manual_seed(0)
    coarse = torch.rand(1, 3, size // 16 + 2, size // 16 + 2)
    array = 255 * torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")[0].numpy()
    geo = Geo(rasterio.crs.CRS.from_epsg(32645).to_wkt(), (0.5, 0.0, 5e5, 0.0, -0.5, 3e6))
    write_bands("scene.tif", array.astype(np.uint8), names=("red", "green", "blue"), geo=geo)
    scaling = torchfpn.Scaling((120.0,) * 3, (60.0,) * 3)
    task = torchfpn.create_task(
        backbone="test_resnet", num_classes=4, channels=16, head_channels=16, scaling=scaling
    ).train()
    for _ in range(2):  # statistics of batch norm
        task.model(torch.randn(2, 3, 64, 64))
    torch.nn.init.normal_(task.model.head.classify.weight)
    task.eval().save("model.safetensors")


if __name__ == "__main__":
    sys.exit(main())
