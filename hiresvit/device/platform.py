"""What machine this is, by the files that NVIDIA's systems and drivers have; nothing is loaded for it."""

from __future__ import annotations

import platform
import re
import shutil
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Literal

Platform = Literal["jetpack6", "jetpack7", "nvidia", "cpu"]
PLATFORMS: dict[Platform, str] = {
    "jetpack6": "Jetson with JetPack 6 (TensorRT 10.3, CUDA 12.6)",
    "jetpack7": "Jetson with JetPack 7 (TensorRT 10.13 or later, CUDA 13)",
    "nvidia": "NVIDIA GPU with a driver",
    "cpu": "no NVIDIA GPU",
}
JETPACK_7 = 38  # the first Jetson Linux of JetPack 7

_TEGRA_RELEASE = Path("/etc/nv_tegra_release")
# Any of them is there where an NVIDIA driver is loaded: a PC, two generations of Jetson, WSL.
_DRIVER_FILES = tuple(map(Path, ("/proc/driver/nvidia/version", "/dev/nvidia0", "/dev/nvhost-gpu", "/dev/dxg")))


def this_platform() -> str:
    """System and processor: ``Linux x86_64`` on a PC, ``Linux aarch64`` on a Jetson."""
    return f"{platform.system()} {platform.machine()}"


def package_version(*names: str) -> str | None:
    """The version that the first of these packages states that is installed, None without any; loads nothing."""
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


def find_platform() -> Platform:
    """Which of `PLATFORMS` this machine is."""
    release = jetson_release()
    if release is None:
        return "nvidia" if has_driver() else "cpu"
    return "jetpack7" if release >= JETPACK_7 else "jetpack6"


def jetson_release() -> int | None:
    """The major release of Jetson Linux (36 is JetPack 6's), 0 if the file cannot be read, None on no Jetson."""
    if not _TEGRA_RELEASE.exists():
        return None
    found = re.match(r"# R(\d+)", _TEGRA_RELEASE.read_text(encoding="utf-8", errors="replace"))
    return int(found[1]) if found else 0


def find_tool(name: str, root: Path = Path("/")) -> Path | None:
    """A program of the system: on PATH, or where Jetson Linux has it, which PATH may lack without root."""
    found = shutil.which(name) if root == Path("/") else None
    if found:
        return Path(found)
    return next((path for place in ("usr/bin", "usr/sbin") if (path := root / place / name).is_file()), None)


def has_driver() -> bool:
    """Whether an NVIDIA driver seems to be loaded, without asking CUDA."""
    return jetson_release() is not None or any(path.exists() for path in _DRIVER_FILES)
