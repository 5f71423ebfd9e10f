"""What we need of CUDA, and nothing else touches it: memory, copies, streams, events, graphs.

Two libraries can stand behind it. ``cuda-bindings`` is NVIDIA's own (12.9 for JetPack 6, 13 for JetPack 7).
``pycuda`` is what many Jetson images carry; it cannot capture graphs. Everything is done on GPU 0;
``CUDA_VISIBLE_DEVICES`` says which one that is.

Pointers and handles are plain integers, as TensorRT takes them. Sizes are in bytes and at least 1.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from hiresvit.device.platform import JETPACK_7, has_driver, jetson_release
from hiresvit.errors import HiresvitError, MissingDependency

Binding = Literal["cuda-bindings", "pycuda"]
Bytes = NDArray[np.uint8]

BINDINGS: tuple[Binding, ...] = get_args(Binding)

NO_GPU = "a plan runs on an NVIDIA GPU, and this machine has none with a driver; run the .onnx graph instead"
BINDINGS_12 = "pip install 'cuda-bindings>=12.9,<13'"
BINDINGS_13 = "pip install 'cuda-bindings>=13'"


@dataclass(frozen=True)
class Device:
    """A GPU. ``integrated`` ones share the host's memory (Jetson).

    The versions are those of CUDA, for example ``12.6``: what the driver can do, and what the binding was made for.
    """

    name: str
    compute_capability: str
    integrated: bool
    total_bytes: int
    driver_version: str
    runtime_version: str


class Cuda(Protocol):
    """The operations. What CUDA refuses is a HiresvitError with the call's name and CUDA's own words.

    A copy, an event and a graph launch only join the stream's queue: nothing is done before `stream_synchronize`.
    """

    binding: Binding

    def device(self, index: int = 0) -> Device:
        """What a GPU is."""

    def malloc(self, size: int) -> int:
        """Memory on the GPU; its pointer."""

    def free(self, pointer: int) -> None:
        """Give back what `malloc` gave."""

    def host_alloc(self, size: int, *, mapped: bool = False) -> Bytes:
        """Pinned memory on the host, which the GPU sees too if ``mapped``. No view may outlive `host_free`."""

    def host_free(self, buffer: Bytes) -> None:
        """Give back what `host_alloc` gave."""

    def device_pointer(self, buffer: Bytes) -> int:
        """Where the GPU sees a mapped buffer."""

    def stream_create(self) -> int:
        """A stream that does not wait for the default stream."""

    def stream_synchronize(self, stream: int) -> None:
        """Wait until all that was queued is done."""

    def stream_destroy(self, stream: int) -> None:
        """Give back what `stream_create` gave."""

    def copy_to_device(self, pointer: int, buffer: Bytes, stream: int) -> None:
        """Queue a copy of the whole buffer, which must be pinned and stay as it is until then."""

    def copy_to_host(self, buffer: Bytes, pointer: int, stream: int) -> None:
        """Queue a copy that fills the buffer."""

    def event_create(self) -> int:
        """A mark that a stream can pass."""

    def event_record(self, event: int, stream: int) -> None:
        """Queue the mark."""

    def event_elapsed_ms(self, start: int, end: int) -> float:
        """GPU time between two marks that were passed."""

    def event_destroy(self, event: int) -> None:
        """Give back what `event_create` gave."""

    def check_capture(self) -> None:
        """Raise MissingDependency if this binding cannot record graphs."""

    def capture_begin(self, stream: int) -> None:
        """From here on what this thread queues is recorded instead of done."""

    def capture_end(self, stream: int) -> int:
        """Stop recording, also when it raises; what was recorded, ready to launch."""

    def graph_launch(self, graph: int, stream: int) -> None:
        """Queue what was recorded."""

    def graph_destroy(self, graph: int) -> None:
        """Give back what `capture_end` gave."""


def install_hint() -> str:
    """How to get a binding on this platform."""
    release = jetson_release()
    if release is None:
        return f"{BINDINGS_13} (for a driver of CUDA 12: {BINDINGS_12})"
    return BINDINGS_13 if release >= JETPACK_7 else BINDINGS_12


def load_binding(binding: Binding, module: str) -> Any:
    """Import a binding's module. Raises MissingDependency where it, or the driver it is linked to, does not load."""
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        if not has_driver():
            raise MissingDependency(NO_GPU) from error
        reason = " ".join(str(error).split())
        raise MissingDependency(f"{binding} does not load ({reason}): {install_hint()}") from error


def no_gpu(reason: str = "") -> MissingDependency:
    """The error where CUDA works and has no GPU to offer."""
    return MissingDependency(f"CUDA finds no GPU{reason}; check CUDA_VISIBLE_DEVICES, or run the .onnx graph")


def failure(call: str, words: str, *, out_of_memory: bool, size: int | None = None) -> HiresvitError:
    """The error for a call that CUDA refused; ``size`` is what an allocation asked for."""
    wanted = f" of {size:,} bytes" if size is not None else ""
    if out_of_memory:
        return HiresvitError(
            f"out of GPU memory: {call}{wanted} failed ({words}); close what else uses the GPU, or take a"
            " smaller batch or size"
        )
    return HiresvitError(f"CUDA: {call}{wanted} failed ({words})")


def version_text(number: int) -> str:
    """``12.6`` for CUDA's 12060."""
    return f"{number // 1000}.{number % 1000 // 10}"
