"""Files that are plans as far as a preflight looks, and what it says of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hiresvit.device.cuda import Device
from hiresvit.device.plan import EngineReport, Sidecar, write_sidecar
from hiresvit.device.platform import this_platform
from hiresvit.device.tensorrt_api import Backend
from hiresvit.errors import ArtefactError
from hiresvit.runtime.preflight import check_device, check_file, check_platform, check_version

TAGS: dict[Backend, bytes] = {"tensorrt": b"ftrt", "tensorrt_rtx": b"vtrt"}
VC = {"builder_flags": ["TF32", "VERSION_COMPATIBLE"]}


def save(
    path: Path,
    version: str = "10.3.0.30",
    *,
    backend: Backend = "tensorrt",
    size: int | None = None,
    layout: int = 0,
    **of_sidecar: Any,
) -> Path:
    """A plan as far as its first bytes go; with a sidecar if something is said of that."""
    start = TAGS[backend] + layout.to_bytes(4, "little") + bytes(8) + (size or 100).to_bytes(8, "little")
    path.write_bytes((start + bytes(int(n) for n in version.split("."))).ljust(100, b"p"))
    if of_sidecar:
        write_sidecar(path, Sidecar("a.onnx", "0" * 64, describe(path, backend, version, **of_sidecar)))
    return path


def describe(path: Path, backend: Backend, version: str, **values: Any) -> EngineReport:
    report = EngineReport(
        backend=backend,
        version=version,
        platform=this_platform(),
        compute_capability="8.7",
        device="Orin",
        plan_bytes=path.stat().st_size,
        plan_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        build_seconds=1.0,
        peak_rss_bytes=1,
        kernel_total=0,
        kernels={},
        precision={},
        attentions_fused=0,
        attentions_total=0,
        activation_bytes=0,
        weight_bytes=0,
        scratch_bytes=0,
        inputs=(),
        outputs=(),
        flags={},
        profiles={},
        warnings=(),
    )
    return replace(report, **values)


def check(path: Path, *, version: str | None = None, device: Device | None = None) -> Sidecar | None:
    """All that is asked before a plan is loaded, on a machine with this version of its library and this GPU."""
    header, sidecar = check_file(path)
    check_platform(path, sidecar)
    if version is not None:
        check_version(path, header, sidecar, version)
    if device is not None:
        check_device(path, header, sidecar, device)
    return sidecar


def said_of(path: Path, **given: Any) -> str:
    """The line of the ArtefactError."""
    with pytest.raises(ArtefactError) as caught:
        check(path, **given)
    assert caught.value.exit_code == 7
    assert "\n" not in str(caught.value)
    return str(caught.value)
