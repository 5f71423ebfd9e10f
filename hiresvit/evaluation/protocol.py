"""How pictures are answered when accuracy is measured: the papers' test protocols, by name.

An mIoU is a number of a network and of a protocol. The papers' are mmsegmentation's, at any size of picture; a network
for a device has one size, and what that changes is said in `Protocol.notes` (docs/protocols.md). Labels are never
resized: logits are, to each picture's own size, and then comes the argmax. Sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from typing import Protocol as Structural

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.preprocess import describe, placing, slide_size, stride_of
from hiresvit.errors import UsageError
from hiresvit.evaluation.passes import Passes
from hiresvit.models.zoo import find_model
from hiresvit.runtime.picture_runner import LabelMap, PictureRunner, TopClasses
from hiresvit.runtime.runner import Runner
from hiresvit.spec import ContractSpec, ModelSpec, PreprocessSpec, Task

OWN = "own"
SINGLE = (1.0,)
MOST_SCALE = 4.0
_CROP, _CITYSCAPES = (1024, 1024), (1024, 2048)
_FILTERS = {"pillow": "Pillow, antialiased", "opencv": "OpenCV, not antialiased"}


class Answerer(Structural):
    """What answers for a picture."""

    def predict(self, image: NDArray[np.uint8], /) -> LabelMap | TopClasses:
        """Answer for one uint8 (H, W, 3) RGB image; labels are of its own size."""


@dataclass(frozen=True)
class Protocol:
    """One protocol for one network.

    ``box`` is the (short side, long side) that a picture is scaled to fit into, whichever way it lies; None where it
    gets into the input as ``preprocess`` says. Windows of the network's ``size`` slide over what is larger than that;
    ``whole`` pictures are scaled to fit into it, too. ``notes`` say in what it departs from the papers'.
    """

    name: str
    task: Task
    size: tuple[int, int]
    preprocess: PreprocessSpec
    contract: str = "tensor"
    box: tuple[int, int] | None = None
    whole: bool = False
    flip: bool = False
    scales: tuple[float, ...] = SINGLE
    notes: tuple[str, ...] = ()

    @property
    def passes(self) -> int:
        """How often a picture is answered; more than once, and the answers are averaged."""
        return len(self.scales) * (1 + self.flip)

    @property
    def stride(self) -> tuple[int, int] | None:
        """How far apart windows are; None where none slide."""
        slides = self.preprocess.resize == "slide" or (self.box is not None and not self.whole)
        return stride_of(self.preprocess, self.size) if slides or self.scales != SINGLE else None

    def sizes(self, size: tuple[int, int], scale: float = 1.0) -> list[tuple[int, int]]:
        """What a picture of a size is resampled to, one after the other, at one of the scales.

        As mmcv scales: the limits are multiplied and cut to whole pixels (`MultiScaleFlipAug` of mmsegmentation 0.x),
        and the side that follows from the aspect ratio is rounded.
        """
        if self.preprocess.resize == "slide":
            height, width = (max(int(side * scale + 0.5), 1) for side in slide_size(size, self.preprocess, self.size))
            return [(height, width)]
        height, width = self.size if self.box is None else self.box if size[0] <= size[1] else self.box[::-1]
        if self.whole:
            height, width = min(height, self.size[0]), min(width, self.size[1])
        limits = max(int(height * scale), 1), max(int(width * scale), 1)
        if self.box is None:
            return placing(size, self.preprocess, limits).sizes
        divisor = self.preprocess.divisor
        kept = placing(size, replace(self.preprocess, divisor=1), limits).sizes[-1]
        return [kept, (-(-kept[0] // divisor) * divisor, -(-kept[1] // divisor) * divisor)]  # over a limit, as theirs

    def to_json(self, ignore: int | None = None) -> dict[str, Any]:
        """Plain JSON values; ``ignore`` is the data set's label of pixels that count for nothing, if it has one."""
        spec, stride = self.preprocess, self.stride
        return {
            "name": self.name,
            "size": list(self.size),
            "resize": spec.resize if stride is None else "slide",
            "filter": f"{spec.interpolation} by {_FILTERS[spec.filter]}",
            "scaled": self._scaled(),
            "stride": None if stride is None else list(stride),
            "flip": self.flip,
            "scales": list(self.scales),
            "ignore": ignore if self.task == "segment" else None,
            "labels": self._labels(),
            "notes": list(self.notes),
        }

    def _scaled(self) -> str:
        spec = self.preprocess
        said, _, normalised = describe(spec, self.size).partition("; ")
        if self.box is not None:
            up = f", each side up to a multiple of {spec.divisor}" if spec.divisor > 1 else ""
            into = f" and to fit into {_text(self.size)}" if self.whole else ""
            said = f"scaled to a short side of {self.box[0]} and a long one of at most {self.box[1]}{into}{up}"
            if self.whole:
                said += ", the rest filled with the mean at the right and the bottom"
        if self.scales != SINGLE:
            said += f"; that times {', '.join(f'{scale:g}' for scale in self.scales)}"
        if self.stride and (self.box is not None or self.scales != SINGLE):
            said += f"; windows of {_text(self.size)}, {_text(self.stride)} apart, their logits averaged"
            said += ", filled with the mean where the picture is smaller"
        return f"{said}; {normalised}"

    def _labels(self) -> str:
        if self.task == "classify":
            how = "probabilities of the picture and its mirror image are averaged" if self.flip else "one answer"
            return f"one class a picture; {how}"
        if self.contract != "tensor":
            way = "enlarged to the picture's size by the nearest" if self.contract == "image" else "taken as they are"
            return f"never resized; the network's labels are {way}"
        what = "logits are resized bilinearly to the picture's own size"
        if self.passes > 1:
            return f"never resized; {what}, there the softmax of {self.passes} answers is averaged, then the best class"
        return f"never resized; {what}, then the best class"


