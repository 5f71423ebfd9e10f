"""The tables of targets: what they say of each other, and what the real parser of TensorRT-RTX says of them.

Run as a program it prints what TensorRT-RTX builds of `FORMS`, a graph of one operator for each type: a line of JSON
with operator, type and whether there is a plan.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from findings import problems_on
from graphs import build
from onnx import ModelProto
from rtx_builds import build as build_with_rtx

from hiresvit.check import check, rule, rules, targets
from hiresvit.check.forms import FORMS as KNOWN_FORMS
from hiresvit.check.nvidia_parser import ARRIVED, NVIDIA_OPS, TYPES
from hiresvit.check.qualcomm import HTP_TARGETS
from hiresvit.check.rules import RULES
from hiresvit.check.target import Target
from hiresvit.check.targets import JETPACK6, JETPACK7, RTX, TARGETS, TRT11, find_target
from hiresvit.device.chips import CHIPS
from hiresvit.device.tensorrt_api import installed, load
from hiresvit.errors import UsageError
from hiresvit.export.onnx import DEFAULT_OPSET
from hiresvit.process import run_child

needs_rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason="TensorRT-RTX is not installed")
# What the models of every family export, in FP16 and INT8 (test_own_graphs.py holds the rules against such graphs).
OWN_OPS = {
    *("Add", "BatchNormalization", "Cast", "Concat", "Conv", "DequantizeLinear", "Gelu", "Gemm", "HardSwish"),
    *(
        "LayerNormalization",
        "MatMul",
        "Mul",
        "Pad",
        "QuantizeLinear",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Resize",
    ),
    *("Sigmoid", "Slice", "Softmax", "Split", "Transpose"),
}
ONNX_OPS = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}

PARSER = """
import json, sys
from hiresvit.device.tensorrt_api import load, make_log
trt = load("tensorrt_rtx")
log = make_log(trt, lambda level, text: None)
builder = trt.Builder(log)
parser = trt.OnnxParser(builder.create_network(0), log)
print(json.dumps({op: parser.supports_operator(op) for op in json.loads(sys.argv[1])}))
"""


def parser_knows(*ops: str) -> dict[str, bool]:
    """In a process of its own: TensorRT keeps 100 MB, and one logger for a process."""
    lines: list[str] = []
    child = run_child(["-c", PARSER, json.dumps(sorted(ops))], on_line=lines.append)
    assert child.returncode == 0, child.stderr
    answer: dict[str, bool] = json.loads(lines[-1])
    return answer


class TestNames:
    def test_found_by_name(self) -> None:
        assert [find_target(name) for name in ("jetpack6", "jetpack7", "trt11", "rtx")] == list(TARGETS.values())

    def test_chips(self) -> None:
        assert [find_target(name.upper()) for name in CHIPS] == list(HTP_TARGETS.values())

    def test_unknown(self) -> None:
        with pytest.raises(UsageError, match=r"^no target 'orin': choose one of jetpack6, jetpack7, trt11, rtx, ar1, "):
            find_target("orin")


class TestTables:
    def test_operators_are_onnx_operators(self) -> None:
        for target in TARGETS.values():
            assert target.unsupported <= ONNX_OPS
            assert target.unbuildable <= ONNX_OPS - target.unsupported
        assert ARRIVED.keys() <= ONNX_OPS
        assert TYPES.keys() <= ONNX_OPS

    def test_a_newer_tensorrt_knows_more(self) -> None:
        assert JETPACK6.unsupported > JETPACK7.unsupported > TRT11.unsupported
        assert JETPACK6.max_opset < JETPACK7.max_opset < TRT11.max_opset

    def test_what_arrived_later_is_not_there_before(self) -> None:
        for op, minor in ARRIVED.items():
            assert (op in JETPACK6.unsupported, op in JETPACK7.unsupported) == (minor > 3, minor > 13)
            assert op not in TRT11.unsupported

    def test_every_form_is_known_and_asked_for(self) -> None:
        every = (*TARGETS.values(), *HTP_TARGETS.values())
        asked = {name for target in every for name in target.refused | target.ruled_out | target.doubted}
        assert asked == set(KNOWN_FORMS)
        for target in every:
            assert not target.refused & (target.ruled_out | target.doubted)

    def test_our_own_operators_and_opset_are_in_all(self) -> None:
        for target in TARGETS.values():
            assert not OWN_OPS & (target.unsupported | target.unbuildable)
            assert target.min_opset <= DEFAULT_OPSET <= target.max_opset


HEADSET = Target(
    name="headset",
    title="a headset of tomorrow",
    tensorrt=(),
    min_opset=11,
    max_opset=21,
    unsupported=frozenset({"Erf"}),
    quantized=frozenset({"int8", "uint8", "int32"}),
    asymmetric=frozenset({"uint8"}),
    own_ops=frozenset({"Swirl"}),
    tensors=frozenset({"float", "int32", "int8", "uint8"}),
    types={"Relu": frozenset({"float"}), "Add": frozenset({"float", "int32"})},
    documented={"Relu": frozenset({"float", "int32"})},
    refused=frozenset({"Resize.cubic", "TopK.k"}),
    ruled_out=frozenset({"TopK.sorted"}),
    max_rank=5,
    max_topk=10,
    host_inputs={"Tile": (1,)},
    host_ops=frozenset(),
)
FED = "(float[16] x, int32[1] n) => (float[N] y)"
LARGEST = "(float[16] x) => (float[N] y, int32[N] i)"
QDQ = (
    "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) "
    "e = DequantizeLinear(w, s, z) b = DequantizeLinear(c, s) a = Add(d, e) y = Add(a, b)"
)
FROM_BYTES = "d = DequantizeLinear(x, s, z) y = Add(d, d)"


class TestANewRow:
    """A rule knows no target by name, so that a row is all that another compiler needs."""

    @pytest.mark.parametrize(
        ("io", "body", "rules"),
        [
            ("(float[1,1,1,1,2] x) => (float[1,1,1,1,2] y)", "y = Relu(x)", set()),
            ("(float[1,1,1,1,1,2] x) => (float[1,1,1,1,1,2] y)", "y = Relu(x)", {"rank"}),
            ("(float[4] x) => (float[4] y)", "y = Erf(x)", {"operator"}),
            ("(float[4] x) => (float[4] y)", "y = Swirl(x)", set()),
            ("(float[4] x) => (float[4] y)", "y = Mish(x)", set()),
            ("(int8[4] x) => (int8[4] y)", "y = Relu(x)", {"operand_type"}),
            ("(int32[4] x) => (int32[4] y)", "y = Relu(x)", {"doubtful_type"}),
            ("(float[1,1,2,2] x) => (float[1,1,A,B] y)", 'y = Resize<mode = "cubic">(x, , twice)', {"form"}),
            ("(float[1,1,2,2] x) => (float[1,1,A,B] y)", "y = Resize<antialias = 1>(x, , twice)", set()),
            (LARGEST, "y, j = TopK<sorted = 0>(x, ten) i = Cast<to = 6>(j)", {"tensor_type", "ruled_out"}),
            ("(int32[4] x) => (int32[4] y)", "y = Add(x, x)", set()),
            ("(float16[4] x) => (float16[4] y)", "y = Tanh(x)", {"tensor_type"}),
            (LARGEST, "y, j = TopK(x, ten) i = Cast<to = 6>(j)", {"tensor_type"}),
            (LARGEST, "y, j = TopK(x, more) i = Cast<to = 6>(j)", {"tensor_type", "form"}),
            (FED, "y = Tile(x, n)", {"fed_size"}),
            (FED, "a = Add(n, n) y = Tile(x, a)", set()),
            (FED, "y = Expand(x, n)", set()),
            ("(float[16] x) => (float[16] y)", QDQ, set()),
            ("(uint8[16] x) => (float[16] y)", FROM_BYTES, set()),
        ],
    )
    def test_is_obeyed(self, io: str, body: str, rules: set[str]) -> None:
        known: dict[str, Any] = {"s": np.float32(0.1), "z": np.uint8(128), "w": np.ones(16, np.uint8)}
        known |= {"twice": np.array([1, 1, 2, 2], np.float32)}
        known |= {"c": np.ones(16, np.int32), "ten": np.array([10]), "more": np.array([11])}
        constants = {name: value for name, value in known.items() if re.search(rf"\b{name}\b", body)}
        model = build(f"g {io} {{ {body} }}", constants)
        assert {finding.rule for finding in problems_on(model, [HEADSET])["headset"]} == rules

    def test_is_what_the_messages_speak_of(self) -> None:
        shape = "float[1,1,1,1,1,2]"
        model = build(f"g ({shape} x) => ({shape} y) {{ y = Erf(x) }}", opset=10)
        opset, operator, rank = (finding.message for finding in problems_on(model, [HEADSET])["headset"])
        assert opset == "opset 10, not 11 to 21: not what a headset of tomorrow promises to read: export at opset 20"
        assert operator.startswith("operator Erf: a headset of tomorrow does not have it")
        assert rank == "6 axes: a headset of tomorrow has tensors of up to 5 axes: merge some"

    @pytest.mark.parametrize(
        ("field", "rules"),
        [
            ("takes_any_opset", {"opset"}),
            ("takes_any_domain", {"domain"}),
            ("takes_uint8_as_int8", {"unsigned"}),
            ("takes_infinite_scales", {"scale_infinite"}),
            ("takes_scales_of_any_type", {"scale_type"}),
            ("takes_unfused_qdq", {"weight_axis", "channel_activation", "block"}),
            ("fuses_narrowed_qdq", {"narrowed"}),
            ("boards_disagree_on_qdq", {"widened", "orin_qdq"}),
            ("int8_conv_writes_fp32", {"int8_conv"}),
            ("miscompiles_shared_norm", {"shared_norm"}),
            ("integers_only", {"floating_point"}),
            ("narrows_products", {"narrow_product"}),
        ],
    )
    def test_what_a_field_changes(self, field: str, rules: set[str]) -> None:
        change: dict[str, Any] = {field: True}
        able = replace(HEADSET, **change)
        assert {rule.name for rule in RULES if rule.level_on(able) != rule.level_on(HEADSET)} == rules

    def test_rules_read_every_field_and_no_name(self) -> None:
        """Nor a row: what a rule asks of a target is one of its fields, and no field is there for nothing."""
        folder = Path(targets.__file__).parent
        files = [*folder.glob("*_rules.py"), *folder.glob("*forms.py"), Path(rules.__file__), Path(rule.__file__)]
        nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
        slow = ast.parse(Path(check.__file__).read_text(encoding="utf-8"))  # the finding about attentions
        asked = {
            node.attr
            for node in (*nodes, *ast.walk(slow))
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("target", "view.target")
        }
        about = {"name", "title", "tensorrt", "chip"}
        assert asked - about == {field.name for field in fields(Target)} - about
        assert not {node.value for node in nodes if isinstance(node, ast.Constant)} & TARGETS.keys()
        rows = {name for name, value in vars(targets).items() if isinstance(value, Target)}
        assert rows == {"JETPACK6", "JETPACK7", "TRT11", "RTX"}
        assert not {node.id for node in nodes if isinstance(node, ast.Name)} & rows
        assert not {node.name for node in nodes if isinstance(node, ast.alias)} & rows


# How the words under Restrictions of an operator are held: by forms, or by rules of another kind.
RESTRICTIONS = {
    "Attention": "Attention.inputs Attention.mask Attention.outputs Attention.rank Attention.softcap",
    "AveragePool": "Pool.dilations Pool.line Pool.spatial",
    "Constant": "tensor_type",
    "CumSum": "CumSum.computed fed_size",
    "DeformConv": "DeformConv.pads DeformConv.spatial",
    "DequantizeLinear": "asymmetric",
    "Dropout": "Dropout.training",
    "EyeLike": "EyeLike.dynamic",
    "GRU": "RNN.activations",
    "GridSample": "GridSample.rank",
    "Hardmax": "Hardmax.dynamic",
    "If": "If.names If.ranks If.ranks_ever",
    "LSTM": "LSTM.input_forget LSTM.layout RNN.activations",
    "LayerNormalization": "Norm.training",
    "Loop": "Loop.carried Loop.scan",
    "LpPool": "Pool.dilations",
    "MaxPool": "MaxPool.indices Pool.dilations Pool.line Pool.spatial",
    "OneHot": "fed_size",
    "Pad": "Pad.computed fed_size",
    "QuantizeLinear": "asymmetric",
    "RNN": "RNN.activations",
    "Resize": "Resize.antialias Resize.axes Resize.cubic Resize.nearest Resize.policy Resize.transformation",
    "RotaryEmbedding": "RotaryEmbedding.positions",
    "STFT": "STFT.complex STFT.fed",
    "ScatterND": "Scatter.reduction",
    "Slice": "fed_size",  # of 10.1; the changelog lifts it with 10.3
    "Squeeze": "Reduce.fed Squeeze.computed",
    "TensorScatter": "TensorScatter.axis TensorScatter.rank",
    "TopK": "TopK.k TopK.sorted",
    "Unsqueeze": "Reduce.fed",
    **dict.fromkeys(("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"), "ignored"),
    **dict.fromkeys((op for op in ONNX_OPS if op.startswith("Reduce")), "Reduce.computed Reduce.fed"),
}
# What no page counts among ONNX's operators, and the parser knows of old.
OF_OLD = {"ImageScaler", "ParametricSoftplus", "ScaledTanh"}
# Whose data is no tensor that is computed with, or that takes any.
UNTYPED = {"BlackmanWindow", "Cast", "CastLike", "Constant", "ConstantOfShape", "DequantizeLinear", "HammingWindow"}
UNTYPED |= {"HannWindow", "If", "Loop", "QuantizeLinear", "RandomNormal", "RandomUniform", "Scan"}


class TestAgainstTheDocuments:
    """The rows of targets against NVIDIA's pages, which were written down apart from our tables."""

    def pages(self) -> dict[str, tuple[dict[str, set[str]], set[str]]]:
        """What each release supports in which types, and what it has words about."""
        golden = json.loads((Path(__file__).parents[1] / "golden" / "operators_md.json").read_text(encoding="utf-8"))
        supported: dict[str, set[str]] = {}
        restricted: set[str] = set()
        pages = {}
        for release in ("10.1", "10.14", "10.15", "11.1"):
            page = golden[release]
            supported = supported | {op: set(types.split()) for op, types in page["supported"].items()}
            restricted = (restricted | set(page["restricted"])) - set(page.get("unrestricted", []))
            pages[release] = supported, restricted
        return pages

    @pytest.mark.parametrize(
        ("target", "release", "less"),
        [
            (JETPACK6, "10.1", set()),
            (JETPACK7, "10.14", {"Attention"}),  # 10.13 for one graph
            (TRT11, "11.1", set()),
        ],
        ids=["jetpack6", "jetpack7", "trt11"],
    )
    def test_operators_and_types(self, target: Target, release: str, less: set[str]) -> None:
        supported = self.pages()[release][0]
        known = ONNX_OPS - target.unsupported
        assert known - supported.keys() == set()
        # The windows of 10.4 and STFT are not in 10.1's page, and no target is between them.
        assert supported.keys() - known - less - OF_OLD == set()
        for op in known & supported.keys() - UNTYPED:
            assert target.documented[op] == supported[op], op

    def test_every_restriction_is_held(self) -> None:
        """By the name of a form that a target refuses or whose documents rule it out, or of another rule."""
        pages = self.pages()
        assert set.union(*(restricted for _, restricted in pages.values())) == RESTRICTIONS.keys()
        names = {rule.name for rule in RULES}
        for target, release in ((JETPACK6, "10.1"), (JETPACK7, "10.14"), (TRT11, "11.1")):
            for op in pages[release][1] - target.unsupported:
                held = target.refused | target.ruled_out | names
                lifted = {"CumSum.computed", "Pad.computed", "Squeeze.computed"} if target != JETPACK6 else set()
                assert set(RESTRICTIONS[op].split()) - held <= lifted, (target.name, op)


