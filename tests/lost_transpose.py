"""The smallest graph that Qualcomm's compiler gets wrong (measured: a Transpose before a Concat is lost)."""

from __future__ import annotations

import numpy as np
from graphs import build
from onnx import ModelProto, TensorProto, helper, numpy_helper

_GRAPH = """lost (float[1,{h},{w},8] a, float[1,{h},{w},8] b) => (float[1,{h},{w},8] y) {{
    ab = Concat<axis = 3>(a, b)
    q, v, qd, vd = Split<axis = 3, num_outputs = 4>(ab)
    qt = Transpose<perm = [0, 1, 3, 2]>(q)
    s = MatMul(q, qt)
    p = Softmax<axis = -1>(s)
    across = MatMul(p, v)
    qc = Transpose<perm = [0, 2, 1, 3]>(qd)
    vc = Transpose<perm = [0, 2, 1, 3]>(vd)
    qct = Transpose<perm = [0, 1, 3, 2]>(qc)
    sd = MatMul(qc, qct)
    pd = Softmax<axis = -1>(sd)
    dd = MatMul(pd, vc)
    down = Transpose<perm = [0, 2, 1, 3]>(dd)
    y = Concat<axis = 3>(across, down)
}}"""


def lost_transpose(height: int, width: int) -> ModelProto:
    """In floating point: wrong without a word where height and width are the same."""
    model = build(_GRAPH.format(h=height, w=width))
    for node in model.graph.node:
        node.name = f"net.block.{node.output[0]}/{node.op_type}"
    return model


def with_qdq(model: ModelProto, kind: str = "uint16", span: float = 16.0) -> ModelProto:
    """The same with a pair of Q/DQ behind every tensor, all of one scale, and weights in int8.

    Of the lost Transpose at 8x12 it fails in the emulator.
    """
    made = ModelProto()
    made.CopyFrom(model)
    made.ir_version, made.opset_import[0].version = 10, 21  # from which Q/DQ have 16 bits
    top = np.iinfo(kind).max
    ends = {"scale": np.float32(span / top), "zero": np.array((top + 1) // 2, kind)}
    made.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in ends.items())
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    ours = {tensor.name for tensor in model.graph.initializer} - {tensor.name for tensor in weights}
    outputs = {tensor.name for tensor in model.graph.output}
    del made.graph.node[:]
    for tensor in weights:
        values = numpy_helper.to_array(tensor)
        step = np.float32(np.abs(values).max() / 127)
        parts = {"q": np.rint(values / step).astype(np.int8), "s": step, "z": np.int8(0)}
        names = [f"{tensor.name}_{part}" for part in parts]
        made.graph.initializer.extend(map(numpy_helper.from_array, map(np.asarray, parts.values()), names))
        made.graph.node.append(helper.make_node("DequantizeLinear", names, [f"{tensor.name}_dq"], f"{tensor.name}/DQ"))

    def pair(name: str, raw: str, behind: str) -> None:
        made.graph.node.append(helper.make_node("QuantizeLinear", [raw, *ends], [f"{name}_q"], f"{name}/Q"))
        made.graph.node.append(helper.make_node("DequantizeLinear", [f"{name}_q", *ends], [behind], f"{name}/DQ"))

    for tensor in model.graph.input:
        pair(tensor.name, tensor.name, f"{tensor.name}_dq")
    for node in model.graph.node:
        copy = made.graph.node.add()
        copy.CopyFrom(node)
        copy.input[:] = [name if name in ours else f"{name}_dq" for name in node.input]
        copy.output[:] = [f"{name}_raw" for name in node.output]
        for name in node.output:
            pair(name, f"{name}_raw", name if name in outputs else f"{name}_dq")
    return made
