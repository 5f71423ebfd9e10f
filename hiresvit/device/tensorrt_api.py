"""The only module that imports TensorRT: which one is here, and every name of it that we touch, in one place.

Two libraries have the same interface: ``tensorrt`` (10.3 of JetPack 6 to 11) and ``tensorrt_rtx``. Names and the
values of enums differ between their versions: a flag is therefore asked for by its name and never written as a
number, and what only some versions have is in `BUILD_OPTIONAL` and `RUN_OPTIONAL` and asked for with ``hasattr``.
``tests/engine/test_tensorrt_versions.py`` holds the lists against recorded interfaces of 10.3 to 11 and of RTX.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable
from typing import Any, Literal, get_args

from hiresvit.errors import MissingDependency, UsageError, install_line

Backend = Literal["tensorrt", "tensorrt_rtx"]

BACKENDS: tuple[Backend, ...] = get_args(Backend)
TITLES: dict[Backend, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
INSTALL_HINT = install_line("rtx")
INSTALL_HINTS: dict[Backend, str] = {
    "tensorrt": "on a Jetson it is the system's python3-libnvinfer: make the environment with"
    " python3 -m venv --system-site-packages; with another NVIDIA GPU: pip install tensorrt",
    "tensorrt_rtx": INSTALL_HINT,
}

# RTX's second name alone is there when only its wheels were installed, not the package that ties them together.
_MODULES: dict[Backend, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}

# What a build calls in every version.
BUILD_CALLS = frozenset(
    {
        *("__version__", "ILogger", "ILogger.ERROR", "ILogger.WARNING", "IErrorRecorder", "IProgressMonitor"),
        *("Builder", "Builder.create_network", "Builder.create_builder_config", "Builder.error_recorder"),
        *("Builder.create_optimization_profile", "Builder.build_serialized_network"),
        *("NetworkDefinitionCreationFlag", "INetworkDefinition.num_inputs", "INetworkDefinition.get_input"),
        *("INetworkDefinition.num_outputs", "INetworkDefinition.get_output"),
        *("ITensor.name", "ITensor.dtype", "ITensor.shape"),
        *("OnnxParser", "OnnxParser.parse_from_file", "OnnxParser.num_errors", "OnnxParser.get_error"),
        *("ParserError.node", "ParserError.node_name", "ParserError.node_operator", "ParserError.desc"),
        *("IBuilderConfig.profiling_verbosity", "ProfilingVerbosity.DETAILED"),
        *("IBuilderConfig.max_aux_streams", "IBuilderConfig.builder_optimization_level"),
        *("IBuilderConfig.set_memory_pool_limit", "IBuilderConfig.get_memory_pool_limit"),
        *("MemoryPoolType.WORKSPACE", "IBuilderConfig.progress_monitor"),
        *("IBuilderConfig.add_optimization_profile", "IOptimizationProfile.set_shape"),
        *("BuilderFlag", "IBuilderConfig.flags", "IHostMemory.nbytes"),
    }
)
# What a build calls where it is asked for and there.
BUILD_OPTIONAL = frozenset(
    {
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",  # ignored from 11 on, where all networks are
        *("BuilderFlag.VERSION_COMPATIBLE", "IBuilderConfig.set_flag"),
        *("IBuilderConfig.hardware_compatibility_level", "HardwareCompatibilityLevel.AMPERE_PLUS"),
        "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY",  # from 10.9 on
        *("IBuilderConfig.create_timing_cache", "IBuilderConfig.set_timing_cache"),
        *("IBuilderConfig.get_timing_cache", "ITimingCache.serialize"),
        *("IBuilderConfig.num_compute_capabilities", "IBuilderConfig.set_compute_capability"),
        "ComputeCapability",  # RTX only
        # A plan can be inspected only where it can run.
        *("Runtime", "Runtime.deserialize_cuda_engine", "ICudaEngine.create_engine_inspector"),
        "Runtime.engine_host_code_allowed",
        *("EngineInspector.get_engine_information", "LayerInformationFormat.JSON"),
        "ICudaEngine.device_memory_size_v2",
    }
)

# What a run calls in every version, and what it calls where it is asked for and there.
RUN_CALLS = frozenset(
    {
        *("__version__", "ILogger", "ILogger.ERROR", "ILogger.WARNING", "Runtime"),
        "Runtime.deserialize_cuda_engine",
        *("ICudaEngine.num_io_tensors", "ICudaEngine.get_tensor_name", "ICudaEngine.get_tensor_mode"),
        *("ICudaEngine.get_tensor_dtype", "ICudaEngine.get_tensor_shape", "ICudaEngine.get_tensor_location"),
        *("ICudaEngine.get_tensor_format", "ICudaEngine.get_tensor_profile_shape"),
        *("ICudaEngine.create_execution_context", "TensorIOMode.INPUT", "TensorLocation.HOST"),
        *("TensorFormat.LINEAR", "IExecutionContext.set_input_shape", "IExecutionContext.get_tensor_shape"),
        *("IExecutionContext.set_tensor_address", "IExecutionContext.execute_async_v3"),
    }
)
RUN_OPTIONAL = frozenset(
    {
        "Runtime.engine_host_code_allowed",  # for version-compatible plans, which only full TensorRT builds
        # RTX only
        *("CudaGraphStrategy.WHOLE_GRAPH_CAPTURE", "ICudaEngine.create_runtime_config"),
        "IRuntimeConfig.cuda_graph_strategy",
    }
)

_NO_DRIVER = re.compile(r"cudaError 35\b|cudaErrorInsufficientDriver")
_WHERE = re.compile(r"\[\w+\.cpp:\d+: \w+\] ")
# TensorRT's names of datatypes, in lower case, where they are not numpy's (or ml_dtypes').
_DTYPES = {"float": "float32", "half": "float16", "bf16": "bfloat16", "fp8": "float8_e4m3fn"}


def installed(backend: Backend) -> bool:
    """Whether a library is installed; imports nothing."""
    found = (importlib.util.find_spec(name) for name in _MODULES[backend])
    return any(spec is not None and spec.origin is not None for spec in found)  # a folder of that name has no origin


def find_backend(wanted: str | None = None) -> Backend:
    """The library to build with: ``wanted``, or TensorRT before TensorRT-RTX if it is installed.

    Raises UsageError for another name and MissingDependency for a library that is not here.
    """
    if wanted is None:
        for backend in filter(installed, BACKENDS):
            return backend
        raise MissingDependency(
            f"building a plan needs TensorRT or TensorRT-RTX (neither is installed): {INSTALL_HINT}"
        )
    if wanted not in BACKENDS:
        raise UsageError(f"backend {wanted!r}: one of {', '.join(BACKENDS)}")
    backend = BACKENDS[BACKENDS.index(wanted)]
    if not installed(backend):
        raise MissingDependency(f"{TITLES[backend]} is not installed: {INSTALL_HINTS[backend]}")
    return backend


def load(backend: Backend) -> Any:
    """Import a library (100 MB of memory). Raises MissingDependency."""
    reason = "not installed"
    for name in _MODULES[backend]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError) as error:  # installed, but a shared library does not load
            reason = " ".join(str(error).split())
    raise MissingDependency(f"{TITLES[backend]} does not load ({reason}): {INSTALL_HINTS[backend]}")


def make_log(trt: Any, on_message: Callable[[str, str], None]) -> Any:
    """A logger that tells ``on_message(level, text)``; the level is error, warning or info.

    TensorRT keeps one logger for a process, the first; so one process has one use for it.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                on_message("error", message)
            else:
                on_message("warning" if severity <= trt.ILogger.WARNING else "info", message)

    return Log()


def dtype_name(dtype: Any) -> str:
    """The numpy name of a member of TensorRT's DataType."""
    name = str(dtype.name).lower()
    return _DTYPES.get(name, name)


def one_line(text: str) -> str:
    """A message as one line: its reason, without where in the library it arose and without the missing GPU."""
    lines = [line for line in text.splitlines() if line.strip() and not _NO_DRIVER.search(line)]
    if len(lines) > 1 and lines[0].startswith("Invalid Node"):
        lines = lines[1:2]  # says why; what follows are its consequences
    line = _WHERE.sub("", " ".join(" ".join(lines).split()))
    reason = re.search(r"Error Code \d+: [\w ]+ \((.*)\. In \S+ at ", line)
    return reason[1] if reason else line
