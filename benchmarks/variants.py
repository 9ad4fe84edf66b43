"""Which way of taking many bands, which pyramid, which head? Trains each variant alike and prints one table.

    python benchmarks/variants.py water --seeds 0 1 2
    python benchmarks/variants.py burned --seeds 0 1 2
    python benchmarks/variants.py camvid --minutes 8      # as many steps each as fit the same training time

Runs that are finished are not repeated: their folders lie under --out. Scores are of val, weights of the last step.
TORCHFPN_DATA names the folder of the datasets, TORCHFPN_WEIGHTS a file of MobileNetV2's weights (else: downloaded).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from torchfpn.config.parsing import read_config
from torchfpn.train.datamodule import build, open_dataset
from torchfpn.train.loader import TrainLoader
from torchfpn.train.loop import TrainingStep
from torchfpn.train.optim import Ema, optimizer
from torchfpn.train.run_folder import machine

CONFIGS = Path(__file__).parents[1] / "configs"
WEIGHTS = [f"--model.pretrained={os.environ['TORCHFPN_WEIGHTS']}"] if "TORCHFPN_WEIGHTS" in os.environ else []
BANDS = {
    "repeat": {"band_init": "repeat"},
    "mean": {"band_init": "mean"},
    "named copy": {},
    "fusenet": {"fusion": "fusenet"},
}
DATA = {  # config, class, flags of all variants, filters for "named copy"
    "water": (
        "water.yaml",
        "water",
        ["--max_epochs=12", "--val_every=12"],
        {"coastal": "blue", "nir": "red", "swir1": "red", "swir2": "red"},
    ),
    "burned": (
        "burned-area.yaml",
        "burned",
        [
            "--max_epochs=4",
            "--steps_per_epoch=40",
            "--val_every=4",
            "--data.crop=128",
            '--model.rgb=["TCI_R","TCI_G","TCI_B"]',
        ],
        {"B8": "red", "B12": "red"},
    ),
}
SHORT = ["--data.crop=[192,256]", "--max_epochs=1", "--schedule.warmup=20", "--ema=0.98"]  # camvid in minutes
WORDS = {f"{pyramid} + {head}": (pyramid, head) for pyramid in ("fpn", "panet") for head in ("sum", "concat")}


def trained(name, config, flags, out):
    """Scores of one run; trains it unless its folder has them."""
    scores = out / name / "validation.json"
    if not scores.is_file():
        command = [sys.executable, "-m", "torchfpn.cli.main", "train", "--config", str(CONFIGS / config), *WEIGHTS]
        done = subprocess.run([*command, f"--out={out}", f"--name={name}", *flags], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
    return json.loads(scores.read_text())


def bands(which, seeds, out):
    config, target, flags, copied = DATA[which]
    own = {
        label: [f"--model.{key}={value}" for key, value in (settings or {"band_init": json.dumps(copied)}).items()]
        for label, settings in BANDS.items()
    }
    costs = measured(which, config, {label: [*flags, *more] for label, more in own.items()}, out)
    print(f"| {which}: bands and pretrained weights | s a step | M weights | mean IoU | from | to | seeds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for label, (spent, size) in costs.items():
        scores = []
        for seed in seeds:
            name = f"{which}-{label.replace(' ', '-')}-{seed}"
            found = trained(name, config, [*flags, *own[label], f"--seed={seed}"], out)
            scores.append(found["iou"][found["classes"].index(target)])
        low, high = min(scores), max(scores)
        middle = statistics.mean(scores)
        row = f"{spent:.3f} | {size:.2f} | {middle:.3f} | {low:.3f} | {high:.3f} | {len(scores)}"
        print(f"| {label} | {row} |", flush=True)


class Steps:
    """One training step of a variant, without the loop around it."""

    def __init__(self, config, flags):
        self.config = read_config(["--config", str(CONFIGS / config), *WEIGHTS, *flags]).config
        self.parts = build(self.config, open_dataset(self.config))
        self.task = self.parts.task.train()
        self.ema = Ema(self.task.model, self.config.ema)
        made = optimizer(self.task, self.config.optimizer, self.config.lr)
        self.stepper = TrainingStep(self.task, made, pass_size=self.config.batch_size)

    def step(self, batch):
        images = batch.images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=machine(self.config).precision == "bf16-mixed"):
            self.stepper.step(type(batch)(images, batch.sizes, batch.targets, batch.names), 0)
        self.ema.update()


def measured(which, config, variants, out, rounds=6):
    """{label: (median seconds of a step, millions of weights)}, all variants in turn on the same batches; kept."""
    kept = out / f"{which}-seconds.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    made = {label: Steps(config, flags) for label, flags in variants.items()}
    first = next(iter(made.values()))
    loader = TrainLoader(first.parts.train, step_size=first.config.batch_size, steps=rounds + 2, seed=0, workers=1)
    loader.begin(0)
    times = {label: [] for label in made}
    for batch in loader:
        for label, variant in made.items():
            start = time.perf_counter()
            variant.step(batch)
            times[label].append(time.perf_counter() - start)
    loader.close()
    sizes = {label: sum(p.numel() for p in v.task.model.parameters()) / 1e6 for label, v in made.items()}
    found = {label: (statistics.median(spent[2:]), sizes[label]) for label, spent in times.items()}
    out.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found))
    return found


def words(minutes, seeds, out, only):
    flags = {label: [f"--model.pyramid={p}", f"--model.head={h}", *SHORT] for label, (p, h) in WORDS.items()}
    print("| camvid: pyramid + head | s a step | M weights | steps | val mIoU | seeds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for label, (spent, size) in measured("camvid", "camvid.yaml", flags, out).items():
        if only and label not in only:
            continue
        steps = round(60 * minutes / spent)
        name = f"camvid-{'-'.join(WORDS[label])}"
        own = [*flags[label], f"--steps_per_epoch={steps}", "--val_every=1"]
        scores = [trained(f"{name}-{seed}", "camvid.yaml", [*own, f"--seed={seed}"], out)["miou"] for seed in seeds]
        found = " ".join(f"{score:.4f}" for score in scores)
        print(f"| {label} | {spent:.3f} | {size:.2f} | {steps} | {found} | {len(seeds)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=[*DATA, "camvid"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="camvid: training time of each variant")
    parser.add_argument("--only", nargs="+", choices=WORDS, help="camvid: some of the variants")
    parser.add_argument("--out", type=Path, default=Path("runs/variants"))
    args = parser.parse_args()
    if args.which == "camvid":
        words(args.minutes, args.seeds, args.out, args.only)
    else:
        bands(args.which, args.seeds, args.out)


if __name__ == "__main__":
    main()
