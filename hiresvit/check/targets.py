"""What each of NVIDIA's targets takes: the facts behind `hiresvit check`, which needs none of them installed.

Where a fact was read, and what was not, stands beside it. Only TensorRT-RTX was run here ("run"); the other targets
are NVIDIA's documents and the project's issues. Where these are silent, what was measured on RTX counts, whose parser
is the same code; where they rule out what RTX takes, they count.
"""

from __future__ import annotations

from hiresvit.check import nvidia_parser as nvidia
from hiresvit.check.nvidia_parser import names
from hiresvit.check.qualcomm import HTP_TARGETS
from hiresvit.check.target import Target
from hiresvit.errors import UsageError


def _after(minor: int) -> dict[str, str]:
    """What TensorRT 10.x does not have yet, and which version brings it."""
    return {op: f"10.{later}" for op, later in nvidia.ARRIVED.items() if later > minor}


_INT = names("int8 int4")
_INT_AND_FP = _INT | names("float8e4m3fn float4e2m1")

JETPACK6 = Target(
    name="jetpack6",
    title="TensorRT 10.3 of JetPack 6",
    tensorrt=("10.3",),
    # operators.md of 10.1; the changelog raises ONNX again only with 10.6.
    min_opset=9,
    max_opset=20,
    unsupported=nvidia.NEVER | nvidia.TOO_NEW | nvidia.ONLY_RTX | nvidia.ONLY_11 | frozenset(_after(3)),
    since={**_after(3), **dict.fromkeys(nvidia.ONLY_11, "11")},
    quantized=_INT,  # Orin's tensor cores know no FP8
    documented=nvidia.DOCUMENTED_10_3,
    quantized_only=_INT_AND_FP,
    ruled_out=nvidia.RULED_OUT_10_3,
    doubted=nvidia.DOUBTED_10_3,
    fuses_as_documented=True,
)
JETPACK7 = Target(
    name="jetpack7",
    title="TensorRT 10.13 and 10.16 of JetPack 7",
    tensorrt=("10.13", "10.16"),
    # ONNX 1.17 (opset 22) came with 10.6 and 1.18 with 10.11; operators.md of 10.14 says 9 to 24, that of 10.13 was not
    # to be had: the smaller promise.
    min_opset=9,
    max_opset=22,
    # What 10.13 lacks, for one graph that serves all of JetPack 7.
    unsupported=nvidia.NEVER | nvidia.TOO_NEW | nvidia.ONLY_RTX | nvidia.ONLY_11 | frozenset(_after(13)),
    since={**_after(13), **dict.fromkeys(nvidia.ONLY_11, "11")},
    quantized=_INT,  # one graph for Thor, which has FP8, and for Orin, which has not
    documented=nvidia.DOCUMENTED,
    quantized_only=_INT_AND_FP,
    ruled_out=nvidia.RULED_OUT,
    boards_disagree_on_qdq=True,  # TensorRT#4832
    miscompiles_shared_norm=True,  # TensorRT-Edge-LLM#151
    fuses_as_documented=True,
)
TRT11 = Target(
    name="trt11",
    title="TensorRT 11",
    tensorrt=("11",),
    # operators.md of 11.1. docs.nvidia.com/deeplearning/tensorrt/latest/reference/onnx-opset-guide.html says 25 for all
    # of 11, and the notes of 11.5 that it came with that.
    min_opset=9,
    max_opset=24,
    unsupported=nvidia.NEVER | nvidia.TOO_NEW | nvidia.ONLY_RTX,
    quantized=_INT_AND_FP,  # FP8 needs a GPU of 8.9 or later, FP4 one of 10.0
    documented=nvidia.DOCUMENTED,
    quantized_only=_INT_AND_FP,
    ruled_out=nvidia.RULED_OUT,
)
RTX = Target(
    name="rtx",
    title="TensorRT-RTX 1.7",
    tensorrt=("RTX 1.7",),
    # Run: it warns below 7 and says nothing above 25; it takes any number and reads all operators as it knows them.
    min_opset=7,
    max_opset=25,
    takes_any_opset=True,
    # Run: OnnxParser.supports_operator over every operator of onnx 1.23 (tests/check/test_targets.py).
    unsupported=nvidia.NEVER | nvidia.TOO_NEW | {"DeformConv"},
    # Run: their plugins are not in the wheel, or no kernel is found.
    unbuildable=names("NonMaxSuppression NonZero RoiAlign") | nvidia.ONLY_RTX,
    quantized=_INT_AND_FP,
    # One tensor for q, k and v kills its builder, which lives if one of the three is another.
    refused=nvidia.REFUSED | {"Attention.one_tensor"},
    max_topk=3840,
    # All run.
    takes_any_domain=True,  # it builds foo.Relu as Relu
    takes_uint8_as_int8=True,  # "Defaulting to INT8 instead"
    takes_infinite_scales=True,
    takes_scales_of_any_type=True,  # in INT8
    takes_unfused_qdq=True,
    fuses_narrowed_qdq=True,
    int8_conv_writes_fp32=True,
)

TARGETS: dict[str, Target] = {target.name: target for target in (JETPACK6, JETPACK7, TRT11, RTX)}
"""NVIDIA's, by the name that ``--target`` takes: what a graph is held to where none is named."""
_EVERY = TARGETS | HTP_TARGETS


def find_target(name: str) -> Target:
    """The target of a name. Raises UsageError that lists the names."""
    if name.lower() not in _EVERY:
        raise UsageError(f"no target {name!r}: choose one of {', '.join(_EVERY)}")
    return _EVERY[name.lower()]
