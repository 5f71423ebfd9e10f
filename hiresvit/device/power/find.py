"""Which meters this machine has, the best first, and why not the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hiresvit.device.power import ina3221, nvml, rapl, tegrastats
from hiresvit.device.power.meter import Meter

_FINDERS: dict[str, Callable[[Path], Meter | str]] = {
    "ina3221": ina3221.find,
    "tegrastats": tegrastats.find,
    "nvml": nvml.find,
    "rapl": rapl.find,
}


def look_for_meters(root: Path = Path("/")) -> dict[str, Meter | str]:
    """Every source, the whole board before the GPU before the CPU: its meter, or in words why it has none here.

    ``root`` is where ``/sys``, ``/proc`` and ``/usr/bin`` are looked for. A meter is returned only if it answered once.
    """
    return {name: find(root) for name, find in _FINDERS.items()}
