"""NVIDIA's management library, through nvidia-ml-py (extra ``nvml``): power, clocks, temperature, throttling.

NVML API Reference, "Device Queries". On Orin NVML knows nothing of power; its rails are `ina3221`'s.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from hiresvit.device.power.meter import Meter, Reading, Unit, polled
from hiresvit.errors import install_line

# nvmlClocksEventReason*, without GpuIdle, ApplicationsClocksSetting and DisplayClockSetting.
_REASONS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal slowdown by software",
    0x40: "thermal slowdown by hardware",
    0x80: "power brake",
}


@cache
def library() -> Any:
    """The module with NVML begun, else a text: why it cannot be had. Asked once, as beginning it takes a while."""
    try:
        import pynvml
    except ImportError:
        return f"nvidia-ml-py is not installed: {install_line('nvml')}"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"NVML: {error}"
    return pynvml


def gpus(root: Path) -> dict[str, Any]:
    """The handles of the GPUs that NVML sees: ``GPU0`` and so on; empty without it, and where root is not /."""
    nvml = library()
    if isinstance(nvml, str) or root != Path("/"):
        return {}
    try:
        count = nvml.nvmlDeviceGetCount()
        return {f"GPU{index}": nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)}
    except nvml.NVMLError:
        return {}


def find(root: Path) -> Meter | str:
    """The GPUs' energy counters, else their power, or why there is neither."""
    nvml = library()
    if isinstance(nvml, str):
        return nvml
    handles = gpus(root)
    if not handles:
        return "NVML sees no GPU"
    # The counter misses nothing between two readings; GPUs before Volta only say their power, a mean over a second.
    ways: tuple[tuple[Unit, Any], ...] = (
        ("J", nvml.nvmlDeviceGetTotalEnergyConsumption),
        ("W", nvml.nvmlDeviceGetPowerUsage),
    )
    refusal = ""
    for unit, ask in ways:
        try:
            values = {name: ask(handle) for name, handle in handles.items()}
        except nvml.NVMLError as error:
            refusal = str(error)
            continue

        def read(ask: Any = ask) -> Reading:
            return {name: ask(handle) / 1000 for name, handle in handles.items()}

        notes = ("NVML sees the GPU and its memory, not the machine around it",)
        return Meter("nvml", "the GPU with its memory", unit, tuple(values), polled(read), notes)
    return f"NVML knows no power of this GPU: {refusal}"


def clocks(root: Path) -> dict[str, dict[str, float | None]]:
    """The clocks of each GPU's processors and memory in MHz; NVML knows no lower limit."""
    nvml, found = library(), {}
    for gpu, handle in gpus(root).items():
        for name, kind in (("sm", nvml.NVML_CLOCK_SM), ("memory", nvml.NVML_CLOCK_MEM)):
            now, top = (
                _asked(ask, handle, kind) for ask in (nvml.nvmlDeviceGetClockInfo, nvml.nvmlDeviceGetMaxClockInfo)
            )
            if now is not None:
                found[f"{gpu} {name}"] = {"mhz": now, "min_mhz": None, "max_mhz": top}
    return found


def temperatures(root: Path) -> dict[str, float]:
    """Of each GPU, in degrees Celsius."""
    nvml = library()
    found = {gpu: _asked(nvml.nvmlDeviceGetTemperature, handle, 0) for gpu, handle in gpus(root).items()}
    return {gpu: value for gpu, value in found.items() if value is not None}


def throttle_reasons(root: Path) -> list[str] | None:
    """What slows a GPU down now, None if no GPU says. To be idle or to have its clocks set is no reason."""
    nvml, masks = library(), {}
    for gpu, handle in gpus(root).items():
        mask = _asked(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
        if mask is not None:
            masks[gpu] = int(mask)
    if not masks:
        return None
    return [f"{gpu} {words}" for gpu, mask in masks.items() for bit, words in _REASONS.items() if mask & bit]


def _asked(ask: Any, *arguments: Any) -> float | None:
    with suppress(library().NVMLError):
        return float(ask(*arguments))
    return None
