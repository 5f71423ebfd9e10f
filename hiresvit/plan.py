"""A plan and what is known about it: the report of its build, kept in a file beside it.

``NAME.plan`` is TensorRT's own file, untouched. ``NAME.plan.json`` says what it was built from, with what, for
which GPU and what became of the graph; a runner reads it before it loads the plan.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from hiresvit.errors import ArtefactError, HiresvitError
from hiresvit.files import atomic_path
from hiresvit.spec import TensorSpec
from hiresvit.tensorrt_api import BACKENDS, TITLES, Backend

KIND = "hiresvit-plan"
SCHEMA_VERSION = 1
SUFFIXES = (".plan", ".engine")

Profile = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""The least, the best and the largest shape of an input that a plan takes."""

# What a plan starts with: TensorRT's tag (its own trtexec looks for it), and what RTX 1.7 writes there.
_TAGS: dict[bytes, Backend] = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
_VERSION_AT = 24
_HEADER_BYTES = 28


@dataclass(frozen=True)
class EngineReport:
    """What was built and what it is made of; sizes in bytes.

    ``compute_capability`` is what the plan runs on, ``device`` the GPU that it was built on, None for a plan that
    was built without one. ``flags`` are the builder's settings as read back from it. ``kernels`` counts by kind
    (see `layers.Kernel.kind`), without the waits between streams. ``precision`` counts attentions, convolutions
    and gemms by what they are computed in, as ``{"fp16": 310, "fp32": 4}``. ``activation_bytes`` is what one
    execution context allocates, ``scratch_bytes`` the most that one layer of the plan needs of it; a graph
    compiled as one layer has them equal. ``build_seconds`` covers parsing and building, ``peak_rss_bytes`` the
    builder's whole process. ``profiles`` has the shapes of each dynamic input. ``warnings`` are the builder's,
    each once.
    """

    backend: Backend
    version: str
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

    @property
    def title(self) -> str:
        """``TensorRT-RTX 1.7.1.116``."""
        return f"{TITLES[self.backend]} {self.version}"

    @property
    def precision_share(self) -> dict[str, float]:
        """``precision`` as fractions of 1."""
        total = sum(self.precision.values())
        return {name: count / total for name, count in self.precision.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EngineReport:
        """Rebuild a report. Raises TypeError, KeyError or ValueError on values that are not one."""
        if differing := values.keys() ^ {item.name for item in fields(cls)}:
            raise KeyError(*sorted(differing))
        if values["backend"] not in BACKENDS:
            raise ValueError(f"backend {values['backend']!r}")
        tensors = {
            side: tuple(TensorSpec(t["name"], t["dtype"], tuple(t["shape"])) for t in values[side])
            for side in ("inputs", "outputs")
        }
        profiles = {
            name: cast(Profile, tuple(tuple(shape) for shape in profile))
            for name, profile in values["profiles"].items()
        }
        return cls(**{**values, **tensors, "profiles": profiles, "warnings": tuple(values["warnings"])})


@dataclass(frozen=True)
class Sidecar:
    """What stands beside a plan.

    ``layers`` are its kernels as `layers.Kernel.to_json` gives them, ``metadata`` the graph's own: what hiresvit
    wrote into it says how it takes a picture.
    """

    graph: str
    graph_sha256: str
    report: EngineReport
    layers: tuple[dict[str, Any], ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlanHeader:
    """What the first bytes of a plan say: which library wrote it, in which version, for example ``10.3.0.30``."""

    backend: Backend
    version: str


def sidecar_path(plan: Path) -> Path:
    """``NAME.plan.json`` for ``NAME.plan``."""
    return plan.with_name(f"{plan.name}.json")


def write_sidecar(plan: Path, sidecar: Sidecar) -> None:
    """Write the file beside a plan. Raises HiresvitError where that cannot be."""
    values = {"kind": KIND, "schema_version": SCHEMA_VERSION, **asdict(sidecar)}
    text = json.dumps(values, indent=1, allow_nan=False) + "\n"
    with atomic_path(sidecar_path(plan)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_sidecar(plan: Path) -> Sidecar | None:
    """What stands beside a plan, or None. Raises ArtefactError for a file that is not a sidecar."""
    path = sidecar_path(plan)
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} cannot be read as JSON; build the plan again") from error
    try:
        if values["kind"] != KIND:
            raise ValueError("another kind")
        if values["schema_version"] != SCHEMA_VERSION:
            raise ArtefactError(
                f"{path} has schema version {values['schema_version']!r}, this hiresvit reads {SCHEMA_VERSION};"
                " build the plan again"
            )
        report = EngineReport.from_json(values["report"])
        layers, metadata = tuple(values["layers"]), dict(values["metadata"])
        return Sidecar(values["graph"], values["graph_sha256"], report, layers, metadata)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(f"{path} does not describe a plan; build the plan again") from error


def read_header(plan: Path) -> PlanHeader:
    """What a plan says about itself. Raises HiresvitError without the file, ArtefactError for what is no plan."""
    try:
        with plan.open("rb") as stream:
            start = stream.read(_HEADER_BYTES)
    except OSError as error:
        raise HiresvitError(f"cannot read {plan}: {error.strerror}") from error
    backend = _TAGS.get(start[:4])
    if backend is None or len(start) < _HEADER_BYTES:
        raise ArtefactError(f"{plan} is not a plan of TensorRT or TensorRT-RTX, or a cut one; build it again")
    return PlanHeader(backend, ".".join(str(byte) for byte in start[_VERSION_AT:]))
