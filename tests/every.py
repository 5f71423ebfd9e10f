"""The registry as test parameters: a new model is tested by existing.

Always tested are each family's first variant with every task, and the default task of the others; what has more than
35 million parameters, and the other tasks of later variants, are marked slow (`make test-all`): they are the same code
with other numbers in it.
"""

from __future__ import annotations

from typing import Any

import pytest

from hiresvit.models.zoo import MODELS
from hiresvit.spec import Task

LARGE = 35  # million parameters


def firsts() -> dict[str, str]:
    """The first variant of each family, which is its smallest."""
    found: dict[str, str] = {}
    for name, entry in MODELS.items():
        found.setdefault(entry.family, name)
    return found


def quick(name: str, task: Task) -> bool:
    """Whether a variant and task belong to what CI runs."""
    entry = MODELS[name]
    return name in firsts().values() or (task == entry.task and entry.numbers[task].params <= LARGE)


def every(*more: Any) -> list[Any]:
    """(name, task, *more) for all that is in the registry, with its marks."""
    return [
        pytest.param(name, task, *more, marks=() if quick(name, task) else pytest.mark.slow)
        for name, entry in MODELS.items()
        for task in entry.imgsz
    ]


def small_size(name: str) -> tuple[int, int]:
    """Small, not square, and in need of padding where a family pads."""
    return (64, 128) if MODELS[name].family == "hiri_vit" else (64, 96)
