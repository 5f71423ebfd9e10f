"""A network around what Qualcomm's compiler gets wrong, with the names of modules as an export gives them."""

from __future__ import annotations

import numpy as np
from graphs import build, noise
from lost_transpose import lost_transpose
from onnx import ModelProto, helper
from tiny import tiny_spec

from hiresvit.export.contract import stamp

_AROUND = """net (float[1,3,32,32] image) => (float[1,{classes},16,16] logits) {{
    x = Conv<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(image, w_stem)
    r = Relu(x)
    t = Transpose<perm = [0, 2, 3, 1]>(r)
    a, b = Split<axis = 3, num_outputs = 2>(t)
    z = Transpose<perm = [0, 3, 1, 2]>(y)
    f = Conv<kernel_shape = [1, 1]>(z, w_up)
    g = Gelu(f)
    h = Conv<kernel_shape = [1, 1]>(g, w_down)
    logits = Conv<kernel_shape = [1, 1]>(h, w_head)
}}"""
_MODULES = {"x": "stem", "r": "act", "t": "net", "a": "net", "z": "net", "f": "ffn.up", "g": "ffn.act", "h": "ffn.down"}


def network(*, lost: bool = True) -> ModelProto:
    """A stem, the block that is lost or an addition, a block with a GELU, and a head: for 32x32 pixels.

    It passes for a HRViT-b1 with the classes of the tests.
    """
    spec = tiny_spec("segment", (32, 32))
    classes = spec.num_classes
    weights = {
        "w_stem": noise(16, 3, 3, 3) / 4,
        "w_up": noise(16, 8, 1, 1, seed=1) / 3,
        "w_down": noise(8, 16, 1, 1, seed=2) / 4,
        "w_head": noise(classes or 1, 8, 1, 1, seed=3) / 3,
    }
    around = build(_AROUND.format(classes=classes), weights)
    for node in around.graph.node:
        node.name = f"{_MODULES.get(node.output[0], 'decode_head')}/{node.op_type}_{node.output[0]}"
    nodes = list(around.graph.node)
    del around.graph.node[:]
    block = (
        lost_transpose(16, 16).graph.node if lost else [helper.make_node("Add", ["a", "b"], ["y"], "net.block.y/Add")]
    )
    around.graph.node.extend([*nodes[:4], *block, *nodes[4:]])
    stamp(around, spec, "simplified")
    return around


_QUIET = """net (float[1,3,64,64] image) => (float[1,19,64,64] logits) {
    a = Conv<pads = [1, 1, 1, 1]>(image, w0)
    b = Conv(a, w1)
    c = Gelu(b)
    d = Conv(c, w2)
    e = Relu(d)
    logits = Conv(e, w3)
}"""


def quiet_gelu() -> ModelProto:
    """A network whose GELU gets small values from the convolution before it."""
    generator = np.random.default_rng(0)
    shapes = {"w0": (16, 3, 3, 3), "w1": (16, 16, 1, 1), "w2": (16, 16, 1, 1), "w3": (19, 16, 1, 1)}
    weights = {}
    for name, shape in shapes.items():
        drawn = generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        weights[name] = ((0.05 if name == "w1" else 1.0) * drawn).astype(np.float32)
    model = build(_QUIET, weights)
    names = ("stem", "ffn.fc1", "ffn.act", "ffn.fc2", "act", "head")
    for node, module in zip(model.graph.node, names, strict=True):
        node.name = f"{module}/{node.op_type}"
    stamp(model, tiny_spec("segment", (64, 64)), "simplified")
    return model
