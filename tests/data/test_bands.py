"""Rows in bands, by several threads."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from hiresvit.data import bands as module
from hiresvit.data import pixels, preprocess, resample
from hiresvit.data.bands import Buffers, in_bands
from hiresvit.spec import PreprocessSpec

OPENCV = PreprocessSpec(filter="opencv")


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads and small bands, whatever the machine and the picture."""
    monkeypatch.setattr(module, "thread_count", lambda: 4)
    monkeypatch.setattr(module, "_LEAST", 1)
    for part in (resample, pixels, preprocess):
        monkeypatch.setattr(part, "_BAND", 500)


@pytest.mark.usefixtures("four")
def test_each_row_is_worked_on_once_by_more_than_one_thread() -> None:
    seen = np.zeros(1001, int)
    threads: set[int] = set()
    both = threading.Barrier(2, timeout=20)

    def work(bands: Iterator[slice], _: Buffers) -> None:
        for number, band in enumerate(bands):
            if not number and len(threads) < 2:
                threads.add(threading.get_ident())
                both.wait()
            seen[band] += 1

    in_bands(1001, 10, 100, work)
    assert (seen == 1).all()
    assert len(threads) == 2


@pytest.mark.usefixtures("four")
def test_an_error_in_any_thread_is_raised() -> None:
    def work(bands: Iterator[slice], _: Buffers) -> None:
        for band in bands:
            if band.start == 90:
                raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        in_bands(100, 10, 100, work)


@pytest.mark.usefixtures("four")
def test_pictures_of_several_callers_do_not_mix() -> None:
    """Callers share the helpers, and each thread's buffers go from one picture to the next."""
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (rng.integers(40, 200), rng.integers(40, 200), 3)).astype(np.uint8) for _ in "12345678"
    ]
    sizes = [(int(rng.integers(20, 200)), int(rng.integers(20, 200))) for _ in images]

    def run(number: int) -> Any:
        small = resample.resample(images[number], sizes[number], OPENCV)
        return small, preprocess.normalise(small, OPENCV).copy()

    alone = [run(number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for expected, found in zip(alone, pool.map(run, range(8)), strict=True):
                for a, b in zip(expected, found, strict=True):
                    np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("four")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    """PyTorch's DataLoader forks: a pool that came along would have no threads, and wait for ever."""
    image = np.random.default_rng(0).integers(0, 256, (90, 90, 3)).astype(np.uint8)
    expected = resample.resample(image, (64, 64), OPENCV)
    child = os.fork()
    if not child:
        signal.alarm(20)  # rather than to wait for ever
        os._exit(0 if (resample.resample(image, (64, 64), OPENCV) == expected).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_large_buffers_are_let_go() -> None:
    buffers = Buffers()
    small = buffers("a", (3, 4), np.int32)
    assert np.shares_memory(buffers("a", (2, 2), np.int32), small)
    buffers.trim()
    assert np.shares_memory(buffers("a", (2, 2), np.int32), small)
    buffers("b", (2**25,), np.uint8)
    buffers.trim()
    assert not np.shares_memory(buffers("a", (2, 2), np.int32), small)
