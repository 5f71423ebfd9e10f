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


STATE = {
    "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0",
    "etc/nv_tegra_release": (
        "# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic, EABI: aarch64, "
        "DATE: Mon Jun 16 16:07:13 UTC 2025\n"
        "# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia"
    ),
    "var/lib/dpkg/status": (
        "Package: nvidia-jetpack-dev\nStatus: install ok installed\nVersion: 9.9\n\n"
        "Package: nvidia-jetpack\nStatus: install ok installed\nDepends: nvidia-jetpack-runtime (= 6.2.1+b38),\n"
        " nvidia-jetpack-dev (= 6.2.1+b38)\nVersion: 6.2.1+b38\n\nPackage: zlib1g\nVersion: 1.2\n"
    ),
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1510400",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq": "729600",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1510400",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "schedutil",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": "729600",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_min_freq": "729600",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_max_freq": "1510400",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_governor": "schedutil",
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000",
    "sys/class/devfreq/17000000.gpu/max_freq": "624750000",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "51187",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal",  # off: reading its temperature is refused
    "sys/class/thermal/thermal_zone10/type": "tj-thermal",
    "sys/class/thermal/thermal_zone10/temp": "52500",
    "sys/class/thermal/cooling_device0/type": "gpu-throttle-alert",
    "sys/class/thermal/cooling_device0/cur_state": "0",
    "sys/class/thermal/cooling_device2/type": "pwm-fan",
    "sys/class/thermal/cooling_device2/cur_state": "2",
    "sys/class/thermal/cooling_device10/type": "cpufreq-cpu0",
    "sys/class/thermal/cooling_device10/cur_state": "0",
    "sys/class/hwmon/hwmon3/name": "soctherm_oc",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0",
    "sys/class/hwmon/hwmon3/oc2_event_cnt": "15",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "37",
    "sys/class/hwmon/hwmon3/oc3_throt_en": "1",
}
"""An Orin NX as its owner published it (system information of 2025-12-23), and over-current counts of another."""

# `jetson_clocks --show`: R36 as published of that Orin NX. R39 says no Online and, while nothing is locked, no
# FreqOverride.
CLOCKS_R36 = """\
SOC family:tegra234  Machine:NVIDIA Jetson Orin NX Engineering Reference Developer Kit
Online CPUs: 0-5
cpu0:  Online=1 Governor=schedutil MinFreq=729600 MaxFreq=1510400 CurrentFreq=1510400 IdleStates: WFI=1 c7=1
cpu1:  Online=0 Governor=schedutil MinFreq=729600 MaxFreq=1510400 CurrentFreq=1497600 IdleStates: WFI=1 c7=1
GPU MinFreq=306000000 MaxFreq=624750000 CurrentFreq=306000000
Active GPU TPCs: 2
EMC MinFreq=204000000 MaxFreq=2133000000 CurrentFreq=2133000000 FreqOverride=0
FAN Dynamic Speed Control=nvfancontrol hwmon0_pwm1=65
NV Power Mode: MAXN_SUPER
"""
CLOCKS_R39 = """\
SOC family:tegra234  Machine:NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super
Online CPUs: 0-5, Offline CPUs:
cpu0:  Governor=schedutil MinFreq=729600 MaxFreq=1344000 CurrentFreq=960000 IdleStates: WFI=1 c7=1
GPU MinFreq=306000000 MaxFreq=918000000 CurrentFreq=306000000
Active GPU TPCs: 4
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=665600000
FAN Dynamic Speed Control=nvfancontrol hwmon0_pwm1=60
NV Power Mode: 25W
"""
CLOCKS_THOR_LOCKED = """\
cpu0:  Governor=schedutil MinFreq=2601000 MaxFreq=2601000 CurrentFreq=2601000 IdleStates: WFI=0 cc7=0
cpu13: Governor=schedutil MinFreq=2601000 MaxFreq=2601000 CurrentFreq=2601000 IdleStates: WFI=0 cc7=0
gpu-gpc-0 MinFreq=1575000000 MaxFreq=1575000000 CurrentFreq=1575000000
gpu-nvd-0 MinFreq=1692000000 MaxFreq=1692000000 CurrentFreq=1692000000
EMC MinFreq=665600000 MaxFreq=4266000000 CurrentFreq=4266000000 FreqOverride=1
PVA0_VPS0: Online=0 MinFreq=0 MaxFreq=1215000000 CurrentFreq=1215000000
FAN Dynamic Speed Control=nvfancontrol hwmon1_pwm1=73
NV Power Mode: MAXN
"""
