"""`hiresvit package --format deepstream`: keys that Gst-nvinfer has, its arithmetic, the parser of the class map."""

from __future__ import annotations

import configparser
import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from packages import make_bundle

from hiresvit.bundle.folder import read_bundle
from hiresvit.data.preprocess import Region, normalise
from hiresvit.errors import UsageError
from hiresvit.runtime.labels import label_map
from hiresvit.spec import ContractSpec, PreprocessSpec
from hiresvit.workflows.package.deepstream import CONFIG, scalar
from hiresvit.workflows.package.package import package_bundle

# Those of the group [property] in NVIDIA/DeepStream, src/gst-plugins/gst-nvinfer/gstnvinfer_property_parser.h, that a
# segmentor on whole frames can have.
_KEYS = """
    batch-size custom-lib-path enable-dla engine-create-func-name gie-unique-id gpu-id infer-dims int8-calib-file
    interval labelfile-path maintain-aspect-ratio mean-file model-color-format model-engine-file net-scale-factor
    network-input-order network-mode network-type num-detected-classes offsets onnx-file output-blob-names
    output-io-formats output-tensor-meta parse-segmentation-func-name process-mode scaling-compute-hw scaling-filter
    segmentation-output-order segmentation-threshold strongly-typed symmetric-padding use-dla-core workspace-size
"""
KEYS = frozenset(_KEYS.split())
EQUAL = PreprocessSpec(mean=(0.5, 0.4, 0.3), std=(0.25, 0.25, 0.25), channels="bgr")
# What nvdsinfer.h and nvdsinfer_custom_impl.h declare of what the parser uses; HIRESVIT_DEEPSTREAM names the folders of
# the real ones, TensorRT's and CUDA's among them, where there are any.
SHIM = """
#pragma once
#include <vector>
#define NVDSINFER_MAX_DIMS 8
typedef struct { unsigned int numDims; unsigned int d[NVDSINFER_MAX_DIMS]; unsigned int numElements; } NvDsInferDims;
typedef enum { FLOAT = 0, HALF = 1, INT8 = 2, INT32 = 3, INT64 = 4, UINT8 = 5 } NvDsInferDataType;
typedef struct {
  NvDsInferDataType dataType;
  union { NvDsInferDims inferDims; NvDsInferDims dims; };
  int bindingIndex; const char* layerName; void* buffer; int isInput;
} NvDsInferLayerInfo;
typedef struct { unsigned int width, height, channels; } NvDsInferNetworkInfo;
#define CHECK_CUSTOM_SEM_SEGMENTATION_PARSE_FUNC_PROTOTYPE(name) \\
  static_assert(sizeof(&name) == sizeof(void*), "a function")
"""
CALL = """
#include "nvdsinfer_custom_impl.h"
extern "C" bool NvDsInferParseHiresvit(std::vector<NvDsInferLayerInfo> const&, NvDsInferNetworkInfo const&, float,
                                       unsigned int, int*, float*&);
extern "C" int call(float* logits, const char* name, unsigned c, unsigned h, unsigned w, unsigned height,
                    unsigned width, unsigned classes, int* labels) {
  NvDsInferLayerInfo layer{};
  layer.dataType = FLOAT, layer.layerName = name, layer.buffer = logits;
  layer.inferDims.numDims = 3, layer.inferDims.d[0] = c, layer.inferDims.d[1] = h, layer.inferDims.d[2] = w;
  NvDsInferNetworkInfo network{};
  network.width = width, network.height = height, network.channels = 3;
  float* probabilities = nullptr;
  return NvDsInferParseHiresvit({layer}, network, 0.0F, classes, labels, probabilities) && probabilities == nullptr;
}
"""


