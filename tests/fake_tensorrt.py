"""A stand-in for the TensorRT module of one version, made from its recorded surface.

It compiles nothing. It has the names of that version and no others, the values of its enums, and it notes every
name that is used (see `fake_pybind`); a build and a look into the engine go through it as through the real one.
What the real module does is compared in ``test_fake_tensorrt.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from fake_pybind import BoundBuffer, BoundClass, BoundObject, Library
from tensorrt_surfaces import Surface

_DERIVABLE = ("ILogger", "IProgressMonitor", "IErrorRecorder")
_DTYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "FLOAT",
    onnx.TensorProto.FLOAT16: "HALF",
    onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.BOOL: "BOOL",
}

Value = tuple[str, int, tuple[int, ...]]
"""Name, ONNX datatype and shape of a network's input or output; -1 is a dynamic axis."""


@dataclass(frozen=True)
class Script:
    """What the stand-in does where the real one compiles.

    ``log`` is (severity, text) of what the builder says, ``information`` the JSON that the engine's inspector
    gives. The parser refuses operators in ``refused``. A build needs ``scratch`` bytes of workspace, the engine
    ``device_memory``. Without ``driver`` there is no builder. ``dropped`` names the settings, flags and pools that
    stay as they were, whatever they are set to. ``failing`` names what answers with None, False or -1: methods, and
    members of ComputeCapability.
    """

    plan: bytes = b"a plan"
    log: tuple[tuple[str, str], ...] = ()
    information: str = "{}"
    refused: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    failing: frozenset[str] = frozenset()
    scratch: int = 0
    device_memory: int = 64
    driver: bool = True


@dataclass(frozen=True)
class Build:
    """What a build was asked for: settings and pools by name, profiles as (min, opt, max) by tensor."""

    strongly_typed: bool
    flag_bits: int
    settings: dict[str, Any]
    pools: dict[str, int]
    profiles: list[dict[str, Any]]
    compute_capabilities: list[str]
    timing_cache: bytes | None


class FakeTensorRT(Library):
    """The stand-in: ``module`` takes the place of the import; ``builds`` and the names used are for the test."""

    def __init__(self, surface: Surface, script: Script | None = None) -> None:
        super().__init__(surface, _DERIVABLE)
        self.script = script or Script()
        self.builds: list[Build] = []
        self.module: Any = _Module(self)

    @property
    def always_strongly_typed(self) -> bool:
        """Whether this library knows no other networks: TensorRT from 11 on, and TensorRT-RTX."""
        return self.surface["library"] == "tensorrt_rtx" or int(self.surface["version"].split(".")[0]) >= 11


class _Module:
    def __init__(self, library: FakeTensorRT) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        library = self._library
        library.use("", name)
        if name == "__version__":
            return library.surface["version"]
        for known in (library.enums, library.bases):
            if name in known:
                return known[name]
        return BoundClass(library, name, _MADE.get(name))


class _Object(BoundObject):
    _library: FakeTensorRT


