"""The C++ runtime runs a compiled context for Qualcomm's HTP, here in its emulator, and answers what Python answers."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from cpp_build import CPP, run_tool
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from hiresvit.bundle.golden import write_golden
from hiresvit.bundle.manifest import Manifest, Weights, list_files, write_manifest
from hiresvit.export.contract import TENSOR, stamp
from hiresvit.process import Worker
from hiresvit.runtime.frame import picture_feed
from hiresvit.runtime.open import open_runner
from hiresvit.runtime.qnn_messages import Opened, Opening
from hiresvit.spec import ModelSpec, PreprocessSpec, TensorSpec

HEADER = CPP / "third_party/onnxruntime/onnxruntime_c_api.h"
pytestmark = pytest.mark.skipif(
    HEADER.is_file() and "GetEpDevices" not in HEADER.read_text(encoding="utf-8"),
    reason="ONNX Runtime's headers are those of Debian's trixie, which know no plug-ins: see cpp/get-tools.sh",
)
CHIP = 58  # ar1, which takes integers only
SPEC = ModelSpec("tiny", "none", "segment", (32, 48), 4, PreprocessSpec())
Done = subprocess.CompletedProcess[str]


def network(*, quantized: bool) -> onnx.ModelProto:
    """A convolution of 1x1 from image to logits, in FP32 or in uint16 with int8 weights."""
    weights = np.random.default_rng(0).integers(-127, 128, (4, 3, 1, 1)).astype(np.int8)
    scale, wide = np.float32(1 / 127), np.float32(12 / 65535)
    constants: dict[str, Any] = {"w": weights * scale}
    nodes = [helper.make_node("Conv", ["image", "w"], ["logits"])]
    if quantized:
        constants = {"w8": weights, "scale": scale, "int8": np.int8(0), "wide": wide, "zero": np.uint16(32768)}
        nodes = [
            helper.make_node("QuantizeLinear", ["image", "wide", "zero"], ["image_q"]),
            helper.make_node("DequantizeLinear", ["image_q", "wide", "zero"], ["image_d"]),
            helper.make_node("DequantizeLinear", ["w8", "scale", "int8"], ["w"]),
            helper.make_node("Conv", ["image_d", "w"], ["conv"]),
            helper.make_node("QuantizeLinear", ["conv", "wide", "zero"], ["conv_q"]),
            helper.make_node("DequantizeLinear", ["conv_q", "wide", "zero"], ["logits"]),
        ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, *SPEC.imgsz))
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 4, *SPEC.imgsz))
    kept = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [image], [logits], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def write_bundle(folder: Path) -> None:
    """A bundle of that network with its form of 16 bits for the HTP."""
    folder.mkdir()
    for stage, name in (("fp32", "fp32.onnx"), ("simplified", "simplified.onnx"), ("htp_a16w8", "htp_a16w8.onnx")):
        model = network(quantized=stage.startswith("htp"))
        stamp(model, SPEC, stage)
        onnx.save(model, folder / name)
    session = onnxruntime.InferenceSession(folder / "fp32.onnx", providers=["CPUExecutionProvider"])
    feeds = {"image": np.random.default_rng(1).uniform(-2, 2, (1, 3, *SPEC.imgsz)).astype(np.float32)}
    write_golden(folder / "golden.npz", feeds, {"logits": session.run(["logits"], feeds)[0]})
    image, logits = (TensorSpec(name, "float32", (1, c, *SPEC.imgsz)) for name, c in (("image", 3), ("logits", 4)))
    weights = Weights("fresh, seed 0")
    files = tuple(list_files(folder, weights))
    write_manifest(folder, Manifest(SPEC, (image,), (logits,), weights, files, {"hiresvit": "0"}, [], TENSOR))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``bundle`` and the context ``tiny.onnx`` that was compiled from it."""
    pytest.importorskip("onnxruntime_qnn")
    folder = tmp_path_factory.mktemp("context")
    write_bundle(folder / "bundle")
    worker = Worker(["-m", "hiresvit.runtime._qnn_child"])
    graph, context = folder / "bundle/htp_a16w8.onnx", folder / "tiny.onnx"
    opened = worker.ask(Opening(str(graph), CHIP, context=str(context)))
    worker.close()
    assert isinstance(opened, Opened), opened
    return folder


@pytest.fixture
def environment(onnxruntime_library: Path) -> dict[str, str]:
    """With the libraries' paths."""
    found = importlib.util.find_spec("onnxruntime_qnn")
    assert found is not None
    assert found.origin is not None
    plugin = Path(found.origin).with_name("libonnxruntime_providers_qnn.so")
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    library = {"HIRESVIT_ONNXRUNTIME": str(onnxruntime_library), "HIRESVIT_QNN": str(plugin)}
    return {**os.environ, **library, "PYTHONPATH": paths}


