"""The order of a sweep: what can be run now, what is done already, what a failure takes with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from hiresvit.version import __version__
from hiresvit.workflows.sweep.artefacts import Cache
from hiresvit.workflows.sweep.jobs import Job
from hiresvit.workflows.sweep.plan import SweepPlan
from hiresvit.workflows.sweep.ssh import Board, BoardLost, run_on_board
from hiresvit.workflows.sweep.store import Row, Store
from hiresvit.workflows.sweep.worker import Ran, hold, run_job

OnRow = Callable[[Row, int, int], None]
"""Told each result as it comes, how many jobs are done, and how many there are."""
OnNote = Callable[[str], None]
"""Told, in a line, what is to be said beside results."""
ATTEMPTS = 2
"""How often a job is begun whose worker or board is lost over it."""


@dataclass(frozen=True)
class Ready:
    """A job that can be run: ``given`` is the sum of the artefact that it takes, ``key`` that of its result.

    ``moved_bytes`` are what one call of the plan that it measures moves; 0 where it measures none.
    """

    job: Job
    key: str
    given: str | None
    moved_bytes: int = 0


@dataclass
class Agenda:
    """The jobs of a plan and their results; each is handed out once, when what it needs is there.

    A job comes after what it needs in ``jobs``.
    """

    jobs: Sequence[Job]
    store: Store
    cache: Cache
    done: dict[Job, Row] = field(default_factory=dict)
    blocked: set[Job] = field(default_factory=set)
    _open: list[Job] = field(default_factory=list)  # neither done, nor blocked, nor handed out

    def __post_init__(self) -> None:
        for job in self.jobs:
            if (found := self._found(job)) is not None:
                self.done[job] = found
        # An artefact that is gone is made again if a job without a result takes it, and so is what it is made from.
        for job in reversed(self.jobs):
            need = self.done.get(job.needs) if job.needs and job not in self.done else None
            if need and need.artefact and self.cache.find(need.artefact) is None:
                del self.done[job.needs]  # type: ignore[arg-type]
        self._open = [job for job in self.jobs if job not in self.done]

    def _found(self, job: Job) -> Row | None:
        given = self.done.get(job.needs) if job.needs else None
        if job.needs and (given is None or given.artefact is None):
            return None
        return self.store.rows.get(job.key(given.artefact if given else None))

    def ready(self) -> Iterator[Ready]:
        """What can be run now and was not handed out; a job whose need failed is blocked, once and for all."""
        left = []
        for job in self._open:
            need = self.done.get(job.needs) if job.needs else None
            if job.needs in self.blocked or (need is not None and need.artefact is None):
                self.blocked.add(job)
            elif job.needs is None or need is not None:
                given = need.artefact if need else None
                yield Ready(job, job.key(given), given, _moved(need))
            else:
                left.append(job)
        self._open = left

    def finish(self, ready: Ready, row: Row) -> None:
        """A result, which is on the disk when this returns."""
        self.store.add(row)
        self.done[ready.job] = row

    @property
    def failed(self) -> int:
        """How many commands ended with another code than 0."""
        return sum(row.exit_code != 0 for row in self.done.values())

    @property
    def left(self) -> int:
        """How many jobs have no result and could have one."""
        return len(self.jobs) - len(self.done) - len(self.blocked)


def in_order(ready: Iterable[Ready]) -> list[Ready]:
    """As they stand in the plan, and plans after what makes them, those that move the fewest bytes first."""
    return sorted(ready, key=lambda one: one.moved_bytes)


def _moved(made: Row | None) -> int:
    """What a plan moves, as its build said (`hiresvit.device.plan.EngineReport`)."""
    engine = (made.document or {}).get("engine") if made is not None else None
    found = (engine or {}).get("traffic") or {}
    return sum(int(found.get(part, 0)) for part in ("read_bytes", "written_bytes", "weight_bytes"))


def row_of(ready: Ready, ran: Ran, *, attempts: int = 1, clock_off_s: float | None = None) -> Row:
    """What is written of a command that was run."""
    job = ready.job
    return Row(
        **asdict(ran),
        key=ready.key,
        command=job.command,
        line=job.line,
        cells=tuple(cell.to_json() for cell in job.cells),
        device=job.device,
        attempts=attempts,
        clock_off_s=clock_off_s,
        version=__version__,
    )


def run_here(
    plan: SweepPlan,
    agenda: Agenda,
    on_row: OnRow,
    on_note: OnNote,
    boards: Mapping[str, Board] | None = None,
) -> None:
    """Every open job, one after the other, on this machine, which is every class of device but those of ``boards``."""
    total = len(agenda.jobs)
    while batch := in_order(agenda.ready()):
        for ready in batch:
            board = (boards or {}).get(ready.job.device)
            found = _there(plan, agenda, ready, board, on_note) if board else (_here(plan, agenda, ready), 1)
            if found is None:
                continue
            row = row_of(ready, found[0], attempts=found[1])
            agenda.finish(ready, row)
            on_row(row, len(agenda.done), total)


def _here(plan: SweepPlan, agenda: Agenda, ready: Ready) -> Ran:
    job = ready.job
    with hold(agenda.cache, job.device, alone=job.command != "export"):
        return run_job(
            job.argv,
            agenda.cache,
            given=ready.given,
            weights=job.cells[0].model.weights,
            makes=job.makes,
            timeout_s=plan.timeout_s,
        )


def _there(plan: SweepPlan, agenda: Agenda, ready: Ready, board: Board, on_note: OnNote) -> tuple[Ran, int] | None:
    assert ready.given is not None
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return run_on_board(board, ready.job.argv, agenda.cache, ready.given, plan.timeout_s), attempt
        except BoardLost as lost:
            on_note(lost_text(ready, str(lost), attempt))
    return None


def lost_text(ready: Ready, who: str, attempt: int) -> str:
    """What is said of a job whose worker or board is lost over it."""
    then = "it is begun again" if attempt < ATTEMPTS else f"that was attempt {attempt}: it stays open"
    return f"{who}; {ready.job.command} of {ready.job.cells[0].model.label}: {then}"
