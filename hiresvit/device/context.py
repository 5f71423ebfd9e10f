"""A context for Qualcomm's HTP and what is known about it: the report of its build, kept in a file beside it.

``NAME.onnx`` is a small graph with an ``EPContext`` node, ``NAME_qnn.bin`` the compiled network that it names, both as
Qualcomm's library wrote them. ``NAME.onnx.json`` says what they were built from, with what, for which chip, and what
became of the graph; a runner reads it before it opens the context.
"""

from __future__ import annotations

import json
import re
import reprlib
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hiresvit.errors import ArtefactError
from hiresvit.files import MOST_TEXT, read_regular
from hiresvit.schema import (
    COUNT,
    NAME,
    NUMBER,
    SHA256,
    TEXT,
    Check,
    compile_schema,
    keyed,
    many,
    read_json,
    record,
    some,
)

KIND = "hiresvit-context"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Refused:
    """A node that the HTP does not take: its name in the graph, its PyTorch module, its operator, and why not."""

    node: str
    module: str
    op: str
    reason: str


@dataclass(frozen=True)
class Departed:
    """A product that is computed in another arithmetic than its graph states: ``u16,s16`` is of both operands."""

    node: str
    module: str
    stated: str
    computed: str
    macs: int


@dataclass(frozen=True)
class HtpReport:
    """What was compiled and what it is made of.

    ``chip`` is the name that was asked for; ``soc_model``, ``arch`` and ``vtcm_mb`` are read back from what was
    written, None where nothing was. ``versions`` has those of ``onnxruntime``, ``onnxruntime_qnn`` and ``qairt``.
    ``nodes_htp`` and ``nodes_cpu`` count the graph's nodes as the library divides them, ``refused`` are the latter.
    ``operators`` counts the HTP's own by type, ``arithmetic`` those that multiply by what they read, as
    ``{"MatMul(u16,s16)": 22}``, both from the graph that the compiler is given. ``macs`` are the multiply-accumulates
    of one call by the same words, ``departed`` the products that another arithmetic computes than the graph states.
    ``seconds`` cover reading and compiling, ``peak_rss_bytes`` the compiler's whole process. ``warnings`` are the
    library's, each once. ``failure`` is what it said instead of compiling.
    """

    chip: str
    soc_model: int | None
    arch: int | None
    vtcm_mb: int | None
    versions: dict[str, str]
    nodes_htp: int
    nodes_cpu: int
    refused: tuple[Refused, ...]
    operators: dict[str, int]
    arithmetic: dict[str, int]
    macs: dict[str, int]
    departed: tuple[Departed, ...]
    context_bytes: int | None
    seconds: float
    peak_rss_bytes: int
    warnings: tuple[str, ...]
    failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)
