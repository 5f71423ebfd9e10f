"""The contract of a deployed graph: names, types and shapes of what goes in and what comes out.

Every graph is made with the contract ``tensor``; `hiresvit.export.frame` puts another one around it at the end.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from hiresvit.data.dataset import Labels
from hiresvit.data.labels import labels_from_json, labels_to_json, printable
from hiresvit.errors import ArtefactError, UsageError
from hiresvit.graph.precision import LOWEST_KEY, Lowest
from hiresvit.models.zoo import require_confidence
from hiresvit.schema import CONTRACT, SPEC, Check, check_spec, compile_schema, read_json
from hiresvit.spec import MASK_STRIDE, MASKS, QUERIES, ContractSpec, ModelSpec, TensorSpec, is_raw

if TYPE_CHECKING:
    import onnx

_SPEC_KEY, _STAGE_KEY = "hiresvit.spec", "hiresvit.stage"
_LABELS_KEY, _UNTRAINED_KEY = "hiresvit.labels", "hiresvit.untrained"
_CONTRACT_KEY = "hiresvit.contract"

INPUT = "image"
BATCH = "batch"
LUMA, CHROMA = "y", "uv"
LABELS, CONFIDENCE = "labels", "confidence"
CLASSES, PROBABILITIES = "classes", "probabilities"

TENSOR = ContractSpec()
"""What every graph is made with."""
TOP = 5  # classes that a classifier names unless told otherwise
_SIDES = range(2, 2**14 + 1)  # of a camera; NV12 has half of it


def input_spec(spec: ModelSpec, batch: int | str = 1) -> TensorSpec:
    """``image``: float32 (B, 3, H, W), as `hiresvit.data.preprocess` makes it by ``spec.preprocess``."""
    return TensorSpec(INPUT, "float32", (batch, 3, *spec.imgsz))


def output_names(spec: ModelSpec) -> list[str]:
    """``logits``; ``classes`` and ``masks`` of raw masks; of maps and levels a name by stride, as ``features_4``."""
    if spec.task == "masks":
        return [CLASSES, MASKS]
    if spec.anchors is not None:
        return [f"{kind}_{stride}" for kind in ("logits", "deltas") for stride in spec.anchors.strides]
    return [f"features_{stride}" for stride in spec.strides] if spec.task == "features" else ["logits"]


def output_specs(spec: ModelSpec, batch: int | str = 1) -> tuple[TensorSpec, ...]:
    """Outputs of a `Deployed` model whose logits are resized; feature channels are known to the model only."""
    if spec.task == "classify":
        return (TensorSpec("logits", "float32", (batch, spec.num_classes)),)
    if spec.task == "segment":
        return (TensorSpec("logits", "float32", (batch, spec.num_classes, *spec.imgsz)),)
    if spec.task == "masks":
        sides = (side // MASK_STRIDE for side in spec.imgsz)
        return (
            TensorSpec(CLASSES, "float32", (batch, QUERIES, spec.num_classes + 1)),
            TensorSpec(MASKS, "float32", (batch, QUERIES, *sides)),
        )
    if spec.anchors is not None:
        channels = {"logits": spec.anchors.per_cell * spec.num_classes, "deltas": spec.anchors.per_cell * 4}
        return tuple(
            TensorSpec(f"{kind}_{stride}", "float32", (batch, count, *(-(-side // stride) for side in spec.imgsz)))
            for kind, count in channels.items()
            for stride in spec.anchors.strides
        )
    # Rounded up: a family that takes sizes between its strides pads its input.
    return tuple(
        TensorSpec(name, "float32", (batch, "channels", *(-(-side // stride) for side in spec.imgsz)))
        for name, stride in zip(output_names(spec), spec.strides, strict=True)
    )


def complete(spec: ModelSpec, contract: ContractSpec) -> ContractSpec:
    """A contract with what was left open filled in, so that the same one is written everywhere.

    ``size`` of an image is the network's; ``label_type`` uint8 for a segmentor of up to 256 classes, else int32;
    ``top_k`` 5 or as many classes as there are; ``yuv`` of NV12 bt709. Raises UsageError as `check_contract` does.
    """
    if contract.name != "tensor":
        segments, classifies = spec.task == "segment", spec.task == "classify"
        narrow = segments and spec.num_classes <= 256
        kind = contract.label_type or ("uint8" if narrow else "int32" if segments or classifies else None)
        contract = replace(
            contract,
            size=contract.size or (spec.imgsz if contract.name == "image" else None),
            yuv=contract.yuv or ("bt709" if contract.pixels == "nv12" else None),
            label_type=kind,
            top_k=min(TOP, spec.num_classes) if classifies and contract.top_k is None else contract.top_k,
        )
    check_contract(spec, contract)
    return contract


def check_contract(spec: ModelSpec, contract: ContractSpec) -> None:
    """Raise UsageError, in one line, unless a graph of this model can have this contract, all of it filled in."""
    if contract.name == "tensor":
        if given := [name for name, value in asdict(contract).items() if value != getattr(TENSOR, name)]:
            raise UsageError(f"{given[0]} with contract tensor: it is for the contracts image and camera")
        return
    if is_raw(spec.task) and spec.task != "features":
        answered = "; export task segment for labels" if spec.task == "masks" else ""
        raise UsageError(f"contract {contract.name} with task {spec.task}: its outputs are raw tensors{answered}")
    _check_pixels(spec, contract)
    _check_answer(spec, contract)


def _check_pixels(spec: ModelSpec, contract: ContractSpec) -> None:
    """What goes in."""
    name, size = contract.name, contract.size
    if size is None:
        raise UsageError(f"contract {name} has no size: give the {name}'s height and width, as {name} 1080x1920")
    shown = f"{size[0]}x{size[1]}"
    if name == "image" and size != spec.imgsz:
        raise UsageError(
            f"contract image of {shown}: its pixels are the network's, {spec.imgsz[0]}x{spec.imgsz[1]}; choose that,"
            f" or contract camera {shown}"
        )
    if name == "camera" and not all(side in _SIDES for side in size):
        raise UsageError(f"camera of {shown}: its sides must be from {_SIDES.start} to {_SIDES.stop - 1}")
    if spec.preprocess.resize == "slide":
        raise UsageError(f"contract {name} with resize slide: windows overlap as logits, so it is for contract tensor")
    if name == "camera" and spec.preprocess.resize == "crop" and spec.task == "segment":
        raise UsageError("contract camera with resize crop leaves pixels without a label: give keep or stretch")
    if contract.pixels != "nv12":
        if contract.yuv is not None:
            raise UsageError(f"yuv {contract.yuv} with {contract.pixels} pixels: it is for nv12")
        return
    if contract.yuv is None:
        raise UsageError("nv12 pixels without their colours: give bt601, bt709, bt601-full or bt709-full")
    if size[0] % 2 or size[1] % 2:
        raise UsageError(f"nv12 pixels of {shown}: both sides must be even")


def _check_answer(spec: ModelSpec, contract: ContractSpec) -> None:
    """What comes out."""
    task, kind, top = spec.task, contract.label_type, contract.top_k
    if contract.confidence and task != "segment":
        raise UsageError(f"confidence with task {task}: it is a map beside a segmentor's labels")
    if contract.confidence:
        require_confidence(spec)
    if top is not None and task != "classify":
        raise UsageError(f"top_k {top} with task {task}: it is for classify")
    if is_raw(task):
        if kind is not None:
            raise UsageError(f"label_type {kind} with task {task}: no labels come out of it")
        return
    if kind is None:
        raise UsageError(f"no label_type for task {task}: give uint8, int32 or int64")
    if task == "segment":
        if kind == "uint8" and spec.num_classes > 256:
            raise UsageError(f"{spec.num_classes} classes as uint8 labels, which end at 255: give int32 or int64")
        return
    if kind == "uint8":
        raise UsageError("uint8 class numbers of a classifier: give int32 or int64")
    if top is None or not 1 <= top <= spec.num_classes:
        raise UsageError(f"top_k {top}: from 1 to {spec.num_classes}, the number of classes, can come out")


def contract_inputs(spec: ModelSpec, contract: ContractSpec, batch: int | str = 1) -> tuple[TensorSpec, ...]:
    """What a graph with a contract, all of it filled in, takes: ``image``, or ``y`` and ``uv`` for NV12.

    ``image`` is float32 (B, 3, H, W) for a tensor, else uint8 (B, H, W, 3 or 4); ``y`` uint8 (B, H, W) and ``uv`` uint8
    (B, H/2, W/2, 2). Raises UsageError as `check_contract` does.
    """
    check_contract(spec, contract)
    if contract.name == "tensor" or contract.size is None:
        return (input_spec(spec, batch),)
    height, width = contract.size
    if contract.pixels == "nv12":
        luma, chroma = (batch, height, width), (batch, height // 2, width // 2, 2)
        return (TensorSpec(LUMA, "uint8", luma), TensorSpec(CHROMA, "uint8", chroma))
    return (TensorSpec(INPUT, "uint8", (batch, height, width, len(contract.pixels))),)


def contract_outputs(spec: ModelSpec, contract: ContractSpec, batch: int | str = 1) -> tuple[TensorSpec, ...]:
    """What a graph with a contract, all of it filled in, gives: see docs/contract.md.

    ``labels`` (B, H, W) and, if asked, ``confidence`` uint8 (B, H, W); ``classes`` (B, k) and ``probabilities`` float32
    (B, k); maps and tensors as `output_specs`. Raises UsageError as `check_contract` does.
    """
    check_contract(spec, contract)
    if contract.name == "tensor" or contract.label_type is None:
        return output_specs(spec, batch)
    if contract.top_k is not None:
        shape = (batch, contract.top_k)
        return (TensorSpec(CLASSES, contract.label_type, shape), TensorSpec(PROBABILITIES, "float32", shape))
    size = (batch, *(contract.size or spec.imgsz))
    labels = TensorSpec(LABELS, contract.label_type, size)
    return (labels, TensorSpec(CONFIDENCE, "uint8", size)) if contract.confidence else (labels,)


def stamp(
    model: onnx.ModelProto,
    spec: ModelSpec,
    stage: str,
    *,
    labels: Labels | None = None,
    untrained: str = "",
    contract: ContractSpec = TENSOR,
    lowest: Lowest | None = None,
) -> None:
    """Write into the graph's metadata which model it is and which stage of the export made it.

    Where they are given, also what the classes are called, what of the weights nobody trained, its contract if that is
    no tensor's, and what modules say of precision; what an earlier stage wrote stays.
    """
    from onnx.helper import set_model_props

    props = {prop.key: prop.value for prop in model.metadata_props}
    props |= {_SPEC_KEY: json.dumps(spec.to_json(), sort_keys=True), _STAGE_KEY: stage}
    if labels is not None:
        props[_LABELS_KEY] = json.dumps(labels_to_json(labels), sort_keys=True)
    if untrained:
        props[_UNTRAINED_KEY] = untrained
    if lowest:
        props[LOWEST_KEY] = json.dumps(lowest, sort_keys=True)
    if contract != TENSOR:
        props[_CONTRACT_KEY] = json.dumps(asdict(contract), sort_keys=True)
    set_model_props(model, props)


def read_labels(metadata: Mapping[str, str], spec: ModelSpec) -> Labels | None:
    """The names of classes that `stamp` wrote. Raises ArtefactError if damaged."""
    if _LABELS_KEY not in metadata:
        return None
    try:
        return labels_from_json(read_json(metadata[_LABELS_KEY]), spec.num_classes)
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"the graph's {_LABELS_KEY} metadata is damaged: {error!r}") from error


def read_untrained(metadata: Mapping[str, str]) -> str:
    """What of the weights nobody trained, as `stamp` wrote it; "" if all were, or nobody said."""
    return printable(metadata.get(_UNTRAINED_KEY, ""))


def fresh_weights(seed: int) -> str:
    """What weights are called that were drawn."""
    return f"fresh weights from seed {seed}"


def untrained_note(what: str) -> str:
    """What is to be said wherever answers of weights are shown that nobody trained."""
    return f"{what}: nobody trained this, so the answers mean nothing; give trained weights with --weights"


def read_stamp(metadata: Mapping[str, str]) -> tuple[ModelSpec, str] | None:
    """The spec and stage that `stamp` wrote; None for a graph of somebody else's. Raises ArtefactError if damaged."""
    if _SPEC_KEY not in metadata:
        return None
    try:
        values = read_json(metadata[_SPEC_KEY])
        _spec_check()(values)
        check_spec(values)
    except ValueError as error:
        raise ArtefactError(f"the graph's {_SPEC_KEY} metadata is damaged: {error}; export the graph again") from error
    return ModelSpec.from_json(values), metadata.get(_STAGE_KEY, "")


