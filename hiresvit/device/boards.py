"""How fast boards and cards move data and multiply, at most: the numbers behind a lower bound of latency.

Bandwidth is that of the memory, as its bus and clock give it. Rates are those of the tensor cores for dense matrices:
NVIDIA often prints twice as much, for weights of which half are zero ("sparse"), and such numbers are halved here. Of a
Jetson the GPU's share counts, what its DLAs add to the sum that is printed does not. A rate is that of the printed
boost clock, with FP16 sums where a GeForce adds FP32 at half the rate: what runs slower is above the bound, still.

Where no document gives the rate, it is multiprocessors x clock x operations of one in a clock, in FP16: 2048 of Orin,
1024 of Ada, 8192 of Thor (2 for a multiply-accumulate); in INT8 twice that. Sources stand at each row; what is marked
"memory" was written down without a document at hand: hold it to the data sheet before you lean on it.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, replace

from hiresvit.errors import UsageError


@dataclass(frozen=True)
class Board:
    """A row: ``name`` is what ``--device`` takes.

    ``bandwidth`` is in GB/s (10**9 bytes), ``fp16`` in TFLOP/s and ``int8`` in TOP/s, dense; a multiply-accumulate is
    two operations. ``l2_mib`` is the GPU's last cache in MiB, None where nobody says. ``gpus`` are the names under
    which CUDA knows it, where these are of no other row.
    """

    name: str
    title: str
    bandwidth: float
    fp16: float
    int8: float
    l2_mib: float | None
    gpus: tuple[str, ...] = ()

    @property
    def l2_bytes(self) -> int | None:
        """The last cache in bytes."""
        return None if self.l2_mib is None else round(self.l2_mib * 2**20)

    def rate(self, precision: str) -> float:
        """Operations a second in a precision of `hiresvit.engine.kernels`.

        FP32 counts as FP16: as TF32 it has half that rate, so the bound holds. What is not known counts as the fastest.
        """
        return (self.fp16 if precision in ("fp16", "bf16", "fp32") else self.int8) * 1e12


# The L2 of all Orins is the 4 MiB that CUDA reports for AGX Orin (memory): a module may have less, and the bound holds.
_ROWS = (
    # 1024 cores, 625 MHz: NVIDIA's data sheet DS-11105 (its 4GB: 10 dense INT8 TOPS; the 8GB has twice the cores).
    # 68 GB/s: "Why Your Jetson Orin Nano's 40 TOPS Goes Unused" (ericxliu.me) and data sheet.
    Board("orin-nano", "Jetson Orin Nano 8GB, before its Super clocks", 68.3, 10.2, 20.5, 4),
    # 1.02 GHz, 102 GB/s, 67 sparse TOPS: NVIDIA's page of the Orin Nano Super Developer Kit, as golemfactory/yagna#3405
    # quotes it; with these clocks 8 x 2048 x 1.02 GHz.
    Board("orin-nano-super", "Jetson Orin Nano 8GB Super, 25 W or MAXN", 102.4, 16.7, 33.4, 4),
    # 102.4 GB/s and 918, 765 MHz: data sheet DS-10712 (memory). 1173 MHz in MAXN_SUPER was read from modules.
    Board("orin-nx", "Jetson Orin NX 16GB, 25 W", 102.4, 15.0, 30.1, 4),
    Board("orin-nx-8gb", "Jetson Orin NX 8GB, 20 W", 102.4, 12.5, 25.1, 4),
    Board("orin-nx-super", "Jetson Orin NX 8GB or 16GB, MAXN_SUPER", 102.4, 19.2, 38.4, 4),
    # The GPU's 171 sparse INT8 TOPS of 275: NVIDIA/Deep-Learning-Accelerator-SW. 204.8 GB/s: data sheet DS-10662.
    Board("agx-orin", "Jetson AGX Orin 64GB, MAXN", 204.8, 42.75, 85.5, 4),
    # 1792 cores (the same data sheet), 930 MHz (memory).
    Board("agx-orin-32gb", "Jetson AGX Orin 32GB, MAXN", 204.8, 26.7, 53.3, 4),
    # 20 multiprocessors, L2 of 32 MiB: NVIDIA's forum, topic 356355, as CUDA reports them; 32 MiB: apache/tvm#20259.
    # 273 GB/s: antirez/ds4#788. 2070 sparse FP4 TFLOPS are 517.5 dense in 8 bits and 258.75 in FP16.
    Board("thor", "Jetson AGX Thor, T5000, MAXN", 273, 258.75, 517.5, 32, ("NVIDIA Thor",)),
    # 24 multiprocessors, 256 GB/s, 32 MiB: fpsbench.com; up to 2370 MHz at 115 W: data-check.eu.
    Board(
        "rtx-4060-laptop",
        "GeForce RTX 4060 Laptop, 115 W",
        256,
        58.2,
        116.5,
        32,
        ("NVIDIA GeForce RTX 4060 Laptop GPU",),
    ),
    # 46 multiprocessors, 2475 MHz, 504 GB/s: thefpsreview.com. The L2 of 36 MiB: memory.
    Board("rtx-4070", "GeForce RTX 4070", 504, 116.6, 233.1, 36, ("NVIDIA GeForce RTX 4070",)),
    # 1008 GB/s: thefpsreview.com; 661 sparse FP16 TFLOPS: NVIDIA's Ada whitepaper. Its L2 of 72 MiB: memory.
    Board("rtx-4090", "GeForce RTX 4090", 1008, 330.3, 660.6, 72, ("NVIDIA GeForce RTX 4090",)),
    # 300 GB/s, 48 MiB: fpsbench.com; 242 and 485 sparse: NVIDIA's data sheet (memory).
    Board("l4", "L4", 300, 121, 242.5, 48, ("NVIDIA L4",)),
    # 312 and 624 dense: hmc-tech.com, whose numbers are at 1410 MHz. Bandwidths and the L2 of 40 MiB: memory.
    Board("a100-40gb", "A100 40GB", 1555, 312, 624, 40, ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB")),
    Board("a100-80gb", "A100 80GB", 2039, 312, 624, 40, ("NVIDIA A100-SXM4-80GB",)),
    # 1979 and 3958 sparse, 3350 GB/s, 50 MiB; of PCIe 1513 and 3026, 2000 GB/s: NVIDIA's table as HPCTECH prints it.
    Board("h100", "H100 SXM 80GB", 3350, 989.5, 1979, 50, ("NVIDIA H100 80GB HBM3",)),
    Board("h100-pcie", "H100 PCIe 80GB", 2000, 756.5, 1513, 50, ("NVIDIA H100 PCIe",)),
    # The chip of the H100 SXM (glennklockwood.com) with 4800 GB/s (memory).
    Board("h200", "H200 SXM", 4800, 989.5, 1979, 50, ("NVIDIA H200",)),
)

BOARDS: dict[str, Board] = {board.name: board for board in _ROWS}


def find_board(name: str) -> Board:
    """The row of a name, however its words are joined. Raises UsageError with the nearest for any other."""
    plain = "-".join(name.lower().replace("_", " ").replace("-", " ").split())
    plain = plain.removeprefix("jetson-").removeprefix("nvidia-").removeprefix("geforce-")
    if board := BOARDS.get(plain):
        return board
    near = difflib.get_close_matches(plain, BOARDS, n=3, cutoff=0.5)
    known = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(BOARDS)};"
    raise UsageError(
        f"no numbers of a device {name!r}: {known} of any other give --bandwidth GB/s and --tflops T (dense FP16) by"
        " hand"
    )


def board_of_gpu(name: str | None) -> Board | None:
    """The row of a GPU as CUDA calls it; None for one that is in none, or as "Orin" in several."""
    return next((board for board in _ROWS if name in board.gpus), None)


def choose_board(name: str | None, bandwidth: float | None = None, tflops: float | None = None) -> Board | None:
    """The row of a name with what is given by hand in its place; None where nothing is given.

    Without a name both numbers are needed: GB/s of memory, and dense FP16 TFLOP/s, of which INT8 is taken as the
    double. Raises UsageError for numbers that none can be, for one alone, and as `find_board`.
    """
    for option, value in (("--bandwidth", bandwidth), ("--tflops", tflops)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{option} {value:g}: give a number above 0, as --bandwidth 102.4 --tflops 15")
    if name is None:
        if bandwidth is None and tflops is None:
            return None
        if bandwidth is None or tflops is None:
            missing = "--bandwidth GB/s" if bandwidth is None else "--tflops T (dense FP16)"
            raise UsageError(f"half of a device: give {missing}, too, or --device NAME ({', '.join(BOARDS)})")
        return Board("by hand", f"{bandwidth:g} GB/s, {tflops:g} TFLOP/s by hand", bandwidth, tflops, 2 * tflops, None)
    board = find_board(name)
    if bandwidth is not None:
        board = replace(board, title=f"{board.title}, {bandwidth:g} GB/s by hand", bandwidth=bandwidth)
    if tflops is not None:
        board = replace(board, title=f"{board.title}, {tflops:g} TFLOP/s by hand", fp16=tflops, int8=2 * tflops)
    return board
