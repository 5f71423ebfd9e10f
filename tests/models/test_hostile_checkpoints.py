"""Files that attack: nothing of them runs, each is one line, none takes more memory than it can hold."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import environment
from hostile_checkpoints import CANARY, attacks, write_all
from test_checkpoint import CLASSIFY, saved, tensors

from hiresvit.errors import HiresvitError
from hiresvit.models.weights import inert
from hiresvit.models.weights.file import read_checkpoint

# Reads every file of a folder with a GiB more than the process has, and shows that this is a limit.
CHILD = """
import json, resource, sys, warnings
from pathlib import Path
from hiresvit.errors import HiresvitError
from hiresvit.models.weights.file import read_checkpoint

pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
said = {}
try:
    bytearray(2**31)
except MemoryError:
    said["limit"] = "holds"
warnings.simplefilter("error")
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        said[path.name] = f"read: {sorted(read_checkpoint(path).tensors)}"
    except HiresvitError as error:
        said[path.name] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("hostile")
    paths = write_all(folder)
    argv = [sys.executable, "-c", CHILD, str(folder)]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, str] = json.loads(done.stdout)
    assert found.pop("limit") == "holds"
    assert found.keys() == {path.name for path in paths}, "the corpus made a file"
    return folder, found


def test_nothing_is_run(said: tuple[Path, dict[str, str]]) -> None:
    assert not (said[0] / CANARY).exists()


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """Plain unpickling does create the file."""
    canary = tmp_path / CANARY
    files = dict(attacks(str(canary)))
    for name in ("call_system.pth", "protocol4.pdparams", "call_exec.pth"):
        content = files[name]
        if name.endswith(".pth"):
            (tmp_path / name).write_bytes(content)
            content = zipfile.ZipFile(tmp_path / name).read("a/data.pkl")
        pickle.loads(content)
        assert canary.exists()
        canary.unlink()


def test_each_is_one_line(said: tuple[Path, dict[str, str]]) -> None:
    folder, found = said
    assert len(found) > 110
    for name, message in found.items():
        assert message.isprintable(), name
        assert str(folder / name) in message, (name, message)
        assert len(message) < len(str(folder)) + 400, (name, message)
        assert "enough memory" not in message, name


def test_code_is_named(said: tuple[Path, dict[str, str]]) -> None:
    calls = {name: message for name, message in said[1].items() if name.startswith(("call_", "protocol", "beside"))}
    assert len(calls) > 30
    assert all("not plain data and could run code" in message for message in calls.values()), calls


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bytearray8.pdparams", "truncated, damaged"),
        ("zip_bz2.pth", "compressed parts, which torch.save never writes"),
        ("zip_lying_size.pth", "says that its parts are larger than the file"),
        ("tensor_axes.pth", "a.weight has 100 axes"),
        ("tensor_huge.pth", "a.weight has not the bytes of its shape"),
        ("tensor_other_key.pth", "a.weight has no numbers in the file"),
        ("array_axes.pdparams", "a.weight has 100 axes"),
        ("array_digits.pdparams", "a.weight has no shape"),
        ("array_shared.pdparams", "is one of more numbers than the file has bytes for"),
        ("encoded_again.pdparams", "makes more bytes than the file has"),
        ("dicts_again.pdparams", "holds more than 50,000 tensors"),
        ("dotted_name.pdparams", "which is not a tensor's name"),
        ("views.pdparams", "has not the bytes of its shape"),
        ("files_in_file.pdparams", "a.weight has no storage"),
        ("odd_float4.pth", "a.weight is of type float4_e2m1fn_x2"),
        ("odd_bits.pth", "a.weight is of type bits8"),
        ("odd_nested.pth", "a.weight is nested"),
        ("odd_sparse.pth", "a.weight is sparse"),
        ("odd_quantised.pth", "a.weight is quantised"),
        ("dtype.safetensors", "a is of type F4"),
        ("lfs.pth", "git lfs pull"),
        ("graph.pth", "is an ONNX graph; give a checkpoint"),
        ("two_models.pth", "is a zip archive of 'a/data.pkl', 'b/data.pkl', not a checkpoint"),
    ],
)
def test_what_is_said(said: tuple[Path, dict[str, str]], name: str, message: str) -> None:
    assert message in said[1][name]


def test_objects_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three million opcodes are the limit; here a hundred, so that it takes no seconds."""
    monkeypatch.setattr(inert, "MOST_OPCODES", 100)
    path = tmp_path / "w.pdparams"
    path.write_bytes(b"\x80\x04" + b"]" * 200 + b".")
    with pytest.raises(HiresvitError, match="holds more than 100 objects"):
        read_checkpoint(path)


def test_a_file_of_another_ending_is_read_by_its_content(tmp_path: Path) -> None:
    path = saved(tmp_path, tensors(CLASSIFY), "w.txt")
    assert read_checkpoint(path).tensors.keys() == CLASSIFY.keys()


def test_a_state_dict_of_pickle_dump_is_read(tmp_path: Path) -> None:
    path, wanted = tmp_path / "w.pkl", tensors(CLASSIFY)
    path.write_bytes(pickle.dumps(wanted))
    found = read_checkpoint(path).tensors
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
