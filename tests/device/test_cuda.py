"""Both bindings: the real cuda-bindings as far as it goes without a GPU, and both on stand-ins over host memory.

The stand-in for cuda-bindings is held against the installed one; pycuda does not install without a CUDA driver.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import runpy
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_bindings import HUGE, Driver, Error, Runtime
from fake_cuda import FakeCuda

from hiresvit.device import cuda, platform
from hiresvit.device.cuda import Cuda, Device
from hiresvit.device.cuda import open as opening
from hiresvit.device.cuda.driver_api import DriverApi
from hiresvit.device.cuda.runtime_api import RuntimeApi
from hiresvit.device.platform import has_driver
from hiresvit.errors import HiresvitError, MissingDependency, UsageError

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "cuda_layer.py"

needs_bindings = pytest.mark.skipif("cuda-bindings" not in opening.installed(), reason="cuda-bindings")
without_gpu = pytest.mark.skipif(has_driver(), reason="there is an NVIDIA driver here")


def runtime() -> Cuda:
    return RuntimeApi(Runtime())


def driver() -> Cuda:
    return DriverApi(Driver())


def fake() -> Cuda:
    return FakeCuda()


@pytest.mark.parametrize("make", [runtime, driver, fake])
class TestAlike:
    """What must be the same of each, the tests' own `FakeCuda` among them."""

    def test_copies_and_times(self, make: Callable[[], Cuda]) -> None:
        with_cuda = make()
        stream, start, end = with_cuda.stream_create(), with_cuda.event_create(), with_cuda.event_create()
        memory, there, back = with_cuda.malloc(64), with_cuda.host_alloc(64), with_cuda.host_alloc(80)
        assert there.dtype == np.uint8
        assert (there.shape, back.shape) == ((64,), (80,))
        assert all(type(number) is int for number in (stream, start, end, memory))
        there[:], back[:] = np.arange(64), 255
        with_cuda.event_record(start, stream)
        with_cuda.copy_to_device(memory, there, stream)
        with_cuda.copy_to_host(back[:64], memory, stream)
        with_cuda.event_record(end, stream)
        assert (back == 255).all(), "nothing happens before it is waited for"
        with_cuda.stream_synchronize(stream)
        assert back.tolist() == [*range(64), *[255] * 16]
        assert with_cuda.event_elapsed_ms(start, end) > 0
        del there, back  # a view may be gone before its memory, not after
        with_cuda.free(memory)
        with_cuda.event_destroy(start)
        with_cuda.event_destroy(end)
        with_cuda.stream_destroy(stream)

    def test_memory_is_given_back(self, make: Callable[[], Cuda]) -> None:
        with_cuda = make()
        for _ in range(3):
            with_cuda.free(with_cuda.malloc(1))
            pinned, mapped = with_cuda.host_alloc(5), with_cuda.host_alloc(7, mapped=True)
            assert with_cuda.device_pointer(mapped) == mapped.ctypes.data
            with_cuda.host_free(pinned)
            with_cuda.host_free(mapped)
        if isinstance(with_cuda, FakeCuda):
            assert not with_cuda.held()
        else:
            inside = vars(with_cuda).get("_runtime") or vars(with_cuda)["_driver"]
            assert inside.flags == [0, 2] * 3
            assert not (inside.blocks if isinstance(inside, Runtime) else inside.alive)

    def test_graphs(self, make: Callable[[], Cuda]) -> None:
        with_cuda = make()
        if with_cuda.binding == "pycuda":
            for call in (with_cuda.check_capture, lambda: with_cuda.capture_begin(1)):
                with pytest.raises(MissingDependency, match="pycuda cannot record a CUDA graph, cuda-bindings can"):
                    call()
            return
        with_cuda.check_capture()
        stream, memory = with_cuda.stream_create(), with_cuda.malloc(4)
        there, back = with_cuda.host_alloc(4), with_cuda.host_alloc(4)
        with_cuda.capture_begin(stream)
        with_cuda.copy_to_device(memory, there, stream)
        with_cuda.copy_to_host(back, memory, stream)
        graph = with_cuda.capture_end(stream)
        for value in (3, 4):
            there[:] = value
            with_cuda.graph_launch(graph, stream)
            with_cuda.stream_synchronize(stream)
            assert (back == value).all()
        with_cuda.graph_destroy(graph)
        with_cuda.stream_destroy(stream)


