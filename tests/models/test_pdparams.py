"""`.pdparams` files: what PaddleClas writes is read whole, and nothing else runs or is let in.

The files here are made with numpy and pickle as Paddle makes them, from the key list of MixFormer-B0.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from by_path import GOLDEN, load
from numpy.typing import NDArray
from torch import Tensor

from hiresvit.errors import HiresvitError
from hiresvit.models.create import create_model
from hiresvit.models.weights.file import read_checkpoint
from hiresvit.models.weights.paddle import NAME_TABLE, as_pytorch
from hiresvit.models.zoo import MODELS

detweights = load(GOLDEN / "detweights.py")
# In PyTorch (out, in), in Paddle (in, out).
LINEAR = re.compile(r"(attn\.(proj_attn|proj_cnn|qkv|proj)|mlp\.fc[12]|last_proj|head)\.weight$")


def golden_state() -> dict[str, NDArray[np.float32]]:
    state: dict[str, NDArray[np.float32]] = detweights.state_dict_for(
        detweights.load_keys(GOLDEN / "mixformer_b0.keys.json")
    )
    return state


def as_paddle(state: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    """A state of PyTorch as PaddleClas names it and lays it out, with what else is in its files."""
    content: dict[str, Any] = {}
    for key, value in state.items():
        name = key.replace(".running_mean", "._mean").replace(".running_var", "._variance")
        content[name] = np.ascontiguousarray(value.T) if LINEAR.search(key) else value
        if key.endswith("relative_position_bias_table"):
            content[key.replace("bias_table", "index")] = np.zeros((49, 49), np.int64)
    content[NAME_TABLE] = {name: f"parameter_{index}" for index, name in enumerate(content)}
    return content


def written(folder: Path, content: object, protocol: int = 4) -> Path:
    path = folder / "w.pdparams"
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def read_pdparams(path: Path) -> dict[str, Tensor]:
    """The tensors of a file under PyTorch's names."""
    return read_checkpoint(path).tensors


def read(path: Path) -> dict[str, Tensor]:
    """As a MixFormer takes it."""
    layout = MODELS["mixformer_b0"].layout
    return as_pytorch(read_pdparams(path), layout.linears, layout.derived)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_round_trip(tmp_path: Path, protocol: int) -> None:
    state = golden_state()
    tensors = read(written(tmp_path, as_paddle(state), protocol))
    assert tensors.keys() == state.keys()
    for key, tensor in tensors.items():
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        np.testing.assert_array_equal(tensor, state[key])


def test_a_model_takes_them(tmp_path: Path) -> None:
    state = golden_state()
    model = create_model("mixformer_b0", imgsz=(32, 32), weights=written(tmp_path, as_paddle(state)))
    own = model.state_dict()
    assert all(np.array_equal(own[key], value) for key, value in state.items())


def test_another_model_says_whose_they_are(tmp_path: Path) -> None:
    """What is a Linear is asked of each family: shapes as Paddle has them would be nobody's."""
    path = written(tmp_path, as_paddle(golden_state()))
    with pytest.raises(HiresvitError, match="not the model asked for: this looks like mixformer_b0"):
        create_model("hrvit_b1", imgsz=(32, 32), weights=path)


