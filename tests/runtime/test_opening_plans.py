"""The order in which things are asked before a plan is loaded, and real plans, on a machine without a GPU."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from fake_cuda import ORIN, RTX_4090, FakeCuda
from fake_engine import FakeRTX, FakeTensorRT, Network
from onnx import TensorProto, helper
from plan_files import VC, check, said_of, save

from hiresvit.device import cuda, tensorrt_api
from hiresvit.device.plan import read_header, sidecar_path
from hiresvit.device.platform import has_driver, this_platform
from hiresvit.device.tensorrt_api import Backend
from hiresvit.errors import ArtefactError, MissingDependency, UsageError
from hiresvit.runtime import preflight, tensorrt_runner
from hiresvit.runtime.open import open_runner
from hiresvit.runtime.preflight import host_code

needs_rtx = pytest.mark.skipif(not tensorrt_api.installed("tensorrt_rtx"), reason=tensorrt_api.INSTALL_HINT)


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

    def test_a_file_is_not_enough_to_run_native_code(
        self, tmp_path: Path, here: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file beside a plan is nobody's signature."""
        path = save(tmp_path / "a.plan", flags=VC)
        here["trt"].network = replace(Network(), plan=path.read_bytes())
        for said in (None, "", "0"):
            monkeypatch.delenv("HIRESVIT_HOST_CODE", raising=False)
            if said is not None:
                monkeypatch.setenv("HIRESVIT_HOST_CODE", said)
            with pytest.raises(UsageError, match=r"brings native code, .* set HIRESVIT_HOST_CODE=1"):
                open_runner(path)

    def test_cuda_is_asked_before_tensorrt(
        self, tmp_path: Path, here: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HIRESVIT_HOST_CODE", "1")
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

    def test_another_platform_is_said_without_a_gpu(self, tmp_path: Path, here: dict[str, Any]) -> None:
        here["cuda"] = None
        with pytest.raises(ArtefactError, match="was built on Linux mips and this is "):
            open_runner(save(tmp_path / "a.plan", platform="Linux mips"))
        assert here["asked"] == []

    def test_a_suffix_in_capitals(self, tmp_path: Path, here: dict[str, Any]) -> None:
        path = save(tmp_path / "A.PLAN", device="Orin")
        here["trt"].network = replace(Network(), plan=path.read_bytes())
        open_runner(path).close()
        with pytest.raises(UsageError, match="threads 2 are for a graph"):
            open_runner(path, threads=2)

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
    from hiresvit.engine.build import build_engine

    folder = tmp_path_factory.mktemp("real")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, 64]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "a.onnx")
    build_engine(folder / "a.onnx", folder / "a.plan")
    return folder / "a.plan"


SCRIPT = """
import sys
from pathlib import Path
from hiresvit.errors import HiresvitError
from hiresvit.runtime.open import open_runner
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
        sidecar = check(built, device=RTX_4090, version=version)
        assert sidecar is not None
        assert sidecar.report.compute_capability == "8.0 and later"
        assert sidecar.report.platform == this_platform()
        assert not host_code(sidecar)

    def test_its_format_is_the_one_that_is_known(self, built: Path) -> None:
        assert read_header(built).version == tensorrt_api.load("tensorrt_rtx").__version__

    def test_whole_beside_a_larger_ones_sidecar(self, built: Path, tmp_path: Path) -> None:
        path = tmp_path / "a.plan"
        path.write_bytes(built.read_bytes())
        text = sidecar_path(built).read_text()
        size = f'"plan_bytes": {path.stat().st_size}'
        assert text.count(size) == 1
        sidecar_path(path).write_text(text.replace(size, f"{size}0"))
        assert "a.plan is not the plan that a.plan.json describes" in said_of(path)

    def test_where_it_cannot(self, built: Path) -> None:
        assert "does not run on Orin (compute capability 8.7)" in said_of(built, device=ORIN)
        assert "TensorRT-RTX 1.7.1.116 and 1.8.0.1 is installed" in said_of(built, version="1.8.0.1")

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
        if not has_driver():
            assert (good, bare) == (f"6 {built}: {cuda.NO_GPU}", f"6 {naked}: {cuda.NO_GPU}")
            assert done.stderr == ""
