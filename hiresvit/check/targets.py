"""What each TensorRT takes: the facts behind `hiresvit check`, which needs none of them installed.

Where a list was read, and what was not, stands beside it. Only TensorRT-RTX was run here; the other targets are
NVIDIA's documents and the project's issues, and what was measured on RTX, whose parser is the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hiresvit.errors import UsageError

AdviceName = Literal["shared_norm", "orin_qdq", "int8_conv"]


@dataclass(frozen=True)
class Target:
    """A TensorRT on a board, or a range of them that one graph should serve.

    ``tensorrt`` are its versions. ``min_opset`` and ``max_opset`` are what its documents promise. ``unsupported`` are
    operators of ONNX's own domain that its parser has no importer for; those in ``unbuildable`` it imports, and fails
    to build all the same. ``quantized`` are the types that Q/DQ may go through. ``advice`` names known compiler bugs,
    or facts, by the rule that looks for graphs which can hit them.
    """

    name: str
    title: str
    tensorrt: tuple[str, ...]
    min_opset: int
    max_opset: int
    unsupported: frozenset[str]
    unbuildable: frozenset[str]
    quantized: frozenset[str]
    advice: tuple[tuple[AdviceName, str], ...]


def _names(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


# Read: "N" in onnx/onnx-tensorrt docs/operators.md of 10.15, and refused by the parser's checks of 10.6, 10.15.
_NEVER = _names(
    "AffineGrid Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im Compress",
    "ConcatFromSequence ConvInteger DFT Det DynamicQuantizeLinear ImageDecoder MatMulInteger MaxRoiPool MaxUnpool",
    "MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement OptionalHasElement",
    "QLinearConv QLinearMatMul RegexFullMatch SequenceAt SequenceConstruct SequenceEmpty SequenceErase",
    "SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence StringConcat",
    "StringNormalizer StringSplit TfIdfVectorizer Unique",
)
# Run: ONNX's own of opset 26 to 28 that RTX 1.7 does not know either.
_TOO_NEW = _names("BitCast CumProd SwiGLU")
# Run: RTX 1.7 takes these. They are in no list of a TensorRT 10 that was read.
_ONLY_RTX = _names("CausalConvWithState LinearAttention Swish")

ARRIVED: dict[str, int] = {
    **dict.fromkeys(_names("BlackmanWindow HammingWindow HannWindow"), 4),
    "STFT": 5,
    "Attention": 14,
    **dict.fromkeys(_names("RMSNormalization RotaryEmbedding TensorScatter"), 15),
}
"""The TensorRT 10.x whose parser brought an operator; read in onnx-tensorrt's docs/Changelog.md up to 10.15."""

NVIDIA_OPS = _names(
    "TRT_FP8QuantizeLinear TRT_FP8DequantizeLinear TRT_INT4QuantizeLinear TRT_INT4DequantizeLinear",
    "TRT_MXFP8QuantizeLinear TRT_MXFP8DequantizeLinear TRT_MXFP8DynamicQuantize",
)
"""Operators of the domain ``trt`` that NVIDIA's own quantizer writes. Run: RTX knows their names."""

_INT, _FP8, _FP4 = "int8 int4", "float8e4m3fn", "float4e2m1"

JETPACK6 = Target(
    name="jetpack6",
    title="TensorRT 10.3 of JetPack 6",
    tensorrt=("10.3",),
    # operators.md of 10.0; its changelog raises ONNX again only in 10.6. 10.3's own page was not read.
    min_opset=9,
    max_opset=20,
    # 10.15's list without what the changelog says came after 10.3. Gelu and Mish are in the checks of 10.6, and the
    # changelog does not say that they came between: not read for 10.3 itself.
    unsupported=_NEVER | _TOO_NEW | _ONLY_RTX | frozenset(ARRIVED),
    unbuildable=frozenset(),
    quantized=_names(_INT),  # Orin's tensor cores know no FP8
    advice=(),
)
JETPACK7 = Target(
    name="jetpack7",
    title="TensorRT 10.13 and 10.16 of JetPack 7",
    tensorrt=("10.13", "10.16"),
    # ONNX 1.17 (opset 22) came with 10.6 and 1.18 with 10.11; operators.md of 10.15 says 9 to 24. The pages of 10.13
    # and 10.16 were not read: the smaller promise.
    min_opset=9,
    max_opset=22,
    # What 10.13 lacks, for one graph that serves all of JetPack 7. 10.16's own list was not read.
    unsupported=_NEVER | _TOO_NEW | _ONLY_RTX | {op for op, minor in ARRIVED.items() if minor > 13},
    unbuildable=frozenset(),
    quantized=_names(_INT),  # one graph for Thor, which has FP8, and for Orin, which has not
    advice=(
        (
            "shared_norm",
            "10.13.3.9 on Thor miscompiles it at batch 1 (TensorRT-Edge-LLM#151): make it one layer, or build with "
            "__LUNOWUD=-peep:fc_h_fusion=off, and compare the engine with ONNX Runtime",
        ),
        (
            "orin_qdq",
            "10.16.2.10 on Orin refuses some Q/DQ graphs that it builds on Thor, with 'Could not infer output types "
            "for operation: dequantize' (TensorRT#4832, open): build on the board before you rely on it",
        ),
    ),
)
TRT11 = Target(
    name="trt11",
    title="TensorRT 11",
    tensorrt=("11",),
    # docs.nvidia.com/deeplearning/tensorrt/latest/reference/onnx-opset-guide.html
    min_opset=9,
    max_opset=25,
    # 11's own list was not read: RTX 1.7 has its API and parser. DeformConv, which only 10.15 lists, needs a plugin.
    unsupported=_NEVER | _TOO_NEW,
    unbuildable=frozenset(),
    quantized=_names(_INT, _FP8, _FP4),  # FP8 needs a GPU of 8.9 or later, FP4 one of 10.0
    advice=(),
)
RTX = Target(
    name="rtx",
    title="TensorRT-RTX 1.7",
    tensorrt=("RTX 1.7",),
    # Run: it warns below 7 and says nothing above 25; it takes any number and reads all operators as it knows them.
    min_opset=7,
    max_opset=25,
    # Run: OnnxParser.supports_operator over every operator of onnx 1.23 (tests/check/test_targets.py).
    unsupported=_NEVER | _TOO_NEW | {"DeformConv"},
    # Run: their plugins are not in the wheel, or no kernel is found.
    unbuildable=_names("NonMaxSuppression NonZero RoiAlign"),
    quantized=_names(_INT, _FP8, _FP4),
    advice=(
        (
            "int8_conv",
            "its INT8 convolutions write FP32 and need a second kernel each, so its speed says nothing about INT8 on "
            "a full TensorRT: measure there",
        ),
    ),
)

