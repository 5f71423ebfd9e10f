"""A sweep's board without Python: the real program, over a real sshd, with a bundle that is copied there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from contract_bundles import write_bundle
from PIL import Image
from sshd import running
from tensor_bundles import IMGSZ

from hiresvit.spec import ContractSpec
from hiresvit.workflows.sweep.artefacts import Cache
from hiresvit.workflows.sweep.jobs import BUNDLE, PICTURE, PROGRAM
from hiresvit.workflows.sweep.ssh import boards_of, look_at, run_on_board


def test_a_bundle_is_measured_on_a_board(
    cpp_build: Path, onnxruntime_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made").mkdir()
    write_bundle(tmp_path / "made" / "bundle", ContractSpec("camera", "rgb", IMGSZ, None, "uint8"))
    Image.new("RGB", IMGSZ[::-1]).save(tmp_path / "made" / "bundle" / PICTURE)
    cache = Cache(tmp_path / "cache")
    key = cache.keep(tmp_path / "made")
    (tmp_path / "sshd").mkdir()
    library = {"HIRESVIT_ONNXRUNTIME": str(onnxruntime_library)}
    with running(tmp_path / "sshd", library) as server:
        server.settle()
        (server.folder / "there" / PROGRAM).symlink_to(cpp_build / PROGRAM)
        monkeypatch.setenv("PATH", f"{server.folder / 'bin'}:/usr/bin:/bin")
        [board] = boards_of([f"orin={server.host}"]).values()
        look_at(board)
        argv = (PROGRAM, BUNDLE, f"{BUNDLE}/{PICTURE}", "--backend", "onnxruntime", "--bench", "5", "--json")
        ran = run_on_board(board, argv, cache, key, 60)
        assert (ran.exit_code, ran.last_line) == (0, "")
        assert ran.document is not None
        [side] = ran.document["latency"]["sides"].values()
        assert (side["calls"], side["median_ms"] > 0) == (5, True)
        there = server.folder / "home" / ".cache" / "hiresvit" / "sweep" / key / "bundle"
        next(there.glob("*.onnx")).write_bytes(b"damaged")
        ran = run_on_board(board, argv, cache, key, 60)
        assert (ran.exit_code, ran.document) == (7, None), "the program verifies what it opens"
        shutil.rmtree(there.parent)
        assert run_on_board(board, argv, cache, key, 60).exit_code == 0
