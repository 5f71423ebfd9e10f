"""Kernels of real builds by TensorRT-RTX, for the tests that hold a reading or a prediction against them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest
from graphs import content
from onnx import ModelProto

from hiresvit.device.tensorrt_api import INSTALL_HINT, installed
from hiresvit.engine.kernels import Kernel, parse_layers
from hiresvit.process import run_child

needs_rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason=INSTALL_HINT)


# Builds one graph after the other, each with a batch of 1 to 4 where it is dynamic, and writes their layer lists.
BUILDER = """
import sys
from pathlib import Path
from hiresvit.device.tensorrt_api import load

trt = load("tensorrt_rtx")

class Log(trt.ILogger):
    said = ""

    def log(self, severity, message):
        if message.startswith("Layers:") or severity <= trt.ILogger.ERROR:
            self.said = message

log = Log()
for path in map(Path, sys.argv[1:]):
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(path.read_bytes()):
        sys.exit(f"{path}: {log.said}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.max_aux_streams = 0
    profile = builder.create_optimization_profile()
    for tensor in (network.get_input(index) for index in range(network.num_inputs)):
        shapes = [[size if axis == -1 else axis for axis in tensor.shape] for size in (1, 2, 4)]
        profile.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(profile)
    if builder.build_serialized_network(network, config) is None:
        sys.exit(f"{path}: {log.said}")
    path.with_suffix(".txt").write_text(log.said, encoding="utf-8")
"""


def compiled(models: Mapping[str, ModelProto], folder: Path) -> dict[str, list[Kernel]]:
    """What TensorRT-RTX makes of each graph, all of them in one process of its own."""
    paths = {name: folder / f"{index}.onnx" for index, name in enumerate(models)}
    for name, path in paths.items():
        onnx.checker.check_model(models[name], full_check=True)
        path.write_bytes(content(models[name]))
    child = run_child(["-c", BUILDER, *map(str, paths.values())])
    assert child.returncode == 0, (child.outcome, child.stderr)
    return {name: parse_layers(path.with_suffix(".txt").read_text("utf-8")) for name, path in paths.items()}
