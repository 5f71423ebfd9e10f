"""What INT8 costs no map for: the forms by hand, and plans of two small networks, by their own lists of kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from every import firsts, small_size
from graphs import build, indexed, magnitudes, noise, run
from onnx import ModelProto
from variants import chain

from hiresvit.calibration.qdq import calibration_tensors, quantize
from hiresvit.calibration.sites import Policy, Site, find_sites
from hiresvit.device.plan import EngineReport
from hiresvit.device.tensorrt_api import INSTALL_HINT, installed
from hiresvit.engine.build import build_engine
from hiresvit.errors import UsageError
from hiresvit.export.fp16 import to_fp16
from hiresvit.export.tensorrt import for_tensorrt
from hiresvit.models.zoo import MODELS
from hiresvit.workflows.quantize import Int8Settings

LEAN = Policy(lean=True)
TOKENS = "float[2,16,64] x, float[2,16,64] z"
NORM = "n = LayerNormalization<axis=-1>(x, ones, zeros) r = Reshape(n, rows)"
APART = "t = Transpose<perm=[1,0]>(g) y = Relu(t)"
HEADS = """
 qh = Reshape(x, heads) q = Transpose<perm=[0,2,1,3]>(qh) k = Transpose<perm=[0,2,3,1]>(qh) s = MatMul(q, k)
 p = Softmax<axis=-1>(s) a = MatMul(p, q) t = Transpose<perm=[0,1,3,2]>(a) m = Reshape(t, map)"""


def sites_of(body: str, inputs: str = TOKENS, **weights: Any) -> dict[str, Site]:
    """The sites of a graph under the policy; nodes are named ``OUTPUT/OpType``."""
    constants: dict[str, Any] = {"ones": np.ones(64, np.float32), "zeros": np.zeros(64, np.float32)}
    constants |= {"rows": np.array([32, 64]), "back": np.array([2, 16, 64]), "w": noise(64, 64)}
    constants |= {"heads": np.array([2, 16, 2, 32]), "map": np.array([2, 64, 4, 4]), "k1": noise(64, 64, 1, 1)}
    model = build(f"g ({inputs}) => (float y) {{ {body} }}", constants | {"half": np.array([32, 32])} | weights)
    del model.graph.output[:]  # whose shape is as the body has it
    model.graph.output.extend([onnx.helper.make_empty_tensor_value_info("y")])
    for node in model.graph.node:
        node.name = f"{node.output[0]}/{node.op_type}"
    return {site.node: site for site in find_sites(indexed(model), LEAN)}


class TestLinearLayers:
    @pytest.mark.parametrize(
        "behind",
        [
            "h = Reshape(g, back) t = Transpose<perm=[0,2,1]>(h) y = Relu(t)",
            "h, h2 = Split<axis=1>(g, half) y = Mul(h, h2)",
            "b = Add(g, ones) h, h2 = Split<axis=1>(b, half) y = Mul(h, h2)",  # a bias is no residual
            "h = Reshape(g, back) s = Add(h, z) y = LayerNormalization<axis=-1>(s, ones, zeros)",
        ],
    )
    def test_between_a_norm_and_a_kernel_that_is_there_anyway(self, behind: str) -> None:
        assert sites_of(f"{NORM} g = Gemm(r, w) {behind}")["g/Gemm"].excluded is None

    def test_behind_a_concatenation(self) -> None:
        front = "u = Relu(x) v = Relu(z) c = Concat<axis=2>(u, v)"
        body = f"{front} g = MatMul(c, w2) t = Transpose<perm=[0,2,1]>(g) y = Relu(t)"
        assert sites_of(body, w2=noise(128, 64))["g/MatMul"].excluded is None

    @pytest.mark.parametrize(
        ("front", "behind"),
        [
            (NORM, "y = Gelu(g)"),  # the FP16 product takes it
            (NORM, "h = Reshape(g, back) y = Gelu(h)"),  # through a reshape as well
            (NORM, "h = Reshape(g, back) y = Add(h, z)"),  # and a residual that no norm reads
            (f"{NORM} u = Relu(n)", APART),  # the norm is read twice
            ("r0 = Relu(x) r = Reshape(r0, rows)", APART),  # an activation goes into a product in front of it
        ],
    )
    def test_where_int8_costs_a_map(self, front: str, behind: str) -> None:
        assert sites_of(f"{front} g = Gemm(r, w) {behind}")["g/Gemm"].excluded == "lean"


class TestConvolutions:
    RESIDUAL = "c = Conv<kernel_shape=[1,1]>(m, k1) y = Add(c, m2)"
    INPUTS = f"{TOKENS}, float[2,64,4,4] m2"

    def test_behind_an_attention_with_one_scale(self) -> None:
        [site] = sites_of(HEADS + self.RESIDUAL, self.INPUTS).values()
        assert (site.excluded, site.one_scale) == (None, True)

    @pytest.mark.parametrize("factor", [0.1, 0.0])
    def test_a_channel_that_one_scale_loses_is_for_fp16(self, factor: float) -> None:
        wide = noise(64, 64, 1, 1)
        wide[5] *= factor
        [site] = sites_of(HEADS + self.RESIDUAL, self.INPUTS, k1=wide).values()
        assert (site.excluded, site.one_scale) == ("lean", False)

    @pytest.mark.parametrize("front", ["m = Relu(m2)", "n = LayerNormalization<axis=-1>(m2, four, none) m = Neg(n)"])
    def test_behind_anything_else(self, front: str) -> None:
        constants = {"four": np.ones(4, np.float32), "none": np.zeros(4, np.float32)}
        assert sites_of(front + self.RESIDUAL, self.INPUTS, **constants)["c/Conv"].excluded == "lean"


def test_one_scale_is_what_it_says() -> None:
    """The weight has a scale of shape () and no axis, and the graph answers what the rounded weight does."""
    model = build(
        "g (float[1,16,8,8] x) => (float[1,16,8,8] y) { a = Relu(x) c = Conv<kernel_shape=[1,1]>(a, k) y = Relu(c) }",
        {"k": noise(16, 16, 1, 1)},
    )
    for node in model.graph.node:
        node.name = f"{node.output[0]}/{node.op_type}"
    site = Site("c/Conv", "c", "Conv", "a", 16, None, one_scale=True)
    feed = {"x": noise(1, 16, 8, 8, seed=1)}
    made, report = quantize(to_fp16(model)[0], [site], magnitudes(model, feed))
    [weights] = [n for n in made.graph.node if n.op_type == "DequantizeLinear" and not n.output[0].endswith("input_0")][
        -1:
    ]
    scales = {t.name: tuple(t.dims) for t in made.graph.initializer}
    assert scales[weights.input[1]] == ()
    assert (len(weights.attribute), report.channels) == (0, 1)
    exact, found = run(model, feed)[0], run(made, feed)[0]
    assert np.abs(found - exact).max() < 0.05 * np.abs(exact).max()  # 8 bits of both operands, 16 products a sum


def test_residuals_in_int8_contradict_it() -> None:
    with pytest.raises(UsageError, match=r"--int8-lean keeps .* leave one out"):
        Int8Settings("scenes", lean=True, residual=True)


def planned(model: ModelProto, folder: Path) -> EngineReport:
    folder.mkdir()
    onnx.save(model, folder / "net.onnx")
    return build_engine(folder / "net.onnx", folder / "net.plan")


@pytest.mark.skipif(not installed("tensorrt_rtx"), reason=f"needs TensorRT-RTX: {INSTALL_HINT}")
@pytest.mark.slow  # half a minute for each; one small network is in test_qdq_engine.py
@pytest.mark.parametrize("name", list(firsts().values()))
def test_the_plans_of_all_families_move_less(name: str, tmp_path: Path) -> None:
    made = chain(name, MODELS[name].task, small_size(name))
    sites = find_sites(indexed(made.graphs["simplified"]), LEAN)
    lean, report = quantize(made.half, sites, dict.fromkeys(calibration_tensors(sites), 3.0))
    int8, fp16 = planned(for_tensorrt(lean), tmp_path / "int8"), planned(made.graphs["fp16"], tmp_path / "fp16")
    assert moved(int8) < moved(fp16)
    assert int8.precision["int8"] == report.sites_int8 > 0
    assert int8.attentions_fused == fp16.attentions_fused


def moved(report: EngineReport) -> int:
    """Bytes of activations."""
    assert report.traffic is not None
    assert report.traffic.untold == 0
    return report.traffic.read_bytes + report.traffic.written_bytes
