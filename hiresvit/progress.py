"""How work that takes long says how far it is."""

from __future__ import annotations

from collections.abc import Callable

OnStep = Callable[[str, float | None], None]
"""Told the step's name, ``a: b`` for a step of stage ``a``, and the share of it that is done, None if nobody knows."""


def silent(name: str, fraction: float | None) -> None:
    """An `OnStep` that says nothing."""