def test_the_names_of_older_numpy(tmp_path: Path) -> None:
    """numpy 2 writes ``numpy._core.multiarray``, numpy 1 ``numpy.core.multiarray``; in protocol 2 as plain lines."""
    path = written(tmp_path, {"a.weight": np.arange(3.0, dtype=np.float32)}, 2)
    data = path.read_bytes()
    assert (b"numpy._core.multiarray\n" in data) != (b"numpy.core.multiarray\n" in data)
    for core in (b"core", b"_core"):
        path.write_bytes(re.sub(rb"numpy\._?core", b"numpy." + core, data))
        assert read_pdparams(path)["a.weight"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([1.5, -2.0], np.float16), torch.float32),
        (np.array([1.5, -2.0], np.float64), torch.float32),
        (np.array([1.5, -2.0], ">f4"), torch.float32),
        (np.array([1, -2], ">i8"), torch.int64),
        (np.array([3, 4], np.int32), torch.int32),
        (np.array([3, 4], np.uint8), torch.uint8),
        (np.array([True, False]), torch.bool),
        (np.array(7, np.int64), torch.int64),
        (np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)), torch.float32),
        (np.arange(12, dtype=np.float32).reshape(3, 4)[::2, 1:], torch.float32),
    ],
    ids=lambda value: f"{value.dtype.str}{value.shape}" if isinstance(value, np.ndarray) else "",
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_types_and_layouts(tmp_path: Path, protocol: int, array: NDArray[Any], dtype: torch.dtype) -> None:
    tensor = read_pdparams(written(tmp_path, {"a.table": array}, protocol))["a.table"]
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(tensor, array)
    tensor.fill_(1)  # memory of its own, which may be written to


@pytest.mark.parametrize(
    ("name", "transposed"),
    [
        ("layers.0.blocks.0.attn.proj.weight", True),
        ("layers.0.blocks.0.attn.proj_cnn.weight", True),
        ("layers.0.blocks.0.mlp.fc1.weight", True),
        ("head.weight", True),
        ("backbone.last_proj.weight", True),
        ("layers.0.blocks.0.attn.relative_position_bias_table", False),
        ("layers.0.blocks.0.attn.projection.weight", False),
        ("decode_head.conv_seg.weight", False),
    ],
)
def test_linears_are_known_by_name(tmp_path: Path, name: str, transposed: bool) -> None:
    """A square weight does not say by its shape whether it is (in, out)."""
    square = np.arange(9, dtype=np.float32).reshape(3, 3)
    found = read(written(tmp_path, {name: square}))[name]
    assert found.is_contiguous()
    np.testing.assert_array_equal(found, square.T if transposed else square)
    deep = np.arange(16, dtype=np.float32).reshape(2, 2, 2, 2)  # a convolution, as patch_embed.proj is
    np.testing.assert_array_equal(read(written(tmp_path, {name: deep}))[name], deep)


# --- files that want more than to be read ---


def name_of(value: object) -> str:
    """The same in every process, as a text is and an object's address is not."""
    return value if isinstance(value, str) else type(value).__name__


class Calls:
    """Pickles as a call of ``function(*arguments)``, with a state to set afterwards."""

    def __init__(self, function: Callable[..., Any], *arguments: object, state: object = None) -> None:
        self.parts = (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def refused(path: Path) -> str:
    """The one line that says why a file is not read."""
    with pytest.raises(HiresvitError) as caught:
        read_pdparams(path)
    said = str(caught.value)
    assert said.startswith(str(path)) or said.startswith(f"cannot read {path}")
    assert "\n" not in said
    return said


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, r"(posix|nt)\.system"),
        (eval, r"(builtins|__builtin__)\.eval"),
        (np.load, r"numpy\.load"),
        (np.memmap, r"numpy\.memmap"),
        (torch.load, r"torch\.serialization\.load"),
    ],
)
def test_code_is_not_run(tmp_path: Path, protocol: int, function: Callable[..., Any], name: str) -> None:
    ran = tmp_path / "ran"
    arguments = (f"touch {ran}",) if function is os.system else (f"open({str(ran)!r}, 'w')",)
    content = {"a.weight": Calls(function, *arguments)}
    said = refused(written(tmp_path, content, protocol))
    assert re.search(f"asks for {name}, which is not plain data and could run code", said)
    assert not ran.exists()


def test_a_dotted_name_is_no_way_around(tmp_path: Path) -> None:
    path = tmp_path / "w.pdparams"
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.")
    assert "holds a class, not a dict of tensors" in refused(path)
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93)R.")
    assert "asks for numpy.ndarray.__init__" in refused(path)
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x03a\nb\x93)R.")
    assert r"asks for 'numpy.a\nb'" in refused(path)


