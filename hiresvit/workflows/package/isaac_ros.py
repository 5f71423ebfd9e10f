"""A launch file for Isaac ROS: pixels to a tensor, the TensorRT node, the U-Net decoder.

Read off NVIDIA-ISAAC-ROS on GitHub (release 4.5), and https://nvidia-isaac-ros.github.io, isaac_ros_unet:

- UNetDecoderNode with ``network_output_type`` ``argmax`` takes int32 and int64 and nothing else, in the order NHWC; a
  tensor (1, H, W) is one of one channel, since GXF says 1 for axes that are not there. It takes the first tensor of a
  message, wants even sides, one colour a class in ``color_palette``, and writes classes as bytes. With ``softmax`` it
  compares with 0 from below, which is no use for logits (segmentation_postprocessor.cpp and .cu.cpp);
- TensorRTNode takes uint8 and float32, publishes all but float16, and keeps the engine's shape; every output of the
  engine must be bound (tensor_rt_node.cpp). An engine that it builds itself does not keep the types of the graph;
- DnnImageEncoderNode and ImageToTensorNode publish float32 whatever they get (dnn_image_encoder_node.cpp,
  image_to_tensor_node.cpp), so neither can feed a contract of pixels: a small node of ours does, whose numbers of types
  are those of isaac_ros_tensor_list_interfaces/msg/Tensor.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from hiresvit.errors import UsageError
from hiresvit.spec import ContractSpec
from hiresvit.workflows.package.shipped import MADE_ON_THE_BOARD, Shipped, fill, size_text

_MOST_CLASSES = 256


def write_isaac_ros(shipped: Shipped, folder: Path) -> list[str]:
    """Fill a folder with a launch file, the node that makes tensors of images, and the graph or plan.

    Raises UsageError for a bundle whose answers the decoder cannot take.
    """
    role = _fitting(shipped)
    contract = shipped.contract
    height, width = contract.size or shipped.spec.imgsz
    shipped.write_class_names(folder / "labels.txt")
    palette = ", ".join(f"0x{red:02X}{green:02X}{blue:02X}" for red, green, blue in shipped.colours())
    launch = fill(
        "isaac_ros.launch.txt",
        slug=shipped.spec.slug,
        engine=MADE_ON_THE_BOARD,
        height=height,
        width=width,
        encoding=f"{contract.pixels}8",
        palette=palette,
    )
    (folder / "hiresvit.launch.py").write_text(launch, encoding="utf-8")
    (folder / "image_to_tensor.py").write_text(fill("image_to_tensor.txt"), encoding="utf-8")
    build = shipped.copy_engine(role, folder)
    size = size_text((height, width))
    whose = (
        f"the camera's own: whatever is resized, the engine resizes, as in training. Images of another size than {size}"
        " are refused"
        if contract.name == "camera"
        else f"the network's, {size}: put a resize in front of it, or export the bundle with `--contract camera HxW`,"
        " whose engine takes the camera's images as they are and resizes as in training"
    )
    (folder / "README.md").write_text(
        fill(
            "isaac_ros.md",
            slug=shipped.spec.slug,
            build=build,
            encoding=f"{contract.pixels}8",
            size=size,
            whose=whose,
            label_type=contract.label_type,
        ),
        encoding="utf-8",
    )
    return []


def _fitting(shipped: Shipped) -> str:
    """The role to ship. Raises UsageError for what does not fit."""
    spec, contract = shipped.spec, shipped.contract
    if spec.task != "segment":
        raise UsageError(
            f"{shipped.bundle.folder}: task {spec.task}; this package is of a segmentor, which is what Isaac ROS has a"
            " decoder for. --format triton serves the rest"
        )
    wanted = _wanted(contract)
    if contract.name == "tensor":
        shipped.misfit(
            "Isaac ROS's U-Net decoder takes int32 or int64 labels, and the contract tensor gives logits", wanted
        )
    if contract.label_type not in ("int32", "int64"):
        shipped.misfit(f"Isaac ROS's U-Net decoder takes int32 or int64 labels, not {contract.label_type}", wanted)
    if contract.confidence:
        shipped.misfit(
            "Isaac ROS's U-Net decoder takes the first tensor that it finds, so --confidence is in its way", wanted
        )
    if contract.pixels == "nv12":
        shipped.misfit("a ROS image has one plane of pixels, and NV12 is two", wanted)
    shipped.require_classes(_MOST_CLASSES, "the U-Net decoder's map has a byte a pixel")
    if any(side % 2 for side in contract.size or spec.imgsz):
        raise UsageError(
            f"{shipped.bundle.folder}: labels are {size_text(contract.size or spec.imgsz)}; the U-Net decoder takes"
            " even sides only"
        )
    return shipped.pick_for_tensorrt("Isaac ROS")


def _wanted(contract: ContractSpec) -> ContractSpec:
    """The nearest contract that fits."""
    name: Literal["image", "camera"] = "camera" if contract.name == "camera" else "image"
    pixels = "rgb" if contract.pixels == "nv12" else contract.pixels
    kept = contract.label_type if contract.label_type in ("int32", "int64") else "int32"
    return replace(contract, name=name, pixels=pixels, yuv=None, label_type=kept, confidence=False)
