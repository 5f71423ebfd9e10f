"""Contracts around small graphs, and what they must give: the picture through `hiresvit.runtime.frame` to the graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from graphs import Array, build, noise, run
from onnx import ModelProto
from PIL import Image
from tiny import tiny_spec

from hiresvit.export.contract import complete, contract_inputs, contract_outputs
from hiresvit.export.frame import apply_contract
from hiresvit.runtime.frame import picture_feed, reference_feed
from hiresvit.spec import ContractSpec, Feed, ModelSpec, PreprocessSpec

STRIDE = 4


def passing(spec: ModelSpec, batch: str = "1") -> ModelProto:
    """A graph whose one feature map is its input."""
    shape = f"float[{batch},3,{spec.imgsz[0]},{spec.imgsz[1]}]"
    return build(f"g ({shape} image) => ({shape} features_4) {{ features_4 = Identity(image) }}")


def passing_spec(preprocess: PreprocessSpec, imgsz: tuple[int, int] = (64, 96)) -> ModelSpec:
    return replace(tiny_spec("features", imgsz), strides=(STRIDE,), preprocess=preprocess)


def segmenting(spec: ModelSpec, *, stride: int = 1, batch: str = "1", opset: int = 20) -> ModelProto:
    """One convolution from pixels to classes, whose logits are as far apart as a network's."""
    (height, width), classes = spec.imgsz, spec.num_classes
    cells = f"{-(-height // stride)},{-(-width // stride)}"
    text = f"""g (float[{batch},3,{height},{width}] image) => (float[{batch},{classes},{cells}] logits)
        {{ logits = Conv<pads=[2,2,2,2],strides=[{stride},{stride}]>(image, weight, bias) }}"""
    constants = {"weight": noise(classes, 3, 5, 5) / 3, "bias": noise(classes, seed=1)}
    return build(text, constants, opset)


def picture(height: int, width: int, seed: int = 0) -> Array:
    """Blobs, edges and noise: every grey level, and steps as large as they can be."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int64)
    smooth[: height // 3] += generator.integers(-40, 40, (height // 3, width, 3))
    smooth[:, width // 2 : width // 2 + 3] = 255 * (generator.random((height, 3, 1)) > 0.5)
    return np.clip(smooth, 0, 255).astype(np.uint8)


def framed(model: ModelProto, spec: ModelSpec, contract: ContractSpec) -> tuple[ModelProto, ContractSpec]:
    """The graph with the contract, which is completed, too."""
    contract = complete(spec, contract)
    return apply_contract(model, spec, contract), contract


def answers(model: ModelProto, spec: ModelSpec, contract: ContractSpec, *images: Array) -> tuple[Feed, list[Feed]]:
    """What the graph says to a batch of pictures, held to its contract; and what the network is to see of each."""
    feeds = [picture_feed(image, spec, contract) for image in images]
    batch = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    wanted = {one.name: (one.dtype, one.shape) for one in contract_inputs(spec, contract, len(images))}
    assert {name: (str(value.dtype), value.shape) for name, value in batch.items()} == wanted
    found = dict(zip((value.name for value in model.graph.output), run(model, batch), strict=True))
    if spec.task != "features":
        wanted = {one.name: (one.dtype, one.shape) for one in contract_outputs(spec, contract, len(images))}
        assert {name: (str(value.dtype), value.shape) for name, value in found.items()} == wanted
    return found, [reference_feed(feed, spec, contract) for feed in feeds]


def logits_of(model: ModelProto, feed: Feed) -> dict[str, Any]:
    return {"logits": run(model, feed)[0]}
