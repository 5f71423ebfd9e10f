"""A sweep on a Dask cluster: workers that announce what kind of device they are, each running one job at a time.

What goes over the wire are arguments, sums, archives and results; never a model. A worker takes a job only for a class
of device that it announced (``--resources orin-nx=1``), and only if its hiresvit is this one.
"""

from __future__ import annotations

import importlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiresvit.errors import HiresvitError, MissingDependency, install_line
from hiresvit.version import __version__
from hiresvit.workflows.sweep.artefacts import Cache, pack
from hiresvit.workflows.sweep.plan import SweepPlan
from hiresvit.workflows.sweep.run import Agenda, OnRow, Ready, row_of
from hiresvit.workflows.sweep.worker import Ran, hold, run_job, who_am_i

OnNote = Callable[[str], None]

CACHE = "~/.cache/hiresvit/sweep"
"""Where a worker keeps archives, unless it is on the machine that the sweep is run from."""
ATTEMPTS = 2
_ANSWER_S = 10  # for a scheduler to answer at all
_SAY_S = 30.0  # between two words about a class that no worker has
_POLL_S = 0.5


@dataclass(frozen=True)
class Order:
    """What a worker is told: plain values, see `hiresvit.workflows.sweep.worker.run_job`."""

    argv: tuple[str, ...]
    device: str
    cache: str
    given: str | None
    weights: str | None  # the sum of a folder with one file in it
    makes: bool
    timeout_s: float


def work(order: Order) -> Ran | list[str]:
    """On a worker: run a job, or say which archives are not here."""
    cache = Cache(Path(order.cache).expanduser())
    needed = [key for key in (order.given, order.weights) if key]
    if missing := [key for key in needed if cache.find(key) is None]:
        return missing
    folder = cache.find(order.weights) if order.weights else None
    weights = next(iter(sorted(folder.iterdir()))) if folder else None
    with hold(cache, order.device, alone=order.argv[0] != "export"):
        return run_job(
            order.argv, cache, given=order.given, weights=weights, makes=order.makes, timeout_s=order.timeout_s
        )


def about() -> dict[str, Any]:
    """On a worker: who it is, and its clock."""
    return {"worker": who_am_i(), "version": __version__, "time": time.time()}


def fetch(cache: str, key: str) -> bytes:
    """On a worker: an archive that it has."""
    found = Cache(Path(cache).expanduser()).find(key)
    if found is None:
        raise HiresvitError(f"artefact {key[:12]} is not here any more")
    return pack(found)


def put(cache: str, key: str, archive: bytes) -> None:
    """On a worker: take an archive."""
    Cache(Path(cache).expanduser()).unpack(key, archive)


@contextmanager
def open_cluster(workers: int | None, scheduler: str | None, devices: set[str]) -> Iterator[Any]:
    """A client of Dask: of ``workers`` processes here that are every class of device, or of a cluster that is there.

    Raises MissingDependency without the library, or without an answer.
    """
    try:
        dask, distributed = map(importlib.import_module, ("dask", "distributed"))
    except ModuleNotFoundError as error:
        raise MissingDependency(f"a cluster needs Dask, which is not installed: {install_line('sweep')}") from error
    if scheduler is not None:
        try:
            client = distributed.Client(scheduler, timeout=_ANSWER_S)
        except (OSError, ValueError) as error:
            raise MissingDependency(
                f"no scheduler answers at {scheduler}: {error or type(error).__name__}; start one with `dask scheduler`"
            ) from error
        with client:
            yield client
        return
    settings = {"distributed.scheduler.allowed-failures": 0, "distributed.logging.distributed": "critical"}
    with dask.config.set(settings):
        cluster = distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            resources=dict.fromkeys(devices, 1),
            dashboard_address=None,
            silence_logs=50,
        )
        with cluster, distributed.Client(cluster) as client:
            yield client


def run_on_cluster(
    plan: SweepPlan, agenda: Agenda, client: Any, on_row: OnRow, on_note: OnNote, *, cache: str = CACHE
) -> None:
    """Every open job, each on a worker of its class, until nothing is left that could be run.

    ``cache`` is the folder in which workers keep archives.
    """
    _Run(plan, agenda, client, on_row, on_note, cache).to_its_end()


