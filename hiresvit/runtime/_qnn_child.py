"""The child process that has Qualcomm's library: sessions of ONNX Runtime on the HTP, or on its emulator.

`hiresvit.runtime.qnn_runner` asks it for answers, `hiresvit.engine.htp` for a compiled context. Native code prints and
may crash; here it does so alone.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnxruntime
import onnxruntime_qnn

from hiresvit.device.chips import library_options
from hiresvit.device.qnn_api import PROVIDER, emulated
from hiresvit.errors import HiresvitError, MissingDependency
from hiresvit.process import peak_rss_bytes, serve
from hiresvit.runtime.qnn_log import node_name
from hiresvit.runtime.qnn_messages import Failed, Opened, Opening


class _Session:
    """One session at a time."""

    def __init__(self) -> None:
        onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
        self.session: Any = None

    def answer(self, question: Any) -> Any:
        try:
            return self._open(question) if isinstance(question, Opening) else self._run(question)
        except HiresvitError as error:
            return error
        except Exception as error:  # ONNX Runtime's exceptions share no base
            return Failed(str(error))

    def _open(self, how: Opening) -> Opened:
        self.session = None
        self.session = session = _session(how)
        return Opened(
            tuple((t.name, t.type, tuple(t.shape)) for t in session.get_inputs()),
            tuple((t.name, t.type, tuple(t.shape)) for t in session.get_outputs()),
            dict(session.get_modelmeta().custom_metadata_map),
            *_placed(session),
            peak_rss_bytes(),
        )

    def _run(self, feeds: dict[str, Any]) -> list[Any]:
        return [np.asarray(value) for value in self.session.run(None, feeds)]


def _session(how: Opening) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 0  # no slower (measured), and the only place that says why a node is refused
    # A refused node is an error that names it, and not the CPU's work.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", str(int(how.whole)))
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if how.context:
        options.add_session_config_entry("ep.context_enable", "1")
        options.add_session_config_entry("ep.context_file_path", how.context)
        options.add_session_config_entry("ep.context_embed_mode", "0")
    settings = {
        "backend_path": onnxruntime_qnn.get_qnn_htp_path(),
        "htp_graph_finalization_optimization_mode": "3",
        "enable_htp_fp16_precision": "1",  # a graph in FP32 is computed in FP16
        "offload_graph_io_quantization": "0",  # what quantizes the input runs there, too
        **({} if how.soc_model is None else library_options(how.soc_model)),
        **dict(how.options),
    }
    options.add_provider_for_devices([_device()], settings)
    # Else what fails, opening or a run, is silently done once more on the CPU.
    return onnxruntime.InferenceSession(how.path, options, enable_fallback=0)


def _device() -> Any:
    """The HTP, which its emulator lists as a CPU. Raises MissingDependency on a device that has none."""
    kinds = onnxruntime.OrtHardwareDeviceType
    wanted = kinds.CPU if emulated() else kinds.NPU
    for device in onnxruntime.get_ep_devices():
        if device.ep_name == PROVIDER and device.device.type == wanted:
            return device
    raise MissingDependency("ONNX Runtime finds no HTP here: this runs on Qualcomm's chips, and emulated on x86-64")


def _placed(session: Any) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Name and operator of the nodes on the HTP, and of those on the CPU."""
    placed: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
    for part in session.get_provider_graph_assignment_info():
        side = placed[part.ep_name != PROVIDER]
        side.extend((node_name(node.name), node.op_type) for node in part.get_nodes())
    return tuple(placed[0]), tuple(placed[1])


def main() -> None:
    """Serve on the descriptor that is the only argument."""
    serve(_Session().answer, int(sys.argv[1]))


if __name__ == "__main__":
    main()
