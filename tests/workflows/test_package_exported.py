"""Packages of bundles that were really exported, one of each contract: predict.py gives the golden picture's answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import environment
from PIL import Image
from tiny import build_tiny

from hiresvit.models.create import model_spec
from hiresvit.models.zoo import MODELS
from hiresvit.spec import ContractSpec
from hiresvit.workflows.export import export_bundle
from hiresvit.workflows.export_settings import ExportSettings
from hiresvit.workflows.package.package import package_bundle

CONTRACTS = {
    "tensor": ContractSpec(),
    "image": ContractSpec("image"),
    "camera": ContractSpec("camera", "bgr", (120, 160), label_type="int32"),
}


@pytest.fixture(scope="module", params=CONTRACTS)
def exported_with(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny HRViT with a contract."""
    settings = ExportSettings(plan=False, latency=False, images=1, threads=1, contract=CONTRACTS[request.param])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "hrvit_b1", replace(MODELS["hrvit_b1"], build=build_tiny))
        target = tmp_path_factory.mktemp("exported") / request.param
        spec = model_spec("hrvit_b1", "segment", (64, 96))
        return export_bundle(spec, target, settings, command=["hiresvit", "export", "hrvit_b1"]).folder


def golden_labels(bundle: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.integer]]:
    with np.load(bundle / "golden.npz") as golden:
        return np.asarray(golden["answer/labels"])


@pytest.mark.slow
def test_python_gives_the_golden_answer(exported_with: Path, tmp_path: Path) -> None:
    folder = package_bundle(exported_with, "python", tmp_path / "p").folder
    command = [sys.executable, "predict.py", "golden.png", "-o", "labels.png"]
    subprocess.run(command, cwd=folder, env=environment(tmp_path), check=True)
    with Image.open(folder / "labels.png") as labels:
        assert np.array_equal(np.asarray(labels), golden_labels(exported_with))


@pytest.mark.slow
def test_cpp_gives_the_golden_answer(exported_with: Path, tmp_path: Path) -> None:
    prefix = os.environ.get("HIRESVIT_CPP_PREFIX")
    cmake = shutil.which("cmake")
    if not prefix or cmake is None:
        pytest.skip("HIRESVIT_CPP_PREFIX names no installed C++ library, or there is no cmake")
    import onnxruntime

    folder = package_bundle(exported_with, "cpp", tmp_path / "p").folder
    subprocess.run([cmake, "-B", "build", f"-DCMAKE_PREFIX_PATH={prefix}"], cwd=folder, check=True)
    subprocess.run([cmake, "--build", "build"], cwd=folder, check=True)
    [library] = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    own = {**os.environ, "HIRESVIT_ONNXRUNTIME": str(library), "LD_LIBRARY_PATH": f"{prefix}/lib"}
    subprocess.run(["build/app", "bundle", "golden.ppm", "labels.pgm"], cwd=folder, env=own, check=True)
    with Image.open(folder / "labels.pgm") as labels:
        assert np.array_equal(np.asarray(labels), golden_labels(exported_with))
