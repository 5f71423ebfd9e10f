"""Other Pythons than the one that runs the tests: the base install from nothing, and the command line on it.

Those from 3.10 to 3.13 that are on PATH as ``python3.N``, and those that HIRESVIT_PYTHONS names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STREET = ROOT / "examples" / "street.jpg"


def pythons() -> list[str]:
    named = [f"python3.{minor}" for minor in range(10, 14) if minor != sys.version_info.minor]
    named += os.environ.get("HIRESVIT_PYTHONS", "").split()
    found = [path for name in named if (path := shutil.which(name))]
    # A version manager leaves programs there that only say that there are others.
    return [path for path in found if subprocess.run([path, "-V"], capture_output=True, check=False).returncode == 0]


@pytest.mark.slow
@pytest.mark.parametrize("python", pythons() or [pytest.param("", marks=pytest.mark.skip("no other Python here"))])
def test_the_base_install_runs_a_bundle(python: str, tiny_bundle: Path, tmp_path: Path) -> None:
    def run(*command: str | Path) -> str:
        done = subprocess.run([*map(str, command)], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    source = shutil.copytree(ROOT, tmp_path / "source", ignore=shutil.ignore_patterns(".*", "demo", "tests"))
    run(python, "-m", "venv", tmp_path / "venv")
    run(tmp_path / "venv/bin/pip", "install", "-q", source)
    program = tmp_path / "venv/bin/hiresvit"
    assert "--runner NAME" in run(program, "run", "--help")
    run(program, "run", tiny_bundle, STREET, "--graph", "simplified", "--threads", "1", "-o", "o.png")
    assert (tmp_path / "o.png").stat().st_size > 0
    for command in (["inspect", tiny_bundle], ["bench", tiny_bundle, "--min-s", "0"], ["list"], ["doctor"]):
        run(program, *command)
    run(program, "eval", tiny_bundle, "--dataset", "scenes", "--limit", "1")
