"""What Paddle calls the tensors of a model, and how it lays them out.

A ``.pdparams`` is a pickle of numpy arrays by name, and beside them a table of Paddle's own parameter names. Paddle
calls a BatchNorm's statistics ``_mean`` and ``_variance``, and keeps the weight of a Linear as (in, out): which weights
those are is the family's to say, see `as_pytorch`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from torch import Tensor

from hiresvit.errors import HiresvitError

NAME_TABLE = "StructuredToParameterName@@"
RENAMED = {"_mean": "running_mean", "_variance": "running_var"}


def is_paddle(tensors: Iterable[str], others: Iterable[str]) -> bool:
    """Whether arrays by name are Paddle's: the table of names lies beside them, or a BatchNorm's statistics tell."""
    return any(path.endswith(NAME_TABLE) for path in others) or any(
        key.rpartition(".")[2] in RENAMED for key in tensors
    )


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Paddle's tensors under PyTorch's names, floats as float32.

    Raises HiresvitError without the path in front if a name is there twice.
    """
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        parent, dot, last = key.rpartition(".")
        name = f"{parent}{dot}{RENAMED.get(last, last)}"
        if name in found:
            raise HiresvitError(f"has {name} twice")
        found[name] = tensor.float() if tensor.is_floating_point() else tensor
    return found


def as_pytorch(tensors: Mapping[str, Tensor], linears: Collection[str], derived: Collection[str]) -> dict[str, Tensor]:
    """Paddle's tensors as PyTorch has them: the weights of the modules ``linears`` as (out, in), without ``derived``.

    Both are last names. A square weight does not say by its shape whether it is a Linear's; a convolution's has four
    dimensions. ``derived`` are buffers that our models compute.
    """
    found = {}
    for key, tensor in tensors.items():
        parent, _, last = key.rpartition(".")
        linear = last == "weight" and tensor.ndim == 2 and parent.rpartition(".")[2] in linears
        if last not in derived:
            found[key] = tensor.T.contiguous() if linear else tensor
    return found
