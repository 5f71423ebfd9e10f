"""Builds small graphs with the real TensorRT-RTX, each in a process of its own: some of them kill the builder.

Run as a program it builds the corpus and prints a line of JSON for each graph: its name, whether there is a plan, and
why not.
"""

from __future__ import annotations

import json
import os
from typing import Any

from corpus import CORPUS
from graphs import content
from onnx import ModelProto

from hiresvit.device.tensorrt_api import load


def build(trt: Any, model: ModelProto, profiled: bool = False) -> tuple[bool, str]:
    """Whether TensorRT-RTX builds a graph, and its reason if not."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.dup2(2, 1)  # the library prints
        os.write(writer, json.dumps(_build_here(trt, model, profiled)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        return False, f"the builder died (wait status {status})"
    built, reason = json.loads(answer)
    return built, reason


def _build_here(trt: Any, model: ModelProto, profiled: bool) -> tuple[bool, str]:
    class Log(trt.ILogger):  # type: ignore[misc]
        said = ""

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR and "cudaError" not in message:
                self.said = message

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)  # strongly typed, as all of RTX's are
    parser = trt.OnnxParser(network, log)
    if not parser.parse(content(model)):
        return False, str(parser.get_error(0).desc())
    config = builder.create_builder_config()
    if profiled:
        profile = builder.create_optimization_profile()
        for tensor in (network.get_input(k) for k in range(network.num_inputs)):
            sizes = [[most if size == -1 else size for size in tensor.shape] for most in (1, 2, 4)]
            profile.set_shape(tensor.name, *sizes)
        config.add_optimization_profile(profile)
    return builder.build_serialized_network(network, config) is not None, log.said


if __name__ == "__main__":
    rtx = load("tensorrt_rtx")  # before the processes part: a third of a build's time
    for each in CORPUS:
        made, why = build(rtx, each.model(), each.profiled)
        print(json.dumps([each.name, made, " ".join(why.split())[:300]]), flush=True)
