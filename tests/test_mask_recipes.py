"""What docs/masks.md makes of raw masks, on masks that are drawn by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Recipe = Callable[..., Any]
CAR, ROAD, NOTHING = 0, 1, 2


@pytest.fixture(scope="module")
def recipes() -> dict[str, Recipe]:
    text = Path(__file__).parents[1].joinpath("docs", "masks.md").read_text(encoding="utf-8")
    space: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(block, space)
    return space


def drawn(*queries: tuple[int, tuple[slice, slice]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Outputs in which each query is sure of its class and of its part of a map of 4x8."""
    classes = np.full((1, len(queries), 3), -4, np.float32)
    masks = np.full((1, len(queries), 4, 8), -8, np.float32)
    for i, (kind, part) in enumerate(queries):
        classes[0, i, kind], masks[0, i][part] = 4, 8
    return classes, masks


LEFT, RIGHT, ALL = np.s_[:, :3], np.s_[:, 5:], np.s_[:, :]


def test_two_cars_are_two_instances(recipes: dict[str, Recipe]) -> None:
    found = recipes["instances"](*drawn((CAR, LEFT), (NOTHING, ALL), (CAR, RIGHT)))
    assert [(kind, round(score, 2), mask.sum()) for kind, score, mask in found] == [(CAR, 1, 12), (CAR, 1, 12)]
    assert (found[0][2][LEFT].all(), found[1][2][RIGHT].all()) == (True, True)


def test_things_are_numbered_and_stuff_is_joined(recipes: dict[str, Recipe]) -> None:
    outputs = drawn((CAR, LEFT), (ROAD, RIGHT), (NOTHING, ALL), (ROAD, np.s_[:, 3:5]), (CAR, np.s_[:, 2:3]))
    outputs[1][0, 0][:, 2] = 6  # the last query is surer of this column
    segments, found = recipes["panoptic"](*outputs, stuff={ROAD}, overlap=0.6)
    assert found == {1: CAR, 2: ROAD, 3: CAR}
    assert segments[0].tolist() == [1, 1, 3, 2, 2, 2, 2, 2]


def test_nothing_is_seen(recipes: dict[str, Recipe]) -> None:
    segments, found = recipes["panoptic"](*drawn((NOTHING, ALL)), stuff=set())
    assert (segments.any(), found, recipes["instances"](*drawn((NOTHING, ALL)))) == (False, {}, [])
