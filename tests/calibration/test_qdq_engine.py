"""What TensorRT-RTX makes of Q/DQ graphs: they parse, they build, and the attentions are still one kernel each."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import build, copied, indexed, magnitudes, noise
from onnx import ModelProto, helper, numpy_helper
from tiny import tiny_simplified, tiny_spec

from hiresvit.calibration.attention import find_attentions
from hiresvit.calibration.qdq import Int8Report, quantize
from hiresvit.calibration.sites import Policy, find_sites, find_skips
from hiresvit.data.preprocess import preprocess
from hiresvit.data.scenes import sample_images
from hiresvit.device.plan import EngineReport
from hiresvit.device.tensorrt_api import INSTALL_HINT, installed
from hiresvit.engine.build import BuildSettings, build_engine
from hiresvit.errors import GateError
from hiresvit.export.contract import INPUT
from hiresvit.export.fp16 import to_fp16
from hiresvit.workflows.quantize import require_fused

pytestmark = pytest.mark.skipif(not installed("tensorrt_rtx"), reason=f"needs TensorRT-RTX: {INSTALL_HINT}")

SPEC = tiny_spec()


@cache
def half() -> ModelProto:
    return to_fp16(tiny_simplified(SPEC))[0]


@cache
def quantized(policy: Policy) -> tuple[ModelProto, Int8Report]:
    simple = tiny_simplified(SPEC)
    image = preprocess(sample_images(1, SPEC.imgsz)[0], SPEC.preprocess, SPEC.imgsz)
    amax = magnitudes(simple, {INPUT: image})
    sites = find_sites(indexed(simple), policy)
    skips, attentions = find_skips(indexed(simple), sites, policy), find_attentions(indexed(simple), policy)
    return quantize(half(), sites, amax, skips=skips, attentions=attentions)


def built(model: ModelProto, folder: Path) -> EngineReport:
    onnx.save(model, folder / "net.onnx")
    return build_engine(folder / "net.onnx", folder / "net.plan")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> EngineReport:
    """The plan of the FP16 graph. It fuses all attentions but those whose heads are 8 wide, which it never does."""
    report = built(half(), tmp_path_factory.mktemp("fp16"))
    attentions = find_attentions(indexed(tiny_simplified(SPEC)), Policy(int8_attention=True))
    assert report.attentions_total == len(attentions)
    assert report.attentions_fused == sum(attention.illegal is None for attention in attentions)
    return report


def test_the_default_policy(plain: EngineReport, tmp_path: Path) -> None:
    model, made = quantized(Policy())
    report = built(model, tmp_path)
    assert report.attentions_fused == plain.attentions_fused
    # Every site is an INT8 kernel, and what was FP16 is FP16: nothing is in FP32.
    assert report.precision["int8"] == made.sites_int8
    assert set(report.precision) == {"int8", "fp16"}
    # About scales in FP32 inside its kernels, which is more than the graph asks for.
    assert all("scales to fp32" in warning for warning in report.warnings)
    assert moved(report) > moved(plain)


def test_the_lean_policy_moves_less_in_as_many_kernels(plain: EngineReport, tmp_path: Path) -> None:
    """Which the default does not: its convolutions write FP32."""
    model, made = quantized(Policy(lean=True))
    report = built(model, tmp_path)
    assert moved(report) < moved(plain)
    assert report.precision["int8"] == made.sites_int8 > 0
    assert (report.kernel_total, report.attentions_fused) == (plain.kernel_total, plain.attentions_fused)


def moved(report: EngineReport) -> int:
    """Bytes of activations."""
    assert report.traffic is not None
    assert report.traffic.untold == 0
    return report.traffic.read_bytes + report.traffic.written_bytes


def test_every_option_at_once(plain: EngineReport, tmp_path: Path) -> None:
    """With the first and the last layer, depthwise convolutions, residuals and the legal attentions."""
    policy = Policy(first=True, depthwise=True, last=True, min_width=1, residual=True, int8_attention=True)
    model, made = quantized(policy)
    report = built(model, tmp_path)
    assert report.attentions_fused == plain.attentions_fused
    assert made.attentions_int8 > 0
    assert made.attentions_fp16
    assert all("wide: in INT8 16, 32, 64 are fused" in reason for reason in made.attentions_fp16)
    assert made.sites_fp16 == {}
    # What is left in FP16 are the two products of each attention that is too narrow.
    assert report.precision == {
        "int8": made.sites_int8 + made.attentions_int8,
        "fp16": 2 * sum(made.attentions_fp16.values()),
    }


def with_pairs(model: ModelProto, node: str, inputs: tuple[int, ...]) -> ModelProto:
    """Q/DQ on some inputs of one node, whatever becomes of it."""
    broken = copied(model)
    scale, zero = np.array(0.03125, np.float16), np.zeros((), np.int8)
    broken.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in (("fault_s", scale), ("fault_z", zero))
    )
    at = next(k for k, n in enumerate(broken.graph.node) if n.name == node)
    reader = broken.graph.node[at]
    for index in inputs:
        read, q, dq = reader.input[index], f"fault_q{index}", f"fault_dq{index}"
        reader.input[index] = dq
        for op, source, target in (("DequantizeLinear", q, dq), ("QuantizeLinear", read, q)):
            pair = helper.make_node(op, [source, "fault_s", "fault_z"], [target], f"fault/{target}")
            broken.graph.node.insert(at, pair)
    onnx.checker.check_model(broken, full_check=True)
    return broken


@pytest.mark.parametrize("product", ["scores", "mix"])
def test_one_product_quantized_alone_is_seen(plain: EngineReport, tmp_path: Path, product: str) -> None:
    """The fault that a naive tool makes: it parses, it builds, and an attention is two kernels more."""
    attentions = find_attentions(indexed(tiny_simplified(SPEC)), Policy(int8_attention=True))
    legal = next(attention for attention in attentions if attention.illegal is None)
    broken = with_pairs(quantized(Policy())[0], getattr(legal, product), (0, 1))
    report = built(broken, tmp_path)
    assert report.attentions_total == plain.attentions_total
    assert report.attentions_fused == plain.attentions_fused - 1
    with pytest.raises(GateError, match="breaks it; quantize all five points or none"):
        require_fused(plain, report)


def test_forms_that_our_models_do_not_have(tmp_path: Path) -> None:
    """A MatMul with weights, a Gemm that does not transpose, a symbolic batch, and channels of zeros and almost."""
    weight = noise(64, 64, seed=1) / 8
    weight[:, 3] = 0
    weight[:, 4] = 1e-6
    text = """g (float[N,64] x) => (float[N,64] y) {
      a = Relu(x) b = MatMul(a, w) c = Relu(b) d = Gemm(c, w, bias) e = Relu(d)
      f = Gemm<transB=1>(e, w) y = Relu(f) }"""
    simple = build(text, {"w": weight, "bias": noise(64, seed=2)})
    for node in simple.graph.node:
        node.name = f"{node.output[0]}/{node.op_type}"
    sites = find_sites(indexed(simple))
    model, made = quantize(to_fp16(simple)[0], sites, {site.tensor: 4.0 for site in sites})
    assert (made.sites_int8, made.channels_zero, made.channels_floored) == (3, 1, 1)
    onnx.save(model, tmp_path / "net.onnx")
    report = build_engine(
        tmp_path / "net.onnx", tmp_path / "net.plan", BuildSettings(shapes={"x": ((1, 64), (2, 64), (4, 64))})
    )
    assert report.precision == {"int8": 3}
