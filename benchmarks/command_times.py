"""Whole commands of this tree beside those of another commit, in turn in one run, and where a run's time goes.

    python benchmarks/command_times.py [--base COMMIT] [--rounds 7]

Each tree makes its own bundles first (two minutes). A ratio is this tree's time over the other's, round by round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHORT = ["--fp16", "--no-plan", "--no-latency", "--images", "1"]
NANO: list[str | Path] = ["hrvit_nano", "--weights", ROOT / "examples/hrvit_nano.safetensors", "--imgsz", "384x672"]
COMMANDS: dict[str, list[str | Path]] = {
    "--help": ["--help"],
    "run, nano": ["run", "nano", ROOT / "examples/street.jpg", "-o", "overlay.png"],
    "inspect, nano": ["inspect", "nano"],
    "inspect, hrvit_b1": ["inspect", "b1"],
    "check --no-build, hrvit_b1's FP16 graph": ["check", "b1/fp16.onnx", "--no-build"],
}


def timed(tree: Path, folder: Path, words: list[str | Path]) -> float:
    """Seconds of a command with the package of ``tree``, started in ``folder``."""
    command = [sys.executable, "-m", "hiresvit", *map(str, words)]
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="HEAD", help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hiresvit-") as temporary:
        trees = {"base": Path(temporary, "tree"), "this": ROOT}
        archive = subprocess.run(["git", "archive", asked.base, "hiresvit"], cwd=ROOT, capture_output=True, check=True)
        trees["base"].mkdir()
        subprocess.run(["tar", "-x"], cwd=trees["base"], input=archive.stdout, check=True)
        folders = {side: Path(temporary, side) for side in trees}
        for side, tree in trees.items():
            folders[side].mkdir()
            timed(tree, folders[side], ["export", *NANO, *SHORT, "-o", "nano"])
            timed(tree, folders[side], ["export", "hrvit_b1", *SHORT, "-o", "b1"])
        print(f"seconds, median of {asked.rounds} rounds; base is {asked.base}")
        for name, words in COMMANDS.items():
            times: dict[str, list[float]] = {side: [] for side in trees}
            for _ in range(asked.rounds):
                for side, tree in trees.items():
                    times[side].append(timed(tree, folders[side], words))
            ratios = sorted(this / base for base, this in zip(times["base"], times["this"], strict=True))
            base, this = (statistics.median(times[side]) for side in trees)
            spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            print(f"{name:42} {base:6.2f} -> {this:6.2f}  ratio {spread}", flush=True)


if __name__ == "__main__":
    main()
