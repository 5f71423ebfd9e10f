"""A configuration for DeepStream's Gst-nvinfer, and the parser that turns logits into its class map.

What Gst-nvinfer does is read off NVIDIA/DeepStream on GitHub (Apache-2.0), and written down in the developer guide,
DS_plugin_gst-nvinfer.html:

- it fills the input with float32, ``net-scale-factor * (x - offsets[c])``, and one input only
  (src/utils/nvdsinfer/nvdsinfer_context_impl.cpp, nvdsinfer_conversion.cu). Its preprocessing plug-in knows the type
  UINT8, but its library writes float32 into that, too (gst-nvdspreprocess/nvdspreprocess_lib/nvdspreprocess_impl.cpp).
  So only the contract ``tensor`` fits, and a standard deviation is one number for three channels;
- its own parser of segmentations takes float32 of the input's size and leaves a pixel without a class whose logits are
  all at or below -1 (nvdsinfer_context_impl_output_parsing.cpp), so there is one of ours;
- where it keeps the aspect ratio, what is left free is black (gst-nvinfer/gstnvinfer.cpp), and its filters are those
  of NvBufSurfTransform, none of which is Pillow's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hiresvit.errors import UsageError
from hiresvit.spec import ContractSpec, PreprocessSpec
from hiresvit.workflows.package.shipped import MADE_ON_THE_BOARD, Shipped, fill

CONFIG = "config_infer_primary_hiresvit.txt"
_SLACK = 1e-4  # of a normalised value: far below a grey level, which is 1 / 58


def write_deepstream(shipped: Shipped, folder: Path) -> list[str]:
    """Fill a folder with the configuration, class names, the parser with its Makefile, and the graph or plan.

    Raises UsageError for a bundle that Gst-nvinfer cannot feed or that is no segmentor.
    """
    role = _fitting(shipped)
    preprocess, (height, width) = shipped.spec.preprocess, shipped.spec.imgsz
    scale, off = scalar(preprocess)
    padded = preprocess.resize in ("keep", "letterbox")
    values = {
        "slug": shipped.spec.slug,
        "scale": f"{scale:.10g}",
        "offsets": ";".join(f"{value * 255:.7g}" for value in preprocess.mean),
        "order": int(preprocess.channels == "bgr"),
        "height": height,
        "width": width,
        "classes": shipped.spec.num_classes,
        "keep": int(padded),
        "symmetric": int(preprocess.resize == "letterbox"),
        "filter": {"bilinear": 1, "bicubic": 2}[preprocess.interpolation],
    }
    (folder / CONFIG).write_text(fill("deepstream.txt", engine=MADE_ON_THE_BOARD, **values), encoding="utf-8")
    shipped.write_class_names(folder / "labels.txt")
    (folder / "nvdsinfer_hiresvit.cpp").write_text(fill("nvdsinfer_hiresvit.cpp"), encoding="utf-8")
    (folder / "Makefile").write_text(fill("deepstream.mk"), encoding="utf-8")
    differs = _differences(preprocess, off)
    build = shipped.copy_engine(role, folder)
    text = fill("deepstream.md", slug=shipped.spec.slug, build=build, config=CONFIG, differs="\n".join(differs))
    (folder / "README.md").write_text(text, encoding="utf-8")
    return [f"DeepStream prepares pictures otherwise than the network was trained: {line[2:]}" for line in differs[:-1]]


def _fitting(shipped: Shipped) -> str:
    """The role to ship. Raises UsageError for what does not fit."""
    spec = shipped.spec
    if spec.task != "segment":
        raise UsageError(
            f"{shipped.bundle.folder}: task {spec.task}; this package is of a segmentor. Classifiers and maps are for"
            " --format triton, which Gst-nvinferserver runs"
        )
    if shipped.contract.name != "tensor":
        shipped.misfit(
            f"Gst-nvinfer feeds float32 planes, and the contract {shipped.contract.name} takes uint8 pixels",
            ContractSpec(),
        )
    if spec.preprocess.resize in ("crop", "slide"):
        raise UsageError(
            f"{shipped.bundle.folder}: --resize {spec.preprocess.resize} is nothing that Gst-nvinfer can do; export it"
            " with --resize stretch, keep or letterbox, or use --format cpp"
        )
    role = shipped.pick_for_tensorrt("DeepStream")
    inputs, outputs = shipped.tensors(role)
    if {tensor.dtype for tensor in (*inputs, *outputs)} != {"float32"}:
        raise UsageError(
            f"{shipped.bundle.folder}: {role} takes float16, and Gst-nvinfer feeds float32; export it with --io fp32"
        )
    return role


def scalar(spec: PreprocessSpec) -> tuple[float, float]:
    """(net-scale-factor, how far normalised values are off at most, as a share) for one scale instead of three.

    Of all scales the one whose largest deviation is the least: 1 / 255 over the middle of the largest and the smallest
    standard deviation.
    """
    low, high = min(spec.std), max(spec.std)
    return 2 / (255 * (low + high)), (high - low) / (high + low)


def _differences(spec: PreprocessSpec, off: float) -> Sequence[str]:
    """What Gst-nvinfer does otherwise, a line each; the last is of every network."""
    lines = []
    if off > _SLACK:
        std = " ".join(f"{value:g}" for value in spec.std)
        lines.append(
            f"- one scale for three channels: the standard deviations are {std}, so normalised values are off by up to"
            f" {off:.1%}"
        )
    if spec.resize in ("keep", "letterbox"):
        lines.append("- beside the picture the input is black, where training had the mean")
    theirs = "antialiases, as Pillow does" if spec.filter == "pillow" else "is OpenCV's"
    lines.append(f"- NvBufSurfTransform resizes, with another filter than in training, which {theirs}")
    lines.append(
        "- the class map has the network's size, and the overlay stretches it; hiresvit resizes logits to the picture's"
    )
    return lines
