"""The Dockerfiles say what `doctor` and the package say; `docker/try.sh` builds them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from test_docs import ROOT, read

from hiresvit.device import cuda

BINDINGS = {"jetpack6": cuda.BINDINGS_12, "jetpack7": cuda.BINDINGS_13}
DOCKERFILES = {name: read(f"docker/{name}.Dockerfile") for name in BINDINGS}


@pytest.mark.parametrize("name", BINDINGS)
def test_it_installs_what_doctor_advises(name: str) -> None:
    line = shlex.split(re.findall(r"^RUN (pip install .*)", DOCKERFILES[name], re.MULTILINE)[0])
    source, onnx, bindings = line[3:]
    assert source == "/src"
    assert shlex.split(BINDINGS[name])[-1] == bindings
    assert f'"{onnx}"' in read("pyproject.toml"), "the extra that it is taken from asks for another"


@pytest.mark.parametrize("name", BINDINGS)
def test_what_it_copies_is_here_and_let_through(name: str) -> None:
    copied = [
        word for line in re.findall(r"^COPY (.*) /src\S*$", DOCKERFILES[name], re.MULTILINE) for word in line.split()
    ]
    let_through = [line.removeprefix("!") for line in read(".dockerignore").splitlines() if line.startswith("!")]
    assert sorted(copied) == sorted(let_through)
    assert all(Path(ROOT, name).exists() for name in copied)


def test_they_differ_in_base_and_binding_only() -> None:
    bodies = [
        re.sub(r"^#.*\n|^ARG BASE=.*\n|'cuda-bindings.*'", "", text, flags=re.MULTILINE)
        for text in DOCKERFILES.values()
    ]
    assert bodies[0] == bodies[1]
