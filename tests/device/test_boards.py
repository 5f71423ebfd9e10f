"""The table of boards: nothing sparse, nothing impossible, and what is asked of it by name or by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiresvit.device.boards import BOARDS, Board, board_of_gpu, choose_board, find_board
from hiresvit.errors import UsageError


@pytest.mark.parametrize("board", BOARDS.values(), ids=str)
def test_rows(board: Board) -> None:
    """INT8 has twice the rate of FP16 on every row; 3 digits of either may be rounded."""
    assert board.int8 == pytest.approx(2 * board.fp16, rel=0.006)
    assert 30 < board.bandwidth < 10000
    assert board.l2_bytes is not None
    assert board.l2_bytes >= 4 * 2**20
    assert board.rate("int8") == board.rate("fp8") == board.rate("unknown") == board.int8 * 1e12
    assert board.rate("fp32") == board.rate("bf16") == board.rate("fp16") == board.fp16 * 1e12
    assert find_board(board.name) is board


def test_sparse_rates_are_halved() -> None:
    """What NVIDIA prints: 67 TOPS of the Orin Nano Super, 3958 of the H100, 2070 in FP4 of Thor; all sparse."""
    assert find_board("orin-nano-super").int8 == pytest.approx(67 / 2, rel=0.01)  # printed with 2 digits
    assert find_board("h100").int8 == 3958 / 2
    assert find_board("thor").int8 == 2070 / 4


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("Jetson Orin NX", "orin-nx"),
        ("AGX_ORIN", "agx-orin"),
        ("GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA L4", "l4"),
    ],
)
def test_names(name: str, row: str) -> None:
    assert find_board(name).name == row


def test_an_unknown_device() -> None:
    with pytest.raises(UsageError, match=r"did you mean rtx-4090 or .*--bandwidth GB/s and --tflops T"):
        find_board("rtx-4091")
    with pytest.raises(UsageError, match=r"known are orin-nano, .*--bandwidth"):
        find_board("abacus")


def test_gpus_as_cuda_calls_them() -> None:
    names = [name for board in BOARDS.values() for name in board.gpus]
    assert len(names) == len(set(names))
    assert board_of_gpu("NVIDIA GeForce RTX 4070") is BOARDS["rtx-4070"]
    assert board_of_gpu("Orin") is None  # of several modules
    assert board_of_gpu(None) is None


def test_numbers_by_hand() -> None:
    assert choose_board(None) is None
    own = choose_board(None, 100.0, 10.0)
    assert own is not None
    assert (own.bandwidth, own.fp16, own.int8, own.l2_bytes) == (100, 10, 20, None)
    other = choose_board("orin-nx", 50.0)
    assert other is not None
    assert (other.bandwidth, other.fp16, other.l2_mib) == (50, BOARDS["orin-nx"].fp16, 4)
    assert other.title == "Jetson Orin NX 16GB, 25 W, 50 GB/s by hand"
    faster = choose_board("orin-nx", None, 30.0)
    assert faster is not None
    assert (faster.fp16, faster.int8) == (30, 60)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((None, 100.0, None), "half of a device: give --tflops"),
        ((None, None, 10.0), "half of a device: give --bandwidth"),
        ((None, 0.0, 10.0), "--bandwidth 0: give a number above 0"),
        (("orin-nx", None, -1.0), "--tflops -1"),
        (("orin-nx", float("nan"), None), "--bandwidth nan"),
        (("orin-nx", float("inf"), None), "--bandwidth inf"),
    ],
)
def test_numbers_that_none_can_be(given: tuple[str | None, float | None, float | None], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choose_board(*given)


def boards_table() -> str:
    """The table of docs/roofline.md."""
    head = "| `--device` | what it is | GB/s | FP16 TFLOP/s | INT8 TOP/s | L2 MiB |\n|---|---|---|---|---|---|"
    rows = [
        f"| `{one.name}` | {one.title} | {one.bandwidth:g} | {one.fp16:g} | {one.int8:g} | {one.l2_mib:g} |"
        for one in BOARDS.values()
    ]
    return "\n".join([head, *rows])


def test_every_board_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "roofline.md").read_text(encoding="utf-8")
    assert boards_table() in text, f"write this there:\n{boards_table()}"
