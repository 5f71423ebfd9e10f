"""Labels behind a contract against Pillow and PyTorch, for networks that were really trained.

    python benchmarks/label_agreement.py --weights hrvit_b1=FILE --weights lrformer_t=FILE [--pictures 50]

Pictures of the scenes in ten sizes, written as PNG (every fifth as JPEG). The reference: the file by Pillow, resized
and normalised as the authors do, the model as it was trained, in PyTorch, `interpolate` of the logits that show the
picture, argmax. The other side: the file's pixels into the graph of contract `image` or `camera`, in FP32 and in FP16,
on ONNX Runtime. Of `image` the labels are of the network's size. `tensor` is the FP32 graph without a contract, given
and read as PyTorch's: what differs there is the order of sums, and no contract's doing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import ModelProto
from PIL import Image

from hiresvit.data.image import load_image
from hiresvit.data.preprocess import preprocess, valid_region
from hiresvit.data.scenes import sample_image
from hiresvit.export.contract import complete
from hiresvit.export.deployed import Deployed
from hiresvit.export.fp16 import to_fp16
from hiresvit.export.frame import apply_contract
from hiresvit.export.onnx import export_onnx
from hiresvit.export.simplify import simplify
from hiresvit.models.create import build_model, load_model_weights, model_spec
from hiresvit.models.fold import fold
from hiresvit.runtime.frame import picture_feed
from hiresvit.runtime.onnxruntime_runner import open_session
from hiresvit.spec import ContractSpec, ModelSpec

SIZES = [(512, 512), (720, 1280), (480, 640), (1080, 1920), (600, 400), (375, 500), (333, 777), (1024, 2048), (64, 96)]
SIZES += [(501, 301)]
NEEDED = {
    ("tensor", "fp32"): 1.0,
    ("image", "fp32"): 1.0,
    ("camera", "fp32"): 0.9999,
    ("image", "fp16"): 0.995,
    ("camera", "fp16"): 0.995,
}


def write_pictures(folder: Path, count: int) -> list[Path]:
    paths = []
    for seed in range(count):
        image = Image.fromarray(sample_image(seed, *SIZES[seed % len(SIZES)]))
        paths.append(folder / f"{seed}.{'png' if seed % 5 else 'jpg'}")
        image.save(paths[-1], quality=90)
    return paths


def torch_labels(network: Deployed, spec: ModelSpec, pixels: NDArray[np.uint8], contract: str) -> NDArray[Any]:
    """The way from a file's pixels that a user of PyTorch goes."""
    size = (pixels.shape[0], pixels.shape[1])
    with torch.inference_mode():
        logits = network(torch.from_numpy(preprocess(pixels, spec.preprocess, spec.imgsz)))
        assert isinstance(logits, torch.Tensor)
        if contract == "camera":
            top, left, height, width = valid_region(size, spec.preprocess, spec.imgsz)
            shown = logits[:, :, top : top + height, left : left + width]
            logits = F.interpolate(shown, size=size, mode="bilinear", align_corners=False)
        return np.asarray(logits.argmax(1)[0].numpy())


def graphs(name: str, weights: Path) -> tuple[Deployed, ModelSpec, dict[str, ModelProto]]:
    spec = model_spec(name, "segment", (512, 512))
    model = build_model(spec)
    load_model_weights(model, spec, weights)
    simple, _ = simplify(export_onnx(fold(model), spec))
    half, _ = to_fp16(simple)
    return Deployed(model, spec).eval(), spec, {"fp32": simple, "fp16": half}


def compare(name: str, weights: Path, paths: list[Path]) -> None:
    network, spec, found = graphs(name, weights)
    # What is filled has the grey level nearest to the mean in uint8 pixels, and exactly 0 as a tensor: with `image`
    # both sides get the pixels.
    stretched = replace(spec, preprocess=replace(spec.preprocess, resize="stretch"))
    by_size: dict[tuple[int, ...], list[Path]] = defaultdict(list)
    for number, path in enumerate(paths):
        by_size[SIZES[number % len(SIZES)]].append(path)
    plain = open_session(found["fp32"].SerializeToString())
    shares: dict[tuple[str, str], list[float]] = defaultdict(list)
    for contract in ("image", "camera"):
        for size, some in by_size.items():
            asked = ContractSpec(contract, size=(size[0], size[1]) if contract == "camera" else None)
            full = complete(spec, asked)
            made = {
                stage: open_session(apply_contract(graph, spec, full).SerializeToString())
                for stage, graph in found.items()
            }
            for path in some:
                pixels = np.asarray(Image.open(path).convert("RGB"))
                feed = picture_feed(load_image(path), spec, full)
                seen = feed["image"][0] if contract == "image" else pixels
                expected = torch_labels(network, stretched if contract == "image" else spec, seen, contract)
                for stage, session in made.items():
                    [labels] = session.run(["labels"], dict(feed))
                    shares[contract, stage].append(float(np.mean(labels[0] == expected)))
                if contract == "image":
                    [logits] = plain.run(None, {"image": preprocess(seen, stretched.preprocess, spec.imgsz)})
                    shares["tensor", "fp32"].append(float(np.mean(logits.argmax(1)[0] == expected)))
            del made
    for key, values in shares.items():
        worst, mean = min(values), float(np.mean(values))
        equal = sum(value == 1 for value in values)
        held = "ok" if mean >= NEEDED[key] else "MISSED"
        print(
            f"{name:12} {key[0]:7} {key[1]}: mean {100 * mean:.5f} %, worst {100 * worst:.4f} %, {equal} of"
            f" {len(values)} pictures without one other pixel; {100 * NEEDED[key]:g} % asked: {held}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", action="append", required=True, metavar="MODEL=FILE")
    parser.add_argument("--pictures", type=int, default=50)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hiresvit-") as folder:
        paths = write_pictures(Path(folder), asked.pictures)
        for text in asked.weights:
            name, _, file = text.partition("=")
            compare(name, Path(file), paths)


if __name__ == "__main__":
    main()
