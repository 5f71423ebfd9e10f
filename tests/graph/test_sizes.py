"""Sizes that a graph computes: what TorchScript's exporter writes for a repeat over the batch, and what hides in it."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import named_graph, ones
from onnx import ModelProto

from hiresvit.graph.index import index_graph
from hiresvit.graph.products import find_products

QUERIES = 100
# (Q, 1, C) repeated over the batch, as the exporter writes it: an Expand to ones of a computed rank, and a Tile.
REPEATED = """
    shape = Shape(image)
    batch = Gather(shape, zero)
    axis = Unsqueeze(batch, axes)
    repeats = Concat<axis = 0>(one, axis, one)
    same = ConstantOfShape<value = int64[1] {1}>(rank)
    expanded = Expand(embedding, same)
    queries = Tile(expanded, repeats)
    turned = Transpose<perm = [1, 0, 2]>(queries)
    seen = ReduceMax<keepdims = 0>(image, plane)
    level = Unsqueeze(seen, first)
    q = Add(turned, level)
"""


def decoder(layers: int = 1) -> ModelProto:
    """A MatMul for each layer with queries that nothing has a size of, and masks as an Einsum of two activations."""
    rows = "".join(f"q{i + 1} = MatMul(q{i or ''}, w)\n" for i in range(layers))
    return named_graph(
        f'{REPEATED} {rows} masks = Einsum<equation = "bqc,bchw->bqhw">(q{layers}, image)',
        "float[2,8,4,6] image",
        f"float[2,{QUERIES},4,6] masks",
        zero=np.array(0),
        axes=np.array([0]),
        one=np.array([1]),
        rank=np.array([3]),
        plane=np.array([2, 3]),
        first=np.array([1]),
        embedding=ones(QUERIES, 1, 8),
        w=ones(8, 8),
    )


def test_products_behind_a_computed_size_are_counted() -> None:
    found = find_products(index_graph(decoder(3), {}))
    product, masks = 2 * QUERIES * 8 * 8, 2 * QUERIES * 8 * 4 * 6
    assert (sorted(found.macs.values()), found.uncounted) == ([product, product, product, masks], ())


@pytest.mark.parametrize("largest", [2**40, -(2**40)])
def test_nothing_large_is_made(largest: int) -> None:
    """A size that a file may say takes no memory, and leaves what follows unknown."""
    model = named_graph(
        "flat = Add(many, none) \n wide = ConstantOfShape(flat) \n w = Cast<to = 1>(wide) \n y = MatMul(x, w)",
        "float[1,4] x",
        "float[1,?] y",
        many=np.array([4, largest]),
        none=np.array([0, 0]),
    )
    index = index_graph(model, {})
    assert index.sizes("wide") in (None, (4, largest))


def test_a_dynamic_size_stays_one() -> None:
    model = decoder()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    index = index_graph(model)
    assert (index.sizes("expanded"), index.sizes("queries")) == ((QUERIES, 1, 8), None)
