"""What ONNX's operators are to us: sets of their names, each written once. Smaller sets make larger ones."""

from __future__ import annotations

OWN_DOMAINS = ("", "ai.onnx")
"""The names of ONNX's own domain."""

QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
CARRIERS = QUANTIZERS | {"Cast", "Identity"}
"""What hands a tensor on in another type."""

RESHAPES = frozenset({"Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""The same numbers in the same order."""
LAYOUT = RESHAPES | {"Cast", "Transpose"}
"""The same numbers, in another order or type."""
CUTS = LAYOUT | {"Slice", "Split"}
"""All of the numbers or a part of them."""
MOVES = CUTS | {"Concat", "Flatten", "Pad"}
"""What computes nothing, and keeps places together."""
SPREADS = frozenset({"DepthToSpace", "Expand", "Gather", "SpaceToDepth", "Tile"})
"""What computes nothing, and repeats numbers or sends them elsewhere."""

LINEARS = frozenset({"Gemm", "MatMul"})
WEIGHTED = LINEARS | {"Conv", "ConvTranspose"}
"""Products that a layer's weights are an operand of."""
PAIRED = frozenset({"Einsum", "MatMul"})
"""Products that may have two activations for operands."""
FLOORS = {"Relu": 0.0, "HardSwish": -3.0, "Gelu": -4.0}
"""Of these operators' input: results for what is below differ by less than 8 bits tell apart."""
RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
PRODUCTS = WEIGHTED | PAIRED | RECURRENT | {"Attention"}
"""The operators that multiply and accumulate."""

ISLANDS = frozenset({"LayerNormalization", "Softmax"})
"""FP32 in an FP16 graph by default: TensorRT absorbs the casts around them, and still fuses an attention's Softmax."""

SCALE_OR_MASK = frozenset({"Add", "Div", "Mul", "Sub", "Where"})
HARMLESS = (
    SCALE_OR_MASK
    | {"Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Clip", "Cos", "Cosh", "Exp"}
    | {"Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Max", "Min", "Mod", "Neg"}
    | {"PRelu", "Reciprocal", "Round", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan"}
    | {"ThresholdedRelu"}
)
"""Operators on each score alone that an attention is fused with (run: each, before and behind the softmax)."""
BARRIERS = frozenset({"Elu", "Erf", "Mish", "Pow", "Relu", "Sigmoid", "Tanh", "Transpose"})
"""Those that it is not: they go into the product before them, or move the scores (run: each)."""
