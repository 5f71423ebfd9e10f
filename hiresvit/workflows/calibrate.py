"""`hiresvit calibrate`: from a graph's file and pictures to an INT8 graph's file and its table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from onnx import ModelProto

from hiresvit.bundle.folder import read_bundle
from hiresvit.bundle.stages import CALIBRATING
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.export.contract import TENSOR, read_contract, read_stamp, read_untrained, stamp, untrained_note
from hiresvit.export.fp16 import to_fp16
from hiresvit.files import atomic_path
from hiresvit.graph.file import load_graph
from hiresvit.progress import OnStep, silent
from hiresvit.report.int8 import sensitivity_chart
from hiresvit.spec import ModelSpec
from hiresvit.workflows.quantize import Int8Settings, check_sources, make_int8


@dataclass(frozen=True)
class Quantized:
    """What was written, the graph first, the report of `make_int8`, and what is to be said of the weights."""

    paths: tuple[Path, ...]
    report: dict[str, Any]
    notes: tuple[str, ...] = ()


def quantize_file(
    source: Path,
    target: Path | None,
    settings: Int8Settings,
    *,
    io: Literal["fp32", "fp16"] = "fp32",
    force: bool = False,
    on_step: OnStep = silent,
) -> Quantized:
    """Write ``target`` (an INT8 graph), its table beside it, and a chart if a search for modules was asked for.

    ``source`` is an FP32 graph that hiresvit exported, or a bundle that has one. An interrupted calibration leaves
    its progress beside ``target`` and goes on from it. Raises UsageError on another graph and HiresvitError on files
    that are there already, and whatever `make_int8` raises.
    """
    path = read_bundle(source).path("simplified") if source.is_dir() else source
    simple, spec = _load(path)
    check_sources(settings, spec)
    stem = source.resolve().name if source.is_dir() else source.stem  # the graph may say anything of itself
    target = target or Path(f"{stem}-int8.onnx")
    if target.suffix != ".onnx":
        raise UsageError(f"--output {target}: an INT8 graph is written, give a name that ends in .onnx")
    table, chart = target.with_suffix(".calibration.json"), target.with_suffix(".sensitivity.svg")
    there = [one for one in (target, table, *([chart] if settings.max_drop is not None else [])) if one.exists()]
    if there and not force:
        raise HiresvitError(f"{there[0]} exists; pass --force to replace it or choose another --output")
    half, _ = to_fp16(simple, io=io)
    state = target.with_name(f".{target.name}.calibration.npz")
    made = make_int8(simple, half, spec, settings, state=state, on_step=on_step)
    stamp(made.graph, spec, "int8")
    made.table.save(table)
    paths = [target, table]
    if "sensitivity" in made.report:
        svg = sensitivity_chart(made.report["sensitivity"], made.report["policy"]["keep"])
        with atomic_path(chart) as temporary:
            temporary.write_text(svg, encoding="utf-8")
        paths.append(chart)
    with atomic_path(target) as temporary:
        temporary.write_bytes(made.graph.SerializeToString(deterministic=True))
    untrained = read_untrained({prop.key: prop.value for prop in simple.metadata_props})
    return Quantized(tuple(paths), made.report, (untrained_note(untrained),) if untrained else ())


def _load(path: Path) -> tuple[ModelProto, ModelSpec]:
    model = load_graph(path, weights=True)
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    stamped = read_stamp(metadata)
    if stamped is None:
        raise UsageError(f"{path} does not say how it takes a picture; give a graph that hiresvit exported")
    if stamped[1] not in CALIBRATING:
        raise UsageError(
            f"{path} is the {stamped[1]} graph; ranges are measured in FP32: give simplified.onnx of the same bundle"
        )
    if (contract := read_contract(metadata)) != TENSOR:
        raise UsageError(
            f"{path} has contract {contract.name}, and ranges are measured of tensors; INT8 of it is made where it is"
            " made: hiresvit export with --int8 and its --contract"
        )
    return model, stamped[0]