def read_contract(metadata: Mapping[str, str]) -> ContractSpec:
    """The contract that `stamp` wrote; a tensor's where it wrote none. Raises ArtefactError if damaged."""
    if _CONTRACT_KEY not in metadata:
        return TENSOR
    try:
        values = read_json(metadata[_CONTRACT_KEY])
        _contract_check()(values)
    except ValueError as error:
        raise ArtefactError(
            f"the graph's {_CONTRACT_KEY} metadata is damaged: {error}; export the graph again"
        ) from error
    return ContractSpec.from_json(values)


@cache
def _spec_check() -> Check:
    return compile_schema(SPEC)


@cache
def _contract_check() -> Check:
    return compile_schema(CONTRACT)


def describe_graph(model: onnx.ModelProto, size: int) -> dict[str, Any]:
    """Stage, opset, node counts by operator and attentions of a graph whose file has ``size`` bytes."""
    from hiresvit.graph.attentions import count_attentions

    stamped = read_stamp({prop.key: prop.value for prop in model.metadata_props})
    operators = Counter(sorted(node.op_type for node in model.graph.node))
    return {
        "stage": stamped[1] if stamped else None,
        "opset": max((o.version for o in model.opset_import if o.domain == ""), default=None),
        "nodes": len(model.graph.node),
        "operators": dict(operators.most_common()),
        "attentions": count_attentions(model),
        "bytes": size,
    }
