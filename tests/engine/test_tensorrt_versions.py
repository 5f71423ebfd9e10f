"""A build replayed on the recorded interfaces of every TensorRT: nothing is touched that a version lacks."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from fake_cuda import ORIN, FakeCuda
from fake_tensorrt import FakeTensorRT, Script
from tensorrt_surfaces import NAMES, Surface, load_surface
from test_fake_tensorrt import save_relu

from hiresvit.device import tensorrt_api as api
from hiresvit.device.cuda import Device
from hiresvit.device.cuda import open as opening
from hiresvit.engine import _build_child
from hiresvit.engine._build_child import Report
from hiresvit.errors import BuildError, HiresvitError, IllegalGraphError, MissingDependency, UsageError

PACKAGE = Path(_build_child.__file__).parents[1]
OURS = (
    "device/tensorrt_api.py",
    "engine/_build_child.py",
    "engine/config.py",
    "runtime/tensorrt_runner.py",
)
FULL = [name for name in NAMES if not name.startswith("rtx")]
LATEST = ("11.0", "11.4")

needs_rtx = pytest.mark.skipif(not api.installed("tensorrt_rtx"), reason=api.INSTALL_HINT)

# What the two kinds of libraries say about a plan of one kernel: RTX's builder, and the inspector of 10 and of 11.
KERNEL = "Name: relu, LayerType: kgen, Inputs: [ {} ], Outputs: [ {} ]"
LOG = (
    ("WARNING", "a warning"),
    ("VERBOSE", f"Layers:\n{KERNEL}\n\n"),
    ("INFO", "Total Activation Memory: 64 bytes"),
    ("INFO", "Total Weights Memory: 32 bytes"),
)
LAYER = {"Name": "relu", "LayerType": "kgen", "Inputs": [], "Outputs": [], "TacticName": "", "StreamId": 0}
INSPECTED = {
    10: json.dumps({"Layers": [LAYER], "Bindings": ["x", "y"]}),
    11: json.dumps({"Layers": [LAYER], "I/O Tensors": [{"Name": "x"}, {"Name": "y"}]}),
}


def names_of(surface: Surface) -> set[str]:
    """Every name of a version, as ``Builder`` and ``Builder.create_network``."""
    owned = {**surface["enums"], **surface["classes"]}
    return {*surface["module"], *(f"{owner}.{name}" for owner, names in owned.items() for name in names)}


def closed(names: Iterable[str]) -> set[str]:
    """The names and what they are names in: who lists ``Builder.create_network`` need not list ``Builder``."""
    return {part for name in names for part in (name, name.rpartition(".")[0]) if part}


def make_fake(name: str, **script: Any) -> FakeTensorRT:
    surface = load_surface(name)
    information = INSPECTED[10 if surface["version"].startswith("10.") else 11]
    return FakeTensorRT(surface, Script(**{"log": LOG, "information": information, **script}))


def plain(backend: str, folder: Path) -> dict[str, Any]:
    """A request that asks for nothing."""
    return {
        "backend": backend,
        "graph": save_relu(folder / "plain.onnx"),
        "plan": str(folder / "relu.plan"),
        "shapes": {},
        "workspace": None,
        "timing_cache": None,
        "opt_level": None,
        "max_aux_streams": 0,
        "hw_compat": None,
        "version_compatible": False,
        "sm": (),
        "parent": os.getppid(),  # as if the parent of this process had asked
    }


def everything(backend: str, folder: Path) -> dict[str, Any]:
    """A request for all that the library has."""
    request = {
        **plain(backend, folder),
        "graph": save_relu(folder / "dynamic.onnx", "N"),
        "shapes": {"x": [[1, 8], [2, 8], [4, 8]]},
        "workspace": 1 << 30,
        "timing_cache": str(folder),
        "opt_level": 4,
        "max_aux_streams": 2,
    }
    if backend == "tensorrt_rtx":
        return {**request, "sm": [86, 120]}
    return {**request, "hw_compat": "ampere+", "version_compatible": True}


def replay(
    fake: FakeTensorRT, request: dict[str, Any], gpu: Device = ORIN, report: Report = lambda *_: None
) -> dict[str, Any]:
    """Build with the stand-in where the library would be loaded, on a machine with a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "load", lambda backend: fake.module)
        patch.setattr(opening, "installed", lambda: ("cuda-bindings",))
        patch.setattr(opening, "open_cuda", lambda: FakeCuda(gpu))
        return _build_child.build(request, report)


