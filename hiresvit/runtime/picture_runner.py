"""A runner that takes pictures and gives labels, classes or boxes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.preprocess import check_preprocess, slide_picture, stride_of, valid_region, window_spec, windows
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.models.zoo import require_confidence
from hiresvit.runtime.boxes import Boxes, find_boxes
from hiresvit.runtime.frame import label_maps, picture_feed
from hiresvit.runtime.labels import check_finite
from hiresvit.runtime.runner import Runner
from hiresvit.runtime.slide import slide_labels
from hiresvit.spec import ContractSpec, Feed, ModelSpec, is_raw

_TOP = 5
Picture = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class LabelMap:
    """``labels`` (H, W) at the picture's own size: uint8, int32 above 256 classes, or as the contract says.

    ``confidence`` is how probable each is, uint8 (H, W), 255 for certain; None where it was not asked for.
    """

    labels: NDArray[Any]
    confidence: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class TopClasses:
    """``top``: (class index, probability), best first, of equals the lowest."""

    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture's size and what the network takes of it; of one that windows slide over, the picture itself."""

    size: tuple[int, int]
    feed: Feed | None
    slid: Picture | None = None


class PictureRunner:
    """Prepare, run, read the answer: three steps, or `answer` for all of them.

    ``stride`` makes windows slide over pictures whatever the spec says. The network is run by one thread at a time,
    the other steps by any. Raises UsageError if network, spec, contract and options do not fit together.
    """

    def __init__(
        self,
        runner: Runner,
        spec: ModelSpec,
        contract: ContractSpec | None = None,
        *,
        top_k: int = _TOP,
        confidence: bool = False,
        stride: tuple[int, int] | None = None,
        threads: int | None = None,
    ) -> None:
        self.runner, self.contract = runner, contract or ContractSpec()
        if stride is not None:
            spec = replace(spec, preprocess=replace(spec.preprocess, resize="slide", stride=stride))
        self.spec, self.top_k, self.confidence, self.threads = spec, top_k, confidence, threads
        self._lock = threading.Lock()
        self._check_options()
        self._check_sides()

    @property
    def slides(self) -> bool:
        """Whether windows slide over pictures."""
        return self.spec.preprocess.resize == "slide"

    def predict(self, image: Picture) -> LabelMap | TopClasses:
        """Labels or classes for one uint8 (H, W, 3) RGB image, as `answer`; what is measured against labels takes them.

        Raises UsageError for a detector.
        """
        if self.spec.anchors is not None:
            raise UsageError(f"{self.spec.name} answers with boxes and not with labels or classes")
        found = self.answer(image)
        assert not isinstance(found, Boxes)  # `read` makes them of anchors alone
        return found

    def answer(self, image: Picture) -> LabelMap | TopClasses | Boxes:
        """Answer for one uint8 (H, W, 3) RGB image.

        The logits of the part of the input that shows the image are resized bilinearly to the image's size, and only
        then comes the argmax: the heads answer at stride 4 or 8, labels enlarged from there have staircase borders, and
        it is how mmseg computes the published mIoU. Raises HiresvitError if the network returns NaN or Inf.
        """
        prepared = self.prepare(image)
        return self.read(prepared, self.run(prepared))

    def prepare(self, image: Picture) -> Prepared:
        """The network's input. Raises UsageError for what is no picture, or has another size than the contract's."""
        if not self.slides:
            feed = picture_feed(image, self.spec, self.contract)
            return Prepared((image.shape[0], image.shape[1]), feed)
        slid = slide_picture(image, self.spec.preprocess, self.spec.imgsz)
        return Prepared((image.shape[0], image.shape[1]), None, slid)

    def run(self, prepared: Prepared) -> Feed | LabelMap:
        """The network's outputs, by one thread at a time; of a picture that windows slide over already the labels."""
        with self._lock:
            if prepared.slid is not None:
                return self._slide(prepared.slid, prepared.size)
            assert prepared.feed is not None  # `prepare` makes one of the two
            return self.outputs(prepared.feed)

    def read(self, prepared: Prepared, outputs: Feed | LabelMap) -> LabelMap | TopClasses | Boxes:
        """What outputs say about the picture. Raises HiresvitError if they are NaN or Inf."""
        if isinstance(outputs, LabelMap):
            return outputs
        if self.spec.task == "classify":
            return TopClasses(self._top(outputs))
        size, spec = prepared.size, self.spec
        try:
            if spec.anchors is not None:
                return find_boxes(outputs, spec.anchors, size, valid_region(size, spec.preprocess, spec.imgsz))
            found = label_maps(outputs, size, spec, self.contract, confidence=self.confidence, threads=self.threads)
        except HiresvitError as error:
            raise HiresvitError(f"{spec.name}: {error}") from error
        return LabelMap(*found)

    def close(self) -> None:
        """Let go of the network, as soon as nobody is in a call of it."""
        with self._lock:
            self.runner.close()

    def _slide(self, picture: Picture, size: tuple[int, int]) -> LabelMap:
        spec, (height, width) = self.spec, self.spec.imgsz
        shown = replace(spec, preprocess=window_spec(spec.preprocess))

        def logits_at(top: int, left: int) -> NDArray[Any]:
            window = picture[top : top + height, left : left + width]
            [logits] = self.outputs(picture_feed(window, shown, self.contract)).values()
            found: NDArray[Any] = logits[0]
            return found

        whole = (picture.shape[0], picture.shape[1])
        placed = windows(whole, spec.imgsz, stride_of(spec.preprocess, spec.imgsz))
        sizes = (spec.imgsz, whole, size)
        options: dict[str, Any] = {"confidence": self.confidence, "threads": self.threads}
        try:
            return LabelMap(*slide_labels(logits_at, placed, sizes, spec.num_classes, **options))
        except HiresvitError as error:
            raise HiresvitError(f"{spec.name}: {error}") from error

    def outputs(self, feed: Feed) -> Feed:
        """The network's outputs, of the shapes that spec and contract say, else UsageError; by one thread at a time."""
        if self.contract.name != "tensor":
            return self.runner(feed)
        spec = self.spec
        [values] = feed.values()
        outputs = self.runner({self.runner.inputs[0].name: values})  # a tensor's name is the graph's own business
        if spec.anchors is not None:
            return outputs
        [logits] = (outputs[tensor.name] for tensor in self.runner.outputs)
        rank = 2 if spec.task == "classify" else 4
        if logits.ndim != rank or logits.shape[:2] != (1, spec.num_classes):
            want = f"(1, {spec.num_classes}{', h, w' if rank == 4 else ''})"
            raise UsageError(f"{spec.name}: the network returned {logits.shape}; its spec says {want}")
        return {"logits": logits}

    def _top(self, outputs: Feed) -> tuple[tuple[int, float], ...]:
        if self.contract.name != "tensor":
            pairs = zip(outputs["classes"][0].tolist(), outputs["probabilities"][0].tolist(), strict=True)
            return tuple(pairs)[: self.top_k]
        return self.ranked(self.probabilities(outputs))

    def probabilities(self, outputs: Feed) -> NDArray[np.float64]:
        """The softmax (C,) of a classifier's logits. Raises HiresvitError if they are NaN or Inf."""
        [logits] = outputs["logits"].astype(np.float64)
        try:
            check_finite(logits)
        except HiresvitError as error:
            raise HiresvitError(f"{self.spec.name}: {error}") from error
        probable: NDArray[np.float64] = np.exp(logits - logits.max())
        probable /= probable.sum()
        return probable

    def ranked(self, probable: NDArray[np.float64]) -> tuple[tuple[int, float], ...]:
        """The ``top_k`` classes of probabilities (C,), best first, of equals the lowest."""
        best = np.argsort(-probable, kind="stable")[: self.top_k]  # stable: of equals the lowest index comes first
        return tuple((int(i), float(probable[i])) for i in best)

    def _check_options(self) -> None:
        spec, contract = self.spec, self.contract
        if is_raw(spec.task) and spec.anchors is None:
            raise UsageError(
                f"{spec.name}: raw {spec.task} are no answer to draw; export the model for a task with one, as --task"
                " segment"
            )
        if spec.task == "segment" and spec.preprocess.resize == "crop":
            raise UsageError(f"{spec.name}: resize=crop leaves pixels without a label; segmentation stretches or keeps")
        if self.top_k < 1:
            raise UsageError(f"top_k {self.top_k}: give at least 1")
        if self.confidence and spec.task != "segment":
            raise UsageError(f"{spec.name}: confidence is of labels; the classes of a classifier have probabilities")
        if self.confidence:
            require_confidence(spec)
        if self.confidence and contract.name != "tensor" and not contract.confidence:
            raise UsageError(f"{spec.name}: no confidence comes out of this graph; export it with --confidence")
        if not self.slides:
            return
        if spec.task != "segment" or contract.name != "tensor":
            raise UsageError(f"{spec.name}: windows slide for a segmentor of contract tensor, this is another")
        stride_of(spec.preprocess, spec.imgsz)
        check_preprocess(spec.preprocess)

    def _check_sides(self) -> None:
        """Raise UsageError unless the runner has the inputs and outputs of the contract."""
        sides = tuple([tensor.name for tensor in side] for side in (self.runner.inputs, self.runner.outputs))
        name, spec = self.contract.name, self.spec
        if spec.anchors is not None:
            wanted = {f"{kind}_{stride}" for kind in ("logits", "deltas") for stride in spec.anchors.strides}
            if len(sides[0]) != 1 or set(sides[1]) != wanted:
                raise UsageError(f"{spec.name}: boxes are made of {', '.join(sorted(wanted))}, and not of {sides[1]}")
            return
        if name == "tensor":
            if len(sides[0]) != 1 or len(sides[1]) != 1:
                said = f"{len(sides[0])} inputs and {len(sides[1])} outputs"
                raise UsageError(f"{spec.name}: the network has {said}; a predictor takes one of each")
            return
        wanted = {"labels"} if spec.task == "segment" else {"classes", "probabilities"}
        if missing := wanted - set(sides[1]):
            raise UsageError(f"{spec.name}: contract {name} gives {', '.join(sorted(missing))}, and not {sides[1]}")
