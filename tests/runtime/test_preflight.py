"""What is said of a plan that cannot run, most of it without TensorRT and all of it without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from fake_cuda import ORIN, RTX_4090
from plan_files import VC, check, describe, said_of, save

from hiresvit.device import tensorrt_api
from hiresvit.device.cuda import Device
from hiresvit.device.plan import Sidecar, sidecar_path, write_sidecar
from hiresvit.errors import HiresvitError
from hiresvit.runtime import preflight
from hiresvit.runtime.preflight import host_code, installed_version

needs_rtx = pytest.mark.skipif(not tensorrt_api.installed("tensorrt_rtx"), reason=tensorrt_api.INSTALL_HINT)


def gpu(capability: str) -> Device:
    return replace(RTX_4090, compute_capability=capability)


def test_a_plan_with_nothing_beside_it_passes(tmp_path: Path) -> None:
    assert check(save(tmp_path / "a.plan"), device=ORIN, version="10.3.0") is None


def test_a_plan_and_its_sidecar(tmp_path: Path) -> None:
    path = save(tmp_path / "a.plan", flags=VC)
    sidecar = check(path, device=ORIN, version="10.3.0.30")
    assert sidecar is not None
    assert sidecar.report.device == "Orin"
    assert host_code(sidecar)
    assert not host_code(None)


class TestDamage:
    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(HiresvitError, match=r"cannot read .*none") as caught:
            check(tmp_path / "none.plan")
        assert caught.value.exit_code == 1

    @pytest.mark.parametrize("content", [b"", b"ftrt", b"ONNX" * 20], ids=["empty", "cut", "other"])
    def test_no_plan(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.plan").write_bytes(content)
        assert "not a plan" in said_of(tmp_path / "a.plan")

    def test_a_cut_plan_is_known_by_its_sidecar(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.plan", device="Orin")
        path.write_bytes(path.read_bytes()[:60])
        line = said_of(path)
        assert "a.plan is cut, or not the plan that a.plan.json describes: 60 of 100 bytes are there" in line

    def test_a_cut_plan_of_rtx_is_known_by_itself(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.plan", "1.7.1.116", backend="tensorrt_rtx", size=2000)
        assert "a.plan is cut: 100 of 2,000 bytes are left" in said_of(path)

    def test_a_whole_plan_of_rtx_beside_a_larger_ones_sidecar_is_not_cut(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.plan", "1.7.1.116", backend="tensorrt_rtx", plan_bytes=2000)
        assert "a.plan is not the plan that a.plan.json describes; copy both again" in said_of(path)

    def test_a_smaller_plan_of_another_version_is_not_cut(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.plan", version="10.3.0.30")
        other = save(tmp_path / "b.plan", "10.13.3.9", plan_bytes=2000)
        sidecar_path(other).rename(sidecar_path(path))
        assert "is not the plan that a.plan.json describes" in said_of(path)

    def test_in_a_new_format_the_size_stands_elsewhere(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.plan", "1.7.1.116", backend="tensorrt_rtx", size=2000, layout=1)
        assert check(path) is None

    def test_a_link_is_held_to_the_sidecar_of_what_it_leads_to(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.plan", device="Orin")
        link = tmp_path / "link.plan"
        link.symlink_to(path)
        sidecar = check(link)
        assert sidecar is not None
        path.write_bytes(path.read_bytes()[:-1] + b"q")
        assert "link.plan is not the plan that a.plan.json describes" in said_of(link)

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
        path = save(tmp_path / "a.plan", kernels=3)
        assert "a.plan.json does not describe a plan: report.kernels must be object; build the plan again" in said_of(
            path
        )


class TestPlatform:
    """Whether the machine is of the kind that the plan was built on."""

    @pytest.fixture
    def on(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        return lambda here: monkeypatch.setattr(preflight, "this_platform", lambda: here)

    @pytest.mark.parametrize("here", ["Linux x86_64", "Linux aarch64", "Windows AMD64"])
    def test_the_same(self, tmp_path: Path, on: Callable[[str], None], here: str) -> None:
        on(here)
        sidecar = check(save(tmp_path / "a.plan", platform=here))
        assert sidecar is not None
        assert sidecar.report.platform == here

    @pytest.mark.parametrize("here", ["Linux aarch64", "Windows AMD64"])
    def test_another(self, tmp_path: Path, on: Callable[[str], None], here: str) -> None:
        """The GPU and the version may well fit: ``ampere+`` says that it runs on an Orin, too."""
        on(here)
        beside: dict[str, Any] = {"platform": "Linux x86_64", "compute_capability": "8.0 and later"}
        line = said_of(save(tmp_path / "a.plan", **beside), version="10.3.0", device=ORIN)
        assert f"was built on Linux x86_64 and this is {here}; a plan of TensorRT runs only on" in line
        assert "the system and processor that it was built on: build it again here" in line

    @pytest.mark.parametrize(("built", "here"), [("Linux x86_64", "Windows AMD64"), ("Windows AMD64", "Linux x86_64")])
    def test_rtx_asks_for_the_same_processor_only(
        self, tmp_path: Path, on: Callable[[str], None], built: str, here: str
    ) -> None:
        on(here)
        path = save(tmp_path / "a.plan", "1.7.1.116", backend="tensorrt_rtx", platform=built)
        check(path)
        on("Linux aarch64")
        line = said_of(path)
        assert f"was built on {built} and this is Linux aarch64; a plan of TensorRT-RTX runs only on" in line
        assert "the processor that it was built on" in line

    def test_a_plan_without_a_sidecar_says_nothing_of_it(self, tmp_path: Path, on: Callable[[str], None]) -> None:
        on("Plan9 mips")
        assert check(save(tmp_path / "a.plan")) is None
        assert "this is Plan9 mips" in said_of(save(tmp_path / "b.plan", platform="Linux x86_64"))


class TestVersion:
    @pytest.mark.parametrize("installed", ["10.3.0.30", "10.3.0"])
    def test_the_same(self, tmp_path: Path, installed: str) -> None:
        sidecar = check(save(tmp_path / "a.plan", device="Orin"), version=installed)
        assert sidecar is not None
        assert sidecar.report.version == "10.3.0.30"

    @pytest.mark.parametrize("installed", ["10.3.0.26", "10.3.1", "10.13.3.9", "11.0.0.114", "8.6.1"])
    def test_another(self, tmp_path: Path, installed: str) -> None:
        line = said_of(save(tmp_path / "a.plan"), version=installed)
        assert f"was built by TensorRT 10.3.0.30 and {installed} is installed" in line
        assert "runs only in the version that built it: build it again here" in line

    @pytest.mark.parametrize("installed", ["10.3.0.30", "10.3.0.31", "10.13.3.9", "11.4.1.2"])
    def test_a_compatible_plan_runs_in_later_ones(self, tmp_path: Path, installed: str) -> None:
        path = save(tmp_path / "a.plan", flags=VC)
        assert host_code(check(path, version=installed))
        same = installed == "10.3.0.30"  # only that one runs a plan without host code of its own
        plain = save(tmp_path / "b.plan", device="Orin")
        assert same or "runs only in the version that built it" in said_of(plain, version=installed)

    @pytest.mark.parametrize("installed", ["10.2.0.19", "9.9.9.9", "12.0.0.1"])
    def test_but_not_in_earlier_ones(self, tmp_path: Path, installed: str) -> None:
        path = save(tmp_path / "a.plan", flags=VC)
        assert "runs in later versions of its major version" in said_of(path, version=installed)

    def test_of_rtx(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.plan", "1.6.1.120", backend="tensorrt_rtx")
        line = said_of(path, version="1.7.1.116")
        assert "was built by TensorRT-RTX 1.6.1.120 and 1.7.1.116 is installed" in line

    def test_a_plan_that_does_not_say_its_version(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.plan", layout=1)
        assert check(path, version="99.0") is None  # TensorRT will say
        path = save(tmp_path / "b.plan", layout=1, device="Orin")
        assert check(path, version="10.3.0") is not None
        line = said_of(path, version="10.13.3.9")
        assert "was built by TensorRT 10.3.0.30 and 10.13.3.9 is installed" in line

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
        sidecar = check(save(tmp_path / "a.plan", compute_capability=wanted), device=gpu(have))
        assert sidecar is not None
        assert sidecar.report.compute_capability == wanted

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
        assert f"TensorRT-RTX's, which does not run on NVIDIA GeForce RTX 4090 (compute capability {have})" in line

    @pytest.mark.parametrize("have", ["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"])
    def test_where_rtx_runs(self, tmp_path: Path, have: str) -> None:
        path = save(tmp_path / "a.plan", "1.7.1.116", backend="tensorrt_rtx")
        assert check(path, device=gpu(have)) is None
        beside: dict[str, Any] = {"compute_capability": "7.5 and later"}
        path = save(tmp_path / "b.plan", "1.7.1.116", backend="tensorrt_rtx", **beside)
        assert check(path, device=gpu(have)) is not None
