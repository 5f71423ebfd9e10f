"""What a target is to the rules: a row of what its compiler can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hiresvit.check import nvidia_parser as nvidia
from hiresvit.device.chips import Chip
from hiresvit.graph.dtypes import NUMBERS


@dataclass(frozen=True)
class Target:
    """A compiler on a board, or a range of them that one graph should serve: all that the rules know of it.

    The defaults are what NVIDIA's parsers and builders have in common; a row for another compiler says its own. What a
    row leaves False the target was neither seen nor documented to do. Types are ONNX's names in lower case.
    """

    name: str
    title: str
    tensorrt: tuple[str, ...]
    """The versions of TensorRT that it is, if it is one."""
    min_opset: int
    max_opset: int
    """What its documents promise to read."""
    unsupported: frozenset[str]
    """Operators of ONNX's own domain that its parser has no importer for."""
    quantized: frozenset[str]
    """The types that Q/DQ may go through: UINT8 would be for activations, INT32 for biases."""

    unbuildable: frozenset[str] = frozenset()
    """Operators that its parser imports, and that it fails to build all the same."""
    since: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Operators of ``unsupported`` that a later TensorRT has, with its version."""
    own_ops: frozenset[str] = nvidia.NVIDIA_OPS
    """Operators that it has beside ONNX's."""
    tensors: frozenset[str] = NUMBERS
    """The types of tensor that there are."""
    types: Mapping[str, frozenset[str]] = field(default_factory=lambda: nvidia.TYPES, hash=False)
    """The types that an operator computes in; one that is not here is not judged."""
    documented: Mapping[str, frozenset[str]] = field(default_factory=dict, hash=False)
    """The types that its documents list for an operator, where ``types`` was tried on a relation of it."""
    quantized_only: frozenset[str] = frozenset()
    """Types of tensor that its documents only take from a QuantizeLinear."""
    refused: frozenset[str] = nvidia.REFUSED
    """Forms of operators that it refuses, by their names in `hiresvit.check.form_rules`."""
    ruled_out: frozenset[str] = frozenset()
    """Forms that its documents rule out, and that a relation of it was seen to take."""
    doubted: frozenset[str] = frozenset()
    """Forms that later documents say they brought, and its own do not rule out."""
    max_rank: int = 8
    """Axes that a tensor may have."""
    max_topk: int = 3839
    """The largest K of a TopK."""
    host_inputs: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: nvidia.HOST_INPUTS, hash=False)
    """Inputs of operators whose values a build needs."""
    host_ops: frozenset[str] = nvidia.HOST_OPS
    """What it computes while it builds, on the way to these."""

    takes_any_opset: bool = False
    """It reads operators as it knows them, whatever the number."""
    takes_any_domain: bool = False
    """It takes an operator of any domain for ONNX's of that name."""
    asymmetric: frozenset[str] = frozenset()
    """The types of ``quantized`` whose zero point need not be 0."""
    quantizer_domains: frozenset[str] = frozenset()
    """Domains whose Q/DQ it takes for ONNX's own, which are the same."""
    takes_uint8_as_int8: bool = False
    """It builds Q/DQ of UINT8, in INT8."""
    takes_infinite_scales: bool = False
    takes_scales_of_any_type: bool = False
    """The scale of a QuantizeLinear may have another type than its tensor."""
    takes_unfused_qdq: bool = False
    """It builds Q/DQ that it cannot compute in integers: along another axis, of an activation's channels, in blocks."""
    fuses_narrowed_qdq: bool = False
    """It computes in INT8 what is dequantized in a wide type and read in a narrow one."""
    boards_disagree_on_qdq: bool = False
    """A board refuses Q/DQ graphs that another builds: what is dequantized in a narrow type and widened for certain."""
    int8_conv_writes_fp32: bool = False
    """A convolution in INT8 needs a second kernel for its result."""
    fuses_as_documented: bool = False
    """Of attentions only what its guide promises is known to be one kernel."""
    miscompiles_shared_norm: bool = False
    """It may compute linear layers behind one LayerNormalization wrongly."""

    chip: Chip | None = None
    """The chip that Qualcomm's compiler can judge a graph for; without one that is TensorRT-RTX's."""
    not_asked: frozenset[str] = frozenset()
    """Rules, by name, about what only other compilers do."""
    folds_constants: bool = False
    """Operators on constants alone are computed before it is asked, whichever they are."""
    takes_ranges: bool = True
    """A dynamic axis may have a range of sizes."""
    fuses_wide_moves: bool = False
    """It moves six axes, one of size 1 that stays, where a Reshape makes them and another takes them away."""
    integers_only: bool = False
    """It has no arithmetic in floating point: what is no Q/DQ unit is refused."""
    one_scale: frozenset[str] = frozenset()
    """Operators whose result must have their operand's scale and zero point, or they are no Q/DQ units."""
    narrows_products: bool = False
    """It takes the second operand of a product for UINT8 where that is UINT16."""
    takes_wide_products: bool = True
    """The second operand of a product may be INT16."""
    miscomputes: frozenset[str] = frozenset()
    """Rules, by name, about what it compiles without a word and computes wrongly or coarsely."""

    def __str__(self) -> str:
        return self.title
