"""The builder's settings, from a request; and back from the builder, so that none was dropped on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiresvit.errors import ArtefactError, BuildError, HiresvitError, UsageError
from hiresvit.files import atomic_path

_LEVELS = {"ampere+": "AMPERE_PLUS", "same": "SAME_COMPUTE_CAPABILITY"}
_ANY_AMPERE = "8.0 and later"  # as TensorRT-RTX's builder defines them: see Target `rtx`


def make_config(trt: Any, builder: Any, network: Any, request: dict[str, Any]) -> Any:
    """A builder's settings as the request has them. Raises UsageError for one that this version lacks.

    Verbosity is detailed: without it neither the builder nor an inspector lists the kernels.
    """
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.max_aux_streams = request["max_aux_streams"]
    if request["opt_level"] is not None:
        config.builder_optimization_level = request["opt_level"]
    if request["workspace"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request["workspace"])
    if request["version_compatible"]:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if request["hw_compat"]:
        level = getattr(trt.HardwareCompatibilityLevel, _LEVELS[request["hw_compat"]], None)
        if level is None:
            raise UsageError(
                f"hardware compatibility {request['hw_compat']!r}: TensorRT {trt.__version__} has only 'ampere+'"
            )
        config.hardware_compatibility_level = level
    if request["sm"]:
        members = find_capabilities(trt, request["sm"])
        config.num_compute_capabilities = len(members)
        for index, (number, member) in enumerate(zip(request["sm"], members, strict=True)):
            if not config.set_compute_capability(member, index):
                raise UsageError(f"--sm {number}: TensorRT-RTX {trt.__version__} refuses it; leave it out")
    if request["shapes"]:
        profile = builder.create_optimization_profile()
        for name, shapes in request["shapes"].items():
            profile.set_shape(name, *[tuple(shape) for shape in shapes])
        if config.add_optimization_profile(profile) < 0:
            raise UsageError(f"TensorRT {trt.__version__} refuses the profile {request['shapes']}")
    return config


def find_capabilities(trt: Any, wanted: Sequence[int]) -> list[Any]:
    """TensorRT-RTX's names of compute capabilities as 86. Raises UsageError for one that it does not compile for."""
    known = {name: member for name, member in trt.ComputeCapability.__members__.items() if name[2:].isdigit()}
    for number in wanted:
        if f"SM{number}" not in known:
            allowed = ", ".join(name[2:] for name in known)
            raise UsageError(
                f"--sm {number}: TensorRT-RTX {trt.__version__} compiles for {allowed}; other GPUs, a Jetson's"
                " too, build their own plan with TensorRT"
            )
    return [known[f"SM{number}"] for number in wanted]


def read_config(trt: Any, config: Any, request: dict[str, Any]) -> dict[str, Any]:
    """The settings as the builder has them. Raises BuildError if one is not what was asked for."""
    bits = int(config.flags)
    flags = [name for name, member in trt.BuilderFlag.__members__.items() if bits >> int(member) & 1]
    found = {
        "builder_flags": flags,
        "max_aux_streams": int(config.max_aux_streams),
        "builder_optimization_level": int(config.builder_optimization_level),
        "workspace_bytes": int(config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)),
    }
    if request["backend"] == "tensorrt":  # TensorRT-RTX has the name, and an error for whoever asks
        found["hardware_compatibility_level"] = config.hardware_compatibility_level.name
    asked = {
        "max_aux_streams": request["max_aux_streams"],
        "builder_optimization_level": request["opt_level"],
        "workspace_bytes": request["workspace"],
        "hardware_compatibility_level": _LEVELS.get(request["hw_compat"]),
    }
    for name, value in asked.items():
        if value is not None and found[name] != value:
            raise BuildError(f"{name} {value} was asked for, TensorRT {trt.__version__} made {found[name]} of it")
    if request["version_compatible"] and "VERSION_COMPATIBLE" not in flags:
        raise BuildError(f"a version-compatible plan was asked for, TensorRT {trt.__version__} dropped the flag")
    return found


def runs_on(request: dict[str, Any], device_capability: str | None) -> str:
    """The compute capabilities that a plan runs on, for people: ``8.6, 8.9`` or ``8.0 and later``."""
    if request["backend"] == "tensorrt_rtx":
        wanted = [f"{number // 10}.{number % 10}" for number in request["sm"]]
        return ", ".join(wanted) or _ANY_AMPERE
    return _ANY_AMPERE if request["hw_compat"] == "ampere+" else device_capability or "this machine's"


def load_timing_cache(trt: Any, config: Any, folder: str, gpu: str) -> Path:
    """Give the builder what it measured earlier for this version and GPU; returns the file to keep it in.

    The file's name is made from version and GPU, so that no other's times are read.
    """
    key = hashlib.sha256(f"tensorrt {trt.__version__} {gpu}".encode()).hexdigest()[:16]
    path = Path(folder, f"{key}.timing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # a place that cannot be is said before the build
        known = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise HiresvitError(f"cannot keep a timing cache in {path}: {error.strerror}") from error
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, False):
        raise ArtefactError(f"{path} is no timing cache of TensorRT {trt.__version__} on this GPU; remove it")
    return path


def save_timing_cache(config: Any, path: Path) -> None:
    """Keep what the builder has measured. Raises HiresvitError where that cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(memoryview(config.get_timing_cache().serialize()))