class Builder(_Object):
    def __init__(self, library: FakeTensorRT, logger: Any) -> None:
        if not isinstance(logger, library.bases["ILogger"]):
            raise TypeError("__init__(): incompatible constructor arguments")
        super().__init__(library, error_recorder=None)
        self._logger = logger
        if not library.script.driver:
            self._fail("", "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> Any:
        if flags >> (max(self._library.surface["enums"]["NetworkDefinitionCreationFlag"].values()) + 1):
            self._fail("INVALID_ARGUMENT", "IBuilder::createNetworkV2: Error Code 3: API Usage Error (flags)")
            return None
        return INetworkDefinition(self._library, flags)

    def create_builder_config(self) -> Any:
        return IBuilderConfig(self._library)

    def create_optimization_profile(self) -> Any:
        return IOptimizationProfile(self._library)

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        script = self._library.script
        for severity, text in script.log:
            self._logger.log(self._library.member("ILogger.Severity", severity), text)
        self._library.builds.append(_record(network, config))
        dynamic = {name for name, _, shape in network._inputs if -1 in shape}
        if dynamic - {name for shapes in config._profiles for name in shapes}:
            return self._fail("INVALID_CONFIG", "dynamic inputs, but no optimization profile has been defined")
        if config._pools["WORKSPACE"] < script.scratch:
            return self._fail("FAILED_ALLOCATION", "no implementation obeys the workspace limit")
        if not _walk_phases(config._values["progress_monitor"]):
            return self._fail("FAILED_EXECUTION", "Error Code 7: BuildCanceled (Build canceled by user)")
        return IHostMemory(self._library, script.plan)

    def _check(self, name: str, value: Any) -> None:
        if not isinstance(value, self._library.bases["IErrorRecorder"]):
            raise TypeError(f"incompatible function arguments: {value!r} is no IErrorRecorder")

    def _fail(self, code: str, text: str) -> None:
        """Say it where the real builder does: to its error recorder, to the logger only if it has none."""
        if (recorder := self._values["error_recorder"]) is not None:
            recorder.report_error(self._library.member("ErrorCodeTRT", code), text)
        else:
            self._logger.log(self._library.member("ILogger.Severity", "ERROR"), text)


def _record(network: Any, config: Any) -> Build:
    return Build(
        strongly_typed=network._strongly_typed,
        flag_bits=config._values["flags"],
        settings={name: getattr(value, "name", value) for name, value in config._values.items()},
        pools=dict(config._pools),
        profiles=list(config._profiles),
        compute_capabilities=[member.name for _, member in sorted(config._capabilities.items())],
        timing_cache=None if config._cache is None else config._cache._content,
    )


def _walk_phases(monitor: Any) -> bool:
    """Report two phases, one inside the other; False as soon as the monitor wants no more."""
    if monitor is None:
        return True
    monitor.phase_start("Building engine", None, 2)
    monitor.phase_start("Timing tactics", "Building engine", 3)
    goes_on = all(monitor.step_complete("Timing tactics", step) for step in range(3))
    monitor.phase_finish("Timing tactics")
    goes_on = goes_on and monitor.step_complete("Building engine", 0)
    monitor.phase_finish("Building engine")
    return goes_on


class INetworkDefinition(_Object):
    def __init__(self, library: FakeTensorRT, flags: int) -> None:
        super().__init__(library)
        bit = library.surface["enums"]["NetworkDefinitionCreationFlag"]["STRONGLY_TYPED"]
        self._strongly_typed = library.always_strongly_typed or bool(flags >> bit & 1)
        self._inputs: list[Value] = []
        self._outputs: list[Value] = []

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> Any:
        return self._tensor(self._inputs, index)

    def get_output(self, index: int) -> Any:
        return self._tensor(self._outputs, index)

    def _tensor(self, values: list[Value], index: int) -> Any:
        if index >= len(values):
            return None
        name, dtype, shape = values[index]
        known = self._library.member("DataType", _DTYPES[dtype])
        return ITensor(self._library, name=name, dtype=known, shape=shape)


class ITensor(_Object):
    pass


class OnnxParser(_Object):
    def __init__(self, library: FakeTensorRT, network: Any, logger: Any) -> None:
        super().__init__(library)
        self._network = network
        self._errors: list[ParserError] = []

    def parse_from_file(self, model: str) -> bool:
        if not isinstance(model, str):
            raise TypeError(f"parse_from_file(): incompatible function arguments: {model!r}")
        if not Path(model).is_file():
            self._errors.append(ParserError(self._library, "Input file cannot be found"))
            return False
        graph = onnx.load(model, load_external_data=False).graph
        nodes = enumerate(graph.node)
        refused = [(at, node) for at, node in nodes if node.op_type in self._library.script.refused]
        self._errors += [ParserError(self._library, "Plugin not found", *found) for found in refused]
        weights = {tensor.name for tensor in graph.initializer}
        self._network._inputs = [_value(value) for value in graph.input if value.name not in weights]
        self._network._outputs = [_value(value) for value in graph.output]
        return not refused

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index] if index < len(self._errors) else None


def _value(value: onnx.ValueInfoProto) -> Value:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
    return value.name, tensor.elem_type, shape


class ParserError(_Object):
    def __init__(self, library: FakeTensorRT, text: str, at: int = -1, node: Any = None) -> None:
        super().__init__(library)
        self._text, self._at, self._node = text, at, node or onnx.NodeProto()

    def desc(self) -> str:
        return self._text

    def node(self) -> int:
        return self._at

    def node_name(self) -> str:
        return self._node.name

    def node_operator(self) -> str:
        return self._node.op_type


class IOptimizationProfile(_Object):
    def __init__(self, library: FakeTensorRT) -> None:
        super().__init__(library)
        self._shapes: dict[str, Any] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes[input] = (tuple(min), tuple(opt), tuple(max))


