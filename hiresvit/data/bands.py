"""Rows of a picture in bands that fit a core's cache, worked on by a few threads; numpy lets go of Python's lock."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

MOST_THREADS = 4  # more have nothing to do: memory is what a picture waits for then
_LEAST = 2**18  # numbers that are worth a thread
_HELD = 2**25  # bytes that a thread holds from one picture to the next


class Buffers:
    """Arrays by name that are made once and used again: fresh memory costs as much as what is computed in it."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[Any]] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array with whatever is in it, good until the name is asked for again; a name has one type."""
        held = self._held.get(name)
        if held is None or held.size < prod(shape):
            held = self._held[name] = np.empty(prod(shape), dtype)
        return held[: prod(shape)].reshape(shape)

    def trim(self) -> None:
        """Let go of them if they are more than a frame of a camera needs."""
        if sum(array.nbytes for array in self._held.values()) > _HELD:
            self._held.clear()


_thread = threading.local()


def in_bands(rows: int, width: int, numbers: int, work: Callable[[Iterator[slice], Buffers], None]) -> None:
    """Call ``work``, once in each thread, with the bands that the thread gets of ``rows``, and with its buffers.

    ``width`` are the numbers in a row, ``numbers`` those that a band should have. Bands are slices, in ascending order.
    """
    band = max(numbers // width, 1)
    left = deque(slice(start, min(start + band, rows)) for start in range(0, rows, band))

    def taken() -> Iterator[slice]:
        while True:
            try:
                yield left.popleft()
            except IndexError:  # another thread took the last one
                return

    def run() -> None:
        buffers = _thread.__dict__.setdefault("buffers", Buffers())
        work(taken(), buffers)
        buffers.trim()

    helpers = min(thread_count(), len(left), 1 + rows * width // _LEAST) - 1
    started = [_pool(os.getpid()).submit(run) for _ in range(helpers)]
    run()
    for one in started:
        one.result()


@cache
def thread_count() -> int:
    """How many threads work on a picture: as many as this process has cores, up to four."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_THREADS)


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Of this process: what a fork copies has no threads."""
    return ThreadPoolExecutor(MOST_THREADS - 1, thread_name_prefix="hiresvit-rows")
