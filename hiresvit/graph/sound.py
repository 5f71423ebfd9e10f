"""What every reader of a graph counts on, looked at once when its file is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import AttributeProto, ModelProto, NodeProto

from hiresvit.graph.index import graphs_of, schema_of
from hiresvit.graph.operators import OWN_DOMAINS

_MOST_VERSION = 2**31 - 1  # what onnx's own code can be asked for
_TEXTS = (AttributeProto.STRING, AttributeProto.STRINGS)


def unsound(model: ModelProto) -> str | None:
    """Why no reader could make anything of a graph that decodes, None if it could.

    That is text which is no UTF-8 (protobuf gives it as bytes), an operator set of a version that nobody has, a size
    below 0, and an attribute of another type than its operator's.
    """
    if place := next(_no_text(model), None):
        return f"{place} is no text"
    for opset in model.opset_import:
        if not 0 <= opset.version <= _MOST_VERSION:
            return f"it is of operator set {opset.version} of {opset.domain or 'ONNX'!r}"
    for tensor in model.graph.initializer:
        if any(size < 0 for size in tensor.dims):
            return f"weight {tensor.name!r} has the shape {list(tensor.dims)}"
    opset = next((o.version for o in model.opset_import if o.domain in OWN_DOMAINS), None)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    return next((said for node in _with_inner(nodes) if (said := _wrong_attribute(node, opset))), None)


def _no_text(message: Message) -> Iterator[str]:
    """Where bytes stand for text."""
    for field, value in message.ListFields():
        parts = (value,) if isinstance(value, Message | str | bytes | int | float) else value
        if field.message_type is not None:
            for part in parts:
                yield from _no_text(part)
        elif field.type == field.TYPE_STRING and any(isinstance(text, bytes) for text in parts):
            yield f"{field.name} of {message.DESCRIPTOR.name}"


def _with_inner(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for graph in graphs_of(node):
            yield from _with_inner(graph.node)


def _wrong_attribute(node: NodeProto, opset: int | None) -> str | None:
    """What is wrong with an attribute of ONNX's own operators; those that it does not know are not looked at."""
    if not node.attribute or node.domain not in OWN_DOMAINS or (schema := schema_of(node, opset)) is None:
        return None
    known: dict[str, Any] = {name: wanted.type for name, wanted in schema.attributes.items()}
    for attribute in node.attribute:
        what = f"attribute {attribute.name!r} of {node.op_type} {node.name!r}"
        wanted = known.get(attribute.name, attribute.type)
        if int(wanted) != attribute.type and not attribute.ref_attr_name:
            return f"{what} is of another type than ONNX says"
        if attribute.type in _TEXTS and not all(map(_is_text, (attribute.s, *attribute.strings))):
            return f"{what} is no text"
    return None


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
