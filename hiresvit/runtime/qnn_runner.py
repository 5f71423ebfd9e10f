"""Run a graph, or a compiled context, on Qualcomm's HTP: on the device where there is one, else in its emulator.

ONNX Runtime would compute on the CPU what the HTP does not take, and all of it once more when a run fails there. Here
the first is an error that names the nodes, and the second cannot happen.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hiresvit.device.chips import DEFAULT_FLOAT, DEFAULT_INTEGER, Chip, chip_of, find_chip
from hiresvit.device.qnn_api import emulated, installed_version, require_library
from hiresvit.errors import ArtefactError, HiresvitError, IllegalGraphError, UsageError
from hiresvit.kinds import require_graph_file
from hiresvit.process import Worker
from hiresvit.runtime.qnn_messages import Failed, Opened, Opening
from hiresvit.runtime.runner import About, Feeds, Runner, check_feeds, numpy_dtype
from hiresvit.spec import TensorSpec

_TYPES = {
    **{"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(bool)": "bool"},
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class QnnRunner(Runner):
    """A graph compiled for a chip while it opens, or the ONNX file of a context; ``detail`` names the chip.

    Without it a graph is compiled for `DEFAULT_INTEGER` if it has Q/DQ and else for `DEFAULT_FLOAT`; a context says
    its own. Raises HiresvitError for a missing file, MissingDependency without the library, IllegalGraphError for a
    graph of which the HTP would not take every node, UsageError for an unknown chip, ArtefactError for a context of
    another chip.
    """

    def __init__(self, path: Path, *, detail: str | None = None) -> None:
        chip = None if detail is None else find_chip(detail)
        require_graph_file(path)
        require_library()
        if is_context(path):
            chip = _chip_of_context(path, chip)
        elif chip is None:
            chip = DEFAULT_INTEGER if _mentions(path, b"QuantizeLinear") else DEFAULT_FLOAT
        self.chip: Chip = chip
        self._path = path
        self._worker: Worker | None = Worker(["-m", "hiresvit.runtime._qnn_child"])
        try:
            opened = self._open()
        except BaseException:
            self.close()
            raise
        self.metadata = opened.metadata
        self.inputs, self.outputs = _specs(opened.inputs, path), _specs(opened.outputs, path)
        where = f"HTP of {chip.part}"
        self.about = About("QNN", installed_version() or "", where, emulated=emulated())
        self.warnings = (f"{where}, emulated: its answers count, its time says nothing",) if emulated() else ()

    def _open(self) -> Opened:
        answer = self._ask(Opening(str(self._path.resolve()), self.chip.soc_model))
        if isinstance(answer, Failed):
            raise IllegalGraphError(f"{self._path}: the HTP does not take it ({_first_line(answer.message)})")
        assert isinstance(answer, Opened)
        return answer

    def _ask(self, question: Any) -> Any:
        if self._worker is None:
            raise UsageError(f"{self._path}: the runner is closed; open it again")
        try:
            return self._worker.ask(question)
        except ChildProcessError as error:
            self.close()
            raise HiresvitError(f"{self._path}: Qualcomm's library {error}") from error

    def __call__(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        check_feeds(feeds, self.inputs)
        answer = self._ask(dict(feeds))
        if isinstance(answer, Failed):
            raise HiresvitError(f"{self._path}: the HTP failed on this input ({_first_line(answer.message)})")
        return {spec.name: value for spec, value in zip(self.outputs, answer, strict=True)}

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def is_context(path: Path) -> bool:
    """Whether an ONNX file stands for a compiled context, and is no graph of its own."""
    return path.stat().st_size < 2**20 and _mentions(path, b"EPContext")


def _mentions(path: Path, operator: bytes) -> bool:
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(operator) >= 0


def _chip_of_context(path: Path, wanted: Chip | None) -> Chip:
    """The chip that a context says it was compiled for: the emulator runs one of any chip. Raises ArtefactError."""
    said = re.search(rb"v2:\d+:[\d.]+:[\d.]+:\d+:(\d+):", path.read_bytes())
    chip = chip_of(int(said[1])) if said else None
    if chip is None:
        raise ArtefactError(f"{path} does not say for which chip it was compiled; build it again")
    if wanted not in (None, chip):
        raise ArtefactError(f"{path} was compiled for {chip}, not for {wanted}; build it again for that")
    return chip


def _specs(ends: tuple[tuple[str, str, tuple[Any, ...]], ...], path: Path) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, numpy_dtype(kind, _TYPES, path, name), shape) for name, kind, shape in ends)


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0]
