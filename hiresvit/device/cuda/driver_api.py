"""CUDA through ``pycuda``: the driver API, in the GPU's primary context, which is the one TensorRT uses.

No release of pycuda captures graphs (2026.1 is the last one seen). Not run on a GPU here: pycuda 2026.1 was compiled
and run against a stand-in for the driver over host memory, which shows that names, arguments and the order of frees
are right, and no more.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from hiresvit.device import cuda
from hiresvit.device.cuda import Binding, Bytes, Device, version_text
from hiresvit.errors import MissingDependency, UsageError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, for which pycuda has no name


def open_api() -> DriverApi:
    """Raises MissingDependency without a driver or a GPU, UsageError in a program with a context of its own."""
    driver = cuda.load_binding("pycuda", "pycuda.driver")
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise cuda.no_gpu(f" ({error})") from error
    if not count:
        raise cuda.no_gpu()
    return DriverApi(driver)


class DriverApi:
    """See `hiresvit.device.cuda.Cuda`. ``driver`` is the module ``pycuda.driver``.

    The primary context is current only inside a call: pycuda aborts a process that ends with one still current,
    and frees nothing in a thread that has none. TensorRT finds the same context by itself.
    """

    binding: Binding = "pycuda"

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._context = _primary_context(driver)
        current = driver.Context.get_current()
        if current is not None and current != self._context:
            raise UsageError(
                "a pycuda context other than the GPU's primary one is current, where TensorRT would not find our"
                " memory: import pycuda.autoprimaryctx instead of pycuda.autoinit"
            )
        # pycuda frees an object when Python forgets it, so each stays here until it is given back.
        self._objects: dict[tuple[str, int], Any] = {}

    def device(self, index: int = 0) -> Device:
        driver = self._driver
        with self._current("cuDeviceGet"):
            device = driver.Device(index)
            major, minor = device.compute_capability()
            return Device(
                name=device.name(),
                compute_capability=f"{major}.{minor}",
                integrated=bool(device.get_attribute(driver.device_attribute.INTEGRATED)),
                total_bytes=int(device.total_memory()),
                driver_version=version_text(driver.get_driver_version()),
                runtime_version=".".join(str(part) for part in driver.get_version()[:2]),
            )

    def malloc(self, size: int) -> int:
        with self._current("cuMemAlloc", size):
            memory = self._driver.mem_alloc(size)
            return self._keep("memory", int(memory), memory)

    def free(self, pointer: int) -> None:
        with self._current("cuMemFree"):
            self._objects.pop(("memory", pointer)).free()

    def host_alloc(self, size: int, *, mapped: bool = False) -> Bytes:
        flags = self._driver.host_alloc_flags.DEVICEMAP if mapped else 0
        with self._current("cuMemHostAlloc", size):
            buffer: Bytes = self._driver.pagelocked_empty(size, "uint8", mem_flags=flags)
            self._keep("host", buffer.ctypes.data, buffer.base)
            return buffer

    def host_free(self, buffer: Bytes) -> None:
        with self._current("cuMemFreeHost"):
            self._objects.pop(("host", buffer.ctypes.data)).free()

    def device_pointer(self, buffer: Bytes) -> int:
        with self._current("cuMemHostGetDevicePointer"):
            return int(self._objects["host", buffer.ctypes.data].get_device_pointer())

    def stream_create(self) -> int:
        with self._current("cuStreamCreate"):
            stream = self._driver.Stream(_NON_BLOCKING)
            return self._keep("stream", int(stream.handle), stream)

    def stream_synchronize(self, stream: int) -> None:
        with self._current("cuStreamSynchronize"):
            self._objects["stream", stream].synchronize()

    def stream_destroy(self, stream: int) -> None:
        with self._current("cuStreamDestroy"):
            del self._objects["stream", stream]

    def copy_to_device(self, pointer: int, buffer: Bytes, stream: int) -> None:
        with self._current("cuMemcpyHtoDAsync"):
            self._driver.memcpy_htod_async(pointer, buffer, self._objects["stream", stream])

    def copy_to_host(self, buffer: Bytes, pointer: int, stream: int) -> None:
        with self._current("cuMemcpyDtoHAsync"):
            self._driver.memcpy_dtoh_async(buffer, pointer, self._objects["stream", stream])

    def event_create(self) -> int:
        with self._current("cuEventCreate"):
            event = self._driver.Event()
            return self._keep("event", id(event), event)

    def event_record(self, event: int, stream: int) -> None:
        with self._current("cuEventRecord"):
            self._objects["event", event].record(self._objects["stream", stream])

    def event_elapsed_ms(self, start: int, end: int) -> float:
        with self._current("cuEventElapsedTime"):
            return float(self._objects["event", start].time_till(self._objects["event", end]))

    def event_destroy(self, event: int) -> None:
        with self._current("cuEventDestroy"):
            del self._objects["event", event]

    def check_capture(self, *_: Any, **__: Any) -> NoReturn:
        raise MissingDependency(f"pycuda cannot record a CUDA graph, cuda-bindings can: {cuda.install_hint()}")

    capture_begin = capture_end = graph_launch = graph_destroy = check_capture

    def _keep(self, kind: str, key: int, made: Any) -> int:
        self._objects[kind, key] = made
        return key

    @contextmanager
    def _current(self, call: str, size: int | None = None) -> Iterator[None]:
        """Make the primary context current and turn pycuda's errors into ours."""
        driver = self._driver
        try:
            self._context.push()
            try:
                yield
            finally:
                driver.Context.pop()
        except driver.Error as error:
            words, out_of_memory = " ".join(str(error).split()), isinstance(error, driver.MemoryError)
            raise cuda.failure(call, words, out_of_memory=out_of_memory, size=size) from error


@functools.cache
def _primary_context(driver: Any) -> Any:
    """The one of GPU 0, for as long as the process lives.

    Left to be forgotten, pycuda lets go of it by the wrong call. Finalizers run from the last made to the first: what
    uses the context and is tidied up by one of its own comes before it.
    """
    context = driver.Device(0).retain_primary_context()
    weakref.finalize(driver, context.detach)
    return context
