"""Read what the TensorRT builder says about the plan it made: its kernel list and its memory.

A plan can only be inspected on a GPU. The builder's log needs none: with detailed profiling verbosity one
VERBOSE message starts with ``Layers:`` and holds one line per kernel,

``Name: .., LayerType: .., Inputs: [ {..} ], Constants: [ {..} ], Outputs: [ {..} ], TacticName: .., ..``

and INFO messages give the memory. Everything reported about a plan is derived from these.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from hiresvit.spec import TensorSpec

# The builder's names for datatypes, as numpy (or ml_dtypes) calls them.
_DTYPES = {
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "FP8": "float8_e4m3fn",
    "Int8": "int8",
    "UInt8": "uint8",
    "Int32": "int32",
    "Int64": "int64",
    "Bool": "bool",
}
# What a matrix product can be computed in, narrowest first.
_COMPUTE = {"int8": "int8", "float8_e4m3fn": "fp8", "float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}

_PRODUCTS = ("attention", "conv", "gemm")
# Synchronisation between streams and shape arithmetic on the host: no kernel is launched.
_NO_KERNEL = {"signal", "wait", "shape_call"}
# What a generated kernel's name is made of when it computes nothing.
_COPIES = {"Cast", "Conc", "Move", "Repl", "Resh", "Slic", "Tran"}

_FIELD = re.compile(r", (LayerType|Inputs|Constants|Outputs|TacticName|StreamId|Metadata): ")
_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: \[([-\d,]*)\], .*?Datatype: (\w+)")
_GENERATED = re.compile(r"__myl_([A-Za-z]+)_myl\d+_\d+")
_MEMORY = re.compile(r"(Total Activation Memory|Total Weights Memory|Max Scratch Memory): (\d+) bytes")


@dataclass(frozen=True)
class Kernel:
    """One row of the builder's list. A dynamic axis is ``"?"`` in a shape; ``tactic`` may be empty."""

    name: str
    layer_type: str
    inputs: tuple[TensorSpec, ...]
    constants: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tactic: str

    @property
    def kind(self) -> str:
        """``attention`` (a fused one), ``conv``, ``gemm`` or ``copy`` (moves or converts data, no more).

        ``pointwise`` is any other generated kernel: activations, norms, reductions, resizes. What is none of
        these keeps the builder's own layer type.
        """
        if self.name.startswith("_gemm_mha"):  # not `in`: a gemm is named after its ONNX node, say mha/MatMul
            return "attention"
        generated = _GENERATED.fullmatch(self.name)
        parts = set(re.findall("[A-Z][a-z]*", generated[1])) if generated else set()
        if self.layer_type == "correlation" or parts & {"Corr", "Deco"}:
            return "conv"
        if self.layer_type == "gemm" or "Fc" in parts:
            return "gemm"
        if self.layer_type == "kgen":
            return "copy" if parts and parts <= _COPIES else "pointwise"
        return self.layer_type

    @property
    def precision(self) -> str | None:
        """What a product is computed in: its narrowest input, since a fused residual may be wider.

        None for a kernel that is no attention, convolution or gemm.
        """
        if self.kind not in _PRODUCTS:
            return None
        dtypes = {tensor.dtype for tensor in self.inputs or self.constants}
        return next((word for dtype, word in _COMPUTE.items() if dtype in dtypes), "unknown")


def parse_layers(dump: str) -> list[Kernel]:
    """The kernels of a ``Layers:`` message, in launch order, without rows that launch none.

    Raises ValueError when the message holds no row: a builder that writes it otherwise must not be read as a
    plan without kernels.
    """
    rows = [line.strip() for line in dump.partition("Layers:")[2].strip().split("\n\n")[0].splitlines()]
    kernels = [_parse_row(row) for row in rows if row.startswith("Name: ")]
    if not kernels:
        raise ValueError("the builder's log has no 'Layers:' message with rows that start with 'Name: '")
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
    name, *rest = _FIELD.split(row)
    fields = dict(zip(rest[::2], rest[1::2], strict=True))
    return Kernel(
        name=name.removeprefix("Name: "),
        layer_type=fields.get("LayerType", ""),
        inputs=_parse_tensors(fields.get("Inputs", "")),
        constants=_parse_tensors(fields.get("Constants", "")),
        outputs=_parse_tensors(fields.get("Outputs", "")),
        tactic=fields.get("TacticName", ""),
    )


def _parse_tensors(field: str) -> tuple[TensorSpec, ...]:
    tensors = []
    for name, dims, dtype in _TENSOR.findall(field):
        shape = tuple("?" if size == "-1" else int(size) for size in dims.split(",") if size)
        tensors.append(TensorSpec(name, _DTYPES.get(dtype, dtype.lower()), shape))
    return tuple(tensors)
