"""The golden pair: a picture, the input that it becomes, and the output and the answer expected for them.

Whatever runs a bundle replays it.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiresvit.bundle.folder import Bundle
from hiresvit.bundle.manifest import Manifest, damaged, unreadable
from hiresvit.files import atomic_path, open_regular
from hiresvit.spec import Feed, TensorSpec, is_raw

_TOP = 5  # classes that are named of logits

Arrays = dict[str, NDArray[Any]]


class Golden(NamedTuple):
    """What ``golden.npz`` holds, by name: what goes in, what comes out, and what that means for ``golden.png``.

    ``answer`` has ``labels`` (H, W) of the picture's size, or ``classes`` (k,), best first, and ``probabilities`` (k,);
    nothing for feature maps and in bundles that have no picture.
    """

    inputs: Arrays
    outputs: Arrays
    answer: Arrays


def write_golden(path: Path, inputs: Feed, outputs: Feed, answer: Feed | None = None) -> None:
    """Write an .npz of ``inputs/NAME``, ``outputs/NAME`` and ``answer/NAME``: uncompressed, equal bytes.

    `numpy.savez` would stamp the time of day into it.
    """
    arrays = {f"inputs/{name}": array for name, array in inputs.items()}
    arrays |= {f"outputs/{name}": array for name, array in outputs.items()}
    arrays |= {f"answer/{name}": array for name, array in (answer or {}).items()}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in sorted(arrays.items()):
            content = BytesIO()
            np.lib.format.write_array(content, np.asarray(array, order="C"), allow_pickle=False)
            # Neither the time nor the system it was written on: the first day that a zip can hold, and Unix.
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            archive.writestr(info, content.getvalue())


def read_golden(bundle: Bundle) -> tuple[Feed, Feed]:
    """(inputs, outputs) of `read_pair`."""
    return read_pair(bundle)[:2]


def read_pair(bundle: Bundle) -> Golden:
    """Read what `write_golden` wrote, of the types and shapes that the manifest says.

    Nothing is unpacked, so that no more memory is taken than the file has bytes. Raises ArtefactError for anything
    else than that.
    """
    path, tensors = bundle.path("golden"), tuple(_tensors(bundle.manifest))
    try:
        with open_regular(path) as stream, zipfile.ZipFile(stream) as archive:
            wanted = {f"{side}/{tensor.name}.npy" for side, tensor in tensors}
            if differing := wanted ^ set(archive.namelist()):
                raise ValueError(f"it lacks, or has too many, {sorted(differing)[:3]}")
            found = Golden({}, {}, {})
            for side, tensor in tensors:
                getattr(found, side)[tensor.name] = _array(archive, f"{side}/{tensor.name}.npy", tensor)
    except Exception as error:  # numpy and zipfile raise about anything on damaged bytes
        if isinstance(error, OSError) and error.errno:
            unreadable(path, error)
        reason = str(error) if type(error) is ValueError else type(error).__name__
        damaged(path, f"cannot be read ({reason})", error)
    return found


def _tensors(manifest: Manifest) -> Iterable[tuple[str, TensorSpec]]:
    yield from (("inputs", tensor) for tensor in manifest.inputs)
    yield from (("outputs", tensor) for tensor in manifest.outputs)
    if any(entry.role == "picture" for entry in manifest.files):
        yield from (("answer", tensor) for tensor in _answer(manifest))


def _answer(manifest: Manifest) -> tuple[TensorSpec, ...]:
    """What the answer of a task consists of; of a picture nothing but its pixels says how large it is."""
    spec, kind = manifest.spec, manifest.contract.label_type
    if spec.task == "segment":
        return (TensorSpec("labels", kind or ("uint8" if spec.num_classes <= 256 else "int32"), ("height", "width")),)
    if is_raw(spec.task):
        return ()
    shape = (manifest.contract.top_k or min(_TOP, spec.num_classes),)
    return (TensorSpec("classes", kind or "int32", shape), TensorSpec("probabilities", "float32", shape))


def _array(archive: zipfile.ZipFile, name: str, tensor: TensorSpec) -> NDArray[Any]:
    """A member as it lies in the file. Raises ValueError if it is packed, or not the tensor's."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, which a golden pair is not")
    content = BytesIO(archive.read(info))
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, in_columns, dtype = read_header[np.lib.format.read_magic(content)](content)
    fits = len(shape) == len(tensor.shape) and all(
        isinstance(want, str) or have == want for have, want in zip(shape, tensor.shape, strict=True)
    )
    if in_columns or dtype.name != tensor.dtype or not fits:
        raise ValueError(f"{name} is {dtype} {shape}, the manifest says {tensor.dtype} {tensor.shape}")
    rest = content.getbuffer()[content.tell() :]
    if len(rest) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has {len(rest)} bytes of numbers, its shape {shape} needs others")
    return np.frombuffer(rest, dtype).reshape(shape)
