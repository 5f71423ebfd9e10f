"""What a plan computes in: counted by hand, on made-up kernels, and on real builds of small networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from every import firsts, small_size
from graphs import indexed, named_graph, noise, ones
from onnx import ModelProto
from rtx import compiled, needs_rtx
from tiny import tiny_simplified, tiny_spec
from variants import chain

from hiresvit.calibration.qdq import Int8Report, calibration_tensors, quantize
from hiresvit.calibration.sites import Policy, find_sites
from hiresvit.engine.fusion import explain_attentions, why_not_fused
from hiresvit.engine.kernels import Kernel
from hiresvit.engine.precision import Leftover, check_requirement, parse_requirement, realise
from hiresvit.errors import GateError, UsageError
from hiresvit.export.fp16 import to_fp16
from hiresvit.graph.attentions import count_attentions, find_attentions
from hiresvit.graph.products import find_products
from hiresvit.models.zoo import MODELS
from hiresvit.spec import TensorSpec


def gemm(dtype: str, *nodes: str, name: str = "gemm_myl0_1", layer_type: str = "gemm") -> Kernel:
    tensor = TensorSpec("t", dtype, (1, 8))
    return Kernel(name, layer_type, (tensor,), (), (tensor,), "", nodes)


PAIR = indexed(
    named_graph(
        "a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)",
        "float[3,4] x",
        "float[3,6] y",
        w=ones(4, 5),
        v=ones(5, 6),
    )
)
FIRST, SECOND = 3 * 4 * 5, 3 * 5 * 6


def test_each_product_counts_for_the_kernel_that_names_it() -> None:
    kernels = [gemm("float16", "m.a/MatMul", "m.b/Relu"), gemm("int8", "m.y/MatMul")]
    assert realise(PAIR, kernels).macs == {"int8": SECOND, "fp16": FIRST}
    assert list(realise(PAIR, kernels).macs) == ["int8", "fp16"]  # the most first
    assert realise(PAIR, kernels).unmatched == ()


def test_a_product_that_no_kernel_names_is_unknown() -> None:
    kernels = [gemm("float16", "m.a/MatMul"), gemm("float16")]
    assert realise(PAIR, kernels).macs == {"unknown": SECOND, "fp16": FIRST}
    assert realise(PAIR, kernels).unmatched == ("m.y/MatMul",)
    assert realise(PAIR, []).macs == {"unknown": FIRST + SECOND}


def test_a_kernel_that_prepares_does_not_count_where_one_multiplies() -> None:
    before = gemm("float32", "m.a/MatMul", "m.y/MatMul", name="__myl_Move_myl0_0", layer_type="kgen")
    kernels = [before, gemm("float16", "m.a/MatMul")]
    assert realise(PAIR, kernels).macs == {"fp32": SECOND, "fp16": FIRST}


def test_an_attention_is_both_products() -> None:
    model = named_graph(
        "s = MatMul(q, k) w = Softmax(s) y = MatMul(w, v)",
        "float16[2,5,16] q, float16[2,16,7] k, float16[2,7,16] v",
        "float16[2,5,16] y",
    )
    kernel = gemm("int8", "m.y/MatMul", "m.w/Softmax", "m.s/MatMul", name="_gemm_mha_v2_myl0_3", layer_type="kgen")
    assert realise(indexed(model), [kernel]).macs == {"int8": 2 * 2 * 5 * 16 * 7}


def test_equal_names_are_nobodys() -> None:
    model = named_graph("a = MatMul(x, w) y = MatMul(a, v)", "float[3,4] x", "float[3,6] y", w=ones(4, 5), v=ones(5, 6))
    for node in model.graph.node:
        node.name = "same"
    assert realise(indexed(model), [gemm("float16", "same")]).unmatched == ("same of a", "same of y")


def test_leftovers_by_module() -> None:
    def wide(*nodes: str) -> Kernel:
        return gemm("float32", *nodes, name="__myl_AddMul_myl0_3", layer_type="kgen")

    model = named_graph(
        "a = MatMul(x, w) b = Gelu(a) c = LayerNormalization(b, g) d = Transpose(c) e = MatMul(v, d) y = Relu(e)",
        "float[3,4] x",
        "float[6,3] y",
        w=ones(4, 5),
        g=ones(5),
        v=ones(6, 5),
    )
    kernels = [
        gemm("float32", "m.a/MatMul"),
        wide("m.b/Gelu"),
        wide("m.c/LayerNormalization", "m.d/Transpose"),  # FP32 by design, and moving data
        gemm("float32", "m.e/MatMul"),
        gemm("float16", "m.y/Relu", name="__myl_Max_myl0_9", layer_type="kgen"),
    ]
    assert realise(indexed(model), kernels).leftovers == (
        Leftover("m.e", ("MatMul",), 6 * 5 * 3, 0),
        Leftover("m.a", ("MatMul",), 3 * 4 * 5, 0),
        Leftover("m.b", ("Gelu",), 0, 1),
    )


@pytest.mark.parametrize(
    ("text", "required"),
    [
        ("fp16:95%", ("fp16", 0.95)),
        ("int8:80.5%", ("int8", 0.805)),
        (" FP16:100% ", ("fp16", 1.0)),
        ("bf16:1%", ("bf16", 0.01)),
    ],
)
def test_requirement(text: str, required: tuple[str, float]) -> None:
    assert parse_requirement(text) == pytest.approx(required)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fp16",
        "fp16:95",
        "fp16:0.95",
        "95%",
        "fp16:0%",
        "fp16:101%",
        "fp15:95%",
        "fp16:-5%",
        "fp16:95%,int8:1%",
    ],
)
def test_no_requirement(text: str) -> None:
    with pytest.raises(UsageError, match=r"give one of int8, fp8, int16, fp16, bf16, fp32 .* as fp16:95%"):
        parse_requirement(text)


@pytest.mark.parametrize(
    ("text", "macs"),
    [
        ("fp16:95%", {"fp16": 95, "fp32": 5}),
        ("fp16:95%", {"fp16": 50, "int8": 45, "fp32": 5}),  # narrower is as good
        ("int8:40%", {"fp16": 60, "int8": 40}),
        ("fp32:100%", {"fp32": 1, "bf16": 1, "fp16": 1, "int8": 1}),
        ("fp16:7%", {"fp16": 7, "fp32": 93}),  # 0.07 * 100 is more than 7 in floating point
        ("fp16:55%", {"fp16": 55, "fp32": 45}),
    ],
)
def test_requirement_that_is_met(text: str, macs: dict[str, int]) -> None:
    """By these, and not any more where as much again and half is computed in nobody knows what."""
    check_requirement(parse_requirement(text), macs)
    with pytest.raises(GateError, match=f"^{text} required, "):
        check_requirement(parse_requirement(text), macs | {"unknown": 2 * sum(macs.values())})


@pytest.mark.parametrize(
    ("text", "macs", "message"),
    [
        ("fp16:95%", {"fp16": 9499, "fp32": 501}, "fp16:95% required, 94.9 % realised (fp32 5 %)"),
        ("fp16:100%", {"bf16": 100}, "fp16:100% required, 0 % realised (bf16 100 %)"),
        ("bf16:100%", {"fp16": 1, "int8": 1}, "bf16:100% required, 50 % realised (fp16 50 %, int8 50 %)"),
        ("int8:50.5%", {"fp16": 60, "int8": 40}, "int8:50.5% required, 40 % realised (fp16 60 %)"),
        ("fp32:100%", {"fp32": 9, "unknown": 1}, "fp32:100% required, 90 % realised (unknown 10 %)"),
    ],
)
def test_requirement_that_is_missed(text: str, macs: dict[str, int], message: str) -> None:
    with pytest.raises(GateError) as caught:
        check_requirement(parse_requirement(text), macs)
    assert str(caught.value) == message


def test_a_requirement_of_what_cannot_be_seen_is_missed() -> None:
    with pytest.raises(GateError, match=r"^fp16:95% required, and the graph has no products: leave"):
        check_requirement(("fp16", 0.95), {})
    with pytest.raises(GateError, match=r"how much is multiplied in Loop 'a' cannot be counted: write it in"):
        check_requirement(("fp16", 0.95), {"fp16": 100}, uncounted=["Loop 'a'"])


def test_a_missed_requirement_names_the_largest_modules() -> None:
    leftovers = [Leftover(f"stage.{index}", ("Conv",), 9 - index, 0) for index in range(7)]
    macs = {"fp32": 60, "fp16": 40}
    expected = r"\(fp32 60 %\); FP32: stage\.0, stage\.1, stage\.2, stage\.3, stage\.4 and 2 more$"
    with pytest.raises(GateError, match=expected):
        check_requirement(("fp16", 0.95), macs, leftovers)
    with pytest.raises(GateError, match=r"FP32: stage\.0$"):
        check_requirement(("fp16", 0.95), macs, leftovers[:1])


def quantized(simple: ModelProto, half: ModelProto) -> tuple[ModelProto, Int8Report]:
    """INT8 by the default policy, with ranges out of the air: what is computed in what does not depend on them."""
    sites = find_sites(indexed(simple), Policy())
    return quantize(half, sites, dict.fromkeys(calibration_tensors(sites), 4.0))


@needs_rtx
def test_an_island_is_found_by_its_module(tmp_path: Path) -> None:
    """A graph in FP16 whose second layer stays in FP32."""
    half = noise(64, 64).astype(np.float16)
    model = named_graph(
        "a = MatMul(x, w) b = Cast<to = 1>(a) c = MatMul(b, v) d = Gelu(c) e = Cast<to = 10>(d) y = MatMul(e, w)",
        "float16[64,64] x",
        "float16[64,64] y",
        w=half,
        v=noise(64, 64),
    )
    kernels = compiled({"mixed": model}, tmp_path)["mixed"]
    macs = realise(indexed(model), kernels).macs
    assert macs == {"fp16": 2 * 64**3, "fp32": 64**3}
    leftovers = realise(indexed(model), kernels).leftovers
    assert [item.module for item in leftovers if item.macs] == ["m.c"]
    with pytest.raises(GateError, match=r"^fp16:95% required, 66\.6 % realised \(fp32 33\.3 %\); FP32: m\.c"):
        check_requirement(parse_requirement("fp16:95%"), macs, leftovers)


@needs_rtx
@pytest.mark.parametrize(
    ("body", "output", "macs"),
    [
        pytest.param(
            'y = Einsum<equation = "ab,bc->ac">(b, v)',
            "float[1,32] y",
            64 * 32,
            id="as-additions-behind-a-cast",
        ),
        pytest.param(
            "s = Unsqueeze(b, zero) y = LSTM<hidden_size = 64>(s, g, h)",
            "float[1,1,1,64] y",
            2 * 4 * 64 * 64,
            id="recurrence",
        ),
        pytest.param(
            "s = Reshape(b, map) y = ConvTranspose(s, k)",
            "float[1,4,11,11] y",
            8 * 8 * 4 * 4 * 4,
            id="transposed-convolution",
        ),
    ],
)
def test_what_is_left_in_fp32_behind_a_cast_is_seen(body: str, output: str, macs: int, tmp_path: Path) -> None:
    model = named_graph(
        f"a = MatMul(x, w) b = Cast<to = 1>(a) {body}",
        "float16[1,64] x",
        output,
        w=noise(64, 64).astype(np.float16),
        v=noise(64, 32),
        zero=np.array([0]),
        g=noise(1, 256, 64),
        h=noise(1, 256, 64),
        map=np.array([1, 1, 8, 8]),
        k=noise(1, 4, 4, 4),
    )
    kernels = compiled({"mixed": model}, tmp_path)["mixed"]
    assert realise(indexed(model), kernels).macs == {"fp32": macs, "fp16": 64 * 64}
    kinds = {kernel.kind: kernel.precision for kernel in kernels}
    assert "ConvTranspose" not in body or kinds["conv"] == "fp32"


@needs_rtx
@pytest.mark.parametrize("imgsz", [(64, 96)], ids=["64x96"])
def test_the_tiny_model(imgsz: tuple[int, int], tmp_path: Path) -> None:
    """Every product of it is found in a kernel, in FP32, in FP16 and in INT8, and each attention is explained."""
    simple = tiny_simplified(tiny_spec(imgsz=imgsz))
    half, _ = to_fp16(simple)
    int8, report = quantized(simple, half)
    models = {"fp32": simple, "fp16": half, "int8": int8}
    built = compiled(models, tmp_path)
    total = sum(find_products(indexed(simple)).macs.values())
    for name, model in models.items():
        assert realise(indexed(model), built[name]).unmatched == ()
        explained = explain_attentions(find_attentions(indexed(model)), built[name])
        assert len(explained) == count_attentions(model)
        assert [item.fused for item in explained] == [why_not_fused(item.attention) is None for item in explained]
        assert sum(item.fused for item in explained) == [k.kind for k in built[name]].count("attention")
    assert realise(indexed(simple), built["fp32"]).macs == {"fp32": total}
    assert realise(indexed(half), built["fp16"]).macs == {"fp16": total}
    assert realise(indexed(int8), built["int8"]).macs == {
        "int8": report.macs_int8,
        "fp16": total - report.macs_int8,
    }
    # heads of 8, and a stage where one window with one head is left
    assert {item.reason for item in explain_attentions(find_attentions(indexed(half)), built["fp16"])} == {
        None,
        "its heads are 8 wide: 9 to 256 are fused",
        "batch x heads is 1: it is two plain products",
    }
    assert realise(indexed(half), built["fp16"]).leftovers == ()
    leftovers = realise(indexed(simple), built["fp32"]).leftovers
    assert sum(item.macs for item in leftovers) == total
    assert [item.macs for item in leftovers] == sorted((item.macs for item in leftovers), reverse=True)
    assert leftovers[0].module == "backbone.stem.conv2"


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("name", [*firsts().values(), "hrvit_nano"])
def test_every_family(name: str, tmp_path: Path) -> None:
    made = chain(name, MODELS[name].task, small_size(name))
    simple, half = made.graphs["simplified"], made.half
    int8, report = quantized(simple, half)
    built = compiled({"fp16": half, "int8": int8}, tmp_path)
    total = sum(find_products(indexed(simple)).macs.values())
    assert realise(indexed(half), built["fp16"]).macs == {"fp16": total}
    assert realise(indexed(int8), built["int8"]).macs == {
        "int8": report.macs_int8,
        "fp16": total - report.macs_int8,
    }
    assert realise(indexed(half), built["fp16"]).leftovers == ()
    for model, kernels in ((half, built["fp16"]), (int8, built["int8"])):
        assert all(item.fused for item in explain_attentions(find_attentions(indexed(model)), kernels))