@pytest.mark.parametrize("make", [runtime, driver])
class TestErrors:
    def test_no_memory(self, make: Callable[[], Cuda]) -> None:
        for allocate in (make().malloc, make().host_alloc):
            with pytest.raises(HiresvitError, match=r"^out of GPU memory: cu\w+ of 1,099,511,627,776 bytes failed"):
                allocate(HUGE)

    def test_device(self, make: Callable[[], Cuda]) -> None:
        found = make().device()
        assert found == Device("Orin", "8.7", True, 7 << 30, "12.6", found.runtime_version)
        assert found.runtime_version in ("12.6", "12.9")


def test_cudas_own_words_and_no_error_left_for_others() -> None:
    stand_in = Runtime()
    stand_in.answer["cudaStreamSynchronize"] = (Error.cudaErrorInvalidValue,)
    with pytest.raises(HiresvitError) as caught:
        RuntimeApi(stand_in).stream_synchronize(1)
    assert str(caught.value) == "CUDA: cudaStreamSynchronize failed (cudaErrorInvalidValue: in CUDA's own words)"
    assert stand_in.cleared == 1


def test_a_graph_that_cannot_be_made_launchable_is_given_back() -> None:
    stand_in = Runtime()
    with_cuda = RuntimeApi(stand_in)
    stream = with_cuda.stream_create()
    with_cuda.capture_begin(stream)
    stand_in.answer["cudaGraphInstantiate"] = (Error.cudaErrorInvalidValue, None)
    with pytest.raises(HiresvitError, match="cudaGraphInstantiate failed"):
        with_cuda.capture_end(stream)
    assert stand_in.handles == {stream}


