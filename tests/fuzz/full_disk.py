"""Fills a small disk while every verb writes to it: no traceback, no half file, and a training that can be resumed.

    python tests/fuzz/full_disk.py [--sizes 40] [--verb predict]

Each verb first runs on a disk with room, then on disks of sizes spread between nothing and what it needed (pages of
4 KiB, so fewer sizes where less is written), and on disks that run out of inodes. It must either end with exit code 0
and the same files, or say in one line what could not be written and leave only whole files behind. A training asks for
room before it starts, so its disk shrinks once it has made its folder; it goes on or ends in one line, and resumed on a
larger disk it ends with the weights of the undisturbed one. Mounts a tmpfs, so it needs root. Exit code 1 if a run
breaks these rules.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from fuzz.run import FOREIGN, PARTIAL, answer, preload
from made_data import write_png
from made_maps import box, write_geojson, write_map

TRAIN = ["train", "--config", "train.yaml", "--out", "disk/runs", "--name", "run", "--max_epochs", "2"]
PREDICT = ["predict", "models/pixels.safetensors"]
COMPARE = ["compare", "maps/scene.tif", "--truth", "maps/truth.tif", "--prediction", "maps/predicted.tif"]
COMMANDS = {
    "train": [TRAIN],
    "predict": [
        [*PREDICT, "wide/images", "--out", "disk/o", "--overlay", "--polygons", "pixels"],
        [
            *PREDICT,
            "maps/scene.tif",
            "--out",
            "disk/o",
            "--tile-size",
            "64",
            "--probabilities",
            "float32",
            "--polygons",
            "gpkg",
        ],
    ],
    "objects": [["predict", "models/objects.safetensors", "wide/images", "--out", "disk/o", "--overlay"]],
    "convert": [["convert", "models/foreign.pth", "disk/model.safetensors"]],
    "evaluate": [
        ["evaluate", "models/trained.safetensors", "pixels", "--out", "disk/o", "--json", "disk/scores.json"],
        ["evaluate", "wide/predicted.tif", "wide/truth.tif", "--json", "disk/scores.json"],
    ],
    "rasterize": [["rasterize", "wide/boxes.geojson", "wide/scene.tif", "--out", "disk/o"]],
    "polygons": [["polygons", "wide/blobs.tif", f"disk/out.{s}"] for s in ("geojson", "gpkg", "fgb")],
    "compare": [[*COMPARE, "--out", "disk/o"]],
    "check": [["check", "pixels", "--sheet", "disk/sheet.png"]],
}
ROOMY = 256 * 2**20  # bytes: more than any verb needs
VARYING = {
    ".fpn-finished.jsonl",
    "env.json",
    "timing.csv",
    "report.html",
    "index.html",
    "config.yaml",
}  # hold times and paths


def main() -> int:
    """Runs every verb on disks of many sizes; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, default=40, help="disks for each command")
    parser.add_argument("--verb", choices=COMMANDS, help="this one alone")
    args = parser.parse_args()
    from fuzz.originals import make_originals

    with tempfile.TemporaryDirectory(prefix="full-disk-") as name:
        folder = make_originals(Path(name) / "files")
        make_wide(folder / "wide")
        os.chdir(folder)
        Path("disk").mkdir()
        preload()
        failures = 0
        for verb, commands in COMMANDS.items():
            if args.verb in (None, verb):
                failures += sum(fill_disk(command, args.sizes) for command in commands)
    print(f"{failures} failures")
    return 1 if failures else 0


def make_wide(folder: Path) -> None:
    """Maps of many values and small polygons, whose masks and scores fill more than a few pages of a disk."""
    rng, size = np.random.default_rng(0), (1800, 2000)
    write_map(folder / "scene.tif", size=size)
    for name in ("predicted.tif", "truth.tif"):
        write_map(folder / name, rng.integers(0, 200, (1, 300, 300)).astype("uint8"))
    write_map(folder / "blobs.tif", rng.integers(0, 3, (1, 40, 50)).astype("uint8"))
    (folder / "images").mkdir()
    for number in range(2):
        write_png(folder / "images" / f"a{number}.png", rng.integers(0, 255, (160, 200, 3)).astype("uint8"))
    places = zip(*(rng.uniform(0, side - 10, 16000) for side in reversed(size)), strict=True)
    write_geojson(folder / "boxes.geojson", [box(*place, rng.uniform(3, 9)) for place in places])


def fill_disk(words: list[str], count: int) -> int:
    """One command on `count` disks of too few bytes and up to `count` of too few inodes; how many runs broke a rule."""
    with disk(f"size={ROOMY}"):
        code, printed = run(words)
        assert code == 0, printed
        whole, needed, files = contents(), used(), len(list(Path("disk").rglob("*")))
    pages = {max(1, round(needed * (i + 1) / (count + 1) / 4096)) for i in range(count)}
    sizes = [f"size={4096 * number}" for number in sorted(pages)]
    inodes = [f"nr_inodes={i}" for i in range(2, files + 2)]
    failures = sum(
        _filled(words, kind, limits, whole) for kind, limits in (("sizes", sizes), ("inodes", inodes[:count]))
    )
    print(f"{' '.join(words[:3])} ...: {needed} bytes, {files} files: {failures} failures", flush=True)
    return failures


