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
from hiresvit.runtime.picture_runner import LabelMap, PictureRunner, TopClasses
from hiresvit.runtime.runner import Runner
from hiresvit.spec import ContractSpec, ModelSpec, PreprocessSpec, Task

OWN = "own"
SINGLE = (1.0,)
MOST_SCALE = 4.0
_SCALED = (
    "scaled pictures are seen by windows of the network's size, filled with the mean where the picture ends before one;"
    " the papers' networks take each whole"
)
_FILTERS = {"pillow": "Pillow, antialiased", "opencv": "OpenCV, not antialiased"}


class Answerer(Structural):
    """What answers for a picture."""

    def predict(self, image: NDArray[np.uint8], /) -> LabelMap | TopClasses:
        """Answer for one uint8 (H, W, 3) RGB image; labels are of its own size."""


@dataclass(frozen=True)
class Protocol:
    """One protocol for one network.

    ``box`` is the (short side, long side) that a picture is scaled to fit into, whichever way it lies, before windows
    of the network's ``size`` slide over it; None where a picture gets into the input as ``preprocess`` says.
    ``notes`` say in what it departs from the papers'.
    """

    name: str
    task: Task
    size: tuple[int, int]
    preprocess: PreprocessSpec
    contract: str = "tensor"
    box: tuple[int, int] | None = None
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
        if self.box is None and self.preprocess.resize != "slide" and self.scales == SINGLE:
            return None
        return stride_of(self.preprocess, self.size)

    def sizes(self, size: tuple[int, int], scale: float = 1.0) -> list[tuple[int, int]]:
        """What a picture of a size is resampled to, one after the other, at one of the scales.

        As mmcv scales: the limits are multiplied and cut to whole pixels (`MultiScaleFlipAug` of mmsegmentation 0.x),
        and the side that follows from the aspect ratio is rounded.
        """
        if self.preprocess.resize == "slide":
            height, width = (max(int(side * scale + 0.5), 1) for side in slide_size(size, self.preprocess, self.size))
            return [(height, width)]
        box = self.size if self.box is None else self.box if size[0] <= size[1] else self.box[::-1]
        return placing(size, self.preprocess, (max(int(box[0] * scale), 1), max(int(box[1] * scale), 1))).sizes

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
            "ignore": ignore,
            "labels": self._labels(),
            "notes": list(self.notes),
        }

    def _scaled(self) -> str:
        spec = self.preprocess
        if self.box is None:
            said = describe(spec, self.size)
        else:
            up = f", each side up to a multiple of {spec.divisor}" if spec.divisor > 1 else ""
            window, step = (f"{height}x{width}" for height, width in (self.size, stride_of(spec, self.size)))
            said = (
                f"scaled to a short side of at most {self.box[0]} and a long one of at most {self.box[1]}{up}; windows"
                f" of {window}, {step} apart, their logits averaged, and the mean where the picture ends before one"
            )
        if self.scales != SINGLE:
            said += f"; that times {', '.join(f'{scale:g}' for scale in self.scales)}, by windows"
        return said

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
    return found if scales == SINGLE else replace(found, notes=(*found.notes, _SCALED))


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
    return Protocol(OWN, spec.task, spec.imgsz, spec.preprocess)


PROTOCOLS: Mapping[str, tuple[Task | None, Callable[[ModelSpec], Protocol]]] = {
    OWN: (None, _own),
}
"""The task that each is for, and what makes it for a network."""
