"""A context for Qualcomm's HTP and what is known about it: the report of its build, kept in a file beside it.

``NAME.onnx`` is a small graph with an ``EPContext`` node, ``NAME_qnn.bin`` the compiled network that it names, both as
Qualcomm's library wrote them. ``NAME.onnx.json`` says what they were built from, with what, for which chip, and what
became of the graph; a runner reads it before it opens the context.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hiresvit.device.sidecar import read_values, sidecar_document
from hiresvit.errors import ArtefactError
from hiresvit.files import sha256_file
from hiresvit.schema import (
    COUNT,
    NAME,
    NUMBER,
    SHA256,
    TEXT,
    Check,
    compile_schema,
    many,
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
    library's, each once. ``failure`` is what it said instead of compiling. ``uncounted`` are products that are not in
    ``macs``, as in `Products`.
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
    uncounted: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


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
        return sidecar_document(KIND, SCHEMA_VERSION, asdict(self))


def context_files(context: Path) -> tuple[Path, Path, Path]:
    """``NAME.onnx``, the ``NAME_qnn.bin`` that ONNX Runtime writes beside it, and the sidecar ``NAME.onnx.json``."""
    return context, context.with_name(f"{context.stem}_qnn.bin"), context.with_name(f"{context.name}.json")


def sum_file(path: Path) -> FileSum:
    """Raises OSError."""
    return FileSum(path.name, path.stat().st_size, sha256_file(path))


def read_sidecar(context: Path) -> ContextSidecar | None:
    """What stands beside a context, None if nothing does. Raises ArtefactError for a file that is no such sidecar."""
    values = read_values(context_files(context)[2], "context", KIND, SCHEMA_VERSION, _check())
    if values is None:
        return None
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
        **{key: tuple(values[key]) for key in ("warnings", "uncounted")},
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
        **dict.fromkeys(("warnings", "uncounted"), many(TEXT)),
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
