"""The power monitors of a Jetson's board, over hwmon: INA3221, and INA238 on Thor.

Linux, Documentation/hwmon/ina3221.rst: ``in[123]_input`` is a channel's voltage in mV, ``curr[123]_input`` its current
in mA; in4 to in6 are shunt voltages, in7 and curr4 sums over channels, which would count everything twice.
ina238.rst: ``power1_input`` is in uW.
"""

from __future__ import annotations

from pathlib import Path

from hiresvit.device.power.meter import Meter, Reading, polled

_FOLDER = "sys/class/hwmon"
_CHANNELS = (1, 2, 3)
_UNUSED = "NC"  # the label of a channel that is not connected


def find(root: Path) -> Meter | str:
    """The rails of every such chip, in watts, or why there is none."""
    rails: dict[str, tuple[Path, ...]] = {}
    for chip in sorted(root.glob(f"{_FOLDER}/hwmon*")):
        rails |= _rails(chip)
    if not rails:
        return f"no INA3221 with named channels in /{_FOLDER}: only a Jetson's board has them"

    def read() -> Reading:
        return {rail: _watts(files) for rail, files in rails.items()}

    try:
        read()
    except (OSError, ValueError) as error:
        return f"an INA3221 is there but does not answer: {error}"
    return Meter("ina3221", "the board's rails", "W", tuple(rails), polled(read))


def _rails(chip: Path) -> dict[str, tuple[Path, ...]]:
    """The named channels of a chip, each with the files whose product is its power in uW."""
    name = _text(chip / "name")
    if name == "ina238":
        label = _text(chip / "in1_label") or _text(chip / "label")
        return {label: (chip / "power1_input",)} if label else {}
    if name != "ina3221":
        return {}
    labels = {channel: _text(chip / f"in{channel}_label") for channel in _CHANNELS}
    return {
        label: (chip / f"in{channel}_input", chip / f"curr{channel}_input")
        for channel, label in labels.items()
        if label and label != _UNUSED and (chip / f"curr{channel}_input").exists()
    }


def _watts(files: tuple[Path, ...]) -> float:
    microwatts = 1
    for file in files:
        microwatts *= int(file.read_text(encoding="ascii"))
    return microwatts / 1e6


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
