"""The export, end to end: spec -> model -> graphs -> plan, each stage compared with PyTorch -> bundle."""

from __future__ import annotations

import gc
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from hiresvit.bundle.folder import Bundle, read_bundle, writing_bundle
from hiresvit.bundle.manifest import Manifest, list_files, write_manifest
from hiresvit.bundle.stages import EXACT, GRAPHS, HTP, PLANS, STAGES, stage_path
from hiresvit.data.labels import labels_to_json
from hiresvit.data.preprocess import example_input
from hiresvit.data.scenes import sample_image, sample_images
from hiresvit.device.platform import package_version, this_platform
from hiresvit.evaluation.headroom import Headroom, enforce_headroom, open_exact
from hiresvit.evaluation.latency import latency_report
from hiresvit.evaluation.parity import GATES, compare_each, enforce, gates_for
from hiresvit.evaluation.reference import picture_size
from hiresvit.export.contract import INPUT, TENSOR, describe_graph, stamp
from hiresvit.export.cpu import for_cpu
from hiresvit.export.deployed import Deployed
from hiresvit.export.fp16 import to_fp16
from hiresvit.export.onnx import export_onnx
from hiresvit.export.simplify import simplify
from hiresvit.export.tensorrt import for_tensorrt
from hiresvit.graph.file import load_graph
from hiresvit.models.fold import fold
from hiresvit.process import trim_memory
from hiresvit.progress import OnStep, silent
from hiresvit.report.int8 import int8_verdict, sensitivity_chart
from hiresvit.runtime.frame import picture_feed
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.runner import Casting, Remembering, Runner
from hiresvit.runtime.torch_runner import TorchRunner
from hiresvit.spec import ContractSpec, Feed, ModelSpec, TensorSpec, is_raw
from hiresvit.version import __version__
from hiresvit.workflows.decide import decide
from hiresvit.workflows.emulate import Network
from hiresvit.workflows.export_settings import ExportSettings, check_settings
from hiresvit.workflows.frame import contract_parity, frame_graphs, write_golden_pair, write_pictures
from hiresvit.workflows.htp_export import emulate_forms, make_forms, tensors_of
from hiresvit.workflows.loaded import Loaded, load_model
from hiresvit.workflows.plans import batch_profiles, build_plans
from hiresvit.workflows.quantize import make_int8
from hiresvit.workflows.yardstick import Yardstick

_REMEMBERED = 2**30  # bytes of PyTorch's answers that are kept for the next graph
_HALF = {"fp16": EXACT, "int8": "int8 exact"}
"""The graphs with FP16 in them, and what they are rounded as FP16 rounds; the second has no gate, and no row."""
TOOLS = ("torch", "onnx", "onnxruntime", "onnxscript", "onnxsim", "numpy", "tensorrt-rtx-cu12")


@dataclass(frozen=True)
class _Job:
    """What every stage of one export needs; ``graphs`` is where those lie that take tensors."""

    spec: ModelSpec
    settings: ExportSettings
    contract: ContractSpec
    folder: Path
    graphs: Path
    feeds: list[Feed]
    loaded: Loaded
    on_step: OnStep


