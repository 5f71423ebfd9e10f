"""What NVIDIA's ONNX parser takes, which TensorRT and TensorRT-RTX share: the tables behind `hiresvit.check.targets`.

Where a list was read stands beside it. "Run" is TensorRT-RTX 1.7. "operators.md" is docs/operators.md of
onnx/onnx-tensorrt as the releases 10.0, 10.1, 10.14, 10.15, 10.16 and 11.1 have it, read row by row. Those of 10.2 to
10.13 were not to be had: what 10.1 and 10.14 say alike holds for them, and where the two differ docs/Changelog.md, read
up to 10.16, says with which release it changed.
"""

from __future__ import annotations


def names(*lines: str) -> frozenset[str]:
    """The words of the lines."""
    return frozenset(" ".join(lines).split())


# "N" in operators.md, all releases, and refused by the parser's checks of 10.1, 10.6 and 10.15.
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
# Run: the parser of RTX 1.7 knows these, and finds no plugin for them. They are in no operators.md.
ONLY_RTX = names("CausalConvWithState LinearAttention")
# Of operators.md of 11.1, and of none before it.
ONLY_11 = names("Swish")

ARRIVED: dict[str, int] = {
    **dict.fromkeys(names("BlackmanWindow HammingWindow HannWindow"), 4),
    "STFT": 5,
    "Attention": 14,
    **dict.fromkeys(names("RMSNormalization RotaryEmbedding TensorScatter"), 15),
}
"""The TensorRT 10.x whose parser brought an operator; the changelog, and operators.md before and after."""

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
        "Acos Acosh Asin Asinh Atan Atanh BatchNormalization Ceil Cos Cosh Einsum Elu Exp Floor Gelu Gemm GridSample "
        "GroupNormalization Hardmax InstanceNormalization IsInf IsNaN LSTM LayerNormalization Log LogSoftmax MatMul "
        "Mean RNN ReduceL2 ReduceLogSum ReduceLogSumExp Round Selu Sigmoid Sin Sinh Softmax Softplus Sqrt Tan Tanh",
    ),
    (
        _FLOATS | {"int8"},
        "AveragePool Conv Erf HardSigmoid LRN LeakyRelu MaxPool PRelu Reciprocal Resize Softsign ThresholdedRelu",
    ),
    (_FLOATS | {"int64", "int8"}, "Relu"),
    (names("float"), "Celu MeanVarianceNormalization"),
    (
        names("float float16"),
        "ConvTranspose GRU GlobalLpPool LpNormalization LpPool Mish RandomNormalLike RandomUniformLike",
    ),
    (names("float float16 int8"), "HardSwish"),
    (names("float float16 int8 int32 int64"), "Shrink"),
    (_FLOATS | _INTS, "CumSum GlobalAveragePool Mod Pow ReduceMean"),
    (
        _FLOATS | _INTS | {"int8"},
        "Abs Add ArgMax ArgMin Clip DepthToSpace Div GlobalMaxPool Greater GreaterOrEqual Less LessOrEqual Max Min "
        "Mul Neg ReduceL1 ReduceMax ReduceMin ReduceProd ReduceSum ReduceSumSquare Sign SpaceToDepth Sub Sum TopK",
    ),
    (_FLOATS | _INTS | {"bool"}, "ScatterElements ScatterND"),
    (
        _FLOATS | _INTS | _BITS,
        "Concat Dropout Equal Expand EyeLike Flatten Gather GatherElements GatherND Identity OneHot Pad Reshape "
        "ReverseSequence Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where",
    ),
    (names("bool"), "And Not Or Xor"),
)
"""The types that an operator's data may have. Run: a graph of one node for each type (opset 20), built by RTX 1.7.

DOUBLE is as good as FP32 everywhere: the parser makes it FP32. An operator that is not here was not tried.
"""

