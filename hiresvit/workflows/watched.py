"""A network that can be asked for the tensors of its modules, and what computes them.

A graph gives them as outputs of a copy that ends there. A plan and a compiled context are made once more from such a
copy of the graph that they were made from. A PyTorch model is folded as the export folds it, with hooks on its modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from hiresvit.device.chips import Chip
from hiresvit.device.qnn_api import emulated, installed_version
from hiresvit.device.qnn_context import read_context
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.evaluation.layers import Fetch, Side
from hiresvit.files import scratch_folder
from hiresvit.process import trim_memory
from hiresvit.runtime.open import chip_of_runner, find_backend, open_runner
from hiresvit.runtime.runner import About, Casting, Runner
from hiresvit.spec import Feeds
from hiresvit.workflows.open import Source

if TYPE_CHECKING:
    from onnx import ModelProto

    from hiresvit.graph.index import GraphIndex
    from hiresvit.graph.modules import Boundary


@dataclass(frozen=True)
class Engine:
    """What computes a graph's file, if that is not ONNX Runtime's CPU: ``open`` makes it ready.

    ``about`` is known before a graph is opened, and ``chip`` of a Qualcomm HTP, which computes FP32 in FP16.
    """

    open: Callable[[Path], Runner]
    about: About
    chip: Chip | None = None


class Refused(Runner):
    """A graph that its engine did not open: it says what goes in and comes out, and fails as the engine did."""

    def __init__(self, stand_in: Runner, error: HiresvitError) -> None:
        self.stand_in, self.error = stand_in, error
        self.inputs, self.outputs, self.about = stand_in.inputs, stand_in.outputs, stand_in.about
        self.metadata = stand_in.metadata

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        raise self.error

    def close(self) -> None:
        self.stand_in.close()


@dataclass(frozen=True)
class Watched:
    """A network that can be asked for its tensors; ``precision`` is a key of `TOLERANCES`."""

    boundaries: Sequence[Boundary]
    side: Side
    precision: str


def find_engine(source: Source, runner: str | None) -> Engine | None:
    """What computes the graph of a source that is opened with a named runner; None for ONNX Runtime's CPU.

    That of a plan is TensorRT, and that of a context Qualcomm's compiler for its chip.
    """
    path = source.graph
    if source.origin.get("role") == "pytorch":
        return None
    if path is None:

        def build(graph: Path) -> Runner:
            from hiresvit.engine.build import build_engine

            plan = graph.with_suffix(".plan")
            build_engine(graph, plan)
            return open_runner(plan, runner=runner, threads=None)

        return Engine(build, source.runner.about)
    if (context := read_context(path)) is not None:
        runner = f"qnn:{context.chip.name}"
    if runner is None:
        return None
    threads = source.runner.about.threads if "threads" in find_backend(path, runner)[0].options else None
    chip, about = chip_of_runner(runner), About(runner.partition(":")[0], "", runner.partition(":")[2])
    if chip is not None:
        about = About("QNN", installed_version() or "", f"HTP of {chip.part}", emulated=emulated())
    return Engine(lambda graph: open_runner(graph, runner=runner, threads=threads), about, chip)


@contextmanager
def watch(source: Source, feeds: Feeds, engine: Engine | None) -> Iterator[Watched]:
    """A source, ready to be asked; what it was opened with is closed. Raises UsageError as `graph_of`."""
    with ExitStack() as stack:
        if source.origin.get("role") == "pytorch":
            yield _watch_torch(source, feeds, stack)
            return
        from hiresvit.graph.index import index_graph
        from hiresvit.graph.modules import find_boundaries

        model = graph_of(source)
        half, bf16 = engine is not None and engine.chip is not None, source.runner.precision is not None
        source.runner.close()
        trim_memory()
        index = index_graph(model, {})
        side = _fetched(source, model, feeds) if engine is None else _opened(engine, model, feeds, stack)
        yield Watched(find_boundaries(index), side, _precision(index, half=half, bf16=bf16))


def graph_of(source: Source) -> ModelProto:
    """The graph of a side, or the one that its plan or context was made from, with its weights.

    Raises UsageError if that is not known or not there.
    """
    from hiresvit.graph.file import file_digest, load_graph

    compiled = "plan" if source.graph is None else "compiled context"
    if source.graph is not None and read_context(source.graph) is None:
        return load_graph(source.graph, weights=True)
    said = f"its modules can be seen in a {compiled} that is built anew from its graph"
    called = f"{source.label} is a {compiled}"
    if source.built_from is None:
        raise UsageError(f"{called}, and nothing beside it says of which graph: {said}; compare that")
    path, digest = source.built_from
    if not path.is_file() or file_digest(path, load_graph(path)) != digest:
        raise UsageError(f"{called}, and {path}, as it was then, is not there: {said}; copy it there")
    return load_graph(path, weights=True)


def _watch_torch(source: Source, feeds: Feeds, stack: ExitStack) -> Watched:
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

    return Watched(found, side, "fp32")


def _as_in_graph(path: str) -> str:
    """What nodes call a module of the exported form: see `hiresvit.export.onnx`."""
    return path.removeprefix("model.") or "output"


def _precision(index: GraphIndex, *, half: bool, bf16: bool) -> str:
    """The lowest in it, or in what computes it; weights, which may have fewer bits, are no results."""
    made = {index.types.get(n.output[0]) for n in index.nodes if n.op_type == "QuantizeLinear"}
    for precision, types in (("int8", {"int8"}), ("a8w8", {"uint8"}), ("a16w8", {"uint16", "int16"})):
        if made & types:
            return precision
    if bf16:
        return "bf16"
    return "fp16" if half or "float16" in index.types.values() else "fp32"


def _fetched(source: Source, model: ModelProto, feeds: Feeds) -> Side:
    """A graph on ONNX Runtime's CPU, as calibration fetches tensors."""
    from hiresvit.calibration.collect import fetcher, graph_inputs
    from hiresvit.calibration.probes import tensor_graph

    inputs, threads = graph_inputs(model), source.runner.about.threads
    return lambda names: fetcher(tensor_graph(model, names), inputs, feeds, "compare its modules", threads)


def _opened(engine: Engine, model: ModelProto, feeds: Feeds, stack: ExitStack) -> Side:
    """A graph on another engine."""
    import onnx

    from hiresvit.calibration.probes import tensor_graph

    def side(names: Sequence[str]) -> Fetch:
        stack.close()  # what the chunk before was fetched with
        with scratch_folder() as folder:
            path = folder / "graph.onnx"
            onnx.save(tensor_graph(model, names), path)
            opened = stack.enter_context(Casting(engine.open(path)))

        def fetch(image: int) -> list[NDArray[Any]]:
            answer = opened(feeds[image])
            return [answer[name] for name in names]

        return fetch

    return side
