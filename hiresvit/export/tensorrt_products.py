"""LayerNorms behind the products that read them: a factor for each row of what they make.

``W (g n(x) + s) + b = r(x) (W' x) + (b + W s)``, where n takes off a row's mean and divides by its deviation, r is one
over that deviation, and W' is W g with the mean of each of its rows taken off, which takes off the mean of x. So x is
read where n(x) would have been written first, and products of the same x become one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from onnx import NodeProto

from hiresvit.export.draft import Draft, Site, sole_reader
from hiresvit.export.tensorrt_norms import write_rows
from hiresvit.graph.dtypes import HALF
from hiresvit.graph.index import GraphIndex, attributes, operand
from hiresvit.graph.operators import LAYOUT


def product_sites(index: GraphIndex) -> Iterator[Site]:
    """Products that a norm of rows is in front of, if all that reads the norm is such a product.

    It pays where the rows are written in any case: what they are laid out from is read by something else. Where they
    are added to a result themselves it takes another product that reads them.
    """
    for norm in index.nodes:
        if norm.op_type != "LayerNormalization" or len(norm.output) != 1 or not _is_of_rows(index, norm):
            continue
        back = [reader for reader, _ in index.reads(norm.output[0])]
        halves = [cast for cast in back if cast.op_type == "Cast" and attributes(cast).get("to") == HALF]
        rows = _half_of(index, norm.input[0])
        if rows is None or len(halves) != 1 or len(back) != 1 or norm.output[0] in index.outputs:
            continue
        products = [reader for reader, _ in index.reads(halves[0].output[0])]
        others = [reader for reader, _ in index.reads(rows) if reader.op_type != "Cast"]
        pays = any(_is_linear(index, other) for other in others) if others else _is_kept(index, rows)
        if pays and products and all(_is_linear(index, product) for product in products):
            written: dict[str, str] = {}
            gone = frozenset({norm.output[0], halves[0].output[0]})
            for product in products:
                yield Site(
                    product.output[0], gone, partial(_write, norm=norm, rows=rows, product=product, rates=written)
                )


def _is_of_rows(index: GraphIndex, norm: NodeProto) -> bool:
    known = all(index.array(name) is not None for name in norm.input[1:] if name)
    return known and len(index.shapes.get(norm.input[0], ())) == 2 and attributes(norm).get("axis", -1) in (-1, 1)


def _half_of(index: GraphIndex, single: str) -> str | None:
    """The FP16 tensor that an FP32 one is a cast of, or that is a cast of it."""
    maker = index.producer.get(single)
    if maker is not None and maker.op_type == "Cast" and index.types.get(maker.input[0]) == "float16":
        return str(maker.input[0])
    casts = [node.output[0] for node, _ in index.reads(single) if node.op_type == "Cast"]
    return next((name for name in casts if index.types.get(name) == "float16"), None)


def _is_kept(index: GraphIndex, rows: str) -> bool:
    """Whether something else reads what the rows are laid out from: else the norm's kernel writes its rows for them."""
    maker = index.producer.get(rows)
    while maker is not None and maker.op_type in LAYOUT:
        if sole_reader(index, maker.input[0]) is None:
            return True
        maker = index.producer.get(maker.input[0])
    return False


def _is_linear(index: GraphIndex, node: NodeProto) -> bool:
    """Whether it is a Gemm as PyTorch's Linear becomes one: constant weights (out, in), a bias."""
    said = attributes(node)
    return (
        node.op_type == "Gemm"
        and len(node.input) == 3
        and all(index.array(name) is not None for name in node.input[1:])
        and (said.get("transA", 0), said.get("transB", 0)) == (0, 1)
        and (said.get("alpha", 1.0), said.get("beta", 1.0)) == (1.0, 1.0)
    )


def _write(draft: Draft, norm: NodeProto, rows: str, product: NodeProto, rates: dict[str, str]) -> None:
    index = draft.index
    if norm.name not in rates:
        _, rate = write_rows(draft, norm.name, norm.input[0], float(attributes(norm).get("epsilon", 1e-5)))
        rates[norm.name] = draft.add("Cast", [rate], norm.name, to=HALF)
    weight, bias, scale = (index.array(name) for name in (*product.input[1:], norm.input[1]))
    shift = index.array(operand(norm, 2))
    assert weight is not None
    assert bias is not None
    assert scale is not None
    wide = weight.astype(np.float64)
    whole = wide * scale
    centred = (whole - whole.mean(axis=1, keepdims=True)).astype(weight.dtype)
    moved = bias if shift is None else (bias + wide @ shift.astype(np.float64)).astype(bias.dtype)
    near = product.name
    raw = draft.add("Gemm", [rows, draft.constant(centred)], near, transB=1)
    scaled = draft.add("Mul", [raw, rates[norm.name]], near)
    draft.add("Add", [scaled, draft.constant(moved)], near, output=product.output[0])
