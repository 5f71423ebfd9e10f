"""The golden pair: read back exactly, equal bytes from equal arrays, damage in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hiresvit.bundle.golden import read_golden, write_golden
from hiresvit.errors import ArtefactError


def test_a_golden_pair_is_read_back_exactly(tmp_path: Path) -> None:
    inputs = {"image": np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype(np.float32)}
    outputs = {"labels": np.asfortranarray(np.arange(20).reshape(4, 5)), "score": np.float32(0.5).reshape(())}
    write_golden(tmp_path / "golden.npz", inputs, outputs)
    read_inputs, read_outputs = read_golden(tmp_path / "golden.npz")
    for expected, found in ((inputs, read_inputs), (outputs, read_outputs)):
        assert expected.keys() == found.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, strict=True)


def test_equal_arrays_give_equal_bytes_whatever_their_layout(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_golden(tmp_path / "one.npz", {"a": array, "b": array}, {"c": array})
    write_golden(tmp_path / "two.npz", {"b": np.asfortranarray(array), "a": array}, {"c": array})
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "flipped", "other", "pickled"])
def test_a_damaged_golden_pair_is_one_line(tmp_path: Path, how: str) -> None:
    path = tmp_path / "golden.npz"
    array = np.arange(6, dtype=np.float32)
    write_golden(path, {"image": array}, {"logits": array})
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(content[:-30])
    elif how == "flipped":  # inside the first array's numbers
        content[content.index(array.tobytes()) + 3] ^= 1
        path.write_bytes(content)
    elif how == "other":
        np.savez(path, image=array)
    elif how == "pickled":
        np.savez(path, allow_pickle=True, image=np.array([{}], dtype=object))
    with pytest.raises(ArtefactError, match=r"golden\.npz [^\n]+\Z"):
        read_golden(path)
