"""Small bundles with any contract, whose graphs are a few nodes that look at every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from graphs import build, content

from hiresvit.bundle.folder import writing_bundle
from hiresvit.bundle.golden import write_golden
from hiresvit.bundle.manifest import Manifest, Weights, list_files, write_manifest
from hiresvit.bundle.stages import STAGES
from hiresvit.data.scenes import sample_image
from hiresvit.export.contract import TENSOR, complete, contract_inputs, contract_outputs
from hiresvit.runtime.frame import picture_feed
from hiresvit.spec import ContractSpec, ModelSpec, PreprocessSpec, Task, TensorSpec

STRETCH = PreprocessSpec()
WEIGHTS = Weights("mine.pth", "ab" * 32)
COMMAND = ["hiresvit", "export", "hrvit_b1", "--weights", "my file.pth", "-o", "old"]
_TYPES = {"float32": "float", "float16": "float16", "uint8": "uint8", "int32": "int32", "int64": "int64"}
_ENGINE = {
    "version": "10.3.0",
    "platform": "linux",
    "compute_capability": "8.7",
    "device": "Orin",
    "plan_bytes": 4,
    "plan_sha256": "ab" * 32,
    "build_seconds": 1.0,
    "peak_rss_bytes": 1,
    "kernel_total": 1,
    "kernels": {},
    "precision": {},
    "attentions_fused": 0,
    "attentions_total": 0,
    "activation_bytes": 0,
    "weight_bytes": 0,
    "scratch_bytes": 0,
    "flags": {},
    "warnings": [],
}


def make_bundle(
    target: Path,
    contract: ContractSpec = TENSOR,
    *,
    task: Task = "segment",
    preprocess: PreprocessSpec = STRETCH,
    size: tuple[int, int] = (32, 48),
    classes: int = 5,
    batch: int | str = 1,
    roles: Sequence[str] = ("fp32", "simplified", "fp16"),
    engine: str | None = None,
    command: Sequence[str] = COMMAND,
) -> Path:
    """A bundle whose graphs are the same in every role; with ``engine``, the name of a backend, and a plan."""
    spec = ModelSpec("hrvit_b1", "hrvit", task, size, classes, preprocess)
    contract = complete(spec, contract)
    inputs, outputs = contract_inputs(spec, contract, batch), contract_outputs(spec, contract, batch)
    graph = small_graph(inputs, outputs, classes)
    picture = sample_image(3, *(contract.size if contract.name == "camera" and contract.size else (40, 56)))
    feed = dict(picture_feed(picture, replace(spec, preprocess=STRETCH), contract))  # a slide has no one feed
    session = onnxruntime.InferenceSession(content(graph), providers=["CPUExecutionProvider"])
    answer = dict(zip([one.name for one in outputs], session.run(None, feed), strict=True))
    with writing_bundle(target, force=False) as folder:
        for role in roles:
            (folder / STAGES[role].file).write_bytes(content(graph))
        engines = {}
        if engine:
            (folder / STAGES["plan"].file).write_bytes(b"ftrt")
            sides = {"inputs": [_plain(one) for one in inputs], "outputs": [_plain(one) for one in outputs]}
            open_axes = {one.name: [[n, *one.shape[1:]] for n in (1, 2, 4)] for one in inputs}
            profiles = open_axes if isinstance(batch, str) else {}
            engines["fp16"] = {**_ENGINE, "backend": engine, "profiles": profiles, **sides}
        write_golden(folder / "golden.npz", feed, answer)
        manifest = Manifest(
            spec, inputs, outputs, WEIGHTS, list_files(folder, WEIGHTS), {}, list(command), contract, engines=engines
        )
        write_manifest(folder, manifest)
    return target


def _plain(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def small_graph(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], classes: int) -> onnx.ModelProto:
    """Answers of the names, types and shapes that a contract asks for, from all that goes in."""
    names = [one.name for one in outputs]
    given = ", ".join(f"{_TYPES[one.dtype]}[{','.join(map(str, one.shape))}] {one.name}" for one in inputs)
    found = ", ".join(f"{_TYPES[one.dtype]}[{','.join(map(str, one.shape))}] {one.name}" for one in outputs)
    channels = inputs[0].shape[1] if inputs[0].dtype == "float32" else inputs[0].shape[-1]
    rng = np.random.default_rng(0)
    constants: dict[str, Any] = {
        "weight": rng.standard_normal((classes, 3, 1, 1), dtype=np.float32),
        "matrix": rng.standard_normal((3, classes), dtype=np.float32) / 40,
        "last": np.array([3]),
        "sides": np.array([1, 2]),
        "axes": np.array([2, 3]),
        "three": np.array([3]),
        "zero": np.array([0]),
        "share": np.array(classes / (255.0 * int(channels) + 1), np.float32),
    }
    last = outputs[0]
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(last.dtype))
    if names == ["logits"] and len(last.shape) == 4:
        body, used = "logits = Conv(image, weight)", {"weight"}
    elif names == ["logits"]:
        body = "m = ReduceMean<keepdims=0>(image, axes) n = Mul(m, m) logits = MatMul(n, matrix)"
        used = {"axes", "matrix"}
    elif names[0] == "classes":
        constants["most"] = np.array([last.shape[1]])
        body = f"""f = Cast<to=1>(image) m = ReduceMean<keepdims=0>(f, sides) n = Slice(m, zero, three, one)
            l = MatMul(n, matrix) p = Softmax<axis=1>(l) probabilities, i = TopK(p, most)
            classes = Cast<to={kind}>(i)"""
        constants["one"] = np.array([1])
        used = {"sides", "zero", "three", "one", "matrix", "most"}
    elif names[0].startswith("features"):
        constants |= {
            f"shape{place}": np.array([8 if isinstance(axis, str) else axis for axis in one.shape])
            for place, one in enumerate(outputs)
        }
        body = "f = Cast<to=1>(image) c = ReduceMean<keepdims=0>(f)"
        body += "".join(f" {name} = Expand(c, shape{place})" for place, name in enumerate(names))
        used = {f"shape{place}" for place in range(len(names))}
    elif len(inputs) == 2:
        body = f"f = Cast<to=1>(y) s = Mul(f, share) labels = Cast<to={kind}>(s)"
        constants["share"] = np.array(classes / 256, np.float32)
        used = {"share"}
    else:
        body = f"f = Cast<to=1>(image) t = ReduceSum<keepdims=0>(f, last) s = Mul(t, share) labels = Cast<to={kind}>(s)"
        body += " confidence = Cast<to=2>(t)" if "confidence" in names else ""
        used = {"last", "share"}
    model = build(f"m ({given}) => ({found}) {{ {body} }}", {name: constants[name] for name in sorted(used)})
    onnx.checker.check_model(model, full_check=True)
    return model
