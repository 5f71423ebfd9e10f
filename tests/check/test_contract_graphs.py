"""Graphs with a contract are legal: by the rules for every target, and for TensorRT-RTX itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from findings import problems_on
from graphs import build, noise
from onnx import ModelProto
from rtx import compiled, needs_rtx
from tiny import tiny_simplified, tiny_spec

from hiresvit.export.contract import complete, stamp
from hiresvit.export.fp16 import to_fp16
from hiresvit.export.frame import apply_contract
from hiresvit.models.preprocessing import HIRI_VIT, HRVIT, LRFORMER, MIXFORMER, NANO, Rows
from hiresvit.spec import ContractSpec, ModelSpec, PreprocessSpec, Task

ROWS = {"hrvit": HRVIT, "lrformer": LRFORMER, "mixformer": MIXFORMER, "hiri_vit": HIRI_VIT, "nano": NANO}
CONTRACTS = {
    "image": ContractSpec("image"),
    "image nv12": ContractSpec("image", "nv12"),
    "image confidence": ContractSpec("image", confidence=True),
    "image bgra int32": ContractSpec("image", "bgra", label_type="int32"),
    "camera": ContractSpec("camera", size=(90, 160)),
    "camera nv12 confidence": ContractSpec("camera", "nv12", size=(90, 160), confidence=True),
    "camera small int64": ContractSpec("camera", "rgba", size=(41, 53), label_type="int64"),
}


def network(spec: ModelSpec, *, half: bool = True, batch: str = "1", opset: int = 20, stride: int = 1) -> ModelProto:
    """The least that a segmentor or a classifier is to a contract."""
    (height, width), classes = spec.imgsz, spec.num_classes
    image = f"float[{batch},3,{height},{width}] image"
    if spec.task == "classify":
        text = f"""g ({image}) => (float[{batch},{classes}] logits)
            {{ pooled = GlobalAveragePool(image)
               flat = Flatten(pooled)
               logits = Gemm(flat, weight) }}"""
        model = build(text, {"weight": noise(3, classes)}, opset)
    else:
        name = "logits" if spec.task == "segment" else "features_4"
        cells = f"{height // stride},{width // stride}"
        text = f"""g ({image}) => (float[{batch},{classes},{cells}] {name})
            {{ {name} = Conv<pads=[1,1,1,1],strides=[{stride},{stride}]>(image, weight) }}"""
        model = build(text, {"weight": noise(classes, 3, 3, 3)}, opset)
    return to_fp16(model)[0] if half else model


def spec_of(task: Task, preprocess: PreprocessSpec) -> ModelSpec:
    spec = replace(tiny_spec(task), preprocess=preprocess)
    return replace(spec, strides=(4,), num_classes=5) if task == "features" else spec


def contracts_of(task: Task) -> dict[str, ContractSpec]:
    """Those that a task can have."""
    if task == "segment":
        return CONTRACTS
    kinds = {name: contract for name, contract in CONTRACTS.items() if not contract.confidence}
    if task == "features":
        return {name: replace(contract, label_type=None) for name, contract in kinds.items()}
    return kinds


def framed(model: ModelProto, spec: ModelSpec, contract: ContractSpec) -> ModelProto:
    return apply_contract(model, spec, complete(spec, contract))


def objections(model: ModelProto, *, profiled: bool = False) -> list[str]:
    """What any target has against a graph, beyond advice."""
    return [
        f"{target}: {finding.message}"
        for target, found in problems_on(model, profiled=profiled).items()
        for finding in found
        if finding.level != "advice"
    ]


class TestRules:
    @pytest.mark.parametrize("family", list(ROWS))
    def test_every_contract_of_every_family_is_legal(self, family: str) -> None:
        rows: Rows = ROWS[family]
        for task, preprocess in rows.items():
            if task in ("masks", "detect"):  # their contract is tensor alone
                continue
            spec = spec_of(task, preprocess)
            for name, contract in contracts_of(task).items():
                assert objections(framed(network(spec), spec, contract)) == [], (task, name)

    @pytest.mark.parametrize(
        "of", [partial(network, half=False), partial(network, opset=17, half=False), partial(network, stride=4)]
    )
    def test_every_form_of_graph_is_legal(self, of: Callable[[ModelSpec], ModelProto]) -> None:
        spec = spec_of("segment", HRVIT["segment"])
        for name, contract in CONTRACTS.items():
            assert objections(framed(of(spec), spec, contract)) == [], name

    def test_a_dynamic_batch_is_legal(self) -> None:
        spec = spec_of("segment", LRFORMER["segment"])
        for name, contract in CONTRACTS.items():
            assert objections(framed(network(spec, batch="N"), spec, contract), profiled=True) == [], name

    def test_what_is_for_cpus_is_not(self) -> None:
        """So that the rules are seen to look: it moves bytes before it casts them."""
        spec = spec_of("segment", HRVIT["segment"])
        model = network(spec, half=False)
        stamp(model, spec, "cpu")
        assert any("UINT8" in text for text in objections(framed(model, spec, ContractSpec("image"))))

    def test_labels_of_whole_numbers_are_not(self) -> None:
        """TensorRT makes UINT8 of floating point alone; here ArgMax's INT64 is cast to it."""
        spec = spec_of("segment", HRVIT["segment"])
        model = framed(network(spec), spec, ContractSpec("image"))
        winner = next(node for node in model.graph.node if node.op_type == "ArgMax")
        model.graph.node[-1].input[0] = winner.output[0]
        assert [text for text in objections(model) if "Cast with INT64 to UINT8" in text]


