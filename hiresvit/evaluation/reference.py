"""What a network's logits are in a contract's terms, computed apart from everything that a graph or a runner does.

Plain NumPy, whole arrays, no thought of speed: it is what graphs and runtimes are held to. PyTorch's own interpolation
and softmax give the same (tests/evaluation/test_reference.py).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.preprocess import (
    Region,
    example_input,
    preprocess,
    slide_picture,
    stride_of,
    valid_region,
    window_spec,
    windows,
)
from hiresvit.runtime.frame import picture_feed, reference_feed
from hiresvit.runtime.labels import nearest
from hiresvit.runtime.runner import Runner
from hiresvit.spec import ContractSpec, Feed, ModelSpec, is_raw

TENSOR = ContractSpec()
_TOP = 5  # classes that are named of logits, where no contract says how many


class Behind(Runner):
    """A network that takes and gives tensors, behind a contract: it takes and gives what a graph that has it does."""

    def __init__(self, network: Runner, spec: ModelSpec, contract: ContractSpec) -> None:
        self.inner, self.spec, self.contract = network, spec, contract
        self.inputs, self.outputs, self.about = network.inputs, network.outputs, network.about
        self.warnings, self.metadata = network.warnings, network.metadata

    def __call__(self, feeds: Feed) -> dict[str, NDArray[Any]]:
        """What the graph must give for one picture. Raises UsageError as `reference_feed` and the network do."""
        [name] = (tensor.name for tensor in self.inputs)
        [values] = reference_feed(feeds, self.spec, self.contract).values()
        return expected_outputs(self.inner({name: values}), self.spec, self.contract)

    def answer(self, picture: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """The answer for a uint8 RGB (H, W, 3) picture, as `answer_of`; of a slide from all its windows."""
        size = (picture.shape[0], picture.shape[1])
        if self.spec.preprocess.resize != "slide":
            return answer_of(self(picture_feed(picture, self.spec, self.contract)), size, self.spec, self.contract)
        if self.spec.task != "segment":
            return {}
        logits = self._slide(slide_picture(picture, self.spec.preprocess, self.spec.imgsz))
        whole = (logits.shape[1], logits.shape[2])
        return {"labels": _typed(_label(resize_logits(logits, size, Region(0, 0, *whole), whole))[0], self.spec)}

    def _slide(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The mean of the logits of all windows over a picture, (C, H, W)."""
        spec, (height, width) = self.spec, self.spec.imgsz
        shape = (picture.shape[0], picture.shape[1])
        total, count = np.zeros((spec.num_classes, *shape), np.float32), np.zeros(shape, np.float32)
        for top, left in windows(shape, spec.imgsz, stride_of(spec.preprocess, spec.imgsz)):
            rows, columns = slice(top, top + height), slice(left, left + width)
            feed = preprocess(picture[rows, columns], window_spec(spec.preprocess), spec.imgsz)
            logits = self.inner({self.inputs[0].name: feed})["logits"][0]
            total[:, rows, columns] += resize_logits(logits, spec.imgsz, Region(0, 0, *spec.imgsz), spec.imgsz)
            count[rows, columns] += 1
        return total / count

    def close(self) -> None:
        self.inner.close()


def expected_outputs(outputs: Feed, spec: ModelSpec, contract: ContractSpec) -> dict[str, NDArray[Any]]:
    """A contract's outputs, all with a batch of one, from those of the network, ``logits`` or ``features_...``.

    Labels and confidence come from logits that are resized to the contract's size.
    """
    if contract.name == "tensor" or is_raw(spec.task):
        return dict(outputs)
    kind = np.dtype(contract.label_type)
    if spec.task == "classify":
        classes, probabilities = _best(outputs["logits"][0], contract.top_k or _TOP)
        return {"classes": classes[None].astype(kind), "probabilities": probabilities[None]}
    size = contract.size or spec.imgsz
    region = valid_region(size, spec.preprocess, spec.imgsz) if contract.name == "camera" else Region(0, 0, *spec.imgsz)
    labels, confidence = _label(resize_logits(outputs["logits"][0], size, region, spec.imgsz))
    found = {"labels": labels[None].astype(kind)}
    return found | ({"confidence": confidence[None]} if contract.confidence else {})


