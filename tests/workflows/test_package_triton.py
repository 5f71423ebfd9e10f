"""`hiresvit package --format triton`: parsed by Triton's published protobuf, and held to the graphs themselves."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
from packages import make_bundle

from hiresvit.bundle.folder import read_bundle
from hiresvit.bundle.golden import read_golden
from hiresvit.errors import UsageError
from hiresvit.spec import ContractSpec
from hiresvit.workflows.package.package import package_bundle

NUMPY = {"TYPE_UINT8": np.uint8, "TYPE_INT32": np.int32, "TYPE_INT64": np.int64, "TYPE_FP32": np.float32}
ONNX = {"TYPE_UINT8": "uint8", "TYPE_INT32": "int32", "TYPE_INT64": "int64", "TYPE_FP32": "float"}


@pytest.fixture(scope="module")
def published() -> ModuleType:
    """Triton's model_config.proto as its Python client ships it: that needs gRPC, this file of it protobuf only."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or not found.submodule_search_locations:
        pytest.skip("tritonclient is not installed; it is in the extra `dev`")
    path = Path(next(iter(found.submodule_search_locations))) / "grpc" / "model_config_pb2.py"
    own = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert own is not None
    assert own.loader is not None
    module = importlib.util.module_from_spec(own)
    own.loader.exec_module(module)
    return module


def parsed(published: ModuleType, model: Path) -> Any:
    text_format = importlib.import_module("google.protobuf.text_format")  # it has no types
    config = text_format.Parse((model / "config.pbtxt").read_text(encoding="utf-8"), published.ModelConfig())
    assert config.name == model.name
    return config


def shape_of(dims: Any, batch: int) -> list[int]:
    return [1, *dims] if batch else list(dims)


def hold_to_graph(config: Any, published: ModuleType, model: Path) -> None:
    """What a configuration says of a graph is what ONNX Runtime says of it."""
    session = onnxruntime.InferenceSession(model / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    for said, there in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [one.name for one in said] == [one.name for one in there]
        for one, other in zip(said, there, strict=True):
            kind = published.DataType.Name(one.data_type)
            assert other.type == f"tensor({ONNX[kind]})"
            fixed = [1 if isinstance(axis, str) else axis for axis in other.shape]
            assert shape_of(one.dims, config.max_batch_size) == fixed
            assert bool(config.max_batch_size) is isinstance(other.shape[0], str)
    warm = {
        name: np.fromfile(
            model / "warmup" / one.input_data_file, NUMPY[published.DataType.Name(one.data_type)]
        ).reshape(shape_of(one.dims, config.max_batch_size))
        for name, one in config.model_warmup[0].inputs.items()
    }
    assert config.model_warmup[0].batch_size == 1
    session.run(None, warm)


CONTRACTS = {
    "tensor": (ContractSpec(), "segment"),
    "image": (ContractSpec("image", "bgra", confidence=True), "segment"),
    "camera": (ContractSpec("camera", "nv12", (60, 80), label_type="int64"), "segment"),
    "classify": (ContractSpec("image"), "classify"),
    "logits": (ContractSpec(), "classify"),
}


@pytest.mark.parametrize("batch", [1, "batch"])
@pytest.mark.parametrize("name", CONTRACTS)
def test_a_repository_is_what_triton_reads(published: ModuleType, tmp_path: Path, name: str, batch: int | str) -> None:
    contract, task = CONTRACTS[name]
    bundle = make_bundle(tmp_path / "b", contract, task=task, batch=batch)  # type: ignore[arg-type]
    made = package_bundle(bundle, "triton", tmp_path / "p")
    [model] = (made.folder / "models").iterdir()
    config = parsed(published, model)
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 8 if isinstance(batch, str) else 0)
    assert config.HasField("dynamic_batching") is isinstance(batch, str)
    assert published.ModelInstanceGroup.Kind.Name(config.instance_group[0].kind) == "KIND_AUTO"
    hold_to_graph(config, published, model)
    golden = read_golden(read_bundle(bundle))[0]
    for key, array in golden.items():
        assert (model / "warmup" / f"{key}.bin").read_bytes() == array.tobytes()
    assert [one.label_filename for one in config.output] == (
        ["labels.txt"] if name == "logits" else [""] * len(config.output)
    )
    assert len((model / "labels.txt").read_text(encoding="utf-8").splitlines()) == 5


def test_a_plan_of_tensorrt_is_a_second_model(published: ModuleType, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", ContractSpec("image"), batch="batch", engine="tensorrt")
    models = package_bundle(bundle, "triton", tmp_path / "p").folder / "models"
    assert sorted(path.name for path in models.iterdir()) == [
        "hrvit_b1-segment-32x48",
        "hrvit_b1-segment-32x48-tensorrt",
    ]
    config = parsed(published, models / "hrvit_b1-segment-32x48-tensorrt")
    assert (config.backend, config.max_batch_size) == ("tensorrt", 4), "the profile's most"
    assert published.ModelInstanceGroup.Kind.Name(config.instance_group[0].kind) == "KIND_GPU"
    assert (models / config.name / "1" / "model.plan").read_bytes() == b"ftrt"
    only = package_bundle(bundle, "triton", tmp_path / "q", graph="plan").folder / "models"
    assert [path.name for path in only.iterdir()] == ["hrvit_b1-segment-32x48-tensorrt"]


def test_a_plan_of_tensorrt_rtx_is_left_out_and_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", engine="tensorrt_rtx")
    assert len(list((package_bundle(bundle, "triton", tmp_path / "p").folder / "models").iterdir())) == 1
    with pytest.raises(UsageError, match="--graph plan: TensorRT-RTX made this plan, and Triton loads TensorRT's"):
        package_bundle(bundle, "triton", tmp_path / "q", graph="plan")


def test_features_are_served(published: ModuleType, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", ContractSpec("image"), task="features", roles=("fp32",))
    [model] = (package_bundle(bundle, "triton", tmp_path / "p").folder / "models").iterdir()
    assert len(parsed(published, model).output) == 4


def test_the_parser_sees_a_field_that_is_none(published: ModuleType, tmp_path: Path) -> None:
    text_format = importlib.import_module("google.protobuf.text_format")  # it has no types
    bundle = make_bundle(tmp_path / "b", roles=("fp32",))
    [model] = (package_bundle(bundle, "triton", tmp_path / "p").folder / "models").iterdir()
    text = (model / "config.pbtxt").read_text(encoding="utf-8")
    for right, wrong in (("TYPE_FP32", "TYPE_FLOAT32"), ("max_batch_size", "batch_size"), ("KIND_AUTO", "KIND_ANY")):
        with pytest.raises(text_format.ParseError):
            text_format.Parse(text.replace(right, wrong), published.ModelConfig())


def test_the_client_in_the_readme_is_python(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", ContractSpec("camera", "nv12", (60, 80)))
    text = (package_bundle(bundle, "triton", tmp_path / "p").folder / "README.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    ast.parse(code)
    assert "('uv', 'UINT8', [1, 30, 40, 2])" in code
    assert "`max_batch_size` is 0" in text
