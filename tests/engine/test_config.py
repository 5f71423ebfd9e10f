"""The builder's settings, on the way there and back. Whole builds with every TensorRT: test_tensorrt_versions."""

from __future__ import annotations

from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import pytest

from hiresvit.engine.config import find_capabilities, read_config, runs_on
from hiresvit.errors import BuildError, UsageError


class Flag(IntEnum):
    TF32 = 3
    VERSION_COMPATIBLE = 11


class Level(IntEnum):
    NONE = 0
    AMPERE_PLUS = 1


TRT = SimpleNamespace(
    __version__="10.9",
    BuilderFlag=Flag,
    MemoryPoolType=SimpleNamespace(WORKSPACE=0),
    ComputeCapability=SimpleNamespace(__members__={"SM86": 86, "SM120": 120, "CURRENT": 0}),
)
ASKED: dict[str, Any] = {
    "backend": "tensorrt",
    "max_aux_streams": 2,
    "opt_level": 4,
    "workspace": 1 << 20,
    "hw_compat": "ampere+",
    "version_compatible": True,
}


def config(**kept: Any) -> SimpleNamespace:
    """What a builder has that took everything in `ASKED`, but for ``kept``."""
    values: dict[str, Any] = {
        "flags": 1 << Flag.TF32 | 1 << Flag.VERSION_COMPATIBLE,
        "max_aux_streams": 2,
        "builder_optimization_level": 4,
        "workspace": 1 << 20,
        "hardware_compatibility_level": Level.AMPERE_PLUS,
        **kept,
    }
    return SimpleNamespace(**values, get_memory_pool_limit=lambda pool: values["workspace"])


def test_what_the_builder_has_is_told() -> None:
    assert read_config(TRT, config(), ASKED) == {
        "builder_flags": ["TF32", "VERSION_COMPATIBLE"],
        "max_aux_streams": 2,
        "builder_optimization_level": 4,
        "workspace_bytes": 1 << 20,
        "hardware_compatibility_level": "AMPERE_PLUS",
    }


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({"max_aux_streams": -1}, "max_aux_streams 2 was asked for, TensorRT 10.9 made -1 of it"),
        (
            {"builder_optimization_level": 3},
            "builder_optimization_level 4 was asked for, TensorRT 10.9 made 3",
        ),
        ({"workspace": 1 << 30}, "workspace_bytes 1048576 was asked for, TensorRT 10.9 made 1073741824"),
        (
            {"hardware_compatibility_level": Level.NONE},
            "hardware_compatibility_level AMPERE_PLUS was asked for",
        ),
        ({"flags": 0}, "a version-compatible plan was asked for, TensorRT 10.9 dropped the flag"),
    ],
)
def test_a_setting_that_the_builder_dropped(kept: dict[str, Any], said: str) -> None:
    with pytest.raises(BuildError) as caught:
        read_config(TRT, config(**kept), ASKED)
    assert str(caught.value).startswith(said)


def test_what_was_not_asked_for_is_the_builders() -> None:
    nothing = {**dict.fromkeys(ASKED), "backend": "tensorrt_rtx"}
    found = read_config(TRT, config(flags=0, workspace=7), nothing)
    assert found["workspace_bytes"] == 7
    assert "hardware_compatibility_level" not in found  # TensorRT-RTX has the name, and an error for whoever asks


def test_gpus_to_compile_for() -> None:
    assert find_capabilities(TRT, [120, 86]) == [120, 86]
    with pytest.raises(UsageError, match=r"^--sm 87: TensorRT-RTX 10\.9 compiles for 86, 120; other GPUs"):
        find_capabilities(TRT, [86, 87])


@pytest.mark.parametrize(
    ("request_", "device", "where"),
    [
        ({"backend": "tensorrt_rtx", "sm": [86, 120]}, None, "8.6, 12.0"),
        ({"backend": "tensorrt_rtx", "sm": []}, None, "8.0 and later"),
        ({"backend": "tensorrt", "hw_compat": "ampere+"}, "8.7", "8.0 and later"),
        ({"backend": "tensorrt", "hw_compat": "same"}, "8.7", "8.7"),
        ({"backend": "tensorrt", "hw_compat": None}, None, "this machine's"),
    ],
)
def test_where_a_plan_runs(request_: dict[str, Any], device: str | None, where: str) -> None:
    assert runs_on(request_, device) == where
