"""`hiresvit.Predictor`: a bundle, and an answer for each picture."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiresvit.bundle.stages import PLANS, STAGES
from hiresvit.data.dataset import Labels
from hiresvit.data.image import from_pillow, load_image
from hiresvit.data.labels import assumption, find_labels
from hiresvit.data.preprocess import check_image
from hiresvit.data.video import read_video
from hiresvit.device.platform import has_driver
from hiresvit.errors import HiresvitError, MissingDependency, UsageError
from hiresvit.models.zoo import names_checkpoint
from hiresvit.runtime.boxes import Boxes
from hiresvit.runtime.picture_runner import LabelMap, PictureRunner, Prepared, TopClasses
from hiresvit.workflows.ahead import Ahead
from hiresvit.workflows.answer import Answer, Classification, Detection, Ranked, Segmentation
from hiresvit.workflows.open import Source, open_source

if TYPE_CHECKING:
    from typing_extensions import Self

Picture: TypeAlias = "str | Path | Image.Image | NDArray[np.uint8]"
_AUTO = "auto"
_CPU_HINT = "computed on the CPU; --graph "  # what `open_source` advises on a command line


@dataclass(frozen=True, eq=False)
class Frame:
    """One answer of a stream.

    ``index`` is the frame's number in its source, from 0 on, and ``dropped`` how many were left out so far. Times are
    in milliseconds: ``prepare_ms`` in a thread of its own, ``network_ms``, ``answer_ms`` from outputs to labels, and
    ``frame_ms`` from when the source gave the frame until its answer was there, waiting included. Where the network is
    emulated ``network_ms`` and ``frame_ms`` are NaN: they would say nothing of the device.
    """

    answer: Answer
    index: int
    dropped: int
    prepare_ms: float
    network_ms: float
    answer_ms: float
    frame_ms: float


class Predictor:
    """Answers for pictures: ``predictor(picture)``. Close it, or use it in a ``with`` block.

    ``bundle`` is a bundle's folder, an ``.onnx`` graph or a plan, and brings its own preprocessing, contract and names
    of classes. ``runner="auto"`` takes a bundle's plan where there are an NVIDIA driver and TensorRT, and else the
    graph that is the fastest on a CPU; ``notes`` say what was taken, and what else is to be known. Another ``runner``
    is one of `hiresvit.open_runner`, and ``graph`` one of the bundle's files by its role, as ``fp16`` or ``int8``.

    ``threads`` are the most that a graph on the CPU takes. ``top_k`` is how many classes a classification names, or as
    many as come out of a graph whose contract says it. ``confidence`` asks for a map of it, which a contract's graph
    has or has not. ``slide=(height, width)`` makes windows of the network's size slide over pictures, so far apart,
    whatever the bundle says. ``replay=False`` leaves out the bundle's golden pair, which else has to come out first.

    It may be called by several threads: the network serves one after the other.

    Raises UsageError for what does not fit together, ArtefactError for what is damaged or of another machine,
    MissingDependency for a library or a device that is not here, HiresvitError for what is not there.
    """

    def __init__(
        self,
        bundle: str | Path,
        runner: str = _AUTO,
        *,
        graph: str | None = None,
        threads: int | None = None,
        top_k: int = 5,
        confidence: bool = False,
        slide: tuple[int, int] | None = None,
        replay: bool = True,
    ) -> None:
        source, said = _open(Path(bundle), runner, graph=graph, threads=threads, replay=replay)
        try:
            self._take(source, None, top_k=top_k, confidence=confidence, stride=slide, threads=threads)
        except BaseException:
            source.runner.close()
            raise
        about = source.runner.about
        took = f"{source.label}, by {about.backend} {about.version} on {about.device}"
        named = assumption(self.labels)
        notes = (note for note in source.notes if not note.startswith(_CPU_HINT))
        self.notes: tuple[str, ...] = (took, *said, *notes, *([named.partition("; --")[0]] if named else []))

    @classmethod
    def of_source(cls, source: Source, labels: Labels | None = None, **options: Any) -> Self:
        """One of what is open already, with other names of its classes if they are given; closing it closes that.

        ``options`` are `PictureRunner`'s. Raises UsageError if it does not say what its answers mean.
        """
        made = cls.__new__(cls)
        made._take(source, labels, **options)
        made.notes = source.notes
        return made

    def _take(self, source: Source, labels: Labels | None, **options: Any) -> None:
        if source.spec is None:
            raise UsageError(f"{source.label} does not say what its answers mean; give one that hiresvit exported")
        self.spec, self.contract = source.spec, source.contract
        self.labels = find_labels(source.spec, None, labels or source.labels)
        self._network: PictureRunner | None = PictureRunner(source.runner, source.spec, source.contract, **options)

    @overload
    def __call__(self, picture: str | Path | Image.Image) -> Answer: ...
    @overload
    def __call__(self, picture: NDArray[np.uint8]) -> Any: ...
    @overload
    def __call__(self, picture: list[Any] | tuple[Any, ...]) -> list[Answer]: ...
    def __call__(self, picture: Any) -> Any:
        """The answer for a picture, or a list of answers for a sequence or an array (N, H, W, 3) of them.

        A picture is the path of one (see `load_image`), a PIL image, or an array, uint8 (H, W, 3) RGB of any strides;
        those of a sequence may differ in size. Raises UsageError for what is none of these, for another size than the
        contract's camera has and for a predictor that is closed, HiresvitError for a file that cannot be read and for
        a network that returns NaN or Inf.
        """
        if isinstance(picture, list | tuple) or (isinstance(picture, np.ndarray) and picture.ndim == 4):
            return [self._answer(as_array(one)) for one in picture]
        return self._answer(as_array(picture))

    def stream(
        self, source: int | str | Path | Iterable[Picture], *, drop: bool = False
    ) -> Generator[Frame, None, None]:
        """An answer for each frame of a camera, a video file or any iterable of pictures, in order.

        A number is a camera's and a path a video's, for which OpenCV or PyAV must be installed. A thread fetches and
        prepares the next frame while the network runs; with ``drop`` another one fetches, and of frames that come
        while none can be taken only the newest is answered. Closing the iterator ends the threads. Raises
        MissingDependency at once if a library is missing; whatever the source raises, and what a call raises, with the
        frame that it is about.
        """
        self._open_network()
        opened = read_video(source) if isinstance(source, int | str | Path) else None
        return self._frames(source if opened is None else opened, opened, drop)  # type: ignore[arg-type]

    def _frames(
        self, source: Iterable[Picture], opened: Iterator[Any] | None, drop: bool
    ) -> Generator[Frame, None, None]:
        newest = Ahead(_numbered(source), newest=True) if drop else None
        ready = Ahead(self._prepared(newest if newest is not None else _numbered(source)))
        try:
            for index, arrived, began, image, prepared in ready:
                network = self._open_network()
                start = time.perf_counter()
                outputs = network.run(prepared)
                ran = time.perf_counter()
                answer = self._named(image, network.read(prepared, outputs))
                end = time.perf_counter()
                dropped = newest.dropped if newest is not None else 0
                spans = (began, ran - start, end - ran, end - arrived)
                prepare_ms, network_ms, answer_ms, frame_ms = (1e3 * span for span in spans)
                if network.runner.about.emulated:
                    network_ms = frame_ms = math.nan
                yield Frame(answer, index, dropped, prepare_ms, network_ms, answer_ms, frame_ms)
        finally:
            for one in (newest, ready):
                if one is not None:
                    one.close()
            if opened is not None:
                with suppress(ValueError):  # a thread is still in it: a camera that does not come back
                    opened.close()  # type: ignore[attr-defined]

    def _prepared(
        self, frames: Iterable[tuple[int, float, Picture]]
    ) -> Iterator[tuple[int, float, float, NDArray[np.uint8], Prepared]]:
        for index, arrived, picture in frames:
            began = time.perf_counter()
            image = as_array(picture)
            prepared = self._open_network().prepare(image)
            yield index, arrived, time.perf_counter() - began, image, prepared

    def _answer(self, image: NDArray[np.uint8]) -> Answer:
        return self._named(image, self._open_network().answer(image))

    def _named(self, image: NDArray[np.uint8], found: LabelMap | TopClasses | Boxes) -> Answer:
        if isinstance(found, LabelMap):
            return Segmentation(image, found.labels, found.confidence, self.labels)
        if isinstance(found, Boxes):
            return Detection(image, found.boxes, found.scores, found.classes, self.labels)
        return Classification(tuple(Ranked(k, self.labels.names[k], p) for k, p in found.top))

    def _open_network(self) -> PictureRunner:
        if self._network is None:
            raise UsageError("this predictor is closed; make another one")
        return self._network

    def close(self) -> None:
        """Let go of the network, behind the call that it is in; closing again is no error, calling is."""
        network, self._network = self._network, None
        if network is not None:
            network.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def as_array(picture: Any) -> NDArray[np.uint8]:
    """A picture as uint8 (H, W, 3) RGB. Raises UsageError for what is none, HiresvitError for an unreadable file."""
    if isinstance(picture, str | Path):
        return load_image(picture)
    if isinstance(picture, Image.Image):
        return from_pillow(picture)
    if not isinstance(picture, np.ndarray):
        kind = type(picture).__name__
        raise UsageError(f"picture is a {kind}; give a path, a PIL image or a uint8 array (height, width, 3) RGB")
    check_image(picture)
    return np.ascontiguousarray(picture)


def _numbered(source: Iterable[Picture]) -> Iterator[tuple[int, float, Picture]]:
    for index, picture in enumerate(source):
        yield index, time.perf_counter(), picture


def _open(
    path: Path, runner: str, *, graph: str | None, threads: int | None, replay: bool
) -> tuple[Source, tuple[str, ...]]:
    """What was opened, and why not another thing."""
    if not path.exists():
        raise HiresvitError(f"{path} does not exist; give a bundle's folder, an .onnx graph or a plan")
    if names_checkpoint(str(path)):
        raise UsageError(f"{path} is a checkpoint: `hiresvit export` makes a bundle of it, give that")
    options: dict[str, Any] = {"threads": threads, "replay": replay}
    plans = [role for role in PLANS if (path / STAGES[role].file).is_file()] if path.is_dir() else []
    if runner != _AUTO:
        if runner == "tensorrt" and graph is None and plans:
            graph = plans[0]
        return open_source(str(path), graph=graph, runner=runner, **options), ()
    if graph is not None or not plans or not has_driver():
        return open_source(str(path), graph=graph, **options), ()
    try:
        return open_source(str(path), graph=plans[0], **options), ()
    except MissingDependency as error:
        return open_source(str(path), **options), (f"the plan cannot be run here: {error}",)