def answer_of(outputs: Feed, size: tuple[int, int], spec: ModelSpec, contract: ContractSpec) -> dict[str, NDArray[Any]]:
    """What a graph's outputs say of one picture of a size; nothing for feature maps.

    ``labels`` (H, W) of the picture's size, of the contract's type, or uint8 (int32 above 256 classes) of logits.
    ``classes`` (k,) of the contract's type or int32, best first, and their ``probabilities`` (k,) float32.
    """
    if is_raw(spec.task):
        return {}
    if spec.task == "classify":
        if contract.name != "tensor":
            return {name: outputs[name][0] for name in ("classes", "probabilities")}
        classes, probabilities = _best(outputs["logits"][0], _TOP)
        return {"classes": classes.astype(np.int32), "probabilities": probabilities}
    region = valid_region(size, spec.preprocess, spec.imgsz)
    if contract.name == "tensor":
        labels, _ = _label(resize_logits(outputs["logits"][0], size, region, spec.imgsz))
        return {"labels": _typed(labels, spec)}
    seen = outputs["labels"][0]
    return {"labels": seen if contract.name == "camera" else nearest(seen, size, region)}


def picture_size(spec: ModelSpec, contract: ContractSpec) -> tuple[int, int]:
    """The size of pictures to look at: the camera's, else one of which one side has to shrink and the other to grow."""
    if contract.name == "camera" and contract.size is not None:
        return contract.size
    return spec.imgsz[0] * 5 // 4, max(spec.imgsz[1] * 3 // 4, 1)


def example_feed(picture: NDArray[np.uint8], spec: ModelSpec, contract: ContractSpec) -> dict[str, NDArray[Any]]:
    """`picture_feed`, and of a slide, which has no contract, the window in its middle."""
    if contract.name == "tensor":
        return {"image": example_input(picture, spec.preprocess, spec.imgsz)}
    return dict(picture_feed(picture, spec, contract))


def _typed(labels: NDArray[Any], spec: ModelSpec) -> NDArray[Any]:
    return labels.astype(np.uint8 if spec.num_classes <= 256 else np.int32)


def resize_logits(
    logits: NDArray[Any], size: tuple[int, int], region: Region, imgsz: tuple[int, int]
) -> NDArray[np.float32]:
    """Logits (C, h, w) over an input of ``imgsz``: of a region of it those at ``size``, float32 (C, H, W).

    Bilinear with half-pixel centres and repeated edges, where the edges are the region's.
    """
    rows = _taps(logits.shape[1], size[0], (region.top, region.height, imgsz[0]))
    columns = _taps(logits.shape[2], size[1], (region.left, region.width, imgsz[1]))
    top, bottom, down = rows
    left, right, across = columns
    found = np.empty((len(logits), *size), np.float32)
    for plane, into in zip(logits, found, strict=True):
        wide = plane[:, left].astype(np.float32) * (1 - across) + plane[:, right].astype(np.float32) * across
        np.copyto(into, wide[top] * (1 - down[:, None]) + wide[bottom] * down[:, None])
    return found


def _taps(
    source: int, target: int, place: tuple[int, int, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each target index two of the source and the second's weight; ``place``: start and length of a whole."""
    start, length, whole = place
    each = source / whole  # of a pixel of the input
    first, last = ((pixel + 0.5) * each - 0.5 for pixel in (start, start + length - 1))
    least = max(first, 0.0) if start else 0.0
    most = source - 1.0 if start + length == whole else max(last, 0.0)
    centres = (start + (np.arange(target) + 0.5) * length / target) * each - 0.5
    centres = np.clip(centres, least, most)
    below = np.floor(centres).astype(np.intp)
    return below, np.minimum(below + 1, source - 1), (centres - below).astype(np.float32)


def _label(logits: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """Of logits (C, H, W) the winner's number (of equals the lowest) and its probability in 255ths, halves up."""
    labels = logits.argmax(0)
    best = logits.max(0)
    total = np.zeros(best.shape, np.float64)
    for plane in logits:
        total += np.exp(np.float64(plane) - best)
    return labels, np.floor(255 / total + 0.5).astype(np.uint8)


def _best(logits: NDArray[Any], count: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The best classes of logits (C,), of equals the lowest first, and their softmax."""
    exact = logits.astype(np.float64)
    powers = np.exp(exact - exact.max())
    order = np.argsort(-exact, kind="stable")[:count]
    return order, (powers[order] / math.fsum(powers)).astype(np.float32)
