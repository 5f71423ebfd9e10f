"""What a plan moves, held to numbers that were worked out by hand for plans that TensorRT-RTX really built.

Each product below is of an (elements) by (bytes of one element). The plans' own tensors are added up beside it, by
other code, so that no kernel and no side of one is left out.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from graphs import named_graph, noise
from numpy.typing import NDArray
from rtx import compiled, needs_rtx

from hiresvit.engine.best_shapes import at_best_shapes
from hiresvit.engine.kernels import Kernel, parse_inspector, parse_layers
from hiresvit.engine.precision import macs_by_kernel
from hiresvit.engine.traffic import Bytes, modules_of, read_layers, traffic, with_counts
from hiresvit.errors import ArtefactError
from hiresvit.graph.index import index_graph
from hiresvit.spec import TensorSpec

GOLDEN = Path(__file__).parents[1] / "golden"
WIDTHS = {"float16": 2, "float32": 4}


def half(*shape: int) -> NDArray[np.float16]:
    return noise(*shape).astype(np.float16)


CONV = named_graph(
    "c = Conv<pads=[1,1,1,1],kernel_shape=[3,3]>(x, w, b) y = Relu(c)",
    "float16[N,8,16,16] x",
    "float16[N,16,16,16] y",
    w=half(16, 8, 3, 3),
    b=half(16),
)
ATTENTION = named_graph(
    "a = MatMul(q, k) b = Softmax(a) y = MatMul(b, v)",
    "float16[4,64,32] q, float16[4,32,64] k, float16[4,64,32] v",
    "float16[4,64,32] y",
)
RESIDUAL = named_graph(
    """c = Conv<pads=[1,1,1,1],kernel_shape=[3,3]>(x, w, b) r = Relu(c)
    d = Conv<pads=[1,1,1,1],kernel_shape=[3,3]>(r, w2, b2) y = Add(d, x)""",
    "float16[1,8,16,16] x",
    "float16[1,8,16,16] y",
    w=half(16, 8, 3, 3),
    b=half(16),
    w2=half(8, 16, 3, 3),
    b2=half(8),
)
HEADS = named_graph(
    """q4 = Reshape(q, s) q5 = Transpose<perm=[0,2,1,3]>(q4) k4 = Reshape(k, s) k5 = Transpose<perm=[0,2,3,1]>(k4)
    v4 = Reshape(v, s) v5 = Transpose<perm=[0,2,1,3]>(v4) a = MatMul(q5, k5) b = Softmax(a) c = MatMul(b, v5)
    d = Transpose<perm=[0,2,1,3]>(c) y = Reshape(d, t)""",
    "float16[N,64,64] q, float16[N,64,64] k, float16[N,64,64] v",
    "float16[N,64,64] y",
    s=np.array([0, 64, 2, 32]),
    t=np.array([0, 64, 64]),
)
SIDES = named_graph(
    """c = Conv<pads=[1,1,1,1],kernel_shape=[3,3],strides=[2,2]>(x, w, b) s = Sigmoid(c)
    d = Conv<kernel_shape=[1,1]>(s, w2) e = Resize<mode="linear">(d, , scale) y = Add(e, x)""",
    "float16[1,8,H,W] x",
    "float16[1,8,H,W] y",
    w=half(16, 8, 3, 3),
    b=half(16),
    w2=half(8, 16, 1, 1),
    scale=np.array([1, 1, 2, 2], np.float32),
)
STATIC = named_graph(
    "c = Conv<pads=[1,1,1,1],kernel_shape=[3,3]>(x, w, b) y = Relu(c)",
    "float16[1,8,16,16] x",
    "float16[1,16,16,16] y",
    w=half(16, 8, 3, 3),
    b=half(16),
)
MODELS = {"conv": STATIC, "attention": ATTENTION, "residual": RESIDUAL, "batch": CONV, "heads": HEADS, "sides": SIDES}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Kernel]]:
    return compiled(MODELS, tmp_path_factory.mktemp("traffic"))


def added_up(kernels: list[Kernel]) -> tuple[int, int]:
    """Activations and constants, straight from the list."""
    tensors = [tensor for kernel in kernels for tensor in (*kernel.inputs, *kernel.outputs)]
    constants = [tensor for kernel in kernels for tensor in kernel.constants]
    first, second = (
        sum(math.prod(map(int, tensor.shape)) * WIDTHS[tensor.dtype] for tensor in side)
        for side in (tensors, constants)
    )
    return first, second


@needs_rtx
def test_a_convolution_by_hand(built: dict[str, list[Kernel]]) -> None:
    """The map is copied to the layout of the convolution, and its result back."""
    found = traffic(built["conv"], macs_by_kernel(index_graph(STATIC), built["conv"]))
    small, large = 8 * 16 * 16 * 2, 16 * 16 * 16 * 2  # 4096 and 8192 bytes
    weights = 16 * 8 * 9 * 2 + 16 * 2 + 2 * 4  # and two scalars in FP32
    assert [moved.bytes for moved in found.kernels] == [
        Bytes(small, small, 0),
        Bytes(small, large, weights),
        Bytes(large, large, 0),
    ]
    assert found.activation_bytes == 36864
    assert found.weight_bytes == 2344
    assert added_up(built["conv"]) == (36864, 2344)
    assert [dict(moved.macs) for moved in found.kernels] == [{}, {"fp16": 16 * 16 * 16 * 8 * 9}, {}]
    assert found.intensity == pytest.approx(2 * 294912 / (36864 + 2344), rel=1e-12)  # one division
    assert found.untold == ()
    assert found.by_module()["m.c"] == (Bytes(small, large, weights), 294912)


@needs_rtx
def test_a_fused_attention_by_hand(built: dict[str, list[Kernel]]) -> None:
    """Both products and the softmax in one kernel: scores are never written."""
    found = traffic(built["attention"], macs_by_kernel(index_graph(ATTENTION), built["attention"]))
    one = 4 * 64 * 32 * 2
    assert [(moved.kind, moved.bytes) for moved in found.kernels] == [("attention", Bytes(3 * one, one, 0))]
    assert found.activation_bytes == 65536
    assert added_up(built["attention"]) == (65536, 0)
    assert found.macs == {"fp16": 2 * 4 * 64 * 64 * 32}
    # the two products are called m.a and m.y here: half of it each
    assert found.by_module() == {
        "m.a": (Bytes(3 * one // 2, one // 2, 0), 524288),
        "m.y": (Bytes(3 * one // 2, one // 2, 0), 524288),
    }


@needs_rtx
def test_a_residual_block_by_hand(built: dict[str, list[Kernel]]) -> None:
    """The addition is in the second convolution, which reads the stream once more."""
    found = traffic(built["residual"], macs_by_kernel(index_graph(RESIDUAL), built["residual"]))
    small, large = 4096, 8192
    assert [moved.bytes for moved in found.kernels] == [
        Bytes(small, small, 0),
        Bytes(small, large, 2304 + 32 + 8),
        Bytes(large + small, small, 2304 + 16 + 8),
        Bytes(small, small, 0),
    ]
    assert found.activation_bytes == 45056
    assert added_up(built["residual"]) == (45056, found.weight_bytes)
    assert found.weight_bytes == 4672
    assert found.macs == {"fp16": 2 * 294912}
    assert list(found.by_module()) == ["m.d", "", "m.c"]  # the addition counts for its convolution


@needs_rtx
def test_dynamic_axes_at_the_best_shapes(built: dict[str, list[Kernel]]) -> None:
    """A batch of 2: all of it twice. Two heads are folded into an axis that TensorRT gives no size."""
    with pytest.raises(ArtefactError, match="no shapes and types"):
        traffic([kernel for kernel in built["batch"] if not kernel.constants])
    plain = traffic(built["batch"])
    assert len(plain.untold) == 4  # nothing is taken for 0 in silence
    assert plain.activation_bytes == 0
    sized = at_best_shapes(built["batch"], index_graph(CONV, {"x": (2, 8, 16, 16)}))
    assert traffic(sized).untold == ()
    assert traffic(sized).activation_bytes == 2 * 36864
    heads = at_best_shapes(built["heads"], index_graph(HEADS, dict.fromkeys("qkv", (2, 64, 64))))
    one = 2 * 64 * 64 * 2
    assert traffic(heads).untold == ()
    assert traffic(heads).activation_bytes == (3 * 2 + 4 + 2) * one  # three copies, an attention, a copy
    sides = at_best_shapes(built["sides"], index_graph(SIDES, {"x": (1, 8, 32, 16)}))
    assert traffic(sides).untold == ()
    maps = [32 * 16 * 8 * 2, 16 * 8 * 16 * 2, 16 * 8 * 8 * 2]
    whole, inner, narrow = maps
    assert traffic(sides).activation_bytes == 3 * whole + (whole + inner) + (inner + narrow) + (2 * whole + narrow)


@needs_rtx
def test_a_size_that_could_be_two_is_said(built: dict[str, list[Kernel]]) -> None:
    """Where the map before and behind the convolution fit the same axes, neither is taken."""
    kernel = next(kernel for kernel in built["batch"] if kernel.constants)
    unsure = TensorSpec("t", "float16", ("?", 2048))
    found = at_best_shapes(
        [Kernel("c", "kgen", (unsure,), (), (), "", kernel.nodes)], index_graph(CONV, {"x": (2, 8, 16, 16)})
    )
    assert found[0].inputs == (unsure,)


def named(*nodes: str, name: str = "k") -> Kernel:
    tensor = TensorSpec("t", "float16", (2, 3))
    return Kernel(name, "kgen", (tensor,), (), (tensor,), "", nodes)


@pytest.mark.parametrize(
    ("nodes", "modules"),
    [
        (("a.norm/LayerNormalization", "a/Reshape", "x_fp16/Cast"), ("a.norm", "a")),
        (("a.act/Relu", "a.fc/MatMul_2", "a/Add"), ("a.fc",)),
        (("a.q/Gemm", "a.k/Gemm/merged"), ("a.q", "a.k")),
        (("x_fp16/Cast",), ()),
        (("node_of_x",), ()),
        ((), ()),
    ],
)
def test_modules_of_a_kernel(nodes: tuple[str, ...], modules: tuple[str, ...]) -> None:
    assert modules_of(named(*nodes)) == modules


def test_shares_of_modules_add_up() -> None:
    """12 bytes by three modules and by none; 5 would leave a rest, which the first has."""
    found = traffic([named("a/Add", "b/Add", "c/Mul"), named()])
    assert {module: share.total for module, (share, _) in found.by_module().items()} == {"": 24, "a": 8, "b": 8, "c": 8}
    assert [share.read for share in Bytes(5, 0, 0).split(3)] == [2, 2, 1]
    assert sum((share for share, _ in found.by_module().values()), Bytes()) == found.total


def test_what_is_certain_of_a_kernel() -> None:
    """A tensor that is listed twice is read at least once; a slice may read next to nothing."""
    tensor, other = (TensorSpec(name, "float16", (2, 3)) for name in "ab")
    twice = Kernel("k", "kgen", (tensor, tensor, other), (), (other,), "", ())
    assert traffic([twice]).kernels[0].bytes == Bytes(36, 12, 0)
    assert traffic([twice]).kernels[0].least == Bytes(24, 12, 0)
    slices = [named("m/Slice_2"), named(name="__myl_MulSlicAdd_myl0_3"), named(name="__myl_AddMulEtc_myl0_3")]
    assert [moved.least for moved in traffic(slices).kernels] == [Bytes(0, 12, 0)] * 3


@needs_rtx
def test_layers_of_a_sidecar(built: dict[str, list[Kernel]]) -> None:
    """Kernels stay as TensorRT lists them; the sizes of dynamic axes and the products stand beside them."""
    index = index_graph(CONV, {"x": (2, 8, 16, 16)})
    sized = at_best_shapes(built["batch"], index)
    macs = macs_by_kernel(index, sized)
    layers = json.loads(json.dumps(with_counts(built["batch"], sized, macs)))
    assert [Kernel.from_json(layer) for layer in layers] == built["batch"]
    assert read_layers(layers) == (sized, macs)
    assert sum(map(sum, (count.values() for count in macs))) == 2 * 294912
    older = [{key: value for key, value in layer.items() if key not in ("macs", "best")} for layer in layers]
    kernels, none = read_layers(older)
    assert (kernels, none) == (built["batch"], None)
    assert traffic(kernels, none).to_json()["macs"] is None


@pytest.mark.parametrize(
    "fault", [{"inputs": 3}, {"macs": {"fp16": "x"}}, {"macs": 3}, {"best": {"t": 4}}, {"best": 1}]
)
def test_a_damaged_layer_list(fault: dict[str, object]) -> None:
    layer = {**named().to_json(), "macs": {}, **fault}
    with pytest.raises(ArtefactError, match="layer list is damaged"):
        read_layers([layer])


def test_a_plan_without_its_layer_list() -> None:
    with pytest.raises(ArtefactError, match=r"no layer list.*hiresvit build"):
        traffic([])


def test_inspectors_of_other_releases() -> None:
    """By hand of ``inspector_10.json``: its convolution reads a map of 64 x 96 in 4 channels."""
    found = traffic(parse_inspector((GOLDEN / "inspector_10.json").read_text()))
    stem, down, qkv = (found.kernels[number] for number in (1, 2, 3))
    assert stem.bytes.weights == (864 + 32) * 2  # what is not Myelin's says type and number
    assert down.bytes == Bytes(32 * 32 * 48, 32 * 16 * 24 * 2, 288)
    assert qkv.bytes == Bytes(384 * 32 * 2, 384 * 96 * 2, 0)
    # of Myelin's gemm 10 lists no weights: said, and not taken for none; and one axis is dynamic
    assert "weights of attn.qkv/MatMul_myl3_0" in found.untold
    assert "logits" in found.untold
    newer = traffic(parse_inspector((GOLDEN / "inspector_11.json").read_text()))
    assert newer.untold == ("weights of stem.conv/Conv",)  # an empty list, in that file
    assert newer.activation_bytes > 0


@pytest.mark.parametrize(
    "layers",
    [
        ["stem/Conv + stem/Relu", "{ForeignNode[a...b]}"],
        [{"Name": "a", "Inputs": [{"Name": "x", "Shape": [1, 3]}], "Outputs": [{"Name": "y", "Type": "Half"}]}],
        [{"Name": "a", "Inputs": [{"Name": "x", "Dimensions": [1, 3]}], "Outputs": []}],
        [{"Name": "a", "Inputs": [{"Name": "x", "DataType": "Half"}], "Outputs": []}],
    ],
)
def test_an_inspector_that_names_other_fields(layers: list[object]) -> None:
    """Names alone, fields of another name, a shape without a type, a type without a shape: never 0 bytes."""
    with pytest.raises(ArtefactError, match="no shapes and types of tensors"):
        traffic(parse_inspector(json.dumps({"Layers": layers})))


def test_the_golden_list() -> None:
    """The sum of its own tensors, and what no node names is counted for no module."""
    kernels = parse_layers((GOLDEN / "rtx_layers.txt").read_text())
    found = traffic(kernels)
    assert (found.activation_bytes, found.weight_bytes) == added_up(kernels)
    assert found.total == sum((share for share, _ in found.by_module().values()), Bytes())
