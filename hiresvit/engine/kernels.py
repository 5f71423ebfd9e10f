"""Read what TensorRT says about the plan it made: its kernel list and its memory.

A plan can only be inspected on the GPU it is for. The builder's log needs none: with detailed profiling verbosity
one VERBOSE message starts with ``Layers:`` and holds one line per kernel,

``Name: .., LayerType: .., Inputs: [ {..} ], Constants: [ {..} ], Outputs: [ {..} ], TacticName: .., ..``

and INFO messages give the memory. The inspector's JSON has the same fields. Everything reported about a plan is
derived from these.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hiresvit.spec import TensorSpec

# TensorRT's names for datatypes, as numpy (or ml_dtypes) calls them. TensorRT 10 describes the tensors of what is not
# Myelin's in words, as "Channel major FP16 format where channel % 8 == 0", with names such as the second row's in it.
_DTYPES = {
    **{"float": "float32", "half": "float16", "fp8": "float8_e4m3fn"},
    **{"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"},
    **{name: name for name in ("bfloat16", "int8", "uint8", "int32", "int64", "bool")},
}
_WORDS = re.compile(rf"\b({'|'.join(_DTYPES)})\b", re.IGNORECASE)
# What a matrix product can be computed in, narrowest first.
_COMPUTE = {"int8": "int8", "float8_e4m3fn": "fp8", "float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
_STORED = {"int8", "float8_e4m3fn"}
_SIDES = ("Inputs", "Constants", "Outputs")
PRODUCT_KINDS = ("attention", "conv", "gemm")
"""The kinds of kernel that multiply."""

# Synchronisation between streams, shape arithmetic on the host, constants: no kernel is launched.
_NO_KERNEL = {"signal", "wait", "shape_call", "Constant", "NoOp", "ShapeHostToDevice", "TrainStation"}
# A fused attention: `_gemm_mha_v2_myl0_8`, `__mye8037_gemm_mha_v2` (TensorRT 9), `_gemv_mha_v1` for one query.
_ATTENTION = re.compile(r"(__mye\d+)?_gem[mv]_mha")
# A generated kernel is named after what it computes, in 4 letters each, 3 in the first releases of TensorRT 10.
_GENERATED = re.compile(r"__myl_([A-Za-z]+)_myl\d+_\d+")
_CONVOLUTIONS = {"Corr", "Cor", "Deco", "Dec"}
# What computes nothing; Res is a reshape, and a resize, which has its own kernel, in 3 letters.
_COPIES = {"Cast", "Conc", "Move", "Repl", "Resh", "Slic", "Tran"} | {"Cas", "Con", "Mov", "Rep", "Res", "Sli", "Tra"}
# The layer types of Myelin and, in capitals, of the full TensorRT's other kernels; the first that is found counts.
_KINDS = (
    (re.compile(r"correlation|[Dd]econv|Conv"), "conv"),
    (re.compile(r"gemm|Gemm|MatrixMultiply|FullyConnected"), "gemm"),
    (re.compile(r"Reformat|Shuffle|Slice|Concat|Cast"), "copy"),
    (re.compile(r"PointWise|ElementWise|Activation|Scale|SoftMax|Normalization|Reduce|Unary|Select"), "pointwise"),
)

_FIELD = re.compile(r", (LayerType|Inputs|Constants|Outputs|TacticName|TacticValue|StreamId): ")
_TENSOR = re.compile(r"\{ Name: (.*?)(?:, Location: \w+)?, Dimensions: \[([-\d,]*)\], .*?Datatype: ([^,}]*)")
# Several nodes are separated by \x1e or \x1f, by nothing where a log has been copied. A name may have brackets in it,
# and something may be said behind it: [ONNX Layer: fc1/Conv]__gemm_from_conv1x1.
_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=(?:__\w+)?(?:[\x1e\x1f]|\s*\[ONNX Layer: |\s*$))")
_MEMORY = re.compile(r"(Total Activation Memory|Total Weights Memory|Max Scratch Memory): (\d+) bytes")


@dataclass(frozen=True)
class Kernel:
    """One row of TensorRT's list. A dynamic axis is ``"?"`` in a shape; ``tactic`` may be empty.

    ``nodes`` are the ONNX nodes that it came from, as far as TensorRT says.
    """

    name: str
    layer_type: str
    inputs: tuple[TensorSpec, ...]
    constants: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tactic: str
    nodes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``attention`` (a fused one), ``conv``, ``gemm`` or ``copy`` (moves or converts data, no more).

        ``pointwise`` is any other generated kernel: activations, norms, reductions, resizes. What is none of
        these keeps TensorRT's own layer type, ``unknown`` where it says none.
        """
        if _ATTENTION.match(self.name):  # not `search`: a gemm is named after its ONNX node, say mha/MatMul
            return "attention"
        generated = _GENERATED.fullmatch(self.name)
        parts = set(re.findall("[A-Z][a-z]*", generated[1])) if generated else set()
        if parts & _CONVOLUTIONS:
            return "conv"
        if "Fc" in parts:
            return "gemm"
        if self.layer_type == "kgen":
            return "copy" if parts and parts <= _COPIES else "pointwise"
        known = (kind for pattern, kind in _KINDS if pattern.search(self.layer_type))
        return next(known, self.layer_type or "unknown")

    @property
    def precision(self) -> str | None:
        """What a product is computed in: its narrowest input, since a fused residual may be wider.

        None for a kernel that is no attention, convolution or gemm.
        """
        return self.computed_in if self.kind in PRODUCT_KINDS else None

    @property
    def computed_in(self) -> str:
        """`precision` of any kernel: a small product can end as additions in one that is pointwise.

        A generated kernel widens INT8 and FP8 before it computes anything but a product of these alone.
        """
        if not self.converts:
            dtypes = {tensor.dtype for tensor in self.inputs or self.constants}
            return next((word for dtype, word in _COMPUTE.items() if dtype in dtypes), "unknown")
        for tensors in (self.inputs, self.constants, self.outputs):
            dtypes = {tensor.dtype for tensor in tensors} - _STORED
            if found := [word for dtype, word in _COMPUTE.items() if dtype in dtypes]:
                return found[0]
        return "unknown"

    @property
    def converts(self) -> bool:
        """Whether it is ``__myl_CastMulFc``, whose product is of what Cast and Mul make, or no product at all."""
        generated = _GENERATED.fullmatch(self.name)
        ahead = re.split("Fc|Cor|Dec", generated[1])[0] if generated else ""
        return self.kind not in PRODUCT_KINDS or "Cast" in ahead

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, with ``kind`` and ``precision``; `from_json` reads them back."""
        return {**asdict(self), "kind": self.kind, "precision": self.precision}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Kernel:
        """Rebuild a kernel. Raises TypeError or KeyError on values that are not one."""
        inputs, constants, outputs = (
            tuple(TensorSpec(t["name"], t["dtype"], tuple(t["shape"])) for t in values[side])
            for side in ("inputs", "constants", "outputs")
        )
        name, layer_type, tactic = (str(values[key]) for key in ("name", "layer_type", "tactic"))
        return cls(name, layer_type, inputs, constants, outputs, tactic, tuple(values["nodes"]))


def parse_layers(dump: str) -> list[Kernel]:
    """The kernels of a ``Layers:`` message, in launch order, without rows that launch none.

    Raises ValueError when the message holds no row: a builder that writes it otherwise must not be read as a
    plan without kernels.
    """
    # not splitlines(), which would also split at the separators of Metadata
    rows = [line.strip() for line in dump.partition("Layers:")[2].strip().split("\n\n")[0].split("\n")]
    kernels = [_parse_row(row) for row in rows if row.startswith("Name: ")]
    if not kernels:
        raise ValueError("the builder's log has no 'Layers:' message with rows that start with 'Name: '")
    return [kernel for kernel in kernels if kernel.layer_type not in _NO_KERNEL]


def parse_inspector(text: str) -> list[Kernel]:
    """The kernels in the JSON of ``EngineInspector.get_engine_information``, as `parse_layers` gives them.

    A plan that was built without detailed profiling verbosity has names only; such kernels are of kind
    ``unknown``. Raises ValueError for text that is no such JSON or lists nothing.

    Not run on a GPU here: written from outputs of TensorRT 8.6 to 10 that are public, and from NVIDIA's notes on
    what 11 changed, a tensor's ``Format/Datatype`` to ``Format`` and ``DataType``.
    """
    try:
        said = json.loads(text, strict=False)  # a name may hold the separators of Metadata as they are
    except json.JSONDecodeError as error:
        raise ValueError(f"the inspector's answer is no JSON: {error}") from error
    layers = said.get("Layers") if isinstance(said, dict) else None
    if not isinstance(layers, list) or not layers:
        raise ValueError("the inspector's answer has no list 'Layers' with anything in it")
    kernels = [_parse_layer(layer) for layer in layers]
    return [kernel for kernel in kernels if kernel.layer_type not in _NO_KERNEL]


def count_kinds(kernels: Iterable[Kernel]) -> dict[str, int]:
    """Number of kernels by kind, the most frequent first."""
    return dict(Counter(kernel.kind for kernel in kernels).most_common())


def realised_precision(kernels: Iterable[Kernel]) -> dict[str, int]:
    """Number of attentions, convolutions and gemms by what they are computed in, the most frequent first."""
    return dict(Counter(kernel.precision for kernel in kernels if kernel.precision).most_common())


def parse_memory(log: str) -> dict[str, int]:
    """``activation_bytes``, ``weight_bytes``, ``scratch_bytes`` in the builder's INFO lines; 0 if absent."""
    said = {name.split()[1]: int(size) for name, size in _MEMORY.findall(log)}
    words = {"activation_bytes": "Activation", "weight_bytes": "Weights", "scratch_bytes": "Scratch"}
    return {key: said.get(word, 0) for key, word in words.items()}


