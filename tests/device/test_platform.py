"""What machine this is."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from hiresvit.device import platform as machine
from hiresvit.device.platform import find_platform, this_platform


def test_the_platform_is_system_and_processor() -> None:
    assert this_platform() == f"{platform.system()} {platform.machine()}"


@pytest.mark.parametrize(
    ("file", "text", "platform"),
    [
        (
            "etc/nv_tegra_release",
            "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
            "jetpack6",
        ),
        ("etc/nv_tegra_release", "# R38 (release), REVISION: 4.0, GCID: 1, BOARD: generic", "jetpack7"),
        ("etc/nv_tegra_release", "# R39 (release), REVISION: 2.0", "jetpack7"),
        ("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX", "nvidia"),
        ("etc/hostname", "laptop", "cpu"),
    ],
    ids=["36", "38", "39", "nvidia", "cpu"],
)
def test_platforms_are_known_by_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str, platform: str
) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    monkeypatch.setattr(machine, "_TEGRA_RELEASE", tmp_path / "etc/nv_tegra_release")
    monkeypatch.setattr(machine, "_DRIVER_FILES", (tmp_path / "proc/driver/nvidia/version",))
    assert find_platform() == platform
