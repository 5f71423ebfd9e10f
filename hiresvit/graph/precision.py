"""What modules say of the least precision that they bear, as the graph of a model carries it in its metadata.

A class of `hiresvit.models` has ``lowest_precision``: "fp32", its nodes stay FP32 in an FP16 graph; "fp16", they
may be FP16 but no integers. It holds for all that is in the module, but for what says something else itself. A node
is found by its name, which is its module's path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from hiresvit.errors import ArtefactError
from hiresvit.schema import read_json

LOWEST_KEY = "hiresvit.lowest_precision"
"""Of the metadata: JSON, a precision by module path."""
Lowest = Mapping[str, Literal["fp32", "fp16"]]


def read_lowest(metadata: Mapping[str, str]) -> Lowest:
    """What an export wrote; nothing for a graph of somebody else's. Raises ArtefactError if damaged."""
    try:
        found = read_json(metadata.get(LOWEST_KEY, "{}"))
        if not isinstance(found, dict) or not set(map(type, found.values())) <= {str}:
            raise ValueError("no object of texts")
        if other := set(found.values()) - {"fp32", "fp16"}:
            raise ValueError(f"{min(other)!r} is neither fp32 nor fp16")
    except ValueError as error:
        raise ArtefactError(f"the graph's {LOWEST_KEY} metadata is damaged: {error}; export the graph again") from error
    return found


def lowest_of(node: str, lowest: Lowest) -> Literal["fp32", "fp16"] | None:
    """What the innermost module that says anything says of a node; None if none does."""
    module = node.rpartition("/")[0]  # as `index.module_of`, which would bring onnx to what runs a graph
    while module and module not in lowest:
        module = module.rpartition(".")[0]
    return lowest.get(module)
