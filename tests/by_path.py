"""Modules that are no part of a package: the recipe of the golden weights, the benchmarks."""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"


def load(path: Path) -> ModuleType:
    """Import a Python file by its path."""
    spec = util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = util.module_from_spec(spec)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module
