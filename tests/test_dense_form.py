"""What the `dense` row of `benchmarks/tensorrt_form.py` measures is the same network."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from by_path import ROOT, load
from graphs import distance, named_graph, noise, run

sys.path.append(str(ROOT / "benchmarks"))  # a script finds what lies beside it
script = load(ROOT / "benchmarks" / "tensorrt_form.py")

BODY = """h = Gelu(x)
  d = Conv<group=8, pads=[1,1,1,1]>(h, wd, bd)
  p = Conv(d, wp, bp)
  e = Conv<group=8, pads=[1,1,1,1], strides=[2,2]>(h, wd, bd)
  q = Conv(e, wp, bp)
  f = Conv<group=8, pads=[1,1,1,1]>(h, wd, bd)
  s = Relu(f)
  r = Conv(f, wp, bp)"""
TYPES = ("x", "p", "q", "s", "r")


def test_a_depthwise_convolution_and_the_1x1_behind_it_are_one() -> None:
    """Not where it takes every second pixel, and not where something else reads it, too."""
    weights = {"wd": noise(8, 1, 3, 3), "bd": noise(8), "wp": noise(4, 8, 1, 1, seed=1), "bp": noise(4, seed=1)}
    sizes = ("1,8,6,7", "1,4,6,7", "1,4,3,4", "1,8,6,7", "1,4,6,7")
    x, *outputs = (f"float16[{size}] {name}" for name, size in zip(TYPES, sizes, strict=True))
    halves: dict[str, Any] = {name: values.astype(np.float16) for name, values in weights.items()}
    graph = named_graph(BODY, x, ", ".join(outputs), **halves)
    dense = script.dense(graph)
    assert [node.op_type for node in dense.graph.node].count("Conv") == 5, "six, of which two are one"
    feeds = {"x": noise(1, 8, 6, 7).astype(np.float16)}
    for before, after in zip(run(graph, feeds), run(dense, feeds), strict=True):
        assert distance(before.astype(np.float32), after.astype(np.float32)) < 4e-3, "FP16 has steps of 1e-3"
