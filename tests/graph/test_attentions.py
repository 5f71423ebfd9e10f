"""Which attentions of a graph are fused: what is predicted of small graphs, held against real builds of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import build, indexed, noise
from onnx import ModelProto
from rtx import compiled, needs_rtx

from hiresvit.engine.fusion import explain_attentions, why_not_fused
from hiresvit.engine.kernels import Kernel
from hiresvit.graph.attentions import POINTS, Attention, count_attentions, find_attentions
from hiresvit.graph.index import index_graph
from hiresvit.graph.operators import BARRIERS, HARMLESS

Case = tuple[ModelProto, str | None]
"""A graph with one attention, and what is said against fusing it."""

FIVE = "qkwvy"  # the points by one letter each, in the order of POINTS


def pair(name: str) -> str:
    return f"{name}_q = QuantizeLinear({name}, s, z) {name}_d = DequantizeLinear({name}_q, s, z) "


def attention(
    *,
    width: int = 32,
    values: int | None = None,
    queries: int = 49,
    keys: int | None = None,
    lead: str = "1,2",
    dtype: str = "float16",
    points: str = "",
    before: str = "s1 = Identity({})",
    softmax: str = "w = Softmax<axis = -1>(s1)",
    after: str = "w1 = Identity({})",
    behind: str = "y = Neg({})",
    more: str = "",
    inputs: str = "",
    outputs: str = "",
    constants: Mapping[str, Any] | None = None,
) -> ModelProto:
    """y = -Softmax(q k) v with q (lead, queries, width), k (lead, width, keys), v (lead, keys, values).

    ``points`` says which of q, k, w, v, y have Q/DQ. ``before`` reads the scores, ``after`` the weights, ``behind``
    the result; ``more`` is further nodes, ``inputs`` and ``outputs`` more of them.
    """
    keys, values = keys or queries, values or width
    operand = {name: f"{name}_d" if name in points else name for name in "qkv"}
    body = [pair(name) for name in "qkv" if name in points]
    body += [f"s0 = MatMul({operand['q']}, {operand['k']})", before.format("s0"), softmax, after.format("w")]
    body += [pair("w1")] if "w" in points else []
    body += [f"y0 = MatMul({'w1_d' if 'w' in points else 'w1'}, {operand['v']})"]
    body += [pair("y0")] if "y" in points else []
    body += [behind.format("y0_d" if "y" in points else "y0"), more]
    shapes = {"q": f"{queries},{width}", "k": f"{width},{keys}", "v": f"{keys},{values}"}
    declared = ", ".join(f"{dtype}[{lead},{shapes[name]}] {name}" for name in "qkv")
    result = f"{dtype}[{lead},{queries},{values}] y"
    text = f"g ({declared}{inputs}) => ({result}{outputs}) {{ {' '.join(body)} }}"
    step = np.array(0.05, np.float32 if dtype == "float" else np.float16)
    return named(build(text, {"s": step, "z": np.array(0, np.int8), **(constants or {})}))


def named(model: ModelProto) -> ModelProto:
    for node in model.graph.node:
        node.name = f"block.attn/{node.output[0]}"
    return model


def free(body: str, inputs: str, output: str, opset: int = 20, **constants: Any) -> ModelProto:
    """A graph of FP16 tensors by hand."""
    declared = ", ".join(f"float16[{shape}] {name}" for name, shape in (i.split() for i in inputs.split("; ")))
    return named(build(f"g ({declared}) => (float16[{output}] y) {{ {body} }}", constants, opset))


def widths() -> dict[str, Case]:
    wide = "heads are {} wide: 9 to 256"
    cases: dict[str, Case] = {}
    for width in (4, 8, 9, 12, 16, 20, 24, 64, 250, 256, 257, 264):
        cases[f"width-{width}"] = attention(width=width), None if 8 < width <= 256 else wide.format(width)
    for values in (16, 64):
        cases[f"values-{values}"] = attention(values=values), f"values are {values} wide, queries and keys 32"
    return cases


def sizes() -> dict[str, Case]:
    one = "batch x heads is 1"
    learned = "s = MatMul(q, k) w = Softmax<axis = -1>(s) m = MatMul(w, v) y = Neg(m)"
    queries = noise(1, 2, 100, 32).astype(np.float16)
    return {
        "learned-queries": (free(learned, "k 1,2,32,49; v 1,2,49,32", "1,2,100,32", q=queries), None),
        "one-key": (attention(keys=1), "one key"),
        "one-query": (attention(queries=1, keys=49), None),
        "two-keys": (attention(queries=2), None),
        "many-keys": (attention(queries=16, keys=2048), None),
        "one-head": (attention(lead="1,1"), one),
        "one-head-3d": (attention(lead="1"), one),
        "one-head-dynamic": (attention(lead="N,1"), None),
        "two-heads-dynamic": (attention(lead="N,2"), None),
        "windows": (attention(lead="1,3,2"), None),
        "pooled-keys": (attention(queries=784, keys=49), None),
    }


def types() -> dict[str, Case]:
    wide = "products are in FP32"
    cast = "s1 = Cast<to = 1>({})"
    return {
        "fp32": (attention(dtype="float"), wide),
        "fp32-softmax": (attention(before=cast, after="w1 = Cast<to = 10>({})"), None),
        "fp32-scores": (
            free(
                "a = Cast<to = 1>(q) b = Cast<to = 1>(k) s = MatMul(a, b) w = Softmax(s) c = Cast<to = 10>(w) "
                "y = MatMul(c, v)",
                "q 1,2,49,32; k 1,2,32,49; v 1,2,49,32",
                "1,2,49,32",
            ),
            wide,
        ),
        "fp32-mix": (
            free(
                "s = MatMul(q, k) a = Cast<to = 1>(s) w = Softmax(a) b = Cast<to = 1>(v) c = MatMul(w, b) "
                "y = Cast<to = 10>(c)",
                "q 1,2,49,32; k 1,2,32,49; v 1,2,49,32",
                "1,2,49,32",
            ),
            wide,
        ),
        "bf16": (
            # it is only fused behind something: of tensors that are inputs it is not, for compute capability 8
            named(
                build(
                    "g (bfloat16[1,2,49,32] i, bfloat16[1,2,32,49] j) => (bfloat16[1,2,49,32] y) "
                    "{ q = Neg(i) k = Neg(j) v = Mul(i, i) s = MatMul(q, k) w = Softmax(s) c = MatMul(w, v) "
                    "y = Neg(c) }",
                    opset=22,
                )
            ),
            None,
        ),
    }


def forms() -> dict[str, Case]:
    add, mask = "s1 = Add({}, m)", np.zeros((1, 1, 49, 49), np.float16)
    where = "s1 = Where(m, {}, c)"
    operands = "q 1,2,49,32; k 1,2,32,49; v 1,2,49,32"
    swapped = "s = MatMul(k, q) w = Softmax<axis = -2>(s) t = Transpose<perm = [0, 1, 3, 2]>(w) y = MatMul(t, v)"
    return {
        "scale": (attention(before="s1 = Mul({}, c)", constants={"c": np.float16(0.2)}), None),
        "divided": (attention(before="s1 = Div({}, c)", constants={"c": np.float16(5)}), None),
        "mask": (attention(before=add, constants={"m": mask}), None),
        "mask-input": (attention(before=add, inputs=", float16[1,1,49,49] m"), None),
        "bool-mask": (
            attention(before=where, inputs=", bool[1,1,1,49] m", constants={"c": np.float16(-100)}),
            None,
        ),
        "reshaped": (
            attention(
                before="a = Reshape({}, h) b = Add(a, m) s1 = Reshape(b, r)",
                constants={"h": np.array([2, 1, 49, 49]), "r": np.array([1, 2, 49, 49]), "m": mask},
            ),
            None,
        ),
        "axis": (attention(softmax="w = Softmax<axis = -2>(s1)"), "softmax is over axis -2"),
        "last-axis": (attention(softmax="w = Softmax<axis = 3>(s1)"), None),
        "sigmoid": (attention(softmax="w = Sigmoid(s1)"), "a sigmoid stands where the softmax"),
        "values-first": (
            free(
                "s = MatMul(q, k) w = Softmax(s) y = MatMul(v, w)",
                "q 1,2,49,32; k 1,2,32,49; v 1,2,32,49",
                "1,2,32,49",
            ),
            "v scores^T",
        ),
        "keys-first": (
            free(swapped, "q 1,2,32,49; k 1,2,49,32; v 1,2,49,32", "1,2,49,32"),
            "softmax is over axis -2",
        ),
        "einsum": (
            free(
                's = Einsum<equation = "bqhd,bkhd->bhqk">(q, k) w = Softmax(s) '
                'y = Einsum<equation = "bhqk,bkhd->bqhd">(w, v)',
                "q 1,49,2,32; k 1,49,2,32; v 1,49,2,32",
                "1,49,2,32",
            ),
            None,
        ),
        "einsum-narrow": (
            free(
                's = Einsum<equation = "bqd,bkd->bqk">(q, k) w = Softmax(s) '
                'y = Einsum<equation = "bqk,bkd->bqd">(w, v)',
                "q 2,49,8; k 2,49,8; v 2,49,8",
                "2,49,8",
            ),
            "heads are 8 wide",
        ),
        "scores-out": (attention(outputs=", float16[1,2,49,49] s0"), "read by the graph's caller"),
        "weights-read": (
            attention(more="u = Neg(w)", outputs=", float16[1,2,49,49] u"),
            "read by Neg block.attn/u too",
        ),
        "grouped": (free("s = MatMul(q, k) w = Softmax(s) y = MatMul(w, v)", GROUPED, "2,4,49,32"), None),
        "grouped-keys": (
            free(
                "s = MatMul(q, k) w = Softmax(s) y = MatMul(w, v)",
                GROUPED.replace("v 2,1", "v 2,4"),
                "2,4,49,32",
            ),
            "broadcast",
        ),
        "keys-of-two-axes": (
            free("s = MatMul(q, k) w = Softmax(s) y = MatMul(w, v)", "q 4,49,32; k 32,49; v 49,32", "4,49,32"),
            "broadcast",
        ),
        "relu-behind": (attention(behind="y = Relu({})"), "Relu stands right behind"),
        "gelu-behind": (attention(behind="y = Gelu({})"), None),
        "relu-later": (attention(behind="a = Add({}, q) y = Relu(a)"), None),
        "quantized-scores": (attention(before=f"s_ = Identity({{}}) {pair('s_')} s1 = Identity(s__d)"), None),
        "node": (free("y = Attention(q, k, v)", operands.replace("32,49", "49,32"), "1,2,49,32", 23), None),
        "node-tokens": (
            free(
                "y = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, v)",
                "q 1,49,64; k 1,49,64; v 1,49,64",
                "1,49,64",
                23,
            ),
            None,
        ),
        "node-one-key": (
            free("y = Attention(q, k, v)", "q 1,2,1,32; k 1,2,1,32; v 1,2,1,32", "1,2,1,32", 23),
            None,
        ),
    }


GROUPED = "q 2,4,49,32; k 2,1,32,49; v 2,1,49,32"


def turned() -> dict[str, Case]:
    """Operands and result transposed, of three axes and of four."""
    cases: dict[str, Case] = {}
    core = "s = MatMul({q}, k) w = Softmax(s) y0 = MatMul(w, {v}) "
    for axes, lead, perm in ((3, "2", "0, 2, 1"), (4, "1,2", "0, 1, 3, 2")):
        turn = f"t = Transpose<perm = [{perm}]>"
        plain, other, k = (f"{lead},{sizes}" for sizes in ("64,32", "32,64", "32,64"))
        wrong = None if axes == 4 else "transposed, in products of three axes"
        queries = free(f"{turn}(q) {core} y = Neg(y0)".format(q="t", v="v"), f"q {other}; k {k}; v {plain}", plain)
        values = free(f"{turn}(v) {core} y = Neg(y0)".format(q="q", v="t"), f"q {plain}; k {k}; v {other}", plain)
        result = free(f"{core} {turn}(y0) y = Neg(t)".format(q="q", v="v"), f"q {plain}; k {k}; v {plain}", other)
        linear = free(
            f"a = MatMul(x, u) {turn}(a) k = Neg(j) {core} y = Neg(y0)".format(q="t", v="v"),
            f"x {lead},32,48; j {k}; v {plain}",
            plain,
            u=np.ones((48, 64), np.float16),
        )
        cases |= {f"queries-{axes}": (queries, wrong), f"values-{axes}": (values, wrong)}
        cases |= {f"result-{axes}": (result, wrong), f"linear-{axes}": (linear, None)}
    return cases


def operators(side: str, names: frozenset[str]) -> dict[str, Case]:
    """Operators that are looked through, ``before`` the softmax or ``after`` it."""
    two = {"Add", "Div", "Max", "Min", "Mul", "PRelu", "Pow", "Sub"}
    special = {
        "Where": "Where(m, {}, c)",
        "Mod": "Mod<fmod = 1>({}, c)",
        "Transpose": "Transpose<perm = [0, 1, 3, 2]>({})",
    }
    constants = {"c": np.array(0.5, np.float16), "m": np.ones((1, 1, 1, 49), bool)}
    result = {"before": "s1", "after": "w1"}[side]
    cases: dict[str, Case] = {}
    for name in sorted(names):
        call = special.get(name, f"{name}({{}}, c)" if name in two else f"{name}({{}})")
        reason = f"{name} stands between" if name in BARRIERS else None
        options: dict[str, Any] = {side: f"{result} = {call}"}
        cases[f"{side}-{name}"] = attention(**options, constants=constants), reason
    return cases


def int8() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for count in range(6):
        for letters in map("".join, combinations(FIVE, count)):
            missing = ", ".join(point for letter, point in zip(FIVE, POINTS, strict=True) if letter not in letters)
            product = {"q", "k"} <= set(letters) or {"w", "v"} <= set(letters)  # one that is multiplied in INT8
            reason = f"INT8 without Q/DQ on its {missing}:" if product and missing else None
            cases[f"points-{letters}"] = attention(points=letters, queries=64), reason
            if letters in ("", "q", "qkv", "wvy", FIVE):
                reason = None if letters == FIVE else "in FP32"
                cases[f"fp32-points-{letters}"] = attention(points=letters, queries=64, dtype="float"), reason
    full: dict[str, Any] = {"points": FIVE}
    for width in (8, 12, 16, 24, 32, 48, 64, 80, 128):
        reason = None if width in (16, 32, 64) else f"heads are {width} wide: in INT8 16, 32, 64"
        cases[f"int8-width-{width}"] = attention(width=width, queries=64, **full), reason
    for keys in (2, 49, 512, 513, 520, 1024):
        reason = None if keys <= 512 else f"it has {keys} keys: in INT8 up to 512"
        cases[f"int8-keys-{keys}"] = attention(queries=64, keys=keys, **full), reason
    between = f"s_ = Identity({{}}) {pair('s_')} s1 = Identity(s__d)"
    mask = {"m": np.zeros((1, 1, 64, 64), np.float16), "c": np.float16(0.2)}
    turn = "t = Transpose<perm = [0, 2, 1, 3]>(y0) "
    return cases | {
        "int8-one-query": (attention(queries=1, keys=64, lead="1,4", **full), "one query, in INT8"),
        "int8-many-queries": (attention(queries=1024, keys=64, **full), None),
        "int8-one-head": (attention(queries=64, lead="1,1", **full), "batch x heads is 1"),
        "int8-values": (attention(queries=64, values=16, **full), "values are 16 wide"),
        "int8-mask": (
            attention(queries=64, before="a = Mul({}, c) s1 = Add(a, m)", constants=mask, **full),
            None,
        ),
        "int8-relu": (attention(queries=64, before="s1 = Relu({})", **full), "Relu stands between"),
        "int8-quantized-scores": (
            attention(queries=64, before=between, **full),
            "QuantizeLinear stands between",
        ),
        "int8-island": (
            attention(queries=64, before="s1 = Cast<to = 1>({})", after="w1 = Cast<to = 10>({})", **full),
            None,
        ),
        "int8-read-twice": (
            attention(queries=64, more="u = Neg(y0)", outputs=", float16[1,2,64,32] u", **full),
            "without Q/DQ on its output",
        ),
        "int8-then-turned": (
            attention(points="qkwv", queries=64, lead="1,2", behind=f"{turn} {pair('t')} u = Neg(t_d)", more=BACK),
            None,
        ),
    }


BACK = "y = Transpose<perm = [0, 2, 1, 3]>(u)"
CASES = {
    **widths(),
    **sizes(),
    **types(),
    **forms(),
    **turned(),
    **operators("before", HARMLESS | BARRIERS),
    **operators("after", BARRIERS),
    **int8(),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Kernel]]:
    return compiled({name: model for name, (model, _) in CASES.items()}, tmp_path_factory.mktemp("built"))


@pytest.mark.parametrize("name", CASES)
def test_prediction(name: str) -> None:
    model, expected = CASES[name]
    [found] = find_attentions(indexed(model))
    reason = why_not_fused(found)
    assert (reason is None) == (expected is None), reason
    assert expected is None or expected in str(reason)


@needs_rtx
@pytest.mark.parametrize("name", CASES)
def test_what_is_built(name: str, built: dict[str, list[Kernel]]) -> None:
    """No false alarm and no false pass: what is predicted is what TensorRT-RTX makes of it."""
    model, expected = CASES[name]
    kernels = built[name]
    assert sum(kernel.kind == "attention" for kernel in kernels) == (expected is None)
    [explained] = explain_attentions(find_attentions(indexed(model)), kernels)
    assert explained.fused == (expected is None)
    assert (explained.reason is None) == explained.fused
    assert expected is None or expected in str(explained.reason)


@needs_rtx
@pytest.mark.slow
def test_what_is_harmless_behind_the_softmax(tmp_path: Path) -> None:
    cases = operators("after", HARMLESS)
    for name, kernels in compiled({name: model for name, (model, _) in cases.items()}, tmp_path).items():
        assert [kernel.kind for kernel in kernels].count("attention") == 1, name


@needs_rtx
def test_what_is_built_has_the_last_word(tmp_path: Path) -> None:
    """Weights that are divided by their own sum are read twice, but TensorRT-RTX sees that the sum is 1."""
    sums = attention(after="r = ReduceSum(w, a) w1 = Div(w, r)", constants={"a": np.array([-1])})
    [found] = find_attentions(indexed(sums))
    assert "read by" in str(why_not_fused(found))
    [explained] = explain_attentions(find_attentions(indexed(sums)), compiled({"sums": sums}, tmp_path)["sums"])
    assert explained.fused


def test_what_is_found() -> None:
    model = attention(
        width=16,
        queries=64,
        keys=49,
        lead="3,2",
        points="qk",
        before="a = Mul({}, c) b = Add(a, m) s1 = Relu(b)",
        constants={"c": np.float16(0.25), "m": np.zeros((1, 1, 64, 49), np.float16)},
    )
    assert find_attentions(indexed(model)) == [
        Attention(
            node="block.attn/w",
            module="block.attn",
            op="Softmax",
            products=("block.attn/s0", "block.attn/y0"),
            dtypes=("int8", "float16"),
            batch=6,
            width=16,
            value_width=16,
            queries=64,
            keys=49,
            points=("queries", "keys"),
            masked=True,
            between=("Mul", "Add", "Relu"),
        )
    ]
    assert why_not_fused(find_attentions(indexed(model))[0]) == (
        "Relu stands between its products; INT8 without Q/DQ on its softmax, values, output: all five points or none"
    )


def test_a_dynamic_batch_and_dynamic_lengths() -> None:
    [found] = find_attentions(indexed(attention(lead="N,2")))
    assert (found.batch, found.width, found.queries, found.keys) == (None, 32, 49, 49)
    model = free("s = MatMul(q, k) w = Softmax(s) y = MatMul(w, v)", "q 1,2,L,32; k 1,2,32,M; v 1,2,M,32", "1,2,L,32")
    [unknown] = find_attentions(indexed(model))
    assert (unknown.queries, unknown.keys, why_not_fused(unknown)) == (None, None, None)
    [known] = find_attentions(index_graph(model, {"q": (1, 2, 7, 32), "k": (1, 2, 32, 1), "v": (1, 2, 1, 32)}))
    assert (known.batch, known.queries, known.keys) == (2, 7, 1)
    assert why_not_fused(known) == "it has one key"


def test_nodes_without_names_have_those_that_the_parser_gives() -> None:
    model = attention()
    for node in model.graph.node:
        node.name = ""
    [found] = find_attentions(indexed(model))
    assert (found.node, found.products, found.module) == ("node_of_w", ("node_of_s0", "node_of_y0"), "")


def test_a_sigmoid_is_explained_and_not_counted() -> None:
    model = attention(softmax="w = Sigmoid(s1)")
    assert len(find_attentions(indexed(model))) == 1
    assert count_attentions(model) == 0


def test_the_gate_of_an_activation_is_no_attention() -> None:
    silu = attention(before="g = Sigmoid({}) s1 = Mul(s0, g)")
    [found] = find_attentions(indexed(silu))
    assert found.op == "Softmax"
    assert "read by" in str(why_not_fused(found))


def test_the_default_axis_of_old_graphs() -> None:
    body = "s = MatMul(q, k) w = Softmax(s) y = MatMul(w, v)"
    old, new = (free(body, "q 2,49,32; k 2,32,49; v 2,49,32", "2,49,32", opset) for opset in (12, 13))
    assert (
        why_not_fused(find_attentions(indexed(old))[0]) == "its softmax is over axis 1, not over the keys, the last one"
    )
    assert why_not_fused(find_attentions(indexed(new))[0]) is None


def test_quantized_without_zero_point_is_int8() -> None:
    """ONNX makes uint8 of it, TensorRT int8."""
    model = attention(points="qk")
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            del node.input[2]
    assert find_attentions(indexed(model))[0].dtypes == ("int8", "float16")


def test_an_attention_node_of_another_domain() -> None:
    model = free("y = Attention(q, k)", "q 1,4,8; k 8,24", "1,4,8", 23)
    [found] = find_attentions(indexed(model))
    assert (found.op, found.width, found.value_width) == ("Attention", None, None)


def test_a_graph_without_opset_is_described_without_sizes() -> None:
    model = attention()
    del model.opset_import[:]
    [found] = find_attentions(indexed(model))
    assert (found.width, found.batch, found.products) == (None, None, ("block.attn/s0", "block.attn/y0"))


def fused(*nodes: str) -> Kernel:
    return Kernel("_gemm_mha_v2_myl0_3", "kgen", (), (), (), "", nodes)


def two() -> list[Attention]:
    """One with heads of 32, one with heads of 8."""
    model = free(
        "s = MatMul(q, k) w = Softmax(s) a = MatMul(w, v) t = MatMul(r, l) u = Softmax(t) b = MatMul(u, a) y = Neg(b)",
        "q 1,2,49,32; k 1,2,32,49; v 1,2,49,32; r 1,2,49,8; l 1,2,8,49",
        "1,2,49,32",
    )
    return find_attentions(indexed(model))


def test_explained_by_name() -> None:
    wide, narrow = explain_attentions(two(), [fused("block.attn/w", "block.attn/s")])
    assert (wide.fused, wide.reason) == (True, None)
    assert narrow.fused is False
    assert "values are 32 wide" in str(narrow.reason)
    swapped = explain_attentions(two(), [fused("block.attn/b")])  # one of the products is enough
    assert [item.fused for item in swapped] == [False, True]
    assert swapped[0].reason == "no known reason: TensorRT may decide against it"


def test_explained_by_count_where_kernels_name_nothing() -> None:
    assert [item.fused for item in explain_attentions(two(), [fused()])] == [True, False]
    assert [item.fused for item in explain_attentions(two(), [fused(), fused()])] == [True, False]
    assert [item.fused for item in explain_attentions(two(), [])] == [False, False]


PLAIN = Attention(
    node="a/Softmax",
    module="a",
    op="Softmax",
    products=("a/MatMul", "a/MatMul_2"),
    dtypes=("float16", "float16"),
    batch=8,
    width=32,
    value_width=32,
    queries=64,
    keys=64,
)
QUANTIZED = replace(PLAIN, dtypes=("int8", "int8"), points=POINTS)


@pytest.mark.parametrize(
    ("found", "measured", "documented"),
    [
        pytest.param(PLAIN, None, None, id="plain"),
        pytest.param(QUANTIZED, None, None, id="int8"),
        pytest.param(
            replace(PLAIN, width=20, value_width=20),
            None,
            "its heads are 20 wide: documented are 16 to 256 in steps of 8",
            id="width-20",
        ),
        pytest.param(
            replace(PLAIN, width=12, value_width=12),
            None,
            "its heads are 12 wide: documented are 16 to 256 in steps of 8",
            id="width-12",
        ),
        pytest.param(
            replace(QUANTIZED, queries=1024),
            None,
            "it has 1024 queries: documented for INT8 are up to 512",
            id="int8-queries",
        ),
        pytest.param(
            replace(QUANTIZED, keys=513),
            "it has 513 keys: in INT8 up to 512 are fused",
            "it has 513 keys: in INT8 up to 512 are fused",
            id="int8-keys",
        ),
        pytest.param(
            replace(PLAIN, between=("Mul", "Clip", "Add")),
            None,
            "Clip stands between its products",
            id="between",
        ),
        pytest.param(
            replace(PLAIN, between=("Tanh",)),
            "Tanh stands between its products",
            "Tanh stands between its products",
            id="said-once",
        ),
        pytest.param(replace(PLAIN, batch=None, keys=None, width=None), None, None, id="unknown"),
    ],
)
def test_what_is_documented(found: Attention, measured: str | None, documented: str | None) -> None:
    """Pure logic: TensorRT 10 was not run here."""
    assert why_not_fused(found) == measured
    assert why_not_fused(found, documented=True) == documented


@pytest.mark.parametrize(
    ("learned", "counted"),
    [((1, 2, 49, 32), 1), ((49, 32), 0)],  # queries of each head; a matrix of weights
)
def test_queries_that_are_the_same_for_every_image_count(learned: tuple[int, ...], counted: int) -> None:
    body = "s = MatMul(q, k) w = Softmax<axis = -1>(s) y = MatMul(w, v)"
    model = free(body, "k 1,2,32,49; v 1,2,49,32", "1,2,49,32", q=np.zeros(learned, np.float16))
    assert count_attentions(model) == len(find_attentions(indexed(model))) == counted
