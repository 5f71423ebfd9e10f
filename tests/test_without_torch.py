"""What answers installs and runs with neither torch nor onnx: a real environment with the declared base dependencies.

The environment is a `python -m venv` whose site-packages holds links to the files of exactly those distributions that
pyproject.toml asks for without an extra, and of what they ask for in turn. Nothing else can be imported there.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result
from packaging.requirements import Requirement
from PIL import Image

from hiresvit.errors import install_line

ROOT = Path(__file__).parents[1]
# Python 3.10 has no tomllib; a list of strings is the same in both languages.
DECLARED: list[str] = ast.literal_eval(
    re.findall(r"^dependencies = (\[.*?^\])", (ROOT / "pyproject.toml").read_text(), re.M | re.S)[0]
)


def closure(lines: list[str]) -> set[str]:
    """The names of the distributions that these requirements bring, here, without any extra."""
    found: set[str] = set()
    pending = [Requirement(line) for line in lines]
    while pending:
        wanted = pending.pop()
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        pending += [Requirement(line) for line in metadata.requires(name) or ()]
    return found


def link(name: str, site: Path) -> None:
    """Link what a distribution has put into its site-packages: folders and files, each by its first part."""
    found = metadata.distribution(name)
    for top in {path.parts[0] for path in found.files or () if path.parts[0] not in ("..", "__pycache__")}:
        if not (site / top).exists():
            (site / top).symlink_to(Path(str(found.locate_file(top))).resolve())


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the base dependencies and this tree."""
    folder = tmp_path_factory.mktemp("device")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    for name in closure(DECLARED):
        link(name, site)
    (site / "hiresvit").symlink_to(ROOT / "hiresvit")
    return folder / "bin/python"


def run(python: Path, *args: str | Path, folder: Path) -> Result:
    """Run Python there, with nothing of ours around it: ``-I`` takes no PYTHONPATH and no working directory."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-I", *map(str, args)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def hiresvit(python: Path, *args: str | Path, folder: Path) -> Result:
    return run(python, "-m", "hiresvit", *args, folder=folder)


# What is imported where an extra, or the system, brings it.
OPTIONAL = {
    *("torch", "onnx", "onnxsim", "google", "ml_dtypes", "openvino", "onnxruntime_qnn"),
    *("cuda", "pycuda", "pynvml", "pillow_heif"),
}


def test_what_is_imported_is_declared_and_not_only_brought_by_others() -> None:
    roots: set[str] = set()
    for path in (ROOT / "hiresvit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                roots |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                roots.add(node.module.split(".")[0])
    roots -= sys.stdlib_module_names | OPTIONAL | {"hiresvit", "typing_extensions"}  # the last for types only
    distributions = metadata.packages_distributions()
    brought = {name.lower() for root in roots for name in distributions[root]}
    assert brought == {Requirement(line).name for line in DECLARED}


def test_there_is_nothing_else_there(device: Path, tmp_path: Path) -> None:
    assert {"numpy", "onnxruntime"} <= closure(DECLARED)
    code = "import importlib.util as u; print(*(u.find_spec(n) is None for n in {!r}.split()))"
    names = "torch onnx onnxscript onnxsim pytest openvino tensorrt_rtx"
    result = run(device, "-c", code.format(names), folder=tmp_path)
    assert result.out.split() == ["True"] * len(names.split())


def test_the_commands_about_what_was_exported(device: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    graph = tiny_bundle / "fp16.onnx"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / "a.png")

    def answer(*args: str | Path) -> Any:
        result = hiresvit(device, *args, "--json", folder=tmp_path)
        assert result.code == 0, result.err
        return json.loads(result.out)

    assert answer("inspect", tiny_bundle)["spec"]["name"] == "hrvit_b1"
    assert [side["verdict"] for side in answer("verify", tiny_bundle)["verify"]["sides"]] == ["passed"] * 4
    alone = answer("inspect", graph)
    assert (alone["stage"], alone["bytes"]) == ("fp16", graph.stat().st_size)
    assert alone["inputs"][0]["name"] == "image"
    assert alone["nodes"] is None, "what is counted with onnx is not guessed"
    assert answer("run", tiny_bundle, "a.png")["output"] == "a-segment.png"
    assert list(answer("bench", tiny_bundle, graph, "--min-s", "0.01")["latency"]["sides"]) == [
        f"{tiny_bundle.name}/cpu",
        "fp16.onnx",
    ]
    assert answer("eval", tiny_bundle, "--dataset", "scenes", "--limit", "1")["accuracy"]["images"] == 1
    assert answer("compare", tiny_bundle, graph, "--images", "1")["parity"]["task"] == "segment"
    assert answer("report", tiny_bundle, "-o", "r.html")["report"]["bundles"] == 1
    assert not any(row["required"] and not row["works"] for row in answer("doctor")["abilities"])


def test_the_tables_for_people(device: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    result = hiresvit(device, "inspect", tiny_bundle / "fp16.onnx", folder=tmp_path)
    assert result.code == 0, result.err
    assert install_line("export") in result.out, "why there are no counts"
    result = hiresvit(device, "list", folder=tmp_path)
    assert (result.code, result.err) == (0, "")
    assert "hrvit_b1" in result.out


def test_the_predictor_as_docs_python_has_it(device: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    _, code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text("utf-8"), re.S)
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "photo.jpg")
    (tmp_path / "hrvit_b1-segment-512x512").symlink_to(tiny_bundle)
    result = run(device, "-c", code, folder=tmp_path)
    assert (result.code, result.out) == (0, "(40, 60)\n"), result.err


def test_a_public_name_that_needs_more_says_what(device: Path, tmp_path: Path) -> None:
    result = run(device, "-c", "from hiresvit import create_model", folder=tmp_path)
    assert result.code == 1
    said = f"MissingDependency: this needs PyTorch, which is not installed: {install_line('export')}"
    assert result.err.splitlines()[-1].endswith(said)


@pytest.mark.parametrize(
    "args",
    [
        "export hrvit_b1",
        "run hrvit_b1 a.png",
        "check BUNDLE --no-build",
        "calibrate BUNDLE --calib scenes",
        "build BUNDLE",
        "convert a.pth a.safetensors --model hrvit_b1",
    ],
)
def test_a_command_that_makes_something_says_what_it_needs(
    device: Path, tiny_bundle: Path, tmp_path: Path, args: str
) -> None:
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.pth").write_bytes(b"")
    words = [str(tiny_bundle) if word == "BUNDLE" else word for word in args.split()]
    result = hiresvit(device, *words, folder=tmp_path)
    assert (result.code, result.out) == (6, ""), result.err
    assert re.fullmatch(
        rf"error: this needs (PyTorch|onnx), which is not installed: {re.escape(install_line('export'))}\n",
        result.err,
    )


def test_a_typo_is_still_a_typo(device: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    for args in (["run", "hrvit_bb1", "a.png"], ["inspect", "hrvit_bb1"]):
        result = hiresvit(device, *args, folder=tmp_path)
        assert result.code == 2
        assert "did you mean hrvit_b1" in result.err