def export_bundle(
    spec: ModelSpec, target: Path, settings: ExportSettings, *, command: Sequence[str], on_step: OnStep = silent
) -> Bundle:
    """Make a verified bundle at ``target`` and return it.

    ``on_step(name, fraction)`` is told what is going on; the fraction is None where it cannot be known. Nothing
    is left behind on any error. Raises UsageError on settings that exclude each other, HiresvitError on weights
    or a place that cannot be used, GateError when a stage differs from PyTorch by more than its gate, and
    BuildError when the plan cannot be built.
    """
    contract = check_settings(settings, spec)
    settings = replace(settings, gates=gates_for(spec, settings.gates))
    with writing_bundle(target, force=settings.force) as folder, _scratch(folder, contract) as graphs:
        on_step("load", None)
        feeds = _feeds(spec, settings.images)
        model, loaded = _load(spec, settings)
        job = _Job(spec, settings, contract, folder, graphs, feeds, loaded, on_step)
        paths, reports, looked, proof = _graphs(job, model, target)
        _return_memory()
        ends = _ends(paths["fp32"])
        deployed = Deployed(model, spec, resize=settings.resize)  # unfolded: what the user trained
        with TorchRunner(deployed, *ends, settings.threads) as reference:
            parity = _parity(job, reference, paths, looked)
            said = _emulate(job, model, reference, paths, reports)
            if contract != TENSOR:
                paths, reports["graphs"] = frame_graphs(paths, folder, partial(_stamp, job), contract, on_step)
                parity["contract"] = _contract_parity(job, reference, paths)
            inputs, outputs = _ends(paths["fp32"])
            engines, missing = _plans(job, paths, inputs)
            # By one thread: how many there are decides in which order sums are taken, and so the last bits.
            with TorchRunner(deployed, *ends, threads=1) as alone:
                write_golden_pair(folder, alone, spec, contract)
            latency = _latency(job, reference, paths) if settings.latency else None
        for stage, found in looked.items():
            reports[stage] |= found.to_json()
        if settings.int8 is not None:
            _decide(job, target, engines, reports["int8"], proof)
        on_step("write", None)
        manifest = Manifest(
            spec=spec,
            contract=contract,
            inputs=inputs,
            outputs=outputs,
            weights=loaded.weights,
            files=list_files(folder, loaded.weights),
            tools=_tools(),
            command=list(command),
            parity=parity,
            latency=latency,
            engines=engines,
            labels=loaded.labels and labels_to_json(loaded.labels),
            notes=(*settings.notes, *loaded.notes, *said, *missing),
            **reports,
        )
        write_manifest(folder, manifest)
    return read_bundle(target)


@contextmanager
def _scratch(folder: Path, contract: ContractSpec) -> Iterator[Path]:
    """Where graphs lie that take tensors: in the bundle, unless it holds others; then they are gone in the end."""
    if contract == TENSOR:
        yield folder
        return
    place = folder / "tensors"
    place.mkdir()
    yield place
    shutil.rmtree(place)


