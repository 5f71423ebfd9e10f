"""Files of /sys, /proc and /usr/bin as boards have them, in a folder of a test; their values were published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ORIN_NANO = {
    "sys/class/hwmon/hwmon0/name": "pwmfan",
    "sys/class/hwmon/hwmon1/name": "ina3221",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN",
    "sys/class/hwmon/hwmon1/in1_input": "4984",
    "sys/class/hwmon/hwmon1/curr1_input": "960",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV",
    "sys/class/hwmon/hwmon1/in2_input": "4976",
    "sys/class/hwmon/hwmon1/curr2_input": "120",
    "sys/class/hwmon/hwmon1/in3_label": "VDD_SOC",
    "sys/class/hwmon/hwmon1/in3_input": "4976",
    "sys/class/hwmon/hwmon1/curr3_input": "304",
    "sys/class/hwmon/hwmon1/in4_input": "4800",
    "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages",
    "sys/class/hwmon/hwmon1/in7_input": "8080",
    "sys/class/hwmon/hwmon1/curr4_input": "1384",
}
AGX_ORIN = {
    "sys/class/hwmon/hwmon3/name": "ina3221",
    "sys/class/hwmon/hwmon3/in1_label": "VDD_GPU_SOC",
    "sys/class/hwmon/hwmon3/in1_input": "12008",
    "sys/class/hwmon/hwmon3/curr1_input": "280",
    "sys/class/hwmon/hwmon3/in2_label": "VDD_CPU_CV",
    "sys/class/hwmon/hwmon3/in2_input": "12008",
    "sys/class/hwmon/hwmon3/curr2_input": "-40",
    "sys/class/hwmon/hwmon3/in3_label": "VIN_SYS_5V0",
    "sys/class/hwmon/hwmon3/in3_input": "4968",
    "sys/class/hwmon/hwmon3/curr3_input": "980",
    "sys/class/hwmon/hwmon3/in7_label": "sum of shunt voltages",
    "sys/class/hwmon/hwmon3/in7_input": "760",
    "sys/class/hwmon/hwmon3/curr4_input": "360",
    "sys/class/hwmon/hwmon4/name": "ina3221",
    "sys/class/hwmon/hwmon4/in1_label": "NC",
    "sys/class/hwmon/hwmon4/in1_input": "0",
    "sys/class/hwmon/hwmon4/curr1_input": "0",
    "sys/class/hwmon/hwmon4/in2_label": "VDDQ_VDD2_1V8AO",
    "sys/class/hwmon/hwmon4/in2_input": "4968",
    "sys/class/hwmon/hwmon4/curr2_input": "80",
}
THOR = {
    "sys/class/hwmon/hwmon3/name": "ina3221",
    "sys/class/hwmon/hwmon3/in1_label": "VDD_GPU",
    "sys/class/hwmon/hwmon3/in1_input": "12040",
    "sys/class/hwmon/hwmon3/curr1_input": "640",
    "sys/class/hwmon/hwmon3/in2_label": "VDD_CPU_SOC_MSS",
    "sys/class/hwmon/hwmon3/in2_input": "12040",
    "sys/class/hwmon/hwmon3/curr2_input": "960",
    "sys/class/hwmon/hwmon3/in3_label": "VIN_SYS_5V0",
    "sys/class/hwmon/hwmon3/in3_input": "5088",
    "sys/class/hwmon/hwmon3/curr3_input": "1740",
    "sys/class/hwmon/hwmon5/name": "ina238",
    "sys/class/hwmon/hwmon5/label": "VIN",
    "sys/class/hwmon/hwmon5/in1_input": "18900",
    "sys/class/hwmon/hwmon5/power1_input": "30240000",
}
RAPL = {
    "sys/class/powercap/intel-rapl/enabled": "1",
    "sys/class/powercap/intel-rapl:0/name": "package-0",
    "sys/class/powercap/intel-rapl:0/energy_uj": "262143000000",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850",
    "sys/class/powercap/intel-rapl:0:0/name": "core",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "1000000",
    "sys/class/powercap/intel-rapl:0:0/max_energy_range_uj": "262143328850",
    "sys/class/powercap/intel-rapl:0:1/name": "dram",
    "sys/class/powercap/intel-rapl:0:1/energy_uj": "2000000",
    "sys/class/powercap/intel-rapl:0:1/max_energy_range_uj": "65712999613",
    "sys/class/powercap/intel-rapl:1/name": "psys",
    "sys/class/powercap/intel-rapl:1/energy_uj": "3000000",
    "sys/class/powercap/intel-rapl:1/max_energy_range_uj": "262143328850",
}


def lay_out(root: Path, files: Mapping[str, str]) -> None:
    """Write each file with a line's end, as the kernel does."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="utf-8")


def tool(root: Path, name: str, script: str) -> Path:
    """A program of the system that runs ``script``."""
    path = root / "usr/bin" / name
    lay_out(root, {f"usr/bin/{name}": f"#!/bin/sh\n{script}"})
    path.chmod(0o755)
    return path
