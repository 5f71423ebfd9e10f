"""From the form that is trained to the form that is deployed: exact algebra on the weights, nothing else.

A module that can be simplified has a method ``fold_()``. `fold` copies the model and calls it on every module,
children first. All products are computed in float64 and stored in the model's own dtype, so a float64 model
folds to within rounding of float64.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

ModelT = TypeVar("ModelT", bound=nn.Module)
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def fold(model: ModelT) -> ModelT:
    """Return the deployed copy of ``model``: eval mode, no gradients, the same outputs. Folding it again copies it."""
    deployed = copy.deepcopy(model).eval().requires_grad_(False)
    if getattr(deployed, "is_folded", False):
        return deployed
    for module in reversed(list(deployed.modules())):
        if callable(fold_ := getattr(module, "fold_", None)):
            fold_()
    deployed.is_folded = True  # type: ignore[assignment]
    return deployed.requires_grad_(False)


def bn_scale_shift(bn: BatchNorm) -> tuple[Tensor, Tensor]:
    """A BatchNorm in eval mode is ``y = scale * x + shift``; both (C,), float64."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    return scale, bn.bias.double() - bn.running_mean.double() * scale


def double_bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """The layer's bias in float64, zeros when it has none."""
    if layer.bias is None:
        return torch.zeros(layer.weight.shape[0], dtype=torch.float64, device=layer.weight.device)
    return layer.bias.double()


def conv_like(conv: nn.Conv2d, weight: Tensor, bias: Tensor, like: Tensor | None = None) -> nn.Conv2d:
    """A biased convolution with the geometry of ``conv`` and these weights (out, in/groups, kh, kw).

    Its dtype and device are those of ``like``, by default the weights of ``conv``.
    """
    like = conv.weight if like is None else like
    out = nn.Conv2d(
        weight.shape[1] * conv.groups,
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        stride=(conv.stride[0], conv.stride[1]),
        padding=conv.padding if isinstance(conv.padding, str) else (conv.padding[0], conv.padding[1]),
        groups=conv.groups,
        dtype=like.dtype,
        device=like.device,
    )
    out.weight.data.copy_(weight)
    assert out.bias is not None
    out.bias.data.copy_(bias)
    return out


def linear_from(weight: Tensor, bias: Tensor, like: Tensor) -> nn.Linear:
    """A biased Linear from (out, in) weights, in the dtype of ``like``."""
    out = nn.Linear(weight.shape[1], weight.shape[0], dtype=like.dtype, device=like.device)
    out.weight.data.copy_(weight)
    out.bias.data.copy_(bias)
    return out


def fold_conv_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution for ``bn(conv(x))``."""
    scale, shift = bn_scale_shift(bn)
    weight = conv.weight.double() * scale[:, None, None, None]
    return conv_like(conv, weight, double_bias(conv) * scale + shift)


def fold_linear_bn(linear: nn.Linear, bn: nn.BatchNorm1d) -> nn.Linear:
    """One Linear for ``bn(linear(x))`` on rows of channels."""
    scale, shift = bn_scale_shift(bn)
    weight = linear.weight.double() * scale[:, None]
    return linear_from(weight, double_bias(linear) * scale + shift, linear.weight)


def fold_norm_linear(norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, nn.LayerNorm]:
    """Move a LayerNorm's affine into the projection behind it.

    ``W (g * n + b) + c = (W diag(g)) n + (W b + c)``: exact where the projection is the norm's only reader.
    Takes and returns (out, in) weights and (out,) bias in float64, and the norm without its affine.
    """
    plain = nn.LayerNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)
    shift = weight @ norm.bias.double()
    return weight * norm.weight.double(), bias + shift, plain


def fold_sequential_(layers: nn.Sequential) -> None:
    """Fold each BatchNorm into the convolution right before it and drop it from the sequence."""
    folded: list[nn.Module] = []
    for layer in layers:
        previous = folded[-1] if folded else None
        if isinstance(layer, nn.BatchNorm2d) and isinstance(previous, nn.Conv2d):
            folded[-1] = fold_conv_bn(previous, layer)
        else:
            folded.append(layer)
    del layers[:]
    layers.extend(folded)


def fold_pairs_(module: nn.Module, pairs: dict[str, str]) -> None:
    """Fold named (convolution, BatchNorm) pairs of a module; the norms become identities."""
    for conv_name, bn_name in pairs.items():
        conv, bn = getattr(module, conv_name), getattr(module, bn_name)
        setattr(module, conv_name, fold_conv_bn(conv, bn))
        setattr(module, bn_name, nn.Identity())


class FoldableSequential(nn.Sequential):
    """A sequence whose BatchNorms go into the convolutions before them."""

    def fold_(self) -> None:
        """See `fold_sequential_`."""
        fold_sequential_(self)
