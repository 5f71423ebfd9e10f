"""The line that builds the same plan with NVIDIA's own program, for those who cannot take Python to the device.

Options as trtexec 10 and 11 and ``tensorrt_rtx`` document them; none of these programs was run here.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from hiresvit.device.tensorrt_api import Backend

if TYPE_CHECKING:
    from hiresvit.engine.build import BuildSettings

PROGRAMS: dict[Backend, str] = {"tensorrt": "trtexec", "tensorrt_rtx": "tensorrt_rtx"}
# What is strongly typed from this version on needs no flag to say so; precision flags are gone there.
ALWAYS_TYPED = 11
_LEVELS = {"ampere+": "ampere+", "same": "sameComputeCapability"}


def trtexec_line(graph: Path, plan: Path, settings: BuildSettings, *, backend: Backend, major: int) -> str:
    """The command for version ``major`` of a library, quoted for a shell.

    Precision is in the graph: there is no ``--fp16`` or ``--int8`` for any version. The kernel list that our build
    reads needs detailed verbosity, which is part of the plan, so the line has it, too.
    """
    words = [PROGRAMS[backend], f"--onnx={graph}", f"--saveEngine={plan}", "--skipInference"]
    if backend == "tensorrt" and major < ALWAYS_TYPED:
        words.append("--stronglyTyped")
    words += ["--profilingVerbosity=detailed", f"--maxAuxStreams={settings.max_aux_streams}"]
    if settings.shapes:
        for index, option in enumerate(("minShapes", "optShapes", "maxShapes")):
            shapes = (f"{name}:{'x'.join(map(str, p[index]))}" for name, p in settings.shapes.items())
            words.append(f"--{option}={','.join(shapes)}")
    if settings.workspace is not None:
        mib = settings.workspace / 2**20  # the unit of a number that has none
        words.append(f"--memPoolSize=workspace:{int(mib) if mib.is_integer() else mib!r}")
    if settings.opt_level is not None:
        words.append(f"--builderOptimizationLevel={settings.opt_level}")
    if settings.timing_cache is not None and backend == "tensorrt":
        words.append(f"--timingCacheFile={settings.timing_cache / 'trtexec.timing'}")
    if settings.hw_compat is not None:
        words.append(f"--hardwareCompatibilityLevel={_LEVELS[settings.hw_compat]}")
    if settings.version_compatible:
        words.append("--versionCompatible")
    if settings.sm:
        words.append(f"--computeCapabilities={','.join(map(str, settings.sm))}")
    return shlex.join(words)
