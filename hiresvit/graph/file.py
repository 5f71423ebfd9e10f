"""A graph's file and the files of its weights: the one place that reads them, checks and sums them.

ONNX's own reader follows no link to weights, while TensorRT does, and says in its own words what is wrong with a file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiresvit.device.plan import is_plan_file
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.kinds import no_graph, require_graph_file

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto
    from onnx.external_data_helper import ExternalDataInfo


def load_graph(graph: Path, *, weights: bool = False) -> ModelProto:
    """The model; without ``weights`` those in other files, which a builder reads itself, are only looked for.

    Raises HiresvitError for a file that cannot be read or is no ONNX graph, and for external weights that are
    missing, cut or described wrongly.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    from hiresvit.graph.sound import unsound

    try:
        require_graph_file(graph)
        model = onnx.load(str(graph), format="protobuf", load_external_data=False)
    except OSError as error:
        raise HiresvitError(f"cannot read {graph}: {error.strerror}") from error
    except DecodeError as error:
        raise _no_graph(graph) from error
    if not model.graph.output:
        raise _no_graph(graph, "it has no outputs")
    if reason := unsound(model):
        raise _no_graph(graph, f"{reason}; copy it anew or export it again")
    for tensor in _external(model):
        _check_place(graph, tensor)
    if weights:
        load_weights(graph, model)
    return model


def _no_graph(graph: Path, *reason: str) -> HiresvitError:
    if is_plan_file(graph):
        return HiresvitError(f"{graph} is a plan and no ONNX graph: give the graph that it was built from")
    return no_graph(graph, *reason)


def load_weights(graph: Path, model: ModelProto) -> None:
    """Read the external weights of a graph that `load_graph` has loaded into it. Raises HiresvitError."""
    from onnx import TensorProto

    for tensor in _external(model):
        info = _place(graph, tensor)
        try:
            with (graph.parent / info.location).open("rb") as stream:
                stream.seek(info.offset or 0)
                tensor.raw_data = stream.read(info.length or _size(tensor))
        except OSError as error:
            raise HiresvitError(f"cannot read {graph.parent / info.location}: {error.strerror}") from error
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def file_digest(graph: Path, model: ModelProto) -> str:
    """The sha256 of the graph's file, continued over the files of its external weights if it has any.

    ``model`` is what `load_graph` gave. Raises HiresvitError for a file that cannot be read.
    """
    digest = hashlib.sha256()
    places = sorted({_place(graph, tensor).location for tensor in _external(model)})
    try:
        for path in (graph, *(graph.parent / place for place in places)):
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        raise HiresvitError(f"cannot read {graph}: {error.strerror}") from error
    return digest.hexdigest()


def _external(model: ModelProto) -> Iterator[TensorProto]:
    """The tensors that are in another file."""
    from onnx import AttributeProto, TensorProto

    pending: list[Any] = [model.graph, *model.functions]
    while pending:
        part = pending.pop()
        tensors = [*getattr(part, "initializer", ())]
        for node in part.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    tensors.append(attribute.t)
                elif attribute.HasField("g"):
                    pending.append(attribute.g)
                elif attribute.type in (AttributeProto.TENSORS, AttributeProto.GRAPHS):
                    tensors += attribute.tensors
                    pending += attribute.graphs
        yield from (tensor for tensor in tensors if tensor.data_location == TensorProto.EXTERNAL)


def _place(graph: Path, tensor: TensorProto) -> ExternalDataInfo:
    from onnx.external_data_helper import ExternalDataInfo

    try:
        info = ExternalDataInfo(tensor)
        if min(info.offset or 0, info.length or 0) < 0 or "\0" in info.location:
            raise ValueError("a place that there is not")
        return info
    except ValueError as error:
        said = {entry.key: entry.value for entry in tensor.external_data}
        raise HiresvitError(
            f"{graph}: where weight {tensor.name!r} lies cannot be read from {said}; export the graph again"
        ) from error


def _check_place(graph: Path, tensor: TensorProto) -> None:
    """Raise HiresvitError unless a weight's bytes are there."""
    info = _place(graph, tensor)
    place = Path(info.location)
    if not info.location or place.is_absolute() or ".." in place.parts:
        raise HiresvitError(
            f"{graph}: its weights are in {info.location!r}; they must be in a file in the graph's folder"
        )
    path = graph.parent / place
    if not path.is_file():
        raise HiresvitError(f"{graph}: its weights are in {path}, which is not there; copy it, too")
    size = _size(tensor)
    if None not in (info.length, size) and info.length != size:
        raise HiresvitError(
            f"{graph}: weight {tensor.name!r} has {size} bytes by its shape and type, {info.length} by what is said"
            " of its file; export the graph again"
        )
    needed = (info.offset or 0) + (size or info.length or 0)
    if path.stat().st_size < needed:
        raise HiresvitError(f"{graph}: {path} has {path.stat().st_size} bytes, its weights need {needed}; copy it anew")


def _size(tensor: TensorProto) -> int | None:
    """Bytes of a tensor, None for a type that has no fixed size or is not known."""
    from hiresvit.graph.dtypes import bits_of

    bits = bits_of(tensor.data_type)
    return None if bits is None else math.ceil(int(math.prod(tensor.dims)) * bits / 8)


def require_weights(model: ModelProto) -> None:
    """Raise UsageError for weights outside the proto, where who reads or counts constants does not see them."""
    if any(True for _ in _external(model)):
        raise UsageError("the weights are outside the proto: load them too, with onnx.load(path)")
