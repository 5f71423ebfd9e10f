"""The command lines of a sweep: what is exported once serves all cells that need it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from hiresvit.bundle.stages import STAGES
from hiresvit.files import sha256_file
from hiresvit.workflows.sweep.plan import Cell, SweepPlan

GIVEN, MADE, WEIGHTS = "{given}", "{made}", "{weights}"
"""In a command's arguments: the folder of the artefact that it takes, the folder that it makes, a file of weights."""

BUNDLE, PLAN = f"{GIVEN}/bundle", "network.plan"
PICTURE = STAGES["picture"].file
PROGRAM = "hiresvit-run"
"""Of cpp/: what measures on a board that is reached by ssh and has no Python."""


@dataclass(frozen=True, eq=False)
class Job:
    """One command line of ours on a class of devices.

    ``argv`` are `hiresvit`'s arguments, or begin with `PROGRAM`; there are placeholders for what differs between
    machines. ``needs`` is the job whose
    artefact it takes; ``makes`` says whether it makes one itself. ``cells`` are those that it is for.
    """

    argv: tuple[str, ...]
    device: str
    cells: tuple[Cell, ...]
    needs: Job | None = None
    makes: bool = False

    @property
    def command(self) -> str:
        """``export``, ``build``, ``verify``, ``eval`` or ``bench``."""
        return "bench" if self.argv[0] == PROGRAM else self.argv[0]

    @property
    def line(self) -> str:
        """What a person would type, but for the placeholders."""
        return " ".join(self.argv if self.argv[0] == PROGRAM else ("hiresvit", *self.argv))

    def key(self, artefact: str | None) -> str:
        """What a result is known by: the command, what it is given (by its sum), and the class of device."""
        weights = self.cells[0].model.weights if WEIGHTS in self.argv else None
        given = artefact or (sha256_file(weights) if weights else None)
        return hashlib.sha256(json.dumps([self.argv, self.device, given]).encode()).hexdigest()


def jobs_of(plan: SweepPlan, boards: Collection[str] = ()) -> list[Job]:
    """Every job of a plan: exports first, in the order of the cells, then what needs them.

    ``boards`` are the classes that are reached by ssh, where there is `PROGRAM` and nothing else: what that cannot do
    is left out (`left_out`).
    """
    exports: dict[tuple[str, ...], list[Cell]] = {}
    for cell in plan.cells:
        exports.setdefault(_export_line(plan, cell), []).append(cell)
    found = {argv: Job(argv, plan.make, tuple(cells), makes=True) for argv, cells in exports.items()}
    jobs = list(found.values())
    for cell in plan.cells:
        if cell.device in boards:
            jobs += _on_board(plan, cell, found[_export_line(plan, cell)])
            continue
        jobs += _steps(plan, cell, found[_export_line(plan, cell)])
    return jobs


def left_out(plan: SweepPlan, boards: Collection[str]) -> list[str]:
    """What `jobs_of` has no job for: in words, each once."""
    cells = [cell for cell in plan.cells if cell.device in boards]
    steps = [f"{step} on {cell.device}" for cell in cells for step in plan.steps if step != "bench"]
    runners = [f"{cell.runner} on {cell.device}" for cell in cells if cell.runner != "onnxruntime"]
    return list(dict.fromkeys(steps + runners))


def _on_board(plan: SweepPlan, cell: Cell, source: Job) -> Iterator[Job]:
    """What is asked of one cell on a board that has only `PROGRAM`."""
    if "bench" not in plan.steps or cell.runner != "onnxruntime":
        return
    graph = ("--graph", cell.precision) if cell.precision != "fp32" else ()
    options = plan.arguments.get(PROGRAM, ("--bench", "200"))
    argv = (PROGRAM, BUNDLE, f"{BUNDLE}/{PICTURE}", *graph, "--backend", cell.runner, *options, "--json")
    yield Job(argv, cell.device, (cell,), source)


def _steps(plan: SweepPlan, cell: Cell, source: Job) -> Iterator[Job]:
    """What is asked of one cell, on its device."""
    graph = ("--graph", cell.precision) if cell.precision != "fp32" else ()
    opened: tuple[str, ...] = (BUNDLE, *graph)
    runner = ("--runner", cell.runner)
    if "verify" in plan.steps:
        argv = ("verify", *opened, *runner, *plan.arguments.get("verify", ()), "--json")
        yield Job(argv, cell.device, (cell,), source)
    if cell.runner == "tensorrt":  # a plan is a device's own
        argv = ("build", *opened, *plan.arguments.get("build", ()), "-o", f"{MADE}/{PLAN}", "--json")
        source = Job(argv, cell.device, (cell,), source, makes=True)
        yield source
        opened = (f"{GIVEN}/{PLAN}",)
    options = [text for name, value in plan.data.items() for text in (f"--{name}", str(value))]
    if "eval" in plan.steps:
        argv = ("eval", *opened, *runner, *options, *plan.arguments.get("eval", ()), "--json")
        yield Job(argv, cell.device, (cell,), source)
    if "bench" in plan.steps:
        argv = ("bench", *opened, *runner, *plan.arguments.get("bench", ()), "--json")
        yield Job(argv, cell.device, (cell,), source)


def _export_line(plan: SweepPlan, cell: Cell) -> tuple[str, ...]:
    """The export that a cell needs; equal for cells that differ in what runs it, and where."""
    model, integers = cell.model, cell.precision not in ("fp32", "fp16", "htp_fp16")
    argv = ["export", model.model, *_given("--task", model.task), *_given("--num-classes", model.num_classes)]
    argv += ["--weights", WEIGHTS] if model.weights else []
    argv += _given("--imgsz", cell.size or None)
    argv += [text for setting in model.set for text in ("--set", setting)]
    argv += {"fp32": [], "fp16": ["--fp16"], "int8": ["--int8"]}.get(
        cell.precision, ["--htp", cell.precision.removeprefix("htp_")]
    )
    argv += ["--calib", plan.calib] if integers else []
    argv += ["--contract", *cell.contract.split()] if cell.contract != "tensor" else []
    argv += [*plan.arguments.get("export", ()), "--no-plan", "--no-latency", "-o", f"{MADE}/bundle", "--json"]
    return tuple(argv)


def _given(option: str, value: object) -> list[str]:
    return [] if value is None else [option, str(value)]


def shared(jobs: Iterable[Job]) -> dict[str, int]:
    """How many jobs there are of each command."""
    counts: dict[str, int] = {}
    for job in jobs:
        counts[job.command] = counts.get(job.command, 0) + 1
    return counts
