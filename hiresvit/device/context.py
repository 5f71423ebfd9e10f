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

from hiresvit.device.qnn_api import COMPATIBILITY
from hiresvit.errors import ArtefactError
from hiresvit.files import MOST_TEXT, read_regular, sha256_file
from hiresvit.schema import (
    COUNT,
    NAME,
    NUMBER,
    SHA256,
    TEXT,
    Check,
    compile_schema,
    many,
    read_json,
    record,
    some,
)
from hiresvit.wire import nodes_and_metadata

KIND = "hiresvit-context"
SCHEMA_VERSION = 1
_COMPATIBLE = re.compile(r"v\d+:\d+:[\d.]+:[\d.]+:(\d+):(\d+):(\d+):")


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
    versions: dict[str, str | None]
    nodes_htp: int
    nodes_cpu: int
    refused: tuple[Refused, ...]
    operators: dict[str, int]
    arithmetic: dict[str, int]
    macs: dict[str, int]
    departed: tuple[Departed, ...]
    context_bytes: int | None
    seconds: float
    peak_rss_bytes: int | None
    warnings: tuple[str, ...]
    failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @property
    def whole(self) -> bool:
        """Whether the HTP computes all of it."""
        return self.failure is None and not self.nodes_cpu


@dataclass(frozen=True)
class FileSum:
    """A file of a context: its name, bytes and sha256."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ContextSidecar:
    """What stands beside a context: the graph it was made from, the report, and both files' sums.

    ``metadata`` is the graph's own: what hiresvit wrote into it says how it takes a picture.
    """

    graph: str
    graph_sha256: str
    report: HtpReport
    context: FileSum
    binary: FileSum
    metadata: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The JSON document."""
        values = {"kind": KIND, "schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps(values, indent=1, allow_nan=False) + "\n"


def context_files(context: Path) -> tuple[Path, Path, Path]:
    """``NAME.onnx``, the ``NAME_qnn.bin`` that ONNX Runtime writes beside it, and the sidecar ``NAME.onnx.json``."""
    return context, context.with_name(f"{context.stem}_qnn.bin"), context.with_name(f"{context.name}.json")


def sum_file(path: Path) -> FileSum:
    """Raises OSError."""
    return FileSum(path.name, path.stat().st_size, sha256_file(path))


def read_context_chip(context: Path) -> tuple[int, int, int | None]:
    """What was really compiled for, as the ONNX file of a context says it: soc_model, arch and VTCM in MiB.

    VTCM is None where the compiler was not told. Raises ArtefactError for a file that does not say it.
    """
    said = _COMPATIBLE.match(nodes_and_metadata(context)[1].get(COMPATIBILITY, ""))
    if said is None:
        raise ArtefactError(f"{context} does not say for which chip it was compiled; build it again")
    arch, soc_model, vtcm = (int(number) for number in said.groups())
    return soc_model, arch, vtcm or None


def read_sidecar(context: Path) -> ContextSidecar | None:
    """What stands beside a context, None if nothing does. Raises ArtefactError for a file that is no such sidecar."""
    path = context_files(context)[2]
    try:
        values = read_json(read_regular(path, MOST_TEXT))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ArtefactError(f"{path} cannot be read as JSON ({reason}); build the context again") from error
    if not isinstance(values, dict) or values.pop("kind", None) != KIND:
        raise ArtefactError(f"{path} does not describe a context; build the context again")
    if (version := values.pop("schema_version", None)) != SCHEMA_VERSION:
        said = f"has schema version {reprlib.repr(version)}, this hiresvit reads {SCHEMA_VERSION}"
        raise ArtefactError(f"{path} {said}; build the context again")
    try:
        _check()(values)
    except ValueError as error:
        raise ArtefactError(f"{path} does not describe a context: {error}; build the context again") from error
    sums = {name: FileSum(**values[name]) for name in ("context", "binary")}
    return ContextSidecar(**{**values, **sums, "report": _report(values["report"])})


def require_sums(context: Path, binary: Path, sidecar: ContextSidecar) -> None:
    """Raise ArtefactError unless both files are those that the sidecar was written for."""
    for path, wanted in ((context, sidecar.context), (binary, sidecar.binary)):
        size = path.stat().st_size
        if size < wanted.bytes:
            raise ArtefactError(f"{path} is cut: {size:,} of {wanted.bytes:,} bytes; copy or build it again")
        if size != wanted.bytes or sha256_file(path) != wanted.sha256:
            beside = context_files(context)[2].name
            raise ArtefactError(f"{path} is of another build than {beside} beside it; copy all three, or build again")


def _report(values: dict[str, Any]) -> HtpReport:
    """Of values that the schema has nothing against."""
    read = {
        "refused": tuple(Refused(**one) for one in values["refused"]),
        "departed": tuple(Departed(**one) for one in values["departed"]),
        "warnings": tuple(values["warnings"]),
    }
    return HtpReport(**{**values, **read})


@cache
def _check() -> Check:
    counts = {"type": "object", "additionalProperties": COUNT}
    report = {
        "chip": NAME,
        **dict.fromkeys(("soc_model", "arch", "vtcm_mb", "context_bytes", "peak_rss_bytes"), some(COUNT)),
        "versions": {"type": "object", "additionalProperties": some(NAME)},
        **dict.fromkeys(("nodes_htp", "nodes_cpu"), COUNT),
        "refused": many(record(dict.fromkeys(("node", "module", "op", "reason"), TEXT))),
        **dict.fromkeys(("operators", "arithmetic", "macs"), counts),
        "departed": many(record({**dict.fromkeys(("node", "module", "stated", "computed"), TEXT), "macs": COUNT})),
        "seconds": NUMBER,
        "warnings": many(TEXT),
        "failure": some(TEXT),
    }
    file = record({"name": NAME, "bytes": COUNT, "sha256": SHA256})
    return compile_schema(
        record(
            {
                "graph": NAME,
                "graph_sha256": SHA256,
                "report": record(report),
                "context": file,
                "binary": file,
                "metadata": {"type": "object", "additionalProperties": TEXT},
            }
        )
    )