def find_protocol(
    name: str | None,
    spec: ModelSpec,
    contract: ContractSpec,
    *,
    flip: bool = False,
    scales: tuple[float, ...] = SINGLE,
) -> Protocol:
    """The protocol of a name for a network, None or "own" for what its spec says.

    Raises UsageError for a name that there is not, for one of another task, and for what a contract that brings its
    own preprocessing cannot do.
    """
    made = name or OWN
    if made not in PROTOCOLS:
        raise UsageError(f"--protocol {made}: there are {', '.join(PROTOCOLS)}")
    task, make = PROTOCOLS[made]
    if task is not None and spec.task != task:
        raise UsageError(f"--protocol {made} is for networks to {task}; {spec.name} is one to {spec.task}")
    asked = [f"--protocol {made}"] * (made != OWN) + ["--flip"] * flip + ["--scales"] * (scales != SINGLE)
    if contract.name != "tensor" and asked:
        raise UsageError(
            f"{asked[0]}: a graph with contract {contract.name} resizes and answers by itself; export it with"
            " --contract tensor to measure it by another protocol"
        )
    _check_scales(scales, spec)
    found = replace(make(spec), name=made, contract=contract.name, flip=flip, scales=scales)
    if scales == SINGLE:
        return found
    note = (
        "mmsegmentation's networks take a scaled picture of any size, this one sees it by windows of"
        f" {_text(found.size)}, filled where it is smaller"
    )
    return replace(found, notes=(*found.notes, note))


def _check_scales(scales: tuple[float, ...], spec: ModelSpec) -> None:
    shown = ",".join(f"{scale:g}" for scale in scales)
    if not scales or len(set(scales)) < len(scales) or not all(0 < scale <= MOST_SCALE for scale in scales):
        raise UsageError(f"--scales {shown}: give numbers over 0 and up to {MOST_SCALE:g}, each once: 0.75,1,1.25")
    if scales != SINGLE and spec.task != "segment":
        raise UsageError(f"--scales {shown}: for networks to segment; {spec.name} is one to {spec.task}")


def answerer(
    runner: Runner,
    spec: ModelSpec,
    contract: ContractSpec,
    protocol: Protocol,
    *,
    threads: int | None = None,
) -> Answerer:
    """What answers for pictures by a protocol. ``threads`` are those that make labels of logits.

    Raises UsageError if network, spec, contract and protocol do not fit together.
    """
    shown = replace(spec, preprocess=protocol.preprocess)
    pictures = PictureRunner(runner, shown, contract, threads=threads)
    if protocol.box is None and not protocol.flip and protocol.scales == SINGLE:
        return pictures
    return Passes(pictures, protocol.sizes, scales=protocol.scales, flip=protocol.flip)


def _own(spec: ModelSpec) -> Protocol:
    note = "the network's own preprocessing; published numbers are by a protocol that --protocol names"
    return _protocol(spec, spec.preprocess, note if spec.task == "segment" else "")


