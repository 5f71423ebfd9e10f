"""Stands in for `hiresvit` in a sweep's child, where only what becomes of a command matters.

As ``--preload`` of a Dask worker it makes that one run it. ``COMMAND --sleep S --exit N --made FOLDER``, and
``--kill FILE``, which ends the worker with SIGKILL for each line that is taken out of the file. ``--moves N`` is a
build whose plan reads as many bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from hiresvit.device.plan import PlanTraffic
from hiresvit.workflows.sweep import worker

COMMAND = ("-m", "sweep_stand_in")


def dask_setup(_: object) -> None:
    worker.COMMAND = COMMAND


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    for option in ("--made", "--kill", "--given", "--weights"):
        parser.add_argument(option, type=Path)
    parser.add_argument("--sleep", type=float, default=0)
    parser.add_argument("--exit", type=int, default=0)
    parser.add_argument("--content", default="")
    parser.add_argument("--moves", type=int)
    asked = parser.parse_args()
    if asked.kill and (left := asked.kill.read_text().splitlines()):
        asked.kill.write_text("\n".join(left[1:]))
        os.kill(os.getppid(), signal.SIGKILL)
    began = time.time()
    time.sleep(asked.sleep)
    if asked.made:
        (asked.made / "network").write_text(asked.content)
        (asked.made / "manifest.json").write_text(f"made {time.time()}")
    given = (asked.given / "network").read_text() if asked.given else None
    weights = asked.weights.read_text() if asked.weights else None
    if asked.exit:
        print("first\nerror: it went wrong", file=sys.stderr)
    said = {"schema_version": 1, "given": given, "weights": weights, "span": [began, time.time()]}
    if asked.moves is not None:
        plan = PlanTraffic(read_bytes=asked.moves, written_bytes=1, weight_bytes=1, macs={}, untold=0)
        said["engine"] = {"traffic": asdict(plan)}
    print(json.dumps(said))
    sys.exit(asked.exit)


if __name__ == "__main__":
    main()
