"""End exports at random moments and look what stays: in the bundle's folder, in HOME, in TMPDIR, and of processes.

    PYTHONPATH=.:tests python benchmarks/kill_exports.py --times 30

The network is the tests' tiny HRViT. After SIGINT and SIGTERM nothing may stay; after SIGKILL what the next export
clears. At no time may there be half a bundle at the target's name, and no child may live on.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from conftest import TINY, environment, hiresvit_command

from hiresvit.bundle.folder import read_bundle

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
OPTIONS = ["export", "hrvit_b1", "--imgsz", "64x96", "--fp16", "--images", "1", "--no-latency", "--threads", "1"]
OPTIONS += ["-o", "out/b", "--force"]


def start(place: Path) -> subprocess.Popen[bytes]:
    """An export into ``place``, whose home and TMPDIR are folders in it."""
    env = environment() | {"HOME": str(place / "home"), "TMPDIR": str(place / "tmp")}
    command = hiresvit_command(*OPTIONS, before=TINY)
    return subprocess.Popen(command, cwd=place, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def living(place: Path) -> list[str]:
    """The processes that were started for ``place``, by what they have in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if f"TMPDIR={place / 'tmp'}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(entry.name)
            except OSError:
                continue  # gone, or another user's
    return found


def stays(place: Path) -> list[str]:
    """All that lies in ``place`` beside its three folders and a bundle, which is read."""
    bundle = place / "out" / "b"
    if bundle.exists():
        read_bundle(bundle)
    own = {place / name for name in ("home", "tmp", "out")} | {bundle}
    return [
        str(path.relative_to(place))
        for path in sorted(place.rglob("*"))
        if path not in own and bundle not in path.parents
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    bad: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for name in ("home", "tmp"):
            (place / name).mkdir()
        began = time.monotonic()
        assert start(place).wait() == 0
        whole = time.monotonic() - began
        killed = 0
        for count in range(args.times):
            number = SIGNALS[count % len(SIGNALS)]
            process = start(place)
            after = draw.uniform(0.5, whole)
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                process.send_signal(number)
                process.wait()
            time.sleep(0.1)
            left, alive = stays(place), living(place)
            print(f"{number.name} after {after:.1f} s: exit {process.returncode}, {len(alive)} alive, left {left}")
            bad["alive"] += bool(alive)
            if number == signal.SIGKILL:
                killed += bool(left)
                assert start(place).wait() == 0
                bad["not cleared"] += bool(stays(place))
            else:
                bad["left"] += bool(left)
    print(f"{args.times} ended of {whole:.1f} s each; {killed} kills left something for the next; wrong: {dict(+bad)}")
    return bool(+bad)


if __name__ == "__main__":
    sys.exit(main())
