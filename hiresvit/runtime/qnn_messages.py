"""What a process says to the child that has Qualcomm's library, and what that answers; feeds are plain dicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Opening:
    """How to open a graph, or a context's ONNX file.

    ``context`` is the ONNX file that a compiled context gets; ``whole`` refuses a graph of which the CPU would compute
    a part; ``options`` are more of the provider's own. Without ``soc_model`` a device takes its own.
    """

    path: str
    soc_model: int | None
    whole: bool = True
    context: str | None = None
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Opened:
    """Name, type in ONNX Runtime's word and shape of each input and output, and the file's metadata.

    ``taken`` and ``left`` are name and operator of each node that the HTP computes, and that the CPU computes.
    ``peak_rss_bytes`` is the child's largest resident set so far.
    """

    inputs: tuple[tuple[str, str, tuple[Any, ...]], ...]
    outputs: tuple[tuple[str, str, tuple[Any, ...]], ...]
    metadata: dict[str, str]
    taken: tuple[tuple[str, str], ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    peak_rss_bytes: int | None = None


@dataclass(frozen=True)
class Failed:
    """What the library said instead."""

    message: str
