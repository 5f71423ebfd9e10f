"""What all runners have in common: the names of feeds, and the cast to what a network takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hiresvit.errors import UsageError
from hiresvit.runtime.runner import About, Casting, Remembering, Runner, check_feeds
from hiresvit.spec import TensorSpec


class Halves(Runner):
    """y = x, in half precision."""

    inputs = (TensorSpec("x", "float16", ("batch", 2)),)
    outputs = (TensorSpec("y", "float16", ("batch", 2)),)
    about = About("halves", "1", "CPU")
    warnings = ("rounds",)
    closed = 0

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        check_feeds(feeds, self.inputs)
        return {"y": feeds["x"]}

    def close(self) -> None:
        self.closed += 1


def test_feeds_are_cast_to_what_the_network_takes() -> None:
    inner = Halves()
    with Casting(inner) as runner:
        typed: Runner = runner
        assert (typed.inputs, typed.outputs) == (inner.inputs, inner.outputs)
        assert runner.inner is inner
        assert (typed.about, typed.warnings, typed.metadata) == (inner.about, ("rounds",), {})
        assert (typed.best_shapes, typed.last_times()) == ({"x": (1, 2)}, None)
        assert typed({"x": np.ones((1, 2))})["y"].dtype == np.float16
    assert inner.closed == 1


def test_answers_are_remembered_within_a_number_of_bytes() -> None:
    class Counting(Halves):
        calls = 0

        def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            self.calls += 1
            return super().__call__(feeds)

    inner = Counting()
    runner = Remembering(inner, most=8)  # two answers of two halves
    feeds = [{"x": np.full((1, 2), value, np.float16)} for value in range(3)]
    for _ in range(2):
        assert [float(runner(feed)["y"][0, 0]) for feed in feeds] == [0, 1, 2]
    assert inner.calls == 4, "the third did not fit and ran twice"
    assert runner({"x": feeds[0]["x"]})["y"] is feeds[0]["x"]
    assert inner.calls == 5, "another feed is another, whatever is in it"


@pytest.mark.parametrize("names", [["image"], [], ["x", "mask"]], ids=["other", "none", "more"])
def test_other_names_are_refused(names: list[str]) -> None:
    """As `compare` meets them with two graphs of other people's."""
    feeds = dict.fromkeys(names, np.ones((1, 2)))
    with pytest.raises(UsageError) as caught:
        Casting(Halves())(feeds)
    assert str(caught.value) == f"feeds are {sorted(names)}; the network's inputs are ['x']"


def test_other_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"float16 \(1, 3\); the network takes float16 \(batch, 2\)"):
        Casting(Halves())({"x": np.ones((1, 3))})
