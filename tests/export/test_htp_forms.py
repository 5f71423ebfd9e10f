"""The forms of a graph that Qualcomm's compiler takes: the same numbers, and nothing else touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import Array, build, constants_of, distance, noise, run
from onnx import ModelProto

from hiresvit.device.chips import CHIPS
from hiresvit.errors import UsageError
from hiresvit.export.htp import for_htp
from hiresvit.runtime.open import open_runner

NEW, OLD, INTEGERS = CHIPS["sm8650"], CHIPS["xr2-gen2"], CHIPS["ar1"]

GELU = "g (float[1,8,6,6] x) => (float[1,8,6,6] y) { c = Conv(x, w) y = Gelu(c) }"
WEIGHT = {"w": noise(8, 8, 1, 1, seed=3)}


def ops(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_a_gelu_is_a_tanh_where_the_chip_would_compute_it_coarsely() -> None:
    model = build(GELU, WEIGHT)
    made, changes = for_htp(model, "fp16", NEW)
    assert changes.gelus == 1
    assert "Gelu" not in ops(made)
    assert ops(made).count("Tanh") == 1
    assert [value.name for value in made.graph.output] == ["y"]
    x = 3 * noise(1, 8, 6, 6)
    (exact,), (tanh,) = run(model, {"x": x}), run(made, {"x": x})
    # The two GELUs are at most 4.8e-4 apart (x near 2.2). A constant of 0.045 for 0.044715 makes 5.5e-4 of it.
    assert 1e-5 < float(np.abs(exact - tanh).max()) < 4.9e-4
    for chip, form in ((OLD, "fp16"), (NEW, "a16w8")):
        same, changes = for_htp(model, form, chip)  # type: ignore[arg-type]
        assert changes.gelus == 0
        assert ops(same) == ops(model)


def test_the_emulator_is_nearer_to_fp32_for_it(tmp_path: Path) -> None:
    """The reason why it is done: if the compiler's own GELU is as good one day, the rewrite can go."""
    pytest.importorskip("onnxruntime_qnn")
    model, x = build(GELU, WEIGHT), 0.3 * noise(1, 8, 6, 6)
    (wanted,) = run(model, {"x": x})
    found = []
    for name, graph in (("fused", model), ("tanh", for_htp(model, "fp16", NEW)[0])):
        path = tmp_path / f"{name}.onnx"
        onnx.save(graph, path)
        with open_runner(path, runner="qnn:sm8650") as runner:
            found.append(distance(wanted, runner({"x": x})["y"]))
    fused, tanh = found
    assert 2 * tanh < fused, found  # 6.8e-4 of the largest value and 2.2e-3


def test_the_norm_of_a_batch_is_the_convolution_that_it_is() -> None:
    given: dict[str, Array] = {
        **{"s": noise(8, seed=1), "b": noise(8, seed=2), "m": noise(8, seed=3)},
        "v": 0.5 + noise(8, seed=4) ** 2,
    }
    text = "g (float[1,8,6,6] x) => (float[1,8,6,6] y) { y = BatchNormalization<epsilon=0.01>(x, s, b, m, v) }"
    model, x = build(text, given), noise(1, 8, 6, 6)
    made, changes = for_htp(model, "a8w8", INTEGERS)
    assert changes.batch_norms == 1
    assert ops(made) == ["Conv"]
    (wanted,), (found,) = run(model, {"x": x}), run(made, {"x": x})
    assert distance(wanted, found) < 1e-6  # the same sums in FP32; without the epsilon it is 5e-3
    assert ops(for_htp(model, "fp16", NEW)[0]) == ["BatchNormalization"]


@pytest.mark.parametrize(("form", "floor"), [("a8w8", -20.0), ("a16w8", -50.0), ("fp16", -1e4)])
def test_a_mask_keeps_its_range_for_the_scores(form: str, floor: float) -> None:
    mask = np.zeros((1, 1, 4, 4), np.float32)
    mask[..., 2:] = -1e4
    model = build("g (float[1,2,4,4] x) => (float[1,2,4,4] y) { s = Add(x, mask) y = Softmax(s) }", {"mask": mask})
    made, changes = for_htp(model, form, NEW)  # type: ignore[arg-type]
    (constant,) = constants_of(made).values()
    assert float(constant.min()) == floor
    assert float(constant.max()) == 0.0
    assert changes.masks == (form != "fp16")
    x = noise(1, 2, 4, 4)
    (wanted,), (found,) = run(model, {"x": x}), run(made, {"x": x})
    assert float(np.abs(wanted - found).max()) < 1e-7  # exp(-20 + 4): what is masked gets no weight that 8 bits hold


def test_a_constant_that_is_no_mask_stays() -> None:
    text = "g (float[4,4] x) => (float[4,4] y) { y = Add(x, c) }"
    model = build(text, {"c": np.full((4, 4), -1e4, np.float32)})
    assert for_htp(model, "a8w8", INTEGERS)[0].SerializeToString() == model.SerializeToString()


def test_fp16_on_a_chip_of_integers_is_refused() -> None:
    with pytest.raises(UsageError, match=r"AR1.*integers only.*a16w8"):
        for_htp(build(GELU, WEIGHT), "fp16", INTEGERS)
