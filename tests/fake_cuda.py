"""A CUDA made of host memory, so that what uses CUDA can be tested without a GPU.

What the real one does not forgive is an AssertionError here: use of memory after it was freed, freeing it twice, a
copy that is larger than its memory or from memory that is not pinned, a graph that is launched with memory that is
gone, allocating while recording. Nothing that is queued happens before a synchronize, and new memory holds garbage.
"""

from __future__ import annotations

import ctypes
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from hiresvit.device.cuda import Binding, Bytes, Device
from hiresvit.errors import HiresvitError, MissingDependency

ORIN = Device("Orin", "8.7", True, 8 << 30, "12.6", "12.9")
RTX_4090 = Device("NVIDIA GeForce RTX 4090", "8.9", False, 24 << 30, "13.0", "13.0")

COPY_MS = 0.25

_ALIVE, _DEAD = 0xAB, 0xDD

Kinds = tuple[str, ...]
_ON_GPU: Kinds = ("device", "mapped")
_ON_HOST: Kinds = ("pinned", "mapped")

Work = Callable[[], float]  # does it, and says how many milliseconds it took


class FakeCuda:
    """See `hiresvit.device.cuda.Cuda`.

    ``calls`` counts by name. ``fail_at`` makes that call, counted from 0, fail, all but those that give something
    back: ``failing`` has the names of those that do what they are asked to and say that it failed.
    """

    binding: Binding = "cuda-bindings"

    def __init__(self, device: Device = RTX_4090, *, fail_at: int | None = None) -> None:
        self._device = device
        self._fail_at = fail_at
        self._done = 0
        self.failing: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.order: list[str] = []  # of what was given back
        self._handles = itertools.count(1000)
        self._memory: dict[int, tuple[str, ctypes.Array[ctypes.c_char]]] = {}
        self._graveyard: list[Any] = []  # keeps addresses from being given out twice
        self._streams: dict[int, list[Work]] = {}
        self._recording: tuple[int, list[Work]] | None = None
        self._events: dict[int, float | None] = {}
        self._graphs: dict[int, list[Work]] = {}
        self._clock_ms = 0.0

    def device(self, index: int = 0) -> Device:
        self._call("device")
        return self._device

    def malloc(self, size: int) -> int:
        self._call("malloc")
        self._no_recording()
        return self._allocate("device", size)

    def free(self, pointer: int) -> None:
        self._release("free", pointer, ("device",))

    def host_alloc(self, size: int, *, mapped: bool = False) -> Bytes:
        self._call("host_alloc")
        self._no_recording()
        pointer = self._allocate("mapped" if mapped else "pinned", size)
        block: Any = self._memory[pointer][1]
        return np.frombuffer(block, np.uint8)

    def host_free(self, buffer: Bytes) -> None:
        self._release("host_free", buffer.ctypes.data, _ON_HOST)

    def device_pointer(self, buffer: Bytes) -> int:
        self._call("device_pointer")
        assert self._memory[buffer.ctypes.data][0] == "mapped", "the GPU does not see this memory"
        return buffer.ctypes.data

    def stream_create(self) -> int:
        self._call("stream_create")
        return self._new(self._streams, [])

    def stream_synchronize(self, stream: int) -> None:
        self._call("stream_synchronize")
        assert self._recording is None, "synchronized while recording"
        queue = self._streams[stream]
        while queue:
            self._clock_ms += queue.pop(0)()

    def stream_destroy(self, stream: int) -> None:
        assert not self._streams.pop(stream), "destroyed with work in its queue"
        self._gave_back("stream_destroy")

    def copy_to_device(self, pointer: int, buffer: Bytes, stream: int) -> None:
        self._call("copy_to_device")
        self._copy((pointer, _ON_GPU), (buffer.ctypes.data, _ON_HOST), buffer.nbytes, stream)

    def copy_to_host(self, buffer: Bytes, pointer: int, stream: int) -> None:
        self._call("copy_to_host")
        self._copy((buffer.ctypes.data, _ON_HOST), (pointer, _ON_GPU), buffer.nbytes, stream)

    def event_create(self) -> int:
        self._call("event_create")
        return self._new(self._events, None)

    def event_record(self, event: int, stream: int) -> None:
        self._call("event_record")
        assert self._recording is None, "an event of a graph has no time"
        assert event in self._events
        self._events[event] = None

        def passed() -> float:
            self._events[event] = self._clock_ms
            return 0.0

        self.queue(stream, passed)

    def event_elapsed_ms(self, start: int, end: int) -> float:
        self._call("event_elapsed_ms")
        first, last = self._events[start], self._events[end]
        assert first is not None, "not passed yet"
        assert last is not None, "not passed yet"
        return last - first

    def event_destroy(self, event: int) -> None:
        del self._events[event]
        self._gave_back("event_destroy")

    def check_capture(self) -> None:
        if self.binding == "pycuda":
            raise MissingDependency("pycuda cannot")

    def capture_begin(self, stream: int) -> None:
        self._call("capture_begin")
        assert self._recording is None
        assert not self._streams[stream]
        self._recording = stream, []

    def capture_end(self, stream: int) -> int:
        assert self.is_recording(stream)
        assert self._recording is not None
        (_, work), self._recording = self._recording, None
        self._call("capture_end")
        return self._new(self._graphs, work)

    def graph_launch(self, graph: int, stream: int) -> None:
        self._call("graph_launch")
        work = list(self._graphs[graph])
        self.queue(stream, lambda: sum(part() for part in work))

    def graph_destroy(self, graph: int) -> None:
        del self._graphs[graph]
        self._gave_back("graph_destroy")

    def queue(self, stream: int, work: Work) -> None:
        """Something for a stream to do later, or to record."""
        assert stream in self._streams, "no such stream"
        if self._recording is not None and self._recording[0] == stream:
            self._recording[1].append(work)
        else:
            self._streams[stream].append(work)

    def is_recording(self, stream: int) -> bool:
        return self._recording is not None and self._recording[0] == stream

    def at(self, pointer: int, size: int, kinds: Kinds = _ON_GPU) -> int:
        """The pointer, if that much live memory of that kind lies behind it."""
        assert pointer in self._memory, "no such memory: freed, or never allocated"
        kind, block = self._memory[pointer]
        assert kind in kinds, f"{kind} memory, not {kinds}"
        assert size <= len(block), f"{size} bytes of {len(block)}"
        return pointer

    def held(self) -> Counter[str]:
        """What was not given back, by kind."""
        found = Counter(kind for kind, _ in self._memory.values())
        for kind in ("streams", "events", "graphs"):
            found[kind] += len(getattr(self, f"_{kind}"))
        return +found

    def _call(self, name: str) -> None:
        self.calls[name] += 1
        self._done += 1
        if self._done - 1 == self._fail_at or name in self.failing:
            raise HiresvitError(f"CUDA: {name} failed")

    def _gave_back(self, name: str) -> None:
        self.order.append(name)
        self.calls[name] += 1
        if name in self.failing:
            raise HiresvitError(f"CUDA: {name} failed")

    def _new(self, where: dict[int, Any], what: Any) -> int:
        handle = next(self._handles)
        where[handle] = what
        return handle

    def _no_recording(self) -> None:
        assert self._recording is None, "allocated while recording"

    def _allocate(self, kind: str, size: int) -> int:
        assert size > 0
        if size > self._device.total_bytes:
            raise HiresvitError("out of GPU memory")
        block = ctypes.create_string_buffer(size)
        ctypes.memset(block, _ALIVE, size)
        self._memory[ctypes.addressof(block)] = kind, block
        return ctypes.addressof(block)

    def _release(self, name: str, pointer: int, kinds: Kinds) -> None:
        self.at(pointer, 0, kinds)
        assert not any(self._streams.values()), "freed while work is queued"
        _, block = self._memory.pop(pointer)
        ctypes.memset(block, _DEAD, len(block))
        self._graveyard.append(block)
        self._gave_back(name)

    def _copy(self, to: tuple[int, Kinds], source: tuple[int, Kinds], size: int, stream: int) -> None:
        def copy() -> float:
            ctypes.memmove(self.at(to[0], size, to[1]), self.at(source[0], size, source[1]), size)
            return COPY_MS

        self.at(to[0], size, to[1])
        self.at(source[0], size, source[1])
        self.queue(stream, copy)
