"""Mask2Former's head: 100 queries read three maps in turn, each only where its own mask is, and answer with masks.

Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", CVPR 2022, sections 3.1 and 3.2.
Written from the paper and from notes on how mmdet 3.3 and LRFormer's configurations behave; module names are the
checkpoints' keys. Maps come from `hiresvit.models.deformable`, attentions from `hiresvit.models.query_attention`.

    layer i = 0 .. 8 reads level i % 3 (strides 32, 16, 8):
    masks = e(q) . features, e an MLP; a query hides from itself the tokens where its mask, resized, is negative
    q = LN(q + attention(q to tokens)), q = LN(q + attention(q to q)), q = LN(q + FFN(q))
    at the end: a class and a mask for each query -> `SemanticInference`

Folded, what is the same for every image is a constant: positions, levels and the queries' own embeddings are biases of
the projections that read them. A bilinear resize is linear, so it commutes with the product that makes masks: the
features are resized three times, and not 100 masks nine times.

B batch, Q = 100 queries, K classes, D = 256 channels, h = 8 heads of d = 32, N tokens of a level.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiresvit.errors import UsageError
from hiresvit.models.deformable import CHANNELS, LEVEL_STRIDES, FeedForward, PixelDecoder
from hiresvit.models.layers import Size, size_at, upsample
from hiresvit.models.query_attention import (
    Constants,
    CrossAttention,
    FoldedCrossAttention,
    FoldedSelfAttention,
    JointProjection,
    SelfAttention,
)
from hiresvit.spec import MASK_STRIDE, QUERIES

DECODER_LAYERS = 9
DECODER_FFN_CHANNELS = 2048
POSTPROCESS = ("exact", "fast")
SPREAD = 3.0  # deviation of fresh masks over the pixels, and of fresh classes over the queries


def check_postprocess(value: object) -> None:
    """Raise UsageError unless this is a way to make an answer of masks."""
    if value not in POSTPROCESS:
        raise UsageError(f"postprocess={value!r}: choose {' or '.join(POSTPROCESS)}")


class Mask2FormerHead(nn.Module):
    """Four maps (B, C_i, ..) of strides 4, 8, 16, 32 -> what each class has of each pixel (B, K, H, W), 0 to 100.

    ``postprocess`` is that of `SemanticInference`: with "fast" the answer is (B, K, H/4, W/4). With ``raw`` it
    is what that is made of: classes (B, Q, K+1) before their softmax, the last of them "no object", and masks
    (B, Q, H/4, W/4) before their sigmoid. Static in the image's size ``imgsz``.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        imgsz: Size,
        num_classes: int,
        *,
        postprocess: str = "exact",
        raw: bool = False,
    ) -> None:
        super().__init__()
        self.pixel_decoder = PixelDecoder(in_channels, imgsz)
        self.transformer_decoder = QueryDecoder()
        self.query_feat = nn.Embedding(QUERIES, CHANNELS)
        self.query_embed = nn.Embedding(QUERIES, CHANNELS)
        self.level_embed = nn.Embedding(len(LEVEL_STRIDES), CHANNELS)
        self.num_classes = num_classes
        self.cls_embed = ClassEmbed(CHANNELS, num_classes + 1)
        self.mask_embed = MaskEmbed()
        self.memory: nn.Module = SameTokens()
        self.key_features: nn.Module = SameFeatures()
        self.key_masks = KeyMasks([size_at(imgsz, stride) for stride in LEVEL_STRIDES])
        self.masks = MaskProduct(size_at(imgsz, MASK_STRIDE))
        self.inference = None if raw else SemanticInference(postprocess)

    def forward(self, maps: Sequence[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        levels, features = self.pixel_decoder(maps)  # (B*N, D) each; (B, D, H/4, W/4)
        resized = self.key_features(features)
        memory = self.memory(levels)
        queries = self.query_feat.weight  # (Q, D), the same for all images until they have read one
        for i, layer in enumerate(self.transformer_decoder.layers):
            level = i % len(LEVEL_STRIDES)
            hidden = self.key_masks(self.embedded(queries), resized[level], level)
            queries = layer(queries, memory[i], self.constants(level), hidden)
        masks = self.masks(self.embedded(queries), features)
        classes = self.cls_embed(self.transformer_decoder.post_norm(queries)).reshape(-1, QUERIES, self.num_classes + 1)
        return (classes, masks) if self.inference is None else self.inference(classes, masks)

    def embedded(self, queries: Tensor) -> Tensor:
        """What a query's mask is a product of: rows (B*Q, D) -> (B, 1, Q, D), the axis of heads being masks'."""
        out: Tensor = self.mask_embed(self.transformer_decoder.post_norm(queries))
        return out.reshape(-1, 1, QUERIES, CHANNELS)

    def constants(self, level: int) -> Constants:
        """What is added before the projections of a layer that reads this level, unless they are folded."""
        sines = torch.split(self.pixel_decoder.sines, self.pixel_decoder.encoder.counts)[level]
        return self.query_embed.weight, self.level_embed.weight[level], sines

    def fold_(self) -> None:
        """Constants into the projections, and the resize of masks before the product that makes them."""
        layers = [layer for layer in self.transformer_decoder.layers if isinstance(layer, QueryLayer)]
        constants = [self.constants(i % len(LEVEL_STRIDES)) for i in range(len(layers))]
        self.memory = KeysAndValues(layers, constants)
        for layer, of_layer in zip(layers, constants, strict=True):
            layer.fold_constants_(of_layer)
        self.key_features = ResizedFeatures()
        self.key_masks.folded = True


Memory = Tensor | tuple[Tensor, Tensor]
"""A level's tokens (B*N, D); keys and values (B, h, N, d) made of them."""


class QueryDecoder(nn.Module):
    """Nine layers, and the norm before every prediction; `Mask2FormerHead` calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(QueryLayer(first=i == 0) for i in range(DECODER_LAYERS))
        self.post_norm = nn.LayerNorm(CHANNELS)


class QueryLayer(nn.Module):
    """Queries' rows (B*Q, D) read tokens (B*N, D), then each other: attention to tokens comes first.

    Rows of the ``first`` layer are (Q, D). Once folded it is given ``tokens`` as keys and values.
    """

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.cross_attn: nn.Module = CrossAttention()
        self.self_attn: nn.Module = SelfAttention()
        self.ffn = FeedForward(DECODER_FFN_CHANNELS)
        self.norms = nn.ModuleList(nn.LayerNorm(CHANNELS) for _ in range(3))

    def forward(self, queries: Tensor, tokens: Memory, constants: Constants, hidden: Tensor) -> Tensor:
        read = self.cross_attn(queries, tokens, constants, hidden)
        if self.first:
            queries = self.norms[0]((queries + read.reshape(-1, QUERIES, CHANNELS)).reshape(-1, CHANNELS))
        else:
            queries = self.norms[0](queries + read)
        queries = self.norms[1](queries + self.self_attn(queries, constants))
        out: Tensor = self.norms[2](queries + self.ffn(queries))
        return out

    def fold_constants_(self, constants: Constants) -> None:
        """Both attentions with their constants inside; `KeysAndValues` has the half of the first one."""
        assert isinstance(self.cross_attn, CrossAttention)
        assert isinstance(self.self_attn, SelfAttention)
        self.cross_attn = FoldedCrossAttention(self.cross_attn.attn, constants)
        self.self_attn = FoldedSelfAttention(self.self_attn.attn, constants)


class SameTokens(nn.Module):
    """What each layer reads: the tokens of its level."""

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        return [levels[i % len(LEVEL_STRIDES)] for i in range(DECODER_LAYERS)]


class KeysAndValues(nn.Module):
    """What each layer reads, once constants are folded: its own keys and values (B, h, N, d) of its level's tokens.

    Those of all layers that read a level are one product.
    """

    def __init__(self, layers: Sequence[QueryLayer], constants: Sequence[Constants]) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for level in range(len(LEVEL_STRIDES)):
            parts = []
            _, encoding, positions = constants[level]
            for layer in layers[level :: len(LEVEL_STRIDES)]:
                assert isinstance(layer.cross_attn, CrossAttention)
                attn = layer.cross_attn.attn
                parts += [attn.folded(1, encoding + positions), attn.folded(2, encoding)]
            self.levels.append(JointProjection(parts, len(positions), encoding))

    def forward(self, levels: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        found = [project(tokens) for project, tokens in zip(self.levels, levels, strict=True)]
        places = [(i % len(LEVEL_STRIDES), i // len(LEVEL_STRIDES)) for i in range(DECODER_LAYERS)]
        return [(found[level][2 * turn], found[level][2 * turn + 1]) for level, turn in places]


class ClassEmbed(nn.Linear):
    """What makes classes of queries: the last layer, as a classifier's is, of which the rules see a softmax only."""

    lowest_precision = "fp16"


class MaskEmbed(nn.Sequential):
    """The MLP of a query's mask: rows (B*Q, D) -> rows (B*Q, D)."""

    lowest_precision = "fp16"  # the mask's sign hides keys

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.Linear(CHANNELS, CHANNELS), nn.ReLU(), nn.Linear(CHANNELS, CHANNELS), nn.ReLU()]
        super().__init__(*layers, nn.Linear(CHANNELS, CHANNELS))


class SameFeatures(nn.Module):
    """The features (B, D, H/4, W/4) of every level's masks, which are resized afterwards."""

    def forward(self, features: Tensor) -> list[Tensor]:
        return [features] * len(LEVEL_STRIDES)


class ResizedFeatures(nn.Module):
    """Features (B, D, H/4, W/4) resized bilinearly to each level: (B, D, H_l, W_l).

    To 1 / 2n of a side a pixel's centre lies between two of n pixels on each side: it is the mean of the middle four.
    """

    def forward(self, features: Tensor) -> list[Tensor]:
        resized = []
        for stride in LEVEL_STRIDES:
            factor = stride // MASK_STRIDE
            skip = factor // 2 - 1
            resized.append(F.avg_pool2d(features[:, :, skip:, skip:], kernel_size=2, stride=factor))
        return resized


class KeyMasks(nn.Module):
    """Which tokens of a level a query hides from itself: those where its mask is negative, unless all are.

    Queries (B, 1, Q, D), features (B, D, H_l, W_l), or not yet resized until it is folded -> (B, 1, Q, H_l*W_l), True
    for what is hidden. The sign of a sum decides, so it is summed in FP32 and not left to what a runtime sums in.
    """

    lowest_precision = "fp32"

    def __init__(self, sizes: Sequence[Size]) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.folded = False

    def forward(self, embedded: Tensor, features: Tensor, level: int) -> Tensor:
        masks = embedded @ features.flatten(2)[:, None]
        if not self.folded:
            masks = masks.reshape(-1, QUERIES, *features.shape[2:])
            masks = F.interpolate(masks, size=self.sizes[level], mode="bilinear").flatten(2)[:, None]
        return (masks < 0) & (masks.amax(dim=3, keepdim=True) >= 0)


class MaskProduct(nn.Module):
    """Queries (B, 1, Q, D) and features (B, D, H/4, W/4) -> masks (B, Q, H/4, W/4), before their sigmoid."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size

    def forward(self, embedded: Tensor, features: Tensor) -> Tensor:
        return (embedded @ features.flatten(2)[:, None]).reshape(-1, QUERIES, *self.size)


class SemanticInference(nn.Module):
    """Classes (B, Q, K+1) and masks (B, Q, h, w) -> what each class has of each pixel, 0 to 100 (section 3.1).

    ``exact`` is the authors' order: masks resized to the image (B, K, 4h, 4w), their sigmoid, and the sum over queries.
    ``fast`` does the last two at the masks' own size (B, K, h, w), a sixteenth of the work, and leaves the resize
    to what follows: a sigmoid is not linear, so it is not the same. Raises UsageError on any other.
    """

    def __init__(self, postprocess: str) -> None:
        super().__init__()
        check_postprocess(postprocess)
        self.factor = MASK_STRIDE if postprocess == "exact" else 1
        self.total = QuerySum()

    def forward(self, classes: Tensor, masks: Tensor) -> Tensor:
        shares = classes.softmax(dim=2)[:, :, :-1].transpose(1, 2)  # (B, K, Q)
        masks = upsample(masks, self.factor, "bilinear")
        out: Tensor = self.total(shares, masks.sigmoid().flatten(2))
        return out.reshape(-1, shares.shape[1], *masks.shape[2:])


class QuerySum(nn.Module):
    """(B, K, Q) @ (B, Q, M): the sum over 100 queries, in FP32."""

    lowest_precision = "fp32"

    def forward(self, shares: Tensor, masks: Tensor) -> Tensor:
        return shares @ masks


@torch.no_grad()
def standardise_masks(model: nn.Module, images: Tensor) -> None:
    """Make the answers of a fresh segmentor with this head vary over ``images`` (B, 3, H, W), in place.

    Through nine layers fresh queries become one, whose mask has no edge: nothing is hidden, and one class wins. Here
    the decoder's norms leave the queries' mean out, the features have mean 0 over the pixels, and masks and classes
    have the deviation `SPREAD`. Tokens weigh less in a query, and points stay near their token, so that a rounding
    which flips a sign is not worth more than one in a trained network. Statistics are those of float64: how many
    threads sum them up does not show in the weights.
    """
    twin = copy.deepcopy(model).double()
    head: Any = twin.decode_head
    for layer in head.pixel_decoder.encoder.layers:
        for of_points in (layer.self_attn.sampling_offsets, layer.self_attn.attention_weights):
            of_points.weight.mul_(0.2)
    norms = []
    for layer in head.transformer_decoder.layers:
        layer.cross_attn.attn.out_proj.weight.mul_(0.3)
        norms += list(layer.norms)
    centred = [module.register_forward_hook(_centre) for module in (*norms, head.pixel_decoder.mask_feature)]
    head.inference = None
    classes, masks = twin(images.double())
    for hook in centred:
        hook.remove()
    for value in head.mask_embed[-1].parameters():
        value.mul_(SPREAD / masks.std())
    std, mean = torch.std_mean(classes, dim=(0, 1))
    head.cls_embed.weight.mul_((SPREAD / std)[:, None])
    head.cls_embed.bias.sub_(mean).mul_(SPREAD / std)
    model.load_state_dict(twin.state_dict())


def _centre(layer: nn.Module, _: object, out: Tensor) -> Tensor:
    """Rows (M, C) or a map (B, C, H, W) without each channel's mean, by the layer's bias."""
    mean = out.mean(dim=(0, 2, 3) if out.ndim == 4 else 0, keepdim=True)
    assert isinstance(layer.bias, Tensor)
    layer.bias.sub_(mean.flatten())
    return out - mean
