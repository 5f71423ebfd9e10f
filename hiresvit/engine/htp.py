"""Compile an ONNX graph for Qualcomm's HTP, and say what the compiler made of it.

Precision is in the graph: integers where it has Q/DQ, else FP16. The compiler runs in a child process
(`hiresvit.runtime._qnn_child`) and needs no device. The HTP takes every node, or, unless that is allowed, the build
fails. The same graph gives a context of the same answers; its bytes may differ in a few hundred that the library does
not set (measured: those of LRFormer-T do, those of HRViT-nano do not).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnx import ModelProto

from hiresvit.device.chips import Chip
from hiresvit.device.context import ContextSidecar, HtpReport, Refused, context_files, sum_file
from hiresvit.device.platform import package_version
from hiresvit.device.qnn_api import installed_version, qairt_version, require_library
from hiresvit.device.qnn_context import OPERATOR, read_context_chip
from hiresvit.engine.htp_arithmetic import (
    check_form_requirement,
    count_operators,
    find_arithmetic,
    parse_form_requirement,
    read_qnn_graphs,
)
from hiresvit.errors import ArtefactError, BuildError, HiresvitError, IllegalGraphError, UsageError
from hiresvit.files import naming_target, new_parents, refuse_existing, scratch_folder, sync, temporary_beside
from hiresvit.graph.file import file_digest, load_graph
from hiresvit.graph.index import GraphIndex, index_graph, module_of
from hiresvit.graph.products import find_products
from hiresvit.process import Worker
from hiresvit.runtime.qnn_log import refused_nodes, tensors_of, warnings_of
from hiresvit.runtime.qnn_messages import Failed, Opened, Opening

_MOST_AXES = 5
_SAYS_NOTHING = ("", "Failed to add node.")
_NAMED = 5  # modules in a message


_NOT_WRITTEN = "context cache file"  # run: "Failed to write" or "open", without the reason


def build_context(
    graph: Path,
    target: Path,
    chip: Chip,
    *,
    replace: bool = False,
    allow_cpu: bool = False,
    require: str | None = None,
    on_progress: Callable[[str, float], None] | None = None,
) -> HtpReport:
    """Write the context of a graph: ``target`` (``NAME.onnx``), its binary and its sidecar, all three or none.

    ``allow_cpu`` lets the CPU compute what the HTP does not take, ``require`` is the least share of the products in a
    form, as ``a16w8:95%``. Raises MissingDependency without the library, IllegalGraphError for a graph in floating
    point on a chip of integers and for nodes that are refused, GateError for a requirement that is not met, BuildError
    when the compiler fails or dies, ArtefactError if it compiled for another chip than was asked for, HiresvitError
    for files that cannot be read or written.
    """
    required = parse_form_requirement(require) if require is not None else None
    require_library()
    model = _load(graph)
    for path in context_files(target):
        with naming_target(path):
            if path.is_dir():
                raise HiresvitError(f"cannot write {path}: it is a folder; choose another name")
            if path.exists() and path.samefile(graph):
                raise UsageError(f"{path} is the graph itself; choose another name for the context")
    digest = file_digest(graph, model)
    with _beside(target) as folder:
        report = _compile(graph, model, chip, folder / target.name, allow_cpu=allow_cpu, on_progress=on_progress)
        if _NOT_WRITTEN in (report.failure or ""):
            raise HiresvitError(f"cannot write {target}: its disk may be full; make room or choose another place")
        if report.failure is not None or not report.nodes_htp or (report.refused and not allow_cpu):
            integers = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
            raise _refusal(graph, chip, report, integers=integers, allow_cpu=allow_cpu)
        if (report.soc_model, report.arch) != (chip.soc_model, chip.arch):
            raise ArtefactError(
                f"{graph}: asked for {chip}, soc_model {chip.soc_model}, and the library wrote soc_model"
                f" {report.soc_model}, V{report.arch}; nothing is kept"
            )
        if required is not None:
            check_form_requirement(required, report)
        if file_digest(graph, model) != digest:
            raise HiresvitError(f"{graph} was changed while the context was built from it; build it again")
        made = context_files(folder / target.name)
        metadata = {prop.key: prop.value for prop in model.metadata_props}
        sidecar = ContextSidecar(graph.name, digest, report, sum_file(made[0]), sum_file(made[1]), metadata)
        made[2].write_text(sidecar.text(), encoding="utf-8")
        _move(made, context_files(target), replace=replace)
    return report


def compile_graph(graph: Path, chip: Chip) -> HtpReport:
    """What the compiler makes of a graph; nothing is kept, and a graph that it refuses is a report, too.

    Raises MissingDependency without the library, HiresvitError for a file that is no graph.
    """
    require_library()
    model = _load(graph)
    with scratch_folder() as folder:
        return _compile(graph, model, chip, folder / "checked.onnx", allow_cpu=True)


def _load(graph: Path) -> ModelProto:
    """Raises UsageError for what is compiled already, IllegalGraphError for a graph of open sizes."""
    model = load_graph(graph)
    if any(node.op_type == OPERATOR for node in model.graph.node):
        raise UsageError(f"{graph} is a compiled context already; give the graph that it was built from")
    for value in model.graph.input:
        if any(not axis.dim_value for axis in value.type.tensor_type.shape.dim):
            raise IllegalGraphError(
                f"{graph}: its input {value.name!r} has an open size, and the HTP takes fixed ones only; export it"
                " without --dynamic-batch"
            )
    return model


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A folder on the disk of ``target``, so that what is made in it can be renamed."""
    with naming_target(target), new_parents(target), temporary_beside(target, Path.mkdir) as folder:
        yield folder


