"""Ranges and histograms against whole arrays, in bounded memory, and the same after any interruption."""

from __future__ import annotations

import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import environment
from graphs import Array, build, content, copied, indexed, noise, run
from onnx import ModelProto, helper
from tiny import tiny_simplified, tiny_spec

from hiresvit.calibration import collect as collecting
from hiresvit.calibration import probes
from hiresvit.calibration.collect import SMALLEST, RunOptions, Statistics, collect
from hiresvit.calibration.observers import BINS, histogram
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.spec import Feeds

# Every value is a small multiple of 1/8, so that each kernel and each order of summing gives the same bits.
GRAPH = """g (float[1,3,4,4] image) => (float[1,3,4,4] last, float[4,12] rows) {
  half = Mul(image, w)
  relu = Relu(half)
  negative = Neg(relu)
  turned = Transpose<perm=[0,2,3,1]>(negative)
  rows = Reshape(turned, shape)
  zero = Sub(rows, rows)
  flat = Reshape(rows, all)
  point = ReduceMin<keepdims=0>(flat)
  sum = Add(negative, point)
  last = Add(sum, image)
}"""
CONSTANTS: Mapping[str, Any] = {"w": np.float32(0.5), "shape": [4, 12], "all": [-1]}
TENSORS = ["last", "image", "relu", "negative", "turned", "rows", "zero", "flat", "point", "sum"]
IMAGES = 4


class Pictures:
    """Feeds that are made when they are asked for; ``on_read(k)`` is called at the k-th reading."""

    def __init__(self, count: int = IMAGES, on_read: Callable[[int], None] = lambda _k: None) -> None:
        self.count, self.on_read = count, on_read
        self.reads: list[int] = []
        self.alive: list[weakref.ref[Array]] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Array]:
        assert not any(ref() is not None for ref in self.alive), "a picture is kept"
        self.reads.append(index)
        self.on_read(len(self.reads) - 1)
        image = picture(index)
        self.alive = [weakref.ref(image)]
        return {"image": image}


def picture(index: int) -> Array:
    steps = np.random.default_rng(index).integers(-40, 40, (1, 3, 4, 4))
    return np.asarray(steps / 8, np.float32)


def graph(opset: int = 20) -> ModelProto:
    return build(GRAPH, CONSTANTS, opset)


def found(feeds: Feeds | None = None, **options: Any) -> dict[str, Statistics]:
    given = {
        "look": "histograms",
        "digest": "d",
        "threads": 1,
        "tensors": TENSORS,
        "model": graph(),
        **options,
    }
    model, tensors, look, digest = (given.pop(name) for name in ("model", "tensors", "look", "digest"))
    feeds = Pictures() if feeds is None else feeds
    return collect(model, tensors, feeds, look=look, digest=digest, run=RunOptions(**given))


def whole(tensor: str) -> Array:
    """The tensor on every image, in numpy, in one row."""
    rows = []
    for index in range(IMAGES):
        image = picture(index)
        relu = np.maximum(image / 2, 0)
        values = {
            "image": image,
            "relu": relu,
            "negative": -relu,
            "turned": -relu,
            "rows": -relu,
            "flat": -relu,
        }
        values |= {"zero": 0 * relu, "point": np.min(-relu, keepdims=True)}
        values |= {"sum": -relu + np.min(-relu), "last": -relu + np.min(-relu) + image}
        rows.append(values[tensor].ravel())
    return np.concatenate(rows)


def same(a: Mapping[str, Statistics], b: Mapping[str, Statistics]) -> bool:
    """Bit for bit."""
    return list(a) == list(b) and all(
        (a[name].lowest, a[name].highest) == (b[name].lowest, b[name].highest)
        and np.array_equal(a[name].counts, b[name].counts)  # type: ignore[arg-type]
        for name in a
    )


@pytest.mark.parametrize("opset", [13, 17, 18, 22])
def test_statistics_are_those_of_the_whole_arrays(opset: int) -> None:
    model = graph(opset)
    before = content(model)
    statistics = found(model=model)
    assert content(model) == before
    assert list(statistics) == TENSORS
    for name, one in statistics.items():
        values = whole(name)
        amax = float(np.abs(values).max())
        assert (one.lowest, one.highest, one.amax) == (values.min(), values.max(), amax), name
        if name == "zero":
            assert one.dead
            assert one.counts is None
        else:
            expected = np.histogram(np.abs(values).astype(np.float64), BINS, (0, amax))[0]
            assert np.array_equal(one.counts, expected), name  # type: ignore[arg-type]
            assert not one.dead


