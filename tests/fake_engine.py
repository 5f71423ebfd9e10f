"""A TensorRT that runs plans in host memory, on the CUDA of `fake_cuda`.

Its classes have the names in `RUN_CALLS` and `RUN_OPTIONAL` of the runner and no others, so that a name that real
TensorRT lacks is found. A capture before the first run of a shape is an AssertionError.
"""

from __future__ import annotations

import ctypes
import gc
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from fake_cuda import RTX_4090, FakeCuda
from numpy.typing import NDArray

from hiresvit.device.cuda import Device
from hiresvit.runtime.tensorrt_runner import TensorRTRunner

RUN_MS = 2.0


class TensorIOMode(Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class TensorLocation(Enum):
    DEVICE = 0
    HOST = 1


class TensorFormat(Enum):
    LINEAR = 0
    CHW16 = 4


class DataType(Enum):
    FLOAT = "float32"
    HALF = "float16"
    BF16 = "bfloat16"
    FP8 = "float8_e4m3fn"
    INT8 = "int8"
    INT32 = "int32"
    INT64 = "int64"
    BOOL = "bool"
    UINT8 = "uint8"
    INT4 = "int4"
    FP4 = "float4_e2m1fn"


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


@dataclass(frozen=True)
class Tensor:
    """An input or output; -1 in the shape is a dynamic size."""

    name: str
    mode: TensorIOMode
    shape: tuple[int, ...]
    dtype: DataType = DataType.FLOAT
    location: TensorLocation = TensorLocation.DEVICE
    format: TensorFormat = TensorFormat.LINEAR


def double_plus_one(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {"y": (inputs["x"] * 2 + 1).astype(inputs["x"].dtype)}


@dataclass(frozen=True)
class Network:
    """What a plan computes; by default y = 2 x + 1. ``output_shape`` follows from the first input's.

    ``profile`` is that of every input, ``others`` has those that differ.
    """

    tensors: tuple[Tensor, ...] = (
        Tensor("x", TensorIOMode.INPUT, (-1, 2)),
        Tensor("y", TensorIOMode.OUTPUT, (-1, 2)),
    )
    profile: tuple[tuple[int, ...], ...] = ((1, 2), (2, 2), (4, 2))
    compute: Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]] = double_plus_one
    output_shape: Callable[[tuple[int, ...]], tuple[int, ...]] = lambda shape: shape
    plan: bytes = b"a plan"
    others: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)

    def profile_of(self, name: str) -> tuple[tuple[int, ...], ...]:
        return self.others.get(name, self.profile)

    def __getitem__(self, name: str) -> Tensor:
        return next(tensor for tensor in self.tensors if tensor.name == name)


def network(dtype: DataType = DataType.FLOAT, shape: tuple[int, ...] = (-1, 2), **of_output: Any) -> Network:
    """The default one, with other tensors."""
    tensors = (
        Tensor("x", TensorIOMode.INPUT, shape, dtype),
        Tensor("y", TensorIOMode.OUTPUT, shape, **{"dtype": dtype, **of_output}),
    )
    return Network(tensors)


@dataclass(eq=False)
class FakeTensorRT:
    """The module. ``refuse`` has the names of calls that fail, as TensorRT says it: with a logged line and a zero."""

    cuda: FakeCuda
    network: Network = field(default_factory=Network)
    refuse: set[str] = field(default_factory=set)
    warning: str = ""
    __name__ = "tensorrt"
    __version__ = "10.3.0"
    TensorIOMode = TensorIOMode
    TensorLocation = TensorLocation
    TensorFormat = TensorFormat

    def __post_init__(self) -> None:
        self.log: Any = None  # TensorRT keeps the first it gets
        self.alive: Counter[str] = Counter()
        self.contexts: list[Any] = []

    class ILogger:
        ERROR = Severity.ERROR
        WARNING = Severity.WARNING

        def log(self, severity: Severity, message: str) -> None:
            raise NotImplementedError

    def Runtime(self, log: Any) -> Runtime:  # noqa: N802  (TensorRT's name)
        if "Runtime" in self.refuse:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.log = self.log or log
        assert self.log is log, "a second log is ignored, and the first must live on"
        return Runtime(self)

    def refuses(self, name: str, why: str = "Error Code 1: Cuda Runtime (out\nof luck)") -> bool:
        if name in self.refuse:
            self.log.log(Severity.INFO, "an aside")
            self.log.log(Severity.ERROR, why)
            self.log.log(Severity.INFO, "another")
        return name in self.refuse


class FakeRTX(FakeTensorRT):
    """The other module, which records graphs by itself."""

    __name__ = "tensorrt_rtx"
    __version__ = "1.7.1.116"

    class CudaGraphStrategy(Enum):
        DISABLED = 0
        WHOLE_GRAPH_CAPTURE = 1


class _Counted:
    """Counts how many of its kind are alive."""

    def __init__(self, trt: FakeTensorRT) -> None:
        self._trt = trt
        trt.alive[type(self).__name__] += 1

    def __del__(self) -> None:
        self._trt.alive[type(self).__name__] -= 1


class Runtime(_Counted):
    engine_host_code_allowed = False

    def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
        trt = self._trt
        if trt.warning:
            trt.log.log(Severity.WARNING, trt.warning)
        if plan != trt.network.plan:
            trt.log.log(Severity.ERROR, "IRuntime::deserializeCudaEngine: Error Code 1: magic tag does not match")
            return None
        if trt.refuses("memory", "Error Code 1: Cuda Runtime (out of memory)"):
            return None
        return ICudaEngine(trt, self)


