"""What Qualcomm's HTP takes, chip by chip: the rows behind ``--target ar1``, which need nothing installed.

All of it was run: each form was compiled by `onnxruntime-qnn` 2.7.0 (QAIRT 2.51) with fallback to the CPU forbidden,
and what was taken was executed in the emulator and compared with ONNX Runtime's CPU (tests/check/test_htp_corpus.py
does it again). Names and numbers of chips are `hiresvit.device.chips`'s.
"""

from __future__ import annotations

import onnx

from hiresvit.check.nvidia_parser import names
from hiresvit.check.target import Target
from hiresvit.device.chips import CHIPS, Chip
from hiresvit.graph.dtypes import NUMBERS

TAKEN = names(
    "Abs Add And ArgMax ArgMin Atan Attention AveragePool BatchNormalization Cast Ceil Clip Concat Constant",
    "ConstantOfShape Conv ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp",
    "Expand Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater",
    "GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsNaN LRN",
    "LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul Max MaxPool",
    "Mean Min Mish Mul Neg Not Or PRelu Pad Pow QuantizeLinear RMSNormalization Reciprocal ReduceL2",
    "ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Resize RoiAlign Round STFT",
    "ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Size Slice Softmax Softplus SpaceToDepth Split Sqrt",
    "Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Upsample Where Xor",
)
"""ONNX's operators that the provider has something for, or that ONNX Runtime writes in such before it asks.

Run: those with a form in tests/check/test_targets.py; of the others the provider's source has a builder
(op_builder_factory.cc of onnxruntime-qnn, as of 2026-03).
"""
_FLOAT_ONLY = names("Attention Mish TopK")
"""Run: in Q/DQ, too, these are computed in floating point, by parts of them at least."""
_ONNX = frozenset(schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == "")
_MOVED = names("Expand Gather MaxPool Resize Tile")
_REFUSED = names(
    "BatchNormalization.wide Conv.weight Einsum.wide Erf.alone GridSample.axes GridSample.mode",
    "GroupNormalization.groups GroupNormalization.quantized InstanceNormalization.axes MatMul.ranks Norm.axes",
    "Norm.scale Product.unquantized Quantize.dynamic",
)
# What is said of NVIDIA's parser and builder alone, or was measured to be harmless here.
_OF_OTHERS = names(
    "attention block block_axis double doubtful_type ignored int4_activation int64 long_sum narrowed scalar",
    "scale_dynamic stored uint8 undocumented_type unquantized unsigned weight_axis widened",
)


def _row(chip: Chip) -> Target:
    """What was measured of all chips, and what a chip's own fields say."""
    both = names("long_mean lost_transpose signed_softmax turned_weight wide_mask")
    in_float = names("byte_cast edge_pad half_product padded_mean") | names("fused_gelu" if chip.arch >= 73 else "")
    return Target(
        name=chip.name,
        title=str(chip),
        tensorrt=(),
        min_opset=7,
        max_opset=26,
        unsupported=_ONNX - TAKEN | (frozenset() if chip.fp16 else _FLOAT_ONLY),
        own_ops=frozenset(),
        tensors=(NUMBERS | {"uint16", "int16", "uint32"}) - {"double", "bfloat16"},
        types={},
        quantized=names("int8 uint8 int16 uint16 int32 int4"),
        asymmetric=names("int8 uint8 int16 uint16"),
        quantizer_domains=names("com.microsoft"),
        refused=_REFUSED if chip.wide_products else _REFUSED | {"MatMul.int16"},
        max_rank=5,
        chip=chip,
        not_asked=_OF_OTHERS,
        folds_constants=True,  # ONNX Runtime does it
        takes_ranges=False,
        fuses_wide_moves=True,
        integers_only=not chip.fp16,
        one_scale=_MOVED,
        narrows_products=True,
        takes_wide_products=chip.wide_products,
        miscomputes=both | in_float if chip.fp16 else both,
    )


HTP_TARGETS = {chip.name: _row(chip) for chip in CHIPS.values()}
"""By the name that ``--target`` takes."""
