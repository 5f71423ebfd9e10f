"""Requirements on the arithmetic of an HTP, without its library."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hiresvit.device.context import Departed, HtpReport
from hiresvit.engine.htp_arithmetic import check_form_requirement, parse_form_requirement
from hiresvit.errors import GateError, UsageError


def report(macs: dict[str, int], *departed: Departed) -> HtpReport:
    return HtpReport("ar1", 46, 73, 2, {}, 1, 0, (), {}, {}, macs, departed, 1, 0.1, 1, ())


@pytest.mark.parametrize(
    ("macs", "text"),
    [
        ({"u16,s8": 90, "u16,s16": 10}, "a16w8:100%"),
        ({"u8,s8": 100}, "a16w8:100%"),
        ({"u8,s8": 95, "u16,s8": 5}, "a8w8:95%"),
        ({"fp16,fp16": 60, "u16,s8": 40}, "fp16:100%"),
        ({"fp16,fp16": 7, "u8,u8": 93}, "a8w8:93%"),
    ],
)
def test_met(macs: dict[str, int], text: str) -> None:
    check_form_requirement(parse_form_requirement(text), report(macs))


@pytest.mark.parametrize(
    ("macs", "text", "said"),
    [
        ({"u16,s8": 90, "fp16,fp16": 10}, "a16w8:100%", r"90 % realised \(fp16,fp16 10 %\)"),
        ({"u16,s8": 90, "u8,u8": 10}, "a8w8:50%", r"10 % realised \(u16,s8 90 %\)"),
        ({"u16,s8": 90, "unknown": 10}, "fp16:95%", r"90 % realised \(unknown 10 %\)"),
        ({"u16,s8+fp16,fp16": 1}, "a16w8:1%", "0 % realised"),
        ({}, "a16w8:1%", "the graph has no products"),
    ],
)
def test_missed(macs: dict[str, int], text: str, said: str) -> None:
    with pytest.raises(GateError, match=said):
        check_form_requirement(parse_form_requirement(text), report(macs))


def test_what_is_not_computed_as_stated_meets_nothing() -> None:
    narrowed = Departed("a/MatMul", "a", "u16,s16", "u16,u8", 10)
    with pytest.raises(GateError, match=r"90 % realised; not as stated: a/MatMul \(u16,s16 computed in u16,u8\)"):
        check_form_requirement(("a16w8", 1.0), report({"u16,s8": 90, "u16,u8": 10}, narrowed))


def test_what_cannot_be_counted_meets_nothing() -> None:
    with pytest.raises(GateError, match="how much is multiplied in STFT 'a' cannot be counted"):
        check_form_requirement(("a16w8", 0.1), replace(report({"u16,s8": 90}), uncounted=("STFT 'a'",)))


@pytest.mark.parametrize("text", ["int8:95%", "a16w8", "a16w8:0%", "a16w8:101%", "a16w8:95"])
def test_no_requirement(text: str) -> None:
    with pytest.raises(UsageError, match="give one of fp16, a16w8, a8w8 and a share"):
        parse_form_requirement(text)
