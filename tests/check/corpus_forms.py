"""Small graphs about forms of operators, with a good neighbour each, and weights that are no numbers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from corpus_graphs import F16, F32, PICTURE, ROWS, SCALES, Entry, entry

FORMS: list[Entry] = []
DOCUMENTED = ("jetpack6", "jetpack7", "trt11")


def add(name: str, body: str, expected: str = "", **more: Any) -> None:
    FORMS.append(entry(name, body, expected, **more))


def ruled_out(name: str, body: str, **more: Any) -> None:
    """TensorRT-RTX builds it, and the documents of the others rule it out."""
    add(name, body, "illegal ruled_out", **{"rtx": "", **more})


def refused(name: str, body: str, **more: Any) -> None:
    add(name, body, "illegal form", **more)


# Resizing
LINEAR = 'y = Resize<mode = "linear">(x, , s)'
add("resize linear", LINEAR, io=PICTURE, constants={"s": SCALES["s"]})
VOLUME, SLABS = "(float16[1,2,4,8,8] x) => (float16[1,2,D,H,W] y)", np.array([1, 1, 1, 2, 2], F32)
CUBIC = 'y = Resize<mode = "cubic">(x, , s)'
ruled_out("resize of a volume's slabs", CUBIC, io=VOLUME, constants={"s": SLABS})
add(
    "resize of a volume",
    CUBIC,
    "illegal form ruled_out",
    io=VOLUME,
    constants={"s": np.array([1, 1, 2, 2, 2], F32)},
    rtx="illegal form",
)
OF_NN = 'coordinate_transformation_mode = "tf_half_pixel_for_nn"'
add("resize to the nearest", f"y = Resize<{OF_NN}>(x, , s)", io=PICTURE, constants={"s": SCALES["s"]})
refused(
    "resize to the nearest above",
    f'y = Resize<{OF_NN}, nearest_mode = "ceil">(x, , s)',
    io=PICTURE,
    constants={"s": SCALES["s"]},
)
SOME = 'y = Resize<mode = "linear", axes = [2, 3]>(x, , s)'
add("resize of some axes", SOME, io=PICTURE, constants={"s": np.array([2, 2], F32)})
refused(
    "resize of some axes by what is computed",
    f"h = Shape<start = 2, end = 4>(x) f = Cast<to = 1>(h) s = Div(f, e) {SOME}",
    io=PICTURE,
    constants={"e": np.array([4, 4], F32)},
)
OLD: dict[str, Any] = {
    "io": "(float16[1,1,4,4] x) => (float16[1,1,8,8] y)",
    "constants": {"s": SCALES["s"]},
    "opset": 9,
}
add("upsample", 'y = Upsample<mode = "linear">(x, s)', **OLD)
refused("upsample cubic", 'y = Upsample<mode = "cubic">(x, s)', **OLD)
ruled_out(
    "grid of a volume",
    "y = GridSample(x, g)",
    io="(float16[1,1,4,4,4] x) => (float16[1,1,2,2,2] y)",
    constants={"g": np.zeros((1, 2, 2, 2, 3), F16)},
)

# Convolutions and pools
DEFORMED = "(float[1,4,8,8] x, float[1,2,{0},{0}] o) => (float[1,4,{0},{0}] y)"
WEIGHT = {"w": np.ones((4, 4, 1, 1), F32)}
add(
    "deformable convolution padded alike",
    "y = DeformConv<pads = [1, 1, 1, 1]>(x, w, o)",
    io=DEFORMED.format(10),
    constants=WEIGHT,
    rtx="illegal operator",
)
ruled_out(
    "deformable convolution padded at the end",
    "y = DeformConv<pads = [0, 0, 2, 2]>(x, w, o)",
    io=DEFORMED.format(10),
    constants=WEIGHT,
    rtx="illegal operator",
)
ruled_out(
    "deformable convolution of a volume",
    "y = DeformConv(x, w, o)",
    io="(float[1,4,8,8,8] x, float[1,3,8,8,8] o) => (float[1,4,8,8,8] y)",
    constants={"w": np.ones((4, 4, 1, 1, 1), F32)},
    rtx="illegal operator",
)
add("average", "y = AveragePool<kernel_shape = [2, 2]>(x)", io=PICTURE)
LINE = "(float16[1,2,8] x) => (float16[1,2,7] y)"
ruled_out("average along a line", "y = AveragePool<kernel_shape = [2]>(x)", io=LINE)
ruled_out("maximum along a line", "y = MaxPool<kernel_shape = [2]>(x)", io=LINE)
refused("norm along a line", "y = LpPool<kernel_shape = [2]>(x)", io=LINE)
CELLS = "(float16[1,2,4,4,4,4] x) => (float16[1,2,3,3,3,3] y)"
refused("pool of four axes", "y = MaxPool<kernel_shape = [2, 2, 2, 2]>(x)", io=CELLS)
add("pool of norms", "y = LpPool<kernel_shape = [2, 2], p = 1>(x)", io=PICTURE)
refused("pool of third norms", "y = LpPool<kernel_shape = [2, 2], p = 3>(x)", io=PICTURE)


# Recurrence
def recurrent(op: str, more: str = "", directions: int = 1) -> tuple[str, dict[str, Any]]:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op] * 4
    weights = {"w": np.ones((directions, gates, 5), F32), "r": np.ones((directions, gates, 4), F32)}
    io = (
        f"(float[3,2,5] x) => (float[3,{directions},2,4] y)"
        if "layout" not in more
        else "(float[3,2,5] x) => (float[3,2,1,4] y)"
    )
    return f"y = {op}<hidden_size = 4{more}>(x, w, r)", {"io": io, "constants": weights}


def add_recurrent(name: str, op: str, more: str, expected: str, directions: int = 1, **but: str) -> None:
    body, graph = recurrent(op, more, directions)
    add(name, body, expected, **graph, **but)


BOTH = ', direction = "bidirectional"'
add_recurrent("lstm", "LSTM", "", "")
add_recurrent("lstm in both directions", "LSTM", BOTH, "", 2)
add_recurrent(
    "lstm of pictures first", "LSTM", ", layout = 1", "illegal ruled_out hazard ignored", rtx="hazard ignored"
)
add_recurrent("gru", "GRU", "", "")
add_recurrent("gru of pictures first", "GRU", ", layout = 1", "hazard ignored")
add_recurrent("lstm that couples its gates", "LSTM", ", input_forget = 1", "illegal form")
OTHERS = ', activations = ["Tanh", "Relu"]'
add_recurrent("rnn with other activations backwards", "RNN", BOTH + OTHERS, "illegal form", 2)
OTHERS = ', activations = ["Sigmoid", "Tanh", "Sigmoid", "Relu"]'
add_recurrent("gru with other activations backwards", "GRU", BOTH + OTHERS, "illegal form", 2)

# Attention of ONNX
HEADS = "(float16[1,2,8,16] q, float16[1,2,8,16] k{}) => (float16[1,2,8,16] y{})"
LATE: dict[str, Any] = dict.fromkeys(("jetpack6", "jetpack7"), "illegal opset operator")
LATE_RULED_OUT: dict[str, Any] = dict.fromkeys(("jetpack6", "jetpack7"), "illegal opset operator ruled_out") | {
    "trt11": "illegal ruled_out",
    "rtx": "",
}
LATE_REFUSED: dict[str, Any] = dict.fromkeys(("jetpack6", "jetpack7"), "illegal form opset operator")


def late(name: str, body: str, io: str, expected: str = "", opset: int = 23, **more: Any) -> None:
    add(name, body, expected, io=io, opset=opset, **{**LATE, **more})


late(
    "attention of three axes",
    "y = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, k)",
    "(float16[1,8,32] q, float16[1,8,32] k) => (float16[1,8,32] y)",
    **LATE_RULED_OUT,
)
MASKED = HEADS.format(", float16[8,8] m", "")
late("attention with a flat mask", "y = Attention(q, k, k, m)", MASKED, **LATE_RULED_OUT)
CAPPED = "y = Attention<softcap = 2.0>(q, k, k)"
late("attention with a cap", CAPPED, HEADS.format("", ""), "illegal form", **LATE_REFUSED)
SCORES = HEADS.format("", ", float16[1,2,8,8] a")
late("attention and its scores", "y, , , a = Attention(q, k, k)", SCORES, "illegal form", **LATE_REFUSED)
PADDED, LENGTHS = "y = Attention(q, k, k, , , , n)", HEADS.format(", int64[1] n", "")
late("attention with lengths", PADDED, LENGTHS, opset=24, **LATE_RULED_OUT)
TURNED = {"c": np.ones((50, 8), F16)}
ROTARY = "(float16[1,2,8,16] x, {}[1,8] p) => (float16[1,2,8,16] y)"
late("rotary embedding", "y = RotaryEmbedding(x, c, c, p)", ROTARY.format("int64"), constants=TURNED)
late(
    "rotary embedding of places in int32",
    "y = RotaryEmbedding(x, c, c, p)",
    ROTARY.format("int32"),
    constants=TURNED,
    **LATE_RULED_OUT,
)
FIRST = {"i": np.array([0])}
CACHE = "(float16[1,2,8,16] x, float16[1,2,1,16] u) => (float16[1,2,8,16] y)"
late("cache", "y = TensorScatter(x, u, i)", CACHE, opset=24, constants=FIRST)
FLAT = "(float16[1,8,16] x, float16[1,1,16] u) => (float16[1,8,16] y)"
late(
    "cache of three axes",
    "y = TensorScatter(x, u, i)",
    FLAT,
    "illegal form",
    opset=24,
    constants=FIRST,
    **LATE_REFUSED,
)
OTHER = "(float16[1,8,2,16] x, float16[1,1,2,16] u) => (float16[1,8,2,16] y)"
late(
    "cache along another axis",
    "y = TensorScatter<axis = 1>(x, u, i)",
    OTHER,
    "illegal form",
    opset=24,
    constants=FIRST,
    **LATE_REFUSED,
)
LINEAR_HEADS = "y, s = LinearAttention<q_num_heads = 2, kv_num_heads = 2>(q, k, k)"
late(
    "linear attention",
    LINEAR_HEADS,
    "(float16[1,8,32] q, float16[1,8,32] k) => (float16[1,8,32] y)",
    "illegal opset operator",
    opset=27,
    rtx="illegal operator hazard opset",
)
SWISH = "(float16[4] x) => (float16[4] y)"
late("swish", "y = Swish(x)", SWISH, opset=24)

# Axes, places and sizes
AXIS = {"c": np.array([1], np.int32)}
COMPUTED = "a = Cast<to = 7>(c) "
SMALL = "(float16[4,4] x) => (float16[N,M] y)"
add(
    "squeeze along what constants give",
    f"{COMPUTED} y = Squeeze(x, a)",
    io="(float16[4,1] x) => (float16[4] y)",
    constants=AXIS,
    jetpack6="illegal ruled_out",
)
add(
    "unsqueeze along what constants give",
    f"{COMPUTED} y = Unsqueeze(x, a)",
    io="(float16[4,4] x) => (float16[4,1,4] y)",
    constants=AXIS,
)
add("sums along an axis", "y = CumSum(x, o)", io=SMALL, constants={"o": np.array(1)})
add(
    "sums along what constants give",
    f"{COMPUTED} y = CumSum(x, a)",
    io=SMALL,
    constants=AXIS,
    jetpack6="illegal ruled_out",
)
PADS = {"p": np.array([1, 1])}
add("pad of an axis", "y = Pad(x, p, , a)", io=SMALL, constants={**PADS, "a": np.array([1])})
add(
    "pad of what constants give",
    f"{COMPUTED} y = Pad(x, p, , a)",
    io=SMALL,
    constants={**PADS, **AXIS},
    jetpack6="illegal ruled_out",
)
ruled_out(
    "top 4 in any order",
    "y, z = TopK<sorted = 0>(x, k)",
    io="(float16[16] x) => (float16[4] y, int64[4] z)",
    constants={"k": np.array([4])},
)
ruled_out(
    "labels as uint8 of whole numbers",
    "i = ArgMax<axis = 1, keepdims = 0>(x) y = Cast<to = 2>(i)",
    io="(float16[1,5,4,4] x) => (uint8[1,4,4] y)",
)
add("identity matrix", "e = EyeLike(x) y = Add(x, e)", io="(float16[4,4] x) => (float16[4,4] y)")
refused(
    "identity matrix of any size",
    "e = EyeLike(x) y = Add(x, e)",
    io="(float16[N,M] x) => (float16[N,M] y)",
    profiled=True,
)
add("largest", "y = Hardmax(x)", io="(float16[4,4] x) => (float16[4,4] y)")
refused("largest of any number", "y = Hardmax(x)", io="(float16[N,M] x) => (float16[N,M] y)", profiled=True)
add("third norm", "y = LpNormalization<p = 3>(x)", "illegal form", io=ROWS)
add("second norm", "y = LpNormalization<p = 2>(x)", io=ROWS)
SPECTRUM = "(float[1,64,{}] x) => (float[1,A,B,2] y)"
WINDOW = {"step": np.array(8), "w": np.ones(16, F32)}
add("spectrum", "y = STFT(x, step, w)", io=SPECTRUM.format(1), constants=WINDOW, jetpack6="illegal operator")
refused(
    "spectrum of complex numbers",
    "y = STFT<onesided = 0>(x, step, w)",
    io=SPECTRUM.format(2),
    constants=WINDOW,
    jetpack6="illegal form operator",
)
refused(
    "spectrum through a window that is fed",
    "y = STFT(x, step, w)",
    io="(float[1,64,1] x, float[16] w) => (float[1,A,B,2] y)",
    constants={"step": WINDOW["step"]},
    jetpack6="illegal form operator",
)
SUMS = "(float16[4,4] x) => (float16[4{}] y)"
add("einsum", 'y = Einsum<equation = "ij,jk->ik">(x, x)', io=SUMS.format(",4"))
for what, equation, shape in (("ellipsis", "...i,...i->...", ""), ("diagonal", "ii->i", "")):
    operands = ", ".join("x" * len(equation.partition("-")[0].split(",")))
    add(
        f"einsum with {what}",
        f'y = Einsum<equation = "{equation}">({operands})',
        io=SUMS.format(shape),
        jetpack6="hazard doubted",
    )
add(
    "einsum that spreads",
    'y = Einsum<equation = "ij,ij->ij">(x, r)',
    io=SUMS.format(",4"),
    constants={"r": np.ones((1, 4), F16)},
    jetpack6="hazard doubted",
)
add("power of two", "y = Pow(x, e)", io=ROWS, constants={"e": F16(2)})
add(
    "power of an integer",
    "y = Pow(x, e)",
    io=ROWS,
    constants={"e": np.array(2)},
    jetpack6="illegal ruled_out hazard doubted",
)
add("noise", "n = RandomNormalLike(x) y = Add(x, n)", io=ROWS)
add("noise with a seed", "n = RandomNormalLike<seed = 1.0>(x) y = Add(x, n)", "hazard ignored", io=ROWS)
add(
    "noise of a constant's size",
    "n = RandomUniformLike(c) y = Add(x, n)",
    io=ROWS,
    constants={"c": np.ones((4, 16), F16)},
    jetpack6="illegal ruled_out",
)

# Bodies
FLATS = {"one": np.array([16]), "two": np.array([4, 4]), "also": np.array([2, 8])}


def choice(condition: str, name: str, shape: str) -> str:
    sizes = {"one": "16", "two": "4,4", "also": "2,8"}
    then = f"t () => (float16[{sizes[shape]}] {name}) {{ {name} = Reshape(x, {shape}) }}"
    return (
        f"y = If({condition}) <then_branch = {then}, else_branch = e () => (float16[4,4] b) {{ b = Reshape(x, two) }}>"
    )


def sizes_of(*names: str) -> dict[str, Any]:
    return {name: FLATS[name] for name in names}


FED = "(float16[4,4] x, bool c) => (float16 y)"
KNOWN = {"c": np.array(True)}
add("if of other sizes", choice("c", "a", "also"), io=FED, constants=sizes_of("two", "also"))
refused("if of other ranks", choice("c", "a", "one"), io=FED, constants=sizes_of("two", "one"))
ruled_out(
    "if of other ranks that is known",
    choice("c", "a", "one"),
    io="(float16[4,4] x) => (float16 y)",
    constants={**sizes_of("two", "one"), **KNOWN},
)
ruled_out("if of one name", choice("c", "b", "two"), io=FED, constants=sizes_of("two"))
ROUND = "body = b (int64 i, bool p, float16[{0}] v) => (bool q, float16[{1}] w{2}) {{ q = {3}(p) {4} }}"
STACK = "(float16[2] x{}) => (float16[{}2] y)"
ROUNDS: dict[str, Any] = {"n": np.array(3), "c": np.array(True)}
KEPT = ROUND.format("2", "2", ", float16[2] o", "Identity", "w = Relu(v) o = Neg(v)")
add("loop with results of every round", f"v, y = Loop(n, c, x) <{KEPT}>", io=STACK.format("", "3,"), constants=ROUNDS)
ENDS = "{ k = ReduceSum<keepdims = 0>(v) q = Less(k, z) w = Relu(v) o = Neg(v) }"
ENDS = f"body = b (int64 i, bool p, float16[2] v) => (bool q, float16[2] w, float16[2] o) {ENDS}"
ruled_out(
    "loop with results of rounds that nobody counts",
    f"v, y = Loop(n, c, x) <{ENDS}>",
    io=STACK.format("", "N,"),
    constants={**ROUNDS, "z": F16(3)},
)
ENDS_ALONE = ENDS.replace(", float16[2] o)", ")").replace(" o = Neg(v)", "")
add(
    "loop of rounds that nobody counts",
    f"y = Loop(n, c, x) <{ENDS_ALONE}>",
    io=STACK.format("", ""),
    constants={**ROUNDS, "z": F16(3)},
)
GROWS = ROUND.format("N", "M", "", "Identity", "w = Concat<axis = 0>(v, v)")
refused("loop that grows", f"y = Loop(n, c, x) <{GROWS}>", io="(float16[2] x) => (float16[N] y)", constants=ROUNDS)
INSIDE = ROUND.format("1,1,4,4", "1,1,4,4", "", "Identity", "w = GridSample(v, g)")
add(
    "grid in a loop",
    f"y = Loop(n, c, x) <{INSIDE}>",
    io="(float16[1,1,4,4] x) => (float16[1,1,4,4] y)",
    constants={**ROUNDS, "g": np.zeros((1, 4, 4, 2), F16)},
)
CUBE = ROUND.format("1,1,4,4,4", "1,1,4,4,4", "", "Identity", "w = GridSample(v, g)")
ruled_out(
    "grid of a volume in a loop",
    f"y = Loop(n, c, x) <{CUBE}>",
    io="(float16[1,1,4,4,4] x) => (float16[1,1,4,4,4] y)",
    constants={**ROUNDS, "g": np.zeros((1, 4, 4, 4, 3), F16)},
)

# Types of data
add(
    "grid in bfloat16",
    "y = GridSample(x, g)",
    "hazard undocumented_type",
    io="(bfloat16[1,1,4,4] x) => (bfloat16[1,1,2,2] y)",
    constants={"g": np.zeros((1, 2, 2, 2), ml_dtypes.bfloat16)},
    rtx="",
)
add(
    "sums of int64",
    "y = CumSum(x, o)",
    "hazard undocumented_type",
    io="(int64[4,4] x) => (int64[4,4] y)",
    constants={"o": np.array(1)},
    rtx="",
)
add(
    "bytes that are cast", "y = Cast<to = 10>(x)", "illegal unquantized", io="(int8[4,4] x) => (float16[4,4] y)", rtx=""
)
add(
    "bytes that are dequantized",
    "y = DequantizeLinear(x, s)",
    io="(int8[4,4] x) => (float16[4,4] y)",
    constants={"s": F16(0.1)},
)

# Weights that are no numbers
for kind, name in ((F32, "FP32"), (F16, "FP16"), (ml_dtypes.bfloat16, "BF16")):
    dtype = {"FP32": "float", "FP16": "float16", "BF16": "bfloat16"}[name]
    spoiled = np.ones((16, 16), kind)
    spoiled[3, 4] = np.nan
    io = f"({dtype}[4,16] x) => ({dtype}[4,16] y)"
    add(f"nan in a weight in {name}", "y = MatMul(x, w)", "hazard not_a_number", io=io, constants={"w": spoiled})
add(
    "weight in FP32",
    "y = MatMul(x, w)",
    io="(float[4,16] x) => (float[4,16] y)",
    constants={"w": np.ones((16, 16), F32)},
)
ENDLESS = np.full((16, 16), np.inf, F32)
add(
    "infinite weight in FP32",
    "y = MatMul(x, w)",
    "hazard infinite_weight",
    io="(float[4,16] x) => (float[4,16] y)",
    constants={"w": ENDLESS},
)
add("infinite bound in FP32", "y = Clip(x, , w)", io="(float[4,16] x) => (float[4,16] y)", constants={"w": F32(np.inf)})