def settings(folder: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(delimiters=("=",), comment_prefixes=("#",), strict=True, interpolation=None)
    parser.read_string((folder / CONFIG).read_text(encoding="utf-8"))
    assert parser.sections() == ["property"]
    found = dict(parser["property"])
    assert found.keys() <= KEYS, found.keys() - KEYS
    return found


@pytest.mark.parametrize("preprocess", [EQUAL, PreprocessSpec()], ids=["one", "three"])
def test_the_scale_and_the_offsets_give_what_the_network_was_trained_on(
    tmp_path: Path, preprocess: PreprocessSpec
) -> None:
    made = package_bundle(make_bundle(tmp_path / "b", preprocess=preprocess), "deepstream", tmp_path / "p")
    found = settings(made.folder)
    offsets = np.array([float(value) for value in found["offsets"].split(";")])
    order = [2, 1, 0] if found["model-color-format"] == "1" else [0, 1, 2]
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    theirs = float(found["net-scale-factor"]) * (levels[..., order] - offsets)
    ours = normalise(levels, preprocess)
    off = np.abs(theirs - ours).max() / np.abs(ours).max()
    _, said = scalar(preprocess)
    assert off <= said + 1e-6
    # a decibel less would be a std of another channel; a note says it where it is more than rounding
    assert any("one scale for three channels" in note for note in made.notes) is (said > 0)
    assert said == pytest.approx({EQUAL: 0.0}.get(preprocess, 0.005 / 0.453), abs=1e-9)


@pytest.mark.parametrize(
    ("resize", "keep", "symmetric"), [("stretch", "0", "0"), ("keep", "1", "0"), ("letterbox", "1", "1")]
)
def test_the_rest_of_the_configuration(tmp_path: Path, resize: str, keep: str, symmetric: str) -> None:
    preprocess = PreprocessSpec(resize)  # type: ignore[arg-type]
    folder = package_bundle(make_bundle(tmp_path / "b", preprocess=preprocess), "deepstream", tmp_path / "p").folder
    found = settings(folder)
    assert (found["maintain-aspect-ratio"], found["symmetric-padding"]) == (keep, symmetric)
    assert (found["network-type"], found["num-detected-classes"], found["infer-dims"]) == ("2", "5", "3;32;48")
    assert found["custom-lib-path"] == "libnvdsinfer_hiresvit.so"
    assert len((folder / found["labelfile-path"]).read_text(encoding="utf-8").splitlines()) == 5
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert f"--saveEngine={found['model-engine-file']}" in readme
    assert ("black" in readme) is (keep == "1")


def compiled(tmp_path: Path, source: Path) -> ctypes.CDLL:
    """The parser as a library, with a function that a test can call."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++")
    real = os.environ.get("HIRESVIT_DEEPSTREAM", "")
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "nvdsinfer_custom_impl.h").write_text(SHIM, encoding="utf-8")
    (tmp_path / "call.cpp").write_text(CALL, encoding="utf-8")
    folders = [word for folder in (real or str(tmp_path / "shim")).split(":") for word in ("-isystem", folder)]
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", *folders]
    target = tmp_path / "parser.so"
    subprocess.run([compiler, *flags, source, tmp_path / "call.cpp", "-o", target], check=True)
    return ctypes.CDLL(str(target))


def test_the_parser_gives_hiresvits_labels(tmp_path: Path) -> None:
    folder = package_bundle(make_bundle(tmp_path / "b"), "deepstream", tmp_path / "p").folder
    library = compiled(tmp_path, folder / "nvdsinfer_hiresvit.cpp")
    for size in ((32, 48), (8, 12), (7, 5)):  # of the logits: the network's, a quarter (--logits head), and odd
        logits = np.random.default_rng(0).standard_normal((5, *size), dtype=np.float32) - 4  # below nvinfer's own -1
        labels = np.full((32, 48), -1, np.int32)
        place = labels.ctypes.data_as(ctypes.c_void_p)
        given = logits.ctypes.data_as(ctypes.c_void_p)
        assert library.call(given, b"logits", 5, *size, 32, 48, 5, place) == 1
        expected = label_map(logits, (32, 48), Region(0, 0, 32, 48), (32, 48))
        assert np.array_equal(labels, expected)
        assert len(np.unique(labels)) == 5
        assert library.call(given, b"labels", 5, *size, 32, 48, 5, place) == 0, "another output"
        assert library.call(given, b"logits", 5, *size, 32, 48, 6, place) == 0, "other classes"


def test_a_plan_of_tensorrt_is_taken_where_it_is_asked_for(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", engine="tensorrt")
    folder = package_bundle(bundle, "deepstream", tmp_path / "p", graph="plan").folder
    assert (folder / "model.plan").read_bytes() == b"ftrt"
    assert not (folder / "model.onnx").exists()
    default = package_bundle(bundle, "deepstream", tmp_path / "q").folder
    assert (default / "model.onnx").read_bytes() == read_bundle(bundle).path("fp16").read_bytes()


@pytest.mark.parametrize(
    ("contract", "task", "resize", "said"),
    [
        (ContractSpec("image"), "segment", "stretch", r"feeds float32 planes.*; export it with: .* --contract tensor$"),
        (ContractSpec("camera", "nv12", (40, 56)), "segment", "stretch", r"contract camera takes uint8 pixels"),
        (ContractSpec(), "classify", "stretch", "task classify; this package is of a segmentor"),
        (ContractSpec(), "features", "stretch", "task features; this package is of a segmentor"),
        (ContractSpec(), "segment", "slide", "--resize slide is nothing that Gst-nvinfer can do"),
    ],
)
def test_what_nvinfer_cannot_feed_is_refused(
    tmp_path: Path, contract: ContractSpec, task: str, resize: str, said: str
) -> None:
    preprocess = PreprocessSpec(resize)  # type: ignore[arg-type]
    bundle = make_bundle(tmp_path / "b", contract, task=task, preprocess=preprocess, roles=("fp32",))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=said):
        package_bundle(bundle, "deepstream", tmp_path / "p")
