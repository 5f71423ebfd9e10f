"""The order of a sweep: what can be run now, what is done already, what a failure takes with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

from hiresvit.version import __version__
from hiresvit.workflows.sweep.artefacts import Cache
from hiresvit.workflows.sweep.jobs import Job
from hiresvit.workflows.sweep.plan import SweepPlan
from hiresvit.workflows.sweep.store import Row, Store
from hiresvit.workflows.sweep.worker import Ran, hold, run_job

OnRow = Callable[[Row, int, int], None]
"""Told each result as it comes, how many jobs are done, and how many there are."""


@dataclass(frozen=True)
class Ready:
    """A job that can be run: ``given`` is the sum of the artefact that it takes, ``key`` that of its result."""

    job: Job
    key: str
    given: str | None


@dataclass
class Agenda:
    """The jobs of a plan and their results; each is handed out once, when what it needs is there."""

    jobs: Sequence[Job]
    store: Store
    cache: Cache
    done: dict[Job, Row] = field(default_factory=dict)
    blocked: list[Job] = field(default_factory=list)
    _out: set[Job] = field(default_factory=set)

    def __post_init__(self) -> None:
        for job in self.jobs:
            if (found := self._found(job)) is not None:
                self.done[job] = found
        # An artefact that is gone is made again, if a job that has no result takes it.
        wanted = {job.needs for job in self.jobs if job not in self.done}
        for job in [job for job in self.done if job in wanted]:
            artefact = self.done[job].artefact
            if artefact and self.cache.find(artefact) is None:
                del self.done[job]

    def _found(self, job: Job) -> Row | None:
        given = self.done.get(job.needs) if job.needs else None
        if job.needs and (given is None or given.artefact is None):
            return None
        return self.store.rows.get(job.key(given.artefact if given else None))

    def ready(self) -> Iterator[Ready]:
        """What can be run now and was not handed out; a job whose need failed is blocked, once and for all."""
        for job in self.jobs:
            if job in self.done or job in self._out or job in self.blocked:
                continue
            need = self.done.get(job.needs) if job.needs else None
            if job.needs in self.blocked or (need is not None and need.artefact is None):
                self.blocked.append(job)
            elif job.needs is None or need is not None:
                self._out.add(job)
                given = need.artefact if need else None
                yield Ready(job, job.key(given), given)

    def finish(self, ready: Ready, row: Row) -> None:
        """A result, which is on the disk when this returns."""
        self.store.add(row)
        self.done[ready.job] = row

    def give_back(self, ready: Ready) -> None:
        """A job that could not be run: it is open again."""
        self._out.discard(ready.job)


def row_of(ready: Ready, ran: Ran, *, attempts: int = 1, clock_off_s: float | None = None) -> Row:
    """What is written of a command that was run."""
    job = ready.job
    return Row(
        **asdict(ran),
        key=ready.key,
        command=job.command,
        line=" ".join(("hiresvit", *job.argv)),
        cells=tuple(cell.to_json() for cell in job.cells),
        device=job.device,
        attempts=attempts,
        clock_off_s=clock_off_s,
        version=__version__,
    )


def run_here(plan: SweepPlan, agenda: Agenda, on_row: OnRow) -> None:
    """Every open job, one after the other, on this machine, which is every class of device at once."""
    total = len(agenda.jobs)
    while batch := list(agenda.ready()):
        for ready in batch:
            job = ready.job
            with hold(agenda.cache, job.device, alone=job.command != "export"):
                ran = run_job(
                    job.argv,
                    agenda.cache,
                    given=ready.given,
                    weights=job.cells[0].model.weights,
                    makes=job.makes,
                    timeout_s=plan.timeout_s,
                )
            row = row_of(ready, ran)
            agenda.finish(ready, row)
            on_row(row, len(agenda.done), total)
