"""Labels of 1080x1920 from logits: `hiresvit.runtime.labels` against resizing every logit, in turn, in one run.

The other side is what the package did until it looked at borders only: some rows at a time, of them one class, in
NumPy. Logits are random (every cell is a border), smooth (sums of waves), or those of a file that is named:

    PYTHONPATH=. python benchmarks/label_map.py [LOGITS.npy ...]

A file holds float32 (C, h, w) over an input of 512x1024. Times are in milliseconds: median, and from the least to the
most; the ratio is of each round's two.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.preprocess import Region
from hiresvit.runtime.labels import axes_of, label_map, label_map_with_confidence

ROUNDS, SIZE, IMGSZ, CLASSES = 9, (1080, 1920), (512, 1024), 19
WHOLE = Region(0, 0, *IMGSZ)
Logits = NDArray[np.float32]


def before(logits: Logits) -> NDArray[np.uint8]:
    """Every logit resized, and the running best."""
    rows, columns = axes_of(logits.shape, SIZE, WHOLE, IMGSZ)
    labels = np.zeros(SIZE, np.uint8)
    each = 2**19 // SIZE[1]
    for band in (slice(start, start + each) for start in range(0, SIZE[0], each)):
        top, bottom, down = rows.of(band)
        best = np.full(labels[band].shape, -np.inf, np.float32)
        for index, plane in enumerate(logits[:, top[0] : bottom[-1] + 1]):
            wide = plane[:, columns.first]
            wide += (plane[:, columns.second] - wide) * columns.part
            full = wide[top - top[0]]
            full += (wide[bottom - top[0]] - full) * down[:, None]
            np.copyto(labels[band], index, where=full > best)
            np.maximum(best, full, out=best)
    return labels


def smooth(height: int, width: int) -> Logits:
    """Waves of a few lengths: borders are lines."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width].astype(np.float32) * (128 / height)
    planes = []
    for _ in range(CLASSES):
        a, b, c, d = random.uniform(-0.2, 0.2, 4)
        planes.append(3 * np.sin(a * x + b * y + 30 * c) + 2 * np.cos(c * x - d * y + 30 * a))
    return np.stack(planes).astype(np.float32)


def told(values: list[float]) -> str:
    """Median, least and most."""
    return f"{np.median(values):7.2f} ({min(values):.2f} to {max(values):.2f})"


def main(paths: list[str]) -> None:
    """Print a row for each of the logits."""
    random = np.random.default_rng(0)
    cases: dict[str, Logits] = {path: np.load(path).astype(np.float32) for path in paths}
    for height, width in ((512, 1024), (128, 256)):
        cases[f"smooth {height}x{width}"] = smooth(height, width)
        cases[f"random {height}x{width}"] = random.standard_normal((CLASSES, height, width), dtype=np.float32)
    sides: dict[str, Callable[[Logits], Any]] = {
        "before": before,
        "now": lambda logits: label_map(logits, SIZE, WHOLE, IMGSZ),
        "one thread": lambda logits: label_map(logits, SIZE, WHOLE, IMGSZ, threads=1),
        "confidence": lambda logits: label_map_with_confidence(logits, SIZE, WHOLE, IMGSZ),
    }
    print(f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, NumPy {np.__version__}")
    print(f"{CLASSES} classes to {SIZE[0]}x{SIZE[1]}, {ROUNDS} rounds, load {os.getloadavg()[0]:.1f}")
    for name, logits in cases.items():
        differing = np.count_nonzero(before(logits) != sides["now"](logits))
        times: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(ROUNDS):
            for side, call in sides.items():
                start = time.perf_counter()
                call(logits)
                times[side].append(1e3 * (time.perf_counter() - start))
        ratios = [old / new for old, new in zip(times["before"], times["now"], strict=True)]
        print(f"\n{name}: {differing} pixels differ; before / now {told(ratios)}")
        for side, values in times.items():
            print(f"  {side:<10} {told(values)} ms")


if __name__ == "__main__":
    main(sys.argv[1:])
