from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hiresvit.errors import MissingDependency, UsageError
from hiresvit.runtime.torch_runner import TorchRunner
from hiresvit.spec import TensorSpec

X = TensorSpec("x", "float32", (1, 2))
Y = TensorSpec("y", "float32", (1, 2))
Z = TensorSpec("z", "float32", (1, 2))


class Two(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x + 1, x * 2


def test_a_module_runs_in_eval_mode_on_numpy() -> None:
    module = nn.Sequential(nn.Dropout(0.9))
    x = np.array([[1, 2]], np.float32)
    x.flags.writeable = False  # PyTorch alone would warn
    with TorchRunner(module, (X,), (Y,)) as runner:
        np.testing.assert_array_equal(runner({"x": x})["y"], x)
    assert not module.training


def test_a_tuple_is_named_in_order() -> None:
    result = TorchRunner(Two(), (X,), (Y, Z))({"x": np.array([[1, 2]], np.float32)})
    assert {name: value.tolist() for name, value in result.items()} == {"y": [[2, 3]], "z": [[2, 4]]}


def test_what_does_not_fit_is_refused() -> None:
    runner = TorchRunner(Two(), (X,), (Y,))
    with pytest.raises(UsageError, match=r"Two returned 2 tensors; declared are \['y'\]"):
        runner({"x": np.zeros((1, 2), np.float32)})
    with pytest.raises(UsageError, match="the network takes float32"):
        runner({"x": np.zeros((1, 2), np.float64)})
    runner.close()
    with pytest.raises(UsageError, match="closed"):
        runner({"x": np.zeros((1, 2), np.float32)})


def test_the_number_of_threads_is_given_back() -> None:
    before = torch.get_num_threads()
    wanted = before + 1
    seen = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.get_num_threads())
            return x

    with TorchRunner(Spy(), (X,), (Y,), threads=wanted) as runner:
        runner({"x": np.zeros((1, 2), np.float32)})
    assert (seen, torch.get_num_threads()) == ([wanted], before)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of torch.jit
def test_a_machine_without_a_compiler_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # or what was compiled once is there
    module = nn.Sequential(nn.Linear(2, 2), nn.GELU())
    with (
        config.patch({"cpp.cxx": (None, str(tmp_path / "no-compiler"))}),
        TorchRunner(module, (X,), (Y,), compiled=True) as runner,
        pytest.raises(
            MissingDependency, match=r"No working C\+\+ compiler.*; it takes a C\+\+ compiler: leave --compile"
        ),
    ):
        runner({"x": np.zeros((1, 2), np.float32)})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile takes a C++ compiler")
def test_what_is_compiled_says_the_same() -> None:
    """Half a minute of it is the compiler's own headers."""
    module = nn.Sequential(nn.Linear(2, 2), nn.GELU())
    x = np.array([[1, 2]], np.float32)
    with TorchRunner(module, (X,), (Y,)) as eager, TorchRunner(module, (X,), (Y,), compiled=True) as compiled:
        # sums in another order: a float's rounding
        np.testing.assert_allclose(compiled({"x": x})["y"], eager({"x": x})["y"], rtol=1e-5, atol=1e-6)
        assert (eager.about.backend, compiled.about.backend) == ("PyTorch", "torch.compile")
