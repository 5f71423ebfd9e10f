"""From a camera's bytes to labels: the nodes that put a contract around a finished graph, before and behind it."""

from __future__ import annotations

from onnx import ModelProto

from hiresvit.errors import UsageError
from hiresvit.spec import ContractSpec, ModelSpec


def apply_contract(model: ModelProto, spec: ModelSpec, contract: ContractSpec) -> ModelProto:
    """A new graph that takes and gives what ``contract``, all of it filled in, says.

    ``model`` is of any stage with the contract ``tensor``: FP32 or FP16 at its border, static or of a dynamic batch.
    Raises UsageError for a contract that the model cannot have.
    """
    raise UsageError(f"contract {contract.name} is not built yet")
