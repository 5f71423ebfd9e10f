"""The one table of stages, and what is derived from it for people to type."""

from __future__ import annotations

import re
from pathlib import Path

from hiresvit.bundle.stages import (
    BUILDABLE,
    CALIBRATING,
    EMULATED,
    GRAPHS,
    HTP,
    LIMITS,
    PLANS,
    RUNNABLE,
    STAGES,
    either,
    stage_path,
)
from hiresvit.commands.export import export
from hiresvit.evaluation.parity import GATES, Gate
from hiresvit.spec import HTP_FORMS


def test_each_stage_comes_after_its_parent_and_has_a_file_of_its_own() -> None:
    names: list[str | None] = [None]
    for name, stage in STAGES.items():
        assert stage.name == name
        assert stage.parent in names
        names.append(name)
    assert len({stage.file for stage in STAGES.values()}) == len(STAGES)


def test_a_plan_is_made_from_a_graph_and_held_to_its_gate() -> None:
    for plan in PLANS:
        parent = STAGES[plan].parent
        assert parent in BUILDABLE
        assert STAGES[plan].gate == STAGES[parent].gate
        assert STAGES[plan].limits is None
    assert {name: STAGES[name].gate in GATES for name in RUNNABLE} == dict.fromkeys(RUNNABLE, True)


def test_the_words_of_the_command_line_and_of_reports_stay() -> None:
    """They are in scripts, and in the manifests and graphs that are out there."""
    assert GRAPHS == ("fp32", "simplified", "cpu", "fp16", "int8", "htp_fp16", "htp_a16w8", "htp_a8w8")
    assert (*GRAPHS, "plan", "int8_plan") == RUNNABLE
    assert BUILDABLE == ("fp16", "int8", "simplified", "fp32")
    assert CALIBRATING == ("fp32", "simplified")
    htp = ["htp_fp16", "htp_a16w8", "htp_a8w8"]
    emulated = ["htp_fp16 emulated", "htp_a16w8 emulated", "htp_a8w8 emulated"]
    assert list(LIMITS) == ["onnx", "simplified", "cpu", "fp16", "int8", *htp, "fp16 exact", *emulated]
    assert htp == list(HTP.values()) == [f"htp_{form}" for form in HTP_FORMS]
    assert emulated == list(EMULATED.values()) == [f"{stage} emulated" for stage in htp]
    assert stage_path(Path("b"), "int8_plan_info") == Path("b/int8.plan.json")


def test_the_help_of_export_names_every_gate() -> None:
    words = " ".join((export.__doc__ or "").split())
    assert f"as STAGE=VALUE for one: {either(list(GATES))}." in words


def test_limits_are_gates() -> None:
    assert GATES["fp16"] == Gate(min_sqnr_db=38.0, min_cosine=0.9995, min_agreement=0.94)
    assert re.fullmatch(r"([\w ]+, )+[\w ]+ or [\w ]+", either(list(GATES)))
