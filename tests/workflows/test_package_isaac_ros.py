"""`hiresvit package --format isaac-ros`: nodes and parameters that Isaac ROS has, and the node that makes tensors.

ROS 2 is no Python package, so the launch file is read as Python, and the node runs on classes that stand for ROS's.
"""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from packages import make_bundle

from hiresvit.bundle.folder import read_bundle
from hiresvit.data.labels import find_labels
from hiresvit.data.scenes import sample_image
from hiresvit.errors import UsageError
from hiresvit.runtime.frame import picture_feed
from hiresvit.spec import ContractSpec
from hiresvit.workflows.package.package import package_bundle

# What the constructors declare: tensor_rt_node.cpp of isaac_ros_dnn_inference, unet_decoder_node.cpp of
# isaac_ros_image_segmentation, release 4.5.
_TENSOR_RT = """
    model_file_path engine_file_path custom_plugin_lib input_tensor_names input_binding_names input_tensor_formats
    output_tensor_names output_binding_names output_tensor_formats force_engine_update verbose max_workspace_size
    dla_core max_batch_size enable_fp16 relaxed_dimension_check memory_pool_block_size memory_pool_num_blocks
    input_queue_size output_queue_size input_qos output_qos
"""
_DECODER = """
    color_segmentation_mask_encoding color_palette network_output_type mask_width mask_height input_qos output_qos
"""
PARAMETERS = {
    ("isaac_ros_tensor_rt", "nvidia::isaac_ros::dnn_inference::TensorRTNode"): frozenset(_TENSOR_RT.split()),
    ("isaac_ros_unet", "nvidia::isaac_ros::unet::UNetDecoderNode"): frozenset(_DECODER.split()),
}
CAMERA = ContractSpec("camera", "bgra", (40, 56), label_type="int32")


def calls(tree: ast.AST, name: str) -> Iterator[dict[str, ast.expr]]:
    """The keywords of each call of a name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield {word.arg: word.value for word in node.keywords if word.arg}


def text_of(node: ast.expr) -> Any:
    return node.value if isinstance(node, ast.Constant) else ast.unparse(node)


@pytest.mark.parametrize("label_type", ["int32", "int64"])
def test_nodes_and_parameters_are_those_of_isaac_ros(tmp_path: Path, label_type: Any) -> None:
    contract = ContractSpec("image", label_type=label_type)
    bundle = make_bundle(tmp_path / "b", contract)
    folder = package_bundle(bundle, "isaac-ros", tmp_path / "p").folder
    text = (folder / "hiresvit.launch.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] == ["generate_launch_description"]
    nodes = {}
    for node in calls(tree, "ComposableNode"):
        which = text_of(node["package"]), text_of(node["plugin"])
        assert isinstance(node["parameters"], ast.List)
        [given] = node["parameters"].elts
        assert isinstance(given, ast.Dict)
        names = [text_of(key) for key in given.keys if key]
        assert set(names) <= PARAMETERS[which]
        nodes[which[0]] = dict(zip(names, given.values, strict=True))
    assert nodes.keys() == {"isaac_ros_tensor_rt", "isaac_ros_unet"}
    trt, decoder = nodes["isaac_ros_tensor_rt"], nodes["isaac_ros_unet"]
    manifest = read_bundle(bundle).manifest
    assert ast.literal_eval(trt["input_binding_names"]) == [one.name for one in manifest.inputs]
    assert ast.literal_eval(trt["output_binding_names"]) == [one.name for one in manifest.outputs]
    assert ast.literal_eval(decoder["network_output_type"]) == "argmax"
    palette = ast.literal_eval(decoder["color_palette"])
    colours = find_labels(manifest.spec).colours
    assert palette == [(int(r) << 16) + (int(g) << 8) + int(b) for r, g, b in colours]
    assert 'HEIGHT, WIDTH, ENCODING = 32, 48, "rgb8"' in text
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert f"{label_type} (1, height, width)" in readme
    assert "--saveEngine=model.plan" in readme


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the node publishes, and a ROS of a few classes that keep what they are given."""
    sent: list[Any] = []

    class Node:
        def __init__(self, _name: str) -> None:
            self.parameters: dict[str, Any] = {"height": 40, "width": 56, "encoding": "bgra8"}
            self.errors: list[str] = []

        def declare_parameter(self, name: str, _default: Any) -> None:
            assert name in self.parameters

        def get_parameter(self, name: str) -> SimpleNamespace:
            return SimpleNamespace(value=self.parameters[name])

        def create_publisher(self, _kind: Any, topic: str, _depth: int) -> SimpleNamespace:
            return SimpleNamespace(publish=lambda message: sent.append((topic, message)))

        def create_subscription(self, _kind: Any, topic: str, _call: Any, _depth: int) -> None:
            assert topic == "image"

        def get_logger(self) -> SimpleNamespace:
            return SimpleNamespace(error=lambda text, **_: self.errors.append(text))

    modules: dict[str, dict[str, Any]] = {
        "rclpy": {},
        "rclpy.node": {"Node": Node},
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": SimpleNamespace},
        "isaac_ros_tensor_list_interfaces": {},
        "isaac_ros_tensor_list_interfaces.msg": dict.fromkeys(("Tensor", "TensorList", "TensorShape"), SimpleNamespace),
    }
    for name, members in modules.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return sent


