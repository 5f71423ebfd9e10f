"""Inputs as the authors' own libraries make them (tests/golden/preprocess_golden.py), family by family."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_path import GOLDEN, ROOT, load

from hiresvit.data.preprocess import preprocess
from hiresvit.models.zoo import MODELS, find_model
from hiresvit.spec import Task

recipe = load(GOLDEN / "preprocess_golden.py")
INPUTS: list[Any] = json.loads((GOLDEN / "preprocess.json").read_text())["inputs"]
FAMILIES = sorted({(row[0], row[1]) for row in INPUTS})


@pytest.mark.parametrize(("model", "task"), FAMILIES)
def test_inputs_are_the_authors(model: str, task: Task) -> None:
    """To the grey level in every pixel, and in six of them to float32's rounding.

    `x / 255 - mean` and `x - 255 mean` differ by up to 7e-7, the golden values are rounded by 5e-7; a level is 2e-2.
    """
    spec = find_model(model).preprocess[task]
    rows = [row for row in INPUTS if row[:2] == [model, task]]
    assert len(rows) >= 6
    for _, _, (height, width), size, by, digest, sample in rows:
        values = preprocess(recipe.picture(*size), spec, (height, width))
        assert recipe.digest(recipe.levels(values)) == digest, f"{size} differs from {by}"
        np.testing.assert_allclose(values.ravel()[:: values.size // 5], sample, rtol=0, atol=1.5e-6)


def test_each_family_has_a_row_for_each_task() -> None:
    assert {find_model(model).family for model, _ in FAMILIES} == {entry.family for entry in MODELS.values()}
    for name, entry in MODELS.items():
        assert set(entry.preprocess) >= set(entry.imgsz), name


@pytest.mark.slow
def test_real_photos_by_the_authors_libraries(tmp_path: Path) -> None:
    """benchmarks/preprocess_parity.py in an environment of its own, or in that of HIRESVIT_AUTHORS."""
    script = ROOT / "benchmarks" / "preprocess_parity.py"
    python = os.environ.get("HIRESVIT_AUTHORS")
    if python is None:
        subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "authors")], check=True)
        python = str(tmp_path / "authors/bin/python")
        packages = re.findall(r'^PACKAGES = "(.*)"$', script.read_text(), re.M)[0].split()
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True, timeout=1800)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([python, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("| none |") == 10, done.stdout
