"""`hiresvit doctor`: what works on this machine."""

from __future__ import annotations

from hiresvit.commands import options as opt
from hiresvit.commands import output as out


def doctor(as_json: opt.Json = False) -> None:
    """Try what is installed here."""
    out.load_onnxruntime()
    from hiresvit.report.results import doctor_tables
    from hiresvit.workflows.doctor import examine, missing

    found = examine()
    out.answer(as_json, found, doctor_tables(found), missing(found))