def _filled(words: list[str], kind: str, limits: list[str], whole: dict[str, bytes]) -> int:
    """One command on a disk for each of the limits; how many runs broke a rule."""
    failures, codes = 0, {}
    for limit in limits:
        shrinks = words[0] == "train" and kind == "sizes"
        with disk(f"size={ROOMY}" if shrinks else limit):
            code, printed = run(words, shrunk=limit if shrinks else "")
            faults = list(broken_rules(code, printed, whole))
            if not faults and words[0] == "train" and code != 0:
                faults = _faults_resumed(words, whole)
        codes[code] = codes.get(code, 0) + 1
        failures += bool(faults)
        for fault in faults:
            print(f"  {limit}: exit code {code}: {fault}\n" + printed[-1200:], flush=True)
    ends = ", ".join(f"exit code {code}: {n}" for code, n in sorted(codes.items()))
    print(f"  {len(limits)} {kind}: {ends}; {failures} failures", flush=True)
    return failures


def _faults_resumed(words: list[str], whole: dict[str, bytes]) -> list[str]:
    """What is wrong with a training that is resumed on a larger disk."""
    remount(f"size={ROOMY},nr_inodes=100000")
    again, printed = run([*words, "--resume"])
    now = contents()
    differing = [n for n in whole if n.endswith((".safetensors", "metrics.csv")) and now.get(n) != whole[n]]
    if again == 0 and not differing:
        return []
    return [f"resumed on a larger disk: exit code {again}, differing {differing}: {printed[-600:]}"]


def broken_rules(code: int, printed: str, whole: dict[str, bytes]) -> list[str]:
    """What is wrong with how a run on a full disk ended."""
    faults = []
    if "Traceback (most recent call last)" in printed or code not in (0, 1, 2):
        faults.append("traceback" if "Traceback" in printed else f"exit code {code}")
    faults += [f"a library's words: {line[:200]}" for line in printed.splitlines() if FOREIGN.search(line)][:1]
    if code and "disk" not in printed:
        faults.append("the path that could not be written is not named")
    if code and "copy it again" in printed:
        faults.append("a source is blamed for the disk")
    faults += [flaw for name, data in contents().items() if (flaw := flaw_of(name, data, code, whole))]
    if code == 0 and (missing := [n for n in whole if n not in contents() and "tb/" not in n and ".fpn-" not in n]):
        faults.append(f"exit code 0 without {missing[:3]}")
    return faults


def flaw_of(name: str, data: bytes, code: int, whole: dict[str, bytes]) -> str:
    """What is wrong with a file that is left on the disk; "" if nothing."""
    if PARTIAL.search(Path(name).name):
        return f"left behind: {name}"
    if code == 0 and name not in whole:
        return f"another file: {name}"
    if name.endswith((".csv", ".json")) and data and not data.endswith(b"\n") and name in whole:
        return f"a file that is not whole: {name}" if whole[name].endswith(b"\n") else ""
    varies = Path(name).name in VARYING or "tb/" in name or name.endswith((".ckpt", ".csv", ".json"))
    if name in whole and data != whole[name] and not (varies or _of_another_epoch(name, code)):
        return f"a file that is not whole: {name}, {len(data)} of {len(whole[name])} bytes"
    return ""


def _of_another_epoch(name: str, code: int) -> bool:
    """Whether this is the whole model file of a training that could not save its best epoch, which it has said."""
    if code == 0 or not name.endswith("model.safetensors"):
        return False
    from torchfpn import load
    from torchfpn.errors import FPNError

    try:
        load(name)
    except FPNError:
        return False
    return True


def contents() -> dict[str, bytes]:
    """Every file of the disk."""
    return {str(path): path.read_bytes() for path in Path("disk").rglob("*") if path.is_file()}


def used() -> int:
    """Bytes used on the disk, the temporary ones gone by then not counted."""
    state = os.statvfs("disk")
    return (state.f_blocks - state.f_bfree) * state.f_frsize


def run(words: list[str], seconds: float = 120.0, *, shrunk: str = "") -> tuple[int, str]:
    """Exit code and what was printed. shrunk: the disk is remounted so once a training has made its folder."""
    log = Path("log")
    log.unlink(missing_ok=True)
    process = os.fork()
    if not process:
        code = 70
        try:
            os.setsid()
            code = answer(words, Path.cwd(), log, seconds)
        finally:
            os._exit(code if code >= 0 else 71)
    until = time.monotonic() + seconds
    while shrunk and time.monotonic() < until:
        if Path("disk/runs/run/config.yaml").exists():
            with contextlib.suppress(subprocess.CalledProcessError):  # more is used by now: a moment later there is not
                remount(shrunk)
                break
        time.sleep(0.002)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), log.read_bytes().decode(errors="replace")


@contextlib.contextmanager
def disk(options: str):
    """A disk at "disk", mounted with these options."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", "disk"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", "disk"], check=True)


def remount(options: str) -> None:
    """The same disk with other options."""
    subprocess.run(["mount", "-o", f"remount,{options}", "disk"], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