def _ends(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """What a graph takes and gives."""
    with OnnxRuntimeRunner(path) as runner:
        return runner.inputs, runner.outputs


def _load(spec: ModelSpec, settings: ExportSettings) -> tuple[nn.Module, Loaded]:
    chosen = {name: getattr(settings, name) for name in ("seed", "labels", "ema", "entry", "allow_missing_head")}
    return load_model(spec, settings.weights, **chosen)


def _feeds(spec: ModelSpec, count: int) -> list[Feed]:
    return [{INPUT: example_input(image, spec.preprocess, spec.imgsz)} for image in sample_images(count, spec.imgsz)]


def _return_memory() -> None:
    """Drop what nothing refers to and give it back: a child process is about to need as much."""
    gc.collect()
    trim_memory()


def _graphs(
    job: _Job, model: nn.Module, target: Path
) -> tuple[dict[str, Path], dict[str, Any], dict[str, Headroom], Yardstick | None]:
    """Write the graphs; returns their paths by role, the reports of what was done to them, and what calibration saw.

    The last is what INT8's accuracy was measured on. A graph holds the weights once more, so each is dropped as soon as
    it is written.
    """
    spec, settings = job.spec, job.settings
    described: dict[str, Any] = {}
    save = partial(_save, job, described)
    job.on_step("export", None)
    graph = export_onnx(
        fold(model), spec, opset=settings.opset, dynamic_batch=settings.dynamic_batch, resize=settings.resize
    )
    save("fp32", graph)
    _return_memory()
    job.on_step("simplify", None)
    simple, report = simplify(graph)
    del graph
    save("simplified", simple)
    reports: dict[str, Any] = {"simplify": report.to_json(), "graphs": described}
    looked: dict[str, Headroom] = {}
    proof = None
    table = None
    # Beside the bundle: what is in it is gone when the export is interrupted.
    state = target.with_name(f".{target.name}.calibration.npz")
    # Fresh weights are never right.
    prove = settings.weights is not None
    if not settings.dynamic_batch:  # its norms need a known number of rows
        save("cpu", for_cpu(simple))
    if settings.fp16:
        job.on_step("fp16", None)
        # Labels are read of FP16 as it is; feature maps are the answer themselves.
        own = "fp16" if job.contract != TENSOR and not is_raw(spec.task) else settings.io
        half, half_report = to_fp16(simple, io=own)
        save("fp16", for_tensorrt(half))
        if settings.int8 is not None:
            chosen = replace(settings.int8, prove=prove)
            also = tensors_of(settings.htp, simple) if settings.htp else ()
            made = make_int8(simple, half, spec, chosen, also=also, state=state, on_step=job.on_step)
            save("int8", made.graph)
            reports["int8"] = made.report
            looked, proof, table = made.headroom, made.proof, made.table
            if sensitivity := made.report.get("sensitivity"):
                chart = sensitivity_chart(sensitivity, made.report["policy"]["keep"])
                stage_path(job.folder, "sensitivity").write_text(chart, encoding="utf-8")
            del made
        del half
        reports["fp16"] = half_report.to_json()
    if settings.htp is not None:
        made_for = partial(make_forms, settings.htp, simple, spec, save, prove=prove)
        reports["htp"], table = made_for(table=table, state=state, on_step=job.on_step)
    if table is not None:
        table.save(stage_path(job.folder, "calibration"))
    return {stage: stage_path(job.graphs, stage) for stage in GRAPHS if stage in described}, reports, looked, proof


def _stamp(job: _Job, graph: onnx.ModelProto, stage: str, contract: ContractSpec = TENSOR) -> None:
    loaded = job.loaded
    stamp(graph, job.spec, stage, labels=loaded.labels, untrained=loaded.untrained, contract=contract)


def _save(job: _Job, described: dict[str, Any], stage: str, graph: onnx.ModelProto) -> None:
    _stamp(job, graph, stage)
    size = stage_path(job.graphs, stage).write_bytes(graph.SerializeToString(deterministic=True))
    described[stage] = describe_graph(graph, size)


def _contract_parity(job: _Job, reference: Runner, paths: Mapping[str, Path]) -> dict[str, Any]:
    """The graphs of the bundle, held to PyTorch from the files of pictures on. Raises GateError."""
    settings, size = job.settings, picture_size(job.spec, job.contract)
    return contract_parity(
        reference,
        paths,
        write_pictures(job.graphs, settings.images, size),
        job.contract,
        spec=job.spec,
        gates=settings.gates,
        threads=settings.threads,
        on_step=job.on_step,
    )


def _plans(job: _Job, paths: Mapping[str, Path], inputs: Sequence[TensorSpec]) -> tuple[dict[str, Any], list[str]]:
    """The reports of the plans that were asked for, and a note where there is none."""
    if not job.settings.plan:
        return {}, []
    if "fp16" not in paths:
        return {}, ["no plan was built: TensorRT fuses attention in FP16 only, add --fp16"]
    _return_memory()
    shapes = batch_profiles(inputs) if job.settings.dynamic_batch else {}
    return build_plans(paths, job.folder, shapes, job.on_step)


def _parity(job: _Job, reference: Runner, paths: Mapping[str, Path], looked: dict[str, Headroom]) -> dict[str, Any]:
    """Compare every graph with PyTorch, and add to ``looked`` how much of FP16's range those use that are in FP16.

    Raises GateError at the first that misses its gate, or that FP16 cannot hold.
    """
    stages, threads = [], job.settings.threads
    reference = Remembering(reference, _REMEMBERED)
    for role, path in paths.items():
        stage = STAGES[role].gate
        job.on_step(f"parity: {stage}", None)
        half = open_exact(load_graph(path, weights=True), threads) if role in _HALF else None
        with ExitStack() as stack:
            runners: dict[str, Runner] = {stage: stack.enter_context(OnnxRuntimeRunner(path, threads=threads))}
            if half is not None:
                runners[_HALF[role]] = stack.enter_context(half)
            sides = [*map(Casting, runners.values())]
            reports = compare_each(reference, sides, job.feeds, job.spec.task, job.spec.anchors)
        if half is not None:
            enforce_headroom(half.found, stage)
            looked[role] = half.found.joined(looked[role]) if role in looked else half.found
        for name, report in zip(runners, reports, strict=True):
            if name in GATES:
                gate = job.settings.gates.get(name, GATES[name])
                enforce(report, gate, name)
                stages.append({"stage": name, "gate": asdict(gate), "report": report.to_json()})
    return {"task": job.spec.task, "images": len(job.feeds), "reference": "pytorch", "stages": stages}


def _emulate(
    job: _Job, model: nn.Module, reference: Runner, paths: Mapping[str, Path], reports: dict[str, Any]
) -> list[str]:
    """Add to the reports what Qualcomm's emulator makes of the graphs for its HTP; returns notes. Raises GateError."""
    settings = job.settings
    if settings.htp is None:
        return []
    graphs = {one.form: paths[HTP[one.form]] for one in settings.htp.forms}
    return emulate_forms(
        settings.htp,
        model,
        Network(job.spec, reference, job.feeds, graphs),
        reports["htp"],
        gates=settings.gates,
        trained=settings.weights is not None and not job.loaded.untrained,
        on_step=job.on_step,
        opset=settings.opset,
        resize=settings.resize,
    )


def _decide(
    job: _Job, bundle: Path, engines: Mapping[str, Any], report: dict[str, Any], proof: Yardstick | None
) -> None:
    """Add to INT8's report whether it is worth it on this machine."""
    assert job.settings.int8 is not None  # or there is no report
    drop, contract = job.settings.int8.max_drop, job.contract
    plans = {stage: stage_path(job.folder, plan) for plan in PLANS if (stage := str(STAGES[plan].parent)) in engines}
    decision = decide(plans, _feed(job), report.get("accuracy"), proof, contract, max_drop=drop, on_step=job.on_step)
    report |= {
        "decision": decision,
        "verdict": int8_verdict(str(bundle), engines, decision, lean=job.settings.int8.lean),
    }


def _feed(job: _Job) -> Feed:
    """What the graphs of the bundle take for one picture."""
    if job.contract == TENSOR:
        return job.feeds[0]
    return picture_feed(sample_image(0, *picture_size(job.spec, job.contract)), job.spec, job.contract)


def _latency(job: _Job, reference: Runner, paths: Mapping[str, Path]) -> dict[str, Any]:
    """PyTorch and every graph on ONNX Runtime, in turn in one run; PyTorch gets a tensor and gives one."""
    job.on_step("latency", None)
    # What was asked for, or every core this process may use; PyTorch and ONNX Runtime get the same.
    feed, threads = _feed(job), job.settings.threads or len(os.sched_getaffinity(0))
    with ExitStack() as stack:
        sides: dict[str, Callable[[], object]] = {"pytorch": partial(reference, job.feeds[0])}
        for role, path in paths.items():
            if role in HTP.values():  # made for another processor than this one
                continue
            runner = stack.enter_context(OnnxRuntimeRunner(path, threads=threads))
            sides[role] = partial(Casting(runner), feed)
        report = latency_report(sides, min_s=1.0)
    return {"threads": threads, "device": platform.processor() or platform.machine(), **report}


def _tools() -> dict[str, str]:
    found = {"hiresvit": __version__, "python": platform.python_version()}
    found |= {name: version for name in TOOLS if (version := package_version(name))}
    return found | {"platform": this_platform()}
