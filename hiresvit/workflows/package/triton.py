"""A model repository for Triton Inference Server: ONNX Runtime's backend for a graph, TensorRT's for a plan.

The fields are those of ``ModelConfig`` in triton-inference-server/common, protobuf/model_config.proto; where the files
lie is docs/user_guide/model_repository.md of triton-inference-server/server, and warm-up its model_configuration.md.
``max_batch_size`` 0 means that the shapes are whole, over 0 that the first axis is Triton's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hiresvit.bundle.golden import read_golden
from hiresvit.bundle.stages import PLANS, STAGES
from hiresvit.spec import TensorSpec
from hiresvit.workflows.package.shipped import Shipped, fill

_TYPES = {"uint8": "UINT8", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32"}
_MOST = 8  # pictures at a time of a graph that says no limit itself, as plans are built for


def write_triton(shipped: Shipped, folder: Path) -> list[str]:
    """Fill a folder with a repository of a model, or of two where the bundle has a plan of TensorRT, too.

    Raises UsageError for a plan that TensorRT does not load.
    """
    roles = [shipped.pick()]
    shipped.require_engine(roles[0], "Triton")
    if shipped.role is None:
        roles += [role for role in PLANS if shipped.has_engine(role)][:1]
    names = {role: shipped.spec.slug + ("-tensorrt" if role in PLANS else "") for role in roles}
    for role, name in names.items():
        _write_model(shipped, role, folder / "models" / name)
    inputs, outputs = shipped.tensors(roles[0])
    batch = _batch(shipped, roles[0])
    how = (
        f"Requests are batched by the server, up to {batch} pictures (`dynamic_batching`)."
        if batch
        else "The graph takes one picture at a time, so `max_batch_size` is 0, the shapes are whole and there is no"
        " `dynamic_batching`; a bundle that is exported with `--dynamic-batch` gets it."
    )
    text = fill(
        "triton.md",
        slug=shipped.spec.slug,
        models="\n".join(f"- `{name}`: `{shipped.bundle.path(role).name}`" for role, name in names.items()),
        tensors="\n".join(_row(tensor) for tensor in (*inputs, *outputs)),
        batching=how,
        inputs=repr([(one.name, _TYPES[one.dtype], [1, *one.shape[1:]]) for one in inputs]),
        outputs=repr([one.name for one in outputs]),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    return []


def _row(tensor: TensorSpec) -> str:
    return f"| `{tensor.name}` | {_TYPES[tensor.dtype]} | {' x '.join(map(str, tensor.shape))} |"


def _write_model(shipped: Shipped, role: str, folder: Path) -> None:
    shipped.copy(role, folder / "1" / ("model.plan" if role in PLANS else "model.onnx"))
    shipped.write_class_names(folder / "labels.txt")
    inputs, _ = shipped.tensors(role)
    (folder / "warmup").mkdir()
    arrays = read_golden(shipped.bundle)[0]
    for tensor in inputs:
        array = np.ascontiguousarray(arrays[tensor.name], dtype=tensor.dtype)
        (folder / "warmup" / f"{tensor.name}.bin").write_bytes(array.tobytes())
    (folder / "config.pbtxt").write_text(_config(shipped, role, folder.name), encoding="utf-8")


def _batch(shipped: Shipped, role: str) -> int:
    """Most pictures at a time, 0 where the graph has one number of them."""
    if not isinstance(shipped.bundle.manifest.inputs[0].shape[0], str):
        return 0
    engine = shipped.bundle.manifest.engines.get(str(STAGES[role].parent)) if role in PLANS else None
    profiles = engine["profiles"] if engine else {}
    return min((int(most[0]) for _, _, most in profiles.values()), default=_MOST)


def _config(shipped: Shipped, role: str, name: str) -> str:
    """The text of config.pbtxt."""
    inputs, outputs = shipped.tensors(role)
    batch = _batch(shipped, role)
    place = "KIND_GPU" if role in PLANS else "KIND_CPU" if role == "cpu" else "KIND_AUTO"
    lines = [
        f"name: {json.dumps(name)}",
        f"backend: {json.dumps('tensorrt' if role in PLANS else 'onnxruntime')}",
        f"max_batch_size: {batch}",
        *(_tensor("input", tensor, batch) for tensor in inputs),
        *(_tensor("output", tensor, batch, _label_file(shipped, tensor)) for tensor in outputs),
        f"instance_group [ {{ count: 1 kind: {place} }} ]",
    ]
    if batch:
        lines.append("dynamic_batching { }")
    warm = "\n".join(_warm_input(tensor, batch) for tensor in inputs)
    lines.append(f'model_warmup [ {{\n  name: "golden"\n  batch_size: 1\n{warm}\n}} ]')
    return "\n".join(lines) + "\n"


def _label_file(shipped: Shipped, tensor: TensorSpec) -> str:
    """Triton names the best numbers of an output by it, which are classes in a classifier's logits and nowhere else."""
    return ' label_filename: "labels.txt"' if shipped.spec.task == "classify" and tensor.name == "logits" else ""


def _tensor(side: str, tensor: TensorSpec, batch: int, more: str = "") -> str:
    dims = _dims(tensor.shape, batch)
    return f"{side} [ {{ name: {json.dumps(tensor.name)} data_type: TYPE_{_TYPES[tensor.dtype]} dims: {dims}{more} }} ]"


def _warm_input(tensor: TensorSpec, batch: int) -> str:
    what = f"data_type: TYPE_{_TYPES[tensor.dtype]} dims: {_dims(tensor.shape, batch)}"
    what += f' input_data_file: "{tensor.name}.bin"'
    return f"  inputs {{ key: {json.dumps(tensor.name)} value: {{ {what} }} }}"


def _dims(shape: Sequence[int | str], batch: int) -> str:
    sizes = shape[1:] if batch else shape
    return f"[ {', '.join('-1' if isinstance(size, str) else str(size) for size in sizes)} ]"
