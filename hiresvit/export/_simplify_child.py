"""The process that runs onnxsim: ``python -m hiresvit.export._simplify_child IN OUT``."""

from __future__ import annotations

import sys

import onnx
import onnxsim


def main(source: str, target: str) -> None:
    """Simplify the graph in ``source`` and write it to ``target``."""
    # Our own comparison follows in the parent, on the same inputs for every stage; onnxsim's would be a second.
    model, _ = onnxsim.simplify(onnx.load(source), check_n=0)
    onnx.save(model, target)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
