"""What the rules see of a graph: one index for all targets, inferred once in a whole check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from graphs import build, content, noise
from onnx import ModelProto, helper

from hiresvit.check import check
from hiresvit.check.check import check_graph
from hiresvit.check.rule import look
from hiresvit.check.targets import TARGETS
from hiresvit.engine.build import BuildSettings
from hiresvit.engine.profiles import parse_shapes
from hiresvit.errors import UsageError

EVERY = list(TARGETS.values())


def attention(batch: str = "2") -> ModelProto:
    """In FP16, behind a projection and before a Linear."""
    return build(
        f"""g (float16[{batch},64,32] x, float16[{batch},32,64] k) => (float16[{batch},64,32] y) {{
        q = MatMul(x, w)  s = MatMul(q, k)  p = Softmax<axis=-1>(s)  m = MatMul(p, q)  y = MatMul(m, w)
    }}""",
        {"w": noise(32, 32).astype("float16")},
    )


def in_a_function() -> ModelProto:
    model = attention()
    body = list(model.graph.node)
    model.opset_import.add(domain="here", version=1)
    model.functions.append(helper.make_function("here", "mix", ["x", "k", "w"], ["y"], body, model.opset_import[:1]))
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("mix", ["x", "k", "w"], ["y"], domain="here"))
    return model


PROFILES = tuple(f"{name}=1x{size}:2x{size}:4x{size}" for name, size in (("x", "64x32"), ("k", "32x64")))


@pytest.mark.parametrize(
    ("model", "texts", "count"),
    [
        (attention(), (), 1),
        (attention("N"), PROFILES, 2),  # what it is in general, and at its best shape
        (in_a_function(), (), 2),  # taken apart for the rules, and as kernels name it
    ],
    ids=["static", "dynamic", "functions"],
)
def test_how_often_a_graph_is_inferred(
    model: ModelProto, texts: tuple[str, ...], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build changes nothing: what it made is compared with the index that is there."""
    calls: list[ModelProto] = []
    infer = onnx.shape_inference.infer_shapes

    def counted(model: ModelProto, **options: Any) -> ModelProto:
        calls.append(model)
        return infer(model, **options)

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", counted)
    monkeypatch.setattr(check, "installed", lambda backend: True)
    monkeypatch.setattr(check, "build_engine", lambda *a, **o: None)
    monkeypatch.setattr(check, "read_sidecar", lambda plan: SimpleNamespace(layers=()))
    monkeypatch.setattr(check, "traffic", lambda *a: None)
    path = tmp_path / "g.onnx"
    path.write_bytes(content(model))
    settings = BuildSettings(shapes=parse_shapes(texts))
    found = check_graph(path, EVERY, settings, build=False)
    assert (found.failure, found.compiled, len(calls)) == (None, None, count)
    calls.clear()
    found = check_graph(path, EVERY, settings)
    assert (found.failure, len(calls)) == (None, count)
    assert found.compiled is not None
    if not model.functions:
        # each of the four products has 64 x 32 x 32 or 64 x 64 x 32 in each of two pictures
        assert found.compiled.macs == {"unknown": 2 * (2 * 64 * 32 * 32 + 2 * 64 * 64 * 32)}
        assert len(found.compiled.attentions) == 1


def test_targets_share_an_index() -> None:
    view = look(attention(), EVERY[0], False)
    other = replace(view, target=EVERY[1])
    assert (view.target, other.target) == tuple(EVERY[:2])
    assert other.types is view.types
    assert other.nodes is view.nodes


def test_weights_outside_the_proto_are_refused(tmp_path: Path) -> None:
    onnx.save(attention(), tmp_path / "a.onnx", save_as_external_data=True, location="w", size_threshold=0)
    with pytest.raises(UsageError, match="the weights are outside the proto: load them too"):
        look(onnx.load(tmp_path / "a.onnx", load_external_data=False), EVERY[0], False)
