"""What NVIDIA's ONNX parser takes, which TensorRT and TensorRT-RTX share: the tables behind `hiresvit.check.targets`.

Where a list was read stands beside it. "Run" is TensorRT-RTX 1.7.
"""

from __future__ import annotations


def names(*lines: str) -> frozenset[str]:
    """The words of the lines."""
    return frozenset(" ".join(lines).split())


# Read: "N" in onnx/onnx-tensorrt docs/operators.md of 10.15, and refused by the parser's checks of 10.6, 10.15.
NEVER = names(
    "AffineGrid Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im Compress",
    "ConcatFromSequence ConvInteger DFT Det DynamicQuantizeLinear ImageDecoder MatMulInteger MaxRoiPool MaxUnpool",
    "MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement OptionalHasElement",
    "QLinearConv QLinearMatMul RegexFullMatch SequenceAt SequenceConstruct SequenceEmpty SequenceErase",
    "SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence StringConcat",
    "StringNormalizer StringSplit TfIdfVectorizer Unique",
)
# Run: ONNX's own of opset 26 to 28 that RTX 1.7 does not know either.
TOO_NEW = names("BitCast CumProd SwiGLU")
# Run: RTX 1.7 takes these. They are in no list of a TensorRT 10 that was read.
ONLY_RTX = names("CausalConvWithState LinearAttention Swish")

ARRIVED: dict[str, int] = {
    **dict.fromkeys(names("BlackmanWindow HammingWindow HannWindow"), 4),
    "STFT": 5,
    "Attention": 14,
    **dict.fromkeys(names("RMSNormalization RotaryEmbedding TensorScatter"), 15),
}
"""The TensorRT 10.x whose parser brought an operator; read in onnx-tensorrt's docs/Changelog.md up to 10.15."""

NVIDIA_OPS = names(
    "TRT_FP8QuantizeLinear TRT_FP8DequantizeLinear TRT_INT4QuantizeLinear TRT_INT4DequantizeLinear",
    "TRT_MXFP8QuantizeLinear TRT_MXFP8DequantizeLinear TRT_MXFP8DynamicQuantize",
)
"""Operators of the domain ``trt`` that NVIDIA's own quantizer writes. Run: RTX knows their names."""

_FLOATS = names("float float16 bfloat16")
_INTS = names("int32 int64")
_BITS = names("int8 bool")


def _typed(*rows: tuple[frozenset[str], str]) -> dict[str, frozenset[str]]:
    return {op: types for types, ops in rows for op in ops.split()}


TYPES: dict[str, frozenset[str]] = _typed(
    (
        _FLOATS,
        "BatchNormalization Ceil Cos Einsum Elu Exp Floor Gelu Gemm GridSample GroupNormalization Hardmax "
        "InstanceNormalization IsInf IsNaN LayerNormalization Log LogSoftmax MatMul Mean ReduceL2 ReduceLogSum "
        "ReduceLogSumExp Round Selu Sigmoid Sin Softmax Softplus Sqrt Tanh",
    ),
    (
        _FLOATS | {"int8"},
        "AveragePool Conv Erf HardSigmoid LRN LeakyRelu MaxPool PRelu Reciprocal Resize Softsign ThresholdedRelu",
    ),
    (_FLOATS | {"int64", "int8"}, "Relu"),
    (names("float"), "Celu MeanVarianceNormalization"),
    (names("float float16"), "ConvTranspose LpNormalization LpPool Mish"),
    (names("float float16 int8"), "HardSwish"),
    (_FLOATS | _INTS, "CumSum GlobalAveragePool Mod Pow ReduceMean"),
    (
        _FLOATS | _INTS | {"int8"},
        "Abs Add ArgMax ArgMin Clip DepthToSpace Div GlobalMaxPool Greater GreaterOrEqual Less LessOrEqual Max Min "
        "Mul Neg ReduceL1 ReduceMax ReduceMin ReduceProd ReduceSum ReduceSumSquare Sign SpaceToDepth Sub Sum TopK",
    ),
    (_FLOATS | _INTS | {"bool"}, "ScatterElements ScatterND"),
    (
        _FLOATS | _INTS | _BITS,
        "Concat Expand EyeLike Flatten Gather GatherElements GatherND OneHot Pad Reshape Slice Split Squeeze Tile "
        "Transpose Trilu Unsqueeze Where",
    ),
    (names("bool"), "And Not Or Xor"),
)
"""The types that an operator's data may have. Run: a graph of one node for each type (opset 20), built by RTX 1.7.

DOUBLE is as good as FP32 everywhere: the parser makes it FP32. An operator that is not here was not tried.
"""

DOUBTFUL: dict[str, frozenset[str]] = _typed(
    (names("float16 bfloat16"), "Celu MeanVarianceNormalization"),
    (names("bfloat16"), "ConvTranspose HardSwish LpNormalization LpPool"),
    (names("int32"), "Relu"),
    (_INTS | {"int8"}, "Gelu"),
    (_INTS, "IsNaN Mean ReduceL2 ReduceLogSum ReduceLogSumExp"),
)
"""What operators.md of 10.15 promises and RTX 1.7 refuses: not known for the other targets."""

HOST_INPUTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(names("BlackmanWindow HammingWindow HannWindow ConstantOfShape"), (0,)),
    **dict.fromkeys(names("CumSum Expand OneHot Reshape Split Tile TopK Upsample"), (1,)),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
}
"""Inputs whose values decide a size, a count, a place or an axis: a plan cannot be built without them.

Run: the operators of ONNX with such an input, fed. Not here are those whose importer wants a constant (the rule
``form``), and those that read theirs when the plan runs: Trilu, Gather, Clip, a Pad's value, Loop and If.
"""

HOST_OPS: frozenset[str] = names(
    "Abs Add Cast CastLike Ceil Clip Concat Div Equal Exp Expand Flatten Floor Gather GatherElements Greater Identity",
    "Max Min Mod Mul Neg Pow Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Round",
    "Sigmoid Sign Slice Split Sqrt Squeeze Sub Sum Tile Transpose Unsqueeze Where",
)
"""What may stand between a fed value and `HOST_INPUTS` to no avail. Run: each; behind a TopK, say, RTX builds."""
