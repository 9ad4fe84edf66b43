"""Polygons of a large label map: traced in blocks and joined, beside rasterio.features.shapes on the whole map.

    python benchmarks/polygons.py [--size 10000] [--block 1024 2048] [--geo] [--simplify 1.0] [--speckled]

Each line is a process of its own: seconds, seconds of its processor, peak memory above that after the imports. The map
is smooth noise in five classes, the same every time; one of them gets no polygons. Its labels come from a file, block
by block. "compared" holds every polygon of both ways beside each other, as sets of (class, normalised polygon).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np
import rasterio.features
import shapely
from PIL import Image
from rasterio.crs import CRS

from torchfpn.geo.georef import Geo
from torchfpn.vector.features import trace, trace_map
from torchfpn.vector.polygonize import trace_blocks

GRAIN, ROUGHNESS = 125, 0.021  # pixels between the knots of the noise, and how much a finer one adds
CORNER = 2000  # pixels of the part whose borders are compared
LEVELS, CLASSES = (-0.5, -0.15, 0.15, 0.5), 5
NAMES = {value: f"class {value}" for value in range(1, CLASSES)}
UTM = Geo(CRS.from_epsg(32633).to_wkt(), (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_800_000.0))


def main():
    """Reads the arguments, starts a process for each line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--block", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--geo", action="store_true", help="also features in longitude and latitude")
    parser.add_argument("--simplify", type=float, default=0.0, help="also simplified by so many pixels")
    parser.add_argument("--speckled", action="store_true", help="with single pixels of other classes all over")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "labels"
        show("making the map", make, file, args.size, int(args.speckled))
        for block in args.block:
            show(f"blocks of {block}", blocks, file, args.size, block)
            show("  with scores", scored, file, args.size, block)
            if args.geo:
                show("  all the way", features, file, args.size, block)
            if args.simplify:
                show(f"  simplified by {args.simplify:g}", simplified, file, args.size, block, args.simplify)
                show(f"  corner of {CORNER}", coverage, file, args.size, args.simplify)
        show("rasterio, whole", rasterio_whole, file, args.size)
        for block in args.block:
            show("compared", equal, file, args.size, block)


def show(title, job, *arguments):
    """Runs a function of this file in a process of its own and prints what it took and what it says."""
    words = [sys.executable, __file__, job.__name__, *map(str, arguments)]
    answer = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
    seconds, cpu, mib, says = answer
    print(f"{title:22}{seconds:7.2f} s {cpu:7.2f} s CPU {mib:6.0f} MiB   {says}", flush=True)


def measured(job, *arguments):
    """[seconds, of the processor, peak MiB above the start, what the job says] as JSON."""
    before = peak()
    begun, used = time.perf_counter(), time.process_time()
    says = job(*arguments)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    print(json.dumps([seconds, cpu, peak() - before, says]))


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make(file, size, speckled):
    """Labels [size, size] uint8: level sets of noise on two scales."""
    numbers = np.random.default_rng(0)
    knots = numbers.standard_normal((size // GRAIN + 3, size // GRAIN + 3)).astype(np.float32)
    field = np.asarray(Image.fromarray(knots).resize((size, size), Image.Resampling.BICUBIC)).copy()
    fine = numbers.standard_normal((size // 3 + 1, size // 3 + 1)).astype(np.float32) * ROUGHNESS
    field += np.asarray(Image.fromarray(fine).resize((size, size), Image.Resampling.BILINEAR))
    labels = np.digitize(field, LEVELS).astype(np.uint8)
    if speckled:
        spots = numbers.integers(0, size, (2, size * size // 250))
        labels[spots[0], spots[1]] = numbers.integers(0, CLASSES, spots.shape[1])
    labels.tofile(file)
    return f"{size} x {size} pixels"


def planned(file, size, block):
    """The plan, and how a block of it is read."""
    starts = range(0, size, block)
    plan = [(row, column, min(block, size - row), min(block, size - column)) for row in starts for column in starts]

    def read(number):
        row, column, rows, columns = plan[number]
        labels = np.empty((rows, columns), np.uint8)
        with file.open("rb", buffering=0) as source:
            for i in range(rows):
                source.seek((row + i) * size + column)
                source.readinto(labels[i])
        return labels

    return plan, read


def blocks(file, size, block):
    """Traced and joined; the polygons are counted and let go."""
    count = vertices = 0
    for _, polygons, _ in trace_blocks(*planned(file, size, block), list(NAMES)):
        count += len(polygons)
        vertices += int(shapely.get_num_coordinates(polygons).sum())
    return f"{count} polygons, {vertices} vertices"


def scored(file, size, block):
    """Traced and joined, with the mean score of every area; the labels serve as scores, read a second time."""
    plan, read = planned(file, size, block)
    count, total = 0, 0.0
    for _, polygons, means in trace_blocks(plan, read, list(NAMES), scores=read):
        count, total = count + len(polygons), total + float(means.sum())
    return f"{count} polygons, mean score {total / count:.6f}"


def features(file, size, block):
    """All the way to features in longitude and latitude."""
    count = sum(1 for _ in trace_map(*planned(file, size, block), UTM, NAMES))
    return f"{count} features in longitude and latitude"


def simplified(file, size, block, simplify):
    """Traced, joined, then simplified all together."""
    count = vertices = 0
    for feature in trace_map(*planned(file, size, block), None, NAMES, simplify=simplify, coordinates="pixels"):
        count += 1
        vertices += shapely.get_num_coordinates(feature.polygon)
    return f"{count} polygons, {vertices} vertices"


def coverage(file, size, simplify):
    """Whether neighbours have the same borders, before and after; on a corner of the map, it takes long."""
    labels = np.fromfile(file, np.uint8).reshape(size, size)[:CORNER, :CORNER]
    plan = [(0, 0, *labels.shape)]
    found = [polygons for _, polygons, _ in trace_blocks(plan, lambda _: labels, list(NAMES), nodes=True)]
    exact = np.concatenate(found)
    simple = [feature.polygon for feature in trace(labels, None, NAMES, simplify=simplify, coordinates="pixels")]
    return f"valid coverage before: {shapely.coverage_is_valid(exact)}, after: {shapely.coverage_is_valid(simple)}"


def rasterio_whole(file, size):
    """The whole map in memory, shapes to polygons as one would write it."""
    polygons = [polygon for _, polygon in whole(file, size)]
    return f"{len(polygons)} polygons, {int(shapely.get_num_coordinates(polygons).sum())} vertices"


def whole(file, size):
    labels = np.fromfile(file, np.uint8).reshape(size, size)
    for shape, value in rasterio.features.shapes(labels, mask=labels > 0, connectivity=4):
        yield int(value), shapely.geometry.shape(shape)


def equal(file, size, block):
    """Compares every polygon of the blocks with those of the whole map."""
    expected = {key(value, polygon) for value, polygon in whole(file, size)}
    found = trace_blocks(*planned(file, size, block), list(NAMES))
    keys = [
        key(value, polygon) for values, polygons, _ in found for value, polygon in zip(values, polygons, strict=True)
    ]
    same = len(keys) == len(expected) and set(keys) == expected
    return f"{'equal' if same else 'NOT EQUAL'} to rasterio's on the whole map, block {block}"


def key(value, polygon):
    return blake2b(polygon.normalize().wkb + bytes([value]), digest_size=16).digest()


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        job, file, *numbers = sys.argv[1:]
        measured(globals()[job], Path(file), *(json.loads(number) for number in numbers))
    else:
        main()
