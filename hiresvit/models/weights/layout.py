"""Where the files of a family's weights keep what is not the backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Layout:
    """Where a family's checkpoints keep what is not the backbone.

    ``head`` are the key groups, that is what is before the first dot, of the classifier, and ``classifier`` the
    prefix of its layer whose rows are the classes. With ``foreign_head`` the authors' files may hold a classifier
    under names that nobody documented. ``linears`` and ``derived`` say how to read the family's files of Paddle, see
    `hiresvit.models.weights.paddle.as_pytorch`; a family without ``linears`` has none. ``heads`` are the values of the
    setting ``head`` by task, the default first, where a family has a choice: they show in the shapes.
    ``segment_classes`` is the prefix of the layer of ``decode_head`` whose rows are the classes, with ``extra_classes``
    more that are none.
    """

    head: tuple[str, ...] = ("head",)
    classifier: str = "head."
    foreign_head: bool = False
    linears: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    heads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    segment_classes: str = "decode_head.conv_seg."
    extra_classes: int = 0
