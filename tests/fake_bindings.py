"""Stand-ins over host memory for ``cuda.bindings.runtime`` and ``pycuda.driver``, with their names and arguments.

As they are in cuda-bindings 12.9.10 and 13.5.0, and in pycuda 2026.1.
"""
# ruff: noqa: N802, N803, N815  (the names are theirs)

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

HUGE = 1 << 40
"""More bytes than there are."""


class Error(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100


class Handle(int):
    """Not a plain number, like the library's."""


class Runtime:
    """The module ``cuda.bindings.runtime``; its functions with their own parameter names."""

    cudaError_t = Error
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="h2d", cudaMemcpyDeviceToHost="d2h")
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="local")
    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0
    cudaHostAllocMapped = 2

    def __init__(self) -> None:
        self.answer: dict[str, Any] = {}  # instead of what a function would do
        self.blocks: dict[int, Any] = {}
        self.flags: list[int] = []
        self.handles: set[int] = set()
        self.events: dict[int, float] = {}
        self.work: list[Callable[[], Any]] = []
        self.recording: list[Callable[[], Any]] | None = None
        self.graphs: dict[int, list[Callable[[], Any]]] = {}
        self.cleared = 0

    def __getattribute__(self, name: str) -> Any:
        answers = object.__getattribute__(self, "__dict__").get("answer", {})
        return (lambda *_: answers[name]) if name in answers else object.__getattribute__(self, name)

    def cudaGetDeviceCount(self) -> Any:
        return Error.cudaSuccess, 1

    def cudaDriverGetVersion(self) -> Any:
        return Error.cudaSuccess, 12060

    def cudaRuntimeGetVersion(self) -> Any:
        return Error.cudaSuccess, 12090

    def cudaGetErrorString(self, error: Any) -> Any:
        return Error.cudaSuccess, b"in CUDA's own words"

    def cudaGetLastError(self) -> Any:
        self.cleared += 1
        return (Error.cudaSuccess,)

    def cudaGetDeviceProperties(self, device: int) -> Any:
        found = SimpleNamespace(name=b"Orin", major=8, minor=7, integrated=1, totalGlobalMem=7 << 30)
        return Error.cudaSuccess, found

    def cudaMalloc(self, size: int) -> Any:
        if size == HUGE:
            return Error.cudaErrorMemoryAllocation, None
        block = ctypes.create_string_buffer(size)
        self.blocks[ctypes.addressof(block)] = block
        return Error.cudaSuccess, ctypes.addressof(block)

    def cudaHostAlloc(self, size: int, flags: int) -> Any:
        self.flags.append(flags)
        return self.cudaMalloc(size)

    def cudaFree(self, devPtr: int) -> Any:
        del self.blocks[devPtr]
        return (Error.cudaSuccess,)

    def cudaFreeHost(self, ptr: int) -> Any:
        return self.cudaFree(ptr)

    def cudaHostGetDevicePointer(self, pHost: int, flags: int) -> Any:
        return Error.cudaSuccess, pHost + 0 * len(self.blocks[pHost])

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        assert flags == 1
        return self._handle()

    def cudaStreamSynchronize(self, stream: int) -> Any:
        while self.work:
            self.work.pop(0)()
        return (Error.cudaSuccess,)

    def cudaStreamDestroy(self, stream: int) -> Any:
        self.handles.remove(stream)
        return (Error.cudaSuccess,)

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: str, stream: int) -> Any:
        assert stream in self.handles
        assert kind in ("h2d", "d2h")
        (self.work if self.recording is None else self.recording).append(lambda: ctypes.memmove(dst, src, count))
        return (Error.cudaSuccess,)

    def cudaEventCreate(self) -> Any:
        return self._handle()

    def cudaEventRecord(self, event: int, stream: int) -> Any:
        self.work.append(lambda: self.events.update({event: 2.5 * len(self.events)}))
        return (Error.cudaSuccess,)

    def cudaEventElapsedTime(self, start: int, end: int) -> Any:
        return Error.cudaSuccess, self.events[end] - self.events[start]

    def cudaEventDestroy(self, event: int) -> Any:
        self.handles.remove(event)
        return (Error.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: str) -> Any:
        assert mode == "local"
        self.recording = []
        return (Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> Any:
        work, self.recording = self.recording, None
        error, graph = self._handle()
        self.graphs[graph] = work or []
        return error, graph

    def cudaGraphInstantiate(self, graph: int, flags: int) -> Any:
        error, launchable = self._handle()
        self.graphs[launchable] = self.graphs[graph]
        return error, launchable

    def cudaGraphDestroy(self, graph: int) -> Any:
        self.handles.remove(graph)
        return (Error.cudaSuccess,)

    def cudaGraphLaunch(self, graphExec: int, stream: int) -> Any:
        self.work.extend(self.graphs[graphExec])
        return (Error.cudaSuccess,)

    def cudaGraphExecDestroy(self, graphExec: int) -> Any:
        self.handles.remove(graphExec)
        return (Error.cudaSuccess,)

    def _handle(self) -> Any:
        handle = Handle(1000 + len(self.handles) + 7 * len(self.graphs))
        assert handle not in self.handles
        self.handles.add(handle)
        return Error.cudaSuccess, handle


class PycudaError(Exception):
    pass


class PycudaMemoryError(PycudaError):
    pass


class Driver:
    """The module ``pycuda.driver``. Whatever is made, used or forgotten needs a current context, as there."""

    Error = PycudaError
    MemoryError = PycudaMemoryError
    host_alloc_flags = SimpleNamespace(DEVICEMAP=2)
    device_attribute = SimpleNamespace(INTEGRATED=18)

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.current: list[Any] = []
        self.alive: list[Any] = []  # what was not given back, by id
        self.flags: list[int] = []
        self.work: list[Callable[[], Any]] = []
        self.time = 0.0
        self.context: Any = SimpleNamespace()
        self.context.push = lambda: self.current.append(self.context)
        self.context.detach = lambda: None
        self.Context = SimpleNamespace(
            pop=self.current.pop, get_current=lambda: self.current[-1] if self.current else None
        )
        driver = self

        class Device:
            def __init__(self, number: int) -> None:
                self.number = number

            @staticmethod
            def count() -> int:
                return driver.count

            def retain_primary_context(self) -> Any:
                return driver.context

            def name(self) -> str:
                return "Orin"

            def compute_capability(self) -> tuple[int, int]:
                return 8, 7

            def total_memory(self) -> int:
                return 7 << 30

            def get_attribute(self, attribute: int) -> int:
                return int(attribute == 18)

        class Thing:
            def __init__(self, flags: int = 0) -> None:
                assert driver.current, "no current context"
                self.handle, self.flags, self.at = id(self), flags, 0.0
                driver.alive.append(self.handle)

            def __del__(self) -> None:
                assert driver.current, "no current context"
                driver.alive.remove(self.handle)

            def synchronize(self) -> None:
                while driver.work:
                    driver.work.pop(0)()

            def record(self, stream: Any) -> None:
                assert stream.flags == 1

                def passed() -> None:
                    self.at, driver.time = driver.time, driver.time + 2.5

                driver.work.append(passed)

            def time_till(self, other: Any) -> float:
                return float(other.at - self.at)

        class Memory:
            def __init__(self, size: int) -> None:
                assert driver.current, "no current context"
                if size == HUGE:
                    raise PycudaMemoryError("cuMemAlloc failed: out of memory")
                self.block: Any = ctypes.create_string_buffer(size)
                driver.alive.append(id(self))

            def free(self) -> None:
                assert driver.current, "no current context"
                driver.alive.remove(id(self))

            def get_device_pointer(self) -> int:
                return ctypes.addressof(self.block)

            __int__ = get_device_pointer

        class Pinned(np.ndarray[Any, Any]):
            base: Any = None

        self.Device, self.Stream, self.Event, self.mem_alloc, self.Pinned = (
            Device,
            Thing,
            Thing,
            Memory,
            Pinned,
        )

    def init(self) -> None:
        if self.count < 0:
            raise PycudaError("cuInit failed: no CUDA-capable device is detected")

    def get_driver_version(self) -> int:
        return 12060

    def get_version(self) -> tuple[int, int, int]:
        return 12, 6, 0

    def pagelocked_empty(self, shape: int, dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
        self.flags.append(mem_flags)
        memory = self.mem_alloc(shape)
        array = np.frombuffer(memory.block, dtype).view(self.Pinned)
        array.base = memory
        return array

    def memcpy_htod_async(self, dest: int, src: NDArray[Any], stream: Any) -> None:
        assert self.current
        self.work.append(lambda: ctypes.memmove(dest, src.ctypes.data, src.nbytes))

    def memcpy_dtoh_async(self, dest: NDArray[Any], src: int, stream: Any) -> None:
        assert self.current
        self.work.append(lambda: ctypes.memmove(dest.ctypes.data, src, dest.nbytes))
