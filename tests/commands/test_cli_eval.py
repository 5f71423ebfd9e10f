"""`hiresvit eval` as it is typed: several sides, one that does not start, and what is left when it is stopped."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Cli, environment, hiresvit_command, run_program

from hiresvit.commands.output import time_left
from hiresvit.errors import install_line

SCENES = ("--dataset", "scenes", "--threads", "1")
HIDDEN = "import sys\nsys.modules['openvino'] = None\n"
# A child that stops after the third picture, until it is told to go on or is sent a signal.
SLOW = """
import time
from pathlib import Path
from hiresvit.data.scenes import Scenes
draw = Scenes.__getitem__
def slowly(self, index):
    if index == 3:
        Path("waits").touch()
        time.sleep(60)
    return draw(self, index)
Scenes.__getitem__ = slowly
"""


def test_graphs_of_a_bundle_beside_each_other(cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    graphs = (tiny_bundle / "simplified.onnx", tiny_bundle / "fp16.onnx")
    file = tmp_path / "it.json"
    result = cli("eval", *graphs, *SCENES, "--limit", "3", "--worst", "1", "-o", file, "--json")
    assert result.code == 0, result.err
    assert json.loads(file.read_text()) == json.loads(result.out)
    document = json.loads(result.out)
    assert document["schema_version"] == 1
    first, half = document["accuracy"]["sides"]
    assert (first["name"], half["name"]) == ("simplified.onnx", "fp16.onnx")
    assert half["against"]["agreement"] > 0.99
    assert half["origin"]["role"] == "fp16"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it-worst-1.png", "it.json"], "and no progress is left"
    text = cli("eval", *graphs, *SCENES, "--limit", "2").out
    for said in ("protocol own: network 64x96", "label 255 ignored", "mIoU", "boundary F", "beside simplified.onnx"):
        assert said in text
    assert "worst: scene 10000" in text


def test_a_runner_that_is_not_here_leaves_the_other(tiny_bundle: Path, tmp_path: Path) -> None:
    runners = ("--runner", "onnxruntime", "--runner", "openvino")
    result = run_program(tmp_path, "eval", tiny_bundle, *runners, *SCENES, "--limit", "2", "--json", before=HIDDEN)
    assert result.code == 6
    document = json.loads(result.out)
    there, missing = document["accuracy"]["sides"]
    assert there["metrics"]["miou"]["value"] >= 0
    assert install_line("openvino") in missing["failure"]["message"]
    assert document["error"]["exit_code"] == 6
    assert "has no numbers" in result.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_was_measured_is_printed_and_kept(
    tiny_bundle: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    command = ("eval", tiny_bundle, *SCENES, "--limit", "5", "--worst", "0", "-o", "it.json")
    child = subprocess.Popen(
        hiresvit_command(*command, before=SLOW),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while child.poll() is None and not (tmp_path / "waits").exists():
        time.sleep(0.02)
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == code, err
    assert "3 images of scenes of 5, INCOMPLETE" in out
    assert "interrupted after 3 of 5 pictures; the same command goes on there" in err
    kept = json.loads((tmp_path / "it.json").read_text())
    assert (kept["accuracy"]["images"], kept["accuracy"]["complete"]) == (3, False)
    assert kept["error"] == {"message": "interrupted", "exit_code": code}
    assert (tmp_path / ".it.json.eval.npz").exists()
    result = run_program(tmp_path, *command)
    assert result.code == 0, result.err
    assert "3 of 5 pictures were measured before it was interrupted" in result.err
    assert json.loads((tmp_path / "it.json").read_text())["accuracy"]["complete"]
    assert not (tmp_path / ".it.json.eval.npz").exists()


def test_what_cannot_be_written_is_kept(
    cli: Cli, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("eval", tiny_bundle, *SCENES, "--limit", "2", "--worst", "0", "-o", tmp_path / "it.json")
    assert cli(*command).code == 0, "an older answer lies there"
    state = tmp_path / ".it.json.eval.npz"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", refuse)
        result = cli(*command)
    assert (result.code, "No space left" in result.err) == (1, True)
    assert state.exists()
    again = cli(*command)
    assert (again.code, "2 of 2 pictures were measured before" in again.err) == (0, True)
    assert not state.exists()


def refuse(*_: object, **__: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (("--draw", __file__), "test_cli_eval.py: a file; give a folder"),
        (("--protocol", "kitti"), "--protocol kitti: there are own, "),
        (("--runner", "onyx"), "runner 'onyx': one of"),
        (("--limit", "0"), "--limit"),
    ],
)
def test_what_cannot_be(cli: Cli, tiny_bundle: Path, typed: tuple[str, ...], says: str) -> None:
    result = cli("eval", tiny_bundle, *SCENES, *typed)
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert result.err.count("\n") == 1


def test_a_file_that_is_not_there_is_said_before_anything_is_measured(cli: Cli, tiny_bundle: Path) -> None:
    result = cli("eval", tiny_bundle, "nothing.onnx", *SCENES)
    assert (result.code, result.out) == (1, "")
    assert "nothing.onnx: no such file" in result.err


@pytest.mark.parametrize(
    ("passed", "start", "fraction", "says"),
    [
        (60, 0.0, 0.5, ", about 1 min left"),
        (60, 0.5, 0.75, ", about 1 min left"),  # what was done before counts for nothing
        (600, 0.0, 0.01, ", about 16.5 h left"),
        (600, 0.0, 0.2, ", about 40 min left"),
        (60, 0.0, 0.51, ""),
        (1, 0.0, 0.0001, ""),
        (60, 0.5, 0.5, ""),
    ],
)
def test_the_time_that_is_left(passed: float, start: float, fraction: float, says: str) -> None:
    assert time_left(passed, start, fraction) == says