def replay_all(name: str, folder: Path) -> tuple[set[str], set[str]]:
    """The names that builds of every kind use on a version, and those they ask for in vain."""
    backend = load_surface(name)["library"]
    plainly, all_on = plain(backend, folder), everything(backend, folder)
    nameless = {**plainly, "graph": save_relu(folder / "nameless.onnx", name="")}
    runs: list[tuple[dict[str, Any], dict[str, Any], type[HiresvitError] | None]] = [
        ({}, plainly, None),
        ({}, all_on, None),
        ({"refused": frozenset({"Relu"})}, plainly, IllegalGraphError),
        ({"refused": frozenset({"Relu"})}, nameless, IllegalGraphError),
        ({"scratch": 1 << 31}, all_on, BuildError),
        ({}, {**plainly, "parent": -1}, BuildError),
        ({"driver": False}, plainly, MissingDependency),
    ]
    if backend == "tensorrt":
        runs.append(({}, {**plainly, "hw_compat": "same"}, UsageError if name == "10.3" else None))
    else:
        runs.append(({}, {**plainly, "sm": [87]}, UsageError))
    touched: set[str] = set()
    missed: set[str] = set()
    for script, request, error in runs:
        fake = make_fake(name, **script)
        if error is None:
            replay(fake, request)
        else:
            with pytest.raises(error):
                replay(fake, request)
        touched |= fake.touched
        missed |= fake.missed
    return touched, missed


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[set[str], set[str]]]:
    return {name: replay_all(name, tmp_path_factory.mktemp("replay")) for name in NAMES}


Replayed = dict[str, tuple[set[str], set[str]]]


@pytest.mark.parametrize("name", NAMES)
def test_every_version_has_what_we_call(name: str) -> None:
    assert not closed(api.BUILD_CALLS | api.RUN_CALLS) - closed(names_of(load_surface(name)))


@pytest.mark.parametrize("listed", [api.BUILD_OPTIONAL, api.RUN_OPTIONAL], ids=["build", "run"])
def test_what_is_optional_is_in_some_version(listed: frozenset[str]) -> None:
    versions = [names_of(load_surface(name)) for name in NAMES]
    assert not listed - set().union(*versions)


def test_the_lists_hold_what_builds_touch_and_nothing_else(replayed: Replayed) -> None:
    touched = set().union(*(touched for touched, _ in replayed.values()))
    listed = closed(api.BUILD_CALLS | api.BUILD_OPTIONAL)
    assert closed(touched) - listed == set(), "touched, and in neither list"
    assert listed - closed(touched) == set(), "listed, and never touched"


@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_optional_is_asked_for_in_vain(name: str, replayed: Replayed) -> None:
    _, missed = replayed[name]
    assert missed <= api.BUILD_OPTIONAL