class ICudaEngine(_Counted):
    def __init__(self, trt: FakeTensorRT, runtime: Runtime) -> None:
        super().__init__(trt)
        self._runtime = runtime
        self._network = trt.network
        self.num_io_tensors = len(trt.network.tensors)

    def get_tensor_name(self, index: int) -> str:
        return self._network.tensors[index].name

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self._network[name].mode

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._network[name].dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._network[name].shape

    def get_tensor_location(self, name: str) -> TensorLocation:
        return self._network[name].location

    def get_tensor_format(self, name: str) -> TensorFormat:
        return self._network[name].format

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert profile_index == 0
        assert -1 in self._network[name].shape, "asked for a profile of what has none"
        return list(self._network.profile_of(name))

    def create_runtime_config(self) -> IRuntimeConfig:
        assert isinstance(self._trt, FakeRTX)
        return IRuntimeConfig()

    def create_execution_context(self, config: IRuntimeConfig | None = None) -> IExecutionContext | None:
        if self._trt.refuses("create_execution_context"):
            return None
        context = IExecutionContext(self._trt, self, config)
        self._trt.contexts.append(context.record)
        return context


class IRuntimeConfig:
    cuda_graph_strategy: Any = None


class IExecutionContext(_Counted):
    def __init__(self, trt: FakeTensorRT, engine: ICudaEngine, config: IRuntimeConfig | None) -> None:
        super().__init__(trt)
        self._engine = engine
        self._network = trt.network
        self._addresses: dict[str, int] = {}
        self._shapes = {t.name: t.shape for t in self._inputs()}
        self._warm = False
        self.record: dict[str, Any] = {"executions": 0, "strategy": config and config.cuda_graph_strategy}

    def __del__(self) -> None:
        self._trt.cuda.order.append("context")
        super().__del__()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if self._trt.refuses("set_input_shape"):
            return False
        tensor = self._network[name]
        assert tensor.mode is TensorIOMode.INPUT
        least, _, most = self._network.profile_of(name)
        assert all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))
        self._shapes[name] = shape
        self._warm = False
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if self._network[name].mode is TensorIOMode.INPUT:
            return self._shapes[name]
        if -1 not in self._network[name].shape:
            return self._network[name].shape
        return self._network.output_shape(self._shapes[self._inputs()[0].name])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if self._trt.refuses("set_tensor_address"):
            return False
        self._addresses[name] = self._trt.cuda.at(memory, 0)
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        cuda = self._trt.cuda
        if self._trt.refuses("execute_async_v3"):
            return False
        recording = cuda.is_recording(stream_handle)
        assert self._warm or not recording, "recorded before its first run"
        if recording and self._trt.refuses("capture", "Error Code 1: operation not permitted while recording"):
            return False
        self._warm = True
        self.record["executions"] += 1
        addresses, shapes = (
            dict(self._addresses),
            {t.name: self.get_tensor_shape(t.name) for t in self._all()},
        )
        assert addresses.keys() == shapes.keys(), "an address is missing"
        assert all(size >= 0 for shape in shapes.values() for size in shape), "a size is missing"
        cuda.queue(stream_handle, lambda: self._execute(addresses, shapes))
        return True

    def _execute(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> float:
        arrays = {t.name: self._array(t, addresses[t.name], shapes[t.name]) for t in self._all()}
        for name, value in self._network.compute({t.name: arrays[t.name] for t in self._inputs()}).items():
            arrays[name][...] = value
        return RUN_MS

    def _array(self, tensor: Tensor, address: int, shape: tuple[int, ...]) -> NDArray[Any]:
        dtype = np.dtype(getattr(ml_dtypes, tensor.dtype.value, tensor.dtype.value))
        size = int(np.prod(shape)) * dtype.itemsize
        memory: Any = (ctypes.c_uint8 * size).from_address(self._trt.cuda.at(address, size))
        found: NDArray[Any] = np.frombuffer(memory, dtype).reshape(shape)
        return found

    def _all(self) -> tuple[Tensor, ...]:
        return self._network.tensors

    def _inputs(self) -> list[Tensor]:
        return [tensor for tensor in self._network.tensors if tensor.mode is TensorIOMode.INPUT]


def batch(size: int, start: float = 0.0) -> NDArray[np.float32]:
    """An input of the default network."""
    return np.arange(start, start + 2 * size, dtype=np.float32).reshape(size, 2)


def nothing_is_left(cuda: FakeCuda, trt: FakeTensorRT) -> bool:
    """Neither memory and handles nor objects of TensorRT."""
    gc.collect()
    return not cuda.held() and not +trt.alive


def save_plan(folder: Path) -> Path:
    """A file that the fake TensorRT takes for a plan of its network."""
    path = folder / "a.plan"
    path.write_bytes(Network.plan)
    return path


def opened(
    folder: Path,
    what: Network | None = None,
    *,
    rtx: bool = False,
    device: Device = RTX_4090,
    **options: Any,
) -> tuple[TensorRTRunner, FakeCuda, FakeTensorRT]:
    """A runner, and the CUDA and the TensorRT that it is on; ``options`` are the runner's."""
    cuda = FakeCuda(device)
    trt = (FakeRTX if rtx else FakeTensorRT)(cuda, what or Network())
    return TensorRTRunner._open(save_plan(folder), trt, cuda, **options), cuda, trt
