"""Run a graph, or a compiled context, on Qualcomm's HTP: on the device where there is one, else in its emulator.

ONNX Runtime would compute on the CPU what the HTP does not take, and all of it once more when a run fails there. Here
the first is an error that names the nodes, and the second cannot happen. What was run is the emulator: the same code
takes the HTP of an arm64 device, which nobody had here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hiresvit.device.chips import DEFAULT_FLOAT, DEFAULT_INTEGER, Chip, find_chip
from hiresvit.device.context import Refused
from hiresvit.device.qnn_api import emulated, installed_version, require_library
from hiresvit.device.qnn_context import Context, read_context
from hiresvit.errors import ArtefactError, HiresvitError, IllegalGraphError, MissingDependency, UsageError
from hiresvit.kinds import damaged_graph, require_graph_file
from hiresvit.process import Worker
from hiresvit.runtime.qnn_log import backend_error, module_of, refused_nodes
from hiresvit.runtime.qnn_messages import Failed, Opened, Opening
from hiresvit.runtime.runner import About, Feeds, Runner, check_feeds, numpy_dtype
from hiresvit.spec import TensorSpec
from hiresvit.wire import nodes_and_metadata

_TYPES = {
    **{"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(bool)": "bool"},
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_SHOWN = 3  # modules of refused nodes
_SAYS_NOTHING = ("", "Failed to add node")
_INTEGERS = "it computes in integers only: `hiresvit export ... --htp a16w8` makes that form"


class QnnRunner(Runner):
    """A graph compiled for a chip while it opens, or the ONNX file of a context; ``detail`` names the chip.

    Without it a graph is emulated for `DEFAULT_INTEGER` if it has Q/DQ and else for `DEFAULT_FLOAT`; a context says its
    own, and a device is its own.

    Raises HiresvitError for a missing or damaged file, MissingDependency without the library or an HTP, UsageError for
    an unknown chip, IllegalGraphError for a graph of which the HTP would not take every node, ArtefactError for a
    context that is damaged or of another chip or version.
    """

    def __init__(self, path: Path, *, detail: str | None = None) -> None:
        chip = None if detail is None else find_chip(detail)
        require_graph_file(path)
        require_library()
        self._path, self._context = path, read_context(path)
        self.chip = self._chip(chip)
        self._where = f"HTP of {self.chip.part}" if self.chip else "HTP"
        self._worker: Worker | None = Worker(["-m", "hiresvit.runtime._qnn_child"])
        try:
            opened = self._open(emulated() or chip is not None)
        except BaseException:
            self.close()
            raise
        self._nodes = opened.taken
        self.metadata = opened.metadata
        self.inputs, self.outputs = _specs(opened.inputs, path), _specs(opened.outputs, path)
        self.about = About("QNN", installed_version() or "", self._where, emulated=emulated())
        if emulated():
            self.seconds_per_gmac = _seconds_per_gmac(path, self.chip)
        self.warnings = (f"{self._where}, emulated: its answers count, its time says nothing",) if emulated() else ()
        if opened.left:
            self.warnings += (f"{len(opened.left)} of its nodes run on the CPU, as it was built with --allow-cpu",)

    def _chip(self, wanted: Chip | None) -> Chip | None:
        """The chip that is compiled for or emulated; None for a device, which is not asked its name."""
        if self._context is not None:
            return _chip_of_context(self._path, self._context, wanted)
        integers = _has_integers(self._path)
        if wanted is not None and not wanted.fp16 and not integers:
            raise IllegalGraphError(f"{self._path} is a graph in floating point, and {wanted} has none: {_INTEGERS}")
        return wanted or ((DEFAULT_INTEGER if integers else DEFAULT_FLOAT) if emulated() else None)

    def _open(self, choose: bool) -> Opened:
        chip = self.chip.soc_model if self.chip and choose else None
        mixed = self._context is not None and self._context.on_cpu > 0  # who built it was asked
        answer = self._ask(Opening(str(self._path.resolve()), chip, whole=not mixed))
        if isinstance(answer, Failed):
            raise self._not_opened(answer.message)
        assert isinstance(answer, Opened)
        if answer.left and not mixed:  # the session was told to refuse this
            raise self._refusal([Refused(name, module_of(name), operator, "") for name, operator in answer.left])
        return answer

    def _ask(self, question: Any) -> Any:
        if self._worker is None:
            raise UsageError(f"{self._path}: the runner is closed; open it again")
        try:
            answer = self._worker.ask(question)
        except ChildProcessError as error:
            self.close()
            if "ImportError" in str(error) or "ModuleNotFoundError" in str(error):
                why = str(error).partition(": ")[2]
                raise MissingDependency(f"Qualcomm's library does not start here: {why}") from error
            # a line of its log is no reason
            how = str(error).partition(":")[0] if "onnxruntime:" in str(error) else error
            raise HiresvitError(f"{self._path}: Qualcomm's library {how}") from error
        if isinstance(answer, HiresvitError):
            raise answer
        return answer

    def _said(self) -> str:
        assert self._worker is not None  # it has just answered
        return self._worker.said()

    def _not_opened(self, message: str) -> HiresvitError:
        if damaged := damaged_graph(self._path, message):
            return damaged
        if self._context is not None:
            return ArtefactError(
                f"{self._path} is damaged, or of another version: Qualcomm's library does not load it"
                f" ({_reason(message)}); copy it and the file beside it again, or build it again"
            )
        refused = refused_nodes(self._said())
        if refused:
            return self._refusal(refused)
        return IllegalGraphError(f"{self._path}: the {self._where} does not take it ({_reason(message)})")

    def _refusal(self, refused: Sequence[Refused]) -> IllegalGraphError:
        """Where the refused nodes are: the first modules, with what the library says of them."""
        modules: dict[str, list[str]] = {}
        for node in refused:
            modules.setdefault(node.module or node.node, []).append(node.op)
        shown = [f"{name} ({', '.join(dict.fromkeys(ops))})".lstrip() for name, ops in modules.items()]
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        said = (node.reason.partition(".")[0] for node in refused)
        reason = next((f" ({text})" for text in said if text not in _SAYS_NOTHING), "")
        form = f"; {_INTEGERS}" if self.chip and not self.chip.fp16 else ""
        return IllegalGraphError(
            f"{self._path}: the {self._where} does not take {len(refused)} of its nodes, which the CPU would compute:"
            f" {', '.join(shown[:_SHOWN])}{more}{reason}{form}"
        )

    def __call__(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        check_feeds(feeds, self.inputs)
        answer = self._ask(dict(feeds))
        if isinstance(answer, Failed):
            raise HiresvitError(
                f"{self._path}: the {self._where} failed on this input: {self._failure(answer.message)}"
            )
        return {spec.name: value for spec, value in zip(self.outputs, answer, strict=True)}

    def _failure(self, message: str) -> str:
        """What failed in a run: Qualcomm's log names the kernel and no node, and each of that operator may be it."""
        found = backend_error(self._said())
        if found is None:
            return _reason(message)
        kernel, said = found
        modules = sorted({module_of(name) or name for name, operator in self._nodes if operator.lower() == kernel})
        more = f" or {len(modules) - _SHOWN} more" if len(modules) > _SHOWN else ""
        where = f" in {' or '.join(modules[:_SHOWN])}{more}" if modules else ""
        return f"{kernel}{where}: {said}; `hiresvit compare --layers` finds the module"

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def _chip_of_context(path: Path, context: Context, wanted: Chip | None) -> Chip:
    """The emulator would run a context of any chip, as another. Raises ArtefactError."""
    if wanted not in (None, context.chip):
        raise ArtefactError(f"{path} was compiled for {context.chip}, not for {wanted}; build it again for that")
    return context.chip


def _has_integers(path: Path) -> bool:
    return any(operator == "QuantizeLinear" for operator, _ in nodes_and_metadata(path)[0])


def _seconds_per_gmac(path: Path, chip: Chip | None) -> float:
    """Measured on two cores: 5 with 16 bits, 2.4 with 8, and in FP16 13, on V69 31."""
    if chip is None or not chip.fp16 or _has_integers(path):
        return 5.0
    return 31.0 if chip.arch < 73 else 13.0


def _specs(ends: tuple[tuple[str, str, tuple[Any, ...]], ...], path: Path) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, numpy_dtype(kind, _TYPES, path, name), shape) for name, kind, shape in ends)


def _reason(text: str) -> str:
    return " ".join(text.split("\n", 1)[0].split())
