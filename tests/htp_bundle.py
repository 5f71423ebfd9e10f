"""A bundle with two forms for Qualcomm's HTP, of a network that the emulator runs in an instant."""

from __future__ import annotations

from pathlib import Path

import onnx
from graphs import build, copied, noise, run
from lost_transpose import with_qdq

from hiresvit.bundle.folder import writing_bundle
from hiresvit.bundle.golden import write_golden
from hiresvit.bundle.manifest import Manifest, Weights, list_files, write_manifest
from hiresvit.bundle.stages import STAGES
from hiresvit.data.preprocess import example_input
from hiresvit.data.scenes import sample_images
from hiresvit.export.contract import input_spec, stamp
from hiresvit.models.create import model_spec
from hiresvit.spec import ModelSpec, TensorSpec

SPEC: ModelSpec = model_spec("hrvit_b1", "segment", (64, 96))  # with the classes of the scenes
CLASSES = SPEC.num_classes
_GRAPH = f"""g (float[1,3,64,96] image) => (float[1,{CLASSES},16,24] logits) {{
    a = Conv<kernel_shape = [4, 4], strides = [4, 4]>(image, stem)
    b = Relu(a)
    logits = Conv<kernel_shape = [1, 1]>(b, head)
}}"""


def make_bundle(target: Path, *forms: str) -> Path:
    """The graph as it is exported, and as the ``htp_fp16`` and ``htp_a16w8`` of ``forms``; `SPEC` is its model's."""
    plain = build(_GRAPH, {"stem": noise(16, 3, 4, 4) * 0.2, "head": noise(CLASSES, 16, 1, 1) * 0.3})
    for node in plain.graph.node:
        node.name = f"net.{node.output[0]}/{node.op_type}"
    weights = Weights("hrvit_b1.pth.tar", "ab" * 32)
    with writing_bundle(target, force=False) as folder:
        for role in ("fp32", "simplified", *forms):
            graph = with_qdq(plain) if role == "htp_a16w8" else copied(plain)
            stamp(graph, SPEC, role)
            onnx.save(graph, folder / STAGES[role].file)
        [picture] = sample_images(1, SPEC.imgsz)
        image = example_input(picture, SPEC.preprocess, SPEC.imgsz)
        write_golden(folder / "golden.npz", {"image": image}, {"logits": run(plain, {"image": image})[0]})
        manifest = Manifest(
            spec=SPEC,
            inputs=(input_spec(SPEC),),
            outputs=(TensorSpec("logits", "float32", (1, CLASSES, 16, 24)),),
            weights=weights,
            files=list_files(folder, weights),
            tools={},
            command=["hiresvit", "export"],
            parity=None,
        )
        write_manifest(folder, manifest)
    return target
