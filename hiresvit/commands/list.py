"""`hiresvit list`: the models that there are."""

from __future__ import annotations

from hiresvit.commands import options as opt
from hiresvit.commands import output as out


def list_models(as_json: opt.Json = False) -> None:
    """List the models: tasks, sizes, parameters, MACs."""
    from hiresvit.models.zoo import MODELS
    from hiresvit.report.results import models_report
    from hiresvit.workflows.inspect import describe_model

    models = [describe_model(name) for name in MODELS]
    out.answer(as_json, {"models": models}, models_report(models))
