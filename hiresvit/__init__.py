"""hiresvit: from a PyTorch checkpoint of a high-resolution vision transformer to a verified engine on the edge.

The public verbs are here and are imported when they are first used, so that ``import hiresvit`` loads no torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from hiresvit.errors import missing_extra
from hiresvit.version import __version__

if TYPE_CHECKING:
    from hiresvit.calibration.calibrate import calibrate
    from hiresvit.calibration.qdq import quantize
    from hiresvit.check.check import check_graph
    from hiresvit.engine.build import build_engine
    from hiresvit.evaluation.accuracy import evaluate
    from hiresvit.evaluation.latency import measure_latency
    from hiresvit.evaluation.parity import compare
    from hiresvit.export.fp16 import to_fp16
    from hiresvit.export.onnx import export_onnx
    from hiresvit.export.simplify import simplify
    from hiresvit.models.create import create_model
    from hiresvit.models.fold import fold
    from hiresvit.models.zoo import list_models
    from hiresvit.runtime.open import open_runner
    from hiresvit.workflows.htp import make_htp
    from hiresvit.workflows.predictor import Predictor
    from hiresvit.workflows.quantize import make_int8

# ONNX Runtime keeps a device id and a record of its sessions in the user's home, and reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_VERBS = {
    "Predictor": "hiresvit.workflows.predictor",
    "build_engine": "hiresvit.engine.build",
    "calibrate": "hiresvit.calibration.calibrate",
    "check_graph": "hiresvit.check.check",
    "compare": "hiresvit.evaluation.parity",
    "create_model": "hiresvit.models.create",
    "evaluate": "hiresvit.evaluation.accuracy",
    "export_onnx": "hiresvit.export.onnx",
    "fold": "hiresvit.models.fold",
    "list_models": "hiresvit.models.zoo",
    "make_htp": "hiresvit.workflows.htp",
    "make_int8": "hiresvit.workflows.quantize",
    "measure_latency": "hiresvit.evaluation.latency",
    "open_runner": "hiresvit.runtime.open",
    "quantize": "hiresvit.calibration.qdq",
    "simplify": "hiresvit.export.simplify",
    "to_fp16": "hiresvit.export.fp16",
}

__all__ = [
    "Predictor",
    "__version__",
    "build_engine",
    "calibrate",
    "check_graph",
    "compare",
    "create_model",
    "evaluate",
    "export_onnx",
    "fold",
    "list_models",
    "make_htp",
    "make_int8",
    "measure_latency",
    "open_runner",
    "quantize",
    "simplify",
    "to_fp16",
]


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        try:
            return getattr(importlib.import_module(_VERBS[name]), name)
        except ModuleNotFoundError as error:
            raise missing_extra(error) or error from error
    raise AttributeError(f"module 'hiresvit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
