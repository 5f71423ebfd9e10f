"""The golden pair: read back exactly, equal bytes from equal arrays, damage in one line, and never more than it has."""

from __future__ import annotations

import resource
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import manifest_of
from numpy.typing import NDArray

from hiresvit.bundle.folder import Bundle
from hiresvit.bundle.golden import read_golden, write_golden
from hiresvit.bundle.manifest import FileEntry
from hiresvit.errors import ArtefactError
from hiresvit.spec import Feed, TensorSpec

ARRAY = np.arange(6, dtype=np.float32)


def specs(feed: Feed) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, array.dtype.name, array.shape) for name, array in feed.items())


def bundle_of(folder: Path, inputs: Feed, outputs: Feed) -> Bundle:
    """A bundle whose manifest speaks of these arrays; its pair is whatever lies in the folder."""
    golden = FileEntry("golden.npz", "golden", "ab" * 32, 1, None, None)
    return Bundle(folder, replace(manifest_of(golden), inputs=specs(inputs), outputs=specs(outputs)), ())


def test_a_golden_pair_is_read_back_exactly(tmp_path: Path) -> None:
    inputs = {"image": np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype(np.float32)}
    outputs = {"labels": np.asfortranarray(np.arange(20).reshape(4, 5)), "score": np.float32(0.5).reshape(())}
    write_golden(tmp_path / "golden.npz", inputs, outputs)
    read_inputs, read_outputs = read_golden(bundle_of(tmp_path, inputs, outputs))
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
    write_golden(path, {"image": ARRAY}, {"logits": ARRAY})
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(content[:-30])
    elif how == "flipped":  # inside the first array's numbers
        content[content.index(ARRAY.tobytes()) + 3] ^= 1
        path.write_bytes(content)
    elif how == "other":
        np.savez(path, image=ARRAY)
    elif how == "pickled":
        np.savez(path, allow_pickle=True, **{"inputs/image": np.array([{}], dtype=object), "outputs/logits": ARRAY})
    with pytest.raises(ArtefactError, match=r"golden\.npz [^\n]+\Z"):
        read_golden(bundle_of(tmp_path, {"image": ARRAY}, {"logits": ARRAY}))


@pytest.mark.parametrize(
    "array",
    [ARRAY.astype(np.float64), ARRAY[:5], ARRAY.reshape(2, 3), np.float32(1).reshape(())],
    ids=["type", "size", "rank", "scalar"],
)
def test_a_pair_of_other_types_and_shapes_than_the_manifests(tmp_path: Path, array: NDArray[Any]) -> None:
    write_golden(tmp_path / "golden.npz", {"image": array}, {"logits": ARRAY})
    with pytest.raises(ArtefactError, match=r"inputs/image\.npy is float\d\d .*, the manifest says float32 \(6,\)"):
        read_golden(bundle_of(tmp_path, {"image": ARRAY}, {"logits": ARRAY}))


@pytest.fixture
def _little_memory() -> Iterator[None]:
    """512 MB more than there is: what unpacks or believes a header fails, and takes no other test with it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**29, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.usefixtures("_little_memory")
@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED])
def test_no_more_is_unpacked_than_the_file_has_bytes(tmp_path: Path, how: int) -> None:
    """A megabyte of zeros for each that it says to have; the manifest says so, too."""
    large = np.broadcast_to(np.float32(0), (2**28,))  # a gigabyte
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(large))
    with zipfile.ZipFile(tmp_path / "golden.npz", "w", how) as archive:
        archive.writestr("inputs/image.npy", header.getvalue() + bytes(2**20))
        archive.writestr("outputs/logits.npy", header.getvalue() + bytes(2**20))
    with pytest.raises(ArtefactError, match="is compressed" if how else "has 1048576 bytes of numbers"):
        read_golden(bundle_of(tmp_path, {"image": large}, {"logits": large}))
