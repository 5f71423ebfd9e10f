"""Why a plan cannot run here, in one line, before TensorRT is asked: it would crash, or say less."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from hiresvit.bundle import sha256_file
from hiresvit.cuda import Device
from hiresvit.errors import ArtefactError
from hiresvit.plan import PlanHeader, Sidecar, read_header, read_sidecar, sidecar_path
from hiresvit.tensorrt_api import TITLES, Backend

# How packages that carry a library are called after it; the system's of a Jetson is called as the library is.
_SUFFIXES = ("", "_cu12", "_cu13", "_cu12_bindings", "_cu13_bindings")

# NVIDIA's support matrix of 11.4.1: a version-compatible plan runs in later versions of its own major version, and in
# one other.
_NEXT_MAJOR = {8: 10, 10: 11}

_SIZE_AT = slice(16, 24)  # where RTX 1.7 writes the plan's size; a full TensorRT's plan was not looked at


def check_plan(
    plan: Path, *, device: Device | None = None, backend_version: str | None = None
) -> Sidecar | None:
    """Hold a plan to what it says of itself, to its sidecar and, where given, to a TensorRT version and a GPU.

    Returns the sidecar, or None for a plan that has none: then fewer things are checked. Raises HiresvitError without
    the file, and ArtefactError for a plan that is damaged or cut, that is not its sidecar's, or that was built by
    another version or for another GPU.
    """
    header, sidecar = check_file(plan)
    if backend_version is not None:
        check_version(plan, header, sidecar, backend_version)
    if device is not None:
        check_device(plan, header, sidecar, device)
    return sidecar


def check_file(plan: Path) -> tuple[PlanHeader, Sidecar | None]:
    """What a plan and the file beside it say. Raises HiresvitError and ArtefactError as `check_plan` does."""
    header = read_header(plan)
    sidecar = _read_sidecar(plan)
    size = plan.stat().st_size
    wanted = sidecar.report.plan_bytes if sidecar else _declared_size(plan, header)
    if wanted is not None and size < wanted:
        raise ArtefactError(f"{plan} is cut: {size:,} of {wanted:,} bytes are left; copy or build it again")
    if sidecar is None:
        return header, None
    report = sidecar.report
    same_builder = report.backend == header.backend and _same_version(report.version, header.version)
    if not same_builder or sha256_file(plan) != report.plan_sha256:
        raise ArtefactError(
            f"{plan} is not the plan that {sidecar_path(plan).name} describes; copy both again, or build it again"
        )
    return header, sidecar


def installed_version(backend: Backend) -> str | None:
    """A library's version as its package states it, without loading it; None if no package does."""
    for suffix in _SUFFIXES:
        try:
            return metadata.version(f"{backend}{suffix}")
        except metadata.PackageNotFoundError:
            continue
    return None


def check_version(plan: Path, header: PlanHeader, sidecar: Sidecar | None, installed: str) -> None:
    """Raise ArtefactError unless a version of the plan's own library can run it.

    It is the version that built the plan, or for a version-compatible one of full TensorRT a later one.
    """
    if _same_version(header.version, installed):
        return
    title = TITLES[header.backend]
    rule = "a plan runs only in the version that built it"
    if host_code(sidecar):
        built, here = _numbers(header.version), _numbers(installed)
        if here > built and here[0] in (built[0], _NEXT_MAJOR.get(built[0])):
            return
        rule = "a version-compatible plan runs in later versions of its major version and in the next one"
    raise ArtefactError(
        f"{plan} was built by {title} {header.version} and {installed} is installed; {rule}: build it again here"
    )


def check_device(plan: Path, header: PlanHeader, sidecar: Sidecar | None, device: Device) -> None:
    """Raise ArtefactError for a GPU that the plan, or TensorRT-RTX with any plan, does not run on."""
    have = device.compute_capability
    if header.backend == "tensorrt_rtx" and not _rtx_runs_on(have):
        raise ArtefactError(
            f"{plan} is TensorRT-RTX's, which does not run on {device.name} (compute capability {have}):"
            " build a plan with TensorRT on this machine"
        )
    if sidecar is None:
        return
    wanted = sidecar.report.compute_capability
    if not _matches(wanted, have):
        raise ArtefactError(
            f"{plan} runs on compute capability {wanted}; {device.name} has {have}: build it again for this GPU"
        )


def host_code(sidecar: Sidecar | None) -> bool:
    """Whether a plan is version-compatible, and so brings code that runs on the host."""
    return sidecar is not None and "VERSION_COMPATIBLE" in sidecar.report.flags.get("builder_flags", ())


def _read_sidecar(plan: Path) -> Sidecar | None:
    """With values of the types that are used here, whoever wrote it."""
    sidecar = read_sidecar(plan)
    if sidecar is None:
        return None
    report = sidecar.report
    texts = (report.version, report.compute_capability)
    flags = report.flags.get("builder_flags", []) if isinstance(report.flags, dict) else None
    if not (
        all(isinstance(text, str) for text in texts)
        and isinstance(report.plan_bytes, int)
        and isinstance(flags, list)
    ):
        raise ArtefactError(f"{sidecar_path(plan)} does not describe a plan; build the plan again")
    return sidecar


def _declared_size(plan: Path, header: PlanHeader) -> int | None:
    if header.backend != "tensorrt_rtx":
        return None
    with plan.open("rb") as stream:
        return int.from_bytes(stream.read(_SIZE_AT.stop)[_SIZE_AT], "little")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _same_version(one: str, other: str) -> bool:
    """Equal as far as both go: the Python module of JetPack 6 calls 10.3.0.30 ``10.3.0``."""
    return all(a == b for a, b in zip(_numbers(one), _numbers(other), strict=False))


def _rtx_runs_on(capability: str) -> bool:
    """Not on Orin, Hopper, data-centre Blackwell and Thor, for which its builder has no target (RTX 1.7)."""
    major, minor = _numbers(capability)
    return (major, minor) >= (7, 5) and (major, minor) not in ((8, 7), (9, 0)) and major not in (10, 11)


def _matches(wanted: str, have: str) -> bool:
    """``wanted`` is ``8.7``, ``8.6, 8.9`` or ``8.0 and later``; anything else says nothing about the GPU."""
    numbers = [_numbers(one) for one in re.findall(r"\d+\.\d+", wanted)]
    if not numbers:
        return True
    if wanted.endswith("and later"):
        return _numbers(have) >= numbers[0]
    return _numbers(have) in numbers
