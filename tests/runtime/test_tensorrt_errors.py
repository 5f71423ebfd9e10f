"""Whatever fails, the runner leaves nothing behind and says why. On an engine and a CUDA of host memory."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import ORIN, RTX_4090, FakeCuda
from fake_engine import FakeTensorRT, batch, nothing_is_left, opened, save_plan

from hiresvit.errors import ArtefactError, HiresvitError, UsageError
from hiresvit.runtime.tensorrt_runner import TensorRTRunner

PC = pytest.param(RTX_4090, id="pc")
JETSON = pytest.param(ORIN, id="jetson")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return save_plan(tmp_path)


class TestClosing:
    @pytest.mark.parametrize("cuda_graph", [False, True])
    def test_everything_goes_in_the_right_order(self, tmp_path: Path, cuda_graph: bool) -> None:
        runner, cuda, trt = opened(tmp_path, cuda_graph=cuda_graph)
        runner({"x": batch(1)})
        cuda.order.clear()
        runner.close()
        assert not cuda.held()
        assert not +trt.alive  # without waiting for the garbage collector
        expected = ["context", *["host_free", "free"] * 2, *["event_destroy"] * 4, "stream_destroy"]
        assert cuda.order == ["graph_destroy"] * cuda_graph + expected

    def test_a_closed_runner_says_so(self, tmp_path: Path) -> None:
        runner, cuda, _ = opened(tmp_path)
        runner({"x": batch(1)})
        runner.close()
        calls = cuda.calls.copy()
        runner.close()
        for use in (lambda: runner({"x": batch(1)}), runner.last_times):
            with pytest.raises(UsageError, match=r"a\.plan: the runner is closed; open it again"):
                use()
        assert cuda.calls == calls

    def test_a_runner_that_nobody_closes(self, tmp_path: Path) -> None:
        runner, cuda, trt = opened(tmp_path, cuda_graph=True)
        runner({"x": batch(1)})
        del runner
        assert nothing_is_left(cuda, trt)

    def test_at_the_end_of_a_program(self, plan: Path) -> None:
        script = (
            "import sys, atexit; from pathlib import Path; import numpy as np\n"
            "from fake_cuda import FakeCuda; from fake_engine import FakeTensorRT\n"
            "from hiresvit.runtime.tensorrt_runner import TensorRTRunner\n"
            "cuda = FakeCuda(); trt = FakeTensorRT(cuda)\n"
            "atexit.register(lambda: print(dict(cuda.held()), dict(+trt.alive)))\n"
            "import weakref; weakref.finalize(cuda, lambda: None)\n"  # its hook is in place: it runs first
            "runner = TensorRTRunner._open(Path(sys.argv[1]), trt, cuda)\n"
            "runner({'x': np.zeros((1, 2), np.float32)})\n"
        )
        tests = Path(__file__).parents[1]
        done = subprocess.run(
            [sys.executable, "-c", script, plan],
            env={"PYTHONPATH": f"{tests}:{tests.parent}", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert (done.stdout, done.stderr) == ("{} {}\n", "")

    @pytest.mark.parametrize("call", ["host_free", "free", "event_destroy", "stream_synchronize"])
    def test_what_fails_stops_no_other(self, tmp_path: Path, call: str) -> None:
        runner, cuda, trt = opened(tmp_path)
        runner({"x": batch(1)})
        cuda.failing.add(call)
        with pytest.raises(HiresvitError, match=f"{call} failed"):
            runner.close()
        runner.close()
        assert nothing_is_left(cuda, trt)


class TestErrors:
    def scenario(self, plan: Path, trt: FakeTensorRT, cuda: FakeCuda, cuda_graph: bool) -> int:
        """Open, three calls with two shapes, close; how many calls of CUDA that took."""
        with TensorRTRunner._open(plan, trt, cuda, cuda_graph=cuda_graph) as runner:
            for size in (1, 1, 3):
                runner({"x": batch(size)})
        return cuda._done

    @pytest.mark.parametrize("device", [PC, JETSON])
    @pytest.mark.parametrize("cuda_graph", [False, True])
    def test_no_call_of_cuda_leaves_something_behind(self, plan: Path, device: Any, cuda_graph: bool) -> None:
        cuda = FakeCuda(device)
        libraries = [FakeTensorRT(cuda)]
        calls = self.scenario(plan, libraries[0], cuda, cuda_graph)
        assert calls > 20
        for number in range(calls):
            cuda = FakeCuda(device, fail_at=number)
            trt = FakeTensorRT(cuda)
            libraries.append(trt)
            with pytest.raises(HiresvitError, match=r"^CUDA: \w+ failed"):
                self.scenario(plan, trt, cuda, cuda_graph)
            assert not cuda.held(), number
        gc.collect()  # of the errors, which know where they arose
        assert not sum((trt.alive for trt in libraries), Counter())

    def test_a_failed_call_can_be_repeated(self, plan: Path) -> None:
        cuda = FakeCuda()
        with TensorRTRunner._open(plan, FakeTensorRT(cuda), cuda) as runner:
            runner({"x": batch(1)})
        first = cuda._done
        for number in range(first + 20):
            cuda = FakeCuda(fail_at=number)
            try:
                runner = TensorRTRunner._open(plan, FakeTensorRT(cuda), cuda)
            except HiresvitError:
                continue
            for size in (1, 3, 3, 1):
                try:
                    found = runner({"x": batch(size)})
                except HiresvitError:
                    found = runner({"x": batch(size)})
                np.testing.assert_array_equal(found["y"], batch(size) * 2 + 1)
            runner.close()
            assert not cuda.held()

    @pytest.mark.parametrize("call", ["copy_to_host", "event_record"])
    def test_a_failed_call_leaves_nothing_in_the_queue(self, tmp_path: Path, call: str) -> None:
        """Else the next, larger shape would free memory that is still to be used."""
        runner, cuda, _ = opened(tmp_path)
        runner({"x": batch(1)})
        cuda.failing.add(call)
        with pytest.raises(HiresvitError, match=f"{call} failed"):
            runner({"x": batch(1)})
        cuda.failing.clear()
        np.testing.assert_array_equal(runner({"x": batch(3)})["y"], batch(3) * 2 + 1)

    @pytest.mark.parametrize("call", ["set_input_shape", "set_tensor_address", "execute_async_v3"])
    def test_tensorrt_fails_on_an_input(self, tmp_path: Path, call: str) -> None:
        runner, cuda, trt = opened(tmp_path)
        runner({"x": batch(2)})
        trt.refuse.add(call)
        with pytest.raises(HiresvitError, match=r"a\.plan: TensorRT .* \(.*out of luck\)\)$") as caught:
            runner({"x": batch(3)})  # and no result of the call before
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 1
        trt.refuse.clear()
        np.testing.assert_array_equal(runner({"x": batch(3)})["y"], batch(3) * 2 + 1)
        runner.close()
        assert nothing_is_left(cuda, trt)

    def test_old_words_are_not_repeated(self, tmp_path: Path) -> None:
        runner, _, trt = opened(tmp_path)
        runner({"x": batch(1)})
        trt.refuse.add("execute_async_v3")
        for _ in range(2):
            with pytest.raises(HiresvitError, match="out of luck"):
                runner({"x": batch(1)})
        trt.refuses = lambda name, why="": name in trt.refuse  # type: ignore[method-assign]
        with pytest.raises(HiresvitError, match="it gives no reason"):
            runner({"x": batch(1)})

    @pytest.mark.parametrize(
        ("refuse", "kind", "words"),
        [
            ("Runtime", HiresvitError, "TensorRT 10.3.0 does not start here"),
            ("memory", HiresvitError, r"out of memory\); close what else uses the GPU"),
            ("create_execution_context", HiresvitError, r"no memory or means to run it \(.*out of luck\)"),
        ],
    )
    def test_tensorrt_fails_on_the_plan(self, plan: Path, refuse: str, kind: type[HiresvitError], words: str) -> None:
        cuda = FakeCuda()
        trt = FakeTensorRT(cuda, refuse={refuse})
        with pytest.raises(kind, match=words) as caught:
            TensorRTRunner._open(plan, trt, cuda)
        assert type(caught.value) is kind
        assert "\n" not in str(caught.value)
        assert nothing_is_left(cuda, trt)

    def test_a_plan_that_tensorrt_does_not_know(self, plan: Path) -> None:
        plan.write_bytes(b"something else")
        cuda = FakeCuda()
        trt = FakeTensorRT(cuda)
        with pytest.raises(ArtefactError, match=r"TensorRT 10\.3\.0 cannot load it \(.*magic tag") as caught:
            TensorRTRunner._open(plan, trt, cuda)
        assert caught.value.exit_code == 7
        assert nothing_is_left(cuda, trt)
        with pytest.raises(HiresvitError, match=r"cannot read .*none: No such file"):
            TensorRTRunner._open(plan.with_name("none"), trt, cuda)
