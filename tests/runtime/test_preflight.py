"""What is said of a plan that cannot run, most of it without TensorRT and all of it without a GPU."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
import pytest
from fake_cuda import ORIN, RTX_4090, FakeCuda
from fake_engine import FakeRTX, FakeTensorRT, Network
from onnx import TensorProto, helper

from hiresvit import cuda, tensorrt_api
from hiresvit.cuda import Device
from hiresvit.errors import ArtefactError, HiresvitError, MissingDependency, UsageError
from hiresvit.plan import EngineReport, Sidecar, sidecar_path, write_sidecar
from hiresvit.runtime import preflight, tensorrt_runner
from hiresvit.runtime.preflight import check_plan, host_code, installed_version
from hiresvit.runtime.runner import open_runner
from hiresvit.tensorrt_api import Backend

needs_rtx = pytest.mark.skipif(not tensorrt_api.installed("tensorrt_rtx"), reason=tensorrt_api.INSTALL_HINT)

TAGS: dict[Backend, bytes] = {"tensorrt": b"ftrt", "tensorrt_rtx": b"vtrt"}
VC = {"builder_flags": ["TF32", "VERSION_COMPATIBLE"]}


def save(
    path: Path,
    version: str = "10.3.0.30",
    *,
    backend: Backend = "tensorrt",
    size: int | None = None,
    **of_sidecar: Any,
) -> Path:
    """A plan as far as its first bytes go; with a sidecar if something is said of that."""
    header = TAGS[backend].ljust(16, b"\0") + (size or 100).to_bytes(8, "little")
    path.write_bytes((header + bytes(int(n) for n in version.split("."))).ljust(100, b"p"))
    if of_sidecar:
        write_sidecar(path, Sidecar("a.onnx", "0" * 64, describe(path, backend, version, **of_sidecar)))
    return path


def describe(path: Path, backend: Backend, version: str, **values: Any) -> EngineReport:
    report = EngineReport(
        backend=backend,
        version=version,
        compute_capability="8.7",
        device="Orin",
        plan_bytes=path.stat().st_size,
        plan_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        build_seconds=1.0,
        peak_rss_bytes=1,
        kernel_total=0,
        kernels={},
        precision={},
        attentions_fused=0,
        attentions_total=0,
        activation_bytes=0,
        weight_bytes=0,
        scratch_bytes=0,
        inputs=(),
        outputs=(),
        flags={},
        profiles={},
        warnings=(),
    )
    return replace(report, **values)


def said_of(path: Path, **given: Any) -> str:
    """The line of the ArtefactError."""
    with pytest.raises(ArtefactError) as caught:
        check_plan(path, **given)
    assert caught.value.exit_code == 7
    assert "\n" not in str(caught.value)
    return str(caught.value)


def gpu(capability: str) -> Device:
    return replace(RTX_4090, compute_capability=capability)


def test_a_plan_with_nothing_beside_it_passes(tmp_path: Path) -> None:
    assert check_plan(save(tmp_path / "a.plan"), device=ORIN, backend_version="10.3.0") is None


def test_a_plan_and_its_sidecar(tmp_path: Path) -> None:
    path = save(tmp_path / "a.plan", flags=VC)
    sidecar = check_plan(path, device=ORIN, backend_version="10.3.0.30")
    assert sidecar is not None
    assert sidecar.report.device == "Orin"
    assert host_code(sidecar)
    assert not host_code(None)


class TestDamage:
    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(HiresvitError, match=r"cannot read .*none") as caught:
            check_plan(tmp_path / "none.plan")
        assert caught.value.exit_code == 1

    @pytest.mark.parametrize("content", [b"", b"ftrt", b"ONNX" * 20], ids=["empty", "cut", "other"])
    def test_no_plan(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.plan").write_bytes(content)
        assert "not a plan" in said_of(tmp_path / "a.plan")

    def test_a_cut_plan_is_known_by_its_sidecar(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.plan", device="Orin")
        path.write_bytes(path.read_bytes()[:60])
        assert "a.plan is cut: 60 of 100 bytes are left" in said_of(path)

    def test_a_cut_plan_of_rtx_is_known_by_itself(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.plan", "1.7.1.116", backend="tensorrt_rtx", size=2000)
        assert "a.plan is cut: 100 of 2,000 bytes are left" in said_of(path)

    def test_a_changed_byte(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.plan", device="Orin")
        path.write_bytes(path.read_bytes()[:-1] + b"q")
        assert "is not the plan that a.plan.json describes" in said_of(path)

    def test_more_bytes(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.plan", device="Orin")
        path.write_bytes(path.read_bytes() + b"p")
        assert "is not the plan that a.plan.json describes" in said_of(path)

    def test_the_sidecar_of_another_plan(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.plan")
        other = save(tmp_path / "b.plan", "10.13.3.9", device="Thor")
        sidecar_path(other).rename(sidecar_path(path))
        assert "is not the plan that a.plan.json describes" in said_of(path)

    @pytest.mark.parametrize("wrong", [{"version": "10.13.3.9"}, {"backend": "tensorrt_rtx"}])
    def test_a_sidecar_that_knows_another_builder(self, tmp_path: Path, wrong: dict[str, Any]) -> None:
        path = save(tmp_path / "a.plan")
        report = replace(describe(path, "tensorrt", "10.3.0.30"), **wrong)
        write_sidecar(path, Sidecar("a.onnx", "0" * 64, report))
        assert "is not the plan that a.plan.json describes" in said_of(path)

    def test_a_sidecar_that_is_none(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.plan")
        sidecar_path(path).write_text("{")
        assert "a.plan.json cannot be read as JSON" in said_of(path)

    def test_values_of_other_types(self, tmp_path: Path) -> None:
        """Whatever stands in a sidecar, it is held against the plan or refused."""
        path = save(tmp_path / "a.plan", flags=VC)
        whole = json.loads(sidecar_path(path).read_text())
        values: tuple[Any, ...] = (None, "x", 3, [], {}, [None])
        changes = [{name: value} for name in whole["report"] for value in values]
        changes += [{"flags": {"builder_flags": value}} for value in values]
        for change in changes:
            report = {**whole["report"], **change}
            sidecar_path(path).write_text(json.dumps({**whole, "report": report}))
            with suppress(ArtefactError):
                check_plan(path, device=ORIN, backend_version="10.13.3.9")


class TestVersion:
    @pytest.mark.parametrize("installed", ["10.3.0.30", "10.3.0"])
    def test_the_same(self, tmp_path: Path, installed: str) -> None:
        check_plan(save(tmp_path / "a.plan", device="Orin"), backend_version=installed)

    @pytest.mark.parametrize("installed", ["10.3.0.26", "10.3.1", "10.13.3.9", "11.0.0.114", "8.6.1"])
    def test_another(self, tmp_path: Path, installed: str) -> None:
        line = said_of(save(tmp_path / "a.plan"), backend_version=installed)
        assert f"was built by TensorRT 10.3.0.30 and {installed} is installed" in line
        assert "runs only in the version that built it: build it again here" in line

    @pytest.mark.parametrize("installed", ["10.3.0.30", "10.3.0.31", "10.13.3.9", "11.4.1.2"])
    def test_a_compatible_plan_runs_in_later_ones(self, tmp_path: Path, installed: str) -> None:
        check_plan(save(tmp_path / "a.plan", flags=VC), backend_version=installed)

    @pytest.mark.parametrize("installed", ["10.2.0.19", "9.9.9.9", "12.0.0.1"])
    def test_but_not_in_earlier_ones(self, tmp_path: Path, installed: str) -> None:
        path = save(tmp_path / "a.plan", flags=VC)
        assert "runs in later versions of its major version" in said_of(path, backend_version=installed)

    def test_of_rtx(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.plan", "1.6.1.120", backend="tensorrt_rtx")
        line = said_of(path, backend_version="1.7.1.116")
        assert "was built by TensorRT-RTX 1.6.1.120 and 1.7.1.116 is installed" in line

    def test_what_is_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        packages = {"tensorrt_rtx_cu12_bindings": "1.7.1.116", "tensorrt": "10.3.0"}

        def version(name: str) -> str:
            if name not in packages:
                raise metadata.PackageNotFoundError(name)
            return packages[name]

        monkeypatch.setattr(metadata, "version", version)
        assert installed_version("tensorrt") == "10.3.0"
        assert installed_version("tensorrt_rtx") == "1.7.1.116"
        packages.clear()
        assert installed_version("tensorrt") is None

    @needs_rtx
    def test_what_is_installed_here(self) -> None:
        assert installed_version("tensorrt_rtx") == tensorrt_api.load("tensorrt_rtx").__version__


class TestDevice:
    @pytest.mark.parametrize(
        ("wanted", "have"),
        [
            ("8.7", "8.7"),
            ("8.0 and later", "8.0"),
            ("8.0 and later", "8.7"),
            ("8.0 and later", "11.0"),
            ("8.6, 8.9", "8.9"),
            ("8.6, 12.0", "12.0"),
            ("this machine's", "8.7"),
        ],
    )
    def test_the_same(self, tmp_path: Path, wanted: str, have: str) -> None:
        check_plan(save(tmp_path / "a.plan", compute_capability=wanted), device=gpu(have))

    @pytest.mark.parametrize(
        ("wanted", "have"),
        [("8.7", "8.6"), ("8.0 and later", "7.5"), ("8.6, 8.9", "8.7"), ("11.0", "8.7"), ("1.2", "12.0")],
    )
    def test_another(self, tmp_path: Path, wanted: str, have: str) -> None:
        line = said_of(save(tmp_path / "a.plan", compute_capability=wanted), device=gpu(have))
        assert f"runs on compute capability {wanted}; NVIDIA GeForce RTX 4090 has {have}" in line

    @pytest.mark.parametrize("have", ["7.2", "8.7", "9.0", "10.0", "10.3", "11.0"])
    @pytest.mark.parametrize("described", [False, True])
    def test_where_rtx_does_not_run(self, tmp_path: Path, have: str, described: bool) -> None:
        beside: dict[str, Any] = {"compute_capability": "8.0 and later"} if described else {}
        path = save(tmp_path / "a.plan", "1.7.1.116", backend="tensorrt_rtx", **beside)
        line = said_of(path, device=gpu(have))
        assert (
            f"TensorRT-RTX's, which does not run on NVIDIA GeForce RTX 4090 (compute capability {have})"
            in line
        )

    @pytest.mark.parametrize("have", ["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"])
    def test_where_rtx_runs(self, tmp_path: Path, have: str) -> None:
        check_plan(save(tmp_path / "a.plan", "1.7.1.116", backend="tensorrt_rtx"), device=gpu(have))


class TestOpening:
    """The order in which things are asked, on libraries that are made up."""

    @pytest.fixture
    def here(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """What is on the machine: change it to have a test's machine."""
        fake = FakeCuda(ORIN)
        here: dict[str, Any] = {"cuda": fake, "trt": FakeTensorRT(fake), "version": "10.3.0", "asked": []}

        def open_cuda() -> Any:
            here["asked"].append("cuda")
            if here["cuda"] is None:
                raise MissingDependency(cuda.NO_GPU)
            return here["cuda"]

        def load(backend: Backend) -> Any:
            here["asked"].append(backend)
            return here["trt"]

        monkeypatch.setattr(tensorrt_runner, "open_cuda", open_cuda)
        monkeypatch.setattr(tensorrt_runner, "load", load)
        monkeypatch.setattr(tensorrt_runner, "find_backend", lambda backend: backend)
        monkeypatch.setattr(preflight, "installed_version", lambda backend: here["version"])
        return here

    def test_cuda_is_asked_before_tensorrt(self, tmp_path: Path, here: dict[str, Any]) -> None:
        path = save(tmp_path / "a.plan", flags=VC)
        here["trt"].network = replace(Network(), plan=path.read_bytes())
        with open_runner(path) as runner:
            assert runner.inputs[0].name == "x"
            assert isinstance(runner, tensorrt_runner.TensorRTRunner)
            assert runner._held["runtime"].engine_host_code_allowed
        assert here["asked"] == ["cuda", "tensorrt"]

    def test_a_plan_of_rtx(self, tmp_path: Path, here: dict[str, Any]) -> None:
        path = save(tmp_path / "a.engine", "1.7.1.116", backend="tensorrt_rtx")
        fake = FakeCuda(RTX_4090)
        trt = FakeRTX(fake, replace(Network(), plan=path.read_bytes()))
        here.update(cuda=fake, trt=trt, version="1.7.1.116")
        open_runner(path, cuda_graph=True).close()
        assert trt.contexts[0]["strategy"].name == "WHOLE_GRAPH_CAPTURE"

    def test_damage_and_version_are_said_without_a_gpu(self, tmp_path: Path, here: dict[str, Any]) -> None:
        here["cuda"] = None
        path = save(tmp_path / "a.plan", device="Orin")
        with pytest.raises(MissingDependency, match="and this machine has none with a driver"):
            open_runner(path)
        assert here["asked"] == ["cuda"]
        here["version"] = "10.13.3.9"
        with pytest.raises(ArtefactError, match=r"10\.13\.3\.9 is installed"):
            open_runner(path)
        path.write_bytes(path.read_bytes()[:50])
        with pytest.raises(ArtefactError, match="is cut"):
            open_runner(path)
        assert here["asked"] == ["cuda"]

    def test_another_gpu(self, tmp_path: Path, here: dict[str, Any]) -> None:
        path = save(tmp_path / "a.plan", compute_capability="11.0")
        with pytest.raises(ArtefactError, match=r"compute capability 11\.0; Orin has 8\.7"):
            open_runner(path)

    def test_the_library_knows_its_version_best(self, tmp_path: Path, here: dict[str, Any]) -> None:
        here["version"] = None  # no package says one
        here["trt"].__version__ = "10.16.2.10"
        with pytest.raises(ArtefactError, match=r"10\.16\.2\.10 is installed"):
            open_runner(save(tmp_path / "a.plan"))


