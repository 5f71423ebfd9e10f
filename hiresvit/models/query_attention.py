"""The attentions of Mask2Former's queries: to the tokens of a level that are not hidden from them, and to each other.

Each is there twice: as it is trained, and folded, with what is the same for every image as biases of its projections.
`hiresvit.models.mask2former` has the paper and the rest of the head.

B batch, Q = 100 queries, D = 256 channels, h = 8 heads of d = 32, M rows of any, N tokens of a level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiresvit.models.deformable import CHANNELS, HEADS
from hiresvit.models.fold import linear_from
from hiresvit.spec import QUERIES

HIDDEN = -1e4  # added to a score its share is 0, in FP16, too

Constants = tuple[Tensor, Tensor, Tensor]
"""Queries' embeddings (Q, D), the level's (D,), and its tokens' positions (N, D)."""


class Projections(nn.Module):
    """The weights of an attention as PyTorch's MultiheadAttention names them: those of q, k and v in one."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * CHANNELS, CHANNELS))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * CHANNELS))
        self.out_proj = nn.Linear(CHANNELS, CHANNELS)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def project(self, x: Tensor, which: int) -> Tensor:
        """Queries (0), keys (1) or values (2) of each head: (B, M, D) -> (B, h, M, d)."""
        weight, bias = self.in_proj_weight.chunk(3)[which], self.in_proj_bias.chunk(3)[which]
        return heads_of(F.linear(x, weight, bias), HEADS)

    def folded(self, which: int, added: Tensor) -> tuple[Tensor, Tensor]:
        """A projection (D, D) and what is to be added behind it, for each of ``added`` (M, D), or (D,), before it.

        ``W (x + a) + b = W x + (W a + b)``; the scores' scale goes into the queries. In float64.
        """
        scale = (CHANNELS // HEADS) ** -0.5 if which == 0 else 1.0
        weight, bias = (part.double().chunk(3)[which] * scale for part in (self.in_proj_weight, self.in_proj_bias))
        return weight, added.double() @ weight.T + bias


class JointProjection(nn.Module):
    """Several projections of the same rows as one product: (B*M, D) -> (B, h, M, d) of each, one behind another.

    ``parts`` are weights (D, D) and constants (M, D) or (D,), which are added behind them.
    """

    def __init__(self, parts: Sequence[tuple[Tensor, Tensor]], rows: int, like: Tensor) -> None:
        super().__init__()
        joint = torch.cat([weight for weight, _ in parts])
        constants = torch.cat([constant.expand(rows, -1) for _, constant in parts], dim=1).to(like)
        self.project = linear_from(joint, torch.zeros_like(joint[:, 0]), like)
        self.constant = nn.Buffer(constants.reshape(rows, -1, CHANNELS // HEADS), persistent=False)

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        found = (self.project(rows).reshape(-1, *self.constant.shape) + self.constant).transpose(1, 2)
        return torch.split(found, HEADS, dim=1)


def heads_of(x: Tensor, count: int) -> Tensor:
    """(B, M, C) -> (B, heads, M, d)."""
    return x.reshape(-1, x.shape[1], count, CHANNELS // HEADS).transpose(1, 2)


def attended(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:
    """Scaled queries (B, h, Q, d) to keys and values (B, h, N, d), some hidden (B, 1, Q, N) -> rows (B*Q, D)."""
    scores = q @ k.transpose(2, 3)
    if hidden is not None:
        scores = torch.where(hidden, HIDDEN, scores)
    return (scores.softmax(dim=3) @ v).transpose(1, 2).reshape(-1, CHANNELS)


class CrossAttention(nn.Module):
    """Queries' rows to the tokens (B*N, D) of a level that are not hidden (B, 1, Q, N) -> rows (B*Q, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = Projections()

    def forward(self, queries: Tensor, tokens: Tensor, constants: Constants, hidden: Tensor) -> Tensor:
        embedding, level, positions = constants
        values = tokens.reshape(-1, len(positions), CHANNELS) + level
        q = self.attn.project(queries.reshape(-1, QUERIES, CHANNELS) + embedding, 0)
        k, v = self.attn.project(values + positions, 1), self.attn.project(values, 2)
        out: Tensor = self.attn.out_proj(attended(q * (CHANNELS // HEADS) ** -0.5, k, v, hidden))
        return out


class FoldedCrossAttention(nn.Module):
    """`CrossAttention` of queries with their constants inside to keys and values (B, h, N, d)."""

    def __init__(self, attn: Projections, constants: Constants) -> None:
        super().__init__()
        self.q = JointProjection([attn.folded(0, constants[0])], QUERIES, attn.in_proj_weight)
        self.out_proj = attn.out_proj

    def forward(self, queries: Tensor, tokens: tuple[Tensor, Tensor], constants: Constants, hidden: Tensor) -> Tensor:
        [q], (k, v) = self.q(queries), tokens
        out: Tensor = self.out_proj(attended(q, k, v, hidden))
        return out


class SelfAttention(nn.Module):
    """Queries' rows (B*Q, D) to each other: their embeddings are added to queries and keys, not to values."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = Projections()

    def forward(self, rows: Tensor, constants: Constants) -> Tensor:
        queries = rows.reshape(-1, QUERIES, CHANNELS)
        placed = queries + constants[0]
        q, k, v = (self.attn.project(x, part) for part, x in enumerate((placed, placed, queries)))
        out: Tensor = self.attn.out_proj(attended(q * (CHANNELS // HEADS) ** -0.5, k, v, None))
        return out


class FoldedSelfAttention(nn.Module):
    """`SelfAttention` with its constants inside and one product for queries, keys and values."""

    def __init__(self, attn: Projections, constants: Constants) -> None:
        super().__init__()
        added = (constants[0], constants[0], torch.zeros_like(constants[0][0]))
        parts = [attn.folded(which, a) for which, a in enumerate(added)]
        self.qkv = JointProjection(parts, QUERIES, attn.in_proj_weight)
        self.out_proj = attn.out_proj

    def forward(self, rows: Tensor, constants: Constants) -> Tensor:
        q, k, v = self.qkv(rows)
        out: Tensor = self.out_proj(attended(q, k, v, None))
        return out