@needs_rtx
class TestAgainstTheRealParser:
    def test_operators(self) -> None:
        known = parser_knows(*ONNX_OPS)
        assert {op for op, there in known.items() if not there} == RTX.unsupported

    def test_operators_of_nvidia_and_of_old(self) -> None:
        assert all(parser_knows(*NVIDIA_OPS, "ImageScaler", "ParametricSoftplus", "ScaledTanh").values())
        assert not any(parser_knows("FastGelu", "FusedMatMul", "Foo").values())

    @pytest.mark.slow
    def test_types(self) -> None:
        """Each operator of `TYPES` is refused in all types that it does not have, and built in those that it has."""
        assert FORMS.keys() == TYPES.keys()
        built: dict[str, set[str]] = {op: set() for op in FORMS}

        def on_line(line: str) -> None:
            op, kind, there = json.loads(line)
            if there:
                built[op].add(kind)

        child = run_child([str(Path(__file__))], on_line=on_line)
        assert child.returncode == 0, child.stderr
        # DOUBLE is FP32 to the parser, and has no place in the table.
        assert all(("double" in types) == ("float" in types) for types in built.values())
        assert {op: types - {"double"} for op, types in built.items()} == TYPES


NUMPY: dict[str, Any] = {
    "float": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "double": np.float64,
    "int64": np.int64,
    "int32": np.int32,
    "int8": np.int8,
    "bool": np.bool_,
}
MAP = "1,4,8,8"
RECURRENT = "y = {}<hidden_size = 4>(x, w, r)"
Form = tuple[str, tuple[str, ...], dict[str, Any]]
"""Body, the shapes of its inputs x and z, and its constants; a shape among these is one of the type that is tried."""

