"""The sets of operators: what each must and must not hold, and that every name is one of ONNX's."""

from __future__ import annotations

import onnx
import pytest

from hiresvit.graph import operators
from hiresvit.graph.operators import (
    BARRIERS,
    CUTS,
    HARMLESS,
    ISLANDS,
    LAYOUT,
    LINEARS,
    MOVES,
    PAIRED,
    PRODUCTS,
    QUANTIZERS,
    RESHAPES,
    SCALE_OR_MASK,
    SPREADS,
    WEIGHTED,
)

SETS = {name: value for name, value in vars(operators).items() if isinstance(value, frozenset)}


@pytest.mark.parametrize("name", list(SETS))
def test_every_name_is_an_operator(name: str) -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert SETS[name] - known == set()
    assert SETS[name]


def test_smaller_sets_are_in_larger_ones() -> None:
    assert RESHAPES < LAYOUT < CUTS < MOVES
    assert LINEARS < WEIGHTED < PRODUCTS
    assert PAIRED < PRODUCTS
    assert SCALE_OR_MASK < HARMLESS


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (MOVES, PRODUCTS),
        (MOVES, SPREADS),
        (MOVES | SPREADS, HARMLESS),
        (MOVES, QUANTIZERS),  # they round
        (PRODUCTS, HARMLESS | BARRIERS),
        (HARMLESS, BARRIERS),  # each was run: one or the other
        (ISLANDS, PRODUCTS | MOVES),
    ],
)
def test_nothing_is_both(one: frozenset[str], other: frozenset[str]) -> None:
    assert one & other == set()
