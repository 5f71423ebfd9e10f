"""A few hundred inputs of benchmarks/fuzz.py in CI, always the same; and that it sees what it looks for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import fuzz
import fuzz_inputs


def test_no_input_is_a_fault() -> None:
    found = fuzz.fuzz(seed=1, first=0, inputs=200, minutes=2, kinds=list(fuzz_inputs.KINDS), keep=None)
    assert [fault for tally in found.values() for fault in tally.faults] == []
    assert sum(tally.inputs for tally in found.values()) >= 100, "the machine is very slow"


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ((0, "", 0.1, 0, "a table\n"), None),
        ((7, "", 0.1, 2**30, "error: a.onnx is damaged\n"), None),
        ((1, "", 0.1, 0, "internal error: KeyError: 'x'; set"), "internal error: KeyError: 'x'; set"),
        ((1, "", 0.1, 0, "Traceback (most recent call last):\n"), "Traceback (most recent"),
        ((-1, "RecursionError: deep", 0.1, 0, ""), "RecursionError: deep"),
        ((-2, "hang", 30.0, 0, ""), "hang"),
        ((-3, "died with -11", 0.0, 0, ""), "died with -11"),
        ((139, "", 0.1, 0, ""), "exit code 139"),
        ((0, "", 0.1, 2**31, ""), "took 2048 MiB for 1.0 MiB"),
        ((0, "", 0.1, 0, "name a\x1b[31mb"), r"prints '\x1b'"),
        ((0, "", 0.1, 0, "name a\u202eb"), r"prints '\u202e'"),
    ],
)
def test_a_fault_is_seen(tmp_path: Path, outcome: tuple[int, str, float, int, str], said: str | None) -> None:
    faults = list(fuzz.faults_of(outcome, tmp_path, fuzz.outside(tmp_path), 2**20))
    assert len(faults) == (said is not None)
    assert said is None or said in faults[0]


@pytest.mark.parametrize("written", ["../x", "../../x"])
def test_what_ran_and_what_was_written_elsewhere_is_seen(tmp_path: Path, written: str) -> None:
    here = tmp_path / "room" / "up" / "here"
    here.mkdir(parents=True)
    before = fuzz.outside(here)
    assert list(fuzz.faults_of((0, "", 0.1, 0, ""), here, before, 0)) == []
    (here / fuzz_inputs.CANARY).touch()
    (here / written).touch()
    executed, wrote = fuzz.faults_of((0, "", 0.1, 0, ""), here, before, 0)
    assert executed == "EXECUTED"
    assert wrote.endswith("x'] outside")