def test_options_that_do_not_apply(tmp_path: Path) -> None:
    path = save(tmp_path / "a.plan")
    with pytest.raises(UsageError, match="threads 2 are for a graph on the CPU; leave them out for a plan"):
        open_runner(path, threads=2)
    with pytest.raises(UsageError, match="a CUDA graph is for a plan on a GPU"):
        open_runner(tmp_path / "a.onnx", cuda_graph=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of the real TensorRT-RTX, y = x + x."""
    from hiresvit.export.engine import build_engine

    folder = tmp_path_factory.mktemp("real")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, 64]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", values[:1], values[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "a.onnx"
    )
    build_engine(folder / "a.onnx", folder / "a.plan")
    return folder / "a.plan"


SCRIPT = """
import sys
from pathlib import Path
from hiresvit.errors import HiresvitError
from hiresvit.runtime.runner import open_runner
for path in sys.argv[1:]:
    try:
        open_runner(Path(path)).close()
        print("0 it runs")
    except HiresvitError as error:
        print(error.exit_code, error)
"""


@needs_rtx
class TestReal:
    """The plan, the libraries and the machine are real."""

    def test_it_passes_where_it_could_run(self, built: Path) -> None:
        version = tensorrt_api.load("tensorrt_rtx").__version__
        sidecar = check_plan(built, device=RTX_4090, backend_version=version)
        assert sidecar is not None
        assert sidecar.report.compute_capability == "8.0 and later"
        assert not host_code(sidecar)

    def test_where_it_cannot(self, built: Path) -> None:
        assert "does not run on Orin (compute capability 8.7)" in said_of(built, device=ORIN)
        assert "TensorRT-RTX 1.7.1.116 and 1.8.0.1 is installed" in said_of(built, backend_version="1.8.0.1")

    def test_cut_and_changed(self, built: Path, tmp_path: Path) -> None:
        content = built.read_bytes()
        path = tmp_path / "a.plan"
        path.write_bytes(content[:-1])
        assert f"is cut: {len(content) - 1:,} of {len(content):,} bytes" in said_of(path)  # without a sidecar
        sidecar_path(path).write_bytes(sidecar_path(built).read_bytes())
        path.write_bytes(content[:-100] + bytes(100))
        assert "is not the plan that" in said_of(path)

    def test_opening_never_crashes(self, built: Path, tmp_path: Path) -> None:
        """In a process of its own, as native code would take this one down."""
        content = built.read_bytes()
        cut, other, naked = (tmp_path / f"{name}.plan" for name in ("cut", "other", "naked"))
        cut.write_bytes(content[: len(content) // 2])
        other.write_bytes(content[:24] + bytes((1, 6, 1, 120)) + content[28:])
        naked.write_bytes(content)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, built, naked, cut, other],
            capture_output=True,
            text=True,
            check=True,
        )
        good, bare, half, older = done.stdout.splitlines()
        assert half.startswith(f"7 {cut} is cut")
        assert older.startswith(f"7 {other} was built by TensorRT-RTX 1.6.1.120 and 1.7.1.116 is installed")
        if not cuda.has_driver():
            assert (good, bare) == (f"6 {built}: {cuda.NO_GPU}", f"6 {naked}: {cuda.NO_GPU}")
            assert done.stderr == ""