class IBuilderConfig(_Object):
    def __init__(self, library: FakeTensorRT) -> None:
        super().__init__(
            library,
            builder_optimization_level=3,
            flags=1 << int(library.member("BuilderFlag", "TF32")),
            hardware_compatibility_level=library.member("HardwareCompatibilityLevel", "NONE"),
            max_aux_streams=-1,
            num_compute_capabilities=0,
            profiling_verbosity=library.member("ProfilingVerbosity", "LAYER_NAMES_ONLY"),
            progress_monitor=None,
        )
        self._pools = dict.fromkeys(library.surface["enums"]["MemoryPoolType"], 8 << 30)
        self._profiles: list[dict[str, Any]] = []
        self._capabilities: dict[int, Any] = {}
        self._cache: ITimingCache | None = None

    def set_flag(self, flag: Any) -> None:
        self._library.check_member("BuilderFlag", flag)
        if flag.name not in self._library.script.dropped:
            self._values["flags"] |= 1 << int(flag)

    def get_flag(self, flag: Any) -> bool:
        self._library.check_member("BuilderFlag", flag)
        return bool(self._values["flags"] >> int(flag) & 1)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._library.check_member("MemoryPoolType", pool)
        if pool.name not in self._library.script.dropped:
            self._pools[pool.name] = pool_size

    def get_memory_pool_limit(self, pool: Any) -> int:
        self._library.check_member("MemoryPoolType", pool)
        return self._pools[pool.name]

    def add_optimization_profile(self, profile: Any) -> int:
        if "add_optimization_profile" in self._library.script.failing:
            return -1
        self._profiles.append(profile._shapes)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        if "create_timing_cache" in self._library.script.failing:
            return None
        return ITimingCache(self._library, bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if "set_timing_cache" in self._library.script.failing:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        self._library.check_member("ComputeCapability", compute_capability)
        if compute_capability.name in self._library.script.failing:
            return False
        self._capabilities[index] = compute_capability
        return bool(index < self._values["num_compute_capabilities"])

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name in self._library.script.dropped:
            value = self._values[name]
        super().__setattr__(name, value)

    def _check(self, name: str, value: Any) -> None:
        if name != "progress_monitor":
            super()._check(name, value)
        elif not isinstance(value, self._library.bases["IProgressMonitor"]):
            raise TypeError(f"incompatible function arguments: {value!r} is no IProgressMonitor")


class ITimingCache(_Object):
    def __init__(self, library: FakeTensorRT, content: bytes) -> None:
        super().__init__(library)
        self._content = content

    def serialize(self) -> Any:
        """One more measurement than it was made with."""
        return IHostMemory(self._library, self._content + b"+")


class IHostMemory(BoundBuffer):
    @property
    def nbytes(self) -> int:
        return memoryview(self).nbytes


class Runtime(_Object):
    def __init__(self, library: FakeTensorRT, logger: Any) -> None:
        super().__init__(library, engine_host_code_allowed=False)
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        script = self._library.script
        if bytes(serialized_engine) != script.plan or "deserialize_cuda_engine" in script.failing:
            return self._refuse("this is no plan of this version")
        if self._brings_a_runtime() and not self._values["engine_host_code_allowed"]:
            return self._refuse("the plan has host code, which is not allowed")
        return ICudaEngine(self._library, device_memory_size_v2=script.device_memory)

    def _brings_a_runtime(self) -> bool:
        """Whether the plan, that of the last build, is a version-compatible one: it holds a runtime, host code."""
        # NVIDIA's guide says so; not run here, it needs a GPU.
        flag = int(self._library.member("BuilderFlag", "VERSION_COMPATIBLE"))
        return bool(self._library.builds and self._library.builds[-1].flag_bits >> flag & 1)

    def _refuse(self, reason: str) -> None:
        self._logger.log(self._library.member("ILogger.Severity", "ERROR"), reason)


class ICudaEngine(_Object):
    def create_engine_inspector(self) -> Any:
        return EngineInspector(self._library)


class EngineInspector(_Object):
    def get_engine_information(self, format: Any) -> str:
        self._library.check_member("LayerInformationFormat", format)
        return self._library.script.information if format.name == "JSON" else ""


_MADE: dict[str, Callable[..., Any]] = {"Builder": Builder, "OnnxParser": OnnxParser, "Runtime": Runtime}
