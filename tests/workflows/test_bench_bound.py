"""A plan's time as a multiple of its bound: by which clock, and where there is none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hiresvit.device.boards import BOARDS, Board
from hiresvit.errors import ArtefactError
from hiresvit.report.tables import render
from hiresvit.report.traffic import BOUND, bench_table
from hiresvit.schema import compile_schema
from hiresvit.workflows import bench_bound
from hiresvit.workflows.bench_bound import find_bounds, multiples

BOARD = BOARDS["orin-nx"]
ROOFLINE = {"device": "orin-nx", "title": "Orin", "bound_ms": 2.0, "cached_ms": 0.5}


@pytest.fixture(autouse=True)
def _bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    def bound(plan: Path, board: Board | None, gpu: str) -> dict[str, Any] | None:
        if plan.name == "damaged.plan":
            raise ArtefactError("no layer list")
        return ROOFLINE if board or gpu == "known" else None

    monkeypatch.setattr(bench_bound, "bound_of_plan", bound)


def source(plan: str | None, gpu: str = "other", batch: int = 1) -> Any:
    runner = SimpleNamespace(about=SimpleNamespace(device=gpu), best_shapes={"x": (batch, 3, 8, 8)})
    return SimpleNamespace(plan=Path(plan) if plan else None, runner=runner)


def test_which_sides_have_a_bound() -> None:
    sides = {"plan": source("a.plan"), "known": source("b.plan", "known"), "graph": source(None)}
    assert find_bounds(sides, BOARD, None, "call") == ({"plan": ROOFLINE, "known": ROOFLINE}, [])
    assert find_bounds(sides, None, None, "call") == ({"known": ROOFLINE}, [])
    assert find_bounds(sides, None, 4, "offline") == ({}, [])
    found, notes = find_bounds({"plan": source("a.plan"), "four": source("a.plan", batch=4)}, BOARD, 4, "offline")
    assert list(found) == ["four"]
    assert notes == ["plan: no lower bound, its bytes are counted at another batch than 4"]


@pytest.mark.parametrize(
    ("name", "mode", "said"), [("a.plan", "stream", "a frame of a stream also waits"), (None, "call", "none of what")]
)
def test_where_there_is_none_it_is_said(name: str | None, mode: str, said: str) -> None:
    found, notes = find_bounds({"a": source(name)}, BOARD, None, mode)
    assert not found
    assert said in notes[0]
    assert find_bounds({"a": source(name)}, None, None, mode) == ({}, [])


def test_a_plan_that_cannot_say_fails_before_it_is_measured() -> None:
    with pytest.raises(ArtefactError, match="no layer list"):
        find_bounds({"a": source("damaged.plan")}, BOARD, None, "call")


def test_by_which_clock() -> None:
    side = {"median_ms": 6.0, "gpu_compute_ms": 5.0}
    found = multiples(side, ROOFLINE, "call")
    assert found is not None
    assert (found["clock"], found["multiple"], found["cached_multiple"]) == ("gpu", 2.5, 10.0)
    compile_schema(BOUND)(found)
    host = multiples({"median_ms": 6.0, "gpu_compute_ms": None}, ROOFLINE, "offline")
    assert host is not None
    assert (host["clock"], host["multiple"]) == ("call", 3.0)
    assert multiples({"median_ms": 60.0}, ROOFLINE, "frame") is None  # most of it is no network
    assert multiples({"median_ms": None}, ROOFLINE, "call") is None
    assert multiples(side, None, "call") is None
    by_hand = multiples(side, {**ROOFLINE, "cached_ms": None}, "call")
    assert by_hand is not None
    assert by_hand["cached_multiple"] is None
    compile_schema(BOUND)(by_hand)


def test_the_table() -> None:
    text = render(bench_table({"fp16": {"roofline": multiples({"median_ms": 6.0}, ROOFLINE, "call")}, "cpu": {}}))
    assert text.splitlines()[-1].split() == ["fp16", "orin-nx", "call", "6.000", "2.000", "3.000", "0.500", "12.000"]
    assert bench_table({"cpu": {"roofline": None}}) == []
