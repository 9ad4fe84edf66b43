"""Damages last.ckpt of a training in many ways and resumes it: the checkpoint before it is taken, and it is said.

    python tests/fuzz/damaged_checkpoints.py [--each 300]

Five kinds of damage: one bit flipped, a page of zeros, a cut, bytes replaced at the start, two pages exchanged. Exit
code 1 if a damaged file is taken, or a damage ends in anything but a fall back to previous.ckpt.
"""

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PAGE = 4096


def flip(rng: random.Random, data: bytearray) -> bytearray:
    """One bit."""
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def blank(rng: random.Random, data: bytearray) -> bytearray:
    """A page of zeros, as a file system leaves it after a power cut."""
    start = rng.randrange(0, len(data), PAGE)
    data[start : start + PAGE] = bytes(len(data[start : start + PAGE]))
    return data


def cut(rng: random.Random, data: bytearray) -> bytearray:
    """The end is missing."""
    return data[: rng.randrange(len(data))]


def head(rng: random.Random, data: bytearray) -> bytearray:
    """The first bytes are others."""
    size = rng.randrange(1, 64)
    data[:size] = rng.randbytes(size)
    return data


def exchange(rng: random.Random, data: bytearray) -> bytearray:
    """Two pages in each other's place."""
    one, other = (PAGE * rng.randrange(len(data) // PAGE) for _ in range(2))
    data[one : one + PAGE], data[other : other + PAGE] = data[other : other + PAGE], data[one : one + PAGE]
    return data


KINDS: tuple[Callable[[random.Random, bytearray], bytearray], ...] = (flip, blank, cut, head, exchange)


def main() -> int:
    """Trains for two epochs, then damages; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=300, help="damages of each kind")
    args = parser.parse_args()
    from fuzz.originals import TRAINING
    from made_data import make_dataset
    from torchfpn.cli.main import main as fpn

    with tempfile.TemporaryDirectory(prefix="damaged-") as name:
        os.chdir(name)
        make_dataset(Path("pixels"), train=2, val=1)
        Path("train.yaml").write_text(TRAINING)
        code = fpn(["train", "--config", "train.yaml", "--out", "out", "--name", "run", "--max_epochs", "2", "--quiet"])
        assert code == 0
        return 1 if sum(damage(kind, args.each) for kind in KINDS) else 0


def damage(kind: Callable[[random.Random, bytearray], bytearray], count: int) -> int:
    """How many damages of a kind did not end in the checkpoint before."""
    from torchfpn.errors import FPNError
    from torchfpn.train.checkpoints import read_newest

    folder, rng, ends = Path("out/run/checkpoints"), random.Random(kind.__name__), {}
    whole = (folder / "last.ckpt").read_bytes()
    for _ in range(count):
        data = bytes(kind(rng, bytearray(whole)))
        if data == whole:
            end = "unchanged"
        else:
            (folder / "last.ckpt").unlink()
            (folder / "last.ckpt").write_bytes(data)
            try:
                file, _, complaints = read_newest(folder)
                end = "fell back" if file.name == "previous.ckpt" and complaints else "taken"
            except FPNError as error:
                end = f"refused: {error}"[:100]
            except Exception as error:  # what would be a traceback
                end = f"traceback: {type(error).__name__}"
        ends[end] = ends.get(end, 0) + 1
    (folder / "last.ckpt").write_bytes(whole)
    print(f"{kind.__name__}: " + ", ".join(f"{end}: {n}" for end, n in sorted(ends.items())), flush=True)
    return sum(n for end, n in ends.items() if end not in ("fell back", "unchanged"))


if __name__ == "__main__":
    sys.exit(main())
