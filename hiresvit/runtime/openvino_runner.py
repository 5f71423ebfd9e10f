"""Run an ONNX graph with OpenVINO on the CPU.

Everything is computed in FP32 unless bfloat16 is asked for by name: on some CPUs that is OpenVINO's own choice, and it
has 8 bits of mantissa. On a CPU without it OpenVINO takes FP32 and says nothing; here that is an error. Weights and
casts in FP16 are widened, so that an FP16 graph answers with rounded weights and unrounded activations; a warning says
so. Q/DQ pairs are OpenVINO's to fuse into INT8 kernels.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.errors import HiresvitError, MissingDependency, UsageError, install_line
from hiresvit.files import native_path
from hiresvit.kinds import no_graph, not_taken, require_graph_file
from hiresvit.runtime.runner import About, Feeds, Runner, check_feeds, check_threads, numpy_dtype
from hiresvit.spec import TensorSpec

INSTALL_HINT = install_line("openvino")
PRECISIONS = ("f32", "bf16")
"""What OpenVINO can be told to compute in, by its own names; the first is taken where nothing is said."""
_NAMES = {"f32": "FP32", "bf16": "bfloat16"}
_DTYPES = {
    **{"f32": "float32", "f16": "float16", "f64": "float64", "boolean": "bool"},
    **{f"{sign}{bits}": f"{kind}{bits}" for sign, kind in (("i", "int"), ("u", "uint")) for bits in (8, 16, 32, 64)},
}


class OpenVinoRunner(Runner):
    """An ONNX graph on OpenVINO's CPU plugin, tuned for one call at a time. Calls may come from any thread.

    ``detail`` is the precision it computes in: ``f32`` (default) or ``bf16``. Raises HiresvitError if the file is
    missing or no graph, IllegalGraphError if OpenVINO cannot load it, MissingDependency without OpenVINO or on a CPU
    that does not compute in that precision, and UsageError for another precision, ``threads`` under 1 or a graph whose
    inputs or outputs numpy cannot hold.
    """

    def __init__(self, path: Path, *, threads: int | None = None, detail: str | None = None) -> None:
        check_threads(threads)
        hint = find_precision(detail)
        require_graph_file(path)
        openvino = load_openvino()
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            with native_path(path) as name:
                model = _read(openvino, path, name)
                compiled = openvino.Core().compile_model(model, "CPU", settings)
        except HiresvitError:
            raise
        except Exception as error:  # most are RuntimeError, those of its parsers are their own
            if "Model can't be parsed" in str(error):
                raise no_graph(path) from error
            raise not_taken(path, "OpenVINO", _reason(error)) from error
        self.inputs = tuple(_spec(port, path) for port in compiled.inputs)
        self.outputs = tuple(_spec(port, path) for port in compiled.outputs)
        self.warnings = said_of_precision(openvino, compiled, hint)
        self.precision = None if hint == PRECISIONS[0] else _NAMES[hint]
        used, suffix = int(compiled.get_property("INFERENCE_NUM_THREADS")), "" if hint == PRECISIONS[0] else f" {hint}"
        self.about = About(f"OpenVINO{suffix}", openvino.__version__.partition("-")[0], "CPU", used)
        if any(output.get_element_type() == openvino.Type.f16 for op in model.get_ops() for output in op.outputs()):
            widened = f"what the graph has in FP16 is computed in {_NAMES[hint]}, from weights in FP16"
            self.warnings = (*self.warnings, widened)
        if "framework" in model.rt_info:
            self.metadata = {name: value.astype(str) for name, value in model.rt_info["framework"].items()}
        self._path = path
        self._lock = threading.Lock()
        self._request: Any = compiled.create_infer_request()

    def __call__(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """Run once. Raises UsageError if the feeds do not fit, HiresvitError if the graph fails or answers nothing."""
        with self._lock:
            if self._request is None:
                raise UsageError(f"{self._path}: the runner is closed; open it again")
            check_feeds(feeds, self.inputs)
            arrays = {i: np.ascontiguousarray(feeds[spec.name]) for i, spec in enumerate(self.inputs)}
            try:
                found = self._request.infer(arrays, share_inputs=True)
            except Exception as error:
                raise HiresvitError(f"{self._path}: OpenVINO failed on this input ({_reason(error)})") from error
            answers = {spec.name: found[i] for i, spec in enumerate(self.outputs)}
        # OpenVINO does not say that a product or a sum does not fit the sizes it is given: its answer is empty.
        if empty := [name for name, array in answers.items() if not array.size]:
            raise HiresvitError(f"{self._path}: OpenVINO failed on this input ({', '.join(empty)} came back empty)")
        return answers

    def close(self) -> None:
        with self._lock:
            self._request = None


def find_precision(text: str | None) -> str:
    """OpenVINO's name of the precision that a text asks for, FP32 for None. Raises UsageError for one that is none."""
    if text is None:
        return PRECISIONS[0]
    if text.lower() not in PRECISIONS:
        raise UsageError(f"openvino computes in {' or '.join(PRECISIONS)}, not in {text!r}; give openvino:bf16")
    return text.lower()


def load_openvino() -> Any:
    """Import OpenVINO and start its CPU plugin. Raises MissingDependency."""
    try:
        import openvino
        import openvino.frontend

        openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
    except ModuleNotFoundError as error:
        raise MissingDependency(f"OpenVINO is not installed: {INSTALL_HINT}") from error
    except Exception as error:  # a shared library, or a plugin, that does not load
        raise MissingDependency(f"OpenVINO does not start here ({_reason(error)}): {INSTALL_HINT}") from error
    return openvino


def said_of_precision(openvino: Any, compiled: Any, hint: str) -> tuple[str, ...]:
    """What is to be said of the precision. Raises MissingDependency if OpenVINO took another one, as it may."""
    taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    core = openvino.Core()
    if taken != hint:
        cpu = str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip()
        raise MissingDependency(
            f"OpenVINO computes in {taken} on this CPU ({cpu}), not in {hint}: leave :{hint} out, or take a CPU with"
            " AVX512_BF16 or AMX"
        )
    if hint == PRECISIONS[0]:
        return ()
    said = f"computed in {_NAMES[hint]}, 8 bits of mantissa where FP32 has 24, as {hint} asks"
    if hint.upper() in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return (said,)
    return (f"{said}; this CPU has no instructions for it, so its time says nothing",)


def _read(openvino: Any, path: Path, name: str) -> Any:
    """The model, by the reader of ONNX alone: asked for any, others print on stderr what they think of a bad file."""
    reader = openvino.frontend.FrontEndManager().load_by_framework("onnx")
    model = reader.convert(reader.load(name))
    if not model.outputs:
        raise no_graph(path, "it has no outputs")
    return model


def _spec(port: Any, path: Path) -> TensorSpec:
    name, kind = port.get_any_name(), port.get_element_type().get_type_name()
    sizes = enumerate(port.get_partial_shape())
    shape = tuple(f"{name}_{axis}" if size.is_dynamic else size.get_length() for axis, size in sizes)
    return TensorSpec(name, numpy_dtype(kind, _DTYPES, path, name), shape)


def _reason(error: Exception) -> str:
    """The line that says what is wrong: the others say where in OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("Exception from", "Check '", "FrontEnd API"))]
    return said[-1] if said else str(error).strip()
