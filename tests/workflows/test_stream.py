"""A camera's frames: in order, prepared ahead, dropped and counted, and nothing left behind."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hiresvit import Predictor
from hiresvit.data import video
from hiresvit.data.scenes import sample_image
from hiresvit.errors import HiresvitError, MissingDependency, UsageError
from hiresvit.workflows.ahead import Ahead


@pytest.fixture(scope="module")
def made_once(tiny_bundle: Path) -> Any:
    with Predictor(tiny_bundle, threads=1) as made:
        yield made


@pytest.fixture
def predictor(made_once: Any) -> Any:
    """Any, because what comes out of a segmentor is known here."""
    return made_once


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert [one.name for one in threading.enumerate() if one.name.startswith("hiresvit-ahead")] == []


def test_frames_in_order_with_their_times(predictor: Any) -> None:
    images = [sample_image(n, 40 + n, 60) for n in range(4)]  # and of changing sizes
    found = list(predictor.stream(iter(images)))
    assert [frame.index for frame in found] == [0, 1, 2, 3]
    assert [frame.dropped for frame in found] == [0] * 4
    for image, frame in zip(images, found, strict=True):
        np.testing.assert_array_equal(frame.answer.labels, predictor(image).labels)
        parts = frame.prepare_ms, frame.network_ms, frame.answer_ms
        assert min(parts) > 0
        assert frame.frame_ms >= sum(parts)


def test_the_next_frame_is_prepared_while_this_one_is_used(predictor: Any) -> None:
    given: list[int] = []

    def source() -> Iterator[NDArray[np.uint8]]:
        for number in range(9):
            given.append(number)
            yield sample_image(number, 40, 60)

    stream = predictor.stream(source())
    next(stream)
    deadline = time.monotonic() + 10
    while len(given) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert given == [0, 1, 2], "one waits, one is about to, and no more"
    stream.close()
    assert len(given) == 3


def test_dropped_frames_are_counted(predictor: Any) -> None:
    taken = threading.Event()

    def source() -> Iterator[NDArray[np.uint8]]:
        for number in range(20):
            yield sample_image(number, 40, 60)
        taken.set()
        yield sample_image(99, 40, 60)

    stream = predictor.stream(source(), drop=True)
    first = next(stream)
    assert taken.wait(10)
    rest = list(stream)
    assert first.index < 20
    assert rest[-1].index == 20, "the newest is never dropped"
    answered = 1 + len(rest)
    assert answered + rest[-1].dropped == 21
    assert rest[-1].dropped >= 15


@pytest.mark.parametrize("drop", [False, True])
def test_what_a_source_raises_reaches_the_caller(predictor: Any, drop: bool) -> None:
    def source() -> Iterator[NDArray[np.uint8]]:
        yield sample_image(0, 40, 60)
        raise RuntimeError("the cable is out")

    found: list[Any] = []
    with pytest.raises(RuntimeError, match="the cable is out"):
        found.extend(predictor.stream(source(), drop=drop))
    with pytest.raises(UsageError, match="image is float64"):
        list(predictor.stream([np.zeros((4, 4, 3))], drop=drop))


@pytest.mark.parametrize("drop", [False, True])
def test_a_stream_that_nobody_finishes(predictor: Any, drop: bool) -> None:
    def endless() -> Iterator[NDArray[np.uint8]]:
        image = sample_image(0, 40, 60)
        while True:
            yield image

    stream = predictor.stream(endless(), drop=drop)
    next(stream)
    del stream  # the thread ends with it: the fixture looks
    never_started = predictor.stream(endless(), drop=drop)
    del never_started


def test_closing_the_predictor_ends_its_streams(tiny_bundle: Path) -> None:
    made = Predictor(tiny_bundle, threads=1)
    stream = made.stream([sample_image(n, 40, 60) for n in range(9)])
    next(stream)
    made.close()
    with pytest.raises(UsageError, match="closed"):
        list(stream)


def test_an_item_is_given_once_and_the_end_stays_the_end() -> None:
    ahead = Ahead(range(50))
    assert list(ahead) == list(range(50))
    assert list(ahead) == []
    ahead.close()


def test_without_a_library_for_video(predictor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    for source in (0, "a.mp4", Path("a.mp4")):
        with pytest.raises(MissingDependency, match=r"install OpenCV or PyAV .*any iterable of arrays"):
            predictor.stream(source)


@pytest.mark.parametrize("name", ["cv2", "av"])
def test_a_video_file(predictor: Any, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip(name)
    monkeypatch.setattr(video, "find_spec", lambda asked: asked == name or None)
    path = tmp_path / "a.avi"
    images = [np.full((48, 64, 3), (200, 20 * n, 40), np.uint8) for n in range(5)]
    if name == "cv2":
        writer = library.VideoWriter(str(path), library.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
        for image in images:
            writer.write(image[..., ::-1])
        writer.release()
    else:
        with library.open(str(path), "w") as container:
            stream = container.add_stream("mjpeg", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
            for image in images:
                container.mux(stream.encode(library.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    found = list(predictor.stream(path))
    assert len(found) == 5
    for image, frame in zip(images, found, strict=True):  # red is red; JPEG moves a level or two
        assert np.abs(frame.answer.picture.astype(int) - image).max() <= 6
    assert len(list(predictor.stream(path, drop=True))) >= 1
    (tmp_path / "b.mp4").write_text("no video")
    for source, said in ((tmp_path / "b.mp4", "no frame can be read"), (tmp_path / "c.mp4", "there is no such file")):
        with pytest.raises(HiresvitError, match=said):
            list(predictor.stream(source))
