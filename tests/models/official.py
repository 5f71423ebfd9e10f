"""The authors' recorded outputs (tests/golden/README.md): how a map is held against them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from by_path import GOLDEN, load
from numpy.typing import NDArray
from torch import Tensor

detweights = load(GOLDEN / "detweights.py")

# Two implementations round differently in the last of 16 digits (1e-11) and nowhere else; the smallest mistake that was
# tried, an epsilon, costs 1e-5.
ATOL = 1e-8


def keys_of(file: str) -> list[tuple[str, list[int], str]]:
    """(key, shape, dtype) of a list in tests/golden."""
    return [tuple(key) for key in detweights.load_keys(GOLDEN / file)]


def weights_of(file: str) -> dict[str, Tensor]:
    """The weights that the recorded outputs were made with."""
    state: dict[str, Any] = detweights.state_dict_for(keys_of(file))
    return {key: torch.from_numpy(value) for key, value in state.items()}


def image(size: tuple[int, int]) -> Tensor:
    """The recorded input, in float64."""
    return torch.from_numpy(detweights.input_image(*size)).double()


def check_map(value: Tensor, prefix: str, expected: dict[str, NDArray[np.float64]]) -> None:
    """A map against its recorded shape, statistics and 64 samples."""
    found: NDArray[np.float64] = value.numpy()
    assert found.dtype == np.float64
    assert found.shape == tuple(expected[f"{prefix}_shape"])
    stats = [found.mean(), found.std(), found.min(), found.max()]
    np.testing.assert_allclose(stats, expected[f"{prefix}_stats"], rtol=0, atol=ATOL)
    samples = found.reshape(-1)[detweights.sample_indices(found.shape)]
    np.testing.assert_allclose(samples, expected[f"{prefix}_sample"], rtol=0, atol=ATOL)
