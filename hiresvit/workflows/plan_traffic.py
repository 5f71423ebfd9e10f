"""What a plan moves and the least time it can take on a board, from the file beside it: no GPU is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiresvit.device.boards import Board, board_of_gpu
from hiresvit.device.plan import Sidecar, read_sidecar
from hiresvit.engine.kernels import Kernel
from hiresvit.engine.roofline import describe
from hiresvit.engine.traffic import read_layers, traffic
from hiresvit.errors import ArtefactError, HiresvitError, missing_extra


def describe_plan(plan: Path, sidecar: Sidecar | None, board: Board | None) -> dict[str, Any]:
    """The document of `hiresvit.engine.roofline.describe`, with the shapes that dynamic axes were counted at.

    Products that an older sidecar does not count are counted in the graph, where it still lies beside the plan. Raises
    ArtefactError for a plan whose sidecar is missing, has no layer list, or one that says no shapes and types.
    """
    if sidecar is None:
        raise ArtefactError(
            f"{plan} has no sidecar beside it ({plan.name}.json), so nobody knows its kernels: copy it there, or build"
            " the plan again with hiresvit build"
        )
    kernels, macs = read_layers(sidecar.layers)
    try:
        found = traffic(kernels, _count_beside(plan, sidecar, kernels) if macs is None else macs)
    except ArtefactError as error:
        raise ArtefactError(f"{plan}: {error}") from error
    best = {name: list(shapes[1]) for name, shapes in sidecar.report.profiles.items()}
    return {**describe(found, board, overlapped=may_overlap(sidecar)), "best_shapes": best}


def may_overlap(sidecar: Sidecar) -> bool:
    """Whether kernels may run beside each other: in all plans but those that were built for one stream."""
    return sidecar.report.flags.get("max_aux_streams") != 0


def bound_of_plan(plan: Path, board: Board | None, gpu: str) -> dict[str, Any] | None:
    """The ``roofline`` of a plan on a board or else on the GPU that runs it, if that is in the table; else None.

    Raises ArtefactError as `describe_plan`, if a board was asked for.
    """
    chosen = board or board_of_gpu(gpu)
    if chosen is None:
        return None
    try:
        found: dict[str, Any] = describe_plan(plan, read_sidecar(plan), chosen)["roofline"]
    except ArtefactError:
        if board is None:
            return None
        raise
    return found


def _count_beside(plan: Path, sidecar: Sidecar, kernels: Sequence[Kernel]) -> list[dict[str, int]] | None:
    """What the kernels multiply, by the graph that the plan was built from; None where that is not here."""
    graph = plan.with_name(sidecar.graph)
    if not graph.is_file():
        return None
    try:
        from hiresvit.engine.precision import macs_by_kernel
        from hiresvit.graph.file import file_digest, load_graph
        from hiresvit.graph.index import index_graph

        model = load_graph(graph)
        if file_digest(graph, model) != sidecar.graph_sha256:
            return None
        best = {name: shapes[1] for name, shapes in sidecar.report.profiles.items()}
        return macs_by_kernel(index_graph(model, best), kernels)
    except HiresvitError:
        return None
    except ModuleNotFoundError as error:
        if missing_extra(error) is None:
            raise
        return None