def test_without_histograms_there_is_one_pass() -> None:
    feeds = Pictures()
    statistics = found(feeds, look="ranges")
    assert feeds.reads == [0, 1, 2, 3]
    assert all(one.counts is None for one in statistics.values())
    assert {n: (s.lowest, s.highest) for n, s in statistics.items()} == {
        n: (s.lowest, s.highest) for n, s in found().items()
    }


def test_chunks_are_bounded_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = found()
    chunks: list[list[str]] = []
    cut = probes.tensor_graph

    def spy(model: ModelProto, names: list[str]) -> ModelProto:
        chunks.append(names)
        return cut(model, names)

    monkeypatch.setattr(collecting, "tensor_graph", spy)
    sizes = {name: 4 * whole(name).size // IMAGES for name in TENSORS}  # 192 bytes, but 4 of point
    for memory_bytes in (1, 200, 400, 600):
        chunks.clear()
        feeds = Pictures()
        assert same(found(feeds, memory_bytes=memory_bytes), reference)
        assert feeds.reads == [0, 1, 2, 3] * (1 + len(chunks)), "each chunk reads each image once"
        totals = [sum(sizes[name] for name in chunk) for chunk in chunks]
        assert all(t <= memory_bytes or len(chunk) == 1 for t, chunk in zip(totals, chunks, strict=True))
        assert all(t + 192 > memory_bytes for t in totals[:-1]), "no chunk is smaller than it must be"
        order = ["image", "relu", "negative", "turned", "rows", "flat", "point", "sum", "last"]
        assert [name for chunk in chunks for name in chunk] == order, "as they are made, and nothing dead"


def test_a_chunk_runs_no_more_of_the_graph_than_it_needs() -> None:
    assert [n.op_type for n in probes.tensor_graph(graph(), ["relu"]).graph.node] == ["Mul", "Relu"]
    assert not probes.tensor_graph(graph(), ["image"]).graph.initializer
    cut = probes.range_graph(graph(), ["relu", "image"])
    names = [node.output[0].removeprefix("hiresvit/calibration/") for node in cut.graph.node]
    # Probes stand right behind what they look at: at the end, they would hold every tensor until then.
    assert names == [
        *("Max/image", "Min/image", "Sum/image", "half"),
        *("relu", "Max/relu", "Min/relu", "Sum/relu"),
    ]


def test_a_branch_keeps_what_it_reads_from_outside() -> None:
    text = """g (float[2] x, bool c) => (float[2] y) {
      a = Neg(x)
      y = If(c) <then_branch = t () => (float[2] p) { p = Relu(a) },
                 else_branch = e () => (float[2] q) { q = Abs(x) }>
    }"""
    feeds = [{"x": np.array([-1, 2 * k], np.float32), "c": np.array(k == 0)} for k in range(2)]
    statistics = found(feeds, model=build(text), tensors=["y"])
    assert (statistics["y"].lowest, statistics["y"].highest) == (0, 2)


def test_a_batch_of_symbolic_size_and_a_tensor_of_unknown_size() -> None:
    text = GRAPH.replace("1,3,4,4", "N,3,4,4").replace("float[4,12]", "float[M,12]")
    assert same(found(model=build(text, CONSTANTS)), found())
    text = """g (float[1,3,4,4] image) => (float[3] y) {
      places = NonZero(image)
      unknown = Cast<to=1>(places)
      y = ReduceMax<keepdims=0>(unknown)
    }"""
    statistics = found(model=build(text), tensors=["unknown", "image"])
    assert (statistics["unknown"].lowest, statistics["unknown"].highest) == (0, 3)
    assert statistics["unknown"].counts is not None


def test_a_network_in_chunks_is_the_network() -> None:
    model = tiny_simplified(tiny_spec())
    weights = {tensor.name for tensor in model.graph.initializer}
    readers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    tensors = list(dict.fromkeys(node.input[0] for node in readers if node.input[1] in weights))
    feeds = [{"image": noise(1, 3, 64, 96, seed=seed)} for seed in range(2)]
    once = found(feeds, model=model, tensors=tensors)
    chunked = found(feeds, model=model, tensors=tensors, memory_bytes=2**17)
    index = indexed(model)
    shapes = {name: index.sizes(name) or () for name in tensors}
    probed = copied(model)
    del probed.graph.output[:]
    probed.graph.output.extend(helper.make_tensor_value_info(name, 1, shapes[name]) for name in tensors[1:])
    values = [run(probed, feed, optimise=False) for feed in feeds]
    for name, *of_images in zip(tensors[1:], *values, strict=True):
        # Kernels that were fused sum in another order: 1e-6 of the largest value.
        assert once[name].highest == pytest.approx(max(v.max() for v in of_images), abs=1e-5 * once[name].amax)
        assert once[name].lowest == pytest.approx(min(v.min() for v in of_images), abs=1e-5 * once[name].amax)
    for name in tensors:
        counts, others = once[name].counts, chunked[name].counts
        assert counts is not None
        assert others is not None
        assert counts.sum() == others.sum() == 2 * np.prod(shapes[name])
        # What is fetched decides which kernels are fused, and so the last bits: a few values in 100,000 change bins.
        assert np.abs(counts - others).sum() <= 2e-3 * counts.sum() + 2
        assert (once[name].lowest, once[name].highest) == (chunked[name].lowest, chunked[name].highest)


def test_a_tensor_of_subnormal_numbers_is_dead() -> None:
    model = build("g (float[4] x) => (float[4] y) { y = Identity(x) }")
    for top, dead in ((SMALLEST, False), (SMALLEST / 2, True), (0, True)):
        statistics = found([{"x": np.array([0, 0, -top, 0], np.float32)}], model=model, tensors=["x"])
        assert statistics["x"].dead == dead
        assert (statistics["x"].counts is None) == dead


# Bad input


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (0, 1, 2, 3), (0, 2, 3, 3)])
def test_nan_and_inf_are_named_with_tensor_and_image(value: float, place: tuple[int, ...]) -> None:
    feeds = [{"image": picture(index)} for index in range(IMAGES)]
    feeds[2]["image"][place] = value
    with pytest.raises(HiresvitError, match=r"tensor 'image' .* NaN or Inf on image 2 of 4") as caught:
        found(feeds)
    assert "\n" not in str(caught.value)


