"""From the form that is trained to the form that is deployed: exact algebra on the weights, nothing else.

`fold` copies the model and simplifies every module, children first, by what the module has: ``pairs`` are the names of
convolutions and of the BatchNorms right behind them, ``deployed()`` makes the module that takes its place, ``fold_()``
is anything else. All products are computed in float64 and stored in the model's own dtype, so a float64 model folds to
within rounding of float64.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

ModelT = TypeVar("ModelT", bound=nn.Module)
LayerT = TypeVar("LayerT", nn.Conv2d, nn.Linear)


def fold(model: ModelT) -> ModelT:
    """Return the deployed copy of ``model``: eval mode, no gradients, the same outputs. Folding it again copies it."""
    deployed = copy.deepcopy(model).eval().requires_grad_(False)
    if getattr(deployed, "is_folded", False):
        return deployed
    for module in reversed(list(deployed.modules())):
        fold_pairs_(module, dict(getattr(module, "pairs", ())))
        for name, child in list(module.named_children()):
            if callable(simpler := getattr(child, "deployed", None)):
                setattr(module, name, simpler())
        if callable(fold_ := getattr(module, "fold_", None)):
            fold_()
    deployed.is_folded = True  # type: ignore[assignment]
    return deployed.requires_grad_(False)


def bn_scale_shift(bn: nn.Module) -> tuple[Tensor, Tensor]:
    """A BatchNorm in eval mode is ``y = scale * x + shift``; both (C,), float64."""
    assert isinstance(bn, nn.BatchNorm1d | nn.BatchNorm2d)
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


def layer_like(layer: LayerT, weight: Tensor, bias: Tensor) -> LayerT:
    """A biased layer of this kind, geometry, dtype and device with these weights (out, in) or (out, in, kh, kw)."""
    if isinstance(layer, nn.Linear):
        return linear_from(weight, bias, layer.weight)
    return conv_like(layer, weight, bias)


def scale_after(layer: LayerT, scale: Tensor, shift: Tensor | float = 0.0) -> LayerT:
    """One layer for ``scale * layer(x) + shift``, both a number for each channel (out,) in float64."""
    weight = layer.weight.double()
    weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return layer_like(layer, weight, double_bias(layer) * scale + shift)


def scale_before(layer: LayerT, scale: Tensor, shift: Tensor) -> LayerT:
    """One layer for ``layer(scale * x + shift)``, (in,) in float64: exact where the layer pads nothing."""
    weight = layer.weight.double()
    bias = double_bias(layer) + weight.flatten(1) @ shift.repeat_interleave(weight[0, 0].numel())
    return layer_like(layer, weight * scale.reshape(-1, *[1] * (weight.ndim - 2)), bias)


def fold_bn(layer: LayerT, bn: nn.Module) -> LayerT:
    """One layer for ``bn(layer(x))``."""
    return scale_after(layer, *bn_scale_shift(bn))


def fold_norm_linear(norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, nn.LayerNorm]:
    """Move a LayerNorm's affine into the projection behind it.

    ``W (g * n + b) + c = (W diag(g)) n + (W b + c)``: exact where the projection is the norm's only reader.
    Takes and returns (out, in) weights and (out,) bias in float64, and the norm without its affine.
    """
    plain = type(norm)(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)
    return weight * norm.weight.double(), bias + weight @ norm.bias.double(), plain


def affine_into_(norm: nn.LayerNorm, layer: nn.Linear | nn.Conv2d) -> nn.LayerNorm:
    """Move a norm's affine into the only Linear or 1x1 convolution that reads it; returns the norm without it."""
    weight, bias, plain = fold_norm_linear(norm, layer.weight.double().flatten(1), double_bias(layer))
    assert layer.bias is not None
    layer.weight.data.copy_(weight.reshape(layer.weight.shape))
    layer.bias.data.copy_(bias)
    return plain


def fold_pairs_(module: nn.Module, pairs: dict[str, str]) -> None:
    """Fold named (convolution, BatchNorm) pairs of a module; the norms become identities."""
    for conv_name, bn_name in pairs.items():
        conv, bn = getattr(module, conv_name), getattr(module, bn_name)
        setattr(module, conv_name, fold_bn(conv, bn))
        setattr(module, bn_name, nn.Identity())


class FoldableSequential(nn.Sequential):
    """A sequence whose BatchNorms go into the convolutions before them."""

    def fold_(self) -> None:
        """Each BatchNorm into the convolution right before it."""
        folded: list[nn.Module] = []
        for layer in self:
            if isinstance(layer, nn.BatchNorm2d) and folded and isinstance(folded[-1], nn.Conv2d):
                folded[-1] = fold_bn(folded[-1], layer)
            else:
                folded.append(layer)
        del self[:]
        self.extend(folded)
