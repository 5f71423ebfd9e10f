"""RAPL: the energy counters of Intel's and AMD's processors. Linux, Documentation/power/powercap/powercap.rst."""

from __future__ import annotations

from pathlib import Path

from hiresvit.device.power.meter import Meter, Reading, polled

_FOLDER = "sys/class/powercap"


def find(root: Path) -> Meter | str:
    """The counters that can be read, as joules, or why none can."""
    zones = sorted(root.glob(f"{_FOLDER}/intel-rapl:*"))
    if not zones:
        return f"no /{_FOLDER}/intel-rapl:*: this processor counts no energy, or a virtual machine hides it"
    try:
        counters = {_rail(zone): _Counter(zone) for zone in zones}
    except PermissionError:
        return f"/{_FOLDER}/intel-rapl:*/energy_uj is for root only: run as root, or sudo chmod a+r it"
    except (OSError, ValueError) as error:
        return f"/{_FOLDER}: {error}"

    def read() -> Reading:
        return {rail: counter.joules() for rail, counter in counters.items()}

    notes = ("RAPL sees CPUs and, where it is counted, their memory, not the machine around them",)
    return Meter("rapl", "the CPU and, where it is counted, its memory", "J", tuple(counters), polled(read), notes)


def _rail(zone: Path) -> str:
    """``package-0``, and ``package-0/dram`` of a part of it."""
    name = (zone / "name").read_text(encoding="ascii").strip()
    above = zone.parent / zone.name.rpartition(":")[0]
    return name if zone.name.count(":") == 1 else f"{(above / 'name').read_text(encoding='ascii').strip()}/{name}"


class _Counter:
    """A counter that starts again at 0 after ``max_energy_range_uj``, as joules that never fall."""

    def __init__(self, zone: Path) -> None:
        self._file = zone / "energy_uj"
        self._range = int((zone / "max_energy_range_uj").read_text(encoding="ascii")) + 1
        self._total = 0
        self._last = self._now()

    def _now(self) -> int:
        return int(self._file.read_text(encoding="ascii"))

    def joules(self) -> float:
        """Since the counter was opened; seen at least once in each of its rounds, which take minutes at full power."""
        now = self._now()
        self._total += (now - self._last) % self._range
        self._last = now
        return self._total / 1e6
