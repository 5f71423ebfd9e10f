"""Two opened networks, compared at every boundary of a PyTorch module: `hiresvit compare --layers`.

A side is a graph, with the tensors that are asked for as outputs of a copy that ends there; a plan, built once more
from such a copy; or a PyTorch model, folded as the export folds it, with hooks on its modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.preprocess import example_input
from hiresvit.data.scenes import sample_images
from hiresvit.errors import GateError, UsageError
from hiresvit.evaluation.layers import TOLERANCES, Fetch, Side, compare_layers, first_beyond, match_modules
from hiresvit.evaluation.reference import TENSOR, picture_size
from hiresvit.files import scratch_folder
from hiresvit.process import trim_memory
from hiresvit.progress import OnStep, silent
from hiresvit.runtime.frame import picture_feed, reference_feed
from hiresvit.runtime.open import open_runner
from hiresvit.runtime.runner import Casting
from hiresvit.spec import Feed, Feeds
from hiresvit.workflows.open import Source

if TYPE_CHECKING:
    from onnx import ModelProto

    from hiresvit.graph.index import GraphIndex
    from hiresvit.graph.modules import Boundary

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class _Watched:
    """A network that can be asked for its tensors; ``precision`` is a key of `TOLERANCES`."""

    boundaries: Sequence[Boundary]
    side: Side
    precision: str


class _Fed:
    """Pictures as what a network takes, each made when it is asked for."""

    def __init__(self, pictures: Sequence[Picture], make: Callable[[Picture], Feed]) -> None:
        self.pictures, self.make = pictures, make

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int, /) -> Feed:
        return self.make(self.pictures[index])


def compare_sources_by_layer(
    reference: Source,
    test: Source,
    images: Sequence[Picture],
    *,
    drawn: int,
    runner: str | None = None,
    tolerance: float | None = None,
    on_step: OnStep = silent,
) -> tuple[dict[str, Any], GateError | None]:
    """Where ``test`` parts from ``reference`` on uint8 (H, W, 3) images and ``drawn`` streets, as plain JSON values.

    ``runner`` is what ``test`` was opened with, if a name was given. ``tolerance`` is the least SQNR of a module in dB;
    None takes that of the lower precision of both, and then nothing is missed. Both runners are closed: their memory is
    needed. Raises UsageError if neither says how it takes a picture, without pictures, for two contracts, for a plan
    whose graph is not there, and where no module of one is in the other.
    """
    fed = _feeds(reference, test, images, drawn)
    with ExitStack() as stack:
        a = stack.enter_context(_watch(reference, fed[0], None))
        b = stack.enter_context(_watch(test, fed[1], runner))
        matched = match_modules(a.boundaries, b.boundaries)
        if not matched.pairs:
            several = f"{reference.label} has {len(a.boundaries)} modules, {test.label} {len(b.boundaries)}, and none"
            if set(matched.only_reference) & set(matched.only_test):
                raise UsageError(f"{several} has one size in both: compare two of one network and one input size")
            raise UsageError(f"{several} is in both: nodes must be named by module, as hiresvit export names them")
        lower = min(TOLERANCES[a.precision], TOLERANCES[b.precision])
        least = lower if tolerance is None else tolerance
        found = compare_layers(matched.pairs, a.side, b.side, images=len(fed[0]), tolerance=least, on_step=on_step)
    first = first_beyond(found)
    spec = reference.spec or test.spec
    layers = {
        "reference": reference.label,
        "test": test.label,
        "origins": {"reference": dict(reference.origin), "test": dict(test.origin)},
        "size": list(spec.imgsz) if spec else None,
        "images": len(fed[0]),
        "tolerance": least,
        "modules": [one.to_json() for one in found],
        "unmatched": {"reference": list(matched.only_reference), "test": list(matched.only_test)},
        "first": None if first is None else first.to_json(),
    }
    if first is None or tolerance is None:
        return layers, None
    apart = f"{first.sqnr_db:.1f} dB" if first.sqnr_db is not None else "no SQNR, the reference is 0 there,"
    apart = "NaN or Inf" if first.verdict == "nan" else apart
    beyond = sum(one.verdict is not None for one in found)
    return layers, GateError(
        f"{test.label}: module {first.module} has {apart}, at least {least:g} is needed, and is the first of {beyond};"
        " --layer-sqnr sets it"
    )


def _feeds(reference: Source, test: Source, images: Sequence[Picture], drawn: int) -> list[Feeds]:
    """The same pictures for both sides; behind a contract, what the network would get there for the other."""
    spec = reference.spec or test.spec
    if spec is None:
        raise UsageError("neither graph says how it takes a picture; one must be from hiresvit")
    contracts = {side.contract for side in (reference, test)} - {TENSOR}
    if len(contracts) > 1:
        raise UsageError(f"{reference.label} and {test.label} have two contracts: compare two of one, or one with none")
    contract = next(iter(contracts), TENSOR)
    size = spec.imgsz if contract == TENSOR else picture_size(spec, contract)
    pictures = [*images, *sample_images(drawn, size)]

    def feeding(source: Source) -> Callable[[Picture], Feed]:
        kinds = {tensor.name: tensor.dtype for tensor in source.runner.inputs}

        def make(picture: Picture) -> Feed:
            if contract == TENSOR:
                feed: Feed = {"image": example_input(picture, spec.preprocess, spec.imgsz)}
            else:
                feed = picture_feed(picture, spec, contract)
                feed = reference_feed(feed, spec, contract) if source.contract == TENSOR else feed
            if len(kinds) == 1:  # a graph of somebody else may call it otherwise
                feed = dict(zip(kinds, feed.values(), strict=True))
            return {name: values.astype(kinds[name]) for name, values in feed.items()}

        return make

    return [_Fed(pictures, feeding(source)) for source in (reference, test)]


@contextmanager
def _watch(source: Source, feeds: Feeds, runner: str | None) -> Iterator[_Watched]:
    """A source, ready to be asked; what it was opened with is closed."""
    with ExitStack() as stack:
        if source.origin.get("role") == "pytorch":
            yield _watch_torch(source, feeds, stack)
            return
        from hiresvit.graph.index import index_graph
        from hiresvit.graph.modules import find_boundaries

        model = _graph_of(source)
        source.runner.close()
        trim_memory()
        index = index_graph(model, {})
        plan = source.graph is None
        side = _opened(source, model, feeds, runner, stack) if plan or runner else _fetched(source, model, feeds)
        yield _Watched(find_boundaries(index), side, _precision(index))


def _watch_torch(source: Source, feeds: Feeds, stack: ExitStack) -> _Watched:
    """The model as it is exported, folded: its modules are those of the graphs."""
    from hiresvit.graph.modules import Boundary
    from hiresvit.models.fold import fold
    from hiresvit.runtime.torch_runner import TorchRunner

    opened = source.runner
    assert isinstance(opened, TorchRunner)
    runner = stack.enter_context(TorchRunner(fold(opened.module), opened.inputs, opened.outputs, opened.about.threads))
    opened.close()
    found = [Boundary(_as_in_graph(path), kind, path, path, shape) for path, kind, shape in runner.modules(feeds[0])]

    def side(names: Sequence[str]) -> Fetch:
        return lambda image: runner.results_of(names, feeds[image])

    return _Watched(found, side, "fp32")


def _as_in_graph(path: str) -> str:
    """What nodes call a module of the exported form: see `hiresvit.export.onnx`."""
    return path.removeprefix("model.") or "output"


def _graph_of(source: Source) -> ModelProto:
    """The graph of a side, or the one that its plan was built from, with its weights."""
    from hiresvit.graph.file import file_digest, load_graph

    if source.graph is not None:
        return load_graph(source.graph, weights=True)
    said = "its modules can be seen in a plan that is built anew from its graph"
    if source.built_from is None:
        raise UsageError(f"{source.label} is a plan, and nothing beside it says of which graph: {said}; compare that")
    path, digest = source.built_from
    if not path.is_file() or file_digest(path, load_graph(path)) != digest:
        raise UsageError(f"{source.label} is a plan, and {path}, as it was then, is not there: {said}; copy it there")
    return load_graph(path, weights=True)


def _precision(index: GraphIndex) -> str:
    if any(node.op_type == "QuantizeLinear" for node in index.nodes):
        return "int8"
    return "fp16" if "float16" in index.types.values() else "fp32"


def _fetched(source: Source, model: ModelProto, feeds: Feeds) -> Side:
    """A graph on ONNX Runtime's CPU, as calibration fetches tensors."""
    from hiresvit.calibration.collect import fetcher, graph_inputs
    from hiresvit.calibration.probes import tensor_graph

    inputs, threads = graph_inputs(model), source.runner.about.threads
    return lambda names: fetcher(tensor_graph(model, names), inputs, feeds, "compare its modules", threads)


def _opened(source: Source, model: ModelProto, feeds: Feeds, runner: str | None, stack: ExitStack) -> Side:
    """A graph on another runner, or as a plan that is built with the tensors as outputs."""
    import onnx

    from hiresvit.calibration.probes import tensor_graph

    def side(names: Sequence[str]) -> Fetch:
        stack.close()  # what the chunk before was fetched with
        with scratch_folder() as folder:
            path = folder / "graph.onnx"
            onnx.save(tensor_graph(model, names), path)
            if source.graph is None:
                from hiresvit.engine.build import build_engine

                graph, path = path, path.with_suffix(".plan")
                build_engine(graph, path)
            threads = None if source.graph is None else source.runner.about.threads
            opened = stack.enter_context(Casting(open_runner(path, runner=runner, threads=threads)))

        def fetch(image: int) -> list[NDArray[Any]]:
            answer = opened(feeds[image])
            return [answer[name] for name in names]

        return fetch

    return side
