"""The golden pair: an input and the output expected for it, replayed by whatever runs a bundle."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np

from hiresvit.bundle.manifest import damaged, unreadable
from hiresvit.files import atomic_path
from hiresvit.spec import Feed


def write_golden(path: Path, inputs: Feed, outputs: Feed) -> None:
    """Write an .npz of ``inputs/NAME`` and ``outputs/NAME``: uncompressed, and equal arrays give equal bytes.

    `numpy.savez` would stamp the time of day into it.
    """
    arrays = {f"inputs/{name}": array for name, array in inputs.items()}
    arrays |= {f"outputs/{name}": array for name, array in outputs.items()}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in sorted(arrays.items()):
            content = BytesIO()
            np.lib.format.write_array(content, np.asarray(array, order="C"), allow_pickle=False)
            # Neither the time nor the system it was written on: the first day that a zip can hold, and Unix.
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            archive.writestr(info, content.getvalue())


def read_golden(path: Path) -> tuple[Feed, Feed]:
    """Read what `write_golden` wrote: (inputs, outputs) by name. Raises ArtefactError if it is damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # numpy and zipfile raise about anything on damaged bytes
        if isinstance(error, OSError) and error.errno:
            unreadable(path, error)
        damaged(path, f"cannot be read ({type(error).__name__})", error)
    inputs, outputs = (
        {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}
        for start in ("inputs/", "outputs/")
    )
    if not inputs or not outputs or len(inputs) + len(outputs) != len(arrays):
        damaged(path, f"holds {sorted(arrays)} instead of inputs/NAME and outputs/NAME")
    return inputs, outputs