@needs_rtx
class TestBuilds:
    @pytest.mark.slow
    def test_of_the_tiny_network(self, tmp_path: Path) -> None:
        """The whole of it, FP16, with what stands between a camera's NV12 and labels."""
        spec = tiny_spec()
        half = to_fp16(tiny_simplified(spec))[0]
        models = {
            "tensor": half,
            "image": framed(half, spec, ContractSpec("image")),
            "camera": framed(half, spec, ContractSpec("camera", "nv12", size=(90, 160), confidence=True)),
        }
        kernels = {name: len(found) for name, found in compiled(models, tmp_path).items()}
        assert kernels["tensor"] < kernels["image"] < kernels["camera"] < kernels["tensor"] + 30

    def test_of_contracts(self, tmp_path: Path) -> None:
        """Each of them once, each way of resizing, and the forms of the graph around which they go."""
        keep, nv12 = spec_of("segment", HRVIT["segment"]), CONTRACTS["camera nv12 confidence"]
        letterbox = replace(HRVIT["segment"], resize="letterbox", channels="bgr")
        pillow, crop = spec_of("segment", NANO["segment"]), spec_of("classify", HRVIT["classify"])
        features = spec_of("features", MIXFORMER["features"])
        graphs = {name: framed(network(keep), keep, contract) for name, contract in CONTRACTS.items()} | {
            "letterbox": framed(network(keep), spec_of("segment", letterbox), CONTRACTS["camera"]),
            "pillow": framed(network(pillow), pillow, CONTRACTS["camera"]),
            "crop": framed(network(crop), crop, CONTRACTS["camera"]),
            "features": framed(network(features), features, contracts_of("features")["image nv12"]),
            "dynamic": framed(network(keep, batch="N"), keep, nv12),
            "coarse": framed(network(keep, stride=4), keep, nv12),
            "fp32": framed(network(keep, half=False, opset=17), keep, nv12),
        }
        assert all(compiled(graphs, tmp_path).values())

    @pytest.mark.slow
    @pytest.mark.parametrize("family", list(ROWS))
    def test_of_every_contract_of_every_family(self, family: str, tmp_path: Path) -> None:
        graphs: dict[str, ModelProto] = {}
        for task, preprocess in ROWS[family].items():
            if task in ("masks", "detect"):  # their contract is tensor alone
                continue
            spec = spec_of(task, preprocess)
            for name, contract in contracts_of(task).items():
                graphs[f"{task} {name}"] = framed(network(spec), spec, contract)
        assert all(compiled(graphs, tmp_path).values())