def _move(made: Sequence[Path], targets: Sequence[Path], *, replace: bool) -> None:
    """Rename all or none; at no time does the ONNX file of one build stand beside another's binary."""
    for path in made:
        sync(path)
    for target in targets:
        refuse_existing(target, replace=replace)
    targets[0].unlink(missing_ok=True)
    moved: list[Path] = []
    try:
        for path, target in reversed(list(zip(made, targets, strict=True))):  # the ONNX file last: then it is whole
            os.replace(path, target)
            moved.append(target)
    except BaseException:
        for target in moved:
            with suppress(OSError):
                target.unlink()
        raise


def _compile(
    graph: Path,
    model: ModelProto,
    chip: Chip,
    context: Path,
    *,
    allow_cpu: bool,
    on_progress: Callable[[str, float], None] | None = None,
) -> HtpReport:
    """Compile into ``context`` and the file beside it, and read the log."""
    if on_progress is not None:
        on_progress(f"compiling for {chip.name}", 0.0)
    began = time.monotonic()
    with scratch_folder() as folder:
        options = (("dump_json_qnn_graph", "1"), ("json_qnn_graph_dir", str(folder)))
        how = Opening(str(graph.resolve()), chip.soc_model, not allow_cpu, str(context.resolve()), options)
        answer, log = _ask(graph, how)
        seconds = time.monotonic() - began
        operators, arithmetic = count_operators(nodes := read_qnn_graphs(folder))
    index = index_graph(model, {})
    report = HtpReport(
        **dict.fromkeys(("soc_model", "arch", "vtcm_mb", "context_bytes", "peak_rss_bytes")),
        chip=chip.name,
        versions=_versions(),
        nodes_htp=0,
        nodes_cpu=0,
        refused=_explained(refused_nodes(log), index, log),
        operators=operators,
        arithmetic=arithmetic,
        macs={},
        departed=(),
        seconds=round(seconds, 3),
        warnings=warnings_of(log),
        uncounted=(),
    )
    if isinstance(answer, Failed):
        return replace(report, nodes_cpu=len(report.refused), failure=answer.message.strip().split("\n", 1)[0])
    assert isinstance(answer, Opened)
    why = {node.node: node for node in report.refused}
    refused = tuple(why.get(name) or Refused(name, module_of(name), op, "") for name, op in answer.left)
    products = find_products(index)
    macs, departed = find_arithmetic(products, index, nodes)
    # the library writes no context where it takes nothing
    soc_model, arch, vtcm = read_context_chip(context) if answer.taken else (None, None, None)
    return replace(
        report,
        soc_model=soc_model,
        arch=arch,
        vtcm_mb=vtcm,
        nodes_htp=len(answer.taken),
        nodes_cpu=len(answer.left),
        refused=_explained(refused, index, log),
        macs=macs,
        departed=departed,
        context_bytes=context_files(context)[1].stat().st_size if answer.taken else None,
        peak_rss_bytes=answer.peak_rss_bytes,
        uncounted=products.uncounted,
    )