@dataclass
class _Run:
    plan: SweepPlan
    agenda: Agenda
    client: Any
    on_row: OnRow
    on_note: OnNote
    cache: str
    waiting: list[Ready] = field(default_factory=list)
    out: dict[Any, tuple[Ready, str]] = field(default_factory=dict)  # by future: what, and on which worker
    begun: Counter[str] = field(default_factory=Counter)
    workers: dict[str, dict[str, Any]] = field(default_factory=dict)  # those that may work, by address
    refused: set[str] = field(default_factory=set)
    said: dict[str, float] = field(default_factory=dict)

    def to_its_end(self) -> None:
        """Hand out jobs and take results."""
        while True:
            self.waiting += self.agenda.ready()
            if not self.waiting and not self.out:
                return
            self.look_at_workers()
            self.hand_out()
            self.collect()

    def look_at_workers(self) -> None:
        """Which workers there are; a new one is asked who it is, and may be refused."""
        there: dict[str, Any] = self.client.scheduler_info(n_workers=-1)["workers"]
        for address in [address for address in self.workers if address not in there]:
            del self.workers[address]
        new = [address for address in there if address not in self.workers and address not in self.refused]
        if not new:
            return
        here = time.time()
        for address, found in self.client.run(about, workers=new, on_error="return").items():
            if isinstance(found, BaseException):
                self.refuse(address, f"it does not answer as hiresvit does ({type(found).__name__}: {found})")
            elif found["version"] != __version__:
                self.refuse(address, f"{found['worker']} has hiresvit {found['version']}, this is {__version__}")
            else:
                off = round(found["time"] - here, 3)
                if abs(off) > 2:
                    self.on_note(f"the clock of {found['worker']} is {off:+.0f} s off; durations are not affected")
                self.workers[address] = {**found, "off": off, "devices": there[address].get("resources", {})}

    def refuse(self, address: str, why: str) -> None:
        """Never give this worker anything."""
        self.refused.add(address)
        self.on_note(f"worker {address} is refused: {why}")

    def hand_out(self) -> None:
        """To each worker that has nothing to do one job of a class that it has."""
        busy = {address for _, address in self.out.values()}
        for address in [address for address in self.workers if address not in busy]:
            devices = self.workers[address]["devices"]
            ready = next((ready for ready in self.waiting if devices.get(ready.job.device, 0) >= 1), None)
            if ready is not None:
                self.waiting.remove(ready)
                self.submit(ready, address)
        classes = {name for worker in self.workers.values() for name in worker["devices"]}
        lacking = Counter(ready.job.device for ready in self.waiting if ready.job.device not in classes)
        for device, count in lacking.items():
            if time.monotonic() - self.said.get(device, time.monotonic() - _SAY_S + 5) >= _SAY_S:
                self.said[device] = time.monotonic()
                self.on_note(
                    f"{count} jobs wait for a worker of class {device}, which nobody is: start one with"
                    f" `dask worker ADDRESS --nthreads 1 --resources {device}=1`; Ctrl-C keeps what is done"
                )
            self.said.setdefault(device, time.monotonic() - _SAY_S + 5)

    def submit(self, ready: Ready, address: str) -> None:
        """Send a job to a worker."""
        job = ready.job
        weights = job.cells[0].model.weights
        order = Order(
            argv=job.argv,
            device=job.device,
            cache=self.cache,
            given=ready.given,
            weights=self.agenda.cache.keep_file(weights) if weights and job.needs is None else None,
            makes=job.makes,
            timeout_s=self.plan.timeout_s,
        )
        self.begun[ready.key] += 1
        future = self.client.submit(
            work, order, workers=[address], resources={job.device: 1}, pure=False, retries=0, key=_unique(ready.key)
        )
        self.out[future] = ready, address

    def collect(self) -> None:
        """Take what is done meanwhile; a job of a worker that is gone is begun again, once."""
        wait: Any = importlib.import_module("distributed").wait
        with suppress(TimeoutError):
            wait(list(self.out), timeout=_POLL_S, return_when="FIRST_COMPLETED")
        there = self.client.scheduler_info(n_workers=-1)["workers"]
        for future, (ready, address) in list(self.out.items()):
            if future.done():
                del self.out[future]
                self.take(future, ready, address)
            elif address not in there:
                del self.out[future]
                future.cancel()
                self.lose(ready, address)

    def take(self, future: Any, ready: Ready, address: str) -> None:
        """The result of a job, or what its worker lacks."""
        killed: Any = importlib.import_module("distributed").KilledWorker
        try:
            ran = future.result()
        except (killed, CancelledError):
            self.lose(ready, address)
            return
        if isinstance(ran, list):
            for key in ran:
                found = self.agenda.cache.find(key)
                assert found is not None
                self.client.run(put, self.cache, key, pack(found), workers=[address])
            self.begun[ready.key] -= 1
            self.submit(ready, address)
            return
        if ran.artefact and self.agenda.cache.find(ran.artefact) is None:
            [archive] = self.client.run(fetch, self.cache, ran.artefact, workers=[address]).values()
            self.agenda.cache.unpack(ran.artefact, archive)
        off = self.workers.get(address, {}).get("off")
        row = row_of(ready, ran, attempts=self.begun[ready.key], clock_off_s=off)
        self.agenda.finish(ready, row)
        self.on_row(row, len(self.agenda.done), len(self.agenda.jobs))

    def lose(self, ready: Ready, address: str) -> None:
        """A worker that died over a job, or is gone."""
        who = self.workers.pop(address, {}).get("worker", address)
        again = self.begun[ready.key] < ATTEMPTS
        then = "it is begun again" if again else f"that was the {self.begun[ready.key]}. time: it stays open"
        self.on_note(f"worker {who} is lost over {ready.job.command} {ready.job.cells[0].model.label}: {then}")
        if again:
            self.waiting.append(ready)


def _unique(key: str) -> str:
    """Dask knows a task by its key, and would answer the same key from memory."""
    return f"{key[:16]}-{uuid.uuid4().hex}"
