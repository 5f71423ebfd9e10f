"""A contract around the graphs of an export, and whether the way from a picture's file to the answer is PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from PIL import Image

from hiresvit.bundle.golden import write_golden
from hiresvit.bundle.stages import STAGES, stage_path
from hiresvit.data.image import load_image
from hiresvit.data.scenes import sample_image
from hiresvit.evaluation.answers import answer_gate, compare_answer, enforce_answers, joined
from hiresvit.evaluation.parity import GATES, Gate, ParityReport, compare_each, enforce
from hiresvit.evaluation.reference import Behind, example_feed, picture_size
from hiresvit.export.contract import describe_graph, read_stamp
from hiresvit.export.frame import apply_contract
from hiresvit.graph.file import load_graph
from hiresvit.progress import OnStep
from hiresvit.runtime.frame import picture_feed
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.runner import Runner
from hiresvit.spec import ContractSpec, ModelSpec, is_raw

Picture = NDArray[np.uint8]
# Of feature maps behind a camera's pixels: where a graph rounds a grey level to the other side than Pillow, which is
# one in 100,000, a map of FP32 is at 85 dB and no more at 108.
_ROUNDED_DB = 60.0
_JPEG = "picture0.jpg"


def frame_graphs(
    paths: Mapping[str, Path],
    folder: Path,
    stamp: Callable[[ModelProto, str, ContractSpec], None],
    contract: ContractSpec,
    on_step: OnStep,
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Put a contract around each graph, let it be stamped, and write it into a bundle's folder.

    Returns their paths and what they are like, by stage. Raises UsageError as `apply_contract` does.
    """
    bundled, described = {stage: stage_path(folder, stage) for stage in paths}, {}
    for stage, path in bundled.items():
        on_step(f"contract: {stage}", None)
        graph = load_graph(paths[stage], weights=True)
        stamped = read_stamp({prop.key: prop.value for prop in graph.metadata_props})
        assert stamped is not None, "it was stamped when it was made"
        graph = apply_contract(graph, stamped[0], contract)
        stamp(graph, stage, contract)
        size = path.write_bytes(graph.SerializeToString(deterministic=True))
        described[stage] = describe_graph(graph, size)
    return bundled, described


def write_pictures(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """Drawn streets as PNG files, and the first of them as a JPEG, too."""
    paths = []
    for seed in range(count):
        picture = Image.fromarray(sample_image(seed, *size))
        paths.append(folder / f"picture{seed}.png")
        picture.save(paths[-1])
        if seed == 0:
            paths.append(folder / _JPEG)
            picture.save(paths[-1], quality=90)
    return paths


def write_golden_pair(folder: Path, network: Runner, spec: ModelSpec, contract: ContractSpec) -> None:
    """Write the picture, and what PyTorch, behind the contract, makes of the file; ``network`` takes tensors."""
    path = stage_path(folder, "picture")
    Image.fromarray(sample_image(0, *picture_size(spec, contract))).save(path)
    picture, behind = load_image(path), Behind(network, spec, contract)
    feed = example_feed(picture, spec, contract)
    write_golden(stage_path(folder, "golden"), feed, behind(feed), behind.answer(picture))


def contract_parity(
    network: Runner,
    paths: Mapping[str, Path],
    pictures: Sequence[Path],
    contract: ContractSpec,
    *,
    spec: ModelSpec,
    gates: Mapping[str, Gate],
    threads: int | None,
    on_step: OnStep,
) -> dict[str, Any]:
    """Hold every graph with a contract to PyTorch, on the files of pictures; ``network`` takes tensors.

    The one side has the pixels as `load_image` reads them, the other as Pillow does. ``gates`` are those of tensors,
    by stage. Raises GateError at the first graph that answers otherwise.
    """
    behind = Behind(network, spec, contract)
    on_step("parity: pictures", None)
    expected = [behind(picture_feed(_by_pillow(path), spec, contract)) for path in pictures]
    feeds = [picture_feed(load_image(path), spec, contract) for path in pictures]
    stages: list[dict[str, Any]] = []
    for role, path in paths.items():
        name = STAGES[role].gate
        what = f"{name} with contract {contract.name}"
        on_step(f"parity: {what}", None)
        with OnnxRuntimeRunner(path, threads=threads) as runner:
            if is_raw(spec.task):
                gate, report = _maps(behind, runner, feeds, gates.get(name, GATES[name]), contract)
                enforce(report, gate, what)
                stages.append({"stage": name, "gate": asdict(gate), "report": report.to_json()})
                continue
            found = joined([compare_answer(known, runner(feed)) for known, feed in zip(expected, feeds, strict=True)])
        limit = answer_gate(name, contract, spec.task, _asked(name, gates))
        enforce_answers(found, limit, what)
        stages.append({"stage": name, "gate": asdict(limit), "report": found.to_json()})
    return {"pictures": [path.name for path in pictures], "stages": stages}


def _maps(
    behind: Runner, runner: Runner, feeds: Sequence[Mapping[str, Any]], gate: Gate, contract: ContractSpec
) -> tuple[Gate, ParityReport]:
    if contract.name == "camera":
        gate = Gate(min(gate.min_sqnr_db, _ROUNDED_DB), gate.min_cosine, gate.min_agreement)
    return gate, compare_each(behind, [runner], feeds, "features")[0]


def _asked(stage: str, gates: Mapping[str, Gate]) -> float | None:
    """What FP16 and INT8 are held to; of FP32, whose own is too wide for labels, what was asked for, else None."""
    least = gates.get(stage, GATES[stage]).min_agreement
    return None if stage not in ("fp16", "int8") and least == GATES[stage].min_agreement else least


def _by_pillow(path: Path) -> Picture:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))