@pytest.mark.parametrize("latest", LATEST)
def test_what_11_removed_is_never_touched(latest: str, replayed: Replayed) -> None:
    removed = names_of(load_surface("10.3")) - names_of(load_surface(latest))
    # What 11 is known for having removed, so that an empty set does not pass.
    assert {"BuilderFlag.FP16", "IInt8Calibrator", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH"} <= removed
    listed = api.BUILD_CALLS | api.BUILD_OPTIONAL | api.RUN_CALLS | api.RUN_OPTIONAL
    assert listed & removed == set()
    touched = set().union(*(touched for touched, _ in replayed.values()))
    assert touched & removed == set()


@pytest.mark.parametrize("name", NAMES)
def test_every_network_is_strongly_typed(name: str, tmp_path: Path) -> None:
    fake = make_fake(name)
    backend = fake.surface["library"]
    for request in (plain(backend, tmp_path), everything(backend, tmp_path)):
        replay(fake, request)
    assert [build.strongly_typed for build in fake.builds] == [True, True]


@pytest.mark.parametrize("name", FULL)
def test_the_numbers_of_flags_are_the_versions_own(name: str, tmp_path: Path) -> None:
    fake = make_fake(name)
    result = replay(fake, everything("tensorrt", tmp_path))
    tf32, version_compatible = 6, 13 if name.startswith("10.") else 12
    assert fake.builds[0].flag_bits == 1 << tf32 | 1 << version_compatible
    assert sorted(result["flags"]["builder_flags"]) == ["TF32", "VERSION_COMPATIBLE"]


@pytest.mark.parametrize("name", NAMES)
def test_what_was_asked_for_reaches_the_builder(name: str, tmp_path: Path) -> None:
    fake = make_fake(name)
    backend = fake.surface["library"]
    result = replay(fake, everything(backend, tmp_path))
    (build,) = fake.builds
    rtx = backend == "tensorrt_rtx"
    assert build.settings["builder_optimization_level"] == 4
    assert build.settings["max_aux_streams"] == 2
    assert build.settings["profiling_verbosity"] == "DETAILED"
    assert build.settings["hardware_compatibility_level"] == ("NONE" if rtx else "AMPERE_PLUS")
    assert build.pools["WORKSPACE"] == 1 << 30
    assert build.profiles == [{"x": ((1, 8), (2, 8), (4, 8))}]
    assert build.compute_capabilities == (["SM86", "SM120"] if rtx else [])
    assert (result["version"], result["plan_bytes"]) == (fake.surface["version"], len(fake.script.plan))
    assert result["kernel_total"] == 1
    assert Path(tmp_path, "relu.plan").read_bytes() == fake.script.plan


@pytest.mark.parametrize("name", FULL)
def test_a_timing_cache_is_kept_for_one_version(name: str, tmp_path: Path) -> None:
    fake = make_fake(name)
    for _ in range(2):
        replay(fake, everything("tensorrt", tmp_path))
    # The stand-in measures one thing, `+`, in each build.
    assert [build.timing_cache for build in fake.builds] == [b"", b"+"]
    other = make_fake(name)
    other.surface["version"] += ".1"
    replay(other, everything("tensorrt", tmp_path))
    assert other.builds[0].timing_cache == b""


@pytest.mark.parametrize(
    ("script", "changed", "message"),
    [
        ({"scratch": 1 << 31}, {"workspace": 1 << 20}, "engine build failed: .*no implementation obeys"),
        ({"refused": frozenset({"Relu"})}, {}, r"refuses node 'relu' \(Relu\): Plugin not found"),
        ({"driver": False}, {}, "does not start here: CUDA initialization failure"),
        ({}, {"parent": -1}, "cancelled"),
    ],
    ids=["workspace", "parser", "driver", "cancelled"],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_failure_is_told_in_the_builders_words(
    name: str, script: dict[str, Any], changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    fake = make_fake(name, **script)
    with pytest.raises(HiresvitError, match=message):
        replay(fake, {**plain(fake.surface["library"], tmp_path), **changed})
    assert not Path(tmp_path, "relu.plan").exists()


@needs_rtx
def test_the_real_rtx_is_called_as_its_stand_in(tmp_path: Path) -> None:
    """Whatever method of the library Python calls in a real build is called in the replay as well."""
    request = {**everything("tensorrt_rtx", tmp_path), "timing_cache": None}
    fake = make_fake("rtx1.7")
    replay(fake, request)
    methods = {name for kinds in fake.surface["classes"].values() for name, kind in kinds.items() if kind[0] == "("}
    called: set[str] = set()

    def watch(frame: Any, event: str, function: Any) -> None:
        # What a method of pybind11's is bound to has one of these types, in the versions that TensorRT is made with.
        if event == "c_call" and re.match("PyCapsule|pybind11_", type(function.__self__).__name__):
            called.add(function.__name__)

    sys.setprofile(watch)
    try:
        _build_child.build(request, lambda phase, fraction: None)
    finally:
        sys.setprofile(None)
    # Not every kind of call makes Python tell its profiler: what is called with a starred argument is not seen.
    assert called & methods - {name.rpartition(".")[2] for name in fake.touched} == set()
    assert {
        "create_network",
        "parse_from_file",
        "set_compute_capability",
        "build_serialized_network",
    } <= called


def literals(source: str) -> list[int]:
    """Lines where a number stands for an enum: in a shift, as a member, or where the library takes a member."""
    members = {"create_network", "set_flag", "get_flag", "set_memory_pool_limit", "get_memory_pool_limit"}
    members |= {"set_compute_capability", "get_engine_information", "create_execution_context"}
    settings = {"profiling_verbosity", "hardware_compatibility_level", "cuda_graph_strategy", "flags"}
    found = []
    for node in ast.walk(ast.parse(source)):
        values: list[ast.expr] = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.LShift, ast.RShift)):
            values = [node.right]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            made = isinstance(node.func.value, ast.Name) and node.func.value.id == "trt"
            values = node.args[:1] if made or node.func.attr in members else []
        elif isinstance(node, ast.Assign):
            named = [target.attr for target in node.targets if isinstance(target, ast.Attribute)]
            values = [node.value] if settings & set(named) else []
        if any(isinstance(value, ast.Constant) and type(value.value) is int for value in values):
            found.append(values[0].lineno)
    return found


@pytest.mark.parametrize("path", OURS)
def test_no_number_stands_for_an_enum(path: str) -> None:
    assert literals((PACKAGE / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "builder.create_network(1 << 1)",
        "builder.create_network(2)",
        "config.set_flag(trt.BuilderFlag(13))",
        "config.flags = 1",
        "config.profiling_verbosity = 2",
        "config.set_memory_pool_limit(0, size)",
    ],
)
def test_a_number_that_stands_for_an_enum_is_found(line: str) -> None:
    assert literals(line) == [1]
    assert literals("builder.create_network(0 if f is None else 1 << int(f)); config.max_aux_streams = 2") == []
