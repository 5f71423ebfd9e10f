"""The process that runs onnxsim: ``python -m hiresvit.export._simplify_child IN OUT``."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import onnxsim

from hiresvit.graph.file import load_graph


def main(source: str, target: str) -> None:
    """Simplify the graph in ``source`` and write it to ``target``."""
    # Our own comparison follows in the parent, on the same inputs for every stage; onnxsim's would be a second.
    model, _ = onnxsim.simplify(load_graph(Path(source), weights=True), check_n=0)
    onnx.save(model, target)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
