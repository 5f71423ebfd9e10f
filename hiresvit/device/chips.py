"""Qualcomm's chips with a Hexagon Tensor Processor (HTP): which there are, and what each computes in.

A number and its part are what Qualcomm's library calls them (QAIRT 2.51): the part of each row was read back from a
context for two chips that it made, the number from the metadata of one. ``soc_utils.cc`` of onnxruntime-qnn,
``qc_schema.py`` of ExecuTorch and ``soc_table.cc`` of LiteRT, which Qualcomm writes, have most of them, too; the VTCM
is from the last two. Whether FP16 runs was tried in the emulator: QAIRT's HTP page says only "on select Qualcomm SoCs".
What a chip is sold as is said where, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass

from hiresvit.errors import UsageError


@dataclass(frozen=True)
class Chip:
    """A row: ``name`` is what ``--target`` takes, ``part`` Qualcomm's part number, ``soc_model`` its library's number.

    ``title`` is what it is sold as, the part once more where no source says. ``arch`` is the version of the HTP (73 for
    V73), ``vtcm_mb`` its fast memory in MiB, None where no source says. ``fp16``: whether it computes in floating point
    at all; the chips of glasses take integers only.
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
        part = "" if self.title == self.part else f"{self.part}, "
        return f"{self.title} ({part}V{self.arch})"


_TABLE = (
    # Glasses. Linux has SAR2130P as "Qualcomm AR2 Gen1", with the identity 525 (qcom.yaml and qcom,ids.h), and SAR1130P
    # with 579; QAIRT's device manager calls the 525 SXR1230P, the 579 SSG2125P ("Luna V2") and 554 SSG2115P ("Luna").
    # Rokid sells glasses with a 579 as AR1 Gen 1. LiteRT maps SAR1130P to SSG2125P, too.
    Chip("ar1", "Snapdragon AR1 Gen 1", "SSG2125P", 58, 73, 2, fp16=False),
    Chip("ssg2115p", "SSG2115P", "SSG2115P", 46, 73, 2, fp16=False),
    Chip("ar2", "Snapdragon AR2 Gen 1", "SXR1230P", 45, 73, 2, fp16=False),
    Chip("sar2230p", "SAR2230P", "SAR2230P", 95, 81, 4, fp16=False),
    # Headsets: "XR2 Gen 2 (SXR2230P)", and SXR2250P beside it, which has no number of its own (SNPE's list of devices).
    Chip("xr2-gen2", "Snapdragon XR2 Gen 2", "SXR2230P", 53, 69, 8, fp16=True),
    Chip("sxr2330p", "SXR2330P", "SXR2330P", 75, 79, 8, fp16=True),
    # Watches.
    Chip("sw6100", "SW6100", "SW6100", 96, 81, 4, fp16=False),
    # Phones: SNPE's list; LiteRT's and ExecuTorch's pages for the 8 Elite and the 8 Elite Gen 5; for SM8845 Qualcomm's
    # product page, named in ExecuTorch's issue 17081. SM8350 computes floats here as FP32, which no chip is known to.
    Chip("sm8450", "Snapdragon 8 Gen 1", "SM8450", 36, 69, 8, fp16=True),
    Chip("sm8475", "Snapdragon 8+ Gen 1", "SM8475", 42, 69, 8, fp16=True),
    Chip("sm8550", "Snapdragon 8 Gen 2", "SM8550", 43, 73, 8, fp16=True),
    Chip("sm8650", "Snapdragon 8 Gen 3", "SM8650", 57, 75, 8, fp16=True),
    Chip("sm8750", "Snapdragon 8 Elite", "SM8750", 69, 79, 8, fp16=True),
    Chip("sm8845", "Snapdragon 8 Gen 5", "SM8845", 97, 81, 8, fp16=True),
    Chip("sm8850", "Snapdragon 8 Elite Gen 5", "SM8850", 87, 81, 8, fp16=True),
    # Boards: Qualcomm Linux's list of kits has the QCS6490 as Dragonwing RB3 Gen 2. QCS9075 goes by QCS9100 and QCS8275
    # by QCS8300 (LiteRT). The VTCM of a QCS6490 is that of the QCM6490, with the same number (ExecuTorch).
    Chip("qcs6490", "QCS6490", "QCS6490", 93, 68, 2, fp16=False),
    Chip("qcs8300", "QCS8300", "QCS8300", 82, 75, 8, fp16=True),
    Chip("qcs8550", "QCS8550", "QCS8550", 66, 73, None, fp16=True),
    Chip("qcs9100", "QCS9100", "QCS9100", 77, 73, 8, fp16=True),
)
CHIPS = {chip.name: chip for chip in _TABLE}
"""By the name that ``--target`` takes."""
DEFAULT_FLOAT, DEFAULT_INTEGER = CHIPS["sm8650"], CHIPS["ar1"]
"""What a graph is compiled for where no chip is named: in floating point, and in integers."""


def find_chip(name: str) -> Chip:
    """The chip of a name or a part number. Raises UsageError that lists the names."""
    for chip in _TABLE:
        if name.lower() in (chip.name, chip.part.lower()):
            return chip
    raise UsageError(f"no chip {name!r}: choose one of {', '.join(CHIPS)}")


def library_options(soc_model: int) -> dict[str, str]:
    """The provider's options that name a chip. Only the number counts where it compiles; all stand in the context.

    A context that says no VTCM is recorded with 4 MiB, which an AR1 has been reported to refuse: it has 2.
    """
    chip = chip_of(soc_model)
    known = {} if chip is None else {"htp_arch": chip.arch, "vtcm_mb": chip.vtcm_mb}
    return {key: str(value) for key, value in {"soc_model": soc_model, **known}.items() if value is not None}


def chip_of(soc_model: int) -> Chip | None:
    """The chip with a number of Qualcomm's library; None for one that is not in the table."""
    return next((chip for chip in _TABLE if chip.soc_model == soc_model), None)
