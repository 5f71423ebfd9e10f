"""The plans of an export: of its FP16 graph and, if there is one, its INT8 graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hiresvit.bundle.stages import PLANS, STAGES, stage_path
from hiresvit.device.plan import EngineReport, Profile
from hiresvit.engine.build import BuildSettings, build_engine
from hiresvit.errors import MissingDependency
from hiresvit.process import trim_memory
from hiresvit.progress import OnStep
from hiresvit.spec import TensorSpec
from hiresvit.workflows.quantize import require_fused

BATCH_PROFILE = (1, 1, 8)
"""The least, best and most images of a plan with a dynamic batch."""


def batch_profiles(inputs: Sequence[TensorSpec]) -> dict[str, Profile]:
    """`BATCH_PROFILE` for each input, whose other sides are static."""
    shapes: dict[str, Profile] = {}
    for tensor in inputs:
        sides = tuple(int(side) for side in tensor.shape[1:])
        least, best, most = ((size, *sides) for size in BATCH_PROFILE)
        shapes[tensor.name] = (least, best, most)
    return shapes


def build_plans(
    paths: Mapping[str, Path], folder: Path, shapes: Mapping[str, Profile], on_step: OnStep
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Build the plans of the graphs in ``paths``, which are by stage, into a bundle's folder: reports by that, notes.

    Without a library that can build here there are none, and a note says why. Raises BuildError, and GateError if INT8
    costs the fusion of an attention.
    """
    engines: dict[str, EngineReport] = {}
    for plan in PLANS:
        stage = STAGES[plan].parent
        if stage is None or stage not in paths:
            continue
        trim_memory()  # the child that builds is about to need as much
        name, target = plan.replace("_", " "), stage_path(folder, plan)
        on_step(name, None)
        on_phase = partial(_on_phase, on_step, name)
        try:
            engines[stage] = build_engine(paths[stage], target, BuildSettings(shapes=shapes), on_progress=on_phase)
        except MissingDependency as error:  # no library, or one that needs a GPU: the graphs are worth having
            return {}, [f"no plan was built: {error}"]
    if "int8" in engines:
        require_fused(engines["fp16"], engines["int8"])
    return {stage: report.to_json() for stage, report in engines.items()}, []


def _on_phase(on_step: OnStep, name: str, phase: str, fraction: float) -> None:
    on_step(f"{name}: {phase}", fraction)
