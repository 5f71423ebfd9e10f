"""What a bundle can hold: a row for each file, and all else that is known about stages derived from the rows.

A stage's ``name`` is its role in a manifest, what ``--graph`` picks and what a graph is stamped with. Parity and
``--min-... STAGE=VALUE`` know it by its ``gate``, which for ``fp32`` is ``onnx`` and for a plan that of its graph.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hiresvit.spec import HTP_FORMS, HtpForm

Kind = Literal["graph", "plan", "info", "table", "chart", "golden", "picture"]
Limits = tuple[float, float, float]


@dataclass(frozen=True)
class Stage:
    """One file of a bundle.

    ``parent`` is the stage it is made from, None for the weights. A graph or plan is held to the limits of ``gate``,
    which the row of a graph says itself: least SQNR in dB, cosine and agreement (`hiresvit.evaluation.parity`).
    ``build`` ranks the graphs that a plan is made from. ``calibrates``: the network in FP32 as TensorRT gets it.
    """

    name: str
    file: str
    kind: Kind
    parent: str | None
    gate: str = ""
    limits: Limits | None = None
    build: int | None = None
    calibrates: bool = False


# PyTorch against its own FP32 export. The order of summation leaves 108 dB on HRViT-b1 at 512x512 with fresh weights
# and standardised logits (see `models.standardise_logits`; 129 dB before, because the mean of a logit counts as
# signal). Small mistakes cost more than the gate allows: tests/evaluation/test_mutations.py. Folded constants and
# the same sums under other names, for ONNX Runtime's CPU, are the same noise.
_FP32: Limits = (90.0, 0.999999, 0.999)
# 11 bits of mantissa leave 43 to 45 dB on fresh b1, b2, b3 at 512x512, and 0.4, 3 and 3.5 % flips: every class
# competes in every pixel there, while a trained network decides most pixels by a wide margin.
_FP16: Limits = (38.0, 0.9995, 0.94)
# Rounded behind every operator, and not in the weights and at a few casts only, FP16 leaves up to 6 dB less: 41.4 dB on
# fresh b1, 42.2 on b3 and 43.9 on LRFormer-T at 512x512 with at most 3.2 % flips. On a trained b1 it is 69.3 dB, where
# PyTorch's own half precision has 69.4 and the graph on ONNX Runtime 77.
_EXACT: Limits = (36.0, 0.9995, 0.93)
# Eight bits leave little of a fresh network, whose activations are noise; what a trained one keeps is decided by
# --max-drop, on pictures. This is what no INT8 graph that means anything misses.
_INT8: Limits = (10.0, 0.93, 0.45)
# The form for the HTP in FP16 is a graph in FP32 whose GELUs are written out as tanh of a polynomial.
_HTP_FP16: Limits = (45.0, 0.9999, 0.96)
# Weights of eight bits are what is lost with activations of sixteen: fresh, 27 dB on LRFormer-T and 39 to 45 on the
# other families. With activations of eight as well it is `_INT8`.
_HTP_A16W8: Limits = (18.0, 0.98, 0.7)
# Emulated, FP16 has its own roundings, as `_EXACT` has, and integers are a step beside ONNX Runtime's here and there:
# of a fresh LRFormer-T it leaves 48 dB in FP16, 27 in A16W8, and with activations of eight bits 11 where ONNX Runtime
# has 15. What the compiler lost of a nano (docs/ar.md) left 19 dB in A16W8: that must miss.
_IN_EMULATOR: dict[HtpForm, Limits] = {"fp16": _EXACT, "a16w8": (20.0, 0.99, 0.7), "a8w8": (8.0, 0.9, 0.3)}

# Each after what it is made from.
_TABLE = (
    Stage("fp32", "fp32.onnx", "graph", None, "onnx", _FP32, build=3, calibrates=True),
    Stage("simplified", "simplified.onnx", "graph", "fp32", "simplified", _FP32, build=2, calibrates=True),
    Stage("cpu", "cpu.onnx", "graph", "simplified", "cpu", _FP32),
    Stage("fp16", "fp16.onnx", "graph", "simplified", "fp16", _FP16, build=0),
    Stage("plan", "fp16.plan", "plan", "fp16", "fp16"),
    Stage("plan_info", "fp16.plan.json", "info", "plan"),
    Stage("calibration", "calibration.json", "table", "simplified"),
    Stage("int8", "int8.onnx", "graph", "simplified", "int8", _INT8, build=1),
    Stage("int8_plan", "int8.plan", "plan", "int8", "int8"),
    Stage("int8_plan_info", "int8.plan.json", "info", "int8_plan"),
    Stage("sensitivity", "sensitivity.svg", "chart", "int8"),
    Stage("htp_fp16", "htp_fp16.onnx", "graph", "simplified", "htp_fp16", _HTP_FP16),
    Stage("htp_a16w8", "htp_a16w8.onnx", "graph", "simplified", "htp_a16w8", _HTP_A16W8),
    Stage("htp_a8w8", "htp_a8w8.onnx", "graph", "simplified", "htp_a8w8", _INT8),
    Stage("golden", "golden.npz", "golden", None),
    Stage("picture", "golden.png", "picture", None),
)
STAGES = {stage.name: stage for stage in _TABLE}
GRAPHS = tuple(stage.name for stage in _TABLE if stage.kind == "graph")
PLANS = tuple(stage.name for stage in _TABLE if stage.kind == "plan")
RUNNABLE = (*GRAPHS, *PLANS)
EXACT = "fp16 exact"
"""The FP16 graph once more, rounded wherever FP16 rounds (`hiresvit.evaluation.exact`): a gate without a file."""
HTP: dict[HtpForm, str] = {form: f"htp_{form}" for form in HTP_FORMS}
"""The stage of each form for Qualcomm's HTP."""
EMULATED: dict[HtpForm, str] = {form: f"{stage} emulated" for form, stage in HTP.items()}
"""The same form as Qualcomm's emulator computes it, of the network at a small size: a gate without a file."""
DEFAULT = ("cpu", "simplified", "fp32")
"""What is run of a bundle, the first that there is: it runs everywhere, and the first is the fastest on a CPU."""
LIMITS = {stage.gate: stage.limits for stage in _TABLE if stage.limits is not None} | {EXACT: _EXACT}
LIMITS |= {EMULATED[form]: limits for form, limits in _IN_EMULATOR.items()}
BUILDABLE = tuple(name for _, name in sorted((s.build, s.name) for s in _TABLE if s.build is not None))
"""The graphs that a plan is made from, the one that is taken first."""
CALIBRATING = tuple(stage.name for stage in _TABLE if stage.calibrates)


def stage_path(folder: Path, name: str) -> Path:
    """Where a stage's file lies in a bundle's folder."""
    return folder / STAGES[name].file


def htp_stages(has: Collection[str], *, fp16: bool) -> list[str]:
    """The forms for Qualcomm's HTP of those that a bundle has that fit a chip, the one that is taken first.

    ``fp16``: whether the chip computes in floating point; then that form comes first, else the one of 16 bits.
    """
    return [stage for form, stage in HTP.items() if stage in has and (fp16 or form != "fp16")]


def either(names: Sequence[str]) -> str:
    """Names in a sentence: ``a, b or c``."""
    return f"{', '.join(names[:-1])} or {names[-1]}"
