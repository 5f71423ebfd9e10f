"""--contract and what belongs to it: what texts mean, and what is refused in one line before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Cli

from hiresvit.cli import join_camera
from hiresvit.commands.export import ContractOptions, parse_contract
from hiresvit.spec import ContractSpec


@pytest.mark.parametrize(
    ("args", "joined"),
    [
        (["--contract", "camera", "1080x1920", "-o", "b"], ["--contract", "camera:1080x1920", "-o", "b"]),
        (["--contract=camera", "90X140"], ["--contract=camera:90X140"]),
        (["--contract", "image", "1080x1920"], ["--contract", "image", "1080x1920"]),
        (["--contract", "camera", "--fp16"], ["--contract", "camera", "--fp16"]),
        (["camera", "1x1"], ["camera", "1x1"]),
    ],
)
def test_the_cameras_size_is_a_word_of_its_own(args: list[str], joined: list[str]) -> None:
    assert join_camera(args) == joined


def test_what_the_options_ask_for() -> None:
    assert ContractOptions().spec() == ContractSpec()
    assert parse_contract("camera:90x140") == ContractSpec("camera", size=(90, 140))
    asked = ContractOptions("image", "nv12", "bt601", "int32", confidence=True).spec()
    assert asked == ContractSpec("image", "nv12", None, "bt601", "int32", confidence=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--contract", "camera"], "give the camera's size, HEIGHTxWIDTH"),
        (["--contract", "camera", "90"], "give the camera's size, HEIGHTxWIDTH"),
        (["--contract", "image:64x64"], "one of tensor, image and camera HxW"),
        (["--contract", "pixels"], "one of tensor, image and camera HxW"),
        (["--input", "nv12", "--top-k", "3"], "--input, --top-k: for --contract image or camera HxW"),
        (["--confidence"], "--confidence: for --contract image or camera HxW"),
        (["--contract", "image", "--yuv", "bt601"], "yuv bt601 with rgb pixels: it is for nv12"),
        (["--contract", "camera", "91x140", "--input", "nv12"], "both sides must be even"),
        (["--contract", "image", "--resize", "slide"], "windows overlap as logits"),
        (["--contract", "image", "--logits", "head"], "labels come out, no logits"),
    ],
)
def test_what_cannot_be_is_one_line(cli: Cli, tmp_path: Path, options: list[str], said: str) -> None:
    result = cli("export", "hrvit_b1", *options, "-o", tmp_path / "b")
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1
    assert not any(tmp_path.iterdir())
