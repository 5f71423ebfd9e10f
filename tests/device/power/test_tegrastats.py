"""tegrastats: what boards printed, and a stand-in that prints it again; no board was at hand."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from board_files import tool

from hiresvit.device.power import tegrastats
from hiresvit.device.power.meter import Meter, sampling
from hiresvit.device.power.tegrastats import find, parse
from hiresvit.evaluation.energy import total_rails

GOLDEN = Path(__file__).parents[2] / "golden" / "tegrastats.txt"
TEXT = GOLDEN.read_text(encoding="utf-8").splitlines()[1:]
LINES = {head.removeprefix("# ").split(" | ")[0]: line for head, line in zip(TEXT[::2], TEXT[1::2], strict=True)}

# Read off the lines by eye: the rails' milliwatts now, and which of them are the board.
EXPECTED: dict[str, tuple[dict[str, int], tuple[str, ...]]] = {
    "Jetson Nano": ({"POM_5V_IN": 1022, "POM_5V_GPU": 0, "POM_5V_CPU": 204}, ("POM_5V_IN",)),
    "Jetson TX1": ({"VDD_IN": 2532, "VDD_CPU": 76, "VDD_GPU": 19}, ("VDD_IN",)),
    "Jetson TX2": (
        {
            "VDD_SYS_GPU": 153,
            "VDD_SYS_SOC": 536,
            "VDD_4V0_WIFI": 633,
            "VDD_IN": 3140,
            "VDD_SYS_CPU": 536,
            "VDD_SYS_DDR": 557,
        },
        ("VDD_IN",),
    ),
    "AGX Xavier": (
        {"GPU": 463, "CPU": 618, "SOC": 2936, "CV": 0, "VDDRQ": 309, "SYS5V": 3306},
        ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
    ),
    "Xavier NX": ({"VDD_IN": 4067, "VDD_CPU_GPU_CV": 738, "VDD_SOC": 1353}, ("VDD_IN",)),
    "Orin NX": ({"VDD_IN": 5299, "VDD_CPU_GPU_CV": 773, "VDD_SOC": 1424}, ("VDD_IN",)),
    "Orin Nano": ({"VDD_IN": 4556, "VDD_CPU_GPU_CV": 483, "VDD_SOC": 1451}, ("VDD_IN",)),
    "AGX Orin, R36": (
        {"VDD_GPU_SOC": 3205, "VDD_CPU_CV": 4405, "VIN_SYS_5V0": 4767},
        ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ),
    "AGX Orin, negative": (
        {"VDD_GPU_SOC": 1592, "VDD_CPU_CV": -398, "VIN_SYS_5V0": 2624, "VDDQ_VDD2_1V8AO": 403},
        ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ),
    "Thor, R38.4": ({"VDD_GPU": 1962, "VDD_CPU_SOC_MSS": 5887, "VIN_SYS_5V0": 5635, "VIN": 19780}, ("VIN",)),
    "Thor, R39": ({"VDD_GPU": 37939, "VDD_CPU_SOC_MSS": 30059, "VIN_SYS_5V0": 15486, "VIN": 124486}, ("VIN",)),
}


def test_every_board_is_looked_at() -> None:
    assert list(LINES) == list(EXPECTED)


@pytest.mark.parametrize("board", EXPECTED)
def test_the_rails_of_a_board(board: str) -> None:
    milliwatts, total = EXPECTED[board]
    watts = parse(LINES[board])
    assert watts == {name: value / 1000 for name, value in milliwatts.items()}
    assert total_rails(watts) == total


def test_nothing_else_is_a_rail() -> None:
    for line in LINES.values():
        without = re.sub(r"(?<= )[A-Z][A-Z0-9_]* -?\d+(mW)?/-?\d+(mW)?(/\d+mW)?(?= |$)", "", line)
        assert parse(without) == {}, without
    assert parse("") == parse("tegrastats: cannot open") == parse("VDD_IN off VDD_SOC 5mWh APE 174") == {}


def test_it_is_read_in_the_background_until_the_end(tmp_path: Path) -> None:
    line = LINES["Orin NX"]
    tool(tmp_path, "tegrastats", f"echo $* >>{tmp_path}/asked\nwhile :; do echo '{line}'; sleep 0.02; done")
    meter = find(tmp_path)
    assert isinstance(meter, Meter)
    assert meter.rails == ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
    with sampling(meter, 0.25) as trace:
        began = time.monotonic_ns()
        while len(trace.times_ns) < 3:
            time.sleep(0.01)
    assert (tmp_path / "asked").read_text(encoding="utf-8").splitlines() == ["--interval 100", "--interval 250"]
    assert trace.values[0]["VDD_IN"] == 5.299
    assert trace.notes == []
    assert began <= trace.times_ns[-1] <= time.monotonic_ns()
    count = len(trace.times_ns)
    time.sleep(0.1)
    assert len(trace.times_ns) == count, "it goes on after the window"


def test_one_that_dies_meanwhile_is_said(tmp_path: Path) -> None:
    tool(tmp_path, "tegrastats", f"echo '{LINES['Thor, R39']}'; exit 3")
    meter = find(tmp_path)
    assert isinstance(meter, Meter)
    with sampling(meter) as trace:
        while not trace.notes:
            time.sleep(0.01)
    assert trace.values[0]["VIN"] == 124.486
    assert trace.notes == ["tegrastats stopped answering: it ended with exit code 3"]


def test_none_here(tmp_path: Path) -> None:
    assert "no tegrastats here" in str(find(tmp_path))
    program = tool(tmp_path, "tegrastats", "echo RAM 1/2MB; sleep 60")
    program.chmod(0o644)
    assert str(find(tmp_path)).endswith("cannot be run: Permission denied")


def test_one_without_rails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tegrastats, "_ANSWERS_S", 0.2)
    tool(tmp_path, "tegrastats", "while :; do echo RAM 1/2MB CPU [off]; sleep 0.02; done")
    assert "names no rail" in str(find(tmp_path))


def test_one_that_ends_at_once(tmp_path: Path) -> None:
    tool(tmp_path, "tegrastats", "echo 'not supported' >&2; exit 1")
    assert "ended with exit code 1" in str(find(tmp_path))
