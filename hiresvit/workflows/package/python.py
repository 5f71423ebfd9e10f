"""A folder that answers with numpy, Pillow and a runtime, and nothing of hiresvit: predict.py is put together of parts.

The parts lie in ``templates/predict_*.txt``: how pictures are resized, what the graph is fed, what runs it, and what is
made of its answer. So the program holds what this bundle needs and no line for another. Its arithmetic is that of
`hiresvit.data.preprocess`, `hiresvit.runtime.labels` and `hiresvit.runtime.boxes`; their answers are compared in
tests/workflows/test_package_python.py.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from hiresvit.bundle.stages import PLANS
from hiresvit.errors import UsageError
from hiresvit.workflows.package.shipped import Shipped, fill, size_text

_OPENS = {True: "tensorrt", False: "onnxruntime"}
_NEEDS = {
    True: "numpy pillow 'cuda-python>=12.9', and TensorRT's own Python module (on a Jetson: apt's python3-libnvinfer)",
    False: "numpy pillow onnxruntime",
}


def write_python(shipped: Shipped, folder: Path) -> list[str]:
    """Fill a folder with predict.py, the JSON that it reads, the graph or plan, and the golden picture if there is one.

    Raises UsageError for a bundle that predict.py has no part for.
    """
    role = _fitting(shipped)
    spec, contract = shipped.spec, shipped.contract
    plan = role in PLANS
    name = "model.plan" if plan else "model.onnx"
    shipped.copy(role, folder / name)
    preprocess = spec.preprocess
    backwards = contract.name == "image" and preprocess.channels == "bgr"  # the part that fills says it in RGB
    about = {
        "graph": name,
        "size": contract.size or spec.imgsz,
        "channels": contract.pixels if contract.name != "tensor" else preprocess.channels,
        "interpolation": preprocess.interpolation,
        "crop_pct": preprocess.crop_pct,
        "rounding": preprocess.rounding,
        "divisor": preprocess.divisor,
        "mean": preprocess.mean[::-1] if backwards else preprocess.mean,
        "std": preprocess.std,
        "names": shipped.class_names(),
        "colours": shipped.colours(),
    }
    if spec.anchors is not None:
        about["anchors"] = asdict(spec.anchors)
    (folder / "predict.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    (folder / "predict.py").write_text(_program(shipped, plan=plan), encoding="utf-8")
    pictures = [entry.name for entry in shipped.bundle.manifest.files if entry.role == "picture"]
    for picture in pictures:
        shipped.copy("picture", folder / picture)
    output = " -o labels.png" if spec.task == "segment" else ""
    text = fill(
        "python.md",
        slug=spec.slug,
        needs=_NEEDS[plan],
        picture=pictures[0] if pictures else "PICTURE.jpg",
        output=output,
        contract=f"{contract.name} {size_text(contract.size)}" if contract.size else contract.name,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    return []


def _program(shipped: Shipped, *, plan: bool) -> str:
    """predict.py: the parts in the order in which they use each other."""
    spec, contract = shipped.spec, shipped.contract
    parts = ["head", _OPENS[plan]]
    if contract.name != "camera":
        parts += [f"filter_{spec.preprocess.filter}", f"place_{spec.preprocess.resize}"]
    parts.append(f"feed_{contract.name}")
    pixels = "pixels" if spec.task == "classify" else contract.name
    parts += [f"{spec.task}_{'tensor' if contract.name == 'tensor' else pixels}", f"main_{spec.task}"]
    return "\n\n".join(fill(f"predict_{part}.txt").strip("\n") + "\n" for part in parts)


def _fitting(shipped: Shipped) -> str:
    """The role to ship. Raises UsageError for what does not fit."""
    spec, contract = shipped.spec, shipped.contract
    shipped.require_answer()
    if contract.pixels == "nv12":
        shipped.misfit("predict.py reads picture files, which are no NV12", replace(contract, pixels="rgb", yuv=None))
    if contract.name != "camera" and spec.preprocess.resize == "slide":
        raise UsageError(
            f"{shipped.bundle.folder}: --resize slide takes more than one call, which predict.py does not do; export it"
            " with --resize stretch, keep or letterbox, or use hiresvit.Predictor"
        )
    if spec.task == "segment":
        shipped.require_classes(256, "predict.py writes a PNG with a byte a pixel")
    role = shipped.pick()
    shipped.require_engine(role, "predict.py")
    return role
