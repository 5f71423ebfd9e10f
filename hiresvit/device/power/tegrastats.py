"""`tegrastats`, which comes with every Jetson Linux: a line each interval. Its words differ from board to board.

Jetson Linux Developer Guide, "tegrastats Utility"; real lines of every kind are in tests/golden/tegrastats.txt.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from hiresvit.device.platform import find_tool
from hiresvit.device.power.meter import Meter, Reading, Timed

# ``VDD_IN 4900mW/5000mW``, on older boards ``POM_5V_IN 2532/2532``, since R39 ``VIN 124486mW/36487mW/124486mW``. The
# first is now; the second, the mean since tegrastats began, knows nothing of our window; the third is the most.
_RAIL = re.compile(r"(?<!\S)([A-Z][A-Z0-9_]*) (-?\d+)(?:mW(?:/-?\d+mW)*|/-?\d+)(?!\S)")
_ANSWERS_S = 5.0


def parse(line: str) -> Reading:
    """The watts of each rail now, whatever else stands in the line; empty where it names none."""
    return {name: int(now) / 1000 for name, now in _RAIL.findall(line)}


def find(root: Path) -> Meter | str:
    """The rails that the first line names, or why there is none."""
    tool = find_tool("tegrastats", root)
    if tool is None:
        return "no tegrastats here: it comes with Jetson Linux (in a container it must be mounted)"
    stop = threading.Event()
    timer = threading.Timer(_ANSWERS_S, stop.set)
    timer.start()
    try:
        with closing(_readings(tool, stop, 0.1)) as readings:
            first = next(readings, None)
    except OSError as error:
        return f"{tool} cannot be run: {error.strerror or error}"
    finally:
        timer.cancel()
    if first is None:
        return f"{tool} runs but names no rail in {_ANSWERS_S:g} s: this board has no power monitor, or it needs root"
    return Meter(
        "tegrastats",
        "the board's rails",
        "W",
        tuple(first[1]),
        lambda stop, interval_s: _readings(tool, stop, interval_s),
    )


def _readings(tool: Path, stop: threading.Event, interval_s: float) -> Generator[Timed]:
    """The readings of a process that is ended with the iteration."""
    command = [str(tool), "--interval", str(max(1, round(1000 * interval_s)))]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    ) as child:
        try:
            yield from _lines_of(child, stop)
        finally:
            child.kill()


def _lines_of(child: subprocess.Popen[bytes], stop: threading.Event) -> Iterator[Timed]:
    assert child.stdout is not None
    file, rest = child.stdout.fileno(), b""
    while not stop.is_set():
        if not select.select([file], [], [], 0.05)[0]:
            continue
        data = os.read(file, 65536)
        now = time.monotonic_ns()
        if not data:
            raise OSError(f"it ended with exit code {child.wait()}")
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if watts := parse(line.decode("utf-8", "replace")):
                yield now, watts