def _ask(graph: Path, how: Opening) -> tuple[Any, str]:
    """What the child answers, and its log. Raises BuildError if it dies."""
    worker = Worker(["-m", "hiresvit.runtime._qnn_child"])
    try:
        answer = worker.ask(how)
        log = worker.said()
    except ChildProcessError as error:
        raise BuildError(f"{graph}: Qualcomm's compiler {error}") from error
    finally:
        worker.close()
    if isinstance(answer, HiresvitError):
        raise answer
    return answer, log


def _versions() -> dict[str, str | None]:
    return {
        "onnxruntime": package_version("onnxruntime"),
        "onnxruntime_qnn": installed_version(),
        "qairt": qairt_version(),
    }


def _explained(refused: Sequence[Refused], index: GraphIndex, log: str) -> tuple[Refused, ...]:
    """With a module for a node that the provider has renamed, by the tensors it reads and makes, and a reason."""
    near = tensors_of(log)
    nodes = {node.name: node for node in index.nodes if node.name}
    found = []
    for one in refused:
        module, reason, node = one.module, one.reason, nodes.get(one.node)
        if not module and node is None:
            module = next(filter(None, (_module_of_tensor(index, name) for name in near.get(one.node, ()))), "")
        tensors = (*node.input, *node.output) if node is not None else near.get(one.node, ())
        axes = max((len(index.shapes.get(name, ())) for name in tensors), default=0)
        if reason in _SAYS_NOTHING:
            reason = (
                f"it has {axes} axes, and the HTP takes {_MOST_AXES}" if axes > _MOST_AXES else "Qualcomm's own check"
            )
        found.append(replace(one, module=module, reason=reason))
    return tuple(found)


def _module_of_tensor(index: GraphIndex, name: str) -> str:
    node = index.producer.get(name)
    around = [node] if node is not None else [reader for reader, _ in index.reads(name)]
    return next(filter(None, (module_of(node.name) for node in around)), "")


def _refusal(graph: Path, chip: Chip, report: HtpReport, *, integers: bool, allow_cpu: bool) -> HiresvitError:
    """Why there is no context, with the modules of the nodes that are refused."""
    if not report.refused:
        return BuildError(f"{graph}: Qualcomm's compiler does not take it for {chip} ({report.failure})")
    modules = list(dict.fromkeys(one.module or one.node for one in report.refused))
    more = f" and {len(modules) - _NAMED} more" if len(modules) > _NAMED else ""
    reasons = list(dict.fromkeys(one.reason for one in report.refused))
    form = ""
    if not (chip.fp16 or integers):
        form = f"; it computes in integers only, `hiresvit export ... --htp a16w8 --target {chip.name}` makes those"
    elif integers and not chip.wide_products and any(one.op == "MatMul" for one in report.refused):
        form = f"; it multiplies by 8 bits only, `hiresvit export ... --htp a16w8 --target {chip.name}` makes that form"
    # what is refused with its channels last already no CPU has a kernel for
    cpu = "" if allow_cpu or "NHWC" in (report.failure or "") else "; --allow-cpu leaves them to the CPU"
    return IllegalGraphError(
        f"{graph}: {chip} does not take {len(report.refused)} of its nodes: {', '.join(modules[:_NAMED])}{more}"
        f" ({re.sub(r'[.]$', '', reasons[0])}){form}{cpu}"
    )
