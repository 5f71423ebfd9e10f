"""A plan and what is known about it: the report of its build, kept in a file beside it.

``NAME.plan`` is TensorRT's own file, untouched. ``NAME.plan.json`` says what it was built from, with what, for
which GPU and what became of the graph; a runner reads it before it loads the plan.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hiresvit.device.sidecar import read_values, sidecar_document
from hiresvit.device.tensorrt_api import Backend
from hiresvit.errors import ArtefactError, HiresvitError
from hiresvit.files import atomic_path, open_regular
from hiresvit.schema import ENGINE, NAME, SHA256, TEXT, Check, compile_schema, many, record
from hiresvit.spec import TensorSpec, tensor_specs

KIND = "hiresvit-plan"
SCHEMA_VERSION = 1
SUFFIXES = (".plan", ".engine")

Profile = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""The least, the best and the largest shape of an input that a plan takes."""

# What a plan starts with: TensorRT's tag (its own trtexec looks for it), and what RTX 1.7 writes there.
_TAGS: dict[bytes, Backend] = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
# Then the version of the format as 4 bytes, of which NVIDIA's trtexec reads 0 only; plans of RTX 1.7 have 0.
_FORMAT_AT, _VERSION_AT, _HEADER_BYTES = slice(4, 8), slice(24, 28), 28


@dataclass(frozen=True)
class PlanTraffic:
    """What all kernels of a plan move in one call, a dynamic one at its best shapes (`hiresvit.engine.traffic`).

    Bytes of activations that are read and written, and of weights; ``macs`` are multiply-accumulates by what they are
    computed in. ``untold`` is how many tensors are not in it.
    """

    read_bytes: int
    written_bytes: int
    weight_bytes: int
    macs: dict[str, int]
    untold: int


@dataclass(frozen=True)
class EngineReport:
    """What was built and what it is made of; sizes in bytes.

    ``platform`` is where it was built, as `this_platform` says it. ``compute_capability`` is what the plan runs on,
    ``device`` the GPU that it was built on, None for a plan that was built without one. ``flags`` are the builder's
    settings as read back from it. ``kernels`` counts by kind (`hiresvit.engine.kernels`), without the waits between
    streams. ``precision`` counts attentions, convolutions and gemms by what they are computed in, as
    ``{"fp16": 310, "fp32": 4}``. ``activation_bytes`` is what one execution context allocates, ``scratch_bytes`` the
    most that one layer of the plan needs of it; a graph compiled as one layer has them equal. ``build_seconds``
    covers parsing and building, ``peak_rss_bytes`` the builder's whole process. ``profiles`` has the shapes of each
    dynamic input. ``warnings`` are the builder's, each once. ``traffic`` is None where no kernel list says it, and in
    what was written before it was counted.
    """

    backend: Backend
    version: str
    platform: str
    compute_capability: str
    device: str | None
    plan_bytes: int
    plan_sha256: str
    build_seconds: float
    peak_rss_bytes: int
    kernel_total: int
    kernels: dict[str, int]
    precision: dict[str, int]
    attentions_fused: int
    attentions_total: int
    activation_bytes: int
    weight_bytes: int
    scratch_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    flags: dict[str, Any]
    profiles: dict[str, Profile]
    warnings: tuple[str, ...]
    traffic: PlanTraffic | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EngineReport:
        """Rebuild a report. Raises ValueError, with the place, on values that are not one."""
        _engine_check()(values)
        return _report(values)


@dataclass(frozen=True)
class Sidecar:
    """What stands beside a plan.

    ``layers`` are its kernels as JSON (`hiresvit.engine.kernels`), each with what it multiplies as ``macs`` and the
    best sizes of its dynamic tensors as ``best``, which older sidecars have not. ``metadata`` is the graph's own: what
    hiresvit wrote into it says how it takes a picture.
    """

    graph: str
    graph_sha256: str
    report: EngineReport
    layers: tuple[dict[str, Any], ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlanHeader:
    """What the first bytes of a plan say: which library wrote it, in which version, for example ``10.3.0.30``.

    The version is None in a format that is newer than ours: it may stand elsewhere then.
    """

    backend: Backend
    version: str | None


def is_plan_file(path: Path) -> bool:
    """Whether a file is a plan by its name: ``x.plan``, ``x.engine``, ``X.PLAN``."""
    return path.suffix.lower() in SUFFIXES


def sidecar_path(plan: Path) -> Path:
    """``NAME.plan.json`` for ``NAME.plan``."""
    return plan.with_name(f"{plan.name}.json")


def find_sidecar(plan: Path) -> Path:
    """Where a plan's sidecar is read: beside the name given; for a link with nothing beside it, beside the file."""
    beside = sidecar_path(plan)
    if os.path.islink(plan) and not os.path.lexists(beside):
        return sidecar_path(Path(os.path.realpath(plan)))
    return beside


def write_sidecar(plan: Path, sidecar: Sidecar) -> None:
    """Write the file beside a plan. Raises HiresvitError where that cannot be."""
    with atomic_path(sidecar_path(plan)) as temporary:
        temporary.write_text(sidecar_text(sidecar), encoding="utf-8")


def sidecar_text(sidecar: Sidecar) -> str:
    """The JSON document."""
    return sidecar_document(KIND, SCHEMA_VERSION, asdict(sidecar))


def read_sidecar(plan: Path) -> Sidecar | None:
    """What stands beside a plan, or None. Raises ArtefactError for a file that is not a sidecar, down to each type."""
    values = read_values(find_sidecar(plan), "plan", KIND, SCHEMA_VERSION, _sidecar_check())
    if values is None:
        return None
    return Sidecar(**{**values, "report": _report(values["report"]), "layers": tuple(values["layers"])})


def read_header(plan: Path) -> PlanHeader:
    """What a plan says about itself. Raises HiresvitError without the file, ArtefactError for what is no plan."""
    start = read_plan(plan, _HEADER_BYTES)
    backend = _TAGS.get(start[:4])
    if backend is None or len(start) < _HEADER_BYTES:
        raise ArtefactError(f"{plan} is not a plan of TensorRT or TensorRT-RTX, or a cut one; build it again")
    known = start[_FORMAT_AT] == bytes(4)
    return PlanHeader(backend, ".".join(map(str, start[_VERSION_AT])) if known else None)


def read_plan(plan: Path, size: int = -1) -> bytes:
    """The first ``size`` bytes of a plan, or all of it. Raises HiresvitError where it cannot be read."""
    try:
        with open_regular(plan) as stream:
            return stream.read(size)
    except OSError as error:
        raise HiresvitError(f"cannot read {plan}: {error.strerror}") from error


@cache
def _engine_check() -> Check:
    return compile_schema(ENGINE)


@cache
def _sidecar_check() -> Check:
    return compile_schema(
        record(
            {
                "graph": NAME,
                "graph_sha256": SHA256,
                "report": ENGINE,
                "layers": many({"type": "object"}),
                "metadata": {"type": "object", "additionalProperties": TEXT},
            }
        )
    )


def _report(values: dict[str, Any]) -> EngineReport:
    """Of values that the schema has nothing against: lists become tuples, and dicts what they are the fields of."""
    read = {
        "inputs": tensor_specs(values["inputs"]),
        "outputs": tensor_specs(values["outputs"]),
        "profiles": {name: tuple(map(tuple, shapes)) for name, shapes in values["profiles"].items()},
        "warnings": tuple(values["warnings"]),
        "traffic": PlanTraffic(**values["traffic"]) if values.get("traffic") else None,
    }
    return EngineReport(**{**values, **read})