def run(build: Path, environment: dict[str, str], *words: Any) -> Done:
    """The program of the build."""
    command = [str(build / "hiresvit-run"), *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def one_line(done: Done, code: int, *texts: str) -> None:
    """It ended with a code and one line that has these texts."""
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    for text in texts:
        assert text in done.stderr, done.stderr


def pictures() -> dict[str, Any]:
    """One of the network's size and one that is resized."""
    random = np.random.default_rng(2)
    return {f"p{height}": random.integers(0, 256, (height, 48, 3), np.uint8) for height in (32, 57)}


def test_raw_answers_are_pythons_to_the_last_bit(
    made: Path, cpp_build: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    np.savez(tmp_path / "pictures.npz", **pictures())
    script = Path(__file__).with_name("context_answer.py")
    words = [cpp_build, made / "bundle", made / "tiny.onnx", tmp_path / "pictures.npz", tmp_path / "answers.npz"]
    done = subprocess.run(
        [sys.executable, script, *words], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    with closing(open_runner(made / "tiny.onnx", runner="qnn")) as runner, np.load(tmp_path / "answers.npz") as answers:
        assert runner.about.emulated
        for name, image in pictures().items():
            want = runner(picture_feed(image, SPEC, TENSOR))["logits"]
            assert np.ptp(want) > 1
            assert all(np.array_equal(answers[name + slot], want) for slot in "ab"), name


def test_the_program_draws_its_labels_and_says_emulated(
    made: Path, cpp_build: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    image = pictures()["p32"]
    Image.fromarray(image).save(tmp_path / "picture.png")
    words = [made / "bundle", tmp_path / "picture.png", "--context", made / "tiny.onnx", "--soc-model", CHIP]
    done = run(cpp_build, environment, *words, "--labels", tmp_path / "labels.png")
    assert done.returncode == 0, done.stderr
    assert f"(htp_a16w8, ONNX Runtime {onnxruntime.__version__}, HTP of soc_model 58, emulated)" in done.stdout
    with closing(open_runner(made / "tiny.onnx", runner="qnn")) as runner:
        want = runner(picture_feed(image, SPEC, TENSOR))["logits"].argmax(1)[0]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "labels.png")), want)
    one_line(run(cpp_build, environment, *words, "--bench", 3), 2, "an emulator's time says nothing")


def test_what_cannot_be_is_one_line(made: Path, cpp_build: Path, environment: dict[str, str], tmp_path: Path) -> None:
    Image.fromarray(pictures()["p32"]).save(tmp_path / "picture.png")
    context, nowhere = made / "tiny.onnx", tmp_path / "nowhere.so"

    def refused(*words: Any, context: Path = context, bundle: Path = made / "bundle", **variables: Any) -> Done:
        given = environment | {name: str(value) for name, value in variables.items()}
        return run(cpp_build, given, bundle, tmp_path / "picture.png", "--context", context, *words)

    advice = "pip's package onnxruntime-qnn has one"
    one_line(refused("--provider", nowhere), 6, "Qualcomm's provider", "nowhere.so", advice)
    one_line(refused(HIRESVIT_QNN=nowhere), 6, "nowhere.so", advice)
    none = cpp_build / "libhiresvit.so"
    one_line(refused("--provider", none), 6, "is not Qualcomm's provider", advice)
    plugin = shutil.copy(environment["HIRESVIT_QNN"], tmp_path)  # without Qualcomm's libraries beside it
    one_line(refused("--provider", plugin), 6, "do not open the HTP", "ADSP_LIBRARY_PATH")
    one_line(refused("--soc-model", 57), 7, "was compiled for soc_model 58, not for 57", "build it again")
    one_line(refused("--graph", "fp32"), 2, "leave graph out")
    one_line(refused(context=made / "bundle/fp32.onnx"), 2, "is a graph and no compiled context")
    one_line(refused(context=tmp_path / "picture.png"), 2, "is no ONNX file")
    one_line(refused(context=tmp_path / "absent.onnx"), 1, "absent.onnx")

    alone = Path(shutil.copy(context, tmp_path / "alone.onnx"))
    one_line(refused(context=alone), 7, "tiny_qnn.bin is missing", "side by side")
    binary = next(made.glob("*.bin"))
    (tmp_path / binary.name).write_bytes(binary.read_bytes()[:5000])
    one_line(refused(context=alone), 7, "is damaged, or its QAIRT 2.", "does not load it")

    other = onnx.load(context)
    for entry in other.metadata_props:
        entry.value = "htp_a8w8" if entry.key == "hiresvit.stage" else entry.value
    onnx.save(other, made / "other.onnx")
    one_line(refused(context=made / "other.onnx"), 2, "was compiled from htp_a8w8", "has none")
    del other.metadata_props[:]
    onnx.save(other, made / "mute.onnx")
    one_line(refused(context=made / "mute.onnx"), 7, "does not say for which chip")


def test_the_programs_of_the_page_run(made: Path, cpp_build: Path, environment: dict[str, str], tmp_path: Path) -> None:
    page = (CPP.parent / "docs" / "ar.md").read_text(encoding="utf-8")
    for name, block in re.findall(
        r"^```\w+\n(?:#|//) (\w+\.(?:py|cpp)) .*?\n(.*?)^```", page, re.MULTILINE | re.DOTALL
    ):
        (tmp_path / name).write_text(block)
    library = Path(environment["HIRESVIT_ONNXRUNTIME"])
    (tmp_path / "libonnxruntime.so.1").symlink_to(library)
    compiler = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror"]
    ours, theirs = ["-I", CPP / "include", "-L", cpp_build, "-lhiresvit"], [tmp_path / "libonnxruntime.so.1"]
    include = Path(os.environ.get("HIRESVIT_ONNXRUNTIME_INCLUDE", CPP / "third_party"))
    plugin = ["-I", include / "onnxruntime", "-Wno-unused-parameter", *theirs]
    for name, more in (("glasses", ours), ("plugin", plugin)):
        run_tool(*map(str, [*compiler, tmp_path / f"{name}.cpp", "-o", tmp_path / name, *more]))

    context, found = made / "tiny.onnx", {**environment, "LD_LIBRARY_PATH": f"{cpp_build}:{tmp_path}"}
    commands: dict[str, list[Any]] = {
        "logits (1, 4, 32, 48)": [sys.executable, tmp_path / "answer.py", context],
        "1 outputs": [tmp_path / "plugin", context, environment["HIRESVIT_QNN"]],
        "soc_model 58, emulated: class": [tmp_path / "glasses", made / "bundle", context],
    }
    for said, words in commands.items():
        done = subprocess.run(words, env=found, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{words[0]}: {done.stderr}"
        assert said in done.stdout
