"""What is done to a picture before the network, beside what another commit did, in turn in one run.

    python benchmarks/resample.py [--base COMMIT] [--rounds 15]

Milliseconds: median of the rounds and the least; the ratio is this tree's time over the other's, round by round. Where
the other commit gives other numbers nothing is timed. Memory is warm, as for the second frame of a camera.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hiresvit.data import bands, pixels, preprocess, resample
from hiresvit.spec import PreprocessSpec

ROOT = Path(__file__).parents[1]
OPENCV = PreprocessSpec("keep", filter="opencv", rounding="round")


def at_commit(base: str, name: str) -> Any:
    """A module of ``hiresvit/data`` as it was; what it imports is this tree's."""
    command = ["git", "show", f"{base}:hiresvit/data/{name}.py"]
    source = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    module = types.ModuleType(f"base_{name}")
    exec(compile(source, f"{base}/{name}.py", "exec"), module.__dict__)
    return module


def sides(base: str) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """What is timed: (before, now), each without arguments."""
    rng = np.random.default_rng(0)
    before = {name: at_commit(base, name) for name in ("resample", "pixels", "preprocess")}

    def picture(height: int, width: int) -> Any:
        return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)

    found: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {}
    for source, target in (
        ((1080, 1920), (512, 910)),
        ((1080, 1920), (512, 1024)),
        ((2160, 3840), (512, 1024)),
        ((480, 640), (1024, 1365)),
    ):
        image = picture(*source)
        name = f"resample {source[0]}x{source[1]} to {target[0]}x{target[1]}"
        found[name] = (
            partial(before["resample"].resample, image, target, OPENCV),
            partial(resample.resample, image, target, OPENCV),
        )
    small = picture(512, 1024)
    found["normalise 512x1024"] = (
        lambda: np.ascontiguousarray(before["preprocess"].normalise(small, OPENCV).transpose(2, 0, 1)),
        lambda: np.ascontiguousarray(preprocess.normalise(small, OPENCV).transpose(2, 0, 1)),
    )
    luma, chroma = picture(1080, 1920)[..., 0].copy(), picture(540, 960)[..., :2].copy()
    found["NV12 1080x1920 to RGB"] = (
        lambda: before["pixels"].from_nv12(luma, chroma, "bt709"),
        lambda: pixels.from_nv12(luma, chroma, "bt709"),
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="2a78a1c", help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    print(f"ms, median (least) of {asked.rounds} rounds; {bands.thread_count()} threads; before is {asked.base}")
    for name, pair in sides(asked.base).items():
        if not np.array_equal(pair[0](), pair[1]()):
            print(f"{name:34} other numbers")
            continue
        times: list[list[float]] = [[], []]
        for _ in range(asked.rounds):
            for taken, run in zip(times, pair, strict=True):
                began = time.perf_counter()
                run()
                taken.append((time.perf_counter() - began) * 1000)
        ratios = sorted(now / before for before, now in zip(*times, strict=True))
        shown = [f"{statistics.median(taken):6.1f} ({min(taken):5.1f})" for taken in times]
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}..{ratios[-1]:.2f})"
        print(f"{name:34} before {shown[0]}  now {shown[1]}  ratio {spread}")


if __name__ == "__main__":
    main()