TARGETS: dict[str, Target] = {target.name: target for target in (JETPACK6, JETPACK7, TRT11, RTX)}
"""By the name that ``--target`` takes."""


def find_target(name: str) -> Target:
    """The target of a name. Raises UsageError that lists the names."""
    if name not in TARGETS:
        raise UsageError(f"no target {name!r}: choose one of {', '.join(TARGETS)}")
    return TARGETS[name]


FLOATS = _names("float float16 bfloat16")
_INTS = _names("int32 int64")
_BITS = _names("int8 bool")


def _typed(*rows: tuple[frozenset[str], str]) -> dict[str, frozenset[str]]:
    return {op: types for types, ops in rows for op in ops.split()}


TYPES: dict[str, frozenset[str]] = _typed(
    (
        FLOATS,
        "BatchNormalization Ceil Cos Einsum Elu Exp Floor Gelu Gemm GridSample GroupNormalization Hardmax "
        "InstanceNormalization IsInf IsNaN LayerNormalization Log LogSoftmax MatMul Mean ReduceL2 ReduceLogSum "
        "ReduceLogSumExp Round Selu Sigmoid Sin Softmax Softplus Sqrt Tanh",
    ),
    (
        FLOATS | {"int8"},
        "AveragePool Conv Erf HardSigmoid LRN LeakyRelu MaxPool PRelu Reciprocal Resize Softsign ThresholdedRelu",
    ),
    (FLOATS | {"int64", "int8"}, "Relu"),
    (_names("float"), "Celu MeanVarianceNormalization"),
    (_names("float float16"), "ConvTranspose LpNormalization LpPool Mish"),
    (_names("float float16 int8"), "HardSwish"),
    (FLOATS | _INTS, "CumSum GlobalAveragePool Mod Pow ReduceMean"),
    (
        FLOATS | _INTS | {"int8"},
        "Abs Add ArgMax ArgMin Clip DepthToSpace Div GlobalMaxPool Greater GreaterOrEqual Less LessOrEqual Max Min "
        "Mul Neg ReduceL1 ReduceMax ReduceMin ReduceProd ReduceSum ReduceSumSquare Sign SpaceToDepth Sub Sum TopK",
    ),
    (FLOATS | _INTS | {"bool"}, "ScatterElements ScatterND"),
    (
        FLOATS | _INTS | _BITS,
        "Concat Expand EyeLike Flatten Gather GatherElements GatherND OneHot Pad Reshape Slice Split Squeeze Tile "
        "Transpose Trilu Unsqueeze Where",
    ),
    (_names("bool"), "And Not Or Xor"),
)
"""The types that an operator's data may have. Run: a graph of one node for each type (opset 20), built by RTX 1.7.

DOUBLE is as good as FP32 everywhere: the parser makes it FP32. An operator that is not here was not tried.
"""

DOUBTFUL: dict[str, frozenset[str]] = _typed(
    (_names("float16 bfloat16"), "Celu MeanVarianceNormalization"),
    (_names("bfloat16"), "ConvTranspose HardSwish LpNormalization LpPool"),
    (_names("int32"), "Relu"),
    (_INTS | {"int8"}, "Gelu"),
    (_INTS, "IsNaN Mean ReduceL2 ReduceLogSum ReduceLogSumExp"),
)
"""What operators.md of 10.15 promises and RTX 1.7 refuses: not known for the other targets."""

HOST_INPUTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(_names("BlackmanWindow HammingWindow HannWindow ConstantOfShape"), (0,)),
    **dict.fromkeys(_names("CumSum Expand OneHot Reshape Split Tile TopK Upsample"), (1,)),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
}
"""Inputs whose values decide a size, a count, a place or an axis: a plan cannot be built without them.

Run: the operators of ONNX with such an input, fed. Not here are those whose importer wants a constant (the rule
``form``), and those that read theirs when the plan runs: Trilu, Gather, Clip, a Pad's value, Loop and If.
"""

HOST_OPS: frozenset[str] = _names(
    "Abs Add Cast CastLike Ceil Clip Concat Div Equal Exp Expand Flatten Floor Gather GatherElements Greater Identity",
    "Max Min Mod Mul Neg Pow Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Round",
    "Sigmoid Sign Slice Split Sqrt Squeeze Sub Sum Tile Transpose Unsqueeze Where",
)
"""What may stand between a fed value and `HOST_INPUTS` to no avail. Run: each; behind a TopK, say, RTX builds."""