def test_a_nan_that_a_maximum_loses_is_found() -> None:
    model = build("g (float[7,11] x) => (float[7,11] y) { y = Neg(x) }")
    for place in range(77):
        values = noise(7, 11)
        values.ravel()[place] = np.nan
        with pytest.raises(HiresvitError, match="'y' has NaN or Inf on image 0 of 1"):
            found([{"x": values}], model=model, tensors=["y"], look="ranges")


def test_the_tensor_named_is_the_first_that_breaks() -> None:
    text = "g (float[2] x) => (float[2] d) { a = Relu(x) b = Log(a) c = Neg(b) d = Abs(c) }"
    feeds = [{"x": np.array(row, np.float32)} for row in ([1, 2], [1, -2])]
    with pytest.raises(HiresvitError, match="tensor 'b' and 2 behind it have NaN or Inf on image 1 of 2"):
        found(feeds, model=build(text), tensors=["d", "c", "b", "a"])


def test_feeds_that_change_between_the_passes_are_noticed() -> None:
    class Changing(Pictures):
        def __getitem__(self, index: int) -> dict[str, Array]:
            feed = super().__getitem__(index)
            if len(self.reads) > IMAGES:
                feed["image"][0, 0, 0, 0] = np.nan
            return feed

    with pytest.raises(HiresvitError, match="tensor 'image' has NaN or Inf on image 0 of 4"):
        found(Changing())


def test_large_values_are_no_nan() -> None:
    """Their sum is infinite, they are not."""
    feeds = [{"image": np.full((1, 3, 4, 4), 3e38, np.float32)}]
    assert found(feeds, tensors=["image"])["image"].amax == np.float32(3e38)


