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
from hiresvit.device.qnn_api import PROVIDER
from hiresvit.process import serve
from hiresvit.runtime.qnn_messages import Failed, Opened, Opening


class _Session:
    """One session at a time."""

    def __init__(self) -> None:
        onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
        self.session: Any = None

    def answer(self, question: Any) -> Any:
        try:
            return self._open(question) if isinstance(question, Opening) else self._run(question)
        except Exception as error:  # ONNX Runtime's exceptions share no base
            return Failed(str(error))

    def _open(self, how: Opening) -> Opened:
        self.session = None
        self.session = session = _session(how)
        return Opened(
            tuple((t.name, t.type, tuple(t.shape)) for t in session.get_inputs()),
            tuple((t.name, t.type, tuple(t.shape)) for t in session.get_outputs()),
            dict(session.get_modelmeta().custom_metadata_map),
        )

    def _run(self, feeds: dict[str, Any]) -> list[Any]:
        return [np.asarray(value) for value in self.session.run(None, feeds)]


def _session(how: Opening) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 0 if how.verbose else 2
    # A refused node is an error that names it, and not the CPU's work.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", str(int(how.whole)))
    if how.context:
        options.add_session_config_entry("ep.context_enable", "1")
        options.add_session_config_entry("ep.context_file_path", how.context)
        options.add_session_config_entry("ep.context_embed_mode", "0")
    settings = {
        "backend_path": onnxruntime_qnn.get_qnn_htp_path(),
        "htp_graph_finalization_optimization_mode": "3",
        "enable_htp_fp16_precision": "1",  # a graph in FP32 is computed in FP16
        **library_options(how.soc_model),
        "offload_graph_io_quantization": "0",  # what quantizes the input runs there, too
        **dict(how.options),
    }
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]
    options.add_provider_for_devices(devices[:1], settings)
    session = onnxruntime.InferenceSession(how.path, options)
    session.disable_fallback()  # else a run that fails is silently computed once more, on the CPU
    return session


def main() -> None:
    """Serve on the descriptor that is the only argument."""
    serve(_Session().answer, int(sys.argv[1]))


if __name__ == "__main__":
    main()
