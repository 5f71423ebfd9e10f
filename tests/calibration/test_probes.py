"""Copies of a graph that give some of its tensors, as engines take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import build, noise
from lost_transpose import with_qdq

from hiresvit.calibration.probes import tensor_graph
from hiresvit.runtime.open import open_runner


def test_a_marked_copy_is_taken_by_the_chip_where_a_result_is_not_read(tmp_path: Path) -> None:
    """Without the quantizer of its second output the Split would be no Split in integers."""
    pytest.importorskip("onnxruntime_qnn")
    graph = with_qdq(
        build("""g (float[1,4,8,8] image) => (float[1,2,8,8] y) {
          a = Relu(image)
          b, c = Split<axis=1, num_outputs=2>(a)
          y = Relu(b)
        }""")
    )
    marked = tensor_graph(graph, ["a_dq", "b_dq"])
    assert "y_raw" not in {name for node in marked.graph.node for name in node.output}
    path = tmp_path / "marked.onnx"
    onnx.save(marked, path)
    feeds = {"image": noise(1, 4, 8, 8)}
    with open_runner(path, threads=1) as expected, open_runner(path, runner="qnn:ar1") as chip:
        assert [spec.name for spec in chip.outputs] == ["a_dq", "b_dq"]
        for name, values in expected(feeds).items():
            np.testing.assert_allclose(chip(feeds)[name], values, atol=16 / 2**16)