def reconstruct() -> Callable[..., Any]:
    function: Callable[..., Any] = np.zeros(1).__reduce__()[0]  # type: ignore[assignment]
    return function


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (Calls(reconstruct(), np.dtype, (0,), b"b"), "makes something else than a numpy.ndarray"),
        (Calls(reconstruct(), "os.system", (0,), b"b"), "makes something else than a numpy.ndarray"),
        (Calls(np.ndarray, (10**12,)), r"holds no tensors, only 'a.weight' \(numpy.ndarray\)"),
        (Calls(reconstruct(), np.ndarray, (10**12,), b"b"), "a.weight is an array without contents"),
        (np.array([print], dtype=object), "a.weight holds Python objects, not numbers"),
        (np.array([None, 1], dtype=object), "a.weight holds Python objects, not numbers"),
        (np.array(["a"]), "a.weight holds type 'U1', not numbers"),
        (np.array([b"a"]), "a.weight holds type 'S1', not numbers"),
        (np.zeros(2, [("x", "f4")]), "a.weight holds type 'V4', not numbers"),
        (np.array([1j]), "a.weight holds type 'c16', not numbers"),
        (np.array(["2020-01-01"], "M8[D]"), "a.weight holds type 'M8', not numbers"),
        (np.float32(1.0), r"holds no tensors, only 'a.weight' \(numpy._?core.multiarray.scalar\)"),
        ([1.0, 2.0], r"holds no tensors, only 'a.weight' \(list\)"),
        (None, r"holds no tensors, only 'a.weight' \(NoneType\)"),
        (np.dtype("f4"), r"holds no tensors, only 'a.weight' \(numpy.dtype\)"),
        (np.ndarray, r"holds no tensors, only 'a.weight' \(class\)"),
    ],
    ids=name_of,
)
def test_what_is_no_array_of_numbers(tmp_path: Path, content: object, said: str) -> None:
    for protocol in (2, 4):
        assert re.search(said, refused(written(tmp_path, {"a.weight": content}, protocol)))


def array_of(*state: object) -> Calls:
    """An array whose state says what it wants."""
    return Calls(reconstruct(), np.ndarray, (0,), b"b", state=state)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (array_of(1, (3,), np.dtype("f4"), False, bytes(8)), r"not the bytes of its shape \[3\]"),
        (array_of(1, (10**9, 10**9), np.dtype("f4"), False, b""), "not the bytes of its shape"),
        (array_of(1, (-2, -1), np.dtype("f4"), False, bytes(8)), "has no shape"),
        (array_of(1, (2.0,), np.dtype("f4"), False, bytes(8)), "has no shape"),
        (array_of(1, [2], np.dtype("f4"), False, bytes(8)), "has no shape"),
        (array_of(1, (2,), "f4", False, bytes(8)), "has no type"),
        (array_of(1, (2,), np.dtype("f4"), False, [1.0, 2.0]), "not the bytes of its shape"),
        (array_of(1, (2,), np.dtype("f4"), False, "\u20ac" * 9), "not the bytes of its shape"),
        (array_of(1, (2,)), "is an array without contents"),
        (Calls(reconstruct(), np.ndarray, (0,), b"b", state=7), "is an array without contents"),
        (Calls(np.dtype, "f4", state=7), r"holds no tensors, only 'a.weight' \(numpy.dtype\)"),
        (Calls(np.dtype), r"holds no tensors, only 'a.weight' \(numpy.dtype\)"),
    ],
    ids=name_of,
)
def test_arrays_whose_parts_do_not_fit(tmp_path: Path, content: object, said: str) -> None:
    assert re.search(said, refused(written(tmp_path, {"a.weight": content})))