def test_an_image_becomes_the_tensor_that_the_engine_takes(tmp_path: Path, ros: list[Any]) -> None:
    bundle = make_bundle(tmp_path / "b", CAMERA)
    folder = package_bundle(bundle, "isaac-ros", tmp_path / "p").folder
    node = runpy.run_path(str(folder / "image_to_tensor.py"))["ImageToTensor"]()
    manifest = read_bundle(bundle).manifest
    [wanted] = picture_feed(sample_image(0, 40, 56), manifest.spec, manifest.contract).values()
    for pad in (0, 12):
        rows = np.pad(wanted[0].reshape(40, -1), ((0, 0), (0, pad)), constant_values=7)
        image = {"height": 40, "width": 56, "encoding": "bgra8", "step": rows.shape[1], "data": rows.tobytes()}
        node.convert(SimpleNamespace(**image, header="when"))
        topic, message = ros.pop()
        [tensor] = message.tensors
        assert (topic, message.header, tensor.name) == ("tensor_pub", "when", "image")
        assert tensor.data_type == 2, "kUnsigned8 of gxf::PrimitiveType"
        assert tensor.shape.rank == 4
        assert np.array_equal(np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape.dims), wanted)
        assert tensor.strides == list(np.empty(wanted.shape, np.uint8).strides)
    node.convert(SimpleNamespace(**{**image, "height": 39}, header="when"))
    assert not ros
    assert node.errors == ["image is 39x56 bgra8; the engine takes 40x56 bgra8"]


@pytest.mark.parametrize(
    ("contract", "task", "said"),
    [
        (
            ContractSpec(),
            "segment",
            r"the contract tensor gives logits; export it with: .* --contract image --label-type int32$",
        ),
        (
            ContractSpec("camera", size=(40, 56)),
            "segment",
            r"not uint8; export .*--contract camera:40x56 --label-type int32$",
        ),
        (
            ContractSpec("image", "bgr", label_type="int64", confidence=True),
            "segment",
            r"--confidence is in its way; export it with: .*--contract image --input bgr --label-type int64$",
        ),
        (
            ContractSpec("camera", "nv12", (40, 56), label_type="int32"),
            "segment",
            "one plane of pixels.*--contract camera:40x56 --label-type int32$",
        ),
        (ContractSpec("camera", size=(41, 56), label_type="int32"), "segment", "takes even sides only"),
        (ContractSpec("image"), "classify", "task classify; this package is of a segmentor"),
        (ContractSpec("image"), "features", "task features; this package is of a segmentor"),
    ],
)
def test_what_the_decoder_cannot_take_is_refused(tmp_path: Path, contract: ContractSpec, task: Any, said: str) -> None:
    bundle = make_bundle(tmp_path / "b", contract, task=task, roles=("fp32",))
    with pytest.raises(UsageError, match=said):
        package_bundle(bundle, "isaac-ros", tmp_path / "p")
    assert not (tmp_path / "p").exists()