class TestOpening:
    @pytest.fixture
    def machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        """A machine of one's own: ``packages`` are installed, ``modules`` come with them; no driver, no Jetson."""
        machine = SimpleNamespace(packages=set(), modules={}, driver=tmp_path / "nvidia", tegra=tmp_path / "tegra")

        def find_spec(name: str) -> ModuleSpec | None:
            if name == "cuda.bindings" and name not in machine.packages:
                raise ModuleNotFoundError("No module named 'cuda'")
            return ModuleSpec(name, None) if name in machine.packages else None

        def import_module(name: str) -> Any:
            if isinstance(machine.modules[name], Exception):
                raise machine.modules[name]
            return machine.modules[name]

        monkeypatch.setattr(importlib.util, "find_spec", find_spec)
        monkeypatch.setattr(importlib, "import_module", import_module)
        monkeypatch.setattr(platform, "_DRIVER_FILES", (machine.driver,))
        monkeypatch.setattr(platform, "_TEGRA_RELEASE", machine.tegra)
        return machine

    def said(self, binding: str | None = None) -> str:
        with pytest.raises(MissingDependency) as caught:
            opening.open_cuda(binding)
        assert caught.value.exit_code == 6
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_nothing_at_all(self, machine: Any) -> None:
        assert opening.installed() == ()
        assert self.said() == cuda.NO_GPU
        assert self.said("pycuda") == "pycuda is not installed: pip install pycuda"

    @pytest.mark.parametrize(
        ("release", "wanted"),
        [
            ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic", ">=12.9,<13'"),
            ("# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic", ">=13'"),
            ("# R39 (release), REVISION: 2.0", ">=13'"),
            ("something else", ">=12.9,<13'"),
        ],
        ids=["jetpack6", "jetpack7", "jetpack7.2", "unknown"],
    )
    def test_a_gpu_without_a_binding(self, machine: Any, release: str, wanted: str) -> None:
        machine.tegra.write_text(release)
        assert self.said() == f"no CUDA binding is installed: pip install 'cuda-bindings{wanted}"

    def test_a_pc_without_a_binding(self, machine: Any) -> None:
        machine.driver.touch()
        assert "pip install 'cuda-bindings>=13' (for a driver of CUDA 12: pip" in self.said()
        assert "cuda-bindings is not installed: pip install" in self.said("cuda-bindings")

    def test_an_unknown_name(self, machine: Any) -> None:
        with pytest.raises(UsageError, match="CUDA binding 'cupy': one of cuda-bindings, pycuda"):
            opening.open_cuda("cupy")

    def test_the_better_one_comes_first(self, machine: Any) -> None:
        machine.packages.update(("cuda.bindings", "pycuda"))
        machine.modules.update({"cuda.bindings.runtime": Runtime(), "pycuda.driver": Driver()})
        assert opening.installed() == ("cuda-bindings", "pycuda")
        assert opening.open_cuda().binding == "cuda-bindings"
        assert opening.open_cuda("pycuda").binding == "pycuda"
        machine.packages.remove("cuda.bindings")
        assert opening.open_cuda().binding == "pycuda"

    @pytest.mark.parametrize("binding", ["cuda-bindings", "pycuda"])
    def test_a_binding_that_does_not_load(self, machine: Any, binding: str) -> None:
        machine.packages.update(("cuda.bindings", "pycuda"))
        error = ImportError("libcuda.so.1: cannot open\nshared object file")
        machine.modules.update({"cuda.bindings.runtime": error, "pycuda.driver": error})
        assert self.said(binding) == cuda.NO_GPU
        machine.driver.touch()
        assert f"{binding} does not load (libcuda.so.1: cannot open shared object file): " in self.said(binding)

    @pytest.mark.parametrize(
        ("answers", "driver_is_there", "words"),
        [
            ({"cudaDriverGetVersion": (0, 0)}, False, cuda.NO_GPU),
            ({"cudaDriverGetVersion": (0, 0)}, True, "the NVIDIA driver's libcuda does not load"),
            (
                {},
                True,
                "the NVIDIA driver is made for CUDA 12.6, cuda-bindings for 13.0: update the driver or take",
            ),
        ],
        ids=["none", "container", "old"],
    )
    def test_a_driver_that_is_not_enough(
        self, machine: Any, answers: dict[str, Any], driver_is_there: bool, words: str
    ) -> None:
        stand_in = Runtime()
        old = {
            "cudaGetDeviceCount": (Error.cudaErrorInsufficientDriver, None),
            "cudaRuntimeGetVersion": (0, 13000),
        }
        stand_in.answer.update({**old, **answers})
        machine.packages.add("cuda.bindings")
        machine.modules["cuda.bindings.runtime"] = stand_in
        if driver_is_there:
            machine.driver.touch()
        assert self.said().startswith(words)

    @pytest.mark.parametrize(
        ("count", "words"),
        [
            ((Error.cudaErrorNoDevice, None), r"\(cudaErrorNoDevice: in CUDA's own words\)"),
            ((Error.cudaSuccess, 0), r"\(it counts 0\)"),
        ],
        ids=["error", "zero"],
    )
    def test_a_hidden_gpu(self, machine: Any, count: Any, words: str) -> None:
        stand_in = Runtime()
        stand_in.answer["cudaGetDeviceCount"] = count
        machine.packages.add("cuda.bindings")
        machine.modules["cuda.bindings.runtime"] = stand_in
        assert re.match(f"CUDA finds no GPU {words}; check CUDA_VISIBLE_DEVICES", self.said())

    @pytest.mark.parametrize("count", [0, -1])
    def test_a_hidden_gpu_with_pycuda(self, machine: Any, count: int) -> None:
        machine.packages.add("pycuda")
        machine.modules["pycuda.driver"] = Driver(count)
        assert self.said().startswith("CUDA finds no GPU")


class TestPycuda:
    def test_the_context_is_current_in_calls_only(self) -> None:
        library = Driver()
        with_cuda = DriverApi(library)
        pointer = with_cuda.malloc(8)
        with pytest.raises(HiresvitError):
            with_cuda.malloc(HUGE)
        with_cuda.free(pointer)
        assert library.current == []

    def test_another_context_is_refused(self) -> None:
        library = Driver()
        library.current.append("of pycuda.autoinit")
        with pytest.raises(UsageError, match=r"import pycuda\.autoprimaryctx instead"):
            DriverApi(library)
        library.current[:] = [library.context]
        DriverApi(library)

    def test_the_context_is_let_go_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        finalizers: list[Any] = []
        monkeypatch.setattr(weakref, "finalize", lambda *what: finalizers.append(what))
        library = Driver()
        DriverApi(library)
        DriverApi(library)
        assert finalizers == [(library, library.context.detach)]


