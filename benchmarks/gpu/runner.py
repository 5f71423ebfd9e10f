"""The golden pair of a slim bundle through the Python runner on a real GPU: runner.py BUNDLE LIBRARY."""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

import numpy as np

from hiresvit.device.cuda.open import open_cuda
from hiresvit.device.tensorrt_api import load
from hiresvit.runtime.tensorrt_runner import TensorRTRunner


def main(bundle: Path, library: str) -> None:
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)  # which its module finds by name
    golden = np.load(bundle / "golden.npz")
    feeds = {name.removeprefix("inputs/"): golden[name] for name in golden if name.startswith("inputs/")}
    for cuda_graph in (False, True):
        with TensorRTRunner._open(
            bundle / "fp16.plan", load("tensorrt_rtx"), open_cuda(), cuda_graph=cuda_graph
        ) as runner:
            typed = {spec.name: feeds[spec.name].astype(spec.dtype) for spec in runner.inputs}
            found = runner(typed)
            start = time.perf_counter()
            for _ in range(200):
                runner(typed)
            took = (time.perf_counter() - start) * 5
            print(f"{runner.about}, graph {cuda_graph}: {took:.3f} ms a call, {runner.last_times()}")
            for name, value in found.items():
                want = golden[f"outputs/{name}"]
                apart = np.abs(value.astype(np.float64) - want).max()
                print(f"  {name} {value.dtype} {value.shape}: {np.mean(value == want):.6f} equal, {apart:g} apart")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
