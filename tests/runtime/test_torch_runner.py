from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hiresvit.errors import UsageError
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
