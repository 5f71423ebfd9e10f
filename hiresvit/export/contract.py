"""The contract of a deployed graph: names, types and shapes of what goes in and what comes out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from hiresvit.data.dataset import Labels
from hiresvit.data.labels import labels_from_json, labels_to_json, printable
from hiresvit.errors import ArtefactError
from hiresvit.schema import SPEC, Check, compile_schema, read_json
from hiresvit.spec import ModelSpec, TensorSpec

if TYPE_CHECKING:
    import onnx

_SPEC_KEY, _STAGE_KEY = "hiresvit.spec", "hiresvit.stage"
_LABELS_KEY, _UNTRAINED_KEY = "hiresvit.labels", "hiresvit.untrained"

INPUT = "image"
BATCH = "batch"


def input_spec(spec: ModelSpec, batch: int | str = 1) -> TensorSpec:
    """``image``: float32 (B, 3, H, W), as `hiresvit.data.preprocess` makes it by ``spec.preprocess``."""
    return TensorSpec(INPUT, "float32", (batch, 3, *spec.imgsz))


def output_names(spec: ModelSpec) -> list[str]:
    """``logits``, or a name by stride such as ``features_4`` .. ``features_32``."""
    return [f"features_{stride}" for stride in spec.strides] if spec.task == "features" else ["logits"]


def output_specs(spec: ModelSpec, batch: int | str = 1) -> tuple[TensorSpec, ...]:
    """Outputs of a `Deployed` model whose logits are resized; feature channels are known to the model only."""
    if spec.task == "classify":
        return (TensorSpec("logits", "float32", (batch, spec.num_classes)),)
    if spec.task == "segment":
        return (TensorSpec("logits", "float32", (batch, spec.num_classes, *spec.imgsz)),)
    # Rounded up: a family that takes sizes between its strides pads its input.
    return tuple(
        TensorSpec(name, "float32", (batch, "channels", *(-(-side // stride) for side in spec.imgsz)))
        for name, stride in zip(output_names(spec), spec.strides, strict=True)
    )


def stamp(
    model: onnx.ModelProto, spec: ModelSpec, stage: str, *, labels: Labels | None = None, untrained: str = ""
) -> None:
    """Write into the graph's metadata which model it is and which stage of the export made it.

    Where they are given, also what the classes are called, and what of the weights nobody trained; what an earlier
    stage wrote stays.
    """
    from onnx.helper import set_model_props

    props = {prop.key: prop.value for prop in model.metadata_props}
    props |= {_SPEC_KEY: json.dumps(spec.to_json(), sort_keys=True), _STAGE_KEY: stage}
    if labels is not None:
        props[_LABELS_KEY] = json.dumps(labels_to_json(labels), sort_keys=True)
    if untrained:
        props[_UNTRAINED_KEY] = untrained
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
    except ValueError as error:
        raise ArtefactError(f"the graph's {_SPEC_KEY} metadata is damaged: {error}; export the graph again") from error
    return ModelSpec.from_json(values), metadata.get(_STAGE_KEY, "")


@cache
def _spec_check() -> Check:
    return compile_schema(SPEC)


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
