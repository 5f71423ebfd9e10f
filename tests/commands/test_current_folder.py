"""`python -m hiresvit` beside files that are called as libraries: somebody else's folder may hold some."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import environment


def test_what_is_planted_beside_the_pictures_is_not_imported(tmp_path: Path) -> None:
    for name in ("typer", "numpy", "onnx", "onnxruntime"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    argv = [sys.executable, "-m", "hiresvit", "inspect", "a.onnx"]
    done = subprocess.run(argv, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.stderr == "error: a.onnx: no such file; give the path of an .onnx graph\n"