def _parse_row(row: str) -> Kernel:
    head, _, metadata = row.partition(", Metadata: ")  # the last field; what it names may look like another
    name, *rest = _FIELD.split(head)
    fields = defaultdict(str, zip(rest[::2], rest[1::2], strict=True))
    inputs, constants, outputs = (_parse_tensors(fields[side]) for side in _SIDES)
    name, layer_type, tactic = name.removeprefix("Name: "), fields["LayerType"], fields["TacticName"]
    return Kernel(name, layer_type, inputs, constants, outputs, tactic, _nodes(metadata))


def _parse_tensors(field: str) -> tuple[TensorSpec, ...]:
    return tuple(
        _spec(name, dtype, [int(size) for size in dims.split(",") if size])
        for name, dims, dtype in _TENSOR.findall(field)
    )


def _parse_layer(layer: Any) -> Kernel:
    if isinstance(layer, str):
        return Kernel(layer, "", (), (), (), "")
    if not isinstance(layer, dict) or not isinstance(layer.get("Name"), str):
        raise ValueError(f"the inspector's answer has a layer without a name: {str(layer)[:60]}")
    inputs, constants, outputs = (tuple(map(_tensor, layer.get(side) or [])) for side in _SIDES)
    constants += tuple(_weights(key, layer[key]) for key in ("Weights", "Bias") if isinstance(layer.get(key), dict))
    layer_type, tactic, metadata = (str(layer.get(key) or "") for key in ("LayerType", "TacticName", "Metadata"))
    return Kernel(layer["Name"], layer_type, inputs, constants, outputs, tactic, _nodes(metadata))


def _tensor(values: Any) -> TensorSpec:
    """A tensor of the inspector's; its type is called otherwise in every release. No shape is one dynamic axis."""
    if not isinstance(values, dict):
        raise ValueError(f"the inspector's answer has a tensor that is none: {str(values)[:60]}")
    dims = values.get("Dimensions")
    keys = ("DataType", "Datatype", "Format/Datatype", "Format/DataType")
    dtype = next((values[key] for key in keys if key in values), "")
    return _spec(str(values.get("Name", "")), str(dtype), dims if isinstance(dims, list) else [-1])


def _weights(key: str, values: dict[str, Any]) -> TensorSpec:
    """What the inspector says of a kernel's weights that is not Myelin's: their type and how many there are."""
    count = values.get("Count")
    return _spec(key, str(values.get("Type", "")), [count if isinstance(count, int) else -1])


def _nodes(metadata: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_NODE.findall(metadata)))


def _spec(name: str, said: str, dims: Iterable[int]) -> TensorSpec:
    found = _WORDS.search(said)
    dtype = _DTYPES[found[1].lower()] if found else said.strip().lower()
    return TensorSpec(name, dtype, tuple("?" if size == -1 else size for size in dims))
