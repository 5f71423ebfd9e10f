"""What a contract's graph takes of a picture, and what its answer means for that picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.pixels import from_pixels, to_pixels
from hiresvit.data.preprocess import check_image, network_picture, preprocess, valid_region
from hiresvit.errors import UsageError
from hiresvit.runtime.labels import label_map, label_map_with_confidence, nearest
from hiresvit.spec import ContractSpec, Feed, ModelSpec

Picture = NDArray[np.uint8]


def picture_feed(image: Picture, spec: ModelSpec, contract: ContractSpec) -> Feed:
    """What a graph takes for a uint8 RGB (H, W, 3) picture: ``image``, or ``y`` and ``uv`` for NV12.

    Raises UsageError for a picture that is none, and for another size than the camera's.
    """
    check_image(image)
    if contract.name == "tensor":
        return {"image": preprocess(image, spec.preprocess, spec.imgsz)}
    if contract.name == "image":
        return to_pixels(network_picture(image, spec.preprocess, spec.imgsz), contract.pixels, contract.yuv)
    if image.shape[:2] != contract.size:
        height, width = contract.size or (0, 0)
        raise UsageError(f"picture is {image.shape[0]}x{image.shape[1]}; this is made for a camera of {height}x{width}")
    return to_pixels(image, contract.pixels, contract.yuv)


def reference_feed(feed: Feed, spec: ModelSpec, contract: ContractSpec) -> Feed:
    """What the network itself takes for a graph's feed: the pixels resized and normalised, by one picture a batch."""
    if contract.name == "tensor":
        return feed
    seen = from_pixels(feed, contract.pixels, contract.yuv)
    if contract.name == "camera":
        return {"image": preprocess(seen, spec.preprocess, spec.imgsz)}
    return {"image": preprocess(seen, replace(spec.preprocess, resize="stretch"), spec.imgsz)}


def labels_of(outputs: Feed, size: tuple[int, int], spec: ModelSpec, contract: ContractSpec) -> NDArray[Any]:
    """`label_maps`, the labels alone."""
    return label_maps(outputs, size, spec, contract)[0]


def label_maps(
    outputs: Feed,
    size: tuple[int, int],
    spec: ModelSpec,
    contract: ContractSpec,
    *,
    confidence: bool = False,
    threads: int | None = None,
) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """A segmentor's labels (H, W) for a picture of ``size``, and if asked its confidence, uint8.

    Of logits those of the part that shows the picture, resized bilinearly, and then the best; labels of the network's
    size are enlarged by the nearest, and so is their confidence; the camera's are taken as they are. A contract's
    graph has confidence or has not. Raises HiresvitError for logits that are NaN or Inf.
    """
    region = valid_region(size, spec.preprocess, spec.imgsz)
    if contract.name == "tensor":
        [logits] = outputs.values()
        if confidence:
            return label_map_with_confidence(logits[0], size, region, spec.imgsz, threads=threads)
        return label_map(logits[0], size, region, spec.imgsz, threads=threads), None
    maps = [outputs["labels"][0], *([outputs["confidence"][0]] if confidence else [])]
    if contract.name == "image":
        maps = [nearest(one, size, region) for one in maps]
    return maps[0], maps[1] if confidence else None
