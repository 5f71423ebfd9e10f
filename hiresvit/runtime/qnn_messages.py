"""What a process says to the child that has Qualcomm's library, and what that answers; feeds are plain dicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Opening:
    """How to open a graph, or a context's ONNX file.

    ``context`` is the ONNX file that a compiled context gets;
    ``whole`` refuses a graph of which the CPU would compute a part; ``verbose`` logs a verdict on each node;
    ``options`` are more of the provider's own.
    """

    path: str
    soc_model: int
    whole: bool = True
    context: str | None = None
    verbose: bool = False
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Opened:
    """Name, type in ONNX Runtime's word and shape of each input and output, and the file's metadata."""

    inputs: tuple[tuple[str, str, tuple[Any, ...]], ...]
    outputs: tuple[tuple[str, str, tuple[Any, ...]], ...]
    metadata: dict[str, str]


@dataclass(frozen=True)
class Failed:
    """What the library said instead."""

    message: str
