"""What a contract's graph takes of a picture, and what its answer means for that picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.pixels import from_pixels, to_pixels
from hiresvit.data.preprocess import check_image, network_picture, preprocess, valid_region
from hiresvit.errors import UsageError
from hiresvit.runtime.labels import label_map, nearest
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
    """A segmentor's labels (H, W) for a picture of ``size``.

    Of logits those of the part that shows the picture, resized bilinearly, and then the best; labels of the network's
    size are enlarged by the nearest; the camera's are taken as they are.
    """
    region = valid_region(size, spec.preprocess, spec.imgsz)
    if contract.name == "tensor":
        return label_map(outputs["logits"][0], size, region, spec.imgsz)
    labels: NDArray[Any] = outputs["labels"][0]
    return labels if contract.name == "camera" else nearest(labels, size, region)
