"""A picture answered several times, scaled and mirrored, and the answers averaged.

As mmsegmentation averages: of every pass the logits are resized to the picture's size, their softmax is taken there,
and the mean of these probabilities decides (`EncoderDecoder.inference` and `aug_test` of 0.x, `SegTTAModel.merge_preds`
of 1.x). A pass is windows of the network's size over the scaled picture; one that it fits into is one window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.preprocess import Region, check_image, stride_of, window_input, windows
from hiresvit.data.resample import resample
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.runtime.frame import picture_feed
from hiresvit.runtime.labels import add_probabilities, check_finite, empty_labels, paint_labels
from hiresvit.runtime.picture_runner import LabelMap, PictureRunner, TopClasses
from hiresvit.runtime.slide import Piece, slide_pieces

MOST_BYTES = 2**32  # of probabilities and sums of one picture; 150 classes of 2048x2048 pixels are 2.4 GiB

Picture = NDArray[np.uint8]
Sizes = Callable[[tuple[int, int], float], list[tuple[int, int]]]


class Passes:
    """Answers for pictures that are scaled as ``sizes`` says, at each of the scales, and with ``flip`` mirrored, too.

    ``sizes(size, scale)`` is what a picture of a size (height, width) is resampled to, one after the other.
    ``pictures`` runs the network. A classifier has ``flip`` only: the mean of its probabilities.
    """

    def __init__(self, pictures: PictureRunner, sizes: Sizes, *, scales: tuple[float, ...], flip: bool) -> None:
        self.pictures, self.sizes, self.scales, self.flip = pictures, sizes, scales, flip

    def predict(self, image: Picture) -> LabelMap | TopClasses:
        """Answer for one uint8 (H, W, 3) RGB image.

        Raises UsageError for what is no picture and for one whose probabilities would take more than `MOST_BYTES`,
        HiresvitError if the network returns NaN or Inf.
        """
        check_image(image)
        return self._classify(image) if self.pictures.spec.task == "classify" else LabelMap(self._segment(image))

    def _classify(self, image: Picture) -> TopClasses:
        pictures = self.pictures
        views = (image, np.ascontiguousarray(image[:, ::-1]))
        outputs = [pictures.outputs(picture_feed(view, pictures.spec, pictures.contract)) for view in views]
        return TopClasses(pictures.ranked(np.mean([pictures.probabilities(one) for one in outputs], 0)))

    def _segment(self, image: Picture) -> NDArray[Any]:
        size = (image.shape[0], image.shape[1])
        labels = empty_labels(self.pictures.spec.num_classes, size)
        if len(self.scales) == 1 and not self.flip:
            for piece in self._pieces(image, self.scales[0]):
                paint_labels(piece.logits, piece.axes, labels[piece.rows], threads=self.pictures.threads)
            return labels
        probable = self.probabilities(image)
        for row in range(size[0]):  # a copy of one row at a time: the best along an axis that is far apart is slow
            labels[row] = np.ascontiguousarray(probable[:, row].T).argmax(1)
        return labels

    def probabilities(self, image: Picture) -> NDArray[np.float32]:
        """The mean of a segmentor's probabilities for a picture, float32 (C, H, W) at its size. Raises as `predict`."""
        size = (image.shape[0], image.shape[1])
        self._check_memory(size)
        total = np.zeros((self.pictures.spec.num_classes, *size), np.float32)
        for flipped in (False, True)[: 1 + self.flip]:
            target = total[..., ::-1] if flipped else total
            for piece in (piece for scale in self.scales for piece in self._pieces(image, scale, flipped=flipped)):
                add_probabilities(piece.logits, piece.axes, target[:, piece.rows], threads=self.pictures.threads)
        total /= len(self.scales) * (1 + self.flip)
        return total

    def _pieces(self, image: Picture, scale: float, *, flipped: bool = False) -> Iterator[Piece]:
        """The logits of one pass, for an answer of the picture's size; scaled and then mirrored, as mmsegmentation."""
        spec, pictures, size = self.pictures.spec.preprocess, self.pictures, (image.shape[0], image.shape[1])
        for wanted in self.sizes(size, scale):
            image = resample(image, wanted, spec)
        image = np.ascontiguousarray(image[:, ::-1]) if flipped else image
        shown, (height, width) = (image.shape[0], image.shape[1]), pictures.spec.imgsz
        whole = max(shown[0], height), max(shown[1], width)
        centred = spec.resize == "letterbox"
        corner = (whole[0] - shown[0]) // 2 * centred, (whole[1] - shown[1]) // 2 * centred

        def logits_at(top: int, left: int) -> NDArray[Any]:
            rows, columns = (
                slice(max(start - first, 0), start - first + side)
                for start, first, side in ((top, corner[0], height), (left, corner[1], width))
            )
            place = max(corner[0] - top, 0), max(corner[1] - left, 0)
            feed = {"image": window_input(image[rows, columns], spec, (height, width), place)}
            [logits] = pictures.outputs(feed).values()
            found: NDArray[Any] = logits[0]
            return found

        placed = windows(whole, (height, width), stride_of(spec, (height, width)))
        sizes = ((height, width), whole, size)
        for piece in slide_pieces(logits_at, placed, sizes, pictures.spec.num_classes, Region(*corner, *shown)):
            try:
                check_finite(piece.logits)
            except HiresvitError as error:
                raise HiresvitError(f"{pictures.spec.name}: {error}") from error
            yield piece

    def _check_memory(self, size: tuple[int, int]) -> None:
        height, width = size
        spec = self.pictures.spec
        widest = max(self.sizes(size, scale)[-1][1] for scale in self.scales)
        needed = 4 * spec.num_classes * (height * width + (spec.imgsz[0] + 1) * max(widest, spec.imgsz[1]))
        if needed > MOST_BYTES:
            raise UsageError(
                f"picture is {height}x{width}: the probabilities of {spec.num_classes} classes of several passes take"
                f" {needed / 2**30:.1f} GiB, and at most {MOST_BYTES / 2**30:g} are taken; leave out --flip and"
                " --scales, or give smaller pictures"
            )
