"""Small mistakes in the graph of the real HRViT-b1, each of which the parity gates must notice.

With fresh weights at 64x96 pixels: 116 dB without a mistake, and a gate at 90. What changes the answer by less than
3e-5 of it is not noticed: the scale of one attention alone (96 to 116 dB), one GELU alone (95 to 107), and an epsilon
of 1e-6 for 1e-5 in one norm, except in the last patch embeddings (86 dB; 94 to 104 in the others, and up to 116 inside
the blocks, where the variance is near 1 and an epsilon means nothing).

The FP16 graph is made from the simplified one, and its gate is there for its own rounding: 51 dB without a mistake, a
gate at 38. It notices that the last mask is gone (30 dB) or all of them (23), and not the first alone (41), the other
scale, GELU or epsilons (50).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import Array, copied, distance, run
from onnx import ModelProto, NodeProto, helper, numpy_helper
from tiny import fresh_tiny, tiny_graph, tiny_model, tiny_spec
from variants import Chain, chain, parity

from hiresvit.errors import GateError
from hiresvit.evaluation.parity import GATES, check_gate, enforce
from hiresvit.export.deployed import Deployed
from hiresvit.export.fp16 import to_fp16
from hiresvit.export.onnx import export_onnx
from hiresvit.models.fold import fold

Mutation = Callable[[ModelProto], ModelProto]


def hrvit_b1() -> Chain:
    """Not square: rows and columns have masks of their own."""
    return chain("hrvit_b1", "segment", (64, 96))


def is_mask(name: str) -> bool:
    return name.endswith((".rows.mask", ".columns.mask"))


def scale_attention(model: ModelProto, factor: float) -> ModelProto:
    """Multiply all scores before their softmax; the scale itself is inside the projection's weights."""
    mutant = copied(model)
    mutant.graph.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "Softmax":
            [scores] = node.input
            nodes.append(helper.make_node("Mul", [scores, "factor"], [f"{scores}/more"], f"{node.name}/more"))
            softmax = NodeProto()
            softmax.CopyFrom(node)
            softmax.input[0] = f"{scores}/more"
            nodes.append(softmax)
        else:
            nodes.append(node)
    assert len(nodes) > len(model.graph.node)
    del mutant.graph.node[:]
    mutant.graph.node.extend(nodes)
    return mutant


def drop_masks(model: ModelProto, which: slice) -> ModelProto:
    mutant = copied(model)
    masked = [n for n in mutant.graph.node if n.op_type == "Add" and any(map(is_mask, n.input))]
    assert masked[which]
    for node in masked[which]:
        node.op_type = "Identity"
        [scores] = [name for name in node.input if not is_mask(name)]
        node.input[:] = [scores]
    return mutant


def tanh_gelu(model: ModelProto) -> ModelProto:
    mutant = copied(model)
    gelus = [node for node in mutant.graph.node if node.op_type == "Gelu"]
    assert gelus
    for node in gelus:
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("approximate", "tanh"))
    return mutant


def set_epsilon(model: ModelProto, epsilon: float, names: Iterable[str] = ()) -> ModelProto:
    """In the norms of these modules; in all of them when none is named."""
    mutant = copied(model)
    wanted = {f"{name}/LayerNormalization" for name in names}
    norms = [node for node in mutant.graph.node if node.op_type == "LayerNormalization"]
    norms = [node for node in norms if not wanted or node.name in wanted]
    assert len(norms) >= max(1, len(wanted))
    for node in norms:
        [attribute] = [a for a in node.attribute if a.name == "epsilon"]
        assert attribute.f == pytest.approx(1e-5)
        attribute.f = epsilon
    return mutant


# What is left, in dB, at the gate "onnx".
MUTATIONS: dict[str, Mutation] = {
    "attention scale x1.05": partial(scale_attention, factor=1.05),  # 68
    "first mask removed": partial(drop_masks, which=slice(0, 1)),  # 41
    "a mask in the middle removed": partial(drop_masks, which=slice(24, 25)),  # 39
    "last mask removed": partial(drop_masks, which=slice(-1, None)),  # 30
    "GELU in its tanh form": tanh_gelu,  # 64
    "first LayerNorm epsilon 1e-4": partial(
        set_epsilon, epsilon=1e-4, names=["backbone.features.1.patch_embed.0.norm"]
    ),  # 84
    "last patch embedding's LayerNorm epsilon 1e-6": partial(
        set_epsilon, epsilon=1e-6, names=["backbone.features.11.patch_embed.3.norm"]
    ),  # 87
    "last LayerNorm epsilon 1e-3": partial(set_epsilon, epsilon=1e-3, names=["backbone.features.11.norm.3"]),  # 66
    "every LayerNorm epsilon 1e-6": partial(set_epsilon, epsilon=1e-6),  # 82
}


@pytest.mark.parametrize("stage", ["onnx", "simplified", "cpu", "fp16"])
def test_without_a_mistake_the_gate_passes(stage: str, tmp_path: Path) -> None:
    exported = hrvit_b1()
    report = parity(exported, exported.graphs[stage], tmp_path)
    assert check_gate(report, GATES[stage], stage) == []


@pytest.mark.parametrize("what", list(MUTATIONS))
def test_a_mistake_is_noticed(what: str, tmp_path: Path) -> None:
    exported = hrvit_b1()
    for stage in ("onnx", "simplified") if what == "last mask removed" else ("onnx",):
        report = parity(exported, MUTATIONS[what](exported.graphs[stage]), tmp_path)
        with pytest.raises(GateError, match=f"{stage}: output 'logits' has sqnr_db"):
            enforce(report, GATES[stage], stage)


@pytest.mark.parametrize("which", [slice(-1, None), slice(None)], ids=["the last", "all"])
def test_fp16_notices_that_masks_are_gone(which: slice, tmp_path: Path) -> None:
    exported = hrvit_b1()
    mutant, _ = to_fp16(drop_masks(exported.graphs["simplified"], which))
    failures = check_gate(parity(exported, mutant, tmp_path), GATES["fp16"], "fp16")
    assert "fp16: output 'logits' has sqnr_db" in failures[0]


def test_without_perturbed_weights_attention_would_not_matter() -> None:
    """Why fresh weights are perturbed: HRViT starts with an attention path that is multiplied by zero."""
    spec = tiny_spec()
    fresh = fresh_tiny(spec)
    image = np.random.default_rng(0).standard_normal((1, 3, *spec.imgsz), dtype=np.float32)

    def moved(model: torch.nn.Module, graph: ModelProto, mutation: Mutation) -> tuple[float, float]:
        """The graph's distance from PyTorch, and the mutant's."""
        with torch.inference_mode():
            wanted: Array = Deployed(model, spec)(torch.from_numpy(image)).numpy()
        before, after = (run(g, {"image": image})[0] for g in (graph, mutation(graph)))
        return distance(wanted, before), distance(wanted, after)

    graph = export_onnx(fold(fresh), spec)
    for mutation in (partial(scale_attention, factor=1.05), partial(drop_masks, which=slice(None))):
        good, bad = moved(fresh, graph, mutation)
        assert bad == good, "to the last bit"
        good, bad = moved(tiny_model(spec), tiny_graph(spec), mutation)
        assert bad > 10 * good