DOCUMENTED: dict[str, frozenset[str]] = _typed(
    (
        _FLOATS,
        "Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose Cos Cosh "
        "CumSum Dropout Einsum Elu Erf Exp Floor GRU Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool "
        "GroupNormalization HardSigmoid HardSwish Hardmax InstanceNormalization IsInf LRN LSTM LayerNormalization "
        "LeakyRelu Log LogSoftmax LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization PRelu "
        "RMSNormalization RNN RandomNormalLike RandomUniformLike Reciprocal Resize RotaryEmbedding Round Selu Sigmoid "
        "Sin Sinh Softmax Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Upsample",
    ),
    (names("float float16"), "DeformConv GridSample Mish NonMaxSuppression NonZero RoiAlign"),
    (names("float"), "STFT"),
    (
        _FLOATS | _INTS,
        "Abs Add ArgMax ArgMin DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual Max Min Mod Mul "
        "Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
        "ReduceSum ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign SpaceToDepth Sub Sum TopK",
    ),
    (
        _FLOATS | _INTS | {"bool"},
        "Concat Expand EyeLike Flatten Gather GatherElements GatherND Identity OneHot Reshape ReverseSequence Shape "
        "Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where",
    ),
    (_FLOATS | _INTS | {"float8e4m3fn"}, "Mean"),
    (_FLOATS | _INTS | {"int8"}, "Gelu"),
    (_FLOATS | {"int8", "float8e4m3fn"}, "Attention"),
    (_FLOATS | {"int32"}, "TensorScatter"),
    (names("bool"), "And Not Or Xor"),
)
"""The types that operators.md lists for an operator's data, alike in all releases but for what follows."""
DOCUMENTED_10_3 = {**DOCUMENTED, "Pow": _FLOATS}
"""Powers of integers came with 10.12."""

REFUSED: frozenset[str] = names(
    "Attention.outputs Attention.softcap Conv.spatial Dropout.training EyeLike.dynamic Hardmax.dynamic",
    "If.ranks LSTM.input_forget LpNormalization.p Loop.carried MaxPool.indices Norm.training Pool.dilations",
    "Pool.spatial RNN.activations Rank.least Reduce.fed Resize.antialias Resize.axes Resize.nearest",
    "Resize.policy Resize.transformation Resize.volume STFT.complex STFT.fed Scatter.reduction Slice.starts",
    "TensorScatter.axis TensorScatter.rank TopK.k Upsample.mode",
)
"""Forms of operators (`hiresvit.check.form_rules`) that the parser or the builder refuses. Run: each; most of them are
restrictions of operators.md too.
"""
RULED_OUT: frozenset[str] = names(
    "Attention.inputs Attention.mask Attention.rank Cast.uint8 DeformConv.pads DeformConv.spatial GridSample.rank",
    "If.names If.ranks_ever LSTM.layout Loop.scan Pool.line Reduce.computed Resize.cubic RotaryEmbedding.positions",
    "TopK.sorted",
)
"""Forms that operators.md rules out in words, in all releases that have the operator. Run: RTX 1.7 builds them, but for
DeformConv, which it lacks. TensorRT#4619: 10.6 refuses a GridSample of 5 axes. That UINT8 is cast from FP32 and FP16
and to them alone is said of DataType in NvInferRuntimeBase.h.
"""
RULED_OUT_10_3: frozenset[str] = RULED_OUT | names(
    "BatchNormalization.types CumSum.computed Pad.computed Pow.integers RandomLike.constant Squeeze.computed"
)
"""Also what the changelog brings later: tensors as axes of Pad (10.4), Squeeze (10.7) and CumSum (10.8), a
BatchNormalization of mixed precision in a strongly typed network (10.7), an exponent of integers (10.8), the shape of a
constant for random numbers (10.11), a base of integers (10.12).
"""
DOUBTED_10_3: frozenset[str] = names("Einsum.repeated Pow.types ScatterND.opset_18")
"""Forms that the changelog brings or mends later, and that operators.md of 10.1 does not rule out: an Einsum with an
ellipsis, a diagonal or sizes of 1 that are spread (10.12), ScatterND from opset 18 on (10.9). A power of two types was
built by RTX 1.7, where the importer of 10.1 hands both to a layer of one type.
"""

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
