"""Mutated files of every kind given to the commands: does one execute, crash, hang, or take too much memory?

    PYTHONPATH=tests python benchmarks/fuzz.py --minutes 10 [--seed 0] [--jobs 2] [--only KIND ...] [--keep FOLDER]

Manifests are sealed again after they were changed, so that what reads them is reached. Commands run in workers, a fresh
one after each crash, hang and some hundred inputs. A fault is: a planted pickle that ran, a traceback or "internal
error", an exit code that is none of ours, a control character on stdout or stderr, a file written outside of the
working folder, more than 30 s, and more memory than 1.5 times the files and 1 GiB (but not what a graph allocates when
it is run: it is a program, and held by a worker's 5 GiB alone). Input K of a seed is always the same:
``--first K --inputs 1`` runs it again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import fuzz_inputs
from fuzz_inputs import CANARY, Seeds

HANG_S = 30.0
LEAST_BYTES, SHARE = 2**30, 1.5
LIMIT_BYTES = 5 * 2**30  # of address space beyond a worker's own: a bomb gets no further
EACH = 400  # inputs to a worker
CODES = {0, 1, 2, 3, 4, 5, 6, 7}
POWER = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


Outcome = tuple[int, str, float, int, str]
"""Exit code, what escaped, seconds, bytes of memory, and what was printed; a code of -2 is a hang, -3 a crash."""


@dataclass
class Tally:
    """What was found of one kind of input."""

    inputs: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0


def work(pipe: Connection, log: str) -> None:
    """In a child: run commands as they come, each with its output in a file, and say how each ended."""
    target = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    fuzz_inputs.prepare()
    from hiresvit.cli import main

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_BYTES, resource.RLIM_INFINITY))
    pipe.send("ready")
    while True:
        folder, argv = pipe.recv()
        os.ftruncate(target, 0)
        os.chdir(folder)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before, began = _memory("VmRSS"), time.perf_counter()
        try:
            code = main(argv)
            escaped = ""
        except BaseException as error:
            code, escaped = -1, f"{type(error).__name__}: {error}"
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        pipe.send((code, escaped, time.perf_counter() - began, _memory("VmHWM") - before))


def _memory(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


class Worker:
    """A child that runs commands, and is there again after one that ended it."""

    def __init__(self, scratch: Path) -> None:
        self.log = scratch / "log"
        self.left = 0
        self.process: multiprocessing.process.BaseProcess | None = None
        self.pipe: Connection

    def run(self, folder: Path, argv: list[str]) -> Outcome:
        """How one command ends."""
        if not self.left:
            self._start()
        self.left -= 1
        self.pipe.send((str(folder), argv))
        try:
            if not self.pipe.poll(HANG_S):
                self.stop()
                return -2, "hang", HANG_S, 0, ""
            code, escaped, seconds, memory = self.pipe.recv()
        except EOFError:
            assert self.process is not None
            self.process.join()
            crashed = f"died with {self.process.exitcode}"
            self.stop()
            return -3, crashed, 0.0, 0, ""
        return code, escaped, seconds, memory, self.log.read_text("utf-8", "replace")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
        self.left, self.process = 0, None

    def _start(self) -> None:
        self.stop()
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=work, args=(other, str(self.log)), daemon=True)
        self.process.start()
        other.close()
        if self.pipe.recv() != "ready":
            raise RuntimeError("the worker did not start")
        self.left = EACH


def outside(folder: Path) -> set[str]:
    """What lies beside a working folder and beside the one above it: there is ``../../x``."""
    return {str(item.relative_to(folder.parents[1])) for up in folder.parents[:2] for item in up.iterdir()}


def faults_of(outcome: Outcome, folder: Path, before: set[str], honest: int | None) -> Iterator[str]:
    """What is wrong with how one command ended."""
    code, escaped, _, memory, printed = outcome
    if escaped:
        yield escaped
    elif code not in CODES:
        yield f"exit code {code}"
    if found := re.search(r"internal error[^\n]*|Traceback \(most recent", printed):
        yield found[0][:300]
    if found := POWER.search(printed):
        yield f"prints {found[0]!r}: ...{printed[max(0, found.start() - 60) : found.end() + 20]!r}"
    if any((place / CANARY).exists() for place in (folder, *folder.parents[:2])):
        yield "EXECUTED"
    if new := outside(folder) - before:
        yield f"wrote {sorted(new)} outside"
    if honest is not None and memory > SHARE * honest + LEAST_BYTES:
        yield f"took {memory / 2**20:.0f} MiB for {honest / 2**20:.1f} MiB"


def fuzz(
    *, seed: int, first: int, inputs: int | None, minutes: float, kinds: list[str], keep: Path | None
) -> dict[str, Tally]:
    """Run inputs ``first`` on until there were as many or the time is over; what was found by kind."""
    tallies = {kind: Tally() for kind in kinds}
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    worker = Worker(scratch)
    try:
        (scratch / "seeds").mkdir()
        seeds = Seeds(scratch / "seeds")
        weights = [fuzz_inputs.KINDS[kind].weight for kind in kinds]
        deadline, number = time.monotonic() + 60 * minutes, first
        while time.monotonic() < deadline and (inputs is None or number < first + inputs):
            rng = random.Random(f"{seed} {number}")
            kind = rng.choices(kinds, weights)[0]
            room = scratch / "room"
            folder = room / "up" / "here"
            folder.mkdir(parents=True)
            argv = fuzz_inputs.KINDS[kind].make(seeds, folder, rng)
            runs = kind in fuzz_inputs.PROGRAMS and argv[0] not in ("inspect", "check")
            honest = None if runs else sum(item.lstat().st_size for item in folder.rglob("*"))
            before = outside(folder)
            outcome = worker.run(folder, argv)
            tally = tallies[kind]
            tally.inputs += 1
            tally.codes[outcome[0]] += 1
            tally.slowest, tally.largest = max(tally.slowest, outcome[2]), max(tally.largest, outcome[3])
            for fault in faults_of(outcome, folder, before, honest):
                tally.faults.append(f"input {number}: {' '.join(argv)}: {fault}")
                print(f"{kind}, seed {seed}, {tally.faults[-1]}", flush=True)
                if keep is not None and not (keep / str(number)).exists():
                    shutil.copytree(folder, keep / str(number), symlinks=True)
            shutil.rmtree(room)
            number += 1
    finally:
        worker.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    return tallies


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--inputs", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=list(fuzz_inputs.KINDS))
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    options: dict[str, Any] = {
        **{"seed": given.seed, "inputs": given.inputs, "minutes": given.minutes, "keep": given.keep},
        "kinds": given.only or list(fuzz_inputs.KINDS),
    }
    began = time.monotonic()
    if given.jobs == 1:
        found = [fuzz(first=given.first, **options)]
    else:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(given.jobs) as pool:
            starts = [given.first + job * 1_000_000 for job in range(given.jobs)]
            found = list(pool.map(lambda first: fuzz(first=first, **options), starts))
    return report(found, time.monotonic() - began)


def report(found: list[dict[str, Tally]], seconds: float) -> int:
    """Print the table; 1 if anything was wrong."""
    print(f"\n{'kind':<12}{'inputs':>8}{'faults':>8}{'slowest s':>11}{'memory MiB':>12}  exit codes")
    total, faults = 0, 0
    for kind in found[0]:
        parts = [tallies[kind] for tallies in found]
        codes: Counter[int] = sum((part.codes for part in parts), Counter())
        count, wrong = sum(part.inputs for part in parts), sum(len(part.faults) for part in parts)
        slowest, largest = max(part.slowest for part in parts), max(part.largest for part in parts)
        ends = ", ".join(f"{times} x {code}" for code, times in sorted(codes.items()))
        print(f"{kind:<12}{count:>8}{wrong:>8}{slowest:>11.1f}{largest / 2**20:>12.0f}  {ends}")
        total, faults = total + count, faults + wrong
    print(f"\n{total} inputs in {seconds:.0f} s, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