def _cityscapes_slide(spec: ModelSpec) -> Protocol:
    """HRViT's configs for Cityscapes, and SegFormer's: ``test_cfg=dict(mode="slide", ...)``."""
    note = (
        f"the papers' windows are 1024x1024, 768x768 apart; those of {_text(spec.imgsz)} show a network more or less of"
        " the street than it was trained on there"
    )
    return _protocol(spec, _mmcv(spec), "" if spec.imgsz == _CROP else note, box=_CITYSCAPES)


def _cityscapes_whole(spec: ModelSpec) -> Protocol:
    """mmsegmentation's ``test_cfg=dict(mode="whole")``."""
    by = min(mine / theirs for mine, theirs in zip(spec.imgsz, _CITYSCAPES, strict=True))
    note = (
        f"the papers' input is the whole 1024x2048; of a picture of that size {_text(spec.imgsz)} holds one of {by:.3g}"
        " times its height and width, in which small and far things are lost: it is no number of a paper"
    )
    return _protocol(spec, _mmcv(spec), note if by < 1 else "", box=_CITYSCAPES, whole=True)


def _ade20k_keep(spec: ModelSpec) -> Protocol:
    """HRViT's and LRFormer's configs for ADE20K: ``Resize(scale=(2048, 512), keep_ratio=True)``, the whole picture."""
    box = _ade20k(spec)
    note = (
        f"the papers' networks take a scaled picture whole; this one sees what is larger than {_text(spec.imgsz)} by"
        " windows, at the papers' scale and with nothing beyond a window's edge: it is no number of a paper;"
        " ade20k-fit shows it the whole, smaller"
    )
    return _protocol(spec, _mmcv(spec), note if min(spec.imgsz) < box[1] else "", box=box)


def _ade20k_fit(spec: ModelSpec) -> Protocol:
    short, long = box = _ade20k(spec)
    by = min(1, min(spec.imgsz[0], spec.imgsz[1] * 3 / 4) / short)
    note = (
        f"the papers' networks take a picture with its short side at {short}; {_text(spec.imgsz)} holds one of 3:4"
        f" at {by:.3g} times that, and the mean beside it: it is no number of a paper; ade20k-keep keeps the scale,"
        " by windows"
    )
    return _protocol(spec, _mmcv(spec), note if min(spec.imgsz) < long else "", box=box, whole=True)


def _ade20k(spec: ModelSpec) -> tuple[int, int]:
    """The short and the long side: 512 and 2048, and 640 and 2560 where 640 is what a network was trained at."""
    return (640, 2560) if min(spec.imgsz) == 640 else (512, 2048)


def _imagenet_center(spec: ModelSpec) -> Protocol:
    return _protocol(spec, _as_trained(find_model(spec.name).preprocess["classify"], spec))


def _protocol(
    spec: ModelSpec,
    preprocess: PreprocessSpec,
    note: str = "",
    *,
    box: tuple[int, int] | None = None,
    whole: bool = False,
) -> Protocol:
    return Protocol("", spec.task, spec.imgsz, preprocess, box=box, whole=whole, notes=(note,) if note else ())


def _mmcv(spec: ModelSpec) -> PreprocessSpec:
    """mmcv's ``Resize(keep_ratio=True)``, and LRFormer's ``AlignResize`` for that family."""
    divisor = find_model(spec.name).preprocess["segment"].divisor
    return _as_trained(PreprocessSpec("keep", filter="opencv", rounding="round", divisor=divisor), spec)


def _as_trained(wanted: PreprocessSpec, spec: ModelSpec) -> PreprocessSpec:
    """A protocol's resizing with the normalisation of the network at hand, which is no part of a protocol."""
    own = spec.preprocess
    return replace(wanted, mean=own.mean, std=own.std, channels=own.channels)


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


PROTOCOLS: Mapping[str, tuple[Task | None, Callable[[ModelSpec], Protocol]]] = {
    OWN: (None, _own),
    "cityscapes-slide": ("segment", _cityscapes_slide),
    "cityscapes-whole": ("segment", _cityscapes_whole),
    "ade20k-keep": ("segment", _ade20k_keep),
    "ade20k-fit": ("segment", _ade20k_fit),
    "imagenet-center": ("classify", _imagenet_center),
}
"""The task that each is for, and what makes it for a network."""
