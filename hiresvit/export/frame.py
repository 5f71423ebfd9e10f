"""From a camera's bytes to labels: what puts a contract around a finished graph.

The network is made, rewritten and compared as one of tensors; the nodes that come before it are drawn in
`hiresvit.export.pixels`, those behind it in `hiresvit.export.answers`. They compute in FP32.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from hiresvit.errors import UsageError
from hiresvit.export.answers import draw_classes, draw_labels
from hiresvit.export.contract import BATCH, INPUT, contract_inputs, contract_outputs, output_names, read_stamp
from hiresvit.export.pixels import draw_input
from hiresvit.export.rewrites import replace_all
from hiresvit.export.sketch import PREFIX, Sketch
from hiresvit.graph.dtypes import FLOAT, HALF
from hiresvit.graph.index import GraphIndex, index_graph
from hiresvit.spec import ContractSpec, ModelSpec, TensorSpec, is_raw

_NETWORK = f"{PREFIX}/network"  # what the network's own input is called
_NUMBERS = {
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "float32": TensorProto.FLOAT,
}


def apply_contract(model: ModelProto, spec: ModelSpec, contract: ContractSpec) -> ModelProto:
    """A new graph that takes and gives what ``contract``, all of it filled in, says.

    ``model`` is of any stage with the contract ``tensor``: FP32 or FP16 at its border, static or of a dynamic batch.
    What is stamped as the stage ``cpu`` gets the forms that ONNX Runtime's kernels are fastest with; all else is legal
    for every TensorRT. Metadata stay as they are: `hiresvit.export.contract.stamp` writes the contract there. Raises
    UsageError for a contract that the model cannot have, and for a graph that is not of this model.
    """
    contract_inputs(spec, contract)  # raises
    out = ModelProto()
    out.CopyFrom(model)
    if contract.name == "tensor":
        return out
    index = index_graph(out)
    _check_border(index, spec)
    stamped = read_stamp({prop.key: prop.value for prop in out.metadata_props})
    first = out.graph.input[0].type.tensor_type.shape.dim[0]
    batch: int | str = first.dim_value if first.HasField("dim_value") else first.dim_param or BATCH
    sketch = Sketch(index.opset or 0, batch, for_cpu=stamped is not None and stamped[1] == "cpu")
    half = out.graph.input[0].type.tensor_type.elem_type == HALF
    before = _before(sketch, spec, contract, half=half)
    for node in out.graph.node:
        replace_all(node.input, [_NETWORK if name == INPUT else name for name in node.input])
    behind: list[NodeProto] = list(out.graph.node)
    if not is_raw(spec.task):
        behind = _answered(sketch, behind, index, spec, contract)
        replace_all(out.graph.output, map(_value, contract_outputs(spec, contract, batch)))
    replace_all(out.graph.input, map(_value, contract_inputs(spec, contract, batch)))
    replace_all(out.graph.node, [*before, *behind])
    sketch.put_into(out)
    return out


def _check_border(index: GraphIndex, spec: ModelSpec) -> None:
    """Raise UsageError unless the graph takes and gives what a graph of ``spec`` does as tensors."""
    shape = index.shapes.get(INPUT, ())
    wanted = (3, *spec.imgsz)
    if list(index.inputs) != [INPUT] or shape[1:] != wanted or index.types.get(INPUT) not in ("float", "float16"):
        raise UsageError(f"the graph takes {', '.join(index.inputs)}; a contract goes around {INPUT} (N, 3, H, W)")
    if list(index.outputs) != output_names(spec):
        raise UsageError(f"the graph gives {', '.join(index.outputs)}, not {', '.join(output_names(spec))}")


def _before(sketch: Sketch, spec: ModelSpec, contract: ContractSpec, *, half: bool) -> list[NodeProto]:
    """The nodes up to the network's input, which the last of them makes."""
    image = draw_input(sketch, spec, contract)
    if half:
        sketch.cast(image, HALF)
    sketch.nodes[-1].output[0] = _NETWORK
    return sketch.nodes


def _answered(
    sketch: Sketch, network: list[NodeProto], index: GraphIndex, spec: ModelSpec, contract: ContractSpec
) -> list[NodeProto]:
    """The network's nodes and those behind its logits, without a Cast of the logits that nobody reads."""
    (logits,) = index.outputs
    maker, sketch.nodes = index.producer.get(logits), []
    widened = maker is not None and maker.op_type == "Cast" and index.types.get(maker.input[0]) == "float16"
    own = maker.input[0] if maker is not None and widened else logits
    single = sketch.cast(logits, FLOAT) if index.types[logits] == "float16" else logits
    if spec.task == "classify":
        draw_classes(sketch, single, contract)
    else:
        _, classes, height, width = (size or 0 for size in index.shapes[logits])
        draw_labels(sketch, (own, single), (classes, height, width), spec, contract)
    nodes = [*network, *sketch.nodes]
    unread = {logits, single}.difference(*(node.input for node in nodes))
    return [node for node in nodes if node.output[0] not in unread]


def _value(spec: TensorSpec) -> ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, _NUMBERS[spec.dtype], list(spec.shape))