def test_the_reader_cannot_be_changed_by_a_file(tmp_path: Path) -> None:
    """A pickle may set attributes of what it was given: here of the classes that stand for numpy's names."""
    change = b"N}\x8c\x0c__setstate__K\x01s\x86b"  # (None, {"__setstate__": 1}), BUILD
    for module, name in ((b"numpy", b"ndarray"), (b"numpy", b"dtype"), (b"_codecs", b"encode")):
        path = tmp_path / "w.pdparams"
        start = b"\x80\x04\x8c" + bytes([len(module)]) + module + b"\x8c" + bytes([len(name)]) + name + b"\x93"
        path.write_bytes(start + change + b".")
        assert f"changes {module.decode()}.{name.decode()}" in refused(path)
    path = written(tmp_path, {"a.weight": np.ones(1, np.float32)}, 2)
    assert read_pdparams(path)["a.weight"].tolist() == [1]


def test_objects_made_without_their_arguments(tmp_path: Path) -> None:
    """NEWOBJ makes an object of a class without calling it."""
    path = tmp_path / "w.pdparams"
    key, core = b"\x80\x04}\x8c\x08a.weight", b"\x8c\x16numpy._core.multiarray\x8c\x0c_reconstruct\x93"
    dtype = b"\x8c\x05numpy\x8c\x05dtype\x93"
    path.write_bytes(key + core + b")\x81s.")
    assert "a.weight makes something else than a numpy.ndarray" in refused(path)
    array = core + b"\x8c\x05numpy\x8c\x07ndarray\x93\x85\x81(K\x01K\x02\x85"
    path.write_bytes(key + array + dtype + b")\x81\x89C\x02abtbs.")
    assert "a.weight holds type 'None', not numbers" in refused(path)


# --- files that are broken or something else ---


@pytest.mark.parametrize("share", [0, 0.0001, 0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("protocol", [2, 4])
def test_truncated(tmp_path: Path, protocol: int, share: float) -> None:
    path = written(tmp_path, as_paddle(golden_state()), protocol)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert ("is truncated, damaged or not a checkpoint" if path.stat().st_size else "is empty") in refused(path)


@pytest.mark.parametrize("seed", range(20))
def test_garbage(tmp_path: Path, seed: int) -> None:
    """Damaged bytes end in the one error, or in tensors where only numbers were hit."""
    generator = np.random.default_rng(seed)
    path = written(tmp_path, {"a.weight": np.ones(4, np.float32), "b._mean": np.ones(4)}, 2 + seed % 3)
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    data[generator.integers(0, len(data), 4)] = generator.integers(0, 256, 4)
    path.write_bytes(data.tobytes())
    try:
        tensors = read_pdparams(path)
    except HiresvitError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either way is right)
    else:
        assert all(isinstance(value, Tensor) for value in tensors.values())


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04Nr\xff\xff\xff\xff.",  # LONG_BINPUT: keep None at the place 2**32 - 1
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # BINBYTES8: 2**63 - 1 bytes follow
        b"\x80\x04" + b"(" * 10**6 + b".",
    ],
)
def test_a_file_cannot_ask_for_memory(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "w.pdparams"
    path.write_bytes(data)
    assert refused(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([np.zeros(1)], "holds a list, not a dict of tensors"),
        (np.zeros(1), "holds a numpy array, not a dict of tensors"),
        ({1: np.zeros(1)}, "holds a tensor under 1, which is not a tensor's name"),
        ({"a\n": np.zeros(1)}, r"holds a tensor under 'a\\n', which is not a tensor's name"),
        ({"a._mean": np.zeros(1), "a.running_mean": np.zeros(1)}, "has a.running_mean twice"),
    ],
    ids=name_of,
)
def test_not_a_state(tmp_path: Path, content: object, said: str) -> None:
    assert re.search(said, refused(written(tmp_path, content)))


def test_no_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.pdparams").endswith("does not exist; give a checkpoint's file")
