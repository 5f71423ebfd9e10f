"""Why a plan cannot run here, in one line, before TensorRT is asked: it would crash, or say less."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hiresvit.device.cuda import Device
from hiresvit.device.plan import PlanHeader, Sidecar, find_sidecar, read_header, read_plan, read_sidecar
from hiresvit.device.platform import package_version, this_platform
from hiresvit.device.tensorrt_api import TITLES, Backend
from hiresvit.errors import ArtefactError, UsageError
from hiresvit.files import sha256_file

# How packages that carry a library are called after it; the system's of a Jetson is called as the library is.
_SUFFIXES = ("", "_cu12", "_cu13", "_cu12_bindings", "_cu13_bindings")

# NVIDIA's support matrix of 11.4.1: a version-compatible plan runs in later versions of its own major version, and in
# one other.
_NEXT_MAJOR = {8: 10, 10: 11}

HOST_CODE = "HIRESVIT_HOST_CODE"
"""The variable of the environment that allows plans to bring code of their own."""

_SIZE_AT = slice(16, 24)  # where RTX 1.7 writes the plan's size; a full TensorRT's plan was not looked at


def check_file(plan: Path) -> tuple[PlanHeader, Sidecar | None]:
    """What a plan and the file beside it say; None for a plan that has none: then fewer things can be checked.

    Raises HiresvitError without the file, and ArtefactError for a plan that is damaged or cut, or not its sidecar's.
    """
    header = read_header(plan)
    sidecar = read_sidecar(plan)
    size, declared = plan.stat().st_size, _declared_size(plan, header)
    if declared is not None and size < declared:
        raise ArtefactError(f"{plan} is cut: {size:,} of {declared:,} bytes are left; copy or build it again")
    if sidecar is None:
        return header, None
    report, beside = sidecar.report, find_sidecar(plan).name
    alike = report.backend == header.backend and _same_version(report.version, header.version or report.version)
    if alike and declared is None and size < report.plan_bytes:
        raise ArtefactError(
            f"{plan} is cut, or not the plan that {beside} describes: {size:,} of {report.plan_bytes:,} bytes are"
            " there; copy both again, or build it again"
        )
    if not alike or size != report.plan_bytes or sha256_file(plan) != report.plan_sha256:
        raise ArtefactError(f"{plan} is not the plan that {beside} describes; copy both again, or build it again")
    return header, sidecar


def installed_version(backend: Backend) -> str | None:
    """A library's version as its package states it, without loading it; None if no package does."""
    return package_version(*(f"{backend}{suffix}" for suffix in _SUFFIXES))


def check_platform(plan: Path, sidecar: Sidecar | None) -> None:
    """Raise ArtefactError for a plan that was built on another kind of machine, whatever its GPU.

    A plan of TensorRT-RTX runs under Windows and Linux alike, on the same kind of processor.
    """
    if sidecar is None:
        return
    backend, built, here = sidecar.report.backend, sidecar.report.platform, this_platform()
    same, rule = built == here, "system and processor"
    if backend == "tensorrt_rtx":
        same, rule = _processor(built) == _processor(here), "processor"
    if not same:
        raise ArtefactError(
            f"{plan} was built on {built} and this is {here}; a plan of {TITLES[backend]} runs only on the {rule} that"
            " it was built on: build it again here"
        )


def check_version(plan: Path, header: PlanHeader, sidecar: Sidecar | None, installed: str) -> None:
    """Raise ArtefactError unless a version of the plan's own library can run it.

    It is the version that built the plan, or for a version-compatible one of full TensorRT a later one. Where
    neither plan nor sidecar says the version, TensorRT must.
    """
    version = header.version or (sidecar.report.version if sidecar else None)
    if version is None or _same_version(version, installed):
        return
    title = TITLES[header.backend]
    rule = "a plan runs only in the version that built it"
    if host_code(sidecar):
        built, here = _numbers(version), _numbers(installed)
        if here > built and here[0] in (built[0], _NEXT_MAJOR.get(built[0])):
            return
        rule = "a version-compatible plan runs in later versions of its major version and in the next one"
    raise ArtefactError(
        f"{plan} was built by {title} {version} and {installed} is installed; {rule}: build it again here"
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


def allow_host_code(plan: Path, sidecar: Sidecar | None) -> bool:
    """`host_code`, for which a file that anybody can write is not enough. Raises UsageError without the user's word."""
    if host_code(sidecar) and os.environ.get(HOST_CODE) != "1":
        raise UsageError(
            f"{plan} is version-compatible: it brings native code, which runs as you do; if you built it, or trust who"
            f" did, set {HOST_CODE}=1"
        )
    return host_code(sidecar)


def _declared_size(plan: Path, header: PlanHeader) -> int | None:
    """What a plan says of its own size, None where that is not known."""
    if header.backend != "tensorrt_rtx" or header.version is None:
        return None
    return int.from_bytes(read_plan(plan, _SIZE_AT.stop)[_SIZE_AT], "little")


def _processor(platform: str) -> str:
    """``x86_64`` of ``Linux x86_64`` and of ``Windows AMD64``."""
    machine = platform.rpartition(" ")[2]
    return {"AMD64": "x86_64", "ARM64": "aarch64"}.get(machine, machine)


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
