"""A sweep on a Dask cluster: workers that announce what kind of device they are, each running one job at a time.

What goes over the wire are arguments, sums, archives and results; never a model. A worker takes a job only for a class
of device that it announced (``--resources orin-nx=1``), and only if its hiresvit is this one.
"""

from __future__ import annotations

import importlib
import logging
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiresvit.errors import HiresvitError, MissingDependency, install_line
from hiresvit.version import __version__
from hiresvit.workflows.sweep.artefacts import Cache, pack
from hiresvit.workflows.sweep.plan import SweepPlan
from hiresvit.workflows.sweep.run import ATTEMPTS, Agenda, OnNote, OnRow, Ready, in_order, lost_text, row_of
from hiresvit.workflows.sweep.ssh import Board, BoardLost, close_connections, run_on_board
from hiresvit.workflows.sweep.worker import Ran, hold, run_job, who_am_i

SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.logging.distributed": "critical",
    "distributed.admin.log-length": 100,  # of a scheduler's past, which would grow with the sweep
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.system-monitor.log-length": 100,
}
"""Of Dask, for a cluster of our own."""
CACHE = "~/.cache/hiresvit/sweep"
"""Where a worker keeps archives, unless it is on the machine that the sweep is run from."""
_ANSWER_S = 10  # for a scheduler to answer at all
_FIRST_S, _SAY_S = 5.0, 30.0  # until the first word about a class that no worker has, and between two
_POLL_S = 0.5
_CLOCK_S = 2.0  # that a clock may be off


@dataclass(frozen=True)
class Order:
    """What a worker is told: plain values, see `hiresvit.workflows.sweep.worker.run_job`."""

    worker: str  # whom it is for: another may have taken its address
    argv: tuple[str, ...]
    device: str
    cache: str
    given: str | None
    weights: str | None  # the sum of a folder with one file in it
    makes: bool
    timeout_s: float


def work(order: Order) -> Ran | list[str] | str:
    """On a worker: run a job, or say which archives are not here, or why it cannot be run here.

    Nothing is raised: Dask's way of sending an exception fails for some.
    """
    if order.worker != who_am_i():
        return f"it is {who_am_i()} now"
    cache = Cache(Path(order.cache).expanduser())
    needed = [key for key in (order.given, order.weights) if key]
    if missing := [key for key in needed if cache.find(key) is None]:
        return missing
    folder = cache.find(order.weights) if order.weights else None
    weights = next(iter(sorted(folder.iterdir()))) if folder else None
    try:
        with hold(cache, order.device, alone=order.argv[0] != "export"):
            return run_job(
                order.argv, cache, given=order.given, weights=weights, makes=order.makes, timeout_s=order.timeout_s
            )
    except (HiresvitError, OSError) as error:
        return _said(error)


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
    # A task whose worker dies is ours to begin again; and what Dask says of that meanwhile is said in our words.
    with dask.config.set(SETTINGS), ExitStack() as stack:
        if scheduler is None:
            cluster = distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                resources=dict.fromkeys(devices, 1),
                dashboard_address=None,
                silence_logs=50,
            )
            client = stack.enter_context(distributed.Client(stack.enter_context(cluster)))
        else:
            logging.getLogger("distributed").setLevel(logging.CRITICAL)
            try:
                client = stack.enter_context(distributed.Client(scheduler, timeout=_ANSWER_S))
            except (OSError, ValueError, distributed.TimeoutError) as error:
                raise MissingDependency(
                    f"no scheduler answers at {scheduler} ({_said(error)}): start one with `dask scheduler`"
                ) from error
        yield client


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def run_on_cluster(
    plan: SweepPlan,
    agenda: Agenda,
    client: Any,
    on_row: OnRow,
    on_note: OnNote,
    *,
    cache: str = CACHE,
    boards: Mapping[str, Board] | None = None,
    wait_s: float | None = None,
) -> None:
    """Every open job, each on a worker of its class, until nothing is left that could be run.

    ``cache`` is the folder in which workers keep archives. The jobs of ``boards`` are run from here, by ssh. After
    ``wait_s`` in which all that is left waits for classes that no worker has, it ends, and those stay open.

    Raises MissingDependency if the scheduler goes away.
    """
    with ExitStack() as stack:
        threads = {name: stack.enter_context(ThreadPoolExecutor(1)) for name in boards or {}}
        stack.callback(close_connections)  # before threads are waited for
        # A scheduler forgets no group of tasks. This task is there until the end, and with it one group, instead of one
        # for every job that is handed out while no other runs.
        stack.callback(client.submit(int, key=_unique(), pure=False).release)
        run = _Run(plan, agenda, client, on_row, on_note, cache, boards or {}, threads, wait_s)
        run.to_its_end()