def test_what_cannot_be_collected_is_refused() -> None:
    integers = build("g (int64[2] x) => (int64[2] y) { y = Neg(x) }")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"tensors": []}, "0 tensors, 0 different"),
        ({"tensors": ["relu", "relu"]}, "2 tensors, 1 different"),
        ({"tensors": ["relu", "none"]}, "'none' is no input or result in this graph"),
        ({"tensors": ["w"]}, "'w' is no input or result"),
        ({"memory_bytes": 0}, "memory_bytes=0"),
        ({"threads": 0}, "threads 0"),
        ({"feeds": []}, "no feeds"),
        ({"feeds": [{"image": np.ones((1, 3, 4, 5), np.float32)}]}, "input 'image' is float32"),
        ({"feeds": [{"picture": picture(0)}]}, "feeds are"),
        ({"model": integers, "tensors": ["y"], "feeds": [{"x": np.array([1, 2])}]}, "'y' is int64"),
    ]
    for options, message in refused:
        with pytest.raises(UsageError, match=message) as caught:
            found(**options)
        assert "\n" not in str(caught.value)
    unknown = graph()
    unknown.graph.node[0].op_type = "Nonsense"
    with pytest.raises(HiresvitError, match="cannot load the graph to calibrate") as failed:
        found(model=unknown)
    assert "\n" not in str(failed.value)
    failing = build("g (float[4] x, int64[2] s) => (float[a,b] y) { y = Reshape(x, s) }")
    feeds = [{"x": np.ones(4, np.float32), "s": np.array([3, 2])}]
    with pytest.raises(HiresvitError, match="failed on image 0 of 1") as failed:
        found(feeds, model=failing, tensors=["y"])
    assert "\n" not in str(failed.value)


# Progress and interruptions


def test_progress_is_told_for_each_image() -> None:
    told: list[tuple[str, float | None]] = []
    found(on_step=lambda name, fraction: told.append((name, fraction)), memory_bytes=1000)
    fractions = [0.25, 0.5, 0.75, 1.0]
    names = ["ranges", "histograms 1 of 2", "histograms 2 of 2"]
    assert told == [(f"calibrate: {name}", fraction) for name in names for fraction in fractions]


MEMORY = 1000  # two chunks: 4 readings for the ranges, then 4 for each chunk
READS = 12


def interrupted_at(read: int) -> Pictures:
    def stop(k: int) -> None:
        if k == read:
            raise KeyboardInterrupt

    return Pictures(on_read=stop)


@pytest.mark.parametrize("read", range(READS))
def test_an_interruption_changes_nothing(tmp_path: Path, read: int) -> None:
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        found(interrupted_at(read), memory_bytes=MEMORY, state=state)
    assert state.exists() == (read > 0), "nothing is written where nothing has been done"
    rest = Pictures()
    assert same(found(rest, memory_bytes=MEMORY, state=state), found(memory_bytes=MEMORY))
    assert len(rest.reads) == READS - read, "what was done is not done again"
    assert list(tmp_path.iterdir()) == []


def test_a_chain_of_interruptions_changes_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state.npz"
    for _ in range(READS // 2 - 1):  # two images each
        with pytest.raises(KeyboardInterrupt):
            found(interrupted_at(2), memory_bytes=MEMORY, state=state)
        assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]
    rest = Pictures()
    assert same(found(rest, memory_bytes=MEMORY, state=state), found(memory_bytes=MEMORY))
    assert rest.reads == [2, 3]


def test_an_image_that_is_half_counted_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def stopping(values: Array, amax: float) -> Array:
        nonlocal calls
        calls += 1
        if calls == 8:  # in the middle of the second image
            raise KeyboardInterrupt
        return histogram(values, amax)

    state = tmp_path / "state"
    with monkeypatch.context() as patch:
        patch.setattr(collecting, "histogram", stopping)
        with pytest.raises(KeyboardInterrupt):
            found(memory_bytes=MEMORY, state=state)
    rest = Pictures()
    assert same(found(rest, memory_bytes=MEMORY, state=state), found(memory_bytes=MEMORY))
    assert rest.reads == [1, 2, 3, 0, 1, 2, 3]


