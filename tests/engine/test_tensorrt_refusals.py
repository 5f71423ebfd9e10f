"""What a builder refuses, drops or cannot tell becomes an error or a warning, with every TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_cuda import ORIN, RTX_4090, FakeCuda
from fake_tensorrt import FakeTensorRT
from tensorrt_surfaces import NAMES
from test_fake_tensorrt import save_relu
from test_tensorrt_versions import FULL, everything, make_fake, plain, replay

from hiresvit.device import cuda
from hiresvit.device import tensorrt_api as api
from hiresvit.device.cuda import Device
from hiresvit.device.cuda import open as opening
from hiresvit.engine import _build_child
from hiresvit.errors import (
    ArtefactError,
    BuilderRefusal,
    BuildError,
    HiresvitError,
    IllegalGraphError,
    MissingDependency,
    UsageError,
)

RTX = [name for name in NAMES if name not in FULL]


def replay_refusal(fake: FakeTensorRT, request: dict[str, Any], kind: type[HiresvitError]) -> str:
    """The words of an error of just this kind, from a build."""
    with pytest.raises(HiresvitError) as caught:
        replay(fake, request)
    assert type(caught.value) is kind
    return str(caught.value)


def changed(name: str, folder: Path, **settings: Any) -> dict[str, Any]:
    """A request that asks for nothing but this."""
    backend = "tensorrt" if name in FULL else "tensorrt_rtx"
    return {**plain(backend, folder), **settings}


@pytest.mark.parametrize(
    ("dropped", "settings", "said"),
    [
        ("max_aux_streams", {"max_aux_streams": 2}, "max_aux_streams 2"),
        ("max_aux_streams", {"max_aux_streams": 0}, "max_aux_streams 0"),
        ("builder_optimization_level", {"opt_level": 4}, "builder_optimization_level 4"),
        ("WORKSPACE", {"workspace": 1 << 20}, "workspace_bytes 1048576"),
    ],
    ids=["streams", "one_stream", "level", "workspace"],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_dropped_setting_is_an_error(
    name: str, dropped: str, settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    fake = make_fake(name, dropped=frozenset({dropped}))
    # What these are before they are set.
    before = {"max_aux_streams": -1, "builder_optimization_level": 3, "WORKSPACE": 8 << 30}[dropped]
    version = fake.surface["version"]
    words = replay_refusal(fake, changed(name, tmp_path, **settings), BuildError)
    assert words == f"{said} was asked for, TensorRT {version} made {before} of it"
    assert fake.builds == []  # said before the minutes of a build, not after


@pytest.mark.parametrize("name", FULL)
def test_a_dropped_compatibility_is_an_error(name: str, tmp_path: Path) -> None:
    version = make_fake(name).surface["version"]
    fake = make_fake(name, dropped=frozenset({"hardware_compatibility_level"}))
    assert replay_refusal(fake, changed(name, tmp_path, hw_compat="ampere+"), BuildError) == (
        f"hardware_compatibility_level AMPERE_PLUS was asked for, TensorRT {version} made NONE of it"
    )
    fake = make_fake(name, dropped=frozenset({"VERSION_COMPATIBLE"}))
    assert replay_refusal(fake, changed(name, tmp_path, version_compatible=True), BuildError) == (
        f"a version-compatible plan was asked for, TensorRT {version} dropped the flag"
    )
    assert fake.builds == []


@pytest.mark.parametrize("name", NAMES)
def test_a_refused_profile_is_an_error(name: str, tmp_path: Path) -> None:
    fake = make_fake(name, failing=frozenset({"add_optimization_profile"}))
    request = everything(fake.surface["library"], tmp_path)
    words = replay_refusal(fake, request, UsageError)
    assert words == f"TensorRT {fake.surface['version']} refuses the profile {request['shapes']}"


@pytest.mark.parametrize("name", NAMES)
def test_a_refused_node_is_named_or_numbered(name: str, tmp_path: Path) -> None:
    for called, said in (("relu", "'relu'"), ("", "number 0")):
        fake = make_fake(name, refused=frozenset({"Relu"}))
        graph = save_relu(tmp_path / "refused.onnx", name=called)
        words = replay_refusal(fake, changed(name, tmp_path, graph=graph), IllegalGraphError)
        assert words == f"{graph}: TensorRT refuses node {said} (Relu): Plugin not found"


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_build_is_the_graphs_fault_unless_memory_or_the_caller_is_gone(name: str, tmp_path: Path) -> None:
    graph = save_relu(tmp_path / "dynamic.onnx", "N")  # and no profile for it
    words = replay_refusal(make_fake(name), changed(name, tmp_path, graph=graph), BuilderRefusal)
    assert words == (f"{graph}: engine build failed: dynamic inputs, but no optimization profile has been defined")
    full = make_fake(name, log=(("ERROR", "out of memory"),), scratch=1 << 40)
    assert "failed: out of memory | no implem" in replay_refusal(full, changed(name, tmp_path), BuildError)
    words = replay_refusal(make_fake(name), changed(name, tmp_path, parent=-1), BuildError)
    assert words.endswith("failed: cancelled, the process that asked for it is gone")


@pytest.mark.parametrize("name", RTX)
def test_a_refused_gpu_is_an_error(name: str, tmp_path: Path) -> None:
    """A GPU that the version knows, and does not compile for all the same."""
    fake = make_fake(name, failing=frozenset({"SM120"}))
    words = replay_refusal(fake, changed(name, tmp_path, sm=[86, 120]), UsageError)
    assert words == f"--sm 120: TensorRT-RTX {fake.surface['version']} refuses it; leave it out"
    replay(fake, changed(name, tmp_path, sm=[86]))


@pytest.mark.parametrize("name", FULL)
def test_the_same_compute_capability_came_after_10_3(name: str, tmp_path: Path) -> None:
    fake = make_fake(name)
    request = changed(name, tmp_path, hw_compat="same")
    if name == "10.3":
        words = replay_refusal(fake, request, UsageError)
        assert words == "hardware compatibility 'same': TensorRT 10.3.0 has only 'ampere+'"
        return
    assert replay(fake, request)["compute_capability"] == "8.7"
    assert fake.builds[0].settings["hardware_compatibility_level"] == "SAME_COMPUTE_CAPABILITY"


@pytest.mark.parametrize("failing", ["create_timing_cache", "set_timing_cache"])
@pytest.mark.parametrize("name", FULL)
def test_a_refused_timing_cache_is_named(name: str, failing: str, tmp_path: Path) -> None:
    request = changed(name, tmp_path, timing_cache=str(tmp_path))
    replay(make_fake(name), request)
    (cache,) = tmp_path.glob("*.timing")
    fake = make_fake(name, failing=frozenset({failing}))
    words = replay_refusal(fake, request, ArtefactError)
    version = fake.surface["version"]
    assert words == f"{cache} is no timing cache of TensorRT {version} on this GPU; remove it"
    assert cache.read_bytes() == b"+"  # as the first build left it


@pytest.mark.parametrize("name", FULL)
def test_a_timing_cache_is_kept_for_one_gpu(name: str, tmp_path: Path) -> None:
    request = changed(name, tmp_path, timing_cache=str(tmp_path))
    # The times of one GPU are not another's, be it another by its name or by its compute capability alone.
    for gpu in (ORIN, replace(ORIN, name="Orin NX"), replace(ORIN, compute_capability="8.8")):
        before = set(tmp_path.glob("*.timing"))
        for known in (b"", b"+"):
            fake = make_fake(name)
            replay(fake, request, gpu)
            assert fake.builds[0].timing_cache == known
        assert len(set(tmp_path.glob("*.timing")) - before) == 1


@pytest.mark.parametrize("name", FULL)
def test_a_place_that_cannot_hold_a_timing_cache_is_said_before_the_build(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        fake = make_fake(name)
        request = changed(name, tmp_path, timing_cache=str(tmp_path / place))
        words = replay_refusal(fake, request, HiresvitError)
        assert words.startswith(f"cannot keep a timing cache in {tmp_path / place}")
        assert fake.builds == []


@pytest.mark.parametrize("name", FULL)
def test_a_timing_cache_that_is_not_written_costs_no_plan(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "cache"

    def spoil(phase: str, fraction: float) -> None:
        if phase == "Building engine" and folder.is_dir():
            folder.rmdir()
            folder.touch()

    fake = make_fake(name)
    result = replay(fake, changed(name, tmp_path, timing_cache=str(folder)), report=spoil)
    first, second = result["warnings"]
    assert first == "a warning"
    assert second.startswith(f"cannot write {folder}")
    assert Path(tmp_path, "relu.plan").read_bytes() == fake.script.plan


@pytest.mark.parametrize("name", RTX)
def test_rtx_warns_that_it_has_no_timing_cache(name: str, tmp_path: Path) -> None:
    fake = make_fake(name)
    result = replay(fake, changed(name, tmp_path, timing_cache=str(tmp_path)))
    assert result["warnings"] == [
        "TensorRT-RTX has no timing cache: it was neither read nor written",
        "a warning",
    ]
    assert list(tmp_path.glob("*.timing")) == []


@pytest.mark.parametrize("gpu", [ORIN, RTX_4090], ids=["orin", "4090"])
@pytest.mark.parametrize("name", FULL)
def test_the_report_names_the_gpu_and_where_the_plan_runs(name: str, gpu: Device, tmp_path: Path) -> None:
    result = replay(make_fake(name), changed(name, tmp_path), gpu)
    assert (result["device"], result["compute_capability"]) == (gpu.name, gpu.compute_capability)
    result = replay(make_fake(name), changed(name, tmp_path, hw_compat="ampere+"), gpu)
    assert (result["device"], result["compute_capability"]) == (gpu.name, "8.0 and later")


@pytest.mark.parametrize("name", RTX)
def test_rtx_builds_for_the_gpus_it_is_told_and_on_none(name: str, tmp_path: Path) -> None:
    for sm, capabilities in (([], "8.0 and later"), ([86, 120], "8.6, 12.0")):
        result = replay(make_fake(name), changed(name, tmp_path, sm=sm))
        assert (result["device"], result["compute_capability"]) == (None, capabilities)


@pytest.mark.parametrize("name", NAMES)
def test_activation_memory_is_the_engines_where_it_can_be_asked(name: str, tmp_path: Path) -> None:
    result = replay(make_fake(name, device_memory=4096), changed(name, tmp_path))
    # The builder's log says 64, which is all that there is on RTX: it does not load what it has built.
    assert result["activation_bytes"] == (4096 if name in FULL else 64)
    assert result["weight_bytes"] == 32


@pytest.mark.parametrize(
    "information",
    ["", "nonsense", "[]", "{}", '{"Layers": []}'],
    ids=["nothing", "words", "list", "object", "no_layers"],
)
@pytest.mark.parametrize("name", FULL)
def test_a_plan_that_cannot_be_inspected_is_kept_with_a_warning(name: str, information: str, tmp_path: Path) -> None:
    fake = make_fake(name, information=information, device_memory=4096)
    result = replay(fake, changed(name, tmp_path))
    first, second = result["warnings"]
    assert first == "a warning"
    assert second.startswith("the plan's kernels are not known: the inspector's answer ")
    assert (result["layers"], result["kernel_total"], result["kernels"]) == ([], 0, {})
    assert result["activation_bytes"] == 4096
    assert Path(tmp_path, "relu.plan").read_bytes() == fake.script.plan


@pytest.mark.parametrize("name", FULL)
def test_a_plan_that_does_not_load_is_an_error(name: str, tmp_path: Path) -> None:
    fake = make_fake(name, failing=frozenset({"deserialize_cuda_engine"}))
    words = replay_refusal(fake, changed(name, tmp_path), BuildError)
    assert words == "the plan does not load on the GPU it was built on: this is no plan of this version"


@pytest.mark.parametrize("name", FULL)
def test_host_code_is_allowed_for_version_compatible_plans_only(name: str, tmp_path: Path) -> None:
    for wanted in (True, False):
        fake = make_fake(name)
        result = replay(fake, changed(name, tmp_path, version_compatible=wanted))
        assert result["kernel_total"] == 1  # the stand-in does not load such a plan where it is not allowed
        assert ("Runtime.engine_host_code_allowed" in fake.touched) is wanted


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool, bool], None]:
    """Makes this machine one with or without a driver, and with or without a CUDA binding."""

    def make(driver: bool, binding: bool) -> None:
        for module in (cuda, _build_child):
            monkeypatch.setattr(module, "has_driver", lambda: driver)
        monkeypatch.setattr(opening, "installed", lambda: ("cuda-bindings",) if binding else ())
        if binding and driver:
            monkeypatch.setattr(opening, "open_cuda", lambda: FakeCuda(ORIN))
        elif binding:
            monkeypatch.setattr(opening, "open_cuda", no_driver)

    def no_driver() -> FakeCuda:
        raise MissingDependency(cuda.NO_GPU)

    return make


@pytest.mark.parametrize("driver", [True, False], ids=["driver", "no_driver"])
@pytest.mark.parametrize("binding", [True, False], ids=["binding", "no_binding"])
def test_tensorrt_needs_a_gpu_and_rtx_does_not(
    machine: Callable[[bool, bool], None], driver: bool, binding: bool
) -> None:
    machine(driver, binding)
    assert _build_child.find_device("tensorrt_rtx") is None
    if driver:
        # Without a binding nobody can say which GPU it is.
        assert _build_child.find_device("tensorrt") == (ORIN if binding else None)
        return
    with pytest.raises(MissingDependency, match=r"none can be used here .*--backend tensorrt_rtx"):
        _build_child.find_device("tensorrt")


@pytest.mark.parametrize("name", FULL)
def test_a_gpu_that_no_binding_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = make_fake(name)
    monkeypatch.setattr(api, "load", lambda backend: fake.module)
    monkeypatch.setattr(_build_child, "has_driver", lambda: True)
    monkeypatch.setattr(opening, "installed", lambda: ())
    request = changed(name, tmp_path, timing_cache=str(tmp_path))
    result = _build_child.build(request, lambda phase, fraction: None)
    assert (result["device"], result["compute_capability"]) == (None, "this machine's")
    assert len(list(tmp_path.glob("*.timing"))) == 1