class TestBenchmark:
    """The script for a machine with a GPU, where there is none."""

    def test_it_runs(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        script = runpy.run_path(str(BENCHMARK))
        script["exercise"].__globals__["SIZE"] = 1 << 16
        with_cuda = FakeCuda()
        script["exercise"](with_cuda)
        assert not with_cuda.held()
        said = capsys.readouterr().out
        assert (said.count("ok: "), said.count("FAILED"), said.count("refused")) == (5, 0, 2)

    @without_gpu
    def test_without_a_gpu(self) -> None:
        done = subprocess.run([sys.executable, BENCHMARK], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (6, "", f"{cuda.NO_GPU}\n")


@needs_bindings
class TestRealBindings:
    @pytest.fixture
    def real(self) -> Any:
        return importlib.import_module("cuda.bindings.runtime")

    def test_the_stand_in_is_like_it(self, real: Any) -> None:
        """Every name, and of every function the parameters."""
        for name in (name for name in vars(Runtime) if name.startswith("cuda")):
            ours, theirs = getattr(Runtime(), name), getattr(real, name)
            if callable(ours) and not isinstance(ours, type):
                listed = re.match(rf"{name}\((.*)\)", theirs.__doc__.splitlines()[0])
                assert listed is not None
                theirs_names = [re.sub(r":.*", "", item).split()[-1] for item in listed[1].split(",") if item]
                assert theirs_names == list(signature(ours).parameters), name
            elif isinstance(ours, int):
                assert theirs == ours
            elif isinstance(ours, SimpleNamespace):
                assert all(hasattr(theirs, member) for member in vars(ours))
        assert all(int(getattr(real.cudaError_t, error.name)) == error for error in Error)

    def test_its_handles_are_numbers(self, real: Any) -> None:
        for name in ("cudaStream_t", "cudaEvent_t", "cudaGraph_t", "cudaGraphExec_t"):
            assert int(getattr(real, name)(1234)) == 1234
        properties = real.cudaDeviceProp()
        assert properties.name == b""
        assert (properties.major, properties.minor, properties.integrated, properties.totalGlobalMem) == (0,) * 4

    @without_gpu
    def test_without_a_gpu(self) -> None:
        with pytest.raises(MissingDependency) as caught:
            opening.open_cuda("cuda-bindings")
        assert str(caught.value) == cuda.NO_GPU
        assert caught.value.exit_code == 6

    @without_gpu
    def test_every_call_reaches_the_library(self, real: Any) -> None:
        """And is refused by it, which says that arguments and answers are what it takes and gives."""
        with_cuda = RuntimeApi(real)
        buffer = np.zeros(8, np.uint8)
        calls: dict[str, Callable[[], Any]] = {
            "cudaGetDeviceProperties": with_cuda.device,
            "cudaMalloc of 8 bytes": lambda: with_cuda.malloc(8),
            "cudaFree": lambda: with_cuda.free(0),
            "cudaHostAlloc of 8 bytes": lambda: with_cuda.host_alloc(8),
            "cudaHostAlloc of 9 bytes": lambda: with_cuda.host_alloc(9, mapped=True),
            "cudaFreeHost": lambda: with_cuda.host_free(buffer),
            "cudaHostGetDevicePointer": lambda: with_cuda.device_pointer(buffer),
            "cudaStreamCreateWithFlags": with_cuda.stream_create,
            "cudaStreamSynchronize": lambda: with_cuda.stream_synchronize(0),
            "cudaStreamDestroy": lambda: with_cuda.stream_destroy(0),
            "cudaMemcpyAsync": lambda: with_cuda.copy_to_device(0, buffer, 0),
            "cudaMemcpyAsync ": lambda: with_cuda.copy_to_host(buffer, 0, 0),
            "cudaEventCreate": with_cuda.event_create,
            "cudaEventRecord": lambda: with_cuda.event_record(0, 0),
            "cudaEventElapsedTime": lambda: with_cuda.event_elapsed_ms(0, 0),
            "cudaEventDestroy": lambda: with_cuda.event_destroy(0),
            "cudaStreamBeginCapture": lambda: with_cuda.capture_begin(0),
            "cudaStreamEndCapture": lambda: with_cuda.capture_end(0),
            "cudaGraphLaunch": lambda: with_cuda.graph_launch(0, 0),
            "cudaGraphExecDestroy": lambda: with_cuda.graph_destroy(0),
        }
        words = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
        for name, call in calls.items():
            with pytest.raises(HiresvitError) as caught:
                call()
            assert str(caught.value) == f"CUDA: {name.strip()} failed ({words})"