def test_progress_is_kept_while_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed has no time to save."""
    state, copies = tmp_path / "state", tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr(collecting, "SAVE_SECONDS", 0.0)

    def copy(read: int) -> None:
        if state.exists():
            shutil.copy(state, copies / f"{read}")

    reference = found(Pictures(on_read=copy), memory_bytes=MEMORY, state=state)
    assert len(list(copies.iterdir())) == READS - 1
    for left in copies.iterdir():
        rest = Pictures()
        assert same(found(rest, memory_bytes=MEMORY, state=left), reference)
        assert len(rest.reads) == READS - int(left.name)


def test_progress_is_not_written_for_every_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[Path] = []
    monkeypatch.setattr(collecting, "_save", lambda state, _key, _progress: writes.append(state))
    monkeypatch.setattr(collecting, "SAVE_SECONDS", 3600.0)
    found(state=tmp_path / "state")
    assert writes == []


def other_weights() -> ModelProto:
    return build(GRAPH, {**CONSTANTS, "w": np.float32(0.25)})


@pytest.mark.parametrize(
    "other",
    [
        {"digest": "e"},
        {"tensors": TENSORS[1:]},
        {"memory_bytes": MEMORY + 1},
        {"model": other_weights()},
        {"look": "ranges"},
        {"feeds": Pictures(3)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_progress_of_something_else_is_not_used(tmp_path: Path, other: dict[str, Any]) -> None:
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        found(interrupted_at(7), memory_bytes=MEMORY, state=state)
    options = {"memory_bytes": MEMORY, **other}
    feeds = Pictures(len(options.pop("feeds", Pictures())))
    statistics = found(feeds, state=state, **options)
    clean = Pictures(len(feeds))
    assert same(statistics, found(clean, **options))
    assert feeds.reads == clean.reads
    assert not state.exists()


@pytest.mark.parametrize("kind", ["empty", "short", "flipped", "text", "other npz", "pickle"])
def test_a_damaged_state_is_started_again(tmp_path: Path, kind: str) -> None:
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        found(interrupted_at(7), memory_bytes=MEMORY, state=state)
    data = state.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) * 3 // 4] ^= 1  # among the counts
    damaged = {"empty": b"", "short": data[: len(data) // 2], "flipped": bytes(flipped), "text": b"progress"}
    if kind in damaged:
        state.write_bytes(damaged[kind])
    else:
        with state.open("wb") as stream:
            np.savez(stream, key=np.array(["x"]) if kind == "other npz" else np.array([{}], object))
    feeds = Pictures()
    assert same(found(feeds, memory_bytes=MEMORY, state=state), found(memory_bytes=MEMORY))
    assert len(feeds.reads) == READS
    assert not state.exists()


def test_a_place_that_cannot_be_written_hides_no_interruption(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    state = tmp_path / "file" / "state"
    with pytest.raises(KeyboardInterrupt):
        found(interrupted_at(3), state=state)
    with pytest.raises(HiresvitError, match="cannot write"):
        found(state=state)


# Memory

CHAIN = 24  # tensors of 8 MiB each

# A chain of tensors that nothing but the observer needs, calibrated in a process of its own: its peak in MiB.
PROGRAM = """
import sys, numpy as np
from graphs import build
from hiresvit.calibration.collect import RunOptions, collect
from hiresvit.process import peak_rss_bytes
steps = "\\n".join(f"t{{k + 1}} = {{'Neg' if k % 2 else 'Sigmoid'}}(t{{k}})" for k in range({chain}))
model = build("g (float[1,4,512,1024] t0) => (float[1,4,512,1024] t{chain}) {{ " + steps + "}}")
class Feeds:
    def __len__(self):
        return {images}
    def __getitem__(self, index):
        return {{"t0": np.full((1, 4, 512, 1024), index + 1, np.float32)}}
before = peak_rss_bytes()
tensors = [f"t{{k}}" for k in range({chain} + 1)]
collect(model, tensors, Feeds(), look={look!r}, run=RunOptions({memory} * 2**20, threads=1))
print((peak_rss_bytes() - before) // 2**20)
"""


def peak(images: int, memory: int, look: str = "histograms") -> int:
    """The MiB that a calibration takes beyond what was loaded before it."""
    program = PROGRAM.format(chain=CHAIN, images=images, memory=memory, look=look)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_bounded_by_what_is_asked_for() -> None:
    # Beside the chunk: the image and what the kernel at work reads and writes, 8 MiB each, and ONNX Runtime itself,
    # which takes 20 MiB with its first session. 70 leave some room for the allocator; the whole chain is 200.
    assert peak(1, 32) < 32 + 70
    assert peak(3, 32) < 32 + 70, "more images take more memory"
    assert peak(1, 1, "ranges") < 70, "the first pass holds on to tensors"
    assert peak(1, 512) > 200, "else this test shows nothing"
