"""Qualcomm's chips with a Hexagon Tensor Processor (HTP): which there are, and what each computes in.

The numbers are those that Qualcomm's library goes by (``soc_model``); the names beside them are the ones it gives
itself, read back from a context that was made for them. What FP16 does on each was tried in Qualcomm's own emulator.
"""

from __future__ import annotations

from dataclasses import dataclass

from hiresvit.errors import UsageError


@dataclass(frozen=True)
class Chip:
    """A row: ``name`` is what ``--target`` takes, ``part`` Qualcomm's part number, ``soc_model`` its library's number.

    ``arch`` is the version of the HTP (73 for V73), ``vtcm_mb`` its fast memory in MiB, None where nobody says.
    ``fp16``: whether it computes in floating point at all; the chips of glasses take integers only.
    """

    name: str
    title: str
    part: str
    soc_model: int
    arch: int
    vtcm_mb: int | None
    fp16: bool

    @property
    def wide_products(self) -> bool:
        """Whether it multiplies two tensors of 16 bits: before V73 the second must have 8."""
        return self.arch >= 73

    def __str__(self) -> str:
        return f"{self.title} ({self.part}, V{self.arch})"


_TABLE = (
    Chip("ar1", "Snapdragon AR1 Gen 1", "SSG2115P", 46, 73, 2, fp16=False),
    Chip("ar2", "Snapdragon AR2 Gen 1", "SSG2125P", 58, 73, None, fp16=False),
    Chip("xr2-gen2", "Snapdragon XR2 Gen 2", "SXR2230P", 53, 69, 8, fp16=True),
    Chip("sm8550", "Snapdragon 8 Gen 2", "SM8550", 43, 73, 8, fp16=True),
    Chip("sm8650", "Snapdragon 8 Gen 3", "SM8650", 57, 75, 8, fp16=True),
    Chip("sm8750", "Snapdragon 8 Elite", "SM8750", 69, 79, 8, fp16=True),
)
CHIPS = {chip.name: chip for chip in _TABLE}
"""By the name that ``--target`` takes."""
DEFAULT_FLOAT, DEFAULT_INTEGER = CHIPS["sm8650"], CHIPS["ar1"]
"""What a graph is compiled for where no chip is named: in floating point, and in integers."""


def find_chip(name: str) -> Chip:
    """The chip of a name. Raises UsageError that lists the names."""
    if name.lower() not in CHIPS:
        raise UsageError(f"no chip {name!r}: choose one of {', '.join(CHIPS)}")
    return CHIPS[name.lower()]


def chip_of(soc_model: int) -> Chip | None:
    """The chip with a number of Qualcomm's library; None for one that is not in the table."""
    return next((chip for chip in _TABLE if chip.soc_model == soc_model), None)
