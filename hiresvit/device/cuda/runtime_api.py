"""CUDA through ``cuda-bindings``: the runtime API, one Python call for one of C.

Names and signatures are the same in 12.9.10 and 13.5.0, held by ``tests/device/test_cuda.py`` for the installed one.
Every call answers a tuple, the error first. No call has met a GPU here (`benchmarks/cuda_layer.py` is for that);
without one each of them answers ``cudaErrorInsufficientDriver``.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from hiresvit.device import cuda
from hiresvit.device.cuda import Binding, Bytes, Device, version_text
from hiresvit.device.platform import has_driver
from hiresvit.errors import MissingDependency

_NO_LIBRARY = "the NVIDIA driver's libcuda does not load; a container must be started with the GPU (--gpus all)"
_SIZED = ("cudaMalloc", "cudaHostAlloc")  # their first argument is a number of bytes


def open_api() -> RuntimeApi:
    """Raises MissingDependency without a GPU or a driver that is new enough."""
    runtime = cuda.load_binding("cuda-bindings", "cuda.bindings.runtime")
    error, count = runtime.cudaGetDeviceCount()
    if int(error) == 0 and count:
        return RuntimeApi(runtime)
    if error == runtime.cudaError_t.cudaErrorInsufficientDriver:
        known = runtime.cudaDriverGetVersion()[1]
        if not known:
            raise MissingDependency(_NO_LIBRARY if has_driver() else cuda.NO_GPU)
        needed = runtime.cudaRuntimeGetVersion()[1]
        raise MissingDependency(
            f"the NVIDIA driver is made for CUDA {version_text(known)}, cuda-bindings for"
            f" {version_text(needed)}: update the driver or take an older cuda-bindings, {cuda.install_hint()}"
        )
    raise cuda.no_gpu(f" ({_words(runtime, error) if int(error) else 'it counts 0'})")


class RuntimeApi:
    """See `hiresvit.device.cuda.Cuda`. ``runtime`` is the module ``cuda.bindings.runtime``."""

    binding: Binding = "cuda-bindings"

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    def device(self, index: int = 0) -> Device:
        properties = self._call("cudaGetDeviceProperties", index)
        return Device(
            name=properties.name.decode(errors="replace"),
            compute_capability=f"{properties.major}.{properties.minor}",
            integrated=bool(properties.integrated),
            total_bytes=int(properties.totalGlobalMem),
            driver_version=version_text(self._call("cudaDriverGetVersion")),
            runtime_version=version_text(self._call("cudaRuntimeGetVersion")),
        )

    def malloc(self, size: int) -> int:
        return int(self._call("cudaMalloc", size))

    def free(self, pointer: int) -> None:
        self._call("cudaFree", pointer)

    def host_alloc(self, size: int, *, mapped: bool = False) -> Bytes:
        runtime = self._runtime
        flags = runtime.cudaHostAllocMapped if mapped else runtime.cudaHostAllocDefault
        address = int(self._call("cudaHostAlloc", size, flags))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def host_free(self, buffer: Bytes) -> None:
        self._call("cudaFreeHost", buffer.ctypes.data)

    def device_pointer(self, buffer: Bytes) -> int:
        return int(self._call("cudaHostGetDevicePointer", buffer.ctypes.data, 0))

    def stream_create(self) -> int:
        return int(self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking))

    def stream_synchronize(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)

    def stream_destroy(self, stream: int) -> None:
        self._call("cudaStreamDestroy", stream)

    def copy_to_device(self, pointer: int, buffer: Bytes, stream: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", pointer, buffer.ctypes.data, buffer.nbytes, kind, stream)

    def copy_to_host(self, buffer: Bytes, pointer: int, stream: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", buffer.ctypes.data, pointer, buffer.nbytes, kind, stream)

    def event_create(self) -> int:
        return int(self._call("cudaEventCreate"))

    def event_record(self, event: int, stream: int) -> None:
        self._call("cudaEventRecord", event, stream)

    def event_elapsed_ms(self, start: int, end: int) -> float:
        return float(self._call("cudaEventElapsedTime", start, end))

    def event_destroy(self, event: int) -> None:
        self._call("cudaEventDestroy", event)

    def check_capture(self) -> None:
        pass

    def capture_begin(self, stream: int) -> None:
        # Other threads may allocate meanwhile; with the stricter mode that would spoil the recording.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def capture_end(self, stream: int) -> int:
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return int(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def graph_launch(self, graph: int, stream: int) -> None:
        self._call("cudaGraphLaunch", graph, stream)

    def graph_destroy(self, graph: int) -> None:
        self._call("cudaGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call CUDA and return what it gives beside the error."""
        error, *values = getattr(self._runtime, name)(*arguments)
        if not int(error):
            return values[0] if values else None
        # CUDA also keeps the error for whoever asks next: that would be TensorRT, about a call of its own.
        self._runtime.cudaGetLastError()
        out_of_memory = error == self._runtime.cudaError_t.cudaErrorMemoryAllocation
        size = arguments[0] if name in _SIZED else None
        raise cuda.failure(name, _words(self._runtime, error), out_of_memory=out_of_memory, size=size)


def _words(runtime: Any, error: Any) -> str:
    """``cudaErrorNoDevice: no CUDA-capable device is detected``."""
    return f"{error.name}: {runtime.cudaGetErrorString(error)[1].decode()}"
