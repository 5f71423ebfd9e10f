"""INA3221 over hwmon, RAPL, NVML: what each reads, and what it says where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest
from board_files import AGX_ORIN, ORIN_NANO, RAPL, THOR, lay_out

from hiresvit.device.platform import has_driver
from hiresvit.device.power import ina3221, nvml, rapl
from hiresvit.device.power.find import look_for_meters
from hiresvit.device.power.meter import Meter, sampling
from hiresvit.evaluation.energy import total_rails


def reading(meter: Meter | str) -> dict[str, float]:
    assert isinstance(meter, Meter), meter
    with sampling(meter) as trace:
        pass
    assert trace.notes == list(meter.notes)
    return trace.values[0]


def test_a_small_orin(tmp_path: Path) -> None:
    lay_out(tmp_path, ORIN_NANO)
    watts = reading(ina3221.find(tmp_path))
    assert watts == {"VDD_IN": 4.78464, "VDD_CPU_GPU_CV": 0.59712, "VDD_SOC": 1.512704}
    assert total_rails(watts) == ("VDD_IN",)


def test_agx_orin_has_no_total_and_may_be_negative(tmp_path: Path) -> None:
    lay_out(tmp_path, AGX_ORIN)
    watts = reading(ina3221.find(tmp_path))
    assert watts == {
        "VDD_GPU_SOC": 3.36224,
        "VDD_CPU_CV": -0.48032,
        "VIN_SYS_5V0": 4.86864,
        "VDDQ_VDD2_1V8AO": 0.39744,
    }
    assert total_rails(watts) == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")


def test_thor_has_a_second_chip_for_the_total(tmp_path: Path) -> None:
    lay_out(tmp_path, THOR)
    watts = reading(ina3221.find(tmp_path))
    assert watts["VIN"] == 30.24
    assert watts["VDD_GPU"] == 7.7056
    assert total_rails(watts) == ("VIN",)


def test_a_channel_that_is_switched_off_is_no_rail(tmp_path: Path) -> None:
    lay_out(tmp_path, {name: text for name, text in ORIN_NANO.items() if not name.endswith("curr3_input")})
    assert list(reading(ina3221.find(tmp_path))) == ["VDD_IN", "VDD_CPU_GPU_CV"]


def test_a_chip_that_does_not_answer(tmp_path: Path) -> None:
    lay_out(tmp_path, ORIN_NANO | {"sys/class/hwmon/hwmon1/curr2_input": ""})
    assert str(ina3221.find(tmp_path)).startswith("an INA3221 is there but does not answer")


def test_rapl_counts_through_the_end_of_its_range(tmp_path: Path) -> None:
    lay_out(tmp_path, RAPL)
    meter = rapl.find(tmp_path)
    assert isinstance(meter, Meter)
    assert meter.unit == "J"
    assert meter.rails == ("package-0", "package-0/core", "package-0/dram", "psys")
    assert total_rails(meter.rails) == ("package-0", "package-0/dram")
    with sampling(meter, 0.01) as trace:
        while not trace.values:
            pass
        # 328,851 uJ to the end of the range and as many from there: 0.657702 J, not -262,142 J.
        lay_out(tmp_path, {"sys/class/powercap/intel-rapl:0/energy_uj": "328851"})
    assert trace.values[0]["package-0"] == 0
    assert trace.values[-1]["package-0"] == pytest.approx(0.657702, abs=1e-9)


def test_rapl_for_root_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path, RAPL)
    real = Path.read_text

    def refuse(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert "for root only" in str(rapl.find(tmp_path))


def test_the_board_comes_first(tmp_path: Path) -> None:
    lay_out(tmp_path, AGX_ORIN | RAPL)
    found = look_for_meters(tmp_path).items()
    assert [name for name, meter in found if isinstance(meter, Meter)] == ["ina3221", "rapl"]


def test_nothing_here_and_why(tmp_path: Path) -> None:
    found = look_for_meters(tmp_path)
    assert list(found) == ["ina3221", "tegrastats", "nvml", "rapl"]
    assert all(isinstance(reason, str) and reason for reason in found.values())


@pytest.fixture
def _no_cache() -> Iterator[None]:
    nvml.library.cache_clear()
    yield
    nvml.library.cache_clear()


class Gpus:
    """Two GPUs behind the real pynvml, whose names, constants and errors stay its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, counter: bool = True, power: bool = True) -> None:
        self.millijoules = 5_000_000
        self.reasons = 0
        refuse = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

        def answer(value: Any, known: bool = True) -> Any:
            def ask(*_: Any) -> Any:
                if not known:
                    raise refuse
                return value() if callable(value) else value

            return ask

        for name, ask in {
            "nvmlInit": answer(None),
            "nvmlDeviceGetCount": answer(2),
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetTotalEnergyConsumption": answer(lambda: self.millijoules, counter),
            "nvmlDeviceGetPowerUsage": answer(71_500, power),
            "nvmlDeviceGetClockInfo": lambda _, kind: {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 2619}[kind],
            "nvmlDeviceGetMaxClockInfo": answer(None, False),
            "nvmlDeviceGetTemperature": answer(41),
            "nvmlDeviceGetCurrentClocksThrottleReasons": answer(lambda: self.reasons),
        }.items():
            assert hasattr(pynvml, name)
            monkeypatch.setattr(pynvml, name, ask)


@pytest.mark.usefixtures("_no_cache")
def test_nvml_without_a_driver() -> None:
    if has_driver():
        pytest.skip("this machine has a driver")
    with pytest.raises(pynvml.NVMLError) as refused:
        pynvml.nvmlInit()
    assert nvml.find(Path("/")) == f"NVML: {refused.value}"
    assert not nvml.clocks(Path("/"))
    assert not nvml.temperatures(Path("/"))
    assert nvml.throttle_reasons(Path("/")) is None


@pytest.mark.usefixtures("_no_cache")
def test_nvml_prefers_the_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    Gpus(monkeypatch)
    meter = nvml.find(Path("/"))
    assert isinstance(meter, Meter)
    assert (meter.unit, reading(meter)) == ("J", {"GPU0": 5000.0, "GPU1": 5000.0})
    assert total_rails(meter.rails) == ("GPU0", "GPU1")


@pytest.mark.usefixtures("_no_cache")
def test_nvml_of_an_older_gpu_and_of_a_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    Gpus(monkeypatch, counter=False)
    meter = nvml.find(Path("/"))
    assert isinstance(meter, Meter)
    assert (meter.unit, reading(meter)["GPU0"]) == ("W", 71.5)
    Gpus(monkeypatch, counter=False, power=False)
    assert nvml.find(Path("/")) == "NVML knows no power of this GPU: Not Supported"


@pytest.mark.usefixtures("_no_cache")
def test_nvml_says_what_slows_a_gpu_down(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = Gpus(monkeypatch)
    gpus.reasons = pynvml.nvmlClocksEventReasonGpuIdle | pynvml.nvmlClocksEventReasonApplicationsClocksSetting
    assert nvml.throttle_reasons(Path("/")) == []
    gpus.reasons |= pynvml.nvmlClocksEventReasonSwPowerCap | pynvml.nvmlClocksThrottleReasonHwThermalSlowdown
    assert (nvml.throttle_reasons(Path("/")) or [])[:2] == ["GPU0 power cap", "GPU0 thermal slowdown by hardware"]
    assert nvml.clocks(Path("/"))["GPU0 sm"] == {"mhz": 1980.0, "min_mhz": None, "max_mhz": None}
    assert nvml.temperatures(Path("/")) == {"GPU0": 41.0, "GPU1": 41.0}
