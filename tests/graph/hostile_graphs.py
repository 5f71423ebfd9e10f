"""Graphs that mean harm: functions that call themselves, sizes that nobody has, weights in other places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]


def write_all(folder: Path) -> list[Path]:
    """Write each to a file of its own, and the weights that some of them name to ``w.bin``."""
    (folder / "w.bin").write_bytes(bytes(768))
    paths = []
    for name, model in hostile_graphs().items():
        paths.append(folder / f"{name}.onnx")
        paths[-1].write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return paths


def hostile_graphs() -> dict[str, ModelProto | bytes]:
    """By name; bytes where protobuf would not write it."""
    return {**_functions(), **_sizes(), **_text(), **_external(), **_structure()}


def _value(name: str, shape: Any = (1, 3, 8, 8), dtype: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def _model(
    nodes: list[Any], *, functions: Any = (), weights: Any = (), shape: Any = (1, 3, 8, 8), opsets: Any = None
) -> ModelProto:
    graph = helper.make_graph(nodes, "g", [_value("x", shape)], [_value("y", shape)], list(weights))
    return helper.make_model(graph, functions=list(functions), opset_imports=opsets or OPSETS, ir_version=9)


def _relu(**options: Any) -> ModelProto:
    return _model([helper.make_node("Relu", ["x"], ["y"], "NODENAME")], **options)


def _functions() -> dict[str, ModelProto | bytes]:
    def function(name: str, *called: tuple[str, str]) -> Any:
        places = ["a", *(f"t{number}" for number in range(len(called) - 1)), "b"]
        nodes = [
            helper.make_node(op, [places[k]], [places[k + 1]], domain=domain) for k, (op, domain) in enumerate(called)
        ]
        return helper.make_function("f", name, ["a"], ["b"], nodes, OPSETS)

    def calling(name: str, *functions: Any) -> ModelProto:
        return _model([helper.make_node(name, ["x"], ["y"], domain="f")], functions=functions)

    doubling = [function(f"F{k}", *[(f"F{k + 1}", "f") if k < 23 else ("Relu", "")] * 2) for k in range(24)]
    return {
        "calls_itself": calling("F", function("F", ("F", "f"))),
        "call_each_other": calling("A", function("A", ("B", "f")), function("B", ("A", "f"))),
        "sixteen_million_nodes": calling("F0", *doubling),
    }


def _sizes() -> dict[str, ModelProto | bytes]:
    found: dict[str, ModelProto | bytes] = {
        f"input_{side}": _relu(shape=(1, 3, side, side)) for side in (2**62, 2**20, 2**14, -8, 0)
    }
    for version in (2**62, -3, 0, 2**31):
        found[f"opset_{version}"] = _relu(opsets=[helper.make_opsetid("", version)])
    for name, dims in (("negative", [-1, 3, 8, 8]), ("huge", [2**40, 2**40]), ("axes", [1] * 200)):
        weight = numpy_helper.from_array(np.ones((1, 3, 8, 8), np.float32), "w")
        del weight.dims[:]
        weight.dims.extend(dims)
        found[f"weight_{name}"] = _model([helper.make_node("Add", ["x", "w"], ["y"])], weights=[weight])
    for code in (0, 77, 8, 2**30):
        weight = numpy_helper.from_array(np.ones((1, 3, 8, 8), np.float32), "w")
        weight.data_type = code
        found[f"weight_type_{code}"] = _model([helper.make_node("Add", ["x", "w"], ["y"])], weights=[weight])
        other = _relu()
        other.graph.input[0].type.tensor_type.elem_type = code
        found[f"input_type_{code}"] = other
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["large"]),
        helper.make_node("ReduceMean", ["large"], ["m"], keepdims=0),
        helper.make_node("Add", ["x", "m"], ["y"]),
    ]
    found["constant_of_8_gb"] = _model(nodes, weights=[numpy_helper.from_array(np.array([2**31], np.int64), "s")])
    return found


def _text() -> dict[str, ModelProto | bytes]:
    found: dict[str, ModelProto | bytes] = {
        "name_no_utf8": _relu().SerializeToString().replace(b"NODENAME", b"NODE\xff\xfeME"),
        "value_no_utf8": _model([helper.make_node("Relu", ["x"], ["y"])])
        .SerializeToString()
        .replace(b"\x01y", b"\x01\xff"),
        "name_escapes": _relu().SerializeToString().replace(b"NODENAME", b"N\x1b[31mME"),
        "type_escapes": _relu().SerializeToString().replace(b"Relu", b"R\x1b[3"),
    }
    for name, text in (("deep", "[" * 100_000), ("escapes", '{"name": "\x1b[31m"}'), ("bytes", "METAMETA")):
        model = _relu()
        prop = model.metadata_props.add()
        prop.key, prop.value = "hiresvit.spec", text
        found[f"stamp_{name}"] = model.SerializeToString().replace(b"METAMETA", b"\xff\xfe\x00\x1bMETA")
    return found


def _external() -> dict[str, ModelProto | bytes]:
    found: dict[str, ModelProto | bytes] = {}
    for name, said in (
        ("offset_text", {"location": "w.bin", "offset": "abc"}),
        ("offset_negative", {"location": "w.bin", "offset": "-4", "length": "768"}),
        ("length_negative", {"location": "w.bin", "offset": "0", "length": "-768"}),
        ("offset_huge", {"location": "w.bin", "offset": str(2**70)}),
        ("offset_digits", {"location": "w.bin", "offset": "1" * 5000}),
        ("above", {"location": "../w.bin"}),
        ("absolute", {"location": "/etc/passwd"}),
        ("null", {"location": "w\0.bin"}),
        ("folder", {"location": "."}),
        ("none", {"offset": "0"}),
    ):
        weight = TensorProto(name="w", data_type=1, dims=[1, 3, 8, 8], data_location=TensorProto.EXTERNAL)
        for key, value in said.items():
            weight.external_data.add(key=key, value=value)
        found[f"external_{name}"] = _model([helper.make_node("Add", ["x", "w"], ["y"])], weights=[weight])
    return found


def _structure() -> dict[str, ModelProto | bytes]:
    circle = [helper.make_node("Add", ["x", "z"], ["y"]), helper.make_node("Relu", ["y"], ["z"])]
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["o"])], "inner", [], [_value("o")])
    for depth in range(20):
        other = helper.make_graph([helper.make_node("Relu", ["x"], ["e"])], "e", [], [_value("e")])
        node = helper.make_node("If", ["c"], [f"o{depth}"], then_branch=inner, else_branch=other)
        inner = helper.make_graph([node], f"g{depth}", [], [_value(f"o{depth}")])
    inner.input.extend([_value("x"), _value("c", (), TensorProto.BOOL)])
    twice = _model([helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Relu", ["x"], ["y"])])
    return {
        "circle": _model(circle),
        "deep": helper.make_model(inner, opset_imports=OPSETS[:1], ir_version=9),
        "made_twice": twice,
        "no_operands": _model([helper.make_node("Conv", [], ["y"]), helper.make_node("Constant", [], [])]),
        "no_opset": _relu(opsets=[helper.make_opsetid("other", 1)]),
    }
