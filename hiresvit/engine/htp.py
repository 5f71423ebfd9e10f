"""Compile an ONNX graph for Qualcomm's HTP, and say what the compiler made of it.

Precision is in the graph: integers where it has Q/DQ, else FP16. The compiler runs in a child process
(`hiresvit.runtime._qnn_child`), needs no device, and takes every node or, unless that is allowed, the build fails.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hiresvit.device.chips import Chip
from hiresvit.device.context import HtpReport


def build_context(
    graph: Path,
    target: Path,
    chip: Chip,
    *,
    replace: bool = False,
    allow_cpu: bool = False,
    on_progress: Callable[[str, float], None] | None = None,
) -> HtpReport:
    """Write the context of a graph: ``target`` (``NAME.onnx``), its binary and its sidecar, all three or none."""
    raise NotImplementedError


def compile_graph(graph: Path, chip: Chip) -> HtpReport:
    """What the compiler makes of a graph; nothing is kept, and a graph that it refuses is a report, too."""
    raise NotImplementedError