@dataclass
class _Run:
    plan: SweepPlan
    agenda: Agenda
    client: Any
    on_row: OnRow
    on_note: OnNote
    cache: str
    boards: Mapping[str, Board]
    threads: Mapping[str, ThreadPoolExecutor]
    wait_s: float | None
    waiting: list[Ready] = field(default_factory=list)
    out: dict[Any, tuple[Ready, str]] = field(default_factory=dict)  # by future: what, and on which worker or board
    begun: Counter[str] = field(default_factory=Counter)
    workers: dict[str, dict[str, Any]] = field(default_factory=dict)  # those that may work, by address
    refused: set[str] = field(default_factory=set)
    said: dict[str, float] = field(default_factory=dict)
    idle_since: float = field(default_factory=time.monotonic)

    def to_its_end(self) -> None:
        """Hand out jobs and take results."""
        while True:
            self.waiting = in_order([*self.waiting, *self.agenda.ready()])
            if not self.waiting and not self.out:
                return
            self.look_at_workers()
            self.hand_out()
            if self.out:
                self.idle_since = time.monotonic()
            elif self.wait_s is not None and time.monotonic() - self.idle_since >= self.wait_s:
                return
            self.collect()

    def there(self) -> dict[str, Any]:
        """The workers that the scheduler has, by address. Raises MissingDependency if there is no scheduler."""
        try:
            if self.client.status == "running":
                found: dict[str, Any] = self.client.scheduler_info(n_workers=-1)["workers"]
                return found
        except OSError:
            pass
        raise MissingDependency("the scheduler is gone; what is done is kept: the same command goes on")

    def look_at_workers(self) -> None:
        """Which workers there are; a new one is asked who it is, and may be refused."""
        there = self.there()
        for address in [address for address in self.workers if address not in there]:
            del self.workers[address]
        self.refused &= there.keys()
        new = [address for address in there if address not in self.workers and address not in self.refused]
        if not new:
            return
        for address in new:
            here = time.time()
            try:
                [found] = self.client.run(about, workers=[address]).values()
            except Exception as error:  # without hiresvit there it is about anything
                self.refuse(address, f"it does not answer as hiresvit {__version__} does ({_said(error)})")
                continue
            if found["version"] != __version__:
                self.refuse(address, f"{found['worker']} has hiresvit {found['version']}, this is {__version__}")
            else:
                off = round(found["time"] - here, 3)
                if abs(off) > _CLOCK_S:
                    self.on_note(f"the clock of {found['worker']} is {off:+.0f} s off; durations are not affected")
                self.workers[address] = {**found, "off": off, "devices": there[address].get("resources", {})}

    def refuse(self, address: str, why: str) -> None:
        """Never give this worker anything."""
        self.refused.add(address)
        self.on_note(f"worker {address} is refused: {why}")

    def hand_out(self) -> None:
        """To each worker that has nothing to do one job of a class that it has."""
        busy = {where for _, where in self.out.values()}
        for address in [address for address in self.workers if address not in busy]:
            devices = self.workers[address]["devices"]
            mine = (ready for ready in self.waiting if devices.get(ready.job.device, 0) >= 1)
            if ready := next((ready for ready in mine if ready.job.device not in self.boards), None):
                self.waiting.remove(ready)
                self.submit(ready, address)
        for device, board in self.boards.items():
            mine = (ready for ready in self.waiting if ready.job.device == device)
            if board.host not in busy and (ready := next(mine, None)):
                busy.add(board.host)
                self.waiting.remove(ready)
                self.submit_to_board(ready, board)
        classes = {name for worker in self.workers.values() for name in worker["devices"]}
        lacking = Counter(
            ready.job.device for ready in self.waiting if ready.job.device not in classes | self.boards.keys()
        )
        now = time.monotonic()
        for device, count in lacking.items():
            if now >= self.said.setdefault(device, now + _FIRST_S):
                self.said[device] = now + _SAY_S
                self.on_note(
                    f"{count} jobs wait for a worker of class {device}, which nobody is: start one with"
                    f" `dask worker ADDRESS --nthreads 1 --resources {device}=1`; Ctrl-C keeps what is done"
                )

    def submit(self, ready: Ready, address: str) -> None:
        """Send a job to a worker."""
        job = ready.job
        weights = job.cells[0].model.weights
        order = Order(
            worker=self.workers[address]["worker"],
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
            work, order, workers=[address], resources={job.device: 1}, pure=False, retries=0, key=_unique()
        )
        self.out[future] = ready, address

    def submit_to_board(self, ready: Ready, board: Board) -> None:
        """Give a job to the thread of a board."""
        assert ready.given is not None
        self.begun[ready.key] += 1
        given = board, ready.job.argv, self.agenda.cache, ready.given, self.plan.timeout_s
        self.out[self.threads[board.device].submit(run_on_board, *given)] = ready, board.host

    def collect(self) -> None:
        """Take what is done meanwhile; a job of a worker that is gone is begun again, once."""
        distributed: Any = importlib.import_module("distributed")
        remote = [future for future, (ready, _) in self.out.items() if ready.job.device not in self.boards]
        if remote:
            with suppress(distributed.TimeoutError, CancelledError):
                distributed.wait(remote, timeout=_POLL_S, return_when="FIRST_COMPLETED")
        else:
            time.sleep(_POLL_S / 2)
        there = self.there()
        for future, (ready, where) in list(self.out.items()):
            if future.done():
                del self.out[future]
                self.take(future, ready, where)
            elif where not in there and ready.job.device not in self.boards:
                del self.out[future]
                future.cancel()
                self.lose(ready, where)

    def take(self, future: Any, ready: Ready, where: str) -> None:
        """The result of a job, or what its worker lacks."""
        try:
            ran = future.result()
            if isinstance(ran, str):
                self.lose(ready, where, ran)
                return
            if isinstance(ran, list):
                self.send(ran, where)
                self.begun[ready.key] -= 1
                self.submit(ready, where)
                return
            if ran.artefact and self.agenda.cache.find(ran.artefact) is None:
                [archive] = self.client.run(fetch, self.cache, ran.artefact, workers=[where]).values()
                self.agenda.cache.unpack(ran.artefact, archive)
        except BoardLost as lost:
            self.lose(ready, where, str(lost), board=True)
            return
        except Exception as error:  # Dask's, of about any kind
            self.lose(ready, where, _said(error) if where in self.there() else "")
            return
        off = self.workers.get(where, {}).get("off")
        row = row_of(ready, ran, attempts=self.begun[ready.key], clock_off_s=off)
        self.agenda.finish(ready, row)
        self.on_row(row, len(self.agenda.done), len(self.agenda.jobs))

    def send(self, keys: list[str], address: str) -> None:
        """Archives that a worker has not."""
        for key in keys:
            found = self.agenda.cache.find(key)
            assert found is not None
            archive = pack(found)
            who = self.workers[address]["worker"]
            self.on_note(f"artefact {key[:12]} ({len(archive) / 1e6:.1f} MB) goes to {who}")
            self.client.run(put, self.cache, key, archive, workers=[address])

    def lose(self, ready: Ready, where: str, why: str = "", *, board: bool = False) -> None:
        """A worker that died over a job, is gone, or cannot run it for a reason of its own; or a board."""
        who = self.workers.pop(where, {}).get("worker", where)
        attempt = self.begun[ready.key]
        said = why if board else f"worker {who} is lost{f' ({why})' if why else ''}"
        self.on_note(lost_text(ready, said, attempt))
        if attempt < ATTEMPTS:
            self.waiting.append(ready)


def _unique() -> tuple[str, str]:
    """Dask knows a task by its key, and would answer the same key from memory.

    What is before a key's last part is the name of a group, of which a scheduler forgets none: all have the same.
    """
    return "hiresvit", uuid.uuid4().hex