ONE = (
    "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Dropout Elu Erf Exp Floor Gelu GlobalAveragePool "
    "GlobalLpPool GlobalMaxPool HardSigmoid HardSwish Hardmax Identity IsInf IsNaN LeakyRelu Log LogSoftmax "
    "LpNormalization MeanVarianceNormalization Mish Neg Not RandomNormalLike RandomUniformLike Reciprocal Relu Round "
    "Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Trilu"
)
TWO = "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual MatMul Max Mean Min Mul Or PRelu Pow Sub Sum Xor"
REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"


def forms(ops: str, body: str, shapes: Iterable[str] = (MAP,), **constants: Any) -> dict[str, Form]:
    """The same form for several operators."""
    return {op: (body.format(op), tuple(shapes), constants) for op in ops.split()}


FORMS: dict[str, Form] = {
    **forms(ONE, "y = {}(x)"),
    **forms(TWO, "y = {}(x, z)", (MAP, MAP)),
    **forms(" ".join(f"Reduce{what}" for what in REDUCTIONS.split()), "y = {}(x, a)", a=np.array([2, 3])),
    **forms("AveragePool LpPool MaxPool", "y = {}<kernel_shape = [2, 2]>(x)"),
    **forms("ArgMax ArgMin", "y = {}<axis = 1>(x)"),
    **forms("DepthToSpace SpaceToDepth", "y = {}<blocksize = 2>(x)"),
    **forms("Conv ConvTranspose", "y = {}(x, w)", w=(4, 4, 2, 2)),
    **forms("Squeeze Unsqueeze", "y = {}(x, a)", a=np.array([0])),
    "GRU": (RECURRENT.format("GRU"), ("3,2,5",), {"w": (1, 12, 5), "r": (1, 12, 4)}),
    "LSTM": (RECURRENT.format("LSTM"), ("3,2,5",), {"w": (1, 16, 5), "r": (1, 16, 4)}),
    "RNN": (RECURRENT.format("RNN"), ("3,2,5",), {"w": (1, 4, 5), "r": (1, 4, 4)}),
    "ReverseSequence": (
        "y = ReverseSequence<batch_axis = 0, time_axis = 1>(x, a)",
        ("4,4",),
        {"a": np.full(4, 3)},
    ),
    "BatchNormalization": ("y = BatchNormalization(x, s, s, s, s)", (MAP,), {"s": (4,)}),
    "Clip": ("y = Clip(x, s, s)", (MAP,), {"s": ()}),
    "Concat": ("y = Concat<axis = 1>(x, x)", (MAP,), {}),
    "CumSum": ("y = CumSum(x, a)", (MAP,), {"a": np.array(1)}),
    "Einsum": ('y = Einsum<equation = "ij,jk->ik">(x, z)', ("4,4", "4,4"), {}),
    "Expand": ("y = Expand(x, a)", (MAP,), {"a": np.array([2, 4, 8, 8])}),
    "EyeLike": ("y = EyeLike(x)", ("4,4",), {}),
    "Flatten": ("y = Flatten(x)", (MAP,), {}),
    "Gather": ("y = Gather<axis = 1>(x, a)", (MAP,), {"a": np.array([0, 2])}),
    "GatherElements": ("y = GatherElements(x, a)", (MAP,), {"a": np.zeros((1, 4, 8, 8), np.int64)}),
    "GatherND": ("y = GatherND(x, a)", (MAP,), {"a": np.array([0, 1])}),
    "Gemm": ("y = Gemm(x, w)", ("4,4",), {"w": (4, 4)}),
    "GridSample": ("y = GridSample(x, s)", (MAP,), {"s": (1, 2, 2, 2)}),
    "GroupNormalization": ("y = GroupNormalization<num_groups = 2>(x, s, s)", (MAP,), {"s": (2,)}),
    "InstanceNormalization": ("y = InstanceNormalization(x, s, s)", (MAP,), {"s": (4,)}),
    "LRN": ("y = LRN<size = 3>(x)", (MAP,), {}),
    "LayerNormalization": ("y = LayerNormalization(x, s, s)", (MAP,), {"s": (8,)}),
    "Mod": ("y = Mod<fmod = 1>(x, z)", (MAP, MAP), {}),
    "OneHot": ("y = OneHot(i, d, x)", ("2",), {"i": np.array([0, 1]), "d": np.array(3)}),
    "Pad": ("y = Pad(x, a)", (MAP,), {"a": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
    "Reshape": ("y = Reshape(x, a)", (MAP,), {"a": np.array([4, 64])}),
    "Resize": ('y = Resize<mode = "linear">(x, , a)', (MAP,), {"a": np.array([1, 1, 2, 2], np.float32)}),
    "ScatterElements": (
        "y = ScatterElements(x, a, s)",
        (MAP,),
        {"a": np.zeros((1,) * 4, np.int64), "s": (1,) * 4},
    ),
    "ScatterND": ("y = ScatterND(x, a, s)", (MAP,), {"a": np.array([[0, 1]]), "s": (1, 8, 8)}),
    "Slice": ("y = Slice(x, a, b, b)", (MAP,), {"a": np.array([0]), "b": np.array([2])}),
    "Split": ("y, z = Split<axis = 1, num_outputs = 2>(x)", (MAP,), {}),
    "Tile": ("y = Tile(x, a)", (MAP,), {"a": np.array([1, 2, 1, 1])}),
    "TopK": ("y, z = TopK(x, a)", (MAP,), {"a": np.array([2])}),
    "Transpose": ("y = Transpose(x)", (MAP,), {}),
    "Where": ("y = Where(c, x, x)", (MAP,), {"c": np.ones((1, 4, 8, 8), bool)}),
}
# Types of results that are not the data's.
RESULTS = dict.fromkeys(("ArgMax", "ArgMin"), "int64")
RESULTS |= dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual"), "bool")


def form(op: str, kind: str) -> ModelProto:
    """A graph of one operator that computes in a type."""
    body, shapes, constants = FORMS[op]
    values: Mapping[str, Any] = {
        name: np.ones(value, NUMPY[kind]) if isinstance(value, tuple) else value for name, value in constants.items()
    }
    fed = ", ".join(f"{kind}[{shape}] {name}" for shape, name in zip(shapes, "xz", strict=False))
    model = build(f"g ({fed}) => ({RESULTS.get(op, kind)}[] y) {{ {body} }}", values)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


if __name__ == "__main__":
    rtx = load("tensorrt_rtx")
    for name in FORMS:
        for dtype in NUMPY:
            print(json.dumps([name, dtype, build_with_rtx(rtx, form(name, dtype))[0]]), flush=True)
