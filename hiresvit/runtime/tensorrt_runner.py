"""Run a plan with TensorRT or TensorRT-RTX on an NVIDIA GPU.

Not run on a GPU here: the tests drive it with an engine and a CUDA made of host memory (``tests/fake_engine.py``),
whose names are held against those of the real libraries.
"""

from __future__ import annotations

import functools
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from hiresvit.device.cuda import Cuda
from hiresvit.device.cuda.open import open_cuda
from hiresvit.device.plan import Profile, read_plan
from hiresvit.device.tensorrt_api import TITLES, dtype_name, find_backend, load, make_log
from hiresvit.errors import ArtefactError, HiresvitError, MissingDependency, UsageError
from hiresvit.runtime import preflight
from hiresvit.runtime.runner import About, Feeds, GpuTimes, Runner, check_feeds
from hiresvit.runtime.tensorrt_memory import Buffer
from hiresvit.spec import TensorSpec

# One byte or more for each element, and laid out as numpy (or ml_dtypes) lays them out.
_DTYPES = ("float32", "float16", "bfloat16", "float8_e4m3fn", "int8", "uint8", "int32", "int64", "bool")


class TensorRTRunner(Runner):
    """A plan on GPU 0. Calls may come from any thread and run one after the other.

    ``cuda_graph`` launches the network's kernels as one: TensorRT-RTX does that by itself when it is told to, with
    TensorRT the first call of each new shape is also recorded and later calls replay it.

    Inputs and outputs live in pinned memory, on a Jetson in memory that host and GPU share. Buffers grow when a larger
    shape comes and stay. ``best_shapes`` are those of the inputs that the plan was tuned for. ``warnings`` are
    TensorRT's from loading the plan, for example that it was built on another model of GPU.

    Raises HiresvitError if the file is missing or CUDA refuses something, ArtefactError for a plan that is damaged,
    does not match its sidecar, or belongs to another version or GPU, MissingDependency without TensorRT, a CUDA
    binding or a GPU, and UsageError for tensors that numpy cannot hold.
    """

    def __init__(self, path: Path, *, cuda_graph: bool = False) -> None:
        path = Path(path)
        header, sidecar = preflight.check_file(path)
        preflight.check_platform(path, sidecar)
        if version := preflight.installed_version(header.backend):
            preflight.check_version(path, header, sidecar, version)
        try:
            cuda = open_cuda()  # before TensorRT: that crashes where CUDA does not work
            trt = load(find_backend(header.backend))
        except MissingDependency as error:
            raise MissingDependency(f"{path}: {error}") from error
        preflight.check_version(path, header, sidecar, trt.__version__)
        preflight.check_device(path, header, sidecar, cuda.device())
        self.metadata = sidecar.metadata if sidecar else {}
        self._start(path, trt, cuda, cuda_graph=cuda_graph, host_code=preflight.allow_host_code(path, sidecar))

    @classmethod
    def _open(
        cls, path: Path, trt: Any, cuda: Cuda, *, cuda_graph: bool = False, host_code: bool = False
    ) -> TensorRTRunner:
        """A runner on libraries that are given, without any check of the plan beforehand; for tests."""
        runner = cls.__new__(cls)
        runner._start(path, trt, cuda, cuda_graph=cuda_graph, host_code=host_code)
        return runner

    def _start(self, path: Path, trt: Any, cuda: Cuda, *, cuda_graph: bool, host_code: bool) -> None:
        self._path, self._trt, self._cuda = path, trt, cuda
        self._lock = threading.Lock()
        # TensorRT's objects, never in a variable: an error would keep them alive.
        self._held: dict[str, Any] = {}
        self._views: dict[str, NDArray[Any]] = {}  # the host's side of the buffers, as arrays
        self._graph: list[int] = []  # one or none
        self._shapes: tuple[tuple[int, ...], ...] | None = None
        self._has_run = False
        # Closed from the last to the first; knows nothing of self, so that self can go.
        resources = ExitStack()
        try:
            self._load(resources.callback, host_code)
            self._allocate(resources.callback, cuda_graph)
        except BaseException:
            with suppress(HiresvitError):  # what went wrong first is the reason
                resources.close()
            raise
        self._finish = weakref.finalize(self, resources.close)  # also for a runner that nobody closes

    def _load(self, free: Callable[..., Any], host_code: bool) -> None:
        """Deserialize the plan and read what goes in and out."""
        trt, held = self._trt, self._held
        log, self._said = _log(trt)
        self._said.clear()
        free(held.clear)
        try:
            held["runtime"] = trt.Runtime(log)
        except (TypeError, RuntimeError) as error:  # how its Python module says that it got nothing
            raise HiresvitError(f"{_title(trt)} does not start here ({self._last_words()})") from error
        if host_code:
            held["runtime"].engine_host_code_allowed = True  # or a version-compatible plan is refused
        held["engine"] = held["runtime"].deserialize_cuda_engine(read_plan(self._path))
        if held["engine"] is None:
            words = self._last_words()
            if "memory" in words.lower():
                raise HiresvitError(f"{self._path}: {words}; close what else uses the GPU")
            raise ArtefactError(f"{self._path}: {_title(trt)} cannot load it ({words}); build it again here")
        names = [held["engine"].get_tensor_name(i) for i in range(held["engine"].num_io_tensors)]
        is_input = {n: held["engine"].get_tensor_mode(n) == trt.TensorIOMode.INPUT for n in names}
        self.inputs = tuple(self._spec(name) for name in names if is_input[name])
        self.outputs = tuple(self._spec(name) for name in names if not is_input[name])
        self._profiles = {spec.name: self._profile(spec) for spec in self.inputs}

    def _allocate(self, free: Callable[..., Any], cuda_graph: bool) -> None:
        """Make what a call needs; the buffers get their memory with the first shapes."""
        cuda, held = self._cuda, self._held
        self._stream = cuda.stream_create()
        free(cuda.stream_destroy, self._stream)
        self._events: list[int] = []
        for _ in range(4):
            self._events.append(cuda.event_create())
            free(cuda.event_destroy, self._events[-1])
        device = cuda.device()
        self.about = About(_name(self._trt), str(self._trt.__version__), device.name)
        self._buffers = {spec.name: Buffer(cuda, device.integrated) for spec in (*self.inputs, *self.outputs)}
        for buffer in self._buffers.values():
            free(buffer.free)
        free(self._views.clear)
        held["context"] = self._make_context(cuda_graph)
        free(held.pop, "context")
        if held["context"] is None:
            raise HiresvitError(f"{self._path}: no memory or means to run it ({self._last_words()})")
        free(_drop, cuda, self._graph)
        free(cuda.stream_synchronize, self._stream)
        self.warnings = tuple(text for level, text in self._said if level == "warning")

    def _make_context(self, cuda_graph: bool) -> Any:
        """An execution context, and in ``_captures`` whether it is us who record its graph."""
        held, trt = self._held, self._trt
        self._captures = cuda_graph and not hasattr(trt, "CudaGraphStrategy")
        if self._captures:
            self._cuda.check_capture()
        if self._captures or not cuda_graph:
            return held["engine"].create_execution_context()
        # TensorRT-RTX compiles better kernels for a shape while the first calls run, and knows when that is done. To be
        # recorded from outside, its plans would need a flag at build time.
        held["config"] = held["engine"].create_runtime_config()
        held["config"].cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return held["engine"].create_execution_context(held["config"])

    @property
    def best_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: best for name, (_, best, _) in self._profiles.items()}

    def __call__(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        with self._lock:
            self._check_open()
            check_feeds(feeds, self.inputs)
            self._said.clear()
            shapes = tuple(feeds[spec.name].shape for spec in self.inputs)
            if shapes != self._shapes:
                self._prepare(shapes)
            for spec in self.inputs:
                np.copyto(self._views[spec.name], feeds[spec.name])
            self._run()
            if self._captures and not self._graph:
                self._capture()
            return {spec.name: self._views[spec.name].copy() for spec in self.outputs}

    def last_times(self) -> GpuTimes:
        """What the last call took on the GPU. Raises UsageError before the first."""
        with self._lock:
            self._check_open()
            if not self._has_run:
                raise UsageError(f"{self._path}: nothing was run yet; call the runner first")
            marks = zip(self._events, self._events[1:], strict=False)
            h2d, compute, d2h = (self._cuda.event_elapsed_ms(start, end) for start, end in marks)
            return GpuTimes(h2d, compute, d2h, self._enqueue_ms)

    def close(self) -> None:
        with self._lock:
            self._finish()

    def _check_open(self) -> None:
        if not self._finish.alive:
            raise UsageError(f"{self._path}: the runner is closed; open it again")

    def _spec(self, name: str) -> TensorSpec:
        """Raises UsageError for a tensor that cannot be fed from numpy, or not by copying it to the GPU."""
        held, trt = self._held, self._trt
        if held["engine"].get_tensor_location(name) == trt.TensorLocation.HOST:
            raise UsageError(f"{self._path}: {name!r} is read by the host, as a shape; build it with fixed sizes")
        layout = held["engine"].get_tensor_format(name)
        if layout != trt.TensorFormat.LINEAR:
            raise UsageError(
                f"{self._path}: {name!r} is laid out as {layout.name}; build the plan with plain (LINEAR)"
                " inputs and outputs"
            )
        dtype = dtype_name(held["engine"].get_tensor_dtype(name))
        if not _numpy_knows(dtype):
            raise UsageError(f"{self._path}: {name!r} is {dtype}, which numpy cannot hold; put a Cast there")
        sizes = enumerate(held["engine"].get_tensor_shape(name))
        shape = tuple(int(n) if n >= 0 else f"{name}_{axis}" if axis else "batch" for axis, n in sizes)
        return TensorSpec(name, dtype, shape)

    def _prepare(self, shapes: tuple[tuple[int, ...], ...]) -> None:
        """Make the context, the buffers and their views fit the inputs' shapes."""
        held = self._held
        self._shapes = None  # until all of it fits
        self._views.clear()
        _drop(self._cuda, self._graph)
        for spec, shape in zip(self.inputs, shapes, strict=True):
            if any(isinstance(size, str) for size in spec.shape):
                self._check_profile(spec.name, shape)
                if not held["context"].set_input_shape(spec.name, shape):
                    self._fail(f"TensorRT does not take {spec.name!r} as {shape}")
        for spec in (*self.inputs, *self.outputs):
            shape = tuple(int(size) for size in held["context"].get_tensor_shape(spec.name))
            if min(shape, default=0) < 0:
                self._fail(f"the shape of {spec.name!r} depends on the data, and only fixed ones can be run")
            dtype = np.dtype(spec.dtype)
            buffer = self._buffers[spec.name]
            buffer.resize(math.prod(shape) * dtype.itemsize)
            if not held["context"].set_tensor_address(spec.name, buffer.pointer):
                self._fail(f"TensorRT does not take memory for {spec.name!r}")
            self._views[spec.name] = buffer.used.view(dtype).reshape(shape)
        self._shapes = shapes

    def _profile(self, spec: TensorSpec) -> Profile:
        """The shapes of an input that the plan takes; thrice the same for a fixed one."""
        fixed = tuple(size for size in spec.shape if not isinstance(size, str))
        if len(fixed) == len(spec.shape):
            return fixed, fixed, fixed
        least, best, most = self._held["engine"].get_tensor_profile_shape(spec.name, 0)
        return tuple(least), tuple(best), tuple(most)

    def _check_profile(self, name: str, shape: tuple[int, ...]) -> None:
        least, _, most = self._profiles[name]
        if not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
            raise UsageError(
                f"input {name!r} is {shape}; the plan takes {least} to {most}: build it with other --shapes"
            )

    def _run(self) -> None:
        """Copy in, compute, copy out, and wait: nothing is left in the queue, whatever happens."""
        cuda, stream = self._cuda, self._stream
        start, computing, computed, end = self._events
        self._has_run = False
        try:
            cuda.event_record(start, stream)
            for spec in self.inputs:
                self._buffers[spec.name].to_device(stream)
            cuda.event_record(computing, stream)
            began = time.perf_counter_ns()
            if self._graph:
                cuda.graph_launch(self._graph[0], stream)
            else:
                self._enqueue()
            self._enqueue_ms = (time.perf_counter_ns() - began) / 1e6
            cuda.event_record(computed, stream)
            for spec in self.outputs:
                self._buffers[spec.name].to_host(stream)
            cuda.event_record(end, stream)
            cuda.stream_synchronize(stream)
        except BaseException:
            with suppress(HiresvitError):
                cuda.stream_synchronize(stream)
            raise
        self._has_run = True

    def _enqueue(self) -> None:
        if not self._held["context"].execute_async_v3(self._stream):
            self._fail("TensorRT failed on this input")

    def _capture(self) -> None:
        """Record the kernels of the shapes at hand, which have run once: TensorRT puts some work off until then."""
        cuda, stream = self._cuda, self._stream
        try:
            cuda.capture_begin(stream)
            try:
                self._enqueue()
            except BaseException:
                with suppress(HiresvitError):  # the stream must not go on recording
                    cuda.graph_destroy(cuda.capture_end(stream))
                raise
            self._graph.append(cuda.capture_end(stream))
        except HiresvitError as error:
            raise HiresvitError(f"{error}; open the plan without a CUDA graph") from error

    def _fail(self, what: str) -> NoReturn:
        raise HiresvitError(f"{self._path}: {what} ({self._last_words()})")

    def _last_words(self) -> str:
        errors = [text for level, text in self._said if level == "error"]
        return errors[-1] if errors else "it gives no reason"


def _drop(cuda: Cuda, graph: list[int]) -> None:
    while graph:
        cuda.graph_destroy(graph.pop())


@functools.cache
def _log(trt: Any) -> tuple[Any, deque[tuple[str, str]]]:
    """TensorRT's log and its latest lines. It keeps a bare pointer to the first log of a process: one for all."""
    said: deque[tuple[str, str]] = deque(maxlen=100)

    def keep(level: str, text: str) -> None:
        if level != "info":
            said.append((level, " ".join(text.split())))

    return make_log(trt, keep), said


def _name(trt: Any) -> str:
    return TITLES["tensorrt_rtx" if "rtx" in trt.__name__ else "tensorrt"]


def _title(trt: Any) -> str:
    return f"{_name(trt)} {trt.__version__}"


def _numpy_knows(dtype: str) -> bool:
    with suppress(ImportError):
        import ml_dtypes  # noqa: F401  (tells numpy of bfloat16 and float8)
    with suppress(TypeError):
        np.dtype(dtype)
        return dtype in _DTYPES
    return False
