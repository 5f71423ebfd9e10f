"""Small bundles to write, to damage and to read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hiresvit.bundle.folder import writing_bundle
from hiresvit.bundle.golden import write_golden
from hiresvit.bundle.manifest import FileEntry, Manifest, Weights, list_files, write_manifest
from hiresvit.spec import ModelSpec, PreprocessSpec, TensorSpec

WEIGHTS = Weights("hrvit_b1.pth.tar", "ab" * 32)
CHAIN = ("fp32.onnx", "simplified.onnx", "fp16.onnx", "fp16.plan")  # each made from the one before
ALL_NAMES = ["fp16.onnx", "fp16.plan", "fp32.onnx", "golden.npz", "manifest.json", "simplified.onnx"]
Values = dict[str, Any]


def manifest_of(*files: FileEntry, weights: Weights = WEIGHTS) -> Manifest:
    return Manifest(
        spec=ModelSpec("hrvit_b1", "hrvit", "segment", (512, 512), 19, PreprocessSpec(), (("windows", (1, 2)),)),
        inputs=(TensorSpec("image", "float32", (1, 3, 512, 512)),),
        outputs=(TensorSpec("logits", "float32", ("batch", 19, 128, 128)),),
        weights=weights,
        files=files,
        tools={"torch": "2.13.0"},
        command=["hiresvit", "export", "hrvit_b1", "-o", "sch\u00f6n"],
        parity={"images": 1, "stages": [{"stage": "fp16", "gate": None, "report": {"outputs": []}}]},
    )


def fill(folder: Path, content: bytes = b"graph") -> None:
    """A whole bundle: each file made from the one before, the first and the golden pair from the weights."""
    for name in CHAIN:
        (folder / name).write_bytes(content + name.encode())
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    write_golden(folder / "golden.npz", {"image": image}, {"logits": image[:, :1] + 1})
    write_manifest(folder, manifest_of(*list_files(folder, WEIGHTS)))


def make(target: Path, *, force: bool = False, content: bytes = b"graph") -> Path:
    with writing_bundle(target, force=force) as folder:
        fill(folder, content)
    return target


def snapshot(folder: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in folder.iterdir()}


def edit(folder: Path, change: Callable[[Values], object]) -> None:
    """Change a manifest and seal it again by the documented rule, as somebody who knows it would."""
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    values["manifest_sha256"] = "0" * 64
    text = json.dumps(values, indent=2)
    path.write_text(text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest()))
